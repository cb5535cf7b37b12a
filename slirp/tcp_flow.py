"""One connection of a container with its socket on the host's side: what either does is handed to the other.

Nothing is copied as long as both keep up: the segment that was read from the tun goes into send(2) as it lies in the
buffer, and what recv(2) gave is written to the tun as one large segment, which is kept until it is acknowledged. A side
that does not keep up is noticed by the other: the window shrinks, or the host's socket is not read. After each event
`settle` does what the core wants done.
"""

import select
import socket

from slirp.handover import Key, spelled
from slirp.model import Network
from slirp.relay import close
from slirp.tcp import Connection
from slirp.tcp_envelope import Envelope
from slirp.tcp_send import NEVER
from slirp.tcp_states import End, Sizes, State
from slirp.tun import TCP
from slirp.wire import tcp
from slirp.wire.ip import HEADER4, HEADER6, Packet

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any, Protocol

    from slirp.loop import Loop, Timer
    from slirp.outward import Route

    class Owner(Protocol):
        """Who has the flow, and hears what becomes of it."""

        def acknowledge_later(self, flow: "Flow", /) -> None: ...
        def tried(self, flow: "Flow", code: int, /) -> None: ...
        def opened(self, flow: "Flow", /) -> None: ...
        def waits(self, flow: "Flow", /) -> None: ...
        def ended(self, flow: "Flow", /, *, abort: bool) -> None: ...


LINGER_SECONDS = 600.0  # that a host's socket may take nothing of what is left, once the container is done
_READS = 8  # from one socket before others have their turn
_LARGEST = 65535  # bytes of a packet, IPv4's header included; IPv6's comes on top
_TCP_HEADER = 20


class Flow:
    """A connection of a container. *connection* is there once the host's side is connected, *syn* until then."""

    __slots__ = (
        *("_armed", "_envelope", "_lingers", "_loop", "_owner", "_timer", "_watched", "address", "connection"),
        *("container", "half_open", "host", "host_ended", "inward", "key", "network", "port", "received", "route"),
        *("shut", "started", "syn", "waiting"),
    )

    def __init__(self, owner: "Owner", loop: "Loop", key: Key, network: Network, container: str) -> None:
        self._owner = owner
        self._loop = loop
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
        self.waiting = False  # in TIME-WAIT, with nothing left to do
        self.host_ended = False
        self.shut = False  # the host's socket has had the end of the container's stream
        self.received = 0  # bytes from the host's socket
        self.started = loop.now()
        ends = key.destination, key.source, key.destination_port, key.source_port
        self._envelope = Envelope(*ends, network.mtu)
        self._watched = 0  # the events that the loop looks for
        self._timer: Timer | None = None
        self._armed = NEVER
        self._lingers = False

    def parsed(self) -> "tuple[Packet, tcp.Segment] | None":
        """The SYN as it was parsed, from our copy of it."""
        if self.syn is None:
            return None
        data, at = memoryview(self.syn[0]), self.syn[1]
        source, destination = self.key.source, self.key.destination
        packet = Packet(4 if len(source) == 4 else 6, source, destination, TCP, 64, data[at:], data[:at], None)
        segment = tcp.parse(packet.payload)
        return (packet, segment) if segment is not None else None

    def sizes(self) -> Sizes:
        """What a segment may be on this network."""
        header = HEADER4 if len(self.key.source) == 4 else HEADER6
        return Sizes(self.network.mtu - header - _TCP_HEADER, _LARGEST - HEADER4 - _TCP_HEADER)

    # Events

    def arrived(self, connection: Connection, segment: tcp.Segment) -> None:
        """A segment of the container."""
        payload = connection.arrived(segment, self._loop.now())
        if payload is not None and self.host is not None:
            try:
                taken = self.host.send(payload)
            except (BlockingIOError, InterruptedError):
                taken = 0
            except OSError:
                self._host_failed(connection)
                return
            if taken < len(payload):
                connection.keep(payload[taken:])
        self.settle(connection)

    def _host_event(self, events: int) -> None:
        connection = self.connection
        if connection is None:
            if self.host is not None:
                self._owner.tried(self, self.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return
        if events & ~select.EPOLLOUT:
            self._read(connection, events)
        if events & select.EPOLLOUT:
            self._drain(connection)
        self.settle(connection)

    def _read(self, connection: Connection, events: int = 0) -> None:
        """Hand on what the host's socket has, as far as there is room."""
        now = self._loop.now()
        for _ in range(_READS):
            room = min(connection.room(), connection.sender.mss)
            if self.host is None or self.host_ended or room <= 0:
                self._look_for_error(connection, events)
                return
            try:
                data = self.host.recv(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                connection.host_reset()
                return
            if not data:
                self.host_ended = True
                connection.host_eof(now)
                return
            self.received += len(data)
            connection.host_data(data, now)
            self.transmit(connection)  # while it is in the processor's cache

    def _look_for_error(self, connection: Connection, events: int) -> None:
        """EPOLLERR and EPOLLHUP are told whether asked for or not, and again until something is done about them."""
        if self.host is None or not events & (select.EPOLLERR | select.EPOLLHUP):
            return
        if self.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.host_reset()
        else:
            self._unwatch()  # both directions have ended, and there is no room yet for what is unread

    def _drain(self, connection: Connection) -> None:
        """Give the host's socket what waits for it."""
        while connection.pending and self.host is not None:
            with connection.receiver.head() as head:
                size = len(head)
                try:
                    taken = self.host.send(head)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError:
                    taken = -1
            if taken < 0:
                self._host_failed(connection)
                return
            connection.host_took(taken)
            if taken < size:
                return

    def _host_failed(self, connection: Connection) -> None:
        """The host's socket takes no more; what it has received before, the container is still to get."""
        self._read(connection)
        connection.host_reset()
        self.settle(connection)

    def _expired(self) -> None:
        self._armed = NEVER
        if self.connection is not None:
            self.connection.timer(self._loop.now())
            self.settle(self.connection)

    # What comes of it

    def settle(self, connection: Connection) -> None:
        """Do what the core wants done."""
        self.transmit(connection)
        if connection.ack_due:
            self._owner.acknowledge_later(self)
        if connection.take_shutdown():
            self._shut(connection)
        state = connection.state
        if state is State.CLOSED:
            self._closed(connection)
            return
        if self.half_open and state is not State.SYN_RECEIVED and state is not State.SYN_SENT:
            self._owner.opened(self)
        if self.host is not None:
            self._watch_host(connection)
        deadline = connection.deadline
        if deadline < self._armed:
            self._arm(deadline)
        if state is State.TIME_WAIT and self.host is None:
            self._owner.waits(self)

    def transmit(self, connection: Connection) -> None:
        """Send what the core has to send."""
        tun = self.network.tun
        for out in connection.take_segments():
            if tun is not None:
                virtio, headers = self._envelope.headers(out)
                tun.send(headers, out.payload, vnet=virtio)

    def _shut(self, connection: Connection) -> None:
        self.shut = True
        try:
            if self.host is not None:
                self.host.shutdown(socket.SHUT_WR)
        except OSError:  # it was reset: the container is to be told
            if connection.state is not State.CLOSED:
                connection.host_reset()
                self.transmit(connection)

    def _watch_host(self, connection: Connection) -> None:
        """Look for what the host's socket can do next; where both its directions have ended, it is closed."""
        if self.host_ended and self.shut:
            self.drop_host()
            return
        events = select.EPOLLOUT if connection.pending else 0
        if not self.host_ended and connection.room() > 0:
            events |= select.EPOLLIN
        if events != self._watched:
            self.watch(events)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.later(max(0.0, deadline - self._loop.now()), self._expired)

    def _closed(self, connection: Connection) -> None:
        """The container's side is over. In order, the host's socket may still have to take what is left."""
        if not connection.pending or self.host is None:
            self._owner.ended(self, abort=connection.end is not End.FINISHED)
        elif not self._lingers:
            self._lingers = True
            self.watch(select.EPOLLOUT)
            self._linger(connection, -1)

    def _linger(self, connection: Connection, left: int) -> None:
        still_left = sum(map(len, connection.pending))
        if still_left == left:
            self._owner.ended(self, abort=True)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(LINGER_SECONDS, lambda: self._linger(connection, still_left))

    # The descriptor

    def watch(self, events: int) -> None:
        """Look for these events of the host's socket."""
        if self.host is not None:
            self._watched = events
            self._loop.watch(self.host.fileno(), events, self._host_event)

    def _unwatch(self) -> None:
        self._watched = 0
        if self.host is not None:
            self._loop.unwatch(self.host.fileno())

    def drop_host(self, *, abort: bool = False) -> None:
        """Close the host's socket, by a reset if so said."""
        if self.host is not None:
            self._unwatch()
            close(self.host, reset=abort)
            self.host = None

    def release(self) -> None:
        """Hold nothing and wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.connection is not None:
            self.connection.forget()

    def row(self, now: float) -> "dict[str, Any]":
        """As `network flows` lists it."""
        key, connection = self.key, self.connection
        ends = spelled(key.source, key.source_port), spelled(key.destination, key.destination_port)
        return {
            "container": self.container,
            "protocol": "tcp",
            "direction": "in" if self.inward else "out",
            "source": ends[self.inward],
            "destination": ends[not self.inward],
            "host": spelled(self.address, self.port),
            "state": connection.state.value.lower() if connection is not None else "connecting",
            "sent": connection.receiver.received if connection is not None else 0,
            "received": self.received,
            "age": round(now - self.started, 3),
            "path": "user",
        }
