"""compose down, stop, restart, kill, rm, pause, unpause, wait: what ends a project, or a part of it."""

import sys

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, flag, number, value
from rootless.cli.compose_options import is_dry, look_for_project, removes_orphans
from rootless.cli.compose_shown import Progress
from rootless.cli.opening import engine_of
from rootless.cli.values import one_of
from rootless.engine import compose_down as ending
from rootless.engine import compose_dry_run as dry_run
from rootless.engine.compose_down import DownOptions
from rootless.engine.compose_labels import Member
from rootless.engine.compose_wait import wait_all
from rootless.errors import InvalidInput, RootlessError
from rootless.spec.signals import parse_signal

_ANY = at_least(0)


def _seconds(timeout: int) -> int | None:
    return None if timeout < 0 else timeout


class DownCommandOptions(Options):
    """The options of down."""

    remove_orphans: bool = flag("--remove-orphans", help="Remove containers for services not defined in the files")
    rmi: str = value(
        "--rmi",
        parse=one_of("all", "local"),
        default="",
        metavar="string",
        help='Remove images used by services. "local" remove only images that don\'t have a custom tag ("local"|"all")',
    )
    timeout: int = number("-t", "--timeout", default=-1, help="Specify a shutdown timeout in seconds")
    volumes: bool = flag(
        "-v", "--volumes", help='Remove named volumes declared in the "volumes" section and anonymous volumes'
    )


@command(
    "down",
    "[SERVICES]",
    DownCommandOptions,
    _ANY,
    examples="""
        Remove containers and networks; volumes stay:
            $ {path}
        Of a project whose files are gone:
            $ rootless compose -p shop down -v
    """,
)
def down(options: DownCommandOptions) -> None:
    """Stop and remove containers, networks"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine, dry_run=True)
    asked = DownOptions(
        tuple(options.arguments),
        options.volumes,
        options.rmi,
        options.remove_orphans or removes_orphans(),
        _seconds(options.timeout),
    )
    verb = dry_run.down if is_dry(options) else ending.down
    verb(engine, name, project, asked, Progress(options))


class StopOptions(Options):
    """The options of stop."""

    timeout: int = number("-t", "--timeout", default=-1, help="Specify a shutdown timeout in seconds")


@command("stop", "[SERVICE...]", StopOptions, _ANY)
def stop(options: StopOptions) -> None:
    """Stop services"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    ending.stop_services(engine, name, project, options.arguments, _seconds(options.timeout), Progress(options))


class RestartOptions(StopOptions):
    """The options of restart."""

    no_deps: bool = flag("--no-deps", help="Don't restart dependent services")


@command("restart", "[SERVICE...]", RestartOptions, _ANY)
def restart(options: RestartOptions) -> None:
    """Restart service containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    seconds = _seconds(options.timeout)
    tell = Progress(options)
    ending.restart_services(engine, name, project, options.arguments, seconds, tell, no_deps=options.no_deps)


class KillOptions(Options):
    """The options of kill."""

    signal: int = value(
        "-s", "--signal", parse=parse_signal, default=9, metavar="string", help="SIGNAL to send to the container"
    )
    remove_orphans: bool = flag("--remove-orphans", help="Remove containers for services not defined in the files")


@command("kill", "[SERVICE...]", KillOptions, _ANY)
def kill(options: KillOptions) -> None:
    """Force stop service containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    ending.kill_services(engine, name, project, options.arguments, options.signal, Progress(options))


class RmOptions(Options):
    """The options of rm."""

    force: bool = flag("-f", "--force", help="Don't ask to confirm removal")
    stop: bool = flag("-s", "--stop", help="Stop the containers, if required, before removing")
    volumes: bool = flag("-v", "--volumes", help="Remove any anonymous volumes attached to containers")


@command("rm", "[SERVICE...]", RmOptions, _ANY)
def rm(options: RmOptions) -> None:
    """Removes stopped service containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    tell = Progress(options)
    if options.stop:
        ending.stop_services(engine, name, project, options.arguments, None, tell)
    found = [m for m in ending.select(engine, name, project, options.arguments, oneoff=True) if not m.is_live]
    if not found:
        streams.write_error("No stopped containers\n")
        return
    if not (options.force or _confirmed(found)):
        return
    ending.remove_stopped(engine, name, project, options.arguments, volumes=options.volumes, tell=tell)


def _confirmed(found: list[Member]) -> bool:
    """Whether the user agrees."""
    if not streams.is_tty(sys.stdin):
        raise InvalidInput("nobody can be asked whether to remove containers", hint="use --force")
    streams.write_error(f"Going to remove {', '.join(member.name for member in found)}\nAre you sure? [yN] ")
    streams.flush(sys.stderr)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@command("pause", "[SERVICE...]", Options, _ANY)
def pause(options: Options) -> None:
    """Pause services"""
    _pause(options, resume=False)


@command("unpause", "[SERVICE...]", Options, _ANY)
def unpause(options: Options) -> None:
    """Unpause services"""
    _pause(options, resume=True)


def _pause(options: Options, *, resume: bool) -> None:
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    ending.pause_services(engine, name, project, options.arguments, resume=resume, tell=Progress(options))


class WaitOptions(Options):
    """The options of wait."""

    down_project: bool = flag("--down-project", help="Drops project when the first container stops")


@command("wait", "SERVICE [SERVICE...]", WaitOptions, at_least(1))
def wait(options: WaitOptions) -> int:
    """Block until containers of all (or specified) services stop"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    found = ending.select(engine, name, project, options.arguments)
    if not found:
        raise RootlessError(f"no containers for project {name!r}")

    def ended(member: Member, code: int) -> None:
        streams.write(f"{code}\n")
        streams.flush(sys.stdout)

    code = wait_all(engine, found, ended, first=options.down_project)
    if options.down_project:
        ending.down(engine, name, project, DownOptions(), Progress(options))
    return code
