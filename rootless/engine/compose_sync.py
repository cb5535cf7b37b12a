"""Sending changed files into containers, as `compose watch` does: what is there is copied, what is not is removed.

The files of all changed paths go through one archive, which is made once and unpacked in each container: with root as
their owner, and the modes and times that they have here. Both sides are reached by descriptors that no path leads out
of: a container that shares the directory with the user may swap links into it at any moment.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from rootless.engine.container_root import opened_root
from rootless.engine.context import Engine
from rootless.errors import RootlessError
from rootless.linux.inroot import open_in_root, open_parent
from rootless.linux.removal import remove_tree
from rootless.store.extract import extract
from rootless.store.marks import lstat
from rootless.store.pack import TreeWriter
from rootless.store.tar_write import TarWriter

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PIECE = 1 << 18
_MISSING = (FileNotFoundError, NotADirectoryError)


class Sync(NamedTuple):
    """Paths below *source* that changed, each with where it is in containers; *source* is a directory or a file.

    What *wants* says of what is found in directories, told the path and whether it is one, decides what is sent of it.
    """

    source: str
    paths: Sequence[tuple[str, str]]
    wants: Callable[[str, bool], bool] = lambda path, is_directory: True


class Prepared(NamedTuple):
    """What is sent: an archive of all that is there, and what is to be no more, by its path in containers."""

    archive: IO[bytes]
    gone: tuple[str, ...]
    directories: Mapping[str, bool]  # what is in the archive, and whether it is a directory


@contextmanager
def prepared(syncs: Iterable[Sync], replaced: Collection[str] = ()) -> Iterator[Prepared]:
    """The changes as they are at this moment; *replaced* are paths that are something else than they were.

    Raises OSError for what cannot be read.
    """
    with TemporaryFile() as archive:
        writer = TarWriter(archive.write)
        packer = _Packer(TreeWriter(writer), replaced)
        for sync in syncs:
            packer.pack(sync)
        writer.finish()
        archive.flush()
        yield Prepared(archive, tuple(dict.fromkeys(packer.gone)), packer.directories)


class _Packer:
    """Puts what is at changed paths into an archive, and notes what is not there."""

    def __init__(self, tree: TreeWriter, replaced: Collection[str]) -> None:
        self._tree = tree
        self._replaced = replaced
        self.gone: list[str] = []
        self.directories: dict[str, bool] = {}

    def pack(self, sync: Sync) -> None:
        top = sync.source if os.path.isdir(sync.source) else os.path.dirname(sync.source)
        try:
            top_fd = os.open(top, _OPEN_DIRECTORY)
        except _MISSING:
            self.gone += [target for _, target in sync.paths]
            return
        try:
            for path, target in sync.paths:
                self._pack_path(top_fd, top, path, target, sync.wants)
        finally:
            os.close(top_fd)

    def _pack_path(self, top_fd: int, top: str, path: str, target: str, wants: Callable[[str, bool], bool]) -> None:
        """Put in what is at a path, with what is in it."""
        pending = [(path, target)]
        while pending:
            path, target = pending.pop()
            below = os.path.relpath(path, top)
            is_directory = True if below == "." else self._pack_entry(top_fd, below, target)
            if is_directory is None:
                self.gone.append(target)
                continue
            if below != ".":  # the top may be a link in containers
                self.directories[target] = is_directory
            if not is_directory:
                continue
            if path in self._replaced:
                self.gone.append(target)
            for name, inner in _listed(top_fd, below):
                if wants(os.path.join(path, name), inner):
                    pending.append((os.path.join(path, name), os.path.join(target, name)))

    def _pack_entry(self, top_fd: int, below: str, target: str) -> bool | None:
        """Put in one entry; whether it is a directory, None where nothing is there."""
        try:
            parent_fd, name = open_parent(top_fd, below)
        except _MISSING:
            return None
        try:
            return self._tree.write_entry(parent_fd, name, os.fsencode(target.lstrip("/")), lstat(name, parent_fd))
        except _MISSING:
            return None
        finally:
            os.close(parent_fd)


def _listed(top_fd: int, below: str) -> list[tuple[str, bool]]:
    """What is in a directory, and which of it is a directory; nothing where it is gone."""
    try:
        fd = open_in_root(top_fd, below, _OPEN_DIRECTORY | os.O_NOFOLLOW)
    except _MISSING:
        return []
    try:
        with os.scandir(fd) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(fd)


def send(engine: Engine, container_id: str, changes: Prepared) -> None:
    """Make the changes in a container. Raises RootlessError."""
    try:
        with opened_root(engine, container_id) as root:
            for target in changes.gone:
                _remove(root.fd, target)
            for target, is_directory in changes.directories.items():
                _make_room(root.fd, target, is_directory)

            def follow(below: bytes) -> int:
                return open_in_root(root.fd, b"/" + below, _OPEN_DIRECTORY)

            extract(_chunks(changes.archive.fileno()), root.fd, owner=lambda member: (0, 0), follow=follow)
    except OSError as error:
        shown = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        raise RootlessError(f"{shown}{error.strerror}") from error


def _chunks(fd: int) -> Iterator[bytes]:
    """The archive, whoever else reads it."""
    offset = 0
    while chunk := os.pread(fd, _PIECE, offset):
        offset += len(chunk)
        yield chunk


def _remove(root_fd: int, target: str) -> None:
    with suppress(*_MISSING):
        parent_fd, name = open_parent(root_fd, target)
        try:
            remove_tree(parent_fd, name)
        finally:
            os.close(parent_fd)


def _make_room(root_fd: int, target: str, is_directory: bool) -> None:
    """Remove a directory that something else is to replace, and something else, also a link, that a directory is to."""
    with suppress(*_MISSING):
        fd = open_in_root(root_fd, target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            was_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
        if was_directory != is_directory:
            _remove(root_fd, target)
