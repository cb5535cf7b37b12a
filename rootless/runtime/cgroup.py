"""A container's cgroup, for who looks at it or changes it while the container runs: its use, its limits, its state.

The container's state has the path, "" where there is no cgroup; its monitor makes and removes it (monitor_cgroup.py).
Numbers are those of the kernel, Documentation/admin-guide/cgroup-v2.rst: bytes and microseconds.
"""

import os
from typing import NamedTuple

from rootless.errors import Conflict
from rootless.linux import cgroups
from rootless.runtime.cgroup_files import Writes, writes_of
from rootless.runtime.cgroup_writes import apply
from rootless.spec.runtime import Config


class Usage(NamedTuple):
    """What a container uses. A number that no controller counts is None; a limit that is not set is None too."""

    cpu_usec: int | None  # all processors together, since the start
    cpu_user_usec: int | None
    cpu_system_usec: int | None
    throttled_periods: int
    throttled_usec: int
    memory: int | None  # everything that is charged, the page cache too
    memory_cache: int  # inactive file pages, which Docker does not count as used
    memory_limit: int | None
    swap: int | None
    pids: int | None
    pids_limit: int | None
    io_read: int | None  # bytes, all devices together
    io_write: int | None
    io_reads: int | None  # operations
    io_writes: int | None
    oom_kills: int

    @property
    def memory_used(self) -> int | None:
        """Without the cache that could go at once, as `docker stats` counts."""
        return None if self.memory is None else max(self.memory - self.memory_cache, 0)


class Cgroup:
    """See the module. Each call raises Conflict once the container has ended."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether it is (still) there."""
        return os.path.isdir(self.path)

    def usage(self) -> Usage:
        """What its processes use now, and have used."""
        cpu, memory = self._keyed("cpu.stat"), self._keyed("memory.stat")
        io = _io(self._find("io.stat"))
        return Usage(
            cpu_usec=cpu.get("usage_usec"),
            cpu_user_usec=cpu.get("user_usec"),
            cpu_system_usec=cpu.get("system_usec"),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_usec=cpu.get("throttled_usec", 0),
            memory=self._number("memory.current"),
            memory_cache=memory.get("inactive_file", 0),
            memory_limit=self._number("memory.max"),
            swap=self._number("memory.swap.current"),
            pids=self._number("pids.current"),
            pids_limit=self._number("pids.max"),
            io_read=None if io is None else io.get("rbytes", 0),
            io_write=None if io is None else io.get("wbytes", 0),
            io_reads=None if io is None else io.get("rios", 0),
            io_writes=None if io is None else io.get("wios", 0),
            oom_kills=self.oom_kills(),
        )

    def pids(self) -> list[int]:
        """The processes in it, those in cgroups that the container has made below it too."""
        found = []
        for directory, _, _ in os.walk(self.path):
            found += self._pids_in(directory)
        return [pid for pid in found if pid > 0]

    def _pids_in(self, directory: str) -> list[int]:
        try:
            return cgroups.members(directory)
        except OSError:
            return []  # removed just now, or one of threads

    def oom_kills(self) -> int:
        """How many of its processes were killed since its memory was used up."""
        return self._keyed("memory.events").get("oom_kill", 0)

    def set_limits(self, resources: Config) -> None:
        """Set what *resources* (linux.resources of runtime-spec) says; what it does not mention stays.

        Raises HostUnsupported naming the file that could not be written; what was before it is set then.
        """
        self.write(writes_of(resources))

    def write(self, writes: Writes) -> None:
        """The same for control files that are worked out already."""
        if not self.exists():
            raise Conflict("the container has no control group: it has ended")
        apply(self.path, writes)

    def freeze(self) -> None:
        """Begin to stop all its processes; is_frozen() tells when they stand still."""
        self._write("cgroup.freeze", "1")

    def thaw(self) -> None:
        """Let them go on."""
        self._write("cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        """Whether all of them stand still."""
        return bool(self._keyed("cgroup.events").get("frozen"))

    def kill(self) -> None:
        """SIGKILL to all of them."""
        cgroups.kill(self.path)

    def remove(self, seconds: float = 2.0) -> None:
        """Kill them, and remove the cgroup. Raises OSError EBUSY where that does not end."""
        cgroups.end(self.path, seconds)

    def _write(self, name: str, value: str) -> None:
        try:
            cgroups.write(self.path, name, value)
        except FileNotFoundError:
            raise Conflict("the container has no control group: it has ended") from None

    def _find(self, name: str) -> str:
        return cgroups.find(self.path, name)

    def _keyed(self, name: str) -> dict[str, int]:
        return cgroups.keyed(self._find(name))

    def _number(self, name: str) -> int | None:
        text = self._find(name).strip()
        return int(text) if text.isdigit() else None  # "max"


def _io(text: str) -> dict[str, int] | None:
    """The sums of io.stat over all devices; None where nothing is counted."""
    total: dict[str, int] = {}
    for line in text.splitlines():
        for field in line.split()[1:]:
            key, _, value = field.partition("=")
            if value.isdigit():
                total[key] = total.get(key, 0) + int(value)
    return total or None
