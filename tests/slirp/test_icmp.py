"""Echo out of a container, against the kernel: ping sockets in a host's namespace whose sysctl is the test's."""

import os
import socket
import struct

import pytest

from slirp import icmp
from slirp.model import packed
from slirp.wire import icmp as wire
from slirp.wire import ip
from slirp.wire.icmp import Echo
from tests.slirp.udp_rig import CONTAINER4, CONTAINER6, WORLD4, WORLD6, Rig, alone, readable

pytestmark = pytest.mark.kernel
VERSIONS = pytest.mark.parametrize("world", [WORLD4, WORLD6], ids=["IPv4", "IPv6"])
PROHIBITED = {WORLD4: (3, 13), WORLD6: (1, 1)}
NO_ROUTE = {WORLD4: (3, 0), WORLD6: (1, 0)}


def allow_ping() -> None:
    """Group 0 of this user namespace may use ping sockets here. A fresh network namespace allows nobody."""
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 0")


class Pinger:
    """A raw socket of the container's, which sends requests and sees every ICMP message that arrives."""

    def __init__(self, rig: Rig, world: str) -> None:
        self.rig = rig
        self.version = 6 if ":" in world else 4
        self.own = packed(CONTAINER6 if self.version == 6 else CONTAINER4)
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if self.version == 6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        self.raw = rig.inside(lambda: socket.socket(family, socket.SOCK_RAW, protocol))
        self.raw.setblocking(False)
        if self.version == 6:  # ICMP6_FILTER: nothing that neighbours have to say (types 130 to 137)
            blocked = sum(1 << (kind & 31) for kind in range(130, 138))
            self.raw.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("=8I", 0, 0, 0, 0, blocked, 0, 0, 0))

    def send(self, to: str, identifier: int, sequence: int, data: bytes = b"payload", *, reply: bool = False) -> None:
        message = wire.echo(self.own, packed(to), identifier, sequence, data, reply=reply)
        self.raw.sendto(message, (to, 0))

    def heard(self) -> tuple[str, bytes]:
        """The next message, without the IP header, and its sender."""
        self.rig.until(lambda: readable(self.raw))
        data, sender = self.raw.recvfrom(70000)
        return sender[0], data if self.version == 6 else data[(data[0] & 15) * 4 :]

    def echo(self) -> tuple[str, Echo]:
        sender, message = self.heard()
        protocol = wire.PROTOCOL6 if self.version == 6 else wire.PROTOCOL4
        header = ip.header(packed(sender), self.own, protocol, len(message))
        packet = ip.parse(memoryview(header + message))
        echo = packet and wire.parse_echo(packet)
        assert echo, message
        return sender, echo

    def error(self) -> tuple[int, int]:
        _, message = self.heard()
        return message[0], message[1]


@VERSIONS
@alone
def test_answer_has_the_identifier_and_the_sequence_of_the_container(world: str) -> None:
    allow_ping()
    pinger = Pinger(rig := Rig(), world)
    for identifier, sequence in ((0xABCD, 1), (0xABCD, 2), (7, 65535)):
        pinger.send(world, identifier, sequence, b"data %d" % sequence)
        sender, echo = pinger.echo()
        assert (sender, echo.reply, echo.identifier, echo.sequence) == (world, True, identifier, sequence)
        assert bytes(echo.data) == b"data %d" % sequence
    assert len(rig.icmp.flows("c" * 64)) == 2
    assert rig.log == []


@VERSIONS
@alone
def test_largest_echo_goes_there_and_back(world: str) -> None:
    allow_ping()
    pinger = Pinger(Rig(mtu=1400), world)
    pinger.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    pinger.send(world, 1, 0)  # so that the gateway is known: not all fragments would find a place in the wait for that
    pinger.echo()
    data = os.urandom(65507 if ":" not in world else 65000)
    pinger.send(world, 1, 1, data)
    _, echo = pinger.echo()
    assert bytes(echo.data) == data


@VERSIONS
@alone
def test_account_that_may_not_ping_is_told_once_for_each_flow(world: str) -> None:
    pinger = Pinger(rig := Rig(), world)
    for sequence in range(3):
        pinger.send(world, 1, sequence)
    pinger.send(world, 2, 0)
    assert pinger.error() == PROHIBITED[world]
    assert pinger.error() == PROHIBITED[world]
    rig.turn()
    assert not readable(pinger.raw)
    assert [flow["state"] for flow in rig.icmp.flows()] == ["prohibited"] * 2


@VERSIONS
@alone
def test_denied_by_egress_is_prohibited(world: str) -> None:
    allow_ping()
    pinger = Pinger(rig := Rig(egress=["*:443"]), world)
    pinger.send(world, 1, 1)
    assert pinger.error() == PROHIBITED[world]
    assert rig.log == [f"web: icmp to {world} denied by --egress"]


@pytest.mark.parametrize("world, nowhere", [(WORLD4, "198.51.100.1"), (WORLD6, "2001:db8:bad::1")])
@alone
def test_host_without_a_route_is_unreachable(world: str, nowhere: str) -> None:
    allow_ping()
    pinger = Pinger(rig := Rig(), world)
    pinger.send(nowhere, 1, 1)
    assert pinger.error() == NO_ROUTE[world]
    assert rig.icmp.flows() == []


@alone
def test_host_loopback_answers_where_given() -> None:
    allow_ping()
    pinger = Pinger(Rig(host_loopback=True), WORLD4)
    pinger.send("169.254.1.2", 1, 1)
    assert pinger.echo()[0] == "169.254.1.2"
    pinger = Pinger(Rig(), WORLD4)
    pinger.send("169.254.1.2", 1, 1)
    assert pinger.error() == NO_ROUTE[WORLD4]


@VERSIONS
@alone
def test_other_messages_are_dropped(world: str) -> None:
    allow_ping()
    pinger = Pinger(rig := Rig(), world)
    pinger.send(world, 1, 1, reply=True)
    quoted = ip.header(packed(world), pinger.own, 17, 8) + bytes(8)
    error = struct.pack("!BBHI", *((1, 4) if ":" in world else (3, 3)), 0, 0) + quoted
    pinger.raw.sendto(error, (world, 0))
    rig.until(lambda: rig.packets == 2)
    assert rig.icmp.dropped == 2
    assert rig.icmp.flows() == []
    assert not readable(pinger.raw)


@alone
def test_flows_are_bounded_and_end() -> None:
    allow_ping()
    icmp.MOST_OF_CONTAINER, icmp.IDLE, icmp.SWEEP = 16, 0.2, 0.05
    pinger = Pinger(rig := Rig(), WORLD4)
    before = len(os.listdir("/proc/self/fd"))
    for identifier in range(50):
        pinger.send(WORLD4, identifier, 1)
        assert pinger.echo()[1].identifier == identifier
        assert len(rig.icmp.flows()) <= 16
    assert rig.icmp.reaches("c" * 64, packed(WORLD4))
    rig.until(lambda: not rig.icmp.flows())
    assert len(os.listdir("/proc/self/fd")) == before
    assert not rig.icmp.reaches("c" * 64, packed(WORLD4))


@alone
def test_container_that_goes_takes_its_flows_along() -> None:
    allow_ping()
    pinger = Pinger(rig := Rig(), WORLD4)
    pinger.send(WORLD4, 1, 1)
    pinger.echo()
    rig.icmp.close_container("c" * 64)
    assert rig.icmp.flows() == []
    pinger.send(WORLD4, 1, 1)
    pinger.echo()
    rig.icmp.close_network(rig.network.id)
    assert rig.icmp.flows() == []
