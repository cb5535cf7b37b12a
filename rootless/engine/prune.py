"""image prune: images that nobody needs, and what killed commands have left."""

from collections.abc import Callable, Mapping

from rootless.engine.context import Engine
from rootless.engine.image_remove import Removal, remove_unused_image, sweep
from rootless.engine.images import ImageFilter, list_images


def prune_images(
    engine: Engine, *, every: bool, until: int | None, labels: Callable[[Mapping[str, str]], bool] | None
) -> Removal:
    """Remove the images that no container uses: those without a tag, or *every* one.

    Only those made before *until* (ns of the epoch), whose labels pass *labels*. Then the trash, and layers and blobs
    without an image.
    """
    engine.enter_namespace()
    engine.layout.empty_trash()
    steps, freed = [], 0
    for listed in list_images(engine, ImageFilter(dangling=None if every else True, until=until, labels=labels)):
        removal = remove_unused_image(engine, listed.image.id, with_tags=every)
        steps += removal.steps
        freed += removal.freed
    removal = sweep(engine)
    return Removal([*steps, *removal.steps], freed + removal.freed)
