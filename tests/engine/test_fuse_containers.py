"""Containers whose files a process of ours serves: what it can be seen of, and what becomes of them when it dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.account import Installation, kill, wait_until
from tests.support.containers import Box, is_alive, parent
from tests.support.images import WHITEOUTS_TREE

pytestmark = [pytest.mark.kernel, pytest.mark.fuse]
FUSE = ("--storage-driver", "fuse")


def servers(box: Box, monitor: int) -> list[int]:
    """The processes that serve the root of the container under *monitor*."""
    found = box.installed.processes()
    first = [pid for pid, line in found.items() if "fuse.__main__" in line and parent_of(pid) == monitor]
    return first + [pid for pid in found if parent_of(pid) in first]


def parent_of(pid: int) -> int:
    """0 where it has just ended, as a process of the container's may."""
    try:
        return parent(pid)
    except FileNotFoundError:
        return 0


def waits(pid: int) -> bool:
    """Whether the process has gone on sleeping for a moment, which a read of its file would not take."""
    for _ in range(5):
        if state_of(pid) != "S":
            return False
        time.sleep(0.02)
    return True


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def start(box: Box, script: str, *options: str) -> str:
    return box(*FUSE, "run", "-d", *options, box.image, "sh", "-c", script).stdout.strip()


def test_a_container_has_its_root_by_fuse(box: Box) -> None:
    done = box(*FUSE, "run", "--rm", box.image, "sh", "-c", "echo x >/x; cat /x; grep ' / ' /proc/self/mounts")
    content, mounted = done.stdout.splitlines()
    assert content == "x"
    assert mounted.split()[2].startswith("fuse")


def test_nothing_is_left_of_it(box: Box) -> None:
    with box.installed.no_leaks():
        box(*FUSE, "run", "--rm", box.image, "true")


def test_what_was_written_is_in_the_upper_directory_when_it_has_ended(box: Box) -> None:
    name = start(box, "dd if=/dev/zero of=/big bs=1M count=8; rm /etc/passwd; sync")
    box("wait", name)
    assert (box.store / "containers" / name / "upper/big").stat().st_size == 8 << 20
    assert {"A /big", "D /etc/passwd"} <= set(box("diff", name).stdout.splitlines())


def test_either_driver_goes_on_with_what_the_other_wrote(box: Box) -> None:
    script = "cat /marks 2>/dev/null; echo x >>/marks; ls /etc/passwd && rm /etc/passwd; true"
    name = start(box, script)
    box("wait", name)
    for driver in ("overlay", "fuse"):
        done = box("--storage-driver", driver, "start", "-a", name, check=False)
        assert "/etc/passwd\n" not in done.stdout
    assert box.logs(name).count("x\n") == 3  # none, one, two


def test_what_is_called_as_marks_are_elsewhere_hides_nothing_with_either_driver(box: Box) -> None:  # F03
    script = "cd /etc; ls -A; touch .wh.passwd .wh..wh..opq; rm -f group; mkdir -p .wh.shadow"
    name = box("--storage-driver", "overlay", "create", box.image, "sh", "-c", script).stdout.strip()
    seen = [box("--storage-driver", driver, "start", "-a", name).stdout for driver in ("overlay", "fuse", "overlay")]
    assert "passwd\n" in seen[0]
    assert {*seen[1].split()} == {*seen[0].split()} - {"group"} | {".wh.passwd", ".wh..wh..opq", ".wh.shadow"}
    assert {*seen[2].split()} == {*seen[1].split()}
    assert {"A /etc/.wh.passwd", "D /etc/group"} <= {*box("diff", name).stdout.splitlines()}


def test_the_server_cannot_be_seen_inside(box: Box) -> None:
    name = start(box, "sleep 1000")
    assert len(servers(box, box.monitor(name))) == 2
    inside = box("exec", name, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'").stdout
    assert "sleep" in inside
    assert "fuse" not in inside


def test_who_sees_the_machines_processes_cannot_look_into_the_server(box: Box) -> None:
    name = start(box, "sleep 1000")
    for pid in servers(box, box.monitor(name)):
        secrets = " ".join(f"/proc/{pid}/{what}" for what in ("fd/1", "mem", "environ", "ns/mnt", "root", "exe"))
        done = box.run(
            "sh", "-c", f"cat /proc/{pid}/cmdline; head -c 1 {secrets}", options=("--pid=host",), check=False
        )
        assert "fuse" in done.stdout
        assert done.stderr.count("Permission denied") == 6, done.stderr


def test_of_the_mount_nobody_outside_knows(box: Box) -> None:
    name = start(box, "sleep 1000")
    assert name not in Path("/proc/self/mounts").read_text()
    for pid in (box.monitor(name), *box.installed.processes()):
        try:
            mounted = Path(f"/proc/{pid}/mounts").read_text()
        except OSError:
            continue  # hides it, or has ended
        assert not any(name in line and " fuse" in line for line in mounted.splitlines())


def test_a_container_whose_server_dies_gets_an_error_and_can_be_stopped_and_removed(box: Box) -> None:  # M02
    # A program that needs a page of its file which nobody has read yet gets SIGBUS: this one is past that.
    name = start(box, "sleep 1000 & (wait); sleep 0; echo up; wait")
    assert box.says(name, "up")
    assert wait_until(lambda: waits(box.state(name)["Pid"]))
    for pid in servers(box, box.monitor(name)):
        kill(pid)
    assert wait_until(lambda: "has died" in box.state(name)["Error"])
    done = box("exec", name, "true", check=False)
    assert done.returncode != 0
    assert "Transport endpoint is not connected" in done.stderr
    assert box.state(name)["Running"]
    box("stop", "-t", "1", name, timeout=10)
    assert "has died" in box.state(name)["Error"]
    box(*FUSE, "start", name)
    assert (box.state(name)["Running"], box.state(name)["Error"]) == (True, "")
    box("rm", "-f", name, timeout=10)


def test_who_writes_when_the_server_dies_does_not_hang(box: Box) -> None:  # M02
    name = start(box, "echo up; while :; do dd if=/dev/zero of=/file bs=1M count=4 conv=fsync 2>/dev/null; done")
    assert box.says(name, "up")
    for pid in servers(box, box.monitor(name)):
        kill(pid)
    assert wait_until(lambda: "has died" in box.state(name)["Error"])
    box("stop", "-t", "1", name, timeout=10)
    box("rm", name, timeout=10)


def test_a_container_in_whose_files_everything_hangs_can_be_killed(box: Box) -> None:
    name = start(box, "echo up; while :; do echo x >/file; done")
    assert box.says(name, "up")
    for pid in servers(box, box.monitor(name)):
        os.kill(pid, signal.SIGSTOP)
    box("kill", name)
    assert wait_until(lambda: not box.recorded(name)["pid"])
    box("rm", "-f", name)


def test_the_server_ends_with_the_monitor(box: Box) -> None:
    name = start(box, "sleep 1000")
    monitor = box.monitor(name)
    found = servers(box, monitor)
    assert found
    os.kill(monitor, signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_alive, found)))
    box(*FUSE, "start", name)
    assert box.state(name)["Running"]


def test_a_restart_by_policy_has_a_server_of_its_own(box: Box) -> None:
    name = start(box, "cat /count; echo x >>/count; exit 1", "--restart", "on-failure:2")
    box("wait", name)
    assert wait_until(lambda: box.inspect(name)["RestartCount"] == 2 and not box.state(name)["Running"])
    assert box.logs(name) == "x\n" + "x\nx\n"


def test_a_server_that_cannot_start_is_the_error_of_the_run(box: Box) -> None:
    name = box(*FUSE, "create", box.image, "true").stdout.strip()
    (box.store / "containers" / name / "work/foreign").write_text("")
    done = box(*FUSE, "start", name, check=False)
    assert done.returncode != 0
    assert "root cannot be mounted: workdir" in done.stderr
    assert "foreign" in done.stderr


def test_the_machine_itself_is_one_layer(box: Box) -> None:
    script = "ls /usr/bin/env /etc/passwd; ls -A /dev/shm /tmp; echo x >/usr/new; rm -r /proc/1 2>/dev/null; ls /run"
    name = box(*FUSE, "run", "-d", "host", "sh", "-c", script).stdout.strip()
    box("wait", name)
    assert box.logs(name).split() == ["/etc/passwd", "/usr/bin/env", "/dev/shm:", "/tmp:"]
    assert not os.path.exists("/usr/new")
    assert "A /usr/new" in box("diff", name).stdout


def test_info_says_which_and_why(box: Box) -> None:
    lines = box(*FUSE, "info").stdout.splitlines()
    assert " Storage Driver: fuse" in lines
    assert "  Chosen: by --storage-driver or config.toml" in lines


NESTED = """
set -e
cd "$1"; mkdir -p -m 700 lower upper work merged run
mount -t overlay overlay merged -o lowerdir=lower,upperdir=upper,workdir=work,userxattr
export XDG_RUNTIME_DIR=$1/run XDG_DATA_HOME=$1/merged
rootless=$2 image=$3
$rootless info --format '{{.Driver}}: {{.Rootless.StorageDriver.Chosen}}'
$rootless pull -q $image >/dev/null
$rootless run --net=none --name one $image sh -c 'cd /data; find . | sort; rm -f again; rm -r opaque; mkdir opaque'
$rootless start -a one
$rootless diff one
$rootless rm one
"""


def test_in_a_store_on_an_overlay_it_is_the_driver_and_marks_are_files(
    rootless: Installation, image: Callable[[str], str]
) -> None:
    place = rootless.tree / "nested"
    place.mkdir()
    words = ["sh", "-c", NESTED, "sh", str(place), str(rootless.program), image("whiteouts")]
    namespace = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount"]
    command = ["prlimit", f"--msgqueue={rootless.mark}:", "--", *namespace, *words]
    done = subprocess.run(command, env=rootless.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen, *lines = done.stdout.splitlines()
    assert chosen == "fuse: the kernel's overlayfs cannot be used: mount: Invalid argument, on overlay"
    found = [".", *(f"./{path}" for path in sorted(WHITEOUTS_TREE))]
    assert lines[: len(found)] == found
    left = [line for line in found if line not in ("./again", "./opaque/new")]
    assert lines[len(found) : len(found) + len(left)] == left
    assert lines[len(found) + len(left) :] == [
        "C /data",
        "D /data/again",
        "C /data/opaque",
        "D /data/opaque/new",
        "one",
    ]


def test_what_a_running_container_has_written_can_be_had_in_its_upper_directory(box: Box) -> None:
    """cat holds its output open: the kernel has what it wrote, and no reason yet to hand it over."""
    script = "mkfifo /p; cat /p >/f & exec 3>/p; cat /bin/busybox >&3; echo up; sleep 1000"
    name = start(box, script)
    assert box.says(name, "up")
    size = int(box("exec", name, "stat", "-c", "%s", "/bin/busybox").stdout)
    assert wait_until(lambda: int(box("exec", name, "stat", "-c", "%s", "/f").stdout) == size)
    settled(box, name)
    written = box.store / "containers" / name / "upper/f"
    assert (
        written.read_bytes()
        == subprocess.run(
            box.installed.command("exec", name, "cat", "/bin/busybox"), env=box.installed.env, capture_output=True
        ).stdout
    )


def test_who_has_ended_has_nothing_to_hand_over(box: Box) -> None:
    name = start(box, "echo x >/x")
    box("wait", name)
    settled(box, name)
    assert (box.store / "containers" / name / "upper/x").read_text() == "x\n"


def settled(box: Box, name: str) -> None:
    """engine.settle, in a process of its own, as a command calls it."""
    calls = "from rootless.engine import context, settle; import sys; settle.settle(context.open_engine(), sys.argv[1])"
    subprocess.run([sys.executable, "-c", calls, name], env=box.installed.env, check=True, timeout=60)
