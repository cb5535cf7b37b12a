"""What builds keep, listed and removed: steps with their layers, and the directories of cache mounts.

A step that goes takes its layer along, unless an image, a container or another step has it. So steps above others go
first, as their layers are above those of the others.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from rootless.engine import events
from rootless.engine.build_steps import sweep_locks, timestamp
from rootless.engine.context import Engine
from rootless.engine.image_remove import remove_layers
from rootless.store.build_cache import BuildCache, CacheMount, Step
from rootless.store.tree_size import tree_size

REGULAR, CACHE_MOUNT = "regular", "exec.cachemount"


class Entry(NamedTuple):
    """One thing that is kept."""

    id: str
    type: str  # REGULAR, CACHE_MOUNT
    description: str
    size: int
    created: str  # RFC 3339
    used: float  # seconds of the epoch
    shared: bool  # an image or a container has its layer, too
    step: Step | None = None


class Pruned(NamedTuple):
    """What was removed."""

    entries: list[Entry]
    freed: int


def entries(engine: Engine) -> list[Entry]:
    """All that is kept, what was used last first."""
    engine.enter_namespace()
    cache = BuildCache(engine.layout)
    shared = {chain_id for image in engine.images.list() for chain_id in image.layers}
    found = [
        Entry(s.key, REGULAR, s.description, s.size, s.created, used, s.chain_id in shared, s)
        for s, used in cache.steps()
    ]
    found += [_of_mount(mount) for mount in cache.mounts()]
    return sorted(found, key=lambda entry: -entry.used)


def _of_mount(mount: CacheMount) -> Entry:
    created = timestamp(int(mount.created))
    text = f"cache mount {mount.id}"
    return Entry(mount.key, CACHE_MOUNT, text, tree_size(mount.data), created, mount.used, False)


def prune(
    engine: Engine,
    *,
    every: bool,
    keep_bytes: int = 0,
    unused_since: float | None = None,
    matches: Callable[[Entry], bool] = lambda entry: True,
) -> Pruned:
    """Remove what *matches* and was not used after *unused_since*, until no more than *keep_bytes* are kept.

    Without *every*, steps whose layers an image has stay: they take no room, and save work.
    """
    cache = BuildCache(engine.layout)
    sweep_locks(engine.layout)
    kept = entries(engine)
    total = sum(entry.size for entry in kept)
    removed: list[Entry] = []
    freed = 0
    for entry in reversed(kept):
        if keep_bytes and total <= keep_bytes:
            break
        if (entry.shared and not every) or not matches(entry):
            continue
        if unused_since is not None and entry.used > unused_since:
            continue
        if entry.type == CACHE_MOUNT:
            if not cache.remove_mount(entry.id):
                continue  # a step is using it
            freed += entry.size
        else:
            cache.forget(entry.id)
        total -= entry.size
        removed.append(entry)
    cache.forget_values()
    freed += _remove_layers(engine, removed)
    events.pruned(engine, events.BUILDER, freed)
    return Pruned(removed, freed)


def _remove_layers(engine: Engine, removed: list[Entry]) -> int:
    """The layers of steps that have gone, if nobody else has them; those above first."""
    depths = {c: depth for e in removed if e.step for depth, c in enumerate(e.step.layers)}
    _, freed = remove_layers(engine, sorted(depths, key=lambda chain_id: -depths[chain_id]))
    return freed


def filters_match(filters: Mapping[str, list[str]]) -> Callable[[Entry], bool]:
    """`id`, `type`, `description`, `shared` and `inuse` of --filter, as buildx has them."""

    def matches(entry: Entry) -> bool:
        fields = {
            "id": entry.id,
            "type": entry.type,
            "description": entry.description,
            "shared": str(entry.shared).lower(),
            "inuse": "false",
            "private": str(not entry.shared).lower(),
        }
        return all(
            any(fields[name].startswith(text) if name == "id" else text in fields[name] for text in texts)
            for name, texts in filters.items()
            if name in fields
        )

    return matches
