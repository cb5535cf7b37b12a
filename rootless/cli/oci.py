"""rootless-oci: the command line of an OCI runtime, as runc and crun have it."""

import json
import sys
from collections.abc import Callable, Sequence

from rootless import __version__
from rootless.cli import streams
from rootless.cli.command import FlagError, Options, flag, text
from rootless.engine.oci import Oci
from rootless.errors import RootlessError
from rootless.spec import runtime
from rootless.spec.signals import parse_signal

_USAGE = """Usage: rootless-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND

Commands:
  create [-b BUNDLE] [--console-socket PATH] [--pid-file FILE] ID   make a container; its program waits for start
  start ID                                                         let it run
  run [-b BUNDLE] …  ID                                            create, start, wait, delete
  state ID                                                         its state, as JSON
  kill ID [SIGNAL]                                                 send a signal (default TERM)
  delete [-f] ID                                                   forget it
  list                                                             all states, as JSON
  spec                                                             a config.json to begin with
"""


class GlobalOptions(Options):
    """Before the command."""

    root: str = text("--root", help="Where states are kept")
    log: str = text("--log", help="Write errors to a file too")
    log_format: str = text("--log-format", help="text or json", default="text")
    debug: bool = flag("--debug", help="Accepted for callers")
    systemd_cgroup: bool = flag("--systemd-cgroup", help="Accepted for callers: there are no control groups yet")
    version: bool = flag("-v", "--version", help="Print the version")


class CreateOptions(Options):
    """Of create and run."""

    bundle: str = text("-b", "--bundle", default=".", help="The bundle's directory")
    console_socket: str = text("--console-socket", help="Where the terminal is sent")
    pid_file: str = text("--pid-file", help="Where the pid is written")
    no_pivot: bool = flag("--no-pivot", help="Accepted for callers")
    force: bool = flag("-f", "--force", help="delete: kill first")
    all: bool = flag("-a", "--all", help="kill: accepted for callers")


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = GlobalOptions()
    try:
        asked = options.read(words, interspersed=False, path="rootless-oci")
        if options.version:
            streams.write(f"rootless-oci version {__version__}\nspec: {runtime.VERSION}\n")
            sys.exit(0)
        if asked or not options.arguments:
            streams.write(_USAGE)
            sys.exit(0 if asked else 1)
        sys.exit(_command(Oci(options.root), options.arguments[0], options.arguments[1:]))
    except (RootlessError, FlagError) as error:
        _complain(options, str(error))
        sys.exit(getattr(error, "exit_status", None) or 1)


def _complain(options: GlobalOptions, message: str) -> None:
    streams.write_error(f"rootless-oci: {message}\n")
    if options.log:
        line = json.dumps({"level": "error", "msg": message}) if options.log_format == "json" else f"error: {message}"
        with open(options.log, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def _command(oci: Oci, verb: str, words: list[str]) -> int:
    options = CreateOptions()
    options.read(words, interspersed=True, path=f"rootless-oci {verb}")
    verbs: dict[str, Callable[[], object]] = {
        "create": lambda: oci.create(
            _id(options), options.bundle, console_socket=options.console_socket, pid_file=options.pid_file
        ),
        "start": lambda: oci.start(_id(options)),
        "run": lambda: oci.run(
            _id(options), options.bundle, console_socket=options.console_socket, pid_file=options.pid_file
        ),
        "state": lambda: _show(oci.state(_id(options))),
        "kill": lambda: oci.kill(_id(options), parse_signal((options.arguments[1:] or ["TERM"])[0])),
        "delete": lambda: oci.delete(_id(options), force=options.force),
        "list": lambda: _show(oci.list()),
        "spec": lambda: _show(example()),
    }
    if verb not in verbs:
        raise RootlessError(f"unknown command {verb!r}")
    result = verbs[verb]()
    return int(result) if verb == "run" and isinstance(result, int) else 0


def _id(options: CreateOptions) -> str:
    if not options.arguments:
        raise RootlessError("a container id is required")
    return options.arguments[0]


def _show(document: object) -> None:
    streams.write(json.dumps(document, indent=2) + "\n")


def example() -> runtime.Config:
    """A configuration that runs sh in ./rootfs."""
    capabilities = list(runtime.DEFAULT_CAPABILITIES)
    return {
        "ociVersion": runtime.VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rootless",
        "mounts": [
            runtime.PROC_MOUNT,
            *runtime.DEV_MOUNTS,
            runtime.shm_mount(64 << 20),
            runtime.SYS_MOUNT,
            runtime.CGROUP_MOUNT,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": list(runtime.MASKED_PATHS),
            "readonlyPaths": list(runtime.READONLY_PATHS),
        },
    }
