"""Processes: pidfds, start times, prctl(2), limits on what a child inherits."""

import errno
import os

from rootless.linux.libc import (
    NR_CLOSE_RANGE,
    NR_PIDFD_OPEN,
    NR_PIDFD_SEND_SIGNAL,
    NR_RT_SIGACTION,
    check,
    libc,
    syscall,
)

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """prctl(2)."""
    return check(libc.prctl(option, arg2, arg3, 0, 0), "prctl")


def pidfd_open(pid: int) -> int:
    """pidfd_open(2): a descriptor that means this very process for ever. ENOSYS before Linux 5.3."""
    return syscall(NR_PIDFD_OPEN, "pidfd_open", pid, 0)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """pidfd_send_signal(2)."""
    syscall(NR_PIDFD_SEND_SIGNAL, "pidfd_send_signal", pidfd, signum, None, 0)


def start_time(pid: int) -> int:
    """When *pid* started, in clock ticks since boot: field 22 of proc_pid_stat(5). 0 where there is no such process.

    A pid and its start time together name one process, as a pidfd does, and can be written down.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = after_name.split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def set_command_line(text: str) -> None:
    """Show *text*, as far as there is room, as name and command line of this process, and nothing as its environment.

    What is in /proc/PID/{cmdline,environ} is memory of the process, between the addresses that fields 48 to 51 of
    proc_pid_stat(5) tell.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end, env_start, env_end = map(int, fields[45:49])
    shown = text.encode()[: end - start - 1].ljust(end - start, b"\0")
    fd = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, shown, start)
        os.pwrite(fd, bytes(env_end - env_start), env_start)
    finally:
        os.close(fd)
    with open("/proc/self/comm", "wb") as file:
        file.write(text.encode()[:15])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the process that was written down as *pid* and *started*; None where it is gone (X24)."""
    if pid <= 0 or not started:
        return None
    try:
        fd = pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise
    # Opened first, compared then: had the number been recycled before the open, the start time would differ now.
    if start_time(pid) != started:
        os.close(fd)
        return None
    return fd


def open_of_process(pid: int, started: int, name: str, flags: int) -> int | None:
    """An fd of *name* in the /proc directory of the process that was written down so; None where it is gone.

    Raises OSError for what is there and cannot be opened.
    """
    try:
        fd = os.open(f"/proc/{pid}/{name}", flags | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if start_time(pid) != started:  # opened first, compared then, as above
        os.close(fd)
        return None
    return fd


def close_from(first: int) -> None:
    """Close every descriptor from *first* on: close_range(2), or /proc/self/fd before Linux 5.9."""
    try:
        syscall(NR_CLOSE_RANGE, "close_range", first, 0xFFFFFFFF, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        for name in os.listdir("/proc/self/fd"):
            if int(name) >= first:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the one that listed the directory


def boot_id() -> str:
    """Which boot of the machine this is. Records of another boot speak of processes that are gone (M05)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def default_signals() -> None:
    """Give every signal its default action again, rt_sigaction(2): what is ignored stays ignored across execve(2).

    By the system call, as the C library keeps 32 and 33 for itself, and whoever started us may ignore these too.
    """
    default = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, nothing masked
    for number in range(1, 65):
        if number not in (9, 19):  # SIGKILL and SIGSTOP have no action to set
            syscall(NR_RT_SIGACTION, "rt_sigaction", number, default, None, 8)
