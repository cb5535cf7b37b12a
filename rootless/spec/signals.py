"""Signals by name or number, as people and images write them."""

import re

from rootless.errors import InvalidInput

# The numbers of signal(7) that all architectures but alpha, mips, parisc and sparc share.
_SIGNALS = (
    *(
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
        "TERM",
    ),
    *("STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO"),
    *("PWR", "SYS"),
)
_SIGNAL_NUMBERS = {name: number for number, name in enumerate(_SIGNALS, 1)} | {"IOT": 6, "CLD": 17, "POLL": 29}
# glibc keeps 32 and 33 for itself.
_FIRST_REALTIME, _LAST_REALTIME = 34, 64


def parse_signal(text: str) -> int:
    """The number of a signal: "SIGTERM", "term", "15", "RTMIN+3"."""
    name = text.upper().removeprefix("SIG")
    realtime = re.fullmatch(r"(?:RTMIN(?:\+(\d{1,2}))?|RTMAX(?:-(\d{1,2}))?)", name, re.ASCII)
    if realtime:
        below = name.startswith("RTMAX")
        number = _LAST_REALTIME - int(realtime[2] or 0) if below else _FIRST_REALTIME + int(realtime[1] or 0)
        least, most = _FIRST_REALTIME, _LAST_REALTIME
    else:
        digits = re.fullmatch(r"\d{1,3}", text, re.ASCII)
        number, least, most = int(text) if digits else _SIGNAL_NUMBERS.get(name, 0), 1, _LAST_REALTIME
    if not least <= number <= most:
        raise InvalidInput(f"invalid signal: {text}")
    return number


def signal_name(number: int) -> str:
    """The name of a signal, "SIGTERM"; the number itself where it has none."""
    if 1 <= number <= len(_SIGNALS):
        return f"SIG{_SIGNALS[number - 1]}"
    if _FIRST_REALTIME <= number <= _LAST_REALTIME:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}"
    return str(number)
