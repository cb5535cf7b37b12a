"""Durations, sizes, modes and the like: what people write, as numbers."""

import re

from rootless.errors import InvalidInput

SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,  # the Greek letter: both are typed
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 24 * 3600 * SECOND,
    "w": 7 * 24 * 3600 * SECOND,
}
_DURATION = re.compile(r"([+-]?)((?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h|d|w))+)")
_STEP = re.compile(r"([0-9]+)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h|d|w)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtpKMGTP]?)(?:[iI]?[bB])?")
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_MOST = (1 << 63) - 1
_TRUE = ("true", "y", "yes", "on", "1")
_FALSE = ("false", "n", "no", "off", "0")


def parse_duration(text: str) -> int:
    """Nanoseconds of "1m30s", "500ms", "1w2d". Raises InvalidInput."""
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text) if len(text) < 100 else None
    if match is None:
        raise InvalidInput(f"{text!r} is no duration", hint="write it like 30s, 1m30s or 500ms")
    total = 0
    for whole, fraction, unit in _STEP.findall(match.group(2)):
        fraction = fraction[:18]
        total += int(whole) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    if total > _MOST:
        raise InvalidInput(f"{text!r} is more than 292 years")
    return -total if match.group(1) == "-" else total


def parse_size(text: str) -> int:
    """Bytes of "64m", "1.5gb", "1024"; -1 stands for no limit. Raises InvalidInput."""
    if text == "-1":
        return -1
    match = _SIZE.fullmatch(text) if len(text) < 40 else None
    if match is None:
        raise InvalidInput(f"{text!r} is no size", hint="write it like 64m, 1.5g or 1024")
    size = int(float(match.group(1)) * (1 << _POWERS[match.group(2).lower()]))
    if size > _MOST:
        raise InvalidInput(f"{text!r} is more than can be")
    return size


def parse_flag(text: str) -> bool:
    """True or false, in the words that YAML once had for them. Raises InvalidInput."""
    word = text.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise InvalidInput(f"{text!r} is neither true nor false")


def parse_integer(text: str) -> int:
    """A decimal number. Raises InvalidInput."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise InvalidInput(f"{text!r} is no whole number")
    return int(text)


def parse_number(text: str) -> float:
    """A number with or without decimals. Raises InvalidInput."""
    if not re.fullmatch(r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})", text):
        raise InvalidInput(f"{text!r} is no number")
    return float(text)


def parse_mode(text: str) -> int:
    """Permissions in octal: "0440", "440". Raises InvalidInput."""
    digits = text.removeprefix("0o")
    if not re.fullmatch(r"[0-7]{1,6}", digits):
        raise InvalidInput(f"{text!r} is no file mode", hint="write it in octal: 0440")
    return int(digits, 8)


def format_number(number: "int | float") -> str:
    """A number as Go prints it in `%v`: 1.0 is "1", 1e+21 has an exponent of two digits."""
    if isinstance(number, int):
        return str(number)
    if number != number or number in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(number), "NaN")
    if number == int(number) and abs(number) < 1e21:
        return str(int(number))
    return repr(number)


def format_scalar(value: object) -> str:
    """A string for a value that may be written as number or truth value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format_number(value) if isinstance(value, (int, float)) else str(value)
