"""What the two processes give up, once they have what they need.

STACK reads what containers and the world send, so it is built to be worth nothing to whoever takes it over: its root is
an empty directory that cannot be written to, it has no capability and can gain none, and the kernel answers only the
calls that move bytes between descriptors it was given and ordinary internet sockets. It cannot start a program, make a
process, map code, open a file, or make a socket of any family but IPv4 and IPv6. What is certainly an attack kills it.

HUB keeps the capabilities that its work takes, and loses what it never does: programs, mounts, debugging, modules,
namespaces of users. The threads that enter namespaces for a moment are the only thing it can start.

On an architecture without a filter the rest of it holds, and the log says so.
"""

import codecs
import os
import resource
import signal

from slirp import seccomp, syscalls
from slirp.seccomp import ALLOW, ENOSYS, EPERM, KILL, Rule, rules

_SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, all of them and KEEP_CAPS locked: capabilities(7)
_CAP_SETPCAP, _CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN = 8, 10, 12, 13, 21
_HUB_KEEPS = (_CAP_NET_BIND_SERVICE, _CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_SYS_ADMIN)
_MOUNT_POINT = "/proc"  # any directory that is there: an empty file system is laid over it
_MOST_DATA = 2 << 30  # bytes of memory: what the limits of all flows add up to is less, and a bug ends here

_AF_INET, _AF_INET6 = 2, 10
_PROT_EXEC = 4
_CLONE_THREAD, _CLONE_NEWUSER = 0x00010000, 0x10000000
_F_DUPFD_CLOEXEC, _F_SETPIPE_SZ, _F_GETPIPE_SZ = 1030, 1031, 1032
_FIONREAD, _SIOCOUTQ, _FIONBIO, _FIOCLEX, _FIONCLEX = 0x541B, 0x5411, 0x5421, 0x5451, 0x5450

_ATTACKS = (
    "execve execveat ptrace process_vm_readv process_vm_writev mount umount2 pivot_root chroot move_mount open_tree"
    " fsopen fsmount fsconfig fspick mount_setattr reboot kexec_load kexec_file_load init_module finit_module"
    " delete_module bpf perf_event_open userfaultfd keyctl add_key request_key io_uring_setup io_uring_enter"
    " io_uring_register pidfd_getfd open_by_handle_at"
)
_STACK_RULES = [
    *rules("read write readv writev recvfrom sendto recvmsg sendmsg recvmmsg sendmmsg splice tee epoll_wait", ALLOW),
    *rules("epoll_pwait epoll_pwait2 epoll_ctl epoll_create1 poll ppoll accept accept4 bind connect listen", ALLOW),
    *rules("shutdown getsockname getpeername getsockopt setsockopt close pipe2 lseek eventfd2", ALLOW),
    *rules("fstat newfstatat", ALLOW),  # fstat(3) is the second by now; there is no path to be looked at
    *rules("timerfd_create timerfd_settime clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday", ALLOW),
    *rules("time getrandom futex sched_yield brk munmap mremap madvise rseq set_robust_list getrusage", ALLOW),
    *rules("rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall getpid gettid", ALLOW),
    *rules("exit exit_group", ALLOW),
    Rule("socket", ALLOW, 0, (_AF_INET, _AF_INET6)),
    Rule("fcntl", ALLOW, 1, (1, 2, 3, 4, _F_DUPFD_CLOEXEC, _F_SETPIPE_SZ, _F_GETPIPE_SZ)),  # 1 to 4: F_GETFD to F_SETFL
    Rule("ioctl", ALLOW, 1, (_FIONBIO, _FIONREAD, _SIOCOUTQ, _FIOCLEX, _FIONCLEX)),
    Rule("mmap", ALLOW, 2, (0,), _PROT_EXEC),
    Rule("mprotect", ALLOW, 2, (0,), _PROT_EXEC),
    *rules(_ATTACKS, KILL),
    *rules("clone clone3 fork vfork unshare setns", KILL),
]
_HUB_RULES = [
    *rules(_ATTACKS, EPERM),
    *rules("swapon swapoff personality acct quotactl syslog kcmp name_to_handle_at clock_settime settimeofday", EPERM),
    *rules("adjtimex clock_adjtime sethostname setdomainname iopl ioperm modify_ldt fork vfork mknod mknodat", EPERM),
    *rules("setuid setgid setreuid setregid setresuid setresgid setgroups fanotify_init vhangup uselib", EPERM),
    *rules("clone3", ENOSYS),  # its flags are behind a pointer; the C library then takes clone(2)
    Rule("clone", ALLOW, 0, (_CLONE_THREAD,), _CLONE_THREAD | _CLONE_NEWUSER),
    Rule("unshare", ALLOW, 0, (syscalls.CLONE_NEWNET,)),
]


def confine_stack() -> str:
    """The sandbox of STACK, which has loaded all it needs; what is missing on this machine, or "". Raises OSError."""
    syscalls.prctl(syscalls.PR_SET_NAME, b"slirp-stack")
    for name in ("ascii", "utf-8", "latin-1"):
        codecs.lookup(name)  # Python loads them at their first use, from a file
    _limit()
    _empty_root()
    _drop_capabilities(())
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    return _filter(_STACK_RULES, EPERM)


def confine_hub() -> str:
    """The sandbox of HUB, before it listens to anybody; what is missing on this machine, or "". Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _drop_capabilities(_HUB_KEEPS)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    return _filter(_HUB_RULES, ALLOW)


def _limit() -> None:
    """No core (it would be the containers' bytes), no file that grows, no process, no memory without end."""
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_DATA, _MOST_DATA),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def _empty_root() -> None:
    """An empty, read-only root; the old one is not reachable any more: pivot_root(2), "pivot_root(".", ".")"."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("none", _MOUNT_POINT, "tmpfs", flags, "mode=0555,size=4096,nr_inodes=1")
    os.chdir(_MOUNT_POINT)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _drop_capabilities(keep: tuple[int, ...]) -> None:
    """Leave only *keep*, and nothing that a program started later could gain: capabilities(7)."""
    mask = sum(1 << number for number in keep)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    syscalls.prctl(syscalls.PR_SET_SECUREBITS, _SECUREBITS)
    for number in range(64):
        if not mask >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError:
                if number <= _CAP_SYS_ADMIN:
                    raise
                break  # EINVAL: beyond the last that this kernel knows
    syscalls.capset(mask, mask, 0)


def _filter(wanted: list[Rule], default: int) -> str:
    machine = os.uname().machine
    try:
        program = seccomp.program(wanted, default, machine)
    except seccomp.UnknownArchitecture:
        return f"no system call filter: the numbers of {machine} are not known"
    syscalls.seccomp_filter(program)
    return ""


def die_with_parent(parent: int) -> None:
    """Be killed when *parent* ends, also where it has ended already: PR_SET_PDEATHSIG(2const)."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
