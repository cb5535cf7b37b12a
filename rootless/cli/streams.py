"""The standard streams of a command: one place that writes to them, and asks.

A reader that goes away (`rootless ps | head -1`) is no failure of ours: writing to it raises OutputClosed, which
`main` ends quietly on. It is no OSError, so that a broken socket elsewhere is not mistaken for it.
"""

import os
import sys

from rootless.cli.terminal_text import for_stream

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import NoReturn, TextIO


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


def is_tty(stream: "TextIO") -> bool:
    """Whether *stream* is a terminal; a stream that was closed is none."""
    return not stream.closed and stream.isatty()


def terminal_size(stream: "TextIO") -> os.terminal_size:
    """The columns and lines of the terminal behind *stream*: 80 and 24 where there is none, or it does not know (0)."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns = lines = 0
    return os.terminal_size((columns or 80, lines or 24))


def write(text: str) -> None:
    """Write *text* to standard output."""
    write_to(sys.stdout, text)


def write_error(text: str) -> None:
    """Write *text* to standard error. A closed one is nowhere to complain to."""
    try:
        write_to(sys.stderr, text)
    except OutputClosed:
        return


def write_to(stream: "TextIO", text: str) -> None:
    """Write *text* to *stream*: on a terminal made visible, but for newlines and tabs, elsewhere as it is."""
    write_raw(stream, for_stream(text, stream, lines=True))


def write_raw(stream: "TextIO", text: str) -> None:
    """Write *text*, which may steer the terminal, in the stream's encoding.

    What the encoding lacks is escaped, and the bytes of names that are no UTF-8 come out as they were. Raises
    OutputClosed.
    """
    encoding = stream.encoding or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    write_bytes(stream, data)


def write_bytes(stream: "TextIO", data: bytes) -> None:
    """Write *data* as it is. Raises OutputClosed."""
    try:
        stream.flush()
        rest = memoryview(data)
        while rest:  # an unbuffered stream (PYTHONUNBUFFERED) may take a part
            rest = rest[stream.buffer.write(rest) :]
    except OSError as error:
        _give_up(stream, error)


def flush(stream: "TextIO | None" = None) -> None:
    """Have standard output, or *stream*, carry what was written. Raises OutputClosed, or OSError for a full disk."""
    stream = stream or sys.stdout
    try:
        stream.flush()
    except OSError as error:
        _give_up(stream, error)


def _give_up(stream: "TextIO", error: OSError) -> "NoReturn":
    """Raise OutputClosed where nobody reads *stream*, else *error* again.

    Its buffer still holds the text: unless it can go somewhere, the interpreter's own flush at exit fails as well.
    """
    null_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null_fd, stream.fileno())
    os.close(null_fd)
    if isinstance(error, BrokenPipeError):
        raise OutputClosed from error
    raise error


def confirm(warning: str) -> bool:
    """Ask on standard output whether to go on, as Docker's prune does; the end of input means no."""
    write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
