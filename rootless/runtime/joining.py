"""Another process in a running container: exec, and the commands of health checks.

The process that joins is seen from inside, so it has nothing to show: it is not dumpable (no /proc/PID/{environ,mem,
fd,cwd} for others, CVE-2016-9962), its environment is empty, it has no descriptor of the host, and its interpreter is
sealed (sealed.py). All modules are imported before it enters.
"""

import os

from rootless.errors import Conflict
from rootless.linux import namespaces, processes
from rootless.runtime import channel, credentials, init, isolation, nested, process_attributes, seccomp
from rootless.runtime.channel import Socket
from rootless.runtime.seccomp import Filter
from rootless.spec.runtime import Config

_CLONE_PARENT = 0x8000
# The user namespace first, since it gives the right to join the others; the mount namespace last, since /proc of the
# host is needed up to there.
_ORDER = ("user", "cgroup", "ipc", "uts", "net", "pid", "time", "mnt")


def join(
    pid: int,
    started: int,
    process: Config,
    section: Config | None,
    stdio: tuple[int, int, int] | None,
    to_parent: Socket,
    preserved: tuple[int, ...] = (),
    personality: Config | None = None,
    *,
    die_with_parent: bool,
) -> None:
    """Run in a fork: enter the container whose init is *pid*, *started*, and become its *process*. Never returns.

    *section* is linux.seccomp, *personality* linux.personality.

    Tells *to_parent* FORKED with the pid, TERMINAL where *stdio* is None, and ERROR; the end of it means success. The
    process is a sibling of the caller's fork, that is a child of the caller.
    """
    try:
        filtered = seccomp.prepare(section)
        isolation.no_more_imports()
        process_attributes.apply_affinity(process, "initial")
        labels = process_attributes.open_labels(process)
        processes.prctl(processes.PR_SET_DUMPABLE, 0)
        credentials.set_oom_score(process)
        joined = _open_namespaces(pid)
        if processes.start_time(pid) != started:
            raise Conflict("the container is not running")
        single = init.only_ids()
        if any(flag == namespaces.CLONE_NEWUSER for _, flag in joined):
            nested.give_pipes(stdio or (), nested.root_of(pid))
        for fd, flag in joined:
            namespaces.setns(fd, flag)
            os.close(fd)
            if flag == namespaces.CLONE_NEWUSER:
                single = init.only_ids()
        child = namespaces.clone(_CLONE_PARENT)
        if child == 0:
            process_attributes.apply(process, personality)
            process_attributes.set_labels(labels)
            _enter(process, filtered, stdio, to_parent, preserved, die_with_parent, single)
        channel.send(to_parent, channel.FORKED, str(child))
        os._exit(0)
    except BaseException as error:
        channel.send_error(to_parent, error)
    finally:
        os._exit(125)


def _open_namespaces(pid: int) -> list[tuple[int, int]]:
    """(fd, flag) of the namespaces of *pid* that are not ours already, in the order of joining."""
    flags = {name: flag for flag, name in namespaces.NAMESPACES.values()}
    wanted = [n for n in _ORDER if os.path.exists(f"/proc/self/ns/{n}") and not namespaces.same_namespace(n, pid)]
    return [(os.open(f"/proc/{pid}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC), flags[n]) for n in wanted]


def _enter(
    process: Config,
    filtered: Filter | None,
    stdio: tuple[int, int, int] | None,
    to_parent: Socket,
    preserved: tuple[int, ...],
    die_with_parent: bool,
    single: tuple[int, int] | None,
) -> None:
    try:
        os.setsid()
        credentials.become_root()  # of the user namespace that we have joined
        namespaces.new_session_keyring()
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        user = init.find_user(process, process.get("annotations") or {}, root_fd)
        if single:
            user = init.squash(user, single, to_parent)
        if stdio is None:
            stdio = init.open_terminal(process, root_fd, to_parent)
        credentials.set_limits(process)
        process_attributes.apply_affinity(process, "final")
        init.execute(process, user, stdio, to_parent, filtered, preserved, die_with_parent=die_with_parent)
    except BaseException as error:
        channel.send_error(to_parent, error)
    finally:
        os._exit(125)
