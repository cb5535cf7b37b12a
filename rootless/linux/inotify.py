"""Changes to files as they happen: inotify(7), for whole trees.

The kernel tells of the entries of single directories. So each directory of a tree has a watch, and one that appears
gets one before it is listed: what was put there in between is told twice rather than never. The directory above each
path is watched as well, for the path's name alone: so a path may be made, or made anew, while it is watched.

Where more happens than the kernel's queue holds (fs.inotify.max_queued_events), some of it is lost. That is told, and
all directories are looked for once more.
"""

import os
import select
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import NamedTuple

from rootless.linux.libc import check, libc

# <sys/inotify.h>
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO = 0x40, 0x80
_CREATE, _DELETE = 0x100, 0x200
_Q_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW, _ISDIR = 0x0100_0000, 0x0200_0000, 0x4000_0000
_MASK = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE

_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_BUFFER = 65536


class Change(Enum):
    """What has happened to a path."""

    THERE = "there"  # made, written, moved there, or given other attributes
    GONE = "gone"  # removed, or moved away; of a directory: with all that is in it
    LOST = "lost"  # not told what: more happened than the kernel remembers


class Changed(NamedTuple):
    """What has happened to *path*, which is "" where changes were lost."""

    path: str
    change: Change


class _Directory(NamedTuple):
    """What a watch is for: the entries of these names, or all (None)."""

    path: str
    names: frozenset[str] | None

    def is_for(self, name: str) -> bool:
        """Whether the entry of that name is told of."""
        return self.names is None or name in self.names


class Watch:
    """Watches paths: files, there already or not, and directories with all that is in them.

    *skips* says which directories are left alone, with what is in them. Symbolic links are not followed. Paths are told
    of as they were given; a directory that is reached by two of them is told of by one. To be closed.

    Raises OSError: ENOSPC where the user has as many watches as fs.inotify.max_user_watches allows, EMFILE of
    max_user_instances, ENOENT where there is not even the directory above a path.
    """

    def __init__(self, paths: Sequence[str], skips: Callable[[str], bool] = lambda path: False) -> None:
        self._roots = tuple(os.path.normpath(path) for path in paths)
        self._skips = skips
        self._directories: dict[int, _Directory] = {}
        self._fd = check(libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            self._add_roots()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Watch":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more."""
        os.close(self._fd)

    def fileno(self) -> int:
        """The descriptor, readable when there is something to read."""
        return self._fd

    def read(self, timeout: float | None = None) -> list[Changed]:
        """What has happened since the last time, in order; waits for something until *timeout* (seconds) is over."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(None if timeout is None else max(0, timeout) * 1000):
            return []
        found: dict[Changed, None] = {}
        for wd, mask, name in _events(os.read(self._fd, _BUFFER)):
            for changed in self._take(wd, mask, name):
                found.pop(changed, None)  # what happens again happens last
                found[changed] = None
        return list(found)

    def _take(self, wd: int, mask: int, name: str) -> Iterator[Changed]:
        if mask & _Q_OVERFLOW:
            self._add_roots()
            yield Changed("", Change.LOST)
        elif mask & _IGNORED:  # the directory is gone, of which the one above it tells
            self._directories.pop(wd, None)
        elif name and (directory := self._directories.get(wd)) and directory.is_for(name):
            yield from self._happened(os.path.join(directory.path, name), mask)

    def _happened(self, path: str, mask: int) -> Iterator[Changed]:
        if mask & (_DELETE | _MOVED_FROM):
            self._forget(path)
            yield Changed(path, Change.GONE)
            return
        yield Changed(path, Change.THERE)
        if mask & _ISDIR and mask & (_CREATE | _MOVED_TO):
            for below in self._add_tree(path):
                yield Changed(below, Change.THERE)

    def _forget(self, path: str) -> None:
        """Take the watches off a directory that was moved away with all that is in it."""
        inside = os.path.join(path, "")
        for wd, directory in list(self._directories.items()):
            if directory.names is None and os.path.join(directory.path, "").startswith(inside):
                del self._directories[wd]
                libc.inotify_rm_watch(self._fd, wd)  # fails where the directory is gone altogether

    def _add_roots(self) -> None:
        for root in self._roots:
            above, name = os.path.split(root)
            is_directory = _is_directory(root)
            if name:
                try:
                    self._add(above, frozenset((name,)))
                except PermissionError:
                    if not is_directory:
                        raise
            if is_directory:
                for _ in self._add_tree(root):
                    pass

    def _add_tree(self, top: str) -> Iterator[str]:
        """Watch a directory and those in it; the paths of all that is there."""
        pending = [top]
        while pending:
            directory = pending.pop()
            if self._skips(directory):
                continue
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # gone again, or not for us
                self._add(directory, None)
                with os.scandir(directory) as entries:
                    for entry in entries:
                        yield entry.path
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)

    def _add(self, path: str, names: frozenset[str] | None) -> None:
        flags = _ONLYDIR | (_DONT_FOLLOW if names is None and path not in self._roots else 0)
        wd = check(libc.inotify_add_watch(self._fd, os.fsencode(path or "."), _MASK | flags), "inotify_add_watch", path)
        known = self._directories.get(wd)
        if known is None or names is None:
            self._directories[wd] = _Directory(path, names)
        elif known.names is not None:
            self._directories[wd] = _Directory(known.path, known.names | names)


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """(wd, mask, name) of each event."""
    place = 0
    while place < len(data):
        wd, mask, _, length = _EVENT.unpack_from(data, place)
        place += _EVENT.size
        yield wd, mask, os.fsdecode(data[place : place + length].rstrip(b"\0"))
        place += length


def _is_directory(path: str) -> bool:
    """Whether a path that the user gave is a directory, or leads to one."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False
