"""Control groups of OCI containers: made where the ladder finds a place for them; limits, statistics, stopping.

A container that asks for nothing gets none of its own. One that asks for limits where no control group can be had is
refused, with what an administrator would do.
"""

import os
from typing import Any

from rootless.engine.oci_config import limits, needed_limits
from rootless.engine.oci_state import Record
from rootless.errors import HostUnsupported, RootlessError
from rootless.linux import cgroups
from rootless.runtime import cgroup_ladder, cgroup_place
from rootless.runtime.cgroup import Cgroup
from rootless.runtime.cgroup_files import writes_of
from rootless.runtime.cgroup_writes import controllers_of, missing
from rootless.spec.runtime import Config


def make(config: Config, container_id: str, launcher: int) -> str:
    """The path of a cgroup with the process *launcher* in it; "" where there is none, and none is needed."""
    wanted, needed = limits(config), needed_limits(config)
    if not wanted and not config["linux"].get("cgroupsPath"):
        return ""
    try:
        rung = cgroup_ladder.find("")
        if rung.kind == cgroup_ladder.NONE:
            if needed:
                raise missing(controllers_of(writes_of(needed)))
            return ""
        return _make(rung, container_id, launcher)
    except (OSError, RootlessError) as error:
        if not needed:
            return ""
        if isinstance(error, RootlessError):
            raise
        raise HostUnsupported(f"linux.resources: cannot make a control group: {error}") from error


def _make(rung: cgroup_ladder.Rung, container_id: str, launcher: int) -> str:
    if rung.kind == cgroup_place.SYSTEMD:
        return cgroup_place.Place(rung.to_settings(), f"oci-{container_id}"[:200]).make(launcher)
    # Beside those of monitors, who sweep what is named as theirs.
    cgroup_place.enable(rung.base, move=True)
    path = os.path.join(rung.base, f"oci.{container_id}")
    cgroups.end(path)
    os.mkdir(path, 0o755)
    cgroups.join(path, launcher)
    return path


def apply(path: str, config: Config) -> None:
    """Have the limits hold, before the program runs."""
    if path and (wanted := limits(config)):
        Cgroup(path).set_limits(wanted)


def update(record: Record, resources: Config) -> None:
    """Change limits of a container. Raises HostUnsupported where it has no control group."""
    if not record.cgroup:
        raise missing(controllers_of(writes_of(resources)), "the container was begun without a control group")
    Cgroup(record.cgroup).set_limits(resources)


def statistics(record: Record) -> dict[str, Any]:
    """What `events --stats` prints, in the form of runc's document."""
    data: dict[str, Any] = {}
    if record.cgroup:
        used = Cgroup(record.cgroup).usage()
        data = {
            "cpu": {
                "usage": {
                    "total": (used.cpu_usec or 0) * 1000,
                    "kernel": (used.cpu_system_usec or 0) * 1000,
                    "user": (used.cpu_user_usec or 0) * 1000,
                },
                "throttling": {"throttledPeriods": used.throttled_periods, "throttledTime": used.throttled_usec * 1000},
            },
            "memory": {
                "usage": {"usage": used.memory or 0, "limit": used.memory_limit or 2**64 - 1},
                "cache": used.memory_cache,
            },
            "pids": {"current": used.pids or 0, "limit": used.pids_limit or 0},
            "blkio": {"readBytes": used.io_read or 0, "writeBytes": used.io_write or 0},
        }
    return {"type": "stats", "id": record.id, "data": data}


def end(path: str) -> None:
    """Kill what is left in it, and remove it."""
    if path:
        cgroups.end(path)
        above = os.path.dirname(path)
        if above.endswith(".scope"):
            cgroups.end(above)
