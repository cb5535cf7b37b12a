"""The headers of one connection's packets: IP and TCP in one piece, most of it made once.

What changes from packet to packet is packed into a fixed layout, and the sums that the kernel wants (of IPv4's header,
and of the pseudo header, for it to complete the checksum) are a constant plus the length.
"""

import struct

from slirp.tcp_states import Out
from slirp.wire import ip, tcp, vnet
from slirp.wire.checksum import partial, pseudo

_TCP = 6
_TCP_HEADER = 20
_LAYOUT4 = struct.Struct("!HHLHH8sHHLLHHHH")
_LAYOUT6 = struct.Struct("!LHH32sHHLLHHHH")
_VERSION4, _DONT_FRAGMENT, _HOP_LIMIT = 0x4500, 0x4000, 64
_VERSION6 = 6 << 28


class Envelope:
    """Headers for what goes from *source* to *destination*; *mtu* is the device's: what is larger, the kernel cuts."""

    __slots__ = ("_addresses", "_checksum", "_header4", "_mtu", "_ports", "_pseudo", "_size")

    def __init__(self, source: bytes, destination: bytes, source_port: int, destination_port: int, mtu: int) -> None:
        self._addresses = source + destination
        self._ports = source_port, destination_port
        self._mtu = mtu
        self._size = ip.HEADER4 if len(source) == 4 else ip.HEADER6
        self._checksum = vnet.needs_checksum(self._size, tcp.CHECKSUM_OFFSET)
        self._pseudo = pseudo(source, destination, _TCP, 0)
        fixed = _VERSION4 + _DONT_FRAGMENT + (_HOP_LIMIT << 8 | _TCP)
        self._header4 = partial(self._addresses, fixed) if len(source) == 4 else 0

    def headers(self, out: Out) -> tuple[bytes, bytes]:
        """The virtio header, and the headers that *out*'s payload is to follow."""
        header_length = _TCP_HEADER + len(out.options)
        length = header_length + len(out.payload)
        word = header_length << 10 | out.flags
        total = self._pseudo + length
        total = (total & 0xFFFF) + (total >> 16)
        numbers = *self._ports, out.sequence, out.acknowledgement, word, out.window, total, 0
        if self._size == ip.HEADER4:
            whole = self._size + length
            header_sum = self._header4 + whole
            header_sum = 0xFFFF - ((header_sum & 0xFFFF) + (header_sum >> 16))
            hops = _HOP_LIMIT << 8 | _TCP
            packed = _LAYOUT4.pack(_VERSION4, whole, _DONT_FRAGMENT, hops, header_sum, self._addresses, *numbers)
        else:
            packed = _LAYOUT6.pack(_VERSION6, length, _TCP << 8 | _HOP_LIMIT, self._addresses, *numbers)
        return self._virtio(header_length, length), packed + out.options

    def _virtio(self, header_length: int, length: int) -> bytes:
        if self._size + length <= self._mtu:
            return self._checksum
        kind = vnet.GSO_TCP4 if self._size == ip.HEADER4 else vnet.GSO_TCP6
        headers = self._size + header_length
        return vnet.gso(kind, headers, max(self._mtu - headers, 1), self._size, tcp.CHECKSUM_OFFSET)
