"""Ports of a service: `[[HOST_IP:][PUBLISHED]:]TARGET[/PROTOCOL]`, with ranges, and the long form."""

import ipaddress
from collections.abc import Callable
from typing import TypeVar

from rootless.compose.nodes import Node, wrong
from rootless.compose.scalars import parse_integer
from rootless.compose.shapes import Context, Shape, integer, scalar, table, text
from rootless.errors import InvalidInput

T = TypeVar("T")

_MOST_PORTS = 1024
_LARGEST = 65535
_PROTOCOLS = ("tcp", "udp", "sctp")


def _published(context: Context, node: Node, path: str) -> Node:
    found = scalar(context, node, path)
    if found.value:
        _guarded(found, path, lambda: parse_range(found.value))
    return found


def _target(context: Context, node: Node, path: str) -> Node:
    found = integer(context, node, path)
    if not 0 < found.value <= _LARGEST:
        raise wrong(node, path, f"{found.value} is no port: they go from 1 to {_LARGEST}")
    return found


_LONG: Shape = table(
    {
        "name": text,
        "mode": text,
        "host_ip": text,
        "target": _target,
        "published": _published,
        "protocol": text,
        "app_protocol": text,
    },
    required=("target",),
    defaults={"mode": "ingress", "protocol": "tcp"},
)


def port(context: Context, node: Node, path: str) -> list[Node]:
    """The canonical ports that an item of `ports` stands for: one for each port of a range in the container."""
    if isinstance(node.value, dict):
        return [_LONG(context, node, path)]
    if type(node.value) is int:
        node = node._replace(value=str(node.value))
    if not node.is_text:
        raise wrong(node, path, f"must be a port, and is {node.kind}", hint="the long form needs a target")
    found = _guarded(node, path, lambda: parse_port(node.value))
    return [_LONG(context, _as_node(node, entry), path) for entry in found]


def _as_node(node: Node, entry: dict[str, "str | int"]) -> Node:
    return node._replace(value={key: node._replace(value=value, tag="") for key, value in entry.items()})


def _guarded(node: Node, path: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except InvalidInput as error:
        raise wrong(node, path, str(error), hint=error.hint) from error


def parse_port(spec: str) -> list[dict[str, "str | int"]]:
    """The short form, as one or more long ones without defaults. Raises InvalidInput."""
    rest, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise InvalidInput(f"{spec!r} has no protocol that is known: {', '.join(_PROTOCOLS)}")
    host_ip, published, target = _split(rest, spec)
    targets = parse_range(target)
    if not published:
        hosts = [""] * len(targets)
    else:
        wanted = parse_range(published)
        if len(wanted) == len(targets):
            hosts = [str(number) for number in wanted]
        elif len(targets) == 1:
            hosts = [published]
        else:
            raise InvalidInput(f"{spec!r}: the ranges are of different lengths")
    return [_entry(host_ip, host, number, protocol) for host, number in zip(hosts, targets, strict=True)]


def _entry(host_ip: str, published: str, target: int, protocol: str) -> dict[str, "str | int"]:
    entry: dict[str, str | int] = {"mode": "ingress"}
    if host_ip:
        entry["host_ip"] = host_ip
    entry["target"] = target
    if published:
        entry["published"] = published
    return {**entry, "protocol": protocol}


def _split(text: str, spec: str) -> tuple[str, str, str]:
    """(address, published, target)."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        host_ip, rest = _address(address, spec), rest.removeprefix(":")
    else:
        head, _, rest = text.rpartition(":")
        address, colon, published = head.rpartition(":")
        if colon:
            return _address(address, spec), published, rest
        return "", head, rest
    published, _, target = rest.rpartition(":")
    return host_ip, published, target


def _address(text: str, spec: str) -> str:
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        raise InvalidInput(f"{spec!r}: {text!r} is no address") from None


def parse_range(text: str) -> list[int]:
    """The numbers of "80" or "8000-8010". Raises InvalidInput."""
    first, dash, last = text.partition("-")
    low = parse_integer(first)
    high = parse_integer(last) if dash else low
    if not 0 <= low <= high <= _LARGEST:
        raise InvalidInput(f"{text!r} is no port, and no range of ports")
    if high - low >= _MOST_PORTS:
        raise InvalidInput(f"{text!r} is more than {_MOST_PORTS} ports")
    return list(range(low, high + 1))


def expose(context: Context, node: Node, path: str) -> Node:
    """A port of the container, or a range, with a protocol or without: a string."""
    found = scalar(context, node, path)
    ports, _, protocol = found.value.partition("/")
    _guarded(found, path, lambda: parse_range(ports))
    if protocol and protocol not in _PROTOCOLS:
        raise wrong(node, path, f"{protocol!r} is no protocol: {', '.join(_PROTOCOLS)}")
    return found
