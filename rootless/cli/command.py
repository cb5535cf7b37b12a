'''How a command is declared, and how its line is read: with the manners of pflag, Docker's parser.

The options of a command are a class, one row each; the attributes say what the command's function gets:

    class RmOptions(Options):
        force: bool = flag("-f", "--force", help="Force the removal of a running container (uses SIGKILL)")
        volumes: bool = flag("-v", "--volumes", help="Remove anonymous volumes associated with the container")
        time: int = number("-t", "--timeout", default=10, aliases=("--time",), help="Seconds to wait before killing")

    @command("rm", "CONTAINER [CONTAINER...]", RmOptions, at_least(1), examples="""
        Remove a container, running or not:
            $ {path} --force web
    """)
    def rm(options: RmOptions) -> int | None:
        """Remove one or more containers"""
        for name in options.arguments:
            containers.remove(options.settings.root, name, force=options.force)

- `flag`, `text`, `texts`, `number`, and `value`/`values` with a parser of their own; each has the type of its value. A
  parser raises InvalidInput, and the user reads 'invalid argument "12zz" for "-m, --memory" flag: ...'.
- `aliases` are spellings that scripts use and help does not show. The given option wins that came last; `texts` and
  `values` collect. `options.changed("time")` tells a default from the same value typed.
- `options.arguments` are the words that are no options, as many as the command allows: `exactly(2)`, `at_least(1)`,
  `at_most(1)`, `NO_ARGUMENTS`. `options.settings` are the options before the verb.
- `interspersed=False`, for run, create and exec: what follows the first argument is the container's, dashes or not.
- `failure` is the status of a RootlessError that has none of its own: 125 for run, else 1.
- The function returns the status, None for 0. Its docstring is the help; the first line is the table's summary too.
- Tables inherit: `class RunOptions(CreateOptions)` adds rows to those of `create`, and mixins do.
- The decorated name is a Command, and the table in `__init__.py` has it as "container:rm".

What pflag does and click does not: `--rm=false`, `-d=true`, values in clusters (`-itd`, `-p80:80`, `-e=A=b`), Go's
words for booleans and numbers; and no abbreviations. Source: spf13/pflag, flag.go; the texts are docker/cli's.

Every command begins with this module, so it is made of plain classes, and imports next to nothing: `help.py` turns them
into click's where there is something to show, and `typing` is for the type checker alone.
'''

import errno
import sys

from rootless.errors import InvalidInput, RootlessError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar, TypeVar

    from rootless.runtime.prepared import Prepared

    T = TypeVar("T")
    OptionsT = TypeVar("OptionsT", bound="Options")

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}

# What the machine may deny to any code at any time, and which no code can help: shown as one line. Other OSErrors are
# turned into a RootlessError by the room that knows what they mean, or are bugs.
_DENIALS = frozenset(
    (
        errno.EACCES,
        errno.EAGAIN,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
        errno.ESTALE,
    )
)


class HelpWanted(Exception):
    """--help stands in the line: show the help of the command that is called as *path*, "rootless container rm"."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class LineError(Exception):
    """A command line that makes no sense: shown with the usage of the command that is called as *path*."""

    exit_code: int

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class FlagError(LineError):
    """An option that is not known, lacks its value, or has one that cannot be."""

    exit_code = 125


class ArgumentsError(LineError):
    """Too few or too many arguments, or a command that does not exist."""

    exit_code = 1


def denial(error: OSError, status: int) -> RootlessError:
    """*error* as a line for a person, where the machine denies something. Raises *error* again where it is a bug."""
    if error.errno not in _DENIALS:
        raise error
    shown = RootlessError(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    shown.exit_status = status
    return shown


class Arity:
    """How many arguments a command takes; most is None where there is no limit."""

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int | None) -> None:
        self.least = least
        self.most = most

    def problem(self, count: int) -> str:
        """What is wrong with *count* arguments, in Docker's words; the empty string if nothing."""
        if self.least <= count and (self.most is None or count <= self.most):
            return ""
        if self.most == 0:
            return "accepts no arguments"
        if self.most == self.least:
            return f"requires {_arguments(self.least)}"
        if self.most is None:
            return f"requires at least {_arguments(self.least)}"
        if self.least == 0:
            return f"requires at most {_arguments(self.most)}"
        return f"requires at least {self.least} and at most {_arguments(self.most)}"


def _arguments(count: int) -> str:
    return f"{count} argument" if count == 1 else f"{count} arguments"


def exactly(count: int) -> Arity:
    """*count* arguments."""
    return Arity(count, count)


def at_least(count: int) -> Arity:
    """*count* arguments or more."""
    return Arity(count, None)


def at_most(count: int) -> Arity:
    """Up to *count* arguments."""
    return Arity(0, count)


NO_ARGUMENTS = exactly(0)


class Option:
    """A row of a table of options: its names, how its text becomes a value, and the value without it.

    implied is the text of the option alone, "true" for a flag (pflag's NoOptDefVal); None where a value must follow.
    """

    __slots__ = ("aliases", "help", "hidden", "implied", "initial", "metavar", "multiple", "name", "names", "parse")

    def __init__(
        self,
        names: "Sequence[str]",
        parse: "Callable[[str], Any]",
        *,
        help: str,
        metavar: str,
        initial: object = None,
        multiple: bool = False,
        aliases: "Sequence[str]" = (),
        hidden: bool = False,
        implied: str | None = None,
    ) -> None:
        self.name = ""
        self.names = names
        self.parse = parse
        self.help = help
        self.metavar = metavar
        self.initial = initial
        self.multiple = multiple
        self.aliases = aliases
        self.hidden = hidden
        self.implied = implied

    def __set_name__(self, owner: type, name: str) -> None:
        """The attribute's name is where the value goes, whatever the option is called (`all`, `from_`)."""
        self.name = name

    @property
    def shown_name(self) -> str:
        """The names as error messages have them: "-a, --all"."""
        return ", ".join(self.names)

    def initial_value(self) -> object:
        """The value where the option is not given; a list is a new one."""
        return [] if self.multiple else self.initial


def parse_bool(text: str) -> bool:
    """A truth value as Go's strconv.ParseBool reads it."""
    try:
        return _BOOLEANS[text]
    except KeyError:
        raise InvalidInput(f"{quoted(text)} is neither true nor false") from None


def parse_int(text: str) -> int:
    """A number as Go's strconv.ParseInt(text, 0, 64) reads it: decimal, 0x, 0o, 0b, or octal after a mere 0."""
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_"
    try:
        if not text.isascii() or text != text.strip() or len(text) > 80:
            raise ValueError
        number = int(text, 8 if octal else 0)
    except ValueError:
        raise InvalidInput(f"{quoted(text)} is not a whole number") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise InvalidInput(f"{quoted(text)} is out of range")
    return number


def quoted(text: str) -> str:
    """*text* in double quotes, on one line."""
    from json import dumps  # only errors and help quote

    return dumps(text, ensure_ascii=False)


def _as_value(row: Option) -> "Any":
    """*row*, which the type checker is to take for the value that a table's attribute has once a line was read."""
    return row


def flag(*names: str, help: str, default: bool = False, aliases: "Sequence[str]" = (), hidden: bool = False) -> bool:
    """A row that is true when given: --rm, --rm=false."""
    row: bool = _as_value(
        Option(
            names, parse_bool, help=help, metavar="", initial=default, aliases=aliases, hidden=hidden, implied="true"
        )
    )
    return row


def text(
    *names: str,
    help: str,
    default: str = "",
    metavar: str = "string",
    aliases: "Sequence[str]" = (),
    hidden: bool = False,
    implied: str | None = None,
) -> str:
    """A row with one text; *implied* is the text of the option without a value, which must then come after `=`."""
    row: str = _as_value(
        Option(names, str, help=help, metavar=metavar, initial=default, aliases=aliases, hidden=hidden, implied=implied)
    )
    return row


def texts(
    *names: str, help: str, metavar: str = "list", aliases: "Sequence[str]" = (), hidden: bool = False
) -> list[str]:
    """A row that may be given more than once: the texts, in order."""
    row: list[str] = _as_value(
        Option(names, str, help=help, metavar=metavar, multiple=True, aliases=aliases, hidden=hidden)
    )
    return row


def number(
    *names: str, help: str, default: int = 0, metavar: str = "int", aliases: "Sequence[str]" = (), hidden: bool = False
) -> int:
    """A row with one whole number."""
    return value(*names, parse=parse_int, help=help, default=default, metavar=metavar, aliases=aliases, hidden=hidden)


def value(
    *names: str,
    parse: "Callable[[str], T]",
    help: str,
    default: "T",
    metavar: str,
    aliases: "Sequence[str]" = (),
    hidden: bool = False,
) -> "T":
    """A row whose text *parse* turns into the value, raising InvalidInput."""
    row: T = _as_value(
        Option(names, parse, help=help, metavar=metavar, initial=default, aliases=aliases, hidden=hidden)
    )
    return row


def values(
    *names: str,
    parse: "Callable[[str], T]",
    help: str,
    metavar: str = "list",
    aliases: "Sequence[str]" = (),
    hidden: bool = False,
) -> "list[T]":
    """A row that may be given more than once: what *parse* made of each text, in order."""
    row: list[T] = _as_value(
        Option(names, parse, help=help, metavar=metavar, multiple=True, aliases=aliases, hidden=hidden)
    )
    return row


HELP = Option(("--help",), parse_bool, help="Print this help", metavar="", initial=False, implied="true", hidden=True)


class Options:
    """The base of every table of options, and of what was typed: its attributes are the values."""

    rows: "ClassVar[dict[str, Option]]" = {}  # noqa: RUF012  # does not look between the quotes
    spellings: "ClassVar[dict[str, Option]]" = {"--help": HELP, "-h": HELP}  # noqa: RUF012

    arguments: list[str]
    settings: "Settings"

    def __init_subclass__(cls) -> None:
        tables = [vars(base) for base in reversed(cls.__mro__)]
        cls.rows = {name: row for table in tables for name, row in table.items() if isinstance(row, Option)}
        cls.spellings = {"--help": HELP, "-h": HELP}
        for row in cls.rows.values():
            cls.spellings.update(dict.fromkeys((*row.names, *row.aliases), row))

    def __init__(self) -> None:
        self.arguments = []
        self._given: set[str] = set()
        for name, row in self.rows.items():
            setattr(self, name, row.initial_value())

    def changed(self, name: str) -> bool:
        """Whether the option of attribute *name* was given, even with its default for a value."""
        return self.rows[name].name in self._given

    def read(self, words: "Sequence[str]", *, interspersed: bool, path: str) -> bool:
        """Take the values and arguments from the command line's *words*; true if help was asked for.

        Raises FlagError at the first word that cannot be; *path* is the command's, for the error to tell.
        """
        help_wanted = False
        for row, word in _given_options(self.spellings, words, self.arguments, interspersed, path):
            try:
                parsed = row.parse(word)
            except InvalidInput as error:
                message = f"invalid argument {quoted(word)} for {quoted(row.shown_name)} flag: {error}"
                raise FlagError(message, path) from error
            if row is HELP:
                help_wanted = True
                continue
            self._given.add(row.name)
            if row.multiple:
                getattr(self, row.name).append(parsed)
            else:
                setattr(self, row.name, parsed)
        return help_wanted


class Settings(Options):
    """The options before the verb, which hold for all commands."""

    config: str = text("--config", help="Location of client config files, for the credentials of registries")
    context_name: str = text("-c", "--context", default="default", help="Accepted for scripts: there is one context")
    debug: bool = flag("-D", "--debug", help="Enable debug mode: show what is done, and where an error comes from")
    host: str = text("-H", "--host", metavar="list", help="Accepted for scripts: there is no daemon to connect to")
    log_level: str = text(
        "-l", "--log-level", default="info", help='Set the logging level ("debug", "info", "warn", "error", "fatal")'
    )
    root: str = text("--root", metavar="directory", help="Where images, containers and volumes are kept")
    storage_driver: str = text("--storage-driver", help='How containers get their root ("overlay", "fuse")')
    version: bool = flag("-v", "--version", help="Print version information and quit")

    # The options between a management command and its verb, where it has any.
    group: "Options | None" = None

    # The helper that was started before the command's own module was imported, if it needs one.
    prepared: "Prepared | None" = None


def _given_options(
    spellings: dict[str, Option], words: "Sequence[str]", arguments: list[str], interspersed: bool, path: str
) -> "Iterator[tuple[Option, str]]":
    """Each option among *words* with its text, in order; the other words go to *arguments*. Raises FlagError."""
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if not interspersed:
                break
        elif word[1] == "-":
            yield _long_option(spellings, word, rest, path)
        else:
            yield from _short_options(spellings, word, rest, path)
    arguments.extend(reversed(rest))


def _long_option(spellings: dict[str, Option], word: str, rest: list[str], path: str) -> tuple[Option, str]:
    """The option of *word*, "--name" or "--name=text". The next word, last in *rest*, is taken where it is needed."""
    if word[2] in "-=":
        raise FlagError(f"bad flag syntax: {word}", path)
    name, equals, text = word.partition("=")
    row = spellings.get(name)
    if row is None:
        raise FlagError(f"unknown flag: {name}", path)
    if equals:
        return row, text
    if row.implied is not None:
        return row, row.implied
    if not rest:
        raise FlagError(f"flag needs an argument: {name}", path)
    return row, rest.pop()


def _short_options(
    spellings: dict[str, Option], word: str, rest: list[str], path: str
) -> "Iterator[tuple[Option, str]]":
    """The options of a cluster: "-it", "-p80:80", "-d=false", where the last may take the next word."""
    letters = word[1:]
    while letters:
        row = spellings.get(f"-{letters[0]}")
        if row is None:
            raise FlagError(f"unknown shorthand flag: '{letters[0]}' in -{letters}", path)
        if len(letters) > 2 and letters[1] == "=":
            yield row, letters[2:]
            return
        if row.implied is not None:
            yield row, row.implied
            letters = letters[1:]
            continue
        if len(letters) > 1:
            yield row, letters[1:]
        elif rest:
            yield row, rest.pop()
        else:
            raise FlagError(f"flag needs an argument: '{letters}' in -{letters}", path)
        return


class Command:
    """A command of the table: how its line is read, what is called then, and what its help tells."""

    __slots__ = ("arity", "examples", "failure", "function", "interspersed", "name", "table", "usage")

    def __init__(
        self,
        name: str,
        usage: str,
        table: type[Options],
        arity: Arity,
        function: "Callable[[Any], int | None]",
        *,
        interspersed: bool,
        failure: int,
        examples: str,
    ) -> None:
        self.name = name
        self.usage = usage
        self.table = table
        self.arity = arity
        self.function = function
        self.interspersed = interspersed
        self.failure = failure
        self.examples = examples

    def call(self, words: "Sequence[str]", settings: "Settings", path: str) -> int:
        """Read *words*, which follow *path* in the line, and call the function; the exit status.

        Raises HelpWanted, LineError, and what the function raises: a failure without a status gets the command's.
        """
        options = self.table()
        options.settings = settings
        if options.read(words, interspersed=self.interspersed, path=path):
            raise HelpWanted(path)
        problem = self.arity.problem(len(options.arguments))
        if problem:
            raise ArgumentsError(f"rootless: '{path}' {problem}", path)
        try:
            return self.function(options) or 0
        except OSError as error:
            raise denial(error, self.failure) from error
        except RootlessError as error:
            if error.exit_status is None:
                error.exit_status = self.failure
            raise


def command(
    name: str,
    usage: str,
    table: "type[OptionsT]",
    arity: Arity,
    *,
    interspersed: bool = True,
    failure: int = 1,
    examples: str = "",
) -> "Callable[[Callable[[OptionsT], int | None]], Command]":
    """Make a function the command *name*; see the module's docstring."""

    def declare(function: "Callable[[OptionsT], int | None]") -> Command:
        return Command(
            name, usage, table, arity, function, interspersed=interspersed, failure=failure, examples=examples
        )

    return declare


def load_options(target: str) -> type[Options]:
    """Import the module of *target*, "compose_options:ComposeOptions", and with it a table of options."""
    module, _, name = target.partition(":")
    full_name = f"rootless.cli.{module}"
    __import__(full_name)
    loaded: type[Options] = getattr(sys.modules[full_name], name)
    return loaded


def load(target: str) -> Command:
    """Import the module of *target*, "lifecycle:rm", a word of the table; its command."""
    module, _, name = target.partition(":")
    full_name = f"rootless.cli.{module}"
    __import__(full_name)  # importlib.import_module would be one more import
    loaded: Command = getattr(sys.modules[full_name], name)
    return loaded
