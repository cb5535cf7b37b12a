"""Times as people type and read them: Go's durations, `--since`, and "3 minutes ago".

Durations and points in time are whole nanoseconds, as the records and the API have them. Sources: Go's time package
(ParseDuration), go-units' HumanDuration, moby's timetypes.GetTimestamp.
"""

import re
from datetime import datetime, timedelta, timezone

from rootless.errors import InvalidInput

SECOND = 1_000_000_000

_UNITS = {
    "ns": 1,
    **dict.fromkeys(("us", "µs", "μs"), 1_000),  # U+00B5 and U+03BC: both are typed
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_PART = re.compile(r"(?P<whole>\d*)(?:\.(?P<fraction>\d*))?(?P<unit>[^\d.]*)", re.ASCII)
_MOST = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """Nanoseconds from "1h30m", "1.5s", "-300ms" or "0"."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total, place = 0, 0
    while place < len(body):
        part = _PART.match(body, place)
        whole, fraction, unit = part.group("whole", "fraction", "unit") if part else ("", "", "")
        if part is None or not (whole or fraction):
            break
        if not unit:
            raise InvalidInput(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise InvalidInput(f'time: unknown unit "{unit}" in duration "{text}"')
        if len(whole) > 19:
            break
        # In whole numbers: 0.1h must be six minutes to the nanosecond.
        digits = (fraction or "")[:18]
        total += int(whole or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
        place = part.end()
    if not body or place < len(body) or total > _MOST:
        raise InvalidInput(f'time: invalid duration "{text}"')
    return -total if text[0] == "-" else total


def parse_time(text: str, now: int) -> int:
    """A point in time, in nanoseconds since 1970, for --since and --until.

    It is RFC 3339 or a beginning of that ("2024-01-02T15:04", "2024-01-02"), local time if no zone is given; seconds
    since 1970 ("1136073600.000000001"); or a duration before *now* ("10m", "1h30m").
    """
    try:
        return now - parse_duration(text) if text != "0" else 0
    except InvalidInput:
        pass
    seconds = re.fullmatch(r"(-?\d{1,12})(?:\.(\d{1,9}))?", text, re.ASCII)
    if seconds:
        return int(seconds[1]) * SECOND + int((seconds[2] or "0").ljust(9, "0"))
    return _parse_rfc3339(text)


_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})(?:T(?P<hour>\d{2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<part>\d{1,9}))?)?)?)?"
    r"(?P<zone>Z|[+-]\d{2}:\d{2})?",
    re.ASCII,
)


def _parse_rfc3339(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    problem = f'failed to parse value as time or duration: "{text}"'
    if found is None:
        raise InvalidInput(problem)
    clock = ":".join(found[name] or "00" for name in ("hour", "minute", "second"))
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{clock}").replace(tzinfo=_zone(found["zone"]))
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        raise InvalidInput(problem) from None
    return seconds * SECOND + int((found["part"] or "0").ljust(9, "0"))


def _zone(text: str | None) -> timezone | None:
    """The zone of "Z" or "+02:00"; None stands for local time."""
    if not text:
        return None
    if text == "Z":
        return timezone.utc
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return timezone(-offset if text[0] == "-" else offset)


def rfc3339(moment: int) -> str:
    """*moment*, nanoseconds since 1970, as logs and documents have it: "2024-01-02T15:04:05.123456789Z"."""
    seconds, rest = divmod(moment, SECOND)
    stamp = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{rest:09d}Z"


def local_time(moment: int) -> str:
    """*moment* in local time, as the CreatedAt of lists has it: "2024-01-02 15:04:05 +0100 CET"."""
    return datetime.fromtimestamp(moment // SECOND).astimezone().strftime("%Y-%m-%d %H:%M:%S %z %Z")


def human_duration(duration: int) -> str:
    """*duration* nanoseconds in a unit or a bit more: "About a minute", "3 weeks"."""
    seconds = max(duration, 0) // SECOND
    hours = (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if seconds < 120:
        return "About a minute"
    if seconds < 3600:
        return f"{seconds // 60} minutes"
    if hours == 1:
        return "About an hour"
    for most, unit, name in _SPANS:
        if hours < most:
            return f"{hours // unit} {name}"
    return f"{seconds // 3600 // 24 // 365} years"


# Up to how many hours, the hours of a unit, its name.
_SPANS = (
    (48, 1, "hours"),
    (24 * 7 * 2, 24, "days"),
    (24 * 30 * 2, 24 * 7, "weeks"),
    (24 * 365 * 2, 24 * 30, "months"),
)


def ago(moment: int, now: int) -> str:
    """How long before *now* a *moment* was: "2 weeks ago"."""
    return f"{human_duration(now - moment)} ago"
