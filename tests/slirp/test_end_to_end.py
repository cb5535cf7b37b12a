"""slirp as it runs, from the containers' side and from the world's, by both paths of TCP.

The machine is made up (tests/support/network.py). Each test has networks of its own; the process is one for all tests
of a path, and at the end it must not have had an error.
"""

import errno
import hashlib
import itertools
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from slirp.wire import dns
from tests.support.network import (
    FAR4,
    FAR6,
    HOST4,
    HOST6,
    HOST_LOOPBACK,
    PROHIBITED4,
    ROUTER4,
    ROUTER6,
    SILENT4,
    SILENT6,
    UNREACHABLE4,
    UNREACHABLE6,
    Box,
    Machine,
    Refused,
    Slirp,
    answering,
    echo,
    eventually,
    family_of,
    hello,
    network,
    on,
    published,
    read_all,
    serving,
    tell_peer,
)

pytestmark = pytest.mark.kernel

Fresh = Callable[..., dict[str, Any]]
PATHS = ("kernel", "user")
ZONE = {"www.example.org": (FAR4, FAR6), "other.example.org": (ROUTER4, ROUTER6)}
BIG = os.urandom(1 << 20)


class World:
    """The names that the machine's resolver knows, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, data: bytes, peer: Any) -> bytes | None:
        query = dns.parse_query(data)
        assert query is not None
        self.asked.append(query.name)
        address4, address6 = ZONE.get(query.name.lower(), ("", ""))
        if not address4:
            return dns.answer(query, dns.NXDOMAIN)
        address = {dns.A: address4, dns.AAAA: address6}.get(query.kind, "")
        packed = [(query.kind, socket.inet_pton(family_of(address), address))] if address else []
        return dns.answer(query, dns.NOERROR, packed, ttl=60)

    def serve(self, connection: socket.socket, peer: Any) -> None:
        while length := int.from_bytes(connection.recv(2), "big"):
            answer = self.answer(connection.recv(length), peer) or b""
            connection.sendall(len(answer).to_bytes(2, "big") + answer)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, world: World) -> Iterator[Machine]:
    """With a resolver at 127.0.0.53, as systemd's."""
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        machine.resolv_conf("nameserver 127.0.0.53\n")
        udp, tcp = machine.datagrams("127.0.0.53", 53), machine.listener("127.0.0.53", 53)
        with answering(udp, world.answer), serving(tcp, world.serve):
            yield machine


@pytest.fixture(scope="module", params=PATHS)
def shared(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Slirp]:
    with machine.slirp(request.param) as slirp:
        assert slirp.request("hello")["tcp"] == request.param
        yield slirp
        assert "error in a handler" not in slirp.log(), slirp.log()[-4000:]


@pytest.fixture
def slirp(shared: Slirp) -> Iterator[Slirp]:
    """The process of this path, without containers, and still there afterwards."""
    yield shared
    for box in shared.boxes:
        box.close()
    shared.boxes.clear()
    assert not shared.ended()
    assert eventually(lambda: shared.request("hello")["containers"] == 0)


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def fresh(numbers: Iterator[int]) -> Fresh:
    """`fresh(names=True)` is a network that no other test has."""

    def make(**fields: Any) -> dict[str, Any]:
        number = next(numbers)
        return network(f"net{number}", f"10.{number}.0.0/16", ipv6=f"fd00:{number:x}::/64", **fields)

    return make


@pytest.fixture
def box(slirp: Slirp, fresh: Fresh) -> Box:
    """A container on a network of its own."""
    return slirp.box("web", [on(fresh(names=True))])


# The way out


@pytest.mark.parametrize("address", [FAR4, FAR6, ROUTER4, HOST4, HOST6])
def test_tcp_reaches_the_world_and_the_machine_s_own_address(machine: Machine, box: Box, address: str) -> None:
    with machine.server(address, echo) as (_, port), box.tcp(address, port) as connection:
        connection.sendall(b"over there")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"over there"


def test_the_world_sees_the_machine_s_address(machine: Machine, box: Box) -> None:
    with machine.server(FAR4, tell_peer) as address, box.tcp(*address) as connection:
        assert json.loads(read_all(connection))[0] == HOST4


def test_a_megabyte_goes_each_way_whole(machine: Machine, box: Box) -> None:
    with machine.server(FAR4, swallow) as address, box.tcp(*address) as connection:
        connection.sendall(BIG)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).decode() == hashlib.sha256(BIG).hexdigest()
    with machine.server(FAR6, hello(BIG)) as address, box.tcp(*address) as connection:
        assert read_all(connection) == BIG


def test_a_hundred_connections_at_once(machine: Machine, box: Box) -> None:
    with machine.server(FAR4, echo) as address:
        connections = [box.tcp(*address) for _ in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
        assert [int(connection.recv(10)) for connection in connections] == list(range(100))
        for connection in connections:
            connection.close()


def test_a_connection_fails_as_it_does_on_the_machine(box: Box) -> None:
    assert box.failure(FAR4, 9) == "ECONNREFUSED"
    assert box.failure(FAR6, 9) == "ECONNREFUSED"
    assert box.failure(UNREACHABLE4, 80) == "EHOSTUNREACH"
    assert box.failure(PROHIBITED4, 80) == "EHOSTUNREACH"
    assert box.failure(UNREACHABLE6, 80) in ("ENETUNREACH", "EHOSTUNREACH")
    assert box.failure(SILENT4, 80, timeout=1.5) == "TIMEOUT"
    assert box.failure(SILENT6, 80, timeout=1.5) == "TIMEOUT"


def test_either_side_s_reset_arrives(machine: Machine, box: Box) -> None:
    seen: list[int | None] = []

    def expect_reset(connection: socket.socket, peer: Any) -> None:
        try:
            connection.sendall(b"x")
            read_all(connection)
            seen.append(0)
        except OSError as error:
            seen.append(error.errno)

    def reset(connection: socket.socket, peer: Any) -> None:
        connection.recv(1)
        abort(connection)

    with machine.server(FAR4, reset) as address, box.tcp(*address) as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with machine.server(FAR4, expect_reset) as address:
        connection = box.tcp(*address)
        connection.recv(1)
        abort(connection)
        assert eventually(lambda: seen)
    assert seen == [errno.ECONNRESET]


@pytest.mark.parametrize("address", [FAR4, FAR6, HOST4])
def test_datagrams_go_there_and_back(machine: Machine, box: Box, address: str) -> None:
    with machine.udp_server(address) as place, box.udp("::" if ":" in address else "0.0.0.0") as sock:
        for size in (0, 1, 512, 1400, 9000, 60000):
            for _ in range(3):
                sock.sendto(BIG[:size], place)
                data, peer = sock.recvfrom(65535)
                assert (data, peer[:2]) == (BIG[:size], place)


def test_datagrams_from_one_port_come_from_one_port(machine: Machine, box: Box) -> None:
    def tell(data: bytes, peer: Any) -> bytes:
        return str(peer[1]).encode()

    with machine.udp_server(FAR4, tell) as one, machine.udp_server(ROUTER4, tell) as two, box.udp() as sock:
        ports = set()
        for place in (one, two, one, two):
            sock.sendto(b"?", place)
            ports.add(sock.recvfrom(100))
    assert len({data for data, _ in ports}) == 1
    assert {peer for _, peer in ports} == {one, two}


def test_a_datagram_that_nobody_takes_is_told(box: Box) -> None:
    with box.udp() as sock:
        sock.connect((FAR4, 9))
        sock.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def test_ping_is_answered_by_the_world_only_where_it_is(box: Box) -> None:
    for address in (FAR4, FAR6, ROUTER4):
        assert " 0% packet loss" in box.run("ping", "-c", "2", "-i", "0.2", "-W", "5", address).stdout
    assert "100% packet loss" in box.run("ping", "-c", "1", "-W", "1", SILENT4, check=False).stdout
    assert "100% packet loss" in box.run("ping", "-c", "1", "-W", "2", UNREACHABLE4, check=False).stdout


# Names


def test_peers_are_found_by_name_until_they_leave(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh(names=True)
    web = slirp.box("web", [on(place)])
    db = slirp.box("db", [on(place, aliases=["sql"])], hostname="pg")
    for name in ("db", "sql", "pg", "DB", f"db.{place['name']}", db.id[:12]):
        assert web.lookup(name) == [db.ipv4], name
        assert web.lookup(name, "AAAA") == [db.ipv6], name
    assert f"db.{place['name']}." in web.dig("ignored", "-x", db.ipv4)
    with db.server(echo, 5432), web.tcp(db.ipv4, 5432) as connection:
        connection.sendall(b"peer")
        assert connection.recv(4) == b"peer"
    slirp.request("update", container=db.id, name="sql2")
    assert web.lookup("sql2") == [db.ipv4]
    db.close()
    assert eventually(lambda: web.lookup("sql2") == [])


def test_names_of_the_world_are_asked_of_the_machine_s_resolver(machine: Machine, box: Box) -> None:
    assert box.lookup("www.example.org") == [FAR4]
    assert box.lookup("www.example.org", "AAAA") == [FAR6]
    assert "status: NXDOMAIN" in box.dig("no.example.org")
    assert FAR4 in box.dig("www.example.org", "+tcp")
    assert FAR4 in box.dig("www.example.org", server=box.endpoints[0]["gateway6"])


def test_a_resolver_that_changes_is_noticed(machine: Machine, box: Box, world: World) -> None:
    other = World()
    assert box.lookup("www.example.org") == [FAR4]
    with answering(machine.datagrams("127.0.0.54", 53), other.answer):
        machine.resolv_conf("nameserver 127.0.0.54\n")
        try:
            assert eventually(lambda: box.lookup("www.example.org") and other.asked)
        finally:
            machine.resolv_conf("nameserver 127.0.0.53\n")
        world.asked.clear()
        assert eventually(lambda: box.lookup("www.example.org") and world.asked)


def test_links_are_names_on_a_network_without(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    db = slirp.box("db", [on(place)])
    web = slirp.box("web", [on(place)], links=[[db.id, "database"]])
    other = slirp.box("other", [on(place)])
    assert web.lookup("database") == web.lookup("db") == [db.ipv4]
    assert other.lookup("database") == other.lookup("db") == []


# Networks and what separates them


def test_an_internal_network_has_peers_but_no_outside(
    slirp: Slirp, fresh: Fresh, machine: Machine, world: World
) -> None:
    place = fresh(internal=True, names=True)
    web, db = slirp.box("web", [on(place)]), slirp.box("db", [on(place)])
    with db.server(echo, 80), web.tcp(db.ipv4, 80):
        pass
    assert web.lookup("db") == [db.ipv4]
    world.asked.clear()
    for name in ("www.example.org", "secret.attacker.example"):
        assert "status: NXDOMAIN" in web.dig(name)
    assert world.asked == []
    with machine.server(FAR4, echo) as (_, port), machine.server(HOST4, echo) as (_, host_port):
        assert web.failure(FAR4, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH")
        assert web.failure(HOST4, host_port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH")
        web.run("ip", "route", "add", "default", "via", web.gateway, check=False)  # root in there may try
        assert web.failure(FAR4, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT")


def test_networks_do_not_reach_each_other(slirp: Slirp, fresh: Fresh) -> None:
    one, two = slirp.box("one", [on(fresh(names=True))]), slirp.box("two", [on(fresh(names=True))])
    with two.server(echo, 80), two.udp_server(53530), two.server(echo, 81, "::"):
        for address, port in ((two.ipv4, 80), (two.ipv6, 81), (two.gateway, 53), (two.gateway, 80)):
            assert one.failure(address, port, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT"), address
        with one.udp() as sock:
            sock.settimeout(1)
            sock.sendto(b"?", (two.ipv4, 53530))
            with pytest.raises(OSError, match=r"timed out|unreachable"):
                sock.recv(10)
    assert "100% packet loss" in one.run("ping", "-c", "1", "-W", "1", two.ipv4, check=False).stdout
    assert one.lookup("two") == []
    assert "NOERROR" not in one.dig("www.example.org", "+time=1", server=two.gateway)


def test_a_second_network_comes_and_goes_while_the_container_runs(slirp: Slirp, fresh: Fresh) -> None:
    first, second = fresh(names=True), fresh(names=True)
    web, db = slirp.box("web", [on(first)]), slirp.box("db", [on(second)])
    assert web.lookup("db") == []
    slirp.request("connect", container=web.id, endpoint=on(second))
    assert web.lookup("db") == [db.ipv4]
    with db.server(echo, 80), web.tcp(db.ipv4, 80):
        pass
    slirp.request("disconnect", container=web.id, network=second["id"])
    assert web.lookup("db") == []
    assert web.failure(db.ipv4, 80, timeout=2) in ("ENETUNREACH", "EHOSTUNREACH", "TIMEOUT")


def test_only_port_53_of_the_gateway_is_open(machine: Machine, box: Box) -> None:
    for gateway in (box.gateway, box.endpoints[0]["gateway6"]):
        assert open_tcp_ports(machine, box, gateway) == [53]
        assert answering_udp_ports(machine, box, gateway) == [53]


# The host's loopback

LOOPBACKS = [
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", HOST_LOOPBACK, "169.254.1.1"),
    *("::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"),
    *("gateway4", "gateway6"),
]


def ask(sock: socket.socket, address: str, port: int) -> bytes:
    """The answer to a datagram; b"" where none comes soon, or it cannot be sent."""
    sock.settimeout(0.3)
    try:
        sock.sendto(b"?", (address, port))
        return sock.recv(100)
    except OSError:
        return b""


@pytest.fixture
def loopback(machine: Machine) -> Iterator[int]:
    """A port that echoes on all of the host's loopback, by TCP and UDP."""
    first = machine.listener("127.0.0.1")
    port = first.getsockname()[1]
    v6 = machine.listener("::1", port)
    udp4, udp6 = machine.datagrams("127.0.0.1", port), machine.datagrams("::1", port)
    with (
        serving(first, hello(b"the host")),
        serving(v6, hello(b"the host")),
        answering(udp4, lambda data, _: b"the host"),
        answering(udp6, lambda data, _: b"the host"),
    ):
        yield port


def test_the_host_s_loopback_is_out_of_reach_however_it_is_spelled(box: Box, loopback: int) -> None:
    for spelling in LOOPBACKS:
        address = box.endpoints[0].get(spelling, spelling)
        assert box.failure(address, loopback, timeout=1) != "", address
        with box.udp("::" if ":" in address else "0.0.0.0") as sock:
            assert ask(sock, address, loopback) == b"", address
    assert box.lookup("host.docker.internal") == []


def test_nor_does_a_route_for_it_lead_there(box: Box, loopback: int) -> None:
    """Root in a container may have the kernel send packets for 127.0.0.0/8 out of its interface."""
    box.run(
        "sh",
        "-c",
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
    )
    box.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo", check=False)
    box.run("ip", "route", "del", "local", "127.0.0.0/8", "table", "local", check=False)
    box.run("ip", "route", "add", "127.0.0.0/8", "via", box.gateway, "src", box.ipv4)
    assert box.failure("127.0.0.1", loopback, timeout=1) != ""
    with box.udp(box.ipv4) as sock:
        assert ask(sock, "127.0.0.1", loopback) == b""


def test_who_may_reach_the_host_s_loopback_does_by_its_address_and_name(
    slirp: Slirp, fresh: Fresh, machine: Machine, loopback: int
) -> None:
    admin = slirp.box("admin", [on(fresh(names=True))], host_loopback=True)
    assert admin.lookup("host.docker.internal") == admin.lookup("host.containers.internal") == [HOST_LOOPBACK]
    with admin.tcp(HOST_LOOPBACK, loopback) as connection:
        assert read_all(connection) == b"the host"
    with admin.udp() as sock:
        sock.sendto(b"?", (HOST_LOOPBACK, loopback))
        assert sock.recvfrom(100) == (b"the host", (HOST_LOOPBACK, loopback))
    with machine.server("::1", hello(b"by IPv6")) as (_, port), admin.tcp(HOST_LOOPBACK, port) as connection:
        assert read_all(connection) == b"by IPv6"
    assert admin.failure("127.0.0.1", loopback) == "ECONNREFUSED"  # its own


# Published ports


@pytest.mark.parametrize("client", [ROUTER4, ROUTER6])
def test_a_published_port_shows_the_client_s_address(slirp: Slirp, fresh: Fresh, machine: Machine, client: str) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80)])
    host = HOST6 if ":" in client else HOST4
    with (
        web.server(tell_peer, 80, "::" if ":" in client else "0.0.0.0"),
        machine.open_socket(family=family_of(client), net=machine.world, bind=(client, 0)) as sock,
    ):
        sock.connect((host, web.port(80)))
        assert json.loads(read_all(sock)) == [client, sock.getsockname()[1]]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", HOST4])
def test_a_published_port_is_there_for_the_host_too(slirp: Slirp, fresh: Fresh, machine: Machine, address: str) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80)])
    with (
        web.server(swallow, 80, "::" if ":" in address else "0.0.0.0"),
        machine.open_socket(family=family_of(address)) as sock,
    ):
        sock.connect((address, web.port(80)))
        sock.sendall(BIG)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).decode() == hashlib.sha256(BIG).hexdigest()


def test_a_published_udp_port_shows_the_client_s_address(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(53, protocol="udp")])

    def tell(data: bytes, peer: Any) -> bytes:
        return json.dumps([*peer[:2], len(data)]).encode()

    with web.udp_server(53, answer=tell):
        for client, host, net in ((ROUTER4, HOST4, machine.world), ("127.0.0.1", "127.0.0.1", machine.net)):
            with machine.datagrams(client, net=net) as sock:
                for size in (1, 1400, 1, 1):
                    sock.sendto(BIG[:size], (host, web.port(53, "udp")))
                    data, peer = sock.recvfrom(1000)
                    seen = json.loads(data)
                    assert (peer[0], seen[2]) == (host, size)
                    if net == machine.world:
                        assert seen[:2] == list(sock.getsockname())


def test_a_published_port_on_one_address_is_there_alone(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80, host_ip="127.0.0.1")])
    assert [port["host_ip"] for port in web.ports] == ["127.0.0.1"]
    with web.server(hello(b"hello"), 80):
        with machine.open_socket() as sock:
            sock.connect(("127.0.0.1", web.port(80)))
            assert read_all(sock) == b"hello"
        with machine.open_socket(net=machine.world) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((HOST4, web.port(80)))


def test_a_port_of_a_container_on_an_internal_network_can_be_published(
    slirp: Slirp, fresh: Fresh, machine: Machine
) -> None:
    web = slirp.box("web", [on(fresh(internal=True))], ports=[published(80)])
    with web.server(hello(b"hello"), 80), machine.open_socket(net=machine.world) as sock:
        sock.connect((HOST4, web.port(80)))
        assert read_all(sock) == b"hello"


def test_a_port_in_use_or_below_1024_is_an_error_at_once(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    web = slirp.box("web", [on(place)], ports=[published(80)])
    with pytest.raises(Refused) as refused:
        slirp.box("other", [on(place)], ports=[published(80, web.port(80))])
    assert refused.value.kind == "Conflict"
    assert str(web.port(80)) in refused.value.message
    with machine.listener("0.0.0.0") as foreign, pytest.raises(Refused) as refused:
        slirp.box("other", [on(place)], ports=[published(80, foreign.getsockname()[1])])
    assert refused.value.kind == "Conflict"
    with pytest.raises(Refused, match="81") as refused:
        slirp.box("other", [on(place)], ports=[published(80, 81)])
    assert "ip_unprivileged_port_start" in refused.value.message + refused.value.hint


def test_a_published_port_that_nobody_listens_on_refuses_or_hangs_up(
    slirp: Slirp, fresh: Fresh, machine: Machine
) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80)])
    with machine.open_socket(net=machine.world) as sock:
        sock.connect((HOST4, web.port(80)))
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) == b"?"


def test_ports_are_added_and_removed_while_the_container_runs(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    web = slirp.box("web", [on(fresh())])
    with web.server(hello(b"hello"), 80):
        [*ports] = slirp.request("ports", container=web.id, add=[published(80)], remove=[])["ports"]
        port = ports[0]["host_port"]
        with machine.open_socket() as sock:
            sock.connect((HOST4, port))
            assert read_all(sock) == b"hello"
        slirp.request("ports", container=web.id, add=[], remove=ports)
        with machine.open_socket() as sock, pytest.raises(ConnectionRefusedError):
            sock.connect((HOST4, port))


def test_a_container_that_starts_again_keeps_address_and_ports(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80)])
    web.restart()
    assert web.ipv4 in web.run("ip", "-4", "addr", "show", "dev", "eth0").stdout
    with web.server(hello(b"again"), 80), machine.open_socket(net=machine.world) as sock:
        sock.connect((HOST4, web.port(80)))
        assert read_all(sock) == b"again"


# Spoofing

SEND_AS = """
import socket, sys
source, destination, port = sys.argv[1:4]
payload = b"spoofed"
udp = (7).to_bytes(2, "big") + int(port).to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
head = bytes((0x45, 0)) + (20 + len(udp)).to_bytes(2, "big") + bytes((0, 1, 0, 0, 64, 17, 0, 0))
packet = head + socket.inet_aton(source) + socket.inet_aton(destination) + udp
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(3):
    sock.sendto(packet, (destination, 0))
"""
CLAIM = """
import socket, sys
victim = sys.argv[1]
target_mac, own_mac = (bytes.fromhex(mac.replace(":", "")) for mac in sys.argv[2:4])
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0x0806))
address = socket.inet_aton(victim)
for operation in (1, 2):
    arp = bytes.fromhex("0001080006040002") [:7] + bytes((operation,)) + own_mac + address + bytes(6) + address
    for destination in (b"\\xff" * 6, target_mac):
        sock.send(destination + own_mac + b"\\x08\\x06" + arp.ljust(46, b"\\0"))
"""


def test_a_source_address_that_is_somebody_else_s_does_not_arrive(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    liar, victim, target = (slirp.box(name, [on(place)]) for name in ("liar", "victim", "target"))
    with target.udp(target.ipv4) as inside, machine.datagrams(FAR4) as outside:
        for sock, address in ((inside, target.ipv4), (outside, FAR4)):
            port = str(sock.getsockname()[1])
            for source in (victim.ipv4, liar.gateway, "198.51.100.77", HOST4):
                liar.run("python3", "-c", SEND_AS, source, address, port, check=False)
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                print(sock.recvfrom(100))
            liar.run("python3", "-c", SEND_AS, liar.ipv4, address, port)
            sock.settimeout(10)
            assert sock.recvfrom(100)[0] == b"spoofed"


def test_a_claim_on_somebody_else_s_address_is_not_heard(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    liar, victim, target = (slirp.box(name, [on(place)]) for name in ("liar", "victim", "target"))
    assert "1 received" in target.run("ping", "-c", "1", "-W", "5", victim.ipv4).stdout
    macs = [box.endpoints[0]["mac"] for box in (target, liar)]
    for claimed in (victim.ipv4, target.gateway):
        liar.run("python3", "-c", CLAIM, claimed, *macs)
    neighbours = target.run("ip", "neigh").stdout
    assert macs[1] not in neighbours
    assert "1 received" in target.run("ping", "-c", "1", "-W", "5", victim.ipv4).stdout


def test_a_router_that_a_container_says_to_be_is_none(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    liar, target = slirp.box("liar", [on(place)]), slirp.box("target", [on(place)])
    before = target.run("ip", "-6", "route").stdout
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(
        socket.AF_INET6, "2001:db8:bad::"
    )
    with machine_raw(liar) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        for destination in ("ff02::1", target.ipv6):
            try:
                sock.sendto(advertisement + prefix, (destination, 0))
            except OSError:
                continue  # not even sent
    assert (
        "1 received" in target.run("ping", "-c", "1", "-W", "5", liar.ipv6).stdout
    )  # what was sent has arrived by now
    assert target.run("ip", "-6", "route").stdout == before
    assert "2001:db8:bad" not in target.run("ip", "-6", "addr").stdout


def machine_raw(box: Box) -> socket.socket:
    return box.machine.open_socket(socket.SOCK_RAW, socket.AF_INET6, socket.IPPROTO_ICMPV6, net=box.netns)


# Governing and observing


def test_egress_allows_what_it_speaks_of_by_name(slirp: Slirp, fresh: Fresh, machine: Machine, world: World) -> None:
    with machine.server(FAR4, hello(b"hello")) as (_, port), machine.server(FAR4, hello(b"no")) as (_, other):
        web = slirp.box("web", [on(fresh(names=True))], egress=[f"www.example.org:{port}", "203.0.113.0/30"])
        assert web.failure(FAR4, port) == "ECONNREFUSED"  # before it has asked for the name
        assert web.lookup("www.example.org") == [FAR4]
        with web.tcp(FAR4, port) as connection:
            assert read_all(connection) == b"hello"
        assert web.failure(FAR4, other) == "ECONNREFUSED"
        with machine.server(ROUTER4, hello(b"by address")) as router, web.tcp(*router) as connection:
            assert read_all(connection) == b"by address"
        assert web.failure(HOST4, 9) == "ECONNREFUSED"
        world.asked.clear()
        assert "status: REFUSED" in web.dig("data.attacker.example")
        assert world.asked == []
        denied = slirp.request("flows", container=web.id)["denied"]
        assert {row["destination"] for row in denied} >= {f"{FAR4}:{port}", f"{FAR4}:{other}"}
        assert "denied" in slirp.log()


def test_egress_none_leaves_the_peers(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh(names=True)
    web, db = slirp.box("web", [on(place)], egress=["none"]), slirp.box("db", [on(place)])
    with machine.server(FAR4, echo) as address, machine.udp_server(FAR4) as udp_address, db.server(echo, 80):
        assert web.failure(*address) == "ECONNREFUSED"
        with web.udp() as sock:
            sock.settimeout(1)
            sock.connect(udp_address)
            sock.send(b"?")
            with pytest.raises(OSError):
                sock.recv(10)
        web.tcp(web.lookup("db")[0], 80).close()
        slirp.request("update", container=web.id, egress=None)
        web.tcp(*address).close()


def test_flows_and_bytes_are_shown(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    place = fresh()
    web = slirp.box("web", [on(place)])
    with machine.server(FAR4, echo) as address, web.tcp(*address) as connection:
        connection.sendall(b"x" * 1000)
        received = 0
        while received < 1000:
            received += len(connection.recv(1000))
        flows = slirp.request("flows", container=web.id)["flows"]
        [flow] = [flow for flow in flows if flow["protocol"] == "tcp"]
        assert flow["container"] == web.id
        assert flow["direction"] == "out"
        assert flow["destination"] == f"{FAR4}:{address[1]}"
        assert flow["source"].startswith(f"{web.ipv4}:")
        assert (flow["sent"], flow["received"]) == (1000, 1000)
    assert eventually(lambda: not slirp.request("flows", container=web.id)["flows"])
    [counters] = slirp.request("stats", container=web.id)["containers"][web.id].values()
    assert counters["tx_bytes"] > 1000
    assert counters["rx_bytes"] > 1000
    assert [row["id"] for row in slirp.request("list")["containers"]] == [web.id]


# Life


@pytest.mark.parametrize("path", PATHS)
def test_a_stack_that_is_killed_is_followed_by_one_that_goes_on(machine: Machine, path: str) -> None:
    with machine.slirp(path) as slirp:
        place = network("home", "10.250.0.0/16", names=True)
        web = slirp.box("web", [on(place)], ports=[published(80)])
        db = slirp.box("db", [on(place)])
        with machine.server(FAR4, echo) as address, web.server(hello(b"hello"), 80):
            with web.tcp(*address) as connection:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"
                for pid in slirp.stack_pids():
                    os.kill(pid, signal.SIGKILL)
                assert eventually(lambda: ended(connection))
            assert eventually(lambda: web.failure(*address, timeout=2) == "")
            assert eventually(lambda: web.lookup("db") == [db.ipv4])
            with machine.open_socket(net=machine.world) as sock:
                sock.connect((HOST4, web.port(80)))
                assert read_all(sock) == b"hello"
        assert not slirp.ended()


@pytest.mark.parametrize("path", PATHS)
def test_who_holds_an_attachment_learns_that_the_hub_was_killed(machine: Machine, path: str) -> None:
    place = network("home", "10.251.0.0/16", names=True)
    with machine.slirp(path) as slirp:
        web = slirp.box("web", [on(place)], ports=[published(80)])
        before, port = web.endpoints[0], web.port(80)
        slirp.kill()
        web.client.sock.settimeout(10)
        assert web.client.sock.recv(1) == b""
        assert slirp.ended(10)
    with machine.slirp(path) as slirp, machine.server(FAR4, echo) as address:
        previous = {name: before[name] for name in ("ipv4", "ipv6", "mac")}
        web = slirp.box("web", [on(place, previous=previous)], ports=[published(80, port)])
        assert web.endpoints[0] == before
        web.tcp(*address).close()


def test_it_leaves_when_nothing_is_attached_for_a_while(machine: Machine) -> None:
    with machine.slirp("auto", "--linger", "0.2") as slirp:
        web = slirp.box("web", [on(network("home", "10.252.0.0/16"))])
        assert not slirp.ended(0.5)
        web.close()
        assert slirp.ended(15)


def ended(connection: socket.socket) -> bool:
    """Whether the other side is gone. Something is sent: without that, one might not learn that it is."""
    connection.setblocking(False)
    try:
        connection.send(b"x")
        return connection.recv(100) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def swallow(connection: socket.socket, peer: Any) -> None:
    """Read everything, tell its hash."""
    connection.sendall(hashlib.sha256(read_all(connection)).hexdigest().encode())


def abort(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def open_tcp_ports(machine: Machine, box: Box, address: str) -> list[int]:
    """All that accept, of 65535."""
    script = """
import errno, select, socket, sys
address, family, found = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, []
for first in range(1, 65536, 500):
    poll, socks = select.poll(), {}
    for port in range(first, min(first + 500, 65536)):
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if sock.connect_ex((address, port)) == errno.EINPROGRESS:
            poll.register(sock, select.POLLOUT)
            socks[sock.fileno()] = sock, port
    while socks and (events := poll.poll(1500)):
        for fd, event in events:
            sock, port = socks.pop(fd)
            poll.unregister(fd)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
print(*sorted(found))
"""
    return [int(port) for port in box.run("python3", "-c", script, address, timeout=240).stdout.split()]


def answering_udp_ports(machine: Machine, box: Box, address: str) -> list[int]:
    """All that answer a question for a name, of 65535."""
    script = """
import select, socket, sys
address, family, found = sys.argv[1], socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, set()
question = bytes.fromhex("123401000001000000000000037765620000010001")
sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
def take(seconds):
    while select.select([sock], [], [], seconds)[0]:
        try:
            found.add(sock.recvfrom(1000)[1][1])
        except OSError:
            pass
for port in range(1, 65536):
    try:
        sock.sendto(question, (address, port))
    except OSError:
        pass
    if port % 100 == 0:
        take(0)
sock.sendto(question, (address, 53))
take(1)
print(*sorted(found))
"""
    return [int(port) for port in box.run("python3", "-c", script, address, timeout=120).stdout.split()]
