"""container prune, image prune: what nobody needs, and what killed commands have left."""

from collections.abc import Callable, Mapping

from rootless.engine import events
from rootless.engine.context import Engine
from rootless.engine.image_remove import Removal, remove_unused_image, sweep
from rootless.engine.images import ImageFilter, list_images
from rootless.engine.listing import list_containers, own_size
from rootless.engine.remove import remove
from rootless.engine.volumes import Pruned
from rootless.errors import Conflict, NotFound


def prune_containers(engine: Engine, *, until: int | None, labels: Callable[[Mapping[str, str]], bool]) -> Pruned:
    """Remove the containers that do not run, made before *until* (ns of the epoch), whose labels pass *labels*.

    The names of what is gone are ids.
    """
    engine.enter_namespace()
    engine.layout.empty_trash()
    engine.containers.sweep()
    names, freed = [], 0
    for listed in list_containers(engine):
        too_young = until is not None and listed.created > until
        if listed.is_live or too_young or not labels(listed.record["labels"]):
            continue
        size = own_size(engine, listed.record)
        try:
            remove(engine, listed.record["id"], force=False, volumes=False)
        except (Conflict, NotFound):
            continue  # started or removed meanwhile
        names.append(listed.record["id"])
        freed += size
    events.pruned(engine, events.CONTAINER, freed)
    return Pruned(names, freed)


def prune_images(
    engine: Engine, *, every: bool, until: int | None, labels: Callable[[Mapping[str, str]], bool] | None
) -> Removal:
    """Remove the images that no container uses: those with neither a tag nor a place in a list, or *every* one.

    Only those made before *until* (ns of the epoch), whose labels pass *labels*. Then the trash, and layers and blobs
    without an image.
    """
    from rootless.engine.manifest import images_in_lists  # loads what speaks HTTP, and `ps` loads this

    engine.enter_namespace()
    engine.layout.empty_trash()
    steps, freed = [], 0
    named = set() if every else images_in_lists(engine)
    for listed in list_images(engine, ImageFilter(dangling=None if every else True, until=until, labels=labels)):
        if listed.image.id in named:
            continue
        removal = remove_unused_image(engine, listed.image.id, with_tags=every)
        steps += removal.steps
        freed += removal.freed
    removal = sweep(engine)
    events.pruned(engine, events.IMAGE, freed + removal.freed)
    return Removal([*steps, *removal.steps], freed + removal.freed)
