"""The limits of a service, and those that this machine can enforce.

`deploy.resources` stands over the older keys beside it. Where no control group is to be had, or one without a
controller that a limit needs, the service runs without its limits, and a warning says which and why: it does the same,
and files with limits are everywhere.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.compose.records import Service
from rootless.compose.scalars import parse_duration, parse_size
from rootless.engine import control_group
from rootless.engine.limits import Limits, check
from rootless.errors import HostUnsupported, InvalidInput

_CPU = 1_000_000_000
_MICROSECOND = 1000
_RATES = ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")


class Enforced(NamedTuple):
    """The limits that a service's containers get, None for none; and why it gets none of those that it asks for."""

    limits: Limits | None
    parent: str
    why: str = ""


def limits_of(service: Service) -> Limits:
    """The limits that a service asks for. Raises InvalidInput."""
    above, reserved = service.deploy.limits, service.deploy.reservations
    limits = Limits(
        memory=above.memory or service.mem_limit or 0,
        memory_swap=service.memswap_limit or 0,
        memory_reservation=reserved.memory or service.mem_reservation or 0,
        nano_cpus=_nano(service, above.cpus or service.cpus),
        cpu_shares=service.cpu_shares or 0,
        cpu_quota=service.cpu_quota or 0,
        cpu_period=_microseconds(service),
        cpuset_cpus=service.cpuset,
        pids=service.pids_limit if above.pids is None else above.pids,
        **_block_io(service, service.blkio_config or {}),
    )
    try:
        check(limits)
    except InvalidInput as error:
        raise InvalidInput(f"services.{service.name}: {error}") from error
    return limits


def enforced(service: Service) -> Enforced:
    """What of a service's limits holds here. Raises InvalidInput."""
    limits = limits_of(service)
    if limits == Limits() and not service.cgroup_parent:
        return Enforced(None, "")
    try:
        control_group.check({"limits": limits.to_record(), "cgroup_parent": service.cgroup_parent})
    except HostUnsupported as error:
        return Enforced(None, "", f"{error}; {error.hint}" if error.hint else str(error))
    return Enforced(limits, service.cgroup_parent)


def _nano(service: Service, cpus: str | float | None) -> int:
    try:
        return round(float(cpus or 0) * _CPU)
    except (ValueError, OverflowError):
        raise InvalidInput(f"services.{service.name}: {cpus!r} is no number of processors") from None


def _microseconds(service: Service) -> int:
    """`cpu_period`: a number of microseconds, or a duration."""
    period = service.cpu_period
    if period is None or isinstance(period, int):
        return period or 0
    if period.isascii() and period.isdigit():
        return int(period)
    try:
        return parse_duration(period) // _MICROSECOND
    except InvalidInput as error:
        raise InvalidInput(f"services.{service.name}.cpu_period: {error}") from error


def _block_io(service: Service, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = {"blkio_weight": int(config.get("weight") or 0)}
        weights = config.get("weight_device") or ()
        found["blkio_weight_device"] = tuple((entry["path"], int(entry["weight"])) for entry in weights)
        for name in _RATES:
            found[name] = tuple((entry["path"], parse_size(str(entry["rate"]))) for entry in config.get(name) or ())
    except (InvalidInput, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"services.{service.name}.blkio_config: {error} is not understood") from error
    return found
