"""update: other limits and another restart policy for a container that is there, running or not.

What is not mentioned stays. The control group of one that runs is changed first, and the record after that says what
holds from its next start on; where a limit cannot be set, the record stays as it was, and the old limits are set again.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rootless.engine import control_group, events
from rootless.engine.context import Engine
from rootless.engine.control import tell_monitor
from rootless.engine.limits import Limits, check
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.runtime.cgroup import Cgroup
from rootless.store.containers import LIVE, Record


def update(engine: Engine, container_id: str, limits: Mapping[str, Any], restart: tuple[str, int] | None) -> None:
    """Change a container: *limits* by the names of Limits, *restart* a policy and its number of tries.

    Raises NotFound, InvalidInput in Docker's words, Conflict, HostUnsupported where a limit cannot be enforced.
    """
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        state = engine.containers.state_locked(container_id)
        wanted = {**record, **_restart(record, restart)}
        if limits:
            wanted["limits"] = changed(Limits.from_record(record.get("limits") or {}), limits).to_record()
            control_group.check(wanted)
            if state["status"] in LIVE and state["pid"]:
                _apply(state, record, wanted)
        engine.containers.save(wanted)
        if state["status"] in LIVE:
            rows = {"limit_rows": control_group.limit_rows(wanted)} if limits else {}
            tell_monitor(engine, container_id, restart=wanted["restart"], **rows)
    events.of_container(engine, wanted, "update")


def _restart(record: Record, policy: tuple[str, int] | None) -> Record:
    if policy is None:
        return {}
    name, retries = policy
    if record["auto_remove"] and name != "no":
        raise InvalidInput("Restart policy cannot be updated because AutoRemove is enabled for the container")
    return {"restart": {"name": name, "maximum_retry_count": retries}}


def changed(limits: Limits, given: Mapping[str, Any]) -> Limits:
    """*limits* with what is *given*. Raises InvalidInput where the two do not fit (moby: container_unix.go)."""
    if given.get("nano_cpus") and (limits.cpu_quota or limits.cpu_period):
        other = "CPU Quota" if limits.cpu_quota else "CPU Period"
        raise InvalidInput(f"Conflicting options: Nano CPUs cannot be updated as {other} has already been set")
    for name, shown in (("cpu_quota", "CPU Quota"), ("cpu_period", "CPU Period")):
        if given.get(name) and limits.nano_cpus:
            raise InvalidInput(f"Conflicting options: {shown} cannot be updated as NanoCPUs has already been set")
    wanted = limits._replace(**given)
    if given.get("memory") and not given.get("memory_swap") and limits.memory:
        # What was given to the container as swap, by default as much as memory, is still its.
        swap = limits.memory_swap or 2 * limits.memory
        if 0 < swap < wanted.memory:
            raise InvalidInput(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same"
                " time"
            )
        wanted = wanted._replace(memory_swap=swap)
    check(wanted)
    return wanted


def _apply(state: Record, record: Record, wanted: Record) -> None:
    """Have the limits hold for the container that runs."""
    if not state.get("cgroup"):
        raise Conflict(
            f"container {record['name']} runs without a control group, and can have limits when it starts again",
            hint="stop it first, and start it after that",
        )
    cgroup = Cgroup(state["cgroup"])
    try:
        cgroup.set_limits(control_group.resources(wanted))
    except HostUnsupported:
        with suppress(HostUnsupported):
            cgroup.set_limits(control_group.resources(record))
        raise
