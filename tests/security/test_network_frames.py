"""Packets that no kernel would make, straight into a STACK as it runs: SECURITY.md, N03, N04, N05.

They are written to the network's tun device by a socket(AF_PACKET), as root of a container's own machine could at
best: no kernel has looked at them, and half of them come with its word for their checksums.
"""

import os
import random
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support import hostile_frames as hostile
from tests.support.stack_hub import (
    HOST,
    HOST6,
    LOOPBACK,
    SILENT,
    SILENT6,
    UNREACHABLE,
    Guest,
    Hub,
    running_hub,
)

pytestmark = pytest.mark.kernel

PACKETS = int(os.environ.get("ROOTLESS_TEST_FRAMES", "100000"))  # by each path of TCP
GUEST4, GUEST6, GATEWAY4, GATEWAY6 = "172.30.0.2", "fd30:0::2", "172.30.0.1", "fd30:0::1"
NEIGHBOUR4, NEIGHBOUR6 = "172.30.0.3", "fd30:0::3"
PAYLOAD = bytes(range(256)) * 4096  # 1 MiB
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_BURST = 300  # packets, fewer than the device's queue takes


@pytest.fixture(scope="module", params=["kernel", "user"])
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    """With two containers."""
    with running_hub(kernel=request.param == "kernel") as hub:
        yield hub
        assert [line for line in hub.logs() if "error in a handler" in line or "ended" in line] == []


@pytest.fixture(scope="module")
def guest(hub: Hub) -> Guest:
    return hub.guest("guest")


@pytest.fixture(scope="module")
def neighbour(hub: Hub, guest: Guest) -> Guest:
    return hub.guest("neighbour")


@pytest.fixture(scope="module")
def port(hub: Hub) -> Iterator[int]:
    """Of the host, where PAYLOAD is to be had."""
    with hub.listen("0.0.0.0") as listener:
        yield listener.getsockname()[1]


class Wire:
    """The network's tun device, and whether STACK has dealt with what was written to it."""

    def __init__(self, hub: Hub) -> None:
        self.pid = int(hub.status()["Pid"])
        self.sock = hub.new_socket(socket.SOCK_RAW, socket.AF_PACKET, where="net")
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self.sock.bind(("out", 0))

    def send(self, packets: Iterable[bytes], *, vouched: bool = False) -> int:
        """Send all, as fast as STACK takes them; with *vouched*, every second asks the kernel for its checksum."""
        sent = 0
        for sent, packet in enumerate(packets, 1):
            header = _vouching(packet) if vouched and sent & 1 else hostile.NO_OFFLOAD
            try:
                self.sock.send(header + packet)
            except OSError:
                pass  # empty, or larger than the device takes
            if sent % _BURST == 0:
                self.settle()
        self.settle()
        return sent

    def settle(self) -> None:
        """Wait until STACK waits."""
        deadline = time.monotonic() + 20
        while self.stat()[0] != "S":
            assert time.monotonic() < deadline, "the stack does not come to rest"
            time.sleep(0.0005)

    def stat(self) -> list[str]:
        """/proc/PID/stat, from the state on."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def memory(self) -> int:
        """Resident, in MiB."""
        return int(self.stat()[21]) * os.sysconf("SC_PAGE_SIZE") >> 20

    def cpu(self) -> float:
        """Seconds."""
        user, system = self.stat()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _vouching(packet: bytes) -> bytes:
    """A struct virtio_net_hdr: the checksum at its place, by the protocol, is still to be made."""
    start = 40 if packet[:1] and packet[0] >> 4 == 6 else 20
    offset = {hostile.TCP: 16, hostile.UDP: 6}.get(packet[6 if start == 40 else 9] if len(packet) > 9 else 0, 2)
    if len(packet) < start + offset + 2:
        return hostile.NO_OFFLOAD
    return bytes((1, 0, 0, 0, 0, 0)) + start.to_bytes(2, "little") + offset.to_bytes(2, "little")


@pytest.fixture(scope="module")
def wire(hub: Hub, guest: Guest, neighbour: Guest) -> Iterator[Wire]:
    wire = Wire(hub)
    with wire.sock:
        yield wire


def downloads(hub: Hub, guest: Guest) -> bool:
    """Whether a container gets PAYLOAD from the host, whole."""
    with hub.listen(HOST) as server, guest.connect(HOST, server.getsockname()[1]) as inner:
        outer, _ = server.accept()
        with outer:
            outer.settimeout(10)
            got = bytearray()
            outer.setblocking(False)
            left = memoryview(PAYLOAD)
            while len(got) < len(PAYLOAD):
                if left:
                    try:
                        left = left[outer.send(left) :]
                    except BlockingIOError:
                        pass
                got += inner.recv(1 << 20)
    return bytes(got) == PAYLOAD


def test_mutated_packets_end_nothing(hub: Hub, guest: Guest, neighbour: Guest, wire: Wire) -> None:
    with hub.listen(HOST) as listener:
        open_port = listener.getsockname()[1]
        destinations = (
            HOST,
            LOOPBACK,
            UNREACHABLE,
            SILENT,
            GATEWAY4,
            NEIGHBOUR4,
            "127.0.0.1",
            HOST6,
            SILENT6,
            GATEWAY6,
        )
        whole = hostile.seeds((GUEST4, GUEST6), destinations, (open_port, 9))
        wire.send(whole)
        memory, cpu, seed = wire.memory(), wire.cpu(), random.randrange(1 << 32) if PACKETS > 100000 else 4711
        began = time.monotonic()
        count = wire.send(hostile.mutated(random.Random(seed), whole, PACKETS), vouched=True)
        print(f"{count} in {time.monotonic() - began:.1f} s, {wire.cpu() - cpu:.1f} s, {memory} → {wire.memory()} MiB")
        assert (wire.cpu() - cpu) / count < 0.001, f"seed {seed}"
        assert wire.memory() < 100, f"seed {seed}"
    assert downloads(hub, neighbour), f"seed {seed}"


def test_fragments_without_end_are_no_memory(hub: Hub, guest: Guest, neighbour: Guest, wire: Wire) -> None:
    before = wire.memory()
    large = bytes(1400)
    endless = [
        hostile.packet(
            GUEST4, HOST, hostile.UDP, large, fragment=0x2000 | at % 40 * 175, identification=at // 3 & 0xFFFF
        )
        for at in range(9000)
    ]
    overlapping = [
        hostile.packet(GUEST4, HOST, hostile.UDP, large, fragment=0x2000 | at % 9 * 100, identification=7)
        for at in range(500)
    ]
    sixes = [hostile.fragment6(GUEST6, HOST6, at % 40 * 1400, True, large, at // 3) for at in range(9000)]
    wire.send(endless + overlapping + sixes)
    assert wire.memory() - before < 24
    with hub.new_socket(socket.SOCK_DGRAM) as far, neighbour.new_socket(socket.SOCK_DGRAM) as near:
        far.bind((HOST, 0))
        near.sendto(PAYLOAD[:60000], far.getsockname())
        assert far.recv(65535) == PAYLOAD[:60000]


@pytest.mark.parametrize("answered", [False, True])
def test_a_flood_of_calls_leaves_room(hub: Hub, guest: Guest, neighbour: Guest, wire: Wire, answered: bool) -> None:
    """Of calls that nobody answers, and of such as are answered, after which the caller is not heard of again."""
    with hub.listen(HOST) as listener:
        target = (HOST, listener.getsockname()[1]) if answered else (SILENT, 9)
        wire.send(hostile.segment((GUEST4, at), target, hostile.SYN, sequence=at) for at in range(1025, 21025))
        assert downloads(hub, neighbour)
        assert wire.memory() < 100
        assert downloads(hub, guest)  # after some seconds: its own calls come again until there is room
    hub.tell("container-gone", id="guest")
    hub.tell("container", **guest.told)


def test_a_flood_from_many_containers_leaves_room_for_another(hub: Hub, neighbour: Guest, wire: Wire) -> None:
    crowd = [hub.guest(f"crowd{at}").told["endpoints"][0]["ipv4"] for at in range(5)]
    for _ in range(2):
        wire.send(
            hostile.segment((address, port), (SILENT, 9), hostile.SYN)
            for port in range(1025, 2100)
            for address in crowd
        )
        began = time.monotonic()
        assert downloads(hub, neighbour)
        assert time.monotonic() - began < 0.9  # its first SYN was heard
    for at in range(5):
        hub.tell("container-gone", id=f"crowd{at}")


def connected(hub: Hub, guest: Guest, *options: tuple[int, int, int]) -> tuple[socket.socket, socket.socket]:
    """A connection of a container to the host, by its two ends."""
    with hub.listen(HOST) as listener:
        inner = guest.new_socket()
        for option in options:
            inner.setsockopt(*option)
        inner.connect(listener.getsockname())
        outer, _ = listener.accept()
        outer.settimeout(10)
        return inner, outer


def test_who_guesses_does_not_end_a_connection(hub: Hub, guest: Guest, wire: Wire) -> None:
    """RST, SYN, FIN, data and acknowledgements with numbers out of the air, in both directions' names."""
    inner, outer = connected(hub, guest)
    numbers = random.Random(1)
    with inner, outer:
        ends = inner.getsockname(), outer.getsockname()
        kinds = [hostile.RST, hostile.RST | hostile.ACK, hostile.ACK | hostile.FIN, hostile.ACK]
        if not hub.kernel:  # there, SYNs of connections that are established do not get as far as the device
            kinds.append(hostile.SYN)
        for flags in kinds:
            guesses = (
                hostile.segment(
                    *(ends if at % 2 else ends[::-1]),
                    flags,
                    sequence=numbers.getrandbits(32),
                    acknowledgement=numbers.getrandbits(32),
                    data=b"" if flags & (hostile.RST | hostile.SYN) else b"guessed",
                )
                for at in range(600)
            )
            wire.send(guesses)
        for one, other in ((inner, outer), (outer, inner)):
            one.sendall(b"as it was said")
            assert other.recv(100) == b"as it was said"


def test_errors_that_lie_about_what_was_sent_end_nothing(hub: Hub, guest: Guest, neighbour: Guest, wire: Wire) -> None:
    """ICMP of every kind by one container about another's connection and datagrams, and about its own."""
    inner, outer = connected(hub, neighbour)
    with inner, outer, neighbour.new_socket(socket.SOCK_DGRAM) as near, hub.new_socket(socket.SOCK_DGRAM) as far:
        far.bind((HOST, 0))
        near.sendto(b"?", far.getsockname())
        _, back = far.recvfrom(10)
        own, host = near.getsockname()[1], far.getsockname()
        quoted = [
            hostile.datagram((NEIGHBOUR4, own), host, b"?"),
            hostile.datagram(host, (NEIGHBOUR4, own), b"!"),
            hostile.segment(inner.getsockname(), outer.getsockname(), hostile.ACK),
            hostile.segment(outer.getsockname(), inner.getsockname(), hostile.ACK),
        ]
        wire.send(
            hostile.icmp(liar, HOST, kind, code, mtu + inner_packet[:length])
            for liar in (GUEST4, NEIGHBOUR4)
            for kind, code in ((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (5, 0), (5, 1), (11, 0), (12, 0))
            for mtu in (bytes(4), b"\0\0\0\x44", b"\xff\xff\xff\xff")
            for inner_packet in quoted
            for length in (1500, 28, 20, 3, 0)
        )
        far.sendto(b"still there", back)
        assert near.recv(100) == b"still there"
        outer.sendall(PAYLOAD[:100000])
        with inner.makefile("rb") as stream:
            assert stream.read(100000) == PAYLOAD[:100000]


def test_readers_that_never_read_hold_little_and_nobody_up(
    hub: Hub, guest: Guest, neighbour: Guest, wire: Wire
) -> None:
    """A window that stays shut, on hundreds of connections, with somebody who fills each as far as it goes."""
    before = wire.memory()
    shut = [connected(hub, guest, (socket.SOL_SOCKET, socket.SO_RCVBUF, 1)) for _ in range(250)]
    try:
        for _, outer in shut:
            outer.setblocking(False)
            try:
                while outer.send(PAYLOAD):
                    pass
            except BlockingIOError:
                pass
        wire.settle()
        assert wire.memory() - before < 100
        assert downloads(hub, neighbour)
        assert downloads(hub, guest)
    finally:
        for pair in shut:
            for sock in pair:
                sock.close()
