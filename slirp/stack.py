"""The process that meets what containers and the world send: hub's messages in, packets to whom they concern.

It is forked early and small, loads everything, gives up what it does not need (sandbox.py), and from then on lives on
descriptors that the hub sends. Each packet from a network's tun is parsed, its checksum verified unless the virtio
header vouches for it, put together if it is a fragment, and its source held against the endpoints of that network: what
claims to be somebody else is dropped and counted. Then it is its protocol's. Networks take turns, so many packets each.

The hub tells (channel.py; NETWORK and CONTAINER as in model.py):

    network (with descriptors)   network-gone   container   container-gone   publish (with a listener)   unpublish
    sockets (with descriptors)   resolvers      ask (what flows are there)

and is told: sockets (please make so many), log, answer, resolvers (please look whether they changed), ready.
"""

import gc
import json
import os
import resource
import select
import socket
from collections import deque
from collections.abc import Callable

from slirp import channel, sandbox
from slirp.dns import Dns
from slirp.handover import Handover
from slirp.icmp import Icmp
from slirp.loop import Loop
from slirp.model import Model, Network
from slirp.outward import Outward
from slirp.publish import Publisher
from slirp.reassembly import Reassembly
from slirp.relay import Pipes, available_pages
from slirp.services import Services as Services
from slirp.services import Stock
from slirp.tcp_user import UserTcp
from slirp.tun import Tun, make_room
from slirp.udp import Udp
from slirp.wire import checksum, icmp, ip, vnet
from slirp.wire.ip import Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any, Protocol

    from slirp.model import Endpoint

    class Part(Protocol):
        """What has flows."""

        def flows(self, container: str | None, /) -> list[dict[str, Any]]: ...
        def close_container(self, container: str, /) -> None: ...
        def close_network(self, network: str, /) -> None: ...

    class Handler(Part, Protocol):
        """What each protocol is to the stack."""

        def packet(self, network: Network, endpoint: Endpoint, packet: Packet, vnet_header: bytes, /) -> None: ...


_TCP, _UDP = 6, 17
PACKETS = 64  # of one network before others have their turn
MESSAGES = 64  # of the hub
MOST_UNSENT = 4096  # messages that the hub has not read
_PART = 64 << 10  # bytes of an answer in one message


class Outbox:
    """Messages to the hub, kept while it does not read; the loop never waits for it."""

    __slots__ = ("_channel", "_unsent", "lost", "watch")

    def __init__(self, hub: socket.socket) -> None:
        self._channel = hub
        self._unsent: deque[dict[str, Any]] = deque()
        self.lost = 0
        self.watch: Callable[[bool], None] = lambda _: None  # told whether there is something to be sent

    def send(self, message: "dict[str, Any]") -> None:
        """Send it, as soon as there is room."""
        if len(self._unsent) >= MOST_UNSENT:
            self.lost += 1
            return
        self._unsent.append(message)
        if len(self._unsent) == 1:
            self.flush()
            if self._unsent:
                self.watch(True)

    def flush(self) -> None:
        """Send what there is room for."""
        while self._unsent:
            try:
                channel.send(self._channel, self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # the hub is gone, which the loop learns from the channel
                break
            self._unsent.popleft()
        self.watch(False)


class Stack:
    """Everything, around one loop."""

    def __init__(self, hub: socket.socket) -> None:
        hub.setblocking(False)
        self.loop = Loop(self.log)
        self.model = Model()
        self.dropped: dict[str, int] = {}  # packets, by reason
        self._hub = hub
        self._outbox = Outbox(hub)
        self._outbox.watch = self._watch_hub
        self._room = make_room()
        self._reassembly = Reassembly()
        outward = Outward(self.model, self.loop, self.log)
        self.services = Services(self.loop, self.model, outward, self.log, Stock(self.loop, self._order))
        self._construct(Pipes(available_pages()))
        self._told: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
            "network": self._network,
            "network-gone": self._network_gone,
            "container": self._container,
            "container-gone": self._container_gone,
            "publish": self._publish,
            "unpublish": lambda told, _: self.publisher.unpublish(told["port"]),
            "sockets": lambda told, fds: self.services.stock.deliver(told["network"], told["kind"], _all(fds)),
            "resolvers": lambda told, _: self.dns.resolvers(told["servers"]),
            "ask": lambda told, _: self._answer(told),
        }

    def _construct(self, pipes: Pipes) -> None:
        services = self.services
        self.handover = Handover(services, pipes)
        self.user_tcp = UserTcp(services)
        self.udp = Udp(services)
        self.icmp = Icmp(services)
        self.publisher = Publisher(services, pipes, self.user_tcp, self.udp)
        self.dns = Dns(services, lambda: self._outbox.send({"do": "resolvers"}))
        self._parts: tuple[Part, ...] = (self.handover, self.user_tcp, self.udp, self.icmp, self.publisher)

    def run(self) -> None:
        """Serve until the hub's end of the channel is closed."""
        self._watch_hub(False)
        self._outbox.send({"do": "ready"})
        self.loop.run()

    def log(self, line: str) -> None:
        """One line for the hub's log."""
        self._outbox.send({"do": "log", "line": line[:4096]})

    # The hub

    def _watch_hub(self, writing: bool) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if writing else 0)
        self.loop.watch(self._hub.fileno(), events, self._hub_event)

    def _hub_event(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._outbox.flush()
        for _ in range(MESSAGES):
            try:
                message, fds = channel.receive(self._hub)
            except BlockingIOError:
                return
            except (OSError, channel.Malformed) as error:  # what was lost, only a fresh start brings back
                self.log(f"the hub cannot be heard: {error}")
                message, fds = None, []
            if message is None:
                self.loop.stop()
                return
            self._hear(message, fds)

    def _hear(self, message: "dict[str, Any]", fds: list[int]) -> None:
        """Do what *message* says. Whoever takes a descriptor takes it out of *fds*; the rest is closed."""
        action = self._told.get(message.get("do", ""))
        try:
            if action is None:
                self.log(f"the hub said {message.get('do')!r}, which means nothing here")
            else:
                action(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _order(self, network: str, kind: str, count: int) -> None:
        self._outbox.send({"do": "sockets", "network": network, "kind": kind, "count": count})

    def _network(self, told: "dict[str, Any]", fds: list[int]) -> None:
        known = self.model.networks.get(told["id"])
        names = dict(zip(told.get("fds") or (), _all(fds), strict=False))
        network = self.model.add_network(told)
        for container in {endpoint.container.id for endpoint in network.endpoints.values()}:
            self._review(container)
        if "tun" in names:
            if known is not None and known.tun is not None:
                self._close_tun(known)
            self._open_tun(network, names.pop("tun"))
        listeners = [
            socket.socket(family, socket.SOCK_STREAM, fileno=names.pop(name))
            for name, family in (("tproxy4", socket.AF_INET), ("tproxy6", socket.AF_INET6))
            if name in names
        ]
        if listeners:
            self.handover.serve(network, listeners)
        udp, tcp = (
            [names.pop(f"dns-{kind}{v}") for v in (4, 6) if f"dns-{kind}{v}" in names] for kind in ("udp", "tcp")
        )
        if udp or tcp:
            self.dns.serve(network, udp, tcp)
        fds += names.values()

    def _network_gone(self, told: "dict[str, Any]", _: list[int]) -> None:
        network = self.model.remove_network(told["id"])
        if network is None:
            return
        for handler in self._parts:
            handler.close_network(network.id)
        self.dns.forget(network)
        self.services.stock.forget(network.id)
        self._close_tun(network)

    def _container(self, told: "dict[str, Any]", _: list[int]) -> None:
        self._review(self.model.set_container(told).id)

    def _review(self, container: str) -> None:
        """What the container may do, or its addresses, may have changed."""
        self.handover.review(container)
        self.user_tcp.review(container)
        self.udp.review(container)
        self.icmp.review(container)

    def _container_gone(self, told: "dict[str, Any]", _: list[int]) -> None:
        container = told["id"]
        for handler in self._parts:
            handler.close_container(container)
        self.dns.close_container(container)
        self.services.outward.forget(container)
        self.model.remove_container(container)

    def _publish(self, told: "dict[str, Any]", fds: list[int]) -> None:
        if fds:
            self.publisher.publish(told, fds.pop(0))

    def _answer(self, told: "dict[str, Any]") -> None:
        container = told.get("container")
        rows = [row for handler in self._parts for row in handler.flows(container)]
        denied = self.services.outward.denied(container)
        for part in answer(rows, denied):
            self._outbox.send({"do": "answer", "tag": told["tag"], **part})

    # Packets

    def _open_tun(self, network: Network, fd: int) -> None:
        network.tun = Tun(fd, network.mtu, self._room)
        self.loop.watch(fd, select.EPOLLIN, lambda _: self._packets(network.id))

    def _close_tun(self, network: Network) -> None:
        if network.tun is not None:
            self.loop.unwatch(network.tun.fd)
            network.tun.close()
            network.tun = None

    def _packets(self, network_id: str) -> None:
        network = self.model.networks.get(network_id)
        if network is None or network.tun is None:
            return
        tun = network.tun
        for _ in range(PACKETS):
            try:
                received = tun.receive()
            except OSError as error:
                self.log(f"network {network.name}: its tun device is gone: {error.strerror}")
                self._close_tun(network)
                return
            if received is None:
                return
            self._packet(network, *received)

    def _packet(self, network: Network, header: bytes, data: memoryview) -> None:
        packet = ip.parse(data)
        if packet is None:
            self._drop("malformed")
            return
        endpoint = network.endpoints.get(packet.source)
        if endpoint is None:
            self._drop("foreign source")
            return
        if packet.fragment is not None:
            whole = self._reassembly.add(endpoint.container.id, packet, self.loop.now())
            if whole is None:
                return
            packet, header = whole, vnet.NONE
        if not vnet.trusted(header) and not _intact(packet):
            self._drop("wrong checksum")
            return
        handler = self._handler(network, packet)
        if handler is None:
            self._drop("unknown protocol")
            self._no_such_protocol(network, packet)
        else:
            handler.packet(network, endpoint, packet, header)

    def _handler(self, network: Network, packet: Packet) -> "Handler | None":
        if packet.protocol == _TCP:
            return self.handover if network.kernel else self.user_tcp
        if packet.protocol == _UDP:
            return self.udp
        if packet.protocol == (icmp.PROTOCOL4 if packet.version == 4 else icmp.PROTOCOL6):
            return self.icmp
        return None

    def _no_such_protocol(self, network: Network, packet: Packet) -> None:
        told = icmp.unreachable(packet, icmp.Unreachable.PROHIBITED)
        if told is not None and network.tun is not None:
            network.tun.send(told)

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def answer(flows: "list[dict[str, Any]]", denied: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    """The rows in as many messages as their size takes; all but the last say that there is more."""
    parts: list[dict[str, Any]] = [{"flows": [], "denied": []}]
    size = 0
    for name, rows in (("flows", flows), ("denied", denied)):
        for row in rows:
            length = len(json.dumps(row))
            if size + length > _PART:
                parts[-1]["more"] = True
                parts.append({"flows": [], "denied": []})
                size = 0
            size += length
            parts[-1][name].append(row)
    return parts


def main(hub: socket.socket) -> None:
    """Be the stack at the other end of *hub*'s channel, until that is closed. Raises OSError where it cannot start."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stack = Stack(hub)
    missing = sandbox.confine_stack()
    if missing:
        stack.log(missing)
    gc.freeze()  # what is there by now stays: the collector need not look at it again
    gc.enable()  # see __main__.py
    stack.run()


def _all(fds: list[int]) -> list[int]:
    """Take all of them."""
    taken = list(fds)
    fds.clear()
    return taken


def _intact(packet: Packet) -> bool:
    """Whether the checksum of TCP or UDP holds; that of ICMP is looked at where it is parsed."""
    if packet.protocol not in (_TCP, _UDP):
        return True
    return checksum.intact(packet.source, packet.destination, packet.protocol, packet.payload)
