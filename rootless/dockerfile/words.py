"""How an instruction's text falls into words, before any variable is known.

There are four ways, and each instruction has one: at blanks alone (FROM, EXPOSE, and COPY, ADD, VOLUME if they are not
JSON); at blanks outside of quotes (ENV, LABEL, ARG); a JSON array of strings; or not at all (RUN, CMD, USER …). Quotes
and escapes stay where they are, for expand.py. Flags come first in any case, and lose their quotes here.
"""

import json
from typing import NamedTuple

from rootless.dockerfile.instructions import DockerfileError, Heredoc

_BLANKS = "\t\v\f\r "
_TO_SPACE = str.maketrans("\t\v\f\r", "    ")


def split_head(text: str) -> tuple[str, str]:
    """The keyword of an instruction, and what follows it."""
    parts = text.split(None, 1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def split_blanks(text: str) -> list[str]:
    """Words at blanks, whatever quotes there are."""
    return [word for word in text.translate(_TO_SPACE).split(" ") if word]


def split_quoted(text: str, escape: str) -> tuple[list[str], bool]:
    """Words at blanks outside of quotes, as written; and whether all quotes are closed."""
    if not ('"' in text or "'" in text or escape in text):
        return text.split(), True
    words: list[str] = []
    start, place, quote = -1, 0, ""
    while place < len(text):
        char = text[place]
        if start < 0:
            if char.isspace():
                place += 1
                continue
            start = place
        if char == escape and quote != "'":
            place += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            words.append(text[start:place])
            start = -1
        place += 1
    if start >= 0:
        words.append(text[start:])
    return [_without_last_escape(word, escape) for word in words], not quote


def _without_last_escape(word: str, escape: str) -> str:
    """An escape character that is the last of all escapes nothing, and goes."""
    count = len(word) - len(word.rstrip(escape))
    return word[:-1] if count % 2 else word


def parse_json_words(text: str) -> list[str] | None:
    """The strings of a JSON array; None where *text* is no JSON. Raises DockerfileError for elements of other types."""
    if not text.startswith("["):
        return None
    try:
        # Unlike Go, Python reads NaN and Infinity: they are no JSON.
        words = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DockerfileError("in the JSON form, all elements of the array have to be strings")
    return [_whole(word) for word in words]


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _whole(word: str) -> str:
    """*word* without halves of surrogate pairs, which JSON can write and UTF-8 cannot."""
    return word if word.isascii() else word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Flag(NamedTuple):
    """`--name=value` before the words of an instruction."""

    name: str
    value: str | None  # None: without `=`


def take_flags(text: str) -> tuple[list[Flag], str]:
    """The flags that *text* begins with, and the rest of it. `--` ends them."""
    flags: list[Flag] = []
    rest = text.lstrip()
    while rest.startswith("--"):
        word, rest = _flag_word(rest)
        if word == "--":
            break
        name, equals, value = word[2:].partition("=")
        flags.append(Flag(name, value if equals else None))
    return flags, rest.strip()


def _flag_word(text: str) -> tuple[str, str]:
    """The first word, without quotes and escapes, and the rest. A backslash escapes, whatever the directive says."""
    parts: list[str] = []
    place, quote = 0, ""
    while place < len(text):
        char = text[place]
        if char == "\\":
            place += 1
            parts.append(text[place : place + 1])
        elif quote:
            if char == quote:
                quote = ""
            else:
                parts.append(char)
        elif char in "\"'":
            quote = char
        elif char.isspace():
            break
        else:
            parts.append(char)
        place += 1
    return "".join(parts), text[place:].lstrip()


def split_csv(text: str) -> list[str]:
    """The fields of one line of comma-separated values; in double quotes, a field may have commas."""
    fields: list[str] = []
    place = 0
    while True:
        if text.startswith('"', place):
            field, place = _quoted_field(text, place + 1)
        else:
            end = text.find(",", place)
            field, place = text[place : end if end >= 0 else None], end if end >= 0 else len(text)
            if '"' in field:
                raise DockerfileError(f"a quote in the middle of {field}: quote the whole field")
        fields.append(field)
        if place >= len(text):
            return fields
        place += 1


def _quoted_field(text: str, place: int) -> tuple[str, int]:
    parts: list[str] = []
    while (end := text.find('"', place)) >= 0:
        parts.append(text[place:end])
        if text.startswith('""', end):
            parts.append('"')
            place = end + 2
            continue
        if end + 1 < len(text) and text[end + 1] != ",":
            break
        return "".join(parts), end + 1
    raise DockerfileError(f"the quotes in {text} do not match")


def parse_heredoc_word(word: str) -> Heredoc | None:
    """What `3<<-"NAME"` opens, its content still empty; None where *word* opens nothing."""
    digits, mark, rest = word.partition("<<")
    if not mark or "<" in rest or (digits and not (digits.isascii() and digits.isdigit())):
        return None
    chomp = rest.startswith("-")
    name, was_quoted = _unquoted(rest[1:] if chomp else rest)
    if not name:
        return None
    return Heredoc(name, "", not was_quoted, chomp, "", int(digits[:9] or 0))


def _unquoted(word: str) -> tuple[str, bool]:
    """*word* without quotes and escapes, and whether it had quotes; "" where it is not one word, or a quote is open."""
    words, is_closed = split_quoted(word, "\\")
    if len(words) != 1 or not is_closed:
        return "", False
    parts: list[str] = []
    quote, escaped, had_quotes = "", False, False
    for char in words[0]:
        if escaped:
            parts.append(char)
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char in "\"'" and quote in ("", char):
            quote = "" if quote else char
            had_quotes = True
        else:
            parts.append(char)
    return "".join(parts), had_quotes


def heredocs_in(line: str) -> list[Heredoc]:
    """The heredocs that the words of a line open; none where its quotes are not closed."""
    words, is_closed = split_quoted(line, "\\")
    return [opened for word in words if (opened := parse_heredoc_word(word))] if is_closed else []
