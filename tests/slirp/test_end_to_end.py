"""From containers to the world and to each other, with slirp as it runs, by both paths of TCP."""

import errno
import hashlib
import json
import resource
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.network import (
    FAR4,
    FAR6,
    HOST4,
    HOST6,
    PROHIBITED4,
    ROUTER4,
    SILENT4,
    SILENT6,
    UNREACHABLE4,
    UNREACHABLE6,
    Box,
    Machine,
    Slirp,
    eventually,
    network,
    on,
)
from tests.support.network_servers import BIG, Zone, abort, answering, echo, hello, read_all, swallow, tell_peer

pytestmark = pytest.mark.kernel

Fresh = Callable[..., dict[str, Any]]


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


def test_who_reads_slowly_gets_everything(machine: Machine, box: Box) -> None:
    """More than all buffers on the way hold, so that the sender has to wait, too."""
    whole = BIG * 24
    with machine.server(FAR4, hello(whole)) as address, box.tcp(*address) as connection:
        assert select.select([connection], [], [], 10)[0]
        digest, length = hashlib.sha256(), 0
        while data := connection.recv(1 << 20):
            digest.update(data)
            length += len(data)
            if length < 4 << 20:
                select.select([], [], [], 0.02)
        assert (length, digest.digest()) == (len(whole), hashlib.sha256(whole).digest())


@pytest.mark.slow
def test_a_quarter_of_a_gigabyte_goes_each_way_at_once(machine: Machine, box: Box) -> None:
    count = 256
    expected = hashlib.sha256(BIG * count).hexdigest()
    seen: list[str] = []

    def both_ways(connection: socket.socket, peer: Any) -> None:
        sender = threading.Thread(target=send, args=(connection,))
        sender.start()
        seen.append(hash_of(connection))
        sender.join()

    def send(connection: socket.socket) -> None:
        for _ in range(count):
            connection.sendall(BIG)
        connection.shutdown(socket.SHUT_WR)

    def hash_of(connection: socket.socket) -> str:
        digest = hashlib.sha256()
        while data := connection.recv(1 << 20):
            digest.update(data)
        return digest.hexdigest()

    with machine.server(FAR4, both_ways) as address, box.tcp(*address) as connection:
        sender = threading.Thread(target=send, args=(connection,))
        sender.start()
        assert hash_of(connection) == expected
        sender.join()
        assert eventually(lambda: seen == [expected])


def test_what_is_sent_after_the_other_side_s_end_arrives(machine: Machine, box: Box) -> None:
    received: list[bytes] = []

    def end_first(connection: socket.socket, peer: Any) -> None:
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))

    with machine.server(FAR4, end_first) as address, box.tcp(*address) as connection:
        assert connection.recv(1) == b""
        connection.sendall(BIG)
        connection.shutdown(socket.SHUT_WR)
        assert eventually(lambda: received)
    assert received == [BIG]


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


def test_a_resolver_that_changes_is_noticed(machine: Machine, box: Box, zone: Zone) -> None:
    other = Zone(zone.addresses)
    assert box.lookup("www.example.org") == [FAR4]
    with answering(machine.datagrams("127.0.0.54", 53), other.answer):
        machine.resolv_conf("nameserver 127.0.0.54\n")
        try:
            assert eventually(lambda: box.lookup("www.example.org") and other.asked)
        finally:
            machine.resolv_conf("nameserver 127.0.0.53\n")
        zone.asked.clear()
        assert eventually(lambda: box.lookup("www.example.org") and zone.asked)


def test_a_resolver_can_have_a_link_local_address(machine: Machine, box: Box) -> None:
    """As routers announce them: resolv.conf then has fe80::1%eth0."""
    link = machine.run("ip", "-o", "-6", "addr", "show", "dev", "w0", "scope", "link", net=machine.world).stdout
    address = link.split()[3].partition("/")[0]
    other = Zone({"www.example.org": ("203.0.113.98", "2001:db8::98")})
    index = int(link.partition(":")[0])
    sock = machine.open_socket(socket.SOCK_DGRAM, socket.AF_INET6, net=machine.world, bind=(address, 53, 0, index))
    with answering(sock, other.answer):
        machine.resolv_conf(f"nameserver {address}%ext0\n")
        try:
            assert eventually(lambda: box.addresses("www.example.org") == ["203.0.113.98"])
        finally:
            machine.resolv_conf("nameserver 127.0.0.53\n")
    assert eventually(lambda: box.lookup("www.example.org") == [FAR4])


def test_links_are_names_on_a_network_without(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    db = slirp.box("db", [on(place)])
    web = slirp.box("web", [on(place)], links=[[db.id, "database"]])
    other = slirp.box("other", [on(place)])
    assert web.lookup("database") == web.lookup("db") == [db.ipv4]
    assert other.lookup("database") == other.lookup("db") == []


# Servers that are containers, and networks of one version


def test_a_container_can_be_the_resolver_of_another(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh(internal=True, names=True)
    own = Zone({"ads.example.org": ("203.0.113.99", "2001:db8::99")})
    pihole = slirp.box("pihole", [on(place)])
    with (
        pihole.udp_server(53, answer=own.answer),
        pihole.server(own.serve, 53),
        pihole.udp_server(53, pihole.ipv6, answer=own.answer),
    ):
        for server in (pihole.ipv4, pihole.ipv6):
            web = slirp.box("web", [on(place)], dns=[server])
            assert eventually(lambda web=web: web.lookup("ads.example.org") == ["203.0.113.99"])  # type: ignore[misc]
            assert web.lookup("pihole") == [pihole.ipv4]
            if server == pihole.ipv4:
                assert eventually(lambda web=web: "203.0.113.99" in web.dig("ads.example.org", "+tcp"))  # type: ignore[misc]
            web.close()


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_a_network_of_one_version_of_ip_is_whole(slirp: Slirp, machine: Machine, version: str) -> None:
    place = (
        network("only4", "10.240.0.0/16", names=True)
        if version == "ipv4"
        else network("only6", ipv6="fd00:f6::/64", names=True)
    )
    web, db = slirp.box("web", [on(place)]), slirp.box("db", [on(place)])
    kind, far = ("A", FAR4) if version == "ipv4" else ("AAAA", FAR6)
    assert web.lookup("db", kind) == [db.endpoints[0][version]]
    assert web.lookup("db", "AAAA" if kind == "A" else "A") == []
    assert web.lookup("www.example.org", kind) == [far]
    with machine.server(far, echo) as address, web.tcp(*address) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"


def test_a_thousand_connections_at_once(slirp: Slirp, fresh: Fresh, machine: Machine) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    box, count = slirp.box("web", [on(fresh())]), 1000
    listener = machine.listener(FAR4)
    clients, servers = [], []
    try:
        for _ in range(count):
            clients.append(box.tcp(*listener.getsockname()))
            servers.append(listener.accept()[0])
        for number, server in enumerate(servers):
            server.sendall(b"%d\n" % number)
        assert sorted(int(client.recv(10)) for client in clients) == list(range(count))
        assert len(slirp.request("flows", container=box.id)["flows"]) == count
    finally:
        for sock in (listener, *clients, *servers):
            sock.close()
    assert eventually(lambda: not slirp.request("flows", container=box.id)["flows"])
