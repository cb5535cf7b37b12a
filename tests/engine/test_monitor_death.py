"""What holds when our own processes are killed: monitors, the keeper of the namespace; and after a reboot."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box, has_open, is_alive, parent

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def kill_monitor(box: Box, name: str) -> int:
    """Kill the monitor of a container that runs; the pid of its init."""
    pid: int = box.state(name)["Pid"]
    os.kill(parent(pid), signal.SIGKILL)
    return pid


def test_a_container_does_not_outlive_its_monitor_and_its_end_is_told(box: Box) -> None:
    box("run", "-d", "--name", "orphan", box.image, "sleep", "60")
    pid = kill_monitor(box, "orphan")
    assert wait_until(lambda: not is_alive(pid), 3)
    assert box("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Exited (255) ")
    state = box.state("orphan")
    assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("exited", False, 0, 255)
    assert state["Error"] == "the monitor of the container was killed"
    assert state["FinishedAt"] > state["StartedAt"]
    assert box("wait", "orphan").stdout == "255\n"


def test_it_can_be_started_again_and_keeps_its_files_and_log(box: Box) -> None:
    box.detached("echo begin; cat /kept; echo x >/kept; sleep 60", "--name", "orphan")
    assert box.says("orphan", "begin")
    assert wait_until(lambda: box("exec", "orphan", "cat", "/kept", check=False).stdout)
    kill_monitor(box, "orphan")
    box("start", "orphan")
    assert box.says("orphan", "x")
    assert box.logs("orphan") == "begin\nbegin\nx\n"
    assert box.state("orphan")["Error"] == ""


@pytest.mark.parametrize("force", [(), ("-f",)])
def test_it_can_be_removed(force: tuple[str, ...], box: Box) -> None:
    with box.installed.no_leaks():
        box("run", "-d", "--name", "orphan", "-v", "/data", box.image, "sleep", "60")
        kill_monitor(box, "orphan")
        box("rm", "-v", *force, "orphan")
        assert box.ids() == []


@pytest.mark.parametrize("verb", ["stop", "kill", "pause", "exec", "attach", "top", "restart"])
def test_every_command_tells_or_goes_on(verb: str, box: Box) -> None:
    box("run", "-d", "--name", "orphan", box.image, "sleep", "60")
    kill_monitor(box, "orphan")
    words = ["-t", "0"] if verb in ("stop", "restart") else []
    done = box(verb, *words, "orphan", *(["true"] if verb == "exec" else []), check=False, timeout=10)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if verb in ("stop", "restart") else 1)
    assert box.state("orphan")["Running"] == (verb == "restart")


@pytest.mark.parametrize(
    ("command", "status", "opened"),
    [
        (["exec", "orphan", "sleep", "61"], 137, ""),
        (["attach", "orphan"], 255, "socket:"),
        (["logs", "-f", "orphan"], 0, "container.log"),
        (["wait", "orphan"], 0, "socket:"),
        (["stop", "-t", "30", "orphan"], 0, "socket:"),
    ],
)
def test_who_waits_for_it_is_let_go(command: list[str], status: int, opened: str, box: Box) -> None:
    box.detached("echo on; sleep 60", "--name", "orphan")
    assert box.says("orphan", "on")
    with box.start(*command) as running:
        if opened:
            assert wait_until(lambda: has_open(running.pid, opened))
        else:
            assert wait_until(lambda: "sleep 61" in box("top", "orphan", "-o", "args").stdout)
        time.sleep(0.1)
        kill_monitor(box, "orphan")
        assert running.wait(5) == status
        assert running.stdout is not None
        if command[0] == "wait":
            assert running.stdout.read() == b"255\n"


@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_run_in_the_foreground_ends_with_255_and_says_why(options: tuple[str, ...], box: Box) -> None:
    with box.installed.no_leaks():
        with box.start("run", *options, "--name", "orphan", box.image, "sh", "-c", "echo on; sleep 60") as running:
            assert running.stdout is not None
            assert running.stderr is not None
            assert running.stdout.readline() == b"on\n"
            kill_monitor(box, "orphan")
            assert running.wait(5) == 255
            assert running.stderr.read() == b"rootless: the monitor of the container was killed\n"
        if not options:
            assert box.state("orphan")["ExitCode"] == 255
            box("rm", "orphan")


def test_a_restart_policy_does_not_outlive_the_monitor(box: Box) -> None:
    box("run", "-d", "--restart", "always", "--name", "orphan", box.image, "sleep", "60")
    kill_monitor(box, "orphan")
    time.sleep(0.3)
    assert box.state("orphan")["Status"] == "exited"


def test_a_program_that_gained_rights_does_not_escape(box: Box) -> None:
    """Changing ids clears the signal that it would get at its parent's death (prctl(2)); the next look kills it."""
    script = "mkdir /s; cp /bin/busybox /s/sleep; chmod 4755 /s/sleep; exec su user -c 'exec /s/sleep 60'"
    box.detached(script, "--name", "orphan")
    assert wait_until(lambda: "/s/sleep 60" in box("top", "orphan", "-o", "args").stdout.splitlines())
    pid = kill_monitor(box, "orphan")
    time.sleep(0.2)
    assert is_alive(pid), "then this tests nothing"
    assert box.state("orphan")["Status"] == "exited"
    assert wait_until(lambda: not is_alive(pid), 3)


def test_the_user_stops_containers_by_ending_their_monitors(box: Box) -> None:
    """SIGTERM, as at the end of a session: the container is stopped as by `stop`."""
    box.detached("trap 'echo term; exit 4' TERM; echo on; while :; do sleep 0.02; done", "--name", "web")
    assert box.says("web", "on")
    os.kill(box.monitor(box.inspect("web")["Id"]), signal.SIGTERM)
    assert box("wait", "web").stdout == "4\n"
    assert box.logs("web") == "on\nterm\n"


# --- the keeper of the namespace


def test_containers_and_commands_outlive_the_keeper_of_the_namespace(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    namespace = os.readlink(f"/proc/{box.state('web')['Pid']}/ns/user")
    keeper = int((box.session / "namespace").read_text().split()[0])
    os.kill(keeper, signal.SIGKILL)
    assert box("exec", "web", "echo", "x").stdout == "x\n"
    assert box.sh("echo y") == "y\n"
    box("run", "-d", "--name", "other", box.image, "sleep", "60")
    assert os.readlink(f"/proc/{box.state('other')['Pid']}/ns/user") == namespace
    box("rm", "-f", "web", "other")
    assert box.sh("echo z") == "z\n"


# --- reboots, and numbers that mean others now


def edit_state(box: Box, name: str, **changes: object) -> None:
    path = box.state_file(box.inspect(name)["Id"])
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has nothing to do with us."""
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_what_ran_before_a_reboot_has_ended(box: Box) -> None:
    box("run", "--name", "web", box.image, "true")
    edit_state(box, "web", status="running", boot_id="0" * 32, pid=1, process_started=1)
    assert box("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Exited (255) ")
    state = box.state("web")
    assert (state["ExitCode"], state["Error"]) == (255, "the machine was restarted")
    box("start", "-a", "web")
    assert (box.state("web")["ExitCode"], box.state("web")["Error"]) == (0, "")


def test_the_run_directory_may_vanish(box: Box) -> None:
    """As at a reboot, or at the end of a session."""
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    pid = kill_monitor(box, "web")
    assert wait_until(lambda: not is_alive(pid))
    keeper = int((box.session / "namespace").read_text().split()[0])
    box.session.rename(box.session.with_name("gone"))
    os.kill(keeper, signal.SIGKILL)
    assert box("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Exited (255) ")
    box("start", "web")
    assert box("exec", "web", "echo", "x").stdout == "x\n"
    box("volume", "rm", box("volume", "create").stdout.strip())


@pytest.mark.parametrize(
    "act",
    [
        lambda box: box("stop", "-t", "0", "web"),
        lambda box: box("kill", "web", check=False),
        lambda box: box("exec", "web", "true", check=False),
        lambda box: box("pause", "web", check=False),
        lambda box: box("top", "web", check=False),
        lambda box: box("ps"),
        lambda box: box("rm", "-f", "web"),
    ],
    ids=["stop", "kill", "exec", "pause", "top", "ps", "rm"],
)
@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_a_number_that_means_another_process_now_is_left_alone(
    status: str, act: Callable[[Box], object], box: Box, victim: "subprocess.Popen[bytes]"
) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    kill_monitor(box, "web")
    edit_state(box, "web", status=status, pid=victim.pid)
    act(box)
    assert victim.poll() is None
    assert box("ps", "-q", "--filter", "status=running").stdout == ""
    with open(f"/proc/{victim.pid}/stat", encoding="ascii") as file:
        assert file.read().split()[2] == "S"
