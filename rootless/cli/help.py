"""Help, usage and completion: the table and its commands as click knows them.

click takes longer to import than a whole `rootless ps` lasts, so only who has something to show imports this module.
click lays out the help and answers the shell; the words and their order are docker/cli's. It calls no command: that is
up to `main.py`, and `Options` reads the line for both.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from rootless.cli import COMMANDS, COMMON, GROUP_OPTIONS, MANAGEMENT, SUMMARIES
from rootless.cli.command import (
    ArgumentsError,
    Command,
    LineError,
    Option,
    Options,
    Settings,
    load,
    load_options,
    quoted,
)


def help_of(path: str) -> str:
    """The help of the command that is called as *path*, "rootless container rm"."""
    return f"{_context(path).get_help()}\n"


def usage_error(error: LineError) -> str:
    """Docker's three paragraphs: what is wrong, the usage line, where to read on."""
    return f"{error.message}\n\n{_context(error.path).get_usage()}\n\nRun '{error.path} --help' for more information\n"


def unknown_command(path: str, verb: str) -> ArgumentsError:
    """The error where *path*, "rootless container", is followed by a *verb* that it does not have."""
    near = _nearest(verb, _group(path).shown_verbs())
    question = f" (did you mean '{near}'?)" if near else ""
    return ArgumentsError(f"rootless: unknown command: {path} {verb}{question}", path)


def complete(variable: str) -> NoReturn:
    """Answer the shell, which asks through the environment's *variable*, and exit."""
    Root().main(prog_name="rootless", complete_var=variable)


def describe(command: Command) -> "CommandHelp":
    """*command* as click knows it."""
    return CommandHelp(
        command.name,
        usage=command.usage,
        table=command.table,
        help=command.function.__doc__ or "",
        interspersed=command.interspersed,
        examples=command.examples,
    )


def _context(path: str) -> click.Context:
    """click's record of a call of the command *path*."""
    above, _, verb = path.rpartition(" ")
    return click.Context(_group(above).subcommand(verb) if above else Root(), info_name=path)


def _group(path: str) -> "Group":
    """`rootless` itself, or the management command that is called as *path*."""
    name = path.partition(" ")[2]
    return _management(name) if name else Root()


def _management(name: str) -> "Group":
    table = load_options(GROUP_OPTIONS[name]) if name in GROUP_OPTIONS else Options
    return Group(name, MANAGEMENT[name], table=table, help=SUMMARIES[name])


class CommandHelp(click.Command):
    """What help and completion have to know of a command."""

    options_title = "Options"

    def __init__(
        self,
        name: str,
        *,
        usage: str,
        table: type[Options],
        help: str,
        interspersed: bool = True,
        examples: str = "",
    ) -> None:
        super().__init__(name, help=help, add_help_option=False)
        self.usage = usage
        self.table = table
        self.interspersed = interspersed
        self.examples = examples

    def shown_options(self) -> list[Option]:
        """The options that help shows, by the alphabet."""
        return sorted((row for row in self.table.rows.values() if not row.hidden), key=lambda row: row.names[-1])

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options as click completes them."""
        return [
            click.Option(list(row.names), help=row.help, multiple=row.multiple, is_flag=row.implied is not None)
            for row in self.shown_options()
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words of *args* that are no options. Completion alone asks, and half a line may well be wrong."""
        options = self.table()
        with suppress(LineError):
            options.read(args, interspersed=self.interspersed, path=ctx.command_path)
        return options.arguments

    def get_usage(self, ctx: click.Context) -> str:
        """Docker's usage line."""
        return " ".join(filter(None, ("Usage: ", ctx.command_path, "[OPTIONS]" if self.table.rows else "", self.usage)))

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The usage line, never wrapped: people copy it."""
        formatter.write(f"{self.get_usage(ctx)}\n")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The function's docstring from the margin on, the other names of the command, and the examples."""
        lines = [line.strip() for line in (self.help or "").strip().splitlines()]
        formatter.write("\n" + "\n".join(lines) + "\n")
        names = _all_names(ctx.command_path)
        if len(names) > 1:
            formatter.write(f"\nAliases:\n  {', '.join(names)}\n")
        if self.examples:
            formatter.write("\nExamples:\n" + _indented(self.examples.replace("{path}", ctx.command_path)))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options in pflag's columns."""
        rows = [(_option_names(row), _option_help(row)) for row in self.shown_options()]
        if rows:
            formatter.write(f"\n{self.options_title}:\n")
            _write_columns(formatter, rows)


class Group(click.Group, CommandHelp):
    """A command whose first argument is a verb: `rootless` itself, and each management command.

    verbs is a part of the table: verb -> target.
    """

    def __init__(self, name: str, verbs: dict[str, str], *, table: type[Options], help: str) -> None:
        super().__init__(name, usage="COMMAND", table=table, help=help, interspersed=False, no_args_is_help=False)
        self.verbs = verbs

    def shown_verbs(self) -> list[str]:
        """The verbs by the alphabet, each command by its first name only."""
        return sorted({target: verb for verb, target in reversed(self.verbs.items())}.values())

    def subcommand(self, verb: str) -> CommandHelp:
        """Import the module of *verb*; its command."""
        return describe(load(self.verbs[verb]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> CommandHelp | None:
        """The command *cmd_name*, if there is one."""
        return self.subcommand(cmd_name) if cmd_name in self.verbs else None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, for which no module has to be imported, and the options."""
        verbs = [verb for verb in self.shown_verbs() if verb.startswith(incomplete)]
        items = [CompletionItem(verb, help=self.summary(verb)) for verb in verbs]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, where there are any, and the verbs."""
        super().format_options(ctx, formatter)
        self.write_verbs(formatter, "Commands", self.shown_verbs())

    def write_verbs(self, formatter: click.HelpFormatter, title: str, verbs: Iterable[str]) -> None:
        """Write a section of help, a line a verb."""
        formatter.write(f"\n{title}:\n")
        _write_columns(formatter, [(f"  {verb:9}", self.summary(verb)) for verb in verbs])

    def summary(self, verb: str) -> str:
        """What the table says that the verb does."""
        return SUMMARIES[self.verbs[verb]]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Where to read on."""
        formatter.write(f"\nRun '{ctx.command_path} COMMAND --help' for more information on a command.\n")


class Root(Group):
    """`rootless` itself: the settings, the commands, and the management commands, which stand for themselves."""

    options_title = "Global Options"

    def __init__(self) -> None:
        verbs = {**COMMANDS, **{name: name for name in MANAGEMENT}}
        super().__init__("rootless", verbs, table=Settings, help="Containers as Docker has them, without root")

    def subcommand(self, verb: str) -> CommandHelp:
        """A management command is there at once; another one's module is imported."""
        return _management(verb) if verb in MANAGEMENT else super().subcommand(verb)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in three sections, then the settings."""
        self.write_verbs(formatter, "Common Commands", COMMON)
        self.write_verbs(formatter, "Management Commands", MANAGEMENT)
        self.write_verbs(formatter, "Commands", (verb for verb in COMMANDS if verb not in COMMON))
        CommandHelp.format_options(self, ctx, formatter)


def _write_columns(formatter: click.HelpFormatter, rows: Sequence[tuple[str, str]]) -> None:
    """Write rows of two columns, the second wrapped to the terminal; newlines in it are kept."""
    indent = max(len(left) for left, _ in rows) + 3
    for left, right in rows:
        width = max(formatter.width - indent, 24)
        lines = [part for line in right.splitlines() for part in click.wrap_text(line, width).splitlines()]
        for mark, line in zip([left, *[""] * len(lines)], lines or [""], strict=False):
            formatter.write(f"{mark:{indent}}{line}".rstrip() + "\n")


def _all_names(path: str) -> list[str]:
    """Every way to call the command that is called as *path*, "rootless ps"; none if the table lacks it."""
    groups = [(f"rootless {group}", verbs) for group, verbs in MANAGEMENT.items()]
    calls = {
        f"{prefix} {verb}": target
        for prefix, verbs in (*groups, ("rootless", COMMANDS))
        for verb, target in verbs.items()
    }
    return [call for call, target in calls.items() if target == calls.get(path, "")]


def _option_names(row: Option) -> str:
    """The left column: "  -a, --all", "      --format string"."""
    names = row.shown_name if row.names[0][1] != "-" else f"    {row.names[0]}"
    return f"  {names} {row.metavar}".rstrip()


def _option_help(row: Option) -> str:
    """The right column, with the default where it is worth telling."""
    if row.multiple or row.initial in (None, False, "", 0):
        return row.help
    return f"{row.help} (default {quoted(row.initial) if isinstance(row.initial, str) else row.initial})"


def _indented(block: str) -> str:
    """*block* without its common margin, moved in by two."""
    lines = block.strip("\n").rstrip().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "".join(f"  {line[margin:]}".rstrip() + "\n" for line in lines)


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
