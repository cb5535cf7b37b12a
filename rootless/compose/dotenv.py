"""`.env` files, as Compose reads them: for interpolation, and as `env_file` of a service.

    NAME=value  # a comment           up to the comment, which a blank comes before; blanks around are gone
    NAME='value'                      as it is, over several lines too
    NAME="value\\n"                    with \\n \\r \\t \\" \\\\ \\$, over several lines too
    export NAME=value, NAME: value    the same
    NAME                              the value that NAME has outside; nothing, where it has none

Without quotes and in double ones, variables are expanded as in Compose files: those of the file so far, then those
outside. In the format `raw`, which is Docker's `--env-file`, all that follows the equals sign is the value.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from rootless.compose.interpolate import InterpolationError, Lookup, interpolate
from rootless.compose.nodes import ComposeError, Place

_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]+")
_BLANKS = " \t\v\f\r\x85\xa0"
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
RAW = "raw"


class Setting(NamedTuple):
    """A line that sets a variable; *value* is None for one that stands there without a value."""

    name: str
    value: str | None


def parse_env(text: str, file: str, lookup: Lookup, form: str = "") -> list[Setting]:
    """The settings of a file, in order. *lookup* finds the variables outside. Raises ComposeError."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if form == RAW:
        return _parse_raw(text, file)
    if form:
        raise ComposeError(f"{file}: there is no format {form!r} of env_file", hint=f"leave it out, or use {RAW}")
    return _Reader(text, file, lookup).settings()


def _parse_raw(text: str, file: str) -> list[Setting]:
    settings = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.lstrip(" \t")
        if not line or line[0] == "#":
            continue
        name, equals, value = line.partition("=")
        if not name or any(blank in name for blank in " \t"):
            raise ComposeError(f"{Place(file, number)}: invalid variable name {name!r}")
        settings.append(Setting(name, value if equals else None))
    return settings


class _Reader:
    def __init__(self, text: str, file: str, lookup: Lookup) -> None:
        self._text = text
        self._file = file
        self._outside = lookup
        self._place = 0
        self._values: dict[str, str] = {}

    def settings(self) -> list[Setting]:
        """All of them, to the end of the text."""
        found = []
        while self._skip_to_setting():
            setting = self._setting()
            found.append(setting)
            if setting.value is not None:
                self._values[setting.name] = setting.value
        return found

    def _lookup(self, name: str) -> str | None:
        outside = self._outside(name)
        return self._values.get(name) if outside is None else outside

    def _wrong(self, problem: str, place: int | None = None) -> ComposeError:
        line = self._text.count("\n", 0, self._place if place is None else place) + 1
        return ComposeError(f"{Place(self._file, line)}: {problem}")

    def _skip_to_setting(self) -> bool:
        text = self._text
        while self._place < len(text):
            if text[self._place] == "#":
                self._place = self._end_of_line()
            elif text[self._place].isspace():
                self._place += 1
            else:
                return True
        return False

    def _end_of_line(self) -> int:
        end = self._text.find("\n", self._place)
        return len(self._text) if end < 0 else end

    def _skip_blanks(self) -> None:
        while self._text[self._place : self._place + 1] and self._text[self._place] in _BLANKS:
            self._place += 1

    def _setting(self) -> Setting:
        self._skip_export()
        name = _NAME.match(self._text, self._place)
        if name is None:
            raise self._wrong(f"unexpected character {self._text[self._place]!r} in a variable name")
        self._place = name.end()
        self._skip_blanks()
        after = self._text[self._place : self._place + 1]
        if after in ("", "\n", "#"):
            return Setting(name.group(), self._outside(name.group()))
        if after not in "=:":
            raise self._wrong(f"unexpected character {after!r} after the variable name {name.group()!r}")
        self._place += 1
        self._skip_blanks()
        return Setting(name.group(), self._value())

    def _skip_export(self) -> None:
        word = "export"
        if self._text.startswith(word, self._place) and self._text[self._place + len(word) :][:1] in (" ", "\t"):
            self._place += len(word)
            self._skip_blanks()

    def _value(self) -> str:
        quote = self._text[self._place : self._place + 1]
        if quote in ("'", '"') and quote:
            return self._quoted(quote)
        end = self._end_of_line()
        value = self._text[self._place : end]
        comment = re.search(r"(^|\s)#", value)
        start, self._place = self._place, end
        return self._expand((value[: comment.start()] if comment else value).strip(), start)

    def _quoted(self, quote: str) -> str:
        start = place = self._place
        place += 1
        while place < len(self._text) and self._text[place] != quote:
            place += 2 if self._text[place] == "\\" else 1
        if place >= len(self._text):
            raise self._wrong("a quote is not closed", start)
        value = self._text[start + 1 : place]
        self._place = place + 1
        self._check_rest()
        if quote == "'":
            return value.replace("\\'", "'")
        return self._expand(_unescape(value), start)

    def _check_rest(self) -> None:
        self._skip_blanks()
        after = self._text[self._place : self._place + 1]
        if after not in ("", "\n", "#"):
            raise self._wrong(f"unexpected {after!r} behind the closing quote")

    def _expand(self, text: str, place: int) -> str:
        try:
            return interpolate(text, self._lookup)
        except InterpolationError as error:
            raise self._wrong(str(error), place) from error


def _unescape(text: str) -> str:
    """The text between double quotes; an escaped dollar sign is one for interpolation, too."""
    return re.sub(r"\\(.)", _escaped, text, flags=re.DOTALL)


def _escaped(match: "re.Match[str]") -> str:
    char = match.group(1)
    return "$$" if char == "$" else _ESCAPES.get(char, match.group())


def merge_env(files: "list[list[Setting]]", outside: Callable[[str], "str | None"]) -> dict[str, str]:
    """What several files set, later ones over earlier ones, and the variables *outside* over all of them."""
    values: dict[str, str] = {}
    for settings in files:
        for name, value in settings:
            found = outside(name)
            if found is not None:
                values[name] = found
            elif value is not None:
                values[name] = value
    return values
