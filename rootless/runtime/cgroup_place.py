"""The cgroup of one container, made by its monitor where cgroup_ladder.py has found that it can be.

    subtree   BASE/rootless-ID.PID.START         limits and processes of the container; PID and START are the monitor's,
                                                 so that a later one sees whose monitor was killed, and removes it
              BASE/rootless.rest                 the processes that were in BASE
    systemd   …/rootless-ID-PID.scope/container  limits and processes of the container
                                     /monitor    the monitor, the server of the root: no limit holds for them (L02)

The container's own view of the tree, a cgroup namespace, begins at its cgroup, and is mounted read-only. Where the
machine's is mounted with `nsdelegate`, as systemd does, a container that mounts it anew does not change its limits.
"""

import errno
import os
from contextlib import suppress

from rootless.errors import HostUnsupported
from rootless.linux import cgroups, processes
from rootless.runtime import channel

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

SUBTREE, SYSTEMD = "subtree", "systemd"
LEAF = "rootless.rest"
PREFIX = "rootless-"
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
CONTAINER, _MONITOR = "container", "monitor"
_TRIES = 10


class Place:
    """Where the cgroup of container *name* is; *rung* as Rung.to_settings() has it."""

    __slots__ = ("_base", "_name", "_rung")

    def __init__(self, rung: dict[str, str], name: str) -> None:
        self._rung = rung
        self._name = name
        self._base = rung["base"]  # of systemd known once there is a scope

    def make(self, launcher: int) -> str:
        """Make the cgroup, with the process *launcher*, a child of ours, in it; its path.

        Raises HostUnsupported, and OSError where the machine denies what it has promised.
        """
        if not self._base:
            self._base = self._enter_scope(launcher)
        if self._rung["kind"] == SYSTEMD:
            enable(self._base, move=False)
            path = os.path.join(self._base, CONTAINER)
        else:
            _sweep(self._base)
            enable(self._base, move=self._is_own(self._base))
            path = os.path.join(self._base, f"{PREFIX}{self._name}.{_self()}")
        cgroups.end(path)  # of the last run, if that could not be removed
        os.mkdir(path, 0o755)
        cgroups.join(path, launcher)
        return path

    def _is_own(self, base: str) -> bool:
        """Whether we live in *base*: what is in the way there came with us."""
        own = (cgroups.tree() + cgroups.cgroup_of()).rstrip("/")
        return own in (base, os.path.join(base, LEAF))

    def _enter_scope(self, launcher: int) -> str:
        """Have systemd make a scope, with this monitor and the launcher in it; the two go on to a leaf of it."""
        from rootless.runtime import systemd  # only where it is asked

        unit = f"{PREFIX}{self._name}-{os.getpid()}.scope"
        systemd.start_scope(self._rung["socket"], unit, [os.getpid(), launcher], self._rung["slice"])
        scope = cgroups.tree() + cgroups.cgroup_of()
        if os.path.basename(scope) != unit:
            raise HostUnsupported(f"systemd has not moved the container to {unit}")
        leaf = os.path.join(scope, _MONITOR)
        os.mkdir(leaf, 0o755)
        for pid in (os.getpid(), launcher):
            cgroups.join(leaf, pid)
        return scope


def _self() -> str:
    pid = os.getpid()
    return f"{pid}.{processes.start_time(pid)}"


def enable(base: str, *, move: bool) -> None:
    """Have *base* hand down all of CONTROLLERS that it has; *move* its processes to a leaf of it first.

    Of a cgroup with processes some controllers can be had, which would make a domain of threads of it (cgroups(7)) and
    its children useless: where it has some that may not be moved, it hands down no more than before. A controller that
    cannot be handed down is left out: whoever needs it finds no file of it.
    """
    wanted = set(CONTROLLERS).intersection(cgroups.controllers(base))
    for controller in sorted(wanted.difference(cgroups.read(base, "cgroup.subtree_control").split())):
        for _ in range(_TRIES):
            if pids := cgroups.members(base):
                if not move:
                    return
                _move(pids, os.path.join(base, LEAF))
            try:
                cgroups.write(base, "cgroup.subtree_control", f"+{controller}")
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    break


def _move(pids: list[int], leaf: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(leaf, 0o755)
    for pid in pids:
        with suppress(ProcessLookupError):  # it has just ended
            cgroups.join(leaf, pid)


def _sweep(base: str) -> None:
    """Remove the cgroups of containers in *base* whose monitors were killed: their names tell which these were."""
    for name in os.listdir(base):
        pid, _, started = name.partition(".")[2].partition(".")
        if not (name.startswith(PREFIX) and pid.isdigit() and started.isdigit()):
            continue
        if processes.start_time(int(pid)) != int(started):
            with suppress(OSError):  # another one is at it, or something in it does not end: the next one tries again
                cgroups.end(os.path.join(base, name), 0.2)


def enter(cgroup: str, socket: str, *, required: bool) -> None:
    """Move this process, of whoever runs another program in a container, into its *cgroup*, from wherever it is.

    Where the kernel denies it, since what the two are below is not ours, systemd on *socket* does it. Raises
    HostUnsupported where it cannot be done and is *required*, FileNotFoundError where the container has ended.
    """
    try:
        cgroups.join(cgroup)
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        reason = error.strerror
    scope, name = os.path.split(cgroup)
    try:
        if not scope.endswith(".scope"):
            raise HostUnsupported(
                f"the limits of the container cannot hold for a process from here: {reason}",
                hint="run it in the control group in which the container was started",
            )
        from rootless.runtime import systemd  # as above

        systemd.attach(socket, os.path.basename(scope), f"/{name}", os.getpid())
    except HostUnsupported:
        if required:
            raise


def enter_or_tell(settings: "dict[str, Any] | None", to_parent: channel.Socket) -> None:
    """The same in the fork that is about to join a container, which is told by *settings*; what fails is sent up.

    *settings* are {"path", "socket", "limited"}; None where the container has no control group.
    """
    if settings is None:
        return
    try:
        enter(settings["path"], settings["socket"], required=settings["limited"])
    except FileNotFoundError:
        return  # it has ended, and its namespaces are gone, as joining them will find
    except BaseException as error:
        channel.send_error(to_parent, error)
        os._exit(125)
