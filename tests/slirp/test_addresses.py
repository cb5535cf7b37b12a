"""Which addresses a pool gives, and which it refuses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp.addresses import Pool, mac_of, parse_mac
from slirp.errors import Conflict, InvalidInput, SlirpError


def small() -> Pool:
    """Six hosts, of which one is the gateway."""
    return Pool("10.0.0.0/29", "10.0.0.1", name="back")


def test_the_first_container_gets_the_address_behind_the_gateway() -> None:
    assert [small().take(), Pool("fd00::/64", "fd00::1").take()] == ["10.0.0.2", "fd00::2"]


def test_addresses_rise_and_a_freed_one_comes_last() -> None:
    pool = small()
    taken = [pool.take(), pool.take()]
    pool.give_back("10.0.0.2")
    taken += [pool.take(), pool.take(), pool.take(), pool.take()]
    assert [address.rpartition(".")[2] for address in taken] == ["2", "3", "4", "5", "6", "2"]


def test_neither_the_subnet_nor_the_broadcast_nor_the_gateway_is_given_away() -> None:
    pool = small()
    assert {pool.take() for _ in range(5)} == {f"10.0.0.{n}" for n in range(2, 7)}
    with pytest.raises(SlirpError, match="no available IPv4 addresses on this network's address pools: back"):
        pool.take()


def test_an_exhausted_pool_goes_on_with_what_is_given_back() -> None:
    pool = small()
    for _ in range(5):
        pool.take()
    pool.give_back("10.0.0.4")
    assert pool.take() == "10.0.0.4"


def test_only_addresses_of_the_range_are_chosen_but_others_can_be_asked_for() -> None:
    pool = Pool("10.0.0.0/16", "10.0.0.1", part="10.0.5.0/30")
    assert [pool.take() for _ in range(4)] == ["10.0.5.0", "10.0.5.1", "10.0.5.2", "10.0.5.3"]
    assert pool.take("10.0.9.9") == "10.0.9.9"
    with pytest.raises(SlirpError, match="no available"):
        pool.take()


def test_auxiliary_addresses_are_somebody_else_s() -> None:
    pool = Pool("10.0.0.0/29", "10.0.0.1", aux=["10.0.0.2", "10.0.0.3"])
    assert pool.take() == "10.0.0.4"
    with pytest.raises(Conflict, match=r"10\.0\.0\.2"):
        pool.take("10.0.0.2")


def test_without_a_gateway_the_first_address_is_it() -> None:
    assert [Pool(subnet, "").gateway for subnet in ("10.1.0.0/16", "fd00::/64", "10.0.0.0/31")] == [
        *("10.1.0.1", "fd00::1", "10.0.0.0"),
    ]


def test_a_fixed_address_is_taken_once() -> None:
    pool = small()
    assert pool.take("10.0.0.5") == "10.0.0.5"
    with pytest.raises(Conflict, match=r"Address already in use: 10\.0\.0\.5 on network back"):
        pool.take("10.0.0.5")
    assert [pool.take() for _ in range(4)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6"]


@pytest.mark.parametrize(
    "address, error, words",
    [
        ("10.0.0.1", Conflict, "already in use"),
        ("10.0.0.0", InvalidInput, "not a host's address"),
        ("10.0.0.7", InvalidInput, "not a host's address"),
        ("10.0.1.2", InvalidInput, "no configured subnet or ip-range contain the IP address"),
        ("fd00::2", InvalidInput, "no configured subnet"),
        ("10.0.0.2/29", InvalidInput, "invalid IP address"),
        ("010.0.0.2", InvalidInput, "invalid IP address"),
        ("x", InvalidInput, "invalid IP address"),
    ],
)
def test_what_cannot_be_a_container_s_address_is_refused(address: str, error: type[SlirpError], words: str) -> None:
    with pytest.raises(error, match=words):
        small().take(address)


def test_an_earlier_address_is_kept_where_it_is_free_and_forgotten_where_not() -> None:
    pool = small()
    assert pool.take(previous="10.0.0.4") == "10.0.0.4"
    assert pool.take(previous="10.0.0.4") == "10.0.0.2"
    assert pool.take(previous="192.168.0.1") == "10.0.0.3"
    assert pool.take(previous="nonsense") == "10.0.0.5"


@pytest.mark.parametrize(
    "subnet, gateway, part",
    [
        ("10.0.0.1/24", "10.0.0.1", ""),
        ("10.0.0.0/33", "", ""),
        ("x", "", ""),
        ("10.0.0.0/24", "10.0.1.1", ""),
        ("10.0.0.0/24", "10.0.0.1", "10.0.1.0/25"),
        ("10.0.0.0/24", "10.0.0.1", "fd00::/80"),
        ("fe80::/64", "fe80::1%eth0", ""),
    ],
)
def test_a_pool_that_cannot_be_is_refused(subnet: str, gateway: str, part: str) -> None:
    with pytest.raises(InvalidInput):
        Pool(subnet, gateway, part=part)


def test_a_large_ipv6_subnet_costs_nothing() -> None:
    pool = Pool("fd00::/8", "fd00::1")
    assert [pool.take("fd00::2"), pool.take(), pool.take()] == ["fd00::2", "fd00::3", "fd00::4"]


@given(st.lists(st.one_of(st.none(), st.integers(0, 20), st.sampled_from([f"10.0.0.{n}" for n in range(18)]))))
def test_no_address_is_ever_two_containers(steps: list[int | str | None]) -> None:
    """None takes the next, a text a fixed one, a number gives one of those back that are taken."""
    pool, taken = Pool("10.0.0.0/28", "10.0.0.1", aux=["10.0.0.9"]), list[str]()
    for step in steps:
        if isinstance(step, int):
            if taken:
                pool.give_back(taken.pop(step % len(taken)))
            continue
        try:
            taken.append(pool.take(step or ""))
        except SlirpError:
            assert step or len(taken) == 12
    assert len(set(taken)) == len(taken)
    assert not {"10.0.0.0", "10.0.0.1", "10.0.0.9", "10.0.0.15"} & set(taken)
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network("10.0.0.0/28") for address in taken)


def test_the_mac_follows_from_the_address() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"
    assert mac_of("fd00::2") == mac_of("fd00::2") != mac_of("fd00::3")


@pytest.mark.parametrize("text", ["02:42:AC:11:00:02", "02-42-ac-11-00-02"])
def test_a_mac_is_read_in_its_usual_forms(text: str) -> None:
    assert parse_mac(text) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text", ["", "02:42:ac:11:00", "02:42:ac:11:00:2", "x", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff" * 6]
)
def test_what_is_no_interface_s_mac_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="MAC"):
        parse_mac(text)
