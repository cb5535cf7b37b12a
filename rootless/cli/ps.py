"""ps, and container prune: the containers as rows."""

import os
import time

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, flag, number, text, values
from rootless.cli.filters import (
    Filters,
    bool_value,
    collect_filters,
    exit_codes,
    match_id,
    match_labels,
    match_labels_filters,
    match_name,
    one_of_filter,
    one_value,
    parse_filter,
    time_window,
)
from rootless.cli.opening import engine_of
from rootless.cli.pruning import PruneOptions, removed_text
from rootless.cli.table import ellipsis, print_list, short_id
from rootless.cli.terminal_text import visible
from rootless.cli.time_values import ago, human_duration, local_time
from rootless.cli.values import human_size
from rootless.engine.context import Engine
from rootless.engine.listing import Listed, list_containers, size_on_disk
from rootless.engine.logs import nanoseconds
from rootless.engine.prune import prune_containers
from rootless.errors import Conflict, InvalidInput, NotFound
from rootless.network.ports import parse_expose
from rootless.network.ports import shown as shown_ports

_HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_FILTERS = (
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
)
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_COMMAND_WIDTH = 20


class PsOptions(Options):
    """The options of ps."""

    all: bool = flag("-a", "--all", help="Show all containers (default shows just running)")
    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help="Filter output based on conditions provided"
    )
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    last: int = number("-n", "--last", default=-1, help="Show n last created containers (includes all states)")
    latest: bool = flag("-l", "--latest", help="Show the latest created container (includes all states)")
    no_trunc: bool = flag("--no-trunc", help="Don't truncate output")
    quiet: bool = flag("-q", "--quiet", help="Only display container IDs")
    size: bool = flag("-s", "--size", help="Display total file sizes")


@command(
    "ps",
    "",
    PsOptions,
    NO_ARGUMENTS,
    examples="""
        All containers, also those that have ended:
            $ {path} --all
        The names of what uses an image, for a script:
            $ {path} --filter ancestor=debian --format '{{.Names}}'
    """,
)
def ps(options: PsOptions) -> None:
    """List containers"""
    engine = engine_of(options)
    filters = collect_filters(options.filter, _FILTERS)
    wanted = select(engine, list_containers(engine), filters)
    count = 1 if options.latest else options.last
    if count > 0:
        wanted = wanted[:count]
    elif not options.all and not {"status", "exited", "health"} & filters.keys():
        wanted = [c for c in wanted if c.is_live]
    if options.quiet and not options.format:
        streams.write("".join(f"{_id(c, options.no_trunc)}\n" for c in wanted))
        return
    show_size = options.size or ".Size" in options.format
    if show_size:
        engine.enter_namespace()
    rows = [_row(engine, c, options.no_trunc, show_size) for c in wanted]
    columns = (*_COLUMNS, "Size") if options.size else _COLUMNS
    labels = [c.record["labels"] for c in wanted]
    print_list(rows, headers=_HEADERS, columns=columns, form=options.format, labels=labels)


def _id(listed: Listed, full: bool) -> str:
    identifier = str(listed.record["id"])
    return identifier if full else short_id(identifier)


def _quoted(text: str) -> str:
    """In double quotes and on one line, for files and pipes as well: as Go quotes it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{visible(escaped)}"'


def _row(engine: Engine, listed: Listed, full: bool, with_size: bool) -> dict[str, object]:
    record = listed.record
    now = time.time_ns()
    words = " ".join(listed.command)
    volumes = [m["name"] for m in record["mounts"] if m["name"]]
    row: dict[str, object] = {
        "ID": _id(listed, full),
        "Image": record["image"],
        "Command": _quoted(words if full else ellipsis(words, _COMMAND_WIDTH)),
        "CreatedAt": local_time(listed.created),
        "RunningFor": ago(listed.created, now),
        "Status": status(listed, now),
        "State": listed.state["status"],
        "Ports": shown_ports(listed.ports, record["exposed_ports"]) if listed.is_live else "",
        "Names": record["name"],
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(record["labels"].items())),
        "Mounts": ",".join(
            (m["name"] or m["source"]) if full else ellipsis(m["name"] or m["source"], 15) for m in record["mounts"]
        ),
        "LocalVolumes": str(len(volumes)),
        "Networks": ",".join(listed.networks),
        "Size": "",
    }
    if with_size:
        own, total = size_on_disk(engine, record)
        row["Size"] = f"{human_size(own, 3)} (virtual {human_size(total, 3)})"
    return row


def status(listed: Listed, now: int) -> str:
    """Docker's sentence: "Up 3 minutes (healthy)", "Exited (0) 2 hours ago"."""
    state = listed.state
    since = human_duration(now - nanoseconds(state["started_at"]))
    match state["status"]:
        case "created":
            return "Created"
        case "running":
            health = (state["health"] or {}).get("Status")
            note = {None: "", "starting": " (health: starting)"}.get(health, f" ({health})")
            return f"Up {since}{note}"
        case "paused":
            return f"Up {since} (Paused)"
        case "restarting":
            return f"Restarting ({state['exit_code']}) {ago(nanoseconds(state['finished_at']), now)}"
        case "exited":
            ended = nanoseconds(state["finished_at"] or state["started_at"])
            return f"Exited ({state['exit_code']}) {ago(ended, now)}"
        case _:
            return "Dead"


def select(engine: Engine, listed: list[Listed], filters: Filters) -> list[Listed]:
    """Those containers that pass all *filters*. Raises InvalidInput for values that cannot be, NotFound."""
    statuses = one_of_filter(filters, "status", _STATES)
    health = one_of_filter(filters, "health", _HEALTH)
    codes = exit_codes(filters)
    is_task = bool_value(filters, "is-task")
    published, exposed = (
        {p for text in filters.get(key, ()) for p in parse_expose(text)} for key in ("publish", "expose")
    )
    after, before = (_moment_of(one_value(filters, key), listed) for key in ("since", "before"))

    def passes(container: Listed) -> bool:
        record, state = container.record, container.state
        return (
            match_id(filters.get("id", ()), record["id"])
            and match_name(filters.get("name", ()), record["name"])
            and match_labels(filters.get("label", ()), record["labels"])
            and (not statuses or state["status"] in statuses)
            and (not health or (state["health"] or {"Status": "none"})["Status"] in health)
            and (not codes or (state["status"] == "exited" and state["exit_code"] in codes))
            and _is_on(container, filters.get("network", []))
            and _has_port(container, published, "host_port")
            and _has_port(container, exposed, "container_port")
            and _uses_volume(container, filters.get("volume", []))
            and _descends(engine, container, filters.get("ancestor", []))
            and (after is None or container.created > after)
            and (before is None or container.created < before)
            and not is_task
        )

    return [container for container in listed if passes(container)]


def _moment_of(name: str, listed: list[Listed]) -> int | None:
    """When the container that since= or before= names was made; None without a name. Raises NotFound."""
    if not name:
        return None
    for container in listed:
        if container.record["name"] == name or container.record["id"].startswith(name):
            return container.created
    raise NotFound(f"No such container: {name}")


def _ports_of(filters: Filters, key: str) -> set[str]:
    """The ports, "80/tcp", that a filter names: each alone or in ranges. Raises InvalidInput."""
    return {port for text in filters.get(key, ()) for port in parse_expose(text)}


def _is_on(listed: Listed, wanted: list[str]) -> bool:
    """Whether the container is on a network that is called so, by name or id."""
    ids = [endpoint["id"] for endpoint in listed.record["networks"]]
    return not wanted or any(
        text in listed.networks or text == listed.record["network"] or text in ids or text in map(short_id, ids)
        for text in wanted
    )


def _has_port(listed: Listed, wanted: set[str], side: str) -> bool:
    """Whether one of the ports *wanted*, "80/tcp", is published by the container: there, or as the host's port."""
    if not wanted:
        return True
    found = {f"{port[side]}/{port['protocol']}" for port in listed.ports}
    if side == "container_port" and listed.is_live:
        found.update(listed.record["exposed_ports"])
    return not wanted.isdisjoint(found)


def _uses_volume(listed: Listed, wanted: list[str]) -> bool:
    used = {text for m in listed.record["mounts"] for text in (m["name"], m["source"], m["destination"]) if text}
    return not wanted or any(name in used or os.path.normpath(name) in used for name in wanted)


def _descends(engine: Engine, listed: Listed, ancestors: list[str]) -> bool:
    """Whether the container's image is one of *ancestors*, or has all the layers of one."""
    if not ancestors:
        return True
    for name in ancestors:
        if name == listed.record["image"]:
            return True
        try:
            image = engine.images.find(name)
        except (InvalidInput, Conflict):
            continue
        if image is None or not listed.record["image_id"]:
            continue
        layers = list(image.layers)
        if image.id == listed.record["image_id"] or (layers and listed.record["layers"][: len(layers)] == layers):
            return True
    return False


@command("prune", "", PruneOptions, NO_ARGUMENTS)
def prune(options: PruneOptions) -> int:
    """Remove all stopped containers"""
    filters = collect_filters(options.filter, ("label", "label!", "until"))
    if not options.force and not streams.confirm("WARNING! This will remove all stopped containers."):
        return 1
    _, until = time_window(filters, time.time_ns())
    pruned = prune_containers(
        engine_of(options), until=until, labels=lambda labels: match_labels_filters(filters, labels)
    )
    streams.write(removed_text("Containers", pruned.names))
    streams.write(f"Total reclaimed space: {human_size(pruned.freed)}\n")
    return 0
