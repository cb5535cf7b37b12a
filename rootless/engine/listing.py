"""ps: the containers and how they are, as records that are cheap to make."""

import os
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.logs import nanoseconds
from rootless.errors import CorruptData, NotFound
from rootless.store.containers import LIVE, Record
from rootless.store.tree_size import tree_size


class Listed(NamedTuple):
    """A container: what it was made with, and how it is."""

    record: Record
    state: Record

    @property
    def created(self) -> int:
        """When it was made, ns of the epoch."""
        return nanoseconds(self.record["created"])

    @property
    def is_live(self) -> bool:
        """Whether it runs, is paused, or is about to run again."""
        return self.state["status"] in LIVE

    @property
    def command(self) -> list[str]:
        """The program and its arguments."""
        return [*self.record["entrypoint"], *self.record["command"]]

    @property
    def networks(self) -> list[str]:
        """The names of its networks; its mode, where it has none of ours."""
        mode: str = self.record["network"]
        if mode.startswith("container:"):
            return []
        return [endpoint["name"] for endpoint in self.record["networks"]] or [mode]

    @property
    def ports(self) -> list[Record]:
        """What is published, as slirp has answered; nothing of a container that does not run."""
        ports: list[Record] = (self.state.get("network") or {}).get("ports", []) if self.is_live else []
        return ports


def list_containers(engine: Engine) -> list[Listed]:
    """All containers, the newest first."""
    found = []
    for container_id in engine.containers.list():
        try:
            found.append(Listed(engine.containers.load(container_id), engine.containers.state(container_id)))
        except NotFound:
            continue  # removed meanwhile
        except CorruptData:
            found.append(_damaged(container_id))
    return sorted(found, key=lambda listed: str(listed.record["created"]), reverse=True)


def _damaged(container_id: str) -> Listed:
    """A container whose record cannot be read: shown, so that it can be removed."""
    record: dict[str, Any] = {
        "id": container_id, "name": container_id[:12], "created": "", "image": "?", "image_id": "", "layers": [],
        "entrypoint": [], "command": ["?"], "labels": {}, "mounts": [], "auto_remove": False,
        "network": "none", "networks": [], "exposed_ports": [],
    }  # fmt: skip
    state = {"status": "dead", "exit_code": 255, "started_at": "", "finished_at": "", "health": None}
    return Listed(record, state)


def own_size(engine: Engine, record: Record) -> int:
    """The bytes that the container wrote."""
    return tree_size(os.path.join(engine.containers.directory(record["id"]), "upper"))


def size_on_disk(engine: Engine, record: Record) -> tuple[int, int]:
    """(bytes that the container wrote, bytes with its image's): `ps --size`."""
    own = own_size(engine, record)
    image = sum(engine.layers.load(chain_id).size for chain_id in record["layers"])
    return own, own + image
