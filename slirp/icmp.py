"""Echo from containers: each pinged host has a ping socket on the host's side (icmp(7), net.ipv4.ping_group_range).

A ping socket sends and receives echo messages without privilege; the kernel gives it an identifier of its own and puts
that into what is sent. So a flow here is a container's address, its identifier, and the destination; the socket is
connected there, and answers go back under the container's identifier. What ICMP tells of the destination comes out of
the socket as an error, and goes on as the message it was.

Where the group of this account may not ping, the container is told "administratively prohibited", once for each flow.

Other ICMP from containers is dropped: errors about packets that came in by the tun belong to flows that end by
themselves, and the rest is not for the world.
"""

import errno
import select
import socket

from slirp.model import Endpoint, Network, unpacked
from slirp.outward import Refusal
from slirp.services import Services
from slirp.wire import icmp as wire
from slirp.wire import ip
from slirp.wire.icmp import Echo, Unreachable
from slirp.wire.ip import Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    Key = tuple[str, bytes, int, bytes]  # network, container's address, its identifier, destination as it knows it

MOST_OF_CONTAINER = 256
MOST = 2048
IDLE = 60.0  # seconds
SWEEP = 10.0
ANSWERS = 16  # of one flow, before others have their turn
_REASONS = {
    errno.EHOSTUNREACH: Unreachable.HOST,
    errno.EHOSTDOWN: Unreachable.HOST,
    errno.ENETUNREACH: Unreachable.NETWORK,
    errno.ENETDOWN: Unreachable.NETWORK,
    errno.EADDRNOTAVAIL: Unreachable.NETWORK,
    errno.ECONNREFUSED: Unreachable.PORT,
    errno.EACCES: Unreachable.PROHIBITED,
    errno.EPERM: Unreachable.PROHIBITED,
}


class Flow:
    """One flow. Without a socket it only remembers that the container has been told. *sent*, *received*: bytes."""

    __slots__ = ("container", "key", "last", "quoted", "received", "sent", "socket", "started", "to")

    def __init__(self, key: "Key", container: str, to: bytes, made: socket.socket | None, now: float) -> None:
        self.key = key
        self.container = container
        self.to = to
        self.socket = made
        self.started = self.last = now
        self.quoted = 0  # the last sequence number, for errors
        self.sent = 0
        self.received = 0

    def described(self, now: float) -> dict[str, object]:
        """For people who ask what is going on."""
        return {
            "container": self.container,
            "protocol": "icmp",
            "direction": "out",
            "source": unpacked(self.key[1]),
            "destination": unpacked(self.key[3]),
            "host": unpacked(self.to),
            "state": "prohibited" if self.socket is None else "assured" if self.received else "unreplied",
            "sent": self.sent,
            "received": self.received,
            "age": round(now - self.started, 1),
            "path": "user",
        }


class Icmp:
    """The echo flows of all containers."""

    __slots__ = ("_flows", "_numbers", "_services", "_sweeping", "dropped")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._flows: dict[Key, Flow] = {}
        self._numbers: dict[str, int] = {}  # of flows, by container
        self._sweeping = False
        self.dropped = 0  # what is no echo request, or could not be sent
        services.outward.live.append(self.reaches)

    def packet(self, network: Network, endpoint: Endpoint, packet: Packet, vnet: bytes) -> None:
        """An ICMP message from a container."""
        echo = None if wire.to_many(packet.destination) else wire.parse_echo(packet)
        if echo is None or echo.reply:
            self.dropped += 1
            return
        key = (network.id, packet.source, echo.identifier, packet.destination)
        flow = self._flows.get(key) or self._opened(network, endpoint, key, packet)
        if flow is None:
            return
        flow.last = self._services.loop.now()
        if flow.socket is not None:
            self._send(flow, flow.socket, echo, packet)

    def reaches(self, container_id: str, address: bytes) -> bool:
        """Whether a flow of the container to *address* lives."""
        return any(flow.container == container_id and flow.key[3] == address for flow in self._flows.values())

    def flows(self, container_id: str | None = None) -> list[dict[str, object]]:
        """The flows of a container, or all."""
        now = self._services.loop.now()
        return [flow.described(now) for flow in self._of(container_id)]

    def close_container(self, container_id: str) -> None:
        """The container is gone, or may do less than it could."""
        for flow in self._of(container_id):
            self._close(flow)

    def review(self, container_id: str) -> None:
        """Something about the container has changed: end the flows that it may not have, or whose address it lost."""
        for flow in self._of(container_id):
            network, address, _, peer = flow.key
            if not self._services.outward.permits(container_id, network, address, peer, 0):
                self._close(flow)

    def close_network(self, network_id: str) -> None:
        """The network is gone."""
        for flow in self._of(None):
            if flow.key[0] == network_id:
                self._close(flow)

    def _of(self, container_id: str | None) -> list[Flow]:
        return [flow for flow in self._flows.values() if container_id in (None, flow.container)]

    def _opened(self, network: Network, endpoint: Endpoint, key: "Key", packet: Packet) -> Flow | None:
        """A flow for its first request, if it may be; else the container has been told."""
        route = self._services.outward.route(network, endpoint, "icmp", key[3], 0)
        if isinstance(route, Refusal):
            prohibited = route is Refusal.PROHIBITED
            self._tell(network, packet, Unreachable.PROHIBITED if prohibited else Unreachable.NETWORK)
            return None
        self._make_room(endpoint.container.id)
        made = None
        try:
            made = _connected(route.address)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0)
            if reason:
                self._tell(network, packet, reason)
            if reason is not Unreachable.PROHIBITED:
                self.dropped += 1
                return None
        flow = Flow(key, endpoint.container.id, route.address, made, self._services.loop.now())
        self._flows[key] = flow
        self._numbers[flow.container] = self._numbers.get(flow.container, 0) + 1
        if made is not None:
            self._services.loop.watch(made.fileno(), select.EPOLLIN, lambda _events: self._answered(flow, made))
        if not self._sweeping:
            self._sweeping = True
            self._services.loop.later(SWEEP, self._sweep)
        return flow

    def _send(self, flow: Flow, to: socket.socket, echo: Echo, packet: Packet) -> None:
        """Send the request; the kernel puts in its identifier and the checksum."""
        flow.quoted = echo.sequence
        flow.sent += len(echo.data)
        request = wire.echo(packet.source, packet.destination, 0, echo.sequence, echo.data)
        for _ in range(2):
            try:
                to.send(request)
                return
            except BlockingIOError:
                self.dropped += 1
                return
            except OSError as error:  # possibly that of an earlier request
                self._failed(flow, error.errno or 0, packet)

    def _answered(self, flow: Flow, by: socket.socket) -> None:
        for _ in range(ANSWERS):
            try:
                message = memoryview(by.recv(65535))
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(flow, error.errno or 0, _quoted(flow))
                return
            self._reply(flow, message)

    def _reply(self, flow: Flow, message: memoryview) -> None:
        network = self._services.model.networks.get(flow.key[0])
        replies = wire.ECHO_REPLY4 if len(flow.to) == 4 else wire.ECHO_REPLY6
        if network is None or network.tun is None or len(message) < wire.HEADER or message[0] != replies:
            return
        flow.last = self._services.loop.now()
        flow.received += len(message) - wire.HEADER
        _, address, identifier, peer = flow.key
        sequence = int.from_bytes(message[6:8], "big")
        answer = wire.echo(peer, address, identifier, sequence, message[wire.HEADER :], reply=True)
        protocol = wire.PROTOCOL4 if len(address) == 4 else wire.PROTOCOL6
        network.tun.send_ip(peer, address, protocol, answer, checksum_offset=None)

    def _failed(self, flow: Flow, code: int, packet: Packet) -> None:
        network = self._services.model.networks.get(flow.key[0])
        if network is None:
            return
        if code == errno.EMSGSIZE and network.tun is not None:
            message = wire.too_big(packet, network.mtu)
            if message:
                network.tun.send(message)
        elif reason := _REASONS.get(code):
            self._tell(network, packet, reason)

    def _tell(self, network: Network, packet: Packet, reason: Unreachable) -> None:
        message = wire.unreachable(packet, reason)
        if message and network.tun is not None:
            network.tun.send(message)

    def _make_room(self, container_id: str) -> None:
        """If the container could not have another flow, close a sixteenth: its longest idle, or of who has most."""
        if self._numbers.get(container_id, 0) >= MOST_OF_CONTAINER:
            flows = self._of(container_id)
        elif len(self._flows) >= MOST:
            flows = self._of(max(self._numbers, key=lambda container: self._numbers[container]))
        else:
            return
        for flow in sorted(flows, key=lambda flow: flow.last)[: len(flows) // 16 + 1]:
            self._close(flow)

    def _close(self, flow: Flow) -> None:
        del self._flows[flow.key]
        self._numbers[flow.container] -= 1
        if not self._numbers[flow.container]:
            del self._numbers[flow.container]
        if flow.socket is not None:
            self._services.loop.unwatch(flow.socket.fileno())
            flow.socket.close()
            flow.socket = None

    def _sweep(self) -> None:
        now = self._services.loop.now()
        for flow in self._of(None):
            if now - flow.last > IDLE:
                self._close(flow)
        self._sweeping = bool(self._flows)
        if self._sweeping:
            self._services.loop.later(SWEEP, self._sweep)


def _connected(address: bytes) -> socket.socket:
    """A ping socket connected to *address*. Raises OSError: EACCES where this account may not ping."""
    family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
    if len(address) == 16:
        family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        made.connect((unpacked(address), 0))
    except OSError:
        made.close()
        raise
    return made


def _quoted(flow: Flow) -> Packet:
    """As much of the container's last request as an ICMP error has to quote."""
    _, address, identifier, peer = flow.key
    request = memoryview(wire.echo(address, peer, identifier, flow.quoted, b""))
    version, protocol = (4, wire.PROTOCOL4) if len(address) == 4 else (6, wire.PROTOCOL6)
    header = memoryview(ip.header(address, peer, protocol, len(request)))
    return Packet(version, address, peer, protocol, 64, request, header, None)
