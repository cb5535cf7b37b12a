"""The options that limit what a container may use, for run, create, update and build: one table, Docker's words.

What version 2 of control groups has no place for is in the table too, hidden, and refused with the reason: whoever asks
for it learns that it does not hold.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rootless.cli.command import Options, flag, number, parse_int, text, texts, value, values
from rootless.cli.values import one_of, parse_cpus, parse_memory, parse_memory_swap
from rootless.errors import HostUnsupported, InvalidInput

if TYPE_CHECKING:
    from rootless.engine.limits import Limits

_REASONS = {
    "kernel_memory": "version 2 of control groups counts the kernel's memory as the container's: use --memory",
    "memory_swappiness": "version 2 of control groups has it for the whole machine only",
    "oom_kill_disable": "version 2 of control groups always has its out-of-memory killer",
    "cpu_rt_period": "version 2 of control groups has no shares of real time",
    "cpu_rt_runtime": "version 2 of control groups has no shares of real time",
    "device_cgroup_rule": "only root can attach a filter of devices to a control group; give the nodes: --device",
}


def parse_device_rate(text: str) -> tuple[str, int]:
    """(path, bytes per second) of "/dev/sda:1mb". Raises InvalidInput."""
    units = ":<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
    path, rate = _parse_device(text)
    return path, _parse_rate(rate, parse_memory, text, units)


def parse_device_operations(text: str) -> tuple[str, int]:
    """(path, operations per second) of "/dev/sda:1000". Raises InvalidInput."""
    path, rate = _parse_device(text)
    return path, _parse_rate(rate, parse_int, text, ":<number>. Number must be a positive integer")


def parse_device_weight(text: str) -> tuple[str, int]:
    """(path, weight) of "/dev/sda:500". Raises InvalidInput."""
    path, weight = _parse_device(text)
    if not weight.isdecimal() or not (weight == "0" or 10 <= int(weight) <= 1000):
        raise InvalidInput(f"invalid weight for device: {text}")
    return path, int(weight)


def _parse_device(text: str) -> tuple[str, str]:
    path, colon, rest = text.rpartition(":")
    if not colon or not path:
        raise InvalidInput(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise InvalidInput(f"bad format for device path: {text}")
    return path, rest


def _parse_rate(rate: str, parse: Callable[[str], int], text: str, form: str) -> int:
    try:
        found = parse(rate)
    except InvalidInput:
        found = -1
    if found < 0:
        raise InvalidInput(f"invalid rate for device: {text}. The correct format is <device-path>{form}")
    return found


def parse_oom_score(text: str) -> int:
    """-1000 to 1000. Raises InvalidInput."""
    score = parse_int(text)
    if not -1000 <= score <= 1000:
        raise InvalidInput(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    return score


class StepLimitOptions(Options):
    """What holds for the steps of a build, too."""

    memory: int = value("-m", "--memory", parse=parse_memory, default=0, metavar="bytes", help="Memory limit")
    memory_swap: int = value(
        "--memory-swap",
        parse=parse_memory_swap,
        default=0,
        metavar="bytes",
        help="Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    )
    cpu_shares: int = number("-c", "--cpu-shares", help="CPU shares (relative weight)")
    cpu_quota: int = number("--cpu-quota", help="Limit CPU CFS (Completely Fair Scheduler) quota")
    cpu_period: int = number("--cpu-period", help="Limit CPU CFS (Completely Fair Scheduler) period")
    cpuset_cpus: str = text("--cpuset-cpus", help="CPUs in which to allow execution (0-3, 0,1)")
    cpuset_mems: str = text("--cpuset-mems", help="MEMs in which to allow execution (0-3, 0,1)")


class LimitOptions(StepLimitOptions):
    """What holds for a container that runs already, too: the limits of update."""

    memory_reservation: int = value(
        "--memory-reservation", parse=parse_memory, default=0, metavar="bytes", help="Memory soft limit"
    )
    cpus: int = value("--cpus", parse=parse_cpus, default=0, metavar="decimal", help="Number of CPUs")
    pids_limit: int = number("--pids-limit", help="Tune container pids limit (set -1 for unlimited)")
    blkio_weight: int = number(
        "--blkio-weight", help="Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)"
    )
    kernel_memory: str = text("--kernel-memory", help="Kernel memory limit", hidden=True)
    cpu_rt_period: str = text("--cpu-rt-period", help="Limit CPU real-time period", hidden=True)
    cpu_rt_runtime: str = text("--cpu-rt-runtime", help="Limit CPU real-time runtime", hidden=True)


class ContainerLimitOptions(LimitOptions):
    """Those of run and create."""

    blkio_weight_device: list[tuple[str, int]] = values(
        "--blkio-weight-device", parse=parse_device_weight, help="Block IO weight (relative device weight)"
    )
    device_read_bps: list[tuple[str, int]] = values(
        "--device-read-bps", parse=parse_device_rate, help="Limit read rate (bytes per second) from a device"
    )
    device_read_iops: list[tuple[str, int]] = values(
        "--device-read-iops", parse=parse_device_operations, help="Limit read rate (IO per second) from a device"
    )
    device_write_bps: list[tuple[str, int]] = values(
        "--device-write-bps", parse=parse_device_rate, help="Limit write rate (bytes per second) to a device"
    )
    device_write_iops: list[tuple[str, int]] = values(
        "--device-write-iops", parse=parse_device_operations, help="Limit write rate (IO per second) to a device"
    )
    oom_score_adj: int = value(
        "--oom-score-adj",
        parse=parse_oom_score,
        default=0,
        metavar="int",
        help="Tune host's OOM preferences (-1000 to 1000)",
    )
    cgroup_parent: str = text(
        "--cgroup-parent", help='Optional parent cgroup for the container: a path in the tree, or "NAME.slice"'
    )
    cgroupns: str = value(
        "--cgroupns",
        parse=one_of("host", "private"),
        default="",
        metavar="string",
        help="Cgroup namespace to use (host|private)",
    )
    memory_swappiness: str = text("--memory-swappiness", help="Tune container memory swappiness", hidden=True)
    oom_kill_disable: bool = flag("--oom-kill-disable", help="Disable OOM Killer", hidden=True)
    device_cgroup_rule: list[str] = texts(
        "--device-cgroup-rule", help="Add a rule to the cgroup allowed devices list", hidden=True
    )


# option -> field of Limits
_NAMES = {
    **{name: name for name in ("memory", "memory_swap", "memory_reservation", "cpu_shares", "cpu_quota", "cpu_period")},
    **{name: name for name in ("cpuset_cpus", "cpuset_mems", "blkio_weight", "blkio_weight_device")},
    **{name: name for name in ("device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops")},
    "cpus": "nano_cpus",
    "pids_limit": "pids",
}


def given_limits(options: Options) -> dict[str, object]:
    """The limits that were typed, by the names of engine.limits.Limits.

    *options* may be of any of the tables here, or of build's, which has fewer. Raises HostUnsupported for what cannot
    be asked for.
    """
    refuse(options)
    given = {ours: getattr(options, name) for name, ours in _NAMES.items() if _is_given(options, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def limits_of(options: Options) -> "Limits | None":
    """The limits that were typed, None for none. engine.limits.check finds what makes no sense. HostUnsupported."""
    given = given_limits(options)
    if not given:
        return None
    from rootless.engine.limits import Limits  # most containers have none

    return Limits(**given)  # type: ignore[arg-type]


def refuse(options: Options) -> None:
    """Nothing that is asked for is dropped silently. Raises HostUnsupported."""
    for name, why in _REASONS.items():
        if _is_given(options, name) and getattr(options, name):
            raise HostUnsupported(f"--{name.replace('_', '-')} cannot be had: {why}")


def _is_given(options: Options, name: str) -> bool:
    return name in options.rows and options.changed(name)
