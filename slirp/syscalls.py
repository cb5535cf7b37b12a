"""The system calls that Python has no name for: a few lines of ctypes, under the names of the manual pages."""

import ctypes
import os

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    import mmap

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MNT_DETACH = 2
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE, MS_SLAVE = 1, 2, 4, 8, 16384, 1 << 18, 1 << 19
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_SET_SECUREBITS = 1, 4, 15, 22, 28
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def setns(fd: int, kind: int) -> None:
    """setns(2): this thread moves into the namespace of *fd*."""
    _check(_libc.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """unshare(2), of this thread."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2). The empty string stands for the NULL that the kernel expects there."""
    texts = [os.fsencode(text) or None for text in (source, target, fstype)]
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), os.fsencode(data) or None), "mount")


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root")


def prctl(option: int, *arguments: int | bytes | None) -> int:
    """prctl(2) with up to four arguments."""
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *values), "prctl")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread; each set is a mask of bits 1 << CAP_…"""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    sets = (effective, permitted, inheritable)
    data = (ctypes.c_uint32 * 6)(*(s & 0xFFFFFFFF for s in sets), *(s >> 32 for s in sets))
    _check(_libc.capset(header, data), "capset")


def seccomp_filter(program: bytes) -> None:
    """prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER): *program* is an array of struct sock_filter, 8 bytes each."""
    code = ctypes.create_string_buffer(program, len(program))
    header = (ctypes.c_uint64 * 2)(len(program) // 8, ctypes.addressof(code))  # struct sock_fprog, little-endian
    arguments = [ctypes.c_ulong(a) for a in (2, ctypes.addressof(header), 0, 0)]
    _check(_libc.prctl(PR_SET_SECCOMP, *arguments), "seccomp")


def address(buffer: "bytearray | mmap.mmap") -> int:
    """Where *buffer* is in memory. It must be kept, and kept at its size, as long as the address is in use."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def recvmmsg(fd: int, headers: int, count: int, flags: int) -> int:
    """recvmmsg(2) into the *count* messages at the address *headers*: how many came."""
    return _check(_libc.recvmmsg(fd, ctypes.c_void_p(headers), count, flags, None), "recvmmsg")


def sendmmsg(fd: int, headers: int, count: int, flags: int) -> int:
    """sendmmsg(2) of the *count* messages at the address *headers*: how many have been sent, 1 at least."""
    return _check(_libc.sendmmsg(fd, ctypes.c_void_p(headers), count, flags), "sendmmsg")
