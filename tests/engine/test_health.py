"""Health checks: run by the monitor, recorded in inspect, shown by ps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import wait_until
from tests.support.containers import Box
from tests.support.images import busybox_layer
from tests.support.layout import Layout, push
from tests.support.registry import Registry

pytestmark = [pytest.mark.kernel, pytest.mark.registry]

FAST = ("--health-interval", "100ms", "--health-retries", "2", "--health-timeout", "5s")
SECOND = 1_000_000_000


def health(box: Box, name: str = "checked") -> dict[str, Any]:
    found: dict[str, Any] = box.state(name)["Health"]
    return found


def becomes(box: Box, status: str) -> bool:
    return wait_until(lambda: health(box)["Status"] == status)


def shown(box: Box) -> str:
    return box("ps", "-a", "--format", "{{.Status}}").stdout.strip()


@pytest.fixture(scope="session")
def checked_image(registry: Registry, scratch: Path) -> Callable[[dict[str, Any]], str]:
    """`checked_image({"Test": ["CMD", "true"]})` is the name of an image with that HEALTHCHECK."""

    def build(check: dict[str, Any]) -> str:
        name = f"checked-{abs(hash(str(check))):x}"
        layout = Layout(scratch / name)
        layout.set_top(layout.add_image([busybox_layer(layout)], {"Healthcheck": check}))
        return push(layout, registry, name)

    return build


def test_it_starts_becomes_healthy_then_unhealthy_and_recovers(box: Box) -> None:
    script = "echo looked; cat /state"
    box.detached("sleep 60", "--name", "checked", "--health-cmd", script, *FAST, "--health-interval", "150ms")
    assert health(box) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert "(health: starting)" in shown(box)
    box("exec", "checked", "sh", "-c", "echo fine >/state")
    assert becomes(box, "healthy")
    assert shown(box).endswith("(healthy)")
    assert health(box)["FailingStreak"] == 0
    last = health(box)["Log"][-1]
    assert (last["ExitCode"], last["Output"]) == (0, "looked\nfine\n")
    assert last["End"] >= last["Start"] > "2020"
    box("exec", "checked", "rm", "/state")
    assert becomes(box, "unhealthy")
    assert shown(box).endswith("(unhealthy)")
    assert health(box)["FailingStreak"] >= 2
    assert health(box)["Log"][-1]["ExitCode"] == 1
    assert "can't open '/state'" in health(box)["Log"][-1]["Output"]
    assert box("ps", "-q", "--filter", "health=unhealthy").stdout
    assert not box("ps", "-q", "--filter", "health=healthy").stdout
    box("exec", "checked", "sh", "-c", "echo fine >/state")
    assert becomes(box, "healthy")
    assert len(health(box)["Log"]) <= 5
    assert box.state("checked")["Running"]


def test_what_takes_too_long_has_failed_and_is_killed(box: Box) -> None:
    options = ("--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1")
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "exec sleep 55", *options)
    assert becomes(box, "unhealthy")
    result = health(box)["Log"][0]
    assert (result["ExitCode"], result["Output"]) == (-1, "Health check exceeded timeout (0.2s)")
    time.sleep(0.3)
    assert box("top", "checked", "-o", "args").stdout.count("sleep 55") <= 1


def test_what_is_ready_at_once_is_healthy_at_once_whatever_the_interval(box: Box) -> None:
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "true", "--health-interval", "1h")
    assert becomes(box, "healthy")
    assert [result["ExitCode"] for result in health(box)["Log"]] == [0]


def test_a_failure_before_the_first_check_is_due_did_not_happen(box: Box) -> None:
    check = "echo >>/tries; false"
    box.detached("sleep 60", "--name", "checked", "--health-cmd", check, "--health-interval", "1h")
    tried = ("exec", "checked", "sh", "-c", "cat /tries 2>/dev/null | wc -l")
    assert wait_until(lambda: int(box(*tried).stdout) > 0)
    assert health(box) == {"Status": "starting", "FailingStreak": 0, "Log": []}


def test_failures_in_the_start_period_do_not_count(box: Box) -> None:
    options = ("--health-start-period", "1s", "--health-start-interval", "100ms", "--health-retries", "1")
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "false", "--health-interval", "100ms", *options)
    time.sleep(0.6)
    found = health(box)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    assert len(found["Log"]) >= 2
    assert becomes(box, "unhealthy")


def test_the_check_runs_as_the_containers_user_with_its_environment(box: Box) -> None:
    check = 'echo "$(id -un) $A $(pwd)"'
    options = ("-u", "user", "-e", "A=b", "-w", "/tmp", "--health-cmd", check, *FAST)
    box.detached("sleep 60", "--name", "checked", *options)
    assert becomes(box, "healthy")
    assert health(box)["Log"][0]["Output"] == "user b /tmp\n"


def test_much_output_is_cut(box: Box) -> None:
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "head -c 1000000 /dev/zero | tr '\\0' x", *FAST)
    assert becomes(box, "healthy")
    assert health(box)["Log"][0]["Output"] == "x" * 4096


def test_a_check_that_cannot_be_run_has_failed(box: Box, checked_image: Callable[[dict[str, Any]], str]) -> None:
    image = checked_image({"Test": ["CMD", "/no/where"], "Interval": SECOND // 10, "Retries": 1})
    box("run", "-d", "--name", "checked", image, "sleep", "60")
    assert becomes(box, "unhealthy")
    result = health(box)["Log"][0]
    assert (result["ExitCode"], "no such file" in result["Output"]) == (127, True)


def test_the_check_of_the_image_holds_and_options_change_it(
    box: Box, checked_image: Callable[[dict[str, Any]], str]
) -> None:
    image = checked_image({"Test": ["CMD", "echo", "of", "the image"], "Interval": SECOND // 10, "Retries": 7})
    box("run", "-d", "--name", "checked", image, "sleep", "60")
    assert becomes(box, "healthy")
    assert health(box)["Log"][0]["Output"] == "of the image\n"
    check = box.inspect("checked")["Config"]["Healthcheck"]
    assert (check["Test"], check["Interval"], check["Retries"]) == (["CMD", "echo", "of", "the image"], SECOND // 10, 7)
    box("rm", "-f", "checked")
    box("run", "-d", "--name", "checked", "--health-cmd", "echo mine", "--health-retries", "4", image, "sleep", "60")
    check = box.inspect("checked")["Config"]["Healthcheck"]
    assert (check["Test"], check["Interval"], check["Retries"]) == (["CMD-SHELL", "echo mine"], SECOND // 10, 4)
    box("rm", "-f", "checked")
    box("run", "-d", "--name", "checked", "--no-healthcheck", image, "sleep", "60")
    assert "Health" not in box.state("checked")


def test_it_begins_anew_with_each_start_and_ends_with_the_container(box: Box) -> None:
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "true", *FAST)
    assert becomes(box, "healthy")
    box("restart", "-t", "0", "checked")
    state = box.state("checked")
    assert all(check["Start"] >= state["StartedAt"] for check in state["Health"]["Log"])
    assert becomes(box, "healthy")
    with box.installed.no_leaks():
        box("stop", "-t", "0", "checked")
    assert "health" not in shown(box)


def test_a_paused_container_is_not_checked(box: Box) -> None:
    box.detached("sleep 60", "--name", "checked", "--health-cmd", "true", *FAST)
    assert becomes(box, "healthy")
    box("pause", "checked")
    time.sleep(0.2)
    before = health(box)["Log"]
    time.sleep(0.5)
    assert health(box)["Log"] == before
    assert health(box)["Status"] == "healthy"
    box("unpause", "checked")
    assert wait_until(lambda: health(box)["Log"][-1] != before[-1])


def test_checks_leave_no_processes_and_descriptors_behind(box: Box) -> None:
    check = "sleep 0.01 & true"
    box.detached("exec sleep 60", "--init", "--name", "checked", "--health-cmd", check, "--health-interval", "50ms")
    assert becomes(box, "healthy")
    time.sleep(1.5)
    assert len(box("top", "checked").stdout.splitlines()) <= 5


@pytest.mark.parametrize(
    "option", [("--health-interval", "x"), ("--health-retries", "-1"), ("--health-timeout", "-5s")]
)
def test_options_that_cannot_be_are_refused(option: tuple[str, str], box: Box) -> None:
    done = box("run", "-d", "--health-cmd", "true", *option, box.image, "true", check=False)
    assert (done.returncode, "Traceback" in done.stderr, box.ids()) == (125, False, [])
