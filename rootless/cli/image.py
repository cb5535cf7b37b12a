"""Images that are here: list, inspect, tag, remove."""

import time
from collections.abc import Iterator
from datetime import datetime

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, at_least, at_most, command, exactly, flag, text, texts, values
from rootless.cli.documents import show_documents
from rootless.cli.filters import (
    Filters,
    bool_value,
    collect_filters,
    match_labels_filters,
    one_value,
    parse_filter,
    time_window,
)
from rootless.cli.opening import engine_of, tell
from rootless.cli.pruning import PruneOptions, removed_images_text
from rootless.cli.table import ellipsis, print_list, short_id
from rootless.cli.time_values import SECOND, ago, local_time
from rootless.cli.values import human_size
from rootless.engine.image_inspect import HistoryRow, inspect_image
from rootless.engine.image_inspect import history as history_of
from rootless.engine.image_remove import Removed, remove_image
from rootless.engine.images import ImageFilter, Listed, list_images, tag_image
from rootless.engine.prune import prune_images
from rootless.errors import HostUnsupported, InvalidInput, NotFound, RootlessError

_NONE = "<none>"
_UNKNOWN = "N/A"

_HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
_COLUMNS_WITH_DIGEST = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")
_FILTERS = ("before", "dangling", "label", "reference", "since", "until")


class LsOptions(Options):
    """The options of images."""

    all: bool = flag("-a", "--all", help="Show all images: there are no intermediate ones to hide")
    digests: bool = flag("--digests", help="Show digests")
    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help="Filter output based on conditions provided"
    )
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    no_trunc: bool = flag("--no-trunc", help="Don't truncate output")
    quiet: bool = flag("-q", "--quiet", help="Only show image IDs")
    tree: bool = flag("--tree", help="List multi-platform images as a tree", hidden=True)


@command(
    "ls",
    "[REPOSITORY[:TAG]]",
    LsOptions,
    at_most(1),
    examples="""
        The images of a team:
            $ {path} 'registry.example.org/team/*'
        What is newer than an image, for a script:
            $ {path} --filter since=debian --format '{{.Repository}}:{{.Tag}}'
    """,
)
def ls(options: LsOptions) -> None:
    """List images"""
    if options.tree:
        raise HostUnsupported("--tree is not there: an image is kept for one platform", hint="see `image inspect`")
    filters = collect_filters(options.filter, _FILTERS)
    filters.setdefault("reference", []).extend(options.arguments)
    engine = engine_of(options)
    images = list_images(engine, _image_filter(filters))
    for image_id in engine.images.damaged():
        streams.write_error(f"rootless: the record of image {image_id} is damaged\nhint: rootless rmi -f {image_id}\n")
    rows = [row for listed in images for row in _rows(listed, options)]
    if options.quiet and options.format in ("", "table"):
        streams.write("".join(f"{row['ID']}\n" for row in rows))
        return
    form = options.format
    if options.digests and form.startswith("table ") and "{{.Digest}}" not in form:
        form += r"\t{{.Digest}}"
    print_list(rows, headers=_HEADERS, columns=_COLUMNS_WITH_DIGEST if options.digests else _COLUMNS, form=form)


def _image_filter(filters: Filters) -> ImageFilter:
    _, until = time_window({key: value for key, value in filters.items() if key == "until"}, time.time_ns())
    return ImageFilter(
        references=tuple(filters["reference"]),
        dangling=bool_value(filters, "dangling"),
        before=one_value(filters, "before"),
        since=one_value(filters, "since"),
        until=until,
        labels=(lambda labels: match_labels_filters(filters, labels)) if "label" in filters else None,
    )


def _rows(listed: Listed, options: LsOptions) -> Iterator[dict[str, object]]:
    """A row for each tag, with its repository's digests if those are asked for; then for what has a digest only."""
    with_digests = options.digests or "{{.Digest}}" in options.format
    fields = _fields(listed, options.no_trunc)
    digests: dict[str, list[str]] = {}
    for name in listed.digests:
        digests.setdefault(name.familiar_name, []).append(str(name.digest))
    for name in listed.tags:
        found = digests.get(name.familiar_name, []) if with_digests else []
        for digest in found or [_NONE]:
            yield {**fields, "Repository": name.familiar_name, "Tag": name.tag, "Digest": digest}
    for repository in digests.keys() - {name.familiar_name for name in listed.tags}:
        for digest in digests[repository] if options.digests else [""]:
            yield {**fields, "Repository": repository, "Tag": _NONE, "Digest": digest}
    if not listed.names:
        yield {**fields, "Repository": _NONE, "Tag": _NONE, "Digest": _NONE}


def _fields(listed: Listed, full: bool) -> dict[str, object]:
    image, created = listed.image, listed.created
    return {
        "ID": image.id if full else short_id(image.id),
        "CreatedSince": _UNKNOWN if created is None else ago(created, time.time_ns()),
        "CreatedAt": "0001-01-01 00:00:00 +0000 UTC" if created is None else local_time(created),
        "Size": human_size(image.size, 3),
        "Containers": _UNKNOWN,
        "VirtualSize": human_size(image.size),
        "SharedSize": _UNKNOWN,
        "UniqueSize": _UNKNOWN,
    }


class RmOptions(Options):
    """The options of rmi."""

    force: bool = flag("-f", "--force", help="Force removal of the image")
    no_prune: bool = flag("--no-prune", help="Accepted for scripts: there are no untagged parents")
    platform: list[str] = texts("--platform", help="Remove only the given platform variant", hidden=True)


@command(
    "rm",
    "IMAGE [IMAGE...]",
    RmOptions,
    at_least(1),
    examples="""
        One of the names of an image; with the last one the image goes:
            $ {path} debian:12
        An image with all its names, even if stopped containers use it:
            $ {path} --force 5c1e7a21a0b3
    """,
)
def rm(options: RmOptions) -> int:
    """Remove one or more images"""
    if options.platform:
        raise HostUnsupported(
            "--platform is not there: an image is kept for one platform", hint="leave it out to remove the image"
        )
    engine = engine_of(options)
    status, missing = 0, 0
    for name in options.arguments:
        try:
            removal = remove_image(engine, name, force=options.force)
        except RootlessError as error:
            tell(error)
            missing |= isinstance(error, NotFound)
            status |= not isinstance(error, NotFound)
        else:
            streams.write("".join(_step(step) for step in removal.steps))
            streams.flush()
    engine.enter_namespace()
    engine.layout.empty_trash()
    return status if options.force else status | missing


def _step(step: Removed) -> str:
    return f"Untagged: {step.untagged}\n" if step.untagged else f"Deleted: {step.deleted}\n"


@command("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Options, exactly(2))
def tag(options: Options) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"""
    tag_image(engine_of(options), *options.arguments)


class InspectOptions(Options):
    """The options of image inspect."""

    format: str = text("-f", "--format", help="Format output using a custom template: 'json', or a Go template")
    platform: str = text("--platform", help='Inspect this platform of the image ("os[/arch[/variant]]")')


@command(
    "inspect",
    "IMAGE [IMAGE...]",
    InspectOptions,
    at_least(1),
    examples="""
        The labels of an image:
            $ {path} --format '{{json .Config.Labels}}' debian
    """,
)
def inspect(options: InspectOptions) -> int:
    """Display detailed information on one or more images"""
    engine = engine_of(options)
    return show_documents(options.arguments, options.format, lambda name: inspect_image(engine, name, options.platform))


_HISTORY_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_CREATED_BY_WIDTH = 45
_NO_REAL_TIME = 946_684_800 * SECOND  # up to the year 2000: set so that builds are reproducible


class HistoryOptions(Options):
    """The options of history."""

    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    human: bool = flag("-H", "--human", default=True, help="Print sizes and dates in human readable format")
    no_trunc: bool = flag("--no-trunc", help="Don't truncate output")
    platform: str = text("--platform", help='Show the history of this platform ("os[/arch[/variant]]")')
    quiet: bool = flag("-q", "--quiet", help="Only show image IDs")


@command("history", "IMAGE", HistoryOptions, exactly(1))
def history(options: HistoryOptions) -> None:
    """Show the history of an image"""
    rows = [
        _history_row(row, options) for row in history_of(engine_of(options), options.arguments[0], options.platform)
    ]
    if options.quiet and options.format in ("", "table"):
        streams.write("".join(f"{row['ID']}\n" for row in rows))
        return
    created = "CreatedSince" if options.human else "CreatedAt"
    columns = ("ID", created, "CreatedBy", "Size", "Comment")
    print_list(rows, headers=_HISTORY_HEADERS, columns=columns, form=options.format)


def _history_row(row: HistoryRow, options: HistoryOptions) -> dict[str, object]:
    created_at = datetime.fromtimestamp((row.created or 0) // SECOND).astimezone().isoformat().replace("+00:00", "Z")
    created_by = row.created_by.replace("\t", " ")
    since = created_at
    if options.human:
        is_known = row.created is not None and row.created > _NO_REAL_TIME
        since = ago(row.created or 0, time.time_ns()) if is_known else _UNKNOWN
    return {
        "ID": row.id if options.no_trunc else short_id(row.id),
        "CreatedSince": since,
        "CreatedAt": created_at,
        "CreatedBy": created_by if options.no_trunc else ellipsis(created_by, _CREATED_BY_WIDTH),
        "Size": human_size(row.size, 3) if options.human else str(row.size),
        "Comment": row.comment,
    }


class ImagePruneOptions(PruneOptions):
    """The options of image prune."""

    all: bool = flag("-a", "--all", help="Remove all unused images, not just dangling ones")


@command("prune", "", ImagePruneOptions, NO_ARGUMENTS)
def prune(options: ImagePruneOptions) -> None:
    """Remove unused images"""
    filters = collect_filters(options.filter, ("dangling", "label", "label!", "until"))
    if bool_value(filters, "dangling") == options.all:
        raise InvalidInput("conflicting options: --filter dangling and --all say different things")
    _, until = time_window(filters, time.time_ns())
    what = "all images without at least one container associated to them" if options.all else "all dangling images"
    if not options.force and not streams.confirm(f"WARNING! This will remove {what}."):
        return
    has_labels = {"label", "label!"} & filters.keys()
    removal = prune_images(
        engine_of(options),
        every=options.all,
        until=until,
        labels=(lambda labels: match_labels_filters(filters, labels)) if has_labels else None,
    )
    streams.write(removed_images_text(removal.steps))
    streams.write(f"Total reclaimed space: {human_size(removal.freed)}\n")
