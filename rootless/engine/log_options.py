"""--log-opt: what can be said of a container's log."""

from collections.abc import Mapping

from rootless.errors import InvalidInput

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def log_limits(options: Mapping[str, str]) -> tuple[int, int]:
    """(bytes that a file of the log may have, 0 for any number; how many files) of max-size and max-file.

    Raises InvalidInput, also for other options.
    """
    for name in options:
        if name not in ("max-size", "max-file"):
            raise InvalidInput(
                f"unknown log opt '{name}' for json-file log driver", hint="there are: max-size, max-file"
            )
    files = options.get("max-file", "1")
    if not (files.isascii() and files.isdigit() and 0 < int(files) <= 100_000):
        raise InvalidInput(f"invalid value for max-file: {files}")
    return _size(options.get("max-size", "0")), int(files)


def _size(text: str) -> int:
    """Bytes of "10m", or 0 of "-1". Raises InvalidInput."""
    if text == "-1":
        return 0
    lower = text.lower()
    number = lower.removesuffix("b").rstrip("kmg")
    unit = lower.removesuffix("b")[len(number) :]
    if not (number.isascii() and number.isdigit()) or unit not in _UNITS:
        raise InvalidInput(f"invalid value for max-size: {text}")
    return int(number) * _UNITS[unit]
