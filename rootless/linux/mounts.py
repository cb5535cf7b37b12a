"""Mounting: the calls, and a mount at a place that was opened before, so that nobody can swap it meanwhile."""

import os

from rootless.linux.libc import NR_MOUNT_SETATTR, NR_MOVE_MOUNT, NR_OPEN_TREE, NR_PIVOT_ROOT, check, libc, syscall, text

# <sys/mount.h>, include/uapi/linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# <linux/mount.h>: of open_tree(2), move_mount(2), mount_setattr(2), and AT_ flags of <fcntl.h>
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_ATTR_ATIME = 0x70
_ATTRIBUTES = {
    MS_RDONLY: 0x01,
    MS_NOSUID: 0x02,
    MS_NODEV: 0x04,
    MS_NOEXEC: 0x08,
    MS_NODIRATIME: 0x80,
    MS_NOSYMFOLLOW: 0x200000,
}
_ATIME = {MS_RELATIME: 0x00, MS_NOATIME: 0x10, MS_STRICTATIME: 0x20}

# statvfs(3) flags of a mount that a user namespace may not take off again (mount_namespaces(7)), as mount(2) flags.
_LOCKED = {
    os.ST_RDONLY: MS_RDONLY,
    os.ST_NOSUID: MS_NOSUID,
    os.ST_NODEV: MS_NODEV,
    os.ST_NOEXEC: MS_NOEXEC,
    os.ST_NOATIME: MS_NOATIME,
    os.ST_NODIRATIME: MS_NODIRATIME,
    os.ST_RELATIME: MS_RELATIME,
}


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). The empty string stands for the NULL that the kernel expects there."""
    args = (text(source), text(target), text(fstype), flags, text(data))
    check(libc.mount(*args), "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(text(target), flags), "umount", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall(NR_PIVOT_ROOT, "pivot_root", text(new_root), text(put_old), path=new_root)


def fd_path(fd: int) -> str:
    """The name by which mount(2) reaches the very file that *fd* has open, whatever its path leads to now."""
    return f"/proc/self/fd/{fd}"


def bind(source_fd: int, target_fd: int, flags: int = 0, *, recursive: bool = False, all_flags: int = 0) -> None:
    """Show the file or directory of *source_fd* at that of *target_fd*, with the per-mount *flags* (MS_RDONLY ...).

    *all_flags* are set on the mounts below the source as well. The new mount gets its flags before it is attached, so
    there is no moment without them, and no second look-up of the target. Needs Linux 5.12 where there are flags.
    """
    tree_fd = open_tree(source_fd, recursive=recursive)
    try:
        if flags:
            mount_setattr(tree_fd, flags)
        if all_flags:
            mount_setattr(tree_fd, all_flags, recursive=True)
        move_mount(tree_fd, target_fd)
    finally:
        os.close(tree_fd)


def open_tree(source_fd: int, *, recursive: bool) -> int:
    """open_tree(2): a detached copy of the mount, and of those below it, that *source_fd* is in."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return syscall(NR_OPEN_TREE, "open_tree", source_fd, b"", flags)


def move_mount(tree_fd: int, target_fd: int) -> None:
    """move_mount(2): attach a detached tree at the file or directory of *target_fd*."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(NR_MOVE_MOUNT, "move_mount", tree_fd, b"", target_fd, b"", flags)


def mount_setattr(
    mount_fd: int, flags: int, *, recursive: bool = False, propagation: int = 0, cleared: int = 0
) -> None:
    """mount_setattr(2): add the per-mount *flags*, take *cleared* off, set the propagation, of an open mount."""
    add = sum(attribute for ms, attribute in _ATTRIBUTES.items() if flags & ms)
    clear = sum(attribute for ms, attribute in _ATTRIBUTES.items() if cleared & ms) & ~add
    for ms, attribute in _ATIME.items():
        if flags & ms:
            add, clear = add | attribute, clear | _ATTR_ATIME
    attributes = b"".join(v.to_bytes(8, "little") for v in (add, clear, propagation, 0))
    at = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall(NR_MOUNT_SETATTR, "mount_setattr", mount_fd, b"", at, attributes, len(attributes))


def remount_bind(path: str, flags: int) -> None:
    """Set the per-mount *flags* (read-only, nosuid, nodev, noexec, atime ...) of the mount at *path*.

    Flags that an outer user namespace has locked are kept: without them the kernel answers EPERM.
    """
    locked = os.statvfs(path).f_flag
    for st, ms in _LOCKED.items():
        if locked & st:
            flags |= ms
    if flags & (MS_STRICTATIME | MS_NOATIME):
        flags &= ~MS_RELATIME
    mount("", path, "", MS_REMOUNT | MS_BIND | flags)


def mount_points() -> list[str]:
    """Where something is mounted in this namespace, in the order of mounting. proc_pid_mountinfo(5)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [unescape(line.split(" ", 5)[4]) for line in file]


def unescape(field: str) -> str:
    r"""A path of mountinfo as it is: space, tab, newline and backslash stand in mountinfo as \040 and the like."""
    if "\\" not in field:
        return field
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, character)
    return field
