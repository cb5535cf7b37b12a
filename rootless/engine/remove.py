"""rm: containers go, with their names, files and anonymous volumes."""

import os
import time

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.control import connect
from rootless.errors import Conflict, CorruptData, NotFound
from rootless.runtime import channel
from rootless.runtime.channel import Socket
from rootless.store.containers import LIVE, Record

_KILL_SECONDS = 10.0


def remove(engine: Engine, container_id: str, *, force: bool, volumes: bool) -> None:
    """Remove a container; *force* kills it first, *volumes* removes its anonymous volumes too.

    Raises NotFound, and Conflict where it runs and *force* is not given.
    """
    engine.enter_namespace()
    status = _status(engine, container_id)
    if status in LIVE:
        if not force:
            name = engine.containers.load(container_id)["name"]
            raise Conflict(
                f'cannot remove container "{name}": container is {status}', hint="stop the container, or use rm --force"
            )
        _kill(engine, container_id)
    with engine.containers.lock(container_id):
        if _status(engine, container_id, locked=True) in LIVE:
            raise Conflict(f"container {container_id[:12]} was started again meanwhile")
        _remove_locked(engine, container_id, volumes=volumes)


def _status(engine: Engine, container_id: str, *, locked: bool = False) -> str:
    """The status of a container; of one whose record is damaged, whether there is somebody who looks after it."""
    try:
        containers = engine.containers
        state = containers.state_locked(container_id) if locked else containers.state(container_id)
        return str(state["status"])
    except CorruptData:
        return "running" if engine.containers.has_monitor(container_id) else "dead"


def remove_ended(engine: Engine, container_id: str) -> None:
    """Remove a --rm container that has ended, with its anonymous volumes; absent is well.

    One that runs, or is just being started, is left to its monitor.
    """
    engine.enter_namespace()
    try:
        with engine.containers.lock(container_id):
            state = engine.containers.state_locked(
                container_id
            )  # where its monitor was killed, the rest of it goes too
            starts = state["status"] == "created" and not state["error"] and engine.containers.has_monitor(container_id)
            if state["status"] not in LIVE and not starts:
                _remove_locked(engine, container_id, volumes=True)
    except NotFound:
        return


def _remove_locked(engine: Engine, container_id: str, *, volumes: bool) -> None:
    try:
        record = engine.containers.load(container_id)
    except CorruptData:
        record = {"id": container_id, "name": "", "image": "", "labels": {}, "mounts": []}
    engine.containers.remove(container_id)
    events.of_container(engine, record, "destroy")
    if volumes:
        remove_anonymous_volumes(engine, record)
    engine.layout.forget_lock(f"container.{container_id}")


def remove_anonymous_volumes(engine: Engine, record: Record) -> None:
    """Remove those anonymous volumes of a container, which is not there any more, that no other one has taken over."""
    anonymous = [mount["name"] for mount in record["mounts"] if mount["anonymous"]]
    if not anonymous:
        return
    with engine.layout.lock("volumes"):
        for name in anonymous:
            if not volume_users(engine, name):
                try:
                    engine.volumes.remove(name)
                except NotFound:
                    continue
                events.of_volume(engine, name, "destroy")


def volume_users(engine: Engine, name: str) -> list[str]:
    """The ids of the containers that mount volume *name*."""
    users = []
    for container_id in engine.containers.list():
        try:
            record = engine.containers.load(container_id)
        except NotFound:
            continue
        if any(mount["name"] == name for mount in record["mounts"]):
            users.append(container_id)
    return users


def begin_kill(engine: Engine, container_ids: list[str]) -> list[Socket]:
    """Have all of them killed at once, so that removing the first does not keep the others alive.

    The connections are to be kept until they are removed: a monitor tells its clients how its container ended.
    """
    connections = []
    for container_id in container_ids:
        connection = connect(engine, container_id)
        if connection is not None:
            try:
                channel.send(connection, channel.STOP, "9 0")
                connections.append(connection)
            except OSError:
                connection.close()  # it has just ended
    return connections


def _kill(engine: Engine, container_id: str) -> None:
    """SIGKILL without restart, and wait until its monitor has recorded the end."""
    connection = connect(engine, container_id)
    if connection is not None:
        try:
            channel.send(connection, channel.STOP, "9 0")
            while channel.receive(connection)[0]:
                continue
        except OSError:
            pass  # it is gone already
        finally:
            connection.close()
    deadline = time.monotonic() + _KILL_SECONDS
    while engine.containers.has_monitor(container_id) and time.monotonic() < deadline:
        time.sleep(0.001)
    if not os.path.isdir(engine.containers.directory(container_id)):
        raise NotFound(f"No such container: {container_id}")  # it was --rm, and its monitor has removed it
