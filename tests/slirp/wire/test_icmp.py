"""Echo messages and errors."""

import pytest

from slirp.wire import icmp, ip
from slirp.wire.checksum import checksum, pseudo
from slirp.wire.icmp import Unreachable

A4, B4, ROUTER4 = bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9)), bytes((172, 17, 0, 1))
A6, B6 = bytes.fromhex("fd000000000000000000000000000002"), bytes.fromhex("20010db8000000000000000000000009")
# A datagram to a closed port and the beginning of the answer, from Linux 6.18; the quoted datagram follows in that.
SENT4 = "45000026455840004011f76c7f0000017f000001a32a00090012fe256120646174616772616d"
SENT6 = (
    "600d63ba001a004000000000000000000000000000000001000000000000000000000000000000011100010400000000"
    "d282000900122a7a6120646174616772616d"
)
ANSWERED4, ANSWERED6 = "030358ce00000000", "0104287300000000"
BOTH = pytest.mark.parametrize("source, destination", [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])


def packet(source: bytes, destination: bytes, protocol: int, payload: bytes) -> ip.Packet:
    parsed = ip.parse(memoryview(ip.header(source, destination, protocol, len(payload)) + payload))
    assert parsed is not None
    return parsed


def protocol_of(address: bytes) -> int:
    return icmp.PROTOCOL4 if len(address) == 4 else icmp.PROTOCOL6


def received(message: bytes | None) -> ip.Packet:
    """The packet, whose ICMP checksum holds."""
    assert message is not None
    parsed = ip.parse(memoryview(message))
    assert parsed is not None
    ends = parsed.source, parsed.destination, icmp.PROTOCOL6, len(parsed.payload)
    assert checksum(parsed.payload, pseudo(*ends) if parsed.version == 6 else 0) == 0
    return parsed


@BOTH
@pytest.mark.parametrize("reply", [False, True])
def test_echo_is_parsed_to_what_it_was_made_of(source: bytes, destination: bytes, reply: bool) -> None:
    message = icmp.echo(source, destination, 0xABCD, 9, b"payload", reply=reply)
    echo = icmp.parse_echo(packet(source, destination, protocol_of(source), message))
    assert echo is not None
    assert (echo.reply, echo.identifier, echo.sequence, bytes(echo.data)) == (reply, 0xABCD, 9, b"payload")


@BOTH
def test_damaged_or_short_or_other_messages_are_no_echo(source: bytes, destination: bytes) -> None:
    good = icmp.echo(source, destination, 1, 1, b"payload")
    protocol = protocol_of(source)
    for message in (good[:-1] + b"x", good[:7], b"\x0d" + good[1:], good[:1] + b"\1" + good[2:]):
        assert icmp.parse_echo(packet(source, destination, protocol, message)) is None
    assert icmp.parse_echo(packet(source, destination, 17, good)) is None


@BOTH
def test_error_quotes_the_packet_and_comes_from_its_destination(source: bytes, destination: bytes) -> None:
    offending = packet(source, destination, 17, bytes(range(64)))
    error = received(icmp.unreachable(offending, Unreachable.PORT))
    assert (error.source, error.destination) == (destination, source)
    assert tuple(error.payload[:2]) == ((3, 3) if len(source) == 4 else (1, 4))
    assert bytes(error.payload[8:]) == bytes(offending.header) + bytes(offending.payload)


@pytest.mark.parametrize("text, error", [(SENT4, ANSWERED4), (SENT6, ANSWERED6)], ids=["IPv4", "IPv6"])
def test_error_is_byte_for_byte_that_of_linux(text: str, error: str) -> None:
    offending = ip.parse(memoryview(bytes.fromhex(text)))
    assert offending is not None
    assert received(icmp.unreachable(offending, Unreachable.PORT)).payload.hex() == error + text


def test_error_may_come_from_a_router() -> None:
    error = received(icmp.unreachable(packet(A4, B4, 17, bytes(8)), Unreachable.PROHIBITED, ROUTER4))
    assert error.source == ROUTER4
    assert tuple(error.payload[:2]) == (3, 13)


@pytest.mark.parametrize("source, destination, largest", [(A4, B4, 576), (A6, B6, 1280)], ids=["IPv4", "IPv6"])
def test_error_about_a_large_packet_is_small(source: bytes, destination: bytes, largest: int) -> None:
    error = icmp.unreachable(packet(source, destination, 17, bytes(60000)), Unreachable.HOST)
    assert error is not None
    assert len(error) == largest


def test_mtu_stands_where_each_version_has_it() -> None:
    assert bytes(received(icmp.too_big(packet(A4, B4, 17, bytes(2000)), 1400)).payload[:8])[4:] == b"\0\0\x05\x78"
    error = received(icmp.too_big(packet(A6, B6, 17, bytes(2000)), 1400))
    assert tuple(error.payload[:2]) == (2, 0)
    assert bytes(error.payload[4:8]) == b"\0\0\x05\x78"


def test_nothing_is_said_about_errors_later_fragments_and_what_was_sent_to_many() -> None:
    about = icmp.unreachable
    assert about(packet(A4, B4, 1, b"\3\3" + bytes(30)), Unreachable.PORT) is None
    assert about(packet(A6, B6, 58, b"\1\4" + bytes(30)), Unreachable.PORT) is None
    assert about(packet(A4, B4, 1, icmp.echo(A4, B4, 1, 1, b"")), Unreachable.HOST) is not None
    assert about(packet(A4, bytes((224, 0, 0, 1)), 17, bytes(8)), Unreachable.PORT) is None
    assert about(packet(A4, b"\xff" * 4, 17, bytes(8)), Unreachable.PORT) is None
    assert about(packet(bytes(4), B4, 17, bytes(8)), Unreachable.PORT) is None
    assert about(packet(A6, b"\xff\2" + bytes(14), 17, bytes(8)), Unreachable.PORT) is None
    later = packet(A4, B4, 17, bytes(8))._replace(fragment=ip.Fragment(1, 8, False))
    assert about(later, Unreachable.PORT) is None
