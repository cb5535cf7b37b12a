"""Which control group a container is to have, for its monitor and for exec; and whether its limits can be enforced.

Without limits, a container gets one where that is to be had, with DEFAULT_PIDS processes in it at most; where none is
to be had, it runs without, and nothing is loaded for that but what finds it out.
"""

from rootless.engine.options import ContainerOptions
from rootless.runtime import cgroup_ladder
from rootless.runtime.cgroup_ladder import NONE, Rung
from rootless.runtime.cgroup_place import SYSTEMD
from rootless.runtime.cgroup_writes import controllers_of, missing
from rootless.spec.runtime import Config
from rootless.store.containers import Record

DEFAULT_PIDS = 2048  # where the controller is there; as many as podman has (L01)
_DEFAULT_ROWS = [[["pids.max", str(DEFAULT_PIDS)], ["", ""]]]

Rows = list[list[list[str]]]  # see cgroup_writes.py


def settings(record: Record) -> Record | None:
    """What the monitor is told (monitor_cgroup.py); None for no control group.

    Raises HostUnsupported where the record's limits cannot be enforced, and InvalidInput for its cgroup parent.
    """
    rung = cgroup_ladder.find(record.get("cgroup_parent", ""))
    _require(rung, asked_rows(record))
    if rung.kind == NONE:
        return None
    asked = bool(record.get("limits") or record.get("cgroup_parent"))
    return {"rung": rung.to_settings(), "name": record["id"], "rows": limit_rows(record), "asked": asked}


def limit_rows(record: Record) -> Rows:
    """The control files to write at the container's start; see cgroup_writes.py. Raises as asked_rows()."""
    rows = asked_rows(record)
    return rows if any(row[0][0] == "pids.max" for row in rows) else rows + _DEFAULT_ROWS


def asked_rows(record: Record) -> Rows:
    """Those of the record's limits. Raises InvalidInput for a device that is not there."""
    if not record.get("limits"):
        return []
    from rootless.runtime.cgroup_files import writes_of  # most containers have none

    return [[list(alternative) for alternative in row] for row in writes_of(resources(record))]


def resources(record: Record) -> Config:
    """linux.resources of the record's limits. Raises as asked_rows()."""
    if not record.get("limits"):
        return {}
    from rootless.engine.limits import Limits  # as above

    return Limits.from_record(record["limits"]).to_resources()


def check_options(options: ContainerOptions) -> None:
    """Raise InvalidInput for limits that make no sense."""
    if options.limits is not None:
        from rootless.engine.limits import check as check_limits  # as above

        check_limits(options.limits)


def check(record: Record) -> None:
    """Raise HostUnsupported where the record's limits cannot be enforced here, InvalidInput for its cgroup parent."""
    if record.get("limits") or record.get("cgroup_parent"):
        _require(cgroup_ladder.find(record.get("cgroup_parent", "")), asked_rows(record))


def _require(rung: Rung, rows: Rows) -> None:
    """Where the user's systemd does not live at its usual place, its controllers are seen only in a scope."""
    lacking = [name for name in controllers_of(rows) if name not in rung.controllers]
    if lacking and not (rung.kind == SYSTEMD and not rung.controllers):
        raise missing(lacking, rung.why)


def exec_settings(record: Record, state: Record) -> Record | None:
    """How exec gets into the container's control group: its path, and who may be asked to move a process there."""
    if not (path := state.get("cgroup")):
        return None
    return {"path": path, "socket": cgroup_ladder.find_socket(), "limited": bool(record.get("limits"))}


def host_config(record: Record) -> Record:
    """The limits as `inspect` has them in HostConfig (Engine API: Resources), where 0 and null are what is not said."""
    limits = record.get("limits") or {}

    def devices(name: str, of_each: str) -> list[Record]:
        return [{"Path": path, of_each: rate} for path, rate in limits.get(name, ())]

    return {
        "CgroupParent": record.get("cgroup_parent", ""),
        "Memory": limits.get("memory", 0),
        "MemoryReservation": limits.get("memory_reservation", 0),
        "MemorySwap": limits.get("memory_swap") or 2 * limits.get("memory", 0),
        "MemorySwappiness": None,
        "NanoCpus": limits.get("nano_cpus", 0),
        "CpuShares": limits.get("cpu_shares", 0),
        "CpuPeriod": limits.get("cpu_period", 0),
        "CpuQuota": limits.get("cpu_quota", 0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.get("cpuset_cpus", ""),
        "CpusetMems": limits.get("cpuset_mems", ""),
        "PidsLimit": limits.get("pids"),
        "BlkioWeight": limits.get("blkio_weight", 0),
        "BlkioWeightDevice": devices("blkio_weight_device", "Weight"),
        "BlkioDeviceReadBps": devices("device_read_bps", "Rate"),
        "BlkioDeviceWriteBps": devices("device_write_bps", "Rate"),
        "BlkioDeviceReadIOps": devices("device_read_iops", "Rate"),
        "BlkioDeviceWriteIOps": devices("device_write_iops", "Rate"),
        "OomKillDisable": False,
    }
