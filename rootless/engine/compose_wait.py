"""Waiting for containers of services: until they run, are healthy, or have ended well."""

import time
from collections.abc import Callable, Sequence

from rootless.engine.compose_labels import Member, members, of_service
from rootless.engine.compose_tasks import Tell
from rootless.engine.context import Engine
from rootless.engine.control import wait
from rootless.errors import RootlessError
from rootless.store.containers import LIVE

STARTED, HEALTHY, COMPLETED = "service_started", "service_healthy", "service_completed_successfully"
RUNNING_OR_HEALTHY = "running_or_healthy"
_POLL_SECONDS = 0.03


def wait_for(engine: Engine, project: str, service: str, condition: str, tell: Tell, deadline: float = 0) -> None:
    """Wait until all containers of a service meet the condition; *deadline* is of time.monotonic(), 0 for none.

    Raises RootlessError where they never will.
    """
    found = of_service(members(engine, project), service)
    if not found and condition != STARTED:
        raise RootlessError(f'dependency failed to start: service "{service}" has no containers')
    for member in found:
        if condition == COMPLETED:
            _completed(engine, member, tell)
        elif condition != STARTED:
            _healthy(engine, member, tell, deadline, fallback=condition == RUNNING_OR_HEALTHY)


def _completed(engine: Engine, member: Member, tell: Tell) -> None:
    shown = f"Container {member.name}"
    tell(shown, "Waiting")
    code = wait(engine, member.id)
    if code:
        raise RootlessError(f'service "{member.service}" didn\'t complete successfully: exit {code}')
    tell(shown, "Exited")


def _healthy(engine: Engine, member: Member, tell: Tell, deadline: float, *, fallback: bool) -> None:
    shown = f"Container {member.name}"
    checks = engine.containers.load(member.id)["health"] is not None
    if not checks and not fallback:
        raise RootlessError(
            f"dependency failed to start: container {member.name} has no healthcheck configured",
            hint=f"give the service {member.service} a healthcheck, or wait for service_started",
        )
    tell(shown, "Waiting")
    while True:
        state = engine.containers.state(member.id)
        health = (state["health"] or {}).get("Status")
        if state["status"] not in LIVE:
            raise RootlessError(f"container {member.name} exited ({state['exit_code']})")
        if state["status"] == "running" and (health == "healthy" or (fallback and not checks)):
            tell(shown, "Healthy" if checks else "Running")
            return
        if health == "unhealthy":
            raise RootlessError(f"dependency failed to start: container {member.name} is unhealthy")
        if deadline and time.monotonic() > deadline:
            raise RootlessError(f"timeout waiting for container {member.name}: it is {health or state['status']}")
        time.sleep(_POLL_SECONDS)


def wait_all(
    engine: Engine, found: Sequence[Member], ended: Callable[[Member, int], None], *, first: bool = False
) -> int:
    """Wait until all containers, or the *first* of them, have ended; the exit code of the one that ended first."""
    pending = list(found)
    code: int | None = None
    while pending:
        for member in list(pending):
            state = engine.containers.state(member.id)
            if state["status"] in LIVE:
                continue
            pending.remove(member)
            code = int(state["exit_code"]) if code is None else code
            ended(member, int(state["exit_code"]))
            if first:
                return code
        time.sleep(_POLL_SECONDS if pending else 0)
    return code or 0
