"""The subnets of networks: what people ask for, and choosing one that is free. Texts in, texts out.

A network that asks for no subnet gets one of Docker's: 172.17.0.0/16 and so on to 172.31, then 192.168.0.0/20 and so
on. One that the machine has a route to, other than the default one, is passed over: from a container on it, what the
route leads to could not be reached. Where all of them are such (a VPN that takes all private addresses) that is the
lesser evil. For IPv6 it is a /64 of the network's own, made from its id (RFC 4193).
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rootless.errors import Conflict, InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Net = ipaddress.IPv4Network | ipaddress.IPv6Network

_POOLS = (*(f"172.{second}.0.0/16" for second in range(17, 32)), *(f"192.168.{n}.0/20" for n in range(0, 256, 16)))
_FULL = "all predefined address pools have been fully subnetted"
# Where no container can be: each means something to every machine, or to slirp (169.254.1.2 is the host's loopback).
_NEVER = [
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/9", "ff00::/8")
]


class Pool(NamedTuple):
    """The addresses of one family, as a network is to have them."""

    subnet: str
    gateway: str
    range: str = ""
    aux: Mapping[str, str] = {}

    @property
    def is_ipv6(self) -> bool:
        """Of which family."""
        return ":" in self.subnet


# --- what people ask for


def configure(
    subnets: Sequence[str], *, gateways: Sequence[str] = (), ranges: Sequence[str] = (), aux: Mapping[str, str]
) -> list[Pool]:
    """The pools that --subnet, --gateway, --ip-range and --aux-address add up to. Raises InvalidInput."""
    if len(subnets) < max(len(ranges), len(gateways)):
        raise InvalidInput("every ip-range or gateway must have a corresponding subnet")
    asked: dict[Net, _Asked] = {}
    for text in subnets:
        net = parse_subnet(text)
        if any(_overlaps(net, other) for other in asked):
            raise InvalidInput("multiple overlapping subnet configuration is not supported")
        if any(net.version == other.version for other in asked):
            raise InvalidInput("bridge driver doesn't support multiple subnets")
        asked[net] = _Asked()
    _add_ranges(asked, ranges)
    _add_gateways(asked, gateways)
    for name, text in aux.items():
        net = _parent(asked, _parse_address(text), f"no matching subnet for aux-address {text}")
        asked[net].aux[name] = str(_parse_address(text))
    return [_pool(net, given) for net, given in asked.items()]


class _Asked:
    """What is asked for besides the subnet itself."""

    __slots__ = ("aux", "gateway", "range")

    def __init__(self) -> None:
        self.gateway: str = ""
        self.range: str = ""
        self.aux: dict[str, str] = {}


def parse_subnet(text: str) -> Net:
    """A subnet that containers can be in. Raises InvalidInput."""
    net = _parse_net("subnet", text)
    for never in _NEVER:
        if _overlaps(net, never):
            raise InvalidInput(f"invalid subnet {text}: {never} is not for containers")
    if net.num_addresses < 4:
        raise InvalidInput(f"invalid subnet {text}: it has no room for a gateway and a container")
    return net


def _parse_net(what: str, text: str) -> Net:
    if "/" not in text:
        raise InvalidInput(f"invalid {what} {text}: invalid CIDR block notation")
    try:
        interface = ipaddress.ip_interface(text)
        length = text.partition("/")[2]
    except ValueError:
        raise InvalidInput(f"invalid {what} {text}: invalid CIDR block notation") from None
    if length != str(interface.network.prefixlen) or "%" in text:
        raise InvalidInput(f"invalid {what} {text}: invalid CIDR block notation")
    if interface.ip != interface.network.network_address:
        raise InvalidInput(f"invalid {what} {interface}: it should be {interface.network}")
    return interface.network


def _parse_address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidInput(f"invalid address: {text}") from None
    if "%" in text:
        raise InvalidInput(f"invalid address: {text}")
    return address


def check_address(text: str, version: int) -> str:
    """An address of that family, in its usual form, for --ip and --ip6. Raises InvalidInput."""
    address = _parse_address(text)
    if address.version != version:
        raise InvalidInput(f"invalid IPv{version} address: {text}")
    return str(address)


def contains(subnet: str, address: str) -> bool:
    """Whether *address* is one of *subnet*."""
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)


def _parent(asked: Iterable[Net], address: Address, problem: str) -> Net:
    for net in asked:
        if address in net:
            return net
    raise InvalidInput(problem)


def _add_ranges(asked: Mapping[Net, _Asked], ranges: Iterable[str]) -> None:
    for text in ranges:
        part = _parse_net("ip-range", text)
        net = _parent(asked, part.network_address, f"no matching subnet for range {text}")
        if part.prefixlen < net.prefixlen:
            raise InvalidInput(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {net}")
        given = asked[net]
        if given.range:
            raise InvalidInput(f"cannot configure multiple ranges ({text}, {given.range}) on the same subnet ({net})")
        given.range = str(part)


def _add_gateways(asked: Mapping[Net, _Asked], gateways: Iterable[str]) -> None:
    for text in gateways:
        address = _parse_address(text)
        net = _parent(asked, address, f"no matching subnet for gateway {text}")
        given = asked[net]
        if given.gateway:
            raise InvalidInput(
                f"cannot configure multiple gateways ({text}, {given.gateway}) for the same subnet ({net})"
            )
        if address in _of_nobody(net):
            raise InvalidInput(f"failed to allocate gateway ({text}): Address already in use")
        given.gateway = str(address)


def _of_nobody(net: Net) -> tuple[Address, ...]:
    """The addresses that no host has: the subnet's own, and IPv4's broadcast."""
    return (net[0], net[-1]) if net.version == 4 else (net[0],)


def _pool(net: Net, given: _Asked) -> Pool:
    taken = set(given.aux.values())
    gateway = given.gateway or next((str(net[n]) for n in range(1, len(taken) + 2) if str(net[n]) not in taken), "")
    if gateway in taken:
        raise InvalidInput(f"failed to allocate gateway ({gateway}): Address already in use")
    return Pool(str(net), gateway, given.range, given.aux)


def check_overlap(subnet: str, others: Iterable[str]) -> None:
    """Raises Conflict where *subnet* shares addresses with one of *others*."""
    net = ipaddress.ip_network(subnet)
    if any(_overlaps(net, ipaddress.ip_network(other)) for other in others):
        raise Conflict("invalid pool request: Pool overlaps with other one on this address space")


def _overlaps(one: Net, other: Net) -> bool:
    return one.version == other.version and one.overlaps(other)


# --- choosing


def choose_ipv4(networks: Iterable[str], routes: Iterable[str]) -> Pool:
    """A subnet that none of *networks* has, if possible without one of *routes*. Raises Conflict: all are taken."""
    taken = [ipaddress.ip_network(text) for text in networks]
    free = [net for net in map(ipaddress.ip_network, _POOLS) if not any(_overlaps(net, other) for other in taken)]
    if not free:
        raise Conflict(_FULL, hint="remove networks that nobody needs (network prune), or choose a --subnet")
    led = [ipaddress.ip_network(text) for text in routes]
    chosen = next((net for net in free if not any(_overlaps(net, route) for route in led)), free[0])
    return Pool(str(chosen), str(chosen[1]))


def choose_ipv6(network_id: str, networks: Iterable[str], routes: Iterable[str]) -> Pool:
    """A /64 of its own for the network with that id, 64 hexadecimal digits. Raises Conflict."""
    taken = [ipaddress.ip_network(text) for text in (*networks, *routes)]
    for start in range(len(network_id) - 13):
        digits = "fd" + network_id[start : start + 14]
        net = ipaddress.ip_network((bytes.fromhex(digits) + bytes(8), 64))
        if not any(_overlaps(net, other) for other in taken):
            return Pool(str(net), str(net[1]))
    raise Conflict(_FULL, hint="choose a --subnet")


# --- the machine's routes


def routes_ipv4(table: str) -> Iterator[str]:
    """The destinations in the text of /proc/net/route, proc_net(5), the default route left out."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        # Each word is a number as the processor has it, of an address in the network's order.
        address, mask = (int.from_bytes(bytes.fromhex(fields[n])[::-1], "big") for n in (1, 7))
        if mask:
            yield f"{ipaddress.IPv4Address(address & mask)}/{mask.bit_count()}"


def routes_ipv6(table: str) -> Iterator[str]:
    """The destinations in the text of /proc/net/ipv6_route, without the default one, link-local ones and multicast."""
    for line in table.splitlines():
        destination, length = line.split()[:2]
        address = ipaddress.IPv6Address(bytes.fromhex(destination))
        if int(length, 16) and not address.is_link_local and not address.is_multicast and not address.is_loopback:
            yield str(ipaddress.ip_network(f"{address}/{int(length, 16)}", strict=False))
