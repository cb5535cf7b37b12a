"""Attaching the file system to a directory, and taking it off.

/dev/fuse gives a descriptor; mount(2) with its number as an option ties it to a mount; requests then come out of it.
Who may mount (root of a user namespace) does so directly, and gets errors that mean something. Everybody else asks
fusermount3(1), which is setuid, by the protocol of libfuse: it is started with one end of a socket pair, whose number
is in $_FUSE_COMMFD, and sends the descriptor through it.
"""

import array
import errno
import os
import socket
import stat

from fuse import syscalls
from fuse.checks import shown
from fuse.errors import UnionError
from fuse.options import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MountOptions

DEVICE = "/dev/fuse"
_HELPERS = ("/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3")
_OF_THE_HELPER = ((MS_RDONLY, b"ro"), (MS_NOSUID, b"nosuid"), (MS_NODEV, b"nodev"), (MS_NOEXEC, b"noexec"))


class Mount:
    """A mount that is there: where, by whom, and the descriptor to serve it through, for whoever does.

    One that *is_given* was made by somebody else, perhaps in another mount namespace, and is his to take off.
    """

    def __init__(self, mountpoint: bytes, fd: int, helper: str = "", *, is_given: bool = False) -> None:
        self.mountpoint, self.fd, self.helper, self.is_given = mountpoint, fd, helper, is_given

    def handed_over(self) -> None:
        """Close the descriptor, which another process has: when that one ends, the mount is known to be dead."""
        os.close(self.fd)
        self.fd = -1

    def unmount(self, *, lazy: bool) -> bool:
        """Take it off; False if it is in use (never so if *lazy*), or not ours to take off, or not any more."""
        if self.is_given:
            return False
        if self.helper:
            return (
                _run(self.helper, ["-u", "-q", *(["-z"] if lazy else []), "--", os.fsdecode(self.mountpoint)])[0] == 0
            )
        try:
            syscalls.umount2(self.mountpoint, syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if lazy else 0))
        except OSError:
            return False
        return True


def mount(mountpoint: bytes, options: MountOptions) -> Mount:
    """Attach a file system to the directory *mountpoint*, an absolute path. Raises UnionError."""
    fd = _open_device()
    try:
        data = _data(fd, mountpoint, options)
        syscalls.mount(options.fsname, mountpoint, b"fuse." + options.subtype, options.flags, data)
        return Mount(mountpoint, fd)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.EPERM:
            raise _refused(mountpoint, error) from error
    return _mount_by_helper(mountpoint, options)


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "have root run: modprobe fuse"
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = f"have root run: chmod 0666 {DEVICE} (in a container: give it the device, --device {DEVICE})"
        raise UnionError(f"{DEVICE}: {error.strerror}", hint=hint) from error


def _data(fd: int, mountpoint: bytes, options: MountOptions) -> bytes:
    """The last argument of mount(2): Documentation/filesystems/fuse.rst."""
    kind = stat.S_IFMT(os.stat(mountpoint).st_mode)
    words = b"fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions" % (fd, kind, os.geteuid(), os.getegid())
    # Without allow_other only the user who mounts may come in. Who can mount has a user namespace to rule, and the
    # kernel lets in nobody from outside of it.
    return b",".join([words, b"allow_other", *options.labels])


def _refused(mountpoint: bytes, error: OSError) -> UnionError:
    hint = {
        errno.ENODEV: "the kernel has no FUSE: have root run: modprobe fuse",
        errno.EINVAL: "the kernel takes one of the options amiss: context= and the like want SELinux",
    }.get(error.errno or 0, "")
    return UnionError(f"cannot mount at {shown(mountpoint)}: {error.strerror}", hint=hint)


def _mount_by_helper(mountpoint: bytes, options: MountOptions) -> Mount:
    helper = next((path for path in _HELPERS if os.access(path, os.X_OK)), "")
    if not helper:
        raise UnionError(
            f"cannot mount at {shown(mountpoint)}: not permitted, and there is no fusermount3",
            hint="mount as root of a user namespace (unshare --user --map-root-user --mount), "
            "or have root install the package fuse3",
        )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with ours, theirs:
        words = ["-o", os.fsdecode(b",".join(_words(options))), "--", os.fsdecode(mountpoint)]
        status, said = _run(helper, words, theirs)
        theirs.close()
        fd = _received(ours) if status == 0 else -1
    if fd < 0:
        raise _helper_refused(mountpoint, said.replace(f"{helper}: ", ""))
    return Mount(mountpoint, fd, helper)


def _words(options: MountOptions) -> list[bytes]:
    escaped = [name.replace(b"\\", b"\\\\").replace(b",", b"\\,") for name in (options.fsname, options.subtype)]
    words = [word for flag, word in _OF_THE_HELPER if options.flags & flag]
    words += [b"allow_other"] if options.allow_other else []
    return [b"default_permissions", b"fsname=" + escaped[0], b"subtype=" + escaped[1], *words, *options.labels]


def _run(helper: str, words: list[str], channel: socket.socket | None = None) -> tuple[int, str]:
    """Exit status of *helper*, and what it said; *channel* is for its answer. posix_spawn: subprocess loads slowly."""
    said_fd, say_fd = os.pipe()
    env = {name: value for name, value in os.environ.items() if name != "_FUSE_COMMFD"}
    if channel is not None:
        os.set_inheritable(channel.fileno(), True)
        env["_FUSE_COMMFD"] = str(channel.fileno())
    try:
        pid = os.posix_spawn(helper, [helper, *words], env, file_actions=[(os.POSIX_SPAWN_DUP2, say_fd, 2)])
    finally:
        os.close(say_fd)
    with open(said_fd, encoding="utf-8", errors="backslashreplace") as said:
        text = said.read(4096)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def _received(channel: socket.socket) -> int:
    """The descriptor that came through *channel*, or -1."""
    fds = array.array("i")
    _, messages, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: fds.itemsize])
    return fds[0] if fds else -1


def _helper_refused(mountpoint: bytes, said: str) -> UnionError:
    why = (said.strip().splitlines() or ["no reason given"])[-1]
    hint = "mount as root of a user namespace: unshare --user --map-root-user --mount"
    if "allow_other" in why:
        hint = "have root write the line user_allow_other into /etc/fuse.conf, or leave out allow_other"
    return UnionError(f"cannot mount at {shown(mountpoint)}: fusermount3: {why}", hint=hint)
