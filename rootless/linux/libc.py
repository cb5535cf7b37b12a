"""The C library through ctypes: the one place where results are checked and text becomes bytes."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

MACHINE = os.uname().machine

# Numbers of calls that the C library may have no wrapper for. Since Linux 5.0 all architectures share new numbers;
# the older ones differ. Sources: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
NR_PIDFD_SEND_SIGNAL = 424
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_PIDFD_OPEN = 434
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
NR_CLONE, NR_PIVOT_ROOT, NR_KEYCTL, NR_RENAMEAT2, NR_RT_SIGACTION = {
    "x86_64": (56, 155, 250, 316, 13),
    "aarch64": (220, 41, 219, 276, 134),
}.get(MACHINE, (0, 0, 0, 0, 0))


def check(result: int, call: str, path: str | bytes = "") -> int:
    """Return *result*, or raise the OSError that errno tells of, naming the call and the path."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", path or None)
    return result


def text(value: str | bytes) -> bytes | None:
    """The bytes of a path or option; the empty string stands for the NULL that the kernel expects there."""
    return os.fsencode(value) if value else None


def syscall(number: int, call: str, *args: object, path: str | bytes = "") -> int:
    """syscall(2) with errno checked. Integers go as 64-bit values, bytes as pointers, None as NULL."""
    if not number:
        raise OSError(38, f"{call}: not known on {MACHINE}", path or None)
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return check(int(libc.syscall(ctypes.c_long(number), *converted)), call, path)
