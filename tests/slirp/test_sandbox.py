"""The filters, by running their programs; and the sandboxes, by trying to get out of them."""

import errno
import os
import platform
import select
import socket
import struct
import tempfile
from collections.abc import Callable

import pytest

from slirp import sandbox, seccomp, syscalls
from slirp.namespaces import new_network, run_in
from slirp.seccomp import ALLOW, ENOSYS, EPERM, KILL
from tests.support.userns import in_namespace

MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE_OF_A_THREAD = 0x3D0F00  # what pthread_create says


def verdict(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the program answers to a call: classic BPF, as far as seccomp.py uses it."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    code = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[value : value + 4], "little")
        elif operation == 0x54:
            accumulator &= value
        elif operation in (0x15, 0x35):
            holds = accumulator == value if operation == 0x15 else accumulator >= value
            at += if_true if holds else if_false
        else:
            assert operation == 0x06
            return int(value)


def answers(rules: list[seccomp.Rule], default: int, machine: str) -> Callable[..., int]:
    """The verdict on a call by its name."""
    program = seccomp.program(rules, default, machine)
    numbers = seccomp._numbers(seccomp._ARCHITECTURES[machine][1])
    return lambda name, *arguments: verdict(program, AUDIT_ARCH[machine], numbers[name], arguments)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_stack_moves_bytes_and_does_nothing_else(machine: str) -> None:
    says = answers(sandbox._STACK_RULES, EPERM, machine)
    assert {says(name) for name in ("read", "splice", "recvmmsg", "epoll_pwait", "exit_group", "accept4")} == {ALLOW}
    assert {says(name) for name in ("execve", "ptrace", "mount", "bpf", "clone", "unshare", "setns")} == {KILL}
    assert {says(name) for name in ("mknodat", "setuid", "fanotify_init")} == {EPERM}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_stack_makes_internet_sockets_and_maps_no_code(machine: str) -> None:
    says = answers(sandbox._STACK_RULES, EPERM, machine)
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET)
    assert [says("socket", family) for family in families] == [ALLOW, ALLOW, EPERM, EPERM, EPERM]
    assert [says("mmap", 0, 4096, protection) for protection in (3, 1, 5, 7)] == [ALLOW, ALLOW, EPERM, EPERM]
    assert [says("mprotect", 0, 4096, protection) for protection in (0, 4)] == [ALLOW, EPERM]
    tiocsti = 0x5412
    assert [says("ioctl", 3, request) for request in (0x5421, tiocsti)] == [ALLOW, EPERM]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_hub_starts_threads_and_network_namespaces_and_no_process(machine: str) -> None:
    says = answers(sandbox._HUB_RULES, ALLOW, machine)
    assert [says("clone", flags) for flags in (CLONE_OF_A_THREAD, 17, CLONE_OF_A_THREAD | 0x10000000)] == [
        *(ALLOW, EPERM, EPERM),
    ]
    assert [says("unshare", flags) for flags in (0x40000000, 0x20000, 0x10000000)] == [ALLOW, EPERM, EPERM]
    assert {says(name) for name in ("execve", "execveat", "ptrace", "mount", "bpf", "kexec_load")} == {EPERM}
    assert says("clone3") == ENOSYS
    assert {says(name) for name in ("setns", "socket", "read")} == {ALLOW}


def test_a_second_set_of_numbers_is_no_way_around() -> None:
    program = seccomp.program(sandbox._HUB_RULES, ALLOW, "x86_64")
    x32_getpid, i386 = 0x40000000 | 39, 0x40000003
    assert verdict(program, AUDIT_ARCH["x86_64"], 39) == ALLOW
    assert verdict(program, AUDIT_ARCH["x86_64"], x32_getpid) == KILL
    assert verdict(program, i386, 20) == KILL
    assert verdict(seccomp.program([], ALLOW, "aarch64"), AUDIT_ARCH["x86_64"], 39) == KILL


def test_every_rule_names_a_call_that_some_machine_has() -> None:
    known = {row.split()[0] for row in seccomp._NUMBERS.split(",")}
    assert {rule.name for rule in sandbox._STACK_RULES + sandbox._HUB_RULES} <= known


def test_a_machine_without_numbers_is_told() -> None:
    with pytest.raises(seccomp.UnknownArchitecture, match="riscv64"):
        seccomp.program([], ALLOW, "riscv64")


def code_of(call: Callable[[], object]) -> int:
    """The errno it fails with, 0 where it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


filtered = pytest.mark.skipif(platform.machine() not in MACHINES, reason="there is no filter for this machine")
kernel = pytest.mark.kernel


def fields(status: str) -> dict[str, str]:
    """Of a /proc/PID/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}


@kernel
@filtered
def test_the_stack_has_no_capability_no_file_and_no_socket_but_the_internet_s() -> None:
    def confined() -> dict[str, object]:
        status = os.open("/proc/self/status", os.O_RDONLY)
        missing = sandbox.confine_stack()
        told = fields(os.read(status, 8192).decode())
        return {
            "missing": missing,
            "capabilities": {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
            "told": [told[name] for name in ("NoNewPrivs", "Seccomp", "Name")],
            "open": code_of(lambda: os.open("/", os.O_RDONLY)),
            "unix": code_of(lambda: socket.socket(socket.AF_UNIX)),
            "internet": code_of(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "epoll": code_of(select.epoll),
        }

    assert in_namespace(confined) == {
        "missing": "",
        "capabilities": {"0" * 16},
        "told": ["1", "2", "slirp-stack"],
        "open": errno.EPERM,
        "unix": errno.EPERM,
        "internet": 0,
        "epoll": 0,
    }


@kernel
def test_the_root_is_empty_and_cannot_be_written_to() -> None:
    def rooted() -> tuple[list[str], int, int, bool]:
        sandbox._empty_root()
        write = code_of(lambda: os.mkdir("/x"))
        return os.listdir("/"), write, code_of(lambda: os.stat("/..//home")), os.getcwd() == "/"

    assert in_namespace(rooted) == ([], errno.EROFS, errno.ENOENT, True)


@kernel
@filtered
@pytest.mark.parametrize("attack", ["fork", "exec", "unshare"])
def test_an_attack_kills_the_stack(attack: str) -> None:
    attacks: dict[str, Callable[[], object]] = {
        "fork": os.fork,
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "unshare": lambda: syscalls.unshare(syscalls.CLONE_NEWNS),
    }

    def ending() -> int:
        pid = os.fork()
        if pid == 0:
            sandbox.confine_stack()
            attacks[attack]()
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_namespace(ending) == -31  # SIGSYS


@kernel
@filtered
def test_the_stack_writes_no_file_though_it_has_a_descriptor() -> None:
    def written() -> int:
        fd, _ = tempfile.mkstemp()
        sandbox.confine_stack()
        return code_of(lambda: os.write(fd, b"x"))

    assert in_namespace(written) == errno.EFBIG


@kernel
@filtered
def test_the_hub_keeps_what_it_needs_and_starts_nothing() -> None:
    def confined() -> dict[str, object]:
        missing = sandbox.confine_hub()
        with open("/proc/self/status", encoding="ascii") as file:
            told = fields(file.read())
        netns_fd = new_network()
        return {
            "missing": missing,
            "capabilities": {told[name] for name in ("CapPrm", "CapEff", "CapBnd")},
            "none": {told[name] for name in ("CapInh", "CapAmb")},
            "told": [told["NoNewPrivs"], told["Seccomp"]],
            "socket there": run_in(
                netns_fd, lambda: code_of(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            ),
            "fork": code_of(os.fork),
            "exec": code_of(lambda: os.execv("/bin/true", ["true"])),
            "mount": code_of(lambda: syscalls.mount("none", "/tmp", "tmpfs")),
            "user namespace": code_of(lambda: syscalls.unshare(0x10000000)),
            "dumpable": syscalls.prctl(3),
        }

    kept = f"{1 << 10 | 1 << 12 | 1 << 13 | 1 << 21:016x}"  # NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_ADMIN
    assert in_namespace(confined) == {
        "missing": "",
        "capabilities": {kept},
        "none": {"0" * 16},
        "told": ["1", "2"],
        "socket there": 0,
        "fork": errno.EPERM,
        "exec": errno.EPERM,
        "mount": errno.EPERM,
        "user namespace": errno.EPERM,
        "dumpable": 0,
    }
