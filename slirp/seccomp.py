"""System call filters, seccomp(2): lists of rules, and the classic BPF program that they become.

A program looks at the architecture, at the call's number, and at the lower half of one argument, and ends in an action.
Pointers are never looked at: what they point to can change after the check. Numbers are those of x86_64 and of aarch64;
on another architecture `program` says that it cannot.
"""

import struct
from typing import NamedTuple

# <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_…, column of _NUMBERS
_X32 = 0x40000000  # x86_64's second set of numbers for the same calls: whoever uses it goes around the filter
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

# Name, number on x86_64, number on aarch64: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_NUMBERS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, recvfrom 45 207, sendto 44 206, recvmsg 47 212, sendmsg 46 211,
recvmmsg 299 243, sendmmsg 307 269, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441, epoll_ctl 233 21,
epoll_create1 291 20, accept4 288 242, accept 43 202, bind 49 200, connect 42 203, listen 50 201, shutdown 48 210,
getsockname 51 204, getpeername 52 205, getsockopt 55 209, setsockopt 54 208, socket 41 198, close 3 57,
splice 275 76, tee 276 77, pipe2 293 59, fcntl 72 25, ioctl 16 29, mmap 9 222, munmap 11 215, mremap 25 216,
mprotect 10 226, madvise 28 233, brk 12 214, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115,
nanosleep 35 101, gettimeofday 96 169, time 201 -, getrandom 318 278, futex 202 98, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, sigaltstack 131 132, getpid 39 172, gettid 186 178, exit 60 93,
exit_group 231 94, restart_syscall 219 128, poll 7 -, ppoll 271 73, timerfd_create 283 85, timerfd_settime 286 86,
eventfd2 290 19, lseek 8 62, fstat 5 80, newfstatat 262 79,
sched_yield 24 124, getrusage 98 165, rseq 334 293, set_robust_list 273 99,
dup 32 23, dup3 292 24, execve 59 221, execveat 322 281, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429,
open_tree 428 428, fsopen 430 430, fsmount 432 432, fsconfig 431 431, fspick 433 433, mount_setattr 442 442,
swapon 167 224, swapoff 168 225, reboot 169 142, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105,
finit_module 313 273, delete_module 176 106, bpf 321 280, perf_event_open 298 241, userfaultfd 323 282,
keyctl 250 219, add_key 248 217, request_key 249 218, personality 135 92, acct 163 89, quotactl 179 60,
syslog 103 116, kcmp 312 272, io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
pidfd_getfd 438 438, open_by_handle_at 304 265, name_to_handle_at 303 264, clock_settime 227 112,
settimeofday 164 170, adjtimex 159 171, clock_adjtime 305 266, sethostname 170 161, setdomainname 171 162,
iopl 172 -, ioperm 173 -, modify_ldt 154 -, clone 56 220, clone3 435 435, fork 57 -, vfork 58 -, unshare 272 97,
setns 308 268, mknodat 259 33, mknod 133 -, setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143,
setresuid 117 147, setresgid 119 149, setgroups 116 159, fanotify_init 300 262, vhangup 153 58, uselib 134 -
"""


class Rule(NamedTuple):
    """What happens to a call; with *values*, only where `argument & mask` is one of them, and *otherwise* where not."""

    name: str
    action: int
    argument: int = -1
    values: tuple[int, ...] = ()
    mask: int = 0xFFFFFFFF
    otherwise: int = EPERM


class UnknownArchitecture(Exception):
    """There are no numbers for this machine."""


def rules(names: str, action: int) -> list[Rule]:
    """One for each of *names*, separated by blanks."""
    return [Rule(name, action) for name in names.split()]


def program(wanted: list[Rule], default: int, machine: str) -> bytes:
    """The filter as the kernel takes it: an array of struct sock_filter. Raises UnknownArchitecture."""
    if machine not in _ARCHITECTURES:
        raise UnknownArchitecture(machine)
    architecture, column = _ARCHITECTURES[machine]
    numbers = _numbers(column)
    code = [_op(_LOAD, _ARCH), _op(_EQUAL, architecture, 1, 0), _op(_RETURN, KILL), _op(_LOAD, _NR)]
    if machine == "x86_64":
        code += [_op(_AT_LEAST, _X32, 0, 1), _op(_RETURN, KILL)]
    for rule in wanted:
        if rule.name in numbers:
            code += _test(numbers[rule.name], _verdict(rule))
    return b"".join([*code, _op(_RETURN, default)])


def _numbers(column: int) -> dict[str, int]:
    rows = (row.split() for row in _NUMBERS.split(","))
    return {row[0]: int(row[column + 1]) for row in rows if row[column + 1] != "-"}


def _test(number: int, verdict: list[bytes]) -> list[bytes]:
    """Where the call is *number*, *verdict*, which always returns."""
    return [_op(_EQUAL, number, 0, len(verdict)), *verdict]


def _verdict(rule: Rule) -> list[bytes]:
    if rule.argument < 0:
        return [_op(_RETURN, rule.action)]
    load = [_op(_LOAD, _ARGUMENTS + 8 * rule.argument), _op(_AND, rule.mask)]  # both are little-endian: the lower half
    tests = [part for value in rule.values for part in (_op(_EQUAL, value, 0, 1), _op(_RETURN, rule.action))]
    return [*load, *tests, _op(_RETURN, rule.otherwise)]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
