"""The DNS of the gateways: containers by their names, all else from the host's resolvers.

The hub makes the sockets, on port 53 of the gateway's addresses in the network's namespace; here they are served.
Whoever asks is known by the network and the source address, and so gets answers of its own: the names of its peers
(names.py), then what its `--dns` servers or the host's resolvers say (forwarding.py). A server that is a container on
one of the asker's networks is asked from inside of that network. A container that has only internal networks is told
that nothing else exists: not a byte of its questions leaves (CVE-2024-29018). Where egress rules hold, only names they
speak of are asked for, and the addresses that come back are what these names allow.

Answers have no lifetime of their own: names are true when they are asked for.
"""

import select
import socket
from collections.abc import Callable

from slirp.dns_stream import Reply, Stream
from slirp.forwarding import Forwarder, Question, Server, host_server
from slirp.model import Container, Endpoint, Network, packed
from slirp.names import Found, look_up, own_networks
from slirp.wire import dns as wire
from slirp.wire.dns import Answer, Query

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from slirp.services import Services

MAX_STREAMS = 256
MAX_STREAMS_PER_ASKER = 32
_DATAGRAMS = 32  # at a time
_RECHECK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0  # without accepting, where there are no descriptors left
_MAX_ANSWERS = 64  # addresses of one name


class Door:
    """A network's sockets, and the connections that came in by them."""

    __slots__ = ("listeners", "network", "sockets", "streams")

    def __init__(self, network: str, sockets: list[socket.socket], listeners: list[socket.socket]) -> None:
        self.network = network
        self.sockets, self.listeners = sockets, listeners
        self.streams: dict[Stream, bytes] = {}  # with the asker's address


class Dns:
    """All networks' DNS. *recheck* asks the hub to look whether the host's resolvers have changed."""

    def __init__(self, services: "Services", recheck: Callable[[], None], *, port: int = 53) -> None:
        self._model, self._outward, self._loop = services.model, services.outward, services.loop
        self._services = services
        self._recheck, self._rechecked = recheck, float("-inf")
        self._forwarder = Forwarder(services.loop, port=port)
        self._doors: dict[str, Door] = {}
        self._resolvers: list[str] = []
        self._turn = 0

    def serve(self, network: Network, udp_fds: list[int], tcp_fds: list[int]) -> None:
        """Answer on these descriptors, which are ours from now on; in place of those there were."""
        self.forget(network.id)
        door = Door(network.id, [_adopt(fd) for fd in udp_fds], [_adopt(fd) for fd in tcp_fds])
        self._doors[network.id] = door
        for udp in door.sockets:
            self._hear(door, udp)
        for listener in door.listeners:
            self._listen(door, listener)

    def forget(self, network: Network | str) -> None:
        """Close what belongs to it, and what is under way for it."""
        network_id = network if isinstance(network, str) else network.id
        door = self._doors.pop(network_id, None)
        if door is None:
            return
        for served in (*door.sockets, *door.listeners):
            self._loop.unwatch(served.fileno())
            served.close()
        for stream in list(door.streams):
            stream.close()
        self._forwarder.forget(network=network_id)

    def close_container(self, container_id: str) -> None:
        """It is gone: do not go on asking for it."""
        self._forwarder.forget(container=container_id)

    def resolvers(self, servers: list[str]) -> None:
        """The host's, from now on."""
        if servers != self._resolvers:
            self._resolvers = list(servers)
            self._forwarder.servers_changed()

    def _hear(self, door: Door, udp: socket.socket) -> None:
        self._loop.watch(udp.fileno(), select.EPOLLIN, lambda _: self._datagrams(door, udp))

    def _listen(self, door: Door, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(door, listener))

    def _datagrams(self, door: Door, udp: socket.socket) -> None:
        for _ in range(_DATAGRAMS):
            try:
                message, source = udp.recvfrom(65535)
            except OSError:  # there is none, or it tells that an answer did not arrive: that was for its asker
                return
            self._asked(door.network, _address(source), message, False, _to(udp, source))
            if udp.fileno() < 0:
                return

    def _accept(self, door: Door, listener: socket.socket) -> None:
        try:
            connection, source = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._services.log(f"DNS: accept: {error.strerror}")
            self._loop.unwatch(listener.fileno())
            self._loop.later(_PAUSE_SECONDS, lambda: self._listen(door, listener))
            return
        address = _address(source)
        theirs = sum(1 for asker in door.streams.values() if asker == address)
        if theirs >= MAX_STREAMS_PER_ASKER or sum(len(d.streams) for d in self._doors.values()) >= MAX_STREAMS:
            connection.close()
            return
        connection.setblocking(False)

        def ask(message: bytes, reply: Reply) -> None:
            self._asked(door.network, address, message, True, reply)

        def ended(stream: Stream) -> None:
            door.streams.pop(stream, None)

        door.streams[Stream(self._loop, connection, ask, ended)] = address

    def _asked(self, network_id: str, address: bytes, message: bytes, stream: bool, reply: Reply) -> None:
        """Answer *message*, with nothing where it is no question at all."""
        query = wire.parse_query(message)
        if query is None:
            reply(wire.refusal(message, wire.FORMERR) or b"")
            return
        network = self._model.networks.get(network_id)
        endpoint = self._model.endpoint(network, address) if network else None
        if endpoint is None or query.klass != wire.IN:
            reply(wire.answer(query, wire.REFUSED))
        elif query.opcode:
            reply(wire.answer(query, wire.NOTIMP))
        elif found := look_up(self._model, endpoint.container, query.name, query.kind):
            reply(self._local(query, found, 65535 if stream else query.size))
        else:
            self._forward(endpoint, Question(endpoint.container.id, network_id, message, query, stream), reply)

    def _local(self, query: Query, found: Found, size: int) -> bytes:
        """What is *found*; whoever asks for another type learns that there is none. Addresses take turns."""
        if not found.exists:
            return wire.answer(query, wire.NXDOMAIN)
        wanted = {wire.A: (4,), wire.AAAA: (16,), wire.ANY: (4, 16)}.get(query.kind, ())
        addresses = [address for address in found.addresses if len(address) in wanted]
        self._turn += 1
        start = self._turn % len(addresses) if addresses else 0
        records = [(wire.A if len(a) == 4 else wire.AAAA, a) for a in addresses[start:] + addresses[:start]]
        names = [packed for name in found.names if (packed := wire.packed_name(name))]
        if query.kind in (wire.PTR, wire.ANY) and names:
            records.append((wire.PTR, names[0]))
        return wire.answer(query, wire.NOERROR, records[:_MAX_ANSWERS], size=size)

    def _forward(self, endpoint: Endpoint, question: Question, reply: Reply) -> None:
        container, query = endpoint.container, question.query
        servers = self._servers(container)
        if not servers:
            outside = any(not network.internal for network in own_networks(container))
            reply(wire.answer(query, wire.SERVFAIL if outside else wire.NXDOMAIN))
            return
        if not self._outward.may_resolve(container.id, query.name, endpoint.network):
            reply(wire.answer(query, wire.REFUSED))
            return

        if not container.dns:
            self._look_for_changes()

        def done(message: bytes | None, answer: Answer | None) -> None:
            for address, ttl in wire.learned(query, answer) if answer else ():
                self._outward.learn(container.id, query.name, address, ttl)
            reply(message or wire.answer(query, wire.SERVFAIL))

        if not self._forwarder.ask(question, lambda: self._servers(container), done):
            reply(wire.answer(query, wire.SERVFAIL))

    def _servers(self, container: Container) -> list[Server]:
        """Whom to ask for it: its own servers or the host's, and of these, those that it may reach."""
        networks = own_networks(container)
        outside = [host_server(text) for text in container.dns or self._resolvers]
        if all(network.internal for network in networks):
            outside = []
        if not container.dns:
            return outside
        inside = {text: server for text in container.dns if (server := self._inside(networks, text))}
        return [*inside.values(), *(server for server in outside if server.address not in inside)]

    def _inside(self, networks: list[Network], text: str) -> Server | None:
        """A container on one of these networks as a resolver: reached from there, by sockets of the hub's."""
        address = _address((text, 0))
        network = next((network for network in networks if address in network.endpoints), None)
        if network is None:
            return None
        version, services = "4" if len(address) == 4 else "6", self._services

        def open_socket(stream: bool) -> socket.socket | None:
            fd = services.sockets(network, ("plain" if stream else "udp") + version)
            return None if fd is None else _adopt(fd)

        return Server(text, open_socket)

    def _look_for_changes(self) -> None:
        if self._loop.now() - self._rechecked >= _RECHECK_SECONDS:
            self._rechecked = self._loop.now()
            self._recheck()


def _adopt(fd: int) -> socket.socket:
    adopted = socket.socket(fileno=fd)
    adopted.setblocking(False)
    return adopted


def _address(source: tuple[str, int]) -> bytes:
    return packed(source[0].partition("%")[0])


def _to(udp: socket.socket, source: tuple[str, int]) -> Reply:
    """What answers whoever asked from there."""

    def reply(message: bytes) -> None:
        try:
            if message and udp.fileno() >= 0:
                udp.sendto(message, source)
        except OSError:
            return  # it asks again, as if the answer had been lost on the way

    return reply
