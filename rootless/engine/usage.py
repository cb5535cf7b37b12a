"""system df: what images, containers, volumes and the build cache take on disk, and what of it nobody uses.

Images share layers: each counts once in what all take. What could be had back is the layers that no image of a
container has.
"""

from typing import NamedTuple

from rootless.engine import build_prune
from rootless.engine.context import Engine
from rootless.engine.images import Listed as ListedImage
from rootless.engine.images import list_images
from rootless.engine.listing import Listed, list_containers, own_size
from rootless.engine.volumes import list_volumes
from rootless.spec.digest import ChainID
from rootless.store.tree_size import tree_size
from rootless.store.volumes import Volume


class ImageUsage(NamedTuple):
    """An image, its bytes that other images have too, those that are its own, and how many containers it has."""

    listed: ListedImage
    shared: int
    unique: int
    containers: int


class ContainerUsage(NamedTuple):
    """A container and the bytes that it wrote."""

    listed: Listed
    size: int


class VolumeUsage(NamedTuple):
    """A volume, its bytes, and how many containers mount it."""

    volume: Volume
    size: int
    links: int


class Usage(NamedTuple):
    """All that is kept."""

    images: list[ImageUsage]
    image_bytes: int  # of all layers of images
    image_reclaimable: int
    containers: list[ContainerUsage]
    volumes: list[VolumeUsage]
    cache: list[build_prune.Entry]


def usage(engine: Engine) -> Usage:
    """What everything takes. Sizes of containers and volumes are found by looking at each of their files."""
    engine.enter_namespace()
    containers = list_containers(engine)
    images, total, reclaimable = _images(engine, containers)
    return Usage(
        images,
        total,
        reclaimable,
        [ContainerUsage(listed, own_size(engine, listed.record)) for listed in containers],
        _volumes(engine, containers),
        build_prune.entries(engine),
    )


def _images(engine: Engine, containers: list[Listed]) -> tuple[list[ImageUsage], int, int]:
    listed = list_images(engine)
    having: dict[ChainID, int] = {}  # layer → how many images have it
    for one in listed:
        for layer in set(one.image.layers):
            having[layer] = having.get(layer, 0) + 1
    sizes = {layer: _size(engine, layer) for layer in having}
    using: dict[str, int] = {}  # image → how many containers it has
    for container in containers:
        using[container.record["image_id"]] = using.get(container.record["image_id"], 0) + 1
    used = {layer for one in listed if one.image.id in using for layer in one.image.layers}
    rows = []
    for one in listed:
        shared = sum(sizes[layer] for layer in set(one.image.layers) if having[layer] > 1)
        rows.append(ImageUsage(one, shared, one.image.size - shared, using.get(one.image.id, 0)))
    return rows, sum(sizes.values()), sum(size for layer, size in sizes.items() if layer not in used)


def _size(engine: Engine, layer: ChainID) -> int:
    try:
        return engine.layers.load(layer).size
    except FileNotFoundError:
        return 0  # removed meanwhile


def _volumes(engine: Engine, containers: list[Listed]) -> list[VolumeUsage]:
    rows = []
    for volume in list_volumes(engine):
        links = sum(any(m.get("name") == volume.name for m in c.record["mounts"]) for c in containers)
        size = 0 if volume.options else tree_size(volume.mountpoint)  # one that stands for a directory takes nothing
        rows.append(VolumeUsage(volume, size, links))
    return rows
