"""Published TCP ports: who the container sees, and what a client sees of a container that is not ready."""

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.stack_hub import CLIENT, CLIENT6, HOST, HOST6, Guest, Hub, eventually, running_hub

pytestmark = pytest.mark.kernel

GATEWAY, GATEWAY6 = "172.30.0.1", "fd30:0::1"
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def guest(hub: Hub) -> Guest:
    return hub.guest()


@pytest.fixture(autouse=True)
def no_flow_is_left(hub: Hub) -> Iterator[None]:
    yield
    eventually(lambda: not hub.flows(), "the end of all flows")
    assert not [line for line in hub.logs() if "error" in line or "Traceback" in line]


def met(hub: Hub, guest: Guest, port: int, *, listen: str, host: str, source: str = "") -> tuple[str, bool]:
    """Whom the container sees call by a port published on *listen*, and whether from the client's own port."""
    family = socket.AF_INET6 if guest.told["endpoints"][0]["ipv6"] and ":" in host else socket.AF_INET
    handle, host_port = hub.publish(guest, port, host=listen)
    with guest.listen(port, family) as listener, hub.call(host_port, host, source) as client:
        inner, peer = listener.accept()
        with inner:
            client.sendall(b"ping")
            assert inner.recv(10) == b"ping"
            inner.sendall(b"pong")
            assert client.recv(10) == b"pong"
            own_port = peer[1] == client.getsockname()[1]
    hub.tell("unpublish", port=handle)
    return peer[0], own_port


def test_the_container_sees_the_clients_own_address_and_port(hub: Hub, guest: Guest) -> None:
    assert met(hub, guest, 80, listen="0.0.0.0", host=HOST, source=CLIENT) == (CLIENT, True)
    assert met(hub, guest, 80, listen="::", host=HOST6, source=CLIENT6) == (CLIENT6, True)


def test_a_client_on_the_hosts_loopback_appears_as_the_gateway(hub: Hub, guest: Guest) -> None:
    assert met(hub, guest, 80, listen="0.0.0.0", host="127.0.0.1")[0] == GATEWAY
    assert met(hub, guest, 80, listen="::", host="::1")[0] == "fd30::1"


def test_on_a_network_without_outside_every_client_appears_as_the_gateway(hub: Hub) -> None:
    hub.network("inside", internal=True)
    inside = hub.guest("inside-guest", ("inside",))
    seen, _ = met(hub, inside, 80, listen="0.0.0.0", host=HOST, source=CLIENT)
    assert seen.endswith(".1")
    assert seen.startswith("172.30.")


def test_an_ipv6_client_of_a_container_without_ipv6_comes_from_the_ipv4_gateway(hub: Hub) -> None:
    hub.network("four", ipv6=False)
    four = hub.guest("four-guest", ("four",))
    seen, _ = met(hub, four, 80, listen="::", host=HOST6, source=CLIENT6)
    assert seen.startswith("172.30.")
    assert seen.endswith(".1")


def test_a_client_whose_port_is_taken_keeps_its_address(hub: Hub, guest: Guest) -> None:
    _, first = hub.publish(guest, 80)
    _, second = hub.publish(guest, 80)
    with guest.listen(80) as listener, hub.new_socket() as one, hub.new_socket() as two:
        for sock, port in ((one, first), (two, second)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((CLIENT, 41000))
            sock.connect((HOST, port))
        accepted = [listener.accept() for _ in range(2)]
        assert [peer[0] for _, peer in accepted] == [CLIENT, CLIENT]
        assert sorted(peer[1] == 41000 for _, peer in accepted) == [False, True]
        for sock, _ in accepted:
            sock.close()


def test_a_client_of_a_container_that_refuses_is_reset(hub: Hub, guest: Guest) -> None:
    _, port = hub.publish(guest, 81)
    for host, source in (("127.0.0.1", ""), (HOST, CLIENT)):
        with pytest.raises(ConnectionResetError), hub.call(port, host, source) as client:
            client.recv(1)


def test_a_client_waits_for_a_container_that_is_about_to_come(hub: Hub) -> None:
    told = hub.ask("guest", name="late", networks=["net"])[0]
    late = Guest(hub, "late", told)
    _, port = hub.publish(late, 80)
    with late.listen(80) as listener, hub.call(port, HOST, CLIENT) as client:
        client.sendall(b"early")
        assert [flow["state"] for flow in hub.flows("late")] == ["connecting"]
        hub.tell("container", **told)
        inner, peer = listener.accept()
        with inner:
            assert (inner.recv(10), peer[0]) == (b"early", CLIENT)


def test_a_port_that_is_published_no_more_refuses_and_its_connections_stay(hub: Hub, guest: Guest) -> None:
    handle, port = hub.publish(guest, 80)
    with guest.listen(80) as listener, hub.call(port) as client:
        inner, _ = listener.accept()
        hub.tell("unpublish", port=handle)
        eventually(lambda: refused(hub, port), "the end of the listener")
        with inner:
            client.sendall(b"still")
            assert inner.recv(10) == b"still"


def refused(hub: Hub, port: int) -> bool:
    with hub.new_socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_the_end_of_a_container_resets_its_clients(hub: Hub) -> None:
    going = hub.guest("going")
    _, port = hub.publish(going, 80)
    with going.listen(80) as listener, hub.call(port) as client:
        inner, _ = listener.accept()
        hub.tell("container-gone", id="going")
        with inner, pytest.raises(ConnectionResetError):
            client.recv(1)
    eventually(lambda: refused(hub, port), "the end of the listener")


def test_a_reset_goes_through_a_published_port(hub: Hub, guest: Guest) -> None:
    _, port = hub.publish(guest, 80)
    with guest.listen(80) as listener, hub.call(port, HOST, CLIENT) as client:
        inner, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        with inner, pytest.raises(ConnectionResetError):
            inner.recv(1)


def test_a_client_is_told_of_as_a_flow(hub: Hub, guest: Guest) -> None:
    _, port = hub.publish(guest, 80)
    with guest.listen(80) as listener, hub.call(port, HOST, CLIENT) as client:
        inner, _ = listener.accept()
        with inner:
            client.sendall(b"12345")
            assert inner.recv(10) == b"12345"
            (flow,) = hub.flows(guest.name)
            source = "{}:{}".format(*client.getsockname())
            assert (flow["source"], flow["direction"], flow["host"]) == (source, "in", f"0.0.0.0:{port}")
            assert (flow["sent"], flow["received"], flow["state"]) == (0, 5, "established")


def test_hundreds_of_clients_at_once_use_up_no_stock(hub: Hub, guest: Guest) -> None:
    _, port = hub.publish(guest, 80)
    with guest.listen(80) as listener:
        clients = [hub.call(port, HOST, CLIENT) for _ in range(300)]
        accepted = [listener.accept() for _ in clients]
        assert sorted(peer[1] for _, peer in accepted) == sorted(client.getsockname()[1] for client in clients)
        for sock in (*clients, *(inner for inner, _ in accepted)):
            sock.close()


def test_clients_wait_while_there_are_no_descriptors() -> None:
    with running_hub(descriptors=200) as small:
        guest = small.guest()
        _, port = small.publish(guest, 80)
        with guest.listen(80) as listener:
            clients = [small.call(port) for _ in range(200)]
            for client in clients:
                client.sendall(b"x")
            for client in clients:
                inner, _ = listener.accept()
                with inner, client:
                    assert inner.recv(1) == b"x"
        assert not [line for line in small.logs() if "error" in line]
