"""TCP of containers where the kernel has no transparent proxy: our own (tcp.py) on the tun, a host socket beyond.

    out   a container's SYN waits here while the host's side connects. Refused: the container gets a RST; unreachable:
          an ICMP error; no answer: none. Connected: the core answers the SYN, and from then on it is two connections
          with bytes handed from one to the other, end by end: FIN for shutdown, RST for reset.
    in    a client of a published port was accepted; the core calls the container in the client's name.

How the two sides move each other is in tcp_flow.py. Here are the connections of all containers and their limits: what
waits is counted (tcp_budget.py), half-open connections are few, and each is no more than a socket and the SYN, and
those that are over are remembered shortly (TIME-WAIT). Acknowledgements go out once for each round of the loop.
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
    YOUNG_SECONDS,
    Key,
    reset,
    unreachable,
)
from slirp.model import Endpoint, Network, packed, unpacked
from slirp.outward import Refusal, Route
from slirp.relay import close, prepare
from slirp.services import Services
from slirp.tcp import Connection
from slirp.tcp_budget import IN_ALL, PER_CONTAINER, Budget
from slirp.tcp_flow import Flow
from slirp.wire import icmp, tcp
from slirp.wire.ip import Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

MOST_TIME_WAIT = 1024  # remembered in all; the oldest are forgotten first
LARGEST_SYN = 2048  # bytes kept of a SYN's packet, to be quoted in an ICMP error
_LOCALHOST6 = bytes(15) + b"\1"
_SYN_KIND = tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN
_MAPPED = bytes(10) + b"\xff\xff"


class Tally:
    """What a container has: connections (how many), which of them are half-open, and bytes that they hold."""

    __slots__ = ("budget", "flows", "half_open")

    def __init__(self, parent: Budget) -> None:
        self.flows = 0
        self.half_open: dict[Key, Flow] = {}  # the oldest first
        self.budget = Budget(PER_CONTAINER, parent)


class UserTcp:
    """All connections of containers that our own TCP carries."""

    __slots__ = ("_budget", "_due", "_flows", "_half_open", "_services", "_tallies", "_waiting", "dropped")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._flows: dict[Key, Flow] = {}
        self._half_open = 0
        self._waiting: dict[Key, Flow] = {}  # in TIME-WAIT: these do not count as flows
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
                flow.arrived(flow.connection, segment)
                return
            self.ended(flow)
        elif flow is not None and not self._repeated(flow, segment):
            return
        if segment.flags & _SYN_KIND == tcp.SYN:
            self._begin(key, network, endpoint, packet, segment)
        else:
            reset(network, packet)

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
        if known is not None and known.waiting:
            self.ended(known)
        if not own or key in self._flows or not self._may_begin(endpoint.container.id):
            close(host_socket, reset=True)
            return
        flow = Flow(self, self._services.loop, key, network, endpoint.container.id)
        flow.inward = True
        flow.host = host_socket
        flow.address, flow.port = _name(host_socket)
        host_socket.setblocking(False)
        prepare(host_socket)
        self._add(flow)
        budget = self._tallies[flow.container].budget
        flow.connection = Connection.call(_iss(), flow.sizes(), budget, self._services.loop.now())
        flow.settle(flow.connection)

    def flows(self, container: str | None) -> "list[dict[str, Any]]":
        """The connections, of one container or of all, as `network flows` lists them."""
        now = self._services.loop.now()
        return [flow.row(now) for flow in self._flows.values() if container in (None, flow.container)]

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

    def review(self, container: str) -> None:
        """Something about the container has changed: end what it may not have any more."""
        permits = self._services.outward.permits
        for flow in [flow for flow in self._flows.values() if flow.container == container]:
            key = flow.key
            if flow.inward:
                endpoint = flow.network.endpoints.get(key.source)
                fits = endpoint is not None and endpoint.container.id == container
            else:
                fits = permits(container, key.network, key.source, key.destination, key.destination_port)
            if not fits:
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
            reset(network, packet)
        elif not self._may_begin(endpoint.container.id) or len(packet.payload) > LARGEST_SYN:
            self.dropped += 1
        else:
            flow = Flow(self, self._services.loop, key, network, endpoint.container.id)
            flow.route = route
            flow.address, flow.port = route.address, route.port
            flow.syn = bytes(packet.header) + packet.payload, len(packet.header)
            self._add(flow)
            self._connect(flow, route)

    def _full(self, container: str) -> bool:
        tally = self._tallies.get(container)
        if len(self._flows) - len(self._waiting) >= MOST_FLOWS:
            return True
        return tally is not None and tally.flows >= MOST_FLOWS_EACH

    def _may_begin(self, container: str) -> bool:
        tally = self._tallies.get(container)
        if self._full(container):
            return False
        if tally is not None and len(tally.half_open) >= MOST_HALF_OPEN_EACH:
            self._give_way(tally, YOUNG_SECONDS)
            return len(tally.half_open) < MOST_HALF_OPEN_EACH
        if self._half_open >= MOST_HALF_OPEN:
            self._make_room(0)
        return self._half_open < MOST_HALF_OPEN

    def _give_way(self, tally: Tally, age: float) -> None:
        """Drop the container's oldest half-open connection, if it has that age: a flood should not last for minutes."""
        oldest = next(iter(tally.half_open.values()), None)
        if oldest is not None and self._services.loop.now() - oldest.started >= age:
            self._abort(oldest)

    def _make_room(self, age: float) -> None:
        """Something that all share has run out: the container with the most half-open connections gives way."""
        self._give_way(max(self._tallies.values(), key=lambda tally: len(tally.half_open)), age)

    def _connect(self, flow: Flow, route: Route) -> None:
        family = socket.AF_INET if len(flow.address) == 4 else socket.AF_INET6
        try:
            flow.host = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
            if self._services.crowded(flow.host.fileno()):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            prepare(flow.host)
            target = (unpacked(flow.address), route.port)
            code = flow.host.connect_ex(target)
            if code == errno.EINPROGRESS:
                code = flow.host.connect_ex(target)  # on loopback it is there already
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (errno.EALREADY, errno.EINPROGRESS):
            flow.watch(select.EPOLLOUT)
        else:
            self._connected(flow, route, code)

    def tried(self, flow: Flow, code: int) -> None:
        """The host's side is connected, or why it is not."""
        if flow.route is not None:
            self._connected(flow, flow.route, code)

    def _connected(self, flow: Flow, route: Route, code: int) -> None:
        syn = flow.parsed()
        if not code and syn is not None:
            self._answer(flow, syn[1])
        elif code in REFUSED and route.loopback and flow.address != _LOCALHOST6:
            flow.drop_host()
            flow.address = _LOCALHOST6
            self._connect(flow, route)
        else:
            self._failed(flow, errno.ECONNREFUSED if route.loopback else code)

    def _answer(self, flow: Flow, syn: tcp.Segment) -> None:
        now = self._services.loop.now()
        budget = self._tallies[flow.container].budget
        flow.connection = Connection.answer(syn, _iss(), flow.sizes(), budget, now)
        flow.syn = None
        flow.settle(flow.connection)

    def _failed(self, flow: Flow, code: int) -> None:
        """Tell the container what the host was told; a timeout, and a lack of our own, by silence."""
        syn = flow.parsed()
        if syn is not None and code in REFUSED:
            reset(flow.network, syn[0])
        elif syn is not None and code in UNREACHABLE and (code != errno.EADDRNOTAVAIL or len(flow.address) == 16):
            unreachable(flow.network, syn[0], UNREACHABLE[code])
        elif code != errno.ETIMEDOUT:
            self.dropped += 1
        if code in (errno.EMFILE, errno.ENFILE):
            self._make_room(YOUNG_SECONDS)
        self.ended(flow)

    def _repeated(self, flow: Flow, segment: tcp.Segment) -> bool:
        """A segment while the host's side connects: True where the container has given up, and may have begun anew."""
        syn = flow.parsed()
        sequence = syn[1].sequence if syn is not None else 0
        if segment.flags & tcp.RST:
            if segment.sequence in (sequence, (sequence + 1) & 0xFFFFFFFF):
                self.ended(flow, abort=True)
            return False
        if segment.flags & _SYN_KIND != tcp.SYN or segment.sequence == sequence:
            return False
        self.ended(flow, abort=True)
        return True

    # What becomes of a flow

    def acknowledge_later(self, flow: Flow) -> None:
        """Let it flush its acknowledgement at the end of this round."""
        if not self._due:
            self._services.loop.later(0, self._acknowledge)
        self._due.append(flow)

    def _acknowledge(self) -> None:
        due, self._due = self._due, []
        for flow in due:
            if flow.connection is not None and flow.connection.ack_due:
                flow.connection.flush()
                flow.transmit(flow.connection)

    def _add(self, flow: Flow) -> None:
        self._flows[flow.key] = flow
        tally = self._tallies.get(flow.container)
        if tally is None:
            tally = self._tallies[flow.container] = Tally(self._budget)
        tally.flows += 1
        tally.half_open[flow.key] = flow
        self._half_open += 1

    def opened(self, flow: Flow) -> None:
        """The handshake is over."""
        if flow.half_open:
            flow.half_open = False
            self._half_open -= 1
            del self._tallies[flow.container].half_open[flow.key]

    def waits(self, flow: Flow) -> None:
        """It is over, and only remembered."""
        if flow.waiting:
            return
        flow.waiting = True
        self._waiting[flow.key] = flow
        self._count_out(flow)
        if len(self._waiting) > MOST_TIME_WAIT:
            self.ended(next(iter(self._waiting.values())))

    def _count_out(self, flow: Flow) -> None:
        tally = self._tallies[flow.container]
        tally.flows -= 1
        if not tally.flows:
            del self._tallies[flow.container]

    def _abort(self, flow: Flow) -> None:
        if flow.connection is not None:
            flow.connection.host_reset()
            flow.transmit(flow.connection)
        self.ended(flow, abort=True)

    def ended(self, flow: Flow, *, abort: bool = False) -> None:
        """Forget it. The host's socket, if it is still there, is closed, by a reset if so said."""
        if self._flows.get(flow.key) is not flow:
            return
        self.opened(flow)
        del self._flows[flow.key]
        if flow.waiting:
            del self._waiting[flow.key]
        else:
            self._count_out(flow)
        flow.drop_host(abort=abort)
        flow.release()


def _name(sock: socket.socket) -> tuple[bytes, int]:
    """What *sock* is bound to: the published port, as its client sees it."""
    try:
        address, port = sock.getsockname()[:2]
        own = packed(address)
        return (own[12:] if own.startswith(_MAPPED) else own), port
    except OSError:
        return bytes(4), 0


def _iss() -> int:
    return int.from_bytes(os.urandom(4), "big")
