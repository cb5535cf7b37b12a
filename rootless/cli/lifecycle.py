"""What happens to containers that exist: start, stop, kill, attach, exec, pause, rename, wait, remove."""

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, exactly, flag, number, text, texts, value, values
from rootless.cli.opening import engine_of, for_each
from rootless.cli.values import load_environment_file, parse_environment
from rootless.engine import control
from rootless.engine import run as running
from rootless.engine.context import Engine
from rootless.engine.exec import ExecOptions, exec_
from rootless.engine.remove import begin_kill, remove
from rootless.engine.rename import rename as rename_container
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound
from rootless.spec.signals import parse_signal


class StartOptions(Options):
    """The options of start."""

    attach: bool = flag("-a", "--attach", help="Attach STDOUT/STDERR and forward signals")
    interactive: bool = flag("-i", "--interactive", help="Attach container's STDIN")
    detach_keys: str = text("--detach-keys", help="Override the key sequence for detaching a container")
    checkpoint: str = text("--checkpoint", help="Restore from this checkpoint", hidden=True)


@command("start", "CONTAINER [CONTAINER...]", StartOptions, at_least(1))
def start(options: StartOptions) -> int:
    """Start one or more stopped containers"""
    if options.checkpoint:
        raise HostUnsupported("checkpoints are not supported without root")
    engine = engine_of(options)
    if not (options.attach or options.interactive):
        return _start_all(engine, options)
    if len(options.arguments) > 1:
        raise InvalidInput("you cannot start and attach multiple containers at once")
    return running.start_attached(
        engine,
        engine.containers.find(options.arguments[0]),
        detach_keys=options.detach_keys,
        proxy_signals=True,
        with_input=options.interactive,
        prepared=options.settings.prepared,
    )


def _start_all(engine: Engine, options: StartOptions) -> int:
    prepared = [options.settings.prepared]  # one of them can have it

    def start_one(name: str) -> None:
        running.start_detached(engine, engine.containers.find(name), prepared.pop() if prepared else None)

    return for_each(options.arguments, start_one)


class AttachOptions(Options):
    """The options of attach."""

    detach_keys: str = text("--detach-keys", help="Override the key sequence for detaching a container")
    no_stdin: bool = flag("--no-stdin", help="Do not attach STDIN")
    sig_proxy: bool = flag("--sig-proxy", default=True, help="Proxy all received signals to the process")


@command("attach", "CONTAINER", AttachOptions, exactly(1))
def attach(options: AttachOptions) -> int:
    """Attach local standard input, output, and error streams to a running container"""
    engine = engine_of(options)
    return running.attach(
        engine,
        engine.containers.find(options.arguments[0]),
        detach_keys=options.detach_keys,
        proxy_signals=options.sig_proxy,
        with_input=not options.no_stdin,
    )


class ExecCommandOptions(Options):
    """The options of exec."""

    detach: bool = flag("-d", "--detach", help="Detached mode: run command in the background")
    detach_keys: str = text("--detach-keys", help="Override the key sequence for detaching a container")
    environment: list[str] = values("-e", "--env", parse=parse_environment, help="Set environment variables")
    env_file: list[str] = texts("--env-file", help="Read in a file of environment variables", metavar="file")
    interactive: bool = flag("-i", "--interactive", help="Keep STDIN open even if not attached")
    privileged: bool = flag("--privileged", help="Give extended privileges to the command")
    terminal: bool = flag("-t", "--tty", help="Allocate a pseudo-TTY")
    user: str = text("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])")
    workdir: str = text("-w", "--workdir", help="Working directory inside the container")


@command(
    "exec",
    "CONTAINER COMMAND [ARG...]",
    ExecCommandOptions,
    at_least(2),
    interspersed=False,
    examples="""
        A shell in a container that runs:
            $ {path} -it web sh
    """,
)
def exec_command(options: ExecCommandOptions) -> int:
    """Execute a command in a running container"""
    engine = engine_of(options)
    name, *words = options.arguments
    environment = [line for path in options.env_file for line in load_environment_file(path)]
    return exec_(
        engine,
        engine.containers.find(name),
        ExecOptions(
            tuple(words),
            options.terminal,
            options.interactive,
            options.detach,
            (*environment, *options.environment),
            options.user if options.changed("user") else None,
            options.workdir or None,
            options.privileged,
            options.detach_keys,
        ),
        options.settings.prepared,
    )


class StopOptions(Options):
    """The options of stop and restart."""

    signal: int | None = value(
        "-s", "--signal", parse=parse_signal, default=None, metavar="string", help="Signal to send to the container"
    )
    timeout: int = number(
        "-t", "--timeout", default=10, aliases=("--time",), help="Seconds to wait before killing the container"
    )


@command("stop", "CONTAINER [CONTAINER...]", StopOptions, at_least(1))
def stop(options: StopOptions) -> int:
    """Stop one or more running containers"""
    engine = engine_of(options)
    timeout = options.timeout if options.changed("timeout") else None
    return for_each(
        options.arguments,
        lambda name: control.stop(engine, engine.containers.find(name), options.signal, timeout),
    )


@command("restart", "CONTAINER [CONTAINER...]", StopOptions, at_least(1))
def restart(options: StopOptions) -> int:
    """Restart one or more containers"""
    engine = engine_of(options)
    timeout = options.timeout if options.changed("timeout") else None
    return for_each(
        options.arguments, lambda name: running.restart(engine, engine.containers.find(name), options.signal, timeout)
    )


class KillOptions(Options):
    """The options of kill."""

    signal: int = value(
        "-s", "--signal", parse=parse_signal, default=9, metavar="string", help="Signal to send to the container"
    )


@command("kill", "CONTAINER [CONTAINER...]", KillOptions, at_least(1))
def kill(options: KillOptions) -> int:
    """Kill one or more running containers"""
    engine = engine_of(options)
    return for_each(options.arguments, lambda name: control.kill(engine, engine.containers.find(name), options.signal))


class RmOptions(Options):
    """The options of rm."""

    force: bool = flag("-f", "--force", help="Force the removal of a running container (uses SIGKILL)")
    volumes: bool = flag("-v", "--volumes", help="Remove anonymous volumes associated with the container")
    link: bool = flag("-l", "--link", help="Remove the specified link", hidden=True)


@command("rm", "CONTAINER [CONTAINER...]", RmOptions, at_least(1))
def rm(options: RmOptions) -> int:
    """Remove one or more containers"""
    if options.link:
        raise HostUnsupported("links are not there", hint="use a network and container names")
    engine = engine_of(options)
    engine.enter_namespace()
    engine.layout.empty_trash()
    engine.containers.sweep()

    killed = begin_kill(engine, _known(engine, options.arguments)) if options.force else []

    def remove_one(name: str) -> None:
        try:
            remove(engine, engine.containers.find(name), force=options.force, volumes=options.volumes)
        except NotFound:
            if not options.force:
                raise

    status = for_each(options.arguments, remove_one)
    for connection in killed:
        connection.close()
    return status


def _known(engine: Engine, names: list[str]) -> list[str]:
    """The ids of those of *names* that are containers; the others will be told when their turn comes."""
    found = []
    for name in names:
        try:
            found.append(engine.containers.find(name))
        except (NotFound, Conflict):
            continue
    return found


@command("pause", "CONTAINER [CONTAINER...]", Options, at_least(1))
def pause(options: Options) -> int:
    """Pause all processes within one or more containers"""
    engine = engine_of(options)
    return for_each(options.arguments, lambda name: control.pause(engine, engine.containers.find(name), resume=False))


@command("unpause", "CONTAINER [CONTAINER...]", Options, at_least(1))
def unpause(options: Options) -> int:
    """Unpause all processes within one or more containers"""
    engine = engine_of(options)
    return for_each(options.arguments, lambda name: control.pause(engine, engine.containers.find(name), resume=True))


@command("rename", "CONTAINER NEW_NAME", Options, exactly(2))
def rename(options: Options) -> None:
    """Rename a container"""
    engine = engine_of(options)
    rename_container(engine, engine.containers.find(options.arguments[0]), options.arguments[1])


@command("wait", "CONTAINER [CONTAINER...]", Options, at_least(1))
def wait(options: Options) -> int:
    """Block until one or more containers stop, then print their exit codes"""
    engine = engine_of(options)
    status = 0
    for name in options.arguments:
        try:
            streams.write(f"{control.wait(engine, engine.containers.find(name))}\n")
        except NotFound as error:
            streams.write_error(f"rootless: {error}\n")
            status = 1
    return status
