"""TCP of containers where the kernel has no transparent proxy: our own (tcp.py) on the tun, a host socket beyond.

    out   a container's SYN waits here while the host's side connects. Refused: the container gets a RST; unreachable:
          an ICMP error; no answer: none. Connected: the core answers the SYN, and from then on it is two connections
          with bytes handed from one to the other, end by end: FIN for shutdown, RST for reset.
    in    a client of a published port was accepted; the core calls the container in the client's name.

Nothing is copied as long as both sides keep up: the segment that was read from the tun goes into send(2) as it lies in
the buffer, and what recv(2) gave is written to the tun as one large segment, which is kept until it is acknowledged. A
side that does not keep up is noticed by the other: the window shrinks, or the host's socket is not read. What waits is
counted (tcp_budget.py). Acknowledgements go out once for each round of the loop.
"""

import errno
import os
import select
import socket

from slirp.handover import (
    MOST_FLOWS,
    MOST_FLOWS_EACH,
    MOST_HALF_OPEN,
    MOST_HALF_OPEN_EACH,
    REFUSED,
    UNREACHABLE,
    Key,
    reset,
    spelled,
    unreachable,
)
from slirp.model import Endpoint, Network, packed, unpacked
from slirp.outward import Refusal, Route
from slirp.relay import close, prepare
from slirp.services import Services
from slirp.tcp import Connection, End, Sizes, State
from slirp.tcp_budget import IN_ALL, PER_CONTAINER, Budget
from slirp.tcp_send import NEVER
from slirp.tun import TCP
from slirp.wire import icmp, tcp
from slirp.wire.ip import HEADER4, HEADER6, Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

LINGER_SECONDS = 600.0  # that a host's socket may take nothing of what is left, once the container is done
LARGEST_SYN = 2048  # bytes kept of a SYN's packet, to be quoted in an ICMP error
_READS = 8  # from one socket before others have their turn
_LARGEST = 65535  # bytes of a packet, IPv4's header included; IPv6's comes on top
_LOCALHOST6 = bytes(15) + b"\1"
_SYN_KIND = tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN
_TCP_HEADER = 20


class Tally:
    """What a container has: connections, those of them that are half-open, and bytes that they hold."""

    __slots__ = ("budget", "flows", "half_open")

    def __init__(self, parent: Budget) -> None:
        self.flows = 0
        self.half_open = 0
        self.budget = Budget(PER_CONTAINER, parent)


class Flow:
    """A connection of a container. *connection* is there once the host's side is connected, *syn* until then."""

    __slots__ = (
        *("address", "armed", "connection", "container", "half_open", "host", "host_ended", "inward", "key", "network"),
        *("port", "received", "route", "shut", "started", "syn", "timer", "watched"),
    )

    def __init__(self, key: Key, network: Network, container: str, now: float) -> None:
        self.key = key
        self.network = network
        self.container = container
        self.inward = False
        self.route: Route | None = None
        self.address, self.port = key.destination, key.destination_port  # the far end, seen from the host
        self.host: socket.socket | None = None
        self.syn: tuple[bytes, int] | None = None  # the packet, and where its payload begins
        self.connection: Connection | None = None
        self.half_open = True
        self.watched = 0  # the events that the loop looks for
        self.host_ended = False
        self.shut = False  # the host's socket has had the end of the container's stream
        self.received = 0  # bytes from the host's socket
        self.timer: Any = None
        self.armed = NEVER
        self.started = now

    def parsed(self) -> "tuple[Packet, tcp.Segment] | None":
        """The SYN as it was parsed, from our copy of it."""
        if self.syn is None:
            return None
        data, at = memoryview(self.syn[0]), self.syn[1]
        source, destination = self.key.source, self.key.destination
        packet = Packet(4 if len(source) == 4 else 6, source, destination, TCP, 64, data[at:], data[:at], None)
        segment = tcp.parse(packet.payload)
        return (packet, segment) if segment is not None else None


class UserTcp:
    """All connections of containers that our own TCP carries."""

    __slots__ = ("_budget", "_due", "_flows", "_half_open", "_services", "_tallies", "dropped")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._flows: dict[Key, Flow] = {}
        self._half_open = 0
        self._tallies: dict[str, Tally] = {}
        self._budget = Budget(IN_ALL)
        self._due: list[Flow] = []  # those with an acknowledgement to send at the end of this round
        self.dropped = 0  # SYNs that were neither tried nor answered: they come again
        services.outward.live.append(self.lives)

    def packet(self, network: Network, endpoint: Endpoint, packet: Packet, vnet: bytes) -> None:
        """A segment that *endpoint* sent out of its network."""
        segment = tcp.parse(packet.payload)
        if segment is None:
            return
        key = Key(network.id, packet.source, segment.source_port, packet.destination, segment.destination_port)
        flow = self._flows.get(key)
        if flow is not None and flow.connection is not None:
            if not (segment.flags & tcp.SYN and flow.connection.replaceable(segment)):
                self._arrived(flow, flow.connection, segment)
                return
            self._remove(flow)
        elif flow is not None and not self._repeated(flow, segment):
            return
        if segment.flags & _SYN_KIND == tcp.SYN:
            self._begin(key, network, endpoint, packet, segment)
        else:
            reset(network, packet, segment)

    def open(
        self,
        network: Network,
        endpoint: Endpoint,
        client: tuple[bytes, int],
        container_port: int,
        host_socket: socket.socket,
    ) -> None:
        """Call *endpoint* in the name of *client*, who is at the other end of *host_socket*, ours from now on."""
        own = endpoint.ipv4 if len(client[0]) == 4 else endpoint.ipv6
        key = Key(network.id, own or b"", container_port, *client)
        known = self._flows.get(key)
        if known is not None and known.connection is not None and known.connection.state is State.TIME_WAIT:
            self._remove(known)
            known = None
        if not own or known is not None or not self._may_begin(endpoint.container.id):
            close(host_socket, reset=True)
            return
        now = self._services.loop.now()
        flow = Flow(key, network, endpoint.container.id, now)
        flow.inward = True
        flow.host = host_socket
        flow.address, flow.port = _name(host_socket)
        host_socket.setblocking(False)
        prepare(host_socket)
        self._add(flow)
        flow.connection = Connection.call(_iss(), self._sizes(flow), self._tallies[flow.container].budget, now)
        self._settle(flow, flow.connection)

    def flows(self, container: str | None) -> "list[dict[str, Any]]":
        """The connections, of one container or of all, as `network flows` lists them."""
        now = self._services.loop.now()
        return [_row(flow, now) for flow in self._flows.values() if container in (None, flow.container)]

    @property
    def held(self) -> int:
        """Bytes that all connections hold."""
        return self._budget.used

    def lives(self, container: str, address: bytes) -> bool:
        """Whether a connection of *container* to *address* is there."""
        flows = self._flows.values()
        return any(flow.container == container and flow.key.destination == address for flow in flows)

    def close_container(self, container: str) -> None:
        """End its connections: both ends get a reset."""
        for flow in [flow for flow in self._flows.values() if flow.container == container]:
            self._abort(flow)

    def close_network(self, network: str) -> None:
        """End the connections of a network."""
        for flow in [flow for flow in self._flows.values() if flow.key.network == network]:
            self._abort(flow)

    # From the SYN to the connection on the host's side

    def _begin(self, key: Key, network: Network, endpoint: Endpoint, packet: Packet, segment: tcp.Segment) -> None:
        route = self._services.outward.route(network, endpoint, "tcp", key.destination, key.destination_port)
        if route is Refusal.UNREACHABLE:
            unreachable(network, packet, icmp.Unreachable.HOST)
        elif isinstance(route, Refusal) or self._full(endpoint.container.id):
            reset(network, packet, segment)
        elif not self._may_begin(endpoint.container.id) or len(packet.payload) > LARGEST_SYN:
            self.dropped += 1
        else:
            flow = Flow(key, network, endpoint.container.id, self._services.loop.now())
            flow.route = route
            flow.address, flow.port = route.address, route.port
            flow.syn = bytes(packet.header) + packet.payload, len(packet.header)
            self._add(flow)
            self._connect(flow, route)

    def _full(self, container: str) -> bool:
        tally = self._tallies.get(container)
        return len(self._flows) >= MOST_FLOWS or (tally is not None and tally.flows >= MOST_FLOWS_EACH)

    def _may_begin(self, container: str) -> bool:
        tally = self._tallies.get(container)
        if self._full(container) or self._half_open >= MOST_HALF_OPEN:
            return False
        return tally is None or tally.half_open < MOST_HALF_OPEN_EACH

    def _connect(self, flow: Flow, route: Route) -> None:
        family = socket.AF_INET if len(flow.address) == 4 else socket.AF_INET6
        try:
            flow.host = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
            prepare(flow.host)
            target = (unpacked(flow.address), route.port)
            code = flow.host.connect_ex(target)
            if code == errno.EINPROGRESS:
                code = flow.host.connect_ex(target)  # on loopback it is there already
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (errno.EALREADY, errno.EINPROGRESS):
            self._watch(flow, select.EPOLLOUT)
        else:
            self._connected(flow, route, code)

    def _connected(self, flow: Flow, route: Route, code: int) -> None:
        syn = flow.parsed()
        if not code and syn is not None:
            self._answer(flow, syn[1])
        elif code in REFUSED and route.loopback and flow.address != _LOCALHOST6:
            self._drop_host(flow)
            flow.address = _LOCALHOST6
            self._connect(flow, route)
        else:
            self._failed(flow, errno.ECONNREFUSED if route.loopback else code)

    def _answer(self, flow: Flow, syn: tcp.Segment) -> None:
        now = self._services.loop.now()
        budget = self._tallies[flow.container].budget
        flow.connection = Connection.answer(syn, _iss(), self._sizes(flow), budget, now)
        flow.syn = None
        self._settle(flow, flow.connection)

    def _failed(self, flow: Flow, code: int) -> None:
        """Tell the container what the host was told; a timeout, and a lack of our own, by silence."""
        syn = flow.parsed()
        if syn is not None and code in REFUSED:
            reset(flow.network, *syn)
        elif syn is not None and code in UNREACHABLE and (code != errno.EADDRNOTAVAIL or len(flow.address) == 16):
            unreachable(flow.network, syn[0], UNREACHABLE[code])
        elif code != errno.ETIMEDOUT:
            self.dropped += 1
        self._remove(flow)

    def _repeated(self, flow: Flow, segment: tcp.Segment) -> bool:
        """A segment while the host's side connects: True where the container has given up, and may have begun anew."""
        syn = flow.parsed()
        sequence = syn[1].sequence if syn is not None else 0
        if segment.flags & tcp.RST:
            if segment.sequence in (sequence, (sequence + 1) & 0xFFFFFFFF):
                self._remove(flow, abort=True)
            return False
        if segment.flags & _SYN_KIND != tcp.SYN or segment.sequence == sequence:
            return False
        self._remove(flow, abort=True)
        return True

    @staticmethod
    def _sizes(flow: Flow) -> Sizes:
        header = HEADER4 if len(flow.key.source) == 4 else HEADER6
        mss = flow.network.mtu - header - _TCP_HEADER
        return Sizes(mss, _LARGEST - HEADER4 - _TCP_HEADER)

    # What happens to a connection

    def _arrived(self, flow: Flow, connection: Connection, segment: tcp.Segment) -> None:
        payload = connection.arrived(segment, self._services.loop.now())
        if payload is not None and flow.host is not None:
            try:
                taken = flow.host.send(payload)
            except (BlockingIOError, InterruptedError):
                taken = 0
            except OSError:
                self._host_failed(flow, connection)
                return
            if taken < len(payload):
                connection.keep(payload[taken:])
        self._settle(flow, connection)

    def _host_event(self, flow: Flow, events: int) -> None:
        connection = flow.connection
        if connection is None:
            self._tried(flow)
            return
        if events & ~select.EPOLLOUT:
            self._read(flow, connection, events)
        if events & select.EPOLLOUT and flow.host is not None:
            self._drain(flow, connection)
        self._settle(flow, connection)

    def _tried(self, flow: Flow) -> None:
        host, route = flow.host, flow.route
        if host is not None and route is not None:
            code = host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._unwatch(flow)
            self._connected(flow, route, code)

    def _read(self, flow: Flow, connection: Connection, events: int = 0) -> None:
        """Hand on what the host's socket has, as far as there is room."""
        now = self._services.loop.now()
        for _ in range(_READS):
            room = min(connection.room(), connection.sender.mss)
            if flow.host is None or flow.host_ended or room <= 0:
                self._look_for_error(flow, connection, events)
                return
            try:
                data = flow.host.recv(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                connection.host_reset()
                return
            if not data:
                flow.host_ended = True
                connection.host_eof(now)
                return
            flow.received += len(data)
            connection.host_data(data, now)

    def _look_for_error(self, flow: Flow, connection: Connection, events: int) -> None:
        """EPOLLERR and EPOLLHUP are told whether asked for or not, and again until something is done about them."""
        if flow.host is None or not events & (select.EPOLLERR | select.EPOLLHUP):
            return
        if flow.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.host_reset()
        else:
            self._unwatch(flow)  # both directions have ended, and there is no room yet for what is unread

    def _drain(self, flow: Flow, connection: Connection) -> None:
        """Give the host's socket what waits for it."""
        while connection.pending and flow.host is not None:
            with connection.receiver.head() as head:
                size = len(head)
                try:
                    taken = flow.host.send(head)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError:
                    taken = -1
            if taken < 0:
                self._host_failed(flow, connection)
                return
            connection.host_took(taken)
            if taken < size:
                return

    def _host_failed(self, flow: Flow, connection: Connection) -> None:
        """The host's socket takes no more; what it has received before, the container is still to get."""
        self._read(flow, connection)
        connection.host_reset()
        self._settle(flow, connection)

    def _expired(self, flow: Flow, connection: Connection) -> None:
        flow.armed = NEVER
        connection.timer(self._services.loop.now())
        self._settle(flow, connection)

    # What comes of it

    def _settle(self, flow: Flow, connection: Connection) -> None:
        """Do what the core wants done."""
        self._transmit(flow, connection)
        if connection.ack_due:
            self._acknowledge_later(flow)
        if connection.take_shutdown():
            self._shut(flow, connection)
        state = connection.state
        if state is State.CLOSED:
            self._closed(flow, connection)
            return
        if flow.half_open and state is not State.SYN_RECEIVED and state is not State.SYN_SENT:
            self._no_longer_half_open(flow)
        if flow.host is not None:
            self._watch_host(flow, connection)
        deadline = connection.deadline
        if deadline < flow.armed:
            self._arm(flow, connection, deadline)

    def _transmit(self, flow: Flow, connection: Connection) -> None:
        key, tun = flow.key, flow.network.tun
        for out in connection.take_segments():
            header = tcp.header(
                key.destination_port,
                key.source_port,
                out.sequence,
                out.acknowledgement,
                out.flags,
                out.window,
                out.options,
            )
            if tun is not None:
                parts = (header, out.payload) if out.payload else (header,)
                tun.send_ip(key.destination, key.source, TCP, *parts, checksum_offset=tcp.CHECKSUM_OFFSET)

    def _acknowledge_later(self, flow: Flow) -> None:
        if not self._due:
            self._services.loop.later(0, self._acknowledge)
        self._due.append(flow)

    def _acknowledge(self) -> None:
        due, self._due = self._due, []
        for flow in due:
            if flow.connection is not None and flow.connection.ack_due:
                flow.connection.flush()
                self._transmit(flow, flow.connection)

    def _shut(self, flow: Flow, connection: Connection) -> None:
        flow.shut = True
        try:
            if flow.host is not None:
                flow.host.shutdown(socket.SHUT_WR)
        except OSError:  # it was reset: the container is to be told
            if connection.state is not State.CLOSED:
                connection.host_reset()
                self._transmit(flow, connection)

    def _watch_host(self, flow: Flow, connection: Connection) -> None:
        """Look for what the host's socket can do next; where both its directions have ended, it is closed."""
        if flow.host_ended and flow.shut:
            self._drop_host(flow)
            return
        events = select.EPOLLOUT if connection.pending else 0
        if not flow.host_ended and connection.room() > 0:
            events |= select.EPOLLIN
        if events != flow.watched:
            self._watch(flow, events)

    def _arm(self, flow: Flow, connection: Connection, deadline: float) -> None:
        if flow.timer is not None:
            flow.timer.cancel()
        flow.armed = deadline
        wait = deadline - self._services.loop.now()
        flow.timer = self._services.loop.later(max(0.0, wait), lambda: self._expired(flow, connection))

    def _closed(self, flow: Flow, connection: Connection) -> None:
        """The container's side is over. In order, the host's socket may still have to take what is left."""
        if not connection.pending or flow.host is None:
            self._remove(flow, abort=connection.end is not End.FINISHED)
            return
        if flow.watched != select.EPOLLOUT:
            self._watch(flow, select.EPOLLOUT)
            self._linger(flow, connection, -1)

    def _linger(self, flow: Flow, connection: Connection, left: int) -> None:
        now_left = sum(map(len, connection.pending))
        if now_left == left:
            self._remove(flow, abort=True)
            return
        if flow.timer is not None:
            flow.timer.cancel()
        later = self._services.loop.later
        flow.timer = later(LINGER_SECONDS, lambda: self._linger(flow, connection, now_left))

    # The table, and the descriptors

    def _watch(self, flow: Flow, events: int) -> None:
        if flow.host is not None:
            flow.watched = events
            self._services.loop.watch(flow.host.fileno(), events, lambda events: self._host_event(flow, events))

    def _unwatch(self, flow: Flow) -> None:
        flow.watched = 0
        if flow.host is not None:
            self._services.loop.unwatch(flow.host.fileno())

    def _drop_host(self, flow: Flow, *, abort: bool = False) -> None:
        if flow.host is not None:
            self._unwatch(flow)
            close(flow.host, reset=abort)
            flow.host = None

    def _add(self, flow: Flow) -> None:
        self._flows[flow.key] = flow
        tally = self._tallies.get(flow.container)
        if tally is None:
            tally = self._tallies[flow.container] = Tally(self._budget)
        tally.flows += 1
        tally.half_open += 1
        self._half_open += 1

    def _no_longer_half_open(self, flow: Flow) -> None:
        if flow.half_open:
            flow.half_open = False
            self._half_open -= 1
            self._tallies[flow.container].half_open -= 1

    def _abort(self, flow: Flow) -> None:
        if flow.connection is not None:
            flow.connection.host_reset()
            self._transmit(flow, flow.connection)
        self._remove(flow, abort=True)

    def _remove(self, flow: Flow, *, abort: bool = False) -> None:
        """Forget it. The host's socket, if it is still there, is closed, by a reset if so said."""
        if self._flows.get(flow.key) is not flow:
            return
        self._no_longer_half_open(flow)
        del self._flows[flow.key]
        tally = self._tallies[flow.container]
        tally.flows -= 1
        if not tally.flows:
            del self._tallies[flow.container]
        if flow.timer is not None:
            flow.timer.cancel()
            flow.timer = None
        self._drop_host(flow, abort=abort)
        if flow.connection is not None:
            flow.connection.forget()


def _name(sock: socket.socket) -> tuple[bytes, int]:
    """What *sock* is bound to: the published port, as its client sees it."""
    try:
        address, port = sock.getsockname()[:2]
        return packed(address), port
    except OSError:
        return bytes(4), 0


def _iss() -> int:
    return int.from_bytes(os.urandom(4), "big")


def _row(flow: Flow, now: float) -> "dict[str, Any]":
    key, connection = flow.key, flow.connection
    ends = spelled(key.source, key.source_port), spelled(key.destination, key.destination_port)
    return {
        "container": flow.container,
        "protocol": "tcp",
        "direction": "in" if flow.inward else "out",
        "source": ends[flow.inward],
        "destination": ends[not flow.inward],
        "host": spelled(flow.address, flow.port),
        "state": connection.state.value.lower() if connection is not None else "connecting",
        "sent": connection.receiver.received if connection is not None else 0,
        "received": flow.received,
        "age": round(now - flow.started, 3),
        "path": "user",
    }
