"""What a container or a network may reach, as the user wrote it: `--egress api.example.org:443,10.0.0.0/8:5432`.

    none                       nothing
    *  *:443                   every host, every host at a port
    NAME  *.NAME  NAME:PORT    hosts by name; `*.example.org` is every name below example.org, and not that itself
    ADDRESS  CIDR  CIDR:PORT   hosts by address
    [V6] [V6/BITS] [V6]:PORT   IPv6 in brackets where a port follows
    …:FIRST-LAST               a range of ports

A name allows the addresses that the gateway's own DNS has given for it, see outward.py. A rule with a port says nothing
of protocols without ports (echo). Several rules allow what any of them allows; no rules at all allow nothing.
"""

import re
import socket
from collections.abc import Collection, Iterable
from typing import NamedTuple

LARGEST_NAME = 253
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_NUMERIC = re.compile(r"[0-9.]+\Z")
_ANY_PORT = (0, 65535)


class Block(NamedTuple):
    """The addresses of *size* bytes whose bits but the last *shift* are *prefix*."""

    size: int
    prefix: int
    shift: int

    def holds(self, address: bytes) -> bool:
        """Whether *address* is one of them."""
        return len(address) == self.size and int.from_bytes(address, "big") >> self.shift == self.prefix


class Rule(NamedTuple):
    """One rule: a block, or a name (all below it with *below*), or neither for every host; and which ports."""

    block: Block | None
    name: str
    below: bool
    ports: tuple[int, int]

    def names(self, name: str) -> bool:
        """Whether it speaks of the host *name* (as from canonical)."""
        if self.block:
            return False
        if self.below:
            return name.endswith("." + self.name)
        return not self.name or name == self.name

    def allows(self, address: bytes, port: int, names: Iterable[str]) -> bool:
        """Whether *address*, which is known by *names*, may be reached at *port* (0: a protocol without ports)."""
        if not self.ports[0] <= port <= self.ports[1]:
            return False
        if self.block:
            return self.block.holds(address)
        return not self.name or any(self.names(name) for name in names)


class Rules:
    """Several rules. An address or a name is allowed if one of them allows it."""

    __slots__ = ("rules",)

    def __init__(self, rules: Collection[Rule]) -> None:
        self.rules = tuple(rules)

    def allow(self, address: bytes, port: int, names: Collection[str]) -> bool:
        """Whether *address* may be reached at *port*, being known by *names*."""
        return any(rule.allows(address, port, names) for rule in self.rules)

    def name(self, name: str) -> bool:
        """Whether some rule speaks of the host *name* (as from canonical), at whatever port."""
        return any(rule.names(name) for rule in self.rules)


def canonical(name: str) -> str:
    """A host name as names are compared: in lower case, without the dot of the root."""
    return name.lower().removesuffix(".")


def parse_rules(texts: Iterable[str]) -> Rules:
    """The rules of *texts*. Raises ValueError, with a line for the user, for a text that is none."""
    return Rules([parse_rule(text) for text in texts if text.strip() != "none"])


def parse_rule(text: str) -> Rule:
    """The rule that *text* is. Raises ValueError, with a line for the user, if it is none."""
    text = text.strip()
    host, ports = _split(text)
    if host == "*":
        return Rule(None, "", False, ports)
    if ":" in host or "/" in host or _NUMERIC.match(host):
        return Rule(parse_block(host, text), "", False, ports)
    below = host.startswith("*.")
    return Rule(None, _name(host[2:] if below else host, text), below, ports)


def parse_block(cidr: str, text: str = "") -> Block:
    """The block of an address or a CIDR; *text* is what to complain of. Raises ValueError."""
    address, slash, bits = cidr.partition("/")
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        raise ValueError(f"{text or cidr!r}: {address!r} is not an address") from None
    whole = len(packed) * 8
    if slash and (not (bits.isascii() and bits.isdigit()) or len(bits) > 3 or int(bits) > whole):
        raise ValueError(f"{text or cidr!r}: a prefix has 0 to {whole} bits, not {bits!r}")
    shift = whole - int(bits) if slash else 0
    number = int.from_bytes(packed, "big")
    if number >> shift << shift != number:
        raise ValueError(f"{text or cidr!r}: {address} has bits set beyond its prefix of {bits}")
    return Block(len(packed), number >> shift, shift)


def _split(text: str) -> tuple[str, tuple[int, int]]:
    """The host and the ports of a rule; brackets, or a second colon, say that the host is IPv6."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r}: expected [IPv6 address] or [IPv6 address]:PORT")
        return host, _ports(rest[1:], text) if rest else _ANY_PORT
    if text.count(":") > 1:
        return text, _ANY_PORT
    host, colon, port = text.partition(":")
    return host, _ports(port, text) if colon else _ANY_PORT


def _ports(port: str, text: str) -> tuple[int, int]:
    first, dash, last = port.partition("-")
    for number in (first, last) if dash else (first,):
        if not (number.isascii() and number.isdigit()) or len(number) > 5 or not 1 <= int(number) <= 65535:
            raise ValueError(f"{text!r}: {number!r} is not a port (1 to 65535)")
    ports = int(first), int(last) if dash else int(first)
    if ports[0] > ports[1]:
        raise ValueError(f"{text!r}: the range of ports ends before it begins")
    return ports


def _name(name: str, text: str) -> str:
    name = canonical(name)
    if not name.isascii():
        raise ValueError(f"{text!r}: write a name beyond ASCII as DNS has it (xn--…)")
    if len(name) > LARGEST_NAME or not all(_LABEL.match(label) for label in name.split(".")):
        raise ValueError(f"{text!r}: expected NAME, *.NAME, an address or a CIDR, then :PORT if wanted")
    return name
