"""load: images from an archive, as save, `docker save`, `podman save` and skopeo write it.

The archive is read once into files of ours (store/image_archive.py). An OCI layout (index.json) says which manifests
there are, and these are kept byte for byte; an older archive has only manifest.json, and gets manifests of our own.
Where both are there they must speak of the same images. Then layer_making.py does what it does for pull: every layer
must be what the config says, or nothing is kept.

The blob of a layer that is not compressed is dropped again where the layer's directory makes the very same archive:
that is so for what save has made of a layer made here.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.layer_making import (
    Layer,
    Progress,
    Silent,
    layers_of,
    lock_blobs,
    lock_layers,
    make_layers,
    record_image,
)
from rootless.engine.layer_new import pack_layer
from rootless.errors import CorruptData, InvalidInput, NotFound
from rootless.linux import files
from rootless.spec.digest import Digest, digest_of
from rootless.spec.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_CONFIG_SIZE,
    MAX_INDEX_ENTRIES,
    MAX_LAYERS,
    MAX_MANIFEST_SIZE,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    layer_compression,
    parse_image_config,
    parse_manifest,
    select_manifest,
)
from rootless.spec.platform import Platform, acceptable, host_platform, parse_platform
from rootless.spec.reference import Reference, parse_reference
from rootless.spec.strict_json import parse_json
from rootless.store.image_archive import ImageArchive, Staged, blob_name
from rootless.store.images import Image
from rootless.store.layer_stream import Readable
from rootless.store.layout import load_record

_MAX_DEPTH = 4  # indexes in indexes
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5": "+zstd"}


class Loaded(NamedTuple):
    """An image that is here now."""

    image: Image
    tags: tuple[Reference, ...]
    replaced: tuple[tuple[Reference, Digest], ...]  # tags that meant another image before, and which


class _Found(NamedTuple):
    """An image in the archive."""

    document: bytes
    manifest: Manifest
    config: ImageConfig
    files: dict[Digest, Staged]  # of its layers, as far as they are there
    tags: tuple[Reference, ...]


def load(engine: Engine, source: Readable, *, platform: str = "", progress: Progress | None = None) -> Iterator[Loaded]:
    """Have all images of the archive *source*, one after the other. Raises CorruptData, InvalidInput, NotFound."""
    engine.enter_namespace()
    with suppress(OSError):  # rm and prune tell what stands in the way
        engine.layout.empty_trash()
    directory = engine.layout.aside()
    os.mkdir(directory, 0o700)
    try:
        archive = ImageArchive(directory)
        archive.read_all(source)
        wanted = parse_platform(platform) if platform else None
        for found in _images(archive, wanted):
            yield _load_one(engine, found, progress or Silent())
    finally:
        engine.layout.discard(directory)


# -- what the archive says


def _images(archive: ImageArchive, platform: Platform | None) -> list[_Found]:
    if archive.has("index.json"):
        found = _from_layout(archive, platform)
    elif archive.has("manifest.json"):
        found = [_from_docker(archive, entry) for entry in _docker_entries(archive)]
    else:
        raise InvalidInput(
            "unrecognized image format: there is neither index.json nor manifest.json",
            hint="`rootless import` makes an image of the tree of a file system",
        )
    if not found:
        raise InvalidInput("there is no image in the archive")
    if platform and not all(one.config.platform in acceptable(platform) for one in found):
        raise NotFound(f"the archive has no image for {platform}")
    return found


def _from_layout(archive: ImageArchive, platform: Platform | None) -> list[_Found]:
    index = parse_manifest(archive.read("index.json", MAX_MANIFEST_SIZE), OCI_INDEX)
    if not isinstance(index, Index):
        raise CorruptData("image archive: index.json is no index")
    tags = _docker_tags(archive)
    images: dict[Digest, _Found] = {}
    for entry in index.manifests:
        descriptor = _select(archive, entry, platform or host_platform())
        if descriptor is None:
            continue
        found = _read_image(archive, descriptor)
        known = images.setdefault(descriptor.digest, found)
        names = (*known.tags, *_names(entry), *tags.get(digest_of(found.config.raw), ()))
        images[descriptor.digest] = known._replace(tags=tuple(dict.fromkeys(names)))
    _compare(archive, tags, images)
    return list(images.values())


def _select(archive: ImageArchive, entry: Descriptor, platform: Platform) -> Descriptor | None:
    """The manifest that *entry* stands for on *platform*; None where it is something else than an image."""
    for _ in range(_MAX_DEPTH):
        if entry.media_type in MANIFEST_TYPES:
            return entry
        if entry.media_type not in INDEX_TYPES:
            return None
        index = parse_manifest(_document(archive, entry), entry.media_type)
        if not isinstance(index, Index):
            raise CorruptData(f"image archive: {entry.digest} is no index")
        # An archive may have an index whole, and the blobs of one platform alone.
        present = tuple(one for one in index.manifests if archive.has(blob_name(one.digest)))
        entry = select_manifest(index._replace(manifests=present), platform)
    raise CorruptData(f"image archive: indexes lead to indexes, {_MAX_DEPTH} deep")


def _document(archive: ImageArchive, descriptor: Descriptor) -> bytes:
    data = archive.read(blob_name(descriptor.digest), MAX_MANIFEST_SIZE)
    if len(data) != descriptor.size:
        raise CorruptData(f"image archive: {descriptor.digest} has {len(data)} bytes, not {descriptor.size}")
    return data


def _read_image(archive: ImageArchive, descriptor: Descriptor) -> _Found:
    document = _document(archive, descriptor)
    manifest = parse_manifest(document, descriptor.media_type)
    if not isinstance(manifest, Manifest) or not manifest.is_image:
        raise CorruptData(f"image archive: {descriptor.digest} is no image")
    config = parse_image_config(archive.read(blob_name(manifest.config.digest), MAX_CONFIG_SIZE))
    there = {layer.digest for layer in manifest.layers if archive.has(blob_name(layer.digest))}
    staged = {digest: archive.file(blob_name(digest)) for digest in there}
    for layer in manifest.layers:
        layer_compression(layer.media_type)
        if layer.digest in staged and staged[layer.digest].size != layer.size:
            raise CorruptData(f"image archive: {layer.digest} has {staged[layer.digest].size} bytes, not {layer.size}")
    return _Found(document, manifest, config, staged, ())


def _names(entry: Descriptor) -> Iterator[Reference]:
    """The tag that an entry of index.json gives, in the one annotation or the other; a mere tag names no image."""
    for key in _NAMES:
        text = entry.annotations.get(key, "")
        if text and (key == _NAMES[0] or "/" in text or ":" in text):
            yield _parse_tag(text)
            return


def _parse_tag(text: str) -> Reference:
    try:
        reference = parse_reference(text).with_default_tag()
    except InvalidInput as error:
        raise CorruptData(f"image archive: {text[:200]!r} is no image's name: {error}") from None
    if reference.digest or reference.familiar_name == "host":
        raise CorruptData(f"image archive: {text[:200]!r} is no tag")
    return reference


# -- archives that know no layouts


class _Entry(NamedTuple):
    """An image in manifest.json."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


def _docker_entries(archive: ImageArchive) -> list[_Entry]:
    data = archive.read("manifest.json", MAX_MANIFEST_SIZE)
    document = parse_json(data, limit=MAX_MANIFEST_SIZE, what="manifest.json")
    if not isinstance(document, list) or len(document) > MAX_INDEX_ENTRIES:
        raise CorruptData("manifest.json is not a list of images")
    return [_parse_entry(entry) for entry in document]


def _parse_entry(entry: Any) -> _Entry:
    config = entry.get("Config") if isinstance(entry, dict) else None
    if not isinstance(config, str):
        raise CorruptData("manifest.json: an image without Config")
    lists = [entry.get(key) or [] for key in ("RepoTags", "Layers")]
    for words in lists:
        if not isinstance(words, list) or len(words) > MAX_LAYERS or not all(isinstance(word, str) for word in words):
            raise CorruptData("manifest.json: RepoTags or Layers is not a list of texts")
    return _Entry(config, tuple(lists[0]), tuple(lists[1]))


def _docker_tags(archive: ImageArchive) -> dict[Digest, tuple[Reference, ...]]:
    """The tags that manifest.json gives to each config, if it is there."""
    entries = _docker_entries(archive) if archive.has("manifest.json") else []
    return {archive.file(entry.config).digest: tuple(map(_parse_tag, entry.tags)) for entry in entries}


def _compare(archive: ImageArchive, tags: dict[Digest, tuple[Reference, ...]], images: dict[Digest, _Found]) -> None:
    """Raise CorruptData where manifest.json speaks of other images than index.json: each has its readers."""
    if not archive.has("manifest.json"):
        return
    layers = {digest_of(one.config.raw): one.manifest.layers for one in images.values()}
    if set(tags) != set(layers):
        raise CorruptData("image archive: index.json and manifest.json speak of different images")
    for entry in _docker_entries(archive):
        ours = layers[archive.file(entry.config).digest]
        theirs = [archive.file(name).digest for name in entry.layers]
        if theirs != [layer.digest for layer in ours]:
            raise CorruptData("image archive: index.json and manifest.json speak of different layers")


def _from_docker(archive: ImageArchive, entry: _Entry) -> _Found:
    """An image with a manifest of our own making."""
    raw = archive.read(entry.config, MAX_CONFIG_SIZE)
    config = parse_image_config(raw)
    staged = [archive.file(name) for name in entry.layers]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(raw), "size": len(raw)},
        "layers": [{"mediaType": _layer_type(one), "digest": one.digest, "size": one.size} for one in staged],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    manifest = parse_manifest(data, OCI_MANIFEST)
    if not isinstance(manifest, Manifest):
        raise CorruptData("manifest.json: no image")
    return _Found(data, manifest, config, {one.digest: one for one in staged}, tuple(map(_parse_tag, entry.tags)))


def _layer_type(staged: Staged) -> str:
    with open(staged.path, "rb") as file:
        return OCI_LAYER + _MAGIC.get(file.read(2), "")


# -- into the store


def _load_one(engine: Engine, found: _Found, shown: Progress) -> Loaded:
    layers = layers_of(found.manifest, found.config)
    before = {tag: engine.images.by_reference(tag) for tag in found.tags}
    with ExitStack() as locks:
        missing = lock_layers(engine, layers, shown, locks)
        lock_blobs(engine, layers, locks)

        def fetch(layer: Layer) -> None:
            _keep(engine, found, layer)

        if missing:
            make_layers(engine, layers, missing, fetch, lambda: None, shown)
        for layer in layers:
            _settle_blob(engine, found, layer)
        document = (found.document, found.manifest.media_type)
        image = record_image(engine, document, found.config, layers, tags=found.tags)
    events.of_image(engine, image, "load")
    replaced = [(tag, old.id) for tag, old in before.items() if old and old.id != image.id]
    return Loaded(image, found.tags, tuple(replaced))


def _keep(engine: Engine, found: _Found, layer: Layer) -> None:
    """Have the store hold the blob of *layer*, which is locked. Raises CorruptData where the archive lacks it."""
    staged = found.files.get(layer.descriptor.digest)
    if staged is None:
        raise CorruptData(f"image archive: the layer {layer.descriptor.digest} is not there")
    target = engine.blobs.path(layer.descriptor.digest)
    fd = os.open(staged.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    with suppress(FileExistsError):
        # The file stays in the archive: other images may have the layer, too.
        os.link(staged.path, target, follow_symlinks=False)
    files.fsync_directory(os.path.dirname(target))


def _settle_blob(engine: Engine, found: _Found, layer: Layer) -> None:
    """Keep the blob, unless the layer's directory makes the same archive."""
    digest = layer.descriptor.digest
    if str(digest) == layer.diff_id and _makes(engine, layer):
        engine.blobs.remove(digest)
    elif not engine.blobs.has(digest) and digest in found.files:
        _keep(engine, found, layer)


def _makes(engine: Engine, layer: Layer) -> bool:
    directory = engine.layers.directory(layer.chain_id)
    if not load_record(os.path.join(directory, "layer.json")).get("blob"):
        return True  # it was made here
    return pack_layer(engine, directory).diff_id == layer.diff_id
