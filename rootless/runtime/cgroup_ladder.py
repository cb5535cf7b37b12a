"""Where a container's cgroup can be made: the ladder, from the top rung that there is. (cgroup_place.py makes it.)

1. `subtree`: the cgroup that we live in, or --cgroup-parent, is ours: a delegation by an administrator, a batch
   system, or the container that we are in. Controllers are handed down only by a cgroup without processes of its own
   (cgroups(7), "no internal processes"): those that are there, we among them, move to a leaf of it.
2. `systemd`: a scope that the user's systemd makes (systemd.py), for the monitor in one leaf and the container in
   another. So, too, where we live in a unit of the user's systemd: it is writable, and still not ours, but for what it
   has marked as delegated (user.delegate, of newer ones).
3. `none`.

Only version 2: a part of version 1's trees cannot be given away safely. Nothing is written until a cgroup is made.
"""

import os

from rootless.errors import InvalidInput
from rootless.linux import cgroups
from rootless.linux.directories import outer_uid
from rootless.runtime.cgroup_place import LEAF, SUBTREE, SYSTEMD

NONE = "none"
_MARK = "user.delegate"


class Rung:
    """What was found. *base*: the cgroup below which ours is made; *socket*: of systemd; *why*: what bars the rest."""

    __slots__ = ("base", "controllers", "kind", "slice", "socket", "why")

    def __init__(
        self,
        kind: str,
        *,
        base: str = "",
        controllers: "list[str] | None" = None,
        socket: str = "",
        slice: str = "",
        why: str = "",
    ) -> None:
        self.kind, self.base, self.socket, self.slice, self.why = kind, base, socket, slice, why
        self.controllers = controllers or []

    def to_settings(self) -> dict[str, str]:
        """What the monitor needs of it (cgroup_place.py)."""
        return {"kind": self.kind, "base": self.base, "socket": self.socket, "slice": self.slice}


def find(parent: str = "", *, tree: str | None = None, own: str | None = None, socket: str | None = None) -> Rung:
    """The rung for a container whose --cgroup-parent is *parent*. Only looks.

    *tree* is where version 2 is mounted, *own* our cgroup below it, *socket* that of the user's systemd; found if they
    are not given. Raises InvalidInput for a parent that cannot be one.
    """
    tree = cgroups.tree() if tree is None else tree
    if not tree:
        return Rung(NONE, why="control groups of version 2 are not mounted at /sys/fs/cgroup")
    if parent and not parent.endswith(".slice"):
        return Rung(SUBTREE, base=(base := _given(tree, parent)), controllers=cgroups.controllers(base))
    own = cgroups.cgroup_of() if own is None else own
    if not parent and (base := _ours(tree, own)):
        return Rung(SUBTREE, base=base, controllers=cgroups.controllers(base))
    socket = find_socket() if socket is None else socket
    if socket:
        return Rung(SYSTEMD, socket=socket, slice=parent, controllers=_controllers_of_systemd(tree))
    if parent:
        raise InvalidInput(f"invalid cgroup parent {parent}: a slice is systemd's, and no systemd of yours runs here")
    return Rung(NONE, why="no cgroup is delegated to you, and no systemd of yours runs here")


def _given(tree: str, parent: str) -> str:
    """The directory of --cgroup-parent, which is a path from the root of the tree, as in Docker."""
    parts = [part for part in parent.split("/") if part]
    if ".." in parts or "." in parts or not parts:
        raise InvalidInput(f"invalid cgroup parent {parent}: a path from the root of the tree, or NAME.slice")
    path = os.path.join(tree, *parts)
    if not os.path.isdir(path):
        raise InvalidInput(f"invalid cgroup parent {parent}: there is no {path}")
    if not _is_writable(path):
        raise InvalidInput(f"invalid cgroup parent {parent}: {path} is not yours to write")
    return path


def _ours(tree: str, own: str) -> str:
    """The directory of our own cgroup, if it is ours to divide; "" otherwise."""
    if not own or own.startswith("/.."):
        return ""  # outside what this cgroup namespace shows
    path = (tree + own).rstrip("/")
    if os.path.basename(path) == LEAF:
        path = os.path.dirname(path)
    return path if _is_writable(path) and not _is_systemds(tree, path) else ""


def _is_writable(path: str) -> bool:
    return all(os.access(os.path.join(path, name), os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control"))


def _is_systemds(tree: str, path: str) -> bool:
    """Whether it is a unit of the user's systemd that is not marked as given away."""
    head, manager, below = path[len(tree) :].partition(".service/")
    if not manager or not os.path.basename(head).startswith("user@"):
        return False
    place = tree + head + ".service"
    for name in below.split("/"):
        place = os.path.join(place, name)
        if _is_marked(place):
            return False
    return True


def _is_marked(path: str) -> bool:
    try:
        return os.getxattr(path, _MARK) == b"1"
    except OSError:
        return False


def _controllers_of_systemd(tree: str) -> list[str]:
    """Those that the user's systemd can hand on; none where it lives elsewhere than usual, too."""
    uid = outer_uid()
    return cgroups.controllers(f"{tree}/user.slice/user-{uid}.slice/user@{uid}.service")


def find_socket() -> str:
    """The socket on which the user's systemd can be asked: of the session bus, or its own; "" where there is none."""
    candidates = []
    for address in os.environ.get("DBUS_SESSION_BUS_ADDRESS", "").split(";"):
        if address.startswith("unix:path="):
            candidates.append(address.removeprefix("unix:path=").partition(",")[0])
    usual = f"/run/user/{outer_uid()}"
    directories = dict.fromkeys([os.environ.get("XDG_RUNTIME_DIR") or usual, usual])
    systemds = [f"{directory}/systemd/private" for directory in directories]
    if not any(map(os.path.exists, systemds)):
        return ""  # a bus alone cannot make a scope
    candidates += [f"{directory}/bus" for directory in directories] + systemds
    return next((path for path in candidates if "%" not in path and os.path.exists(path)), "")
