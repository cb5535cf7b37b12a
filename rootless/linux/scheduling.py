"""How a process is scheduled, and as what machine it sees this one: sched_setattr(2), ioprio_set(2), personality(2)."""

import struct

from rootless.linux.libc import MACHINE, check, libc, syscall

_NR_SCHED_SETATTR, _NR_IOPRIO_SET = {"x86_64": (314, 251), "aarch64": (274, 30)}.get(MACHINE, (0, 0))
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")  # struct sched_attr of Linux 3.14
_IOPRIO_WHO_PROCESS = 1
_CLASS_SHIFT = 13


def sched_setattr(policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """sched_setattr(2) of this thread; times are nanoseconds."""
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, flags, nice, priority, runtime, deadline, period)
    syscall(_NR_SCHED_SETATTR, "sched_setattr", 0, attributes, 0)


def ioprio_set(io_class: int, priority: int) -> None:
    """ioprio_set(2) of this thread."""
    syscall(_NR_IOPRIO_SET, "ioprio_set", _IOPRIO_WHO_PROCESS, 0, io_class << _CLASS_SHIFT | priority)


def personality(domain: int) -> None:
    """personality(2)."""
    check(libc.personality(domain), "personality")
