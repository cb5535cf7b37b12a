"""The console script: the options before the verb, the verb's module and no other, and how a failure is shown.

    rootless [OPTIONS] COMMAND …   ──▶  table  ──▶  import one module  ──▶  its click command  ──▶  exit status

A RootlessError is a line, with a second one for its hint; --debug adds where it comes from. Anything else is a bug and
keeps its traceback. Status: the error's own, or its command's (125 for run); 125 for a wrong option and 1 for wrong
arguments, as Docker has it; 130 after Ctrl-C; 141 when nobody reads the output.
"""

# ruff: noqa: E402  # gc.disable() stands between the imports

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NoReturn

# Modules are many objects and no garbage: looking for some while they load, and once more at the end, takes a fifth of
# the time of a short command. What is loaded is put aside ("frozen") instead, below and at the end of main().
gc.disable()

import click

from rootless import __version__
from rootless.cli import COMMANDS, COMMON, MANAGEMENT, SUMMARIES, streams
from rootless.cli.command import ArgumentsError, Arity, Command, LineError, Options, Settings, denial, write_columns
from rootless.cli.terminal_text import for_stream
from rootless.errors import InvalidInput, RootlessError

gc.freeze()
gc.enable()

INTERRUPTED = 128 + 2
NOBODY_READS = 128 + 13

_COMPLETION = "_ROOTLESS_COMPLETE"
_LOG_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line says, and exit."""
    status = execute(sys.argv[1:] if argv is None else argv)
    gc.freeze()
    sys.exit(status)


def execute(argv: Sequence[str]) -> int:
    """Do what *argv*, the words after the program's name, says; the exit status."""
    _open_missing_streams()
    if _COMPLETION in os.environ:
        Root().main(prog_name="rootless", complete_var=_COMPLETION)  # click answers the shell, and exits
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


def _invoke(argv: Sequence[str]) -> int:
    """Find the command and call it; its status."""
    settings = Settings()
    try:
        with Root().make_context("rootless", list(argv), obj=settings) as context:
            settings = context.obj
            return context.command.invoke(context) or 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except RootlessError:
        if settings.debug:
            sys.excepthook(*sys.exc_info())
        raise


def _open_missing_streams() -> None:
    """Give the interpreter the streams it was started without (`rootless ps >&-`): they lead nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for the life of the process


def _show_error(error: RootlessError) -> int:
    lines = [f"rootless: {error}"] + ([f"hint: {error.hint}"] if error.hint else [])
    for line in lines:
        # Escaped here already: a line of ours is one line, whatever a registry put into it.
        streams.write_error(for_stream(line, sys.stderr) + "\n")
    return 1 if error.exit_status is None else error.exit_status


def _show_line_error(error: LineError) -> int:
    """Docker's three paragraphs: what is wrong, the usage line, where to read on."""
    context = error.context
    more = f"Run '{context.command_path} --help' for more information"
    streams.write_error(f"{error.message}\n\n{context.get_usage()}\n\n{more}\n")
    return error.exit_code


class Group(click.Group, Command):
    """A command whose first argument is a verb: `rootless` itself, and each management command.

    verbs is a part of the table: verb -> target. The verb's module is imported when it is called.
    """

    def __init__(self, name: str, verbs: dict[str, str], *, table: type[Options] = Options, help: str) -> None:
        anything = Arity(0, None)
        super().__init__(
            name, usage="COMMAND", table=table, arity=anything, help=help, interspersed=False, no_args_is_help=False
        )
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, each by its first name only."""
        return sorted({target: verb for verb, target in reversed(self.verbs.items())}.values())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of the verb, and return its command."""
        if cmd_name not in self.verbs:
            return None
        module, _, name = self.verbs[cmd_name].partition(":")
        command: Command = getattr(import_module(f"rootless.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that *args* begins with, its command and the rest. Raises ArgumentsError if there is none."""
        command = self.get_command(ctx, args[0])
        if command is not None:
            return args[0], command, args[1:]
        if ctx.resilient_parsing:
            return None, None, args[1:]
        near = _nearest(args[0], self.list_commands(ctx))
        question = f" (did you mean '{near}'?)" if near else ""
        raise ArgumentsError(f"rootless: unknown command: {ctx.command_path} {args[0]}{question}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb's command; without a verb, print the help."""
        if not ctx.params["options"].arguments:
            self.print_help(ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs."""
        self.write_verbs(formatter, "Commands", self.list_commands(ctx))

    def write_verbs(self, formatter: click.HelpFormatter, title: str, verbs: Iterable[str]) -> None:
        """Write a section of help, a line a verb."""
        formatter.write(f"\n{title}:\n")
        write_columns(formatter, [(f"  {verb:9}", self.summary(verb)) for verb in verbs])

    def summary(self, verb: str) -> str:
        """What the table says that the verb does."""
        return SUMMARIES[self.verbs[verb]]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where to read on."""
        formatter.write(f"\nRun '{ctx.command_path} COMMAND --help' for more information on a command.\n")


class Root(Group):
    """`rootless` itself: the settings, the commands, the management commands, and `help`."""

    options_title = "Global Options"

    def __init__(self) -> None:
        super().__init__("rootless", COMMANDS, table=Settings, help="Containers as Docker has them, without root")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands and the management commands."""
        return sorted((*COMMANDS, *MANAGEMENT))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A management command is there at once; another one's module is imported."""
        if cmd_name in MANAGEMENT:
            return Group(cmd_name, MANAGEMENT[cmd_name], help=SUMMARIES[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As for any group, but `help VERB …` is `VERB … --help`."""
        if args[0] != "help":
            return super().resolve_command(ctx, args)
        if len(args) == 1:
            self.print_help(ctx)
        return super().resolve_command(ctx, [*args[1:], "--help"])

    def invoke(self, ctx: click.Context) -> Any:
        """Check the settings, then call the command. Raises InvalidInput."""
        settings: Settings = ctx.obj
        _check_settings(settings)
        if settings.version and not settings.arguments:
            streams.write(f"rootless version {__version__}\n")
            return 0
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in three sections, then the settings."""
        self.write_verbs(formatter, "Common Commands", COMMON)
        self.write_verbs(formatter, "Management Commands", MANAGEMENT)
        self.write_verbs(formatter, "Commands", (verb for verb in COMMANDS if verb not in COMMON))
        Command.format_options(self, ctx, formatter)

    def summary(self, verb: str) -> str:
        """What the table says of a command or a management command."""
        return SUMMARIES[COMMANDS.get(verb, verb)]


def _check_settings(settings: Settings) -> None:
    """Raise InvalidInput for what only a daemon could do, and for a log level that does not exist."""
    hint = "leave it out; to use another machine's containers, run rootless there"
    if settings.host:
        raise InvalidInput(f"there is no daemon to connect to at {settings.host!r}", hint=hint)
    if settings.context_name != "default":
        raise InvalidInput(f"context {settings.context_name!r} does not exist: there is only 'default'", hint=hint)
    if settings.log_level not in _LOG_LEVELS:
        raise InvalidInput(f"unable to parse logging level: {settings.log_level}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """The word of *known* that *word* is likely a slip of, the empty string if none is: two edits away at most."""
    distance, near = min((_distance(word, candidate), candidate) for candidate in known)
    return near if distance <= min(2, len(near) - 2) else ""


def _distance(left: str, right: str) -> int:
    """Letters to insert, remove or replace to get from *left* to *right* (Levenshtein); a swap counts two."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row = row, [i]
        for j, b in enumerate(right, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (a != b)))
    return row[-1]
