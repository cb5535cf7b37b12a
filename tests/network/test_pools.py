"""Subnets: what can be asked for, in Docker's words, and the choice of one that is free."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import Conflict, InvalidInput
from rootless.network.pools import (
    Pool,
    check_address,
    check_overlap,
    choose_ipv4,
    choose_ipv6,
    configure,
    routes_ipv4,
    routes_ipv6,
)

# proc_net(5) on a machine with a VPN, Docker and a default route; and of one with IPv6.
ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0100A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
wlan0\t0000A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
tun0\t00001F0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
tun0\t05001F0A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""
ROUTE_6 = """\
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001       lo
fd001234000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
"""  # noqa: E501  # as the kernel writes them


def test_the_routes_of_the_machine_are_read_without_the_default_one() -> None:
    assert list(routes_ipv4(ROUTE)) == ["172.17.0.0/16", "192.168.0.0/24", "10.31.0.0/16", "10.31.0.5/32"]
    assert list(routes_ipv6(ROUTE_6)) == ["fd00:1234::/64"]
    assert list(routes_ipv4("")) == list(routes_ipv6("")) == []


@pytest.mark.parametrize(
    ("networks", "routes", "subnet"),
    [
        ([], [], "172.17.0.0/16"),
        (["172.17.0.0/16"], [], "172.18.0.0/16"),
        ([], ["172.17.42.0/24"], "172.18.0.0/16"),
        (["172.18.0.0/15"], ["172.16.0.0/15"], "172.20.0.0/16"),
        ([], ["172.16.0.0/12"], "192.168.0.0/20"),
        ([], ["172.16.0.0/12", "192.168.0.0/24"], "192.168.16.0/20"),
        ([], ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"], "172.17.0.0/16"),
        (["172.17.0.0/16"], ["172.16.0.0/12", "192.168.0.0/16"], "172.18.0.0/16"),
        (["fd00::/64"], [], "172.17.0.0/16"),
    ],
)
def test_a_subnet_is_chosen_that_is_free_and_shadows_nothing(
    networks: list[str], routes: list[str], subnet: str
) -> None:
    chosen = choose_ipv4(networks, routes)
    assert chosen.subnet == subnet
    assert chosen.gateway == subnet.partition("0/")[0] + "1"


def test_all_subnets_can_be_used_up() -> None:
    taken: list[str] = []
    for _ in range(31):
        taken.append(choose_ipv4(taken, []).subnet)
    assert (len(set(taken)), taken[-1]) == (31, "192.168.240.0/20")
    with pytest.raises(Conflict, match=r"^all predefined address pools have been fully subnetted$"):
        choose_ipv4(taken, [])


def test_an_ipv6_subnet_follows_from_the_id_and_is_free() -> None:
    first = choose_ipv6("0123456789abcdef" * 4, ["172.17.0.0/16"], [])
    assert first == Pool("fd01:2345:6789:abcd::/64", "fd01:2345:6789:abcd::1")
    assert first.is_ipv6
    second = choose_ipv6("0123456789abcdef" * 4, ["fd01::/16"], [])
    assert second.subnet == "fd12:3456:789a:bcde::/64"


@pytest.mark.parametrize(
    ("subnets", "given", "pools"),
    [
        ([], {}, []),
        (["10.1.0.0/24"], {}, [Pool("10.1.0.0/24", "10.1.0.1")]),
        (["10.1.0.0/24"], {"gateways": ["10.1.0.254"]}, [Pool("10.1.0.0/24", "10.1.0.254")]),
        (["10.1.0.0/16"], {"ranges": ["10.1.5.0/24"]}, [Pool("10.1.0.0/16", "10.1.0.1", "10.1.5.0/24")]),
        (
            ["10.1.0.0/24"],
            {"aux": {"router": "10.1.0.1"}},
            [Pool("10.1.0.0/24", "10.1.0.2", "", {"router": "10.1.0.1"})],
        ),
        (
            ["10.1.0.0/24", "fd00:1::/64"],
            {"gateways": ["fd00:1:0::2", "10.1.0.9"], "aux": {"a": "fd00:1::3"}},
            [Pool("10.1.0.0/24", "10.1.0.9"), Pool("fd00:1::/64", "fd00:1::2", "", {"a": "fd00:1::3"})],
        ),
    ],
)
def test_options_add_up_to_pools(subnets: list[str], given: dict[str, object], pools: list[Pool]) -> None:
    assert configure(subnets, **{"aux": {}, **given}) == pools  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("subnets", "given", "message"),
    [
        ([], {"gateways": ["10.1.0.1"]}, "every ip-range or gateway must have a corresponding subnet"),
        (["10.1.0.0"], {}, "invalid subnet 10.1.0.0: invalid CIDR block notation"),
        (["10.1.0.0/x"], {}, "invalid subnet 10.1.0.0/x: invalid CIDR block notation"),
        (["10.1.0.0/255.255.0.0"], {}, "invalid subnet 10.1.0.0/255.255.0.0: invalid CIDR block notation"),
        (["10.1.0.0/33"], {}, "invalid subnet 10.1.0.0/33: invalid CIDR block notation"),
        (["10.1.0.1/24"], {}, "invalid subnet 10.1.0.1/24: it should be 10.1.0.0/24"),
        (["10.1.0.0/31"], {}, "invalid subnet 10.1.0.0/31: it has no room for a gateway and a container"),
        (["127.1.0.0/16"], {}, "invalid subnet 127.1.0.0/16: 127.0.0.0/8 is not for containers"),
        (["0.0.0.0/0"], {}, "invalid subnet 0.0.0.0/0: 0.0.0.0/8 is not for containers"),
        (["fe80::/64"], {}, "invalid subnet fe80::/64: fe80::/9 is not for containers"),
        (["10.1.0.0/16", "10.1.2.0/24"], {}, "multiple overlapping subnet configuration is not supported"),
        (["10.1.0.0/16", "10.2.0.0/16"], {}, "bridge driver doesn't support multiple subnets"),
        (["10.1.0.0/24"], {"ranges": ["10.2.0.0/25"]}, "no matching subnet for range 10.2.0.0/25"),
        (["10.1.0.0/24"], {"ranges": ["10.1.0.1/25"]}, "invalid ip-range 10.1.0.1/25: it should be 10.1.0.0/25"),
        (
            ["10.1.0.0/24"],
            {"ranges": ["10.1.0.0/16"]},
            "invalid ip-range 10.1.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24",
        ),
        (
            ["10.1.0.0/24", "fd00::/64"],
            {"ranges": ["10.1.0.0/25", "10.1.0.128/25"]},
            "cannot configure multiple ranges (10.1.0.128/25, 10.1.0.0/25) on the same subnet (10.1.0.0/24)",
        ),
        (["10.1.0.0/24"], {"gateways": ["10.2.0.1"]}, "no matching subnet for gateway 10.2.0.1"),
        (["10.1.0.0/24"], {"gateways": ["x"]}, "invalid address: x"),
        (
            ["10.1.0.0/24", "fd00::/64"],
            {"gateways": ["10.1.0.1", "10.1.0.2"]},
            "cannot configure multiple gateways (10.1.0.2, 10.1.0.1) for the same subnet (10.1.0.0/24)",
        ),
        (
            ["10.1.0.0/24"],
            {"gateways": ["10.1.0.255"]},
            "failed to allocate gateway (10.1.0.255): Address already in use",
        ),
        (
            ["10.1.0.0/24"],
            {"gateways": ["10.1.0.1"], "aux": {"a": "10.1.0.1"}},
            "failed to allocate gateway (10.1.0.1): Address already in use",
        ),
        (["10.1.0.0/24"], {"aux": {"a": "10.2.0.1"}}, "no matching subnet for aux-address 10.2.0.1"),
    ],
)
def test_what_cannot_be_is_told_in_dockers_words(subnets: list[str], given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        configure(subnets, **{"aux": {}, **given})  # type: ignore[arg-type]
    assert str(refused.value) == message


@given(st.text(st.sampled_from("0123456789abcdef:./%"), max_size=24))
def test_any_text_is_a_subnet_with_room_or_an_error(text: str) -> None:
    try:
        (pool,) = configure([text], aux={})
    except InvalidInput:
        return
    net = ipaddress.ip_network(pool.subnet)
    assert ipaddress.ip_address(pool.gateway) in net
    assert net.num_addresses > 2


def test_a_subnet_that_another_network_has_is_refused() -> None:
    check_overlap("10.1.0.0/24", ["10.2.0.0/24", "fd00::/64"])
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        check_overlap("10.1.0.0/24", ["10.0.0.0/8"])


def test_an_address_is_checked_for_its_family() -> None:
    assert check_address("fd00:0::1", 6) == "fd00::1"
    for text, version in (("fd00::1", 4), ("10.0.0.1", 6), ("x", 4), ("fe80::1%lo", 6)):
        with pytest.raises(InvalidInput):
            check_address(text, version)
