"""How netlink messages are written: netlink(7), rtnetlink(7). That the kernel takes them, the tests of links tell."""

import socket

from hypothesis import given
from hypothesis import strategies as st

from slirp import netlink, nft, rtnetlink


def test_an_attribute_has_a_length_a_number_and_a_value_and_ends_at_a_multiple_of_four() -> None:
    assert netlink.attribute(3, b"abcde") == bytes.fromhex("0900 0300 6162636465 000000")
    assert netlink.text(3, "abc") == bytes.fromhex("0800 0300 61626300")
    assert netlink.nested(2, netlink.attribute(1, b"a")) == bytes.fromhex("0c00 0200 0500 0100 61 000000")


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert list(netlink.attributes_of(data)) == pairs


@given(st.binary(max_size=60))
def test_attributes_of_any_bytes_come_to_an_end(data: bytes) -> None:
    assert sum(4 + len(value) for _, value in netlink.attributes_of(data)) <= len(data) + 4


def test_an_address_has_its_broadcast_address_in_ipv4_and_is_there_at_once_in_ipv6() -> None:
    assert rtnetlink.add_address(2, "172.17.0.1/16").body == bytes.fromhex(
        "02 10 00 00 02000000"  # family, prefix, flags, scope, index
        "0800 0200 ac110001 0800 0100 ac110001 0800 0400 ac11ffff"
    )
    in_ipv6 = rtnetlink.add_address(2, "fd00:1::1/64").body
    assert in_ipv6[:8] == bytes.fromhex("0a 40 02 00 02000000")
    assert len(in_ipv6) == 8 + 2 * 20


def test_a_route_through_a_gateway_is_on_the_link_whatever_its_addresses_say() -> None:
    assert rtnetlink.add_default_route(4, socket.AF_INET, "172.17.0.1").body == bytes.fromhex(
        "02 000000 fe 03 00 01 04000000 0800 0400 04000000 0800 0f00 fe000000 0800 0500 ac110001"
    )


def test_expressions_have_their_numbers_in_network_order() -> None:
    assert nft.equals(b"\x06") == bytes.fromhex(
        "2c00 0100 0800 0100 636d7000"  # an element: "cmp"
        "2000 0200 0800 0100 00000008 0800 0200 00000000 0c00 0300 0500 0100 06000000"
    )
