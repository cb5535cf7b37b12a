"""The virtio header."""

import sys

import pytest

from slirp.wire import vnet


def test_nothing_to_do_is_ten_zeros() -> None:
    assert bytes(10) == vnet.NONE
    assert vnet.parse(vnet.NONE) == vnet.Vnet(0, vnet.GSO_NONE, 0, 0, 0, 0)


def test_checksum_and_segments_are_asked_for() -> None:
    assert vnet.parse(vnet.needs_checksum(20, 6)) == vnet.Vnet(1, 0, 0, 0, 20, 6)
    assert vnet.parse(vnet.gso(vnet.GSO_TCP4, 40, 1460, 20, 16)) == vnet.Vnet(1, 1, 40, 1460, 20, 16)


def test_fields_are_in_the_order_of_the_machine() -> None:
    assert vnet.needs_checksum(20, 6)[6:8] == (20).to_bytes(2, sys.byteorder)


@pytest.mark.parametrize("size", [0, 9, 11, 12])
def test_another_size_is_none(size: int) -> None:
    assert vnet.parse(bytes(size)) is None


def test_checksum_is_not_looked_at_where_the_kernel_has_it() -> None:
    assert vnet.trusted(vnet.needs_checksum(20, 6))
    assert vnet.trusted(bytes((vnet.DATA_VALID,)) + bytes(9))
    assert not vnet.trusted(vnet.NONE)
