"""Published UDP ports, against the kernel: the container sees who calls, and answers leave from where they called."""

import os
import socket

import pytest

from slirp import rtnetlink, udp, udp_flow
from slirp.netlink import NETLINK_ROUTE, Netlink
from slirp.udp_published import _client, _local
from tests.slirp.udp_rig import (
    CLIENT4,
    CLIENT6,
    CONTAINER4,
    CONTAINER6,
    GATEWAY4,
    GATEWAY6,
    WORLD4,
    WORLD6,
    Rig,
    alone,
    readable,
    udp_socket,
)

pytestmark = pytest.mark.kernel
PATHS = pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "user"])
PORT = 5060
CONTAINER = "c" * 64


def publish(rig: Rig, address: str, handle: int = 1) -> tuple[socket.socket, socket.socket]:
    """A published port at *address*, and the container's socket behind it."""
    listener = listening(address)
    inner = rig.inside(lambda: udp_socket(CONTAINER6 if ":" in address else CONTAINER4, PORT))
    rig.udp.published(handle, listener, CONTAINER, PORT)
    return listener, inner


def listening(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address, 0))
    return made


@PATHS
@pytest.mark.parametrize("address, caller", [(WORLD4, CLIENT4), (WORLD6, CLIENT6)], ids=["IPv4", "IPv6"])
@alone
def test_container_sees_the_client(address: str, caller: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    listener, inner = publish(rig, address)
    client = udp_socket(caller)
    for number in range(5):
        client.sendto(b"call %d" % number, listener.getsockname())
        data, sender = rig.answer(inner)
        assert (data, sender) == (b"call %d" % number, client.getsockname()[:2])
        inner.sendto(b"answer %d" % number, sender)
        assert rig.answer(client) == (b"answer %d" % number, listener.getsockname()[:2])
    (flow,) = rig.udp.flows(CONTAINER)
    assert (flow["direction"], flow["path"]) == ("in", "kernel" if kernel else "user")
    assert str(flow["source"]).startswith(caller.join("[]") if ":" in caller else caller)
    assert rig.log == []


@PATHS
@alone
def test_clients_are_told_apart(kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    listener, inner = publish(rig, WORLD4)
    clients = [udp_socket(CLIENT4) for _ in range(6)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.sendto(bytes((turn, number)), listener.getsockname())
        for _ in clients:
            data, sender = rig.answer(inner)
            assert sender == clients[data[1]].getsockname()
            inner.sendto(data, sender)
        for number, client in enumerate(clients):
            assert rig.answer(client) == (bytes((turn, number)), listener.getsockname())
    assert len(rig.udp.flows()) == 6


@PATHS
@pytest.mark.parametrize("loopback, gateway", [("127.0.0.1", GATEWAY4), ("::1", GATEWAY6)], ids=["IPv4", "IPv6"])
@alone
def test_client_on_loopback_is_the_gateway_with_a_port_of_its_own(loopback: str, gateway: str, kernel: bool) -> None:
    rig = Rig(kernel=kernel)
    listener, inner = publish(rig, loopback)
    clients = [udp_socket(loopback) for _ in range(3)]
    ports = set()
    for turn in range(4):
        for number, client in enumerate(clients):
            client.sendto(bytes((turn, number)), listener.getsockname())
            data, sender = rig.answer(inner)
            assert (data, sender[0]) == (bytes((turn, number)), gateway)
            ports.add(sender[1])
            inner.sendto(data, sender)
            assert rig.answer(client) == (data, listener.getsockname()[:2])
    assert len(ports) == 3


@PATHS
@alone
def test_client_of_an_internal_network_is_the_gateway(kernel: bool) -> None:
    rig = Rig(kernel=kernel, internal=True)
    listener, inner = publish(rig, WORLD4)
    client = udp_socket(CLIENT4)
    client.sendto(b"call", listener.getsockname())
    data, sender = rig.answer(inner)
    assert (data, sender[0]) == (b"call", GATEWAY4)
    inner.sendto(b"answer", sender)
    assert rig.answer(client) == (b"answer", listener.getsockname())


@alone
def test_client_with_an_address_of_the_network_itself_is_the_gateway() -> None:
    rig = Rig()
    add_address("172.30.0.9/32")
    listener, inner = publish(rig, WORLD4)
    client = udp_socket("172.30.0.9")
    client.sendto(b"call", listener.getsockname())
    assert rig.answer(inner)[1][0] == GATEWAY4


def add_address(address: str) -> None:
    """To the loopback device of this namespace."""
    netlink = Netlink(NETLINK_ROUTE)
    netlink.run([rtnetlink.add_address(1, address)])
    netlink.close()


@alone
def test_client_of_the_other_version_is_the_gateway() -> None:
    rig = Rig()
    place = {"network": rig.network.id, "ipv4": CONTAINER4, "default": True}
    rig.model.set_container({"id": CONTAINER, "name": "web", "endpoints": [place]})
    listener = listening(WORLD6)
    inner = rig.inside(lambda: udp_socket(CONTAINER4, PORT))
    rig.udp.published(1, listener, CONTAINER, PORT)
    client = udp_socket(CLIENT6)
    client.sendto(b"call", listener.getsockname())
    _, sender = rig.answer(inner)
    assert sender[0] == GATEWAY4
    inner.sendto(b"answer", sender)
    assert rig.answer(client) == (b"answer", listener.getsockname()[:2])


@pytest.mark.parametrize("any_, called, caller", [("0.0.0.0", WORLD4, CLIENT4), ("::", WORLD6, CLIENT6)])
@alone
def test_answer_leaves_from_the_address_that_was_called(any_: str, called: str, caller: str) -> None:
    rig = Rig()
    listener = listening(any_)
    inner = rig.inside(lambda: udp_socket(CONTAINER6 if ":" in any_ else CONTAINER4, PORT))
    rig.udp.published(1, listener, CONTAINER, PORT)
    client = udp_socket(caller)
    for _ in range(3):
        client.sendto(b"call", (called, listener.getsockname()[1]))
        _, sender = rig.answer(inner)
        inner.sendto(b"answer", sender)
        assert rig.answer(client) == (b"answer", (called, listener.getsockname()[1]))


@alone
def test_port_that_is_published_no_more_serves_nobody() -> None:
    rig = Rig()
    before = len(os.listdir("/proc/self/fd"))
    listener, inner = publish(rig, WORLD4)
    client = udp_socket(CLIENT4)
    client.sendto(b"call", listener.getsockname())
    rig.answer(inner)
    rig.udp.unpublished(1)
    rig.udp.unpublished(1)
    assert rig.udp.flows() == []
    client.sendto(b"call again", listener.getsockname())
    rig.turn()
    assert not readable(inner)
    assert readable(listener)
    for one in (listener, inner, client):
        one.close()
    assert len(os.listdir("/proc/self/fd")) <= before


@alone
def test_published_port_is_nobody_elses() -> None:
    rig = Rig()
    listener, inner = publish(rig, WORLD4)
    client = udp_socket(CLIENT4)
    client.sendto(b"call", listener.getsockname())
    rig.answer(inner)
    for address in (WORLD4, "0.0.0.0"):
        with pytest.raises(OSError, match="in use"):
            udp_socket(address, listener.getsockname()[1])


@alone
def test_silent_clients_are_forgotten_and_may_call_again() -> None:
    udp.SWEEP, udp_flow.FIRST_IDLE, udp_flow.IDLE = 0.05, 0.1, 0.1
    rig = Rig()
    listener, inner = publish(rig, WORLD4)
    client = udp_socket(CLIENT4)
    for _ in range(2):
        client.sendto(b"call", listener.getsockname())
        assert rig.answer(inner)[0] == b"call"
        rig.until(lambda: not rig.udp.flows())


@alone
def test_container_that_does_not_listen_loses_nothing_for_others() -> None:
    rig = Rig()
    listener, inner = publish(rig, WORLD4)
    inner.close()
    client = udp_socket(CLIENT4)
    for _ in range(5):
        client.sendto(b"call", listener.getsockname())
        rig.turn()
    later = rig.inside(lambda: udp_socket(CONTAINER4, PORT))
    client.sendto(b"now", listener.getsockname())
    assert rig.answer(later)[0] == b"now"


@alone
def test_container_that_is_gone_is_not_called() -> None:
    rig = Rig()
    listener, _ = publish(rig, WORLD4)
    rig.model.remove_container(CONTAINER)
    client = udp_socket(CLIENT4)
    client.sendto(b"call", listener.getsockname())
    rig.until(lambda: not readable(listener))
    assert rig.udp.flows() == []
    assert rig.log == []


def test_called_address_is_read_from_what_the_kernel_adds() -> None:
    info4 = (socket.IPPROTO_IP, 8, bytes(4) + socket.inet_aton("203.0.113.9") + socket.inet_aton("203.0.113.255"))
    info6 = (socket.IPPROTO_IPV6, 50, socket.inet_pton(socket.AF_INET6, WORLD6) + bytes(4))
    assert _local([(1, 2, b"other"), info4]) == socket.inet_aton("203.0.113.9")
    assert _local([info6]) == socket.inet_pton(socket.AF_INET6, WORLD6)
    assert _local([]) == _local([(socket.IPPROTO_IP, 8, b"short")]) == b""


def test_who_cannot_be_answered_is_no_client() -> None:
    local4, local6 = bytes((203, 0, 113, 9)), socket.inet_pton(socket.AF_INET6, WORLD6)
    assert _client((CLIENT4, 0), local4) is None
    assert _client((CLIENT4, 9), b"") is None
    assert _client(("::ffff:203.0.113.77", 9, 0, 0), local6) is None
    linked = _client(("fe80::1%lo", 9, 0, 1), local6)
    assert linked is not None
    assert linked.scope == 1
