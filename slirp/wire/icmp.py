"""ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and the errors that tell a sender why its packet came to nothing.

An error quotes the packet it is about, from the IP header on, so that the sender's kernel finds the socket: up to 576
bytes in all for IPv4 (RFC 1812 §4.3.2.3), 1280 for IPv6. Nothing is said about a later fragment, about what was sent to
many, or about an ICMP message other than an echo request, so that two sides never answer each other's errors.
"""

import struct
from enum import Enum
from typing import NamedTuple

from slirp.wire import ip
from slirp.wire.checksum import checksum, pseudo
from slirp.wire.ip import Packet

PROTOCOL4, PROTOCOL6 = 1, 58
ECHO_REQUEST4, ECHO_REPLY4 = 8, 0
ECHO_REQUEST6, ECHO_REPLY6 = 128, 129
HEADER = 8

_LAYOUT = struct.Struct("!BBHHH")
_ERROR = struct.Struct("!BBHI")
_LARGEST4, _LARGEST6 = 576, 1280


class Unreachable(Enum):
    """Why a packet could not be delivered: (code of ICMP type 3, code of ICMPv6 type 1)."""

    NETWORK = (0, 0)
    HOST = (1, 3)
    PORT = (3, 4)
    PROHIBITED = (13, 1)


class Echo(NamedTuple):
    """An echo request or reply. *data* is a view into the packet."""

    reply: bool
    identifier: int
    sequence: int
    data: memoryview


def parse_echo(packet: Packet) -> Echo | None:
    """The echo message in an unfragmented packet; None for every other kind, and for a checksum that does not hold."""
    payload = packet.payload
    if packet.fragment or len(payload) < HEADER:
        return None
    kind, code, _, identifier, sequence = _LAYOUT.unpack_from(payload)
    requests, replies, initial = ECHO_REQUEST4, ECHO_REPLY4, 0
    if packet.version == 6:
        requests, replies = ECHO_REQUEST6, ECHO_REPLY6
        initial = pseudo(packet.source, packet.destination, PROTOCOL6, len(payload))
    if packet.protocol != _protocol(packet.source) or kind not in (requests, replies) or code:
        return None
    if checksum(payload, initial):
        return None
    return Echo(kind == replies, identifier, sequence, payload[HEADER:])


def echo(
    source: bytes, destination: bytes, identifier: int, sequence: int, data: bytes | memoryview, *, reply: bool = False
) -> bytes:
    """An echo message (without its IP header) from *source* to *destination*, a reply if so said; checksum included."""
    if len(source) == 4:
        kind = ECHO_REPLY4 if reply else ECHO_REQUEST4
    else:
        kind = ECHO_REPLY6 if reply else ECHO_REQUEST6
    return _complete(source, destination, _LAYOUT.pack(kind, 0, 0, identifier, sequence) + bytes(data))


def unreachable(packet: Packet, reason: Unreachable, source: bytes | None = None) -> bytes | None:
    """The whole IP packet that tells *packet*'s sender of the failure; None if nothing may be said.

    It comes from *source* (a router's address), or from the destination itself.
    """
    if packet.version == 4:
        return _error(packet, 3, reason.value[0], 0, source)
    return _error(packet, 1, reason.value[1], 0, source)


def too_big(packet: Packet, mtu: int, source: bytes | None = None) -> bytes | None:
    """The whole IP packet that tells *packet*'s sender how large it may be ("fragmentation needed" in IPv4)."""
    if packet.version == 4:
        return _error(packet, 3, 4, min(mtu, 65535), source)
    return _error(packet, 2, 0, mtu, source)


def _error(packet: Packet, kind: int, code: int, rest: int, source: bytes | None) -> bytes | None:
    if not _answerable(packet):
        return None
    sender = source or packet.destination
    room = (_LARGEST4 - ip.HEADER4 if packet.version == 4 else _LARGEST6 - ip.HEADER6) - HEADER
    quote = bytes(packet.header) + bytes(packet.payload[: max(room - len(packet.header), 8)])
    message = _complete(sender, packet.source, _ERROR.pack(kind, code, 0, rest) + quote[:room])
    return ip.header(sender, packet.source, _protocol(sender), len(message)) + message


def _answerable(packet: Packet) -> bool:
    if packet.fragment and packet.fragment.offset:
        return False
    if not any(packet.source) or to_many(packet.source) or to_many(packet.destination):
        return False
    if packet.protocol in (PROTOCOL4, PROTOCOL6):
        return bool(packet.payload) and packet.payload[0] in (ECHO_REQUEST4, ECHO_REQUEST6)
    return True


def to_many(address: bytes) -> bool:
    """Whether the address is a multicast group or the limited broadcast."""
    return address[0] == 0xFF if len(address) == 16 else address[0] >= 224


def _protocol(address: bytes) -> int:
    return PROTOCOL4 if len(address) == 4 else PROTOCOL6


def _complete(source: bytes, destination: bytes, message: bytes) -> bytes:
    initial = pseudo(source, destination, PROTOCOL6, len(message)) if len(source) == 16 else 0
    return message[:2] + checksum(message, initial).to_bytes(2, "big") + message[4:]
