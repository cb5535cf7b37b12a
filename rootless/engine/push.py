"""push: an image from the store into a registry.

    for each layer, four at a time:   there already?  elsewhere in the same registry?  else send it
    then the config, then the manifest under its tag; then note what the registry calls the image

Layers that were pulled go as the blobs that they came as, so that an image that was pulled is pushed under the same
digest. A layer made here is compressed into a file without a name first: an upload that breaks can go on, and a
registry that has the blob gets nothing. The manifest then speaks of compressed layers, and is another document than the
one here.

Blobs are opened, and layers locked, before the first byte leaves; what is removed meanwhile is sent all the same.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import ExitStack
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.cancelling_pool import CancellingPool
from rootless.engine.context import Engine
from rootless.engine.image_new import (
    Attach,
    Attached,
    IndexRow,
    index_document,
    layer_descriptors,
    platform_of,
    replace_layers,
)
from rootless.engine.images import check_platform, image_lock
from rootless.engine.layer_blob import compressed, has_blob
from rootless.engine.layer_making import Progress, Silent
from rootless.engine.pushed_layers import find_pushed, remember_pushed
from rootless.engine.registries import registry_configuration
from rootless.errors import InvalidInput, NotFound
from rootless.registry.credentials import default_credentials
from rootless.registry.push import Pusher
from rootless.registry.uploads import Read
from rootless.spec.digest import ChainID, Digest
from rootless.spec.image import (
    MAX_CONFIG_SIZE,
    MAX_MANIFEST_SIZE,
    OCI_CONFIG,
    Descriptor,
)
from rootless.spec.reference import Reference, parse_reference
from rootless.store.images import Image
from rootless.store.layers import layer_lock

PARALLEL_UPLOADS = 4
COMPRESSIONS = ("gzip", "zstd")


class Pushed(NamedTuple):
    """What the registry has now."""

    reference: Reference
    digest: Digest  # of the manifest
    size: int  # of the manifest, in bytes
    media_type: str


class _Layer(NamedTuple):
    """A layer of the image to push. read is None for one whose blob has to be made first."""

    place: int  # in the image, from the bottom
    chain_id: ChainID
    blob: Descriptor
    shown: str  # under which progress speaks of it
    read: Read | None
    is_foreign: bool  # kept at an address of its own, and not to be handed on


def push(
    engine: Engine,
    reference: Reference,
    *,
    platform: str = "",
    compression: str = "gzip",
    progress: Progress | None = None,
) -> Pushed:
    """Have the registry hold the image that *reference* means here, under that name.

    Raises NotFound, InvalidInput, CorruptData, and what the registry room raises.
    """
    reference = reference.with_default_tag()
    if reference.digest:
        raise InvalidInput("cannot push a digest reference", hint="push the image under a tag")
    image = engine.images.by_reference(reference)
    if image is None:
        raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
    check_platform(engine, image, reference.familiar, platform)
    return push_images(engine, [(reference, image)], compression=compression, progress=progress)[0]


def tags_of(engine: Engine, repository: Reference) -> list[Reference]:
    """All tags that the repository has here. Raises NotFound where it has none."""
    found = [parse_reference(name) for name in sorted(engine.images.tags())]
    tags = [name for name in found if name.name == repository.name]
    if not tags:
        raise NotFound(f"An image does not exist locally with the tag: {repository.familiar_name}")
    return tags


def push_images(
    engine: Engine,
    wanted: Iterable[tuple[Reference, Image]],
    *,
    compression: str = "gzip",
    progress: Progress | None = None,
) -> list[Pushed]:
    """Push images, each under its tag or, without one, under its digest."""
    with Pusher(registry_configuration(), default_credentials()) as pusher:
        return [push_image(engine, pusher, reference, image, compression, progress) for reference, image in wanted]


def push_index(
    engine: Engine,
    reference: Reference,
    images: Sequence[Image],
    *,
    compression: str = "gzip",
    annotations: Mapping[str, str] = {},
    attach: Attach | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push images of several platforms, each under its digest, and an index of them under the tag of *reference*.

    *attach* tells what goes along with them.
    """
    reference = reference.with_default_tag()
    target = reference._replace(tag=None)
    rows: list[IndexRow] = []
    with Pusher(registry_configuration(), default_credentials()) as pusher:
        for image in images:
            pushed = push_image(engine, pusher, target, image, compression, progress)
            platform = platform_of(engine.images.config(image).document)
            rows.append((Descriptor(pushed.media_type, pushed.digest, pushed.size), platform, {}))
        if attach:
            rows += _push_attached(pusher, target, attach(rows))
        data, media_type = index_document(rows, annotations)
        digest = pusher.push_manifest(reference, data, media_type)
    return Pushed(reference, digest, len(data), media_type)


def _push_attached(pusher: Pusher, target: Reference, attached: Attached) -> list[IndexRow]:
    for blob, data in attached.blobs:
        pusher.push_blob(target, blob, _reading(data))
    for manifest, data in attached.manifests:
        pusher.push_manifest(target, data, manifest.media_type)
    return attached.rows


def push_image(
    engine: Engine,
    pusher: Pusher,
    reference: Reference,
    image: Image,
    compression: str = "gzip",
    progress: Progress | None = None,
) -> Pushed:
    """Push one image by *pusher*, under the tag of *reference* or, without one, under its digest."""
    if compression not in COMPRESSIONS:
        raise InvalidInput(f"unknown compression {compression!r}", hint=f"there are: {', '.join(COMPRESSIONS)}")
    shown = progress or Silent()
    with ExitStack() as held:
        layers, manifest, config = _open(engine, image, held)
        shown.line(f"The push refers to repository [{reference.name}]")
        job = _Job(engine, pusher, reference, image, compression, shown)
        blobs = job.run(layers, config)
    data, media_type = replace_layers(manifest, image.manifest["media_type"], blobs)
    digest = pusher.push_manifest(reference, data, media_type)
    _remember(engine, image, f"{reference.name}@{digest}")
    events.transferred(engine, image, "push", reference)
    return Pushed(reference, digest, len(data), media_type)


def _open(engine: Engine, image: Image, held: ExitStack) -> tuple[list[_Layer], bytes, tuple[Descriptor, Read]]:
    """Layers, manifest and config of the image, none of which can vanish until *held* is left."""
    with engine.layout.lock(image_lock(image.id), shared=True):
        engine.images.load(image.id)
        manifest = engine.blobs.read(Digest(image.manifest["digest"]), MAX_MANIFEST_SIZE)
        config = engine.blobs.read(image.id, MAX_CONFIG_SIZE)
        diff_ids = engine.images.config(image).diff_ids
        layers = []
        for index, blob in enumerate(layer_descriptors(engine, image)):
            read = _open_layer(engine, image, index, held)
            shown = diff_ids[index].partition(":")[2][:12]
            foreign = bool(blob.urls) and ("foreign" in blob.media_type or "nondistributable" in blob.media_type)
            layers.append(_Layer(index, image.layers[index], blob, shown, read, foreign))
    media_type = json.loads(manifest)["config"].get("mediaType", OCI_CONFIG)
    return layers, manifest, (Descriptor(media_type, image.id, len(config)), _reading(config))


def _open_layer(engine: Engine, image: Image, index: int, held: ExitStack) -> Read | None:
    """What reads the blob of a layer; None where it has to be made, which takes the namespace, and the layer's lock."""
    if has_blob(engine, image, index):
        fd = os.open(engine.blobs.path(image.blobs[index]), os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, fd)
        return _reading_file(fd)
    engine.enter_namespace()
    held.enter_context(engine.layout.lock(layer_lock(image.layers[index]), shared=True))
    return None


def _reading(data: bytes) -> Read:
    return lambda offset, count: data[offset : offset + count]


def _reading_file(fd: int) -> Read:
    return lambda offset, count: os.pread(fd, count, offset)


class _Job:
    """One image on its way, in several threads."""

    def __init__(
        self, engine: Engine, pusher: Pusher, reference: Reference, image: Image, compression: str, shown: Progress
    ) -> None:
        self._engine = engine
        self._pusher = pusher
        self._reference = reference
        self._image = image
        self._compression = compression
        self._shown = shown
        self._sources = _Sources(engine, reference)

    def run(self, layers: Sequence[_Layer], config: tuple[Descriptor, Read]) -> list[Descriptor]:
        """Have the repository hold all of it; the layers' blobs as the manifest is to speak of them, in their order."""
        unique = {layer.blob.digest: layer for layer in layers}
        for layer in unique.values():
            self._shown.status(layer.shown, "Preparing")
        with CancellingPool(PARALLEL_UPLOADS, self._pusher.cancel) as pool:
            jobs = {digest: pool.submit(self._push_layer, layer) for digest, layer in unique.items()}
            done, _ = wait([*jobs.values(), pool.submit(self._push_config, *config)], return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
        return [jobs[layer.blob.digest].result() for layer in layers]

    def _push_config(self, config: Descriptor, read: Read) -> Descriptor:
        self._pusher.push_blob(self._reference, config, read, sources=self._sources.of(config.digest))
        return config

    def _push_layer(self, layer: _Layer) -> Descriptor:
        if layer.is_foreign:
            self._shown.status(layer.shown, "Skipped foreign layer")
            return layer.blob
        if layer.read is None:
            return self._push_made(layer)
        self._send(layer, layer.blob, layer.read, self._sources.of(layer.blob.digest))
        return layer.blob

    def _push_made(self, layer: _Layer) -> Descriptor:
        """A layer made here: as the blob that it was pushed as before, else compressed now."""
        known = find_pushed(self._engine, layer.chain_id, self._compression)
        if known:
            sources = self._sources.among(known.repositories)
            if outcome := self._pusher.find_blob(self._reference, known.blob, sources):
                self._shown.status(layer.shown, outcome.text)
                self._remember(layer, known.blob)
                return known.blob
        with self._engine.layout.nameless() as fd:
            self._shown.status(layer.shown, "Compressing")
            blob = compressed(self._engine, self._image, layer.place, self._compression, fd)
            self._send(layer, blob, _reading_file(fd), ())
        self._remember(layer, blob)
        return blob

    def _send(self, layer: _Layer, blob: Descriptor, read: Read, sources: Sequence[str]) -> None:
        outcome = self._pusher.push_blob(
            self._reference,
            blob,
            read,
            sources=sources,
            progress=lambda done: self._shown.advance(layer.shown, done, blob.size, "Pushing"),
        )
        self._shown.status(layer.shown, outcome.text)

    def _remember(self, layer: _Layer, blob: Descriptor) -> None:
        remember_pushed(self._engine, layer.chain_id, self._compression, blob, self._reference.name)


class _Sources:
    """Which other repositories of the registry may have a blob, by what is known of the images here."""

    def __init__(self, engine: Engine, reference: Reference) -> None:
        self._reference = reference
        self._by_digest: dict[Digest, dict[str, None]] = {}
        for image in engine.images.list():
            repositories = self.among(parse_reference(name).name for name in image.repo_digests)
            for digest in (image.id, *image.blobs) if repositories else ():
                self._by_digest.setdefault(digest, {}).update(dict.fromkeys(repositories))

    def of(self, digest: Digest) -> tuple[str, ...]:
        """Their paths."""
        return tuple(self._by_digest.get(digest, ()))

    def among(self, repositories: Iterable[str]) -> tuple[str, ...]:
        """The paths of those of *repositories* that are others in the same registry."""
        start = f"{self._reference.domain}/"
        paths = (name.removeprefix(start) for name in repositories if name.startswith(start))
        return tuple(path for path in paths if path != self._reference.path)


def _remember(engine: Engine, image: Image, name: str) -> None:
    """Note what the registry calls the image, unless that was removed meanwhile."""
    with engine.layout.lock(image_lock(image.id)):
        record = engine.images.find_id(image.id)
        if record and name not in record.repo_digests:
            engine.images.save(record._replace(repo_digests=tuple(sorted({*record.repo_digests, name}))))
