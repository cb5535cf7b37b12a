"""A container that is attached: its endpoints, its ports, and how STACK and commands are told of it."""

import os

from slirp import channel, requests
from slirp.addresses import mac_of
from slirp.errors import Conflict, InvalidInput, NotFound
from slirp.links import Interface

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

    from slirp.networks import Network
    from slirp.ports import Binding

_MOST_TOLD = 64 << 10  # bytes of a container, as STACK is told
_ROW = 256  # ports that a row of a list has at most
_MOST_SERVERS = 3  # resolv.conf(5): more are not read


class Endpoint:
    """A container's place on a network. *port* is its number there, once the container is plugged in."""

    __slots__ = ("aliases", "default", "gw_priority", "interface", "ipv4", "ipv6", "mac", "network", "port")

    def __init__(self, network: "Network", asked: requests.Endpoint, interface: str) -> None:
        """Take addresses of *network*. Raises SlirpError; then nothing is taken."""
        self.network = network
        self.interface = interface
        self.aliases = asked.aliases
        self.gw_priority = asked.gw_priority
        self.default = False
        self.port: int | None = None
        self.ipv4, self.ipv6 = network.take(asked)
        try:
            self.mac = self._choose_mac(asked)
        except BaseException:
            network.give_back(self.ipv4, self.ipv6)
            raise
        network.endpoints.add(self)

    def _choose_mac(self, asked: requests.Endpoint) -> str:
        mac = asked.mac or mac_of(self.ipv4 or self.ipv6)
        if any(other.mac == mac for other in self.network.endpoints):
            raise Conflict(f"MAC address {mac} is already in use on network {self.network.asked.name}")
        return mac

    def release(self) -> None:
        """Give its addresses back."""
        self.network.endpoints.discard(self)
        self.network.give_back(self.ipv4, self.ipv6)

    def plan(self) -> Interface:
        """Its interface, as it is to be in the container's namespace."""
        pool4, pool6 = self.network.pool4, self.network.pool6
        return Interface(
            self.interface,
            self.mac,
            f"{self.ipv4}/{pool4.prefix}" if pool4 else "",
            f"{self.ipv6}/{pool6.prefix}" if pool6 else "",
            pool4.gateway if pool4 else "",
            pool6.gateway if pool6 else "",
            self.network.asked.mtu,
            self.default,
        )

    def gateways(self) -> list[str]:
        """Of its network, IPv4 first."""
        return [pool.gateway for pool in (self.network.pool4, self.network.pool6) if pool]

    def answered(self) -> "dict[str, Any]":
        """As commands are told."""
        pool4, pool6 = self.network.pool4, self.network.pool6
        return {
            "network": self.network.asked.id,
            "name": self.network.asked.name,
            "ipv4": self.ipv4,
            "prefix4": pool4.prefix if pool4 else 0,
            "gateway4": pool4.gateway if pool4 else "",
            "ipv6": self.ipv6,
            "prefix6": pool6.prefix if pool6 else 0,
            "gateway6": pool6.gateway if pool6 else "",
            "mac": self.mac,
            "interface": self.interface,
            "aliases": self.aliases,
            "default": self.default,
        }

    def told(self) -> "dict[str, Any]":
        """As STACK is told."""
        network = self.network.asked.id
        return {
            "network": network,
            "ipv4": self.ipv4,
            "ipv6": self.ipv6,
            "aliases": self.aliases,
            "default": self.default,
        }


class Attachment:
    """A container. *netns_fd* is its network namespace, -1 until it is plugged in."""

    __slots__ = (
        *("bindings", "dns", "egress", "endpoints", "host_loopback", "hostname", "id", "links", "name", "netns_fd"),
        "published",
    )

    def __init__(self, told: "dict[str, Any]") -> None:
        """What is asked of a container, without endpoints and ports. Raises InvalidInput."""
        container = requests.mapping(told.get("container"), "container")
        self.id = requests.text(container, "id", needed=True)
        self.name = requests.text(container, "name") or self.id[:12]
        self.hostname = requests.text(container, "hostname")
        self.links = requests.parse_links(told)
        self.egress = requests.rules(told)
        self.host_loopback = requests.flag(told, "host_loopback")
        self.dns = requests.servers(told)
        self.endpoints: list[Endpoint] = []
        self.bindings: list[Binding] = []
        self.netns_fd = -1
        self.published: set[int] = set()  # handles of the bindings that STACK accepts from

    def endpoint(self, network_id: str) -> Endpoint:
        """Its endpoint on a network. Raises NotFound."""
        for endpoint in self.endpoints:
            if endpoint.network.asked.id == network_id:
                return endpoint
        raise NotFound(f"container {self.name} is not connected to network {network_id[:12]}")

    def add(self, network: "Network", asked: requests.Endpoint) -> Endpoint:
        """A place on one more network. Raises SlirpError."""
        if any(endpoint.network is network for endpoint in self.endpoints):
            raise Conflict(f"endpoint with name {self.name} already exists in network {network.asked.name}")
        taken = {endpoint.interface for endpoint in self.endpoints}
        number = next(n for n in range(len(taken) + 1) if f"eth{n}" not in taken)
        endpoint = Endpoint(network, asked, f"eth{number}")
        self.endpoints.append(endpoint)
        self.choose_default()
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Leave a network."""
        self.endpoints.remove(endpoint)
        endpoint.release()
        self.choose_default()

    def choose_default(self) -> None:
        """Whose gateway is the way out: the highest gw_priority, then the first by name, as Docker has it."""
        outward = [endpoint for endpoint in self.endpoints if not endpoint.network.asked.internal]
        chosen = min(outward, key=lambda e: (-e.gw_priority, e.network.asked.name), default=None)
        for endpoint in self.endpoints:
            endpoint.default = endpoint is chosen

    def nameservers(self) -> list[str]:
        """The gateways to ask, that of the default route first."""
        endpoints = sorted(self.endpoints, key=lambda endpoint: not endpoint.default)
        return [gateway for endpoint in endpoints for gateway in endpoint.gateways()[:1]][:_MOST_SERVERS]

    def plug(self, netns_fd: int) -> None:
        """Remember the namespace; *netns_fd* stays the caller's."""
        self.unplug()
        self.netns_fd = os.dup(netns_fd)

    def unplug(self) -> None:
        """Forget the namespace."""
        if self.netns_fd >= 0:
            os.close(self.netns_fd)
        self.netns_fd = -1

    def update(self, told: "dict[str, Any]") -> None:
        """Take over the name, links, aliases by network and egress rules that are said, or none. Raises SlirpError."""
        name = requests.text(told, "name") or self.name
        egress = requests.rules(told) if "egress" in told else self.egress
        links = requests.parse_links(told) if "links" in told else self.links
        asked = requests.mapping(told.get("aliases") or {}, "aliases")
        aliases = {self.endpoint(network): requests.texts(asked, network, 64) for network in asked}
        before = self.name, self.egress, self.links, [endpoint.aliases for endpoint in self.endpoints]
        wanted = name, egress, links, [aliases.get(endpoint, endpoint.aliases) for endpoint in self.endpoints]
        self._be(*wanted)
        try:
            self.check_size()
        except InvalidInput:
            self._be(*before)
            raise

    def _be(self, name: str, egress: list[str] | None, links: list[list[str]], aliases: list[list[str]]) -> None:
        self.name, self.egress, self.links = name, egress, links
        for endpoint, names in zip(self.endpoints, aliases, strict=True):
            endpoint.aliases = names

    def check_size(self) -> None:
        """Raise InvalidInput where STACK could not be told of it in one message."""
        try:
            size = len(channel.encoded(self.told()))
        except ValueError:
            size = channel.MAX_MESSAGE
        if size > _MOST_TOLD:
            raise InvalidInput(f"container {self.name} has too many aliases, links and rules")

    def told(self) -> "dict[str, Any]":
        """As STACK is told."""
        return {
            "do": "container",
            "id": self.id,
            "name": self.name,
            "hostname": self.hostname,
            "egress": self.egress,
            "host_loopback": self.host_loopback,
            "dns": self.dns,
            "links": self.links,
            "endpoints": [endpoint.told() for endpoint in self.endpoints],
        }

    def listed(self) -> "list[dict[str, Any]]":
        """As commands are told: a row, or several with one id, as a message cannot hold all that may be published."""
        head = {"id": self.id, "name": self.name}
        ports = [binding.told() for binding in self.bindings]
        rest = [{**head, "endpoints": [], "ports": ports[n : n + _ROW]} for n in range(_ROW, len(ports), _ROW)]
        return [{**head, "endpoints": [e.answered() for e in self.endpoints], "ports": ports[:_ROW]}, *rest]
