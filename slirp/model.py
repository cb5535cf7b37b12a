"""What the stack knows of networks and containers: what the hub has told it, looked up by address.

Addresses are bytes, 4 or 16 of them, as they stand in packets.
"""

import socket

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from typing import Any

    from slirp.tun import Tun

HOST_LOOPBACK = bytes((169, 254, 1, 2))  # stands for the host's loopback, for containers that may reach it


def packed(text: str) -> bytes:
    """The address *text* as bytes. Raises OSError for what is none."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def unpacked(address: bytes) -> str:
    """The address as text."""
    return socket.inet_ntop(socket.AF_INET6 if len(address) == 16 else socket.AF_INET, address)


class Container:
    """A container with its endpoints; what it may reach, and whom it knows by which name."""

    __slots__ = ("dns", "egress", "endpoints", "host_loopback", "hostname", "id", "links", "name")

    def __init__(self, told: "dict[str, Any]") -> None:
        self.id: str = told["id"]
        self.name: str = told["name"]
        self.hostname: str = told.get("hostname") or ""
        self.egress: list[str] | None = told.get("egress")
        self.host_loopback: bool = bool(told.get("host_loopback"))
        self.dns: list[str] = told.get("dns") or []
        self.links: list[tuple[str, str]] = [(other, alias) for other, alias in told.get("links") or ()]
        self.endpoints: list[Endpoint] = []


class Endpoint:
    """A container's place on a network."""

    __slots__ = ("aliases", "container", "default", "ipv4", "ipv6", "network")

    def __init__(self, network: "Network", container: Container, told: "dict[str, Any]") -> None:
        self.network = network
        self.container = container
        self.ipv4 = packed(told["ipv4"]) if told.get("ipv4") else None
        self.ipv6 = packed(told["ipv6"]) if told.get("ipv6") else None
        self.aliases: tuple[str, ...] = tuple(told.get("aliases") or ())
        self.default: bool = bool(told.get("default"))  # its way out leads over this network

    def addresses(self) -> tuple[bytes, ...]:
        """Those that it has, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


class Network:
    """A network; its tun is what leaves it."""

    __slots__ = (
        *("egress", "endpoints", "gateway4", "gateway6", "id", "internal", "kernel", "mtu", "name", "names"),
        *("subnet4", "subnet6", "tun"),
    )

    def __init__(self, told: "dict[str, Any]") -> None:
        self.id: str = told["id"]
        self.name: str = told["name"]
        self.gateway4 = packed(told["gateway4"]) if told.get("gateway4") else None
        self.gateway6 = packed(told["gateway6"]) if told.get("gateway6") else None
        self.subnet4: str = told.get("subnet4") or ""
        self.subnet6: str = told.get("subnet6") or ""
        self.internal: bool = bool(told.get("internal"))
        self.names: bool = bool(told.get("names"))
        self.kernel: bool = bool(told.get("kernel"))  # TCP by transparent sockets
        self.mtu: int = told.get("mtu") or 65520
        self.egress: list[str] | None = told.get("egress")
        self.endpoints: dict[bytes, Endpoint] = {}
        self.tun: Tun | None = None


class Model:
    """Everything, by id."""

    __slots__ = ("containers", "networks")

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.containers: dict[str, Container] = {}

    def endpoint(self, network: Network, address: bytes) -> Endpoint | None:
        """Whose *address* it is on *network*."""
        return network.endpoints.get(address)

    def add_network(self, told: "dict[str, Any]") -> Network:
        """A network as the hub tells of it; one of that id is told anew, and keeps its endpoints and tun."""
        network = Network(told)
        if known := self.networks.get(network.id):
            network.endpoints, network.tun = known.endpoints, known.tun
            for endpoint in network.endpoints.values():
                endpoint.network = network
        self.networks[network.id] = network
        return network

    def remove_network(self, network_id: str) -> Network | None:
        """Forget it, and its endpoints."""
        network = self.networks.pop(network_id, None)
        if network:
            for container in self.containers.values():
                container.endpoints = [e for e in container.endpoints if e.network is not network]
        return network

    def set_container(self, told: "dict[str, Any]") -> Container:
        """A container as the hub tells of it: all of it, in place of what was known."""
        self.remove_container(told["id"])
        container = Container(told)
        self.containers[container.id] = container
        for row in told.get("endpoints") or ():
            network = self.networks.get(row["network"])
            if network:
                endpoint = Endpoint(network, container, row)
                container.endpoints.append(endpoint)
                for address in endpoint.addresses():
                    network.endpoints[address] = endpoint
        return container

    def remove_container(self, container_id: str) -> Container | None:
        """Forget it, and its endpoints."""
        container = self.containers.pop(container_id, None)
        for endpoint in container.endpoints if container else ():
            for address in endpoint.addresses():
                if endpoint.network.endpoints.get(address) is endpoint:
                    del endpoint.network.endpoints[address]
        return container
