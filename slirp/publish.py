"""Published TCP ports: a client that the host's kernel has accepted is joined with a connection into its container.

The hub binds and listens; we accept, and connect from inside of the network's namespace. Where answers to the client's
own address come to us, the connection is made from that address, port and all, on a transparent socket (rules: `socket
transparent` catches the answers), and so the container sees who called. Otherwise it sees the gateway:

    a client on the host's loopback            127.0.0.1 is the container's own there
    a network without an outside               it has no route to anywhere
    an endpoint that is not the way out        answers would leave by another network
    a client inside of one of our subnets      answers would be looked for on the bridge
    a container without the client's IP version

Without a transparent proxy in the kernel, our own TCP (tcp_user.py) opens the connection over the tun, with the
client's address all the same. UDP is udp.py's.

The client has been accepted before anybody could know whether the container does: where it refuses, the client is
reset, which is the nearest to being refused. While a container is not there yet, its clients wait a moment.
"""

import errno
import select
import socket
from collections.abc import Callable
from typing import NamedTuple

from slirp.egress import parse_block
from slirp.handover import MOST_FLOWS, MOST_FLOWS_EACH, accept, accept_failed, pause, spelled
from slirp.model import Container, Endpoint, Network, packed, unpacked
from slirp.outward import forbidden
from slirp.relay import Pipes, Relay, close, prepare
from slirp.services import Services

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any, Protocol

    class UserTcp(Protocol):
        """Our own TCP, as far as it is needed here: it takes the socket."""

        def open(
            self,
            network: Network,
            endpoint: Endpoint,
            client: tuple[bytes, int],
            container_port: int,
            host_socket: socket.socket,
        ) -> object: ...

    class Udp(Protocol):
        """The published ports of UDP."""

        def published(self, handle: int, listener: socket.socket, container_id: str, container_port: int) -> None: ...
        def unpublished(self, handle: int) -> None: ...


PATIENCE = 5.0  # seconds that a client waits for a container that is not there yet
CONNECT_SECONDS = 30.0  # and for one that does not answer
_RETRY = 0.1
_ACCEPTS = 64  # in one turn
_MAPPED = bytes(10) + b"\xff\xff"

_NOT_YET = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EINVAL))
_TAKEN = frozenset((errno.EADDRINUSE, errno.EADDRNOTAVAIL))


class Publication(NamedTuple):
    """A published port as the hub tells of it; *listener* is ours."""

    handle: int
    container: str
    protocol: str
    container_port: int
    host_ip: str
    host_port: int
    listener: socket.socket


class Client:
    """Somebody who called, from the accept to the end. *address* is packed."""

    __slots__ = (
        *("address", "any_port", "deadline", "endpoint", "inner", "outer", "port", "publication"),
        *("relay", "started", "target"),
    )

    def __init__(self, publication: Publication, outer: socket.socket, address: bytes, port: int, now: float) -> None:
        self.publication = publication
        self.outer: socket.socket | None = outer
        self.address = address
        self.port = port
        self.any_port = False  # its own was taken
        self.started = now
        self.deadline = now + CONNECT_SECONDS
        self.endpoint: Endpoint | None = None
        self.target = b""  # the container's address
        self.inner: socket.socket | None = None
        self.relay: Relay | None = None


class Publisher:
    """The published ports of all containers, and the connections that came in by those of TCP."""

    __slots__ = (
        "_clients",
        "_numbers",
        "_pipes",
        "_publications",
        "_services",
        "_subnets",
        "_sweeping",
        "_udp",
        "_user",
    )

    def __init__(self, services: Services, pipes: Pipes, user_tcp: "UserTcp", udp: "Udp") -> None:
        self._services = services
        self._pipes = pipes
        self._user = user_tcp
        self._udp = udp
        self._publications: dict[int, Publication] = {}
        self._clients: dict[Client, None] = {}  # in the order they came
        self._numbers: dict[str, int] = {}  # by container
        self._subnets: dict[str, Callable[[bytes], bool]] = {}
        self._sweeping = False

    def publish(self, told: "dict[str, Any]", listener_fd: int) -> None:
        """Serve a port, as the hub tells of it; in place of what had the same handle."""
        self.unpublish(told["port"])
        kind = socket.SOCK_STREAM if told["protocol"] == "tcp" else socket.SOCK_DGRAM
        listener = socket.socket(_family(listener_fd), kind, fileno=listener_fd)
        publication = Publication(
            told["port"],
            told["container"],
            told["protocol"],
            told["container_port"],
            told.get("host_ip") or "",
            told["host_port"],
            listener,
        )
        self._publications[publication.handle] = publication
        listener.setblocking(False)
        if publication.protocol == "tcp":
            prepare(listener)
            self._listen(publication)
            self._prepare(publication)
        else:
            self._udp.published(publication.handle, listener, publication.container, publication.container_port)

    def unpublish(self, handle: int) -> None:
        """Accept no more there. Connections that are there stay."""
        publication = self._publications.pop(handle, None)
        if publication is None:
            return
        if publication.protocol == "tcp":
            self._services.loop.unwatch(publication.listener.fileno())
        else:
            self._udp.unpublished(handle)
        publication.listener.close()

    def flows(self, container: str | None) -> "list[dict[str, Any]]":
        """The connections from clients, of one container or of all, as `network flows` lists them."""
        now = self._services.loop.now()
        return [_row(c, now) for c in self._clients if container in (None, c.publication.container)]

    def close_container(self, container: str) -> None:
        """End its connections, and serve its ports no more."""
        for publication in [p for p in self._publications.values() if p.container == container]:
            self.unpublish(publication.handle)
        for client in [c for c in self._clients if c.publication.container == container]:
            self._end(client, reset=True)

    def close_network(self, network: str) -> None:
        """End the connections that come in over this network."""
        for client in [c for c in self._clients if c.endpoint is not None and c.endpoint.network.id == network]:
            self._end(client, reset=True)

    # Accepting

    def _listen(self, publication: Publication) -> None:
        fd = publication.listener.fileno()
        if fd < 0:
            return
        if self._services.short_of_descriptors(fd):
            pause(self._services, publication.listener, lambda: self._listen(publication))
        else:
            self._services.loop.watch(fd, select.EPOLLIN, lambda _: self._accept(publication))

    def _accept(self, publication: Publication) -> None:
        size = 4 if publication.listener.family == socket.AF_INET else 16
        for _ in range(_ACCEPTS):
            try:
                outer, peer = accept(publication.listener, size)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                accept_failed(self._services, publication.listener, error, lambda: self._listen(publication))
                return
            self._welcome(publication, outer, peer)
            if self._services.crowded(outer.fileno()):
                pause(self._services, publication.listener, lambda: self._listen(publication))
                return

    def _welcome(self, publication: Publication, outer: socket.socket, peer: "tuple[Any, ...]") -> None:
        number = self._numbers.get(publication.container, 0)
        if number >= MOST_FLOWS_EACH or len(self._clients) >= MOST_FLOWS:
            close(outer, reset=True)
            return
        address = packed(peer[0].partition("%")[0])
        if address.startswith(_MAPPED):
            address = address[12:]
        client = Client(publication, outer, address, peer[1], self._services.loop.now())
        self._clients[client] = None
        self._numbers[publication.container] = number + 1
        self._sweep_later()
        self._try(client)

    # Connecting

    def _try(self, client: Client) -> None:
        """Connect to the container, if it is there by now."""
        if client.outer is None or client.inner is not None:
            return
        container = self._services.model.containers.get(client.publication.container)
        endpoint = choose_endpoint(container, len(client.address)) if container else None
        if endpoint is None:
            self._later(client)
            return
        client.endpoint = endpoint
        itself = self._shown(client.address, endpoint)
        if itself and not endpoint.network.kernel:
            outer, client.outer = client.outer, None
            self._forget(client)
            peer = client.address, client.port
            self._user.open(endpoint.network, endpoint, peer, client.publication.container_port, outer)
        else:
            self._connect(client, endpoint, itself=itself)

    def _shown(self, address: bytes, endpoint: Endpoint) -> bool:
        """Whether answers to the client's own address would come to us."""
        if endpoint.network.internal or not endpoint.default or forbidden(address):
            return False
        if (endpoint.ipv4 if len(address) == 4 else endpoint.ipv6) is None:
            return False
        return not any(self._inside(network, address) for network in self._services.model.networks.values())

    def _inside(self, network: Network, address: bytes) -> bool:
        cidr = network.subnet4 if len(address) == 4 else network.subnet6
        if not cidr:
            return False
        holds = self._subnets.get(cidr)
        if holds is None:
            holds = self._subnets[cidr] = parse_block(cidr).holds
        return holds(address)

    def _connect(self, client: Client, endpoint: Endpoint, *, itself: bool) -> None:
        client.target = target_of(endpoint, len(client.address))
        family, version = (socket.AF_INET, 4) if len(client.target) == 4 else (socket.AF_INET6, 6)
        kind = f"{'tcp' if itself else 'plain'}{version}"
        fd = self._services.sockets(endpoint.network, kind)
        if fd is None:
            if not self._services.stock.when_there(endpoint.network.id, kind, lambda: self._try(client)):
                self._end(client, reset=True)
            return
        client.inner = socket.socket(family, socket.SOCK_STREAM, 0, fileno=fd)
        try:
            prepare(client.inner)
            if itself:
                _bind(client, client.inner)
            where = (unpacked(client.target), client.publication.container_port)
            code = client.inner.connect_ex(where)
            if code == errno.EINPROGRESS:
                code = client.inner.connect_ex(where)  # across a bridge it is there already
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (errno.EALREADY, errno.EINPROGRESS):
            self._services.loop.watch(fd, select.EPOLLOUT, lambda _: self._tried(client))
        else:
            self._connected(client, code)

    def _tried(self, client: Client) -> None:
        inner = client.inner
        if inner is None or client.relay is not None:
            return
        code = inner.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._services.loop.unwatch(inner.fileno())
        self._connected(client, code)

    def _connected(self, client: Client, code: int) -> None:
        inner, outer = client.inner, client.outer
        if inner is None or outer is None:
            return
        if not code:
            client.relay = Relay(self._services.loop, inner, outer, lambda _: self._end(client), self._pipes)
            return
        client.inner = None
        self._services.loop.unwatch(inner.fileno())
        inner.close()
        if code in _TAKEN and not client.any_port:
            client.any_port = True
            self._try(client)
        elif code in _NOT_YET:
            self._later(client)
        else:
            self._end(client, reset=True)

    def _later(self, client: Client) -> None:
        if self._services.loop.now() - client.started > PATIENCE:
            self._end(client, reset=True)
        else:
            self._services.loop.later(_RETRY, lambda: self._try(client))

    def _prepare(self, publication: Publication) -> None:
        """Have sockets in stock before the first client comes."""
        container = self._services.model.containers.get(publication.container)
        version = 6 if publication.listener.family == socket.AF_INET6 else 4
        endpoint = choose_endpoint(container, 16 if version == 6 else 4) if container else None
        if endpoint is not None:
            if endpoint.network.kernel and endpoint.default:
                self._services.stock.prepare(endpoint.network.id, f"tcp{version}")
            self._services.stock.prepare(endpoint.network.id, f"plain{version}")

    # Ending

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._services.loop.later(CONNECT_SECONDS / 2, self._sweep)

    def _sweep(self) -> None:
        """End those who wait for too long."""
        self._sweeping = False
        now = self._services.loop.now()
        waiting = [client for client in self._clients if client.relay is None]
        for client in waiting:
            if client.deadline <= now:
                self._end(client, reset=True)
        if waiting:
            self._sweep_later()

    def _end(self, client: Client, *, reset: bool = False) -> None:
        if client not in self._clients:
            return
        self._forget(client)
        if client.relay is not None:
            if reset:
                client.relay.abort()
            return
        for sock in (client.inner, client.outer):
            if sock is not None:
                self._services.loop.unwatch(sock.fileno())
                close(sock, reset=reset)
        client.inner = client.outer = None

    def _forget(self, client: Client) -> None:
        del self._clients[client]
        container = client.publication.container
        self._numbers[container] -= 1
        if not self._numbers[container]:
            del self._numbers[container]


def choose_endpoint(container: Container, size: int) -> Endpoint | None:
    """Where a client with an address of *size* bytes comes in: an endpoint of its IP version, the way out first."""

    def rank(endpoint: Endpoint) -> tuple[bool, bool, bool]:
        same = endpoint.ipv4 if size == 4 else endpoint.ipv6
        return same is None, not endpoint.default, endpoint.network.internal

    return min((e for e in container.endpoints if e.addresses()), key=rank, default=None)


def target_of(endpoint: Endpoint, size: int) -> bytes:
    """The endpoint's address of *size* bytes, or the other that it has."""
    wanted, other = (endpoint.ipv4, endpoint.ipv6) if size == 4 else (endpoint.ipv6, endpoint.ipv4)
    return wanted or other or b""


def _bind(client: Client, inner: socket.socket) -> None:
    """To the client's address, and to its port if that is free. Raises OSError."""
    text = unpacked(client.address)
    if not client.any_port:
        try:
            inner.bind((text, client.port))
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            client.any_port = True
    inner.bind((text, 0))


def _family(fd: int) -> int:
    """The address family of a socket."""
    with socket.socket(fileno=fd) as sock:
        try:
            return sock.family
        finally:
            sock.detach()


def _row(client: Client, now: float) -> "dict[str, Any]":
    publication, relay = client.publication, client.relay
    target = client.target or (b"\0" * len(client.address))
    host = publication.host_ip or ("0.0.0.0" if len(client.address) == 4 else "::")
    return {
        "container": publication.container,
        "protocol": "tcp",
        "direction": "in",
        "source": spelled(client.address, client.port),
        "destination": spelled(target, publication.container_port),
        "host": spelled(packed(host), publication.host_port),
        "state": relay.state if relay else "connecting",
        "sent": relay.sent if relay else 0,
        "received": relay.received if relay else 0,
        "age": round(now - client.started, 3),
        "path": "kernel",
    }
