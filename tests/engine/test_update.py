"""update: what goes with what is there already, and what becomes of a container that runs."""

from collections.abc import Mapping

import pytest

from rootless.engine.limits import Limits
from rootless.engine.update import changed
from rootless.errors import InvalidInput
from tests.support.account import wait_until
from tests.support.containers import Box

MIB = 1 << 20


def test_what_is_not_mentioned_stays() -> None:
    before = Limits(memory=64 * MIB, cpu_shares=512, pids=100)
    assert changed(before, {"cpu_shares": 256}) == before._replace(cpu_shares=256)
    assert changed(before, {"pids": -1}) == before._replace(pids=-1)


def test_memory_keeps_the_swap_that_came_with_it() -> None:
    before = Limits(memory=64 * MIB)
    assert changed(before, {"memory": 100 * MIB}) == Limits(memory=100 * MIB, memory_swap=128 * MIB)
    assert changed(before._replace(memory_swap=-1), {"memory": 900 * MIB}).memory_swap == -1
    assert changed(before, {"memory": 200 * MIB, "memory_swap": 400 * MIB}).memory_swap == 400 * MIB


@pytest.mark.parametrize(
    ("before", "given", "message"),
    [
        (Limits(memory=64 * MIB), {"memory": 200 * MIB}, "smaller than already set memoryswap"),
        (Limits(cpu_quota=50_000), {"nano_cpus": 10**9}, "as CPU Quota has already been set"),
        (Limits(cpu_period=50_000), {"nano_cpus": 10**9}, "as CPU Period has already been set"),
        (Limits(nano_cpus=10**9), {"cpu_quota": 50_000}, "as NanoCPUs has already been set"),
        (Limits(), {"memory": MIB}, "Minimum memory limit allowed is 6MB"),
    ],
)
def test_what_contradicts_what_is_there_is_refused(before: Limits, given: Mapping[str, int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        changed(before, given)


@pytest.mark.kernel
def test_the_restart_policy_of_a_container_that_runs_changes_both_ways(box: Box) -> None:
    container = box.detached("trap 'exit 1' USR1; echo ready; sleep 1000 & wait", "--name", "policy")
    assert box.says("policy", "ready")
    assert box("update", "--restart", "on-failure:3", "policy").stdout == "policy\n"
    assert box.inspect("policy")["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    box("kill", "-s", "USR1", "policy")
    assert wait_until(lambda: box.inspect("policy")["RestartCount"] == 1)
    assert wait_until(lambda: box.logs("policy").count("ready") == 2)
    box("update", "--restart", "no", container)
    box("kill", "-s", "USR1", "policy")
    assert wait_until(lambda: box.state("policy")["Status"] == "exited")


@pytest.mark.kernel
def test_several_are_updated_and_what_cannot_be_is_told(box: Box) -> None:
    box("create", "--name", "one", box.image)
    done = box("update", "--restart", "always", "one", "nosuch", check=False)
    assert (done.returncode, done.stdout) == (1, "one\n")
    assert "No such container: nosuch" in done.stderr
    assert box.inspect("one")["HostConfig"]["RestartPolicy"]["Name"] == "always"
    done = box("update", "one", check=False)
    assert "you must provide one or more flags" in done.stderr
    box("run", "-d", "--rm", "--name", "passing", box.image, "sleep", "1000")
    done = box("update", "--restart", "always", "passing", check=False)
    assert "AutoRemove is enabled" in done.stderr
    done = box("update", "--kernel-memory", "100m", "one", check=False)
    assert "--kernel-memory cannot be had" in done.stderr
