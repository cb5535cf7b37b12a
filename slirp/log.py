"""The log: lines with their time, in a file that does not grow beyond a bound. Printable lines, whoever wrote them.

STACK's lines pass through here too, so what a container made it say must not be able to forge another line or to
command a terminal, and a flood of them costs two files of a mebibyte and no more.
"""

import os
import time

_MOST_BYTES = 1 << 20  # of one file; one older file is kept as PATH.1
_LONGEST_LINE = 4000  # characters


class Log:
    """Appends to the file at *path*, or to standard error where it is empty."""

    __slots__ = ("_fd", "_path", "_size")

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._path = path
        self._fd, self._size = 2, 0
        if path:
            self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, line: str) -> None:
        """One line. A log that cannot be written is no reason to end: what is lost is the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = f"{stamp} {_printable(line)}\n".encode(errors="backslashreplace")
        try:
            if self._path and self._size + len(data) > _MOST_BYTES:
                self._rotate()
            self._size += os.write(self._fd, data)
        except OSError:
            pass  # a full disk, or standard error that nobody reads

    def _rotate(self) -> None:
        os.replace(self._path, self._path + ".1")
        os.close(self._fd)
        self._fd = -1
        self._open()


def _printable(line: str) -> str:
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line[:_LONGEST_LINE])
    return text if len(line) <= _LONGEST_LINE else text + "…"
