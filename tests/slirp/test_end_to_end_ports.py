"""Published ports, and networks that come and go, with slirp as it runs, by both paths of TCP."""

import hashlib
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.network import HOST4, HOST6, ROUTER4, ROUTER6, Machine, Refused, Slirp, on, published
from tests.support.network_servers import BIG, family_of, hello, read_all, swallow, tell_peer

pytestmark = pytest.mark.kernel

Fresh = Callable[..., dict[str, Any]]


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

    def call(sock: socket.socket) -> bytes:
        sock.connect((HOST4, web.port(80)))  # the reset may be there before this returns
        return sock.recv(1)

    with machine.open_socket(net=machine.world) as sock, pytest.raises(ConnectionResetError):
        call(sock)


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


def test_a_container_reaches_published_ports_by_the_machine_s_address(
    slirp: Slirp, fresh: Fresh, machine: Machine
) -> None:
    web = slirp.box("web", [on(fresh())], ports=[published(80), published(81, protocol="udp")])
    other = slirp.box("other", [on(fresh())])
    with web.server(hello(b"hello"), 80), web.udp_server(81):
        for box in (web, other):
            with box.tcp(HOST4, web.port(80)) as connection:
                assert read_all(connection) == b"hello"
            with box.udp() as sock:
                sock.sendto(b"?", (HOST4, web.port(81, "udp")))
                assert sock.recv(10) == b"?"


def test_an_address_and_a_mac_can_be_asked_for_once(slirp: Slirp, fresh: Fresh) -> None:
    place = fresh()
    subnet = place["ipv4"]["subnet"].rpartition(".")[0]
    wanted = on(place, f"{subnet}.77", ipv6=place["ipv6"]["gateway"] + "77", mac="02:42:11:22:33:44")
    web = slirp.box("web", [wanted])
    told = web.run("ip", "addr", "show", "dev", "eth0").stdout
    assert f"{subnet}.77/" in told
    assert "02:42:11:22:33:44" in told
    with pytest.raises(Refused) as refused:
        slirp.box("other", [wanted])
    assert refused.value.kind == "Conflict"
    with pytest.raises(Refused) as refused:
        slirp.box("other", [on(place, "192.0.2.7")])
    assert refused.value.kind == "InvalidInput"
