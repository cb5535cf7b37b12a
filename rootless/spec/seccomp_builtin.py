"""The profile of a container for which nobody asks for another: Docker's default, of late 2026.

What it allows is what moby's profiles (seccomp/default_linux.go) allow, in the same cases; `git log` of that file tells
of each call why. The rest is refused with EPERM, which programs take for a matter of rights; clone3 with ENOSYS, so
that C libraries fall back to clone, whose flags can be seen. Calls newer than the newest here give ENOSYS
(seccomp_filter.py).

On i386, socketcall(2) and ipc(2) are allowed as in Docker: their arguments are in memory, out of a filter's sight, and
32-bit programs have no network without them. Who wants the rules about address families to hold for every program takes
a profile whose architectures do not include SCMP_ARCH_X86.
"""

from rootless.spec.runtime import Config
from rootless.spec.seccomp_profile import Entry, Gate, Profile

_ALLOWED = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown
lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat
openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync
sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice
write writev listmount statmount fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr
lsetxattr removexattr removexattrat setxattr setxattrat
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
_newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
remap_file_pages
execve execveat exit exit_group fork kill pause pidfd_open pidfd_send_signal prctl tgkill tkill vfork wait4 waitid
waitpid restart_syscall rseq set_robust_list get_robust_list set_tid_address set_thread_area get_thread_area uretprobe
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid
getresgid getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid
setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
setreuid32 setsid setuid setuid32
landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
getcpu getpriority getrlimit getrusage prlimit64 sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield setpriority setrlimit ugetrlimit
adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
getrandom riscv_hwprobe sysinfo uname
"""

# capability -> the calls that come with it
_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr"
    " lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd"
    " setdomainname sethostname setns syslog umount umount2 unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
# A filter sees what a tracer makes of a call only since 4.8: before, ptrace was a way around it.
_SINCE_4_8 = "process_vm_readv process_vm_writev ptrace"

# Address families, <linux/socket.h>. Those below are an unbroken row; after it, one by one.
_FAMILIES_BELOW = 12  # AF_DECnet
_FAMILIES = (
    *(13, 14, 15, 16, 17, 18, 21, 22, 24),  # NETBEUI SECURITY KEY NETLINK PACKET ASH RDS SNA PPPOX
    *(26, 27, 28, 29, 30, 31, 32, 33, 35),  # LLC IB MPLS CAN TIPC BLUETOOTH IUCV RXRPC PHONET
    *(36, 39, 41, 42, 43, 44, 45),  # IEEE802154 NFC KCM QIPCRTR SMC XDP MCTP; not ALG, and not VSOCK
)
# personality(2): PER_LINUX, PER_LINUX32, both with UNAME26; and asking which it is.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# clone(2): NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_ADMINISTRATOR = Gate(capabilities=("CAP_SYS_ADMIN",))


def profile() -> Profile:
    """It, for all machines and capabilities."""
    common = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1}
    architectures = {
        "SCMP_ARCH_X86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        "SCMP_ARCH_AARCH64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    }
    without_namespaces = {**_compare(0, "SCMP_CMP_MASKED_EQ", _NAMESPACES), "names": ["clone"]}
    no_clone3 = {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    entries = (
        _allow(_ALLOWED),
        _allow(_SINCE_4_8, Gate(kernel=(4, 8))),
        Entry({**_compare(0, "SCMP_CMP_LT", _FAMILIES_BELOW), "names": ["socket"]}),
        *(Entry({**_compare(0, "SCMP_CMP_EQ", family), "names": ["socket"]}) for family in _FAMILIES),
        *(Entry({**_compare(0, "SCMP_CMP_EQ", value), "names": ["personality"]}) for value in _PERSONALITIES),
        _allow(
            "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
            Gate(machines=("arm64",)),
        ),
        _allow("arch_prctl modify_ldt", Gate(machines=("amd64",))),
        *(_allow(names, Gate(capabilities=(capability,))) for capability, names in _BY_CAPABILITY.items()),
        Entry(without_namespaces, excludes=_ADMINISTRATOR),
        Entry(no_clone3, excludes=_ADMINISTRATOR),
    )
    return Profile(common, entries, architectures)


def _allow(names: str, includes: Gate = Gate()) -> Entry:  # noqa: B008 - it is a record
    return Entry({"names": names.split(), "action": "SCMP_ACT_ALLOW"}, includes)


def _compare(index: int, operator: str, value: int) -> Config:
    return {"action": "SCMP_ACT_ALLOW", "args": [{"index": index, "value": value, "op": operator}]}
