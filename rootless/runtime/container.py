"""The parent's half of a container's birth: fork it into its namespaces, wait until it stands, let it go.

    parent   create ─▶ clone                ◀─ TERMINAL, WARNING, READY       start: GO ─▶     ◀─ end of channel
    child            namespaces, mounts ─▶                                                execve

An ERROR instead of any of these is raised here. The end of the channel after GO means that execve(2) succeeded: the
child's end is close-on-exec.
"""

import os
from collections.abc import Callable

from rootless.linux import namespaces, processes
from rootless.runtime import channel, forking
from rootless.runtime.channel import Socket

_CLONE_PARENT = 0x8000


class Created:
    """A container whose process waits for GO."""

    __slots__ = ("channel", "pid", "started", "terminal_fd")

    def __init__(self, pid: int, ours: Socket, terminal_fd: int | None) -> None:
        self.pid = pid
        self.started = processes.start_time(pid)
        self.channel = ours
        self.terminal_fd = terminal_fd


def create(bundle: str, stdio: tuple[int, int, int] | None, warn: Callable[[str], None]) -> Created:
    """Make the container of *bundle*; *stdio* are its descriptors, None for a terminal. A child of the caller.

    Raises what went wrong in it; nothing is left then.
    """
    ours, theirs = channel.pair()
    pid = os.fork()
    if pid == 0:
        _become(bundle, stdio, ours, theirs)
    theirs.close()
    try:
        forked = forking.await_child(pid, ours, channel.READY, warn)
        return Created(forked.pid, ours, forked.terminal_fd)
    except BaseException:
        ours.close()
        raise


def _become(bundle: str, stdio: tuple[int, int, int] | None, ours: Socket, theirs: Socket) -> None:
    """Between the fork and the container: join what is to be joined, and clone the init into the rest."""
    # Imported in the child only: what mounts and JSON cost in memory, the monitor would carry for its whole life.
    import json

    from rootless.runtime import init

    try:
        ours.close()
        with open(os.path.join(bundle, "config.json"), "rb") as file:
            config = json.loads(file.read())
        for path, flag in init.joined_namespaces(config):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, flag)
            os.close(fd)
        # A sibling of this process, so that the parent is its parent, and can wait for it.
        pid = namespaces.clone(init.clone_flags(config) | _CLONE_PARENT)
        if pid == 0:
            init.run(config, bundle, stdio, theirs)
        channel.send(theirs, channel.FORKED, str(pid))
        os._exit(0)
    except BaseException as error:
        channel.send_error(theirs, error)
    finally:
        os._exit(125)


def start(created: Created) -> None:
    """Let the program run. Raises CommandNotFound and others where execve(2) failed; the process is reaped then."""
    try:
        channel.send(created.channel, channel.GO)
        kind, text, _ = channel.receive(created.channel)
        if kind == channel.ERROR:
            channel.raise_error(text)
    except BaseException:
        forking.end(created.pid)
        raise
    finally:
        created.channel.close()
