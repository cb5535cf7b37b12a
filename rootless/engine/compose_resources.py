"""What a project's containers need to be there: networks, volumes, and the files of secrets and configs.

A secret or config that is a file is bound as it is. One from the environment or with its content in the Compose file,
and one that asks for an owner or mode, is written beside the store, in a directory that only the user may enter:

    compose/PROJECT/DIGEST      the content, with its owner and mode; `down` removes the directory

The digest is that of content, owner and mode, so that a file is never changed, and a container whose secret is another
one mounts another path, by which `up` knows that it has to be made anew.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial

from rootless import __version__
from rootless.compose.load import absolute
from rootless.compose.records import FileObject, FileReference, Network, Project, Service, Volume
from rootless.compose.render import service_hash
from rootless.engine.compose_labels import HASH, NETWORK, PROJECT, VERSION, VOLUME, networks_of, volumes_of
from rootless.engine.compose_tasks import Tell
from rootless.engine.context import Engine
from rootless.engine.network_create import NetworkOptions, create_network
from rootless.engine.network_remove import remove_network
from rootless.engine.options import MountOption
from rootless.engine.volumes import create_volume, remove_volume
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.linux import files
from rootless.store.layout import quote

_CONFIG_MODE = 0o444
_MOST_BYTES = 16 << 20


def used_networks(project: Project) -> list[Network]:
    """The networks that the project's services are on."""
    used = {key for service in project.services.values() for key in service.networks}
    return [network for key, network in project.networks.items() if key in used]


def used_volumes(project: Project) -> list[Volume]:
    """The volumes that the project's services mount."""
    used = {
        mount.source for service in project.services.values() for mount in service.volumes if mount.type == "volume"
    }
    return [volume for key, volume in project.volumes.items() if key in used]


def ensure_resources(engine: Engine, project: Project, tell: Tell) -> None:
    """Have all networks and volumes be there that the services use. Raises NotFound, Conflict, InvalidInput."""
    for network in used_networks(project):
        ensure_network(engine, project, network, tell)
    for volume in used_volumes(project):
        ensure_volume(engine, project, volume, tell)


def ensure_network(engine: Engine, project: Project, network: Network, tell: Tell) -> None:
    """Have the network be there, as the file says. Raises NotFound, Conflict, InvalidInput."""
    shown = f"Network {network.name}"
    try:
        there = engine.networks.find(network.name)
    except NotFound:
        there = None
    if network.external:
        if there is None:
            raise NotFound(f"network {network.name} declared as external, but could not be found")
        return
    wanted = _network_options(project, network)
    if there is not None:
        if there.labels.get(PROJECT) not in (None, project.name):
            raise Conflict(
                f"network {network.name} was found, but is of the project {there.labels[PROJECT]}",
                hint="give it another name, or say external: true",
            )
        if there.labels.get(HASH) in (None, wanted.labels[HASH]):
            return
        remove_network(engine, network.name, force=False)  # fails where containers run on it, and says so
        tell(shown, "Removed")
    tell(shown, "Creating")
    create_network(engine, wanted)
    tell(shown, "Created")


def _network_options(project: Project, network: Network) -> NetworkOptions:
    config = service_hash({"network": [str(value) for value in network]})
    labels = {**network.labels, PROJECT: project.name, NETWORK: network.key, VERSION: __version__, HASH: config}
    pools = network.pools
    return NetworkOptions(
        network.name,
        driver=network.driver or "bridge",
        subnets=tuple(pool.subnet for pool in pools if pool.subnet),
        gateways=tuple(pool.gateway for pool in pools if pool.gateway),
        ranges=tuple(pool.ip_range for pool in pools if pool.ip_range),
        aux={name: address for pool in pools for name, address in pool.aux_addresses.items()},
        internal=network.internal,
        attachable=network.attachable,
        ipv4=network.enable_ipv4 is not False,
        ipv6=bool(network.enable_ipv6),
        options=network.driver_opts,
        labels=labels,
    )


def ensure_volume(engine: Engine, project: Project, volume: Volume, tell: Tell) -> None:
    """Have the volume be there. Raises NotFound, and what creating one raises."""
    shown = f"Volume {volume.name}"
    try:
        there = engine.volumes.load(volume.name)
    except NotFound:
        there = None
    if there is not None:
        if not volume.external and there.labels.get(PROJECT) != project.name:
            tell(shown, "exists already, and was not made by this project: say external: true to use it")
        return
    if volume.external:
        raise NotFound(f"external volume {volume.name!r} not found")
    tell(shown, "Creating")
    labels = {**volume.labels, PROJECT: project.name, VOLUME: volume.key, VERSION: __version__}
    options = {
        key: absolute(value, project.directory, None) if key == "device" and volume.driver_opts.get("o") else value
        for key, value in volume.driver_opts.items()
    }
    create_volume(engine, volume.name, driver=volume.driver or "local", labels=labels, options=options)
    tell(shown, "Created")


def remove_networks(engine: Engine, project: str, tell: Tell) -> None:
    """Remove the networks that were made for a project. One that others use is told of and left."""
    for network in networks_of(engine, project):
        _remove(f"Network {network.name}", partial(remove_network, engine, network.name, force=True), tell)


def remove_volumes(engine: Engine, project: str, tell: Tell) -> None:
    """Remove the volumes that were made for a project. One that others use is told of and left."""
    for volume in volumes_of(engine, project):
        _remove(f"Volume {volume.name}", partial(remove_volume, engine, volume.name, force=True), tell)


def _remove(shown: str, remove: Callable[[], None], tell: Tell) -> None:
    tell(shown, "Removing")
    try:
        remove()
    except Conflict:
        tell(shown, "Resource is still in use")
    else:
        tell(shown, "Removed")


def _directory(engine: Engine, project: str) -> str:
    return engine.layout.path("compose", quote(project))


def remove_files(engine: Engine, project: str) -> None:
    """Remove what was written for secrets and configs of a project."""
    path = _directory(engine, project)
    if os.path.isdir(path):
        engine.layout.discard(path)


def file_mounts(engine: Engine, project: Project, service: Service) -> tuple[MountOption, ...]:
    """The mounts of a service's secrets and configs; files are written that are not there yet. Raises InvalidInput."""
    mounts = [_mount(engine, project, "secret", reference, project.secrets) for reference in service.secrets]
    mounts += [_mount(engine, project, "config", reference, project.configs) for reference in service.configs]
    return tuple(mounts)


def _mount(
    engine: Engine, project: Project, kind: str, reference: FileReference, objects: Mapping[str, FileObject]
) -> MountOption:
    found = objects[reference.source]
    target = reference.target or f"/{reference.source}"
    if not target.startswith("/"):
        target = f"/run/secrets/{target}" if kind == "secret" else f"/{target}"
    if found.external:
        raise InvalidInput(f"unsupported external {kind} {found.name}", hint="name a file, or a variable")
    if found.file and not (reference.uid or reference.gid or reference.mode is not None):
        if not os.path.exists(found.file):
            raise InvalidInput(f"the file of the {kind} {found.key} does not exist: {found.file}")
        return MountOption("bind", found.file, target, read_only=True)
    return MountOption("bind", _written(engine, project, kind, reference, found), target, read_only=True)


def _content(project: Project, kind: str, found: FileObject) -> bytes:
    if found.content is not None:
        return found.content.encode()
    if found.environment:
        value = project.environment.get(found.environment)
        if value is None:
            raise InvalidInput(f"the {kind} {found.key} needs the variable {found.environment}, which is not set")
        return value.encode()
    try:
        with open(found.file, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"the file of the {kind} {found.key}: {found.file}: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise InvalidInput(f"the file of the {kind} {found.key} is larger than {_MOST_BYTES >> 20} MiB: {found.file}")
    return content


def _written(engine: Engine, project: Project, kind: str, reference: FileReference, found: FileObject) -> str:
    """The path of a file with the content, owner and mode that are asked for."""
    content = _content(project, kind, found)
    mode = _CONFIG_MODE if reference.mode is None else reference.mode
    uid, gid = _number(reference.uid, reference), _number(reference.gid, reference)
    digest = hashlib.sha256(b"%d:%d:%o:" % (uid, gid, mode) + content).hexdigest()
    directory = _directory(engine, project.name)
    path = os.path.join(directory, digest)
    if os.path.exists(path):
        return path
    os.makedirs(directory, 0o700, exist_ok=True)
    staged = f"{path}.{os.getpid()}"
    try:
        files.replace_file(staged, content, 0o600)
        if (uid, gid) != (0, 0):
            os.chown(staged, uid, gid)
        os.chmod(staged, mode)
        os.rename(staged, path)
    except OSError as error:
        raise InvalidInput(
            f"the {kind} {found.key} cannot be given the owner {uid}:{gid} and the mode {mode:o}: {error.strerror}"
        ) from error
    return path


def _number(text: str, reference: FileReference) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidInput(f"the owner of {reference.source} must be a number, and is {text!r}")
    return int(text)
