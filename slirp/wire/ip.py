"""IPv4 (RFC 791) and IPv6 (RFC 8200): to one record for both, and from their fields to a header.

IPv4 options are skipped, after a look: source routes are refused, as everywhere today, and so is an option that runs
past the header. IPv6 extension headers are walked, a bounded number of them, as far as the payload or the fragment
header; a routing header is refused whatever its type, for each known type either is deprecated or asks for a detour.

Lengths are held against what is really there. The header checksum of IPv4 is verified: the kernel fills it in even
where it leaves the inner checksum to its device.
"""

import struct
from typing import NamedTuple

from slirp.wire.checksum import checksum

HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT_HEADER, DESTINATION_OPTIONS = 0, 43, 44, 59, 60
HEADER4, HEADER6 = 20, 40
MOST_EXTENSIONS = 8
MOST_EXTENSION_BYTES = 2048

_LOOSE_ROUTE, _STRICT_ROUTE = 131, 137
_END_OF_OPTIONS, _NO_OPERATION = 0, 1
_DONT_FRAGMENT, _MORE = 0x4000, 0x2000
_LAYOUT4 = struct.Struct("!BBHHHBBH4s4s")
_LAYOUT6 = struct.Struct("!IHBB16s16s")
_FRAGMENT = struct.Struct("!BBHI")


class Fragment(NamedTuple):
    """Where a piece belongs: *offset* in bytes within the payload, *more* unless it is the last."""

    identification: int
    offset: int
    more: bool


class Packet(NamedTuple):
    """An IP packet. *header* is everything before *payload*, options and extension headers included.

    Addresses are 4 or 16 bytes. With *fragment*, the payload is a piece of one, and *protocol* is that of the whole.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    hop_limit: int
    payload: memoryview
    header: memoryview
    fragment: Fragment | None


def parse(data: memoryview) -> Packet | None:
    """The packet in *data*; None if it is malformed or asks for a route. Bytes after the packet's end are left out."""
    if len(data) < HEADER4:
        return None
    version = data[0] >> 4
    if version == 4:
        return _parse4(data)
    if version == 6 and len(data) >= HEADER6:
        return _parse6(data)
    return None


def header(
    source: bytes,
    destination: bytes,
    protocol: int,
    length: int,
    *,
    hop_limit: int = 64,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """The header, of the addresses' family, before *length* bytes of payload. *dont_fragment* means nothing to IPv6."""
    if len(source) == 16:
        return _LAYOUT6.pack(0x60000000, length, protocol, hop_limit, source, destination)
    return _header4(
        source, destination, protocol, length, hop_limit, identification, _DONT_FRAGMENT if dont_fragment else 0
    )


def fragments(
    source: bytes, destination: bytes, protocol: int, payload: bytes | memoryview, mtu: int, identification: int
) -> list[tuple[bytes, memoryview]]:
    """*payload*, whose checksum is complete, as headers and pieces that fit *mtu*: at least 8 bytes of it in each."""
    view = memoryview(payload)
    overhead = HEADER4 if len(source) == 4 else HEADER6 + _FRAGMENT.size
    step = max((mtu - overhead) & ~7, 8)
    pieces = []
    for offset in range(0, len(view), step):
        piece = view[offset : offset + step]
        more = offset + step < len(view)
        if len(source) == 4:
            field = offset >> 3 | (_MORE if more else 0)
            start = _header4(source, destination, protocol, len(piece), 64, identification & 0xFFFF, field)
        else:
            start = header(source, destination, FRAGMENT, len(piece) + _FRAGMENT.size)
            start += _FRAGMENT.pack(protocol, 0, offset | more, identification & 0xFFFFFFFF)
        pieces.append((start, piece))
    return pieces


def _header4(
    source: bytes, destination: bytes, protocol: int, length: int, hop_limit: int, identification: int, fragment: int
) -> bytes:
    fields = (0x45, 0, HEADER4 + length, identification, fragment, hop_limit, protocol)
    total = checksum(_LAYOUT4.pack(*fields, 0, source, destination))
    return _LAYOUT4.pack(*fields, total, source, destination)


def _parse4(data: memoryview) -> Packet | None:
    first, _, total, identification, field, hop_limit, protocol, _, source, destination = _LAYOUT4.unpack_from(data)
    length = (first & 15) * 4
    if not HEADER4 <= length <= total <= len(data):
        return None
    start = data[:length]
    if checksum(start) or (length > HEADER4 and not _harmless(start[HEADER4:])):
        return None
    payload = data[length:total]
    fragment = None
    if field & 0x3FFF:
        fragment = Fragment(identification, (field & 0x1FFF) * 8, bool(field & _MORE))
        if not _plausible(fragment, len(payload)):
            return None
    return Packet(4, source, destination, protocol, hop_limit, payload, start, fragment)


def _harmless(options: memoryview) -> bool:
    """Whether the options end where the header does and none of them is a source route."""
    at = 0
    while at < len(options) and options[at] != _END_OF_OPTIONS:
        if options[at] == _NO_OPERATION:
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2 or options[at] in (_LOOSE_ROUTE, _STRICT_ROUTE):
            return False
        at += options[at + 1]
    return at <= len(options)


def _parse6(data: memoryview) -> Packet | None:
    _, length, protocol, hop_limit, source, destination = _LAYOUT6.unpack_from(data)
    end = HEADER6 + length
    if end > len(data):
        return None
    walked = _walk(data[:end], protocol)
    if walked is None:
        return None
    at, protocol, fragment = walked
    return Packet(6, source, destination, protocol, hop_limit, data[at:end], data[:at], fragment)


def _walk(data: memoryview, protocol: int) -> tuple[int, int, Fragment | None] | None:
    """Past the extension headers: where the payload starts, its protocol, and the fragment header if there is one.

    A fragment's payload may begin with further extension headers: they are looked at in the whole.
    """
    at = HEADER6
    for _ in range(MOST_EXTENSIONS):
        if protocol not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS):
            return at, protocol, None
        if at + 8 > len(data) or protocol == ROUTING or (protocol == HOP_BY_HOP and at != HEADER6):
            return None
        if protocol == FRAGMENT:
            protocol, _, field, identification = _FRAGMENT.unpack_from(data, at)
            at += _FRAGMENT.size
            if field & 0xFFF9:  # else it is an atomic fragment (RFC 6946): whole
                fragment = Fragment(identification, field & 0xFFF8, bool(field & 1))
                return (at, protocol, fragment) if _plausible(fragment, len(data) - at) else None
            continue
        protocol, at = data[at], at + 8 + data[at + 1] * 8
        if at > len(data) or at > MOST_EXTENSION_BYTES:
            return None
    return None


def _plausible(fragment: Fragment, length: int) -> bool:
    """Whether the piece lies within the largest packet, and is of a size that others can follow on."""
    if length == 0 or fragment.offset + length > 65535:
        return False
    return not fragment.more or length % 8 == 0
