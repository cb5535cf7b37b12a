"""Docker's limits: checked in its words, kept, and handed on."""

import pytest

from rootless.engine.limits import Limits, check, needed_controllers, parse_set
from rootless.errors import InvalidInput

MB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(memory=5 * MB), "Minimum memory limit allowed is 6MB"),
        (Limits(memory=64 * MB, memory_swap=32 * MB), "Minimum memoryswap limit should be larger"),
        (Limits(memory_swap=64 * MB), "always set the memory limit when using memoryswap"),
        (Limits(memory_reservation=MB), "Minimum memory reservation allowed is 6MB"),
        (Limits(memory=8 * MB, memory_reservation=9 * MB), "can not be less than memory reservation"),
        (Limits(nano_cpus=10**9, cpu_quota=1000), "Nano CPUs and CPU Quota cannot both be set"),
        (Limits(nano_cpus=10**9, cpu_period=1000), "Nano CPUs and CPU Period cannot both be set"),
        (Limits(nano_cpus=10**14), "Range of CPUs is from 0.01 to"),
        (Limits(nano_cpus=1000), "Range of CPUs is from 0.01 to"),
        (Limits(cpu_period=10), "CPU cfs period can not be less than 1ms"),
        (Limits(cpu_quota=10), "CPU cfs quota can not be less than 1ms"),
        (Limits(cpuset_cpus="0-9999"), "Requested CPUs are not available"),
        (Limits(cpuset_cpus="one"), "Invalid value one for cpuset cpus"),
        (Limits(blkio_weight=9), "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_what_makes_no_sense_is_refused(limits: Limits, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check(limits)


def test_limits_survive_being_written_down() -> None:
    limits = Limits(memory=64 * MB, pids=-1, cpuset_cpus="0", device_read_bps=(("/dev/vda", 5),))
    check(limits)
    record = limits.to_record()
    assert set(record) == {"memory", "pids", "cpuset_cpus", "device_read_bps"}
    assert Limits.from_record({**record, "device_read_bps": [["/dev/vda", 5]]}) == limits


def test_resources_have_what_docker_puts_there() -> None:
    resources = Limits(memory=64 * MB, nano_cpus=1_500_000_000, cpu_shares=1, pids=0).to_resources()
    assert resources == {
        "memory": {"limit": 64 * MB, "swap": 128 * MB},
        "cpu": {"shares": 2, "quota": 150_000, "period": 100_000},
        "pids": {"limit": -1},
    }
    assert Limits.from_resources(resources).memory_swap == 128 * MB


def test_each_limit_needs_its_controller() -> None:
    limits = Limits(memory=64 * MB, nano_cpus=10**9, cpuset_cpus="0", pids=5, blkio_weight=10)
    assert needed_controllers(limits) == ["memory", "cpu", "cpuset", "io", "pids"]
    assert needed_controllers(Limits()) == []


@pytest.mark.parametrize("text", ["", "-", "1-", "3-1", "a", "0-99999", "1,,2"])
def test_no_list_of_numbers(text: str) -> None:
    assert parse_set(text) is None


def test_a_list_of_numbers() -> None:
    assert parse_set("0-2,5") == {0, 1, 2, 5}
