"""The command line. A parser of its own: argparse takes longer to load than all the rest here to start."""

from typing import NamedTuple

HELP = """\
Usage: python -m slirp --socket PATH [OPTION]...

The networks of a user without root: bridges, addresses, names, published ports and the way out, in one resident
process. To be started as root of the user's user namespace, in the machine's network namespace. Commands talk to it at
PATH (slirp/control.py); what a connection attaches lasts as long as the connection.

  --socket PATH       where to listen for commands; the file is removed at the end
  --ready-fd N        write a line to descriptor N, and close it, once commands are heard
  --exit-fd N         leave when the other end of descriptor N is closed
  --log PATH          append what there is to say to PATH, of 1 MiB at most (default: standard error)
  --linger SECONDS    leave when nothing has been attached for so long (default: 10)
  --path WHICH        how TCP is carried: kernel (handed over, spliced), user (a TCP of our own), or
                      auto, which takes kernel where the machine can (default)
  --help              this text

On failure there is one line on standard error, and the exit status is not 0.
"""


class Options(NamedTuple):
    """What was asked for."""

    socket: str
    ready_fd: int = -1
    exit_fd: int = -1
    log: str = ""
    linger: float = 10.0
    path: str = "auto"


class Misused(Exception):
    """The command line cannot be right."""


def parse(arguments: list[str]) -> Options | None:
    """The options; None where help is asked for. Raises Misused."""
    if "--help" in arguments or "-h" in arguments:
        return None
    values: dict[str, str] = {}
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        if name.removeprefix("--").replace("-", "_") not in Options._fields or not name.startswith("--"):
            raise Misused(f"unknown option {word!r}")
        given = value if equals else next(rest, None)
        if given is None:
            raise Misused(f"option {name} needs a value")
        values[name] = given
    if not values.get("--socket"):
        raise Misused("option --socket is needed")
    return _options(values)


def _options(values: dict[str, str]) -> Options:
    path = values.get("--path", "auto")
    if path not in ("auto", "kernel", "user"):
        raise Misused(f"--path is auto, kernel or user, not {path!r}")
    return Options(
        values["--socket"],
        _descriptor(values, "--ready-fd"),
        _descriptor(values, "--exit-fd"),
        values.get("--log", ""),
        _seconds(values, "--linger"),
        path,
    )


def _descriptor(values: dict[str, str], name: str) -> int:
    text = values.get(name, "-1")
    if text != "-1" and not text.isdecimal():
        raise Misused(f"{name} is the number of a descriptor, not {text!r}")
    return int(text)


def _seconds(values: dict[str, str], name: str) -> float:
    text = values.get(name, "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 1e9:
        raise Misused(f"{name} is a number of seconds, not {text!r}")
    return seconds
