"""STACK as its hub and the kernel see it: messages, packets, what it drops, and what it has given up."""

import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slirp import channel
from slirp.model import packed
from slirp.stack import Outbox, Stack, answer
from slirp.wire import checksum, icmp, ip, tcp, vnet
from tests.support.stack_hub import HOST, running_hub

GUEST, FAR = packed("172.17.0.2"), packed("198.51.100.7")


class Bench:
    """A stack in this process, whose tun device is one end of a socket pair."""

    def __init__(self, **network: Any) -> None:
        self.hub, theirs = channel.pair()
        self.hub.settimeout(5)
        self.stack = Stack(theirs)
        self.stack._watch_hub(False)
        self._theirs = theirs
        self.tun = self.tell_network(**network)
        endpoints = [{"network": "net", "ipv4": "172.17.0.2", "default": True}]
        self.tell({"do": "container", "id": "c", "name": "c", "endpoints": endpoints})

    def tell_network(self, **network: Any) -> socket.socket:
        ours, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.settimeout(0)
        told = {"id": "net", "name": "net", "subnet4": "172.17.0.0/16", "kernel": True, "fds": ["tun"], **network}
        self.tell({"do": "network", **told}, [device.fileno()])
        device.close()
        return ours

    def tell(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        channel.send(self.hub, message, fds or [])
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.stack.loop.turn(0)

    def feed(self, *packets: bytes, header: bytes = vnet.NONE) -> None:
        for packet in packets:
            self.tun.send(header + packet)
            self.turn()
        assert self.stack.loop.errors == 0, self.heard()

    def answers(self) -> list[ip.Packet]:
        got: list[ip.Packet] = []
        while True:
            try:
                data = self.tun.recv(1 << 17)
            except BlockingIOError:
                return got
            packet = ip.parse(memoryview(data)[vnet.SIZE :])
            assert packet is not None
            got.append(packet)

    def heard(self) -> list[dict[str, Any]]:
        self.hub.settimeout(0)
        said: list[dict[str, Any]] = []
        while True:
            try:
                message, _ = channel.receive(self.hub)
            except BlockingIOError:
                return said
            if message is None:
                return said
            said.append(message)

    def close(self) -> None:
        self.tell({"do": "container-gone", "id": "c"})
        self.tell({"do": "network-gone", "id": "net"})
        self.hub.close()
        self._theirs.close()
        self.tun.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def segment(flags: int = tcp.ACK, *, source: bytes = GUEST, destination: bytes = FAR, wrong: int = 0) -> bytes:
    message = tcp.header(4000, 80, 1000, 2000, flags, 100) + b"data"
    total = checksum.checksum(message, checksum.pseudo(source, destination, 6, len(message))) ^ wrong
    message = message[:16] + total.to_bytes(2, "big") + message[18:]
    return ip.header(source, destination, 6, len(message)) + message


def test_a_segment_of_no_connection_is_answered_with_a_reset(bench: Bench) -> None:
    bench.feed(segment())
    (packet,) = bench.answers()
    reset = tcp.parse(packet.payload)
    assert reset is not None
    assert (packet.source, packet.destination, packet.protocol) == (FAR, GUEST, 6)
    assert (reset.flags, reset.sequence, reset.source_port, reset.destination_port) == (tcp.RST, 2000, 80, 4000)


def test_a_segment_without_acknowledgement_has_its_own_numbers_acknowledged(bench: Bench) -> None:
    bench.feed(segment(tcp.FIN))
    (packet,) = bench.answers()
    reset = tcp.parse(packet.payload)
    assert reset is not None
    assert (reset.flags, reset.acknowledgement) == (tcp.RST | tcp.ACK, 1000 + 4 + 1)


def test_nobody_answers_a_reset(bench: Bench) -> None:
    bench.feed(segment(tcp.RST), segment(tcp.RST | tcp.ACK))
    assert bench.answers() == []


def test_who_claims_to_be_somebody_else_is_dropped(bench: Bench) -> None:
    bench.feed(segment(source=packed("172.17.0.3")))
    assert bench.answers() == []
    assert bench.stack.dropped == {"foreign source": 1}


def test_a_wrong_checksum_is_dropped_unless_the_kernel_vouches_for_it(bench: Bench) -> None:
    bench.feed(segment(wrong=1))
    assert bench.answers() == []
    assert bench.stack.dropped == {"wrong checksum": 1}
    bench.feed(segment(wrong=1), header=vnet.needs_checksum(20, 16))
    assert len(bench.answers()) == 1


def test_what_is_no_packet_is_dropped(bench: Bench) -> None:
    bench.feed(b"", b"\x45", b"\x45" + bytes(30), b"\x99" * 60)
    assert bench.answers() == []
    assert bench.stack.dropped["malformed"] >= 3


def test_a_protocol_that_leads_nowhere_is_said_to_be_prohibited(bench: Bench) -> None:
    bench.feed(ip.header(GUEST, FAR, 132, 4) + b"sctp")
    (packet,) = bench.answers()
    assert (packet.protocol, packet.payload[0], packet.payload[1]) == (icmp.PROTOCOL4, 3, 13)


def test_fragments_are_put_together_before_they_are_looked_at(bench: Bench) -> None:
    message = segment()[20:] + bytes(40)
    total = checksum.checksum(message[:16] + b"\0\0" + message[18:], checksum.pseudo(GUEST, FAR, 6, len(message)))
    message = message[:16] + total.to_bytes(2, "big") + message[18:]
    pieces = ip.fragments(GUEST, FAR, 6, message, 60, 7)
    assert len(pieces) > 1
    bench.feed(*(header + piece for header, piece in pieces))
    assert [packet.protocol for packet in bench.answers()] == [6]


@given(st.lists(st.binary(max_size=120), max_size=5), st.binary(min_size=10, max_size=10))
def test_no_bytes_from_a_container_raise_anything(packets: list[bytes], header: bytes) -> None:
    bench = Bench()
    try:
        bench.feed(*packets, header=header)
        for payload in packets:
            for protocol in (1, 6, 17, 58, 44):
                bench.feed(ip.header(GUEST, packed("127.0.0.1"), protocol, len(payload)) + payload, header=header)
    finally:
        bench.close()


def test_a_message_that_means_nothing_is_told_and_its_descriptors_are_closed(bench: Bench) -> None:
    gc.collect()
    before = os.listdir("/proc/self/fd")
    one, other = socket.socketpair()
    bench.tell({"do": "dance"}, [one.fileno()])
    one.close()
    other.settimeout(5)
    assert other.recv(1) == b""
    other.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert [message["line"] for message in bench.heard() if message["do"] == "log"] == [
        "the hub said 'dance', which means nothing here"
    ]


def test_a_network_that_is_told_again_has_its_new_device(bench: Bench) -> None:
    old = bench.tun
    bench.tun = bench.tell_network()
    bench.feed(segment())
    assert len(bench.answers()) == 1
    with old, pytest.raises(OSError):
        old.send(b"the other end is closed")


def test_a_network_that_is_gone_leaves_no_descriptor() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    bench = Bench()
    bench.close()
    del bench
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2  # epoll instances go with the collector


def test_a_question_is_answered_with_its_tag(bench: Bench) -> None:
    bench.tell({"do": "ask", "tag": 7, "what": "flows", "container": None})
    assert [m for m in bench.heard() if m["do"] == "answer"] == [{"do": "answer", "tag": 7, "flows": [], "denied": []}]


def test_a_long_answer_comes_in_parts_that_fit() -> None:
    rows: list[dict[str, Any]] = [{"number": n, "text": "x" * 200} for n in range(2000)]
    parts = answer(rows, rows[:3])
    assert len(parts) > 5
    assert all(part.get("more") for part in parts[:-1])
    assert not parts[-1].get("more")
    assert [row for part in parts for row in part["flows"]] == rows
    assert [row for part in parts for row in part["denied"]] == rows[:3]


def test_messages_wait_while_the_hub_does_not_read() -> None:
    ours, theirs = channel.pair()
    ours.setblocking(False)
    outbox = Outbox(ours)
    wanted: list[bool] = []
    outbox.watch = wanted.append
    for number in range(1000):
        outbox.send({"number": number, "filler": "x" * 1000})
    assert wanted[-1]
    theirs.settimeout(0)
    numbers: list[int] = []
    while len(numbers) < 1000:
        try:
            message, _ = channel.receive(theirs)
        except BlockingIOError:
            outbox.flush()
            continue
        assert message is not None
        numbers.append(message["number"])
    assert numbers == list(range(1000))
    assert not wanted[-1]
    ours.close()
    theirs.close()


@pytest.mark.kernel
def test_the_process_has_given_up_what_it_does_not_need_and_is_small() -> None:
    with running_hub() as hub:
        guest = hub.guest()
        with hub.listen(HOST) as listener, guest.connect(HOST, listener.getsockname()[1]):
            status = hub.status()
            assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert int(status["RssAnon"].split()[0]) < 24 << 10


@pytest.mark.kernel
def test_a_small_mtu_inside_is_no_hindrance() -> None:
    with running_hub() as hub:
        hub.network("narrow", mtu=1400)
        guest = hub.guest("small", ("narrow",))
        with hub.listen(HOST) as listener, guest.connect(HOST, listener.getsockname()[1]) as inner:
            outer, _ = listener.accept()
            with outer:
                outer.sendall(b"x" * 100_000)
            assert sum(len(data) for data in iter(lambda: inner.recv(1 << 16), b"")) == 100_000
