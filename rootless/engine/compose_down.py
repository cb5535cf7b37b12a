"""down, stop, restart, kill, rm, pause: what ends containers of a project, along the dependencies backwards.

The dependencies are those of the files, where there are any, and else those that the containers' labels tell: so a
project can be ended whose files are gone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rootless.compose.records import Project
from rootless.engine import control
from rootless.engine.compose_container import grace_seconds, image_name
from rootless.engine.compose_hooks import run_hooks
from rootless.engine.compose_images import remove_images
from rootless.engine.compose_labels import PROJECT, Member, members, of_service
from rootless.engine.compose_plan import dependents
from rootless.engine.compose_resources import remove_files, remove_networks, remove_volumes
from rootless.engine.compose_start import start_work
from rootless.engine.compose_tasks import Task, Tell, Work, run_tasks
from rootless.engine.context import Engine
from rootless.engine.remove import remove
from rootless.errors import Conflict, NotFound, RootlessError

Idle = Callable[[], None] | None


class DownOptions(NamedTuple):
    """What down is asked for."""

    services: tuple[str, ...] = ()  # none: all, with networks
    volumes: bool = False
    images: str = ""  # all, local
    remove_orphans: bool = False
    timeout: int | None = None


def dependencies(project: Project | None, found: Sequence[Member]) -> dict[str, tuple[str, ...]]:
    """Service -> the services that it depends on."""
    known: dict[str, tuple[str, ...]] = {}
    for member in found:
        known[member.service] = tuple(dict.fromkeys((*known.get(member.service, ()), *member.depends_on)))
    if project is not None:
        known.update((name, tuple(service.depends_on)) for name, service in project.services.items())
    return known


def select(
    engine: Engine, name: str, project: Project | None, services: Sequence[str], *, oneoff: bool = False
) -> list[Member]:
    """The containers of these services, or of all; raises NotFound for a service that is not there."""
    found = members(engine, name)
    known = {member.service for member in found} | set(project.services if project else ())
    for service in services:
        if service not in known:
            raise NotFound(
                f"no such service: {service}", hint=f"there are: {', '.join(sorted(known))}" if known else ""
            )
    chosen = services or tuple(known)
    return [member for member in found if member.service in chosen and (oneoff or not member.is_oneoff)]


def down(engine: Engine, name: str, project: Project | None, options: DownOptions, tell: Tell) -> None:
    """Stop and remove a project's containers; networks and, where asked for, volumes and images."""
    engine.enter_namespace()
    found = select(engine, name, project, options.services, oneoff=True)
    if project is not None and not options.remove_orphans:
        known = {*project.services, *project.disabled}
        lost = [member for member in found if member.service not in known]
        found = [member for member in found if member.service in known]
        if lost:
            tell(f"Found orphan containers ({', '.join(m.name for m in lost)})", "use --remove-orphans to remove them")
    images = _images(project, found, options)

    def work(member: Member) -> Work:
        return _stop_work(engine, project, member, options.timeout, then_remove=True, volumes=options.volumes)

    backwards(dependencies(project, found), found, work, tell)
    if not options.services:
        remove_networks(engine, name, tell)
        if options.volumes:
            remove_volumes(engine, name, tell)
        if not members(engine, name):
            remove_files(engine, name)
    remove_images(engine, images, tell)


def _images(project: Project | None, found: Sequence[Member], options: DownOptions) -> list[str]:
    if not options.images:
        return []
    if project is None:
        return [str(member.listed.record["image"]) for member in found] if options.images == "all" else []
    chosen = [s for n, s in project.services.items() if not options.services or n in options.services]
    return [image_name(project, service) for service in chosen if options.images == "all" or not service.image]


def backwards(
    needed: Mapping[str, Sequence[str]], found: Sequence[Member], work: Any, tell: Tell, idle: Idle = None
) -> None:
    """Do *work* with each container, a service behind those that depend on it. Failures do not keep others from it."""
    services = {member.service for member in found}
    behind = dependents({name: needed.get(name, ()) for name in services})
    tasks = []
    for service in services:
        after = tuple(f"{member.service}/{member.id}" for member in found if member.service in behind[service])
        tasks += [Task(f"{m.service}/{m.id}", work(m), after) for m in found if m.service == service]
    run_tasks(tasks, tell, keep_going=True, idle=idle)


def _stop_work(
    engine: Engine,
    project: Project | None,
    member: Member,
    timeout: int | None,
    *,
    then_remove: bool = False,
    volumes: bool = False,
) -> Work:
    service = project.services.get(member.service) if project else None

    def work(tell: Tell) -> None:
        shown = f"Container {member.name}"
        with suppress(NotFound):  # somebody else has removed it
            if member.is_live:
                tell(shown, "Stopping")
                if service is not None and member.status == "running":
                    run_hooks(engine, member.id, service.pre_stop)
                seconds = grace_seconds(service) if timeout is None and service is not None else timeout
                control.stop(engine, member.id, None, seconds)
            if not then_remove or member.is_live:
                tell(shown, "Stopped")
            if then_remove:
                tell(shown, "Removing")
                # An anonymous volume goes with its container in any case where all volumes go.
                remove(engine, member.id, force=True, volumes=volumes)
                tell(shown, "Removed")

    return work


def stop_services(
    engine: Engine,
    name: str,
    project: Project | None,
    services: Sequence[str],
    timeout: int | None,
    tell: Tell,
    idle: Idle = None,
) -> None:
    """Stop containers, along the dependencies backwards; *idle* is called meanwhile."""
    engine.enter_namespace()
    found = [member for member in select(engine, name, project, services) if member.is_live]
    backwards(dependencies(project, found), found, lambda m: _stop_work(engine, project, m, timeout), tell, idle)


def restart_services(
    engine: Engine,
    name: str,
    project: Project | None,
    services: Sequence[str],
    timeout: int | None,
    tell: Tell,
    *,
    no_deps: bool = False,
) -> None:
    """Stop and start containers, and those that depend on them with `restart: true`."""
    engine.enter_namespace()
    found = select(engine, name, project, services)
    if services and not no_deps:
        everything = select(engine, name, project, ())
        chosen = {member.service for member in found}
        found += [
            member
            for member in everything
            if member.service not in chosen
            and any(again and other in chosen for other, (_, again) in member.depends_on.items())
        ]
    if not found:
        raise NotFound(f"no container found for project {name!r}")
    needed = dependencies(project, found)
    backwards(needed, [m for m in found if m.is_live], lambda m: _stop_work(engine, project, m, timeout), tell)
    start_members(engine, project, needed, found, tell)


def start_members(
    engine: Engine, project: Project | None, needed: Mapping[str, Sequence[str]], found: Sequence[Member], tell: Tell
) -> None:
    """Start containers that are there, along the dependencies."""
    tasks = []
    current = (
        {member.id: member for member in members(engine, found[0].listed.record["labels"][PROJECT])} if found else {}
    )
    for member in found:
        member = current.get(member.id, member)
        after = tuple(
            f"{other.service}/{other.id}" for other in found if other.service in needed.get(member.service, ())
        )
        service = project.services.get(member.service) if project else None
        tasks.append(Task(f"{member.service}/{member.id}", start_work(engine, service, member), after))
    run_tasks(tasks, tell)


def kill_services(
    engine: Engine, name: str, project: Project | None, services: Sequence[str], signum: int, tell: Tell
) -> None:
    """Send a signal to the containers that run."""
    found = [member for member in select(engine, name, project, services) if member.is_live]

    def work(member: Member) -> Work:
        def kill(tell: Tell) -> None:
            tell(f"Container {member.name}", "Killing")
            with suppress(Conflict, NotFound):  # it has just ended
                control.kill(engine, member.id, signum)
            tell(f"Container {member.name}", "Killed")

        return kill

    run_tasks([Task(member.id, work(member)) for member in found], tell, keep_going=True)


def remove_stopped(
    engine: Engine, name: str, project: Project | None, services: Sequence[str], *, volumes: bool, tell: Tell
) -> None:
    """Remove containers that do not run."""
    engine.enter_namespace()
    for member in select(engine, name, project, services, oneoff=True):
        if not member.is_live:
            tell(f"Container {member.name}", "Removing")
            with suppress(NotFound):
                remove(engine, member.id, force=False, volumes=volumes)
            tell(f"Container {member.name}", "Removed")


def pause_services(
    engine: Engine, name: str, project: Project | None, services: Sequence[str], *, resume: bool, tell: Tell
) -> None:
    """Freeze containers that run, or let those go on that are paused."""
    wanted = "paused" if resume else "running"
    for member in select(engine, name, project, services):
        if member.status == wanted:
            control.pause(engine, member.id, resume=resume)
            tell(f"Container {member.name}", "Unpaused" if resume else "Paused")


def find_member(
    engine: Engine, name: str, project: Project | None, service: str, index: int = 0, *, live: bool = True
) -> Member:
    """One container of a service: the one with that number, or the first. Raises NotFound, RootlessError."""
    found = of_service(select(engine, name, project, (service,)), service)
    chosen = [member for member in found if not index or member.number == index]
    running = [member for member in chosen if member.is_live]
    if live and not running:
        raise RootlessError(f'service "{service}" is not running' + (f" container #{index}" if index else ""))
    if not chosen:
        raise NotFound(f'no container found for service "{service}"' + (f" with the number {index}" if index else ""))
    return (running or chosen)[0]
