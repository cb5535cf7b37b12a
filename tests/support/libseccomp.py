"""libseccomp, where the machine has its library: the program that it makes of the same rules, and its numbers."""

import ctypes
import os
from collections.abc import Sequence

from rootless.spec import seccomp
from rootless.spec.seccomp import Seccomp

# <seccomp.h>: an architecture as libseccomp names it; x32 is one of its own there.
TOKENS = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    return library


LIBRARY = _load()


def number(architecture: str, name: str) -> int:
    """A call's number; negative where there is no such call, or where libseccomp makes one up."""
    assert LIBRARY
    return int(LIBRARY.seccomp_syscall_resolve_name_arch(TOKENS[architecture], name.encode()))


def knows(name: str) -> bool:
    """Whether this version has heard of the call."""
    assert LIBRARY
    return int(LIBRARY.seccomp_syscall_resolve_name(name.encode())) != -1


def compile_filter(wanted: Seccomp, native: str) -> bytes:
    """The program as runc and crun have it made."""
    assert LIBRARY
    context = ctypes.c_void_p(LIBRARY.seccomp_init(ctypes.c_uint32(wanted.default)))
    try:
        _add_architectures(context, wanted.architectures, native)
        for rule in wanted.rules:
            _add(context, rule, wanted.default)
        fd = os.memfd_create("filter")
        try:
            assert LIBRARY.seccomp_export_bpf(context, fd) == 0
            os.lseek(fd, 0, os.SEEK_SET)
            return os.read(fd, 1 << 20)
        finally:
            os.close(fd)
    finally:
        LIBRARY.seccomp_release(context)


def _add_architectures(context: ctypes.c_void_p, names: Sequence[str], native: str) -> None:
    assert LIBRARY
    machine = "SCMP_ARCH_X86_64" if os.uname().machine == "x86_64" else "SCMP_ARCH_AARCH64"
    if native != machine:
        assert LIBRARY.seccomp_arch_add(context, TOKENS[native]) == 0
        assert LIBRARY.seccomp_arch_remove(context, TOKENS[machine]) == 0
    for name in names:
        if name != native:
            assert LIBRARY.seccomp_arch_add(context, TOKENS[name]) == 0


def _add(context: ctypes.c_void_p, rule: seccomp.Rule, default: int) -> None:
    assert LIBRARY
    if rule.action == default:
        return  # runc and crun pass it over; libseccomp does not take it
    for name in rule.names:
        known = LIBRARY.seccomp_syscall_resolve_name(name.encode())
        if known == -1:
            continue
        comparisons = (_Comparison * 6)()
        for at, c in enumerate(rule.comparisons):
            operator = 1 + seccomp.OPERATORS.index(c.operator)
            comparisons[at] = _Comparison(c.argument, operator, c.value, c.value_two)
        added = LIBRARY.seccomp_rule_add_array(
            context, ctypes.c_uint32(rule.action), known, len(rule.comparisons), comparisons
        )
        assert added == 0, (name, added)
