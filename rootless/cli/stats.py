"""stats: what containers use, as a table that is drawn anew each second, or once."""

import sys
import time

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, flag, text
from rootless.cli.opening import engine_of
from rootless.cli.table import list_text, short_id
from rootless.cli.terminal_text import visible
from rootless.cli.values import bytes_size, human_size
from rootless.engine.context import Engine
from rootless.engine.listing import list_containers
from rootless.engine.stats import Sampler, Stats

_HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_COLUMNS = tuple(_HEADERS)[1:]
_SECONDS = 1.0
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\033[H", "\033[K", "\033[J"


class StatsOptions(Options):
    """The options of stats."""

    all: bool = flag("-a", "--all", help="Show all containers (default shows just running)")
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    no_stream: bool = flag("--no-stream", help="Disable streaming stats and only pull the first result")
    no_trunc: bool = flag("--no-trunc", help="Do not truncate output")


@command(
    "stats",
    "[CONTAINER...]",
    StatsOptions,
    at_least(0),
    examples="""
        Once, for a script:
            $ {path} --no-stream --format '{{.Name}}: {{.MemUsage}}'
    """,
)
def stats(options: StatsOptions) -> None:
    """Display a live stream of container(s) resource usage statistics"""
    engine = engine_of(options)
    named = {engine.containers.find(name): name for name in options.arguments}
    try:
        show_stats(engine, named, options)
    except KeyboardInterrupt:
        return  # how one ends it


def show_stats(engine: Engine, named: dict[str, str], options: StatsOptions) -> None:
    """Show what the containers *named*, id -> how the user calls it, use, or all; until there is none of the named."""
    sampler = Sampler(engine)
    sampler.look(_wanted(engine, named, every=options.all))
    redrawn = not options.no_stream and sys.stdout.isatty()
    if redrawn:
        streams.write_raw(sys.stdout, f"{_HOME}{_REST_OF_SCREEN}")
    while True:
        time.sleep(_SECONDS)
        found = sampler.look(_wanted(engine, named, every=options.all))
        shown = stats_text(found, named, form=options.format, full=options.no_trunc)
        if redrawn:
            lines = "".join(f"{visible(line)}{_REST_OF_LINE}\n" for line in shown.splitlines())
            streams.write_raw(sys.stdout, f"{_HOME}{lines}{_REST_OF_SCREEN}")
        else:
            streams.write(shown)
        streams.flush()
        if options.no_stream or (named and not found):
            return


def _wanted(engine: Engine, named: dict[str, str], *, every: bool) -> list[str]:
    if named:
        return list(named)
    return [listed.record["id"] for listed in list_containers(engine) if every or listed.is_live]


def stats_text(found: list[Stats], named: dict[str, str], *, form: str, full: bool) -> str:
    """The table, or what *form* asks for, of each."""
    rows = [stats_row(one, named.get(one.id, ""), full=full) for one in found]
    return list_text(rows, headers=_HEADERS, columns=_COLUMNS, form=form)


def stats_row(stats: Stats, called: str = "", *, full: bool) -> dict[str, str]:
    """Docker's fields; *called* is how the user has called the container."""
    shown = stats.id if full else short_id(stats.id)
    return {
        "Container": called or shown,
        "ID": shown,
        "Name": stats.name,
        "CPUPerc": f"{stats.cpu_percent:.2f}%",
        "MemUsage": f"{bytes_size(stats.memory)} / {bytes_size(stats.memory_limit)}",
        "MemPerc": f"{stats.memory_percent:.2f}%",
        "NetIO": f"{human_size(stats.network_in, 3)} / {human_size(stats.network_out, 3)}",
        "BlockIO": f"{human_size(stats.io_read, 3)} / {human_size(stats.io_write, 3)}",
        "PIDs": str(stats.pids),
    }
