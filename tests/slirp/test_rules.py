"""The nftables rules, as the kernel has them and as frames meet them: SECURITY N06, N08."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slirp import netlink, nft, rules
from slirp.links import NetworkLinks
from slirp.namespaces import new_network, run_in
from slirp.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Netlink, Request
from slirp.rtnetlink import add_address
from slirp.rules import probe
from slirp.transparent import make_sockets
from tests.slirp.netns_rig import (
    GATEWAY_MAC,
    SOON,
    Box,
    a_box,
    a_network,
    arp,
    frame,
    ip,
    ip6,
    readable,
    udp,
)
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel
GOLDEN = Path(__file__).with_name("rules.nft")
IP, ARP, IP6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ALL_NODES = "ff02::1"


def nft_version() -> str:
    return subprocess.run(["nft", "--version"], capture_output=True, text=True).stdout if shutil.which("nft") else ""


def link_local(mac: bytes) -> str:
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]))


def icmp6(kind: int, rest: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, 0) + rest


def advertisement(target: str, mac: bytes) -> bytes:
    """A neighbour's: *target* is at *mac*."""
    return icmp6(136, b"\x20\0\0\0" + socket.inet_pton(socket.AF_INET6, target) + b"\2\1" + mac)


def hop_by_hop(next_header: int, payload: bytes) -> bytes:
    """An extension header before *payload*, that says nothing (PadN)."""
    return bytes((next_header, 0, 1, 4, 0, 0, 0, 0)) + payload


def honest(box: Box) -> Iterator[tuple[str, bytes]]:
    own = link_local(box.mac)
    yield "UDP", frame(box.mac, IP, ip(box.ipv4, "10.9.0.255", 17, udp(1000, 1000, b"")))
    yield "TCP", frame(box.mac, IP, ip(box.ipv4, "10.9.0.255", 6, bytes(20)))
    yield "echo", frame(box.mac, IP, ip(box.ipv4, "10.9.0.255", 1, b"\x08" + bytes(7)))
    yield "ARP answer", frame(box.mac, ARP, arp(box.mac, box.ipv4, "10.9.0.3"))
    yield "ARP question", frame(box.mac, ARP, arp(box.mac, box.ipv4, "10.9.0.3", 1))
    yield "UDP over IPv6", frame(box.mac, IP6, ip6(box.ipv6, ALL_NODES, 17, udp(1000, 1000, b"")))
    yield "IPv6 from the link-local address", frame(box.mac, IP6, ip6(own, ALL_NODES, 17, udp(1000, 1000, b"")))
    yield "advertisement", frame(box.mac, IP6, ip6(box.ipv6, ALL_NODES, 58, advertisement(box.ipv6, box.mac)))
    yield "advertisement, link-local", frame(box.mac, IP6, ip6(own, ALL_NODES, 58, advertisement(own, box.mac)))
    yield "solicitation", frame(box.mac, IP6, ip6(box.ipv6, ALL_NODES, 58, icmp6(135, bytes(20))))


def hostile(box: Box, other: Box) -> Iterator[tuple[str, bytes]]:
    own, mine, theirs = link_local(box.mac), box.mac, other.mac
    hello = udp(1000, 1000, b"")
    plain = ip(box.ipv4, "10.9.0.255", 17, hello)
    for whose, mac in (("the other's", theirs), ("the gateway's", GATEWAY_MAC), ("an unknown", b"\2unkno")):
        yield f"{whose} MAC", frame(mac, IP, plain)
        yield f"ARP, {whose} MAC in the frame", frame(mac, ARP, arp(mine, box.ipv4, "10.9.0.3"))
        yield f"ARP, {whose} MAC in the packet", frame(mine, ARP, arp(mac, box.ipv4, "10.9.0.3"))
    for whose, address in (("the other's", other.ipv4), ("the gateway's", "10.9.0.1"), ("a free", "10.9.0.77")):
        yield f"{whose} address", frame(mine, IP, ip(address, "10.9.0.255", 17, hello))
        yield f"ARP for {whose} address", frame(mine, ARP, arp(mine, address, "10.9.0.3"))
        yield f"ARP question from {whose} address", frame(mine, ARP, arp(mine, address, "10.9.0.3", 1))
    for address in ("127.0.0.1", "0.0.0.0", "255.255.255.255", "192.0.2.1"):
        yield f"from {address}", frame(mine, IP, ip(address, "10.9.0.255", 17, hello))
    for address in (other.ipv6, "fd09::1", "fe80::1", link_local(theirs), "::1", "::", f"::ffff:{box.ipv4}"):
        yield f"from {address}", frame(mine, IP6, ip6(address, ALL_NODES, 17, hello))
    for target in (other.ipv6, "fd09::1", "fe80::1", link_local(theirs)):
        spoken = advertisement(target, mine)
        yield f"advertisement for {target}", frame(mine, IP6, ip6(box.ipv6, ALL_NODES, 58, spoken))
        behind = hop_by_hop(58, spoken)
        yield f"advertisement for {target}, behind a header", frame(mine, IP6, ip6(own, ALL_NODES, 0, behind))
    yield "router advertisement", frame(mine, IP6, ip6(own, ALL_NODES, 58, icmp6(134, bytes(12))))
    yield "router behind a header", frame(mine, IP6, ip6(own, ALL_NODES, 0, hop_by_hop(58, icmp6(134, bytes(12)))))
    yield "IPv6 redirect", frame(mine, IP6, ip6(own, ALL_NODES, 58, icmp6(137, bytes(36))))
    yield "redirect", frame(mine, IP, ip(box.ipv4, "10.9.0.255", 1, b"\x05\x01" + bytes(34)))
    yield "DHCP server", frame(mine, IP, ip(box.ipv4, "255.255.255.255", 17, udp(67, 68, bytes(240))))
    yield "DHCPv6 server", frame(mine, IP6, ip6(own, ALL_NODES, 17, udp(547, 546, bytes(8))))
    yield "in a VLAN", frame(mine, VLAN, struct.pack(">HH", 5, IP) + plain)
    yield "in a VLAN, priority only", frame(mine, VLAN, struct.pack(">HH", 0x2000, IP) + plain)
    yield "in two VLANs", frame(mine, 0x88A8, struct.pack(">HHHH", 5, VLAN, 6, IP) + plain)
    yield "ARP for another hardware", frame(mine, ARP, b"\0\6" + arp(mine, box.ipv4, "10.9.0.3")[2:])
    for kind in (0x88CC, 0x8863, 0x9000, 0x0842, 0x88E5, 64):
        yield f"type {kind:04x}", frame(mine, kind, bytes(60))


def arrivals(sender: Box, receiver: Box, frames: list[tuple[str, bytes]]) -> list[str]:
    """Which of *frames* (label, frame), sent from one container, the other sees."""
    seen: list[str] = []
    with sender.wire() as out, receiver.wire() as into:
        for number, (_, data) in enumerate(frames):
            out.send(data + b"frame %04d" % number)
        number, (_, last) = len(frames), next(honest(sender))
        out.send(last + b"frame %04d" % number)
        while True:
            _, mark, text = into.recv(70000).rpartition(b"frame ")
            if mark and int(text) == len(frames):
                return seen
            if mark:
                seen.append(frames[int(text)][0])


def test_a_container_speaks_for_itself_alone() -> None:
    def inside() -> list[list[str]]:
        with a_network() as network, a_box(network, 2) as box, a_box(network, 3) as other:
            sent = list(honest(box))
            return [
                [label for label, _ in sent],
                arrivals(box, other, sent),
                arrivals(box, other, list(hostile(box, other))),
            ]

    sent, arrived, forged = in_namespace(inside)
    assert arrived == sent
    assert forged == []


def test_forged_packets_do_not_leave_the_network_either() -> None:
    def inside() -> list[int]:
        with a_network() as network, a_box(network, 2) as box, a_box(network, 3) as other:
            with box.wire() as wire:
                for number, source in enumerate((other.ipv4, "10.9.0.1", "192.0.2.1", box.ipv4)):
                    packet = ip(source, "198.51.100.1", 17, udp(1000 + number, 53, b""))
                    wire.send(frame(box.mac, IP, packet, GATEWAY_MAC))
            return seen_at_tun(network)

    assert in_namespace(inside) == [1003]


def seen_at_tun(network: NetworkLinks) -> list[int]:
    """The source ports of the IPv4 packets that have come out of the tun; waits for the first."""
    ports: list[int] = []
    while readable(network.fds["tun"], 0 if ports else SOON):
        packet = os.read(network.fds["tun"], 70000)[10:]
        if packet[0] >> 4 == 4:
            ports.append(int.from_bytes(packet[20:22], "big"))
    return ports


def test_forged_frames_to_the_bridge_s_own_group_addresses_do_not_come_in() -> None:
    """Most of them the kernel takes past the bridge's rules (br_handle_frame)."""

    def inside() -> list[bytes]:
        with a_network() as network, a_box(network, 2) as box:
            with box.wire() as wire:
                for last in range(16):
                    packet = ip("10.9.0.3", "10.9.0.1", 17, udp(1000, 53, b"by way of %d" % last))
                    wire.send(frame(box.mac, IP, packet, b"\x01\x80\xc2\0\0" + bytes((last,))))
                packet = ip(box.ipv4, "10.9.0.1", 17, udp(1000, 53, b"honestly"))
                wire.send(frame(box.mac, IP, packet, GATEWAY_MAC))
            questions: list[bytes] = []
            while readable(network.fds["dns-udp4"], 0.2 if questions else SOON):
                with socket.socket(fileno=os.dup(network.fds["dns-udp4"])) as server:
                    questions.append(server.recv(100))
            return questions

    assert in_namespace(inside) == [b"honestly"]


@pytest.mark.parametrize("destination", ["127.0.0.1", "10.9.0.1"])
def test_the_transparent_listener_takes_no_call_from_a_container(destination: str) -> None:
    def inside() -> None:
        with a_network() as network, a_box(network, 2) as box:
            with box.wire() as wire:
                segment = struct.pack(">HHIIBBHHH", 1000, rules.LISTENER_PORT, 1, 0, 0x50, 2, 1000, 0, 0)
                wire.send(frame(box.mac, IP, ip(box.ipv4, destination, 6, segment), GATEWAY_MAC))
                wire.send(frame(box.mac, IP, ip(box.ipv4, "10.9.0.1", 17, udp(1000, 53, b"")), GATEWAY_MAC))
            assert readable(network.fds["dns-udp4"])
            assert not readable(network.fds["tproxy4"], 0)

    in_namespace(inside)


def test_another_container_cannot_speak_into_a_connection() -> None:
    """A frame to a group address enters past the bridge's rules; the socket it would hit must not get it."""

    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            a_box(network, 3) as other,
            socket.socket(fileno=sockets(network, "udp4")) as outer,
            box.wire() as mine,
            other.wire() as theirs,
        ):
            outer.bind(("192.0.2.53", 53))
            outer.connect((other.ipv4, 1000))
            packet = ip(other.ipv4, "192.0.2.53", 17, udp(1000, 53, b"forged"))
            for group in (GATEWAY_MAC, b"\x01\x80\xc2\0\0\2"):
                mine.send(frame(box.mac, IP, packet, group))
                mine.send(frame(other.mac, IP, packet, group))
            theirs.send(frame(other.mac, IP, packet.replace(b"forged", b"honest"), GATEWAY_MAC))
            assert readable(outer.fileno())
            assert outer.recv(100) == b"honest"

    in_namespace(inside)


def sockets(network: NetworkLinks, kind: str) -> int:
    return make_sockets(network.netns_fd, kind, 1)[0]


@pytest.mark.skipif("v1.0.6" not in nft_version(), reason="needs the nft whose spelling the golden file has")
def test_nft_reads_the_rules_as_they_are_meant() -> None:
    def inside() -> str:
        with a_network() as network, a_box(network, 2):
            return run_in(network.netns_fd, ruleset)

    assert in_namespace(inside) == GOLDEN.read_text()


def ruleset() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def elements(netns_fd: int) -> bytes:
    """All set elements of a namespace, as the kernel tells them."""

    def dump() -> bytes:
        socket_ = Netlink(NETLINK_NETFILTER)
        asked = [nft.add_elements(name, "slirp", nft.BRIDGE, ()) for name in ("addresses4", "addresses6")]
        try:
            return b"".join(b"".join(socket_.dump(one._replace(kind=10 << 8 | 13, flags=0))) for one in asked)
        finally:
            socket_.close()

    return run_in(netns_fd, dump)


def test_a_detached_container_has_no_rights_left() -> None:
    def inside() -> None:
        with a_network() as network, a_box(network, 2) as box, a_box(network, 3) as stays:
            assert box.mac in elements(network.netns_fd)
            network.detach(box.port)
            assert box.mac not in elements(network.netns_fd)
            assert stays.mac in elements(network.netns_fd)
            network.attach(box.netns_fd, box.interface())
            assert [label for label, _ in honest(box)] == arrivals(box, stays, list(honest(box)))

    in_namespace(inside)


def test_this_kernel_takes_the_rules() -> None:
    assert in_namespace(lambda: tuple(probe())) == (True, True, "")


def test_without_tproxy_the_probe_says_so_and_the_rest_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_prerouting", lambda: [nft.to_listener(99, b"\x7f\0\0\1", 1)])
    rules.network_rules.cache_clear()

    def inside() -> tuple[bool, bool, str, list[str]]:
        filters, tproxy, reason = support = probe()
        with a_network(support=support) as network, a_box(network, 2) as box, a_box(network, 3) as other:
            assert "tproxy4" not in network.fds
            return filters, tproxy, reason, arrivals(box, other, list(hostile(box, other)))

    try:
        filters, tproxy, reason, forged = in_namespace(inside)
    finally:
        rules.network_rules.cache_clear()
    assert (filters, tproxy) == (True, False)
    assert reason.startswith("rule in prerouting (immediate immediate tproxy): ")
    assert forged == []


def test_without_nftables_the_probe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_forward", lambda: [[nft.is_in("no such set")]])
    rules.network_rules.cache_clear()
    try:
        support = in_namespace(lambda: tuple(probe()))
    finally:
        rules.network_rules.cache_clear()
    assert support == (False, False, "rule in forward (lookup): No such file or directory")


def test_the_first_failure_of_a_batch_is_the_one_that_is_told() -> None:
    def inside() -> str:
        netns_fd = new_network()
        route = run_in(netns_fd, lambda: Netlink(NETLINK_ROUTE))
        with pytest.raises(OSError) as failure:
            route.run([add_address(1, "10.0.0.1/8"), add_address(7, "10.0.0.2/8"), add_address(8, "10.0.0.3/8")])
        route.run([add_address(1, "10.0.0.4/8")])
        route.close()
        os.close(netns_fd)
        return str(failure.value)

    assert in_namespace(inside).startswith("[Errno 19] address 10.0.0.2/8: No such device")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_answer_upsets_the_reading(data: bytes) -> None:
    for _, flags, _, message in netlink._messages(data):
        assert len(message) >= 16
        if len(message) >= 20:
            netlink._failure(message, flags, Request("", 0, 0, b""))


@given(st.binary(min_size=6, max_size=6), st.integers(1, 2**31 - 1), st.binary(min_size=4, max_size=4))
def test_a_key_is_port_mac_and_address_each_in_words_of_its_own(mac: bytes, port: int, address: bytes) -> None:
    ((name, keys),) = rules._keys(rules.Owner(port, mac, (address,)))
    assert (name, keys) == ("addresses4", [struct.pack("=I", port) + mac + bytes(2) + address])
