"""JSON from strangers: I-JSON (RFC 7493) and nothing else, within limits.

Python's parser keeps the last of two equal keys, reads NaN and lets 1e400 become infinity; others keep the first, or
refuse. A document that two programs read differently is a way to show a scanner one image and to run another, so
whatever is ambiguous is refused here, before anybody looks at a single field.
"""

import json
import re
from math import isfinite
from typing import Any

from rootless.errors import CorruptData

MAX_DEPTH = 64
_MAX_INTEGER_DIGITS = 20  # those of 2**63, a sign and one to spare: int() of a long text takes quadratic time
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, *, limit: int, what: str) -> Any:
    """The value in *data*, at most *limit* bytes of UTF-8. Raises CorruptData, which calls the document *what*."""
    if len(data) > limit:
        raise CorruptData(f"{what} is larger than {limit} bytes")
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=_float,
            parse_int=_int,
            parse_constant=_refuse_constant,
        )
        if _SURROGATE_ESCAPE.search(text):
            # Pairs of escapes have become one character; what is left of them cannot be encoded.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise CorruptData(f"{what} is nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and UnicodeEncodeError are kinds of it
        raise CorruptData(f"{what} is not valid JSON: {_reason(error)}") from None
    _check_depth(value, what)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate key {name[:64]!r}")
            seen.add(name)
    return members


def _float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"number out of range: {text[:32]}")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"number out of range: {text[:32]}")
    return int(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _reason(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "half of a surrogate pair"
    return str(error)


def _check_depth(value: Any, what: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise CorruptData(f"{what} is nested too deeply")


def _children(node: Any) -> Any:
    if isinstance(node, dict):
        return [child for child in node.values() if isinstance(child, (dict, list))]
    if isinstance(node, list):
        return [child for child in node if isinstance(child, (dict, list))]
    return ()
