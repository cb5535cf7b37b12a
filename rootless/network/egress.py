"""--egress: what a container or a network may reach, checked as it is typed. slirp holds it to that.

none                    nothing                   NAME  *.NAME  NAME:443     hosts by name, all names below one
*  *:443                every host                ADDRESS  CIDR  CIDR:5432   hosts by address
…:FIRST-LAST            a range of ports          [V6]:443  [V6/BITS]:443    IPv6 in brackets where a port follows
"""

import _socket
import re
from collections.abc import Iterable

from rootless.errors import InvalidInput

NONE = "none"

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.ASCII)
_NUMBERS = re.compile(r"[0-9./]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_LONGEST_NAME = 253


def parse_egress(text: str) -> list[str]:
    """The rules of one --egress, which commas separate. Raises InvalidInput."""
    rules = [rule.strip().lower() for rule in text.split(",")]
    for rule in rules:
        _check(rule)
    return rules


def merge_egress(given: Iterable[Iterable[str]]) -> list[str] | None:
    """The rules of several --egress; None without any, which allows everything, and [] for "none"."""
    rules = list(dict.fromkeys(rule for rules in given for rule in rules))
    if NONE in rules and len(rules) > 1:
        raise InvalidInput("--egress none allows nothing: leave it out, or the other rules")
    return [] if rules == [NONE] else rules or None


def _check(rule: str) -> None:
    host, ports = _split(rule)
    if ports is not None:
        _check_ports(rule, ports)
    if host in (NONE, "*"):
        if host == NONE and ports is not None:
            raise InvalidInput(f"invalid egress rule {rule!r}: none has no port")
    elif ":" in host or _NUMBERS.fullmatch(host):
        _check_block(rule, host)
    elif len(host) > _LONGEST_NAME or not _NAME.fullmatch(host.removeprefix("*.")):
        raise InvalidInput(f"invalid egress rule {rule!r}: {host!r} is no host name")


def _split(rule: str) -> tuple[str, str | None]:
    """Host and ports; None where there are none."""
    if rule.startswith("["):
        host, bracket, rest = rule[1:].partition("]")
        if not bracket or ":" not in host or (rest and rest[0] != ":"):
            raise InvalidInput(f"invalid egress rule {rule!r}: [IPv6 address]:PORT is expected")
        return host, rest[1:] if rest else None
    if rule.count(":") > 1:
        return rule, None
    host, colon, ports = rule.partition(":")
    return host, ports if colon else None


def _check_ports(rule: str, text: str) -> None:
    first, dash, last = text.partition("-")
    for number in (first, last) if dash else (first,):
        if not _PORT.fullmatch(number) or not 1 <= int(number) <= 65535:
            raise InvalidInput(f"invalid egress rule {rule!r}: {number!r} is no port")
    if dash and int(first) > int(last):
        raise InvalidInput(f"invalid egress rule {rule!r}: the range of ports ends before it begins")


def _check_block(rule: str, text: str) -> None:
    address, slash, bits = text.partition("/")
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        packed = _socket.inet_pton(family, address)
    except (OSError, ValueError):
        raise InvalidInput(f"invalid egress rule {rule!r}: {address!r} is no address") from None
    if not slash:
        return
    whole = len(packed) * 8
    if not _PORT.fullmatch(bits) or int(bits) > whole:
        raise InvalidInput(f"invalid egress rule {rule!r}: a prefix has 0 to {whole} bits")
    if int.from_bytes(packed, "big") & (1 << whole - int(bits)) - 1:
        raise InvalidInput(f"invalid egress rule {rule!r}: {address} has bits set beyond its prefix")
