"""What the members of a JSON object have to be, as a table of checks; whatever is wrong is told with its path.

A check takes a value and the place where it stands, and raises InvalidInput. `null` is as good as a member that is not
there, as it is for the peers that read the same documents (encoding/json of Go).
"""

from collections.abc import Callable
from typing import Any

from rootless.errors import InvalidInput

Check = Callable[[Any, str], None]


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def _wrong(where: str, wanted: str, value: Any) -> InvalidInput:
    return InvalidInput(f"{where or 'config.json'}: {wanted} is needed, not {_kind(value)}")


def string(value: Any, where: str) -> None:
    """A string that the kernel could take: without NUL."""
    if type(value) is not str:
        raise _wrong(where, "a string", value)
    if "\0" in value:
        raise InvalidInput(f"{where}: has a NUL character in it")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidInput(f"{where}: has half of a character in it")


def absolute(value: Any, where: str) -> None:
    """An absolute path."""
    string(value, where)
    if not value.startswith("/"):
        raise InvalidInput(f"{where}: {value!r} is no absolute path")


def boolean(value: Any, where: str) -> None:
    """true or false."""
    if type(value) is not bool:
        raise _wrong(where, "a boolean", value)


def integer(lowest: int, highest: int) -> Check:
    """A whole number within bounds."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int:
            raise _wrong(where, "a whole number", value)
        if not lowest <= value <= highest:
            raise InvalidInput(f"{where}: {value} is not between {lowest} and {highest}")

    return check


INT64 = 2**63 - 1
UINT32 = integer(0, 2**32 - 1)
UINT64 = integer(0, 2**64 - 1)
number = integer(-(2**63), 2**64 - 1)
signed = integer(-(2**63), INT64)


def one_of(*words: str) -> Check:
    """One of these words."""

    def check(value: Any, where: str) -> None:
        string(value, where)
        if value not in words:
            raise InvalidInput(f"{where}: unknown value {value!r}; known are {', '.join(w for w in words if w)}")

    return check


def each(check: Check) -> Check:
    """A list, every element of which passes *check*."""

    def check_list(value: Any, where: str) -> None:
        if type(value) is not list:
            raise _wrong(where, "a list", value)
        for index, element in enumerate(value):
            check(element, f"{where}[{index}]")

    return check_list


strings = each(string)


def string_map(value: Any, where: str) -> None:
    """An object, all of whose members are strings."""
    if type(value) is not dict:
        raise _wrong(where, "an object", value)
    for name, text in value.items():
        string(name, where)
        string(text, f"{where}.{name}")


def shape(members: dict[str, Check], *required: str) -> Check:
    """An object: the members that it may have, and those that must be there. Others are passed over."""

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise _wrong(where, "an object", value)
        for name in required:
            if value.get(name) is None:
                raise InvalidInput(f"{where}.{name}: is missing".removeprefix("."))
        for name, content in value.items():
            if content is not None and name in members:
                members[name](content, f"{where}.{name}".removeprefix("."))

    return check
