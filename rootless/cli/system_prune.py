"""system prune: what nobody uses, all of it."""

import time
from collections.abc import Mapping

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, command, flag
from rootless.cli.filters import collect_filters, match_labels_filters, time_window
from rootless.cli.opening import engine_of
from rootless.cli.pruning import PruneOptions, removed_images_text, removed_text
from rootless.cli.values import human_size
from rootless.engine.build_prune import prune as prune_cache
from rootless.engine.network_remove import prune_networks
from rootless.engine.prune import prune_containers, prune_images
from rootless.engine.volumes import prune_volumes
from rootless.errors import InvalidInput


class SystemPruneOptions(PruneOptions):
    """The options of system prune."""

    all: bool = flag("-a", "--all", help="Remove all unused images not just dangling ones")
    volumes: bool = flag("--volumes", help="Prune anonymous volumes")


@command(
    "prune",
    "",
    SystemPruneOptions,
    NO_ARGUMENTS,
    examples="""
        All that no container uses, without a question:
            $ {path} -a -f --volumes
    """,
)
def prune(options: SystemPruneOptions) -> int:
    """Remove unused data"""
    filters = collect_filters(options.filter, ("label", "label!", "until"))
    if options.volumes and "until" in filters:
        raise InvalidInput('the "until" filter is not supported with --volumes')
    if not options.force and not streams.confirm(_warning(options)):
        return 1
    engine = engine_of(options)
    _, until = time_window(filters, time.time_ns())

    def labels(found: Mapping[str, str]) -> bool:
        return match_labels_filters(filters, found)

    containers = prune_containers(engine, until=until, labels=labels)
    streams.write(removed_text("Containers", containers.names))
    streams.write(removed_text("Networks", prune_networks(engine, until=until, labels=labels)))
    freed = containers.freed
    if options.volumes:
        volumes = prune_volumes(engine, every=False, labels=labels)
        streams.write(removed_text("Volumes", volumes.names))
        freed += volumes.freed
    has_labels = {"label", "label!"} & filters.keys()
    images = prune_images(engine, every=options.all, until=until, labels=labels if has_labels else None)
    streams.write(removed_images_text(images.steps))
    freed += images.freed
    if not has_labels:  # what builds keep has none
        unused_since = None if until is None else until / 10**9
        cache = prune_cache(engine, every=options.all, keep_bytes=0, unused_since=unused_since, matches=lambda _: True)
        streams.write(removed_text("build cache objects", [entry.id[:25] for entry in cache.entries]))
        freed += cache.freed
    streams.write(f"Total reclaimed space: {human_size(freed)}\n")
    return 0


def _warning(options: SystemPruneOptions) -> str:
    images = "all images without at least one container associated to them" if options.all else "all dangling images"
    what = ["all stopped containers", "all networks not used by at least one container"]
    what += ["all anonymous volumes not used by at least one container"] if options.volumes else []
    what += [images, "all build cache" if options.all else "unused build cache"]
    return "WARNING! This will remove:\n" + "".join(f"  - {one}\n" for one in what)
