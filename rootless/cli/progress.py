"""The progress of a pull: a line for each layer, redrawn in place on a terminal; elsewhere a line for each new state.

    a1b2c3d4e5f6: Downloading [====================>                              ]  12.3MB/30.1MB
    0123456789ab: Pull complete

Any thread may report; drawing happens in the thread that reports, ten times a second at most. What is drawn is never
wider than the terminal and never more lines than it has: a line that wrapped or scrolled away could not be redrawn.
The sequences are ECMA-48's: cursor up (CUU), erase to the end of the line (EL) and of the screen (ED).
"""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, TextIO

from rootless.cli import streams
from rootless.cli.terminal_text import visible
from rootless.cli.values import human_size

_INTERVAL = 0.1  # seconds between two drawings
_BAR = 50  # characters
_NARROWEST_BAR = 10


class _State(NamedTuple):
    """What a layer is at: a word, and how much of it is done, in bytes. total is None where that has no end known."""

    text: str
    done: int | None = None
    total: int | None = None


class Progress:
    """Shows what is going on, on *stream*. A context manager: leaving it draws the last states."""

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stdout
        self._quiet = quiet
        self._in_place = not quiet and streams.is_tty(self._stream)
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}  # by id, in the order of the lines
        self._drawn: list[str] = []  # the lines on the terminal that can be redrawn, the cursor being below them
        self._first = 0  # the line that is drawn first, where there are more than the terminal has
        self._changed = ""  # the id that changed last since the last drawing
        self._last_drawn = float("-inf")

    def __enter__(self) -> "Progress":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._in_place or isinstance(error, streams.OutputClosed):
            return
        with self._lock:
            if self._changed or len(self._drawn) < len(self._states):
                self._draw(everything=True)

    def status(self, identifier: str, text: str) -> None:
        """Say that *identifier*, a layer, is in the state *text*: "Waiting", "Pull complete", "Already exists"."""
        self._show(identifier, _State(text))

    def advance(self, identifier: str, done: int, total: int | None, text: str) -> None:
        """Say that *text*, "Downloading", is done for *done* bytes of *total*; None where nobody knows how many."""
        self._show(identifier, _State(text, done, total) if self._in_place else _State(text))

    def line(self, text: str) -> None:
        """Print a line of its own, above the layers' lines that change."""
        with self._lock:
            if self._in_place:
                streams.write_raw(self._stream, f"{self._up()}{visible(text)}\x1b[J\n")
                self._drawn = []
                self._draw()
            elif not self._quiet:
                self._print(text)

    def _show(self, identifier: str, state: _State) -> None:
        """Show a new state; where another was drawn a moment ago, the next report or the end draws this one too."""
        with self._lock:
            if self._states.get(identifier) == state:
                return
            self._states[identifier] = state
            self._changed = identifier
            if self._in_place and self._clock() - self._last_drawn >= _INTERVAL:
                self._draw()
            elif not self._in_place and not self._quiet:
                self._print(f"{identifier}: {state.text}")

    def _print(self, line: str) -> None:
        streams.write_to(self._stream, f"{line}\n")
        streams.flush(self._stream)

    def _draw(self, *, everything: bool = False) -> None:
        """Bring the lines on the terminal up to date: those that fit around the one that changed last, or all."""
        columns, rows = streams.terminal_size(self._stream)
        lines = [_line(identifier, state, columns - 1) for identifier, state in self._states.items()]
        height = len(lines) if everything else max(rows - 1, 1)
        focus = list(self._states).index(self._changed) if self._changed else self._first
        self._first = 0 if everything else max(min(self._first, focus), focus - height + 1, 0)
        lines = lines[self._first :][:height]
        parts = [self._up()]
        for place, line in enumerate(lines):
            same = place < len(self._drawn) and self._drawn[place] == line
            parts.append("\n" if same else f"{line}\x1b[K\n")
        streams.write_raw(self._stream, "".join(parts))
        streams.flush(self._stream)
        self._drawn = lines
        self._changed = ""
        self._last_drawn = self._clock()

    def _up(self) -> str:
        """What brings the cursor to the first line that was drawn."""
        return f"\x1b[{len(self._drawn)}A" if self._drawn else ""


def _line(identifier: str, state: _State, columns: int) -> str:
    """The line of a layer, in *columns* at most: with a bar where there is something to measure, and room."""
    text = f"{identifier}: {state.text}"
    if state.done is not None and state.total:
        done = min(state.done, state.total)
        numbers = f"{human_size(done):>7}/{human_size(state.total)}"
        width = min(_BAR, columns - len(f"{text} [] {numbers}"))
        filled = width * done // state.total
        bar = f"{'=' * filled}>"[:width]
        text = f"{text} [{bar:{width}}] {numbers}" if width >= _NARROWEST_BAR else f"{text} {numbers}"
    elif state.done is not None:
        text = f"{text} {human_size(state.done):>7}"
    return visible(text)[:columns]
