"""What the process that serves gives up once it has its layers and its mount.

It works on names and bytes that a hostile container chose. If it is taken over all the same, what is left is a process
that can read files as root of its namespace, and change those of the upper layer, which its work is: it has those
capabilities that file operations take, can gain none, starts no program, has no network, mounts nothing, traces nobody,
and shows its memory to nobody. Calls that certainly are an attack kill it; the list names what is forbidden rather than
what is allowed, for the C library's choice of calls for files changes, and a call it does not expect to fail would be a
file that cannot be read. On an architecture whose call numbers are not known, or a kernel without Landlock, the rest of
it holds.
"""

import os
import resource
import struct

from fuse import landlock, syscalls

# capabilities(7)
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER, _CAP_FSETID = 0, 1, 2, 3, 4
_CAP_SYS_ADMIN, _CAP_MKNOD, _CAP_SETFCAP = 21, 27, 31
KEPT = (_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_FOWNER, _CAP_FSETID, _CAP_MKNOD, _CAP_SETFCAP)
_SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, all of them and KEEP_CAPS locked

# <linux/seccomp.h>, <linux/audit.h>, <linux/bpf_common.h>
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_…, column of the numbers
_X32 = 0x40000000  # x86_64's second set of numbers for the same calls: whoever uses it goes around the filter
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_CLONE_THREAD = 0x00010000

# Name, number on x86_64, number on aarch64: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_ATTACKS = """
execve 59 221, execveat 322 281, ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, mount 165 40,
umount2 166 39, pivot_root 155 41, chroot 161 51, move_mount 429 429, open_tree 428 428, fsopen 430 430,
fsmount 432 432, fsconfig 431 431, fspick 433 433, mount_setattr 442 442, unshare 272 97, setns 308 268, reboot 169 142,
kexec_load 246 104, kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106,
bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, keyctl 250 219, add_key 248 217, request_key 249 218,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, pidfd_getfd 438 438, fork 57 -, vfork 58 -,
open_by_handle_at 304 265
"""
# What a library may try and do without: these fail as if there were no permission.
_REFUSED = """
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, listen 50 201, personality 135 92, acct 163 89,
quotactl 179 60, syslog 103 116, kcmp 312 272, swapon 167 224, swapoff 168 225, clock_settime 227 112,
settimeofday 164 170, adjtimex 159 171, clock_adjtime 305 266, sethostname 170 161, setdomainname 171 162, iopl 172 -,
ioperm 173 -, modify_ldt 154 -, setuid 105 146, setgid 106 144, setreuid 113 145, setregid 114 143, setresuid 117 147,
setresgid 119 149, setgroups 116 159, fanotify_init 300 262, vhangup 153 58, uselib 134 -
"""
_CLONE, _CLONE3, _SECCOMP = (56, 220), (435, 435), (317, 277)


def confine(*, trusted: bool, writable: "tuple[bytes, ...] | None" = None) -> str:
    """Be what the module says; with *trusted*, attributes `trusted.*` still work. What is missing here, or "".

    Where *writable* says so, nothing is changed but what is below these directories (landlock.py). Raises OSError.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would be the containers' files
    _drop_capabilities((*KEPT, _CAP_SYS_ADMIN) if trusted else KEPT)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    unlocked = "" if writable is None else landlock.restrict(writable)
    return "; ".join(filter(None, (unlocked, _filter(os.uname().machine))))


def _drop_capabilities(keep: tuple[int, ...]) -> None:
    """Leave only *keep* of what there is, and nothing that a program started later could gain."""
    mask = sum(1 << number for number in keep) & syscalls.capget()
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    try:
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, _SECUREBITS)
        for number in range(64):
            if not mask >> number & 1:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    except OSError:
        pass  # beyond the last capability that this kernel has; or an ordinary user, who has none to lose
    syscalls.capset(mask, mask, 0)


def _filter(machine: str) -> str:
    if machine not in _ARCHITECTURES:
        return f"no system call filter: the numbers of {machine} are not known"
    syscalls.seccomp_filter(program(machine), _SECCOMP[_ARCHITECTURES[machine][1]])
    return ""


def program(machine: str) -> bytes:
    """The filter for *machine*, as the kernel takes it: an array of struct sock_filter."""
    architecture, column = _ARCHITECTURES[machine]
    code = [_op(_LOAD, _ARCH), _op(_EQUAL, architecture, 1, 0), _op(_RETURN, _KILL), _op(_LOAD, _NR)]
    if machine == "x86_64":
        code += [_op(_AT_LEAST, _X32, 0, 1), _op(_RETURN, _KILL)]
    for names, action in ((_ATTACKS, _KILL), (_REFUSED, _EPERM)):
        for number in _numbers(names, column):
            code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, action)]
    # clone3's flags are behind a pointer, which the filter cannot follow; without it the C library takes clone(2).
    code += [_op(_EQUAL, _CLONE3[column], 0, 1), _op(_RETURN, _ENOSYS)]
    threads_only = [
        _op(_LOAD, _FIRST_ARGUMENT),
        _op(_AND, _CLONE_THREAD),
        _op(_EQUAL, _CLONE_THREAD, 1, 0),
        _op(_RETURN, _KILL),
    ]
    return b"".join([*code, _op(_EQUAL, _CLONE[column], 0, len(threads_only)), *threads_only, _op(_RETURN, _ALLOW)])


def _numbers(table: str, column: int) -> list[int]:
    rows = (row.split() for row in table.split(","))
    return [int(row[column + 1]) for row in rows if row[column + 1] != "-"]


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
