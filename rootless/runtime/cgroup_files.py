"""From linux.resources of a runtime configuration to the control files of version 2. Pure.

runtime-spec speaks of version 1; config-linux.md and the runtimes agree on what that is in version 2:

    memory.limit, swap (both together), reservation   memory.max, memory.swap.max (swap alone), memory.low
    cpu.shares 2 … 262144                             cpu.weight 1 … 10000, cpu_weight()
    cpu.quota, period, burst; idle                    cpu.max "QUOTA PERIOD", cpu.max.burst; cpu.idle
    cpu.cpus, mems                                    cpuset.cpus, cpuset.mems
    blockIO.weight 10 … 1000                          io.bfq.weight as it is, else io.weight 1 … 10000, io_weight()
    blockIO.throttle…                                 io.max "MAJOR:MINOR rbps=… wiops=…"
    pids.limit                                        pids.max
    hugepageLimits, rdma, unified                     hugetlb.SIZE.max, rdma.max, any file

What has no place there (kernel memory, swappiness, an out-of-memory killer that is off, real-time shares) is refused.
"""

import math
from collections.abc import Sequence
from typing import Any

from rootless.errors import HostUnsupported, InvalidInput
from rootless.spec.runtime import Config

Write = Sequence[tuple[str, str]]  # alternatives: see cgroup_writes.py
Writes = list[Write]

_PERIOD = 100_000  # µs, the kernel's own (sched/fair.c)
_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}
# path in resources -> why not
_REFUSED = {
    ("memory", "kernel"): "version 2 of control groups counts the kernel's memory as the container's",
    ("memory", "kernelTCP"): "version 2 of control groups counts the kernel's memory as the container's",
    ("memory", "swappiness"): "version 2 of control groups has it for the whole machine only",
    ("memory", "disableOOMKiller"): "version 2 of control groups always has its out-of-memory killer",
    ("cpu", "realtimeRuntime"): "version 2 of control groups has no shares of real time",
    ("cpu", "realtimePeriod"): "version 2 of control groups has no shares of real time",
    ("network", "classID"): "version 2 of control groups has no classes of packets",
    ("network", "priorities"): "version 2 of control groups has no priorities of packets",
}


def cpu_weight(shares: int) -> int:
    """cpu.weight for Docker's --cpu-shares: 2 is 1, 1024 (what is usual) 100 (what is usual), 262144 is 10000.

    Between these 10 to the power of a parabola in log2(shares), as runc 1.3.2 and crun 1.23 have it.
    """
    if shares <= 2:
        return 1
    if shares >= 262_144:
        return 10_000
    level = math.log2(shares)
    return math.ceil(10 ** ((level * level + 125 * level) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight for Docker's --blkio-weight, in a straight line: 10 is 1, 1000 is 10000."""
    return 1 + (weight - 10) * 9999 // 990


def writes_of(resources: Config) -> Writes:
    """The control files to write, in order. Raises HostUnsupported and InvalidInput, naming the path in *resources*."""
    for (section, key), why in _REFUSED.items():
        if (resources.get(section) or {}).get(key):
            raise HostUnsupported(f"linux.resources.{section}.{key}: {why}")
    found: Writes = []
    found += _memory(resources.get("memory") or {})
    found += _cpu(resources.get("cpu") or {})
    found += _block_io(resources.get("blockIO") or {})
    found += _pids(resources.get("pids") or {})
    for limit in resources.get("hugepageLimits") or ():
        found.append([(f"hugetlb.{limit['pageSize']}.max", str(limit["limit"]))])
    for device, limit in (resources.get("rdma") or {}).items():
        words = [f"{ours}={limit[key]}" for key, ours in _RDMA.items() if limit.get(key) is not None]
        found.append([("rdma.max", " ".join([device, *words]))])
    for name, value in (resources.get("unified") or {}).items():
        if "/" in name or "." not in name or name.startswith(("cgroup.", ".")):
            raise InvalidInput(f"linux.resources.unified: {name!r} is not a control file of a controller")
        found.append([(name, str(value))])
    return found


_RDMA = {"hcaHandles": "hca_handle", "hcaObjects": "hca_object"}


def _memory(memory: Config) -> Writes:
    found: Writes = []
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        found.append([("memory.max", _or_max(limit))])
    if swap:
        found.append(_swap(limit, swap))
    if reservation := memory.get("reservation"):
        found.append([("memory.low", _or_max(reservation))])
    return found


def _swap(limit: int, swap: int) -> Write:
    """Of swap alone; and where nobody could swap anyway, what is not to be swapped needs no file."""
    if swap < 0 or limit < 0:
        return [("memory.swap.max", "max"), ("", "")]
    if not limit:
        raise InvalidInput("linux.resources.memory.swap: needs a memory.limit, of which it is the rest")
    if swap < limit:
        raise InvalidInput("linux.resources.memory.swap: is memory and swap together, and less than memory.limit")
    return [("memory.swap.max", str(swap - limit)), ("", "")]


def _cpu(cpu: Config) -> Writes:
    found: Writes = []
    if cpu.get("idle") is not None:
        found.append([("cpu.idle", str(cpu["idle"]))])
    if (shares := cpu.get("shares")) and not cpu.get("idle"):
        found.append([("cpu.weight", str(cpu_weight(shares)))])
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        found.append([("cpu.max", f"{quota if quota > 0 else 'max'} {period or _PERIOD}")])
    if (burst := cpu.get("burst")) is not None:
        found.append([("cpu.max.burst", str(burst))])
    found += [[(f"cpuset.{key}", cpu[key])] for key in ("cpus", "mems") if cpu.get(key)]
    return found


def _block_io(io: Config) -> Writes:
    found: Writes = []
    if weight := io.get("weight"):
        found.append([("io.bfq.weight", f"default {weight}"), ("io.weight", f"default {io_weight(weight)}")])
    for device in io.get("weightDevice") or ():
        if weight := device.get("weight"):
            number = _number(device)
            found.append([("io.bfq.weight", f"{number} {weight}"), ("io.weight", f"{number} {io_weight(weight)}")])
    for key, word in _THROTTLES.items():
        for device in io.get(key) or ():
            found.append([("io.max", f"{_number(device)} {word}={device['rate'] or 'max'}")])
    return found


def _number(device: Config) -> str:
    return f"{device['major']}:{device['minor']}"


def _pids(pids: Config) -> Writes:
    limit: Any = pids.get("limit")
    return [] if limit is None else [[("pids.max", str(limit) if limit > 0 else "max")]]


def _or_max(limit: int) -> str:
    return str(limit) if limit > 0 else "max"
