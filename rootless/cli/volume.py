"""Volumes: create, list, inspect, remove."""

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, at_least, at_most, command, flag, text, texts, values
from rootless.cli.documents import show_documents
from rootless.cli.filters import Filters, bool_value, collect_filters, match_labels_filters, match_name, parse_filter
from rootless.cli.opening import engine_of, for_each
from rootless.cli.pruning import PruneOptions, removed_text
from rootless.cli.table import print_list
from rootless.cli.values import human_size, merge_pairs, parse_key_value, parse_label
from rootless.engine.volumes import (
    DRIVER,
    create_volume,
    inspect_volume,
    list_volumes,
    prune_volumes,
    remove_volume,
    volume_labels,
    volumes_in_use,
)
from rootless.errors import HostUnsupported, InvalidInput
from rootless.store.volumes import Volume

_HEADERS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Group": "GROUP",
    "Availability": "AVAILABILITY",
    "Status": "STATUS",
}
_UNKNOWN = "N/A"


class CreateOptions(Options):
    """The options of volume create."""

    driver: str = text("-d", "--driver", default=DRIVER, help="Specify volume driver name")
    label: list[tuple[str, str]] = values("--label", parse=parse_label, help="Set metadata for a volume")
    opt: list[tuple[str, str]] = values(
        "-o", "--opt", parse=parse_key_value, metavar="map", help="Set driver specific options"
    )
    name: str = text("--name", help="Specify volume name", hidden=True)
    cluster: list[str] = texts(
        "--availability",
        "--group",
        "--limit-bytes",
        "--required-bytes",
        "--scope",
        "--secret",
        "--sharing",
        "--topology-preferred",
        "--topology-required",
        "--type",
        help="Of cluster volumes",
        hidden=True,
    )


@command(
    "create",
    "[VOLUME]",
    CreateOptions,
    at_most(1),
    examples="""
        A name for a directory of yours:
            $ {path} --opt type=none --opt o=bind --opt device=/scratch/me/data data
    """,
)
def create(options: CreateOptions) -> None:
    """Create a volume"""
    if options.cluster:
        raise HostUnsupported("cluster volumes are not supported: there is no swarm")
    if options.name and options.arguments:
        raise InvalidInput(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    volume = create_volume(
        engine_of(options),
        options.name or "".join(options.arguments),
        driver=options.driver,
        labels=merge_pairs(options.label),
        options=merge_pairs(options.opt),
    )
    streams.write(f"{volume.name}\n")


class LsOptions(Options):
    """The options of volume ls."""

    filter: list[tuple[str, str]] = values(
        "-f", "--filter", parse=parse_filter, metavar="filter", help='Provide filter values (e.g. "dangling=true")'
    )
    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    quiet: bool = flag("-q", "--quiet", help="Only display volume names")


@command("ls", "", LsOptions, NO_ARGUMENTS)
def ls(options: LsOptions) -> None:
    """List volumes"""
    filters = collect_filters(options.filter, ("dangling", "driver", "label", "name"))
    engine = engine_of(options)
    volumes = [volume for volume in list_volumes(engine) if _matches(volume, filters)]
    dangling = bool_value(filters, "dangling")
    if dangling is not None:
        used = volumes_in_use(engine)
        volumes = [volume for volume in volumes if (volume.name not in used) == dangling]
    if options.quiet and options.format in ("", "table"):
        streams.write("".join(f"{volume.name}\n" for volume in volumes))
        return
    print_list([_row(v) for v in volumes], headers=_HEADERS, columns=("Driver", "Name"), form=options.format)


def _matches(volume: Volume, filters: Filters) -> bool:
    return (
        match_name(filters.get("name", ()), volume.name)
        and match_labels_filters(filters, volume_labels(volume))
        and DRIVER in filters.get("driver", [DRIVER])
    )


def _row(volume: Volume) -> dict[str, object]:
    return {
        "Name": volume.name,
        "Driver": DRIVER,
        "Scope": "local",
        "Mountpoint": volume.mountpoint,
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(volume_labels(volume).items())),
        **dict.fromkeys(("Links", "Size", "Group", "Availability", "Status"), _UNKNOWN),
    }


class InspectOptions(Options):
    """The options of volume inspect."""

    format: str = text("-f", "--format", help="Format output using a custom template: 'json', or a Go template")


@command("inspect", "VOLUME [VOLUME...]", InspectOptions, at_least(1))
def inspect(options: InspectOptions) -> int:
    """Display detailed information on one or more volumes"""
    engine = engine_of(options)
    return show_documents(options.arguments, options.format, lambda name: inspect_volume(engine, name))


class RmOptions(Options):
    """The options of volume rm."""

    force: bool = flag("-f", "--force", help="Do not complain about volumes that are not there")


@command("rm", "VOLUME [VOLUME...]", RmOptions, at_least(1))
def rm(options: RmOptions) -> int:
    """Remove one or more volumes

    You cannot remove a volume that is in use by a container, running or not.
    """
    engine = engine_of(options)
    engine.enter_namespace()
    engine.layout.empty_trash()
    return for_each(options.arguments, lambda name: remove_volume(engine, name, force=options.force))


class VolumePruneOptions(PruneOptions):
    """The options of volume prune."""

    all: bool = flag("-a", "--all", help="Remove all unused volumes, not just anonymous ones")


@command("prune", "", VolumePruneOptions, NO_ARGUMENTS)
def prune(options: VolumePruneOptions) -> None:
    """Remove unused local volumes"""
    filters = collect_filters(options.filter, ("all", "label", "label!"))
    if options.all and "all" in filters:
        raise InvalidInput("conflicting options: cannot specify both --all and --filter all=1")
    every = options.all or bool(bool_value(filters, "all"))
    what = "all local volumes" if options.all else "anonymous local volumes"
    if not options.force and not streams.confirm(
        f"WARNING! This will remove {what} not used by at least one container."
    ):
        return
    engine = engine_of(options)
    engine.enter_namespace()
    engine.layout.empty_trash()
    pruned = prune_volumes(engine, every=every, labels=lambda labels: match_labels_filters(filters, labels))
    streams.write(removed_text("Volumes", pruned.names))
    streams.write(f"Total reclaimed space: {human_size(pruned.freed)}\n")
