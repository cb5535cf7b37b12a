"""The lines of a Dockerfile, put together to instructions: directives, comments, continuations, heredocs.

A line goes on if the escape character is its last, but for blanks, and not itself escaped. What goes on is joined as it
stands, its indentation included; comments in between are dropped, and so are empty lines. After an instruction that
may have them come its heredocs, one after the other, each up to a line that is its name:

    COPY <<a <<"b" /place/       →  text "COPY <<a <<"b" /place/", heredocs a and b
    …
    a
    …
    b

Only here are lines counted. What an instruction means is for parse.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from rootless.dockerfile.instructions import Directives, DockerfileError, Finding, Heredoc, Lines

_BOM = "\ufeff"
_BLANKS = " \t"
_DIRECTIVES = ("syntax", "escape", "check")


class Logical(NamedTuple):
    """An instruction as text."""

    text: str  # on one line, trimmed
    lines: Lines
    heredocs: tuple[Heredoc, ...]
    comment: str  # the last line of the comment right above it; "" is none


# Gives the heredocs that a line opens, their content still empty.
Opened = Callable[[str], list[Heredoc]]


class _Source:
    """The physical lines, taken one by one."""

    __slots__ = ("lines", "place")

    def __init__(self, text: str) -> None:
        self.lines = text.removeprefix(_BOM).split("\n")
        if not self.lines[-1]:
            self.lines.pop()
        self.place = 0  # of the next line, which makes it the number of the last one taken

    def take(self) -> str | None:
        if self.place >= len(self.lines):
            return None
        self.place += 1
        return self.lines[self.place - 1]


def parse_directives(text: str, where: str) -> Directives:
    """The directives: lines `# name=value` before everything else, each at most once. Raises DockerfileError."""
    found: dict[str, str] = {}
    for number, line in enumerate(_Source(text[:65536]).lines, 1):
        name, value = _directive(line)
        if not name:
            break
        if name in found:
            raise DockerfileError(f"{where}:{number}: the parser directive {name} may be given only once")
        if name == "escape" and value not in ("\\", "`"):
            raise DockerfileError(f"{where}:{number}: escape={value}: the escape character is \\ or `")
        found[name] = value
    return Directives(found.get("syntax", ""), found.get("escape", "\\"), found.get("check", ""))


def _directive(line: str) -> tuple[str, str]:
    line = line.strip()
    if not line.startswith("#"):
        return "", ""
    name, _, value = line[1:].partition("=")
    name = name.strip().lower()
    return (name, value.strip()) if name in _DIRECTIVES and value.strip() else ("", "")


def read_instructions(text: str, escape: str, opened: Opened, where: str) -> tuple[list[Logical], list[Finding]]:
    """The instructions in *text*, and where continuations have empty lines. Raises DockerfileError."""
    source = _Source(text)
    found: list[Logical] = []
    findings: list[Finding] = []
    comment = ""
    while (line := source.take()) is not None:
        line = line.strip()
        if not line or line[0] == "#":
            comment = "" if _directive(line)[0] else line[1:].strip()
            continue
        first = source.place
        joined, has_gap = _continued(source, line, escape)
        if has_gap:
            findings.append(Finding("NoEmptyContinuation", source.place, ""))
        if not joined:
            continue
        heredocs = tuple(_fill(source, opening, f"{where}:{first}") for opening in _openings(joined, opened))
        found.append(Logical(joined, Lines(first, source.place), heredocs, comment))
        comment = ""
    return found, findings


def _openings(line: str, opened: Opened) -> list[Heredoc]:
    return opened(line) if "<<" in line else []


def _goes_on(line: str, escape: str) -> str | None:
    """*line* without its escape character at the end; None where it has none."""
    line = line.rstrip(_BLANKS)
    if not line.endswith(escape) or line.endswith(escape * 2):
        return None
    return line[:-1]


def _continued(source: _Source, line: str, escape: str) -> tuple[str, bool]:
    """*line* with all lines that it goes on with, and whether there were empty ones in between."""
    begun = _goes_on(line, escape)
    if begun is None:
        return line, False
    parts, has_gap = [begun], False
    while (line_or_end := source.take()) is not None:
        line = line_or_end.rstrip("\r")
        start = line.lstrip()
        if not start or start[0] == "#":
            has_gap = has_gap or not start
            continue
        begun = _goes_on(line, escape)
        if begun is None:
            parts.append(line)
            break
        parts.append(begun)
    return "".join(parts).strip(), has_gap


def _fill(source: _Source, opening: Heredoc, where: str) -> Heredoc:
    """*opening* with its content. Raises DockerfileError where the file ends before it does."""
    begin = source.place
    while (line := source.take()) is not None:
        line = line.rstrip("\r")
        if (line.lstrip("\t") if opening.chomp else line) == opening.name:
            taken = source.lines[begin : source.place - 1]
            raw = "".join(f"{line}\n" for line in taken)
            content = "".join(f"{line.lstrip(chr(9))}\n" for line in taken) if opening.chomp else raw
            return opening._replace(content=content, raw=raw)
    raise DockerfileError(
        f"{where}: the heredoc <<{opening.name} has no end", hint=f"put a line {opening.name} after its content"
    )
