"""The images of services: pulled, built, found; before any container is made, so that nothing stops half way."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rootless.compose.records import Build, Project, Service
from rootless.engine.compose_container import image_name
from rootless.engine.compose_tasks import Task, Tell, run_tasks
from rootless.engine.context import Engine
from rootless.errors import InvalidInput, NotFound, RootlessError
from rootless.spec.reference import parse_reference

Shown = Callable[[], AbstractContextManager[Any]] | None

ALWAYS, MISSING, NEVER, BUILD = "always", "missing", "never", "build"


def pull_policy(service: Service, asked: str = "") -> str:
    """always, missing, never or build: what the command says, or else the service."""
    policy = asked or service.pull_policy or MISSING
    if policy in ("if_not_present",) or policy.startswith("every_") or policy in ("daily", "weekly", "refresh"):
        return MISSING
    return policy


def ensure_images(
    engine: Engine,
    project: Project,
    services: Iterable[Service],
    tell: Tell,
    *,
    policy: str = "",
    build: bool = False,
    no_build: bool = False,
    progress: Shown = None,
    limit: int = 0,
) -> None:
    """Have the image of each service be there. Raises NotFound, RegistryFailure, and what a build raises."""
    pulls: dict[str, Service] = {}
    for service in services:
        name = image_name(project, service)
        chosen = pull_policy(service, policy)
        missing = engine.images.find(name) is None
        if service.build is not None and not no_build and (build or chosen == BUILD or (missing and not service.image)):
            build_service(engine, project, service, tell, progress)
        elif service.build is not None and not service.image and missing:
            raise NotFound(f"no such image: {name}", hint="it is to be built: leave --no-build out")
        elif (chosen == ALWAYS and service.image) or (missing and chosen != NEVER):
            pulls[name] = service
        elif missing:
            raise NotFound(f"No such image: {name}", hint="pull it, or change pull_policy")
    pull_all(engine, project, pulls, tell, no_build=no_build, progress=progress, limit=limit)


def pull_all(
    engine: Engine,
    project: Project,
    pulls: Mapping[str, Service],
    tell: Tell,
    *,
    no_build: bool = True,
    ignore_failures: bool = False,
    progress: Shown = None,
    limit: int = 0,
) -> None:
    """Pull images, by name, several at once. What cannot be pulled and can be built is built, unless *no_build*."""
    tasks = [
        Task(f"pull {name}", _pull_work(engine, name, service, no_build, ignore_failures))
        for name, service in pulls.items()
    ]
    results = run_tasks(tasks, tell, limit=limit)
    for name, service in pulls.items():
        if results[f"pull {name}"] == BUILD:
            build_service(engine, project, service, tell, progress)


def _pull_work(engine: Engine, name: str, service: Service, no_build: bool, ignore: bool) -> Any:
    def work(tell: Tell) -> str:
        # Only where something is pulled: it loads what speaks HTTP.
        from rootless.engine.pull import pull

        tell(f"Image {name}", "Pulling")
        try:
            pull(engine, parse_reference(name).with_default_tag(), platform=service.platform)
        except RootlessError as error:
            if service.build is not None and not no_build:
                tell(f"Image {name}", "cannot be pulled, and is built")
                return BUILD
            if not ignore:
                raise
            tell(f"Image {name}", f"Warning: {error}")
            return NEVER
        tell(f"Image {name}", "Pulled")
        return ALWAYS

    return work


class Silent:
    """Who shows nothing of a build."""

    def begin(self, vertex: Any) -> None:
        """It begins."""

    def output(self, vertex: Any, stream: str, data: bytes) -> None:
        """What its program wrote."""

    def note(self, vertex: Any, text: str) -> None:
        """A line of our own about it."""

    def done(self, vertex: Any, *, cached: bool) -> None:
        """It has ended well."""

    def failed(self, vertex: Any, text: str) -> None:
        """It has failed: the error says so as well."""


def build_service(
    engine: Engine, project: Project, service: Service, tell: Tell, progress: Shown = None, **changes: Any
) -> None:
    """Build the image of a service; *progress* makes the context of who shows it. Raises what a build raises."""
    # Only where something is built: a good part of the program.
    from rootless.engine.build import build

    if service.build is None:
        raise InvalidInput(f"the service {service.name} has no build section")
    name = image_name(project, service)
    tell(f"Image {name}", "Building")

    def work(tell: Tell) -> None:
        with progress() if progress else nullcontext(Silent()) as shown:
            build(engine, _build_options(project, service, changes), shown)

    # A build has threads of its own, and leaves helpers: in a process of its own, nothing of it stays.
    run_tasks([Task(f"build {name}", work)], tell)
    tell(f"Image {name}", "Built")


def _build_options(project: Project, service: Service, changes: Mapping[str, Any]) -> Any:
    # As above.
    from rootless.engine.build_options import BuildOptions

    wanted = service.build or Build("")
    _refuse(wanted, service.name)
    options: dict[str, Any] = {
        "context": wanted.context,
        "dockerfile": _dockerfile(wanted),
        "tags": (image_name(project, service), *wanted.tags),
        "build_args": {key: value for key, value in wanted.args.items() if value is not None},
        "contexts": dict(wanted.additional_contexts),
        "target": wanted.target,
        "platforms": (service.platform,) if service.platform else wanted.platforms,
        "pull": wanted.pull,
        "no_cache": wanted.no_cache,
        "no_cache_filter": wanted.no_cache_filter,
        "labels": {
            **wanted.labels,
            "com.docker.compose.project": project.name,
            "com.docker.compose.service": service.name,
        },
        "network": wanted.network,
        "extra_hosts": tuple((name, address) for name, _, address in (e.partition("=") for e in wanted.extra_hosts)),
        "ulimits": tuple((name, soft, hard) for name, (soft, hard) in wanted.ulimits.items()),
        "secrets": _build_secrets(project, wanted),
        "ssh": _ssh(wanted),
    }
    if wanted.shm_size is not None:
        options["shm_size"] = wanted.shm_size
    merged = {**options, **changes}
    merged["build_args"] = {**options["build_args"], **changes.get("build_args", {})}
    return BuildOptions(**merged)


def _refuse(build: Build, name: str) -> None:
    if build.isolation not in ("", "default"):
        raise InvalidInput(f"services.{name}.build.isolation: it is for Windows")
    if len(build.platforms) > 1:
        raise InvalidInput(f"services.{name}.build.platforms: there can be one", hint="build them one by one")
    if build.dockerfile_inline and build.dockerfile:
        raise InvalidInput(f"services.{name}.build: dockerfile and dockerfile_inline exclude each other")


def _dockerfile(build: Build) -> str:
    """The path of the Dockerfile; of one that stands in the Compose file, a file that only this process has."""
    if build.dockerfile_inline:
        fd = os.memfd_create("Dockerfile", os.MFD_CLOEXEC)
        data = build.dockerfile_inline.encode()
        while data:
            data = data[os.write(fd, data) :]
        return f"/proc/self/fd/{fd}"
    is_remote = "://" in build.context or build.context.startswith("git@")
    if is_remote or os.path.isabs(build.dockerfile):
        return build.dockerfile
    return os.path.join(build.context, build.dockerfile or "Dockerfile")


def _build_secrets(project: Project, build: Build) -> Sequence[Any]:
    # As above.
    from rootless.engine.build_options import Secret

    found = []
    for reference in build.secrets:
        secret = project.secrets[reference.source]
        name = reference.target or reference.source
        found.append(Secret(name, secret.file, secret.environment))
    return tuple(found)


def _ssh(build: Build) -> Sequence[Any]:
    # As above.
    from rootless.engine.build_options import Ssh

    default = os.environ.get("SSH_AUTH_SOCK", "")
    return tuple(Ssh(name, path or default) for name, path in build.ssh.items())


def remove_images(engine: Engine, names: Iterable[str], tell: Tell) -> None:
    """Remove images by name: one that others use, or that is not there, is told of and left."""
    # Few commands remove images.
    from rootless.engine.image_remove import remove_image

    for name in dict.fromkeys(names):
        tell(f"Image {name}", "Removing")
        try:
            remove_image(engine, name, force=False)
        except NotFound:
            tell(f"Image {name}", "Warning: No resource found to remove")
        except RootlessError as error:
            tell(f"Image {name}", f"Warning: {error}")
        else:
            tell(f"Image {name}", "Removed")
