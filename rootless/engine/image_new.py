"""An image from a config and layers: its documents, and the record that makes it be there.

The config decides the id: the same content makes the same image. In the manifest the base's layers stand as its own
manifest has them, with OCI's media types; those made here stand uncompressed, for their archives can always be made
again (layer_blob.py), and what a registry gets compressed has a manifest of its own.

Locks are taken in the order base image, layers, image; all until the record is written, as a layer or blob that no
record names may be removed.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.images import image_lock
from rootless.engine.layer_new import NewLayer
from rootless.errors import Conflict, CorruptData, InvalidInput
from rootless.spec.digest import ChainID, Digest, digest_of
from rootless.spec.image import (
    DOCKER_INDEX,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    MAX_CONFIG_SIZE,
    MAX_LAYERS,
    MAX_MANIFEST_SIZE,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_image_config,
    parse_manifest,
)
from rootless.store.images import Image
from rootless.store.layers import layer_lock

_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_AS_OCI = {
    DOCKER_LAYER: OCI_LAYER,
    f"{DOCKER_LAYER}.gzip": f"{OCI_LAYER}+gzip",
    f"{DOCKER_LAYER}.zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": _NONDISTRIBUTABLE,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": f"{_NONDISTRIBUTABLE}+gzip",
}

IndexRow = tuple[Descriptor, Mapping[str, Any], Mapping[str, str]]  # a manifest, its platform, its annotations


class Attached(NamedTuple):
    """What an index has besides images: manifests that speak of these, and their blobs."""

    rows: list[IndexRow]
    blobs: list[tuple[Descriptor, bytes]]
    manifests: list[tuple[Descriptor, bytes]]


# What goes along with these images.
Attach = Callable[[Sequence[IndexRow]], Attached]


def make_image(
    engine: Engine,
    base: Image | None,
    document: dict[str, Any],
    layers: Sequence[NewLayer],
    *,
    annotations: dict[str, str] | None = None,
) -> Image:
    """The image of *base*'s layers and *layers* above them, with the config *document*, recorded.

    `rootfs` of the document is put right here; all else is the caller's. *annotations* are the manifest's. Raises
    InvalidInput for a config that is none, NotFound where the base has gone, Conflict where a layer has.
    """
    below = layer_descriptors(engine, base) if base else ()
    if len(below) + len(layers) > MAX_LAYERS:
        raise InvalidInput(f"an image of more than {MAX_LAYERS} layers")
    diff_ids = engine.images.config(base).diff_ids if base else ()
    config = _config(document, [*diff_ids, *(layer.diff_id for layer in layers)])
    config_digest = digest_of(config)
    manifest = _manifest(
        config, [*(as_oci(descriptor) for descriptor in below), *map(_descriptor, layers)], annotations
    )
    with ExitStack() as held:
        _hold(engine, base, layers, held)
        if base is None or config_digest != base.id:
            held.enter_context(engine.layout.lock(image_lock(config_digest)))
        return _record(engine, base, document, layers, config, manifest)


def manifest_of(engine: Engine, image: Image) -> Manifest:
    """The manifest of an image that is here. Raises CorruptData."""
    data = engine.blobs.read(Digest(image.manifest["digest"]), MAX_MANIFEST_SIZE)
    manifest = parse_manifest(data, image.manifest["media_type"])
    if not isinstance(manifest, Manifest):
        raise CorruptData(f"the manifest of image {image.id} is an index", hint="remove the image and pull it again")
    return manifest


def layer_descriptors(engine: Engine, image: Image) -> tuple[Descriptor, ...]:
    """What stands for the image's layers in its manifest, bottom first. A blob may have to be made: layer_blob.py."""
    return manifest_of(engine, image).layers


def _config(document: dict[str, Any], diff_ids: list[Any]) -> bytes:
    """The config, in a form that depends on nothing but its content."""
    whole = {**document, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    try:
        data = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"the image's config is not text: {error.object[error.start : error.end]!r}") from error
    if len(data) > MAX_CONFIG_SIZE:
        raise InvalidInput(f"an image config of more than {MAX_CONFIG_SIZE} bytes")
    parse_image_config(data)
    return data


def _manifest(config: bytes, layers: list[Descriptor], annotations: dict[str, str] | None) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [_to_json(layer) for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _to_json(layer: Descriptor) -> dict[str, Any]:
    document: dict[str, Any] = {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
    if layer.urls:
        document["urls"] = list(layer.urls)
    if layer.annotations:
        document["annotations"] = dict(layer.annotations)
    return document


def _descriptor(layer: NewLayer) -> Descriptor:
    return Descriptor(layer.media_type, Digest(layer.diff_id), layer.length)


def replace_layers(manifest: bytes, media_type: str, layers: Sequence[Descriptor]) -> tuple[bytes, str]:
    """*manifest* with other blobs for its layers, as OCI's; and its media type. As it is, where they are the same."""
    document: dict[str, Any] = json.loads(manifest)
    if [layer.digest for layer in layers] == [entry["digest"] for entry in document["layers"]]:
        return manifest, media_type
    document["mediaType"] = OCI_MANIFEST
    document["config"] = {**document["config"], "mediaType": OCI_CONFIG}
    for entry, layer in zip(document["layers"], map(as_oci, layers), strict=True):
        entry.update({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size})
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), OCI_MANIFEST


def as_oci(layer: Descriptor) -> Descriptor:
    """*layer* with OCI's media type for what Docker calls otherwise."""
    return layer._replace(media_type=_AS_OCI.get(layer.media_type, layer.media_type))


def platform_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an index says of the platform of the image that has *config*."""
    return {key: config[key] for key in ("architecture", "os", "variant", "os.version") if config.get(key)}


def index_document(rows: Sequence[IndexRow], annotations: Mapping[str, str] = {}) -> tuple[bytes, str]:
    """An index of manifests, each with its platform and its annotations; and its media type.

    It is Docker's list where all manifests are Docker's and nothing is annotated, which that has no place for.
    """
    plain = not annotations and not any(row[2] for row in rows)
    is_docker = plain and bool(rows) and all(row[0].media_type == DOCKER_MANIFEST for row in rows)
    media_type = DOCKER_INDEX if is_docker else OCI_INDEX
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            {
                "mediaType": blob.media_type,
                "digest": blob.digest,
                "size": blob.size,
                **({"annotations": dict(noted)} if noted else {}),
                "platform": dict(platform),
            }
            for blob, platform, noted in rows
        ],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), media_type


def _hold(engine: Engine, base: Image | None, layers: Sequence[NewLayer], held: ExitStack) -> None:
    """Hold what the image rests on, so that nobody removes it; raise where somebody has."""
    if base:
        held.enter_context(engine.layout.lock(image_lock(base.id), shared=True))
        engine.images.load(base.id)
    for chain_id in dict.fromkeys(layer.chain_id for layer in layers):
        held.enter_context(engine.layout.lock(layer_lock(chain_id), shared=True))
        if not engine.layers.has(chain_id):
            raise Conflict(f"layer {chain_id} was removed while the image was made", hint="try again")


def _record(
    engine: Engine,
    base: Image | None,
    document: dict[str, Any],
    layers: Sequence[NewLayer],
    config: bytes,
    manifest: bytes,
) -> Image:
    image_id = engine.blobs.write(config)
    known = engine.images.find_id(image_id)
    if known and known.repo_digests:
        return known  # what a registry has for it stays its manifest
    own: tuple[ChainID, ...] = tuple(layer.chain_id for layer in layers)
    image = Image(
        id=image_id,
        manifest={"media_type": OCI_MANIFEST, "digest": engine.blobs.write(manifest), "size": len(manifest)},
        blobs=((base.blobs if base else ()) + tuple(Digest(layer.diff_id) for layer in layers)),
        layers=((base.layers if base else ()) + own),
        size=(base.size if base else 0) + sum(layer.size for layer in layers),
        created=document.get("created") or "",
        repo_digests=(),
        added_at=known.added_at if known else time.time(),
    )
    engine.images.save(image)
    return image
