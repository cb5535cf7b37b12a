"""Two processes: one serves the file system, the other watches over it, and neither can be kept waiting by the other.

    supervisor   checks, forks ─▶              mounts, sends /dev/fuse ─▶                     statfs: ready ─▶ waits
    server                     ─▶ opens the layers, "loaded"           ─▶ gives up privileges, serves …

The server is one thread that sleeps in read(2), so it could not look at signals or at --exit-fd as well, and would wait
for itself if it unmounted while a request of that is still to be served. Where a layer contains the mount point (`/`
does), it has a mount namespace of its own, made before the mount: it must not come upon its own file system there, for
each access would be a request to itself. The supervisor is small, touches no file of a container, and sees to it that a
mount whose server has died does not stay.

Either ends with the other: the supervisor sees the channel closed, the server is killed by the kernel.
"""

import os
import resource
import select
import signal
import socket
import time

from fuse import checks, mounting, syscalls
from fuse.command import Command
from fuse.errors import UnionError
from fuse.mounting import Mount

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable

_LOADED = b"loaded"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_IN_USE_GRACE = 1.0  # seconds that processes keep the file system which still use it when it is to go
_SYNC_GRACE = 60.0  # seconds for the server to bring the upper directory to disk
_STOP_GRACE = 5.0


def run(command: Command, ready: "Callable[[], None]") -> int:
    """Mount as *command* says, call *ready* when it can be used, return when it is unmounted: the exit status.

    Raises UnionError. Where the server fails, it has said why itself.
    """
    if command.mounted_fd < 0:
        command = command._replace(mountpoint=os.path.realpath(command.mountpoint))
        checks.check_mountpoint(command.mountpoint)
    checks.check(command.options)
    held_fd = checks.hold(command.options.work) if command.options.work is not None else -1
    _raise_limits()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it has no exit status of a child
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _be_server(theirs, command, supervisor)
    theirs.close()
    if held_fd >= 0:
        os.close(held_fd)  # the server has it, and with it the lock
    with ours:
        return _Supervisor(pid, ours, command).run(ready)


def _raise_limits() -> None:
    """As many open files as may be: each file that somebody has open is one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _be_server(channel: socket.socket, command: Command, supervisor: int) -> None:
    """Never returns."""
    from fuse import server

    for fd in (command.ready_fd, command.exit_fd, command.mounted_fd):
        if fd >= 0:
            os.close(fd)
    os._exit(server.serve(channel, command, supervisor))


class _Supervisor:
    def __init__(self, pid: int, channel: socket.socket, command: Command) -> None:
        self._pid, self._channel, self._command = pid, channel, command

    def run(self, ready: "Callable[[], None]") -> int:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # for whoever shares the process table
        if self._wait() or self._channel.recv(len(_LOADED)) != _LOADED:
            return self._not_loaded()
        with _Signals() as signal_fd:
            try:
                mount = self._mount()
            except UnionError:
                self._channel.close()
                self._reap()
                raise
            socket.send_fds(self._channel, [b"mounted"], [mount.fd])
            mount.handed_over()
            try:
                if not mount.is_given:
                    os.statvfs(mount.mountpoint)  # waits until the kernel and the server have agreed on how to speak
                    checks.probe(mount.mountpoint)
            except OSError as error:
                return self._failed(mount, error)
            os.chdir("/")
            ready()
            asked = self._wait(signal_fd)
        return self._stop(mount) if asked else self._ended(mount)

    def _not_loaded(self) -> int:
        """Nothing has been mounted: the server cannot serve, and has said why; or nobody wants it any more."""
        poll = select.poll()
        poll.register(self._channel.fileno(), 0)  # tells of a channel whose other end is closed
        if poll.poll(0):
            return self._reap() or 1
        os.kill(self._pid, signal.SIGKILL)
        self._reap()
        return 0

    def _mount(self) -> Mount:
        if self._command.mounted_fd >= 0:
            return Mount(self._command.mountpoint, self._command.mounted_fd, is_given=True)
        return mounting.mount(self._command.mountpoint, self._command.options)

    def _failed(self, mount: Mount, error: OSError) -> int:
        mount.unmount(lazy=True)
        self._channel.close()
        status = self._kill_after(_STOP_GRACE)
        if status > 0 and self._command.foreground:
            return status  # the server has said why
        raise UnionError(
            f"the file system at {checks.shown(mount.mountpoint)} does not answer: {error.strerror}",
            hint="with -f, in the foreground, there may be more to read",
        )

    def _wait(self, signal_fd: int = -1) -> bool:
        """True when it is to end, False when the server has something to say, or has ended."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        if signal_fd >= 0:
            poll.register(signal_fd, select.POLLIN)
        if self._command.exit_fd >= 0:
            poll.register(self._command.exit_fd, select.POLLRDHUP)
        seen = [fd for fd, _ in poll.poll()]
        return self._channel.fileno() not in seen

    def _ended(self, mount: Mount) -> int:
        """The server has left: unmounted by somebody else, which is as it should be, or it died."""
        status = self._reap()
        if status == 0:
            return 0
        mount.unmount(lazy=True)
        how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
        raise UnionError(f"the process that served {checks.shown(mount.mountpoint)} {how}; nobody serves it any more")

    def _stop(self, mount: Mount) -> int:
        if mount.unmount(lazy=False):
            self._kill_after(_SYNC_GRACE)
        else:
            mount.unmount(lazy=True)
            self._kill_after(_IN_USE_GRACE)
        return 0

    def _kill_after(self, seconds: float) -> int:
        """Wait for the server, then tell it to leave, then make it: its exit status, negative for a signal."""
        stop, kill = time.monotonic() + seconds, time.monotonic() + seconds + _STOP_GRACE
        poll = select.poll()
        pidfd = os.pidfd_open(self._pid)
        poll.register(pidfd, select.POLLIN)
        try:
            while not poll.poll(50 if time.monotonic() >= stop else 1000 * (stop - time.monotonic())):
                # Repeated, because the server may be about to sleep when the signal comes, and not look at it then.
                os.kill(self._pid, signal.SIGKILL if time.monotonic() > kill else signal.SIGUSR1)
        finally:
            os.close(pidfd)
        return self._reap()

    def _reap(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


class _Signals:
    """While it is entered, the signals that ask to unmount only make a descriptor readable, which it gives."""

    def __enter__(self) -> int:
        self._fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
                signal.signal(number, lambda *_: None)
        return self._fd

    def __exit__(self, *_: object) -> None:
        """They stay without effect: what is left to do is to leave."""
        signal.set_wakeup_fd(-1)
        os.close(self._fd)
        os.close(self._write_fd)
