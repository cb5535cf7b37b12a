"""The process that serves: opens the layers, waits for the mount, gives up its privileges, answers until unmounted."""

import array
import errno
import os
import signal
import socket
import sys

from fuse import checks, sandbox, syscalls
from fuse.command import Command
from fuse.errors import UnionError
from fuse.options import MountOptions

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from types import ModuleType

_ALL_IDS = b"0 0 4294967295"  # /proc/self/uid_map where there is no user namespace


def serve(channel: socket.socket, command: Command, supervisor: int) -> int:
    """Serve what comes through *channel*; the exit status, after a line on standard error where it is not 0."""
    try:
        _serve(channel, command, supervisor)
    except UnionError as error:
        return failed(error)
    except OSError as error:
        return failed(UnionError(f"{error.strerror}{': ' + _name(error) if error.filename else ''}"))
    return 0


def failed(error: UnionError) -> int:
    """Say what went wrong; the exit status."""
    sys.stderr.write(f"fuse: {error}; {error.hint}\n" if error.hint else f"fuse: {error}\n")
    sys.stderr.flush()
    return error.exit_status


def _name(error: OSError) -> str:
    return checks.shown(os.fsencode(error.filename)) if isinstance(error.filename, str | bytes) else str(error.filename)


def _serve(channel: socket.socket, command: Command, supervisor: int) -> None:
    _follow(supervisor)
    _leave_the_mount(command)
    from fuse.union import Union

    operations, scheduler = _load()
    union = Union(command.options)
    writable = tuple(os.path.abspath(path) for path in (command.options.upper, command.options.work) if path)
    os.chdir("/")
    try:
        channel.send(b"loaded")
        fd = _mounted(channel)
        if command.options.volatile and not union.read_only:
            union.mark_volatile()
        operations.start(union, fd, command.options.debug)
        if not command.foreground:
            be_silent()
        sandbox.confine(trusted=_is_root_of_all(command.options), writable=writable)
        signal.signal(signal.SIGUSR1, lambda *_: scheduler.stop())
        scheduler.run()
    finally:
        union.close()


def _follow(supervisor: int) -> None:
    """End when it ends; signals are its business."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_NAME, b"fuse-server")
    if os.getppid() != supervisor:
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0)  # the kernel says with each request what the mode is to be


def _leave_the_mount(command: Command) -> None:
    """A mount namespace in which the mount point stays what it is, where a layer contains it: see fuse/supervisor.py.

    Only there, because a namespace keeps every mount that it has a copy of, after others have unmounted it. What the
    machine mounts and unmounts is still to arrive (homes are, on demand), which it does in slaves. Mounts that are
    not slaves of the machine's but peers of those where we mount would get our own: they are made private.
    """
    layer = None if command.mounted_fd >= 0 else checks.find_layer_around(command.options, command.mountpoint)
    if layer is None:
        return
    with open("/proc/self/mountinfo", "rb") as file:
        kind = syscalls.MS_PRIVATE if b" shared:" in file.read() else syscalls.MS_SLAVE
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(b"", b"/", b"", syscalls.MS_REC | kind)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        raise UnionError(
            f"mount point {checks.shown(command.mountpoint)} is in the layer {checks.shown(layer)}",
            hint="mount it elsewhere, or as root of a user namespace: unshare --user --map-root-user --mount",
        ) from error


def _load() -> "tuple[ModuleType, ModuleType]":
    try:
        from fuse import operations, scheduler
    except ImportError as error:
        raise UnionError(
            f"pyfuse3 is not there: {error}",
            hint="pip install 'rootless[fuse]'; to build it, have root install gcc pkg-config libfuse3-dev python3-dev "
            "(Debian, Ubuntu) or gcc pkgconf fuse3-devel python3-devel (Fedora)",
        ) from error
    return operations, scheduler


def _mounted(channel: socket.socket) -> int:
    """The descriptor of the mount, from the supervisor."""
    fds = array.array("i")
    _, messages, _, _ = channel.recvmsg(16, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: fds.itemsize])
    if not fds:
        os._exit(1)  # it could not mount, and has said so
    return fds[0]


def be_silent() -> None:
    """In the background, nobody reads what is written."""
    fd = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(fd, number)
    if fd > 2:
        os.close(fd)


def _is_root_of_all(options: MountOptions) -> bool:
    """Whether attributes trusted.* are within reach, and wanted."""
    if options.userxattr or os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", "rb") as file:
        return b" ".join(file.read().split()) == _ALL_IDS
