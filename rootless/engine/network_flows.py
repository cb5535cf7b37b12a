"""network flows: what containers talk to just now, and what they were kept from; slirp is asked.

Only what leaves a network goes through slirp. Containers that talk to each other do so by a bridge of the kernel's.
"""

from typing import Any, NamedTuple

from rootless.engine import attachment, networks
from rootless.engine.context import Engine
from rootless.errors import Conflict, NotFound
from rootless.network.slirp import Gone
from rootless.store.containers import LIVE

Row = dict[str, Any]


class Flows(NamedTuple):
    """As slirp answers, with the container's name as `name` of each row."""

    flows: list[Row]
    denied: list[Row]


def list_flows(engine: Engine, name: str = "") -> Flows:
    """The flows of a container, or of all. Raises NotFound, Conflict for a container that does not run."""
    engine.enter_namespace()
    container_id = engine.containers.find(name) if name else ""
    if container_id and engine.containers.state(container_id)["status"] not in LIVE:
        raise Conflict(f"container {name} is not running")
    attachment.repair(engine)
    connection = networks.running(engine)
    if connection is None:
        return Flows([], [])
    with connection:
        try:
            answer = connection.request("flows", container=container_id or None)
        except (Gone, NotFound):
            return Flows([], [])  # nobody runs any more; or this one has no networks of ours
    return Flows(_named(engine, answer.get("flows", [])), _named(engine, answer.get("denied", [])))


def _named(engine: Engine, rows: list[Row]) -> list[Row]:
    names: dict[str, str] = {}
    for row in rows:
        container_id = row["container"]
        if container_id not in names:
            try:
                names[container_id] = engine.containers.load(container_id)["name"]
            except NotFound:
                names[container_id] = ""  # of another store, or gone
    return [{**row, "container_name": names[row["container"]]} for row in rows]
