"""Networks and containers' namespaces for a test, without containers: all inside of tests.support.userns.

with a_network(MINE) as network, a_box(network, 2) as first, a_box(network, 3) as second:
    with first.open(socket.AF_INET, socket.SOCK_DGRAM) as sender: ...
"""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from slirp.links import Interface, NetworkLinks, Plan
from slirp.namespaces import new_network, run_in
from slirp.netlink import NETLINK_ROUTE, Netlink
from slirp.rtnetlink import set_up
from slirp.rules import LO, Support, probe

MINE = Plan("10.9.0.1/24", "fd09::1/64", 65520, True)
NO_FILTER = Support(False, False, "not for this test")
GATEWAY_MAC = bytes.fromhex("024200000001")
SOON = 5.0  # seconds that anything may take that does happen
ETH_P_ALL = 3


class Box:
    """Where a container would be: a namespace with loopback and, once attached, eth0."""

    def __init__(self, number: int) -> None:
        self.mac = bytes((2, 0x42, 10, 9, 0, number))
        self.ipv4, self.ipv6 = f"10.9.0.{number}", f"fd09::{number:x}"
        self.netns_fd = new_network()
        self.port = 0
        run_in(self.netns_fd, loopback_up)

    def interface(self, plan: Plan = MINE, name: str = "eth0", *, default: bool = True) -> Interface:
        return Interface(
            name,
            self.mac.hex(":"),
            f"{self.ipv4}/24",
            f"{self.ipv6}/64" if plan.gateway6 else "",
            plan.gateway4.partition("/")[0],
            plan.gateway6.partition("/")[0],
            plan.mtu,
            default,
        )

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this container's that gives up SOON."""

        def make() -> socket.socket:
            made = socket.socket(family, kind, protocol)
            made.settimeout(SOON)
            return made

        return run_in(self.netns_fd, make)

    def wire(self) -> socket.socket:
        """A packet socket on eth0: sends any frame, and gets every frame that arrives."""
        made = self.open(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind(("eth0", ETH_P_ALL))
        return made

    def listener(self, family: int = socket.AF_INET) -> socket.socket:
        """A listening TCP socket at this container's address."""
        made = self.open(family, socket.SOCK_STREAM)
        made.bind((self.ipv6 if family == socket.AF_INET6 else self.ipv4, 0))
        made.listen()
        return made

    def interfaces(self) -> list[str]:
        return run_in(self.netns_fd, link_names)


@contextmanager
def a_network(plan: Plan = MINE, support: Support | None = None) -> Iterator[NetworkLinks]:
    network = NetworkLinks(plan, support or probe())
    try:
        yield network
    finally:
        network.close()


@contextmanager
def a_box(network: NetworkLinks | None, number: int) -> Iterator[Box]:
    """Container *number*, whose addresses end in it; on *network* if there is one."""
    box = Box(number)
    try:
        if network:
            box.port = network.attach(box.netns_fd, box.interface(network.plan))
        yield box
    finally:
        os.close(box.netns_fd)


def loopback_up() -> None:
    netlink = Netlink(NETLINK_ROUTE)
    netlink.run([set_up(LO)])
    netlink.close()


def link_names() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.01)  # nothing tells us of it


def readable(fd: int, seconds: float = SOON) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def read_tun(network: NetworkLinks, protocol: int) -> bytes:
    """The next packet of *protocol* that comes out of the tun, behind its virtio header."""
    while True:
        assert readable(network.fds["tun"]), "nothing has come out of the tun"
        data = os.read(network.fds["tun"], 70000)
        packet = data[10:]
        if (packet[9] if packet[0] >> 4 == 4 else packet[6]) == protocol:
            return data


def frame(source: bytes, ethertype: int, payload: bytes, destination: bytes = b"\xff" * 6) -> bytes:
    return destination + source + struct.pack(">H", ethertype) + payload


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    header += socket.inet_aton(source) + socket.inet_aton(destination)
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + payload


def ip6(source: str, destination: str, protocol: int, payload: bytes, hop_limit: int = 255) -> bytes:
    """An IPv6 packet; the checksum of an ICMPv6 message in it is filled in."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    if protocol == socket.IPPROTO_ICMPV6:
        pseudo = addresses + struct.pack(">II", len(payload), protocol)
        payload = payload[:2] + struct.pack(">H", checksum(pseudo + payload)) + payload[4:]
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, hop_limit) + addresses + payload


def udp(source_port: int, destination_port: int, data: bytes) -> bytes:
    return struct.pack(">HHHH", source_port, destination_port, 8 + len(data), 0) + data


def arp(mac: bytes, address: str, target: str, operation: int = 2) -> bytes:
    """An answer (or with 1, a question) from *mac* that says it has *address*."""
    head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
    return head + mac + socket.inet_aton(address) + b"\xff" * 6 + socket.inet_aton(target)
