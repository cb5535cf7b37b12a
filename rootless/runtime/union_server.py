"""The process that serves a container's root where the kernel's overlayfs cannot carry it: `python -m fuse`.

    init      /dev/fuse ─▶ mount(2) in the container's mount namespace ─▶ the descriptor, UNION ─▶ … looks: waits
    monitor                            a child that executes `python -m fuse … /dev/fd/3` ─▶ "ready"

The mount is the container's alone, and made by its init; the process that answers for it is a child of the monitor, in
the namespaces of the machine. It never enters the container: nothing in there can see it, send it a signal, or reach
its memory or descriptors. It gets the descriptor, and nobody else keeps a copy, so that its end is the end of the
mount: whoever uses a file then gets ENOTCONN, and nothing hangs.

It leaves by itself when the mount is gone, that is with the last process of the container: what was written has reached
the upper directory then, and only then the container counts as ended. And it leaves when the monitor dies: it has the
other end of a pipe of the monitor's, --exit-fd.
"""

import fcntl
import os
import select
import signal
import time

from rootless.errors import HostUnsupported, RootlessError
from rootless.linux import processes

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

_START_SECONDS = 30.0
_FREE_SECONDS = 5.0  # for the process of the container's last start to have left
_LAST_WORDS = 2000  # bytes of the log that an error shows
_FUSE_FD, _READY_FD, _EXIT_FD = 3, 4, 5


class UnionServer:
    """The server of one container's root, from the side of its monitor; it may be started again."""

    __slots__ = ("_argv", "_exit_fd", "_log", "_pid", "_work")

    def __init__(self, settings: "dict[str, Any]") -> None:
        """*settings* has `argv` of `python -m fuse` with the layers, the path of its `log`, its `work` directory."""
        self._argv: list[str] = settings["argv"]
        self._log: str = settings["log"]
        self._work: str = settings["work"]
        self._pid = 0
        self._exit_fd = -1

    @property
    def is_running(self) -> bool:
        """Whether there is one that has not been reaped."""
        return self._pid != 0

    def serve(self, fuse_fd: int) -> None:
        """Have the mount of *fuse_fd*, which is taken, served. Raises HostUnsupported with what the server says."""
        try:
            _wait_until_free(self._work)
            log_fd = os.open(self._log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                ready_fd = self._spawn(fuse_fd, log_fd)
            finally:
                os.close(fuse_fd)
                fuse_fd = -1
            try:
                if not _is_ready(ready_fd):
                    self.kill()
                    raise HostUnsupported(f"the container's root cannot be mounted: {_last_words(log_fd)}")
            finally:
                os.close(ready_fd)
                os.close(log_fd)
        finally:
            if fuse_fd >= 0:
                os.close(fuse_fd)

    def _spawn(self, fuse_fd: int, log_fd: int) -> int:
        """Start the process; the descriptor from which "ready" comes."""
        ready_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        theirs, self._exit_fd = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            self._become(fuse_fd, write_fd, theirs, log_fd)
        os.close(theirs)
        os.close(write_fd)
        return ready_fd

    def _become(self, fuse_fd: int, ready_fd: int, exit_fd: int, log_fd: int) -> None:
        """The child. Never returns."""
        try:
            os.setsid()
            os.chdir("/")
            null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            wanted = (null_fd, null_fd, log_fd, fuse_fd, ready_fd, exit_fd)
            for number, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted)) for fd in wanted]):
                os.dup2(fd, number, inheritable=True)
            processes.close_from(len(wanted))
            processes.default_signals()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(
                    number, signal.SIG_IGN
                )  # of a logout or a shutdown: the container needs files to end with
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            given = ["-f", "--ready-fd", str(_READY_FD), "--exit-fd", str(_EXIT_FD), f"/dev/fd/{_FUSE_FD}"]
            os.execve(self._argv[0], [*self._argv, *given], {})
        except OSError as error:
            os.write(2, f"{self._argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(125)

    def process_ended(self, pid: int) -> bool:
        """A child of the monitor has ended: whether it was this one."""
        if not pid or pid != self._pid:
            return False
        self._pid = 0
        self._let_go()
        return True

    def kill(self) -> None:
        """End it at once, and so everything that waits for it. Each change is in the upper directory whole, or not."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # our own child, not yet reaped
            os.waitpid(self._pid, 0)
            self._pid = 0
        self._let_go()

    def _let_go(self) -> None:
        if self._exit_fd >= 0:
            os.close(self._exit_fd)
            self._exit_fd = -1


def _wait_until_free(work: str) -> None:
    """Return when no server has the work directory any more: one whose monitor was killed is just leaving."""
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    end = time.monotonic() + _FREE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RootlessError("a process of the container's last start still has its files") from None
                time.sleep(0.01)
            except OSError:
                return  # a file system without locks
    finally:
        os.close(fd)


def _is_ready(ready_fd: int) -> bool:
    """Whether a line comes, before the end and in time."""
    end, line = time.monotonic() + _START_SECONDS, b""
    poll = select.poll()
    poll.register(ready_fd, select.POLLIN)
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            return False
        data = os.read(ready_fd, 4096)
        if not data:
            return False
        line += data
    return True


def _last_words(log_fd: int) -> str:
    """What the server says of its failure."""
    said = os.pread(log_fd, _LAST_WORDS, max(0, os.fstat(log_fd).st_size - _LAST_WORDS))
    lines = said.decode("utf-8", "replace").strip().split("\n")
    told = [line.removeprefix("fuse: ") for line in lines if line.startswith("fuse: ")]
    return (told or lines)[-1] or "its server says nothing"
