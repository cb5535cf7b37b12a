"""A network's tun device: packets from its containers to us, and back.

A packet travels behind the ten bytes of its virtio header (wire/vnet.py). With checksum and segmentation offload the
kernel hands over what a container's TCP made, up to 64 KiB in one piece, and takes the same from us; so a packet is one
readv(2) or writev(2) however large it is, and no checksum is made in Python where the kernel can make it.
"""

import os

from slirp.wire import checksum, ip, vnet

TCP = 6
LARGEST = 65535 + ip.HEADER6  # of an IPv6 packet; nothing larger comes without jumbograms, which are not asked for
_ROOM = vnet.SIZE + LARGEST
_DATA_OFFSET = 12  # of the byte in a TCP header whose upper half counts its words


class Tun:
    """The device behind *fd* (non-blocking), which this object owns. *mtu* is that of the network."""

    __slots__ = ("_identification", "_room", "dropped", "fd", "mtu")

    def __init__(self, fd: int, mtu: int = 65520, room: bytearray | None = None) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.mtu = mtu
        self.dropped = 0  # packets that the kernel did not take
        self._identification = 0
        # Read into again and again; several devices can share it, since a packet is dealt with before the next is read.
        self._room = memoryview(room if room is not None else make_room())

    def receive(self) -> tuple[bytes, memoryview] | None:
        """The next packet with its virtio header, or None. The view is valid until the next call.

        Raises OSError (EBADFD, EIO) where the device is gone.
        """
        try:
            length = os.readv(self.fd, (self._room,))
        except (BlockingIOError, InterruptedError):
            return None
        return bytes(self._room[: vnet.SIZE]), self._room[vnet.SIZE : length]

    def send(self, *parts: bytes | memoryview, vnet: bytes = vnet.NONE) -> bool:
        """Send one packet; False if the kernel has no room for it, has put the device down or refuses the packet."""
        try:
            os.writev(self.fd, (vnet, *parts))
        except OSError:
            self.dropped += 1
            return False
        return True

    def send_ip(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        *parts: bytes | memoryview,
        checksum_offset: int | None,
        hop_limit: int = 64,
    ) -> bool:
        """Send *parts* behind an IP header, in as many packets as the MTU makes necessary; False as in `send`.

        *checksum_offset* says where in the first part, which holds the whole TCP or UDP header, the kernel has to put
        the checksum; None if it is there already. TCP larger than the MTU leaves as one segment for the kernel to cut.
        """
        length = sum(map(len, parts))
        if checksum_offset is not None:
            total = checksum.pseudo(source, destination, protocol, length)
            parts = (_with_field(parts[0], checksum_offset, total), *parts[1:])
        header_length = ip.HEADER4 if len(source) == 4 else ip.HEADER6
        if header_length + length > self.mtu and (protocol != TCP or checksum_offset is None):
            return self._send_fragments(source, destination, protocol, parts, checksum_offset)
        header = ip.header(source, destination, protocol, length, hop_limit=hop_limit)
        if checksum_offset is None:
            return self.send(header, *parts)
        if header_length + length > self.mtu:
            return self.send(header, *parts, vnet=self._gso(header_length, parts[0], checksum_offset))
        return self.send(header, *parts, vnet=vnet.needs_checksum(header_length, checksum_offset))

    def _gso(self, header_length: int, tcp: bytes | memoryview, checksum_offset: int) -> bytes:
        kind = vnet.GSO_TCP4 if header_length == ip.HEADER4 else vnet.GSO_TCP6
        headers = header_length + (tcp[_DATA_OFFSET] >> 4) * 4
        return vnet.gso(kind, headers, max(self.mtu - headers, 1), header_length, checksum_offset)

    def _send_fragments(
        self,
        source: bytes,
        destination: bytes,
        protocol: int,
        parts: tuple[bytes | memoryview, ...],
        checksum_offset: int | None,
    ) -> bool:
        payload = b"".join(parts)
        if checksum_offset is not None:  # the field holds the pseudo header's sum by now
            payload = _with_field(payload, checksum_offset, checksum.checksum(payload) or 0xFFFF)
        self._identification = self._identification + 1 & 0xFFFFFFFF
        pieces = ip.fragments(source, destination, protocol, payload, self.mtu, self._identification)
        return all(self.send(header, piece) for header, piece in pieces)

    def close(self) -> None:
        """Close the descriptor; the device is the namespace's."""
        os.close(self.fd)


def make_room() -> bytearray:
    """A buffer that holds any packet."""
    return bytearray(_ROOM)


def _with_field(message: bytes | memoryview, offset: int, value: int) -> bytes:
    return b"".join((message[:offset], value.to_bytes(2, "big"), message[offset + 2 :]))
