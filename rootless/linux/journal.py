"""A file of lines that any number of processes append to and read from, without a lock on the way.

A line is one write(2) to a file opened with O_APPEND, which local file systems do as a whole. A file that has become
too big gets the name PATH.1, in the place of the one before, and the next line begins another: so there are never more
than two. Who had opened a file just before it was renamed may still append to it; readers keep it open for that.

Each line has a newline on both sides (there are empty lines between them), so that one that a kill or a full disk has
torn does not take the next with it.
"""

import os
from contextlib import suppress

from rootless.linux import files

SIZE = 1 << 20  # bytes after which a file is closed
_BLOCK = 1 << 16
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def append(path: str, line: bytes, size: int = SIZE) -> None:
    """Append *line*, which begins and ends with a newline. Raises OSError."""
    fd = os.open(path, _APPEND, 0o600)
    try:
        os.write(fd, line)
        if os.lseek(fd, 0, os.SEEK_CUR) >= size:
            _rotate(path, fd)
    finally:
        os.close(fd)


def _rotate(path: str, fd: int) -> None:
    """Give the file its other name, unless somebody else is just doing so or has done it."""
    with suppress(BlockingIOError, FileNotFoundError), files.lock_file(f"{path}.lock", blocking=False):
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            os.rename(path, f"{path}.1")


class _File:
    """One of the files, and the part of a line that has been read of it."""

    __slots__ = ("fd", "rest", "status")

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.status = os.fstat(self.fd)
        self.rest = b""

    def lines(self) -> list[bytes]:
        """What has been appended since the last time, as far as lines are complete."""
        found: list[bytes] = []
        while data := os.read(self.fd, _BLOCK):
            *lines, self.rest = (self.rest + data).split(b"\n")
            found += filter(None, lines)
        return found


class Reader:
    """Reads the lines of a journal, that may not be there yet, in the order in which they were appended.

    *from_start*: from the oldest line that is kept; else from now on. Nothing is missed unless both files are replaced
    between two looks. To be closed.
    """

    __slots__ = ("_files", "_path")

    def __init__(self, path: str, *, from_start: bool) -> None:
        self._path = path
        self._files: list[_File] = []  # the one that we are at, and the one before it
        if not from_start:
            while self._open_next():
                os.lseek(self._files[-1].fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Read no more."""
        for file in self._files:
            os.close(file.fd)
        self._files.clear()

    def lines(self) -> list[bytes]:
        """The lines since the last time."""
        found: list[bytes] = []
        while True:
            for file in self._files:
                found += file.lines()
            if not self._open_next():
                return found

    def _open_next(self) -> bool:
        """Go on with the file that was begun after the one that we are at; whether there is one."""
        while (name := self._next_name()) is not None:
            try:
                file = _File(name)
            except FileNotFoundError:
                return False  # it was just renamed: we are asked again
            if self._files and os.path.samestat(file.status, self._files[-1].status):
                os.close(file.fd)  # ours, renamed while we looked
                continue
            for old in self._files[:-1]:
                os.close(old.fd)
            self._files = [*self._files[-1:], file]
            return True
        return False

    def _next_name(self) -> str | None:
        old = f"{self._path}.1"
        if self._files and self._is_at(self._path):
            return None
        # One that has neither name any more was renamed twice: the others were begun after it.
        return old if os.path.exists(old) and not (self._files and self._is_at(old)) else self._path

    def _is_at(self, path: str) -> bool:
        try:
            return os.path.samestat(os.stat(path), self._files[-1].status)
        except FileNotFoundError:
            return False
