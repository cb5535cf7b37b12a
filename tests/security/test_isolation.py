"""What a container can see of the machine and do to it: descriptors, terminals, kernel files, processes, mounts."""

import ctypes
import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import probe
from tests.support.account import wait_until
from tests.support.canary import SECRET, Canary
from tests.support.hostile import Box, no_traceback, running

pytestmark = pytest.mark.kernel

needs_probe = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the probe is written for x86_64 only")

# x86_64 numbers
IOCTL, KILL, PTRACE, READV, PIDFD_OPEN, PIDFD_GETFD = "16", "62", "101", "310", "434", "438"
PTRACE_SEIZE = "0x4206"
TIOCSTI, TIOCLINUX, TIOCSCTTY = "0x5412", "0x541c", "0x540e"

# Descriptors (X04)

LEAKED = 50


@contextmanager
def leaked(canary: Canary) -> Iterator[int]:
    """A directory outside, open as descriptor LEAKED, that every child inherits."""
    fd = os.open(canary.top, os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, LEAKED)
    os.close(fd)
    try:
        yield LEAKED
    finally:
        os.close(LEAKED)


def run_with_leak(box: Box, *args: str) -> str:
    """What `rootless ARGS` writes, with LEAKED handed down to it."""
    done = subprocess.run(
        box.rootless.command(*args),
        env=box.rootless.env,
        pass_fds=(LEAKED,),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIST = "ls /proc/self/fd; ls /proc/1/fd; cat /proc/[0-9]*/fd/50/file"
ONLY_THREE = {"0", "1", "2", "3"}  # 3 is the directory that ls lists


def test_nothing_but_three_descriptors_gets_in(box: Box, tmp_path: Path) -> None:  # X04
    canary = Canary(tmp_path / "victim")
    check = ["--health-interval", "20ms", "--health-cmd", f"({LIST}) > /tmp/new 2>&1; mv /tmp/new /tmp/health"]
    with leaked(canary):
        container = run_with_leak(box, "run", "-d", *check, box.image, "sleep", "600").strip()
        try:
            seen = [run_with_leak(box, "exec", container, "sh", "-c", f"{LIST} 2>/dev/null; true")]
            read = ["exec", container, "cat", "/tmp/health"]
            assert wait_until(lambda: box.rootless.run(*read, check=False).stdout)
            seen.append(box.rootless.run(*read).stdout)
        finally:
            box.rootless.run("rm", "-f", container)
        seen.append(run_with_leak(box, "run", "--rm", box.image, "ls", "/proc/self/fd"))
    for output in seen:
        assert SECRET.decode() not in output
        assert {line for line in output.splitlines() if line.isdigit()} <= ONLY_THREE, output
    assert canary.changes() == []


def test_the_monitor_keeps_no_descriptor_of_the_callers(box: Box, tmp_path: Path) -> None:  # X04
    """A lock that the caller had is free once the caller is gone, though the container runs."""
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = subprocess.run(
        box.rootless.command("run", "-d", box.image, "sleep", "600"),
        env=box.rootless.env,
        pass_fds=(fd,),
        capture_output=True,
        text=True,
    )
    os.close(fd)
    try:
        with path.open() as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        box.rootless.run("rm", "-f", done.stdout.strip())


# Terminals (X15)


def on_a_terminal(box: Box, *args: str) -> tuple[str, bytes]:
    """What `rootless ARGS` shows on a terminal of its own, and what can be read from that terminal afterwards."""
    master, slave = os.openpty()
    try:
        done = subprocess.Popen(
            box.rootless.command(*args), env=box.rootless.env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        shown = b""
        os.set_blocking(master, False)
        end = time.monotonic() + 20
        while done.poll() is None and time.monotonic() < end:
            shown += read_all(master)
            time.sleep(0.005)
        assert done.wait(1) == 0, shown
        shown += read_all(master)
        os.set_blocking(slave, False)
        return shown.decode(), read_all(slave)
    finally:
        os.close(master)
        os.close(slave)


def read_all(fd: int) -> bytes:
    found = b""
    try:
        while data := os.read(fd, 65536):
            found += data
    except OSError:
        pass  # no more for now
    return found


INJECT = [
    *([IOCTL, fd, TIOCSTI, "=!"] for fd in ("0", "1", "2")),
    [IOCTL, "0", "0x100005412", "=!"],  # the kernel reads 32 bits of the number (CVE-2019-10063)
    [IOCTL, "0", TIOCLINUX, "=\x03"],
    ["2", "=/dev/tty", "2"],
    [IOCTL, "@", TIOCSTI, "=!"],
]


@needs_probe
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_callers_terminal_does_not_get_in(box: Box, verb: str) -> None:  # X15, CVE-2017-5226
    command = ["/probe", *probe.calls(*INJECT)]
    look = ["sh", "-c", "for n in 0 1 2; do readlink /proc/self/fd/$n; done; tty || true"]
    with running(box.rootless, box.image) as container:
        front = ["run", "--rm", "-i", box.image] if verb == "run" else ["exec", "-i", container]
        shown, injected = on_a_terminal(box, *front, *command)
        assert [answer.result for answer in probe.answers(shown)][:5] == [-errno.ENOTTY] * 5
        assert [answer.result for answer in probe.answers(shown)][5] == -errno.ENXIO  # no controlling terminal
        assert injected == b""
        shown, _ = on_a_terminal(box, *front, *look)
        assert "/dev/" not in shown
        assert shown.count("pipe:") == 3


@needs_probe
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_with_a_terminal_it_is_the_containers_own(box: Box, verb: str) -> None:  # X15
    command = ["/probe", *probe.calls(*INJECT)]
    look = [
        "sh",
        "-c",
        "stat -L -c %t:%F /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; tty; stat -c %m /dev/console",
    ]
    with running(box.rootless, box.image) as container:
        front = ["run", "--rm", "-it", box.image] if verb == "run" else ["exec", "-it", container]
        _, injected = on_a_terminal(box, *front, *command)
        assert injected == b""
        shown, _ = on_a_terminal(box, *front, *look[:2], look[2].rpartition(";")[0])
        assert shown.count("88:character special file") == 3  # major 136: a pseudo-terminal
        assert "/dev/pts/0" in shown


# Kernel files (X16)

OPEN_ALL = """
find {tree} {prune} -type f -print 2>/dev/null > /tmp/list
while read -r path; do if {{ true >> "$path"; }} 2>/dev/null; then echo "writable $path"; fi; done < /tmp/list
wc -l < /tmp/list
"""
# Anybody may ask to be told of pressure there; what is written stays with the descriptor.
HARMLESS = re.compile(r"/proc/(pressure/(io|cpu|memory|irq))")


@pytest.mark.parametrize("options", [[], ["--cap-add", "SYS_ADMIN"]])
def test_nothing_of_the_kernel_can_be_written(box: Box, options: list[str]) -> None:  # X16
    said = box.sh(OPEN_ALL.format(tree="/proc", prune="-name '[0-9]*' -prune -o"), *options).splitlines()
    assert int(said.pop()) > 500
    assert [line for line in said if not HARMLESS.fullmatch(line.removeprefix("writable "))] == []
    said = box.sh(OPEN_ALL.format(tree="/sys", prune=""), *options).splitlines()
    assert int(said.pop()) > 500
    assert said == []


def test_even_a_privileged_container_writes_no_setting_of_the_machine(box: Box) -> None:  # X16
    """Nothing is masked for it, but the files belong to the machine's root; what it can set is its namespaces'."""
    files = ["core_pattern", "modprobe", "hotplug", "sysrq", "randomize_va_space"]
    script = "".join(f"true >> /proc/sys/kernel/{name} && echo OPEN {name};" for name in files)
    said = box.sh(f"{script} true >> /proc/sysrq-trigger && echo OPEN; true", "--privileged")
    assert "OPEN" not in said
    assert said.count("Permission denied") >= 2, said


def test_secrets_of_the_kernel_cannot_be_read(box: Box) -> None:  # X16
    hidden = "/proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug /proc/latency_stats /proc/kmsg"
    assert box.sh(f"cat {hidden} 2>/dev/null; true") == ""
    for directory in ("/sys/firmware", "/sys/devices/virtual/powercap", "/proc/acpi", "/proc/scsi", "/sys/fs/selinux"):
        assert box.sh(f"ls -A {directory} 2>/dev/null; true") == "", directory
    assert box.sh("grep -v '^0000000000000000' /proc/kallsyms | head -n 1; true") == ""
    nodes = box.sh("cd /dev; find . -type b; find . -type c").split()
    known = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"}
    assert {Path(node).name for node in nodes} <= known


# Processes (X18, X24)


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the user's that is nobody's business."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process.pid
        assert process.poll() is None, "it was killed"
    finally:
        process.kill()
        process.wait()


def own_processes(box: Box, container: str) -> dict[str, int]:
    """Pids of what stands around the container: the sleeper that keeps the namespace, its monitor, its init."""
    init = int(box.rootless.run("inspect", "-f", "{{.State.Pid}}", container).stdout)
    stat = Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()
    sleeper = int((box.rootless.runtime / "rootless/namespace").read_text().split()[0])
    return {"init": init, "monitor": int(stat[1]), "sleeper": sleeper}


@needs_probe
def test_processes_outside_do_not_exist(box: Box, bystander: int) -> None:  # X18
    with running(box.rootless, box.image) as container:
        pids = [*own_processes(box, container).values(), bystander]
        calls: list[list[int | str]] = [[KILL, pid, 9] for pid in pids]
        calls += [[PIDFD_OPEN, pid, 0] for pid in pids]
        answers = box.probe(*probe.calls(*calls))
        assert [answer.result for answer in answers] == [-errno.ESRCH] * len(calls)
        seen = box.sh("cd /proc; echo [0-9]*").split()
        assert set(map(int, seen)) <= set(range(1, 10))


@needs_probe
def test_with_the_machines_processes_none_can_be_looked_into(box: Box, bystander: int) -> None:  # X18
    """--pid=host is unsafe, since what runs as the user can be killed; still nobody's memory or files can be had."""
    with running(box.rootless, box.image) as container:
        pids = {**own_processes(box, container), "bystander": bystander}
        del pids["init"]  # a neighbour with the same rights, which --pid=host shows
        for who, pid in pids.items():
            calls: list[list[int | str]] = [[PTRACE, PTRACE_SEIZE, pid, 0, 0], [READV, pid, "%", 1, "%64", 1, 0]]
            calls += [[PIDFD_OPEN, pid, 0], [PIDFD_GETFD, "@", 0, 0]]
            calls += [["2", f"=/proc/{pid}/{name}", 0] for name in ("environ", "mem", "fd/0")]
            calls += [["2", f"=/proc/{pid}/root/etc/passwd", 0], ["2", f"=/proc/{pid}/cwd/x", 0]]
            answers = box.probe(*probe.calls(*calls), options=["--pid=host"])
            refused = {answer.result for number, answer in enumerate(answers) if number not in (1, 2)}
            assert refused <= {-errno.EPERM, -errno.EACCES}, f"{who}: {answers}"
            assert answers[1].result in (0, -errno.EPERM, -errno.EFAULT)  # asked for no bytes
        said = box.rootless.run("create", "--pid=host", box.image, "true").stdout.strip()
        assert box.rootless.run("inspect", "-f", "{{.HostConfig.PidMode}}", said).stdout.strip() == "host"
        box.rootless.run("rm", said)


@needs_probe
def test_an_init_of_ours_has_nothing_to_show(box: Box) -> None:  # X02, X18
    """--init leaves our interpreter in the container as pid 1."""
    with running(box.rootless, box.image, "--init") as container:
        names = ("environ", "mem", "maps", "root/etc/passwd", "cwd/etc", "exe")
        calls = [["2", f"=/proc/1/{name}", flags] for name in names for flags in (0, 1)] + [
            [PTRACE, PTRACE_SEIZE, 1, 0, 0]
        ]
        said = box.rootless.run("exec", container, "/probe", *probe.calls(*calls)).stdout
        assert {answer.result for answer in probe.answers(said)} <= {-errno.EPERM, -errno.EACCES}
        said = box.rootless.run("exec", container, "sh", "-c", "ls /proc/1/fd; cat /proc/1/status").stdout
        assert re.search("^CapEff:\t0*a80425fb$", said, re.MULTILINE)
        assert said.startswith("Name:")
        assert box.rootless.home.name not in box.rootless.run("exec", container, "cat", "/proc/1/cmdline").stdout


VERBS = ["stop", "kill", "rm -f", "exec", "top", "pause", "wait", "logs", "attach", "inspect", "start"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_number_that_means_another_process_now_harms_nobody(box: Box, bystander: int, verb: str) -> None:  # X24
    """A record speaks of a process that is gone, and its pid is somebody else's."""
    container = box.rootless.run("create", box.image, "true").stdout.strip()
    path = box.rootless.data / "rootless/containers" / container / "state.json"
    state = json.loads(path.read_text())
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state |= {"status": "running", "pid": bystander, "process_started": 1, "boot_id": boot_id}
    path.write_text(json.dumps(state))
    try:
        no_traceback(box.rootless, *verb.split(), container, *(["true"] if verb == "exec" else []))
        if verb != "rm -f":
            shown = box.rootless.run("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", container).stdout
            assert shown.strip() == "exited 0"
        assert Path(f"/proc/{bystander}").exists()
    finally:
        box.rootless.run("rm", "-f", container)


def test_a_namespace_record_of_another_process_is_not_believed(box: Box, bystander: int) -> None:  # X24
    record = box.rootless.runtime / "rootless/namespace"
    before = record.read_text()
    try:
        for content in (f"{bystander} 1\n", f"{bystander}\n", "1 1\n", "garbage", "", "-1 -1\n"):
            record.write_text(content)
            assert box.sh("id -u", "--network", "none").strip() == "0"  # slirp would stay in that namespace
            sleeper = int(record.read_text().split()[0])
            assert sleeper != bystander
            if sleeper != int(before.split()[0]):
                os.kill(sleeper, signal.SIGKILL)
    finally:
        record.write_text(before)


# Keys (X17)


@needs_probe
def test_each_program_has_a_session_keyring_of_its_own(box: Box) -> None:  # X17
    """Of the container, and of each exec, whose caller has one of his own outside."""
    keyctl, session = "250", "0xfffffffd"  # KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING
    with running(box.rootless, box.image, "--security-opt", "seccomp=unconfined") as container:
        asked = (keyctl, "0", session, "0")
        rings = [int(box.rootless.run("exec", container, "/probe", *asked).stdout.split()[-1], 16) for _ in range(2)]
        assert all(0 < ring < 2**31 for ring in rings), rings
        outside = ctypes.CDLL(None, use_errno=True).syscall(250, 0, -3, 0)
        assert len({*rings, outside}) == 3


# Mounts, control groups, sockets (X19 to X21)


def test_mounts_stay_inside_and_cannot_be_taken_off(box: Box) -> None:  # X21
    mounted = Path("/proc/self/mountinfo")
    before = mounted.read_text()
    with running(box.rootless, box.image, "-v", "/data", "--tmpfs", "/t") as container:
        assert mounted.read_text() == before
        inside = box.rootless.run("exec", container, "cat", "/proc/self/mountinfo").stdout.splitlines()
        assert [line for line in inside if "shared:" in line or "master:" in line] == []
        points = [line.split()[4] for line in inside]
        script = "for p; do umount $p && echo OFF $p; mount -o remount,rw $p && echo RW $p; done 2>/dev/null; true"
        assert box.rootless.run("exec", container, "sh", "-c", script, "sh", *points).stdout == ""
        script = (
            "mount -t proc p /mnt; mount -t tmpfs t /mnt; mount --bind / /mnt; mount -t sysfs s /mnt; unshare -m true"
        )
        done = box.rootless.run("exec", container, "sh", "-c", f"mkdir -p /mnt; {script}", check=False)
        assert done.returncode != 0
        assert box.rootless.run("exec", container, "cat", "/proc/self/mountinfo").stdout.splitlines() == inside
    assert mounted.read_text() == before


def test_control_groups_of_the_machine_are_out_of_reach(box: Box) -> None:  # X20
    def groups() -> list[str]:
        return [where for where, _, _ in os.walk("/sys/fs/cgroup")]

    before = groups()
    assert {line.rpartition(":")[2] for line in box.sh("cat /proc/self/cgroup").split()} == {"/"}
    script = """
    cd /sys/fs/cgroup; mkdir x && echo made; echo $$ > cgroup.procs && echo moved; rmdir * && echo removed
    mkdir /tmp/c; mount -t cgroup2 c /tmp/c && echo mounted; mount -t cgroup -o memory c /tmp/c && echo mounted; true
    """
    assert not set(box.sh(script).split()) & {"made", "moved", "removed", "mounted"}
    escape = """
    mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c || mount -t cgroup2 c /tmp/c; cd /tmp/c
    echo /escape > release_agent && echo "agent"; mkdir x && echo 1 > x/notify_on_release && echo notified
    rmdir x; true
    """
    assert not set(box.sh(escape, "--privileged").split()) & {"agent", "notified"}
    assert groups() == before


def test_no_socket_of_ours_is_abstract(box: Box) -> None:  # X19, CVE-2020-15257
    """Whoever shares the machine's network could connect to it."""

    def abstract() -> set[str]:
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
        return {line.split()[7] for line in lines if len(line.split()) > 7 and line.split()[7].startswith("@")}

    before = abstract()
    options = ["--network=host", "-it", "--health-interval", "20ms", "--health-cmd", "true"]
    with running(box.rootless, box.image, *options) as container:
        box.rootless.run("exec", "-d", container, "sleep", "600")
        ours = [name for name in abstract() - before if "rootless" in name or box.rootless.tree.name in name]
        assert ours == []
