"""Installing a system call filter: seccomp(2)."""

import ctypes

from rootless.linux.libc import MACHINE, syscall

_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(MACHINE, 0)
_SET_MODE_FILTER = 1
_INSTRUCTION = 8  # bytes of struct sock_filter


class _Program(ctypes.Structure):
    """struct sock_fprog, <linux/filter.h>."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def set_filter(program: bytes, flags: int) -> int:
    """Have every call of this thread, and of what it becomes, go through *program*: an array of struct sock_filter.

    Returns 0, or the descriptor that the flag NEW_LISTENER asks for, close-on-exec. Needs no_new_privs or CAP_SYS_ADMIN
    in the user namespace.
    """
    described = _Program(len(program) // _INSTRUCTION, program)
    return syscall(_NR_SECCOMP, "seccomp", _SET_MODE_FILTER, flags, ctypes.byref(described))
