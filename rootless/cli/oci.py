"""rootless-oci: the command line of an OCI runtime, as runc and crun have it."""

import gc
import os
import sys
from collections.abc import Callable, Sequence

from rootless import __version__
from rootless.cli import streams
from rootless.cli.command import FlagError, Options, flag, number, text
from rootless.engine import oci
from rootless.errors import InvalidInput, RootlessError
from rootless.spec import runtime

_USAGE = """Usage: rootless-oci [OPTIONS] COMMAND [OPTIONS] [ID] …

Runs bundles of the OCI runtime specification {version} without root, by the command line of runc and crun.

Commands:
  create   make a container of a bundle; its program waits for start
  start    let it run
  run      create, start, wait, delete
  exec     run another program in a container
  state    the state of a container, as JSON
  list     all containers
  ps       the processes of a container
  kill     send a signal (TERM)
  pause    stop all processes of a container
  resume   let them go on
  update   change limits of a container
  events   statistics of a container, as JSON
  delete   forget a container that has ended
  spec     write a config.json to begin with
  features what this runtime can do, as JSON

Options:
{options}

`rootless-oci COMMAND --help` tells the options of a command.
"""


class GlobalOptions(Options):
    """Before the command."""

    root: str = text("--root", metavar="DIR", help="Where states are kept ($XDG_RUNTIME_DIR/rootless/oci)")
    log: str = text("--log", metavar="FILE", help="Write errors to a file instead of stderr")
    log_format: str = text("--log-format", metavar="text|json", help="How", default="text")
    log_level: str = text("--log-level", metavar="LEVEL", help="Accepted for callers: errors are what is told")
    debug: bool = flag("--debug", help="Accepted for callers")
    systemd_cgroup: bool = flag("--systemd-cgroup", help="Accepted for callers: control groups are made where they can")
    cgroup_manager: str = text("--cgroup-manager", metavar="NAME", help="Accepted for callers: as --systemd-cgroup")
    rootless: str = text("--rootless", metavar="WORD", help="Accepted for callers: always", implied="true")
    criu: str = text("--criu", metavar="PATH", help="Accepted for callers: there are no checkpoints")
    version: bool = flag("-v", "--version", help="Print the version", aliases=("-V",))


class CreateOptions(Options):
    """Of create."""

    bundle: str = text("-b", "--bundle", metavar="DIR", default=".", help="The bundle's directory")
    config_file: str = text(
        "-f", "--config", metavar="FILE", default="config.json", help="The name of its configuration"
    )
    console_socket: str = text("--console-socket", metavar="PATH", help="Where the terminal is sent")
    pid_file: str = text("--pid-file", metavar="FILE", help="Where the pid is written")
    preserve_fds: int = number("--preserve-fds", metavar="N", help="Hand on N descriptors from 3 on")
    no_new_keyring: bool = flag("--no-new-keyring", help="Keep the session keyring of the caller")
    no_pivot: bool = flag("--no-pivot", help="Accepted for callers: pivot_root works in a user's namespace, too")
    no_subreaper: bool = flag("--no-subreaper", help="Accepted for callers: there is no subreaper")


class RunOptions(CreateOptions):
    """Of run."""

    detach: bool = flag("-d", "--detach", help="Do not wait for the program")
    keep: bool = flag("--keep", help="Do not delete the container when it has ended")


class KillOptions(Options):
    """Of kill."""

    all: bool = flag("-a", "--all", help="Every process of the container")


class DeleteOptions(Options):
    """Of delete."""

    force: bool = flag("-f", "--force", help="Kill it first; no error where there is none")


class NoOptions(Options):
    """Of commands that take an id and nothing else."""


Verb = Callable[[GlobalOptions, Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    gc.disable()  # nothing here lives long
    words = list(sys.argv[1:] if argv is None else argv)
    options = GlobalOptions()
    try:
        asked = options.read(words, interspersed=False, path="rootless-oci")
        if options.version:
            streams.write(f"rootless-oci version {__version__}\nspec: {runtime.VERSION}\n")
            sys.exit(0)
        if asked or not options.arguments or options.arguments == ["help"]:
            streams.write(_USAGE.format(version=runtime.VERSION, options=describe(options)))
            sys.exit(0 if asked or options.arguments else 1)
        sys.exit(_verb(options.arguments[0])(options, options.arguments[1:]))
    except (RootlessError, FlagError, OSError) as error:
        _complain(options, _told(error))
        sys.exit(1)  # whatever it was, as runc and crun do


def _told(error: BaseException) -> str:
    hint = getattr(error, "hint", "")
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return f"{error} ({hint})" if hint else str(error)


def _complain(options: GlobalOptions, message: str) -> None:
    """To the log, which is what callers read; else to stderr."""
    if not options.log:
        streams.write_error(f"rootless-oci: {message}\n")
        return
    line = f'time="{_now()}" level=error msg="{message}"'
    if options.log_format == "json":
        import json  # only for errors

        line = json.dumps({"level": "error", "msg": message, "time": _now()})
    with open(options.log, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _now() -> str:
    import time  # only for errors

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def describe(options: Options) -> str:
    """The options of a table, a line each."""
    rows = [(f"{', '.join(r.names)} {r.metavar}".rstrip(), r.help) for r in options.rows.values() if not r.hidden]
    width = max((len(names) for names, _ in rows), default=0)
    return "\n".join(f"  {names:{width}}  {told}" for names, told in rows)


def _verb(name: str) -> Verb:
    if name in _VERBS:
        return _VERBS[name]
    # What a container's life does not take is loaded where it is asked for.
    from rootless.cli import oci_more

    if name in oci_more.VERBS:
        return oci_more.VERBS[name]
    raise InvalidInput(f"unknown command {name!r}: `rootless-oci --help` tells what there is")


def read(options: Options, words: Sequence[str], usage: str, *, least: int = 1, interspersed: bool = True) -> list[str]:
    """The arguments among *words*; help is given here. Raises FlagError, and InvalidInput for too few of them."""
    name = usage.split()[0]
    if options.read(words, interspersed=interspersed, path=f"rootless-oci {name}"):
        streams.write(f"Usage: rootless-oci {usage}\n\n{describe(options)}\n")
        sys.exit(0)
    if len(options.arguments) < least:
        raise InvalidInput(f"{name}: a container id is required: rootless-oci {usage}")
    return options.arguments


def _create(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = CreateOptions()
    arguments = read(options, words, "create [OPTIONS] ID")
    _oci(settings).create(arguments[0], _request(options, foreground=False))
    return 0


def _run(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = RunOptions()
    arguments = read(options, words, "run [OPTIONS] ID")
    foreground = not options.detach and not options.console_socket
    request = _request(options, foreground=foreground)
    return _oci(settings).run(arguments[0], request, detach=options.detach, keep=options.keep)


def _request(options: CreateOptions, *, foreground: bool) -> oci.Request:
    preserved, environment = inherited(options.preserve_fds)
    return oci.Request(
        bundle=options.bundle,
        config_file=options.config_file,
        console_socket=options.console_socket,
        pid_file=options.pid_file,
        preserved=preserved,
        environment=environment,
        keyring=not options.no_new_keyring,
        foreground=foreground,
    )


def inherited(preserve: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The descriptors to hand on, those of socket activation (sd_listen_fds(3)) first; and what tells of these."""
    activated = int(os.environ.get("LISTEN_FDS") or 0) if os.environ.get("LISTEN_FDS", "").isdigit() else 0
    fds = tuple(range(3, 3 + activated + preserve))
    for fd in fds:
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidInput(f"--preserve-fds: descriptor {fd} is not open") from None
    return fds, (f"LISTEN_FDS={activated}", "LISTEN_PID=1") if activated else ()


def _start(settings: GlobalOptions, words: Sequence[str]) -> int:
    _oci(settings).start(read(NoOptions(), words, "start ID")[0])
    return 0


def _state(settings: GlobalOptions, words: Sequence[str]) -> int:
    import json  # here, as each verb loads what it takes

    streams.write(
        json.dumps(_oci(settings).states.load(read(NoOptions(), words, "state ID")[0]).state(), indent=2) + "\n"
    )
    return 0


def _kill(settings: GlobalOptions, words: Sequence[str]) -> int:
    from rootless.spec.signals import parse_signal

    options = KillOptions()
    arguments = read(options, words, "kill [-a] ID [SIGNAL]")
    _oci(settings).kill(arguments[0], parse_signal((arguments[1:] or ["TERM"])[0]), all_processes=options.all)
    return 0


def _delete(settings: GlobalOptions, words: Sequence[str]) -> int:
    options = DeleteOptions()
    arguments = read(options, words, "delete [-f] ID")
    _oci(settings).delete(arguments[0], force=options.force)
    return 0


def _oci(settings: GlobalOptions) -> oci.Oci:
    return oci.Oci(settings.root)


_VERBS: dict[str, Verb] = {
    "create": _create,
    "start": _start,
    "run": _run,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
}
