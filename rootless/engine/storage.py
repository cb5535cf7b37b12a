"""Which driver carries the roots of containers: the kernel's overlayfs, or ours on FUSE.

`--storage-driver` or config.toml say so; else it is tried out: a child enters the user's namespace and has an overlay
in the store do what containers do, and where that is refused (a home on NFS, a store on another overlay, no module), it
is `fuse`. What came of it is kept in the run directory until the machine boots again or `info` looks anew.
The upper directory of a container is the same with both.
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rootless.errors import HostUnsupported
from rootless.linux import files, processes
from rootless.runtime import sealed
from rootless.spec.runtime import Config, escape_overlay, split_overlay, unescape_overlay
from rootless.store.layout import Layout
from rootless.store.marks import WhiteoutStyle

OVERLAY, FUSE = DRIVERS = ("overlay", "fuse")
_MAX_KNOWN = 4096


class Obstacle(NamedTuple):
    """Why a driver cannot be used, and what could be done about it; both are empty where it can."""

    reason: str = ""
    remedy: str = ""


class Found(NamedTuple):
    """What was found out about a store by trying."""

    overlay_refused: bool  # no overlay can be mounted in it
    devices_refused: bool  # nor can its layers be marked as overlayfs marks them


def find(layout: Layout, enter_namespace: Callable[[], object]) -> Found:
    """What is known of the store, tried out if it is not known."""
    found = _load(layout)
    if found is None:
        from rootless.engine import storage_probe  # in the first command after a boot only

        try:
            enter_namespace()
        except HostUnsupported:
            return Found(False, False)  # nothing can run: who wants to run something will be told why
        found = Found(*storage_probe.in_child(lambda: storage_probe.find(layout), "overlayfs"))
        save(layout, found)
    return found


def _load(layout: Layout) -> Found | None:
    try:
        with open(layout.run_path("driver"), "rb") as file:
            known = json.loads(file.read(_MAX_KNOWN))
        return Found(*known["found"]) if known["boot_id"] == processes.boot_id() else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def save(layout: Layout, found: Found) -> None:
    """Remember what was found."""
    known = {"found": found, "boot_id": processes.boot_id()}
    files.replace_file(layout.run_path("driver"), json.dumps(known).encode(), durable=False)


def check_fuse() -> None:
    """Raise HostUnsupported where there is an obstacle to the driver fuse."""
    from rootless.engine import storage_probe  # who has the kernel's overlayfs does without

    reason, remedy = storage_probe.try_fuse()
    if reason:
        raise HostUnsupported(f"the storage driver fuse cannot be used: {reason}", hint=remedy)


def union_settings(config: Config, run_directory: str) -> dict[str, Any] | None:
    """What the monitor needs to serve the root of *config* (union_server.py); None where the kernel does.

    Each layer is an option of its own, as a word may not be longer than 128 KiB, execve(2).
    """
    root = next((m for m in config["mounts"] if m["destination"] == "/" and m["type"] == FUSE), None)
    if root is None:
        return None
    given = dict(option.partition("=")[::2] for option in root["options"])
    lowers = [f"lowerdir+={path}" for path in split_overlay(given.pop("lowerdir"), ":")]
    options = [*lowers, *(f"{name}={value}" if value else name for name, value in given.items())]
    return {
        "argv": [*sealed.command("fuse.__main__", third_party=True), *(w for o in options for w in ("-o", o))],
        "log": os.path.join(run_directory, "fuse.log"),
        "work": unescape_overlay(given["workdir"]),
    }


def root_mount(
    driver: str, lowers: list[str], directory: str, style: WhiteoutStyle, more: Sequence[str] = ()
) -> Config:
    """The root of a container: *lowers*, top first, below the upper directory in the container's own *directory*.

    *style* is how the layers of the store are marked. Where that is overlayfs's way, a container may make files that
    are called as marks are elsewhere, and finds them again with either driver. *more* are options of the driver.
    """
    words = ["userxattr"]
    if driver == FUSE:
        check_fuse()
        words += ["marks=overlay"] if style is WhiteoutStyle.OVERLAY else []
    own = escape_overlay(directory)
    options = [f"lowerdir={':'.join(map(escape_overlay, lowers))}", f"upperdir={own}/upper", f"workdir={own}/work"]
    return {"destination": "/", "type": driver, "source": driver, "options": [*options, *words, *more]}
