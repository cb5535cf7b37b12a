"""A container's attachment to its networks, from the side of the command that starts it: asking, name files, repair.

    start    attach: addresses are given, ports bound ─▶ name files ─▶ the monitor gets the connection and keeps it
    repair   slirp has died: start it, attach what runs as it was, and hand each monitor its other connection

See runtime/attachment.py for the monitor's side.

What slirp answered, endpoints and ports, stands in the container's state as "network", and is what is asked for again
at the next start: a container keeps its addresses and the ports that were chosen for it, if nobody has taken them.
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from typing import Any, NamedTuple

from rootless.engine import networks
from rootless.engine.configuration import configuration_path
from rootless.engine.context import Engine
from rootless.engine.control import connect as connect_monitor
from rootless.engine.network_options import is_user_defined
from rootless.errors import Conflict, NotFound, RootlessError
from rootless.linux import files
from rootless.network import name_files, slirp
from rootless.network.ports import all_exposed, from_record
from rootless.runtime import channel, sealed
from rootless.store.containers import LIVE, Record
from rootless.store.layout import Layout

_RELEASE_SECONDS = 0.1  # until the ports of a container that has just ended are free
_ANY = ("", "0.0.0.0", "::")  # how "all addresses" is asked for, and how it is answered


class Attached(NamedTuple):
    """What slirp has given a container."""

    connection: slirp.Connection  # the attachment lasts as long as it is open
    endpoints: list[Record]  # ENDPOINT as answered
    ports: list[Record]  # PORT as answered
    nameservers: list[str]

    @property
    def state(self) -> Record:
        """The part of the container's state that tells of it."""
        return {"endpoints": self.endpoints, "ports": self.ports, "nameservers": self.nameservers}


def attach(engine: Engine, record: Record, state: Record) -> Attached:
    """Have the networks of a container that is about to start ready for it.

    Raises Conflict for a port or an address that is taken, NotFound for a network that is gone, and what slirp says.
    """
    _check_links(engine, record)
    before = state.get("network") or {}
    usual, fresh = asked_ports(record, before.get("ports", ())), asked_ports(record, ())
    # A container that has just ended may hold what is asked for, for a moment. Or a port that was chosen last time is
    # taken by now, and is chosen anew.
    *attempts, last = (usual, usual) if usual == fresh else (usual, usual, fresh)
    for ports in attempts:
        with suppress(Conflict):
            return _attach(engine, record, before, ports)
        time.sleep(_RELEASE_SECONDS)
    return _attach(engine, record, before, last)


def _attach(engine: Engine, record: Record, before: Record, ports: list[Record]) -> Attached:
    connection, answer = networks.begin(
        engine,
        "attach",
        container={"id": record["id"], "name": record["name"], "hostname": record["hostname"]},
        endpoints=[asked_endpoint(engine, endpoint, record, before) for endpoint in record["networks"]],
        ports=ports,
        links=record["links"],
        egress=record["egress"],
        host_loopback=record["host_loopback"],
        dns=record["dns"],
    )
    return Attached(connection, answer["endpoints"], answer["ports"], answer["nameservers"])


def asked_endpoint(engine: Engine, endpoint: Record, record: Record, before: Record) -> Record:
    """ENDPOINT, asked; *before* is the container's last Attached.state, or empty.

    On networks with names a container is also known by its short id, as in Docker.
    """
    network = networks.find(engine, endpoint["name"])
    if network.id != endpoint["id"]:  # there is another one of that name by now
        raise NotFound(f"network {endpoint['id']} not found")
    previous = next((known for known in before.get("endpoints", ()) if known["network"] == network.id), None)
    own = [record["id"][:12]] if network.has_names else []
    return {
        "network": network.asked(),
        "ipv4": endpoint["ipv4"],
        "ipv6": endpoint["ipv6"],
        "mac": endpoint["mac"],
        "aliases": [*endpoint["aliases"], *own],
        "gw_priority": endpoint["gw_priority"],
        "previous": previous and {key: previous[key] for key in ("ipv4", "ipv6", "mac")},
    }


def asked_ports(record: Record, before: Iterable[Record]) -> list[Record]:
    """PORT, asked: those of -p and -P; where any free one will do, that which was given *before* (answered)."""
    ports = [from_record(port) for port in record["ports"]]
    if record["publish_all"]:
        ports += all_exposed(record["exposed_ports"], ports)
    wanted = [port.asked() for port in ports]
    left = list(before)
    for port in wanted:
        if port["host_port"] and not port.get("host_port_last"):
            continue
        given = next((known for known in left if _is_same(port, known)), None)
        if given:
            port["host_port"] = given["host_port"]
            port.pop("host_port_last", None)
            left = [known for known in left if known["host_port"] != given["host_port"] or not _is_same(port, known)]
    return wanted


def _is_same(asked: Record, answered: Record) -> bool:
    return (asked["container_port"], asked["protocol"]) == (answered["container_port"], answered["protocol"]) and (
        asked["host_ip"] == answered["host_ip"] or (asked["host_ip"] in _ANY and answered["host_ip"] in _ANY)
    )


def _check_links(engine: Engine, record: Record) -> None:
    """On the default network a link is to a container that runs, as in Docker."""
    if is_user_defined(record["network"]):
        return
    for container_id, alias in record["links"]:
        if engine.containers.state(container_id)["status"] not in LIVE:
            name = engine.containers.load(container_id)["name"]
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{record['name']}/{alias}")


# Name files


def name_files_of(record: Record, state: Record | None = None) -> dict[str, str]:
    """Name and content of the files of a container; *state* is Attached.state where it is on networks of ours."""
    endpoints: list[Record] = (state or {}).get("endpoints", [])
    addresses = [endpoint[family] for endpoint in endpoints for family in ("ipv4", "ipv6") if endpoint[family]]
    return {
        "hostname": name_files.hostname(record["hostname"]),
        "hosts": name_files.hosts(
            record["hostname"],
            record["domainname"],
            record["extra_hosts"],
            record["network"],
            addresses,
            gateway=_host_gateway(record),
            host_loopback=record["host_loopback"],
        ),
        "resolv.conf": _resolv_conf(record, state),
    }


def _host_gateway(record: Record) -> str:
    """The address that "host-gateway" stands for; "" where nobody asks."""
    if all(address != name_files.HOST_GATEWAY for _, address in record["extra_hosts"]):
        return ""
    address = name_files.HOST_LOOPBACK if record["host_loopback"] else name_files.host_address()
    if not address:
        raise Conflict(
            "unable to derive the IP value for host-gateway: the machine has no address but loopback",
            hint="--host-loopback lets the container reach the machine's loopback, as host.docker.internal",
        )
    return address


def _resolv_conf(record: Record, state: Record | None) -> str:
    given = name_files.Resolver(record["dns"], record["dns_search"], record["dns_options"])
    if state is None:
        return name_files.resolv_conf(given, record["network"])
    names = is_user_defined(record["network"])
    # A link is a name that only slirp knows.
    direct = not names and not record["links"]
    return name_files.gateway_resolv_conf(given, state["nameservers"], names=names, direct=direct)


def write_name_files(engine: Engine, record: Record, state: Record) -> None:
    """Write the files of a container anew, in their place: a container that runs has them mounted."""
    directory = engine.containers.directory(record["id"])
    for name, content in name_files_of(record, state).items():
        fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)


# The monitor


def settings(engine: Engine) -> Record:
    """What a monitor needs to know of networks: how they are repaired."""
    command = sealed.command(__name__, third_party=True)
    return {
        "repair": {
            "argv": [*command, engine.layout.root, engine.layout.run, engine.session],
            "environment": {"ROOTLESS_CONFIG": configuration_path()},
            "lock": os.path.join(engine.session, "slirp.repairer"),
        }
    }


def hand_over(engine: Engine, container_id: str, state: Record, connection_fd: int | None = None) -> None:
    """Tell the monitor of a container that runs what it is attached to; by another connection, with *connection_fd*.

    Returns when the container is plugged into it. Raises what keeps it from that.
    """
    monitor = connect_monitor(engine, container_id)
    if monitor is None:
        return  # it has just ended
    with closing(monitor):
        fds = () if connection_fd is None else (connection_fd,)
        # A file, as the settings are: what is published may be more than a message holds.
        path = os.path.join(engine.containers.run_directory(container_id), "attached.json")
        try:
            files.replace_file(path, json.dumps(state, separators=(",", ":")).encode(), durable=False)
            channel.send(monitor, channel.ATTACHED, path, fds)
            while True:
                kind, text, _ = channel.receive(monitor)
                if kind == channel.ERROR:
                    channel.raise_error(text)
                if kind in (channel.DONE, channel.EXITED, b""):
                    return
        except OSError:
            return  # likewise


# Repair


def mend(engine: Engine) -> None:
    """Bring back the networks of what runs, where slirp is not there: its monitors may have tried in vain.

    Before the lock of any container is taken, since others who mend may wait for it.
    """
    connection = networks.running(engine)
    if connection is None:
        repair(engine)
    else:
        connection.close()


def repair(engine: Engine) -> list[str]:
    """Attach again what runs and has lost its networks, since slirp has died; the ids of those containers.

    Well where nothing is to be done. What cannot be brought back, as a port that is taken by now, is said on stderr.
    """
    engine.enter_namespace()
    with files.lock_file(os.path.join(engine.session, "slirp.repair")):
        lost = _lost(engine)
        for container_id in lost:
            try:
                _repair(engine, container_id)
            except NotFound:
                continue  # it has ended and was removed meanwhile
            except RootlessError as error:
                os.write(2, f"rootless: the networks of container {container_id[:12]}: {error}\n".encode())
    return lost


def _lost(engine: Engine) -> list[str]:
    """The containers that run, or are about to, and that slirp does not know of."""
    running = [container_id for container_id in engine.containers.list() if _is_attached(engine, container_id)]
    if not running:
        return []
    connection, answer = networks.begin(engine, "list")
    connection.close()
    known = {container["id"] for container in answer["containers"]}
    return [container_id for container_id in running if container_id not in known]


def _is_attached(engine: Engine, container_id: str) -> bool:
    if not engine.containers.has_monitor(container_id):
        return False
    with suppress(RootlessError):  # it is just going, or its record is damaged
        state = engine.containers.state(container_id)
        return state["status"] in LIVE and bool(state.get("network"))
    return False


def _repair(engine: Engine, container_id: str) -> None:
    record, state = engine.containers.load(container_id), engine.containers.state(container_id)
    before = state["network"]
    try:
        attached = _attach(engine, record, before, asked_ports(record, before["ports"]))
    except Conflict as error:
        os.write(2, f"rootless: container {container_id[:12]} is not published any more: {error}\n".encode())
        attached = _attach(engine, record, before, [])
    with attached.connection as connection:
        write_name_files(engine, record, attached.state)
        hand_over(engine, container_id, attached.state, connection.fileno())


def main() -> None:
    """What a monitor runs: sys.argv[1:] are the store's root, its run directory and that of the session."""
    root, run, session = sys.argv[1:]
    with suppress(OSError):  # what cannot be brought back is told where slirp tells what it has to say
        os.dup2(os.open(os.path.join(session, slirp.LOG), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), 2)
    repair(Engine(Layout(root, run), session))


def network_state(state: Record) -> dict[str, Any]:
    """The endpoints and ports of a container that runs; without any for one that does not."""
    if state["status"] in LIVE and state.get("network"):
        return dict(state["network"])
    return {"endpoints": [], "ports": [], "nameservers": []}
