"""The policy: what is never reachable, what rules allow, what names have taught, and what is told of denials."""

import pytest

from slirp import outward
from slirp.loop import Loop
from slirp.model import Endpoint, Model, Network, packed
from slirp.outward import Outward, Refusal, Route, forbidden

PUBLIC = packed("203.0.113.9")


class Clock(Loop):
    """A loop whose time is the test's."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class World:
    """A container on a network, next to another network."""

    def __init__(
        self,
        *,
        egress: list[str] | None = None,
        network_egress: list[str] | None = None,
        host_loopback: bool = False,
        internal: bool = False,
    ) -> None:
        self.model, self.clock = Model(), Clock()
        self.log: list[str] = []
        lan = {"id": "lan", "name": "lan", "gateway4": "172.30.0.1", "subnet4": "172.30.0.0/24"}
        self.network: Network = self.model.add_network({**lan, "internal": internal, "egress": network_egress})
        self.model.add_network({"id": "other", "name": "other", "subnet4": "172.31.0.0/24", "subnet6": "fd00:31::/64"})
        place = {"network": "lan", "ipv4": "172.30.0.2", "ipv6": "fd00:30::2"}
        rights = {"egress": egress, "host_loopback": host_loopback}
        self.model.set_container({"id": "c", "name": "web", **rights, "endpoints": [place]})
        self.model.set_container({"id": "d", "name": "db", "egress": egress, "endpoints": []})
        self.endpoint: Endpoint = self.network.endpoints[packed("172.30.0.2")]
        self.outward = Outward(self.model, self.clock, self.log.append)

    def route(self, address: str, port: int = 443, protocol: str = "tcp") -> Route | Refusal:
        return self.outward.route(self.network, self.endpoint, protocol, packed(address), port)


@pytest.mark.parametrize("address", ["203.0.113.9", "10.0.0.5", "169.254.169.254", "2001:db8::9", "fd12::1"])
def test_the_world_is_reachable_as_it_is(address: str) -> None:
    assert World().route(address) == Route(packed(address), 443, False)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.0.0.53", "127.255.255.255", "0.0.0.0", "0.1.2.3"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:203.0.113.9", "::ffff:0:127.0.0.1"),
        *("64:ff9b::127.0.0.1", "64:ff9b::0.0.0.0", "2002:7f00:1::1", "fe80::1", "ff02::1", "ff05::2"),
        "169.254.1.2",  # the host's loopback, for those who may
        *("172.30.0.1", "172.30.0.99", "172.30.0.255", "172.31.0.2", "fd00:31::2"),  # the user's own networks
    ],
)
@pytest.mark.parametrize("egress", [None, ["*"]])
def test_loopback_by_any_spelling_and_other_networks_are_unreachable(address: str, egress: list[str] | None) -> None:
    assert World(egress=egress).route(address) is Refusal.UNREACHABLE


@pytest.mark.parametrize("address", ["64:ff9b::203.0.113.9", "2002:cb00:7109::1"])
def test_ipv4_inside_of_ipv6_is_judged_by_what_it_leads_to(address: str) -> None:
    assert not forbidden(packed(address))


def test_host_loopback_stands_for_it_where_given() -> None:
    world = World(host_loopback=True)
    assert world.route("169.254.1.2", 5432) == Route(packed("127.0.0.1"), 5432, True)
    assert world.route("127.0.0.1", 5432) is Refusal.UNREACHABLE


@pytest.mark.parametrize("egress, allowed", [(["none"], False), (["*:5432"], True), (["host.docker.internal"], True)])
def test_host_loopback_is_subject_to_egress_rules(egress: list[str], allowed: bool) -> None:
    route = World(host_loopback=True, egress=egress).route("169.254.1.2", 5432)
    assert route == (Route(packed("127.0.0.1"), 5432, True) if allowed else Refusal.PROHIBITED)


@pytest.mark.parametrize("address", ["203.0.113.9", "169.254.1.2", "2001:db8::9"])
def test_internal_network_has_no_outside(address: str) -> None:
    assert World(internal=True, host_loopback=True).route(address) is Refusal.UNREACHABLE


@pytest.mark.parametrize(
    "container, network, allowed",
    [
        (None, None, True),
        (["203.0.113.0/24"], None, True),
        (None, ["203.0.113.0/24:443"], True),
        (["203.0.113.0/24"], ["203.0.113.9"], True),
        (["203.0.113.0/24"], ["198.51.100.0/24"], False),
        (["198.51.100.0/24"], ["203.0.113.0/24"], False),
        ([], None, False),
        (None, [], False),
        (["none"], ["*"], False),
        (["1.2.3.4.5"], None, False),  # not understood: nothing is allowed
    ],
)
def test_container_and_network_must_both_allow(
    container: list[str] | None, network: list[str] | None, allowed: bool
) -> None:
    route = World(egress=container, network_egress=network).route("203.0.113.9")
    assert route == (Route(PUBLIC, 443, False) if allowed else Refusal.PROHIBITED)


def test_name_allows_what_our_dns_has_said_it_is() -> None:
    world = World(egress=["api.example.org:443", "*.cdn.test"])
    assert world.route("203.0.113.9") is Refusal.PROHIBITED
    world.outward.learn("c", "API.example.org.", PUBLIC, 300)
    assert world.route("203.0.113.9") == Route(PUBLIC, 443, False)
    assert world.route("203.0.113.9", 80) is Refusal.PROHIBITED
    world.outward.learn("c", "a.cdn.test", packed("2001:db8::9"), 300)
    assert world.route("2001:db8::9", 1) == Route(packed("2001:db8::9"), 1, False)


def test_one_container_does_not_learn_for_another() -> None:
    world = World(egress=["api.example.org"])
    world.outward.learn("d", "api.example.org", PUBLIC, 300)
    world.outward.learn("nobody", "api.example.org", PUBLIC, 300)
    assert world.route("203.0.113.9") is Refusal.PROHIBITED


def test_name_that_no_rule_speaks_of_teaches_nothing() -> None:
    world = World(egress=["api.example.org"])
    world.outward.learn("c", "evil.test", PUBLIC, 300)
    assert world.route("203.0.113.9") is Refusal.PROHIBITED


@pytest.mark.parametrize(
    "ttl, later, allowed",
    [(0, 59, True), (0, 61, False), (300, 299, True), (300, 301, False), (2**31, 86399, True), (2**31, 86401, False)],
)
def test_address_is_good_for_a_minute_at_least_and_a_day_at_most(ttl: int, later: float, allowed: bool) -> None:
    world = World(egress=["api.example.org"])
    world.outward.learn("c", "api.example.org", PUBLIC, ttl)
    world.clock.time += later
    assert (world.route("203.0.113.9") is not Refusal.PROHIBITED) is allowed


def test_address_stays_good_while_a_flow_to_it_lives() -> None:
    world = World(egress=["api.example.org"])
    alive = True
    world.outward.live.append(lambda container, address: alive and (container, address) == ("c", PUBLIC))
    world.outward.learn("c", "api.example.org", PUBLIC, 60)
    world.outward.learn("c", "api.example.org", packed("203.0.113.10"), 60)
    world.clock.time += 3600
    assert world.route("203.0.113.9") == Route(PUBLIC, 443, False)
    assert world.route("203.0.113.10") is Refusal.PROHIBITED
    alive = False
    world.clock.time += 61
    assert world.route("203.0.113.9") is Refusal.PROHIBITED


def test_a_shorter_answer_does_not_shorten_a_longer_one() -> None:
    world = World(egress=["api.example.org"])
    world.outward.learn("c", "api.example.org", PUBLIC, 3600)
    world.outward.learn("c", "api.example.org", PUBLIC, 1)
    world.clock.time += 600
    assert world.route("203.0.113.9") == Route(PUBLIC, 443, False)


def test_flow_may_go_on_as_long_as_it_could_begin_and_the_address_is_its_own() -> None:
    world = World(egress=["203.0.113.0/24:443"])
    own = packed("172.30.0.2")
    assert world.outward.permits("c", "lan", own, PUBLIC, 443)
    assert not world.outward.permits("c", "lan", own, PUBLIC, 80)
    assert not world.outward.permits("d", "lan", own, PUBLIC, 443)
    assert not world.outward.permits("c", "other", own, PUBLIC, 443)
    assert not world.outward.permits("c", "lan", packed("172.30.0.3"), PUBLIC, 443)
    assert (world.log, world.outward.denied()) == ([], [])


def test_what_is_learned_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "MOST_LEARNED", 8)
    world = World(egress=["*.example.org"])
    for number in range(20):
        world.outward.learn("c", "a.example.org", packed(f"203.0.113.{number}"), 300)
        world.outward.learn("c", f"x{number}.example.org", packed("203.0.113.200"), 300)
    allowed = [n for n in range(20) if world.route(f"203.0.113.{n}") is not Refusal.PROHIBITED]
    assert allowed == list(range(13, 20))
    assert world.route("203.0.113.200") is not Refusal.PROHIBITED


def test_container_that_is_gone_is_forgotten() -> None:
    world = World(egress=["api.example.org"])
    world.outward.learn("c", "api.example.org", PUBLIC, 300)
    world.route("198.51.100.1")
    world.outward.forget("c")
    assert world.outward.denied() == []
    assert world.route("203.0.113.9") is Refusal.PROHIBITED


@pytest.mark.parametrize(
    "container, network, name, allowed",
    [
        (None, None, "x.evil.test", True),
        (["api.example.org:443"], None, "API.example.org.", True),
        (["api.example.org:443"], None, "secret.evil.test", False),
        (["10.0.0.0/8"], None, "db.corp.test", False),
        (["*:443"], None, "db.corp.test", True),
        (None, ["*.corp.test"], "db.corp.test", True),
        (["db.corp.test"], ["*.other.test"], "db.corp.test", False),
        (["none"], None, "db.corp.test", False),
    ],
)
def test_only_names_that_rules_speak_of_are_resolved(
    container: list[str] | None, network: list[str] | None, name: str, allowed: bool
) -> None:
    world = World(egress=container, network_egress=network)
    assert world.outward.may_resolve("c", name) is allowed
    assert world.outward.may_resolve("c", name, world.network) is allowed
    assert not world.outward.may_resolve("nobody", name)


def test_denials_are_counted_and_told_once_a_minute() -> None:
    world = World(egress=["api.example.org:443"])
    world.outward.learn("c", "api.example.org", PUBLIC, 600)
    for _ in range(5):
        world.route("203.0.113.9", 80)
    world.route("2001:db8::9", 53, "udp")
    world.route("203.0.113.9", 0, "icmp")
    assert world.log == [
        "web: tcp to 203.0.113.9:80 (api.example.org) denied by --egress",
        "web: udp to [2001:db8::9]:53 denied by --egress",
        "web: icmp to 203.0.113.9 (api.example.org) denied by --egress",
    ]
    world.clock.time += 61
    world.route("203.0.113.9", 80)
    assert len(world.log) == 4
    rows = {str(row["destination"]): row for row in world.outward.denied("c")}
    assert rows["203.0.113.9:80"]["count"] == 6
    assert rows["203.0.113.9:80"]["name"] == "api.example.org"
    assert rows["[2001:db8::9]:53"]["protocol"] == "udp"
    assert world.outward.denied("d") == []


def test_scan_of_a_thousand_ports_is_a_few_lines_and_a_bounded_table() -> None:
    world = World(egress=["none"])
    for port in range(1, 1001):
        world.route("203.0.113.9", port)
    assert len(world.log) == outward.LINES_PER_MINUTE
    assert len(world.outward.denied()) == outward.MOST_DENIALS
    world.clock.time += 61
    world.route("203.0.113.9", 5000)
    assert world.log[-1].endswith("denied by --egress (and 980 other denials before)")
