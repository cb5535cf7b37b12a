"""Limits that hold: control groups of version 2, from the user's systemd and from a delegated subtree."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import command_line, installation, wait_until
from tests.support.containers import Box

pytestmark = pytest.mark.vm

TREE = Path("/sys/fs/cgroup")
MANAGER = TREE / f"user.slice/user-{os.getuid()}.slice/user@{os.getuid()}.service"
HOG = "b = bytearray(200 << 20)"
BUSY = """
import time
used, begun = time.process_time(), time.monotonic()
while time.monotonic() < begun + 4:
    pass
print((time.process_time() - used) / (time.monotonic() - begun))
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with installation() as installed:
        yield Box(installed, "host")


def cgroup(box: Box, container: str) -> Path:
    return Path(box.recorded(container)["cgroup"])


def created(box: Box, *options: str, script: str = "sleep 1000") -> tuple[str, Path]:
    """A container that runs in the background, and its control group."""
    container = box.detached(script, *options)
    return container, cgroup(box, container)


def programs(group: Path) -> list[str]:
    """The command lines of the processes in a control group."""
    return [command_line(Path("/proc", pid)) for pid in (group / "cgroup.procs").read_text().split()]


def ours() -> list[str]:
    """The control groups of containers that there are."""
    return [str(path) for path in MANAGER.rglob("rootless-*") if path.is_dir()]


def test_a_memory_hog_is_killed_and_its_neighbour_lives(box: Box) -> None:  # L02
    neighbour, _ = created(box)
    hog = box("run", "--name", "hog", "-m", "64m", "host", "python3", "-c", HOG, check=False)
    assert hog.returncode == 137, hog
    assert (box.state("hog")["OOMKilled"], box.state("hog")["ExitCode"]) == (True, 137)
    assert box.state(neighbour)["Running"]
    assert not box.state(neighbour)["OOMKilled"]
    box("rm", "-f", "hog", neighbour)


def test_a_child_that_is_killed_for_memory_is_told_while_the_container_lives(box: Box) -> None:
    container = box.detached(f"python3 -c '{HOG}'; echo $?; sleep 1000", "-m", "64m")
    assert box.says(container, "137", seconds=60)
    assert wait_until(lambda: box.state(container)["OOMKilled"])
    assert box.state(container)["Running"]
    box("rm", "-f", container)


def test_the_smallest_limit_suffices_for_a_small_program(box: Box) -> None:
    assert box.run("busybox", "echo", "well", options=("-m", "6m")).stdout == "well\n"


def test_a_quota_of_cpu_holds(box: Box) -> None:
    used = float(box.run("python3", "-c", BUSY, options=("--cpus", "0.25")).stdout)
    assert 0.1 < used < 0.4


def test_shares_of_cpu_are_kept(box: Box) -> None:
    busy = "for i in 1 2 3; do yes >/dev/null & done; wait"
    small, of_small = created(box, "--cpu-shares", "1024", script=busy)
    large, of_large = created(box, "--cpu-shares", "4096", script=busy)

    def used() -> tuple[int, int]:
        first, second = (int((path / "cpu.stat").read_text().split()[1]) for path in (of_small, of_large))
        return first, second

    before = used()
    time.sleep(5)  # what is measured is a share of this time
    after = used()
    ratio = (after[1] - before[1]) / (after[0] - before[0])
    box("rm", "-f", small, large)
    assert 1.8 < ratio < 5  # weights 100 and 303


def test_a_fork_bomb_stops_at_the_limit(box: Box) -> None:  # L01
    script = "while sleep 1000 & do :; done 2>/dev/null"
    container, group = created(box, "--pids-limit", "40", script=f"({script}); {script}; sleep 1000")
    assert wait_until(lambda: "max 0" not in (group / "pids.events").read_text(), seconds=60)
    assert int((group / "pids.current").read_text()) <= 40
    box("rm", "-f", container)
    assert not group.exists()


def test_a_container_without_limits_may_have_2048_processes(box: Box) -> None:  # L01
    assert box.sh("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max") == "2048\nmax\n"


def test_each_limit_is_in_its_file_and_in_inspect(box: Box) -> None:
    options = ("-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpu-shares", "2048")
    container, group = created(box, *options, "--cpu-quota", "50000", "--cpu-period", "200000", "--pids-limit", "-1")
    files = ("memory.max", "memory.low", "cpu.weight", "cpu.max", "pids.max")
    values = [(group / name).read_text().strip() for name in files]
    assert values == [str(64 << 20), str(32 << 20), "174", "50000 200000", "max"]
    config = box.inspect(container)["HostConfig"]
    assert (config["Memory"], config["MemorySwap"], config["CpuShares"]) == (64 << 20, 96 << 20, 2048)
    assert (config["CpuQuota"], config["CpuPeriod"], config["PidsLimit"]) == (50000, 200000, -1)
    box("rm", "-f", container)


def test_the_container_sees_its_own_control_group_read_only(box: Box) -> None:
    script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; echo max > /sys/fs/cgroup/memory.max || echo no"
    assert box.sh(script, "-m", "64m") == f"0::/\n{64 << 20}\nno\n"


def test_root_in_a_container_that_mounts_the_tree_anew_cannot_change_its_limits(box: Box) -> None:
    script = "mount -t cgroup2 none /mnt && echo max > /mnt/memory.max; cat /mnt/memory.max"
    assert box.sh(script, "-m", "64m", "--privileged") == f"{64 << 20}\n"


def test_a_scope_of_systemd_holds_the_monitor_and_the_container_apart(box: Box) -> None:
    container, group = created(box)
    assert (group.name, group.parent.suffix) == ("container", ".scope")
    assert group.is_relative_to(MANAGER)
    monitor = Path(f"/proc/{box.monitor(container)}/cgroup").read_text().strip()
    assert monitor.endswith(f"{group.parent.name}/monitor")
    box("rm", "-f", container)
    assert wait_until(lambda: not group.parent.exists())


def test_a_slice_can_be_the_parent(box: Box) -> None:
    container, group = created(box, "--cgroup-parent", "rootlesstest.slice")
    assert "rootlesstest.slice" in group.parts
    box("rm", "-f", container)


def test_exec_runs_within_the_limits(box: Box) -> None:
    container, group = created(box, "-m", "64m")
    assert box("exec", container, "cat", "/proc/self/cgroup").stdout == "0::/\n"
    assert box("exec", container, "python3", "-c", HOG, check=False).returncode == 137
    box("exec", "-d", container, "sleep", "777")
    assert wait_until(lambda: "sleep 777" in programs(group))
    box("rm", "-f", container)


def test_pause_freezes_and_no_process_sees_it(box: Box) -> None:
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('SIGCHLD', flush=True))\n"
        "signal.signal(signal.SIGCONT, lambda *_: print('SIGCONT', flush=True))\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    container = box("run", "-d", "host", "python3", "-c", script).stdout.strip()
    assert box.says(container, "ready", seconds=60)
    box("pause", container)
    assert "frozen 1" in (cgroup(box, container) / "cgroup.events").read_text()
    assert box.state(container)["Paused"]
    box("unpause", container)
    assert "frozen 0" in (cgroup(box, container) / "cgroup.events").read_text()
    box("pause", container)
    box("stop", "-t", "0", container)
    assert box.logs(container) == "ready\n"
    box("rm", container)


def test_update_changes_the_limits_of_a_running_container(box: Box) -> None:
    container, group = created(box, "-m", "64m")
    box("update", "-m", "80m", "--memory-swap", "-1", "--cpus", "0.5", container)
    assert (group / "memory.max").read_text() == f"{80 << 20}\n"
    assert (group / "cpu.max").read_text() == "50000 100000\n"
    box("restart", "-t", "0", container)
    assert (cgroup(box, container) / "memory.max").read_text() == f"{80 << 20}\n"
    box("rm", "-f", container)


def test_what_was_updated_holds_after_a_restart_by_policy(box: Box) -> None:
    container, _ = created(box, "--restart=always", "-m", "64m")
    box("update", "-m", "80m", "--memory-swap", "-1", container)
    before = box.state(container)["Pid"]
    os.kill(before, signal.SIGKILL)
    assert wait_until(lambda: box.state(container)["Pid"] not in (0, before))
    assert (cgroup(box, container) / "memory.max").read_text() == f"{80 << 20}\n"
    box("rm", "-f", container)


def test_a_limit_that_nobody_can_enforce_is_an_error_with_the_line_for_root(box: Box) -> None:
    done = box("create", "--device-read-bps", "/dev/vda:1mb", "--cpuset-cpus", "0", "host", "true", check=False)
    if "io" in (MANAGER / "cgroup.controllers").read_text().split():
        pytest.skip("the controllers are delegated")
    assert done.returncode != 0
    assert "cpuset, io cannot be enforced" in done.stderr
    assert "Delegate=cpu cpuset io memory pids" in done.stderr


def test_a_read_is_as_slow_as_its_limit(box: Box) -> None:
    if "io" not in (MANAGER / "cgroup.controllers").read_text().split():
        pytest.skip("the controller of io is not delegated")
    script = "head -c 8388608 /dev/urandom > /f; sync /f; time -p dd if=/f of=/dev/null bs=1M iflag=direct 2>&1"
    out = box.sh(f"bash -c '{script}'", "--device-read-bps", "/dev/vda:2mb")
    [real] = [float(line.split()[1]) for line in out.splitlines() if line.startswith("real")]
    assert real > 2


def test_nothing_is_left_of_a_container_whose_monitor_was_killed(box: Box) -> None:
    container, group = created(box, "--pid=host", script="sleep 1000 & sleep 1001")
    box.installed.run("ps")
    os.kill(box.monitor(container), signal.SIGKILL)
    assert wait_until(lambda: box.state(container)["Status"] == "exited")
    assert wait_until(lambda: not group.parent.exists())
    box("rm", container)


def test_a_delegated_subtree_is_divided_without_systemd(box: Box) -> None:
    run = '"$0" run -d -m 64m --cgroup-parent "$(cut -d: -f3 /proc/self/cgroup)" host sleep 1000'
    script = f'id=$({run}) && cat /proc/self/cgroup && "$0" exec "$id" true && echo $id'
    scope = ["systemd-run", "--user", "--scope", "--quiet", "--property=Delegate=yes", "--unit=rltest-delegated"]
    command = [*scope, "sh", "-c", script, str(box.installed.program)]
    done = subprocess.run(command, env=box.installed.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [ours, container] = done.stdout.split()
    group = cgroup(box, container)
    assert ours.endswith("/rltest-delegated.scope/rootless.rest")
    assert group.parent.name == "rltest-delegated.scope"
    assert (group / "memory.max").read_text() == f"{64 << 20}\n"
    box("rm", "-f", container)
    assert not group.exists()


def test_steps_of_a_build_are_limited(box: Box, tmp_path: Path) -> None:
    (tmp_path / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "busybox").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "cat", "/sys/fs/cgroup/memory.max"]\n'
    )
    done = box("build", "--progress=plain", "-m", "64m", str(tmp_path), timeout=120)
    assert str(64 << 20) in done.stdout + done.stderr


def test_no_control_group_is_left(box: Box) -> None:
    box.clear(keep=[])
    assert wait_until(lambda: not ours()), ours()
    assert json.loads(box("info", "--format", "json").stdout)["CgroupDriver"] == "systemd"
