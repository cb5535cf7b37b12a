"""Cache mounts carried by a registry: --cache-mount-to and --cache-mount-from, type=registry.

    manifest    an OCI image manifest; each of its layers is the archive of a cache mount, compressed by gzip
    config      {"rootless.cachemounts.v1": [{"key", "id", "mode", "uid", "gid"}, …]}, in the order of the layers

The same files make the same blobs, so what has not changed is not sent again. Archives are as those that a directory
has (build_carry.py), which this fills, or is filled from.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rootless.engine.build_cache_registry import cache_manifest, fetch_to, reading_of
from rootless.engine.registries import open_client, registry_configuration
from rootless.errors import CorruptData, InvalidInput, NotFound
from rootless.linux import files
from rootless.registry.credentials import default_credentials
from rootless.registry.push import Pusher
from rootless.registry.resolve import resolve_image
from rootless.spec.digest import Digest, digest_of
from rootless.spec.image import MAX_CONFIG_SIZE, OCI_LAYER, OCI_MANIFEST, Descriptor
from rootless.spec.platform import host_platform
from rootless.spec.reference import parse_reference
from rootless.spec.strict_json import parse_json
from rootless.store.compress import compressor

CONFIG_TYPE = "application/vnd.rootless.cachemounts.config.v1+json"
_MEMBER = "rootless.cachemounts.v1"
_KEY = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def push(directory: str, name: str) -> None:
    """Have the registry hold the cache mounts in *directory* as *name*. Raises what the registry room raises."""
    reference = parse_reference(name).with_default_tag()
    keys = sorted(entry[:-5] for entry in os.listdir(directory) if entry.endswith(".json"))
    with Pusher(registry_configuration(), default_credentials()) as pusher, ExitStack() as held:
        blobs, rows = [], []
        for key in keys:
            with open(os.path.join(directory, f"{key}.json"), "rb") as file:
                rows.append({"key": key, **json.loads(file.read())})
            blob, fd = held.enter_context(_compressed(os.path.join(directory, f"{key}.tar")))
            pusher.push_blob(reference, blob, reading_of(fd))
            blobs.append(blob)
        config = json.dumps({_MEMBER: rows}, separators=(",", ":"), sort_keys=True).encode()
        if len(config) > MAX_CONFIG_SIZE:
            raise InvalidInput(f"cache mounts that take more than {MAX_CONFIG_SIZE} bytes to describe")
        described = Descriptor(CONFIG_TYPE, digest_of(config), len(config))
        pusher.push_blob(reference, described, lambda offset, count: config[offset : offset + count])
        pusher.push_manifest(reference, cache_manifest(described, blobs), OCI_MANIFEST)


@contextmanager
def _compressed(path: str) -> Iterator[tuple[Descriptor, int]]:
    """A file as a blob, open as long as the block lasts."""
    fd = os.open(f"{path}.gz", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(f"{path}.gz")
        total = hashlib.sha256()

        def write_out(data: bytes | memoryview) -> None:
            total.update(data)
            files.write_all(fd, data)

        with open(path, "rb") as file, compressor("gzip", write_out) as write:
            while piece := file.read(_CHUNK):
                write(piece)
        yield Descriptor(f"{OCI_LAYER}+gzip", Digest(f"sha256:{total.hexdigest()}"), os.fstat(fd).st_size), fd
    finally:
        os.close(fd)


def fetch(directory: str, name: str, is_wanted: Callable[[str], bool]) -> None:
    """Have in *directory* the cache mounts that the registry has as *name*, as far as they are wanted, by their keys.

    None at all where there is no such name: it is the first run. Raises CorruptData, what the registry room raises.
    """
    reference = parse_reference(name).with_default_tag()
    with open_client() as client:
        try:
            manifest = resolve_image(client, reference, host_platform()).manifest
        except NotFound:
            return
        config = client.fetch_config(reference, manifest.config)
        rows = _rows(parse_json(config, limit=MAX_CONFIG_SIZE, what="config of the cache mounts"))
        if len(rows) != len(manifest.layers):
            raise CorruptData(f"{reference.familiar}: {len(rows)} cache mounts, {len(manifest.layers)} layers")
        for row, blob in zip(rows, manifest.layers, strict=True):
            if is_wanted(row["key"]):
                fetch_to(client, reference, blob, os.path.join(directory, f"{row['key']}.tar"))
                with open(os.path.join(directory, f"{row.pop('key')}.json"), "w") as file:
                    json.dump(row, file)


def _rows(document: Any) -> list[dict[str, Any]]:
    rows = document.get(_MEMBER) if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise CorruptData("what was fetched holds no cache mounts")
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not _KEY.fullmatch(row["key"]):
            raise CorruptData("config of the cache mounts: a row without a key")
    return rows
