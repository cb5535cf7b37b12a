"""From linux.resources to the control files of version 2."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import HostUnsupported, InvalidInput
from rootless.runtime.cgroup_files import cpu_weight, io_weight, writes_of
from rootless.runtime.cgroup_writes import controllers_of


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (4096, 303), (262_144, 10_000)])
def test_shares_are_weights_as_runc_has_them(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@given(st.integers(2, 262_143))
def test_more_shares_are_never_less_weight(shares: int) -> None:
    assert 1 <= cpu_weight(shares) <= cpu_weight(shares + 1) <= 10_000


@given(st.integers(10, 1000))
def test_a_weight_of_blocks_stays_in_the_kernels_range(weight: int) -> None:
    assert 1 <= io_weight(weight) <= 10_000


@pytest.mark.parametrize(
    ("resources", "rows"),
    [
        ({}, []),
        ({"memory": {"limit": 100, "swap": 300}}, [[("memory.max", "100")], [("memory.swap.max", "200"), ("", "")]]),
        ({"memory": {"limit": 100, "swap": -1}}, [[("memory.max", "100")], [("memory.swap.max", "max"), ("", "")]]),
        ({"memory": {"limit": -1}}, [[("memory.max", "max")]]),
        ({"memory": {"reservation": 7}}, [[("memory.low", "7")]]),
        ({"cpu": {"quota": 50_000}}, [[("cpu.max", "50000 100000")]]),
        ({"cpu": {"quota": -1, "period": 20_000}}, [[("cpu.max", "max 20000")]]),
        ({"cpu": {"shares": 1024, "cpus": "0-1"}}, [[("cpu.weight", "100")], [("cpuset.cpus", "0-1")]]),
        ({"pids": {"limit": 0}}, [[("pids.max", "max")]]),
        ({"blockIO": {"weight": 10}}, [[("io.bfq.weight", "default 10"), ("io.weight", "default 1")]]),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 5}]}},
            [[("io.max", "8:1 rbps=5")]],
        ),
        ({"unified": {"memory.high": "5"}}, [[("memory.high", "5")]]),
    ],
)
def test_resources_become_control_files(resources: Any, rows: Any) -> None:
    assert writes_of(resources) == rows


@pytest.mark.parametrize("section", [{"swappiness": 5}, {"disableOOMKiller": True}, {"kernel": 1}])
def test_what_version_2_does_not_have_is_refused(section: Any) -> None:
    with pytest.raises(HostUnsupported, match=r"linux\.resources\.memory\..*: version 2"):
        writes_of({"memory": section})


@pytest.mark.parametrize("name", ["../memory.max", "cgroup.procs", "memory"])
def test_only_files_of_controllers_can_be_named(name: str) -> None:
    with pytest.raises(InvalidInput):
        writes_of({"unified": {name: "1"}})


def test_a_row_that_may_stay_unwritten_needs_no_controller() -> None:
    rows = [[("memory.max", "1")], [("memory.swap.max", "1"), ("", "")], [("pids.max", "2048"), ("", "")]]
    assert controllers_of(rows) == ["memory"]
