"""rmi: names go, and with the last of them the image, its layers and its blobs.

Three things hold each other up: a pull uses layers that are here already, a container uses those of its image, and
images share them. So nothing is removed because one record has gone. Each layer and blob is locked, without waiting:
who holds such a lock is using it; and with the lock held all records are read once more. A pull keeps the locks of what
it relies on until its record is written, and `create` those of the image (images.image_lock).

A kill in between leaves layers and blobs that no record speaks of: `sweep` finds them.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.images import find_image, find_name, image_lock, with_names
from rootless.errors import Conflict, CorruptData, NotFound
from rootless.spec.digest import ChainID, Digest
from rootless.spec.reference import Reference
from rootless.store.build_cache import BuildCache
from rootless.store.containers import LIVE
from rootless.store.images import Image

_AT_A_TIME = 64  # locks held together: each is an open file
_YOUNG = 24 * 3600  # seconds in which a blob may lack a record: a pull that takes long has not written it yet
_ABANDONED = 7 * 24 * 3600  # seconds after which nobody will go on with a download

T = TypeVar("T", ChainID, Digest)


class Removed(NamedTuple):
    """A step of a removal: a name that is gone, or the id of an image or layer that is."""

    untagged: str = ""
    deleted: str = ""


class Removal(NamedTuple):
    """What was done, in order, and the bytes that it freed."""

    steps: list[Removed]
    freed: int


class User(NamedTuple):
    """A container of an image."""

    id: str
    is_live: bool


def remove_image(engine: Engine, text: str, *, force: bool) -> Removal:
    """Remove the name *text*, and the image with its last name; or the image whose id it is.

    Raises NotFound; Conflict where a container uses the image, or other names lead to it, as Docker has it: *force*
    overrides stopped containers (whose layers stay) and names; running ones never.
    """
    engine.enter_namespace()
    if force and (damaged := _find_damaged(engine, text)):
        with engine.layout.lock(image_lock(damaged)):
            engine.images.remove(damaged)
        # What it had is not known any more; sweep() finds what nobody else has.
        return Removal([Removed(deleted=damaged)], 0)
    image = find_image(engine, text)
    with engine.layout.lock(image_lock(image.id)):
        image = engine.images.load(image.id)
        name = find_name(engine, text, image)
        return (
            _remove_by_id(engine, image, force) if name is None else _remove_by_name(engine, image, name, text, force)
        )


def _find_damaged(engine: Engine, text: str) -> Digest | None:
    """The one image with a damaged record whose id begins with *text*."""
    wanted = text.removeprefix("sha256:")
    found = [image_id for image_id in engine.images.damaged() if wanted and image_id[7:].startswith(wanted)]
    return found[0] if len(found) == 1 else None


def remove_unused_image(engine: Engine, image_id: Digest, *, with_tags: bool) -> Removal:
    """Remove an image that no container uses; one with tags only if *with_tags*. What does not apply is left alone."""
    with engine.layout.lock(image_lock(image_id)):
        try:
            image = engine.images.load(image_id)
        except NotFound:
            return Removal([], 0)
        if users_of(engine, image_id) or (any(name.tag for name in _names(engine, image)) and not with_tags):
            return Removal([], 0)
        return _delete(engine, image)


def users_of(engine: Engine, image_id: str) -> list[User]:
    """The containers that were made from the image."""
    users = []
    for container_id in engine.containers.list():
        try:
            if engine.containers.load(container_id)["image_id"] == image_id:
                users.append(User(container_id, engine.containers.state(container_id)["status"] in LIVE))
        except NotFound:
            continue  # removed meanwhile
    return users


def _remove_by_name(engine: Engine, image: Image, name: Reference, text: str, force: bool) -> Removal:
    users = users_of(engine, image.id)
    if users and not force and _is_single(_names(engine, image)):
        raise Conflict(
            f'conflict: unable to remove repository reference "{text}" (must force) - container {users[0].id[:12]} is'
            f" using its referenced image {_short(image)}"
        )
    steps = [_untag(engine, image, name)]
    left = _names(engine, engine.images.load(image.id))
    if name.tag and not any(other.tag and other.name == name.name for other in left):
        # Without a tag, what this repository called the image says nothing any more.
        steps += [_untag(engine, image, other) for other in left if other.name == name.name]
        left = tuple(other for other in left if other.name != name.name)
    if left or any(user.is_live for user in users):
        return Removal(steps, 0)
    return _delete(engine, image, steps)


def _remove_by_id(engine: Engine, image: Image, force: bool) -> Removal:
    names, users = _names(engine, image), users_of(engine, image.id)
    for user in users:
        if user.is_live:
            raise _conflict(image, "cannot be forced", f"image is being used by running container {user.id[:12]}")
    if names and not force and not _is_single(names):
        raise _conflict(image, "must be forced", "image is referenced in multiple repositories")
    if users and not force:
        raise _conflict(image, "must be forced", f"image is being used by stopped container {users[0].id[:12]}")
    return _delete(engine, image)


def _conflict(image: Image, remedy: str, reason: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {_short(image)} ({remedy}) - {reason}")


def _short(image: Image) -> str:
    return image.id.partition(":")[2][:12]


def _is_single(names: Sequence[Reference]) -> bool:
    """Whether all *names* are of one repository, and at most one is a tag: then it is one name to its user."""
    return len({name.name for name in names}) == 1 and sum(1 for name in names if name.tag) <= 1


def _names(engine: Engine, image: Image) -> tuple[Reference, ...]:
    return with_names(engine, [image])[0].names


def _untag(engine: Engine, image: Image, name: Reference) -> Removed:
    """Take one name away."""
    if name.digest:
        record = engine.images.load(image.id)
        kept = tuple(other for other in record.repo_digests if other != str(name))
        engine.images.save(record._replace(repo_digests=kept))
    else:
        engine.images.untag(name)
    events.emit(engine, events.IMAGE, "untag", image.id, {"name": image.id})
    return Removed(untagged=name.familiar)


def _delete(engine: Engine, image: Image, steps: Sequence[Removed] = ()) -> Removal:
    """Remove the image, with the names that it still has. Hold its lock."""
    done = [*steps, *(_untag(engine, image, name) for name in _names(engine, engine.images.load(image.id)))]
    engine.images.remove(image.id)
    events.emit(engine, events.IMAGE, "delete", image.id, {"name": image.id})
    layers, freed = remove_layers(engine, list(reversed(image.layers)))
    freed += remove_blobs(engine, [image.id, Digest(image.manifest["digest"]), *image.blobs])
    return Removal([*done, Removed(deleted=image.id), *(Removed(deleted=layer) for layer in layers)], freed)


def remove_layers(engine: Engine, layers: Sequence[ChainID]) -> tuple[list[ChainID], int]:
    """Remove those of *layers* that nobody uses; they, and the bytes of their files."""
    removed, freed = [], 0
    for held in _held(engine, "layer", layers):
        used = _used_layers(engine)
        for chain_id in held:
            if chain_id not in used and engine.layers.has(chain_id):
                freed += _layer_size(engine, chain_id)
                engine.layers.remove(chain_id)
                removed.append(chain_id)
    return removed, freed


def remove_blobs(engine: Engine, blobs: Sequence[Digest], *, older_than: float | None = None) -> int:
    """Remove those of *blobs* that nobody uses, and that were there before *older_than*; the bytes that they had."""
    freed = 0
    for held in _held(engine, "blob", blobs):
        used = _used_blobs(engine)
        for digest in held:
            try:
                status = os.stat(engine.blobs.path(digest))
            except FileNotFoundError:
                continue
            if digest not in used and (older_than is None or status.st_mtime < older_than):
                engine.blobs.remove(digest)
                freed += status.st_size
    return freed


def sweep(engine: Engine) -> Removal:
    """Remove layers, blobs and downloads that killed commands have left and no record speaks of."""
    now = time.time()
    layers, freed = remove_layers(engine, engine.layers.list())
    names = os.listdir(engine.layout.path("blobs", "sha256"))
    blobs = [Digest(f"sha256:{name}") for name in names if len(name) == 64]
    freed += remove_blobs(engine, blobs, older_than=now - _YOUNG)
    engine.blobs.sweep_partial(older_than=now - _ABANDONED)
    return Removal([Removed(deleted=layer) for layer in layers], freed)


def _held(engine: Engine, kind: str, names: Sequence[T]) -> Iterator[list[T]]:
    """*names* in parts, each while the locks "KIND.HEX" are held; without those that somebody else holds."""
    for start in range(0, len(names), _AT_A_TIME):
        with ExitStack() as locks:
            held = []
            for name in dict.fromkeys(names[start : start + _AT_A_TIME]):
                try:
                    locks.enter_context(engine.layout.lock(f"{kind}.{name.partition(':')[2]}", blocking=False))
                except BlockingIOError:
                    continue
                held.append(name)
            yield held


def _used_layers(engine: Engine) -> set[ChainID]:
    used = {chain_id for image in engine.images.list() for chain_id in image.layers}
    for container_id in engine.containers.list():
        try:
            used.update(engine.containers.load(container_id)["layers"])
        except NotFound:
            continue  # removed meanwhile
    return used | BuildCache(engine.layout).layers()


def _used_blobs(engine: Engine) -> set[Digest]:
    return {
        digest
        for image in engine.images.list()
        for digest in (image.id, Digest(image.manifest["digest"]), *image.blobs)
    }


def _layer_size(engine: Engine, chain_id: ChainID) -> int:
    """What the layer's record says; nothing where it is damaged, which is no reason to keep it."""
    try:
        return engine.layers.load(chain_id).size
    except (CorruptData, FileNotFoundError, KeyError):
        return 0
