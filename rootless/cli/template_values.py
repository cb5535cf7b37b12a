"""What Go makes of values in a template: how it prints, compares, indexes and formats them.

The values are those of a JSON document: dict, list, str, int, float, bool and None. Nothing here looks at an attribute
of a value, so a template reaches keys and elements and no Python object behind them. Text is counted in bytes of UTF-8
as in Go; a cut inside a character leaves its bytes (surrogateescape). Sources: the documentation of Go's text/template
and fmt, docker/cli's templates package; the tests hold what Docker 28 answered.
"""

import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import quote_plus

# No text that a function makes is longer (characters): a template of a line could ask for terabytes.
LONGEST_TEXT = 1 << 24


class Missing:
    """The type of MISSING, the value of a map's key that is not there."""

    __slots__ = ()


MISSING = Missing()


class Record(dict[str, object]):
    """A dict whose keys are known: asking for another is an error, as for a Go struct, and not `<no value>`.

    *methods* are what can be called on it with one text, `{{.Label "name"}}`; they are no part of the document.
    """

    __slots__ = ("methods",)

    methods: Mapping[str, Callable[[str], str]]

    def __init__(self, *args: Any, **fields: object) -> None:
        super().__init__(*args, **fields)
        self.methods = {}


class ValueProblem(Exception):
    """A function cannot work with these values; the text is Go's."""


def type_name(value: object) -> str:
    """The name of the type that Go would have for *value*."""
    if value is None or value is MISSING:
        return "<nil>"
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    raise TypeError(f"no value of a template: {type(value)}")


_TYPE_NAMES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"),
    (str, "string"),
    (int, "int"),
    (float, "float64"),
    (dict, "map[string]interface {}"),
    ((list, tuple), "[]interface {}"),
)


def truth(value: object) -> bool:
    """Whether Go's `if` takes *value* for true: whatever is not empty, zero or absent."""
    return value is not MISSING and bool(value)


def to_text(value: object) -> str:
    """*value* as fmt's %v prints it: "map[a:1 b:2]", "[a b]", "true", "<nil>"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or value is MISSING:
        return "<nil>"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{to_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(to_text, value)) + "]"
    raise TypeError(f"no value of a template: {type(value)}")


def shown(value: object) -> str:
    """*value* as the result of an action: like to_text(), but nothing is "<no value>"."""
    return "<no value>" if value is None or value is MISSING else to_text(value)


def _float_text(value: float) -> str:
    """The shortest digits that read back as *value*; with an exponent below 1e-4 and from 1e6 on, as %v has it."""
    if not isfinite(value):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    sign = "-" if str(value)[0] == "-" else ""
    mantissa, _, power = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).strip("0") or "0"
    exponent = len(whole) - 1 + int(power or 0) if whole != "0" else len(fraction.lstrip("0")) - len(fraction) - 1
    if value == 0:
        return f"{sign}0"
    if not -4 <= exponent < 6:
        return f"{sign}{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{exponent:+03d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    padded = digits.ljust(exponent + 1, "0")
    return f"{sign}{padded[: exponent + 1]}{'.' + padded[exponent + 1 :] if padded[exponent + 1 :] else ''}"


def print_(*values: object) -> str:
    """fmt.Sprint: a space between two values of which neither is a string."""
    parts: list[str] = []
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            parts.append(" ")
        parts.append(to_text(value))
    return "".join(parts)


def println(*values: object) -> str:
    """fmt.Sprintln: spaces between all, and a newline."""
    return " ".join(map(to_text, values)) + "\n"


# --- comparing


def _kind(value: object) -> str:
    """The kinds that Go compares: "bool", "int", "float64", "string"; the empty string for others."""
    name = type_name(value)
    return name if name in ("bool", "int", "float64", "string") else ""


def equal(first: object, *others: object) -> bool:
    """Whether *first* is equal to one of *others*. Raises ValueProblem for two values of different kinds."""
    if not others:
        raise ValueProblem("missing argument for comparison")
    return any(_equal_pair(first, other) for other in others)


def _equal_pair(left: object, right: object) -> bool:
    if left is None or right is None:
        return left is right
    if _kind(left) != _kind(right):
        raise ValueProblem("incompatible types for comparison")
    if not _kind(left):
        raise ValueProblem(f"non-comparable type {to_text(left)}: {type_name(left)}")
    return left == right


def not_equal(left: object, right: object) -> bool:
    """The opposite of equal()."""
    return not equal(left, right)


def less(left: object, right: object) -> bool:
    """Whether *left* comes before *right*: two numbers of a kind, or two strings. Raises ValueProblem."""
    kind = _kind(left)
    if kind != _kind(right) and kind and _kind(right):
        raise ValueProblem("incompatible types for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return _bytes(left) < _bytes(right)
    if kind in ("int", "float64") and isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left < right
    raise ValueProblem("invalid type for comparison")


def less_or_equal(left: object, right: object) -> bool:
    """less() or equal()."""
    return less(left, right) or equal(left, right)


def greater(left: object, right: object) -> bool:
    """Neither less() nor equal()."""
    return not less_or_equal(left, right)


def greater_or_equal(left: object, right: object) -> bool:
    """Not less()."""
    return not less(left, right)


def not_(value: object) -> bool:
    """Whether *value* is empty, zero or absent."""
    return not truth(value)


# --- elements


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _from_bytes(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def length(value: object) -> int:
    """The elements of a list or map, the bytes of a string."""
    if value is None:
        raise ValueProblem("len of nil pointer")
    if isinstance(value, str):
        return len(_bytes(value))
    if isinstance(value, (list, tuple, dict)):
        return len(value)
    raise ValueProblem(f"len of type {type_name(value)}")


def index(value: object, *keys: object) -> object:
    """The element of the element … of *value*. Raises ValueProblem for a position that is not there.

    A key that is not there gives what a Go map of that type would: the empty string from a map of strings (labels!),
    and from none at all, which is how Docker's typed but absent maps look in JSON; else nothing.
    """
    for key in keys:
        value = _element(value, key)
    return value


def _element(value: object, key: object) -> object:
    if isinstance(value, dict):
        if not isinstance(key, str):
            raise ValueProblem(f"value has type {type_name(key)}; should be string")
        if key in value:
            return value[key]
        return "" if all(isinstance(other, str) for other in value.values()) else None
    if value is None:
        if isinstance(key, str):
            return ""
        raise ValueProblem("index of untyped nil")
    if not isinstance(value, (str, list, tuple)):
        raise ValueProblem(f"can't index item of type {type_name(value)}")
    elements = _bytes(value) if isinstance(value, str) else value
    return elements[_position(key, len(elements) - 1)]


def slice_(value: object, *positions: object) -> object:
    """A part of a string (in bytes) or of a list, from and up to positions. Raises ValueProblem."""
    if isinstance(value, str):
        return _from_bytes(_bytes(value)[_bounds(positions[:2], len(_bytes(value)))])
    if isinstance(value, (list, tuple)):
        return list(value[_bounds(positions, len(value))])
    raise ValueProblem("slice of untyped nil" if value is None else f"can't slice item of type {type_name(value)}")


def _bounds(positions: tuple[object, ...], size: int) -> slice:
    bounds = [_position(position, size) for position in positions]
    for low, high in pairwise(bounds):
        if low > high:
            raise ValueProblem(f"invalid slice index: {low} > {high}")
    return slice(bounds[0] if bounds else 0, bounds[1] if len(bounds) > 1 else size)


def _position(key: object, last: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise ValueProblem(f"cannot index slice/array with type {type_name(key)}")
    if not 0 <= key <= last:
        raise ValueProblem(f"index out of range: {key}")
    return key


# --- text


def to_json(value: object, indent: int | None = None) -> str:
    """*value* as JSON, compact or indented, keys in the order of the document; no HTML escapes, as Docker's `json`."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    return _NOT_IN_JSON.sub(lambda found: _JSON_INSTEAD.get(found[0], r"\ufffd"), text)


# Go escapes the two separators, which JavaScript takes for line ends, and replaces bytes that are no UTF-8.
_NOT_IN_JSON = re.compile("[\u2028\u2029\ud800-\udfff]")
_JSON_INSTEAD = {"\u2028": r"\u2028", "\u2029": r"\u2029"}


def join(elements: list[object], separator: str) -> str:
    """The *elements* as one text."""
    return separator.join(map(to_text, elements))


def split(text: str, separator: str) -> list[str]:
    """The parts of *text*; its characters if *separator* is empty."""
    return text.split(separator) if separator else list(text)


def title(text: str) -> str:
    """*text* with each word's first letter in upper case, and the others as they are."""
    return re.sub(r"(?<!\w)\w", lambda found: found[0].title(), text)


def pad(text: str, before: int, after: int) -> str:
    """*text* between spaces; no text stays none. Raises ValueProblem for negative or absurd numbers."""
    if min(before, after) < 0 or before + after > LONGEST_TEXT:
        raise ValueProblem(f"cannot pad with {before} and {after} spaces")
    return " " * before + text + " " * after if text else ""


def truncate(text: str, size: int) -> str:
    """The first *size* bytes of *text*. Raises ValueProblem for a negative number."""
    if size < 0:
        raise ValueProblem(f"cannot truncate to {size}")
    return _from_bytes(_bytes(text)[:size])


def html(*values: object) -> str:
    """print_() with HTML's special characters escaped."""
    return _single(values).translate(_HTML)


def js(*values: object) -> str:
    """print_() as it may stand in a JavaScript string."""
    return re.sub(r"[\x00-\x1f\\'\"<>&=]", lambda found: _JS.get(found[0], f"\\u{ord(found[0]):04X}"), _single(values))


def urlquery(*values: object) -> str:
    """print_() as it may stand in the query of a URL."""
    return quote_plus(_bytes(_single(values)), safe="~")


def _single(values: tuple[object, ...]) -> str:
    return shown(values[0]) if len(values) == 1 else print_(*values)


_HTML = str.maketrans({"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"'}


# --- printf

_WIDEST = 1_000_000  # fmt's own limit for a width and a precision
_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d*)(?:\.(?P<precision>\d*))?(?P<letter>.?)", re.DOTALL)
_QUOTED = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


class _Verb(NamedTuple):
    """One directive of a format: "%-8.3f" has the flags "-", the width 8, the precision 3 and the letter f."""

    flags: str
    width: int
    precision: int | None
    letter: str


def printf(form: str, *values: object) -> str:
    """fmt.Sprintf, without `*` and `[n]`. A verb that does not fit its value says so in the text, as in Go."""
    rest = list(reversed(values))
    size = 0

    def replaced(found: re.Match[str]) -> str:
        nonlocal size
        text = _directive(found, rest)
        size += len(text)
        if size > LONGEST_TEXT:
            raise ValueProblem("the text is too long")
        return text

    text = _VERB.sub(replaced, form)
    extra = ", ".join(_labelled(value) for value in reversed(rest))
    return f"{text}%!(EXTRA {extra})" if rest else text


def _directive(found: re.Match[str], rest: list[object]) -> str:
    """What stands for one directive; its value is taken from the end of *rest*."""
    letter = found["letter"]
    if letter == "%":
        return "%"
    if not letter:
        return "%!(NOVERB)"
    if not rest:
        return f"%!{letter}(MISSING)"
    width, precision = found["width"] or "0", found["precision"]
    if max(len(width), len(precision or "")) > 7 or max(int(width), int(precision or 0)) > _WIDEST:
        raise ValueProblem("the text is too long")
    return _formatted(
        _Verb(found["flags"], int(width), None if precision is None else int(precision or 0), letter), rest.pop()
    )


def _labelled(value: object) -> str:
    """A value that went wrong, as fmt names it: "int=3"."""
    return "<nil>" if value is None else f"{type_name(value)}={to_text(value)}"


def _formatted(verb: _Verb, value: object) -> str:
    """*value* as *verb* wants it; each element of a list or map by itself."""
    if verb.letter == "T":
        return _padded(verb, type_name(value))
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(_formatted(verb, element) for element in value) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{_formatted(verb, k)}:{_formatted(verb, value[k])}" for k in sorted(value)) + "]"
    text = None
    if isinstance(value, str):
        text = _string_verb(verb, value)
    elif isinstance(value, bool):
        text = to_text(value) if verb.letter in "tv" else None
    elif isinstance(value, int):
        return _number(verb, value, _int_digits(verb, abs(value)))
    elif isinstance(value, float):
        return _number(verb, value, _float_digits(verb, abs(value)))
    elif verb.letter == "v":
        text = to_text(value)
    return f"%!{verb.letter}({_labelled(value)})" if text is None else _padded(verb, text)


def _string_verb(verb: _Verb, value: str) -> str | None:
    if verb.precision is not None:
        value = value[: verb.precision]
    if verb.letter in "sv":
        return value
    if verb.letter == "q":
        return quote(value)
    if verb.letter in "xX":
        digits = _bytes(value).hex()
        return digits if verb.letter == "x" else digits.upper()
    return None


def _int_digits(verb: _Verb, value: int) -> str | None:
    if verb.letter in "dv":
        return str(value)
    if verb.letter in "xXob":
        prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}[verb.letter] if "#" in verb.flags else ""
        return prefix + format(value, verb.letter)
    if verb.letter in "cq" and value < 0x110000:
        return chr(value) if verb.letter == "c" else f"'{chr(value)}'"
    return f"U+{value:04X}" if verb.letter == "U" else None


def _float_digits(verb: _Verb, value: float) -> str | None:
    if verb.letter not in "vfFeEgG":
        return None
    if verb.precision is None and verb.letter in "vgG":
        return _float_text(value)
    return format(value, f".{6 if verb.precision is None else verb.precision}{verb.letter.replace('v', 'g')}")


def _number(verb: _Verb, value: float, digits: str | None) -> str:
    """The sign, zeros up to the width if the flags want them, and the *digits*."""
    if digits is None:
        return f"%!{verb.letter}({_labelled(value)})"
    sign = "-" if value < 0 else "+" if "+" in verb.flags else " " if " " in verb.flags else ""
    if "0" in verb.flags and "-" not in verb.flags:
        digits = digits.rjust(verb.width - len(sign), "0")
    return _padded(verb, sign + digits)


def _padded(verb: _Verb, text: str) -> str:
    return text.ljust(verb.width) if "-" in verb.flags else text.rjust(verb.width)


def quote(text: str) -> str:
    """*text* as a string of Go, as %q prints it."""
    return '"' + "".join(map(_quoted_char, text)).replace('"', '\\"') + '"'


def _quoted_char(char: str) -> str:
    code = ord(char)
    if char.isprintable() or char in _QUOTED:
        return _QUOTED.get(char, char)
    if code < 0x80 or 0xDC80 <= code < 0xDD00:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# --- the functions of a template


class Function(NamedTuple):
    """A function: what to call, the types of its arguments, and the type of any number of further ones.

    The types: "text", "number", "list", and "any"; *more* is empty where there are no further arguments.
    """

    call: Callable[..., object]
    takes: tuple[str, ...]
    more: str = ""


FUNCTIONS: dict[str, Function] = {
    "eq": Function(equal, ("any",), "any"),
    "ge": Function(greater_or_equal, ("any", "any")),
    "gt": Function(greater, ("any", "any")),
    "html": Function(html, (), "any"),
    "index": Function(index, ("any",), "any"),
    "join": Function(join, ("list", "text")),
    "js": Function(js, (), "any"),
    "json": Function(to_json, ("any",)),
    "le": Function(less_or_equal, ("any", "any")),
    "len": Function(length, ("any",)),
    "lower": Function(str.lower, ("text",)),
    "lt": Function(less, ("any", "any")),
    "ne": Function(not_equal, ("any", "any")),
    "not": Function(not_, ("any",)),
    "pad": Function(pad, ("text", "number", "number")),
    "print": Function(print_, (), "any"),
    "printf": Function(printf, ("text",), "any"),
    "println": Function(println, (), "any"),
    "slice": Function(slice_, ("any",), "any"),
    "split": Function(split, ("text", "text")),
    "title": Function(title, ("text",)),
    "truncate": Function(truncate, ("text", "number")),
    "upper": Function(str.upper, ("text",)),
    "urlquery": Function(urlquery, (), "any"),
}
# These two are not called but evaluated: the arguments after the one that decides are left alone.
DECIDING = ("and", "or")

# For the line of headers, where a column's name stands for its value: what cuts or changes a value leaves the name.
HEADER_FUNCTIONS: dict[str, Function] = {
    **FUNCTIONS,
    "join": Function(lambda text, separator: text, ("any", "text")),
    "json": Function(lambda value: "", ("any",)),
    "lower": Function(str, ("text",)),
    "pad": Function(lambda text, before, after: text, ("text", "number", "number")),
    "split": Function(lambda text, separator: [text], ("text", "text")),
    "title": Function(str, ("text",)),
    "truncate": Function(lambda text, size: text, ("text", "number")),
    "upper": Function(str, ("text",)),
}
