"""Starting the containers of services, along the dependencies; with `wait`, until they run or are healthy.

A service starts when all that it depends on is as its condition says. Points without work (`NAME!`) stand for all
containers of a service having been started; `NAME?` for what it needs being so, `NAME+` for its being ready.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rootless.compose.records import Project, Service
from rootless.engine.compose_hooks import run_hooks
from rootless.engine.compose_labels import Member, members, of_service
from rootless.engine.compose_plan import in_order
from rootless.engine.compose_tasks import Task, Tell, run_tasks
from rootless.engine.compose_wait import COMPLETED, RUNNING_OR_HEALTHY, STARTED, wait_for
from rootless.engine.context import Engine
from rootless.engine.control import stop
from rootless.engine.run import start_detached
from rootless.errors import RootlessError


class StartOptions(NamedTuple):
    """How services are started."""

    no_deps: bool = False
    wait: bool = False
    wait_timeout: float = 0  # seconds; 0: without end
    limit: int = 0  # tasks at a time; 0: as many as is good


def start_services(
    engine: Engine,
    project: Project,
    names: Sequence[str],
    options: StartOptions,
    tell: Tell,
    recreated: frozenset[str] = frozenset(),
) -> None:
    """Start the services' containers along the dependencies; with `wait`, until they run or are healthy."""
    deadline = time.monotonic() + options.wait_timeout if options.wait_timeout else 0.0
    there = members(engine, project.name)
    tasks: list[Task] = []
    for name in in_order(names, {name: project.services[name].depends_on for name in names}):
        service = project.services[name]
        needed = [] if options.no_deps else [other for other in service.depends_on if other in names]
        waits = _waits(service, project)
        ready = Task(f"{name}?", _wait_work(engine, project, service) if waits else None, _all_of(needed), waiter=True)
        again = any(service.depends_on[other].restart and other in recreated for other in needed)
        starts = []
        for member in of_service(there, name):
            if member.is_live and not again:
                tell(f"Container {member.name}", "Running")
                continue
            work = start_work(engine, service, member, again=again and name not in recreated)
            starts.append(Task(f"{name}/{member.id}", work, (ready.name,)))
        after = (ready.name, *(task.name for task in starts))
        tasks += [ready, *starts, Task(f"{name}!", None, after)]
        if options.wait:
            condition = _condition(project, names, name)
            tasks.append(Task(f"{name}+", _final_wait(engine, project, name, condition, deadline), (f"{name}!",), True))
    run_tasks(tasks, tell, limit=options.limit)


def _all_of(names: Iterable[str]) -> tuple[str, ...]:
    """The points at which all containers of the services have been started."""
    return tuple(f"{name}!" for name in names)


def _waits(service: Service, project: Project) -> bool:
    """Whether more is to be waited for than that others have been started."""
    return any(
        dependency.condition != STARTED and name in project.services for name, dependency in service.depends_on.items()
    )


def _condition(project: Project, names: Sequence[str], name: str) -> str:
    """What --wait waits for: a service that others need to have ended is waited for to the end."""
    conditions = [
        service.depends_on[name].condition
        for service in (project.services[other] for other in names)
        if name in service.depends_on
    ]
    return COMPLETED if COMPLETED in conditions else RUNNING_OR_HEALTHY


def _wait_work(engine: Engine, project: Project, service: Service) -> Any:
    def work(tell: Tell) -> None:
        for name, dependency in service.depends_on.items():
            if name not in project.services or dependency.condition == STARTED:
                continue
            try:
                wait_for(engine, project.name, name, dependency.condition, tell)
            except RootlessError as error:
                if dependency.required:
                    raise
                tell(f"Service {name}", f"optional dependency failed to start: {error}")

    return work


def _final_wait(engine: Engine, project: Project, name: str, condition: str, deadline: float) -> Any:
    def work(tell: Tell) -> None:
        wait_for(engine, project.name, name, condition, tell, deadline)

    return work


def start_work(engine: Engine, service: Service | None, member: Member, *, again: bool = False) -> Any:
    """A task's work: a container is started, after it was stopped where it is to start *again*."""

    def work(tell: Tell) -> None:
        shown = f"Container {member.name}"
        if member.is_live and not again:
            tell(shown, "Running")
            return
        if again:
            tell(shown, "Restarting")
            stop(engine, member.id, None, None)
        tell(shown, "Starting")
        start_detached(engine, member.id)
        tell(shown, "Started")
        if service is not None:
            run_hooks(engine, member.id, service.post_start)

    return work
