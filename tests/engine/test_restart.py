"""Restart policies: Docker's, without a daemon."""

import os
import signal
import time

import pytest

from rootless.engine.logs import nanoseconds
from tests.support.account import wait_until
from tests.support.containers import Box

pytestmark = [pytest.mark.kernel, pytest.mark.registry]


def starts(box: Box, name: str) -> list[float]:
    """When the container's program began, in seconds: it says `begin` each time."""
    lines = box.logs(name, "-t").splitlines()
    return [nanoseconds(line.split()[0]) / 1e9 for line in lines if line.endswith("begin")]


def test_on_failure_tries_as_often_as_it_is_told(box: Box) -> None:
    box.detached("echo begin; exit 3", "--restart", "on-failure:3", "--name", "fails")
    assert box("wait", "fails").stdout == "3\n"
    assert len(starts(box, "fails")) == 4
    document = box.inspect("fails")
    assert document["RestartCount"] == 3
    assert (document["State"]["Status"], document["State"]["ExitCode"]) == ("exited", 3)
    assert document["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}


def test_on_failure_lets_a_success_be(box: Box) -> None:
    box.detached("echo begin", "--restart", "on-failure", "--name", "works")
    assert box("wait", "works").stdout == "0\n"
    assert len(starts(box, "works")) == 1


def test_without_a_policy_nothing_is_restarted(box: Box) -> None:
    box.detached("echo begin; exit 3", "--name", "once")
    assert box("wait", "once").stdout == "3\n"
    assert (len(starts(box, "once")), box.inspect("once")["RestartCount"]) == (1, 0)


@pytest.mark.parametrize("policy", ["always", "unless-stopped"])
def test_always_goes_on_ever_more_slowly_until_it_is_stopped(policy: str, box: Box) -> None:
    box.detached("echo begin", "--restart", policy, "--name", "again")
    assert wait_until(lambda: len(starts(box, "again")) >= 4)
    first, second, third, fourth, *_ = starts(box, "again")
    assert second - first >= 0.1
    assert third - second >= 0.2
    assert fourth - third >= 0.4
    assert wait_until(lambda: box.state("again")["Restarting"])
    assert box("ps", "--format", "{{.Status}}").stdout.startswith("Restarting (0) ")
    box("stop", "again")
    state = box.state("again")
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 0)
    count = len(starts(box, "again"))
    time.sleep(0.9)
    assert len(starts(box, "again")) == count


@pytest.mark.parametrize(("command", "code"), [(("kill",), 137), (("kill", "-s", "TERM"), 5), (("stop",), 5)])
def test_what_is_stopped_or_killed_by_hand_stays_down(command: tuple[str, ...], code: int, box: Box) -> None:
    box.detached(
        "trap 'exit 5' TERM; echo begin; while :; do sleep 0.02; done", "--restart", "always", "--name", "down"
    )
    assert box.says("down", "begin")
    box(*command, "down")
    assert box("wait", "down").stdout == f"{code}\n"
    time.sleep(0.3)
    assert (box.state("down")["Status"], len(starts(box, "down"))) == ("exited", 1)


def test_a_program_that_dies_by_itself_is_restarted(box: Box) -> None:
    box("run", "-d", "--restart", "always", "--name", "dies", box.image, "sh", "-c", "echo begin; sleep 60")
    assert box.says("dies", "begin")
    os.kill(box.state("dies")["Pid"], signal.SIGKILL)
    assert wait_until(lambda: len(starts(box, "dies")) == 2)
    state = box.state("dies")
    assert (state["Status"], state["Pid"] > 0) == ("running", True)
    assert box.inspect("dies")["RestartCount"] == 1


def test_one_that_waits_for_its_restart_can_be_killed_and_removed(box: Box) -> None:
    for number, verb in enumerate(("kill", "rm")):
        name = f"waits{number}"
        box.detached("exit 1", "--restart", "always", "--name", name)
        assert wait_until(lambda name=name: box.inspect(name)["RestartCount"] >= 2)  # type: ignore[misc]
        assert wait_until(lambda name=name: box.state(name)["Restarting"])  # type: ignore[misc]
        box(verb, *(["-f"] if verb == "rm" else []), name)
    assert box.state("waits0")["Status"] == "exited"
    assert len(box.ids()) == 1


def test_starting_one_that_waits_for_its_restart_is_well(box: Box) -> None:
    box.detached("exit 1", "--restart", "always", "--name", "waits")
    assert wait_until(lambda: box.inspect("waits")["RestartCount"] >= 2)
    assert box("start", "waits").stdout == "waits\n"
    box("rm", "-f", "waits")


def test_a_start_by_hand_begins_counting_anew(box: Box) -> None:
    box.detached("echo begin; exit 3", "--restart", "on-failure:1", "--name", "fails")
    assert box("wait", "fails").stdout == "3\n"
    box("start", "fails")
    assert box("wait", "fails").stdout == "3\n"
    assert (len(starts(box, "fails")), box.inspect("fails")["RestartCount"]) == (4, 1)


def test_its_files_and_its_terminal_outlive_a_restart(box: Box) -> None:
    script = "tty; cat /made; echo x >>/made; test $(wc -l </made) = 2"
    box.detached(script, "-t", "--restart", "on-failure", "--name", "keeps")
    assert box("wait", "keeps").stdout == "0\n"
    shown = box.logs("keeps").replace("\r", "").split("\n")
    assert shown == ["/dev/pts/0", "cat: can't open '/made': No such file or directory", "/dev/pts/0", "x", ""]


def test_signals_are_not_ignored_after_a_restart(box: Box) -> None:
    script = "[ -e /made ] && grep SigIgn /proc/self/status; echo >/made; exit 1"
    box.detached(script, "--restart", "on-failure:1", "--name", "again")
    box("wait", "again")
    assert box.logs("again") == "SigIgn:\t0000000000000000\n"


@pytest.mark.parametrize("policy", ["sometimes", "no:1", "always:3", "on-failure:-1", "on-failure:x"])
def test_policies_that_do_not_exist_are_refused(policy: str, box: Box) -> None:
    done = box("run", "-d", "--restart", policy, box.image, "true", check=False)
    assert (done.returncode, "Traceback" in done.stderr, box.ids()) == (125, False, [])


# --- the command restart


def test_restart_stops_and_starts(box: Box) -> None:
    box.detached("trap 'echo term; exit' TERM; echo begin; while :; do sleep 0.02; done", "--name", "web")
    assert box.says("web", "begin")
    before = box.state("web")
    assert box("restart", "web").stdout == "web\n"
    assert wait_until(lambda: box.logs("web") == "begin\nterm\nbegin\n")
    after = box.state("web")
    assert after["Pid"] != before["Pid"]
    assert after["StartedAt"] > before["StartedAt"]
    assert after["Running"]


def test_restart_starts_what_does_not_run_and_obeys_signal_and_timeout(box: Box) -> None:
    box(
        "create",
        "--name",
        "web",
        box.image,
        "sh",
        "-c",
        "trap 'echo usr1' USR1; echo begin; while :; do sleep 0.02; done",
    )
    box("restart", "web")
    assert box.says("web", "begin")
    begun = time.monotonic()
    box("restart", "-s", "USR1", "-t", "1", "web")
    assert 1 <= time.monotonic() - begun < 4
    assert wait_until(lambda: box.logs("web") == "begin\nusr1\nbegin\n")


def test_restart_many_times_in_a_row(box: Box) -> None:
    box("run", "-d", "--name", "web", box.image, "sleep", "60")
    pids = set()
    for _ in range(5):
        box("restart", "-t", "0", "web")
        pids.add(box.state("web")["Pid"])
    assert len(pids) == 5
