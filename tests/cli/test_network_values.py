"""--network in both forms, links and Ethernet addresses, as Docker reads them."""

import pytest

from rootless.cli.network_values import merge_networks, parse_ipv4, parse_ipv6, parse_link, parse_mac, parse_network
from rootless.engine.options import NetworkOption
from rootless.errors import HostUnsupported, InvalidInput

LONG = "name=web,alias=a,alias=b,ip=10.1.0.5,ip6=fd00::5,mac-address=02-42-AC-11-00-02,gw-priority=-3"


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("web", NetworkOption("web")),
        ("container:db", NetworkOption("container:db")),
        ("name=web", NetworkOption("web")),
        ("NAME=web", NetworkOption("web")),
        (LONG, NetworkOption("web", ("a", "b"), "10.1.0.5", "fd00::5", "02:42:ac:11:00:02", (), -3)),
    ],
)
def test_both_forms_of_network(text: str, option: NetworkOption) -> None:
    assert parse_network(text) == option


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alias=a", "network name/id is not specified"),
        ("name=,alias=a", "network name/id is not specified"),
        ("name=a,b", "invalid field b"),
        ("name=a,colour=red", "invalid field key colour"),
        ("name=a,gw-priority=x", r"invalid gw-priority \(x\): value must be an integer"),
        ("name=a,ip=fd00::1", "invalid IPv4 address: fd00::1"),
        ("name=a,ip6=10.0.0.1", "invalid IPv6 address: 10.0.0.1"),
        ("name=a,mac-address=1", "1 is not a valid mac address"),
    ],
)
def test_what_is_no_network_is_said(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        parse_network(text)


def test_what_a_user_cannot_have_is_said() -> None:
    with pytest.raises(HostUnsupported, match="driver-opt of a network is not there"):
        parse_network("name=a,driver-opt=x=y")


@pytest.mark.parametrize("text", ["02:42:ac:11:00:02", "02-42-AC-11-00-02", ""])
def test_an_ethernet_address_is_in_one_form(text: str) -> None:
    assert parse_mac(text) in ("02:42:ac:11:00:02", "")


@pytest.mark.parametrize("text", ["02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42-ac:11:00:02", "01:00:5e:00:00:01"])
def test_an_address_of_no_station_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=f"{text} is not a valid mac address"):
        parse_mac(text)


@pytest.mark.parametrize(("text", "link"), [("db", ("db", "db")), ("/db", ("/db", "db")), ("db:d", ("db", "d"))])
def test_links(text: str, link: tuple[str, str]) -> None:
    assert parse_link(text) == link


@pytest.mark.parametrize("text", ["", ":", "a:", ":a", "a:b:c"])
def test_what_is_no_link_is_said(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"bad format for links|empty string specified for links"):
        parse_link(text)


def test_addresses_are_of_their_family() -> None:
    assert (parse_ipv4("10.0.0.1"), parse_ipv6("fd00::1")) == ("10.0.0.1", "fd00::1")
    with pytest.raises(InvalidInput):
        parse_ipv4("fd00::1")


def test_the_short_options_are_about_the_first_network() -> None:
    networks = [NetworkOption("a"), NetworkOption("b")]
    merged = merge_networks(networks, aliases=["x"], links=[("c", "d")], ipv4="10.0.0.1", ipv6="", mac="")
    assert merged == (NetworkOption("a", ("x",), "10.0.0.1", links=(("c", "d"),)), NetworkOption("b"))
    assert merge_networks([], aliases=[], links=[], ipv4="", ipv6="", mac="") == ()
    assert merge_networks([], aliases=["x"], links=[], ipv4="", ipv6="", mac="") == (NetworkOption("", ("x",)),)
