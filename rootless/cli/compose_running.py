"""compose run, exec, attach, cp: one command in a service, and files."""

import os
import sys
from functools import partial

from rootless.cli import streams
from rootless.cli.archive import write_whole
from rootless.cli.command import Options, at_least, command, exactly, flag, number, text, texts, value, values
from rootless.cli.compose import build_progress
from rootless.cli.compose_options import limit_of, load_project, look_for_project
from rootless.cli.compose_shown import Progress
from rootless.cli.mount_values import Mount, parse_volume
from rootless.cli.opening import engine_of
from rootless.cli.run import _mount as mount_option
from rootless.cli.values import load_environment_file, one_of, parse_environment, parse_label
from rootless.engine import run as running
from rootless.engine.compose_down import find_member
from rootless.engine.compose_run import RunOptions
from rootless.engine.compose_run import run as run_service
from rootless.engine.cp import CopyOptions
from rootless.engine.cp import copy as copy_files
from rootless.engine.cp_paths import STREAM, Place, parse_place
from rootless.engine.exec import ExecOptions, exec_
from rootless.errors import InvalidInput
from rootless.network.ports import Port, parse_publish


class RunCommandOptions(Options):
    """The options of run."""

    build: bool = flag("--build", help="Build image before starting container")
    cap_add: list[str] = texts("--cap-add", help="Add Linux capabilities")
    cap_drop: list[str] = texts("--cap-drop", help="Drop Linux capabilities")
    detach: bool = flag("-d", "--detach", help="Run container in background and print container ID")
    entrypoint: str = text("--entrypoint", help="Override the entrypoint of the image")
    env: list[str] = values("-e", "--env", parse=parse_environment, help="Set environment variables")
    env_from_file: list[str] = texts("--env-from-file", help="Set environment variables from file")
    interactive: bool = flag("-i", "--interactive", default=True, help="Keep STDIN open even if not attached")
    label: list[tuple[str, str]] = values("-l", "--label", parse=parse_label, help="Add or override a label")
    name: str = text("--name", help="Assign a name to the container")
    no_deps: bool = flag("--no-deps", help="Don't start linked services")
    no_tty: bool = flag(
        "-T", "--no-tty", help="Disable pseudo-TTY allocation (default: auto-detected)", aliases=("--no-TTY",)
    )
    publish: list[list[Port]] = values("-p", "--publish", parse=parse_publish, help="Publish a container's port(s)")
    pull: str = value(
        "--pull",
        parse=one_of("always", "missing", "never", "policy"),
        default="policy",
        metavar="string",
        help='Pull image before running ("always"|"missing"|"never")',
    )
    quiet: bool = flag("-q", "--quiet", help="Don't print anything to STDOUT")
    quiet_build: bool = flag("--quiet-build", help="Suppress progress output from the build process")
    quiet_pull: bool = flag("--quiet-pull", help="Pull without printing progress information")
    remove_orphans: bool = flag("--remove-orphans", help="Remove containers for services not defined in the files")
    rm: bool = flag("--rm", help="Automatically remove the container when it exits")
    service_ports: bool = flag("-P", "--service-ports", help="Run command with all service's ports enabled")
    tty: bool = flag("-t", "--tty", default=True, help="Allocate a pseudo-TTY where there is a terminal", hidden=True)
    use_aliases: bool = flag("--use-aliases", help="Use the service's network useAliases in the network(s)")
    user: str = text("-u", "--user", help="Run as specified username or uid")
    volume: list[Mount] = values("-v", "--volume", parse=parse_volume, help="Bind mount a volume")
    workdir: str = text("-w", "--workdir", help="Working directory inside the container")


@command(
    "run",
    "SERVICE [COMMAND] [ARGS...]",
    RunCommandOptions,
    at_least(1),
    interspersed=False,
    examples="""
        A shell in a service, with what it depends on:
            $ {path} --rm web sh
        A migration, without a terminal:
            $ {path} --rm -T web ./manage.py migrate
    """,
)
def run(options: RunCommandOptions) -> int:
    """Run a one-off command on a service"""
    service, *words = options.arguments
    project = load_project(options, (service,))
    is_terminal = streams.is_tty(sys.stdin) and streams.is_tty(sys.stdout)
    environment = [line for path in options.env_from_file for line in load_environment_file(path)]
    asked = RunOptions(
        service,
        tuple(words),
        options.name,
        (tuple(options.entrypoint.split()) if options.changed("entrypoint") else None),
        (*environment, *options.env),
        dict(options.label),
        options.user or None,
        options.workdir or None,
        tuple(mount_option(mount) for mount in options.volume),
        tuple(port for ports in options.publish for port in ports),
        options.service_ports,
        options.use_aliases,
        options.detach,
        options.rm,
        is_terminal and options.tty and not (options.no_tty or options.detach),
        options.interactive,
        options.no_deps,
        tuple(options.cap_add),
        tuple(options.cap_drop),
        options.build,
        "" if options.pull == "policy" else options.pull,
        partial(build_progress, quiet=options.quiet_build),
        limit_of(options),
    )
    name, code = run_service(engine_of(options), project, asked, Progress(options))
    if options.detach:
        streams.write(f"{name}\n")
    return code


class ExecCommandOptions(Options):
    """The options of exec."""

    detach: bool = flag("-d", "--detach", help="Detached mode: Run command in the background")
    env: list[str] = values("-e", "--env", parse=parse_environment, help="Set environment variables")
    index: int = number("--index", help="Index of the container if service has multiple replicas")
    interactive: bool = flag("-i", "--interactive", default=True, help="Keep STDIN open", hidden=True)
    no_tty: bool = flag(
        "-T", "--no-tty", help="Disable pseudo-TTY allocation (default: auto-detected)", aliases=("--no-TTY",)
    )
    privileged: bool = flag("--privileged", help="Give extended privileges to the process")
    tty: bool = flag("-t", "--tty", default=True, help="Allocate a pseudo-TTY where there is a terminal", hidden=True)
    user: str = text("-u", "--user", help="Run the command as this user")
    workdir: str = text("-w", "--workdir", help="Path to workdir directory for this command")


@command("exec", "SERVICE COMMAND [ARGS...]", ExecCommandOptions, at_least(2), interspersed=False)
def exec_command(options: ExecCommandOptions) -> int:
    """Execute a command in a running container"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    service, *words = options.arguments
    member = find_member(engine, name, project, service, options.index)
    is_terminal = streams.is_tty(sys.stdin) and streams.is_tty(sys.stdout)
    return exec_(
        engine,
        member.id,
        ExecOptions(
            tuple(words),
            terminal=is_terminal and options.tty and not (options.no_tty or options.detach),
            interactive=options.interactive and not options.detach,
            detach=options.detach,
            environment=tuple(options.env),
            user=options.user or None,
            working_directory=options.workdir or None,
            privileged=options.privileged,
        ),
    )


class AttachOptions(Options):
    """The options of attach."""

    detach_keys: str = text("--detach-keys", help="Override the key sequence for detaching from a container")
    index: int = number("--index", help="index of the container if service has multiple replicas")
    no_stdin: bool = flag("--no-stdin", help="Do not attach STDIN")
    sig_proxy: bool = flag("--sig-proxy", default=True, help="Proxy all received signals to the process")


@command("attach", "SERVICE", AttachOptions, exactly(1))
def attach(options: AttachOptions) -> int:
    """Attach local standard input, output, and error streams to a service's running container"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    member = find_member(engine, name, project, options.arguments[0], options.index)
    return running.attach(
        engine,
        member.id,
        detach_keys=options.detach_keys,
        proxy_signals=options.sig_proxy,
        with_input=not options.no_stdin,
    )


class CpOptions(Options):
    """The options of cp."""

    all: bool = flag("--all", help="Accepted for scripts", hidden=True)
    archive: bool = flag("-a", "--archive", help="Archive mode (copy all uid/gid information)")
    follow_link: bool = flag("-L", "--follow-link", help="Always follow symbol link in SRC_PATH")
    index: int = number("--index", help="Index of the container if service has multiple replicas")


@command("cp", "SERVICE:SRC_PATH DEST_PATH|-  |  SRC_PATH|- SERVICE:DEST_PATH", CpOptions, exactly(2))
def cp(options: CpOptions) -> None:
    """Copy files/folders between a service container and the local filesystem"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)

    def place(word: str) -> Place:
        found = Place("", word) if word == STREAM else parse_place(word)
        if not found.container:
            return found
        return found._replace(
            container=find_member(engine, name, project, found.container, options.index, live=False).id
        )

    source, target = (place(word) for word in options.arguments)
    if target == Place("", STREAM) and streams.is_tty(sys.stdout):
        raise InvalidInput("cowardly refusing to write an archive to a terminal", hint="redirect it, or pipe it to tar")
    streams.flush(sys.stdout)
    asked = CopyOptions(options.archive, options.follow_link)
    done = copy_files(engine, source, target, asked, lambda data: write_whole(1, data), lambda count: None)
    for path in done.left_out:
        streams.write_error(f"rootless: warning: {os.fsdecode(path)}: devices are not copied\n")
