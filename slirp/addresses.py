"""Which address is whose: the pools of a network, and the MAC that goes with an address. Pure: no sockets, no clock.

A pool is a subnet of one family. Addresses are handed out in rising order, and the search goes on behind the last one,
so that an address that has just been freed comes last: somebody may still have it in a cache. Only the addresses in
use are stored, so that an IPv6 subnet costs no more than its containers.
"""

import binascii
import ipaddress
from collections.abc import Iterable

from slirp.errors import Conflict, InvalidInput, SlirpError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Pool:
    """The addresses of one subnet. *gateway* and *prefix* are facts; addresses are texts, as ipaddress writes them."""

    __slots__ = ("_first", "_last", "_name", "_next", "_reserved", "_subnet", "_used", "gateway", "prefix", "text")

    def __init__(self, subnet: str, gateway: str, *, part: str = "", aux: Iterable[str] = (), name: str = "") -> None:
        """Of *subnet*, with only those of *part* to choose from, and never one of *aux*. Raises InvalidInput."""
        self._name = name
        self._subnet = parse_subnet(subnet)
        self.text = str(self._subnet)
        self.prefix = self._subnet.prefixlen
        chosen = self._subnet if not part else self._part(part)
        self._first, self._last = int(chosen[0]), int(chosen[-1])
        self._reserved = self._never_ours()
        gateway_number = self._parse(gateway) if gateway else next(n for n in self._all() if n not in self._reserved)
        self.gateway = self._text(gateway_number)
        self._reserved |= {gateway_number, *(self._parse(address) for address in aux)}
        self._used: set[int] = set()
        self._next = self._first

    def _part(self, text: str) -> "Network":
        part = parse_subnet(text)
        if part.version != self._subnet.version or not part.subnet_of(self._subnet):  # type: ignore[arg-type]
            raise InvalidInput(f"range {text} is not within subnet {self.text}")
        return part

    def _never_ours(self) -> set[int]:
        """The subnet's own address, which is every router's in IPv6 (RFC 4291, 2.6.1), and IPv4's broadcast."""
        if self._subnet.num_addresses <= 2:
            return set()  # RFC 3021: both ends of a point-to-point link
        own = {int(self._subnet.network_address)}
        return own | {int(self._subnet.broadcast_address)} if self._subnet.version == 4 else own

    def _all(self) -> range:
        return range(int(self._subnet[0]), int(self._subnet[-1]) + 1)

    def _parse(self, text: str) -> int:
        address = parse_address(text)
        if address not in self._subnet:
            raise InvalidInput(f"no configured subnet or ip-range contain the IP address {text}")
        return int(address)

    def _text(self, number: int) -> str:
        return str(ipaddress.IPv4Address(number) if self._subnet.version == 4 else ipaddress.IPv6Address(number))

    def take(self, fixed: str = "", previous: str = "") -> str:
        """An address: the one that is asked for, the one it had before if that is free, or the next.

        Raises InvalidInput where *fixed* is none of the subnet's, Conflict where somebody has it, SlirpError where all
        are taken.
        """
        number = self._fixed(fixed) if fixed else self._previous(previous)
        if number is None:
            number = self._find_next()
            self._next = number + 1
        self._used.add(number)
        return self._text(number)

    def _fixed(self, text: str) -> int:
        number = self._parse(text)
        if number in self._never_ours():
            raise InvalidInput(f"{text} is not a host's address in {self.text}")
        if number in self._used or number in self._reserved:
            raise Conflict(f"Address already in use: {text} on network {self._name}")
        return number

    def _previous(self, text: str) -> int | None:
        """What a container had before is a wish: None where it cannot be."""
        try:
            return self._fixed(text) if text else None
        except SlirpError:
            return None

    def _find_next(self) -> int:
        size = self._last - self._first + 1
        start = self._next - self._first
        for step in range(min(size, len(self._used) + len(self._reserved) + 1)):
            number = self._first + (start + step) % size
            if number not in self._used and number not in self._reserved:
                return number
        family = "IPv4" if self._subnet.version == 4 else "IPv6"
        raise SlirpError(
            f"no available {family} addresses on this network's address pools: {self._name}",
            hint=f"{len(self._used)} of {self.text} are in use: end some containers, or make a larger network",
        )

    def give_back(self, address: str) -> None:
        """*address* is free again. Nothing happens where it is not taken."""
        self._used.discard(int(ipaddress.ip_address(address)))


def parse_subnet(text: str) -> "Network":
    """The subnet *text*. Raises InvalidInput."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidInput(f"invalid subnet {text!r}: {error}") from error


def parse_address(text: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address":
    """The address *text*, without a zone. Raises InvalidInput."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidInput(f"invalid IP address {text!r}") from error
    if getattr(address, "scope_id", None):
        raise InvalidInput(f"invalid IP address {text!r}: it has a zone")
    return address


def mac_of(address: str) -> str:
    """A MAC that follows from the address, so that it stays with it: 02:42 and IPv4's four bytes, or a checksum."""
    packed = ipaddress.ip_address(address).packed
    if len(packed) > 4:
        packed = binascii.crc32(packed).to_bytes(4, "big")
    return "02:42:" + packed.hex(":")


def parse_mac(text: str) -> str:
    """A MAC in the form that the kernel shows. Raises InvalidInput where it is none, or no single interface's."""
    parts = text.replace("-", ":").split(":")
    try:
        octets = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        octets = b""
    if len(octets) != 6 or len(parts) != 6:
        raise InvalidInput(f"invalid MAC address {text!r}")
    if octets[0] & 1 or not any(octets):
        raise InvalidInput(f"MAC address {text} cannot be one interface's")
    return octets.hex(":")
