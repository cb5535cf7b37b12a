"""What containers use: Docker's arithmetic, /proc's files, and the command on real containers."""

import json

import pytest

from rootless.cli.stats import stats_row
from rootless.engine.stats import Sample, Stats, add_up, cpu_percent, interface_bytes
from tests.support.account import wait_until
from tests.support.containers import Box

NET_DEV = """Inter-|   Receive                             |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  900    9    0    0    0     0          0         0      900    9    0    0    0     0       0          0
  eth0: 1000   10    0    0    0     0          0         0       20    2    0    0    0     0       0          0
eth0:1:    5    1    0    0    0     0          0         0        7    1    0    0    0     0       0          0
"""


@pytest.mark.parametrize(
    ("used", "passed", "processors", "percent"),
    [(0, 2_000, 2, 0.0), (1_000, 2_000, 2, 100.0), (2_000, 2_000, 2, 200.0), (500, 4_000, 4, 50.0), (5, 0, 4, 0.0)],
)
def test_a_processor_is_a_hundred_percent(used: int, passed: int, processors: int, percent: float) -> None:
    assert cpu_percent(Sample(100, 100), Sample(100 + used, 100 + passed), processors) == percent


def test_processes_that_have_ended_take_nothing_back_below_zero() -> None:
    assert cpu_percent(Sample(100, 100), Sample(50, 2_100), 2) == 0.0


def test_all_interfaces_but_loopback_count() -> None:
    assert interface_bytes(NET_DEV) == (1005, 27)
    assert interface_bytes("") == (0, 0)


def test_a_process_that_is_gone_uses_nothing() -> None:
    assert add_up([2**22 + 5]) == add_up([]) == (0, 0, 0, 0, 0)


def test_a_row_is_as_docker_prints_it() -> None:
    stats = Stats("4f" * 32, "web", True, 12.5, 5 << 20, 1 << 30, 1234, 0, 45_100, 10**9, 3)
    assert stats_row(stats, "we", full=False) == {
        "Container": "we",
        "ID": "4f" * 6,
        "Name": "web",
        "CPUPerc": "12.50%",
        "MemUsage": "5MiB / 1GiB",
        "MemPerc": "0.49%",
        "NetIO": "1.23kB / 0B",
        "BlockIO": "45.1kB / 1GB",
        "PIDs": "3",
    }


@pytest.mark.kernel
def test_stats_show_who_works_and_who_sleeps(box: Box) -> None:
    script = "echo ready; while :; do :; done"
    busy = box.detached(script, "--name", "busy")
    box.detached("sleep 1000 & sleep 1000 & wait", "--name", "idle")
    box("create", "--name", "never", box.image)
    assert box.says(busy, "ready")
    assert wait_until(lambda: rows(box)["idle"]["PIDs"] == "3")
    found = rows(box, "-a")
    assert set(found) >= {"busy", "idle", "never"}
    assert percent(found["busy"]["CPUPerc"]) > 5 > percent(found["idle"]["CPUPerc"])
    assert found["never"]["MemUsage"] == "0B / 0B"
    assert found["never"]["PIDs"] == "0"
    assert percent(found["idle"]["MemPerc"]) < 50
    assert not found["idle"]["MemUsage"].startswith("0B")
    assert found["idle"]["NetIO"] == "0B / 0B"
    assert found["busy"]["ID"] == busy[:12]
    table = box("stats", "--no-stream", "--no-trunc", "busy").stdout.splitlines()
    assert " ".join(table[0].split()) == "CONTAINER ID NAME CPU % MEM USAGE / LIMIT MEM % NET I/O BLOCK I/O PIDS"
    assert table[1].startswith(f"{busy}   busy")
    done = box("stats", "--no-stream", "nosuch", check=False)
    assert (done.returncode, done.stderr) == (1, "rootless: No such container: nosuch\n")


@pytest.mark.kernel
def test_the_live_table_is_drawn_at_the_top_of_the_screen_and_ctrl_c_ends_it(box: Box) -> None:
    box.detached("sleep 1000", "--name", "shown")
    with box.terminal("stats") as terminal:
        terminal.expect("shown")
        terminal.expect(r"\x1b\[H")
        terminal.expect("shown")
        terminal.send("\x03")
        assert terminal.wait() == 0


def rows(box: Box, *options: str) -> dict[str, dict[str, str]]:
    """The rows of stats by the names of the containers."""
    done = box("stats", "--no-stream", "--format", "json", *options)
    return {row["Name"]: row for row in map(json.loads, done.stdout.splitlines())}


def percent(text: str) -> float:
    return float(text.removesuffix("%"))
