"""UDP from containers: a flow's first datagram is decided on here, the later ones are moved by the kernel.

The first datagram of a flow comes out of the tun. If policy allows the destination, it is sent by a socket on the
host's side that is connected there; answers are written to the tun with the destination that the container asked for as
their source. All flows of one container's port share one local port on the host (SO_REUSEPORT, and each connected
elsewhere), so that a peer can tell another peer where to find the container (RFC 4787: endpoint-independent mapping).

On the kernel path, the second datagram in a direction makes the flow worth a socket inside the network's namespace:
transparent, bound to the destination, connected to the container. From then on the kernel hands it what the container
sends, and batches go between the two sockets without being looked at (batch.py).

What the host's kernel learns from ICMP comes out of the connected socket as an error, and goes to the container as the
ICMP message that it would have got itself.
"""

import errno
import resource
import select
import socket
from functools import partial

from slirp.batch import Batch, Relayed
from slirp.model import Endpoint, Network, unpacked
from slirp.outward import Refusal, Route
from slirp.services import Services
from slirp.udp_flow import Complaints, Flow, Flows, adopted, make_room, new_socket, spelled, strays
from slirp.udp_published import UdpPorts
from slirp.wire import icmp, ip
from slirp.wire import udp as wire
from slirp.wire.icmp import Unreachable
from slirp.wire.ip import Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from slirp.udp_flow import Key

BATCHES = 4  # of one flow, before others have their turn
SINGLES = 16  # datagrams one by one, where a batch has turned out to be a single one
DATAGRAMS = 64  # of one flow on the user path, likewise
LARGEST_KEPT = 2048  # bytes of a first datagram that is kept for the second address of the host's loopback
SWEEP = 5.0  # seconds between two looks for flows that are over
_IP_MTU, _IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h
_LOCALHOST6 = bytes(15) + b"\1"
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_REASONS = {
    errno.ECONNREFUSED: Unreachable.PORT,
    errno.EHOSTUNREACH: Unreachable.HOST,
    errno.EHOSTDOWN: Unreachable.HOST,
    errno.ENETUNREACH: Unreachable.NETWORK,
    errno.ENETDOWN: Unreachable.NETWORK,
    errno.EADDRNOTAVAIL: Unreachable.NETWORK,
    errno.EACCES: Unreachable.PROHIBITED,
    errno.EPERM: Unreachable.PROHIBITED,
}


class Udp:
    """The UDP flows of all containers."""

    __slots__ = (
        "_batch",
        "_complaints",
        "_ports",
        "_published",
        "_quiet",
        "_services",
        "_sweeping",
        "_table",
        "dropped",
    )

    def __init__(self, services: Services) -> None:
        self._services = services
        self._batch = Batch()
        self._table = Flows(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._complaints = Complaints(services.log)
        self._ports: dict[tuple[str, bytes, int], list[int]] = {}  # a container's port → the host's, and its flows
        self._sweeping = False
        self._quiet = True
        self.dropped = 0  # malformed datagrams, and those that there was no socket for
        self._published = UdpPorts(services, self)
        services.outward.live.append(self.reaches)

    def packet(self, network: Network, endpoint: Endpoint, packet: Packet, vnet: bytes) -> None:
        """A datagram, or what should be one, from a container. Its checksum has been looked at."""
        datagram = None if packet.fragment else wire.parse(packet.payload)
        if datagram is None or icmp.to_many(packet.destination):
            self.dropped += 1
            return
        key = (network.id, packet.source, datagram.source_port, packet.destination, datagram.destination_port)
        flow = self._table.all.get(key)
        if flow is not None and flow.container != endpoint.container.id:
            self.close(flow)  # of who had the address before
            flow = None
        flow = flow or self._opened(network, endpoint, key, packet)
        if flow is None:
            return
        flow.spoken += 1
        if flow.spoken > 1 and flow.inner is None:
            self._upgrade(network, flow)
        self._outward(flow, datagram.payload, packet)

    def published(self, handle: int, listener: socket.socket, container_id: str, container_port: int) -> None:
        """Clients of *listener*, which is bound and stays the caller's, reach the container's port from now on."""
        self._published.add(handle, listener, container_id, container_port)

    def unpublished(self, handle: int) -> None:
        """No longer. To be called before the listener is closed."""
        self._published.remove(handle)

    def reaches(self, container_id: str, address: bytes) -> bool:
        """Whether a flow of the container to *address* lives."""
        return any(flow.key[3] == address for flow in self._table.of(container_id))

    def flows(self, container_id: str | None = None) -> list[dict[str, object]]:
        """The flows of a container, or all."""
        now = self._services.loop.now()
        return [flow.described(now) for flow in self._table.of(container_id)]

    def close_container(self, container_id: str) -> None:
        """The container is gone, or may do less than it could."""
        for flow in self._table.of(container_id):
            self.close(flow)

    def review(self, container_id: str) -> None:
        """Something about the container has changed: end the flows that it may not have, or whose address it lost."""
        outward = self._services.outward
        for flow in self._table.of(container_id):
            network, address, _, peer, peer_port = flow.key
            if flow.handle >= 0:
                goes_on = outward.endpoint(container_id, network, address) is not None
            else:
                goes_on = outward.permits(container_id, network, address, peer, peer_port)
            if not goes_on:
                self.close(flow)

    def close_network(self, network_id: str) -> None:
        """The network is gone."""
        for flow in self._table.of(None):
            if flow.key[0] == network_id:
                self.close(flow)

    def close(self, flow: Flow) -> None:
        """End it, unless it has ended."""
        if self._table.all.get(flow.key) is not flow:
            return
        self._table.remove(flow)
        source = flow.key[:3]
        if flow.handle < 0 and (shared := self._ports.get(source)):
            shared[1] -= 1
            if not shared[1]:
                del self._ports[source]
        for one in (flow.host, flow.inner):
            if one is not None:
                self._services.loop.unwatch(one.fileno())
                self._batch.forget(one.fileno())
                one.close()
        if flow.ended:
            flow.ended()

    def add(self, flow: Flow) -> None:
        """A flow begins, in place of one between the same ends: its host's socket is heard from now on."""
        if before := self._table.all.get(flow.key):  # the container had called before it was called
            self.close(before)
        self._table.add(flow)
        self._services.loop.watch(flow.host.fileno(), select.EPOLLIN, partial(self._from_host, flow))
        if not self._sweeping:
            self._sweeping = True
            self._services.loop.later(SWEEP, self._sweep)

    def make_room(self, container_id: str) -> None:
        """Close idle flows, if the container could not have another."""
        for flow in self._table.surplus(container_id):
            self.close(flow)

    def relieve(self, error: OSError) -> None:
        """Where descriptors or memory have run out, the longest idle flows make room for the next that is tried."""
        if error.errno in _SCARCE:
            self.complain(f"udp: no socket for a flow: {error.strerror}")
            for flow in self._table.oldest():
                self.close(flow)

    def complain(self, line: str) -> None:
        """Tell the user, unless something has been told a moment ago."""
        self._complaints.say(line, self._services.loop.now())

    def into(self, flow: Flow, data: bytes | memoryview) -> None:
        """A datagram for the container, by the way that the flow has."""
        flow.last = self._services.loop.now()
        flow.received += len(data)
        network = self._services.model.networks.get(flow.key[0])
        if network is None:
            return
        flow.heard += 1
        if flow.heard > 1 and flow.inner is None:
            self._upgrade(network, flow)
        if flow.inner is not None:
            try:
                flow.inner.send(data)
            except OSError:  # no room, or the container does not listen: UDP may lose it
                self.dropped += 1
        elif network.tun is not None:
            _, address, port, peer, peer_port = flow.key
            header = wire.header(peer_port, port, len(data))
            network.tun.send_ip(peer, address, wire.PROTOCOL, header, data, checksum_offset=wire.CHECKSUM_OFFSET)

    def connect_inner(self, flow: Flow, inner: socket.socket) -> None:
        """Give the flow a socket of the network's namespace, which is bound to its peer. Raises OSError."""
        _, address, port, _, _ = flow.key
        inner.connect((unpacked(address), port))
        make_room(inner, flow.host)
        flow.inner = inner
        for data, sender in strays(inner):
            if sender == (unpacked(address), port):
                self._outward(flow, memoryview(data), None)
        self._services.loop.watch(inner.fileno(), select.EPOLLIN, partial(self._from_container, flow))

    def _opened(self, network: Network, endpoint: Endpoint, key: "Key", packet: Packet) -> Flow | None:
        """A flow for its first datagram, if it may be; else the container has been told."""
        route = self._services.outward.route(network, endpoint, "udp", key[3], key[4])
        if isinstance(route, Refusal):
            prohibited = route is Refusal.PROHIBITED
            self._tell(network, packet, Unreachable.PROHIBITED if prohibited else Unreachable.NETWORK)
            return None
        self.make_room(endpoint.container.id)
        try:
            host = self._connected(key, route.address, route.port)
        except OSError as error:
            self.dropped += 1
            self.relieve(error)
            if reason := _REASONS.get(error.errno or 0):
                self._tell(network, packet, reason)
            return None
        flow = Flow(key, endpoint.container.id, host, (route.address, route.port), self._services.loop.now())
        self._remember(flow, route, packet)
        self.add(flow)
        return flow

    def _remember(self, flow: Flow, route: Route, packet: Packet) -> None:
        self._ports.setdefault(flow.key[:3], [flow.host.getsockname()[1], 0])[1] += 1
        flow.loopback = route.loopback
        if route.loopback and len(packet.payload) <= LARGEST_KEPT:
            flow.first = bytes(packet.payload[wire.HEADER :])

    def _connected(self, key: "Key", address: bytes, port: int) -> socket.socket:
        """A socket connected to *address*, from the local port that the flows of the container's port share."""
        made = new_socket(address)
        try:
            shared = self._ports.get(key[:3])
            if shared and len(address) == len(key[1]):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                made.bind(("", shared[0]))
            made.connect((unpacked(address), port))
            # Only now where the kernel has chosen the port: it may choose one that a socket with SO_REUSEPORT shares.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if shared:
                for _ in strays(made):
                    self.dropped += 1
        except OSError:
            made.close()
            raise
        return made

    def _upgrade(self, network: Network, flow: Flow) -> None:
        """The flow is a busy one: the kernel path, if there is one."""
        if not network.kernel:
            if 2 in (flow.spoken, flow.heard):
                make_room(flow.host)
            return
        descriptor = self._services.sockets(network, "udp6" if len(flow.key[1]) == 16 else "udp4")
        if descriptor is None:
            return  # by the tun once more, and again with the next datagram
        try:
            inner = adopted(descriptor, *flow.key[3:])
        except OSError as error:
            self.complain(f"udp: no socket for {spelled(*flow.key[3:])} inside of {network.name}: {error.strerror}")
            return
        try:
            self.connect_inner(flow, inner)
        except OSError:  # the container has gone, or has left the network
            inner.close()

    def _outward(self, flow: Flow, data: memoryview, packet: Packet | None) -> None:
        """Send a container's datagram to the peer. An error of one before is told, and is no reason not to try."""
        flow.last = self._services.loop.now()
        flow.sent += len(data)
        for _ in range(2):
            try:
                flow.host.send(data)
                return
            except BlockingIOError:
                self.dropped += 1
                return
            except OSError as error:
                self._failed(flow, error.errno or 0, packet)

    def _from_container(self, flow: Flow, _events: int) -> None:
        inner = flow.inner
        if inner is None:
            return
        if flow.singly_out:
            flow.singly_out -= 1
            size = self._batch.relay_one(inner, flow.host)
            if size >= 0:
                flow.sent += size
                flow.last = self._services.loop.now()
            else:
                self._sent(flow, self._batch.trouble)
            return
        for _ in range(BATCHES):
            done = self._batch.relay(inner.fileno(), flow.host.fileno())
            flow.singly_out = SINGLES if done.datagrams < 2 else 0
            self._sent(flow, done)
            if not done.full:
                return

    def _from_host(self, flow: Flow, _events: int) -> None:
        inner = flow.inner
        if inner is None:
            self._from_host_by_tun(flow)
            return
        if flow.singly_in:
            flow.singly_in -= 1
            size = self._batch.relay_one(flow.host, inner)
            if size >= 0:
                flow.received += size
                flow.last = self._services.loop.now()
            else:
                self._received(flow, self._batch.trouble)
            return
        for _ in range(BATCHES):
            done = self._batch.relay(flow.host.fileno(), inner.fileno())
            flow.singly_in = SINGLES if done.datagrams < 2 else 0
            self._received(flow, done)
            if not done.full:
                return

    def _sent(self, flow: Flow, done: Relayed) -> None:
        """A batch has gone out, as far as it has."""
        flow.last = self._services.loop.now()
        flow.sent += done.size
        self._quiet = False
        if done.send_error:
            self._failed(flow, done.send_error, None)

    def _received(self, flow: Flow, done: Relayed) -> None:
        """A batch has come in, as far as it has."""
        flow.last = self._services.loop.now()
        flow.received += done.size
        self._quiet = False
        if done.receive_error:
            self._failed(flow, done.receive_error, None)

    def _from_host_by_tun(self, flow: Flow) -> None:
        for _ in range(DATAGRAMS):
            try:
                data = flow.host.recv(65535)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(flow, error.errno or 0, None)
                return
            self.into(flow, data)
            if flow.inner is not None:
                return  # what is left is the next batch

    def _failed(self, flow: Flow, code: int, packet: Packet | None) -> None:
        """The host's socket has an error: what ICMP has said of the peer, or a datagram too large for the way there."""
        network = self._services.model.networks.get(flow.key[0])
        if network is None:
            return
        if code == errno.ECONNREFUSED and flow.loopback and self._try_ipv6(flow):
            return
        packet = packet or _quoted(flow.key)
        if code == errno.EMSGSIZE:
            self._send(network, icmp.too_big(packet, _path_mtu(flow.host)))
        elif reason := _REASONS.get(code):
            self._tell(network, packet, reason)

    def _try_ipv6(self, flow: Flow) -> bool:
        """The host's loopback has two addresses: what refuses at the one is looked for at the other, once."""
        first, flow.first = flow.first, b""
        flow.loopback = False
        if flow.received:
            return False
        try:
            other = self._connected(flow.key, _LOCALHOST6, flow.to[1])
        except OSError:
            return False
        self._services.loop.unwatch(flow.host.fileno())
        self._batch.forget(flow.host.fileno())
        flow.host.close()
        flow.host, flow.to = other, (_LOCALHOST6, flow.to[1])
        self._services.loop.watch(other.fileno(), select.EPOLLIN, partial(self._from_host, flow))
        try:
            other.send(first)
        except OSError:  # the next datagram meets it again
            self.dropped += 1
        return True

    def _tell(self, network: Network, packet: Packet, reason: Unreachable) -> None:
        """An ICMP error, in the peer's name: what comes by the tun in the gateway's own is a forgery to the kernel."""
        self._send(network, icmp.unreachable(packet, reason))

    def _send(self, network: Network, message: bytes | None) -> None:
        if message and network.tun is not None:
            network.tun.send(message)

    def _sweep(self) -> None:
        for flow in self._table.silent(self._services.loop.now()):
            self.close(flow)
        if self._quiet:
            self._batch.shrink()
        self._quiet = True
        self._sweeping = bool(self._table.all)
        if self._sweeping:
            self._services.loop.later(SWEEP, self._sweep)


def _quoted(key: "Key") -> Packet:
    """As much of a container's datagram as an ICMP error has to quote: the addresses and the ports."""
    _, address, port, peer, peer_port = key
    header = memoryview(ip.header(address, peer, wire.PROTOCOL, wire.HEADER))
    payload = memoryview(wire.header(port, peer_port, 0))
    return Packet(4 if len(address) == 4 else 6, address, peer, wire.PROTOCOL, 64, payload, header, None)


def _path_mtu(connected: socket.socket) -> int:
    if connected.family == socket.AF_INET6:
        return connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
    return connected.getsockopt(socket.IPPROTO_IP, _IP_MTU)
