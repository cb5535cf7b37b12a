"""Layers out of archives, unpacked as root of a user namespace, and what is there then.

done = unpack(tmp_path, archive(entry(b"etc/passwd", content=b"x"))).checked()
assert done.tree[b"etc/passwd"].content == b"x"
"""

import os
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rootless.errors import CorruptData
from rootless.linux.removal import remove_tree
from rootless.store.tar import DEFAULT_LIMITS, TarLimits
from rootless.store.unpack import Ids, WhiteoutStyle, settle_implicit, unpack_layer
from tests.support.evil_tar import DIRECTORY, HARD_LINK, SYMLINK, entry
from tests.support.userns import in_namespace


class Node(NamedTuple):
    """One file, as lstat(2) and reading show it."""

    mode: int  # with the type
    owner: tuple[int, int]
    mtime_ns: int
    content: bytes  # or the target of a link
    xattrs: tuple[tuple[str, bytes], ...]
    rdev: int
    inode: int
    blocks: int  # of 512 bytes

    @property
    def permissions(self) -> int:
        return stat.S_IMODE(self.mode)

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def is_whiteout(self) -> bool:
        return self.kind == stat.S_IFCHR and self.rdev == 0

    @property
    def is_opaque(self) -> bool:
        return ("user.overlay.opaque", b"y") in self.xattrs


Tree = dict[bytes, Node]


def look(path: bytes) -> Node:
    info = os.lstat(path)
    content = b""
    if stat.S_ISREG(info.st_mode):
        content = Path(os.fsdecode(path)).read_bytes()
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    owner = (info.st_uid, info.st_gid)
    return Node(info.st_mode, owner, info.st_mtime_ns, content, xattrs, info.st_rdev, info.st_ino, info.st_blocks)


def look_below(top: Path) -> Tree:
    """All files in *top*, which is b"" itself, by their path from there."""
    raw = os.fsencode(top)
    found = {b"": look(raw)}
    for where, directories, files in os.walk(raw):
        for name in directories + files:
            path = os.path.join(where, name)
            found[os.path.relpath(path, raw)] = look(path)
    return found


class Outcome(NamedTuple):
    """What unpacking one layer came to."""

    error: str
    tree: Tree
    entries: int = 0
    size: int = 0
    implicit: Sequence[bytes] = ()
    recorded: Sequence[tuple[Any, ...]] = ()
    squashed: int = 0
    dropped: int = 0

    def checked(self) -> "Outcome":
        assert self.error == ""
        return self


def pieces(data: bytes) -> Iterator[bytes]:
    yield from (data[at : at + 1000] for at in range(0, len(data), 1000))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """A new directory, which goes in the end: the account outside cannot remove what belongs to other ids."""
    path.mkdir()
    try:
        with opened(path) as fd:
            yield fd
    finally:
        with opened(path.parent) as parent_fd:
            remove_tree(parent_fd, path.name)


def unpack(
    tmp_path: Path,
    data: bytes | Iterable[bytes],
    *,
    one_id: bool = False,
    style: WhiteoutStyle = WhiteoutStyle.OVERLAY,
    limits: TarLimits = DEFAULT_LIMITS,
    umask: int = 0o022,
    ids: Ids | None = None,
) -> Outcome:
    """Unpack a layer in a namespace, look at it, and remove it."""

    def act() -> dict[str, Any]:
        os.umask(umask)
        with directory(tmp_path / "layer") as fd:
            before = len(os.listdir("/proc/self/fd"))
            try:
                chunks = pieces(data) if isinstance(data, bytes) else data
                done = unpack_layer(chunks, fd, whiteouts=style, ids=ids or Ids.present(), limits=limits)
            except (CorruptData, OSError) as error:
                result: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
            else:
                recorded = [tuple(record) for record in done.recorded]
                rest = {"size": done.size, "entries": done.entries, "implicit": sorted(done.implicit)}
                counts = {"squashed": done.squashed, "dropped": done.dropped_xattrs}
                result = {"error": "", "recorded": recorded, **rest, **counts}
            assert len(os.listdir("/proc/self/fd")) == before
            tree = {path: tuple(node) for path, node in look_below(tmp_path / "layer").items()}
            return {**result, "tree": tree}

    result = in_namespace(act, one_id=one_id)
    tree = {path: Node(*fields) for path, fields in result.pop("tree").items()}
    return Outcome(tree=tree, **result)


def mounted(tmp_path: Path, *layers: bytes, style: WhiteoutStyle = WhiteoutStyle.OVERLAY, mount: bool = True) -> Tree:
    """Unpack and settle layers, bottom first, and look at them through an overlay; or at the top one alone."""

    def act() -> dict[bytes, tuple[Any, ...]]:
        tops: list[Path] = []
        fds: list[int] = []
        with directory(tmp_path / "stack"), directory(tmp_path / "stack/merged"), directory(tmp_path / "stack/0"):
            for number, layer in enumerate(layers, 1):
                top = tmp_path / f"stack/{number}"
                top.mkdir()
                fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
                done = unpack_layer(pieces(layer), fd, whiteouts=style, ids=Ids.present())
                settle_implicit(fd, done.implicit, fds, whiteouts=style, marked=done.marked)
                tops.insert(0, top)
                fds.insert(0, fd)
            for fd in fds:
                os.close(fd)
            merged = tmp_path / "stack/merged"
            if not mount:
                return {path: tuple(node) for path, node in look_below(tops[0]).items()}
            lower = ":".join(map(str, [*tops, tmp_path / "stack/0"]))
            options = f"lowerdir={lower},userxattr"
            subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
            try:
                return {path: tuple(node) for path, node in look_below(merged).items()}
            finally:
                subprocess.run(["umount", str(merged)], check=True)

    return {path: Node(*fields) for path, fields in in_namespace(act).items()}


def paths(tree: Tree) -> set[bytes]:
    return set(tree) - {b""}


# The members that most archives here are made of


def link(name: bytes, target: bytes) -> bytes:
    return entry(name, SYMLINK, link=target)


def hard(name: bytes, target: bytes) -> bytes:
    return entry(name, HARD_LINK, link=target)


def folder(name: bytes, mode: int = 0o755) -> bytes:
    return entry(name, DIRECTORY, mode=mode)
