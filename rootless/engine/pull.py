"""pull: an image from a registry into the store.

The registry is asked what the name means; then layer_making.py has the layers downloaded, checked and unpacked. What
was downloaded stays where a pull is killed, and the next one goes on from there.
"""

from contextlib import ExitStack, closing, suppress
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.layer_making import (
    Layer,
    Silent,
    layers_of,
    lock_blobs,
    lock_layers,
    make_layers,
    record_image,
)
from rootless.engine.layer_making import Progress as Progress
from rootless.engine.registries import open_client
from rootless.errors import CorruptData
from rootless.registry.client import Client
from rootless.registry.resolve import resolve_image
from rootless.spec.image import Descriptor, parse_image_config
from rootless.spec.platform import host_platform, parse_platform
from rootless.spec.reference import Reference
from rootless.store.images import Image
from rootless.store.partial_blob import PartialBlob


class Pulled(NamedTuple):
    """An image that is here now, and what it took."""

    image: Image
    digest: str  # what the reference names in the registry
    is_new: bool  # the name meant nothing, or another image, before


def pull(engine: Engine, reference: Reference, *, platform: str = "", progress: Progress | None = None) -> Pulled:
    """Have the image that *reference* names, for *platform* or this machine's. Raises what the registry room raises."""
    engine.enter_namespace()
    with suppress(OSError):  # rm and prune tell what stands in the way
        engine.layout.empty_trash()  # of pulls that were killed
    reference = reference.with_default_tag()
    shown = progress or Silent()
    wanted = parse_platform(platform) if platform else host_platform()
    with open_client() as client:
        shown.line(_pulling_from(reference))
        resolved = resolve_image(client, reference, wanted)
        config = parse_image_config(client.fetch_config(reference, resolved.manifest.config))
        layers = layers_of(resolved.manifest, config)
        before = engine.images.by_reference(reference)
        with ExitStack() as locks:
            missing = lock_layers(engine, layers, shown, locks)
            lock_blobs(engine, layers, locks)

            def fetch(layer: Layer) -> None:
                _download(engine, client, reference, layer, shown)

            if missing:
                make_layers(engine, layers, missing, fetch, client.cancel, shown)
            document = resolved.documents[-1]
            image = record_image(
                engine,
                (document.data, document.media_type),
                config,
                layers,
                digests=[f"{reference.name}@{resolved.digest}"],
                tags=[reference] if reference.tag and not reference.digest else [],
            )
    events.transferred(engine, image, "pull", reference)
    return Pulled(image, resolved.digest, before is None or before.id != image.id)


def _pulling_from(reference: Reference) -> str:
    what = reference.tag or reference.digest
    repository = reference.path if reference.domain == "docker.io" else reference.name
    return f"{what}: Pulling from {repository}"


def _download(engine: Engine, client: Client, reference: Reference, layer: Layer, shown: Progress) -> None:
    descriptor = layer.descriptor
    for mirrors in (True, False):
        with closing(_open_partial(engine, descriptor)) as sink:
            client.fetch_blob(
                reference,
                descriptor,
                sink,
                progress=lambda done: shown.advance(layer.shown, done, descriptor.size, "Downloading"),
                mirrors=mirrors,
            )
            shown.status(layer.shown, "Verifying Checksum")
            try:
                sink.commit()
                shown.status(layer.shown, "Download complete")
                return
            except CorruptData:
                # A resumed beginning or a mirror may be to blame: once more, from the registry and from the start.
                if not mirrors:
                    raise


def _open_partial(engine: Engine, descriptor: Descriptor) -> PartialBlob:
    return PartialBlob(engine.blobs.partial_path(descriptor.digest), engine.blobs.path(descriptor.digest), descriptor)
