"""Events of real containers, images and volumes: which, in which order, and who is told of them when."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box

pytestmark = pytest.mark.kernel

Told = dict[str, Any]


def since() -> str:
    """Now, for --since."""
    now = time.time_ns()
    return f"{now // 10**9}.{now % 10**9:09d}"


def told(box: Box, begin: str, *filters: str) -> list[Told]:
    """The events since then."""
    options = [word for text in filters for word in ("--filter", text)]
    done = box("events", "--since", begin, "--until", "0s", "--format", "json", *options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def actions(events: list[Told]) -> list[str]:
    return [f"{event['Type']} {event['Action']}" for event in events]


@contextmanager
def listening(box: Box, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`events` in the background, which hears what comes from now on."""
    with box.start("events", "--since", since(), *options) as process:
        try:
            yield process
        finally:
            process.kill()


def family(pid: int) -> list[int]:
    """A process and its children: the command may stand behind another."""
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def test_a_container_is_told_of_from_create_to_destroy(box: Box) -> None:
    begin = since()
    volume = "eventful"
    box(
        "run",
        "--name",
        "told",
        "--rm",
        "-v",
        f"{volume}:/data",
        "-l",
        "tier=a",
        box.image,
        "sh",
        "-c",
        "exit 3",
        check=False,
    )
    events = told(box, begin)
    assert actions(events) == [
        "volume create",
        "container create",
        "container attach",
        "volume mount",
        "container start",
        "container die",
        "volume unmount",
        "container destroy",
    ]
    die = events[5]
    assert die["Actor"]["Attributes"] == {
        "execDuration": "0",
        "exitCode": "3",
        "image": box.image,
        "name": "told",
        "tier": "a",
    }
    assert die["status"] == "die"
    assert die["from"] == box.image
    assert die["id"] == die["Actor"]["ID"] == events[1]["id"]
    assert die["time"] == die["timeNano"] // 10**9
    assert events[3]["Actor"]["Attributes"]["destination"] == "/data"
    times = [event["timeNano"] for event in events]
    assert times == sorted(times)


def test_what_is_done_to_a_container_is_told_in_dockers_order(box: Box) -> None:
    begin = since()
    container = box.detached("trap '' TERM; sleep 1000 & wait", "--name", "first")
    box("exec", container, "true")
    box("pause", container)
    box("unpause", container)
    box("rename", container, "second")
    box("kill", "-s", "USR1", container)
    box("restart", "-t", "0", container)
    box("rm", "-f", container)
    events = told(box, begin, f"container={container}")
    assert [event["Action"] for event in events] == [
        *("create", "start", "exec_create: true", "exec_start: true", "exec_die", "pause", "unpause", "rename"),
        *[event["Action"] for event in events[8:]],
    ]
    later = [(event["Action"], event["Actor"]["Attributes"].get("signal", "")) for event in events[8:]]
    assert later[0] == ("kill", "10")
    assert [action for action, _ in later[1:] if action != "kill"] == [
        *("die", "stop", "start", "restart", "die", "destroy")
    ]
    assert ("kill", "15") in later
    assert later.count(("kill", "9")) <= 2
    rename = events[7]["Actor"]["Attributes"]
    assert (rename["oldName"], rename["name"]) == ("/first", "second")
    assert {event["Actor"]["Attributes"]["name"] for event in events[8:]} == {"second"}  # its monitor knows, too
    assert events[4]["Actor"]["Attributes"]["exitCode"] == "0"


def test_a_listener_hears_each_event_at_once_and_ends_quietly_with_ctrl_c(box: Box) -> None:
    with listening(box, "--format", "{{.Action}} {{.Actor.Attributes.name}}") as process:
        box("create", "--name", "heard", box.image)
        assert process.stdout is not None
        assert process.stdout.readline() == b"create heard\n"
        box("rm", "heard")
        assert process.stdout.readline() == b"destroy heard\n"
        for pid in family(process.pid):
            os.kill(pid, signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_listener_goes_on_when_the_journal_is_rotated(box: Box) -> None:
    with listening(box, "--format", "{{.Actor.ID}}", "--filter", "type=volume") as process:
        assert process.stdout is not None
        box("volume", "create", "before")
        assert process.stdout.readline() == b"before\n"
        journal = box.session / "events"
        with journal.open("ab") as file:
            file.write(b"\n" * (1 << 20))  # the next line is the last in it
        names = [box("volume", "create", f"rotated{number}").stdout.strip() for number in range(3)]
        assert [process.stdout.readline().decode().strip() for _ in names] == names
        assert journal.with_name("events.1").exists()
        box("volume", "rm", "before", *names)


def test_a_container_whose_monitor_is_killed_is_told_to_have_died(box: Box) -> None:
    container = box.detached("sleep 1000")
    begin = since()
    os.kill(box.monitor(container), signal.SIGKILL)
    assert wait_until(lambda: box.state(container)["Status"] == "exited")
    [die] = told(box, begin, "event=die")
    assert (die["id"], die["Actor"]["Attributes"]["exitCode"]) == (container, "255")


def test_restarts_by_policy_and_a_change_of_health_are_told_of_by_the_monitor(box: Box) -> None:
    begin = since()
    restarted = box.detached("exit 1", "--restart", "on-failure:1")
    healthy = box.detached("sleep 1000", "--health-cmd", "true", "--health-interval", "50ms")
    assert wait_until(lambda: box.state(restarted)["Status"] == "exited", 30)
    assert [event["Action"] for event in told(box, begin, f"container={restarted}")][1:] == ["start", "die"] * 2
    assert wait_until(lambda: bool(told(box, begin, f"container={healthy}", "event=health_status")), 30)
    [event] = told(box, begin, "event=health_status")
    assert event["Action"] == "health_status: healthy"


def test_images_volumes_and_prunes_are_told_of(box: Box) -> None:
    begin = since()
    container = box("create", "--name", "source", box.image).stdout.strip()
    image = box("commit", container, "told:1").stdout.strip()
    box("tag", "told:1", "told:2")
    box("rm", container)
    box("rmi", "told:1", "told:2")
    box("container", "prune", "-f")
    events = told(box, begin)
    assert actions(events) == [
        *("container create", "image tag", "container commit", "image tag", "container destroy"),
        *("image untag", "image untag", "image delete", "container prune"),
    ]
    assert events[3]["Actor"] == {"ID": image, "Attributes": {**events[3]["Actor"]["Attributes"], "name": "told:2"}}
    assert events[2]["Actor"]["Attributes"]["imageID"] == image
    assert events[8]["Actor"]["Attributes"] == {"reclaimed": "0"}


def test_times_that_contradict_each_other_and_unknown_filters_are_refused(box: Box) -> None:
    done = box("events", "--since", "1m", "--until", "2m", check=False)
    assert done.returncode == 1
    assert "cannot be after `until` time" in done.stderr
    done = box("events", "--filter", "colour=red", check=False)
    assert "invalid filter 'colour'" in done.stderr
