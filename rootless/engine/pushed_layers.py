"""What is remembered of a layer made here once it was pushed: what it was compressed to, and who has it.

    layers/HEX/pushed.json      {"gzip": {"media_type", "digest", "size", "repositories": ["registry.example.org/app"]}}

So the next push asks the registry for that blob, and compresses nothing where it has it. Nothing rests on the record: a
damaged one, or one that tells of what a registry has forgotten, costs a second look.
"""

import os
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.errors import CorruptData
from rootless.spec.digest import ChainID, parse_digest
from rootless.spec.image import Descriptor, layer_compression
from rootless.store.layout import load_record, save_record

_MOST_REPOSITORIES = 50


class PushedLayer(NamedTuple):
    """A layer as registries have it."""

    blob: Descriptor
    repositories: tuple[str, ...]  # "registry.example.org/app", the latest first


def find_pushed(engine: Engine, layer: ChainID, compression: str) -> PushedLayer | None:
    """What is known of *layer*, compressed so."""
    entry = _load(engine, layer).get(compression)
    try:
        if not isinstance(entry, dict) or not isinstance(entry["size"], int):
            return None
        layer_compression(entry["media_type"])
        blob = Descriptor(entry["media_type"], parse_digest(entry["digest"]), entry["size"])
        return PushedLayer(blob, tuple(str(name) for name in entry["repositories"]))
    except (KeyError, TypeError, AttributeError, CorruptData):
        return None


def remember_pushed(engine: Engine, layer: ChainID, compression: str, blob: Descriptor, repository: str) -> None:
    """*repository* has *layer*, compressed so, as *blob*."""
    known = find_pushed(engine, layer, compression)
    others = known.repositories if known and known.blob.digest == blob.digest else ()
    if repository in others[:1]:
        return
    names = [repository, *(name for name in others if name != repository)][:_MOST_REPOSITORIES]
    entry = {"media_type": blob.media_type, "digest": blob.digest, "size": blob.size, "repositories": names}
    save_record(_path(engine, layer), {**_load(engine, layer), compression: entry}, durable=False)


def _load(engine: Engine, layer: ChainID) -> dict[str, Any]:
    try:
        return load_record(_path(engine, layer))
    except (OSError, CorruptData):
        return {}


def _path(engine: Engine, layer: ChainID) -> str:
    return os.path.join(engine.layers.directory(layer), "pushed.json")
