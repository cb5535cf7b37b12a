"""Durations of HEALTHCHECK, in the words of Go: `1m30s`, `500ms`."""

from rootless.dockerfile.instructions import DockerfileError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,  # the Greek letter: both are typed
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LEAST = 1_000_000
_MOST = (1 << 63) - 1


def parse_interval(flag: str, text: str) -> int:
    """Nanoseconds of `--flag=text`; "" and 0 are the default, 0. Raises DockerfileError below a millisecond."""
    if text.strip("+0") == "":
        return 0
    total = _nanoseconds(text[1:] if text[0] == "+" else text)
    if total is None or total > _MOST:
        raise DockerfileError(f"--{flag}={text}: not a duration", hint="write it like 30s, 1m30s or 500ms")
    if 0 < total < _LEAST:
        raise DockerfileError(f"--{flag}={text}: less than a millisecond")
    return total


def _nanoseconds(text: str) -> int | None:
    total, place = 0, 0
    while place < len(text):
        begin = place
        while place < len(text) and text[place] in "0123456789.":
            place += 1
        whole, _, fraction = text[begin:place].partition(".")
        begin = place
        while place < len(text) and text[place] not in "0123456789.":
            place += 1
        unit = _UNITS.get(text[begin:place])
        if unit is None or "." in fraction or not (whole or fraction) or len(whole) > 19:
            return None
        fraction = fraction[:18]
        total += int(whole or 0) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
    return total
