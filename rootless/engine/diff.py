"""diff: what a container changed in its root file system, read from its upper directories alone."""

import os
import stat
from collections.abc import Iterator, Sequence

from rootless.engine.context import Engine
from rootless.engine.settle import settle
from rootless.store import marks
from rootless.store.containers import Record
from rootless.store.marks import WhiteoutStyle

ADDED, CHANGED, DELETED = "A", "C", "D"
_OPAQUE = "user.overlay.opaque"
_WHITEOUT, _OPAQUE_FILE = os.fsdecode(marks.WHITEOUT), os.fsdecode(marks.OPAQUE)
_MADE_FOR_MOUNTS = {"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}


def diff(engine: Engine, container_id: str) -> list[tuple[str, str]]:
    """(kind, path) of every change, by path. Mount points that were only made for a mount are left out."""
    engine.enter_namespace()
    record = engine.containers.load(container_id)
    settle(engine, container_id)
    mounted = {m["destination"] for m in record["mounts"]} | _MADE_FOR_MOUNTS
    changes = [
        change
        for upper, lowers, prefix in _trees(engine, record)
        for change in _Changes(record.get("host_hidden", ()), engine.whiteout_style).find(upper, lowers, prefix)
        if not (change[1] in mounted and _is_stub(upper + change[1][len(prefix) :]))
    ]
    made = {parent for path in record.get("host_hidden", ()) for parent in _parents(path)}
    return sorted(_without_idle_parents(changes, made), key=lambda change: change[1])


def _parents(path: str) -> Iterator[str]:
    while (path := os.path.dirname(path)) != "/":
        yield path


def _trees(engine: Engine, record: Record) -> list[tuple[str, list[str], str]]:
    """(upper directory, lower directories top first, where they are mounted)."""
    directory = engine.containers.directory(record["id"])
    if record["image_id"]:
        return [(f"{directory}/upper", [engine.layers.diff(c) for c in reversed(record["layers"])], "")]
    if not record["host_mounts"]:
        return [(f"{directory}/upper", ["/"], "")]
    return [(f"{directory}/host/{o['number']}/upper", [o["path"]], o["path"]) for o in record["host_mounts"]]


class _Changes:
    """Reads layers. In the style of overlayfs a file that is called `.wh.x` is just a file: containers may make one."""

    def __init__(self, hidden: Sequence[str], style: WhiteoutStyle) -> None:
        """*hidden* are paths that were made to hide something, before the container ran."""
        self._hidden_paths = hidden
        self._has_files = style is WhiteoutStyle.FUSE

    def find(self, upper: str, lowers: list[str], prefix: str) -> Iterator[tuple[str, str]]:
        """What *upper* changes of *lowers*; *prefix* goes before the paths."""
        pending = [("", lowers)]
        while pending:
            relative, below = pending.pop()
            for name in os.listdir(upper + relative):
                path = f"{relative}/{name}"
                if path in self._hidden_paths or (self._has_files and name == _OPAQUE_FILE):
                    continue
                status = os.lstat(upper + path)
                if self._has_files and name.startswith(_WHITEOUT):
                    if not os.path.lexists(f"{upper}{relative}/{name[len(_WHITEOUT) :]}"):
                        yield DELETED, f"{prefix}{relative}/{name[len(_WHITEOUT) :]}"
                    continue
                existed = self._exists(below, path)
                if _is_device(status):
                    yield DELETED, prefix + path
                    continue
                yield CHANGED if existed else ADDED, prefix + path
                if stat.S_ISDIR(status.st_mode):
                    if self._is_opaque(upper + path) or not existed:
                        yield from ((DELETED, prefix + p) for p in self._hidden(below, path, upper) if existed)
                        pending.append((path, []))
                    else:
                        pending.append((path, below))

    def _exists(self, lowers: list[str], path: str) -> bool:
        """Whether the layers below show *path*."""
        for lower in lowers:
            try:
                return not _is_device(os.lstat(lower + path))
            except FileNotFoundError:
                if self._is_covered(lower, path):
                    return False
            except NotADirectoryError:
                return False
        return False

    def _is_covered(self, lower: str, path: str) -> bool:
        """Whether *lower*, which does not have *path*, hides that of the layers below it."""
        while path not in ("", "/"):
            parent, name = os.path.split(path)
            if self._has_files and os.path.lexists(f"{lower}{parent.rstrip('/')}/{_WHITEOUT}{name}"):
                return True
            if parent != "/" and os.path.lexists(lower + parent) and self._is_opaque(lower + parent):
                return True
            path = parent
        return False

    def _hidden(self, lowers: list[str], path: str, upper: str) -> list[str]:
        """The entries of a directory below that an opaque one hides, and does not have itself."""
        names: set[str] = set()
        for lower in reversed(lowers):
            try:
                if self._is_opaque(lower + path):
                    names.clear()
                for name in os.listdir(lower + path):
                    if self._has_files and name.startswith(_WHITEOUT):
                        names.discard(name[len(_WHITEOUT) :])
                        continue
                    names.discard(name)
                    if not _is_device(os.lstat(f"{lower}{path}/{name}")):
                        names.add(name)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return [f"{path}/{name}" for name in names if not os.path.lexists(f"{upper}{path}/{name}")]

    def _is_opaque(self, path: str) -> bool:
        if self._has_files and os.path.lexists(f"{path}/{_OPAQUE_FILE}"):
            return True
        try:
            return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
        except OSError:
            return False


def _is_device(status: os.stat_result) -> bool:
    """Whether this is overlayfs's whiteout."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_stub(path: str) -> bool:
    """Whether there is only what a mount needed to hold on to: an empty file or directory."""
    try:
        return os.path.getsize(path) == 0 if os.path.isfile(path) else not os.listdir(path)
    except OSError:
        return False


def _without_idle_parents(changes: list[tuple[str, str]], made: set[str]) -> list[tuple[str, str]]:
    """Leave out changed directories below which nothing is left: they came up for a mount point, or are of *made*."""
    kept = {path for kind, path in changes}
    idle = {
        path
        for kind, path in changes
        if kind == CHANGED
        and path in {"/etc", "/dev", "/proc", "/sys", *made}
        and not any(p.startswith(path + "/") for p in kept)
    }
    return [change for change in changes if change[1] not in idle]
