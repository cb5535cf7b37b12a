"""system df: what takes how much on disk."""

import time

from rootless.cli import streams
from rootless.cli.command import NO_ARGUMENTS, Options, command, flag, text
from rootless.cli.opening import engine_of
from rootless.cli.table import list_text, print_list, short_id
from rootless.cli.time_values import ago
from rootless.cli.values import human_size
from rootless.engine.usage import Usage, usage
from rootless.errors import InvalidInput

_HEADERS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
_IMAGES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
}  # fmt: skip
_CONTAINERS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE",
    "RunningFor": "CREATED", "Status": "STATUS", "Names": "NAMES",
}  # fmt: skip
_VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
_CACHE = {
    "ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "LastUsedSince": "LAST USED", "Shared": "SHARED",
}  # fmt: skip
Rows = list[dict[str, object]]


class DfOptions(Options):
    """The options of system df."""

    format: str = text("--format", help="Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
    verbose: bool = flag("-v", "--verbose", help="Show detailed information on space usage")


@command(
    "df",
    "",
    DfOptions,
    NO_ARGUMENTS,
    examples="""
        Which images share their layers with others, and which volumes nobody mounts:
            $ {path} -v
    """,
)
def df(options: DfOptions) -> None:
    """Show disk usage"""
    if options.verbose and options.format:
        raise InvalidInput("the verbose output of system df has a form of its own", hint="leave out -v or --format")
    found = usage(engine_of(options))
    if options.verbose:
        streams.write(_detailed(found))
    else:
        print_list(_rows(found), headers=_HEADERS, columns=tuple(_HEADERS), form=options.format)


def _rows(found: Usage) -> Rows:
    containers, volumes, cache = found.containers, found.volumes, found.cache
    return [
        _row(
            "Images",
            len(found.images),
            sum(bool(i.containers) for i in found.images),
            found.image_bytes,
            found.image_reclaimable,
        ),
        _row(
            "Containers",
            len(containers),
            sum(c.listed.is_live for c in containers),
            sum(c.size for c in containers),
            sum(c.size for c in containers if not c.listed.is_live),
        ),
        _row(
            "Local Volumes",
            len(volumes),
            sum(bool(v.links) for v in volumes),
            sum(v.size for v in volumes),
            sum(v.size for v in volumes if not v.links),
        ),
        _row("Build Cache", len(cache), 0, sum(e.size for e in cache), sum(e.size for e in cache if not e.shared)),
    ]


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, object]:
    share = f" ({100 * reclaimable // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(reclaimable) + share,
    }


def _detailed(found: Usage) -> str:
    now, cached = time.time_ns(), human_size(sum(entry.size for entry in found.cache))
    return "\n".join(
        f"{title}\n\n" + list_text(rows, headers=headers, columns=tuple(headers), form="")
        for title, rows, headers in (
            ("Images space usage:", _image_rows(found, now), _IMAGES),
            ("Containers space usage:", _container_rows(found, now), _CONTAINERS),
            ("Local Volumes space usage:", _volume_rows(found), _VOLUMES),
            (f"Build cache usage: {cached}", _cache_rows(found, now), _CACHE),
        )
    )


def _image_rows(found: Usage, now: int) -> Rows:
    rows: Rows = []
    for one in found.images:
        names = [(n.familiar_name, n.tag or "<none>") for n in one.listed.tags] or [("<none>", "<none>")]
        for repository, tag in names:
            rows.append(
                {
                    "Repository": repository,
                    "Tag": tag,
                    "ID": short_id(one.listed.image.id),
                    "CreatedSince": "N/A" if one.listed.created is None else ago(one.listed.created, now),
                    "Size": human_size(one.listed.image.size, 3),
                    "SharedSize": human_size(one.shared, 3),
                    "UniqueSize": human_size(one.unique, 3),
                    "Containers": str(one.containers),
                }
            )
    return rows


def _container_rows(found: Usage, now: int) -> Rows:
    return [
        {
            "ID": short_id(listed.record["id"]),
            "Image": listed.record["image"],
            "LocalVolumes": str(sum(mount["type"] == "volume" for mount in listed.record["mounts"])),
            "Size": human_size(size),
            "RunningFor": ago(listed.created, now) if listed.record["created"] else "N/A",
            "Status": listed.state["status"],
            "Names": listed.record["name"],
        }
        for listed, size in found.containers
    ]


def _volume_rows(found: Usage) -> Rows:
    return [{"Name": v.volume.name, "Links": str(v.links), "Size": human_size(v.size)} for v in found.volumes]


def _cache_rows(found: Usage, now: int) -> Rows:
    return [
        {
            "ID": entry.id[:12],
            "CacheType": entry.type,
            "Size": human_size(entry.size),
            "LastUsedSince": ago(int(entry.used * 10**9), now),
            "Shared": str(entry.shared).lower(),
        }
        for entry in found.cache
    ]
