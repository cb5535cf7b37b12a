"""Durations as Go prints them."""

_SECOND = 1_000_000_000
_SMALL = {"ns": 1, "µs": 1_000, "ms": 1_000_000}


def format_duration(duration: int) -> str:
    """*duration* nanoseconds: "1h30m0s", "1.5s", "300ms", "0s". time.Duration.String of Go."""
    size = abs(duration)
    sign = "-" if duration < 0 else ""
    if size < _SECOND:
        unit = "ns" if size < 1_000 else "µs" if size < 1_000_000 else "ms"
        return "0s" if not size else f"{sign}{_decimal(size, _SMALL[unit])}{unit}"
    minutes, rest = divmod(size, 60 * _SECOND)
    text = f"{_decimal(rest, _SECOND)}s"
    if minutes >= 60:
        text = f"{minutes // 60}h{minutes % 60}m{text}"
    elif minutes:
        text = f"{minutes}m{text}"
    return sign + text


def _decimal(size: int, unit: int) -> str:
    """*size* / *unit*, a power of ten, with all digits that say something."""
    whole, rest = divmod(size, unit)
    fraction = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)
