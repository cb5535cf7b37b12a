"""Landlock: which version of it the kernel speaks. landlock(7)."""

import ctypes

from rootless.linux.libc import syscall

_CREATE_RULESET, _VERSION = 444, 1  # landlock_create_ruleset(2), on every architecture


def version() -> int:
    """The version; 0 where the kernel has none, or it is switched off."""
    try:
        return syscall(_CREATE_RULESET, "landlock_create_ruleset", None, ctypes.c_size_t(0), _VERSION)
    except OSError:
        return 0
