"""Pseudo-terminals: a pair in a container's own devpts, the size of a window, the modes of a line. pty(7)."""

import fcntl
import os
import stat
import termios
from collections.abc import Iterator
from contextlib import contextmanager

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_PTMX = os.makedev(5, 2)


def open_pair(ptmx_fd: int) -> tuple[int, int, int]:
    """The number N of a new pair in the devpts of *ptmx_fd* (an open `ptmx`, which becomes the master), and both ends.

    The slave is opened through the master (TIOCGPTPEER), not by the name /dev/pts/N, which a container could have
    replaced (X05). Raises OSError; ENOTTY where the fd is no ptmx.
    """
    status = os.fstat(ptmx_fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
        raise OSError(25, "not a terminal multiplexer")
    buffer = bytearray(4)
    fcntl.ioctl(ptmx_fd, _TIOCGPTN, buffer)
    fcntl.ioctl(ptmx_fd, _TIOCSPTLCK, bytes(4))
    slave_fd = fcntl.ioctl(ptmx_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return int.from_bytes(buffer, "little"), ptmx_fd, slave_fd


def make_controlling(slave_fd: int) -> None:
    """Make the terminal the controlling one of this session, whose leader we must be."""
    fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns; (0, 0) where they are unknown."""
    packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    return int.from_bytes(packed[0:2], "little"), int.from_bytes(packed[2:4], "little")


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ; the processes in the foreground get SIGWINCH."""
    packed = rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, packed)


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """cfmakeraw(3) for the time of the block: every key goes to the container; what was set before comes back."""
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
