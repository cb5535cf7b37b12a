"""compose build, pull, push: the images of services."""

from functools import partial

from rootless.cli.build_values import merge_build_args, parse_build_arg
from rootless.cli.command import Options, at_least, command, flag, text, value, values
from rootless.cli.compose import build_progress
from rootless.cli.compose_options import limit_of, load_project
from rootless.cli.compose_shown import Progress
from rootless.cli.opening import engine_of
from rootless.cli.values import one_of
from rootless.compose.records import Project, Service
from rootless.engine.compose_container import image_name
from rootless.engine.compose_images import build_service, pull_all, pull_policy
from rootless.engine.compose_plan import in_order, with_dependencies
from rootless.errors import HostUnsupported, RootlessError
from rootless.spec.reference import parse_reference

_ANY = at_least(0)


def _services(project: Project, names: list[str], *, dependencies: bool) -> list[Service]:
    chosen = with_dependencies(project.services, names) if dependencies else tuple(names) or tuple(project.services)
    return [project.services[name] for name in chosen]


class BuildOptions(Options):
    """The options of build."""

    build_arg: list[tuple[str, str | None]] = values(
        "--build-arg", parse=parse_build_arg, help="Set build-time variables for services"
    )
    builder: str = text("--builder", help="Accepted for scripts: there is one builder", hidden=True)
    check: bool = flag("--check", help="Check build configuration")
    memory: str = text("-m", "--memory", help="Set memory limit for the build container", hidden=True)
    no_cache: bool = flag("--no-cache", help="Do not use cache when building the image")
    print: bool = flag("--print", help="Print equivalent bake file")
    pull: bool = flag("--pull", help="Always attempt to pull a newer version of the image")
    push: bool = flag("--push", help="Push service images")
    quiet: bool = flag("-q", "--quiet", help="Suppress the build output")
    with_dependencies: bool = flag("--with-dependencies", help="Also build dependencies (transitively)")


@command("build", "[SERVICE...]", BuildOptions, _ANY)
def build(options: BuildOptions) -> None:
    """Build or rebuild services"""
    for name in ("check", "memory", "print"):
        if options.changed(name):
            raise HostUnsupported(f"--{name} is not there yet")
    engine = engine_of(options)
    project = load_project(options, options.arguments)
    tell = Progress(options)
    changes: dict[str, object] = {"build_args": merge_build_args(options.build_arg)}
    changes.update({name: True for name in ("no_cache", "pull") if getattr(options, name)})
    engine.enter_namespace()
    chosen = {
        service.name: service
        for service in _services(project, options.arguments, dependencies=options.with_dependencies)
    }
    for name in in_order(tuple(chosen), _contexts(chosen)):
        if chosen[name].build is not None:
            shown = partial(build_progress, quiet=options.quiet)
            build_service(engine, project, chosen[name], tell, shown, **changes)
    if options.push:
        _push(
            options, project, [service for service in chosen.values() if service.build is not None], tell, ignore=False
        )


def _contexts(services: dict[str, Service]) -> dict[str, tuple[str, ...]]:
    """Service -> those whose images it is built from (`additional_contexts: {base: service:base}`)."""
    return {
        name: tuple(
            text.removeprefix("service:")
            for text in (service.build.additional_contexts.values() if service.build else ())
            if text.startswith("service:")
        )
        for name, service in services.items()
    }


class PullOptions(Options):
    """The options of pull."""

    ignore_buildable: bool = flag("--ignore-buildable", help="Ignore images that can be built")
    ignore_pull_failures: bool = flag(
        "--ignore-pull-failures", help="Pull what it can and ignores images with pull failures"
    )
    include_deps: bool = flag("--include-deps", help="Also pull services declared as dependencies")
    policy: str = value(
        "--policy",
        parse=one_of("missing", "always"),
        default="",
        metavar="string",
        help='Apply pull policy ("missing"|"always")',
    )
    quiet: bool = flag("-q", "--quiet", help="Pull without printing progress information")


@command("pull", "[SERVICE...]", PullOptions, _ANY)
def pull(options: PullOptions) -> None:
    """Pull service images"""
    engine = engine_of(options)
    project = load_project(options, options.arguments)
    engine.enter_namespace()
    pulls: dict[str, Service] = {}
    for service in _services(project, options.arguments, dependencies=options.include_deps):
        policy = options.policy or pull_policy(service, "")
        buildable = service.build is not None and (options.ignore_buildable or not service.image)
        there = engine.images.find(image_name(project, service)) is not None
        if (
            buildable
            or policy in ("never", "build")
            or (there and (options.policy or service.pull_policy) == "missing")
        ):
            continue
        pulls[image_name(project, service)] = service
    tell = (lambda what, status: None) if options.quiet else Progress(options)
    ignore = options.ignore_pull_failures
    pull_all(engine, project, pulls, tell, ignore_failures=ignore, limit=limit_of(options))


class PushOptions(Options):
    """The options of push."""

    ignore_push_failures: bool = flag(
        "--ignore-push-failures", help="Push what it can and ignores images with push failures"
    )
    include_deps: bool = flag("--include-deps", help="Also push images of services declared as dependencies")
    quiet: bool = flag("-q", "--quiet", help="Push without printing progress information")


@command("push", "[SERVICE...]", PushOptions, _ANY)
def push(options: PushOptions) -> None:
    """Push service images"""
    project = load_project(options, options.arguments)
    chosen = _services(project, options.arguments, dependencies=options.include_deps)
    _push(
        options,
        project,
        [s for s in chosen if s.build is not None],
        Progress(options),
        ignore=options.ignore_push_failures,
    )


def _push(options: Options, project: Project, services: list[Service], tell: Progress, *, ignore: bool) -> None:
    from rootless.engine.push import push as push_image  # loads what speaks HTTP

    engine = engine_of(options)
    for service in services:
        if not service.image:
            tell(f"Image {image_name(project, service)}", "Skipped: the service has no image name")
            continue
        tell(f"Image {service.image}", "Pushing")
        try:
            push_image(engine, parse_reference(service.image).with_default_tag())
        except RootlessError as error:
            if not ignore:
                raise
            tell(f"Image {service.image}", f"Warning: {error}")
            continue
        tell(f"Image {service.image}", "Pushed")
