"""The console script: the options before the verb, the verb's module and no other, and how a failure is shown.

    rootless [OPTIONS] COMMAND …   ──▶  table  ──▶  import one module  ──▶  its command  ──▶  exit status

A RootlessError is a line, with a second one for its hint; --debug adds where it comes from. Anything else is a bug and
keeps its traceback. Status: the error's own, or its command's (125 for run); 125 for a wrong option and 1 for wrong
arguments, as Docker has it; 130 after Ctrl-C; 141 when nobody reads the output.

A short command lasts as long as its imports. So `help.py`, which has click, is imported only to show something, and a
helper process that a container needs is begun before the command's own module is imported, to get ready meanwhile.
"""

# ruff: noqa: E402  # gc.disable() stands between the imports

import gc

# Modules are many objects and no garbage: to look for some while they load takes a good part of a short command's time.
# What is loaded is put aside ("frozen") instead.
gc.disable()

import os
import sys

from rootless import __version__
from rootless.cli import COMMANDS, GROUP_OPTIONS, MANAGEMENT, streams
from rootless.cli.command import HelpWanted, LineError, Options, Settings, denial, load, load_options
from rootless.cli.terminal_text import for_stream
from rootless.errors import InvalidInput, RootlessError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from rootless.runtime.prepared import Prepared

gc.freeze()
gc.enable()

INTERRUPTED = 128 + 2
NOBODY_READS = 128 + 13

_COMPLETION = "_ROOTLESS_COMPLETE"
_LOG_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")

# The target of a command that a helper process can be begun for -> the verb that `runtime.prepared` knows it by.
_PREPARED = {"run:run": "run", "lifecycle:start": "start", "lifecycle:exec_command": "exec"}


def main(argv: "Sequence[str] | None" = None) -> "NoReturn":
    """Do what the command line says, and exit."""
    gc.disable()  # until the command's module is loaded
    _leave(execute(sys.argv[1:] if argv is None else argv))


def execute(argv: "Sequence[str]") -> int:
    """Do what *argv*, the words after the program's name, says; the exit status."""
    _open_missing_streams()
    if os.environ.get(_COMPLETION):
        from rootless.cli.help import complete  # has click

        complete(_COMPLETION)
    try:
        status = _invoke(argv)
        streams.flush()
        return status
    except LineError as error:
        return _show_line_error(error)
    except RootlessError as error:
        return _show_error(error)
    except OSError as error:
        return _show_error(denial(error, 1))
    except streams.OutputClosed:
        return NOBODY_READS
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave(status: int) -> "NoReturn":
    """End the process, and leave the tidying up to the kernel, which needs none of the interpreter's milliseconds.

    What atexit would call is not called: nothing of ours needs it. The buffers of the streams are all there is to save.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            streams.flush(stream)
        except (OSError, streams.OutputClosed):
            pass  # the status tells already of what went wrong before
    os._exit(status)


def _open_missing_streams() -> None:
    """Give the interpreter the streams it was started without (`rootless ps >&-`): they lead nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for the life of the process


def _invoke(argv: "Sequence[str]") -> int:
    """Do what *argv* says, or show the help it asks for; the status."""
    settings = Settings()
    try:
        return _call(settings, argv)
    except HelpWanted as wanted:
        from rootless.cli.help import help_of  # has click

        streams.write(help_of(wanted.path))
        return 0
    except RootlessError:
        if settings.debug:
            sys.excepthook(*sys.exc_info())
        raise


def _call(settings: Settings, argv: "Sequence[str]") -> int:
    """Read the options before the verb, and call its command; the status. Raises HelpWanted, LineError."""
    if settings.read(argv, interspersed=False, path="rootless"):
        raise HelpWanted("rootless")
    _check_settings(settings)
    words = settings.arguments
    if settings.version and not words:
        streams.write(f"rootless version {__version__}\n")
        return 0
    about = words[:1] == ["help"]  # `help VERB`
    path, target, rest = _find(words[1:] if about else words, settings)
    if about:
        raise HelpWanted(path)
    settings.prepared = _prepare(target, rest)
    command = load(target)
    if not gc.isenabled():  # main() has switched it off
        gc.freeze()
        gc.enable()
    return command.call(rest, settings, path)


def _find(words: list[str], settings: Settings) -> tuple[str, str, list[str]]:
    """Path, target and further words of the command that *words* begin with. Raises HelpWanted, LineError.

    The options before a management command's verb go to *settings*.
    """
    path, verbs = "rootless", COMMANDS
    if words and words[0] in MANAGEMENT:
        path, verbs = f"rootless {words[0]}", MANAGEMENT[words[0]]
        group = load_options(GROUP_OPTIONS[words[0]])() if words[0] in GROUP_OPTIONS else Options()
        settings.group = group
        if group.read(words[1:], interspersed=False, path=path):
            raise HelpWanted(path)
        words = group.arguments
    if not words:
        raise HelpWanted(path)
    if words[0] not in verbs:
        from rootless.cli.help import unknown_command  # has click

        raise unknown_command(path, words[0])
    return f"{path} {words[0]}", verbs[words[0]], words[1:]


def _prepare(target: str, words: list[str]) -> "Prepared | None":
    """The helper of a container, begun already, where *target* is a command that needs one, and *words* may call it."""
    if target not in _PREPARED or words[:1] in ([], ["--help"]):
        return None
    from rootless.runtime.prepared import begin  # has the namespaces

    prepared = begin(_PREPARED[target])
    if prepared is not None and target == "run:run":
        from rootless.engine.network_start import begin_early
        from rootless.linux.directories import runtime_directory

        prepared.networks = begin_early(words, runtime_directory())
    return prepared


def _check_settings(settings: Settings) -> None:
    """Raise InvalidInput for what only a daemon could do, and for a log level that does not exist."""
    hint = "leave it out; to use another machine's containers, run rootless there"
    if settings.host:
        raise InvalidInput(f"there is no daemon to connect to at {settings.host!r}", hint=hint)
    if settings.context_name != "default":
        raise InvalidInput(f"context {settings.context_name!r} does not exist: there is only 'default'", hint=hint)
    if settings.log_level not in _LOG_LEVELS:
        raise InvalidInput(f"unable to parse logging level: {settings.log_level}")


def _show_error(error: RootlessError) -> int:
    lines = [f"rootless: {error}"] + ([f"hint: {error.hint}"] if error.hint else [])
    for line in lines:
        # Escaped here already: a line of ours is one line, whatever a registry put into it.
        streams.write_error(for_stream(line, sys.stderr) + "\n")
    return 1 if error.exit_status is None else error.exit_status


def _show_line_error(error: LineError) -> int:
    from rootless.cli.help import usage_error  # has click

    streams.write_error(usage_error(error))
    return error.exit_code
