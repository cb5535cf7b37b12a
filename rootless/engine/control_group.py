"""Which control group a container is to have, for its monitor and for exec; and whether its limits can be enforced.

Without limits, a container gets one where that is to be had, with DEFAULT_PIDS processes in it at most; where none is
to be had, it runs without, and nothing is loaded for that but what finds it out.
"""

from rootless.runtime import cgroup_ladder
from rootless.runtime.cgroup_ladder import NONE, Rung
from rootless.runtime.cgroup_place import SYSTEMD
from rootless.runtime.cgroup_writes import controllers_of, missing
from rootless.store.containers import Record

DEFAULT_PIDS = 2048  # where the controller is there; as many as podman has (L01)
_DEFAULT_ROWS = [[["pids.max", str(DEFAULT_PIDS)], ["", ""]]]

Rows = list[list[list[str]]]  # see cgroup_writes.py


def settings(record: Record) -> Record | None:
    """What the monitor is told (monitor_cgroup.py); None for no control group.

    Raises HostUnsupported where the record's limits cannot be enforced, and InvalidInput for its cgroup parent.
    """
    rung = cgroup_ladder.find(record.get("cgroup_parent", ""))
    rows = limit_rows(record)
    _require(rung, rows)
    if rung.kind == NONE:
        return None
    asked = bool(record.get("limits") or record.get("cgroup_parent"))
    if not any(row[0][0] == "pids.max" for row in rows):
        rows = rows + _DEFAULT_ROWS
    return {"rung": rung.to_settings(), "name": record["id"], "rows": rows, "asked": asked}


def limit_rows(record: Record) -> Rows:
    """The control files to write for the record's limits. Raises InvalidInput for a device that is not there."""
    if not record.get("limits"):
        return []
    from rootless.engine.limits import Limits  # most containers have none
    from rootless.runtime.cgroup_files import writes_of

    resources = Limits.from_record(record["limits"]).to_resources()
    return [[list(alternative) for alternative in row] for row in writes_of(resources)]


def check(record: Record) -> None:
    """Raise HostUnsupported where the record's limits cannot be enforced here, InvalidInput for its cgroup parent."""
    if record.get("limits") or record.get("cgroup_parent"):
        _require(cgroup_ladder.find(record.get("cgroup_parent", "")), limit_rows(record))


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
