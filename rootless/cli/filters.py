"""`--filter key=value`: what lists and prunes select by.

    -f status=running -f status=paused -f label=tier=front   ──▶   {"status": ["running", "paused"], "label": [...]}

The values of one key are alternatives, except labels, which must all be there; all keys must match. Sources:
opts.FilterOpt of docker/cli, api/types/filters and daemon/list.go of moby.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from rootless.cli.time_values import parse_time
from rootless.errors import InvalidInput

Filters = dict[str, list[str]]


def parse_filter(text: str) -> tuple[str, str]:
    """A key and a value; the key in small letters. The parser of the --filter option."""
    key, sign, value = text.partition("=")
    if not sign:
        raise InvalidInput("bad format of filter (expected name=value)")
    return key.strip().lower(), value.strip()


def collect_filters(pairs: Iterable[tuple[str, str]], known: Collection[str]) -> Filters:
    """The values of each key, in the order typed. Raises InvalidInput for a key that is not *known*."""
    filters: Filters = {}
    for key, value in pairs:
        if key not in known:
            raise InvalidInput(f"invalid filter '{key}'", hint=f"known are {', '.join(sorted(known))}")
        values = filters.setdefault(key, [])
        if value not in values:
            values.append(value)
    return filters


def match_labels(wanted: Iterable[str], labels: Mapping[str, str]) -> bool:
    """Whether *labels* have all that are *wanted*, "name" or "name=value"."""
    for text in wanted:
        name, sign, value = text.partition("=")
        if name not in labels or (sign and labels[name] != value):
            return False
    return True


def match_labels_filters(filters: Filters, labels: Mapping[str, str]) -> bool:
    """Whether an object with *labels* passes `label=`, and `label!=`, which prune knows: none of those may match."""
    return match_labels(filters.get("label", ()), labels) and not any(
        match_labels([unwanted], labels) for unwanted in filters.get("label!", ())
    )


def match_name(wanted: Sequence[str], name: str) -> bool:
    """Whether *name* is one of the *wanted*: equal to it, or found in it as a regular expression, slash before or not.

    A pattern that is no regular expression matches nothing but itself.
    """
    return not wanted or any(name == text or _found(text, name) or _found(text, f"/{name}") for text in wanted)


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def match_id(wanted: Sequence[str], identifier: str) -> bool:
    """Whether *identifier* begins with one of the *wanted*, with or without the "sha256:" before it."""
    bare = identifier.rpartition(":")[2]
    return not wanted or any(text and (identifier.startswith(text) or bare.startswith(text)) for text in wanted)


def one_value(filters: Filters, key: str) -> str:
    """The value of a key that can have but one; the empty string without it. Raises InvalidInput for more."""
    values = filters.get(key, [])
    if len(values) > 1:
        raise InvalidInput(f"filter '{key}' can be given once only")
    return values[0] if values else ""


def bool_value(filters: Filters, key: str) -> bool | None:
    """The value of a key that is true or false; None without it. Raises InvalidInput for another value."""
    value = one_value(filters, key).lower()
    if not filters.get(key):
        return None
    if value in ("1", "true", "t"):
        return True
    if value in ("0", "false", "f"):
        return False
    raise InvalidInput(f"invalid filter '{key}={value}'")


def exit_codes(filters: Filters) -> set[int]:
    """The exit statuses of `exited=`. Raises InvalidInput for what is none."""
    codes = set()
    for text in filters.get("exited", ()):
        if not re.fullmatch(r"\d{1,3}", text, re.ASCII):
            raise InvalidInput(f"invalid filter 'exited={text}'")
        codes.add(int(text))
    return codes


def one_of_filter(filters: Filters, key: str, allowed: Collection[str]) -> list[str]:
    """The values of *key*, all of which must be *allowed*. Raises InvalidInput."""
    for value in filters.get(key, ()):
        if value not in allowed:
            raise InvalidInput(f"invalid filter '{key}={value}'", hint=f"known are {', '.join(sorted(allowed))}")
    return filters.get(key, [])


def time_window(filters: Filters, now: int) -> tuple[int | None, int | None]:
    """The nanoseconds since 1970 of `since=` and `until=`, where they are times (of prune and logs); None without.

    For ps and images, `since=` and `before=` name objects instead: see one_value().
    """
    since, until = one_value(filters, "since"), one_value(filters, "until")
    return (parse_time(since, now) if since else None, parse_time(until, now) if until else None)
