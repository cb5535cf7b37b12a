"""compose run: one container more of a service, for one command, in the foreground or not."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from rootless.compose.records import Project
from rootless.engine import networks
from rootless.engine.compose_container import container_options, grace_seconds, image_name
from rootless.engine.compose_images import Shown, ensure_images
from rootless.engine.compose_labels import ONEOFF, SERVICE, SLUG, container_labels, members, of_service
from rootless.engine.compose_plan import with_dependencies
from rootless.engine.compose_resources import ensure_resources, file_mounts
from rootless.engine.compose_start import StartOptions, start_services
from rootless.engine.compose_tasks import Tell
from rootless.engine.compose_up import UpOptions, check_support, converge, names_of
from rootless.engine.compose_wait import STARTED, wait_for
from rootless.engine.context import Engine
from rootless.engine.options import ContainerOptions, MountOption
from rootless.engine.run import run as run_container
from rootless.errors import NotFound
from rootless.network.ports import Port


class RunOptions(NamedTuple):
    """What compose run is asked for; None is what the service says."""

    service: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    environment: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    user: str | None = None
    working_directory: str | None = None
    mounts: tuple[MountOption, ...] = ()
    ports: tuple[Port, ...] = ()
    service_ports: bool = False
    use_aliases: bool = False
    detach: bool = False
    remove: bool = False
    terminal: bool = False
    interactive: bool = True
    no_deps: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    build: bool = False
    pull: str = ""
    build_progress: Shown = None
    limit: int = 0


def run(engine: Engine, project: Project, options: RunOptions, tell: Tell) -> tuple[str, int]:
    """Run the command, after what the service depends on; (the container's name, the exit code to pass on)."""
    service = project.services.get(options.service)
    if service is None:
        raise NotFound(f"no such service: {options.service}", hint=f"there are: {', '.join(project.services)}")
    needed = () if options.no_deps else tuple(service.depends_on)
    others = with_dependencies(project.services, needed) if needed else ()
    check_support(project, (*others, service.name), tell)
    engine.enter_namespace()
    chosen = [project.services[name] for name in (*others, service.name)]
    ensure_images(
        engine,
        project,
        chosen,
        tell,
        policy=options.pull,
        build=options.build,
        progress=options.build_progress,
        limit=options.limit,
    )
    ensure_resources(engine, project, tell)
    networks.begin_early(engine)
    if others:
        up = UpOptions(tuple(needed), recreate="never", limit=options.limit)
        converge(engine, project, others, up, tell)
        start_services(engine, project, others, StartOptions(limit=options.limit), tell)
    for name in needed:
        condition = service.depends_on[name].condition
        if condition != STARTED and name in project.services:
            wait_for(engine, project.name, name, condition, tell)
    asked = _container(engine, project, options)
    record, code = run_container(engine, asked, detach_keys="", proxy_signals=True)
    return str(record["name"]), code


def _container(engine: Engine, project: Project, options: RunOptions) -> ContainerOptions:
    service = project.services[options.service]
    image = engine.images.find(image_name(project, service))
    if image is None:
        raise NotFound(f"No such image: {image_name(project, service)}")
    slug = os.urandom(32).hex()
    base = container_labels(project, service, _next_number(engine, project, service.name), "", image.id)
    labels = {**base, **options.labels, ONEOFF: "True", SLUG: slug, SERVICE: service.name}
    changes: dict[str, Any] = {
        "environment": (*(f"{k}={v}" for k, v in service.environment.items() if v is not None), *options.environment),
        "terminal": options.terminal,
        "interactive": options.interactive and not options.detach,
        "detach": options.detach,
        "auto_remove": options.remove,
        "restart": "no",
        "restart_retries": 0,
        "stop_timeout": grace_seconds(service),
        "cap_add": (*service.cap_add, *options.cap_add),
        "cap_drop": (*service.cap_drop, *options.cap_drop),
    }
    if options.command:
        changes["command"] = options.command
    for key in ("entrypoint", "user", "working_directory"):
        if getattr(options, key) is not None:
            changes[key] = getattr(options, key)
    if options.entrypoint is not None and not options.command:
        changes["command"] = ()
    found = container_options(
        project,
        service,
        names_of(engine, project),
        name=options.name or f"{project.name}-{service.name}-run-{slug[:12]}",
        labels=labels,
        files=file_mounts(engine, project, service),
        aliases=options.use_aliases,
        **changes,
    )
    replaced = {mount.destination for mount in options.mounts}
    found.mounts = (*(mount for mount in found.mounts if mount.destination not in replaced), *options.mounts)
    found.ports = (*(found.ports if options.service_ports else ()), *options.ports)
    return found


def _next_number(engine: Engine, project: Project, service: str) -> int:
    return len(of_service(members(engine, project.name), service, oneoff=True)) + 1
