"""The UDP header."""

import pytest

from slirp.wire import udp


def parse(text: str) -> udp.Datagram | None:
    return udp.parse(memoryview(bytes.fromhex(text)))


def test_datagram_is_parsed_to_what_it_was_made_of() -> None:
    datagram = udp.parse(memoryview(udp.header(1024, 53, 5) + b"hello"))
    assert datagram is not None
    assert (datagram.source_port, datagram.destination_port, bytes(datagram.payload)) == (1024, 53, b"hello")


def test_what_follows_the_datagram_is_not_part_of_it() -> None:
    datagram = parse("04000035000a0000" + "6162" + "ffff")
    assert datagram is not None
    assert bytes(datagram.payload) == b"ab"


@pytest.mark.parametrize(
    "text",
    [
        *("", "04000035000800"),  # no whole header
        "0400003500070000",  # shorter than its own header
        "0400003500090000",  # longer than what is there
        "0400003500000000",  # a jumbogram's length
        *("0000003500080000", "0400000000080000"),  # port 0
    ],
)
def test_what_is_no_datagram_is_none(text: str) -> None:
    assert parse(text) is None
