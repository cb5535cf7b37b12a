"""Networks in the kernel: who reaches whom, what comes out of the tun, what goes back in, and what is left behind."""

import errno
import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from slirp.links import NetworkLinks, route_through
from slirp.namespaces import run_in, write_sysctls
from slirp.rules import Support, probe
from slirp.transparent import make_sockets
from tests.slirp.netns_rig import (
    GATEWAY_MAC,
    MINE,
    NO_FILTER,
    SOON,
    Box,
    a_box,
    a_network,
    checksum,
    frame,
    ip,
    link_names,
    read_tun,
    readable,
    udp,
    wait_until,
)
from tests.support.userns import in_namespace

pytestmark = pytest.mark.kernel
BOTH = pytest.mark.parametrize("version", [4, 6])
REMOTE = {4: "192.0.2.7", 6: "2001:db8::7"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def address_of(box: Box, version: int) -> str:
    return box.ipv4 if version == 4 else box.ipv6


def exchange(one: socket.socket, other: socket.socket) -> None:
    """Each end of a connection gets what the other sends, also when that is much."""
    data = bytes(range(256)) * 1200
    for sender, receiver in ((one, other), (other, one)):
        thread = threading.Thread(target=sender.sendall, args=(data,))
        thread.start()
        received = b""
        while len(received) < len(data):
            received += receiver.recv(65536)
        thread.join()
        assert received == data


def accepted(listener_fd: int) -> socket.socket:
    assert readable(listener_fd), "nothing to accept"
    with socket.socket(fileno=os.dup(listener_fd)) as listener:
        connection, _ = listener.accept()
    connection.settimeout(SOON)
    return connection


def sockets_of(network: NetworkLinks, kind: str) -> socket.socket:
    made = socket.socket(fileno=make_sockets(network.netns_fd, kind, 1)[0])
    made.settimeout(SOON)
    return made


@BOTH
def test_containers_of_a_network_reach_each_other(version: int) -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as one,
            a_box(network, 3) as other,
            other.listener(FAMILY[version]) as listener,
            one.open(FAMILY[version], socket.SOCK_STREAM) as caller,
        ):
            caller.connect(listener.getsockname())
            with accepted(listener.fileno()) as called:
                assert called.getpeername()[0] == address_of(one, version)
                exchange(caller, called)

    in_namespace(inside)


def test_nothing_crosses_between_networks_not_even_with_the_same_addresses() -> None:
    def inside() -> list[bool]:
        with ExitStack() as stack:
            mine, theirs = stack.enter_context(a_network()), stack.enter_context(a_network())
            one = stack.enter_context(a_box(mine, 2))
            wires = [stack.enter_context(a_box(network, 3)).wire() for network in (mine, theirs)]
            packet = ip(one.ipv4, "10.9.0.255", socket.IPPROTO_UDP, udp(1000, 1000, b"who is there"))
            with one.wire() as sender:
                sender.send(frame(one.mac, 0x0800, packet))
            return [sees(wire, b"who is there") for wire in wires]

    assert in_namespace(inside) == [True, False]


def sees(wire: socket.socket, marker: bytes, seconds: float = 0.3) -> bool:
    end = time.monotonic() + seconds
    while readable(wire.fileno(), max(0.0, end - time.monotonic())):
        if marker in wire.recv(70000):
            return True
    return False


@BOTH
def test_a_connection_out_of_the_network_is_a_syn_at_the_tun(version: int) -> None:
    def inside() -> None:
        with a_network() as network, a_box(network, 2) as box:
            with box.open(FAMILY[version], socket.SOCK_STREAM) as caller:
                caller.setblocking(False)
                assert caller.connect_ex((REMOTE[version], 80)) == errno.EINPROGRESS
                packet = read_tun(network, socket.IPPROTO_TCP)[10:]
            destination = packet[16:20] if version == 4 else packet[24:40]
            assert destination == socket.inet_pton(FAMILY[version], REMOTE[version])
            segment = packet[20:] if version == 4 else packet[40:]
            assert struct.unpack_from(">H", segment, 2) == (80,)
            assert segment[13] & 0x12 == 2

    in_namespace(inside)


@BOTH
def test_a_syn_written_back_is_accepted_with_the_address_that_was_called(version: int) -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            box.open(FAMILY[version], socket.SOCK_STREAM) as caller,
        ):
            caller.setblocking(False)
            caller.connect_ex((REMOTE[version], 80))
            os.write(network.fds["tun"], read_tun(network, socket.IPPROTO_TCP))
            caller.settimeout(SOON)
            with accepted(network.fds[f"tproxy{version}"]) as called:
                assert called.getsockname()[:2] == (REMOTE[version], 80)
                assert called.getpeername()[:2] == caller.getsockname()[:2]
                exchange(caller, called)

    in_namespace(inside)


@BOTH
def test_a_client_from_elsewhere_is_seen_with_its_own_address(version: int) -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            box.listener(FAMILY[version]) as listener,
            sockets_of(network, f"tcp{version}") as client,
        ):
            client.bind((REMOTE[version], 1023))
            client.connect(listener.getsockname())
            with accepted(listener.fileno()) as called:
                assert called.getpeername()[:2] == (REMOTE[version], 1023)
                exchange(client, called)

    in_namespace(inside)


@BOTH
def test_an_ordinary_socket_of_the_network_is_the_gateway(version: int) -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            box.listener(FAMILY[version]) as listener,
            sockets_of(network, f"plain{version}") as client,
        ):
            client.connect(listener.getsockname())
            with accepted(listener.fileno()) as called:
                assert called.getpeername()[0] == {4: "10.9.0.1", 6: "fd09::1"}[version]
                exchange(client, called)

    in_namespace(inside)


@BOTH
def test_datagrams_of_a_transparent_socket_go_both_ways_and_a_refusal_is_told(version: int) -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            box.open(FAMILY[version], socket.SOCK_DGRAM) as inner,
            sockets_of(network, f"udp{version}") as outer,
        ):
            outer.bind((REMOTE[version], 53))
            inner.bind((address_of(box, version), 0))
            outer.connect(inner.getsockname()[:2])
            inner.sendto(b"question", (REMOTE[version], 53))
            assert outer.recv(100) == b"question"
            outer.send(b"answer")
            assert inner.recvfrom(100)[0] == b"answer"
            inner.close()
            outer.send(b"anybody there?")
            with pytest.raises(ConnectionRefusedError):
                outer.recv(100)

    in_namespace(inside)


@BOTH
@pytest.mark.parametrize("tproxy", [True, False], ids=["tproxy", "no tproxy"])
def test_port_53_of_the_gateway_is_dns_and_every_other_is_refused(version: int, tproxy: bool) -> None:
    def inside() -> None:
        gateway = {4: "10.9.0.1", 6: "fd09::1"}[version]
        with a_network(support=Support(True, tproxy, "")) as network, a_box(network, 2) as box:
            with box.open(FAMILY[version], socket.SOCK_DGRAM) as asker:
                asker.connect((gateway, 53))
                asker.send(b"question")
                assert readable(network.fds[f"dns-udp{version}"])
                with socket.socket(fileno=os.dup(network.fds[f"dns-udp{version}"])) as server:
                    question, source = server.recvfrom(100)
                    server.sendto(question + b"!", source)
                assert source[0] == address_of(box, version)
                assert asker.recv(100) == b"question!"
                asker.connect((gateway, 54))
                asker.send(b"question")
                with pytest.raises(ConnectionRefusedError):
                    asker.recv(100)
            with box.open(FAMILY[version], socket.SOCK_STREAM) as caller:
                caller.connect((gateway, 53))
                accepted(network.fds[f"dns-tcp{version}"]).close()
            for port in (1, 54, 22):
                with box.open(FAMILY[version], socket.SOCK_STREAM) as caller:
                    assert caller.connect_ex((gateway, port)) == errno.ECONNREFUSED

    in_namespace(inside)


@BOTH
@pytest.mark.parametrize("tproxy", [True, False], ids=["tproxy", "no tproxy"])
def test_an_answer_to_a_datagram_of_the_gateway_s_arrives(version: int, tproxy: bool) -> None:
    def inside() -> None:
        gateway = {4: "10.9.0.1", 6: "fd09::1"}[version]
        with (
            a_network(support=Support(True, tproxy, "")) as network,
            a_box(network, 2) as box,
            box.open(FAMILY[version], socket.SOCK_DGRAM) as server,
            sockets_of(network, f"udp{version}") as client,
        ):
            server.bind((address_of(box, version), 0))
            client.bind((gateway, 0))
            client.connect(server.getsockname()[:2])
            client.send(b"question")
            question, source = server.recvfrom(100)
            server.sendto(question + b"!", source)
            assert client.recv(100) == b"question!"

    in_namespace(inside)


def test_the_gateway_answers_a_ping() -> None:
    def inside() -> None:
        with (
            a_network() as network,
            a_box(network, 2) as box,
            box.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw,
        ):
            echo = struct.pack(">BBHHH", 8, 0, 0, 1, 1)
            raw.sendto(echo[:2] + struct.pack(">H", checksum(echo)) + echo[4:], ("10.9.0.1", 0))
            assert raw.recv(100)[20] == 0

    in_namespace(inside)


@pytest.mark.parametrize("support", [None, NO_FILTER], ids=["rules", "no rules"])
def test_without_icc_containers_reach_the_gateway_and_not_each_other(support: Support | None) -> None:
    def inside() -> None:
        plan = MINE._replace(icc=False)
        with a_network(plan, support) as network, a_box(network, 2) as one, a_box(network, 3) as other:
            with one.wire() as wire, other.wire() as seen:
                broadcast = ip(one.ipv4, "10.9.0.255", socket.IPPROTO_UDP, udp(1000, 1000, b"hello"))
                wire.send(frame(one.mac, 0x0800, broadcast))
                to_other = ip(one.ipv4, other.ipv4, socket.IPPROTO_UDP, udp(1000, 1000, b"hello"))
                wire.send(frame(one.mac, 0x0800, to_other, other.mac))
                if support is None:
                    wire.send(frame(one.mac, 0x0800, to_other, GATEWAY_MAC))
                assert not sees(seen, b"hello")
            with one.open(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect(("10.9.0.1", 53))

    in_namespace(inside)


def test_the_bridge_itself_keeps_mac_addresses_apart() -> None:
    def inside() -> list[bool]:
        with a_network(support=NO_FILTER) as network, a_box(network, 2) as one, a_box(network, 3) as other:
            arrived = []
            with one.wire() as wire, other.wire() as seen:
                for mac in (one.mac, other.mac, GATEWAY_MAC, b"\2unkno"):
                    packet = ip(one.ipv4, "10.9.0.255", socket.IPPROTO_UDP, udp(1000, 1000, b"it is " + mac))
                    wire.send(frame(mac, 0x0800, packet))
                    arrived.append(sees(seen, b"it is " + mac))
            return arrived

    assert in_namespace(inside) == [True, False, False, False]


def test_a_frame_goes_to_its_container_alone() -> None:
    def inside() -> list[bool]:
        with ExitStack() as stack:
            network = stack.enter_context(a_network())
            one, other, third = (stack.enter_context(a_box(network, number)) for number in (2, 3, 4))
            wires = [other.wire(), third.wire()]
            arrived = []
            with one.wire() as sender:
                for mac, data in ((other.mac, b"for the other"), (b"\2nobdy", b"for nobody")):
                    packet = ip(one.ipv4, other.ipv4, socket.IPPROTO_UDP, udp(1000, 1000, data))
                    sender.send(frame(one.mac, 0x0800, packet, mac))
                    arrived += [sees(wire, data) for wire in wires]
            return arrived

    assert in_namespace(inside) == [True, False, False, False]


def test_a_network_without_ipv6_has_none() -> None:
    def inside() -> str:
        plan = MINE._replace(gateway6="")
        with a_network(plan) as network, a_box(network, 2) as box:
            assert sorted(network.fds) == ["dns-tcp4", "dns-udp4", "tproxy4", "tun"]
            return run_in(box.netns_fd, lambda: Path("/proc/thread-self/net/if_inet6").read_text())

    assert [line.split()[-1] for line in in_namespace(inside).splitlines()] == ["lo"]


def test_a_second_network_takes_the_default_route_and_gives_it_back() -> None:
    def inside() -> list[str]:
        with a_network() as first, a_network() as second, a_box(first, 2) as box:
            interface = box.interface()
            found = [way_out(box)]
            second.attach(box.netns_fd, interface._replace(name="eth1", gateway4="10.9.0.99", ipv4="10.9.0.9/24"))
            found.append(way_out(box))
            route_through(box.netns_fd, interface)
            found.append(way_out(box))
            return found

    assert in_namespace(inside) == ["eth0", "eth1", "eth0"]


def way_out(box: Box) -> str:
    """The interfaces with a default route."""
    table = run_in(box.netns_fd, lambda: Path("/proc/thread-self/net/route").read_text())
    rows = [line.split() for line in table.splitlines()[1:]]
    return " ".join(row[0] for row in rows if row[1] == "00000000" and row[7] == "00000000")


def test_counters_are_the_container_s() -> None:
    def inside() -> dict[str, int]:
        with a_network() as network, a_box(network, 2) as one, a_box(network, 3):
            before = network.statistics()[one.port]
            with one.wire() as wire:
                packet = ip(one.ipv4, "10.9.0.255", socket.IPPROTO_UDP, udp(1000, 1000, bytes(5000)))
                wire.send(frame(one.mac, 0x0800, packet))
            after = network.statistics()[one.port]
            return {name: after[name] - before[name] for name in ("tx_bytes", "rx_bytes", "tx_dropped")}

    counters = in_namespace(inside)
    assert counters["tx_bytes"] >= 5000
    assert counters["rx_bytes"] < 5000
    assert counters["tx_dropped"] == 0


def test_what_cannot_be_attached_leaves_nothing() -> None:
    def inside() -> str:
        with a_network() as network, a_box(network, 2) as box, a_box(None, 3) as other:
            before = run_in(network.netns_fd, link_names)
            again = other.interface()
            for broken in (again._replace(mtu=10**6), again._replace(gateway4="224.0.0.1"), again._replace(name="lo")):
                with pytest.raises(OSError) as failure:
                    network.attach(other.netns_fd, broken)
                assert other.interfaces() == ["lo"]
            assert run_in(network.netns_fd, link_names) == before
            assert list(network.statistics()) == [box.port]
            network.attach(other.netns_fd, again)
            return str(failure.value)

    assert in_namespace(inside) == "[Errno 17] interface lo: File exists"


def test_an_interface_that_a_killed_hub_has_left_is_replaced_and_no_other() -> None:
    def inside() -> None:
        with a_network() as killed, a_network() as network, a_box(killed, 2) as box, a_box(network, 3) as other:
            with pytest.raises(FileExistsError):
                network.attach(box.netns_fd, box.interface()._replace(mac="02:42:0a:09:00:99"))
            network.attach(box.netns_fd, box.interface())
            with box.listener() as listener, other.open(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect(listener.getsockname())
            killed.detach(box.port)

    in_namespace(inside)


def test_a_container_may_take_its_interface_down_and_up_and_away() -> None:
    def inside() -> None:
        with a_network() as network, a_box(network, 2) as box, a_box(network, 3) as other:
            for command in ("ip link set eth0 down", "ip link set eth0 up"):
                run_in(box.netns_fd, lambda command=command: subprocess.run(command.split(), check=True))  # type: ignore[misc]
            with box.listener() as listener, other.open(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect(listener.getsockname())
            run_in(box.netns_fd, lambda: subprocess.run(["ip", "link", "delete", "eth0"], check=True))
            assert list(network.statistics()) == [other.port]
            network.detach(box.port)

    in_namespace(inside)


def test_detaching_takes_the_interface_away_and_does_not_mind_if_it_has_gone() -> None:
    def inside() -> None:
        with a_network() as network:
            with a_box(network, 2) as box:
                network.detach(box.port)
                assert box.interfaces() == ["lo"]
                network.detach(box.port)
            with a_box(network, 3) as gone:
                pass
            wait_until(lambda: f"v{gone.port}" not in run_in(network.netns_fd, link_names))
            network.detach(gone.port)
            assert network.statistics() == {}

    in_namespace(inside)


def test_the_same_address_comes_back_while_its_old_interface_is_still_being_removed() -> None:
    def inside() -> None:
        with a_network() as network, a_box(network, 2) as old, a_box(network, 3) as other, a_box(None, 2) as fresh:
            network.detach(old.port, wait=False)
            network.attach(fresh.netns_fd, fresh.interface())
            with fresh.listener() as listener, other.open(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect(listener.getsockname())
            wait_until(lambda: old.interfaces() == ["lo"])
            with fresh.listener() as listener, other.open(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.connect(listener.getsockname())

    in_namespace(inside)


def test_closing_a_network_leaves_no_descriptor_and_takes_it_from_its_containers() -> None:
    def inside() -> None:
        probe()
        before = sorted(os.listdir("/proc/self/fd"))
        with a_network() as network, a_box(network, 2) as box:
            network.close()
            wait_until(lambda: box.interfaces() == ["lo"])
            with pytest.raises(OSError, match="removed"):
                network.attach(box.netns_fd, box.interface())
            network.close()
        assert sorted(os.listdir("/proc/self/fd")) == before

    in_namespace(inside)


def test_a_network_that_cannot_be_made_leaves_no_descriptor() -> None:
    def inside() -> str:
        before = sorted(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError) as failure:
            NetworkLinks(MINE._replace(mtu=10), NO_FILTER)
        assert sorted(os.listdir("/proc/self/fd")) == before
        return str(failure.value)

    assert "bridge br0: Invalid argument" in in_namespace(inside)


def test_what_fails_inside_is_raised_outside_where_the_namespace_is_still_the_host_s() -> None:
    def inside() -> None:
        here = os.readlink("/proc/thread-self/ns/net")
        with a_box(None, 2) as box:
            with pytest.raises(PermissionError, match="ipv4/ip_forward"):
                write_sysctls({"ipv4/ip_forward": "1"})  # the host's is not ours
            with pytest.raises(OSError, match="ipv4/tcp_sack"):
                run_in(box.netns_fd, lambda: write_sysctls({"ipv4/tcp_sack": "no number"}))
            assert run_in(box.netns_fd, lambda: os.readlink("/proc/thread-self/ns/net")) != here
        assert os.readlink("/proc/thread-self/ns/net") == here

    in_namespace(inside)


def test_sockets_in_stock_do_not_block_and_no_child_has_them() -> None:
    def inside() -> None:
        with a_network() as network:
            for kind in ("tcp4", "tcp6", "udp4", "udp6", "plain4", "plain6"):
                fds = make_sockets(network.netns_fd, kind, 3)
                assert [(os.get_blocking(fd), os.get_inheritable(fd)) for fd in fds] == [(False, False)] * 3
            with pytest.raises(KeyError):
                make_sockets(network.netns_fd, "sctp4", 1)

    in_namespace(inside)
