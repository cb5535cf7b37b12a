"""rename: another name for a container."""

from contextlib import suppress

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.control import tell_monitor
from rootless.engine.networks import running
from rootless.errors import InvalidInput, NotFound
from rootless.network.slirp import Gone
from rootless.store.containers import LIVE, check_name


def rename(engine: Engine, container_id: str, name: str) -> None:
    """Give the container *name*. Raises Conflict where it is taken; the container keeps its old name then.

    The new name is taken before the record changes and the old one freed after, so a kill in between leaves the
    container found by both.
    """
    name = check_name(name)
    with engine.containers.lock(container_id):
        record = engine.containers.load(container_id)
        old = record["name"]
        if old == name:
            raise InvalidInput("renaming a container with the same name as its current name")
        engine.containers.take_name(name, container_id)
        engine.containers.save({**record, "name": name})
        engine.containers.free_name(old, container_id)
        events.of_container(engine, {**record, "name": name}, "rename", oldName=f"/{old}")
        tell_monitor(engine, container_id, name=name)
        if record["networks"] and engine.containers.state_locked(container_id)["status"] in LIVE:
            _tell_networks(engine, container_id, name)


def _tell_networks(engine: Engine, container_id: str, name: str) -> None:
    """Let the other containers find it by its name. Where slirp is not there, whoever starts it tells it."""
    connection = running(engine)
    if connection is not None:
        with connection, suppress(Gone, NotFound):  # the container may just have ended
            connection.request("update", container=container_id, name=name)
