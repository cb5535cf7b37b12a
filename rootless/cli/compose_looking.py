"""compose ps, logs, images, ls, top, port, volumes, version: what is there of a project."""

import json
import time
from collections.abc import Iterable
from typing import Any

from rootless import __version__
from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Arity, Options, at_least, command, flag, number, text, value, values
from rootless.cli.compose_options import look_for_project
from rootless.cli.compose_shown import Output
from rootless.cli.filters import parse_filter
from rootless.cli.opening import engine_of
from rootless.cli.ps import status
from rootless.cli.table import aligned, ellipsis, print_list, short_id
from rootless.cli.terminal_text import visible
from rootless.cli.time_values import ago, parse_time
from rootless.cli.values import human_size, one_of
from rootless.engine import compose_labels as labels
from rootless.engine.compose_down import find_member, select
from rootless.engine.compose_follow import show_logs
from rootless.engine.compose_labels import Member
from rootless.engine.context import Engine
from rootless.engine.listing import list_containers
from rootless.engine.ports import bindings
from rootless.engine.top import top as processes_of
from rootless.errors import InvalidInput, NotFound
from rootless.network.ports import parse_private
from rootless.network.ports import shown as shown_ports

_ANY = at_least(0)
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_PS_HEADERS = {
    "Name": "NAME",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "Service": "SERVICE",
    "RunningFor": "CREATED",
    "Status": "STATUS",
    "Ports": "PORTS",
}


class PsOptions(Options):
    """The options of ps."""

    all: bool = flag("-a", "--all", help="Show all stopped containers (including those created by the run command)")
    filter: list[tuple[str, str]] = values(
        "--filter",
        parse=parse_filter,
        metavar="string",
        help="Filter services by a property (supported filters: status)",
    )
    format: str = text(
        "--format", default="table", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template"
    )
    no_trunc: bool = flag("--no-trunc", help="Don't truncate output")
    orphans: bool = flag("--orphans", default=True, help="Include orphaned services (not declared by project)")
    quiet: bool = flag("-q", "--quiet", help="Only display IDs")
    services: bool = flag("--services", help="Display services")
    status: list[str] = values(
        "--status", parse=one_of(*_STATES), metavar="stringArray", help="Filter services by status"
    )


@command("ps", "[SERVICE...]", PsOptions, _ANY)
def ps(options: PsOptions) -> None:
    """List containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    statuses = set(options.status)
    for key, word in options.filter:
        if key != "status":
            raise InvalidInput(f"unsupported filter {key!r}", hint="there is: status")
        statuses.add(word)
    found = select(engine, name, project, options.arguments, oneoff=options.all)
    if project is not None and not options.orphans:
        known = {*project.services, *project.disabled}
        found = [member for member in found if member.service in known]
    if statuses:
        found = [member for member in found if member.status in statuses]
    elif not options.all:
        found = [member for member in found if member.is_live]
    if options.quiet:
        streams.write("".join(f"{member.id}\n" for member in found))
    elif options.services:
        streams.write("".join(f"{service}\n" for service in dict.fromkeys(member.service for member in found)))
    else:
        rows = [_ps_row(member, full=options.no_trunc) for member in found]
        if options.format == "json":
            streams.write("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
            return
        columns = tuple(_PS_HEADERS)
        print_list(rows, headers=_PS_HEADERS, columns=columns, form=options.format, labels=[m.labels for m in found])


def _ps_row(member: Member, *, full: bool) -> dict[str, Any]:
    record, now = member.listed.record, time.time_ns()
    words = " ".join(member.listed.command)
    quoted = json.dumps(words if full else ellipsis(words, 20), ensure_ascii=False)
    ports = member.listed.ports
    return {
        "Command": quoted,
        "CreatedAt": record["created"],
        "ExitCode": member.exit_code,
        "Health": member.health,
        "ID": member.id if full else short_id(member.id),
        "Image": record["image"],
        "Labels": ",".join(f"{name}={text}" for name, text in sorted(member.labels.items())),
        "Name": member.name,
        "Names": member.name,
        "Networks": ",".join(member.listed.networks),
        "Ports": shown_ports(ports, record["exposed_ports"]) if member.is_live else "",
        "Project": member.labels.get(labels.PROJECT, ""),
        "Publishers": [_publisher(port) for port in ports],
        "RunningFor": ago(member.listed.created, now),
        "Service": member.service,
        "State": member.status,
        "Status": status(member.listed, now),
    }


def _publisher(port: dict[str, Any]) -> dict[str, Any]:
    return {
        "URL": port.get("host_ip") or "0.0.0.0",
        "TargetPort": port["container_port"],
        "PublishedPort": port.get("host_port") or 0,
        "Protocol": port["protocol"],
    }


def _moment(text: str) -> int:
    return parse_time(text, time.time_ns())


def _tail(text: str) -> int | None:
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput("it must be a number, or all")
    return int(text)


class LogsOptions(Options):
    """The options of logs."""

    follow: bool = flag("-f", "--follow", help="Follow log output")
    index: int = number("--index", help="index of the container if service has multiple replicas")
    no_color: bool = flag("--no-color", help="Produce monochrome output")
    no_log_prefix: bool = flag("--no-log-prefix", help="Don't print prefix in logs")
    since: int | None = value(
        "--since",
        parse=_moment,
        default=None,
        metavar="string",
        help="Show logs since timestamp or relative (e.g. 42m)",
    )
    tail: int | None = value(
        "-n", "--tail", parse=_tail, default=None, metavar="string", help="Number of lines to show from the end"
    )
    timestamps: bool = flag("-t", "--timestamps", help="Show timestamps")
    until: int | None = value(
        "--until", parse=_moment, default=None, metavar="string", help="Show logs before a timestamp or relative"
    )


@command("logs", "[SERVICE...]", LogsOptions, _ANY)
def logs(options: LogsOptions) -> None:
    """View output from containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    found = select(engine, name, project, options.arguments)
    if options.index:
        found = [member for member in found if member.number == options.index]
    output = Output(
        options, name, prefix=not options.no_log_prefix, no_color=options.no_color, timestamps=options.timestamps
    )
    output.expect(found)
    show_logs(
        engine,
        name,
        found,
        output,
        follow=options.follow,
        tail=options.tail,
        since=options.since,
        until=options.until,
    )


class ImagesOptions(Options):
    """The options of images."""

    format: str = text("--format", default="table", help="Format the output (table, json)")
    quiet: bool = flag("-q", "--quiet", help="Only display IDs")


@command("images", "[SERVICE...]", ImagesOptions, _ANY)
def images(options: ImagesOptions) -> None:
    """List images used by the created containers"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    found = select(engine, name, project, options.arguments)
    if options.quiet:
        ids = dict.fromkeys(str(member.listed.record["image_id"]).rpartition(":")[2] for member in found)
        streams.write("".join(f"{image_id}\n" for image_id in ids))
        return
    rows = [_image_row(engine, member) for member in found]
    if options.format == "json":
        streams.write(f"{json.dumps(rows, indent=4)}\n")
        return
    lines = ["CONTAINER\tREPOSITORY\tTAG\tPLATFORM\tIMAGE ID\tSIZE"]
    for row in rows:
        cells = (row[key] for key in ("ContainerName", "Repository", "Tag", "Platform"))
        lines.append("\t".join((*cells, short_id(row["ID"]), human_size(row["Size"], 3))))
    streams.write(aligned(lines))


def _image_row(engine: Engine, member: Member) -> dict[str, Any]:
    record = member.listed.record
    name = str(record["image"])
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    image = engine.images.find_id(record["image_id"])
    config = engine.images.config(image) if image else None
    platform = config.platform if config else None
    size = sum(engine.layers.load(chain_id).size for chain_id in image.layers) if image else 0
    return {
        "ID": record["image_id"],
        "ContainerName": member.name,
        "Repository": repository,
        "Tag": tag,
        "Platform": f"{platform.os}/{platform.architecture}" if platform else "",
        "Size": size,
    }


class LsOptions(Options):
    """The options of ls."""

    all: bool = flag("-a", "--all", help="Show all stopped Compose projects")
    filter: list[tuple[str, str]] = values(
        "--filter", parse=parse_filter, metavar="filter", help="Filter output based on conditions provided"
    )
    format: str = text("--format", default="table", help="Format the output (table, json)")
    quiet: bool = flag("-q", "--quiet", help="Only display project names")


@command("ls", "", LsOptions, NO_ARGUMENTS)
def ls(options: LsOptions) -> None:
    """List running compose projects"""
    names = []
    for key, word in options.filter:
        if key != "name":
            raise InvalidInput(f"unsupported filter {key!r}", hint="there is: name")
        names.append(word)
    projects: dict[str, list[Member]] = {}
    for listed in list_containers(engine_of(options)):
        name = listed.record["labels"].get(labels.PROJECT)
        if name:
            projects.setdefault(name, []).append(Member(listed))
    rows = [
        {"Name": name, "Status": _counts(found), "ConfigFiles": found[0].labels.get(labels.CONFIG_FILES, "")}
        for name, found in sorted(projects.items())
        if (options.all or any(member.is_live for member in found)) and all(word in name for word in names)
    ]
    if options.quiet:
        streams.write("".join(f"{row['Name']}\n" for row in rows))
    elif options.format == "json":
        streams.write(f"{json.dumps(rows)}\n")
    else:
        lines = (visible(f"{row['Name']}") + f"\t{row['Status']}\t" + visible(row["ConfigFiles"]) for row in rows)
        streams.write(aligned(["NAME\tSTATUS\tCONFIG FILES", *lines]))


def _counts(found: Iterable[Member]) -> str:
    counts: dict[str, int] = {}
    for member in found:
        if not member.is_oneoff:
            counts[member.status] = counts.get(member.status, 0) + 1
    return ", ".join(f"{state}({count})" for state, count in sorted(counts.items()))


@command("top", "[SERVICES...]", Options, _ANY)
def top(options: Options) -> None:
    """Display the running processes"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    lines: list[str] = []
    for member in select(engine, name, project, options.arguments):
        if member.status != "running":
            continue
        headings, rows = processes_of(engine, member.id, [])
        if not lines:
            lines.append("\t".join(("SERVICE", "#", *headings)))
        lines += ["\t".join((member.service, str(member.number), *row)) for row in rows]
    streams.write(aligned(lines) if lines else "")


class PortOptions(Options):
    """The options of port."""

    index: int = number("--index", help="Index of the container if service has multiple replicas")
    protocol: str = value("--protocol", parse=one_of("tcp", "udp"), default="tcp", metavar="string", help="tcp or udp")


@command("port", "SERVICE PRIVATE_PORT", PortOptions, Arity(2, 2))
def port(options: PortOptions) -> None:
    """Print the public port for a port binding"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    service, private = options.arguments
    member = find_member(engine, name, project, service, options.index)
    found = bindings(engine, member.id, parse_private(f"{private.partition('/')[0]}/{options.protocol}"))
    if not found:
        raise NotFound(f"no port {private}/{options.protocol} for container {member.name}")
    streams.write(f"{found[0]}\n")


class VolumesOptions(Options):
    """The options of volumes."""

    format: str = text("--format", default="table", help="Format output: 'table', 'json', or a Go template")
    quiet: bool = flag("-q", "--quiet", help="Only display volume names")


@command("volumes", "[SERVICE...]", VolumesOptions, _ANY)
def volumes(options: VolumesOptions) -> None:
    """List volumes"""
    engine = engine_of(options)
    name, project = look_for_project(options, engine)
    found = labels.volumes_of(engine, name)
    if options.arguments:
        mounted = {
            mount["name"]
            for member in select(engine, name, project, options.arguments)
            for mount in member.listed.record["mounts"]
        }
        found = [volume for volume in found if volume.name in mounted]
    if options.quiet:
        streams.write("".join(f"{volume.name}\n" for volume in found))
        return
    rows = [{"Driver": "local", "Name": volume.name} for volume in found]
    headers = {"Driver": "DRIVER", "Name": "VOLUME NAME"}
    print_list(rows, headers=headers, columns=("Driver", "Name"), form=options.format)


class VersionOptions(Options):
    """The options of version."""

    format: str = text("-f", "--format", help="Format the output. Values: [pretty | json]")
    short: bool = flag("--short", help="Shows only Compose's version number")


@command("version", "", VersionOptions, NO_ARGUMENTS)
def version(options: VersionOptions) -> None:
    """Show the Docker Compose version information"""
    if options.short:
        streams.write(f"{__version__}\n")
    elif options.format == "json":
        streams.write(f"{json.dumps({'version': __version__})}\n")
    else:
        streams.write(f"rootless compose version {__version__}\n")
