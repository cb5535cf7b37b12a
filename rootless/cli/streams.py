"""The standard streams of a command: one place that writes to them, and asks.

A reader that goes away (`rootless ps | head -1`) is no failure of ours: writing to it raises OutputClosed, which
`main` ends quietly on. It is no OSError, so that a broken socket elsewhere is not mistaken for it.
"""

import os
import sys
from typing import TextIO

from rootless.cli.terminal_text import for_stream


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


def is_tty(stream: TextIO) -> bool:
    """Whether *stream* is a terminal; a stream that was closed is none."""
    return not stream.closed and stream.isatty()


def terminal_width(stream: TextIO, default: int = 80) -> int:
    """The columns of the terminal behind *stream*, or *default* where there is none or it does not know (0)."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or default
    except (OSError, ValueError):
        return default


def write(text: str) -> None:
    """Write *text* to standard output: made visible line by line on a terminal, byte for byte elsewhere."""
    _write(sys.stdout, for_stream(text, sys.stdout, lines=True))


def write_error(text: str) -> None:
    """Write *text* to standard error, likewise. A closed standard error is nowhere to complain to."""
    try:
        _write(sys.stderr, for_stream(text, sys.stderr, lines=True))
    except OutputClosed:
        return


def flush() -> None:
    """Have standard output carry what was written. Raises OutputClosed, or OSError when the disk is full."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The buffer still holds the text: unless it can go somewhere, the interpreter's own flush at exit fails again.
        null_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null_fd, sys.stdout.fileno())
        os.close(null_fd)
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from error
        raise


def confirm(warning: str) -> bool:
    """Ask on standard output whether to go on, as Docker's prune does; the end of input means no."""
    write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write(stream: TextIO, text: str) -> None:
    """Write *text* in the stream's encoding. What the encoding lacks is escaped, never an exception."""
    encoding = stream.encoding or "utf-8"
    try:
        data = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode(encoding, "backslashreplace")
    try:
        stream.flush()
        stream.buffer.write(data)
    except BrokenPipeError as error:
        raise OutputClosed from error
