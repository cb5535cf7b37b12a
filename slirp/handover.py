"""TCP out of a network, kernel path: decided here, carried by the kernel.

A container's SYN comes out of the tun and waits here while the same connection is tried from the host's side:

    refused, unreachable, denied   the container gets the RST or the ICMP error that it would have got there
    no answer                      it gets none either
    connected                      the same SYN, byte for byte, goes back into the tun. Rules in the network's namespace
                                   (`tproxy`) lead it to a transparent listener, the kernel makes the handshake, and
                                   accept(2) gives a socket whose name is what the container wanted to reach: that tells
                                   which of the waiting connections it belongs to. A relay joins the two.

So a container sees a connection established when there is one, and data that came with the SYN is not lost: it went
back with it. Every other segment of these connections meets its socket in the kernel. What does reach us belongs to
none, and is answered with a RST, as any host does.
"""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from slirp.model import Container, Endpoint, Network, packed, unpacked
from slirp.outward import Refusal, Route
from slirp.relay import Pipes, Relay, close, prepare
from slirp.services import Services
from slirp.tun import TCP
from slirp.wire import icmp, tcp
from slirp.wire.ip import Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

MOST_FLOWS, MOST_FLOWS_EACH = 16384, 4096  # in all, and of one container
MOST_HALF_OPEN, MOST_HALF_OPEN_EACH = 4096, 1024
YOUNG_SECONDS = 3.0  # that a half-open connection is not given up for another one
LARGEST_SYN = 2048  # bytes kept of a SYN with data; a larger one is dropped, and comes again without
ACCEPT_SECONDS = 5.0  # after which a container that does not finish its handshake has given up
_ACCEPTS = 64  # in one turn
_PAUSE = 0.1  # seconds, where there are no descriptors
_LOCALHOST6 = bytes(15) + b"\1"
_START = struct.Struct("!HHI5xB6x")  # of a TCP header: ports, sequence number, flags
_SYN_KIND = tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN

REFUSED = frozenset((errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE))
UNREACHABLE = {
    errno.EHOSTUNREACH: icmp.Unreachable.HOST,
    errno.EHOSTDOWN: icmp.Unreachable.HOST,
    errno.EINVAL: icmp.Unreachable.HOST,
    errno.ENETUNREACH: icmp.Unreachable.NETWORK,
    errno.ENETDOWN: icmp.Unreachable.NETWORK,
    errno.EAFNOSUPPORT: icmp.Unreachable.NETWORK,
    errno.EADDRNOTAVAIL: icmp.Unreachable.NETWORK,  # in IPv6 no source address; in IPv4 no free port for now
    errno.EACCES: icmp.Unreachable.PROHIBITED,
    errno.EPERM: icmp.Unreachable.PROHIBITED,
    errno.ENOPROTOOPT: icmp.Unreachable.PORT,
}


class Key(NamedTuple):
    """What tells a connection from others: the network, and both its ends as the container sees them."""

    network: str
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int


class Flow:
    """A connection, from its SYN on. *packet* is there until the container's side is accepted."""

    __slots__ = (
        *("address", "container", "key", "network", "outer", "packet", "payload_at", "relay", "returned"),
        *("route", "sequence", "started", "vnet"),
    )

    def __init__(self, key: Key, network: Network, container: Container, route: Route, sequence: int) -> None:
        self.key = key
        self.network = network
        self.container = container.id
        self.route = route
        self.address = route.address  # what is being tried, or was reached
        self.sequence = sequence
        self.started = 0.0
        self.packet: bytes | None = None
        self.payload_at = 0
        self.vnet = b""
        self.outer: socket.socket | None = None
        self.returned = 0.0  # when the SYN went back, or 0
        self.relay: Relay | None = None

    def parsed(self) -> Packet:
        """The SYN as it was parsed, from our copy of it."""
        data = memoryview(self.packet or b"")
        source, destination = self.key.source, self.key.destination
        header, payload = data[: self.payload_at], data[self.payload_at :]
        return Packet(4 if len(source) == 4 else 6, source, destination, TCP, 64, payload, header, None)


class Handover:
    """All connections of containers that the kernel carries."""

    __slots__ = (
        "_awaited",
        "_flows",
        "_half_open",
        "_listeners",
        "_numbers",
        "_pipes",
        "_services",
        "_sweeping",
        "dropped",
    )

    def __init__(self, services: Services, pipes: Pipes) -> None:
        self._services = services
        self._pipes = pipes
        self._flows: dict[Key, Flow] = {}
        self._half_open: dict[Key, Flow] = {}  # of these, those without a relay
        self._numbers: dict[str, list[int]] = {}  # of a container: [flows, of these half-open]
        self._listeners: dict[str, dict[int, socket.socket]] = {}  # by network, and by the size of its addresses
        self._awaited = 0  # half-open ones whose SYN went back
        self._sweeping = False
        self.dropped = 0  # SYNs that were neither tried nor answered: they come again
        services.outward.live.append(self.lives)

    def serve(self, network: Network, listeners: list[socket.socket]) -> None:
        """Accept what comes to the transparent listeners of *network*, which are ours from now on."""
        self._stop_listening(network.id)
        sizes = {socket.AF_INET: 4, socket.AF_INET6: 16}
        self._listeners[network.id] = {sizes[listener.family]: listener for listener in listeners}
        for size, listener in self._listeners[network.id].items():
            listener.setblocking(False)
            prepare(listener)
            self._listen(network.id, size, listener)

    def packet(self, network: Network, endpoint: Endpoint, packet: Packet, vnet: bytes) -> None:
        """A segment that *endpoint* sent, and that no socket in the network's namespace wanted."""
        if len(packet.payload) < _START.size:
            return
        source_port, destination_port, sequence, flags = _START.unpack_from(packet.payload)
        if flags & _SYN_KIND != tcp.SYN:
            reset(network, packet)
            return
        key = Key(network.id, packet.source, source_port, packet.destination, destination_port)
        known = self._flows.get(key)
        if known is not None:
            if known.sequence == sequence:
                self._again(known)
                return
            self._end(known, abort=True)  # the container has forgotten it, and begins anew
        self._begin(key, network, endpoint, packet, vnet, sequence)

    def flows(self, container: str | None) -> "list[dict[str, Any]]":
        """The connections, of one container or of all, as `network flows` lists them."""
        now = self._services.loop.now()
        flows = [flow for flow in self._flows.values() if container in (None, flow.container)]
        return [_row(flow, now) for flow in flows]

    def lives(self, container: str, address: bytes) -> bool:
        """Whether a connection of *container* to *address* is there."""
        return any(flow.container == container and key.destination == address for key, flow in self._flows.items())

    def close_container(self, container: str) -> None:
        """End its connections: far ends get a reset."""
        for flow in [flow for flow in self._flows.values() if flow.container == container]:
            self._end(flow, abort=True)

    def review(self, container: str) -> None:
        """Something about the container has changed: end what it may not have any more."""
        permits = self._services.outward.permits
        for flow in [flow for flow in self._flows.values() if flow.container == container]:
            key = flow.key
            if not permits(container, key.network, key.source, key.destination, key.destination_port):
                self._end(flow, abort=True)

    def close_network(self, network: str) -> None:
        """End the connections of a network, and accept no more."""
        self._stop_listening(network)
        for flow in [flow for flow in self._flows.values() if flow.key.network == network]:
            self._end(flow, abort=True)

    # From the SYN to the connection on the host's side

    def _begin(
        self, key: Key, network: Network, endpoint: Endpoint, packet: Packet, vnet: bytes, sequence: int
    ) -> None:
        route = self._services.outward.route(network, endpoint, "tcp", key.destination, key.destination_port)
        if isinstance(route, Refusal):
            if route is Refusal.PROHIBITED:
                reset(network, packet)
            else:
                unreachable(network, packet, icmp.Unreachable.HOST)
            return
        if self._full(endpoint.container.id):
            reset(network, packet)
            return
        if len(packet.header) + len(packet.payload) > LARGEST_SYN or not self._may_wait(endpoint.container.id):
            self.dropped += 1
            return
        flow = Flow(key, network, endpoint.container, route, sequence)
        flow.started = self._services.loop.now()
        flow.packet, flow.payload_at, flow.vnet = bytes(packet.header) + packet.payload, len(packet.header), vnet
        self._add(flow)
        self._connect(flow)

    def _full(self, container: str) -> bool:
        return len(self._flows) >= MOST_FLOWS or self._numbers.get(container, (0, 0))[0] >= MOST_FLOWS_EACH

    def _may_wait(self, container: str) -> bool:
        """Whether it may have one more half-open connection, perhaps in place of one of its own, or of who has most."""
        if self._numbers.get(container, (0, 0))[1] >= MOST_HALF_OPEN_EACH:
            return self._give_way(container, YOUNG_SECONDS)
        if len(self._half_open) >= MOST_HALF_OPEN:
            return self._give_way(max(self._numbers, key=lambda name: self._numbers[name][1]), 0)
        return True

    def _give_way(self, container: str, age: float) -> bool:
        """Drop the container's oldest half-open connection, if it has that age: a flood should not last for minutes."""
        oldest = next(flow for flow in self._half_open.values() if flow.container == container)
        if self._services.loop.now() - oldest.started < age:
            return False
        self._end(oldest, abort=True)
        return True

    def _connect(self, flow: Flow) -> None:
        family = socket.AF_INET if len(flow.address) == 4 else socket.AF_INET6
        try:
            flow.outer = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
            if self._services.crowded(flow.outer.fileno()):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            target = (unpacked(flow.address), flow.route.port)
            code = flow.outer.connect_ex(target)
            if code == errno.EINPROGRESS:
                code = flow.outer.connect_ex(target)  # on loopback it is there already
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (errno.EALREADY, errno.EINPROGRESS) and flow.outer is not None:
            self._services.loop.watch(flow.outer.fileno(), select.EPOLLOUT, lambda _: self._tried(flow))
        else:
            self._connected(flow, code)

    def _tried(self, flow: Flow) -> None:
        outer = flow.outer
        if outer is None or flow.relay is not None or flow.returned:
            return
        code = outer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._services.loop.unwatch(outer.fileno())
        self._connected(flow, code)

    def _connected(self, flow: Flow, code: int) -> None:
        if not code:
            self._return_syn(flow)
        elif code in REFUSED and flow.route.loopback and flow.address != _LOCALHOST6:
            self._drop_outer(flow)
            flow.address = _LOCALHOST6
            self._connect(flow)
        else:
            self._failed(flow, errno.ECONNREFUSED if flow.route.loopback else code)

    def _failed(self, flow: Flow, code: int) -> None:
        """Tell the container what the host was told; a timeout, and a lack of our own, by silence."""
        packet = flow.parsed()
        if code in REFUSED:
            reset(flow.network, packet)
        elif code in UNREACHABLE and (code != errno.EADDRNOTAVAIL or packet.version == 6):
            unreachable(flow.network, packet, UNREACHABLE[code])
        elif code != errno.ETIMEDOUT:
            self.dropped += 1
        self._end(flow)

    # From there to the container's socket

    def _return_syn(self, flow: Flow) -> None:
        if not flow.returned:
            self._awaited += 1
        flow.returned = self._services.loop.now()
        self._half_open[flow.key] = self._half_open.pop(flow.key)  # behind those that wait for longer
        tun = flow.network.tun
        if tun is not None and flow.packet is not None:
            tun.send(flow.packet, vnet=flow.vnet)  # where it is lost, the container sends it again
        if not self._sweeping:
            self._sweeping = True
            self._services.loop.later(ACCEPT_SECONDS, self._sweep)
        # On one machine the handshake has happened while the SYN was written.
        size = len(flow.key.source)
        listener = self._listeners.get(flow.key.network, {}).get(size)
        if listener is not None:
            self._accept(flow.key.network, size, listener)

    def _again(self, flow: Flow) -> None:
        """The same SYN once more: the container is waiting, and so are we, unless ours was lost on its way back."""
        if flow.returned and flow.relay is None:
            self._return_syn(flow)

    def _sweep(self) -> None:
        """End those whose SYN went back and who were never accepted."""
        self._sweeping = False
        due = self._services.loop.now() - ACCEPT_SECONDS
        for flow in [flow for flow in self._half_open.values() if flow.returned and flow.returned <= due]:
            self._end(flow, abort=True)
        if any(flow.returned for flow in self._half_open.values()):
            self._sweeping = True
            self._services.loop.later(ACCEPT_SECONDS / 2, self._sweep)

    def _listen(self, network: str, size: int, listener: socket.socket) -> None:
        fd = listener.fileno()
        if fd >= 0:
            self._services.loop.watch(fd, select.EPOLLIN, lambda _: self._accept(network, size, listener))

    def _stop_listening(self, network: str) -> None:
        for listener in self._listeners.pop(network, {}).values():
            self._services.loop.unwatch(listener.fileno())
            listener.close()

    def _accept(self, network: str, size: int, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                inner, peer = accept(listener, size)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                accept_failed(self._services, listener, error, lambda: self._listen(network, size, listener))
                return
            self._join(network, inner, peer)
            if not self._awaited:
                return

    def _join(self, network: str, inner: socket.socket, peer: "tuple[Any, ...]") -> None:
        try:
            name = inner.getsockname()
            key = Key(network, packed(peer[0]), peer[1], packed(name[0]), name[1])
        except OSError:
            close(inner, reset=True)
            return
        flow = self._half_open.get(key)
        if flow is None or flow.outer is None or not flow.returned:
            close(inner, reset=True)
            return
        self._no_longer_half_open(flow)
        flow.packet, flow.vnet = None, b""
        prepare(flow.outer)  # while the container does its part of the handshake
        flow.relay = Relay(self._services.loop, inner, flow.outer, lambda _: self._end(flow), self._pipes)

    # The table

    def _add(self, flow: Flow) -> None:
        self._flows[flow.key] = self._half_open[flow.key] = flow
        numbers = self._numbers.setdefault(flow.container, [0, 0])
        numbers[0] += 1
        numbers[1] += 1

    def _no_longer_half_open(self, flow: Flow) -> None:
        if self._half_open.pop(flow.key, None) is not None:
            self._numbers[flow.container][1] -= 1
            if flow.returned:
                self._awaited -= 1

    def _end(self, flow: Flow, *, abort: bool = False) -> None:
        if self._flows.get(flow.key) is not flow:
            return
        self._no_longer_half_open(flow)
        del self._flows[flow.key]
        numbers = self._numbers[flow.container]
        numbers[0] -= 1
        if not numbers[0]:
            del self._numbers[flow.container]
        if flow.relay is None:
            self._drop_outer(flow, abort=abort)
        elif abort:
            flow.relay.abort()

    def _drop_outer(self, flow: Flow, *, abort: bool = False) -> None:
        if flow.outer is not None:
            self._services.loop.unwatch(flow.outer.fileno())
            close(flow.outer, reset=abort)
            flow.outer = None


def accept(listener: socket.socket, size: int) -> "tuple[socket.socket, tuple[Any, ...]]":
    """accept(2): a non-blocking socket and its peer. *size* is that of the listener's addresses.

    socket.accept() turns family and type into enums first, which takes longer than the system call.
    """
    fd, peer = listener._accept()  # type: ignore[attr-defined]  # what socket.accept() calls
    sock = socket.socket(socket.AF_INET if size == 4 else socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
    sock.setblocking(False)
    return sock, peer


def accept_failed(services: Services, listener: socket.socket, error: OSError, again: Callable[[], None]) -> None:
    """Where there are no descriptors or no memory left, pause; other errors are those of one connection (accept(2))."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        pause(services, listener, again)


def pause(services: Services, listener: socket.socket, again: Callable[[], None]) -> None:
    """Look away from *listener* for a moment, since its queue stays readable."""
    services.loop.unwatch(listener.fileno())
    services.loop.later(_PAUSE, again)


def reset(network: Network, packet: Packet, segment: tcp.Segment | None = None) -> None:
    """Answer with the RST that RFC 9293 §3.5.2 wants; none to a RST. *segment* is what *packet* carries, if parsed."""
    segment = segment or tcp.parse(packet.payload)
    if segment is None or segment.flags & tcp.RST or network.tun is None:
        return
    if segment.flags & tcp.ACK:
        numbers = segment.acknowledgement, 0, tcp.RST
    else:
        length = len(segment.payload) + bool(segment.flags & tcp.SYN) + bool(segment.flags & tcp.FIN)
        numbers = 0, segment.sequence + length & 0xFFFFFFFF, tcp.RST | tcp.ACK
    header = tcp.header(segment.destination_port, segment.source_port, *numbers, 0)
    network.tun.send_ip(packet.destination, packet.source, TCP, header, checksum_offset=tcp.CHECKSUM_OFFSET)


def unreachable(network: Network, packet: Packet, reason: icmp.Unreachable) -> None:
    """Answer with ICMP's "destination unreachable", in the destination's own name."""
    answer = icmp.unreachable(packet, reason)
    if answer is not None and network.tun is not None:
        network.tun.send(answer)


def _row(flow: Flow, now: float) -> "dict[str, Any]":
    key, relay = flow.key, flow.relay
    return {
        "container": flow.container,
        "protocol": "tcp",
        "direction": "out",
        "source": spelled(key.source, key.source_port),
        "destination": spelled(key.destination, key.destination_port),
        "host": spelled(flow.address, flow.route.port),
        "state": relay.state if relay else "connecting",
        "sent": relay.sent if relay else 0,
        "received": relay.received if relay else 0,
        "age": round(now - flow.started, 3),
        "path": "kernel",
    }


def spelled(address: bytes, port: int) -> str:
    """Address and port as people write them."""
    return f"[{unpacked(address)}]:{port}" if len(address) == 16 else f"{unpacked(address)}:{port}"
