"""What is mounted into a container besides the standard file systems: from options, images and other containers."""

import os

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.names import random_id
from rootless.engine.options import ContainerOptions, MountOption
from rootless.errors import InvalidInput
from rootless.runtime.jsonlog import now
from rootless.spec.image import RuntimeConfig
from rootless.store.containers import Record


def plan_mounts(engine: Engine, options: ContainerOptions, config: RuntimeConfig) -> list[MountOption | Record]:
    """What is mounted besides the standard file systems, from the root down: options, and records of other containers.

    Raises InvalidInput for what cannot be; nothing is made yet.
    """
    mounts: dict[str, MountOption | Record] = {}
    for destination in config.volumes:
        path = _destination(destination)
        mounts[path] = MountOption("volume", "", path)
    for other in options.volumes_from:
        for mount in _mounts_from(engine, other):
            mounts[mount["destination"]] = mount
    seen = set()
    for option in options.mounts:
        destination = _destination(option.destination)
        if destination in seen:
            raise InvalidInput(f"Duplicate mount point: {destination}")
        seen.add(destination)
        if option.type == "bind":
            option = option._replace(source=_source(option))
        mounts[destination] = option._replace(destination=destination)
    return [mounts[destination] for destination in sorted(mounts, key=lambda path: (path.count("/"), path))]


def _source(option: MountOption) -> str:
    """The absolute path of a bind's source."""
    source = os.path.abspath(option.source)
    if not option.create_source and not os.path.lexists(source):
        raise InvalidInput(f"bind source path does not exist: {source}")
    return source


def make_mount(engine: Engine, mount: MountOption | Record) -> Record:
    """The record of a mount, whose volume or host directory is made if it is missing."""
    if not isinstance(mount, MountOption):
        return mount
    if mount.type == "volume":
        return _volume(engine, mount)
    if mount.type == "bind" and not os.path.lexists(mount.source):
        try:
            os.makedirs(mount.source, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot make the source of a bind, {mount.source}: {error.strerror}") from error
    return _mount_record(mount, source=mount.source, name="")


def imagine_mount(engine: Engine, mount: MountOption | Record) -> Record:
    """The record that make_mount() would give, without making anything."""
    if not isinstance(mount, MountOption):
        return mount
    if mount.type != "volume":
        return _mount_record(mount, source=mount.source, name="")
    name = mount.source or random_id()
    return _mount_record(mount, source=engine.volumes.place(name), name=name, anonymous=not mount.source)


def _destination(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"invalid mount path: '{path}' mount path must be absolute")
    normal = os.path.normpath(path).replace("//", "/")
    if normal == "/":
        raise InvalidInput("invalid specification: destination can't be '/'")
    return normal


def _volume(engine: Engine, option: MountOption) -> Record:
    name = option.source or random_id()
    labels = dict(option.volume_labels)
    is_new = not option.source or not os.path.exists(engine.volumes.place(name))
    volume = engine.volumes.create(name, now(), labels=labels, options={}, anonymous=not option.source)
    if is_new:
        events.of_volume(engine, name, "create")
    return _mount_record(option, source=volume.mountpoint, name=name, anonymous=not option.source)


def _mount_record(option: MountOption, *, source: str, name: str, anonymous: bool = False) -> Record:
    return {
        "type": option.type,
        "name": name,
        "source": source,
        "destination": option.destination,
        "read_only": option.read_only,
        "options": list(option.options),
        "copy": option.type == "volume" and not option.no_copy,
        "anonymous": anonymous,
    }


def _mounts_from(engine: Engine, text: str) -> list[Record]:
    """--volumes-from CONTAINER[:ro|rw]: all its volumes and binds."""
    name, _, mode = text.partition(":")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidInput(f"invalid mode for volumes-from: {mode}")
    other = engine.containers.load(engine.containers.find(name))
    mounts = [dict(mount) for mount in other["mounts"] if mount["type"] != "tmpfs"]
    for mount in mounts:
        mount["read_only"] |= mode == "ro"
        mount["anonymous"] = False  # it is the other's to remove
    return mounts
