"""--cache-to and --cache-from, type=registry and type=inline: steps in a registry, for another machine to find.

    manifest    an OCI image manifest; its layers are those that steps have made, compressed
    config      {"rootless.buildcache.v1": {KEY: step, …}, "rootfs": {"type": "layers", "diff_ids": […]}}

A step stands as it does in the store (store/build_cache.py); diff_ids are those of the manifest's layers, in order.
With type=inline the member is in the config of the image itself, whose layers it speaks of; it is a word to who imports
it with --cache-from, and inert for all others.

What comes from a registry may come from anywhere: the config and each layer are of the digest that the manifest names,
and a layer has to be, unpacked and archived anew, what its step says, above the very layers that the build has. Layers
are fetched when a step needs them. Whether the steps were done honestly nobody can tell: who imports a cache trusts its
author, as with BuildKit.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any

from rootless.engine.build_cache_files import fits, make_layer
from rootless.engine.context import Engine
from rootless.engine.layer_blob import compressed_layer
from rootless.engine.pushed_layers import find_pushed, remember_pushed
from rootless.engine.registries import open_client, registry_configuration
from rootless.errors import CorruptData, InvalidInput
from rootless.registry.client import Client
from rootless.registry.credentials import default_credentials
from rootless.registry.push import Pusher
from rootless.registry.resolve import resolve_image
from rootless.registry.uploads import Read
from rootless.spec.digest import ChainID, digest_of
from rootless.spec.image import MAX_CONFIG_SIZE, OCI_MANIFEST, Descriptor
from rootless.spec.platform import Platform
from rootless.spec.reference import Reference, parse_reference
from rootless.spec.strict_json import parse_json
from rootless.store.build_cache import CACHE_MEMBER, Step, step_of, step_records
from rootless.store.layers import layer_lock
from rootless.store.layout import load_record
from rootless.store.partial_blob import PartialBlob

CONFIG_TYPE = "application/vnd.rootless.buildcache.config.v1+json"


class RegistryCache:
    """The steps that one reference tells of. For any thread; to be closed."""

    def __init__(self, engine: Engine, name: str, platform: Platform, aside: Callable[[], str]) -> None:
        """Ask the registry for *name*. Raises what the registry room raises, CorruptData for what is no cache.

        *aside* makes a directory for what is fetched, which goes with the build.
        """
        self._engine = engine
        self._reference = parse_reference(name).with_default_tag()
        self._aside = aside
        self._client: Client = open_client()
        try:
            self._open(platform)
        except BaseException:
            self.close()
            raise

    def _open(self, platform: Platform) -> None:
        manifest = resolve_image(self._client, self._reference, platform).manifest
        data = self._client.fetch_config(self._reference, manifest.config)
        document = parse_json(data, limit=MAX_CONFIG_SIZE, what="config of the build cache")
        self.steps = steps_in(document)
        diff_ids = _diff_ids(document) if self.steps else []
        if self.steps and len(diff_ids) != len(manifest.layers):
            raise CorruptData(f"{self._reference.familiar}: {len(diff_ids)} diff_ids, {len(manifest.layers)} layers")
        self._blobs: dict[str, Descriptor] = dict(zip(diff_ids, manifest.layers, strict=False))

    def close(self) -> None:
        """End its connections."""
        self._client.__exit__()

    def cancel(self) -> None:
        """Have what other threads are fetching fail."""
        self._client.cancel()

    def find(self, key: str, layers: Sequence[ChainID], held: ExitStack) -> Step | None:
        """The step of that key above *layers*, with its layer in the store; None where the reference has none.

        Raises CorruptData for a layer that is not what the step says.
        """
        step = self.steps.get(key)
        if step is None or not fits(step, layers):
            return None
        if step.chain_id is None or step.diff_id is None:
            return step
        if known := self._here(step, step.chain_id, held):
            return known
        blob = self._blobs.get(step.diff_id)
        return make_layer(self._engine, step, self._fetch(blob), layers, held) if blob else None

    def _here(self, step: Step, layer: ChainID, held: ExitStack) -> Step | None:
        """The step, where its layer is in the store already, and was made here."""
        held.enter_context(self._engine.layout.lock(layer_lock(layer), shared=True))
        try:
            record = load_record(os.path.join(self._engine.layers.directory(layer), "layer.json"))
        except FileNotFoundError:
            return None
        return step._replace(length=record["length"], size=record["size"]) if record.get("length") else None

    def _fetch(self, blob: Descriptor) -> str:
        """The file that the blob is in, of the digest that it should have."""
        path = os.path.join(self._aside(), "blob")
        fetch_to(self._client, self._reference, blob, path)
        return path


def fetch_to(client: Client, reference: Reference, blob: Descriptor, path: str) -> None:
    """Fetch a blob into the file *path*, which is not there. Raises CorruptData for one of another digest."""
    for mirrors in (True, False):
        with closing(PartialBlob(f"{path}.part", path, blob)) as sink:
            client.fetch_blob(reference, blob, sink, mirrors=mirrors)
            try:
                sink.commit()
                return
            except CorruptData:  # of a mirror, perhaps: once more, from the registry itself
                if not mirrors:
                    raise


def steps_in(document: Any) -> dict[str, Step]:
    """The steps that a config tells of; those that are none are passed over."""
    found: dict[str, Step] = {}
    rows = document.get(CACHE_MEMBER) if isinstance(document, dict) else None
    for key, record in rows.items() if isinstance(rows, dict) else ():
        try:
            found[key] = step_of(key, record)
        except (KeyError, TypeError):
            continue
    return found


def _diff_ids(document: Mapping[str, Any]) -> list[str]:
    rootfs = document.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise CorruptData("config of the build cache: rootfs.diff_ids is not a list of digests")
    return listed


def export(engine: Engine, steps: Iterable[Step], name: str, compression: str, aside: str) -> None:
    """Have the registry hold *steps* and their layers as *name*. *aside* is an empty directory.

    Raises InvalidInput, and what the registry room raises.
    """
    reference = parse_reference(name).with_default_tag()
    known = {step.key: step for step in steps}
    made = {step.diff_id: step.chain_id for step in known.values() if step.diff_id and step.chain_id}
    with Pusher(registry_configuration(), default_credentials()) as pusher:
        blobs = [_push_layer(engine, pusher, reference, layer, compression, aside) for layer in made.values()]
        config = _config(known.values(), list(made))
        described = Descriptor(CONFIG_TYPE, digest_of(config), len(config))
        pusher.push_blob(reference, described, lambda offset, count: config[offset : offset + count])
        pusher.push_manifest(reference, cache_manifest(described, blobs), OCI_MANIFEST)


def _config(steps: Iterable[Step], diff_ids: Sequence[str]) -> bytes:
    document = {CACHE_MEMBER: step_records(steps), "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    if len(data) > MAX_CONFIG_SIZE:
        raise InvalidInput(f"a build cache that takes more than {MAX_CONFIG_SIZE} bytes to describe", hint="mode=min")
    return data


def cache_manifest(config: Descriptor, layers: Iterable[Descriptor]) -> bytes:
    """An OCI manifest of what is no image."""
    rows = [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in (config, *layers)]
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": rows[0], "layers": rows[1:]}
    return json.dumps(document, separators=(",", ":")).encode()


def _push_layer(
    engine: Engine, pusher: Pusher, reference: Reference, layer: ChainID, compression: str, aside: str
) -> Descriptor:
    """Have the repository hold a layer; as what. What it was pushed as before is asked for first."""
    known = find_pushed(engine, layer, compression)
    if known and pusher.find_blob(reference, known.blob):
        return known.blob
    fd = os.open(aside, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        blob = compressed_layer(engine, layer, compression, fd)
        pusher.push_blob(reference, blob, reading_of(fd))
    finally:
        os.close(fd)
    remember_pushed(engine, layer, compression, blob, reference.name)
    return blob


def reading_of(fd: int) -> Read:
    """What reads a file that stays open."""
    return lambda offset, count: os.pread(fd, count, offset)
