"""Several unions over the same lower layers, side by side in one namespace.

    with rig() as r:
        r.build([[("file", "a", 0o644, 0, "above")], [("file", "b", 0o644, 0, "below")]])
        with r.mounted("one", "ours") as one, r.mounted("other", "kernel") as other:
            assert r.call(show, one) == r.call(show, other)
        with r.mounted("third", "kernel", above="one") as third:      # over the upper directory that ours has written
            …

"plain" is a third kind beside those of tests/support/fuse.py: no union, but a copy of what the layers show, on an
ordinary file system. It says what POSIX says, where the kernel's overlayfs does not (a directory of a lower layer that
is renamed, the count of links).
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tests.support import fuse
from tests.support.union_model import Entry, build, flatten, missing

T = TypeVar("T")
Layers = Sequence[Sequence[Entry]]


class Rig:
    """A namespace, and in it a directory `place` for one set of layers at a time."""

    def __init__(self, union: fuse.Union) -> None:
        self.union = union
        self.place = str(union.base / "rig")
        self.lowers: list[str] = []

    def call(self, function: Callable[..., T], *args: object) -> T:
        """What *function* returns in the namespace."""
        return self.union.call(function, *args)

    def build(self, layers: Layers) -> None:
        """Remove what was there, and make *layers*, the topmost first."""
        self.lowers = [f"{self.place}/lower{number}" for number in range(len(layers))]
        self.call(_build, self.place, self.lowers, [list(layer) for layer in layers])

    def upper(self, name: str) -> str:
        """The upper directory of the union *name*."""
        return f"{self.place}/{name}/upper"

    @contextlib.contextmanager
    def mounted(self, name: str, kind: str, *, above: str = "", options: str = "") -> Iterator[str]:
        """The mount point. With *above*, the upper directory of that other union is the topmost lower, read-only."""
        base = f"{self.place}/{name}"
        lowers = [self.upper(above), *self.lowers] if above else self.lowers
        self.call(_mount, base, kind, lowers, not above, options)
        try:
            yield f"{base}/merged"
        finally:
            if kind != "plain":
                self.call(_unmount, base)

    @contextlib.contextmanager
    def traced(self, name: str, *strace: str) -> Iterator[str]:
        """Ours, run by strace with these options; its server may be killed meanwhile. The mount point."""
        base = f"{self.place}/{name}"
        self.call(_mount_traced, base, self.lowers, list(strace))
        try:
            yield f"{base}/merged"
        finally:
            self.call(_kill, base)

    def kill(self, name: str) -> None:
        """End the server of *name* as a crash does."""
        self.call(_kill, f"{self.place}/{name}")

    def log(self, name: str) -> str:
        """What the server of *name* said."""
        return self.call(_read, f"{self.place}/{name}/log")


@contextlib.contextmanager
def rig(*, base: str = "/dev/shm") -> Iterator[Rig]:
    """A rig without layers."""
    with fuse.union([{}], mounted=False, base=base) as union:
        yield Rig(union)


# In the namespace


def _build(place: str, lowers: list[str], layers: list[list[Entry]]) -> None:
    if os.path.exists(place):
        shutil.rmtree(place)
    os.mkdir(place)
    for directory, entries in zip(lowers, layers, strict=True):
        os.mkdir(directory, 0o755)
        build(directory, entries)
    while _idle_whiteouts(place, lowers):
        pass


def _idle_whiteouts(place: str, lowers: list[str]) -> bool:
    """Remove those that the kernel lists, in a directory that only one layer has, and then does not find."""
    base = f"{place}/tidy"
    _mount(base, "kernel", [*lowers, f"{base}/upper"], False, "")
    try:
        idle = list(missing(f"{base}/merged"))
    finally:
        _unmount(base)
        shutil.rmtree(base)
    removed = [_remove_whiteout(f"{lower}/{path}") for path in idle for lower in lowers]
    assert any(removed) or not idle, (idle, removed)
    return bool(idle)


def _remove_whiteout(path: str) -> bool:
    try:
        if found := stat.S_ISCHR(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:  # the path is not that in this layer: it is not there, no directory, or leads in a circle
        return False
    return found


def _mount(base: str, kind: str, lowers: list[str], writable: bool, options: str) -> None:
    for name in ("", "/upper", "/work", "/merged"):
        os.makedirs(base + name, 0o755, exist_ok=True)
    parts = ["lowerdir=" + ":".join(lowers), *filter(None, [options])]
    if kind == "plain":
        _copy(base, parts[0])
        return
    if writable:
        parts += [f"upperdir={base}/upper", f"workdir={base}/work"]
    fuse._mount(kind, ",".join(parts), base, {})  # type: ignore[arg-type]


def _mount_traced(base: str, lowers: list[str], strace: list[str]) -> None:
    for name in ("", "/upper", "/work", "/merged"):
        os.makedirs(base + name, 0o755, exist_ok=True)
    options = f"lowerdir={':'.join(lowers)},upperdir={base}/upper,workdir={base}/work"
    with open(f"{base}/log", "ab") as log:
        before = ["strace", "-f", "--seccomp-bpf", "-qq", *strace, "--"]
        fuse._servers[base] = fuse._start_ours(options, f"{base}/merged", log.fileno(), {}, before)


def _copy(base: str, lowerdir: str) -> None:
    os.makedirs(f"{base}/union/merged")
    empty = f"{base}/union/empty"
    os.mkdir(empty)
    fuse._mount("kernel", f"{lowerdir}:{empty}", f"{base}/union", {})
    try:
        flatten(f"{base}/union/merged", f"{base}/merged")
    finally:
        fuse._unmount(f"{base}/union")


def _unmount(base: str) -> None:
    if base not in fuse._servers or fuse._servers[base][0].poll() is None:
        fuse._unmount(base)


def _kill(base: str) -> None:
    fuse._kill(base)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="backslashreplace") as file:
        return file.read()
