"""--userns: which ids of the user's namespace a container has, and what they are called in it.

All containers share the user's namespace, in which 0 is the user and 1, 2 ... are the subordinate ids
(runtime/user_namespace.py). A container with a mode of its own gets a second one below it, for which root of the first
writes any map that it likes, without newuidmap(1):

    keep-id    the user has the number that he has on the machine; root and the others are subordinate ids
    nomap      the user is nobody in the container: subordinate ids only
    auto       a stretch of the subordinate ids that no other container of this mode has

An image's files belong on disk to the ids that the image says, as seen in the user's namespace: root's to 0. They are
to be root's in the container, too, where 0 is another id. Kernel file systems can map ids only where their own
namespace is ours (mount_setattr(2)), which that of a disk is not. So the root is mounted on FUSE by the container's
init, in the container's user namespace: the kernel puts the numbers that the server speaks of into that namespace.
Binds are not mapped: the files of the user's home belong to the user.
"""

import os
import pwd
from contextlib import ExitStack
from typing import Any, NamedTuple

from rootless.engine.context import Engine
from rootless.engine.options import ContainerOptions, UserNamespace
from rootless.errors import Conflict, HostUnsupported, InvalidInput
from rootless.linux import namespaces
from rootless.runtime.user_namespace import why_single

KEEP_ID, NOMAP, AUTO = MODES = ("keep-id", "nomap", "auto")
_LEAST_AUTO = 1024  # as podman; an image's users are nearly always below
_HIGHEST = 2**32 - 2

Record = dict[str, Any]


class Row(NamedTuple):
    """A row of a map: ids from *inside* on are those of the user's namespace from *outside* on."""

    inside: int
    outside: int
    size: int


def parse_userns(text: str) -> UserNamespace | None:
    """The mode that *text* asks for, None for the usual one. Raises InvalidInput, HostUnsupported."""
    name, colon, options = text.partition(":")
    if text in ("", "host", "private"):
        return None
    if name not in MODES:
        hint = "there are: host, keep-id[:uid=UID,gid=GID], nomap, auto[:size=IDS]"
        if name in ("container", "ns"):
            raise HostUnsupported(f"--userns {text} is not there", hint=hint)
        raise InvalidInput(f"unknown user namespace mode {text!r}", hint=hint)
    known = {KEEP_ID: ("uid", "gid"), AUTO: ("size",), NOMAP: ()}[name]
    given: dict[str, int] = {}
    for option in options.split(",") if colon else ():
        key, _, value = option.partition("=")
        if key not in known:
            there = ", ".join(known) or "none"
            raise InvalidInput(f"--userns {name} has no option {key!r}", hint=f"there are: {there}")
        given[key] = _number(key, value)
    if given.get("size") == 0:
        raise InvalidInput("--userns auto: size cannot be 0")
    return UserNamespace(name, **given)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _HIGHEST):
        raise InvalidInput(f"--userns: {name}={text} is no id")
    return int(text)


def keep_id_rows(own: int, highest: int) -> list[Row]:
    """The map in which the user, 0 outside, is *own*, where ids 0 to *highest* exist. The others keep their order."""
    if highest == 0:
        return [Row(own, 0, 1)]
    below = min(own, highest)
    rows = [Row(0, 1, below), Row(own, 0, 1), Row(own + 1, own + 1, highest - own)]
    return [row for row in rows if row.size > 0]


def disk_rows(own: int, highest: int) -> list[Row]:
    """Ids that files have on disk, as (shown, on disk, count); none where they are the same.

    A user whose number is beyond what the machine gives him owns what he makes under the one number that is free.
    """
    if highest == 0 or own <= highest:
        return []
    return [Row(0, 0, highest), Row(own, highest, 1)]


def highest_id(kind: str) -> int:
    """The last of the ids ("uid" or "gid") that exist here from 0 on without a gap."""
    end = 0
    for first, count in sorted(namespaces.mapped_ids(kind)):
        if first > end:
            break
        end = max(end, first + count)
    return end - 1


def own_id(kind: str) -> int:
    """The number that root of the user's namespace has on the machine."""
    with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
        for line in file:
            inside, outside, _ = map(int, line.split())
            if inside == 0:
                return outside
    return 0


def decide(asked: UserNamespace | None, taken: list[Row], wanted: int = 0) -> Record | None:
    """The record of the mode: {"mode", "uids", "gids", "uid", "gid", "disk_uids", "disk_gids"}, maps as rows.

    It is called in the user's namespace. *taken* are the stretches of other containers; *wanted* ids are needed at
    least. Raises HostUnsupported and Conflict where there are too few.
    """
    if asked is None:
        return None
    highest = min(highest_id("uid"), highest_id("gid"))
    if asked.mode == KEEP_ID:
        uid = own_id("uid") if asked.uid is None else asked.uid
        gid = own_id("gid") if asked.gid is None else asked.gid
        uids, gids = keep_id_rows(uid, highest), keep_id_rows(gid, highest)
        return _record(KEEP_ID, uids, gids, uid, gid, disk_rows(uid, highest), disk_rows(gid, highest))
    if highest < 1:
        raise HostUnsupported(f"--userns {asked.mode} needs subordinate ids, and there are none", hint=why_single())
    if asked.mode == NOMAP:
        rows = [Row(0, 1, highest)]
        return _record(NOMAP, rows, rows, 0, 0, [], [])
    size = asked.size or max(_LEAST_AUTO, wanted)
    rows = [Row(0, free_stretch(taken, size, highest), size)]
    return _record(AUTO, rows, rows, 0, 0, [], [])


def _record(
    mode: str, uids: list[Row], gids: list[Row], uid: int, gid: int, disk_uids: list[Row], disk_gids: list[Row]
) -> Record:
    maps = {"uids": uids, "gids": gids, "disk_uids": disk_uids, "disk_gids": disk_gids}
    return {"mode": mode, "uid": uid, "gid": gid, **{name: [list(row) for row in rows] for name, rows in maps.items()}}


def free_stretch(taken: list[Row], size: int, highest: int) -> int:
    """The first of *size* ids in a row that nobody has: from the top down, as the usual containers begin at the bottom.

    Raises Conflict where there is no such stretch above 0.
    """
    end = highest + 1
    for row in sorted(taken, key=lambda row: -row.outside):
        if row.outside + row.size <= end - size:
            break
        end = min(end, row.outside)
    if end - size < 1:
        raise Conflict(
            f"there are no {size} ids left that no other container with --userns auto has",
            hint=f"of your {highest} subordinate ids {sum(row.size for row in taken)} are taken: remove containers, or"
            " ask for fewer: --userns auto:size=IDS",
        )
    return end - size


def settle(engine: Engine, options: ContainerOptions, record: Record, held: ExitStack) -> None:
    """Put into *record* what the container gets; *held* keeps others from taking it until the record is written.

    Raises what decide() raises. Where the user keeps his number, he is who runs the program, unless --user says so.
    """
    asked = options.userns
    taken: list[Row] = []
    if asked and asked.mode == AUTO:
        held.enter_context(engine.layout.lock("userns"))
        taken = stretches([engine.containers.load(known) for known in engine.containers.list()])
    user = (options.user or "").partition(":")[0]
    userns = record["userns"] = decide(asked, taken, int(user) + 1 if user.isdigit() and len(user) < 10 else 0)
    if userns and userns["mode"] == KEEP_ID and options.user is None:
        userns["user"] = f"{userns['uid']}:{userns['gid']}"


def give_volumes(record: Record) -> None:
    """Empty volumes of root's become those of the container's root, where that is another and the user is nobody."""
    userns = record.get("userns")
    if not userns or userns["mode"] == KEEP_ID:
        return
    for mount in record["mounts"]:
        if mount["type"] == "volume" and not os.listdir(mount["source"]) and os.stat(mount["source"]).st_uid == 0:
            os.chown(mount["source"], userns["uids"][0][1], userns["gids"][0][1], follow_symlinks=False)


def stretches(records: list[Record]) -> list[Row]:
    """What containers with the mode auto have, of their records."""
    own = [record.get("userns") for record in records]
    return [Row(*row) for userns in own if userns and userns["mode"] == AUTO for row in userns["uids"]]


def mode(record: Record) -> str:
    """keep-id, nomap or auto; "" for the usual one."""
    userns = record.get("userns")
    return str(userns["mode"]) if userns else ""


def maps(record: Record) -> dict[str, list[list[int]]]:
    """The maps, for `inspect`: rows of the first id inside, the first in the user's namespace, and how many."""
    userns = record.get("userns") or {"uids": [], "gids": []}
    return {"Uids": userns["uids"], "Gids": userns["gids"]}


def user(record: Record) -> str:
    """Who runs the container's program, and what exec runs, unless it says so: "", a name or a number, a group."""
    userns = record.get("userns")
    return str((userns or {}).get("user") or record["user"])


def driver(record: Record) -> str:
    """The storage driver that the container's root needs, "" for the usual one: with one id there is no map to make."""
    userns = record.get("userns")
    return "fuse" if userns and sum(row[2] for row in userns["uids"]) > 1 else ""


def fuse_options(record: Record) -> list[str]:
    """What the server of the root is told about ids."""
    userns = record.get("userns")
    if not userns:
        return []
    if not driver(record):
        return [f"squash_to_uid={userns['uid']}", f"squash_to_gid={userns['gid']}"]
    maps = (("uidmapping", userns["disk_uids"]), ("gidmapping", userns["disk_gids"]))
    return [
        f"{name}={':'.join(f'{disk}:{shown}:{count}' for shown, disk, count in rows)}" for name, rows in maps if rows
    ]


def groups(record: Record) -> list[tuple[int, int]]:
    """(first, how many) of the groups that the container has; none where it has those of the user's namespace."""
    userns = record.get("userns")
    return [(row[0], row[2]) for row in userns["gids"]] if userns else []


def user_name() -> str:
    """The user's name, or his number where nobody knows it."""
    uid = own_id("uid")
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user{uid}"


def home() -> str:
    """Where the user's home is on the machine."""
    return os.path.normpath(os.environ.get("HOME") or "/")
