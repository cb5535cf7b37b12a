"""Events: telling what a verb has done. Reading them is `event_stream.py`.

    emit(engine, "volume", "create", name, {"driver": "local"})     any object
    of_container(engine, record, "create")                         one with a record, whose attributes are added
    of_image(engine, image, "tag", "busybox:latest")               an image that is in the store

Names, attributes and order are Docker's. What happens while a container runs is told by its monitor
(runtime/events.py): start, die, oom, kill, pause, unpause, health_status, network disconnect, volume unmount.

Telling costs a write to a file in memory, and never fails: see store/events.py.
"""

from collections.abc import Iterable, Mapping

from rootless.engine.context import Engine
from rootless.errors import RootlessError
from rootless.spec.reference import Reference
from rootless.store import events
from rootless.store.containers import Record
from rootless.store.images import Image
from rootless.store.networks import BRIDGE, Network

CONTAINER, IMAGE, VOLUME, NETWORK, BUILDER = "container", "image", "volume", "network", "builder"


def emit(engine: Engine, kind: str, action: str, identifier: str, attributes: Mapping[str, str] | None = None) -> None:
    """Tell that *action* has happened to the object."""
    events.append(engine.layout, kind, action, identifier, attributes or {})


def of_container(engine: Engine, record: Record, action: str, **more: str) -> None:
    """Tell of a container."""
    emit(engine, CONTAINER, action, record["id"], {**events.attributes_of(record), **more})


def of_volume(engine: Engine, name: str, action: str) -> None:
    """Tell of a volume."""
    emit(engine, VOLUME, action, name, {"driver": "local"})


def of_network(engine: Engine, network: Network, action: str, **more: str) -> None:
    """Tell of a network; of its "connect" and "disconnect" with container=ID."""
    emit(engine, NETWORK, action, network.id, {"name": network.name, "type": network.driver, **more})


def of_image(engine: Engine, image: Image, action: str, name: str = "") -> None:
    """Tell of an image that is in the store, with its labels and the *name* that it is about, or its id."""
    emit(engine, IMAGE, action, image.id, {**_labels(engine, image), "name": name or image.id})


def transferred(engine: Engine, image: Image, action: str, reference: Reference) -> None:
    """Tell of a "pull" or "push", which are about the name."""
    attributes = {**_labels(engine, image), "name": reference.familiar_name}
    emit(engine, IMAGE, action, reference.familiar, attributes)


def _labels(engine: Engine, image: Image) -> Mapping[str, str]:
    """None where it has been removed meanwhile: what was done with it is done, and told."""
    try:
        return engine.images.config(image).config.labels
    except RootlessError:
        return {}


def pruned(engine: Engine, kind: str, freed: int) -> None:
    """Tell that all of a kind were removed that nobody used, and the bytes that freed."""
    emit(engine, kind, "prune", "", {"reclaimed": str(freed)})


def connected(engine: Engine, record: Record, endpoints: Iterable[Record]) -> None:
    """Tell that a container has these networks (ENDPOINT as slirp answers it)."""
    for endpoint in endpoints:
        attributes = {"container": record["id"], "name": endpoint["name"], "type": BRIDGE}
        emit(engine, NETWORK, "connect", endpoint["network"], attributes)


def disconnected(engine: Engine, container_id: str, endpoint: Record) -> None:
    """Tell that a container is on a network no more (an entry of its record's networks)."""
    attributes = {"container": container_id, "name": endpoint["name"], "type": BRIDGE}
    emit(engine, NETWORK, "disconnect", endpoint["id"], attributes)


def mounted(engine: Engine, record: Record) -> None:
    """Tell that a container has its volumes."""
    for mount in record["mounts"]:
        if mount["type"] == "volume":
            attributes = {
                "container": record["id"],
                "destination": mount["destination"],
                "driver": "local",
                "propagation": "",
                "read/write": str(not mount["read_only"]).lower(),
            }
            emit(engine, VOLUME, "mount", mount["name"], attributes)


def monitor_settings(engine: Engine, record: Record) -> Record:
    """What the monitor of the container needs for its own events (runtime/events.py)."""
    return {
        "path": events.journal_path(engine.layout),
        "attributes": events.attributes_of(record),
        "volumes": [mount["name"] for mount in record["mounts"] if mount["type"] == "volume"],
    }
