"""up: networks, volumes and images are had; containers are made, or made anew where they are out of date; then started.

Making goes on for all services at once, but for those that join another's namespaces or take its volumes. Starting goes
along the dependencies: a service starts when all that it depends on is as its condition says. Anything that was half
done when a command was killed is put right by the next one: what is where is read off the containers' labels.

A container is replaced by one that is made beside it, under a name in front of which its id stands; then the old one is
stopped and removed, and the name is handed on. Anonymous volumes go over to the new one.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rootless.compose.records import Project, Service
from rootless.compose.render import service_hash
from rootless.compose.support import notices, refusals
from rootless.engine import networks
from rootless.engine.compose_container import (
    Names,
    container_name,
    container_options,
    grace_seconds,
    health_test,
    image_name,
)
from rootless.engine.compose_images import Shown, ensure_images
from rootless.engine.compose_labels import (
    HASH,
    IMAGE,
    REPLACE,
    Member,
    container_labels,
    members,
    of_service,
)
from rootless.engine.compose_limits import enforced
from rootless.engine.compose_plan import (
    DIVERGED,
    Existing,
    Plan,
    in_order,
    needed_first,
    plan_service,
    with_dependencies,
)
from rootless.engine.compose_resources import ensure_resources, file_mounts
from rootless.engine.compose_start import StartOptions, start_services
from rootless.engine.compose_tasks import Task, Tell, run_tasks
from rootless.engine.context import Engine
from rootless.engine.control import stop
from rootless.engine.create import create
from rootless.engine.options import ContainerOptions, MountOption
from rootless.engine.remove import remove
from rootless.engine.rename import rename
from rootless.errors import HostUnsupported, InvalidInput, NotFound
from rootless.store.containers import Record


class UpOptions(NamedTuple):
    """What up, create and scale are asked for."""

    services: tuple[str, ...] = ()  # none: all
    scale: Mapping[str, int] = {}
    recreate: str = DIVERGED
    recreate_dependencies: str = DIVERGED
    renew_anonymous_volumes: bool = False
    no_deps: bool = False
    remove_orphans: bool = False
    start: bool = True
    wait: bool = False
    wait_timeout: float = 0  # seconds; 0: without end
    timeout: int | None = None  # of stopping
    pull: str = ""
    build: bool = False
    no_build: bool = False
    build_progress: Shown = None
    limit: int = 0


class Wanted(NamedTuple):
    """A service with what its containers are to have."""

    service: Service
    config_hash: str
    image_id: str
    files: tuple[MountOption, ...]
    plan: Plan


def up(engine: Engine, project: Project, options: UpOptions, tell: Tell) -> tuple[str, ...]:
    """Have the services be there and run; their names. Raises RootlessError."""
    chosen = choose(project, options)
    check_support(project, chosen, tell)
    engine.enter_namespace()
    _ = engine.storage_driver  # found out once, and not in each task
    ensure_images(
        engine,
        project,
        [project.services[name] for name in chosen],
        tell,
        policy=options.pull,
        build=options.build,
        no_build=options.no_build,
        progress=options.build_progress,
        limit=options.limit,
    )
    ensure_resources(engine, project, tell)
    if options.start and any(not service.network_mode for service in project.services.values()):
        networks.begin_early(engine)
    _orphans(engine, project, options, tell)
    recreated = converge(engine, project, chosen, options, tell)
    if options.start:
        how = StartOptions(options.no_deps, options.wait, options.wait_timeout, options.limit)
        start_services(engine, project, chosen, how, tell, recreated)
    return chosen


def choose(project: Project, options: UpOptions) -> tuple[str, ...]:
    """The services that the command is about. Raises NotFound."""
    for name in (*options.services, *options.scale):
        if name not in project.services:
            raise NotFound(f"no such service: {name}", hint=f"there are: {', '.join(project.services)}")
    if options.no_deps and options.services:
        return options.services
    return with_dependencies(project.services, options.services)


def check_support(project: Project, names: Iterable[str], tell: Tell) -> None:
    """Raise HostUnsupported for what cannot be; tell of what is left out."""
    for name in names:
        for key, why in refusals(project.services[name]):
            raise HostUnsupported(f"services.{name}.{key} cannot be had: {why}")
        for key, why in notices(project.services[name]):
            tell(f"services.{name}.{key}", f"has no effect: {why}")
        if why := enforced(project.services[name]).why:
            tell(f"services.{name}", f"runs without its limits: {why}")


def _orphans(engine: Engine, project: Project, options: UpOptions, tell: Tell) -> None:
    """Remove, or tell of, containers of the project whose service is not in its files any more."""
    known = {*project.services, *project.disabled}
    lost = [member for member in members(engine, project.name) if member.service not in known and not member.is_oneoff]
    if options.remove_orphans:
        run_tasks([Task(member.id, remove_work(engine, member, options.timeout)) for member in lost], tell)
    elif lost:
        tell(
            f"Found orphan containers ({', '.join(member.name for member in lost)}) for this project",
            "use --remove-orphans to remove them",
        )


# --- making


def converge(engine: Engine, project: Project, names: Sequence[str], options: UpOptions, tell: Tell) -> frozenset[str]:
    """Make, make anew and remove containers; the services of which one was made anew."""
    there = members(engine, project.name)
    wanted = {name: _want(engine, project, project.services[name], there, options) for name in names}
    tasks: list[Task] = []
    for name in in_order(names, {name: needed_first(project.services[name]) for name in names}):
        after = tuple(
            task.name
            for other in needed_first(project.services[name])
            for task in tasks
            if task.name.startswith(f"{other}/")
        )
        tasks += _service_tasks(engine, project, wanted[name], options, after)
    run_tasks(tasks, tell, limit=options.limit)
    return frozenset(name for name in names if wanted[name].plan.recreate)


def _want(engine: Engine, project: Project, service: Service, there: list[Member], options: UpOptions) -> Wanted:
    image = engine.images.find(image_name(project, service))
    if image is None:
        raise NotFound(f"No such image: {image_name(project, service)}")
    files = file_mounts(engine, project, service)
    digest = service_digest(service, files)
    count = options.scale.get(service.name, service.replicas)
    if service.container_name and count > 1:
        raise InvalidInput(f"the service {service.name} has a container_name, and there can be one container of it")
    existing = [existing_of(member) for member in of_service(there, service.name)]
    plan = plan_service(existing, count, digest, image.id, recreate_of(service.name, options))
    return Wanted(service, digest, image.id, files, plan)


def service_digest(service: Service, files: Sequence[MountOption]) -> str:
    """The hash of a service's configuration, and of the *files* of its secrets and configs."""
    written = [f"{mount.source}:{mount.destination}" for mount in files]
    return service_hash({**service.document, "x-files": written} if written else service.document)


def recreate_of(name: str, options: UpOptions) -> str:
    """Which containers of a service are made anew: of one that is asked for, or that others need."""
    asked = not options.services or name in options.services
    return options.recreate if asked else options.recreate_dependencies


def existing_of(member: Member) -> Existing:
    """A container, as far as plans go."""
    labels = member.labels
    return Existing(
        member.id,
        member.name,
        member.number,
        labels.get(HASH, ""),
        labels.get(IMAGE, ""),
        member.is_live,
        labels.get(REPLACE, ""),
    )


def _service_tasks(
    engine: Engine, project: Project, wanted: Wanted, options: UpOptions, after: tuple[str, ...]
) -> list[Task]:
    name, plan = wanted.service.name, wanted.plan
    tasks = [Task(f"{name}/-{found.id}", _remove_existing(engine, found, options.timeout)) for found in plan.remove]
    gone = tuple(task.name for task in tasks)
    for found in plan.recreate:
        work = _recreate_work(engine, project, wanted, found, options)
        tasks.append(Task(f"{name}/{found.number}", work, (*after, *gone)))
    for number in plan.create:
        tasks.append(Task(f"{name}/{number}", _create_work(engine, project, wanted, number), (*after, *gone)))
    for found in plan.keep:
        final = container_name(project, wanted.service, found.number)
        if found.name != final and found.replaces:  # the command was killed before it handed the name on
            tasks.append(Task(f"{name}/{found.number}", _rename_work(engine, found.id, final), gone))
    return tasks


def names_of(engine: Engine, project: Project) -> Names:
    """How containers, networks and volumes of the project are called at this moment."""
    containers: dict[str, str] = {}
    for member in members(engine, project.name):
        if not member.is_oneoff:
            containers.setdefault(member.service, member.id)
    return Names(
        containers,
        {key: network.name for key, network in project.networks.items()},
        {key: volume.name for key, volume in project.volumes.items()},
    )


def options_of(
    engine: Engine, project: Project, wanted: Wanted, number: int, labels: Mapping[str, str] = {}, **changes: Any
) -> ContainerOptions:
    """The options of the service's container with that number."""
    base = container_labels(project, wanted.service, number, wanted.config_hash, wanted.image_id)
    changes.setdefault("name", container_name(project, wanted.service, number))
    return container_options(
        project, wanted.service, names_of(engine, project), labels={**base, **labels}, files=wanted.files, **changes
    )


def _create_work(engine: Engine, project: Project, wanted: Wanted, number: int) -> Any:
    def work(tell: Tell) -> str:
        options = options_of(engine, project, wanted, number)
        tell(f"Container {options.name}", "Creating")
        record = make(engine, wanted.service, options)
        tell(f"Container {options.name}", "Created")
        return str(record["id"])

    return work


def make(engine: Engine, service: Service, options: ContainerOptions, anonymous: Iterable[str] = ()) -> Record:
    """Create a container, with what options cannot say: a check without a shell, volumes that stay *anonymous*."""
    record = create(engine, options)
    test, taken = health_test(service), set(anonymous)
    if test is None and not taken:
        return record
    with engine.containers.lock(record["id"]):
        if test is not None and record["health"] is not None:
            record["health"]["test"] = test
        for mount in record["mounts"]:
            mount["anonymous"] = mount["anonymous"] or mount["name"] in taken
        engine.containers.save(record)
    return record


def _recreate_work(engine: Engine, project: Project, wanted: Wanted, old: Existing, options: UpOptions) -> Any:
    def work(tell: Tell) -> str:
        name = container_name(project, wanted.service, old.number)
        tell(f"Container {name}", "Recreate")
        mounts = [] if options.renew_anonymous_volumes else _anonymous(engine, old.id)
        aside = f"{old.id[:12]}_{name}"
        asked = options_of(engine, project, wanted, old.number, {REPLACE: old.id}, name=aside)
        own = {mount.destination for mount in asked.mounts if mount.type != "volume" or mount.source}
        kept = [mount for mount in mounts if mount.destination not in own]
        taken = {mount.destination for mount in kept}
        asked.mounts = (*(mount for mount in asked.mounts if mount.destination not in taken), *kept)
        record = make(engine, wanted.service, asked, [mount.source for mount in kept])
        try:
            stop(engine, old.id, None, _seconds(wanted.service, options))
            remove(engine, old.id, force=True, volumes=options.renew_anonymous_volumes)
        except NotFound:
            pass  # somebody else has removed it
        rename(engine, record["id"], name)
        tell(f"Container {name}", "Recreated")
        return str(record["id"])

    return work


def _anonymous(engine: Engine, container_id: str) -> list[MountOption]:
    """The anonymous volumes of a container, to be mounted by another one."""
    try:
        mounts = engine.containers.load(container_id)["mounts"]
    except NotFound:
        return []
    return [
        MountOption("volume", mount["name"], mount["destination"], no_copy=True)
        for mount in mounts
        if mount["anonymous"]
    ]


def _rename_work(engine: Engine, container_id: str, name: str) -> Any:
    def work(tell: Tell) -> None:
        rename(engine, container_id, name)

    return work


def _seconds(service: Service | None, options: UpOptions) -> int | None:
    if options.timeout is not None:
        return options.timeout
    return grace_seconds(service) if service is not None else None


def _remove_existing(engine: Engine, found: Existing, timeout: int | None) -> Any:
    def work(tell: Tell) -> None:
        _stop_and_remove(engine, found.id, found.name, timeout, tell)

    return work


def remove_work(engine: Engine, member: Member, timeout: int | None, *, volumes: bool = False) -> Any:
    """A task's work: a container is stopped and removed."""

    def work(tell: Tell) -> None:
        _stop_and_remove(engine, member.id, member.name, timeout, tell, volumes=volumes)

    return work


def _stop_and_remove(
    engine: Engine, container_id: str, name: str, timeout: int | None, tell: Tell, *, volumes: bool = False
) -> None:
    with suppress(NotFound):  # somebody else has removed it
        tell(f"Container {name}", "Stopping")
        stop(engine, container_id, None, timeout)
        tell(f"Container {name}", "Removing")
        remove(engine, container_id, force=True, volumes=volumes)
    tell(f"Container {name}", "Removed")
