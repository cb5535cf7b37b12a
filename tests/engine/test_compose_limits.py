"""The limits of services, as records."""

from typing import Any

import pytest

from rootless.compose.records import Deploy, Resources, Service
from rootless.engine.compose_limits import limits_of
from rootless.engine.limits import Limits
from rootless.errors import InvalidInput

MIB = 1 << 20


def limits(**keys: Any) -> Limits:
    return limits_of(Service("web", {}, **keys))


def test_the_older_keys_and_those_of_deploy_mean_the_same() -> None:
    expected = Limits(memory=64 * MIB, memory_reservation=32 * MIB, nano_cpus=500_000_000, pids=9)
    assert limits(mem_limit=64 * MIB, mem_reservation=32 * MIB, cpus=0.5, pids_limit=9) == expected
    deploy = Deploy(limits=Resources("0.50", 64 * MIB, 9), reservations=Resources("0.1", 32 * MIB))
    assert limits(deploy=deploy) == expected
    assert limits(deploy=deploy, mem_limit=8 * MIB, cpus=0.1, pids_limit=1) == expected
    assert limits() == Limits()


def test_periods_sets_and_rates_of_devices() -> None:
    assert limits(cpu_period="10ms", cpu_quota=5000) == Limits(cpu_period=10_000, cpu_quota=5000)
    assert limits(cpu_period="20000").cpu_period == limits(cpu_period=20_000).cpu_period == 20_000
    found = limits(cpuset="0", cpu_shares=7, memswap_limit=-1, mem_limit=8 * MIB)
    assert (found.cpuset_cpus, found.cpu_shares, found.memory_swap) == ("0", 7, -1)
    config = {"weight": 300, "weight_device": [{"path": "/dev/x", "weight": 400}]}
    rates = {
        "device_read_bps": [{"path": "/dev/x", "rate": "12mb"}],
        "device_write_iops": [{"path": "/dev/x", "rate": 5}],
    }
    assert limits(blkio_config={**config, **rates}) == Limits(
        blkio_weight=300,
        blkio_weight_device=(("/dev/x", 400),),
        device_read_bps=(("/dev/x", 12 * MIB),),
        device_write_iops=(("/dev/x", 5),),
    )


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"mem_limit": 1}, "services.web: Minimum memory limit"),
        ({"deploy": Deploy(limits=Resources("many"))}, "no number of processors"),
        ({"deploy": Deploy(limits=Resources("inf"))}, "no number of processors"),
        ({"cpu_period": "soon"}, "cpu_period"),
        ({"blkio_config": {"weight_device": [{}]}}, "blkio_config"),
        ({"blkio_config": {"device_read_bps": [{"path": "/dev/x", "rate": "fast"}]}}, "blkio_config"),
    ],
)
def test_limits_that_make_no_sense_are_errors(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        limits(**keys)
