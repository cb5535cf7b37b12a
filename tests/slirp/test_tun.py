"""Packets of a tun device, over a socket pair in its place: both keep the bounds of what is written."""

import socket
from collections.abc import Iterator

import pytest

from slirp.tun import LARGEST, Tun
from slirp.wire import checksum, ip, tcp, udp, vnet

A, B = bytes((172, 17, 0, 2)), bytes((192, 0, 2, 1))
A6, B6 = bytes.fromhex("fd00" + "0" * 27 + "2"), bytes.fromhex("fd00" + "0" * 27 + "1")


class Pair:
    """A device of *mtu*, and what the kernel sees of it."""

    def __init__(self, mtu: int = 65520) -> None:
        self.kernel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.settimeout(5)
        self.tun = Tun(theirs.detach(), mtu)

    def sent(self) -> tuple[vnet.Vnet, ip.Packet]:
        data = self.kernel.recv(1 << 17)
        header, packet = vnet.parse(data[: vnet.SIZE]), ip.parse(memoryview(data)[vnet.SIZE :])
        assert header is not None
        assert packet is not None
        return header, packet

    def close(self) -> None:
        self.tun.close()
        self.kernel.close()


@pytest.fixture
def wide() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def narrow() -> Iterator[Pair]:
    pair = Pair(1500)
    yield pair
    pair.close()


def test_a_packet_comes_with_its_virtio_header(wide: Pair) -> None:
    assert wide.tun.receive() is None
    wide.kernel.send(b"0123456789" + b"packet")
    received = wide.tun.receive()
    assert received is not None
    assert (received[0], bytes(received[1])) == (b"0123456789", b"packet")
    assert wide.tun.receive() is None


def test_the_largest_packet_fits(wide: Pair) -> None:
    wide.kernel.send(bytes(vnet.SIZE) + b"x" * LARGEST)
    received = wide.tun.receive()
    assert received is not None
    assert len(received[1]) == LARGEST


def test_a_packet_of_several_parts_is_one(wide: Pair) -> None:
    assert wide.tun.send(b"ab", memoryview(b"cd"), b"", b"e")
    assert wide.kernel.recv(100) == vnet.NONE + b"abcde"


def test_what_the_kernel_does_not_take_is_counted_and_lost(wide: Pair) -> None:
    wide.kernel.close()
    assert not wide.tun.send(b"x")
    assert wide.tun.dropped == 1


@pytest.mark.parametrize("source, destination", [(A, B), (A6, B6)])
def test_the_checksum_is_left_to_the_kernel_with_the_pseudo_headers_sum_in_its_place(
    wide: Pair, source: bytes, destination: bytes
) -> None:
    header = tcp.header(80, 4000, 1, 2, tcp.ACK, 100)
    wide.tun.send_ip(source, destination, 6, header, b"payload", checksum_offset=tcp.CHECKSUM_OFFSET)
    asked, packet = wide.sent()
    assert (asked.flags, asked.gso_type) == (vnet.NEEDS_CHECKSUM, vnet.GSO_NONE)
    assert (asked.checksum_start, asked.checksum_offset) == (len(packet.header), 16)
    assert packet.payload[16:18] == checksum.pseudo(source, destination, 6, 27).to_bytes(2, "big")
    assert (packet.source, packet.destination, bytes(packet.payload[20:])) == (source, destination, b"payload")


@pytest.mark.parametrize("source, destination, kind", [(A, B, vnet.GSO_TCP4), (A6, B6, vnet.GSO_TCP6)])
def test_tcp_above_the_mtu_is_for_the_kernel_to_cut(narrow: Pair, source: bytes, destination: bytes, kind: int) -> None:
    header = tcp.header(80, 4000, 1, 2, tcp.ACK, 100)
    narrow.tun.send_ip(source, destination, 6, header, b"x" * 20000, checksum_offset=tcp.CHECKSUM_OFFSET)
    asked, packet = narrow.sent()
    headers = len(packet.header) + 20
    assert (asked.gso_type, asked.header_length, asked.segment_size) == (kind, headers, 1500 - headers)
    assert len(packet.payload) == 20020


@pytest.mark.parametrize("source, destination", [(A, B), (A6, B6)])
def test_a_datagram_above_the_mtu_leaves_in_fragments_with_its_checksum(
    narrow: Pair, source: bytes, destination: bytes
) -> None:
    data = bytes(range(256)) * 20
    header = udp.header(53, 4000, len(data))
    narrow.tun.send_ip(source, destination, 17, header, data, checksum_offset=6)
    whole = b""
    while True:
        asked, packet = narrow.sent()
        assert asked.flags == 0
        assert len(packet.header) + len(packet.payload) <= 1500
        assert packet.fragment is not None
        assert packet.fragment.offset == len(whole)
        whole += bytes(packet.payload)
        if not packet.fragment.more:
            break
    assert whole[8:] == data
    assert checksum.intact(source, destination, 17, whole)


def test_a_message_with_its_checksum_is_left_alone(wide: Pair) -> None:
    wide.tun.send_ip(A, B, 1, b"\x08\0\xf7\xff\0\0\0\0", checksum_offset=None)
    asked, packet = wide.sent()
    assert (asked.flags, bytes(packet.payload)) == (0, b"\x08\0\xf7\xff\0\0\0\0")
