"""Looking into containers: logs, top, diff, inspect."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rootless.cli import streams
from rootless.cli.command import Options, at_least, command, exactly, flag, text, value
from rootless.cli.documents import show_documents
from rootless.cli.opening import engine_of
from rootless.cli.table import aligned
from rootless.cli.terminal_text import for_stream
from rootless.cli.time_values import parse_time
from rootless.engine.context import Engine
from rootless.engine.diff import diff as diff_container
from rootless.engine.inspect import inspect_container
from rootless.engine.listing import size_on_disk
from rootless.engine.logs import Entry
from rootless.engine.logs import logs as read_logs
from rootless.engine.top import top as top_container
from rootless.errors import NotFound

_ENTRIES_AT_ONCE = 1000  # written together, where nobody waits for each


def _tail(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _moment(text: str) -> int:
    return parse_time(text, time.time_ns())


class LogsOptions(Options):
    """The options of logs."""

    follow: bool = flag("-f", "--follow", help="Follow log output")
    since: int | None = value(
        "--since",
        parse=_moment,
        default=None,
        metavar="string",
        help='Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)',
    )
    until: int | None = value(
        "--until", parse=_moment, default=None, metavar="string", help="Show logs before a timestamp or relative"
    )
    tail: int | None = value(
        "-n",
        "--tail",
        parse=_tail,
        default=None,
        metavar="string",
        help="Number of lines to show from the end of the logs",
    )
    timestamps: bool = flag("-t", "--timestamps", help="Show timestamps")
    details: bool = flag("--details", help="Accepted for scripts: there are no extra attributes")


@command("logs", "CONTAINER", LogsOptions, exactly(1))
def logs(options: LogsOptions) -> None:
    """Fetch the logs of a container"""
    engine = engine_of(options)
    container_id = engine.containers.find(options.arguments[0])
    entries = read_logs(
        engine, container_id, tail=options.tail, since=options.since, until=options.until, follow=options.follow
    )
    for block in _blocks(entries, 1 if options.follow else _ENTRIES_AT_ONCE):
        stream = sys.stdout if block[0].stream == "stdout" else sys.stderr
        # The program's own output: byte for byte, also on a terminal, as Docker shows it.
        streams.write_bytes(stream, b"".join(_shown(entry, options.timestamps) for entry in block))
        streams.flush(stream)


def _blocks(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """The entries, those of one stream that follow each other together, up to *size* at once."""
    block: list[Entry] = []
    for entry in entries:
        if block and entry.stream != block[0].stream:
            yield block
            block = []
        block.append(entry)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _shown(entry: Entry, stamped: bool) -> bytes:
    stamp = f"{_padded(entry.time)} " if stamped else ""
    return f"{stamp}{entry.text}".encode("utf-8", "surrogateescape")


def _padded(stamp: str) -> str:
    """The stamp with all nine digits of its fraction, as Docker prints it."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


@command(
    "top",
    "CONTAINER [ps OPTIONS]",
    Options,
    at_least(1),
    interspersed=False,
)
def top(options: Options) -> None:
    """Display the running processes of a container"""
    engine = engine_of(options)
    headings, rows = top_container(engine, engine.containers.find(options.arguments[0]), options.arguments[1:])
    lines = ("\t".join(for_stream(cell, sys.stdout) for cell in row) for row in (headings, *rows))
    streams.write(aligned(lines))


@command("diff", "CONTAINER", Options, exactly(1))
def diff(options: Options) -> None:
    """Inspect changes to files or directories on a container's filesystem"""
    engine = engine_of(options)
    for kind, path in diff_container(engine, engine.containers.find(options.arguments[0])):
        streams.write(f"{kind} {path}\n")


class InspectOptions(Options):
    """The options of inspect."""

    format: str = text("-f", "--format", help="Format output using a custom template: 'json', or Go template")
    size: bool = flag("-s", "--size", help="Display total file sizes if the type is container")


class InspectAnyOptions(InspectOptions):
    """And of the inspect that takes any object."""

    type: str = text("--type", help="Only inspect objects of the given type")


@command("inspect", "NAME|ID [NAME|ID...]", InspectAnyOptions, at_least(1))
def inspect(options: InspectAnyOptions) -> int:
    """Return low-level information on containers, images, networks and volumes"""
    engine = engine_of(options)
    return show_documents(options.arguments, options.format, lambda name: _any_object(engine, name, options))


@command("inspect", "CONTAINER [CONTAINER...]", InspectOptions, at_least(1))
def inspect_containers(options: InspectOptions) -> int:
    """Display detailed information on one or more containers"""
    engine = engine_of(options)
    return show_documents(options.arguments, options.format, lambda name: _container(engine, name, options.size))


def _any_object(engine: Engine, name: str, options: InspectAnyOptions) -> dict[str, Any]:
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "container": lambda: _container(engine, name, options.size),
        "image": lambda: _image(engine, name),
        "network": lambda: _network(engine, name),
        "volume": lambda: _volume(engine, name),
    }
    if options.type and options.type not in kinds:
        raise NotFound(f'unknown type: "{options.type}"', hint=f"there are: {', '.join(kinds)}")
    for kind, find in kinds.items():
        if options.type in ("", kind):
            try:
                return find()
            except NotFound:
                if options.type:
                    raise
    raise NotFound(f"No such object: {name}")


def _container(engine: Engine, name: str, size: bool) -> dict[str, Any]:
    container_id = engine.containers.find(name)
    document = inspect_container(engine, container_id)
    if size:
        engine.enter_namespace()
        own, total = size_on_disk(engine, engine.containers.load(container_id))
        document |= {"SizeRw": own, "SizeRootFs": total}
    return document


def _image(engine: Engine, name: str) -> dict[str, Any]:
    from rootless.engine.image_inspect import inspect_image  # containers come first, and are most of what is asked

    return inspect_image(engine, name)


def _network(engine: Engine, name: str) -> dict[str, Any]:
    from rootless.engine.network_inspect import inspect_network  # as above

    return inspect_network(engine, name)


def _volume(engine: Engine, name: str) -> dict[str, Any]:
    from rootless.engine.volumes import inspect_volume

    return inspect_volume(engine, name)
