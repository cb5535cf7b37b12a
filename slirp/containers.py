"""The requests about containers: what is attached, plugged in, published, and told to STACK. All of it, or nothing.

An attachment is a connection's: it holds addresses and ports from `attach` on, and interfaces and accepting from `plug`
on, once for each start of the container. When the connection ends, everything goes.
"""

import fcntl
import os
from contextlib import ExitStack

from slirp import links, ports, requests
from slirp.attachment import Attachment, Endpoint
from slirp.errors import Conflict, HostUnsupported, InvalidInput, NotFound, SlirpError
from slirp.networks import told_why
from slirp.syscalls import CLONE_NEWNET

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from slirp.networks import Network, Networks
    from slirp.ports import Binding, Port, Ports
    from slirp.supervision import Stack

    Told = dict[str, Any]

_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)


class Containers:
    """Those that are attached, by id."""

    __slots__ = ("_by_id", "_changed", "_log", "_networks", "_ports", "_stack")

    def __init__(
        self,
        networks: "Networks",
        ports: "Ports",
        stack: "Stack",
        log: "Callable[[str], None]",
        changed: "Callable[[], None]",
    ) -> None:
        """*changed* is called whenever there is one more or less."""
        self._networks, self._ports, self._stack = networks, ports, stack
        self._log, self._changed = log, changed
        self._by_id: dict[str, Attachment] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, told: "Told") -> Attachment:
        """The one that a request names. Raises NotFound."""
        name = requests.text(told, "container", needed=True)
        found = self._by_id.get(name)
        if found is None:
            raise NotFound(f"container {name[:12]} has no network here: it does not run")
        return found

    # attach and detach

    def attach(self, told: "Told") -> Attachment:
        """Take addresses and listen on ports for a container. Raises SlirpError, and then nothing is taken."""
        attachment = Attachment(told)
        if attachment.id in self._by_id:
            raise Conflict(f"container {attachment.name} is attached already")
        endpoints = requests.parse_endpoints(told)
        wanted = _ports(told, "ports")
        with ExitStack() as undo:
            undo.callback(self._release, attachment)
            for asked in endpoints:
                self._join(attachment, asked)
            self._open(attachment, wanted)
            attachment.check_size()
            undo.pop_all()
        self._by_id[attachment.id] = attachment
        self._changed()
        return attachment

    def _join(self, attachment: Attachment, asked: requests.Endpoint) -> Endpoint:
        network = self._networks.get(asked.network)
        try:
            return attachment.add(network, asked)
        finally:
            self._networks.used(network)

    def detach(self, attachment: Attachment) -> None:
        """Undo all of it."""
        if self._by_id.get(attachment.id) is attachment:
            del self._by_id[attachment.id]
        self._unplug(attachment)
        self._release(attachment)
        self._changed()

    def _release(self, attachment: Attachment) -> None:
        self._close(attachment, attachment.bindings)
        for endpoint in list(attachment.endpoints):
            attachment.remove(endpoint)
            self._networks.used(endpoint.network)

    # plug

    def plug(self, attachment: Attachment, netns_fd: int) -> None:
        """Give the namespace of *netns_fd* the container's interfaces, and accept on its ports. Raises SlirpError."""
        _check_namespace(netns_fd)
        self._unplug(attachment, wait=_same_file(attachment.netns_fd, netns_fd))
        attachment.plug(netns_fd)
        try:
            self._stack.tell(attachment.told())
            for endpoint in attachment.endpoints:
                self._connect(attachment, endpoint)
        except BaseException:
            self._unplug(attachment, wait=True)
            raise
        self._publish(attachment)

    def _unplug(self, attachment: Attachment, *, wait: bool = False) -> None:
        """As before `plug`: no interface, no flow, and nobody answers on the ports.

        The kernel takes its time to remove an interface, which is waited for where the next may have its name.
        """
        if attachment.netns_fd < 0:
            return
        for handle in attachment.published:
            self._stack.tell({"do": "unpublish", "port": handle})
        attachment.published.clear()
        self._stack.tell({"do": "container-gone", "id": attachment.id})
        for endpoint in attachment.endpoints:
            self._disconnect(endpoint, wait=wait)
        attachment.unplug()

    def _connect(self, attachment: Attachment, endpoint: Endpoint) -> None:
        try:
            endpoint.port = endpoint.network.links.attach(attachment.netns_fd, endpoint.plan())
        except OSError as error:
            endpoint.network.broken = True
            network = endpoint.network.asked.name
            message = f"cannot connect container {attachment.name} to network {network}: {told_why(error)}"
            raise HostUnsupported(message) from error

    def _disconnect(self, endpoint: Endpoint, *, wait: bool = True) -> None:
        port, endpoint.port = endpoint.port, None
        if port is None:
            return
        try:
            endpoint.network.links.detach(port, wait=wait)
        except OSError as error:  # it cannot be helped: the rest has to go all the same
            self._log(f"network {endpoint.network.asked.name}: {told_why(error)}")

    # connect and disconnect

    def connect(self, attachment: Attachment, asked: requests.Endpoint) -> Endpoint:
        """One more network for a container that may run. Raises SlirpError."""
        endpoint = self._join(attachment, asked)
        try:
            attachment.check_size()
            if attachment.netns_fd >= 0:
                self._stack.tell(attachment.told())
                self._connect(attachment, endpoint)
        except BaseException:
            self._leave(attachment, endpoint)
            raise
        return endpoint

    def disconnect(self, attachment: Attachment, network_id: str) -> None:
        """One less. Raises NotFound."""
        self._leave(attachment, attachment.endpoint(network_id))

    def _leave(self, attachment: Attachment, endpoint: Endpoint) -> None:
        self._disconnect(endpoint)
        attachment.remove(endpoint)
        self._networks.used(endpoint.network)
        self.tell(attachment)
        self._route(attachment)

    def _route(self, attachment: Attachment) -> None:
        """The way out that is left."""
        for endpoint in attachment.endpoints:
            if endpoint.default and endpoint.port is not None:
                try:
                    links.route_through(attachment.netns_fd, endpoint.plan())
                except OSError as error:  # the container may just have ended, and its interfaces with it
                    self._log(f"container {attachment.name}: {told_why(error)}")

    # ports

    def change_ports(self, attachment: Attachment, told: "Told") -> None:
        """Listen on more, or fewer. Raises SlirpError, and then nothing has changed."""
        closing = _find(attachment, _ports(told, "remove"))
        self._open(attachment, _ports(told, "add"))
        self._close(attachment, closing)
        if attachment.netns_fd >= 0:
            self._publish(attachment)

    def _open(self, attachment: Attachment, wanted: "list[Port]") -> None:
        opened: list[Binding] = []
        try:
            for port in wanted:
                opened += self._listen(port)
        except BaseException:
            self._close(attachment, opened)
            raise
        attachment.bindings += opened

    def _listen(self, port: "Port") -> "list[Binding]":
        try:
            return self._ports.open(port)
        except Conflict:
            # A port that we have just let go of is free once STACK has let go of it as well.
            if not port.host_port or self._ports.taken(port) or not self._stack.settle():
                raise
            return self._ports.open(port)

    def _close(self, attachment: Attachment, bindings: "list[Binding]") -> None:
        closing = {binding.handle: binding for binding in bindings}
        for handle, binding in closing.items():
            if handle in attachment.published:
                attachment.published.discard(handle)
                self._stack.tell({"do": "unpublish", "port": handle})
            self._ports.close(binding)
        attachment.bindings = [binding for binding in attachment.bindings if binding.handle not in closing]

    def _publish(self, attachment: Attachment) -> None:
        for binding in attachment.bindings:
            if binding.handle in attachment.published:
                continue
            attachment.published.add(binding.handle)
            port = binding.port._asdict()
            told = {"do": "publish", "port": binding.handle, "container": attachment.id, **port, "fds": ["listener"]}
            self._stack.tell(told, [binding.sock.fileno()])

    # the rest

    def update(self, attachment: Attachment, told: "Told") -> None:
        """Another name, other aliases or rules. Raises SlirpError."""
        attachment.update(told)
        self.tell(attachment)

    def tell(self, attachment: Attachment) -> None:
        """Tell STACK what it is now."""
        if attachment.netns_fd >= 0:
            self._stack.tell(attachment.told())

    def tell_all(self) -> None:
        """Tell a STACK that has just started."""
        for attachment in self._by_id.values():
            attachment.published.clear()
            self.tell(attachment)
            if attachment.netns_fd >= 0:
                self._publish(attachment)

    def listed(self, only: Attachment | None) -> "list[Told]":
        """All of them, or one, as commands are told."""
        return [row for one in self._chosen(only) for row in one.listed()]

    def _chosen(self, only: Attachment | None) -> list[Attachment]:
        return [only] if only else list(self._by_id.values())

    def statistics(self, only: Attachment | None) -> "dict[str, Told]":
        """{container id: {interface: counters}}, as the container sees them. Raises SlirpError."""
        chosen = self._chosen(only)
        endpoints = [(one.id, endpoint) for one in chosen for endpoint in one.endpoints if endpoint.port is not None]
        counters = {network: _counters(network) for network in {endpoint.network for _, endpoint in endpoints}}
        found: dict[str, Told] = {one.id: {} for one in chosen}
        for container_id, endpoint in endpoints:
            seen = counters[endpoint.network].get(endpoint.port or 0)
            if seen is not None:  # else its interface has gone with the container
                found[container_id][endpoint.interface] = seen
        return found


def _ports(told: "Told", name: str) -> "list[Port]":
    rows = requests.sequence(told, name, requests.PORTS_AT_ONCE)
    return [ports.parse(requests.mapping(row, "port")) for row in rows]


def _find(attachment: Attachment, wanted: "list[Port]") -> "list[Binding]":
    """The bindings that a request means; host_ip "" and host_port 0 are any. Raises NotFound."""
    by_port: dict[tuple[str, int], list[Binding]] = {}
    for binding in attachment.bindings if wanted else ():
        by_port.setdefault((binding.port.protocol, binding.port.container_port), []).append(binding)
    found: list[Binding] = []
    for port in wanted:
        meant = [b for b in by_port.get((port.protocol, port.container_port), ()) if port.means(b.port)]
        if not meant:
            name = f"port {port.container_port}/{port.protocol} of container {attachment.name}"
            raise NotFound(f"{name} is not published so")
        found += meant
    return found


def _check_namespace(fd: int) -> None:
    """That *fd* is a network namespace, and not the one that HUB is in."""
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != CLONE_NEWNET:
        raise InvalidInput("the descriptor is not that of a network namespace")
    if os.path.samestat(os.stat("/proc/self/ns/net"), os.fstat(fd)):
        raise InvalidInput("the network namespace is the host's")


def _same_file(fd: int, other: int) -> bool:
    return fd >= 0 and os.path.sameopenfile(fd, other)


def _counters(network: "Network") -> "dict[int, dict[str, int]]":
    try:
        return network.links.statistics()
    except OSError as error:
        raise SlirpError(f"network {network.asked.name}: {told_why(error)}") from error
