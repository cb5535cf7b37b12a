"""From a finished stage to the image: its config, with the times that make the same build the same image.

A history row of a step that made a layer has the time of that; the others, and the image, have that of the layer before
them. Where there is none, as in a build that changes nothing but the config, it is the time when just this image was
made first, which the build cache remembers.
"""

from collections.abc import Iterable
from typing import Any

from rootless.engine.build_digest import key_of
from rootless.engine.build_options import BuildOptions
from rootless.engine.build_state import Stage
from rootless.engine.build_steps import timestamp
from rootless.engine.context import Engine
from rootless.engine.image_new import make_image
from rootless.store.build_cache import CACHE_MEMBER, BuildCache, Step, step_records
from rootless.store.images import Image

_NOT_OF_THE_BASE = ("container", "container_config", "docker_version", "id", "parent", "rootfs", CACHE_MEMBER)


def finish(
    engine: Engine, cache: BuildCache, stage: Stage, options: BuildOptions, inline: Iterable[Step] | None = None
) -> Image:
    """The image of the stage, recorded; its config tells of the steps *inline* (build_cache_registry.py)."""
    document = image_document(cache, stage, options)
    if inline is not None:
        document[CACHE_MEMBER] = step_records(inline)
    layers = [made.layer for made in stage.made]
    return make_image(engine, stage.image, document, layers, annotations=dict(options.annotations) or None)


def image_document(cache: BuildCache, stage: Stage, options: BuildOptions) -> dict[str, Any]:
    """The image's config, but for its rootfs."""
    document = {name: value for name, value in stage.document.items() if name not in _NOT_OF_THE_BASE}
    config = dict(stage.config)
    if options.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **options.labels}
    document["config"] = config
    document["os"] = stage.platform.os
    document["architecture"] = stage.platform.architecture
    if stage.platform.variant:
        document["variant"] = stage.platform.variant
    return _with_times(cache, document, stage, options.epoch)


def _with_times(cache: BuildCache, document: dict[str, Any], stage: Stage, epoch: int | None) -> dict[str, Any]:
    document.pop("created", None)
    base = list(stage.document.get("history") or ())
    time = timestamp(epoch) if epoch is not None else _first_time(cache, document, stage)
    first, rows = time, []
    for row in stage.history:
        time = row.get("created", time)
        rows.append({"created": time, **row})
    created = time if stage.history else stage.document.get("created") or first
    return {**document, "created": created, "history": [*base, *rows]}


def _first_time(cache: BuildCache, document: dict[str, Any], stage: Stage) -> str:
    key = key_of("image", stage.base_id, document, stage.history)
    known = cache.value(key)
    if not known:
        known = timestamp(None)
        cache.save_value(key, known)
    return known
