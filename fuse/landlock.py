"""Landlock: what a process may still change among files, given up for good. landlock(7).

Rights are counted from a directory down, whatever path or descriptor leads there. What the kernel does not know yet is
left out: rules of the first version forbid every move between directories, so it takes the second (Linux 5.19). Modes,
owners and attributes are not covered by any version.
"""

import os
import struct

from fuse import syscalls

_VERSION, _PATH_BENEATH = 1, 1

# <linux/landlock.h>
EXECUTE, WRITE_FILE = 1 << 0, 1 << 1
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR, REMOVE_FILE, MAKE_CHAR … MAKE_SYM
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = ((3, _TRUNCATE), (5, _IOCTL_DEV))
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11
_LEAST = 2


def version() -> int:
    """The version that the kernel speaks; 0 where there is none, or it is switched off."""
    try:
        return syscalls.landlock_create_ruleset(b"", _VERSION)
    except OSError:
        return 0


def restrict(writable: "tuple[bytes, ...]") -> str:
    """Change files below the directories *writable* only, and execute none; what is missing here, or "".

    It takes no_new_privs, or CAP_SYS_ADMIN. Raises OSError.
    """
    known = version()
    if known < _LEAST:
        return f"no Landlock: its version is {known}, and {_LEAST} is needed (Linux 5.19)"
    changes = WRITE_FILE | _REMOVE_AND_MAKE | _REFER
    changes |= sum(right for since, right in _SINCE if known >= since)
    attributes = struct.pack("=QQQ", changes | EXECUTE, 0, _ABSTRACT_SOCKETS_AND_SIGNALS)
    size = len(attributes) if known >= _SCOPES_SINCE else 16 if known >= 4 else 8
    ruleset_fd = syscalls.landlock_create_ruleset(attributes[:size], 0)
    rights = changes & ~_IOCTL_DEV
    try:
        for path in writable:
            directory_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.landlock_add_rule(ruleset_fd, _PATH_BENEATH, struct.pack("=Qi", rights, directory_fd))
            finally:
                os.close(directory_fd)
        syscalls.landlock_restrict_self(ruleset_fd)
    finally:
        os.close(ruleset_fd)
    return ""
