"""The command line as pflag reads it, and help as Docker prints it."""

from contextlib import suppress
from time import perf_counter

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.command import (
    NO_ARGUMENTS,
    ArgumentsError,
    Arity,
    FlagError,
    HelpWanted,
    Options,
    Settings,
    at_least,
    at_most,
    command,
    exactly,
    flag,
    number,
    parse_bool,
    parse_int,
    text,
    texts,
    value,
    values,
)
from rootless.cli.help import describe
from rootless.errors import CommandNotFound, InvalidInput, NotFound


def parse_even(word: str) -> int:
    if word not in ("0", "2", "4"):
        raise InvalidInput("not even")
    return int(word)


class SampleOptions(Options):
    detach: bool = flag("-d", "--detach", help="Run in the background")
    interactive: bool = flag("-i", "--interactive", help="Keep standard input open")
    tty: bool = flag("-t", "--tty", help="Allocate a terminal")
    sig_proxy: bool = flag("--sig-proxy", default=True, help="Pass signals on")
    name: str = text("--name", help="Assign a name")
    network: str = text("--network", help="Connect to a network", aliases=("--net",))
    pull: str = text("--pull", default="missing", help="Pull first", implied="always")
    env: list[str] = texts("-e", "--env", help="Set environment variables")
    publish: list[str] = texts("-p", "--publish", help="Publish a port")
    pids: int = number("--pids-limit", help="Limit processes")
    last: int = number("-n", "--last", default=-1, help="Show the last few")
    even: int = value("--even", parse=parse_even, default=0, metavar="even", help="An even number")
    evens: list[int] = values("--evens", parse=parse_even, help="Even numbers")


def read(*words: str, interspersed: bool = True) -> SampleOptions:
    options = SampleOptions()
    options.read(words, interspersed=interspersed, path="rootless sample")
    return options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"detach": False, "sig_proxy": True, "name": "", "env": [], "last": -1, "pull": "missing"}),
        (["-d"], {"detach": True}),
        (["--detach"], {"detach": True}),
        (["--detach=false"], {"detach": False}),
        (["--sig-proxy=false"], {"sig_proxy": False}),
        (["--sig-proxy=0", "--sig-proxy"], {"sig_proxy": True}),
        (["-d=true"], {"detach": True}),
        (["-d=F"], {"detach": False}),
        (["-itd"], {"interactive": True, "tty": True, "detach": True}),
        (["-it=false"], {"interactive": True, "tty": False}),
        (["-p80:80"], {"publish": ["80:80"]}),
        (["-dp80:80", "-p", "81:81", "--publish=82:82"], {"detach": True, "publish": ["80:80", "81:81", "82:82"]}),
        (["-eFOO=bar", "-e=A=b", "-e", "C=", "--env=D"], {"env": ["FOO=bar", "A=b", "C=", "D"]}),
        (["-e="], {"env": ["="]}),
        (["--name="], {"name": ""}),
        (["--name", "--", "x"], {"name": "--", "arguments": ["x"]}),
        (["--name", "-d"], {"name": "-d", "detach": False}),
        (["--name", "a", "--name=b"], {"name": "b"}),
        (["--net", "none"], {"network": "none"}),
        (["--net=host", "--network", "none"], {"network": "none"}),
        (["--pull"], {"pull": "always"}),
        (["--pull", "never"], {"pull": "always", "arguments": ["never"]}),
        (["--pull=never"], {"pull": "never"}),
        (["-n", "-5"], {"last": -5}),
        (["-n-5"], {"last": -5}),
        (["--pids-limit", "0x10"], {"pids": 16}),
        (["--even=4", "--evens", "2", "--evens=0"], {"even": 4, "evens": [2, 0]}),
        (["a", "-d", "b"], {"arguments": ["a", "b"], "detach": True}),
        (["a", "--", "-d", "--", "b"], {"arguments": ["a", "-d", "--", "b"], "detach": False}),
        (["-", "-d", ""], {"arguments": ["-", ""], "detach": True}),
    ],
)
def test_options_are_read_as_pflag_reads_them(words: list[str], expected: dict[str, object]) -> None:
    options = read(*words)
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=bar"], "unknown flag: --foo"),
        (["--deta"], "unknown flag: --deta"),
        (["-z"], "unknown shorthand flag: 'z' in -z"),
        (["-dzt"], "unknown shorthand flag: 'z' in -zt"),
        (["-d="], "unknown shorthand flag: '=' in -="),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
        (["--name"], "flag needs an argument: --name"),
        (["-e"], "flag needs an argument: 'e' in -e"),
        (["-de"], "flag needs an argument: 'e' in -e"),
        (["--detach=maybe"], 'invalid argument "maybe" for "-d, --detach" flag: "maybe" is neither true nor false'),
        (["--detach="], 'invalid argument "" for "-d, --detach" flag: "" is neither true nor false'),
        (["--pids-limit", "x"], 'invalid argument "x" for "--pids-limit" flag: "x" is not a whole number'),
        (["--even", "3"], 'invalid argument "3" for "--even" flag: not even'),
        (["--even", "3", "--foo"], 'invalid argument "3" for "--even" flag: not even'),
        (["--foo", "--help"], "unknown flag: --foo"),
    ],
)
def test_the_first_wrong_word_is_named(words: list[str], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        read(*words)
    assert caught.value.message == message
    assert caught.value.path == "rootless sample"
    assert caught.value.exit_code == 125


def test_options_end_at_the_image_where_the_rest_belongs_to_the_container() -> None:
    options = read("-d", "busybox", "ls", "-d", "--foo", "--", "x", interspersed=False)
    assert options.arguments == ["busybox", "ls", "-d", "--foo", "--", "x"]


def test_a_dash_dash_before_the_image_is_not_part_of_it() -> None:
    assert read("--", "busybox", "-x", interspersed=False).arguments == ["busybox", "-x"]


def test_a_value_typed_is_told_from_the_default() -> None:
    options = read("--last=-1", "--net=none")
    assert options.changed("last")
    assert options.changed("network")
    assert not options.changed("name")


def test_asking_for_an_option_that_does_not_exist_is_a_bug() -> None:
    with pytest.raises(KeyError):
        read().changed("lats")


def test_lists_are_not_shared_between_two_readings() -> None:
    read("-eA=b")
    assert read().env == []


def test_tables_inherit_and_mix() -> None:
    class Format(Options):
        format: str = text("--format", help="")

    class Quiet(Options):
        quiet: bool = flag("-q", "--quiet", help="")

    class Both(Quiet, Format):
        all: bool = flag("-a", "--all", help="")

    assert set(Both.rows) == {"format", "quiet", "all"}
    assert set(Quiet.rows) == {"quiet"}


def test_h_is_help_unless_the_command_has_another_use_for_it() -> None:
    class HostOptions(Options):
        hostname: str = text("-h", "--hostname", help="")

    assert SampleOptions().read(["-h"], interspersed=True, path="")
    host = HostOptions()
    assert not host.read(["-h", "box"], interspersed=True, path="")
    assert host.hostname == "box"


@given(st.lists(st.text(max_size=6), max_size=6))
def test_words_that_are_no_options_come_back_as_they_were(words: list[str]) -> None:
    assert read("--", *words).arguments == words


@given(st.lists(st.text(alphabet="-=abdeipt0 é", max_size=5), max_size=6), st.booleans())
def test_any_line_is_read_or_refused(words: list[str], interspersed: bool) -> None:
    with suppress(FlagError):
        read(*words, interspersed=interspersed)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("0", 0), ("42", 42), ("-1", -1), ("+7", 7), ("010", 8), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("1_000", 1000)],
)
def test_numbers_are_those_of_go(word: str, expected: int) -> None:
    assert parse_int(word) == expected


@pytest.mark.parametrize(
    "word", ["", " 1", "1 ", "1.5", "x", "٣", "0x", "9223372036854775808", "09", "--1", "1" * 5000]
)
def test_other_numbers_are_refused(word: str) -> None:
    with pytest.raises(InvalidInput):
        parse_int(word)


@pytest.mark.parametrize("word", ["", "yes", "no", "tRUE", "2", " true"])
def test_only_words_of_go_are_truth_values(word: str) -> None:
    with pytest.raises(InvalidInput):
        parse_bool(word)


@pytest.mark.parametrize(
    ("arity", "count", "problem"),
    [
        (NO_ARGUMENTS, 0, ""),
        (NO_ARGUMENTS, 1, "accepts no arguments"),
        (exactly(1), 0, "requires 1 argument"),
        (exactly(2), 3, "requires 2 arguments"),
        (at_least(1), 0, "requires at least 1 argument"),
        (at_least(2), 1, "requires at least 2 arguments"),
        (at_least(2), 9, ""),
        (at_most(1), 2, "requires at most 1 argument"),
        (Arity(1, 2), 0, "requires at least 1 and at most 2 arguments"),
        (Arity(1, 2), 2, ""),
    ],
)
def test_arguments_are_counted_in_dockers_words(arity: Arity, count: int, problem: str) -> None:
    assert arity.problem(count) == problem


class RmOptions(Options):
    volumes: bool = flag("-v", "--volumes", help="Remove anonymous volumes associated with the container")
    force: bool = flag("-f", "--force", help="Force the removal of a running container")
    time: int = number("-t", "--timeout", default=10, help="Seconds to wait", aliases=("--time",))
    filter: list[str] = texts("--filter", metavar="filter", help="Filter:\n'until=': time\n'label=': label")
    secret: str = text("--secret", help="Not shown", hidden=True)


@command(
    "rm",
    "CONTAINER [CONTAINER...]",
    RmOptions,
    at_least(1),
    failure=125,
    examples="""
        Remove a running container:
            $ {path} -f web --format '{{.Names}}'
    """,
)
def rm(options: RmOptions) -> int | None:
    """Remove one or more containers

    What they wrote is gone with them.
    """
    if options.force:
        raise CommandNotFound("sh: not found")
    if options.volumes:
        raise NotFound("No such container: x")
    return options.time


HELP = """\
Usage:  rootless rm [OPTIONS] CONTAINER [CONTAINER...]

Remove one or more containers

What they wrote is gone with them.

Aliases:
  rootless container rm, rootless container remove, rootless rm

Examples:
  Remove a running container:
      $ rootless rm -f web --format '{{.Names}}'

Options:
      --filter filter   Filter:
                        'until=': time
                        'label=': label
  -f, --force           Force the removal of a running container
  -t, --timeout int     Seconds to wait (default 10)
  -v, --volumes         Remove anonymous volumes associated with the container
"""


def call(*words: str) -> int:
    return rm.call(words, Settings(), "rootless rm")


def test_help_is_laid_out_as_dockers() -> None:
    context = click.Context(describe(rm), info_name="rootless rm")
    assert f"{context.get_help()}\n" == HELP


def test_who_asks_for_help_gets_it_whatever_is_missing() -> None:
    with pytest.raises(HelpWanted) as caught:
        call("--help")
    assert caught.value.path == "rootless rm"


def test_the_function_gets_the_options_and_gives_the_status() -> None:
    assert call("-t", "3", "x") == 3


def test_a_failure_gets_the_status_of_the_command_unless_it_has_one() -> None:
    with pytest.raises(NotFound) as of_command:
        call("-v", "x")
    with pytest.raises(CommandNotFound) as of_error:
        call("-f", "x")
    assert (of_command.value.exit_status, of_error.value.exit_status) == (125, 127)


def test_too_few_arguments_are_an_error_of_the_command() -> None:
    with pytest.raises(ArgumentsError) as caught:
        call()
    assert caught.value.message == "rootless: 'rootless rm' requires at least 1 argument"
    assert caught.value.exit_code == 1


def test_a_table_of_a_hundred_options_is_built_in_two_milliseconds() -> None:
    def build() -> float:
        start = perf_counter()
        rows = {f"option_{i}": text(f"--option-{i}", help="Says what it is for") for i in range(100)}
        type("Hundred", (Options,), rows)
        return perf_counter() - start

    assert min(build() for _ in range(5)) < 0.002
