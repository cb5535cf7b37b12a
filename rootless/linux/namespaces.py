"""Namespaces: leaving, joining and making them, and the id maps of a user namespace. namespaces(7)."""

import _socket  # the C half of `socket`: one call does not pay for the import of the rest
import ctypes
import errno
import fcntl
import os

from rootless.linux.libc import NR_CLONE, NR_KEYCTL, check, libc, syscall

# <linux/sched.h>
CLONE_NEWTIME = 0x00000080  # of unshare(2) and setns(2); to clone(2) the bit means something else
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# runtime-spec name -> clone(2) flag and name below /proc/PID/ns
NAMESPACES = {
    "user": (CLONE_NEWUSER, "user"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "mount": (CLONE_NEWNS, "mnt"),
    "time": (CLONE_NEWTIME, "time"),
}

# ioctl_ns(2)
NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_OWNER_UID = 0xB704


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), "unshare")


def setns(fd: int, flags: int = 0) -> None:
    """setns(2)."""
    check(libc.setns(fd, flags), "setns")


def clone(flags: int) -> int:
    """A fork(2) whose child starts in new namespaces: clone(2) with SIGCHLD and no shared memory.

    Only the calling thread goes on in the child, and none of Python's fork hooks run there, so the caller must be
    single-threaded. Returns the child's pid to the parent and 0 to the child.
    """
    return syscall(NR_CLONE, "clone", flags | 17, 0, 0, 0, 0)


def owner_uid(ns_fd: int) -> int:
    """The uid that made the user namespace of *ns_fd*, seen from here."""
    buffer = bytearray(4)
    fcntl.ioctl(ns_fd, NS_GET_OWNER_UID, buffer)
    return int.from_bytes(buffer, "little")


def same_namespace(name: str, pid: int | str, other: int | str = "self") -> bool:
    """Whether two processes live in one namespace of kind *name* ("user", "pid" ...)."""
    first, second = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/{other}/ns/{name}")
    return (first.st_ino, first.st_dev) == (second.st_ino, second.st_dev)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    check(libc.sethostname(raw, len(raw)), "sethostname")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    raw = name.encode()
    check(libc.setdomainname(raw, len(raw)), "setdomainname")


def write_id_maps(pid: int, uid_map: str, gid_map: str, *, deny_setgroups: bool = False) -> None:
    """Write both maps of the user namespace of *pid*, as user_namespaces(7) asks: "inside outside count" lines."""
    if deny_setgroups:
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", uid_map)
    _write(f"/proc/{pid}/gid_map", gid_map)


def id_map(kind: str) -> list[tuple[int, int, int]]:
    """(inside, outside, how many) of the ids ("uid" or "gid") of our user namespace; outside is its parent."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return [(int(inside), int(outside), int(count)) for inside, outside, count in rows]


def mapped_ids(kind: str) -> list[tuple[int, int]]:
    """(first, how many) of the ids ("uid" or "gid") that exist in the user namespace that we are in."""
    return [(inside, count) for inside, _, count in id_map(kind)]


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write: {os.strerror(error.errno or 0)}", path) from error
    finally:
        os.close(fd)


def bring_up_loopback() -> None:
    """Set `lo` of this network namespace up: SIOCSIFFLAGS, netdevice(7)."""
    s = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = b"lo".ljust(16, b"\0") + (0x1 | 0x40).to_bytes(2, "little") + bytes(22)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(s.fileno(), 0x8914, request)
    finally:
        s.close()


def new_session_keyring() -> None:
    """Leave the caller's session keyring for a new, empty one: keyctl(2), KEYCTL_JOIN_SESSION_KEYRING."""
    try:
        syscall(NR_KEYCTL, "keyctl", 1, ctypes.c_char_p(b"_ses"))
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keys has none to leak
            raise
