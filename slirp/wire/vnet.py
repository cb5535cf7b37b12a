"""The virtio_net_hdr before each packet of a tun with IFF_VNET_HDR: what the kernel left undone, or is to do.

Ten bytes in the machine's own byte order (linux/virtio_net.h). Outbound from a container they say that the checksum is
only the pseudo header's part so far, or that the packet is one large segment of several; towards it, the same flags ask
the kernel for that work.
"""

import struct
from typing import NamedTuple

NEEDS_CHECKSUM = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM: the field at start + offset holds a partial sum
DATA_VALID = 2  # VIRTIO_NET_HDR_F_DATA_VALID: somebody has looked at the checksum already
GSO_NONE, GSO_TCP4, GSO_UDP, GSO_TCP6, GSO_UDP_L4 = 0, 1, 3, 4, 5
GSO_ECN = 0x80

_LAYOUT = struct.Struct("=BBHHHH")
SIZE = _LAYOUT.size
NONE = bytes(SIZE)


class Vnet(NamedTuple):
    """A header taken apart. *checksum_offset* counts from *checksum_start*, which counts from the IP header."""

    flags: int
    gso_type: int
    header_length: int
    segment_size: int
    checksum_start: int
    checksum_offset: int


def parse(header: bytes | memoryview) -> Vnet | None:
    """The header's fields, or None if these are not ten bytes."""
    return Vnet._make(_LAYOUT.unpack(header)) if len(header) == SIZE else None


def trusted(header: bytes) -> bool:
    """Whether the packet's checksum is not to be looked at: the kernel has yet to make it, or has checked it."""
    return bool(header[0] & (NEEDS_CHECKSUM | DATA_VALID))


def needs_checksum(start: int, offset: int) -> bytes:
    """Asks the kernel to complete the checksum from byte *start* on, into the field at *start* + *offset*."""
    return _LAYOUT.pack(NEEDS_CHECKSUM, GSO_NONE, 0, 0, start, offset)


def gso(kind: int, header_length: int, segment_size: int, start: int, offset: int) -> bytes:
    """Asks the kernel to see segments of *segment_size* bytes, behind headers of *header_length* (IP included)."""
    return _LAYOUT.pack(NEEDS_CHECKSUM, kind, header_length, segment_size, start, offset)
