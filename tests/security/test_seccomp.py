"""System calls that a container must not make (S01 to S08, X17, X23), made from within, on every way in."""

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless.engine.seccomp import make
from rootless.linux import capabilities
from rootless.spec import runtime, seccomp, seccomp_filter, seccomp_numbers
from tests.support import bpf, probe
from tests.support.account import wait_until
from tests.support.hostile import Box, failure, running

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is written for x86_64 only"),
]

X86_64, X32, I386 = (seccomp_numbers.numbers(f"SCMP_ARCH_{a}") for a in ("X86_64", "X32", "X86"))
AUDIT_X86_64, AUDIT_I386, X32_BIT = 0xC000003E, 0x40000003, 0x40000000
SWEEP = (*range(501), 2**30 - 1)
ALLOW = seccomp.ALLOW
# Linux lets these past every filter since 6.14: the code that it writes into a traced program makes them.
UNFILTERED = {(AUDIT_X86_64, X86_64[name]) for name in ("uretprobe", "uprobe")}
NEWUSER, NEWNS, SIGCHLD = 0x10000000, 0x00020000, 17
SESSION_KEYRING, KEYCTL_UNLINK, KEYCTL_SEARCH, KEYCTL_READ = -3, 9, 10, 11
AF_ALG, AF_VSOCK, AF_UNIX = 38, 40, 1
MOUNTS = (
    *("mount", "umount2", "fsopen", "fsmount", "fsconfig", "fspick", "open_tree", "move_mount", "mount_setattr"),
    *("setns", "unshare", "pivot_root"),
)
KERNEL = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd", "keyctl"),
    *("add_key", "request_key", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *(
        "open_by_handle_at",
        "acct",
        "swapon",
        "swapoff",
        "reboot",
        "quotactl",
        "settimeofday",
        "clock_settime",
        "syslog",
    ),
    *("kcmp", "pidfd_getfd", "process_madvise", "move_pages", "migrate_pages", "iopl", "ioperm", "vhangup", "uselib"),
)


def results(box: Box, *calls: tuple[str | int, ...], options: tuple[str, ...] = ()) -> list[int]:
    """What the calls give in a container of its own."""
    return [answer.result for answer in box.probe(*probe.calls(*calls), options=options)]


def verdicts(added: tuple[str, ...]) -> dict[str, int]:
    """The probe's word for each call of the sweep that is not simply allowed, and what the filter is to return."""
    bounding = [*runtime.DEFAULT_CAPABILITIES, *(f"CAP_{name}" for name in added)]
    program = seccomp_filter.compile_filter(seccomp.parse(without_program(bounding)), "x86_64")
    found = {}
    for prefix, audit, bit in (("", AUDIT_X86_64, 0), ("", AUDIT_X86_64, X32_BIT), ("i", AUDIT_I386, 0)):
        for number in SWEEP:
            verdict = bpf.run(program, audit, number | bit)
            if verdict != ALLOW and (audit, number | bit) not in UNFILTERED:
                found[f"{prefix}{number | bit}"] = verdict
    return found


def without_program(bounding: list[str]) -> runtime.Config:
    return {key: value for key, value in make("builtin", bounding).items() if key != "compiled"}


@pytest.mark.parametrize("added", [(), ("SYS_ADMIN", "SYS_PTRACE")])
def test_each_call_that_is_not_allowed_fails_as_the_table_says(box: Box, added: tuple[str, ...]) -> None:  # S01 S03
    """By the entries of 64-bit programs, of 32-bit ones, and with the numbers of x32."""
    wanted = verdicts(added)
    assert len(wanted) > 250
    options = tuple(f"--cap-add={name}" for name in added)
    got = results(box, *((word,) for word in wanted), options=options)
    wrong = {word: -result for (word, verdict), result in zip(wanted.items(), got, strict=True)
             if seccomp.ERRNO | -result != verdict}  # fmt: skip
    assert wrong == {}


def test_families_are_refused_however_they_are_written(box: Box) -> None:  # S02
    socket, other = X86_64["socket"], I386["socket"]
    high = 1 << 32
    calls: list[tuple[int | str, ...]] = [
        *((socket, family, 5, 0) for family in (AF_ALG, AF_VSOCK, high | AF_ALG, high | AF_VSOCK, -high | AF_ALG)),
        *((f"i{other}", family, 5, 0) for family in (AF_ALG, AF_VSOCK)),
        (X32["socket"], AF_ALG, 5, 0),
    ]
    assert results(box, *calls) == [-errno.EPERM] * len(calls)
    [plain, odd] = results(box, (socket, AF_UNIX, 1, 0), (socket, high | AF_UNIX, 1, 0))
    assert min(plain, odd) > 2


def test_namespaces_and_mounts_are_refused(box: Box) -> None:  # S04 X23
    calls = [(X86_64[name], 0, 0, 0, 0, 0) for name in MOUNTS]
    calls += [(X86_64["clone"], flags | SIGCHLD, 0, 0, 0, 0) for flags in (NEWUSER, NEWNS, 1 << 32 | NEWUSER)]
    assert results(box, *calls) == [-errno.EPERM] * len(calls)
    assert results(box, (X86_64["clone3"], 0, 0), (f"i{I386['clone3']}", 0, 0)) == [-errno.ENOSYS] * 2


def test_with_the_capability_mounts_are_allowed(box: Box) -> None:  # S04
    script = "mount -t tmpfs x /tmp && unshare -m true && echo done"
    assert box.sh(script, "--cap-add", "SYS_ADMIN").endswith("done\n")


def test_what_opens_the_kernel_is_refused(box: Box) -> None:  # S05 X17
    calls = [(X86_64[name], 0, 0, 0, 0, 0) for name in KERNEL]
    assert results(box, *calls) == [-errno.EPERM] * len(calls)


@pytest.fixture
def key() -> Iterator[int]:
    """The serial number of a key in our session's keyring, which what we start inherits."""
    libc = ctypes.CDLL(None, use_errno=True)
    secret = b"a secret of the session"
    serial = libc.syscall(X86_64["add_key"], b"user", b"rootless-test", secret, len(secret), SESSION_KEYRING)
    assert serial > 0, os.strerror(ctypes.get_errno())
    try:
        yield serial
    finally:
        libc.syscall(X86_64["keyctl"], KEYCTL_UNLINK, serial, SESSION_KEYRING)


def test_keys_of_the_session_stay_outside(box: Box, key: int) -> None:  # X17
    """Also where keyctl(2) may be called, since a container has a session's keyring of its own."""
    call, search = X86_64["keyctl"], (KEYCTL_SEARCH, SESSION_KEYRING, "=user", "=rootless-test", 0)
    calls: list[tuple[int | str, ...]] = [(call, KEYCTL_READ, key, "%", 64), (call, *search)]
    assert results(box, *calls) == [-errno.EPERM] * 2
    for options in (("--security-opt", "seccomp=unconfined"), ("--privileged",)):
        read, found = results(box, *calls, options=options)
        assert read in (-errno.EACCES, -errno.ENOKEY, -errno.EPERM)
        assert found == -errno.ENOKEY


def test_calls_of_the_future_are_not_there(box: Box) -> None:  # S06
    calls = [(number,) for number in (467, 468, 469, 500, 1000, 2**30 - 1, 2**31 - 1)]
    assert results(box, *calls) == [-errno.ENOSYS] * len(calls)


def test_personalities_that_weaken_a_program_are_refused(box: Box) -> None:
    personality = X86_64["personality"]
    no_randomize = 0x0040000
    asked = [(personality, value) for value in (0xFFFFFFFF, no_randomize, 1 << 32 | no_randomize, 0x20008, 0)]
    assert results(box, *asked) == [0, -errno.EPERM, -errno.EPERM, 0, 0x20008]


def test_programs_may_trace_their_children(box: Box) -> None:
    traceme, ptrace = 0, X86_64["ptrace"]
    assert results(box, (ptrace, traceme, 0, 0, 0)) == [0]


# Every way in (S07)


def filters(pid: int | str, root: str = "/proc") -> list[str]:
    """The modes of the filters of *pid* and of its children, seen from outside."""
    status = Path(f"{root}/{pid}/status").read_text()
    children = Path(f"{root}/{pid}/task/{pid}/children").read_text().split()
    own = [line.split()[1] for line in status.splitlines() if line.startswith("Seccomp:")]
    return own + [mode for child in children for mode in filters(child)]


@pytest.fixture
def inspected(box: Box) -> Iterator[tuple[str, int]]:
    """A container with a health check, and its pid."""
    check = ("--health-interval", "50ms", "--health-cmd", "grep Seccomp: /proc/self/status")
    with running(box.rootless, box.image, "--init", *check, command=("sh", "-c", "sleep 600 & wait")) as container:
        yield container, int(box.rootless.run("inspect", "-f", "{{.State.Pid}}", container).stdout)


def test_the_filter_is_on_every_process(box: Box, inspected: tuple[str, int]) -> None:  # S07
    container, pid = inspected
    assert wait_until(lambda: filters(pid) == ["2"] * 3)  # init, sh, sleep
    read = ("cat", "/proc/self/status")
    for options in ((), ("-u", "1000"), ("--privileged",)):
        assert "Seccomp:\t2" in box.rootless.run("exec", *options, container, *read).stdout
    query = ("inspect", "-f", "{{range .State.Health.Log}}{{.Output}}{{end}}", container)
    assert wait_until(lambda: "Seccomp:\t2" in box.rootless.run(*query).stdout)
    box.rootless.run("restart", "-t", "0", container)
    again = int(box.rootless.run("inspect", "-f", "{{.State.Pid}}", container).stdout)
    assert wait_until(lambda: filters(again) == ["2"] * 3)


@pytest.mark.parametrize(
    "options", [(), ("-u", "1000"), ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges"), ("--read-only",),
                ("--pid", "host"), ("--network", "host"), ("--cap-add", "ALL")],
)  # fmt: skip
def test_no_option_takes_it_away_silently(box: Box, options: tuple[str, ...]) -> None:  # S07
    status = box.sh("cat /proc/self/status", *options)
    assert "Seccomp:\t2" in status
    assert "Seccomp_filters:\t1" in status
    assert ("NoNewPrivs:\t1" in status) == ("no-new-privileges" in options)


@pytest.mark.parametrize("option", ["seccomp=unconfined", "seccomp:unconfined", "--privileged"])
def test_what_takes_it_away(box: Box, option: str) -> None:
    options = (option,) if option == "--privileged" else ("--security-opt", option)
    assert "Seccomp:\t0" in box.sh("cat /proc/self/status", *options)


def test_installing_it_leaves_no_capability_behind(box: Box) -> None:  # X13
    admin = capabilities.mask(["CAP_SYS_ADMIN"])
    for options in ((), ("-u", "1000"), ("--init",), ("--init", "-u", "1000"), ("--cap-drop", "ALL")):
        script = "cat /proc/1/status /proc/self/status"
        for line in box.sh(script, *options).splitlines():
            if line.startswith("Cap"):
                assert not int(line.split()[1], 16) & admin, (options, line)


def test_steps_of_a_build_are_filtered(box: Box, tmp_path: Path) -> None:  # S07
    (tmp_path / "Dockerfile").write_text(f"FROM {box.image}\nRUN grep Seccomp: /proc/self/status > /seen\n")
    box.rootless.run("build", "-q", "-t", "seen", str(tmp_path))
    assert box.rootless.run("run", "--rm", "seen", "cat", "/seen").stdout == "Seccomp:\t2\n"


# Profiles (S08)

DENY_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EDQUOT},
        {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"minKernel": "3.0", "arches": ["amd64"]}},
        {"name": "getpgrp", "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
    ],
}


def test_a_profile_of_ones_own_holds(box: Box, tmp_path: Path) -> None:  # S08
    path = tmp_path / "a:b=c.json"
    path.write_text(json.dumps(DENY_MKDIR, indent=2))
    options = ("--security-opt", f"seccomp={path}")
    assert "Disk quota exceeded" in box.sh("mkdir /x; true", *options)
    calls: list[tuple[int | str, ...]] = [(X86_64["sethostname"], 0, 0), (f"f{X86_64['sync']}",), (X86_64["getpgrp"],)]
    refused, killed, allowed = box.probe(*probe.calls(*calls), options=options)
    assert (refused.result, killed.signal, allowed.result >= 0) == (-errno.EPERM, 31, True)
    with running(box.rootless, box.image, *options) as container:
        path.unlink()  # it is the container's by now
        box.rootless.run("restart", "-t", "0", container)
        said = box.rootless.run("exec", container, "mkdir", "/x", check=False).stderr
        assert "Disk quota exceeded" in said
        [kept] = json.loads(box.rootless.run("inspect", "-f", "{{json .HostConfig.SecurityOpt}}", container).stdout)
        assert json.loads(kept.removeprefix("seccomp=")) == DENY_MKDIR


NOTIFYING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerPath": "/x",
    "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "opening seccomp profile"),
        ("", "decoding seccomp profile failed"),
        ("{", "decoding seccomp profile failed"),
        ("[]", "decoding seccomp profile failed"),
        ("\0\xff", "decoding seccomp profile failed"),
        ("{}", "defaultAction is missing"),
        ('{"defaultAction": "SCMP_ACT_HOPE"}', "unknown action 'SCMP_ACT_HOPE'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}', "names"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}', "SCMP_ACT_NOTIFY"),
        (json.dumps(NOTIFYING), "nobody would answer"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}', "archMap"),
    ],
)
def test_a_broken_profile_is_an_error_and_nothing_runs(  # S08
    box: Box, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "profile.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    for verb in (("run", "--rm"), ("create",)):
        words = (*verb, "--security-opt", f"seccomp={path}", box.image, "echo", "ran")
        assert said in failure(box.rootless, *words, status=(125, 1))
    assert box.rootless.run("ps", "-aq").stdout == ""


def test_a_profile_that_forbids_execve_starts_nothing(box: Box, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    rule = {"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    words = ("run", "--rm", "--security-opt", f"seccomp={path}", box.image, "true")
    assert "operation not permitted" in failure(box.rootless, *words, status=(126,))


def test_a_profile_of_next_to_nothing_lets_its_program_run(box: Box, tmp_path: Path) -> None:
    """What we do after the filter is there is execve(2) and no more."""
    path = tmp_path / "profile.json"
    rule = {"names": ["execve", "write", "exit", "exit_group"], "action": "SCMP_ACT_ALLOW"}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule]}))
    words = ("--security-opt", f"seccomp={path}", box.image, "/probe", *probe.calls((X86_64["exit_group"], 42)))
    assert box.rootless.run("run", "--rm", *words, check=False).returncode == 42


# What people do


def test_programs_with_threads_and_children_work(box: Box) -> None:  # S04
    program = """if True:
        import asyncio, socket, subprocess, threading
        threads = [threading.Thread(target=print, args=("thread",)) for _ in range(4)]
        for thread in threads:
            thread.start()
            thread.join()
        print(subprocess.check_output(["echo", "child"], text=True), end="")
        print(asyncio.run(asyncio.sleep(0, "loop")))
        print(socket.socketpair()[0].fileno() > 2)
    """
    said = box.rootless.run("run", "--rm", "host", "python3", "-c", program).stdout
    assert said.splitlines() == ["thread"] * 4 + ["child", "loop", "True"]


def test_the_cache_of_programs_is_made_again_where_it_is_broken(box: Box) -> None:
    box.sh("true")
    directory = box.rootless.runtime / "rootless/seccomp"
    for path in directory.iterdir():
        path.write_bytes(b"{")
    assert "Seccomp:\t2" in box.sh("cat /proc/self/status")
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())
