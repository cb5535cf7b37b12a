"""Variables in the values of a Compose file.

    $NAME ${NAME}                     its value; the empty string where it is not set
    ${NAME:-word} ${NAME-word}        word, where it is not set (or, with the colon, empty)
    ${NAME:?word} ${NAME?word}        the same, as an error that says word
    ${NAME:+word} ${NAME+word}        word, where it is set (and, with the colon, not empty)
    $$                                a dollar sign

A word may have variables again, in braces or without. Text is taken apart once, into a tree, and the tree is looked at
twice: for its value, and for the variables in it (`config --variables`).
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rootless.errors import InvalidInput

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_MOST_NESTED = 50

Lookup = Callable[[str], "str | None"]


class InterpolationError(InvalidInput):
    """A dollar sign that begins nothing, or a variable that must be set and is not."""


class Variable(NamedTuple):
    """A variable; *operator* is one of the table above without the name, or "" for the bare value."""

    name: str
    operator: str = ""
    word: "tuple[Part, ...]" = ()


Part = str | Variable


def parse(text: str) -> tuple[Part, ...]:
    """Literal texts and variables, in order. Raises InterpolationError."""
    return _parse(text, 0, closing=False, depth=0)[0]


def _parse(text: str, place: int, *, closing: bool, depth: int) -> tuple[tuple[Part, ...], int]:
    """The parts from *place* on, up to the end or, with *closing*, to the brace that closes; and where that is."""
    if depth > _MOST_NESTED:
        raise InterpolationError(f"variables nested more than {_MOST_NESTED} deep")
    parts: list[Part] = []
    literal = place
    while place < len(text):
        if closing and text[place] == "}":
            break
        if text[place] != "$":
            place += 1
            continue
        parts.append(text[literal:place])
        part, place = _dollar(text, place, depth)
        parts.append(part)
        literal = place
    parts.append(text[literal:place])
    return tuple(part for part in parts if part != ""), place


def _dollar(text: str, place: int, depth: int) -> tuple[Part, int]:
    """What the dollar sign at *place* begins, and where that ends."""
    after = text[place + 1 : place + 2]
    if after == "$":
        return "$", place + 2
    if after == "{":
        return _braced(text, place + 2, depth)
    name = _NAME.match(text, place + 1)
    if name is None:
        raise InterpolationError(f"invalid interpolation format: {text!r}", hint="write $$ for a dollar sign")
    return Variable(name.group()), name.end()


def _braced(text: str, place: int, depth: int) -> tuple[Variable, int]:
    name = _NAME.match(text, place)
    if name is None:
        raise InterpolationError(f"invalid interpolation format: {text!r}", hint="write $$ for a dollar sign")
    place = name.end()
    operator = next((operator for operator in _OPERATORS if text.startswith(operator, place)), "")
    word: tuple[Part, ...] = ()
    if operator:
        word, place = _parse(text, place + len(operator), closing=True, depth=depth + 1)
    if text[place : place + 1] != "}":
        raise InterpolationError(f"invalid interpolation format: {text!r}", hint="a brace is not closed, or in the way")
    return Variable(name.group(), operator, word), place + 1


def value(parts: tuple[Part, ...], lookup: Lookup, unset: Callable[[str], None] = lambda name: None) -> str:
    """The text with its variables' values; *unset* is told of those that are bare and not set."""
    return "".join(part if isinstance(part, str) else _value(part, lookup, unset) for part in parts)


def _value(variable: Variable, lookup: Lookup, unset: Callable[[str], None]) -> str:
    found = lookup(variable.name)
    operator = variable.operator
    if not operator:
        if found is None:
            unset(variable.name)
        return found or ""
    there = bool(found) if operator[0] == ":" else found is not None
    if operator[-1] == "+":
        return value(variable.word, lookup, unset) if there else ""
    if there:
        return found or ""
    word = value(variable.word, lookup, unset)
    if operator[-1] == "?":
        raise InterpolationError(
            f"required variable {variable.name} is missing a value" + (f": {word}" if word else "")
        )
    return word


def interpolate(text: str, lookup: Lookup, unset: Callable[[str], None] = lambda name: None) -> str:
    """*text* with its variables' values. Raises InterpolationError."""
    return value(parse(text), lookup, unset) if "$" in text else text


def variables(parts: tuple[Part, ...]) -> Iterator[Variable]:
    """All variables, those in words of others included."""
    for part in parts:
        if isinstance(part, Variable):
            yield part
            yield from variables(part.word)


def source(parts: tuple[Part, ...]) -> str:
    """A text that parse() takes apart into *parts* again."""
    return "".join(part.replace("$", "$$") if isinstance(part, str) else _source(part) for part in parts)


def _source(variable: Variable) -> str:
    return f"${{{variable.name}{variable.operator}{source(variable.word)}}}"
