"""compose up, create, start, scale: what makes a project run."""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from rootless.cli.command import Options, at_least, command, flag, number, text, texts, value, values
from rootless.cli.compose_options import is_dry, limit_of, load_project, removes_orphans
from rootless.cli.compose_shown import Output, Progress
from rootless.cli.opening import engine_of
from rootless.cli.values import one_of
from rootless.compose.records import Project
from rootless.engine import compose_dry_run as dry_run
from rootless.engine.compose_down import dependencies, kill_services, select, start_members, stop_services
from rootless.engine.compose_follow import Ended, Follower, attach
from rootless.engine.compose_labels import Member, members
from rootless.engine.compose_plan import DIVERGED, FORCE, NEVER
from rootless.engine.compose_up import UpOptions
from rootless.engine.compose_up import up as up_project
from rootless.engine.compose_wait import RUNNING_OR_HEALTHY, wait_for
from rootless.engine.context import Engine
from rootless.errors import InvalidInput, NotFound, RootlessError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_ANY = at_least(0)
_POLICIES = ("always", "missing", "never", "build", "policy")
_SIGKILL = 9
_INTERRUPTED = 130


def parse_scale(text: str) -> tuple[str, int]:
    """(service, count) of "web=3". Raises InvalidInput."""
    name, equals, count = text.partition("=")
    if not (name and equals and count.isascii() and count.isdigit() and len(count) < 6):
        raise InvalidInput(f"invalid scale specifier {text!r}: SERVICE=NUM")
    return name, int(count)


class CreateOptions(Options):
    """The options of create, which up has too."""

    build: bool = flag("--build", help="Build images before starting containers")
    force_recreate: bool = flag(
        "--force-recreate", help="Recreate containers even if their configuration and image haven't changed"
    )
    no_build: bool = flag("--no-build", help="Don't build an image, even if it's policy")
    no_recreate: bool = flag("--no-recreate", help="If containers already exist, don't recreate them")
    pull: str = value(
        "--pull",
        parse=one_of(*_POLICIES),
        default="policy",
        metavar="string",
        help='Pull image before running ("always"|"missing"|"never"|"build")',
    )
    quiet_pull: bool = flag("--quiet-pull", help="Pull without printing progress information")
    remove_orphans: bool = flag("--remove-orphans", help="Remove containers for services not defined in the files")
    scale: list[tuple[str, int]] = values(
        "--scale", parse=parse_scale, metavar="scale", help="Scale SERVICE to NUM instances (SERVICE=NUM)"
    )
    yes: bool = flag("-y", "--yes", help='Assume "yes" as answer to all prompts: there are none')


class UpCommandOptions(CreateOptions):
    """The options of up."""

    abort_on_container_exit: bool = flag(
        "--abort-on-container-exit", help="Stops all containers if any container was stopped"
    )
    abort_on_container_failure: bool = flag(
        "--abort-on-container-failure", help="Stops all containers if any container exited with failure"
    )
    always_recreate_deps: bool = flag("--always-recreate-deps", help="Recreate dependent containers")
    attach: list[str] = texts("--attach", metavar="stringArray", help="Restrict attaching to the specified services")
    attach_dependencies: bool = flag("--attach-dependencies", help="Automatically attach to log output of dependencies")
    detach: bool = flag("-d", "--detach", help="Detached mode: Run containers in the background")
    exit_code_from: str = text("--exit-code-from", help="Return the exit code of the selected service container")
    menu: bool = flag("--menu", help="Accepted for scripts: there are no shortcuts", hidden=True)
    no_attach: list[str] = texts("--no-attach", metavar="stringArray", help="Do not attach to the specified services")
    no_color: bool = flag("--no-color", help="Produce monochrome output")
    no_deps: bool = flag("--no-deps", help="Don't start linked services")
    no_log_prefix: bool = flag("--no-log-prefix", help="Don't print prefix in logs")
    no_start: bool = flag("--no-start", help="Don't start the services after creating them")
    quiet_build: bool = flag("--quiet-build", help="Suppress the build output")
    renew_anon_volumes: bool = flag(
        "-V",
        "--renew-anon-volumes",
        help="Recreate anonymous volumes instead of retrieving data from the previous ones",
    )
    timeout: int = number("-t", "--timeout", default=-1, help="Use this timeout in seconds for container shutdown")
    timestamps: bool = flag("--timestamps", help="Show timestamps")
    wait: bool = flag("--wait", help="Wait for services to be running|healthy. Implies detached mode")
    wait_timeout: int = number("--wait-timeout", help="Maximum duration in seconds to wait for the project to be ready")
    watch: bool = flag("-w", "--watch", help="Watch source code and rebuild/refresh containers when files are updated")


@command(
    "up",
    "[SERVICE...]",
    UpCommandOptions,
    _ANY,
    examples="""
        Start all services in the background, and wait until they are ready:
            $ {path} -d --wait
        Three containers of one service:
            $ {path} -d --scale web=3
        Run tests, and exit with their code:
            $ {path} --exit-code-from test
    """,
)
def up(options: UpCommandOptions) -> int:
    """Create and start containers"""
    _check(options)
    engine = engine_of(options)
    project = load_project(options, options.arguments, dry_run=True)
    asked = _up_options(options)
    tell = Progress(options)
    if is_dry(options):
        dry_run.up(engine, project, asked, tell)
        return 0
    detached = options.detach or options.wait or options.no_start
    since = time.time_ns()
    if detached:
        up_project(engine, project, asked, tell)
        return 0
    return _attached(engine, project, options, asked, tell, since)


def _check(options: UpCommandOptions) -> None:
    if options.force_recreate and options.no_recreate:
        raise InvalidInput("--force-recreate and --no-recreate are incompatible")
    if options.build and options.no_build:
        raise InvalidInput("--build and --no-build are incompatible")
    aborts = options.abort_on_container_exit or options.abort_on_container_failure or options.exit_code_from
    if options.detach and (aborts or options.attach or options.attach_dependencies or options.watch):
        raise InvalidInput(
            "--detach cannot be combined with --abort-on-container-exit, --abort-on-container-failure, "
            "--exit-code-from, --attach, --attach-dependencies or --watch"
        )
    if options.watch and (options.wait or options.no_start):
        raise InvalidInput("--watch cannot be combined with --wait or --no-start")
    if options.wait and aborts:
        raise InvalidInput("--wait cannot be combined with --abort-on-container-exit or --exit-code-from")
    if options.renew_anon_volumes and options.no_recreate:
        raise InvalidInput("--no-recreate and --renew-anon-volumes are incompatible")


def _up_options(options: CreateOptions, **changes: Any) -> UpOptions:
    recreate = FORCE if options.force_recreate else NEVER if options.no_recreate else DIVERGED
    asked = UpOptions(
        tuple(options.arguments),
        scale=dict(options.scale),
        recreate=recreate,
        recreate_dependencies=recreate if recreate == NEVER else DIVERGED,
        remove_orphans=options.remove_orphans or removes_orphans(),
        pull="" if options.pull == "policy" else options.pull,
        build=options.build,
        no_build=options.no_build,
        limit=limit_of(options),
        build_progress=partial(build_progress, quiet=getattr(options, "quiet_build", False)),
    )
    if isinstance(options, UpCommandOptions):
        asked = asked._replace(
            recreate_dependencies=FORCE if options.always_recreate_deps else asked.recreate_dependencies,
            renew_anonymous_volumes=options.renew_anon_volumes,
            no_deps=options.no_deps,
            start=not options.no_start,
            wait=options.wait,
            wait_timeout=options.wait_timeout,
            timeout=None if options.timeout < 0 else options.timeout,
        )
    return asked._replace(**changes)


def build_progress(*, quiet: bool) -> "AbstractContextManager[Any]":
    from rootless.cli.build_progress import make_progress  # few commands build

    return make_progress("auto", quiet=quiet, why=False)


def _attached(
    engine: Engine, project: Project, options: UpCommandOptions, asked: UpOptions, tell: Progress, since: int
) -> int:
    """Show what the services write until they end, or the user has enough; the exit status."""
    output = Output(
        options,
        project.name,
        prefix=not options.no_log_prefix,
        no_color=options.no_color,
        timestamps=options.timestamps,
    )
    shown = _Shown(engine, project, options, output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends the command means what Ctrl-C means
    with closing(Follower(engine, output, since)) as follower, ExitStack() as held:
        try:
            chosen = up_project(engine, project, asked, tell)
            tell.finish()
            shown.take(chosen)
            step = _watched(engine, project, options, chosen, tell, held) if options.watch else None
            attach(engine, project.name, follower, shown.is_wanted, shown.ended, step or (lambda: None))
        except KeyboardInterrupt:
            return _interrupted(engine, project, asked, tell, output, follower)
        if shown.aborts:
            stop_services(engine, project.name, project, (), asked.timeout, tell, follower.read)
            follower.read()
    return shown.status()


def _watched(
    engine: Engine,
    project: Project,
    options: UpCommandOptions,
    chosen: Sequence[str],
    tell: Progress,
    held: ExitStack,
) -> Callable[[], None]:
    """What watches files, to be called again and again, while *held* is."""
    from rootless.cli.compose_watch import watcher  # it loads what builds images

    found = held.enter_context(watcher(engine, project, chosen, tell, prune=True, quiet=options.quiet_build))
    found.begin()
    return lambda: found.step(0)


class _Shown:
    """Which containers are shown, and what becomes of the command when one of them ends."""

    def __init__(self, engine: Engine, project: Project, options: UpCommandOptions, output: Output) -> None:
        self._engine, self._project, self._options = engine, project, options
        self._output = output
        self._services: frozenset[str] = frozenset()
        self._codes: dict[str, int] = {}
        self._first: int | None = None
        self.aborts = False
        if options.exit_code_from and options.exit_code_from not in project.services:
            raise NotFound(f"no such service: {options.exit_code_from}")

    def take(self, chosen: tuple[str, ...]) -> None:
        """These services were started."""
        shown = set(self._options.attach or self._options.arguments or chosen)
        if self._options.attach_dependencies or self._options.exit_code_from:
            shown |= set(chosen)
        silent = {name for name in shown if name in self._project.services and not self._project.services[name].attach}
        self._services = frozenset(shown - set(self._options.no_attach) - (silent - set(self._options.attach)))
        self._output.expect(
            member for member in members(self._engine, self._project.name) if member.service in self._services
        )

    def is_wanted(self, member: Member) -> bool:
        """Whether a container's output is shown."""
        return member.service in self._services and not member.is_oneoff

    def ended(self, end: Ended) -> bool:
        """Tell of the end of a container; whether the command ends with it."""
        name = end.member.name.removeprefix(f"{self._project.name}-")
        self._output.line(f"{name} exited with code {end.exit_code}")
        self._codes[end.member.service] = end.exit_code
        self._first = end.exit_code if self._first is None else self._first
        options = self._options
        aborts = options.abort_on_container_exit or bool(options.exit_code_from)
        if options.exit_code_from:
            aborts = end.member.service == options.exit_code_from or options.abort_on_container_exit
        self.aborts = self.aborts or aborts or (options.abort_on_container_failure and end.exit_code != 0)
        return self.aborts

    def status(self) -> int:
        """The command's own."""
        if self._options.exit_code_from:
            name = self._options.exit_code_from
            if name in self._codes:
                return self._codes[name]
            found = [member for member in members(self._engine, self._project.name) if member.service == name]
            return found[0].exit_code if found else 0
        return (self._first or 0) if self.aborts else 0


def _interrupted(
    engine: Engine, project: Project, asked: UpOptions, tell: Progress, output: Output, follower: Follower
) -> int:
    """Ctrl-C: stop in order; once more: kill."""
    output.line("Gracefully Stopping... press Ctrl+C again to force")
    try:
        stop_services(engine, project.name, project, (), asked.timeout, tell, follower.read)
    except KeyboardInterrupt:
        output.line("Killing")
        kill_services(engine, project.name, project, (), _SIGKILL, tell)
    follower.read()
    return _INTERRUPTED


@command("create", "[SERVICE...]", CreateOptions, _ANY)
def create(options: CreateOptions) -> None:
    """Creates containers for a service"""
    if options.force_recreate and options.no_recreate:
        raise InvalidInput("--force-recreate and --no-recreate are incompatible")
    project = load_project(options, options.arguments, dry_run=True)
    verb = dry_run.up if is_dry(options) else up_project
    verb(engine_of(options), project, _up_options(options, start=False), Progress(options))


class StartOptions(Options):
    """The options of start."""

    wait: bool = flag("--wait", help="Wait for services to be running|healthy. Implies detached mode")
    wait_timeout: int = number("--wait-timeout", help="Maximum duration in seconds to wait for the project to be ready")


@command("start", "[SERVICE...]", StartOptions, _ANY)
def start(options: StartOptions) -> None:
    """Start services"""
    engine = engine_of(options)
    project = load_project(options, options.arguments)
    engine.enter_namespace()
    found = select(engine, project.name, project, options.arguments)
    for name in options.arguments:
        if not any(member.service == name for member in found):
            raise RootlessError(f'service "{name}" has no container to start', hint="rootless compose up")
    tell = Progress(options)
    start_members(engine, project, dependencies(project, found), found, tell)
    if options.wait:
        deadline = time.monotonic() + options.wait_timeout if options.wait_timeout else 0.0
        for name in dict.fromkeys(member.service for member in found):
            wait_for(engine, project.name, name, RUNNING_OR_HEALTHY, tell, deadline)


class ScaleOptions(Options):
    """The options of scale."""

    no_deps: bool = flag("--no-deps", help="Don't start linked services")


@command("scale", "[SERVICE=REPLICAS...]", ScaleOptions, at_least(1))
def scale(options: ScaleOptions) -> None:
    """Scale services"""
    wanted = dict(parse_scale(text) for text in options.arguments)
    project = load_project(options, tuple(wanted))
    asked = UpOptions(tuple(wanted), scale=wanted, recreate=NEVER, no_deps=options.no_deps, limit=limit_of(options))
    up_project(engine_of(options), project, asked, Progress(options))
