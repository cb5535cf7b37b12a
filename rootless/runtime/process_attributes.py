"""What config.md lets a process be beside its credentials: scheduling, processors, personality, labels.

Each is set by the process itself, shortly before it executes the program, while it has every capability in the user
namespace. What the kernel then still denies, as a realtime policy without a limit that lets the user have one, is
an error that names the member: nothing is left out in silence.
"""

import os
from typing import NamedTuple

from rootless.errors import HostUnsupported, RootlessError
from rootless.linux import scheduling
from rootless.spec.runtime import Config

_POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}


class Label(NamedTuple):
    """A file of /proc/self/attr, open, and what is written there for the next execve(2)."""

    fd: int
    text: bytes
    member: str


def open_labels(process: Config) -> list[Label]:
    """The labels of *process*, to be set once /proc is the container's. Raises HostUnsupported."""
    found = []
    profile, context = process.get("apparmorProfile"), process.get("selinuxLabel")
    if profile and profile != "unconfined":
        found.append(_open_label("apparmor/exec", f"exec {profile}", "process.apparmorProfile", "AppArmor"))
    if context:
        found.append(_open_label("exec", context, "process.selinuxLabel", "SELinux"))
    return found


def _open_label(name: str, text: str, member: str, module: str) -> Label:
    active = {"AppArmor": "/sys/kernel/security/apparmor", "SELinux": "/sys/fs/selinux/enforce"}[module]
    try:
        if not os.path.exists(active):
            raise OSError(0, "it is not active")
        return Label(os.open(f"/proc/self/attr/{name}", os.O_WRONLY | os.O_CLOEXEC), text.encode(), member)
    except OSError as error:
        raise HostUnsupported(
            f"{member}: this machine has no {module} that a user could set: {error.strerror}"
        ) from error


def set_labels(labels: list[Label]) -> None:
    """Have them hold from the next execve(2) on."""
    for label in labels:
        try:
            os.write(label.fd, label.text)
        except OSError as error:
            raise RootlessError(f"{label.member}: {error.strerror}") from error


def apply(process: Config, personality: Config | None) -> None:
    """Scheduling, processors and *personality* (linux.personality) of *process*, for this process."""
    _apply_scheduler(process.get("scheduler"))
    _apply_io_priority(process.get("ioPriority"))
    if personality:
        scheduling.personality(_PERSONALITIES[personality["domain"]])


def apply_affinity(process: Config, member: str) -> None:
    """The processors that exec's process may run on: *member* "initial" or "final" of process.execCPUAffinity."""
    cpus = (process.get("execCPUAffinity") or {}).get(member)
    if cpus:
        try:
            os.sched_setaffinity(0, parse_cpus(cpus))
        except OSError as error:
            raise RootlessError(f"process.execCPUAffinity.{member}: {cpus}: {error.strerror}") from error


def parse_cpus(text: str) -> set[int]:
    """{0, 1, 2, 7} of "0-2,7", as cpuset(7) writes lists."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _apply_scheduler(scheduler: Config | None) -> None:
    if not scheduler:
        return
    flags = sum(_FLAGS[flag] for flag in set(scheduler.get("flags") or ()))
    numbers = (scheduler.get(key) or 0 for key in ("nice", "priority", "runtime", "deadline", "period"))
    try:
        scheduling.sched_setattr(_POLICIES[scheduler["policy"]], flags, *numbers)
    except OSError as error:
        raise RootlessError(
            f"process.scheduler: {scheduler['policy']}: {os.strerror(error.errno or 0)}",
            hint="what a user may have: `ulimit -e` and `ulimit -r`, sched(7)",
        ) from error


def _apply_io_priority(io_priority: Config | None) -> None:
    if not io_priority:
        return
    try:
        scheduling.ioprio_set(_IO_CLASSES[io_priority["class"]], io_priority.get("priority") or 0)
    except OSError as error:
        raise RootlessError(f"process.ioPriority: {io_priority['class']}: {os.strerror(error.errno or 0)}") from error
