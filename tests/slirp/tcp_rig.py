"""A container behind a tun, our own TCP on it in a process of its own, and a world of servers beyond.

`alone` of udp_rig gives the test a network namespace that plays the host; `Rig` makes another one for the container,
whose only way out is a tun device, and forks a process that serves it as the stack does. Sockets of both namespaces can
be used side by side: they block, with a time limit.
"""

import fcntl
import json
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from slirp.loop import Loop
from slirp.model import HOST_LOOPBACK, Model, packed, unpacked
from slirp.namespaces import new_network, run_in
from slirp.netlink import NETLINK_ROUTE, Netlink
from slirp.outward import Outward
from slirp.rtnetlink import add_address, add_default_route, set_up
from slirp.services import Services, Stock
from slirp.tcp_user import UserTcp
from slirp.tun import Tun
from slirp.wire import checksum, ip, vnet
from tests.slirp.udp_rig import CONTAINER4, CONTAINER6

T = TypeVar("T")

PATIENCE = 20.0
PUBLISHED = 8080  # on every address of the host: leads to port 80 of the container
LOOPBACK = unpacked(HOST_LOOPBACK)
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 1, 0x1000, 0x4000
_PACKETS = 64


def _make_tun(mtu: int) -> int:
    """A tun device, the only way out of this thread's namespace."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", b"out", _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("=i", vnet.SIZE))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, 1 | 2 | 4)  # checksums, segmentation of both families
    index = socket.if_nametoindex("out")
    netlink = Netlink(NETLINK_ROUTE)
    netlink.run(
        [
            set_up(1),
            add_address(index, f"{CONTAINER4}/32"),
            add_address(index, f"{CONTAINER6}/128"),
            set_up(index, mtu=mtu),
            add_default_route(index, socket.AF_INET),
            add_default_route(index, socket.AF_INET6),
        ]
    )
    netlink.close()
    return fd


class Stack:
    """The part of the stack that TCP is; it answers questions at the other end of *control*."""

    def __init__(self, tun_fd: int, mtu: int, control: socket.socket, told: dict[str, Any]) -> None:
        self.loop = Loop()
        self.model = Model()
        self.network = self.model.add_network({"id": "n", "name": "lan", "mtu": mtu, "kernel": False})
        self.tun = self.network.tun = Tun(tun_fd, mtu)
        endpoints = [{"network": "n", "ipv4": CONTAINER4, "ipv6": CONTAINER6, "default": True}]
        self.model.set_container({"id": "c", "name": "web", "endpoints": endpoints, **told})
        stock = Stock(self.loop, lambda *_: None)
        log: list[str] = []
        outward = Outward(self.model, self.loop, log.append)
        self.tcp = UserTcp(Services(self.loop, self.model, outward, log.append, stock))
        self.control = control
        self.published = socket.create_server(("", PUBLISHED), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
        self.loop.watch(tun_fd, select.EPOLLIN, self._packets)
        self.loop.watch(control.fileno(), select.EPOLLIN, self._asked)
        self.loop.watch(self.published.fileno(), select.EPOLLIN, self._accept)
        self.drop_next = 0

    def _packets(self, _: int) -> None:
        for _ in range(_PACKETS):
            received = self.tun.receive()
            if received is None:
                return
            header, data = received
            packet = ip.parse(data)
            endpoint = self.network.endpoints.get(packet.source) if packet is not None else None
            if packet is None or endpoint is None or packet.protocol != 6:
                continue
            if self.drop_next:
                self.drop_next -= 1
                continue
            if not vnet.trusted(header):
                assert checksum.intact(packet.source, packet.destination, 6, packet.payload)
            self.tcp.packet(self.network, endpoint, packet, header)

    def _accept(self, _: int) -> None:
        client, (address, port, *_rest) = self.published.accept()
        source = packed(address)
        if source[:12] == bytes(10) + b"\xff\xff":
            source = source[12:]
        self.tcp.open(self.network, next(iter(self.network.endpoints.values())), (source, port), 80, client)

    def _asked(self, _: int) -> None:
        question = self.control.recv(1024).decode()
        if not question:
            self.loop.stop()
            return
        if question == "close":
            self.tcp.close_container("c")
        elif question.startswith("drop "):
            self.drop_next = int(question[5:])
        flows = self.tcp.flows(None)
        answer = {"flows": flows, "held": self.tcp.held, "errors": self.loop.errors, "dropped": self.tcp.dropped}
        self.control.send(json.dumps(answer).encode())


class Rig:
    """See above."""

    def __init__(self, *, mtu: int = 65520, **told: object) -> None:
        self.netns = new_network()
        fd = run_in(self.netns, lambda: _make_tun(mtu))
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
        self._pid = os.fork()
        if not self._pid:
            try:
                self.control.close()
                Stack(fd, mtu, theirs, dict(told)).loop.run()
            finally:
                os._exit(0)
        theirs.close()
        os.close(fd)
        self.ask()

    def ask(self, question: str = "flows") -> dict[str, Any]:
        self.control.send(question.encode())
        answer: dict[str, Any] = json.loads(self.control.recv(1 << 21))
        return answer

    def inside(self, make: Callable[[], T]) -> T:
        """What *make* makes in the container."""
        return run_in(self.netns, make)

    def connect(self, address: str, port: int, timeout: float = PATIENCE) -> socket.socket:
        """A connection out of the container."""
        return self.inside(lambda: socket.create_connection((address, port), timeout=timeout))

    def unconnected(self, family: int = socket.AF_INET) -> socket.socket:
        """A TCP socket in the container."""
        sock = self.inside(lambda: socket.socket(family, socket.SOCK_STREAM))
        sock.settimeout(PATIENCE)
        return sock

    def listen(self, address: str = CONTAINER4, port: int = 80) -> socket.socket:
        """A server in the container."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = self.inside(lambda: socket.create_server((address, port), family=family, backlog=256))
        server.settimeout(PATIENCE)
        return server

    def close(self) -> None:
        self.control.close()
        os.waitpid(self._pid, 0)
        os.close(self.netns)


@contextmanager
def rig(**told: object) -> Iterator[Rig]:
    """A Rig, which has not met an error of its own when it ends."""
    made = Rig(**told)  # type: ignore[arg-type]
    try:
        yield made
        assert made.ask()["errors"] == 0
    finally:
        made.close()


def serve(address: str, port: int = 0) -> socket.socket:
    """A server on the host's side."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, port), family=family, backlog=256)
    server.settimeout(PATIENCE)
    return server


def accept(server: socket.socket) -> socket.socket:
    connection, _ = server.accept()
    connection.settimeout(PATIENCE)
    return connection
