"""builder prune and buildx du: what builds keep."""

import time

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, flag, text, value, values
from rootless.cli.filters import collect_filters, parse_filter
from rootless.cli.opening import engine_of
from rootless.cli.table import print_list
from rootless.cli.time_values import parse_duration
from rootless.cli.values import human_size, parse_size
from rootless.engine.build_prune import Entry, entries, filters_match
from rootless.engine.build_prune import prune as prune_cache

_FILTERS = ("until", "unused-for", "id", "type", "description", "shared", "private", "inuse")
_HEADERS = {"ID": "ID", "Type": "TYPE", "Size": "SIZE", "LastUsed": "LAST ACCESSED", "Description": "DESCRIPTION"}


class PruneOptions(Options):
    """The options of builder prune and buildx prune."""

    all: bool = flag("-a", "--all", help="Remove all build cache, also what images have in common with it")
    builder: str = text("--builder", help="Accepted for scripts: there is one builder", hidden=True)
    filter: list[tuple[str, str]] = values(
        "--filter", parse=parse_filter, metavar="filter", help='Provide filter values (e.g., "until=24h")'
    )
    force: bool = flag("-f", "--force", help="Do not prompt for confirmation")
    keep_storage: int = value(
        "--keep-storage",
        parse=parse_size,
        default=0,
        metavar="bytes",
        help="Amount of disk space to keep for cache",
        aliases=("--reserved-space", "--max-used-space"),
    )
    verbose: bool = flag("--verbose", help="Provide a more verbose output")


class DuOptions(Options):
    """The options of buildx du."""

    builder: str = text("--builder", help="Accepted for scripts: there is one builder", hidden=True)
    filter: list[tuple[str, str]] = values(
        "--filter", parse=parse_filter, metavar="filter", help="Provide filter values"
    )
    format: str = text("--format", help='Format the output ("json", or a Go template)')
    verbose: bool = flag("--verbose", help="Provide a more verbose output")


@command(
    "prune",
    "",
    PruneOptions,
    NO_ARGUMENTS,
    examples="""
        What no build has used for a week, without a question:
            $ {path} -f --filter until=168h
    """,
)
def prune(options: PruneOptions) -> None:
    """Remove build cache"""
    filters = collect_filters(options.filter, _FILTERS)
    what = "all build cache" if options.all else "dangling build cache"
    if not options.force and not streams.confirm(f"WARNING! This will remove {what}."):
        return
    until = [*filters.get("until", []), *filters.get("unused-for", [])]
    pruned = prune_cache(
        engine_of(options),
        every=options.all,
        keep_bytes=options.keep_storage,
        unused_since=_moment(until[-1]) if until else None,
        matches=filters_match(filters),
    )
    if pruned.entries:
        _print(pruned.entries, "")
    streams.write(f"Total:\t{human_size(pruned.freed)}\n")


@command("du", "", DuOptions, NO_ARGUMENTS)
def du(options: DuOptions) -> None:
    """Disk usage of the build cache"""
    matches = filters_match(collect_filters(options.filter, _FILTERS))
    found = [entry for entry in entries(engine_of(options)) if matches(entry)]
    _print(found, options.format)
    if not options.format:
        streams.write(f"Total:\t{human_size(sum(entry.size for entry in found))}\n")


def _moment(duration: str) -> float:
    return time.time() - parse_duration(duration) / 10**9


def _print(found: list[Entry], form: str) -> None:
    rows = [
        {
            "ID": entry.id[:25],
            "Type": entry.type,
            "Size": human_size(entry.size),
            "CreatedAt": entry.created,
            "LastUsed": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.used)),
            "Shared": entry.shared,
            "Reclaimable": not entry.shared,
            "Description": " ".join(entry.description.split()),
        }
        for entry in found
    ]
    print_list(rows, headers=_HEADERS, columns=tuple(_HEADERS), form=form)
