"""What a container may use: the limits of run, create, update, build and compose, with Docker's rules and words.

Options become a record (Limits), which is checked (check), kept with the container (to_record), and handed to the
runtime as linux.resources of runtime-spec (to_resources); cgroup_files.py has what becomes of that.
"""

import os
import stat
from typing import Any, NamedTuple

from rootless.errors import InvalidInput
from rootless.linux import cgroups
from rootless.runtime.cgroup_files import writes_of
from rootless.runtime.cgroup_writes import controllers_of
from rootless.spec.runtime import Config
from rootless.store.containers import Record

_LEAST_MEMORY = 6 << 20
_LEAST_WEIGHT, _MOST_WEIGHT = 10, 1000
_MOST_SHARES = 262_144
_LEAST_TIME, _MOST_PERIOD = 1000, 1_000_000  # µs
_CPU = 1_000_000_000
_PERIOD = 100_000

DeviceRate = tuple[str, int]  # a device node's path, and bytes or operations a second, or a weight


class Limits(NamedTuple):
    """Docker's limits; 0 is what is not said. In bytes, microseconds, billionths of a processor."""

    memory: int = 0
    memory_swap: int = 0  # memory and swap together; -1: as much swap as there is
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_quota: int = 0  # -1: none
    cpu_period: int = 0
    cpuset_cpus: str = ""  # "0-3,5"
    cpuset_mems: str = ""
    pids: int | None = None  # 0 and less: as many as there can be; None: what is usual, control_group.py
    blkio_weight: int = 0
    blkio_weight_device: tuple[DeviceRate, ...] = ()
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()

    def to_record(self) -> Record:
        """What is not the default, for JSON."""
        default = Limits()
        return {name: value for name, value in self._asdict().items() if value != getattr(default, name)}

    @classmethod
    def from_record(cls, record: Record) -> "Limits":
        """The limits that to_record() has written."""
        return cls(**{name: _restored(value) for name, value in record.items()})

    def to_resources(self) -> Config:
        """linux.resources of runtime-spec (config-linux.md, "Control groups"). Raises InvalidInput for a device."""
        resources: Config = {}
        if memory := self._memory():
            resources["memory"] = memory
        if cpu := self._cpu():
            resources["cpu"] = cpu
        if self.pids is not None:
            resources["pids"] = {"limit": self.pids if self.pids > 0 else -1}
        if io := self._block_io():
            resources["blockIO"] = io
        return resources

    @classmethod
    def from_resources(cls, resources: Config) -> "Limits":
        """The other way round, but for what is said of single devices, which have numbers there and no paths."""
        memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
        return cls(
            memory=memory.get("limit") or 0,
            memory_swap=memory.get("swap") or 0,
            memory_reservation=memory.get("reservation") or 0,
            cpu_shares=cpu.get("shares") or 0,
            cpu_quota=cpu.get("quota") or 0,
            cpu_period=cpu.get("period") or 0,
            cpuset_cpus=cpu.get("cpus") or "",
            cpuset_mems=cpu.get("mems") or "",
            pids=(resources.get("pids") or {}).get("limit"),
            blkio_weight=(resources.get("blockIO") or {}).get("weight") or 0,
        )

    def _memory(self) -> Config:
        memory: Config = {}
        if self.memory:
            memory["limit"] = self.memory
            memory["swap"] = self.memory_swap or 2 * self.memory  # as much swap as memory, if nobody says otherwise
        if self.memory_reservation:
            memory["reservation"] = self.memory_reservation
        return memory

    def _cpu(self) -> Config:
        quota, period = self.cpu_quota, self.cpu_period
        if self.nano_cpus:
            quota, period = self.nano_cpus * _PERIOD // _CPU, _PERIOD
        shares = max(2, min(self.cpu_shares, _MOST_SHARES)) if self.cpu_shares else 0
        words = {"shares": shares, "quota": quota, "period": period, "cpus": self.cpuset_cpus, "mems": self.cpuset_mems}
        return {key: value for key, value in words.items() if value}

    def _block_io(self) -> Config:
        throttles = {
            "throttleReadBpsDevice": self.device_read_bps,
            "throttleWriteBpsDevice": self.device_write_bps,
            "throttleReadIOPSDevice": self.device_read_iops,
            "throttleWriteIOPSDevice": self.device_write_iops,
        }
        io: Config = {"weight": self.blkio_weight} if self.blkio_weight else {}
        if self.blkio_weight_device:
            io["weightDevice"] = [{**_device(path), "weight": weight} for path, weight in self.blkio_weight_device]
        for key, rates in throttles.items():
            if rates:
                io[key] = [{**_device(path), "rate": rate} for path, rate in rates]
        return io


def _restored(value: Any) -> Any:
    """Lists of JSON are tuples here."""
    return tuple((path, rate) for path, rate in value) if isinstance(value, list) else value


def _device(path: str) -> dict[str, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidInput(f"cannot limit the device {path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidInput(f"cannot limit the device {path}: it is not a block device")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}


def needed_controllers(limits: Limits) -> list[str]:
    """The controllers without which *limits* cannot be enforced: "memory", "cpu", "cpuset", "pids", "io"."""
    return controllers_of(writes_of(limits.to_resources()))


# Docker's checks (moby: daemon/daemon_unix.go, verifyPlatformContainerResources)


def check(limits: Limits) -> None:
    """Raise InvalidInput, in Docker's words, for limits that make no sense."""
    _check_memory(limits)
    _check_cpu(limits)
    if limits.blkio_weight and not _LEAST_WEIGHT <= limits.blkio_weight <= _MOST_WEIGHT:
        raise InvalidInput("Range of blkio weight is from 10 to 1000")


def _check_memory(limits: Limits) -> None:
    memory, swap, reservation = limits.memory, limits.memory_swap, limits.memory_reservation
    if 0 < memory < _LEAST_MEMORY:
        raise InvalidInput("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidInput("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0:
        raise InvalidInput("You should always set the memory limit when using memoryswap limit, see usage")
    if 0 < reservation < _LEAST_MEMORY:
        raise InvalidInput("Minimum memory reservation allowed is 6MB")
    if 0 < memory < reservation:
        raise InvalidInput("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_cpu(limits: Limits) -> None:
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        other = "CPU Period" if limits.cpu_period else "CPU Quota"
        raise InvalidInput(f"Conflicting options: Nano CPUs and {other} cannot both be set")
    count = os.cpu_count() or 1
    if limits.nano_cpus and not _CPU // 100 <= limits.nano_cpus <= count * _CPU:
        raise InvalidInput(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if limits.cpu_shares < 0:
        raise InvalidInput(f"shares of CPU cannot be negative: {limits.cpu_shares}")
    if limits.cpu_period and not _LEAST_TIME <= limits.cpu_period <= _MOST_PERIOD:
        raise InvalidInput("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < _LEAST_TIME:
        raise InvalidInput("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    _check_set(limits.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online")
    _check_set(limits.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online")


def _check_set(text: str, kind: str, what: str, online: str) -> None:
    if not text:
        return
    wanted = parse_set(text)
    if wanted is None:
        raise InvalidInput(f"Invalid value {text} for cpuset {kind}")
    directory, name = os.path.split(online)
    there = cgroups.find(directory, name).strip() or "0"
    if not wanted <= (parse_set(there) or set()):
        raise InvalidInput(f"Requested {what} are not available - requested {text}, available: {there}")


def parse_set(text: str) -> set[int] | None:
    """The numbers of "0-3,5"; None where it is none of these lists. cpuset(7), "List format"."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or len(first + last) > 8:
            return None
        numbers = range(int(first), int(last or first) + 1)
        if not numbers or numbers.stop > 1 << 16:
            return None
        found.update(numbers)
    return found
