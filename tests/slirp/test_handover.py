"""TCP out of a container, by the kernel's transparent proxy: what an application sees, here and there."""

import errno
import hashlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.stack_hub import (
    HOST,
    HOST6,
    LOOPBACK,
    NO_NETWORK,
    PROHIBITED,
    SILENT,
    UNREACHABLE,
    UNREACHABLE6,
    Guest,
    Hub,
    eventually,
    running_hub,
)

pytestmark = pytest.mark.kernel

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


def pair(hub: Hub, guest: Guest, host: str = HOST) -> tuple[socket.socket, socket.socket]:
    """A connection: the container's end, the host's end."""
    with hub.listen(host) as listener:
        inner = guest.connect(host, listener.getsockname()[1])
        outer, _ = listener.accept()
        outer.settimeout(10)
        return inner, outer


def code_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 20), b""))


@pytest.mark.parametrize("host", [HOST, HOST6])
def test_bytes_go_both_ways_and_each_end_sees_whom_it_called(hub: Hub, guest: Guest, host: str) -> None:
    with hub.listen(host) as listener, guest.connect(host, listener.getsockname()[1]) as inner:
        outer, _ = listener.accept()
        with outer:
            inner.sendall(b"from the container")
            outer.sendall(b"from the host")
            assert (outer.recv(100), inner.recv(100)) == (b"from the container", b"from the host")
            assert inner.getpeername()[:2] == listener.getsockname()[:2]


def test_a_port_where_nobody_listens_refuses_at_once(hub: Hub, guest: Guest) -> None:
    assert [code_of(partial(guest.connect, host, 9)) for host in (HOST, HOST6, LOOPBACK)] == [errno.ECONNREFUSED] * 3


@pytest.mark.parametrize(
    "host, code",
    [
        (UNREACHABLE, errno.EHOSTUNREACH),
        (UNREACHABLE6, errno.EHOSTUNREACH),
        (NO_NETWORK, errno.ENETUNREACH),
        (PROHIBITED, errno.EHOSTUNREACH),  # what the kernel makes of ICMP "administratively prohibited"
    ],
)
def test_what_the_host_cannot_reach_the_container_cannot_reach_either(guest: Guest, host: str, code: int) -> None:
    assert code_of(lambda: guest.connect(host, 80)) == code


def test_who_gets_no_answer_is_not_given_one(hub: Hub, guest: Guest) -> None:
    sock = guest.new_socket()
    sock.setblocking(False)
    assert sock.connect_ex((SILENT, 80)) == errno.EINPROGRESS
    eventually(lambda: [flow for flow in hub.flows() if flow["state"] == "connecting"], "the attempt")
    assert not select.select([], [sock], [], 1.5)[1]  # a SYN was repeated meanwhile
    assert len(hub.flows()) == 1
    sock.close()
    hub.tell("container-gone", id=guest.name)
    eventually(lambda: not hub.flows(), "the end of the attempt")
    hub.tell("container", **guest.told)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "0.0.0.0", "172.30.0.1"])
def test_no_spelling_of_the_hosts_loopback_leads_there(hub: Hub, guest: Guest, host: str) -> None:
    with hub.listen("0.0.0.0") as listener, pytest.raises(OSError):
        guest.connect(host, listener.getsockname()[1])


def test_the_hosts_loopback_has_an_address_of_its_own_for_both_versions(hub: Hub, guest: Guest) -> None:
    for host in ("127.0.0.1", "::1"):
        with hub.listen(host) as listener, guest.connect(LOOPBACK, listener.getsockname()[1]) as inner:
            outer, _ = listener.accept()
            with outer:
                outer.sendall(b"here")
                assert inner.recv(10) == b"here"


def test_the_end_of_one_direction_leaves_the_other_open(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    with inner, outer:
        inner.sendall(b"question")
        inner.shutdown(socket.SHUT_WR)
        assert read_all(outer) == b"question"
        outer.sendall(b"answer")
        outer.close()
        assert read_all(inner) == b"answer"


@pytest.mark.parametrize("from_the_container", [True, False])
def test_a_reset_is_a_reset_on_the_other_side(hub: Hub, guest: Guest, from_the_container: bool) -> None:
    inner, outer = pair(hub, guest)
    one, other = (inner, outer) if from_the_container else (outer, inner)
    one.sendall(b"last words")
    assert other.recv(100) == b"last words"
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    one.close()
    with other:
        assert code_of(lambda: other.recv(1)) == errno.ECONNRESET


def test_a_reset_after_the_end_of_a_stream_is_seen_too(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    with inner:
        outer.shutdown(socket.SHUT_WR)
        assert inner.recv(1) == b""
        outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        outer.close()
        eventually(lambda: inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the reset")


def test_writing_to_somebody_who_has_closed_ends_in_an_error(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    outer.close()
    with inner:
        assert code_of(lambda: inner.sendall(b"x" * (64 << 20))) in (errno.ECONNRESET, errno.EPIPE)


@pytest.mark.parametrize("outward", [True, False])
def test_a_hundred_megabytes_arrive_as_they_were_sent(hub: Hub, guest: Guest, outward: bool) -> None:
    inner, outer = pair(hub, guest)
    sender, receiver = (inner, outer) if outward else (outer, inner)
    block = os.urandom(1 << 20)
    sent, got = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for _ in range(100):
            sender.sendall(block)
            sent.update(block)
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    for data in iter(lambda: receiver.recv(1 << 20), b""):
        got.update(data)
    thread.join()
    assert got.digest() == sent.digest()
    flow = next(iter(hub.flows()))
    assert flow["sent" if outward else "received"] == 100 << 20
    inner.close()
    outer.close()


def test_who_reads_slowly_gets_everything_and_stops_the_sender_meanwhile(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    with inner, outer:
        outer.setblocking(False)
        sent = 0
        while select.select([], [outer], [], 0.3)[1]:
            sent += outer.send(b"x" * 65536)
        assert sent < 200 << 20
        outer.close()
        assert len(read_all(inner)) == sent


def test_urgent_data_comes_in_line(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    with inner, outer:
        inner.send(b"a")
        inner.send(b"!", socket.MSG_OOB)
        inner.send(b"b")
        inner.shutdown(socket.SHUT_WR)
        assert read_all(outer) == b"a!b"


def test_data_that_comes_with_the_syn_arrives_once(hub: Hub, guest: Guest) -> None:
    with hub.listen(HOST) as listener, guest.new_socket() as inner:
        tcp_fastopen_no_cookie = 34
        inner.setsockopt(socket.IPPROTO_TCP, tcp_fastopen_no_cookie, 1)
        inner.sendto(b"early", socket.MSG_FASTOPEN, listener.getsockname())
        outer, _ = listener.accept()
        outer.settimeout(10)
        with outer:
            inner.sendall(b" and late")
            inner.shutdown(socket.SHUT_WR)
            assert read_all(outer) == b"early and late"


def test_a_thousand_connections_at_once_all_live(hub: Hub, guest: Guest) -> None:
    with hub.listen(HOST) as listener:
        inners = [guest.connect(HOST, listener.getsockname()[1]) for _ in range(200)]
        outers = [listener.accept()[0] for _ in inners]
    by_peer = {}
    for number, inner in enumerate(inners):
        inner.sendall(struct.pack("!I", number))
    for outer in outers:
        outer.settimeout(10)
        (number,) = struct.unpack("!I", outer.recv(4, socket.MSG_WAITALL))
        by_peer[number] = outer
    assert sorted(by_peer) == list(range(len(inners)))
    for number, outer in by_peer.items():
        outer.sendall(struct.pack("!I", number))
    for number, inner in enumerate(inners):
        assert struct.unpack("!I", inner.recv(4, socket.MSG_WAITALL)) == (number,)
    for sock in (*inners, *outers):
        sock.close()


def test_the_same_port_can_connect_again_after_the_far_end_closed_first(hub: Hub, guest: Guest) -> None:
    with hub.listen(HOST) as listener:
        for _ in range(3):
            with guest.new_socket() as inner:
                inner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                inner.bind(("", 40001))
                inner.connect(listener.getsockname())
                outer, _ = listener.accept()
                outer.close()
                assert inner.recv(1) == b""


def test_a_container_that_is_gone_takes_its_connections_with_it(hub: Hub) -> None:
    other = hub.guest("other")
    inner, outer = pair(hub, other)
    hub.tell("container-gone", id="other")
    with inner, outer:
        assert code_of(lambda: outer.recv(1)) == errno.ECONNRESET
        assert code_of(lambda: inner.recv(1)) == errno.ECONNRESET


def test_what_egress_rules_do_not_allow_is_reset(hub: Hub) -> None:
    kept = hub.guest("kept", egress=[f"{HOST}:1"])
    with hub.listen(HOST) as listener:
        assert code_of(lambda: kept.connect(*listener.getsockname())) == errno.ECONNREFUSED
    eventually(lambda: [line for line in hub.logs() if "denied" in line], "a line in the log")


def test_a_flow_is_told_with_both_its_ends(hub: Hub, guest: Guest) -> None:
    inner, outer = pair(hub, guest)
    with inner, outer:
        inner.sendall(b"12345")
        assert outer.recv(10) == b"12345"
        (flow,) = hub.flows(guest.name)
        address, port = inner.getsockname()
        host, host_port = outer.getsockname()
        assert (flow["source"], flow["destination"]) == (f"{address}:{port}", f"{host}:{host_port}")
        assert (flow["sent"], flow["received"], flow["state"], flow["path"]) == (5, 0, "established", "kernel")
        assert hub.flows("somebody else") == []
