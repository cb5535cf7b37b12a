"""network ls, network inspect: what networks were asked to be, and who is on them.

By which address a container is on a network is known to slirp, and noted in the state of each container that runs.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.networks import bridge, find
from rootless.engine.volumes import natural_order
from rootless.errors import NotFound
from rootless.store.containers import LIVE, Record
from rootless.store.networks import Network, Subnet

SCOPE = "local"


class User(NamedTuple):
    """A container that is to be on a network."""

    id: str
    name: str
    is_live: bool
    endpoint: Record  # as slirp answered; {} unless it runs


def list_networks(engine: Engine) -> list[Network]:
    """All networks, by name, numbers in names by their value."""
    bridge(engine)
    return sorted(engine.networks.list(), key=lambda network: natural_order(network.name))


def users(engine: Engine, network: Network) -> list[User]:
    """The containers that are to be on *network*, running or not."""
    return [user for found, user in all_users(engine) if found == network.id]


def networks_in_use(engine: Engine) -> set[str]:
    """The ids of the networks that containers are to be on, running or not."""
    return {network_id for network_id, _ in all_users(engine)}


def all_users(engine: Engine) -> Iterator[tuple[str, User]]:
    """(network id, container), for each container on each network."""
    for container_id in engine.containers.list():
        try:
            record = engine.containers.load(container_id)
            state = engine.containers.state(container_id)
        except NotFound:
            continue  # removed meanwhile
        is_live = state["status"] in LIVE
        answered = {e["network"]: e for e in (state.get("network") or {}).get("endpoints", ())} if is_live else {}
        for endpoint in record.get("networks", ()):
            found = endpoint["id"]
            yield found, User(container_id, record["name"], is_live, answered.get(found, {}))


def inspect_network(engine: Engine, name: str) -> dict[str, Any]:
    """The document of a network (Engine API: Network), and what it may reach. Raises NotFound."""
    network = find(engine, name)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created or "0001-01-01T00:00:00Z",
        "Scope": SCOPE,
        "Driver": network.driver,
        "EnableIPv4": network.ipv4 is not None,
        "EnableIPv6": network.ipv6 is not None,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [_ipam(subnet) for subnet in (network.ipv4, network.ipv6) if subnet is not None],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {user.id: _member(user) for user in users(engine, network) if user.endpoint},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
        "Egress": network.egress,
    }


def _ipam(subnet: Subnet) -> dict[str, Any]:
    document: dict[str, Any] = {"Subnet": subnet.subnet}
    if subnet.range:
        document["IPRange"] = subnet.range
    document["Gateway"] = subnet.gateway
    if subnet.aux:
        document["AuxiliaryAddresses"] = dict(subnet.aux)
    return document


def _member(user: User) -> dict[str, Any]:
    endpoint = user.endpoint
    return {
        "Name": user.name,
        "EndpointID": endpoint_id(endpoint["network"], user.id),
        "MacAddress": endpoint["mac"],
        "IPv4Address": f"{endpoint['ipv4']}/{endpoint['prefix4']}" if endpoint["ipv4"] else "",
        "IPv6Address": f"{endpoint['ipv6']}/{endpoint['prefix6']}" if endpoint["ipv6"] else "",
    }


def endpoint_id(network_id: str, container_id: str) -> str:
    """The id of a container's place on a network, which follows from the two."""
    return f"{int(network_id, 16) ^ int(container_id, 16):064x}"
