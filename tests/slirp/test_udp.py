"""UDP out of a container, against the kernel: a network's namespace, tun and rules, and sockets on both sides."""

import errno
import fcntl
import os
import random
import resource
import socket
import struct

import pytest

from slirp import udp, udp_flow
from slirp.model import packed
from slirp.udp_flow import Complaints, Flow, Flows, strays
from slirp.wire import icmp, ip
from slirp.wire.checksum import checksum
from tests.slirp.udp_rig import (
    CLIENT4,
    CONTAINER4,
    CONTAINER6,
    WORLD4,
    WORLD6,
    Rig,
    alone,
    readable,
    udp_socket,
)

pytestmark = pytest.mark.kernel
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO, _IP_MTU = 10, 2, 14  # linux/in.h
PATHS = pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "user"])
ANY = {WORLD4: "0.0.0.0", WORLD6: "::"}
VERSIONS = pytest.mark.parametrize("world", [WORLD4, WORLD6], ids=["IPv4", "IPv6"])


def connected(rig: Rig, address: str, port: int) -> socket.socket:
    """A socket of the container's that hears of errors."""

    def make() -> socket.socket:
        made = udp_socket("::" if ":" in address else "0.0.0.0")
        made.connect((address, port))
        # Without these, Linux keeps to itself what may pass (ip(7), IP_RECVERR).
        level, option = (socket.IPPROTO_IPV6, 25) if ":" in address else (socket.IPPROTO_IP, 11)
        made.setsockopt(level, option, 1)
        return made

    return rig.inside(make)


def error_of(rig: Rig, one: socket.socket) -> str:
    rig.until(lambda: readable(one))
    with pytest.raises(OSError) as caught:
        one.recv(100)
    return errno.errorcode[caught.value.errno or 0]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@PATHS
@VERSIONS
@alone
def test_datagrams_go_there_and_back(world: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    server, client = udp_socket(world), rig.inside(lambda: udp_socket(ANY[world]))
    for number in range(6):
        client.sendto(b"question %d" % number, server.getsockname())
        data, sender = rig.answer(server)
        assert (data, sender[0]) == (b"question %d" % number, world)
        server.sendto(b"answer %d" % number, sender)
        assert rig.answer(client) == (b"answer %d" % number, server.getsockname()[:2])
    (flow,) = rig.udp.flows("c" * 64)
    assert (flow["sent"], flow["received"], flow["state"]) == (60, 48, "assured")
    assert rig.log == []


@VERSIONS
@alone
def test_from_the_second_datagram_on_nothing_passes_the_tun(world: str) -> None:
    rig = Rig()
    server, client = udp_socket(world), rig.inside(lambda: udp_socket(ANY[world]))
    paths = []
    for number in range(4):
        client.sendto(bytes((number,)), server.getsockname())
        rig.answer(server)
        paths.append((rig.path(), rig.packets))
    assert paths == [("user", 1), ("kernel", 2), ("kernel", 2), ("kernel", 2)]


@alone
def test_stream_of_answers_to_one_question_takes_the_kernel_path() -> None:
    rig = Rig()
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    client.sendto(b"all of it, please", server.getsockname())
    _, sender = rig.answer(server)
    for number in range(3):
        server.sendto(bytes((number,)), sender)
        assert rig.answer(client)[0] == bytes((number,))
    assert (rig.path(), rig.packets) == ("kernel", 1)


@PATHS
@alone
def test_burst_arrives_in_order(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    for one in (server, client):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 << 20)
    client.sendto(b"first", server.getsockname())
    _, sender = rig.answer(server)
    client.sendto(b"second", server.getsockname())
    rig.answer(server)
    there = [number.to_bytes(2, "big") * (700 if number % 10 else 5) for number in range(150)]
    back = [number.to_bytes(2, "big") * 700 for number in range(150)]
    for datagram in there:
        client.sendto(datagram, server.getsockname())
    assert [rig.answer(server)[0] for _ in there] == there
    for datagram in back:
        server.sendto(datagram, sender)
    assert [rig.answer(client)[0] for _ in back] == back


@PATHS
@VERSIONS
@pytest.mark.parametrize("mtu", [65520, 1400])
@alone
def test_largest_and_emptiest_datagrams(mtu: int, world: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel, mtu=mtu)
    server, client = udp_socket(world), rig.inside(lambda: udp_socket(ANY[world]))
    for one in (server, client):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 << 20)
    # A small one first: while the gateway's MAC is asked for, there is no room for that many fragments.
    for payload in (b"hello", os.urandom(65507), b"", os.urandom(65000), b"", b"x"):
        client.sendto(payload, server.getsockname())
        data, sender = rig.answer(server)
        assert data == payload
        server.sendto(payload, sender)
        assert rig.answer(client)[0] == payload


@pytest.mark.parametrize("size", [1400, 2000])
@VERSIONS
@alone
def test_burst_passes_where_the_host_has_an_ordinary_mtu(world: str, size: int) -> None:
    rig = Rig()
    set_mtu("lo", 1500)
    server, client = udp_socket(world), rig.inside(lambda: udp_socket(ANY[world]))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 << 20)
    for _ in range(2):
        client.sendto(b"hello", server.getsockname())
        rig.answer(server)
    burst = [number.to_bytes(2, "big") * (size // 2) for number in range(50)]
    for datagram in burst:
        client.sendto(datagram, server.getsockname())
    assert [rig.answer(server)[0] for _ in burst] == burst
    assert rig.path() == "kernel"


@PATHS
@alone
def test_all_flows_of_a_port_leave_from_one_port(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    servers = [udp_socket(WORLD4) for _ in range(5)]
    one, other = (rig.inside(lambda: udp_socket("0.0.0.0")) for _ in range(2))
    seen: dict[socket.socket, set[int]] = {one: set(), other: set()}
    for _ in range(3):
        for client, ports in seen.items():
            for server in servers:
                client.sendto(b"who am I?", server.getsockname())
                ports.add(rig.answer(server)[1][1])
    assert len(seen[one]) == len(seen[other]) == 1
    assert seen[one] != seen[other]


@alone
def test_port_is_nobody_elses_while_flows_share_it() -> None:
    rig = Rig()
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    client.sendto(b"hello", server.getsockname())
    _, sender = rig.answer(server)
    with pytest.raises(OSError, match="in use"):
        udp_socket("0.0.0.0", sender[1])


@PATHS
@alone
def test_stranger_is_not_heard(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    for _ in range(2):
        client.sendto(b"hello", server.getsockname())
        _, sender = rig.answer(server)
    stranger = udp_socket(CLIENT4)
    stranger.sendto(b"spoofed answer", sender)
    server.sendto(b"answer", sender)
    assert rig.answer(client) == (b"answer", server.getsockname())
    assert not readable(client)


@PATHS
@VERSIONS
@alone
def test_closed_port_refuses_at_once_and_later(world: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    server = udp_socket(world)
    port = server.getsockname()[1]
    client = connected(rig, world, port)
    for _ in range(3):
        client.send(b"hello")
        rig.answer(server)
    server.close()
    client.send(b"still there?")
    assert error_of(rig, client) == "ECONNREFUSED"
    fresh = connected(rig, world, port)
    fresh.send(b"anybody?")
    assert error_of(rig, fresh) == "ECONNREFUSED"
    again = udp_socket(world, port)
    client.send(b"and now?")
    assert rig.answer(again)[0] == b"and now?"


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:bad::1"])
@alone
def test_host_without_a_route_tells_so(address: str) -> None:
    client = connected(rig := Rig(), address, 9)
    client.send(b"hello")
    assert error_of(rig, client) == "ENETUNREACH"


@pytest.mark.parametrize("address, code", [(WORLD4, "EHOSTUNREACH"), (WORLD6, "EACCES")], ids=["IPv4", "IPv6"])
@alone
def test_denied_by_egress_is_prohibited_and_told(address: str, code: str) -> None:
    rig = Rig(egress=["198.51.100.0/24"])
    server = udp_socket(address)
    client = connected(rig, address, server.getsockname()[1])
    client.send(b"hello")
    assert error_of(rig, client) == code  # what Linux makes of "administratively prohibited"
    assert not readable(server)
    (line,) = rig.log
    assert line.startswith("web: udp to ")
    assert line.endswith("denied by --egress")


@pytest.mark.parametrize("address", ["169.254.1.2", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
@alone
def test_host_loopback_is_unreachable(address: str) -> None:
    rig = Rig()
    servers = [udp_socket("127.0.0.1", 5353), udp_socket("::1", 5353), udp_socket("0.0.0.0", 5354)]
    client = rig.inside(lambda: udp_socket("::" if ":" in address else "0.0.0.0"))
    for port in (5353, 5354):
        try:
            client.sendto(b"let me in", (address, port))
        except OSError:
            continue  # the container's own kernel knows what a mapped address is
        if "ffff" not in address:
            assert error_of(rig, connected_again(rig, address, port)) == "ENETUNREACH"
    assert not any(map(readable, servers))
    assert rig.udp.flows() == []


def connected_again(rig: Rig, address: str, port: int) -> socket.socket:
    client = connected(rig, address, port)
    client.send(b"let me in")
    return client


@PATHS
@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
@alone
def test_host_loopback_is_reachable_where_given(loopback: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel, host_loopback=True)
    server, client = udp_socket(loopback), rig.inside(lambda: udp_socket("0.0.0.0"))
    for number in range(4):
        client.sendto(bytes((number,)), ("169.254.1.2", server.getsockname()[1]))
        data, sender = rig.answer(server)
        assert (data, sender[0]) == (bytes((number,)), loopback)
        server.sendto(b"back", sender)
        assert rig.answer(client) == (b"back", ("169.254.1.2", server.getsockname()[1]))


@alone
def test_internal_network_has_no_way_out() -> None:
    rig = Rig(internal=True)
    server = udp_socket(WORLD4)
    client = connected(rig, WORLD4, server.getsockname()[1])
    client.send(b"hello")
    assert error_of(rig, client) == "ENETUNREACH"
    assert not readable(server)


@pytest.mark.parametrize("destination", ["239.1.2.3", "255.255.255.255", "ff02::fb"])
@alone
def test_what_is_for_many_is_dropped(destination: str) -> None:
    rig = Rig()
    source = packed(CONTAINER6 if ":" in destination else CONTAINER4)
    data = ip.header(source, packed(destination), 17, 12) + bytes.fromhex("04000009000c0000") + b"data"
    packet = ip.parse(memoryview(data))
    assert packet
    rig.udp.packet(rig.network, rig.network.endpoints[source], packet, bytes(10))
    assert (rig.udp.flows(), rig.udp.dropped) == ([], 1)


@alone
def test_silence_ends_flows_and_leaves_no_descriptor() -> None:
    udp.SWEEP, udp_flow.FIRST_IDLE, udp_flow.IDLE = 0.05, 0.1, 0.6
    rig = Rig()
    before = descriptors()
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    other = rig.inside(lambda: udp_socket("0.0.0.0"))
    for _ in range(2):
        client.sendto(b"hello", server.getsockname())
        _, sender = rig.answer(server)
    server.sendto(b"hello", sender)
    rig.answer(client)
    other.sendto(b"hello", server.getsockname())
    rig.answer(server)
    rig.until(lambda: len(rig.udp.flows()) == 1)
    assert rig.path() == "kernel"
    rig.until(lambda: not rig.udp.flows())
    for one in (server, client, other):
        one.close()
    stocked = len(rig.stock._shelf("n" * 64, "udp4").fds)
    rig.until(lambda: stocked == len(rig.stock._shelf("n" * 64, "udp4").fds))
    assert descriptors() <= before  # less the socket that was taken out of the stock


@alone
def test_too_many_flows_drive_out_the_longest_idle() -> None:
    udp_flow.MOST_OF_CONTAINER = 32
    rig = Rig()
    client = rig.inside(lambda: udp_socket("0.0.0.0"))
    servers = [udp_socket(WORLD4) for _ in range(60)]
    for server in servers:
        client.sendto(b"hello", server.getsockname())
        rig.answer(server)
    flows = rig.udp.flows()
    assert len(flows) <= 32
    ports = {str(flow["destination"]).rpartition(":")[2] for flow in flows}
    assert {str(server.getsockname()[1]) for server in servers[-25:]} <= ports
    client.sendto(b"hello again", servers[0].getsockname())
    assert rig.answer(servers[0])[0] == b"hello again"


@alone
def test_container_that_goes_takes_its_flows_along() -> None:
    rig = Rig()
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    for _ in range(2):
        client.sendto(b"hello", server.getsockname())
        _, sender = rig.answer(server)
    assert rig.udp.reaches("c" * 64, packed(WORLD4))
    rig.udp.close_container("c" * 64)
    assert rig.udp.flows() == []
    assert not rig.udp.reaches("c" * 64, packed(WORLD4))
    udp_socket("0.0.0.0", sender[1]).close()  # the port is free again
    client.sendto(b"restarted", server.getsockname())
    assert rig.answer(server)[0] == b"restarted"
    rig.udp.close_network(rig.network.id)
    assert rig.udp.flows() == []


@PATHS
@alone
def test_flows_end_when_they_may_not_be_any_more(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    listener = udp_socket(WORLD4)
    servers = [udp_socket(WORLD4) for _ in range(2)]
    client, caller = rig.inside(lambda: udp_socket(CONTAINER4, 5060)), udp_socket(CLIENT4)
    rig.udp.published(1, listener, "c" * 64, 5060)
    caller.sendto(b"call", listener.getsockname())
    rig.answer(client)
    for server in servers * 2:
        client.sendto(b"hello", server.getsockname())
        rig.answer(server)
    place = {"network": rig.network.id, "ipv4": CONTAINER4, "default": True}
    container = {"id": "c" * 64, "name": "web", "egress": [f"{WORLD4}:{servers[0].getsockname()[1]}"]}
    rig.model.set_container({**container, "endpoints": [place]})
    rig.udp.review("c" * 64)
    assert sorted(str(flow["direction"]) for flow in rig.udp.flows()) == ["in", "out"]
    client.sendto(b"hello", servers[1].getsockname())
    client.sendto(b"hello", servers[0].getsockname())
    assert rig.answer(servers[0])[0] == b"hello"
    assert not readable(servers[1])
    rig.model.set_container({**container, "endpoints": []})  # another may get the address now
    rig.udp.review("c" * 64)
    assert rig.udp.flows() == []


@alone
def test_datagram_too_large_for_the_way_is_told_with_its_mtu() -> None:
    rig = Rig()
    server = udp_socket(WORLD4)
    client = connected(rig, WORLD4, server.getsockname()[1])
    client.send(b"hello")
    rig.answer(server)
    (flow,) = rig.udp._table.of(None)
    flow.host.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    set_mtu("lo", 1500)
    client.send(bytes(2000))
    assert error_of(rig, client) == "EMSGSIZE"
    assert client.getsockopt(socket.IPPROTO_IP, _IP_MTU) == 1500
    client.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
    with pytest.raises(OSError, match="too long"):
        client.send(bytes(2000))


def set_mtu(link: str, mtu: int) -> None:
    """Of a link in this namespace, SIOCSIFMTU of netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control.fileno(), 0x8922, struct.pack("=16si20x", link.encode(), mtu))


@alone
def test_damaged_packets_end_nothing_and_open_little() -> None:
    rig = Rig()
    chance = random.Random(3)
    server, client = udp_socket(WORLD4), rig.inside(lambda: udp_socket("0.0.0.0"))
    packets = []
    for own, world in ((CONTAINER4, WORLD4), (CONTAINER6, WORLD6)):
        ends = packed(own), packed(world)
        datagram = bytes.fromhex("0400000900480000") + bytes(64)
        echo = icmp.echo(*ends, 5, 6, bytes(56))
        protocol = 1 if "." in own else 58
        packets += [ip.header(*ends, 17, 72) + datagram, ip.header(*ends, protocol, len(echo)) + echo]
        packets += [header + bytes(piece) for header, piece in ip.fragments(*ends, 17, datagram, 100, 9)]
    for _ in range(20_000):
        packet = bytearray(chance.choice(packets))
        for _ in range(chance.randrange(4)):
            packet[chance.randrange(len(packet))] = chance.randrange(256)
        if packet[0] >> 4 == 4 and (packet[0] & 15) == 5:
            packet[10:12] = bytes(2)
            packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
        rig.packet(bytes(10), memoryview(packet))
    assert len(rig.udp.flows()) <= udp_flow.MOST_OF_CONTAINER
    assert rig.reassembly.held <= 4 << 20
    client.sendto(b"still here", server.getsockname())
    assert rig.answer(server)[0] == b"still here"
    assert rig.loop.errors == 0


def test_what_was_heard_before_connect_is_told_by_sender() -> None:
    hearing = udp_socket("127.0.0.1")
    friend, stranger = udp_socket("127.0.0.1"), udp_socket("127.0.0.1")
    friend.sendto(b"mine", hearing.getsockname())
    stranger.sendto(b"not mine", hearing.getsockname())
    hearing.connect(friend.getsockname())
    friend.sendto(b"mine as well", hearing.getsockname())
    stranger.sendto(b"never heard", hearing.getsockname())
    assert list(strays(hearing)) == [
        (b"mine", friend.getsockname()),
        (b"not mine", stranger.getsockname()),
        (b"mine as well", friend.getsockname()),
    ]
    for one in (hearing, friend, stranger):
        one.close()


def flow_of(container: str, port: int, now: float) -> Flow:
    host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flow = Flow(("n", packed(CONTAINER4), port, packed(WORLD4), 9), container, host, (packed(WORLD4), 9), now)
    host.close()
    return flow


def test_table_is_bounded_per_container_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_flow, "MOST_OF_CONTAINER", 32)
    monkeypatch.setattr(udp_flow, "MOST", 64)
    table = Flows(1024)
    for number in range(200):
        container = f"c{number % 8}"
        for flow in table.surplus(container):
            table.remove(flow)
        table.add(flow_of(container, number, float(number)))
        assert len(table.all) <= 64
    assert min(flow.last for flow in table.of(None)) > 100
    for number in range(200, 300):
        for flow in table.surplus("c0"):
            table.remove(flow)
        table.add(flow_of("c0", number, float(number)))
        assert len(table.of("c0")) <= 32


def test_few_descriptors_mean_few_flows() -> None:
    table = Flows(400)
    for number in range(200):
        for flow in table.surplus(f"c{number % 8}"):
            table.remove(flow)
        table.add(flow_of(f"c{number % 8}", number, float(number)))
        assert len(table.all) <= 50


def test_complaints_are_few() -> None:
    lines: list[str] = []
    complaints = Complaints(lines.append)
    for second in range(21):
        complaints.say("it fails", float(second))
    assert lines == ["it fails", "it fails (and 9 times more)", "it fails (and 9 times more)"]


def use_up_descriptors() -> None:
    while True:
        try:
            os.dup(0)
        except OSError:  # EMFILE
            return


@alone
def test_flow_gives_way_where_descriptors_have_run_out() -> None:
    rig = Rig()
    client = rig.inside(lambda: udp_socket("0.0.0.0"))
    servers = [udp_socket(WORLD4) for _ in range(3)]
    for server in servers[:2]:
        client.sendto(b"hello", server.getsockname())
        rig.answer(server)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    use_up_descriptors()
    client.sendto(b"lost", servers[2].getsockname())
    rig.until(lambda: rig.udp.dropped)
    client.sendto(b"hello", servers[2].getsockname())
    assert rig.answer(servers[2])[0] == b"hello"
    assert rig.log == ["udp: no socket for a flow: Too many open files"]


@PATHS
@alone
def test_container_that_calls_whom_it_was_called_by_has_one_flow(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    listener = udp_socket(WORLD4)
    inner, client = rig.inside(lambda: udp_socket(CONTAINER4, 5060)), udp_socket(CLIENT4)
    rig.udp.published(1, listener, "c" * 64, 5060)
    for _ in range(2):
        inner.sendto(b"are you there?", client.getsockname())
        rig.answer(client)
    before = descriptors()
    for _ in range(2):
        client.sendto(b"yes, but here", listener.getsockname())
        assert rig.answer(inner) == (b"yes, but here", client.getsockname())
    inner.sendto(b"hello", client.getsockname())
    assert rig.answer(client) == (b"hello", listener.getsockname())
    assert [flow["direction"] for flow in rig.udp.flows()] == ["in"]
    assert descriptors() <= before


@pytest.mark.parametrize(
    "sent, received, port, idle", [(1, 0, 9, 30.0), (1, 1, 9, 180.0), (0, 1, 9, 30.0), (1, 1, 53, 10.0)]
)
def test_flow_lives_longer_once_both_have_spoken(sent: int, received: int, port: int, idle: float) -> None:
    flow = flow_of("c", 1, 0.0)
    flow.key = (*flow.key[:4], port)
    flow.sent, flow.received = sent, received
    assert flow.idle() == idle
