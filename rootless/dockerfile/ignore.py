"""Patterns of .dockerignore and --exclude: which paths are left out.

The last pattern that matches a path, or a directory above it, decides; `!` in front of a pattern takes paths in again.
In a pattern `*` and `?` stop at slashes, `**` does not: `**/` is any number of directories, none included, and `**` at
the end is everything. A pattern is relative to the root, whether it begins with a slash or not; a slash at its end
means nothing. `[a-z]` and `[^a-z]` are as in Go's path.Match, and a backslash takes the meaning of what follows.

The patterns are hostile, and a build asks for every file: most patterns are compared as plain text, those with `*` in
the usual places become regular expressions, and for others every place in the pattern is kept at once, as in glob.py.
"""

import posixpath
import re
from collections.abc import Callable, Iterable

from rootless.dockerfile.instructions import DockerfileError

Matches = Callable[[str], bool]

_MAGIC = frozenset("*?[]\\")
_REMEMBERED = 4096
# Tokens of a pattern.
_LITERAL, _CLASS, _STAR, _DIRECTORIES, _EVERYTHING = range(5)
_Class = tuple[bool, tuple[tuple[str, str], ...]]  # whether it is negated, ranges
_Token = tuple[int, str, _Class | None]
_NOT_SLASH: _Class = (True, (("/", "/"),))


class Patterns:
    """Patterns, in their order."""

    __slots__ = ("_above", "_again", "_patterns")

    def __init__(self, patterns: Iterable[tuple[str, bool]]) -> None:
        """*patterns* are (pattern, whether it takes in again), cleaned."""
        self._patterns = [(_matcher(pattern), again) for pattern, again in patterns]
        self._again = [_literal_start(pattern) for pattern, again in patterns if again]
        self._above: dict[str, int] = {"": -1}

    @classmethod
    def parse(cls, text: str, name: str = ".dockerignore") -> "Patterns":
        """The patterns in *text*, one on each line; a line with `#` first is a comment. Raises DockerfileError."""
        found: list[tuple[str, bool]] = []
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            if not line.startswith("#") and line.strip():
                found.append(_cleaned(line, f"{name}:{number}"))
        return cls(found)

    @classmethod
    def of(cls, patterns: Iterable[str]) -> "Patterns":
        """Each of *patterns* as it is given. Raises DockerfileError."""
        return cls([_cleaned(pattern, "--exclude") for pattern in patterns if pattern.strip()])

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str, is_directory: bool = False) -> bool:
        """Whether *path*, relative and without `.` and `..`, is left out. What it is makes no difference."""
        number = self._decider(path)
        return number >= 0 and not self._patterns[number][1]

    def may_include_below(self, path: str) -> bool:
        """Whether something in the directory *path*, which is left out itself, may be taken in again."""
        below = f"{path}/"
        return any(_meet(start, is_open, below) for start, is_open in self._again)

    def _decider(self, path: str) -> int:
        """The number of the last pattern that matches *path* or a directory above it; -1 for none."""
        slash = path.rfind("/")
        above = self._decider_of_directory(path[:slash]) if slash > 0 else -1
        for number in range(len(self._patterns) - 1, above, -1):
            if self._patterns[number][0](path):
                return number
        return above

    def _decider_of_directory(self, path: str) -> int:
        known = self._above.get(path)
        if known is None:
            known = self._decider(path)
            if len(self._above) >= _REMEMBERED:
                self._above.clear()
            self._above[path] = known
        return known


def _cleaned(line: str, where: str) -> tuple[str, bool]:
    """A pattern as its text means it, and whether it takes in again. Raises DockerfileError."""
    pattern = line.strip()
    again = pattern.startswith("!")
    if again:
        pattern = pattern[1:].strip()
    if not pattern:
        raise DockerfileError(f"{where}: there is nothing after the !")
    pattern = posixpath.normpath(pattern).replace("//", "/")
    if len(pattern) > 1:
        pattern = pattern.removeprefix("/")
    try:
        _tokens(pattern)
    except ValueError as error:
        raise DockerfileError(f"{where}: {line.strip()[:80]}: {error}") from None
    return pattern, again


def _literal_start(pattern: str) -> tuple[str, bool]:
    """What every match of *pattern* begins with, and whether anything may follow."""
    place = next((place for place, char in enumerate(pattern) if char in _MAGIC), -1)
    return (pattern, False) if place < 0 else (pattern[:place], True)


def _meet(start: str, is_open: bool, below: str) -> bool:
    """Whether a path may begin both with *start* and with *below*."""
    return start.startswith(below) or (is_open and below.startswith(start))


# From a pattern to a function


def _matcher(pattern: str) -> Matches:
    if not _MAGIC.intersection(pattern):
        return pattern.__eq__
    tokens = _tokens(pattern)
    body = pattern[2:]
    if pattern.startswith("**") and not _MAGIC.intersection(body):
        return _ends_with(body)
    if pattern.endswith("**") and not _MAGIC.intersection(pattern[:-2]):
        return _begins_with(pattern[:-2])
    text = _regular_expression(tokens)
    return _Places(tokens).matches if text is None else _full_match(text)


def _ends_with(suffix: str) -> Matches:
    if suffix.startswith("/"):
        return lambda path: path.endswith(suffix) or path == suffix[1:]
    return lambda path: path.endswith(suffix)


def _begins_with(prefix: str) -> Matches:
    return lambda path: path.startswith(prefix)


def _full_match(text: str) -> Matches:
    match = re.compile(text, re.DOTALL).fullmatch
    return lambda path: match(path) is not None


def _tokens(pattern: str) -> list[_Token]:
    """The parts of *pattern*. Raises ValueError where Go's path.Match would not read it."""
    tokens: list[_Token] = []
    place = 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*":
            if not pattern.startswith("*", place):
                tokens.append((_STAR, "", None))
                continue
            place += 1 + pattern.startswith("/", place + 1)
            tokens.append((_EVERYTHING if place >= len(pattern) else _DIRECTORIES, "", None))
        elif char == "?":
            tokens.append((_CLASS, "", _NOT_SLASH))
        elif char == "[":
            found, place = parse_class(pattern, place)
            tokens.append((_CLASS, "", found))
        else:
            if char == "\\":
                char, place = _escaped(pattern, place)
            tokens.append((_LITERAL, char, None))
    return tokens


def _escaped(pattern: str, place: int) -> tuple[str, int]:
    if place >= len(pattern):
        raise ValueError("there is nothing after the backslash")
    return pattern[place], place + 1


def parse_class(pattern: str, place: int) -> tuple[_Class, int]:
    """The class whose bracket was just read, and where it ends. Raises ValueError."""
    negated = pattern.startswith("^", place)
    place += negated
    ranges: list[tuple[str, str]] = []
    while True:
        if pattern.startswith("]", place) and ranges:
            return (negated, tuple(ranges)), place + 1
        first, place = _class_character(pattern, place)
        last = first
        if pattern.startswith("-", place):
            last, place = _class_character(pattern, place + 1)
        if last < first:
            raise ValueError(f"the range {first}-{last} is empty")
        ranges.append((first, last))


def _class_character(pattern: str, place: int) -> tuple[str, int]:
    if place >= len(pattern) or pattern[place] in "-]":
        raise ValueError("a bracket is not closed, or what is in it cannot be read")
    return _escaped(pattern, place + 1) if pattern[place] == "\\" else (pattern[place], place + 1)


def _has(found: _Class, char: str) -> bool:
    negated, ranges = found
    return any(first <= char <= last for first, last in ranges) != negated


def _regular_expression(tokens: list[_Token]) -> str | None:
    """An expression for a pattern with which no path takes long; None where that is not certain.

    Where every name in a pattern has one `*`, there is only one way to match it. A second one, and `**/`, may be there
    once: the ways are then as many as a name has letters, or a path has slashes.
    """
    parts: list[str] = []
    before, stars, twice, directories = "/", 0, 0, 0
    for kind, char, found in tokens:
        stars = 0 if char == "/" else stars + (kind == _STAR)
        twice += kind == _STAR and stars > 1
        directories += kind == _DIRECTORIES
        if (kind == _DIRECTORIES and before != "/") or (found and found != _NOT_SLASH and _has(found, "/")):
            return None
        before = char
        if kind == _LITERAL:
            parts.append(re.escape(char))
        elif found:
            parts.append(class_expression(found))
        else:
            parts.append({_STAR: "[^/]*", _DIRECTORIES: "(?:.*/)?", _EVERYTHING: ".*"}[kind])
    return "".join(parts) if twice <= 1 and directories <= 1 else None


def class_expression(found: _Class) -> str:
    """The same as a regular expression has it."""
    negated, ranges = found
    body = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in ranges)
    return f"[{'^' * negated}{body}]"


class _Places:
    """All places in a pattern that a path so far can have led to, as bits: bit n is what follows n tokens."""

    __slots__ = ("_accepting", "_characters", "_classes", "_directories", "_everything", "_skips", "_stars")

    def __init__(self, tokens: list[_Token]) -> None:
        self._characters: dict[str, int] = {}
        self._classes: list[tuple[int, _Class]] = []
        kinds = dict.fromkeys(range(5), 0)
        for number, (kind, char, found) in enumerate(tokens):
            bit = 1 << number
            kinds[kind] |= bit
            if found:
                self._classes.append((bit, found))
            elif kind == _LITERAL:
                self._characters[char] = self._characters.get(char, 0) | bit
        self._stars, self._everything = kinds[_STAR], kinds[_EVERYTHING]
        self._directories = kinds[_DIRECTORIES]
        self._skips = self._stars | self._everything | self._directories
        self._accepting = 1 << len(tokens)

    def matches(self, path: str) -> bool:
        places, inside = self._closed(1), 0  # inside: in the middle of a name that `**/` has to take to its slash
        for char in path:
            inside |= places & self._directories
            moved = (places & self._fitting(char)) << 1 | (places & self._everything)
            moved |= inside << 1 if char == "/" else places & self._stars
            places = self._closed(moved)
        return bool(places & self._accepting)

    def _fitting(self, char: str) -> int:
        """The places where *char* may stand."""
        bits = self._characters.get(char, 0)
        for bit, found in self._classes:
            if _has(found, char):
                bits |= bit
        return bits

    def _closed(self, places: int) -> int:
        """*places*, and those behind wildcards, which may stand for nothing."""
        while (more := places | ((places & self._skips) << 1)) != places:
            places = more
        return places
