"""IP packets from bytes: real ones, and what is made of them to do harm."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.wire import ip
from slirp.wire.checksum import checksum

A4, B4 = bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9))
A6, B6 = bytes.fromhex("fd000000000000000000000000000002"), bytes.fromhex("20010db8000000000000000000000009")
PAYLOAD = b"what it carries."

# What a socket of Linux 6.18 has sent over loopback, as a packet socket saw it; the second with IPV6_HOPOPTS.
KERNEL4 = "45000026455840004011f76c7f0000017f000001a32a00090012fe256120646174616772616d"
KERNEL6 = (
    "600d63ba001a004000000000000000000000000000000001000000000000000000000000000000011100010400000000"
    "d282000900122a7a6120646174616772616d"
)


def v4(payload: bytes = PAYLOAD, *, options: bytes = b"", fragment: int = 0, total: int | None = None) -> bytes:
    length = 20 + len(options)
    fields = (0x40 | length // 4, 0, length + len(payload) if total is None else total, 7, fragment, 64, 17)
    header = struct.pack("!BBHHHBBH4s4s", *fields, 0, A4, B4) + options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def v6(rest: bytes = PAYLOAD, protocol: int = 17, length: int | None = None) -> bytes:
    size = len(rest) if length is None else length
    return struct.pack("!IHBB16s16s", 0x60000000, size, protocol, 64, A6, B6) + rest


def parse(data: bytes) -> ip.Packet | None:
    return ip.parse(memoryview(data))


@pytest.mark.parametrize("source, destination", [(A4, B4), (A6, B6)])
def test_header_is_parsed_to_what_it_was_made_of(source: bytes, destination: bytes) -> None:
    packet = parse(ip.header(source, destination, 17, len(PAYLOAD), hop_limit=3) + PAYLOAD)
    assert packet is not None
    assert (packet.source, packet.destination, packet.protocol) == (source, destination, 17)
    assert (packet.hop_limit, bytes(packet.payload), packet.fragment) == (3, PAYLOAD, None)


@pytest.mark.parametrize("text, header", [(KERNEL4, 20), (KERNEL6, 48)], ids=["IPv4", "IPv6"])
def test_datagram_that_linux_has_sent_is_understood(text: str, header: int) -> None:
    packet = parse(bytes.fromhex(text))
    assert packet is not None
    assert packet.source == packet.destination
    assert (packet.protocol, packet.hop_limit, len(packet.header)) == (17, 64, header)
    assert bytes(packet.payload)[8:] == b"a datagram"


def test_bytes_after_the_packet_are_left_out() -> None:
    for data in (v4(), v6()):
        packet = parse(data + b"trailer")
        assert packet is not None
        assert bytes(packet.payload) == PAYLOAD


@pytest.mark.parametrize(
    "data",
    [
        b"",
        v4()[:19],
        v4()[:-1],
        v4(total=19),
        v4(total=65535),
        b"\x44" + v4()[1:],  # a header of 16 bytes
        b"\x4f" + v4(b"")[1:],  # one of 60, in a packet of 20
        b"\x55" + v4()[1:],
        v4()[:8] + b"\x63" + v4()[9:],  # the checksum does not hold
        v6()[:39],
        v6()[:-1],
        v6(length=65535),
    ],
)
def test_lengths_that_lie_are_refused(data: bytes) -> None:
    assert parse(data) is None


@pytest.mark.parametrize(
    "options, accepted",
    [
        (b"\x01\x01\x01\x00", True),  # no operation, end
        (b"\x94\x04\x00\x00", True),  # router alert
        (b"\x07\x07\x04\0\0\0\0\0", True),  # record route, end
        (b"\x00\x83\xff\xff", True),  # nothing counts after the end
        (b"\x83\x07\x04\x7f\0\0\x01\0", False),  # loose source route
        (b"\x89\x07\x04\x7f\0\0\x01\0", False),  # strict source route
        (b"\x01\x01\x01\x83", False),  # an option without its length
        (b"\x94\x00\x00\x00", False),  # a length of nothing: a loop, once
        (b"\x94\x01\x00\x00", False),
        (b"\x94\x05\x00\x00", False),  # past the header
    ],
)
def test_options_are_skipped_unless_they_route_or_run_over(options: bytes, accepted: bool) -> None:
    packet = parse(v4(options=options))
    assert (packet is not None) == accepted
    if packet:
        assert bytes(packet.payload) == PAYLOAD
        assert len(packet.header) == 20 + len(options)


@pytest.mark.parametrize(
    "field, payload, fragment",
    [
        (0x2000, bytes(16), ip.Fragment(7, 0, True)),
        (0x2002, bytes(16), ip.Fragment(7, 16, True)),
        (0x0002, bytes(5), ip.Fragment(7, 16, False)),
        (0x4000, bytes(5), None),  # "don't fragment" is no fragment
    ],
)
def test_fragments_of_ipv4(field: int, payload: bytes, fragment: ip.Fragment | None) -> None:
    packet = parse(v4(payload, fragment=field))
    assert packet is not None
    assert packet.fragment == fragment


@pytest.mark.parametrize(
    "field, payload",
    [
        (0x2000, bytes(15)),  # more to follow, on no boundary of eight
        (0x2000, b""),
        (0x1FFF, bytes(16)),  # beyond 65535: the ping of death
    ],
)
def test_impossible_fragments_of_ipv4_are_refused(field: int, payload: bytes) -> None:
    assert parse(v4(payload, fragment=field)) is None


def extension(following: int, more: int = 0) -> bytes:
    return bytes((following, more)) + bytes(6 + more * 8)


def fragment6(following: int, field: int) -> bytes:
    return struct.pack("!BBHI", following, 0, field, 0xABCD)


@pytest.mark.parametrize(
    "first, headers",
    [
        (0, extension(17)),
        (60, extension(17, 3)),
        (0, extension(60) + extension(17)),
        (44, fragment6(17, 0)),  # atomic: a fragment that is the whole
        (0, extension(44) + fragment6(60, 0) + extension(17)),
    ],
)
def test_extension_headers_are_walked(first: int, headers: bytes) -> None:
    packet = parse(v6(headers + PAYLOAD, first))
    assert packet is not None
    assert (packet.protocol, bytes(packet.payload), packet.fragment) == (17, PAYLOAD, None)
    assert len(packet.header) == 40 + len(headers)


@pytest.mark.parametrize(
    "first, rest",
    [
        (43, extension(17) + PAYLOAD),  # routing, type 0
        (60, extension(43) + extension(17) + PAYLOAD),
        (60, extension(0) + extension(17) + PAYLOAD),  # hop-by-hop, not the first
        (60, extension(17)[:4]),
        (60, bytes((17, 255)) + bytes(6)),  # past the end
        (60, extension(60) * 8 + extension(17) + PAYLOAD),  # too many
        (60, (bytes((60, 200)) + bytes(1606)) * 2 + extension(17) + PAYLOAD),  # too large
        (44, fragment6(17, 1) + bytes(15)),
        (44, fragment6(17, 0xFFF8) + bytes(16)),
        (44, fragment6(17, 1)),
    ],
)
def test_chains_without_an_end_and_detours_are_refused(first: int, rest: bytes) -> None:
    assert parse(v6(rest, first)) is None


def test_fragment_of_ipv6() -> None:
    packet = parse(v6(extension(44) + fragment6(17, 16 | 1) + bytes(24), 0))
    assert packet is not None
    assert packet.fragment == ip.Fragment(0xABCD, 16, True)
    assert (packet.protocol, len(packet.payload)) == (17, 24)


@pytest.mark.parametrize("source, destination", [(A4, B4), (A6, B6)])
@given(size=st.integers(1, 5000), mtu=st.integers(68, 1500))
def test_pieces_fit_the_mtu_and_make_the_whole(source: bytes, destination: bytes, size: int, mtu: int) -> None:
    payload = bytes(at & 255 for at in range(size))
    pieces = ip.fragments(source, destination, 17, payload, mtu, 0x12345)
    together = b""
    for header, piece in pieces:
        assert len(header) + len(piece) <= mtu
        packet = parse(header + bytes(piece))
        assert packet is not None
        if len(pieces) > 1:
            assert packet.fragment is not None
            assert packet.fragment.offset == len(together)
            assert packet.fragment.more == (len(together) + len(piece) < size)
        together += bytes(packet.payload)
    assert together == payload
