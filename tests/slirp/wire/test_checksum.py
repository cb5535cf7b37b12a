"""The Internet checksum against RFC 1071's own example, and against the loop that its definition is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.wire import checksum

SOURCE, DESTINATION = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))


def by_definition(data: bytes) -> int:
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_example_of_the_rfc() -> None:
    assert checksum.partial(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@given(st.binary(max_size=200), st.integers(0, 65535))
def test_sum_is_that_of_the_definition(data: bytes, initial: int) -> None:
    expected = by_definition(initial.to_bytes(2, "big") + data)
    assert checksum.partial(data, initial) == expected
    assert checksum.checksum(memoryview(data), initial) == 65535 - expected


@pytest.mark.parametrize("data, total", [(b"", 0), (b"\0\0", 0), (b"\xff\xff", 0xFFFF), (b"\xff\xff" * 3, 0xFFFF)])
def test_zero_and_its_other_spelling_are_kept_apart(data: bytes, total: int) -> None:
    assert checksum.partial(data) == total


@given(st.binary(min_size=8, max_size=100).map(lambda data: data[: len(data) & ~1]))
def test_what_holds_its_checksum_is_intact(data: bytes) -> None:
    payload = data[:6] + b"\0\0" + data[8:]
    total = checksum.checksum(payload, checksum.pseudo(SOURCE, DESTINATION, 17, len(payload))) or 0xFFFF
    payload = payload[:6] + total.to_bytes(2, "big") + payload[8:]
    assert checksum.intact(SOURCE, DESTINATION, 17, memoryview(payload))
    damaged = payload[:4] + bytes((payload[4] ^ 1,)) + payload[5:]
    assert not checksum.intact(SOURCE, DESTINATION, 17, damaged)


def test_only_udp_over_ipv4_may_come_without() -> None:
    assert checksum.intact(SOURCE, DESTINATION, 17, bytes.fromhex("0001000200090000") + b"x")
    assert not checksum.intact(SOURCE, DESTINATION, 6, bytes.fromhex("0001000200090000") + b"x")
    assert not checksum.intact(bytes(15) + b"\1", bytes(15) + b"\2", 17, bytes.fromhex("0001000200090000") + b"x")


def test_64_kib_take_far_less_than_a_millisecond() -> None:
    data = memoryview(bytes(range(256)) * 256)
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        checksum.checksum(data)
        best = min(best, time.perf_counter() - start)
    assert best < 0.001
