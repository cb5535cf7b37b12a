"""save: images as one archive, which load, Docker, podman and skopeo take.

It is an OCI image layout, the form that `docker save` has today: index.json names the manifests, and manifest.json and
repositories say the same for programs that know no layouts. Blobs go as they are kept, so that manifests keep their
digests; the archive of a layer made here is made again as it goes out. The same images make the same bytes: members
are sorted, and none has an owner or a time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.image_new import Attach, IndexRow, index_document, layer_descriptors, platform_of, replace_layers
from rootless.engine.images import check_platform, find_image, find_name, image_lock
from rootless.engine.layer_blob import compressed, write_tar
from rootless.errors import CorruptData, InvalidInput
from rootless.spec.digest import ChainID, Digest, digest_of
from rootless.spec.image import MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, OCI_INDEX, Descriptor, layer_compression
from rootless.spec.reference import Reference, parse_reference
from rootless.store.image_archive import blob_name
from rootless.store.images import Image
from rootless.store.layers import layer_lock
from rootless.store.tar import Kind
from rootless.store.tar_write import TarWriter, Write

FORMATS = ("docker-archive", "oci-archive")
_CHUNK = 1 << 20
_NAME = "io.containerd.image.name"  # annotations of an entry of index.json: the whole reference
_REF_NAME = "org.opencontainers.image.ref.name"  # and the tag


class _Blob(NamedTuple):
    """A blob to write: its bytes, the file that has them, or the layer that they are made of."""

    size: int
    data: bytes | None = None
    fd: int = -1
    layer: ChainID | None = None


class _Saved(NamedTuple):
    """An image, and the tags that it was asked for by."""

    image: Image
    tags: list[Reference]


class _Opened(NamedTuple):
    """An image whose parts are open: its manifest as it goes out, and what stands for its layers there."""

    image: Image
    tags: list[Reference]
    manifest: Descriptor
    layers: tuple[Descriptor, ...]


class _Parts(NamedTuple):
    """What images consist of, each part once: images that share layers need no more open files than one."""

    blobs: dict[str, _Blob]  # by their names in the archive
    layers: dict[tuple[ChainID, Digest], Descriptor]  # as an image has a layer -> what stands for it here


def save(
    engine: Engine, names: Sequence[str], write: Write, *, platform: str = "", form: str = "docker-archive"
) -> None:
    """Write an archive of the images *names* to *write*. A repository without a tag means all of its tags.

    Raises NotFound, Conflict, InvalidInput, CorruptData, and what *write* raises.
    """
    if form not in FORMATS:
        raise InvalidInput(f"unknown format {form!r}", hint=f"there are: {', '.join(FORMATS)}")
    with ExitStack() as held:
        images: dict[str, _Saved] = {}
        for name in names:
            image, tags = _find(engine, name)
            check_platform(engine, image, name, platform)
            for tagged, reference in tags or [(image, None)]:
                known = images.setdefault(tagged.id, _Saved(tagged, []))
                if reference and reference not in known.tags:
                    known.tags.append(reference)
        parts = _Parts({}, {})
        opened = [_open(engine, saved, parts, held) for saved in images.values()]
        _write_archive(engine, opened, parts.blobs, write, form)
    for saved in images.values():
        events.of_image(engine, saved.image, "save")


def save_built(
    engine: Engine,
    images: Sequence[Image],
    tags: list[Reference],
    write: Write,
    *,
    form: str = "docker-archive",
    attach: Attach | None = None,
) -> None:
    """Write an archive of one image, or of an index of several platforms' images, that is called *tags*.

    *attach* tells what goes along with them, in an index then.
    """
    with ExitStack() as held:
        parts = _Parts({}, {})
        is_index = len(images) > 1 or attach is not None
        names = [] if is_index else tags
        opened = [_open(engine, _Saved(image, names), parts, held) for image in images]
        index = None
        if is_index:
            rows: list[IndexRow] = [
                (one.manifest, platform_of(engine.images.config(one.image).document), {}) for one in opened
            ]
            if attach:
                attached = attach(rows)
                rows += attached.rows
                more = {blob_name(b.digest): _Blob(b.size, data=d) for b, d in (*attached.blobs, *attached.manifests)}
                parts.blobs.update(more)
            data, media_type = index_document(rows)
            index = _entries(Descriptor(media_type, digest_of(data), len(data)), tags)
            parts.blobs[blob_name(digest_of(data))] = _Blob(len(data), data=data)
        _write_archive(engine, opened, parts.blobs, write, form, index)


def _find(engine: Engine, name: str) -> tuple[Image, list[tuple[Image, Reference | None]]]:
    """The image that *name* means, and what else of its repository does, with the tags."""
    reference = _repository(name)
    if reference is not None:
        tags = sorted(tag for tag in map(parse_reference, engine.images.tags()) if tag.name == reference.name)
        if tags:
            pairs = [(find_image(engine, str(tag)), tag) for tag in tags]
            return pairs[0][0], [(image, tag) for image, tag in pairs]
    image = find_image(engine, name)
    found = find_name(engine, name, image)
    return image, [(image, found)] if found and found.tag else []


def _repository(name: str) -> Reference | None:
    try:
        reference = parse_reference(name)
    except InvalidInput:
        return None
    return None if reference.tag or reference.digest else reference


def _open(engine: Engine, saved: _Saved, parts: _Parts, held: ExitStack) -> _Opened:
    """Add all that the image consists of to *parts*; nothing of it can vanish until *held* is left."""
    image = saved.image
    with engine.layout.lock(image_lock(image.id), shared=True):
        engine.images.load(image.id)
        config = engine.blobs.read(image.id, MAX_CONFIG_SIZE)
        manifest = engine.blobs.read(Digest(image.manifest["digest"]), MAX_MANIFEST_SIZE)
        layers = []
        for place, descriptor in enumerate(layer_descriptors(engine, image)):
            key = (image.layers[place], descriptor.digest)
            if key not in parts.layers:
                parts.layers[key], blob = _open_layer(engine, image, place, descriptor, held)
                parts.blobs.setdefault(blob_name(parts.layers[key].digest), blob)
            layers.append(parts.layers[key])
    data, media_type = replace_layers(manifest, image.manifest["media_type"], layers)
    for document in (config, data):
        parts.blobs[blob_name(digest_of(document))] = _Blob(len(document), data=document)
    return _Opened(image, saved.tags, Descriptor(media_type, digest_of(data), len(data)), tuple(layers))


def _open_layer(
    engine: Engine, image: Image, place: int, descriptor: Descriptor, held: ExitStack
) -> tuple[Descriptor, _Blob]:
    """The blob of a layer, and what stands for it in the manifest."""
    try:
        fd = os.open(engine.blobs.path(descriptor.digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        engine.enter_namespace()
        held.enter_context(engine.layout.lock(layer_lock(image.layers[place]), shared=True))
        if str(descriptor.digest) == engine.images.config(image).diff_ids[place]:
            return descriptor, _Blob(descriptor.size, layer=image.layers[place])
        return _compress(engine, image, place, descriptor, held)
    held.callback(os.close, fd)
    return descriptor, _Blob(descriptor.size, fd=fd)


def _compress(
    engine: Engine, image: Image, place: int, descriptor: Descriptor, held: ExitStack
) -> tuple[Descriptor, _Blob]:
    """A compressed blob of a layer that was here before an image came that has it compressed, or was made here."""
    fd = held.enter_context(engine.layout.nameless())
    made = compressed(engine, image, place, layer_compression(descriptor.media_type), fd)
    return (descriptor if made.digest == descriptor.digest else made), _Blob(made.size, fd=fd)


def _write_archive(
    engine: Engine,
    images: list[_Opened],
    blobs: dict[str, _Blob],
    write: Write,
    form: str,
    index: list[Any] | None = None,
) -> None:
    """*index*: the entries of index.json, where these are not the images."""
    documents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": _index(images, index)}
    if form == "docker-archive":
        documents["manifest.json"] = _docker_manifest(images)
        if repositories := _repositories(images):
            documents["repositories"] = repositories
    members = {**blobs, **{name: _Blob(len(data), data=data) for name, data in documents.items()}}
    archive = TarWriter(write)
    for directory in (b"blobs/", b"blobs/sha256/"):
        archive.header(directory, Kind.DIRECTORY, 0o755, (0, 0), 0)
    for name, blob in sorted(members.items()):
        archive.header(name.encode(), Kind.FILE, 0o644, (0, 0), 0, size=blob.size)
        _write_content(engine, name, blob, archive)
    archive.finish()


def _write_content(engine: Engine, name: str, blob: _Blob, archive: TarWriter) -> None:
    """The bytes of a member, which must be as many as announced, and those that its name promises."""
    if blob.data is not None:
        archive.content(blob.data)
        return
    if blob.layer is not None:
        write_tar(engine, blob.layer, _bounded(name, archive))
    elif _copy(blob.fd, _bounded(name, archive)) != name.rpartition("/")[2]:
        raise _damaged(name)
    if archive.missing:
        raise _damaged(name)


def _bounded(name: str, archive: TarWriter) -> Callable[[bytes | memoryview], object]:
    def write(data: bytes | memoryview) -> None:
        if len(data) > archive.missing:
            raise _damaged(name)
        archive.content(data)

    return write


def _copy(fd: int, write: Write) -> str:
    """All of a file; the hexadecimal sha256 of it."""
    digest, position = hashlib.sha256(), 0
    while data := os.pread(fd, _CHUNK, position):
        digest.update(data)
        write(data)
        position += len(data)
    return digest.hexdigest()


def _damaged(name: str) -> CorruptData:
    return CorruptData(f"{name} in the store is damaged", hint="remove the image, and pull or make it again")


def _index(images: list[_Opened], entries: list[Any] | None) -> bytes:
    if entries is None:
        entries = [entry for saved in images for entry in _entries(saved.manifest, saved.tags)]
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def _entries(manifest: Descriptor, tags: Sequence[Reference]) -> list[dict[str, Any]]:
    """The entries of index.json for a manifest: one for each of its names."""
    entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    names: list[dict[str, Any]] = [{_NAME: str(tag), _REF_NAME: tag.tag} for tag in tags]
    return [{**entry, "annotations": annotations} for annotations in names] or [entry]


def _docker_manifest(images: list[_Opened]) -> bytes:
    return _json(
        [
            {
                "Config": blob_name(saved.image.id),
                "RepoTags": [tag.familiar for tag in saved.tags] or None,
                "Layers": [blob_name(layer.digest) for layer in saved.layers],
            }
            for saved in images
        ]
    )


def _repositories(images: list[_Opened]) -> bytes:
    """Repository, tag, and the topmost layer: what was there before manifest.json."""
    found: dict[str, dict[str, str]] = {}
    for saved in images:
        for tag in saved.tags if saved.layers else ():
            found.setdefault(tag.familiar_name, {})[str(tag.tag)] = saved.layers[-1].digest.partition(":")[2]
    return _json(found) if found else b""


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
