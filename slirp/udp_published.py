"""Published UDP ports: clients of the host's side reach a container, which sees who they are.

The published socket hears a client's first datagrams. Each client then has a flow (udp_flow.py) whose socket on the
host's side is bound to the address that the client has called and connected to the client, so that further datagrams
come in by that, and answers leave from there. The container gets the first datagram by the tun, with the client's
address as its source, and a busy flow moves to the kernel path as any other.

Some clients cannot be shown so, because an answer to their address would never come to us: those on the host's
loopback, those whose address means something else in the network, all clients of a network without a way out, and those
of the other IP version. They appear as the gateway, a port for each, by a socket of the network's namespace; that the
kernel takes these packets for its own is just what is needed then.
"""

import select
import socket
import struct
from typing import NamedTuple

from slirp.egress import parse_block
from slirp.model import Container, Endpoint, Network, packed, unpacked
from slirp.outward import forbidden
from slirp.services import Services
from slirp.udp_flow import Flow, adopted, new_socket, strays

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Iterable

    from slirp.udp import Udp

DATAGRAMS = 64  # of one port, before others have their turn
MOST_WAITING = 64  # clients whose first datagram waits for a socket of the network's namespace
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50  # linux/in.h, linux/in6.h
_PKTINFO = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, the local address, the header's destination
_ANCILLARY = socket.CMSG_SPACE(20)  # the larger one, struct in6_pktinfo
_LINK_LOCAL6 = parse_block("fe80::/10")
_MAPPED = parse_block("::ffff:0:0/96")


class Client(NamedTuple):
    """Who called, and at which of our addresses: addresses as bytes. *scope* is that of IPv6 link-local ones."""

    address: bytes
    port: int
    local: bytes
    scope: int


class Port:
    """A published port: the socket, whose descriptor is the caller's, and the flows of its clients."""

    __slots__ = ("container", "container_port", "flows", "handle", "host_port", "listener", "waiting")

    def __init__(self, handle: int, listener: socket.socket, container: str, container_port: int) -> None:
        self.handle = handle
        self.listener = listener
        self.host_port: int = listener.getsockname()[1]
        self.container = container
        self.container_port = container_port
        self.flows: dict[Client, Flow] = {}
        self.waiting: set[Client] = set()


class UdpPorts:
    """All published UDP ports."""

    __slots__ = ("_ports", "_services", "_udp", "dropped")

    def __init__(self, services: Services, udp: "Udp") -> None:
        self._services = services
        self._udp = udp
        self._ports: dict[int, Port] = {}
        self.dropped = 0  # datagrams for a container that is not there, or that there was no socket for

    def add(self, handle: int, listener: socket.socket, container: str, container_port: int) -> None:
        """Serve the bound socket *listener*, which stays the caller's, until `remove`."""
        self.remove(handle)
        listener.setblocking(False)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            listener.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        # Set after bind: nobody else was able to share the port when it was bound, and now only this user could.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port = self._ports[handle] = Port(handle, listener, container, container_port)
        self._services.loop.watch(listener.fileno(), select.EPOLLIN, lambda _events: self._readable(port))

    def remove(self, handle: int) -> None:
        """Serve it no longer; its flows end. To be called before the listener is closed."""
        port = self._ports.pop(handle, None)
        if port is not None:
            self._services.loop.unwatch(port.listener.fileno())
            for flow in list(port.flows.values()):
                self._udp.close(flow)

    def _readable(self, port: Port) -> None:
        for _ in range(DATAGRAMS):
            try:
                data, ancillary, _, sender = port.listener.recvmsg(65535, _ANCILLARY)
            except OSError:  # nothing more; or an error about an answer, of which the listener sends none
                return
            self._datagram(port, _client(sender, _local(ancillary)), data)

    def _datagram(self, port: Port, client: Client | None, data: bytes) -> None:
        container = self._services.model.containers.get(port.container)
        if client is None or container is None:
            self.dropped += 1
            return
        flow = port.flows.get(client)
        if flow is not None:
            self._udp.into(flow, data)
        elif endpoint := _endpoint(container):
            self._open(port, client, endpoint, data)

    def _open(self, port: Port, client: Client, endpoint: Endpoint, data: bytes) -> None:
        self._udp.make_room(endpoint.container.id)
        own = endpoint.ipv4 if len(client.address) == 4 else endpoint.ipv6
        if own and self._shown(client, endpoint):
            flow = self._flow(port, client, endpoint.network, own, (client.address, client.port))
            if flow is not None:
                self._udp.into(flow, data)
            return
        address, gateway = _same_family(endpoint, client)
        if address and gateway:
            self._open_as_gateway(port, client, endpoint.network.id, (address, gateway), data)

    def _open_as_gateway(
        self, port: Port, client: Client, network_id: str, ends: tuple[bytes, bytes], data: bytes
    ) -> None:
        """A flow that the container sees coming from the gateway; once there is a socket for it."""
        network = self._services.model.networks.get(network_id)
        if network is None or port.handle not in self._ports:
            return
        address, gateway = ends
        kind = "udp6" if len(address) == 16 else "udp4"
        descriptor = self._services.sockets(network, kind)
        if descriptor is None:
            self._wait(port, client, network, kind, ends, data)
            return
        try:
            inner = adopted(descriptor, gateway, 0)
        except OSError as error:
            self._failed(port, error)
            return
        flow = self._flow(port, client, network, address, (gateway, inner.getsockname()[1]))
        if flow is None:
            inner.close()
            return
        try:
            self._udp.connect_inner(flow, inner)
        except OSError as error:
            inner.close()
            self._udp.close(flow)
            self._failed(port, error)
            return
        self._udp.into(flow, data)

    def _wait(
        self, port: Port, client: Client, network: Network, kind: str, ends: tuple[bytes, bytes], data: bytes
    ) -> None:
        if client in port.waiting or len(port.waiting) >= MOST_WAITING:
            self.dropped += 1
            return

        def there() -> None:
            port.waiting.discard(client)
            self._datagram_again(port, client, network.id, ends, data)

        if self._services.stock.when_there(network.id, kind, there):
            port.waiting.add(client)

    def _datagram_again(
        self, port: Port, client: Client, network_id: str, ends: tuple[bytes, bytes], data: bytes
    ) -> None:
        if client in port.flows:
            self._datagram(port, client, data)
        else:
            self._open_as_gateway(port, client, network_id, ends, data)

    def _flow(
        self, port: Port, client: Client, network: Network, address: bytes, peer: tuple[bytes, int]
    ) -> Flow | None:
        """A flow with its socket on the host's side. Who else has been heard by that in the meantime is served too."""
        try:
            host = _connected(client, port.host_port)
        except OSError as error:
            self._failed(port, error)
            return None
        key = (network.id, address, port.container_port, *peer)
        now = self._services.loop.now()
        flow = Flow(key, port.container, host, (client.address, client.port), now)
        flow.handle = port.handle

        def ended() -> None:
            del port.flows[client]

        flow.ended = ended
        port.flows[client] = flow
        others = [(sender, data) for data, sender in strays(host)]  # before it joins the loop, and is read from
        self._udp.add(flow)
        for sender, data in others:
            self._known(port, _client(sender, client.local), data)
        return flow

    def _known(self, port: Port, client: Client | None, data: bytes) -> None:
        """A datagram for a flow that is there. Not for another: to open one can bring up the next, without an end."""
        if client in port.flows:
            self._udp.into(port.flows[client], data)
        else:
            self.dropped += 1

    def _shown(self, client: Client, endpoint: Endpoint) -> bool:
        """Whether an answer to the client's own address would come to us."""
        network = endpoint.network
        if network.internal or network.tun is None or not endpoint.default or forbidden(client.address):
            return False
        return not _inside(client.address, self._services.model.networks.values())

    def _failed(self, port: Port, error: OSError) -> None:
        self.dropped += 1
        self._udp.relieve(error)
        self._udp.complain(f"udp: no socket for a client of port {port.host_port}: {error.strerror}")


def _endpoint(container: Container) -> Endpoint | None:
    """Where the container's way out leads, else where it is at all: networks with an outside first."""
    best = sorted(container.endpoints, key=lambda e: (not e.default, e.network.internal))
    return best[0] if best else None


def _same_family(endpoint: Endpoint, client: Client) -> tuple[bytes | None, bytes | None]:
    """The container's address and the gateway's: of the client's version of IP, else of the other."""
    network = endpoint.network
    ends = [(endpoint.ipv4, network.gateway4), (endpoint.ipv6, network.gateway6)]
    if len(client.address) == 16:
        ends.reverse()
    return next(((address, gateway) for address, gateway in ends if address and gateway), (None, None))


def _connected(client: Client, host_port: int) -> socket.socket:
    """A socket connected to the client, bound to where it called."""
    made = new_socket(client.address)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.bind((unpacked(client.local), host_port, 0, client.scope))
            made.connect((unpacked(client.address), client.port, 0, client.scope))
        else:
            made.bind((unpacked(client.local), host_port))
            made.connect((unpacked(client.address), client.port))
    except OSError:
        made.close()
        raise
    return made


def _client(sender: "tuple[str, int] | tuple[str, int, int, int]", local: bytes) -> Client | None:
    """Who sent a datagram; None if that cannot be answered."""
    address = packed(sender[0].partition("%")[0])
    if not sender[1] or len(address) != len(local) or _MAPPED.holds(address):
        return None
    scope = sender[3] if len(sender) > 3 and _LINK_LOCAL6.holds(address) else 0
    return Client(address, sender[1], local, scope)


def _local(ancillary: "Iterable[tuple[int, int, bytes]]") -> bytes:
    """The address that was called, as IP_PKTINFO and IPV6_PKTINFO tell."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(data) >= _PKTINFO.size:
            return bytes(_PKTINFO.unpack_from(data)[1])
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and len(data) >= 16:
            return data[:16]
    return b""


def _inside(address: bytes, networks: "Iterable[Network]") -> bool:
    """Whether the address is one of the networks' own."""
    for network in networks:
        cidr = network.subnet4 if len(address) == 4 else network.subnet6
        if cidr and parse_block(cidr).holds(address):
            return True
    return False
