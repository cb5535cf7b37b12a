"""Signals by name or number, as people and images write them."""

import signal

from rootless.errors import InvalidInput

_MAX = 64


def parse_signal(text: str) -> int:
    """The number of "TERM", "SIGTERM", "15", "RTMIN+3". Raises InvalidInput."""
    if text.isascii() and text.isdigit() and len(text) < 4:
        if 0 < int(text) <= _MAX:
            return int(text)
        raise InvalidInput(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if base in ("RTMIN", "RTMAX") and (not sign or offset.isdigit()):
        start = signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX
        number = int(start) + int(f"{sign}{offset}" if sign else 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif not sign and f"SIG{name}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{name}"])
    raise InvalidInput(f"invalid signal: {text}")


def signal_name(number: int) -> str:
    """The name of 15 is "SIGTERM"; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
