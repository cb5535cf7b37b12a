"""TCP's header, from bytes and to bytes."""

from hypothesis import given
from hypothesis import strategies as st

from slirp.wire import tcp

SYN = bytes.fromhex(
    "c350 0050 12345678 00000000 a002 faf0 0000 0000"  # ports 50000, 80; ten words; SYN; window 64240
    "0204 05b4 0402 080a 0000 0001 0000 0002 01 0303 07".replace(" ", "")
)


def test_a_linux_syn_is_understood() -> None:
    segment = tcp.parse(memoryview(SYN + b"early data"))
    assert segment is not None
    assert segment[:7] == (50000, 80, 0x12345678, 0, tcp.SYN, 64240, 0)
    assert segment.options == tcp.Options(1460, 7, True, (), (1, 2))
    assert bytes(segment.payload) == b"early data"


def test_what_is_built_is_parsed_again() -> None:
    options = tcp.syn_options(65480, 7)
    data = tcp.header(1, 2, 0xFFFFFFFF, 5, tcp.SYN | tcp.ACK, 65535, options)
    segment = tcp.parse(memoryview(data))
    assert segment is not None
    assert segment[:7] == (1, 2, 0xFFFFFFFF, 5, tcp.SYN | tcp.ACK, 65535, 0)
    assert segment.options == tcp.Options(mss=65480, wscale=7)


def test_options_of_an_odd_kind_length_or_place_are_passed_over() -> None:
    for options, expected in (
        (b"\x01\x01\x02\x04\x02\x18\x00\x00", tcp.Options(mss=536)),
        (b"\x02\x03\x05\x00", tcp.NO_OPTIONS),  # an MSS of three bytes
        (b"\x02\x00\x05\xb4", tcp.NO_OPTIONS),  # a length of nothing
        (b"\x02\x01\x05\xb4", tcp.NO_OPTIONS),
        (b"\x02\x08\x05\xb4", tcp.NO_OPTIONS),  # longer than the header
        (b"\x01\x01\x01\x02", tcp.NO_OPTIONS),  # cut off after the kind
        (b"\x00\x02\x04\x05", tcp.NO_OPTIONS),  # after the end
        (b"\xfd\x04\x01\x02\x03\x03\xff\x00", tcp.Options(wscale=14)),
        (b"\x02\x04\x00\x01\x02\x04\x00\x02", tcp.Options(mss=1)),
        (b"\x05\x0a\x00\x00\x00\x01\x00\x00\x00\x05\x00\x00", tcp.Options(sack=((1, 5),))),
        (b"\x05\x06\x00\x00\x00\x01\x00\x00", tcp.NO_OPTIONS),
    ):
        data = tcp.header(1, 2, 3, 4, tcp.ACK, 5, options)
        segment = tcp.parse(memoryview(data))
        assert segment is not None
        assert segment.options == expected, options


def test_a_header_that_is_too_short_or_longer_than_the_segment_is_none() -> None:
    whole = tcp.header(1, 2, 3, 4, tcp.ACK, 5)
    assert tcp.parse(memoryview(whole[:19])) is None
    for words in (0, 4, 6, 15):
        data = bytearray(whole)
        data[12] = words << 4
        assert tcp.parse(memoryview(data)) is None


@given(st.binary(max_size=100) | st.binary(max_size=70).map(lambda rest: SYN[:13] + rest))
def test_any_bytes_are_a_segment_or_none(data: bytes) -> None:
    segment = tcp.parse(memoryview(data))
    if segment is not None:
        assert bytes(segment.payload) == data[(data[12] >> 4) * 4 :]
        assert segment.options.wscale is None or segment.options.wscale <= 14
