"""port: what is published of a container, and changing that while it runs.

`port add` and `port rm` change the record, as -p would have made it, so that a restart publishes the same. The ports
of a container that does not run are published when it starts.
"""

from collections.abc import Sequence
from typing import Any

from rootless.engine.attachment import asked_ports, network_state, repair
from rootless.engine.context import Engine
from rootless.engine.network_connect import change
from rootless.engine.network_options import has_networks
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.network.ports import Port, from_record, join, places, port_map
from rootless.store.containers import LIVE, Record

_ANY = ("", "0.0.0.0", "::")  # "all addresses", as asked and as answered


def published(engine: Engine, name: str) -> dict[str, Any]:
    """What is published of a container, as a PortMap: {} unless it runs. Raises NotFound."""
    container_id = engine.containers.find(name)
    state = engine.containers.state(container_id)
    return port_map(network_state(state)["ports"])


def bindings(engine: Engine, name: str, private: str) -> list[str]:
    """Where port *private*, "80/tcp", is published: "0.0.0.0:8080". Raises NotFound where it is not."""
    bound = published(engine, name).get(private)
    if not bound:
        shown = private.removesuffix("/tcp")
        raise NotFound(f"Error: No public port '{shown}' published for {name}")
    return places(bound)


def add_ports(engine: Engine, name: str, ports: Sequence[Port]) -> dict[str, Any]:
    """Publish more ports of a container; what is published of it then. Raises Conflict, InvalidInput."""
    engine.enter_namespace()
    container_id = engine.containers.find(name)
    repair(engine)  # without our lock, which it may have to wait for
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        _check_mode(record)
        known = [from_record(port) for port in record["ports"]]
        for port in ports:
            if port in known and port.host_port:
                raise Conflict(f"{_spelled(port)} of {name} is published already")
        exposed = list(dict.fromkeys([*record["exposed_ports"], *(port.container for port in ports)]))
        wanted = {**record, "ports": [*record["ports"], *(port.asked() for port in ports)], "exposed_ports": exposed}
        return _apply(engine, wanted, {"add": [port.asked() for port in ports]})


def remove_ports(engine: Engine, name: str, ports: Sequence[Port]) -> dict[str, Any]:
    """Publish ports of a container no longer; what is published of it then.

    A port stands for all that publish the same port of the container, at its address and number where it has these.
    Raises NotFound.
    """
    engine.enter_namespace()
    container_id = engine.containers.find(name)
    repair(engine)  # without our lock, which it may have to wait for
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        _check_mode(record)
        answered = [from_record(port) for port in network_state(engine.containers.state_locked(container_id))["ports"]]
        asked = [from_record(port) for port in asked_ports(record, ())]
        gone = [port for port in answered if any(_means(wanted, port) for wanted in ports)]
        for wanted in ports:
            if not any(_means(wanted, port) for port in (*answered, *asked)):
                raise NotFound(f"{_spelled(wanted)} of {name} is not published")
        left = [port for port in asked if not _is_removed(port, ports, gone)]
        # What -P stands for is written out, or the next start would publish it all again.
        without = {**record, "ports": [port.asked() for port in left], "publish_all": False}
        return _apply(engine, without, {"remove": _shortest(gone, answered)})


def _check_mode(record: Record) -> None:
    if not has_networks(record["network"]):
        raise InvalidInput(
            f"ports of container {record['name']} cannot be published: its network is {record['network']}"
        )


def _apply(engine: Engine, record: Record, changes: dict[str, list[Record]]) -> dict[str, Any]:
    """Let slirp know, if the container runs, and then the record."""
    state = engine.containers.state_locked(record["id"])
    is_live = state["status"] in LIVE
    ports = change(engine, record, "ports", **changes)["ports"] if is_live else []
    engine.containers.save(record)
    return port_map(ports)


def _shortest(gone: Sequence[Port], answered: Sequence[Port]) -> list[Record]:
    """The request that means *gone*: of a port that goes everywhere, one row, as a request has its limits."""
    kept = {port.container for port in answered if port not in gone}
    rows = [port if port.container in kept else Port(port.container_port, port.protocol) for port in gone]
    return [port.asked() for port in dict.fromkeys(rows)]


def _means(wanted: Port, port: Port) -> bool:
    """Whether *port* is one of those that *wanted* stands for."""
    return (
        wanted.container == port.container
        and (not wanted.host_ip or wanted.host_ip == port.host_ip)
        and (not wanted.host_port or wanted.host_port <= port.host_port <= (wanted.host_port_last or wanted.host_port))
    )


def _is_removed(asked: Port, wanted: Sequence[Port], gone: Sequence[Port]) -> bool:
    """Whether what was asked for is no longer: it is meant itself, or what came of it is gone."""
    return any(_means(one, asked) for one in wanted) or any(_came_of(asked, port) for port in gone)


def _came_of(asked: Port, answered: Port) -> bool:
    if asked.container != answered.container:
        return False
    if asked.host_ip != answered.host_ip and not (asked.host_ip in _ANY and answered.host_ip in _ANY):
        return False
    last = asked.host_port_last or asked.host_port
    return not asked.host_port or asked.host_port <= answered.host_port <= last


def _spelled(port: Port) -> str:
    host = str(port.host_port or "")
    if port.host_ip:
        host = join(port.host_ip, host)
    return f"{host}:{port.container}" if host else port.container
