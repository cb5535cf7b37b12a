"""oci-layout://PATH[:TAG|@DIGEST] of --build-context: an image in a directory, as image-spec image-layout.md has it.

    index.json            descriptors; an annotation of each is its tag
    blobs/sha256/HEX      manifests, configs, layers

The user has named the directory, but what is in it may come from anywhere: files are opened below it, and a blob has
the digest under which it was looked for. Layers become those of the store; the image has no name there.
"""

import os
import stat
from contextlib import ExitStack, closing
from typing import NamedTuple

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
from rootless.errors import CorruptData, InvalidInput, NotFound
from rootless.linux.inroot import open_in_root, read_regular
from rootless.spec.digest import matches, parse_digest
from rootless.spec.image import (
    MAX_CONFIG_SIZE,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    parse_image_config,
    parse_manifest,
    select_manifest,
)
from rootless.spec.platform import Platform
from rootless.store.images import Image
from rootless.store.partial_blob import PartialBlob

_REF_NAME = "org.opencontainers.image.ref.name"
_MAX_DEPTH = 4  # indexes in indexes
_CHUNK = 1 << 20


class Place(NamedTuple):
    """Where an image is: a directory, and which one of it."""

    path: str
    tag: str  # "" is latest, or the only one
    digest: str


def parse_place(text: str) -> Place:
    """`PATH[:TAG][@DIGEST]`. Raises InvalidInput."""
    path, at, digest = text.partition("@")
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        head, tag = path, ""
    if not head:
        raise InvalidInput(f"oci-layout://{text}: there is no path")
    return Place(os.path.abspath(head), tag, parse_digest(digest) if at else "")


def image_of_layout(
    engine: Engine, text: str, platform: Platform, progress: Progress | None = None
) -> tuple[Image, ImageConfig]:
    """Have the image that *text*, a place, is for *platform*. Raises NotFound, InvalidInput, CorruptData."""
    place = parse_place(text)
    try:
        root_fd = os.open(place.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"oci-layout://{place.path}: {error.strerror}") from error
    try:
        return _Layout(root_fd, place).image(engine, platform, progress or Silent())
    except OSError as error:
        raise InvalidInput(f"oci-layout://{place.path}: {error.filename or ''}: {error.strerror}") from error
    finally:
        os.close(root_fd)


class _Layout:
    """A layout that is open."""

    def __init__(self, root_fd: int, place: Place) -> None:
        self._root_fd = root_fd
        self._place = place

    def image(self, engine: Engine, platform: Platform, shown: Progress) -> tuple[Image, ImageConfig]:
        data, manifest = self._manifest(platform)
        config = parse_image_config(self._document(manifest.config, MAX_CONFIG_SIZE))
        layers = layers_of(manifest, config)
        with ExitStack() as locks:
            missing = lock_layers(engine, layers, shown, locks)
            lock_blobs(engine, layers, locks)
            if missing:
                make_layers(engine, layers, missing, lambda layer: self._keep(engine, layer), lambda: None, shown)
            return record_image(engine, (data, manifest.media_type), config, layers), config

    def _manifest(self, platform: Platform) -> tuple[bytes, Manifest]:
        """The manifest as it stands, and read."""
        index = parse_manifest(self._read("index.json", MAX_MANIFEST_SIZE), OCI_INDEX)
        if not isinstance(index, Index):
            raise CorruptData(f"{self._place.path}: index.json is no index")
        entry = self._choose(index)
        for _ in range(_MAX_DEPTH):
            data = self._document(entry, MAX_MANIFEST_SIZE)
            parsed = parse_manifest(data, entry.media_type)
            if isinstance(parsed, Manifest):
                return data, parsed
            entry = select_manifest(parsed, platform)
        raise CorruptData(f"{self._place.path}: indexes lead to indexes, {_MAX_DEPTH} deep")

    def _choose(self, index: Index) -> Descriptor:
        wanted, entries = self._place, index.manifests
        if wanted.digest:
            found = [entry for entry in entries if entry.digest == wanted.digest]
        else:
            found = [entry for entry in entries if entry.annotations.get(_REF_NAME) == (wanted.tag or "latest")]
            if not found and not wanted.tag and len(entries) == 1:
                found = list(entries)
        if not found:
            tags = [name for entry in entries if (name := entry.annotations.get(_REF_NAME))]
            what = wanted.digest or wanted.tag or "latest"
            hint = f"there are: {', '.join(ascii(tag)[1:-1] for tag in tags)}" if tags else ""
            raise NotFound(f"oci-layout://{wanted.path}: {what} is not there", hint=hint)
        return found[0]

    def _document(self, blob: Descriptor, limit: int) -> bytes:
        data = self._read(_blob_path(blob), limit)
        if len(data) != blob.size or not matches(data, blob.digest):
            raise CorruptData(f"{self._place.path}: blob {blob.digest} holds something else")
        return data

    def _read(self, path: str, limit: int) -> bytes:
        data = read_regular(self._root_fd, path, limit)
        if data is None:
            raise NotFound(f"oci-layout://{self._place.path}: {path} is not there")
        return data

    def _keep(self, engine: Engine, layer: Layer) -> None:
        """Have the store hold the blob of *layer*, which is locked."""
        blob = layer.descriptor
        fd = open_in_root(self._root_fd, _blob_path(blob), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CorruptData(f"{self._place.path}: blob {blob.digest} is no file")
            partial = engine.blobs.partial_path(blob.digest)
            with closing(PartialBlob(partial, engine.blobs.path(blob.digest), blob)) as sink:
                sink.restart()
                while piece := os.read(fd, _CHUNK):
                    sink.write(piece)
                sink.commit()
        finally:
            os.close(fd)


def _blob_path(blob: Descriptor) -> str:
    return f"blobs/{parse_digest(blob.digest).replace(':', '/')}"
