"""A terminal for a command under test: a real pty, with the test at the other end."""

import errno
import fcntl
import os
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Terminal:
    """The master of a pty, and the command that leads the session at the slave."""

    def __init__(self, pid: int, master_fd: int, keeper_fd: int) -> None:
        self.pid = pid
        self.master_fd = master_fd
        self.keeper_fd = keeper_fd  # the slave, held open: what the modes are can be asked after the command's end
        self.shown = ""
        self.seen = 0
        self.status: int | None = None

    def send(self, text: str) -> None:
        """Type *text*."""
        os.write(self.master_fd, text.encode())

    def expect(self, pattern: str, seconds: float = 10) -> "re.Match[str]":
        """Wait for *pattern* in what is shown, after what was last expected. Raises AssertionError."""
        end = time.monotonic() + seconds
        while not (found := re.compile(pattern, re.MULTILINE).search(self.shown, self.seen)):
            if not self.read(end - time.monotonic()):
                raise AssertionError(f"no {pattern!r} in {self.shown[self.seen :]!r}")
        self.seen = found.end()
        return found

    def read(self, seconds: float) -> bool:
        """Take what is shown, waiting for it; False where nothing comes any more."""
        ready, _, _ = select.select([self.master_fd], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            data = os.read(self.master_fd, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def rest(self, seconds: float = 0.1) -> str:
        """All that is shown within *seconds* of silence, after what was last expected."""
        while self.read(seconds):
            continue
        text, self.seen = self.shown[self.seen :], len(self.shown)
        return text

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window; the command gets SIGWINCH."""
        set_size(self.master_fd, rows, columns)

    def modes(self) -> list[object]:
        """The settings of the line (termios(3))."""
        return termios.tcgetattr(self.keeper_fd)

    def wait(self, seconds: float = 20) -> int:
        """The exit status of the command, -N where signal N ended it. Raises AssertionError where it does not end."""
        end = time.monotonic() + seconds
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise AssertionError(f"it does not end; shown: {self.shown[-2000:]!r}")
            else:
                self.read(0.01)
        return self.status


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def open_terminal(
    command: list[str], env: Mapping[str, str], directory: Path, rows: int, columns: int
) -> Iterator[Terminal]:
    """Run *command* as leader of the session of a new terminal; what still runs at the end is killed."""
    master_fd, slave_fd = os.openpty()
    set_size(master_fd, rows, columns)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(master_fd)
            login_tty(slave_fd)
            os.chdir(directory)
            os.execvpe(command[0], command, dict(env))
        finally:
            os._exit(127)
    terminal = Terminal(pid, master_fd, slave_fd)
    try:
        yield terminal
    finally:
        if terminal.status is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(master_fd)
        os.close(slave_fd)


def login_tty(slave_fd: int) -> None:
    """login_tty(3), which Python has from 3.11 on."""
    os.setsid()
    fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave_fd, number)
    if slave_fd > 2:
        os.close(slave_fd)
