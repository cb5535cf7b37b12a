"""volume: named directories that outlive containers, with Docker's driver `local`.

A volume with the options of a bind (`-o type=none -o o=bind -o device=/data`) is a name for a directory of the user's:
its `data` is a symbolic link there. So whatever mounts the volume mounts that directory, and removing the volume
removes the link. The other things that Docker's driver can mount (nfs, cifs, block devices) need root.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.names import random_id
from rootless.engine.remove import volume_users
from rootless.errors import Conflict, HostUnsupported, InvalidInput, NotFound
from rootless.runtime.jsonlog import now
from rootless.store.tree_size import tree_size
from rootless.store.volumes import Volume

DRIVER = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_OPTIONS = ("type", "o", "device", "size")
_BINDS = ("bind", "rbind")


class Pruned(NamedTuple):
    """The names of what is gone, and the bytes of its files."""

    names: list[str]
    freed: int


def create_volume(
    engine: Engine, name: str, *, driver: str = DRIVER, labels: Mapping[str, str], options: Mapping[str, str]
) -> Volume:
    """The volume *name*, made if it is not there; without a name, a new anonymous one.

    Raises InvalidInput; HostUnsupported for drivers and options that need more than a user may.
    """
    if driver != DRIVER:
        raise HostUnsupported(
            f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found',
            hint=f"there is one driver: {DRIVER}",
        )
    _check_options(options)
    with engine.layout.lock("volumes"):
        is_new = not name or not os.path.exists(engine.volumes.place(name))
        volume = engine.volumes.create(
            name or random_id(), now(), labels=dict(labels), options=dict(options), anonymous=not name
        )
        if "device" in volume.options:
            _link(volume)
    if is_new:
        events.of_volume(engine, volume.name, "create")
    return volume


def _check_options(options: Mapping[str, str]) -> None:
    for option in options:
        if option not in _OPTIONS:
            raise InvalidInput(f'invalid option: "{option}"')
    if "size" in options:
        raise HostUnsupported("quota size requested but no quota support", hint="quotas of volumes need root")
    for option, needed in (("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")):
        if option in options and needed not in options:
            raise InvalidInput(f'missing required option: "{needed}"')
    if "device" not in options:
        return
    if options.get("o") not in _BINDS:
        raise HostUnsupported(
            f"a volume of type {options['type']!r} with the options {options.get('o', '')!r} needs root to mount",
            hint="a directory can be bound: -o type=none -o o=bind -o device=/path; for memory, run with --tmpfs",
        )
    if not options["device"].startswith("/"):
        raise InvalidInput(f"the device to bind must be an absolute path: {options['device']!r}")


def _link(volume: Volume) -> None:
    """Have the data of a volume that is a bind be a link to what it binds. Repeated, it mends what a kill left."""
    if not os.path.islink(volume.mountpoint):
        try:
            os.rmdir(volume.mountpoint)
        except FileNotFoundError:
            pass  # killed between this call and the next
        os.symlink(volume.options["device"], volume.mountpoint)


def list_volumes(engine: Engine) -> list[Volume]:
    """All volumes, by name, numbers in names by their value: v2 before v10."""
    return sorted(engine.volumes.list(), key=lambda volume: natural_order(volume.name))


def natural_order(name: str) -> list[tuple[bool, int, str]]:
    """What sorts names with numbers by the numbers."""
    return [(not digits, int(digits or 0), rest) for digits, rest in re.findall(r"(\d+)|(\D+)", name)]


def volumes_in_use(engine: Engine) -> set[str]:
    """The names of the volumes that containers mount, running or not."""
    used: set[str] = set()
    for container_id in engine.containers.list():
        try:
            used.update(mount["name"] for mount in engine.containers.load(container_id)["mounts"])
        except NotFound:
            continue  # removed meanwhile
    return used


def find_volume(engine: Engine, name: str) -> Volume:
    """Raises NotFound in Docker's words."""
    try:
        return engine.volumes.load(name)
    except (NotFound, InvalidInput) as error:
        raise NotFound(f"get {name}: no such volume") from error


def volume_labels(volume: Volume) -> dict[str, str]:
    """Its labels, with the one by which Docker marks anonymous volumes."""
    return {ANONYMOUS_LABEL: "", **volume.labels} if volume.anonymous else volume.labels


def inspect_volume(engine: Engine, name: str) -> dict[str, Any]:
    """The document of a volume (Engine API: Volume). Raises NotFound."""
    volume = find_volume(engine, name)
    return {
        "CreatedAt": f"{volume.created.partition('.')[0].rstrip('Z')}Z",
        "Driver": DRIVER,
        "Labels": volume_labels(volume) or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def remove_volume(engine: Engine, name: str, *, force: bool) -> None:
    """Remove a volume. Raises NotFound unless *force*; Conflict where a container mounts it, running or not."""
    engine.enter_namespace()
    with engine.layout.lock("volumes"):
        try:
            find_volume(engine, name)
        except NotFound:
            if force:
                return
            raise
        users = volume_users(engine, name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        engine.volumes.remove(name)
    events.of_volume(engine, name, "destroy")


def prune_volumes(engine: Engine, *, every: bool, labels: Callable[[Mapping[str, str]], bool]) -> Pruned:
    """Remove the volumes that no container mounts and whose labels pass *labels*: anonymous ones, or *every* one.

    Those that stand for a directory elsewhere stay: nothing would be gained.
    """
    engine.enter_namespace()
    names, freed = [], 0
    with engine.layout.lock("volumes"):
        used = volumes_in_use(engine)
        for volume in list_volumes(engine):
            if volume.name in used or volume.options or not (every or volume.anonymous):
                continue
            if labels(volume_labels(volume)):
                size = tree_size(volume.mountpoint)
                engine.volumes.remove(volume.name)
                names.append(volume.name)
                freed += size
                events.of_volume(engine, volume.name, "destroy")
    events.pruned(engine, events.VOLUME, freed)
    return Pruned(names, freed)
