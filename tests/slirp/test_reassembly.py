"""Fragments: whole packets out of pieces in any order, nothing out of pieces that contradict each other, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp import reassembly
from slirp.reassembly import LIFETIME, Reassembly
from slirp.wire import ip
from slirp.wire.ip import Fragment, Packet

A4, B4 = bytes((172, 17, 0, 2)), bytes((203, 0, 113, 9))
A6, B6 = bytes.fromhex("fd000000000000000000000000000002"), bytes.fromhex("20010db8000000000000000000000009")
BOTH = pytest.mark.parametrize("source, destination", [(A4, B4), (A6, B6)], ids=["IPv4", "IPv6"])


def packet(data: bytes) -> Packet:
    parsed = ip.parse(memoryview(data))
    assert parsed is not None
    return parsed


def cut(payload: bytes, mtu: int = 1300, identification: int = 1, ends: tuple[bytes, bytes] = (A4, B4)) -> list[Packet]:
    pieces = ip.fragments(*ends, 17, payload, mtu, identification)
    return [packet(header + bytes(piece)) for header, piece in pieces]


def piece(offset: int, data: bytes, *, more: bool, identification: int = 1) -> Packet:
    whole = packet(ip.header(A4, B4, 17, len(data)) + data)
    return whole._replace(fragment=Fragment(identification, offset, more))


def feed(table: Reassembly, packets: list[Packet], now: float = 0.0, owner: str = "a") -> list[Packet]:
    return [whole for one in packets if (whole := table.add(owner, one, now))]


@BOTH
@given(data=st.data(), size=st.integers(1, 4000))
def test_pieces_in_any_order_make_the_whole(source: bytes, destination: bytes, data: st.DataObject, size: int) -> None:
    payload = bytes(at * 7 & 255 for at in range(size))
    table = Reassembly()
    (whole,) = feed(table, data.draw(st.permutations(cut(payload, 300, ends=(source, destination)))))
    assert bytes(whole.payload) == payload
    assert (whole.source, whole.destination, whole.protocol, whole.fragment) == (source, destination, 17, None)
    assert table.held == 0


@BOTH
def test_largest_datagram_comes_out_whole(source: bytes, destination: bytes) -> None:
    payload = bytes(65507 + 8)
    (whole,) = feed(Reassembly(), cut(payload, 1280, ends=(source, destination)))
    assert len(whole.payload) == 65515


def test_whole_packet_passes() -> None:
    one = packet(ip.header(A4, B4, 17, 4) + b"data")
    assert Reassembly().add("a", one, 0) is one


def test_repeated_piece_does_no_harm() -> None:
    pieces = cut(bytes(4000))
    (whole,) = feed(Reassembly(), [*pieces[:2], pieces[0], pieces[1], *pieces[2:]])
    assert len(whole.payload) == 4000


@pytest.mark.parametrize(
    "second",
    [
        piece(8, bytes(16), more=True),  # the end of the first
        piece(0, b"X" * 16, more=True),  # the same place, other bytes
        piece(0, bytes(8), more=True),  # the beginning of the first again
        piece(8, bytes(2), more=False),  # an end before what is there
    ],
)
def test_pieces_that_overlap_are_the_end_of_the_packet(second: Packet) -> None:
    table = Reassembly()
    assert not feed(table, [piece(0, bytes(16), more=True), second])
    assert not feed(table, [piece(16, bytes(8), more=False), piece(0, bytes(16), more=True)])
    assert table.dropped == 1


def test_piece_that_covers_others_is_the_end_of_the_packet() -> None:
    table = Reassembly()
    assert not feed(table, [piece(16, bytes(8), more=True), piece(8, bytes(24), more=True)])
    assert table.dropped == 1


def test_two_ends_contradict_each_other() -> None:
    table = Reassembly()
    assert not feed(table, [piece(16, bytes(8), more=False), piece(24, bytes(8), more=False)])
    assert not feed(table, [piece(0, bytes(16), more=True)])
    assert table.dropped == 1


def test_packets_are_told_apart_by_sender_ends_and_identification() -> None:
    table = Reassembly()
    assert not feed(table, [piece(0, bytes(8), more=True)], owner="a")
    assert not feed(table, [piece(8, bytes(8), more=False)], owner="b")
    assert not feed(table, [piece(8, bytes(8), more=False, identification=2)], owner="a")
    assert feed(table, [piece(8, bytes(8), more=False)], owner="a")


def test_rest_that_does_not_come_is_waited_for_half_a_minute() -> None:
    table = Reassembly()
    first, second = piece(0, bytes(8), more=True), piece(8, bytes(8), more=False)
    assert not feed(table, [first], now=0)
    assert table.expire(10) == pytest.approx(LIFETIME - 10)
    assert not feed(table, [second], now=LIFETIME)
    assert feed(table, [first], now=LIFETIME + 1)
    assert table.expire(1000) is None
    assert table.held == 0


def test_packet_of_ipv6_may_go_on_with_extension_headers() -> None:
    options = bytes((17, 0)) + bytes(6)
    first, last = (
        packet(ip.header(A6, B6, 44, 24) + bytes((60, 0, 0, 1)) + bytes(4) + options + bytes(8)),
        packet(ip.header(A6, B6, 44, 16) + bytes((60, 0, 0, 16)) + bytes(4) + bytes(8)),
    )
    (whole,) = feed(Reassembly(), [first, last])
    assert (whole.protocol, len(whole.payload)) == (17, 16)


def test_fragments_within_fragments_are_nothing() -> None:
    inner = bytes((17, 0, 0, 1)) + bytes(4)
    first = packet(ip.header(A6, B6, 44, 16) + bytes((44, 0, 0, 1)) + bytes(4) + inner)
    last = packet(ip.header(A6, B6, 44, 16) + bytes((44, 0, 0, 8)) + bytes(4) + bytes(8))
    assert not feed(Reassembly(), [first, last])


def test_pieces_of_one_packet_are_bounded() -> None:
    table = Reassembly()
    feed(table, [piece(8 * at, bytes(8), more=True) for at in range(reassembly.MOST_PIECES + 1)])
    assert table.dropped == 1
    assert table.held < 2000


def test_one_sender_cannot_fill_the_table_nor_drive_out_others() -> None:
    table = Reassembly()
    feed(table, [piece(0, bytes(1000), more=True)], owner="quiet")
    for number in range(300):
        feed(table, [piece(0, bytes(60000), more=True, identification=number)], owner="loud")
        assert table.held <= reassembly.MOST_BYTES_OF_ONE + 10_000
    assert feed(table, [piece(1000, bytes(8), more=False)], owner="quiet")


def test_many_senders_stay_within_four_mebibytes() -> None:
    table = Reassembly()
    for number in range(400):
        feed(table, [piece(0, bytes(60000), more=True, identification=number)], owner=str(number % 20))
        assert table.held <= reassembly.MOST_BYTES
    for owner in range(20):
        table.forget(str(owner))
    assert table.held == 0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans(), st.integers(0, 2)), max_size=40))
def test_whatever_comes_the_books_are_right(pieces: list[tuple[int, int, bool, int]]) -> None:
    table = Reassembly()
    for now, (offset, size, more, identification) in enumerate(pieces):
        data = bytes((now,)) * (size * 8)
        whole = table.add("a", piece(offset * 8, data, more=more, identification=identification), now * 3.0)
        assert whole is None or whole.fragment is None
    table.expire(1e9)
    assert table.held == 0
