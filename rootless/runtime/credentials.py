"""From root of the user's namespace to what the container's process may be: groups, ids, five sets of capabilities.

capabilities(7): the bounding set is what any program in the container can ever have. The inheritable and ambient sets
stay empty, so that a user other than root starts with nothing and gains only through files that say so
(CVE-2022-24769).
"""

import errno
import os
import resource

from rootless.errors import InvalidInput, RootlessError
from rootless.linux import capabilities, processes
from rootless.runtime.users import User
from rootless.spec.runtime import Config

_SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
_ADMINISTRATOR = 1 << capabilities.number("CAP_SYS_ADMIN")


def set_limits(process: Config) -> None:
    """Resource limits, while we may still raise them as far as the user may."""
    for limit in process.get("rlimits") or ():
        number = getattr(resource, limit["type"], None)
        if number is None:
            raise InvalidInput(f"unknown resource limit {limit['type']}")
        try:
            resource.setrlimit(number, (_limit(limit["soft"]), _limit(limit["hard"])))
        except (OSError, ValueError) as error:
            raise RootlessError(
                f"cannot set {limit['type']} to {limit['soft']}:{limit['hard']}: {error}",
                hint="without root, a hard limit can only be lowered: `ulimit -Ha` shows yours",
            ) from error


def set_oom_score(process: Config) -> None:
    """The OOM score, for this process and its children, while /proc is the machine's.

    The file belongs to us only while the process is dumpable, proc(5). Whoever could attach to it then must have all
    our capabilities, and we still have every one.
    """
    score = process.get("oomScoreAdj")
    if score is None:
        return
    processes.prctl(processes.PR_SET_DUMPABLE, 1)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except PermissionError as error:
        raise RootlessError(
            f"cannot set oom_score_adj to {score}", hint="without root it can only be raised"
        ) from error
    finally:
        processes.prctl(processes.PR_SET_DUMPABLE, 0)


def _limit(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 2**63 else value


def become(user: User, process: Config, *, filtered: bool = False) -> None:
    """Take on the ids of *user* and the capabilities of *process* (config.md), in the order that the kernel allows.

    With *filtered*, CAP_SYS_ADMIN stays until execve(2) takes it away, where it is needed to install a filter.
    """
    sets = _sets(process)
    kept = _ADMINISTRATOR if filtered and not process.get("noNewPrivileges") else 0
    capabilities.drop_bounding(sets["bounding"])
    if user.uid and (sets["permitted"] or sets["ambient"] or kept):
        processes.prctl(processes.PR_SET_KEEPCAPS, 1)
    _set_ids(user)
    capabilities.capset(sets["effective"] | kept, sets["permitted"] | kept, sets["inheritable"])
    capabilities.set_ambient(sets["ambient"])
    if process.get("noNewPrivileges"):
        processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)


def become_root() -> None:
    """Be root of a user namespace that was entered with all capabilities; where root does not exist, stay who we are.

    It clears PR_SET_PDEATHSIG and PR_SET_DUMPABLE unless we are root already, prctl(2).
    """
    for call, own in ((os.setresgid, os.getresgid()), (os.setresuid, os.getresuid())):
        if any(own):
            try:
                call(0, 0, 0)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
    processes.prctl(processes.PR_SET_DUMPABLE, 0)


def stay(process: Config) -> None:
    """For who has become the process, and executes nothing: be without what execve(2) would take, and gain nothing."""
    sets = _sets(process)
    capabilities.capset(sets["effective"], sets["permitted"], sets["inheritable"])
    processes.prctl(processes.PR_SET_NO_NEW_PRIVS, 1)


def _sets(process: Config) -> dict[str, int]:
    """The five sets as masks, of what this kernel knows."""
    known = (1 << capabilities.last() + 1) - 1
    given = process.get("capabilities") or {}
    sets = {name: capabilities.mask(given.get(name) or []) & known for name in _SETS}
    # What is not permitted and inheritable cannot be ambient; runc's own example has such, and is run without.
    sets["ambient"] &= sets["permitted"] & sets["inheritable"]
    return sets


def _set_ids(user: User) -> None:
    try:
        os.setgroups(user.groups)
    except PermissionError:
        # One id only: setgroups(2) had to be given up for the map. The host's groups stay, as ids nobody can name.
        pass
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _not_mapped("group", max(user.groups)) from error
    for call, what, number in ((os.setresgid, "group", user.gid), (os.setresuid, "user", user.uid)):
        try:
            call(number, number, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _not_mapped(what, number) from error


def _not_mapped(what: str, number: int) -> RootlessError:
    return RootlessError(
        f"{what} {number} does not exist in the user namespace",
        hint="your subordinate ids in /etc/subuid and /etc/subgid are too few for this image",
    )
