"""What compose shows: what becomes of networks and containers, on stderr, and the output of services with prefixes.

On a terminal each thing has one line, which changes; elsewhere each change is a line. Output of services is prefixed
by the container's name without the project's, in a colour of its own.
"""

import sys
from collections.abc import Iterable

from rootless.cli import streams
from rootless.cli.command import Options
from rootless.cli.compose_options import group_of, uses_color
from rootless.cli.terminal_text import visible
from rootless.engine.compose_labels import Member
from rootless.engine.logs import Entry

_COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_BUSY = ("ing", "Recreate")
_UP, _CLEAR = "\x1b[{}A", "\x1b[2K"


class Progress:
    """Shows what becomes of things; called with what, and how it is now."""

    def __init__(self, options: Options) -> None:
        group = group_of(options, dry_run=True)
        mode = group.progress
        self._start = "DRY-RUN MODE - " if group.dry_run else ""
        is_terminal = streams.is_tty(sys.stderr) and uses_color(options, no_color=False, is_terminal=True)
        self._quiet = mode == "quiet"
        self._redraws = not group.dry_run and (mode == "tty" or (mode == "auto" and is_terminal))
        self._statuses: dict[str, str] = {}
        self._drawn = 0

    def __call__(self, what: str, status: str) -> None:
        """*what* is *status* now."""
        if self._quiet or self._statuses.get(what) == status:
            return
        self._statuses[what] = status
        if self._redraws:
            self._draw()
        else:
            streams.write_error(f" {self._start}{visible(what)}  {visible(status)}\n")
            streams.flush(sys.stderr)

    def _draw(self) -> None:
        size = streams.terminal_size(sys.stderr)
        lines = [self._line(what, status, size.columns) for what, status in self._statuses.items()]
        shown = lines[-(size.lines - 2) :]
        up = _UP.format(self._drawn) if self._drawn else ""
        streams.write_raw(sys.stderr, up + "".join(f"{_CLEAR}{line}\n" for line in shown))
        streams.flush(sys.stderr)
        self._drawn = len(shown)

    @staticmethod
    def _line(what: str, status: str, columns: int) -> str:
        mark = "⠿" if status.endswith(_BUSY) else "✔"
        return f" {mark} {visible(what)}  {visible(status)}"[: columns - 1]

    def finish(self) -> None:
        """What comes next is between lines that others write: no line is gone back to."""
        self._statuses, self._drawn, self._redraws = {}, 0, False


class Output:
    """Shows entries of containers' logs, with prefixes."""

    def __init__(
        self, options: Options, project: str, *, prefix: bool = True, no_color: bool = False, timestamps: bool = False
    ) -> None:
        self._project = project
        self._prefix = prefix
        self._timestamps = timestamps
        self._colors = uses_color(options, no_color=no_color, is_terminal=streams.is_tty(sys.stdout))
        self._width = 0
        self._names: dict[str, tuple[str, int]] = {}
        self._open: str | None = None  # the container whose line is not complete yet

    def expect(self, found: Iterable[Member]) -> None:
        """Make the prefixes as wide as those of all these containers."""
        for member in found:
            self._name(member)

    def _name(self, member: Member) -> tuple[str, int]:
        if member.id not in self._names:
            name = member.name.removeprefix(f"{self._project}-")
            self._names[member.id] = (name, _COLORS[len(self._names) % len(_COLORS)])
            self._width = max(self._width, len(name))
        return self._names[member.id]

    def __call__(self, member: Member, entry: Entry) -> None:
        """Show an entry."""
        stream = sys.stderr if entry.stream == "stderr" else sys.stdout
        stamp = f"{entry.time} " if self._timestamps else ""
        whole = entry.text.endswith("\n")
        start = "" if self._open == member.id else ("\n" if self._open else "") + self._shown_prefix(member) + stamp
        self._open = None if whole else member.id
        # The program's own output: as it is, also on a terminal.
        streams.write_bytes(stream, f"{start}{entry.text}".encode("utf-8", "surrogateescape"))
        streams.flush(stream)

    def _shown_prefix(self, member: Member) -> str:
        if not self._prefix:
            return ""
        name, color = self._name(member)
        padded = f"{visible(name).ljust(self._width)}  | "
        return f"\x1b[{color}m{padded}\x1b[0m" if self._colors else padded

    def line(self, text: str) -> None:
        """A line of our own."""
        start, self._open = ("\n" if self._open else ""), None
        streams.write_error(f"{start}{text}\n")
        streams.flush(sys.stderr)
