"""How a build goes on, on standard error: as lines (plain), as a live view (tty), as JSON lines (rawjson), or not.

    plain    #5 [2/3] RUN make                         tty    [+] Building 3.2s (4/6)
             #5 0.214 cc -c main.c                             => [2/3] RUN make                            2.9s
             #5 DONE 2.9s                                      => => # cc -c main.c

Any thread may report. Output of programs is hostile to terminals: what steers them is shown escaped. The live view
redraws its lines in place, never more of them than the terminal has, and never wider.
"""

import json
import sys
import threading
import time
from base64 import b64encode
from typing import TextIO

from rootless.cli import streams
from rootless.cli.terminal_text import visible
from rootless.engine.build_progress import Progress, Vertex, is_internal
from rootless.runtime.jsonlog import now

_INTERVAL = 0.1  # seconds between two drawings
_RESULT = "exporting to"  # what it says is the result, and stays
_TAIL = 6  # lines of output that the live view shows of a step

MODES = ("auto", "plain", "tty", "quiet", "rawjson")


def make_progress(mode: str, *, quiet: bool, why: bool) -> "Shown":
    """Who shows a build, as --progress says."""
    if quiet or mode == "quiet":
        return Shown()
    if mode == "rawjson":
        return RawJson(sys.stderr)
    if mode == "tty" or (mode == "auto" and streams.is_tty(sys.stderr)):
        return Live(sys.stderr, why=why)
    return Plain(sys.stderr, why=why)


class Shown(Progress):
    """Shows nothing. A context manager, as all of them are."""

    def __enter__(self) -> "Shown":  # noqa: PYI034  # typing.Self is Python 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Draw the last."""

    def begin(self, vertex: Vertex) -> None:
        """Nothing."""

    def output(self, vertex: Vertex, stream: str, data: bytes) -> None:
        """Nothing."""

    def note(self, vertex: Vertex, text: str) -> None:
        """Nothing."""

    def done(self, vertex: Vertex, *, cached: bool) -> None:
        """Nothing."""

    def failed(self, vertex: Vertex, text: str) -> None:
        """Nothing."""


class Plain(Shown):
    """A line for each thing that happens."""

    def __init__(self, stream: TextIO, *, why: bool) -> None:
        self._stream = stream
        self._why = why
        self._lock = threading.Lock()
        self._began: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self._last = 0

    def _line(self, vertex: Vertex, text: str) -> None:
        """A line about *vertex*; whenever another was spoken of before, its name first."""
        if vertex.number != self._last:
            if self._last:
                streams.write_to(self._stream, "\n")
            streams.write_to(self._stream, f"#{vertex.number} {_one_line(vertex.name)}\n")
            self._last = vertex.number
        if text:
            streams.write_to(self._stream, f"#{vertex.number} {text}\n")
        streams.flush(self._stream)

    def begin(self, vertex: Vertex) -> None:
        with self._lock:
            self._began[vertex.number] = time.monotonic()
            self._line(vertex, "")

    def output(self, vertex: Vertex, stream: str, data: bytes) -> None:
        with self._lock:
            *lines, rest = (self._partial.pop(vertex.number, b"") + data).split(b"\n")
            if rest:
                self._partial[vertex.number] = rest
            for line in lines:
                self._output_line(vertex, line)

    def _output_line(self, vertex: Vertex, line: bytes) -> None:
        self._line(vertex, f"{self._elapsed(vertex):.3f} {_text(line)}")

    def _elapsed(self, vertex: Vertex) -> float:
        return time.monotonic() - self._began.get(vertex.number, time.monotonic())

    def _flush(self, vertex: Vertex) -> None:
        if rest := self._partial.pop(vertex.number, b""):
            self._output_line(vertex, rest)

    def note(self, vertex: Vertex, text: str) -> None:
        if self._why:
            with self._lock:
                self._line(vertex, text)

    def done(self, vertex: Vertex, *, cached: bool) -> None:
        with self._lock:
            self._flush(vertex)
            self._line(vertex, "CACHED" if cached else f"DONE {self._elapsed(vertex):.1f}s")

    def failed(self, vertex: Vertex, text: str) -> None:
        with self._lock:
            self._flush(vertex)
            self._line(vertex, f"ERROR: {text}")


class RawJson(Shown):
    """A JSON object a line, with the members of BuildKit's SolveStatus."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._vertexes: dict[int, dict[str, object]] = {}

    def _write(self, document: dict[str, object]) -> None:
        streams.write_to(self._stream, json.dumps(document) + "\n")
        streams.flush(self._stream)

    def _vertex(self, vertex: Vertex, **changes: object) -> None:
        with self._lock:
            known = self._vertexes.setdefault(vertex.number, {"digest": _digest(vertex), "name": vertex.name})
            known.update(changes)
            self._write({"vertexes": [known]})

    def begin(self, vertex: Vertex) -> None:
        self._vertex(vertex, started=now())

    def output(self, vertex: Vertex, stream: str, data: bytes) -> None:
        log = {
            "vertex": _digest(vertex),
            "stream": 1 if stream == "stdout" else 2,
            "data": b64encode(data).decode("ascii"),
            "timestamp": now(),
        }
        with self._lock:
            self._write({"logs": [log]})

    def note(self, vertex: Vertex, text: str) -> None:
        self._vertex(vertex, why=text)

    def done(self, vertex: Vertex, *, cached: bool) -> None:
        self._vertex(vertex, completed=now(), **({"cached": True} if cached else {}))

    def failed(self, vertex: Vertex, text: str) -> None:
        self._vertex(vertex, completed=now(), error=text)


class _Row:
    """A vertex in the live view."""

    def __init__(self, vertex: Vertex) -> None:
        self.name = _one_line(vertex.name)
        self.began = time.monotonic()
        self.ended: float | None = None
        self.word = ""
        self.why = ""
        self.tail: list[str] = []
        self.partial = b""

    def take(self, data: bytes) -> None:
        *lines, self.partial = (self.partial + data).split(b"\n")
        self.tail = [*self.tail, *map(_text, lines)][-_TAIL:]

    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began


class Live(Shown):
    """The live view."""

    def __init__(self, stream: TextIO, *, why: bool) -> None:
        self._stream = stream
        self._why = why
        self._lock = threading.Lock()
        self._rows: dict[int, _Row] = {}
        self._drawn = 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def close(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            if self._rows:
                self._draw(everything=True)

    def _tick(self) -> None:
        while not self._over.wait(_INTERVAL):
            with self._lock:
                self._draw()

    def begin(self, vertex: Vertex) -> None:
        with self._lock:
            self._rows[vertex.number] = _Row(vertex)
            # Not earlier: meanwhile pulls have the screen, and the build forks, which only who has no threads should.
            if self._thread.ident is None and not is_internal(vertex.name):
                self._thread.start()

    def output(self, vertex: Vertex, stream: str, data: bytes) -> None:
        with self._lock:
            self._rows[vertex.number].take(data)

    def note(self, vertex: Vertex, text: str) -> None:
        with self._lock:
            self._rows[vertex.number].why = text if self._why else ""

    def done(self, vertex: Vertex, *, cached: bool) -> None:
        self._end(vertex, "CACHED " if cached else "")

    def failed(self, vertex: Vertex, text: str) -> None:
        self._end(vertex, "ERROR ")

    def _end(self, vertex: Vertex, word: str) -> None:
        with self._lock:
            row = self._rows[vertex.number]
            row.word, row.ended = word, time.monotonic()

    def _draw(self, *, everything: bool = False) -> None:
        columns, height = streams.terminal_size(self._stream)
        done = sum(1 for row in self._rows.values() if row.ended)
        word = "FINISHED" if everything and done == len(self._rows) else f"({done}/{len(self._rows)})"
        lines = [f"[+] Building {time.monotonic() - self._began:.1f}s {word}"]
        for row in self._rows.values():
            lines += self._row(row, columns, everything)
        if not everything and len(lines) > height - 1:
            lines = [lines[0], *lines[len(lines) - max(height - 2, 1) :]]
        text = "".join(f"{visible(line)[: columns - 1]}\x1b[K\n" for line in lines)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        streams.write_raw(self._stream, f"{up}{text}\x1b[J")
        streams.flush(self._stream)
        self._drawn = len(lines)

    def _row(self, row: _Row, columns: int, everything: bool) -> list[str]:
        seconds = f"{row.seconds():.1f}s"
        left = f" => {row.word}{row.name}"
        width = max(columns - 1 - len(seconds) - 1, 10)
        lines = [f"{left[:width]:{width}} {seconds}"]
        if row.why:
            lines.append(f"      {row.why}")
        if (not row.ended and not everything) or row.name.startswith(_RESULT):
            lines += [f" => => # {line}" for line in row.tail]
        return lines


def _text(line: bytes) -> str:
    return visible(line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace").replace("\t", "        "))


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _digest(vertex: Vertex) -> str:
    return f"sha256:{vertex.number:064x}"
