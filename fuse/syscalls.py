"""The system calls that Python has no name for: a few lines of ctypes, under the names of the manual pages."""

import ctypes
import errno
import os
import struct

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE, MS_SLAVE = 1 << 14, 1 << 18, 1 << 19
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 24
PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 28, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: bytes, target: bytes, fstype: bytes, flags: int = 0, data: bytes = b"") -> None:
    """mount(2). Empty strings stand for the NULL that the kernel expects there."""
    words = (source or None, target, fstype or None, ctypes.c_ulong(flags), data or None)
    _check(_libc.mount(*words), "mount")


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags), "umount2")


def prctl(option: int, *arguments: int | bytes) -> int:
    """prctl(2) with up to four arguments."""
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *values), "prctl")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread; each set is a mask of bits 1 << CAP_…"""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    sets = (effective, permitted, inheritable)
    data = (ctypes.c_uint32 * 6)(*(s & 0xFFFFFFFF for s in sets), *(s >> 32 for s in sets))
    _check(_libc.capset(header, data), "capset")


def capget() -> int:
    """The permitted capabilities of this thread, as a mask: capget(2)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, data), "capget")
    return data[1] | data[4] << 32


def seccomp_filter(program: bytes, number: int) -> None:
    """seccomp(2), whose call number is *number*: *program* is an array of struct sock_filter, 8 bytes each.

    SECCOMP_FILTER_FLAG_SPEC_ALLOW: nobody's code runs here whose speculation would have to be reined in, which on
    kernels before 5.16 comes with a filter otherwise, and makes everything slower.
    """
    code = ctypes.create_string_buffer(program, len(program))
    header = (ctypes.c_uint64 * 2)(len(program) // 8, ctypes.addressof(code))  # struct sock_fprog, little-endian
    mode, flag = 1, 4
    for flags in (flag, 0):
        words = [ctypes.c_long(word) for word in (number, mode, flags, ctypes.addressof(header))]
        try:
            _check(_libc.syscall(*words), "seccomp")
            return
        except OSError:
            if not flags:
                raise  # before Linux 4.17 there is no such flag


def landlock_create_ruleset(attributes: bytes, flags: int) -> int:
    """landlock_create_ruleset(2); no *attributes* where a flag asks for what there is."""
    return _check(_libc.syscall(444, attributes or None, ctypes.c_size_t(len(attributes)), flags), "landlock")


def landlock_add_rule(ruleset_fd: int, kind: int, attributes: bytes) -> None:
    """landlock_add_rule(2)."""
    _check(_libc.syscall(445, ruleset_fd, kind, attributes, 0), "landlock")


def landlock_restrict_self(ruleset_fd: int) -> None:
    """landlock_restrict_self(2)."""
    _check(_libc.syscall(446, ruleset_fd, 0), "landlock")


RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
AT_EMPTY_PATH = 0x1000


def renameat2(from_fd: int, name: bytes, to_fd: int, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    _check(_libc.renameat2(from_fd, name, to_fd, new, ctypes.c_uint(flags)), "renameat2")


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    _check(_libc.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)), "fallocate")


NOW = 1 << 70  # in the place of a time in ns
_AT_SYMLINK_NOFOLLOW = 0x100
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_FCHMODAT2 = 452  # on every architecture


def chmod(fd: int, name: bytes, mode: int) -> None:
    """fchmodat2(2) of *name* in *fd*, which is not followed if it is a symlink."""
    if _libc.syscall(_FCHMODAT2, fd, name, mode, _AT_SYMLINK_NOFOLLOW) == 0:
        return
    code = ctypes.get_errno()
    if code != errno.ENOSYS:
        raise OSError(code, os.strerror(code))
    reached = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.chmod(b"/proc/self/fd/%d" % reached, mode)
    finally:
        os.close(reached)


def utimensat(fd: int, name: bytes, atime: int | None, mtime: int | None) -> None:
    """utimensat(2) of *name* in *fd*, which is not followed if it is a symlink; times in ns, or NOW; None stays."""
    _check(_libc.utimensat(fd, name, _times(atime, mtime), _AT_SYMLINK_NOFOLLOW), "utimensat")


def set_times(target: int | bytes, atime: int | None, mtime: int | None) -> None:
    """futimens(3) of a descriptor, utimensat(2) of a path, which is followed; times as above."""
    if atime is not None and mtime is not None and atime != NOW != mtime:
        os.utime(target, ns=(atime, mtime))
    elif isinstance(target, int):
        _check(_libc.futimens(target, _times(atime, mtime)), "futimens")
    else:
        _check(_libc.utimensat(-1, target, _times(atime, mtime), 0), "utimensat")


def _times(atime: int | None, mtime: int | None) -> bytes:
    return struct.pack("=4q", *_timespec(atime), *_timespec(mtime))


def _timespec(time: int | None) -> tuple[int, int]:
    if time is None:
        return 0, _UTIME_OMIT
    return (0, _UTIME_NOW) if time == NOW else divmod(time, 1_000_000_000)
