"""Capabilities: their names, and setting all five sets of a process. capabilities(7)."""

import ctypes
import errno

from rootless.linux.libc import check, libc
from rootless.linux.processes import PR_CAP_AMBIENT, PR_CAPBSET_DROP, prctl

# <linux/capability.h>; the position is the number.
NAMES = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)

_VERSION_3 = 0x20080522
_PR_CAPBSET_READ = 23
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def number(name: str) -> int:
    """The number of "CAP_CHOWN". Raises ValueError for a name that this version does not know."""
    return NAMES.index(name)


def last() -> int:
    """The highest capability that the running kernel knows.

    Asked by a call that answers EINVAL beyond it: a file of /proc could be one that a container has put there.
    """
    for number in range(64):
        try:
            prctl(_PR_CAPBSET_READ, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return number - 1
    return 63


def mask(names: list[str]) -> int:
    """The set as the bit mask that the kernel uses."""
    bits = 0
    for name in names:
        bits |= 1 << number(name)
    return bits


def drop_bounding(keep: int) -> None:
    """Leave only the capabilities of mask *keep* in the bounding set."""
    for n in range(last() + 1):
        if not keep >> n & 1:
            prctl(PR_CAPBSET_DROP, n)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread, each set a mask."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (effective, permitted, inheritable)
    data = (ctypes.c_uint32 * 6)(*(s & low for s in sets), *(s >> high for s in sets))
    check(libc.capset(header, data), "capset")


def set_ambient(wanted: int) -> None:
    """Make the ambient set *wanted*; each must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for n in range(wanted.bit_length()):
        if wanted >> n & 1:
            prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, n)
