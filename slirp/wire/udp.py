"""The UDP header (RFC 768)."""

import struct
from typing import NamedTuple

PROTOCOL = 17
HEADER = 8
CHECKSUM_OFFSET = 6

_LAYOUT = struct.Struct("!HHHH")


class Datagram(NamedTuple):
    """One datagram: ports and what it carries, a view into the packet."""

    source_port: int
    destination_port: int
    payload: memoryview


def parse(payload: memoryview) -> Datagram | None:
    """The datagram in an IP packet's payload; None if it is shorter than it says, or than a header.

    What follows the datagram within the packet is not part of it. Port 0 as a source is legal ("no answer wanted") but
    names no flow, and as a destination it is nothing, so neither is taken.
    """
    if len(payload) < HEADER:
        return None
    source_port, destination_port, length, _ = _LAYOUT.unpack_from(payload)
    if not HEADER <= length <= len(payload) or not source_port or not destination_port:
        return None
    return Datagram(source_port, destination_port, payload[HEADER:length])


def header(source_port: int, destination_port: int, length: int, checksum: int = 0) -> bytes:
    """The header of a datagram that carries *length* bytes. A checksum of 0 means none."""
    return _LAYOUT.pack(source_port, destination_port, HEADER + length, checksum)
