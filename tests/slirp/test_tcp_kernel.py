"""Our TCP against the kernel's, over a tun device, with servers and clients on the host's side."""

import errno
import hashlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from slirp.model import packed
from slirp.wire import checksum, tcp
from tests.slirp.tcp_rig import LOOPBACK, PATIENCE, PUBLISHED, Rig, accept, rig, serve
from tests.slirp.udp_rig import CLIENT4, CLIENT6, CONTAINER4, CONTAINER6, WORLD4, WORLD6, alone

pytestmark = pytest.mark.kernel

_BLOCK = random.Random(7).randbytes(1 << 20)
_LARGE = 64  # blocks


def _pump(sock: socket.socket, blocks: int, *, pause: float = 0.0) -> str:
    """Send so many blocks and end the stream; the digest of what was sent."""
    digest = hashlib.sha1(usedforsecurity=False)
    for number in range(blocks):
        data = number.to_bytes(4, "big") + _BLOCK[number % 977 :]
        digest.update(data)
        sock.sendall(data)
        if pause:
            time.sleep(pause)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def _digest(sock: socket.socket, *, size: int = 1 << 18, pause: float = 0.0) -> str:
    """The digest of all that arrives until the stream ends."""
    digest = hashlib.sha1(usedforsecurity=False)
    while data := sock.recv(size):
        digest.update(data)
        if pause:
            time.sleep(pause)
    return digest.hexdigest()


def _beside(function: Callable[[], object]) -> Callable[[], object]:
    """Run it in a thread; the call that is given back waits for the result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()

    def result() -> object:
        thread.join(3 * PATIENCE)
        return results[0]

    return result


def _until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def _pair(rig: Rig, address: str = WORLD4) -> tuple[socket.socket, socket.socket]:
    """A connection out of the container: its ends inside and outside."""
    with serve(address) as server:
        inner = rig.connect(address, server.getsockname()[1])
        return inner, accept(server)


@pytest.mark.parametrize("address", [WORLD4, WORLD6])
@pytest.mark.parametrize("mtu", [65520, 1500])
@alone
def test_large_streams_arrive_whole_in_both_directions_at_once(address: str, mtu: int) -> None:
    blocks = _LARGE if mtu == 65520 else 8
    with rig(mtu=mtu) as made:
        inner, outer = _pair(made, address)
        received = _beside(lambda: _digest(outer)), _beside(lambda: _digest(inner))
        sent = _beside(lambda: _pump(inner, blocks)), _beside(lambda: _pump(outer, blocks))
        assert sent[0]() == received[0]()
        assert sent[1]() == received[1]()


@alone
def test_a_refused_connection_is_refused() -> None:
    with rig() as made:
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            made.connect(WORLD4, 9)
        with pytest.raises(ConnectionRefusedError):
            made.connect(WORLD6, 9)
        assert time.monotonic() - started < 0.5
        assert made.ask()["flows"] == []


@alone
def test_what_cannot_be_reached_is_unreachable() -> None:
    with rig() as made:
        for address in ("198.51.100.1", "2001:db8:1::1", "64:ff9b::7f00:1", LOOPBACK):
            with pytest.raises(OSError) as caught:
                made.connect(address, 9, 3.0)
            assert caught.value.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH), address


@alone
def test_what_the_policy_prohibits_is_refused() -> None:
    with rig(egress=["192.0.2.0/24"]) as made, pytest.raises(ConnectionRefusedError):
        made.connect(WORLD4, 9)


@alone
def test_the_loopback_address_of_the_host_tries_both_families() -> None:
    with rig(host_loopback=True) as made, serve("::1") as server:
        port = server.getsockname()[1]
        inner = made.connect(LOOPBACK, port)
        outer = accept(server)
        inner.sendall(b"hello")
        assert outer.recv(5) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            made.connect(LOOPBACK, 9)


@alone
def test_each_direction_ends_by_itself() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        inner.sendall(b"question")
        inner.shutdown(socket.SHUT_WR)
        assert outer.recv(100) == b"question"
        assert outer.recv(100) == b""
        outer.sendall(b"answer")
        assert inner.recv(100) == b"answer"
        outer.shutdown(socket.SHUT_WR)
        assert inner.recv(100) == b""
        _until(lambda: made.ask()["flows"] == [])


@alone
def test_the_host_may_end_first() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        outer.sendall(b"banner")
        outer.shutdown(socket.SHUT_WR)
        assert inner.recv(100) == b"banner"
        assert inner.recv(100) == b""
        inner.sendall(b"late")
        assert outer.recv(100) == b"late"
        inner.close()
        assert outer.recv(100) == b""
        _until(lambda: made.ask()["flows"] == [])  # past TIME-WAIT


@pytest.mark.parametrize("from_inside", [True, False])
@alone
def test_a_reset_is_handed_on(from_inside: bool) -> None:
    with rig() as made:
        ends = _pair(made)
        one, other = ends if from_inside else ends[::-1]
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        _until(lambda: made.ask()["flows"] == [])


@alone
def test_what_was_sent_before_a_reset_is_still_read() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        inner.sendall(b"request that nobody reads")
        _until(lambda: len(outer.recv(100, socket.MSG_PEEK)) > 20)
        outer.sendall(b"error 400")
        outer.close()  # with unread data: the kernel resets
        assert inner.recv(100) == b"error 400"
        with pytest.raises(ConnectionResetError):
            inner.recv(100)


@alone
def test_urgent_data_stays_in_its_place() -> None:
    with rig() as made:
        for one, other in (_pair(made), _pair(made)[::-1]):
            other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            one.sendall(b"ab")
            one.send(b"!", socket.MSG_OOB)
            one.sendall(b"cd")
            one.shutdown(socket.SHUT_WR)
            received = b""
            while data := other.recv(10):
                received += data
            assert received == b"ab!cd"


@pytest.mark.parametrize("inward", [True, False])
@alone
def test_a_reader_that_stops_for_seconds_stops_the_sender_and_gets_everything(inward: bool) -> None:
    with rig() as made:
        reader, writer = _pair(made)[:: 1 if inward else -1]
        sent = _beside(lambda: _pump(writer, _LARGE))
        _until(lambda: made.ask()["held"] > 1 << 19)
        held = []
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            held.append(made.ask()["held"])
            time.sleep(0.05)
        assert max(held) <= 4 << 20
        assert _digest(reader) == sent()


@pytest.mark.parametrize("inward", [True, False])
@alone
def test_slow_readers_and_slow_writers_are_waited_for(inward: bool) -> None:
    with rig() as made:
        reader, writer = _pair(made)[:: 1 if inward else -1]
        sent = _beside(lambda: _pump(writer, 12, pause=0.02))
        assert _digest(reader, size=1 << 15, pause=0.001) == sent()


@alone
def test_two_hundred_connections_at_once() -> None:
    with rig() as made, serve(WORLD4) as server:
        port = server.getsockname()[1]
        ends = []
        for _ in range(200):
            inner = made.connect(WORLD4, port)
            ends.append((inner, accept(server)))
        assert len(made.ask()["flows"]) == 200
        for number, (inner, outer) in enumerate(ends):
            inner.sendall(b"%d" % number * 1000)
            outer.sendall(b"%d" % -number * 1000)
        for number, (inner, outer) in enumerate(ends):
            assert outer.recv(1 << 16, socket.MSG_WAITALL if number < 0 else 0).startswith(b"%d" % number)
            assert inner.recv(1 << 16).startswith(b"%d" % -number)
            inner.close()
            outer.close()
        _until(lambda: made.ask()["flows"] == [])
        assert made.ask()["held"] == 0


@alone
def test_lost_packets_are_sent_again() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        received = _beside(lambda: _digest(inner)), _beside(lambda: _digest(outer))
        sent = _beside(lambda: _pump(inner, 8)), _beside(lambda: _pump(outer, 8))
        for _ in range(10):
            made.ask("drop 1")  # more in a row would only try the patience of the kernel's timers
            time.sleep(0.01)
        assert [get() for get in sent] == [received[1](), received[0]()]


@pytest.mark.parametrize("host, client, inside", [(WORLD4, CLIENT4, CONTAINER4), (WORLD6, CLIENT6, CONTAINER6)])
@alone
def test_a_published_port_shows_the_client_and_carries_both_ways(host: str, client: str, inside: str) -> None:
    with rig() as made, made.listen(inside) as server:
        outer = socket.create_connection((host, PUBLISHED), timeout=PATIENCE, source_address=(client, 0))
        inner, peer = server.accept()
        inner.settimeout(PATIENCE)
        assert peer[:2] == outer.getsockname()[:2]
        sent = _beside(lambda: _pump(inner, 8)), _beside(lambda: _pump(outer, 8))
        received = _beside(lambda: _digest(outer)), _beside(lambda: _digest(inner))
        assert [get() for get in sent] == [get() for get in received]
        _until(lambda: made.ask()["flows"] == [])


@alone
def test_a_published_port_without_a_server_resets_the_client() -> None:
    with rig() as made:
        with pytest.raises(ConnectionResetError):
            socket.create_connection((WORLD4, PUBLISHED), timeout=PATIENCE, source_address=(CLIENT4, 0)).recv(1)
        assert made.ask()["flows"] == []


@alone
def test_a_container_that_goes_resets_both_ends() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        _until(lambda: made.ask()["flows"][0]["state"] == "established")
        made.ask("close")
        for end in (inner, outer):
            with pytest.raises(ConnectionResetError):
                end.recv(1)


@alone
def test_flows_tell_who_speaks_with_whom() -> None:
    with rig() as made:
        inner, outer = _pair(made)
        inner.sendall(b"12345")
        outer.sendall(b"123")
        assert inner.recv(3) == b"123"
        assert outer.recv(5) == b"12345"
        (row,) = made.ask()["flows"]
        assert row["source"] == f"{CONTAINER4}:{inner.getsockname()[1]}"
        assert row["destination"] == row["host"] == f"{WORLD4}:{outer.getsockname()[1]}"
        assert (row["sent"], row["received"]) == (5, 3)
        assert (row["direction"], row["state"], row["path"]) == ("out", "established", "user")


@alone
def test_segments_of_no_connection_are_reset() -> None:
    with rig() as made:
        inner, _outer = _pair(made)
        made.ask("close")
        # As after a restart of the stack: the container does not know, and is told at its next word
        with pytest.raises(OSError):
            inner.recv(1)


@alone
def test_ports_are_used_again_at_once() -> None:
    with rig() as made, serve(WORLD4) as server:
        for _ in range(3):
            inner = made.unconnected()
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            inner.bind((CONTAINER4, 40000))
            connect = partial(inner.connect_ex, server.getsockname())
            _until(lambda connect=connect: connect() != errno.EADDRNOTAVAIL)  # type: ignore[misc]  # LAST-ACK is over
            outer = accept(server)
            outer.close()  # the host ends first: ours has the TIME-WAIT
            assert inner.recv(1) == b""
            inner.close()


@alone
def test_a_connection_that_is_never_answered_times_out_in_silence() -> None:
    with rig() as made, serve(WORLD4) as server:
        server.listen(0)
        waiting = []
        while True:  # fill the queue of the listener: the kernel drops further SYNs
            sock = _started(server)
            waiting.append(sock)
            if not select.select([], [sock], [], 0.3)[1]:
                break
        inner = made.unconnected()
        inner.setblocking(False)
        assert inner.connect_ex(server.getsockname()) == errno.EINPROGRESS
        assert select.select([], [inner], [], 1.0)[1] == []
        assert [row["state"] for row in made.ask()["flows"]] == ["connecting"]
        for _ in waiting:
            accept(server)
        assert select.select([], [inner], [], PATIENCE)[1] == [inner]
        assert inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@alone
def test_an_echo_that_reads_nothing_before_it_has_written_never_stands_still() -> None:
    with rig() as made:
        inner, outer = _pair(made)

        def echo() -> None:
            while data := outer.recv(1 << 16):
                outer.sendall(data)
            outer.shutdown(socket.SHUT_WR)

        echoed = _beside(echo)
        sent = _beside(lambda: _pump(inner, 32))
        time.sleep(0.3)  # all buffers on the way there and back are full
        assert _digest(inner) == sent()
        echoed()


@alone
def test_a_flood_of_syns_is_bounded_and_soon_forgotten() -> None:
    with rig() as made, serve(WORLD4) as server, serve(WORLD4) as other:
        server.listen(0)
        waiting = [_started(server) for _ in range(3)]  # its queue is full: whoever calls it hears nothing
        raw = made.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP))
        address, port = server.getsockname()
        for number in range(5000):
            raw.sendto(_syn(1024 + number, port, number), (address, 0))
            if number % 100 == 0:
                made.ask()  # as many as fit into the queue of the tun device
        answer = made.ask()
        assert len(answer["flows"]) <= 1024
        assert answer["dropped"] > 3000
        assert answer["held"] == 0
        inner = made.connect(*other.getsockname())  # its SYN is dropped at first, and comes again: in 7 seconds at most
        accept(other).sendall(b"download")
        assert inner.recv(8) == b"download"
        for sock in waiting:
            sock.close()


def _started(server: socket.socket) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(server.getsockname())
    return sock


def _syn(source: int, destination: int, sequence: int) -> bytes:
    header = tcp.header(source, destination, sequence, 0, tcp.SYN, 1024)
    total = checksum.checksum(header, checksum.pseudo(packed(CONTAINER4), packed(WORLD4), 6, len(header)))
    return header[:16] + total.to_bytes(2, "big") + header[18:]


def test_the_account_is_not_root() -> None:
    assert os.getuid() != 0
