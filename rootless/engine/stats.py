"""stats: what containers use, counted as Docker counts.

    sampler = Sampler(engine)                 one for the whole of a command
    sampler.look([ID, …])                     a first look, for nothing but what follows
    rows = sampler.look([ID, …])              Stats of each, in order: processors since the look before, the rest now

From the container's control group, where it has one and that counts the thing; else from its processes: those of its
pid namespace, of which `/proc` tells what they and their children that have ended have used. That differs: memory is
the sum of what is resident, a page of several processes divided among them, without the kernel's own and the page
cache; what a process has used whose parent did not wait for it is lost; and two containers with one pid namespace have
the same numbers. The network is counted by the interfaces in the container's namespace.
"""

import os
from contextlib import suppress
from typing import NamedTuple

from rootless.engine.context import Engine
from rootless.errors import NotFound
from rootless.linux import processes
from rootless.runtime.cgroup import Cgroup, Usage
from rootless.store.containers import LIVE

_NS = 1_000_000_000


class Stats(NamedTuple):
    """What a container uses. All is 0 of one that does not run. Bytes, but for the first and the last."""

    id: str
    name: str
    is_live: bool
    cpu_percent: float  # 100 is one processor
    memory: int
    memory_limit: int  # the machine's, where there is none
    network_in: int
    network_out: int
    io_read: int
    io_write: int
    pids: int

    @property
    def memory_percent(self) -> float:
        """Of the limit."""
        return 100 * self.memory / self.memory_limit if self.memory_limit else 0.0


class Sample(NamedTuple):
    """Processor time until a moment, in ns: the container's, and that of all processors together, idle or not."""

    cpu: int
    system: int


class Processes(NamedTuple):
    """What some processes use together."""

    cpu: int  # ns
    memory: int
    io_read: int
    io_write: int
    pids: int


def cpu_percent(before: Sample, now: Sample, processors: int) -> float:
    """Docker's arithmetic: the container's share of all processors' time, 100 for each processor."""
    used, passed = now.cpu - before.cpu, now.system - before.system
    return 100 * processors * used / passed if used > 0 and passed > 0 else 0.0


class Sampler:
    """See the module."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._before: dict[str, Sample] = {}
        self._machine_memory = _machine_memory()
        self._own_pids, self._own_network = _namespace("self", "pid"), _namespace("self", "net")

    def look(self, container_ids: list[str]) -> list[Stats]:
        """What each of the containers uses; one that is gone is left out."""
        self._engine.enter_namespace()
        self._members: dict[tuple[int, int], list[int]] | None = None
        system = _system_time()
        found = []
        for container_id in container_ids:
            with suppress(NotFound):
                found.append(self._look_at(container_id, system))
        return found

    def _look_at(self, container_id: str, system: int) -> Stats:
        record, state = self._engine.containers.load(container_id), self._engine.containers.state(container_id)
        pid = state["pid"]
        if state["status"] not in LIVE or not pid or processes.start_time(pid) != state["process_started"]:
            self._before.pop(container_id, None)
            return Stats(container_id, record["name"], state["status"] in LIVE, 0.0, *(0,) * 7)
        usage = Cgroup(state["cgroup"]).usage() if state.get("cgroup") else None
        used = self._used(pid, usage)
        now = Sample(used.cpu, system)
        before = self._before.get(container_id, now)
        self._before[container_id] = now
        received, sent = self._network(pid)
        return Stats(
            container_id,
            record["name"],
            True,
            cpu_percent(before, now, os.cpu_count() or 1),
            used.memory,
            self._limit(usage),
            received,
            sent,
            used.io_read,
            used.io_write,
            used.pids,
        )

    def _used(self, pid: int, usage: Usage | None) -> Processes:
        """From the control group; what that does not count from the processes."""
        if usage and None not in (usage.cpu_usec, usage.memory_used, usage.io_read, usage.pids):
            counted = Processes(0, 0, 0, 0, 0)
        else:
            counted = add_up(self._pids(pid))
        if usage is None:
            return counted
        return Processes(
            counted.cpu if usage.cpu_usec is None else usage.cpu_usec * 1000,
            counted.memory if usage.memory_used is None else usage.memory_used,
            counted.io_read if usage.io_read is None else usage.io_read,
            counted.io_write if usage.io_write is None else usage.io_write,
            counted.pids if usage.pids is None else usage.pids,
        )

    def _limit(self, usage: Usage | None) -> int:
        limit = usage.memory_limit if usage else None
        return self._machine_memory if limit is None else min(limit, self._machine_memory)

    def _pids(self, init_pid: int) -> list[int]:
        """The processes in the pid namespace of *init_pid*; all of /proc is looked through once for all containers."""
        namespace = _namespace(init_pid, "pid")
        if namespace == self._own_pids:
            return [init_pid]  # --pid=host: the rest of that namespace is the machine
        if self._members is None:
            self._members = {}
            for name in os.listdir("/proc"):
                if name.isdigit() and (other := _namespace(name, "pid")):
                    self._members.setdefault(other, []).append(int(name))
        return self._members.get(namespace, []) if namespace else []

    def _network(self, pid: int) -> tuple[int, int]:
        """Bytes (received, sent) by the interfaces of the container; none where they are the machine's."""
        if _namespace(pid, "net") == self._own_network:
            return 0, 0
        return interface_bytes(_read(f"/proc/{pid}/net/dev"))


def _namespace(pid: int | str, kind: str) -> tuple[int, int] | None:
    """Which namespace of that kind a process is in; None where it is gone or not to be looked at."""
    try:
        status = os.stat(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def interface_bytes(text: str) -> tuple[int, int]:
    """(received, sent) of all interfaces but loopback in /proc/net/dev, proc_pid_net(5)."""
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, counters = line.rpartition(":")
        fields = counters.split()
        if name.strip() != "lo" and len(fields) >= 9:
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def add_up(pids: list[int]) -> Processes:
    """What the processes use together; those that have just ended nothing."""
    found = [used for pid in pids if (used := _of_process(pid))]
    return Processes(*map(sum, zip(*found, strict=True))) if found else Processes(0, 0, 0, 0, 0)


def _of_process(pid: int) -> Processes | None:
    stat = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not stat:
        return None
    ticks = sum(map(int, stat[11:15]))  # user, system, and those of children that were waited for
    io = _fields(_read(f"/proc/{pid}/io"))
    return Processes(
        ticks * _NS // os.sysconf("SC_CLK_TCK"),
        _resident(pid, int(stat[21])),
        io.get("read_bytes", 0),
        io.get("write_bytes", 0),
        1,
    )


def _resident(pid: int, pages: int) -> int:
    """Bytes in memory; where we may not see which are shared, all *pages*."""
    shared = _fields(_read(f"/proc/{pid}/smaps_rollup"))
    return shared["Pss"] * 1024 if "Pss" in shared else pages * os.sysconf("SC_PAGE_SIZE")


def _fields(text: str) -> dict[str, int]:
    """The numbers in lines like "Pss:  12 kB"."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0][:-1]: int(row[1]) for row in rows if len(row) > 1 and row[0][-1:] == ":" and row[1].isdigit()}


def _read(path: str) -> str:
    """A file of /proc; nothing where the process has ended, or is not ours to look at."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _system_time() -> int:
    """ns of all processors together since boot: proc_stat(5), where guests are counted twice."""
    fields = _read("/proc/stat").partition("\n")[0].split()
    return sum(map(int, fields[1:9])) * _NS // os.sysconf("SC_CLK_TCK")


def _machine_memory() -> int:
    return _fields(_read("/proc/meminfo")).get("MemTotal", 0) * 1024
