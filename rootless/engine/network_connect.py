"""network connect, network disconnect: a container that is there already, running or not, and its networks.

The record says what the container is to be on, and holds from its next start on. Of one that runs, slirp is asked to
change the interfaces in the container, and then its state, which its monitor keeps, and its name files follow.
"""

from typing import Any, NamedTuple

from rootless.engine import attachment, events, networks
from rootless.engine.attachment import hand_over, write_name_files
from rootless.engine.context import Engine
from rootless.engine.network_options import has_networks
from rootless.engine.options import NetworkOption
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.network import pools
from rootless.store.containers import LIVE, Record
from rootless.store.networks import BRIDGE, BUILT_IN, Network, Subnet


class Names(NamedTuple):
    """How people call the two."""

    network: str
    container: str


def connect(engine: Engine, names: Names, option: NetworkOption) -> None:
    """Put a container on a network; *option* says how (its name does not count).

    Raises NotFound, InvalidInput; Conflict where it is on it already, or can be on none.
    """
    engine.enter_namespace()
    network = networks.find(engine, names.network)
    container_id = engine.containers.find(names.container)
    links = [[engine.containers.find(other), alias] for other, alias in option.links]
    attachment.repair(engine)  # without our lock, which it may have to wait for
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        _check_modes(record, network)
        _check_option(network, option)
        if any(endpoint["id"] == network.id for endpoint in record["networks"]):
            raise Conflict(f"endpoint with name {record['name']} already exists in network {network.name}")
        endpoint = _endpoint(network, option)
        wanted = {**record, "networks": [*record["networks"], endpoint], "links": [*record["links"], *links]}
        state = engine.containers.state_locked(container_id)
        if state["status"] in LIVE:
            asked = attachment.asked_endpoint(engine, endpoint, wanted, state.get("network") or {})
            if not state.get("network"):
                raise Conflict(
                    f"container {record['name']} runs without networks, and can be on one when it starts again",
                    hint="stop it first, and start it after that",
                )
            change(engine, wanted, "connect", endpoint=asked)
        engine.containers.save(wanted)
    events.of_network(engine, network, "connect", container=container_id)


def _check_modes(record: Record, network: Network) -> None:
    if network.name == "host" or record["network"] == "host":
        raise Conflict("container cannot be disconnected from host network or connected to host network")
    if record["network"].startswith("container:"):
        raise Conflict(
            "container sharing network namespace with another container or host cannot be connected to any other"
            " network"
        )
    if network.name == "none" or not has_networks(record["network"]):
        raise Conflict(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def _check_option(network: Network, option: NetworkOption) -> None:
    if network.name == BRIDGE:
        if option.ipv4 or option.ipv6:
            raise InvalidInput("user specified IP address is supported on user defined networks only")
        if option.aliases:
            raise InvalidInput("network-scoped alias is supported only for containers in user defined networks")
    for address, subnet in ((option.ipv4, network.ipv4), (option.ipv6, network.ipv6)):
        if address:
            _check_address(address, subnet)


def _check_address(address: str, subnet: Subnet | None) -> None:
    if subnet is None:
        raise InvalidInput(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    if not pools.contains(subnet.subnet, address):
        raise InvalidInput(f"no configured subnet or ip-range contain the IP address {address}")


def _endpoint(network: Network, option: NetworkOption) -> Record:
    return {
        "name": network.name,
        "id": network.id,
        "ipv4": option.ipv4,
        "ipv6": option.ipv6,
        "mac": option.mac,
        "aliases": list(option.aliases),
        "gw_priority": option.gateway_priority,
    }


def disconnect(engine: Engine, names: Names, *, force: bool) -> None:
    """Take a container off a network.

    Raises NotFound, Conflict where it is not on it. *force* takes it off one that is gone.
    """
    engine.enter_namespace()
    container_id = engine.containers.find(names.container)
    attachment.repair(engine)  # as above
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        endpoint = _find_endpoint(engine, record, names, force=force)
        wanted = {**record, "networks": [other for other in record["networks"] if other is not endpoint]}
        if endpoint["name"] == record["network"] and wanted["networks"]:
            wanted["network"] = wanted["networks"][0]["name"]
        state = engine.containers.state_locked(container_id)
        attached = (state.get("network") or {}).get("endpoints", ())
        if state["status"] in LIVE and any(known["network"] == endpoint["id"] for known in attached):
            change(engine, wanted, "disconnect", network=endpoint["id"])
        engine.containers.save(wanted)
    events.disconnected(engine, container_id, endpoint)


def _find_endpoint(engine: Engine, record: Record, names: Names, *, force: bool) -> Record:
    """The container's place on that network."""
    try:
        network = networks.find(engine, names.network)
        network_id, name = network.id, network.name
    except NotFound:
        if not force:
            raise
        network_id = name = names.network
    if name == "host":
        raise Conflict("container cannot be disconnected from host network or connected to host network")
    for endpoint in record["networks"]:
        if endpoint["id"] == network_id or (name not in BUILT_IN and endpoint["name"] == name):
            found: Record = endpoint
            return found
    raise Conflict(f"container {record['id']} is not connected to network {name}")


def change(engine: Engine, record: Record, op: str, **fields: Any) -> Record:
    """Ask slirp for *op* on a container that runs, and let its state and its name files say what is; that state.

    Hold the container's lock.
    """
    connection, _ = networks.begin(engine, op, container=record["id"], **fields)
    with connection:
        connection.request("update", container=record["id"], links=record["links"])
        rows = [row for row in connection.request("list")["containers"] if row["id"] == record["id"]]
    endpoints = [endpoint for row in rows for endpoint in row["endpoints"]]
    ports = [port for row in rows for port in row["ports"]]
    state = {"endpoints": endpoints, "ports": ports, "nameservers": _nameservers(endpoints)}
    write_name_files(engine, record, state)
    hand_over(engine, record["id"], state)
    return state


def _nameservers(endpoints: list[Record]) -> list[str]:
    """Who answers questions for names: a gateway of each network, that of the default route first (as `attach` tells).

    Three at most, resolv.conf(5).
    """
    ordered = sorted(endpoints, key=lambda endpoint: not endpoint["default"])
    return [endpoint["gateway4"] or endpoint["gateway6"] for endpoint in ordered][:3]
