"""Writing limits into the control files of a cgroup.

A row is a list of alternatives, [file, value] each: the first whose file is there is written. The alternative "" says
that the row may stay unwritten. Rows are plain lists, as they come out of JSON.
"""

import errno
import os

from rootless.errors import HostUnsupported
from rootless.linux import cgroups

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from collections.abc import Sequence

# These say how much it is compared with what is beside it; and beside a scope's one container there is nothing that
# matters: it is the scope (cgroup_place.py) that has other containers for siblings.
_AMONG_SIBLINGS = ("cpu.weight", "cpu.idle", "io.weight", "io.bfq.weight", "memory.low")
_REASONS = {errno.EINVAL: "the kernel does not take this value", errno.ERANGE: "the value is out of range"}


def apply(cgroup: str, rows: "Sequence[Sequence[Sequence[str]]]") -> None:
    """Write *rows*. Raises HostUnsupported naming what cannot be set."""
    for alternatives in rows:
        chosen = next((row for row in alternatives if not row[0] or _is_there(cgroup, row[0])), None)
        if chosen is None:
            raise missing([alternatives[0][0].partition(".")[0]])
        if chosen[0]:
            _write(cgroup, *chosen)
            scope = os.path.dirname(cgroup)
            if chosen[0] in _AMONG_SIBLINGS and scope.endswith(".scope") and _is_there(scope, chosen[0]):
                _write(scope, *chosen)


def _is_there(cgroup: str, name: str) -> bool:
    return os.access(os.path.join(cgroup, name), os.F_OK)


def _write(cgroup: str, name: str, value: str) -> None:
    for line in value.split("\n"):  # a device each: the kernel takes one at a time
        try:
            cgroups.write(cgroup, name, line)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0) or error.strerror
            raise HostUnsupported(f"cannot set {name} to {line!r}: {reason}") from error


def controllers_of(rows: "Sequence[Sequence[Sequence[str]]]") -> list[str]:
    """The controllers that *rows* need, in the order of first use; those of rows that may stay unwritten are not."""
    found: list[str] = []
    for alternatives in rows:
        controller = alternatives[0][0].partition(".")[0]
        if alternatives[-1][0] and controller != "cgroup" and controller not in found:
            found.append(controller)
    return found


def missing(controllers: "Sequence[str]", why: str = "") -> HostUnsupported:
    """The error that limits of these controllers cannot be enforced."""
    names = ", ".join(controllers)
    plural = "s are" if len(controllers) > 1 else " is"
    return HostUnsupported(
        f"limits on {names} cannot be enforced: {why or f'the controller{plural} not delegated to you'}",
        hint=remedy(),
    )


def remedy() -> str:
    """The line with which an administrator gets an account its controllers."""
    tree = cgroups.tree()
    if tree != "/sys/fs/cgroup":
        return "have root boot with systemd.unified_cgroup_hierarchy=1: control groups of version 1 cannot be delegated"
    if os.path.isdir("/run/systemd/system"):
        return (
            "have root put `[Service]` and `Delegate=cpu cpuset io memory pids` into"
            " /etc/systemd/system/user@.service.d/delegate.conf, run systemctl daemon-reload, and log in again"
        )
    return "have root make a cgroup of yours: directory, cgroup.procs and cgroup.subtree_control, with your shell in it"
