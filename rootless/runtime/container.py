"""The parent's half of a container's birth: have it launched into its namespaces, wait until it stands, let it go.

    parent   create ─▶ launcher ─▶ clone    ◀─ NETWORK, UNION, TERMINAL, READY …     start: GO ─▶     ◀─ end of channel
    child                      namespaces, mounts ─▶                                            execve

An ERROR instead of any of these is raised here. The end of the channel after GO means that execve(2) succeeded: the
child's end is close-on-exec.
"""

import os
from collections.abc import Callable

from rootless.linux import processes
from rootless.runtime import channel, forking
from rootless.runtime.channel import Socket
from rootless.runtime.launcher import Launcher


class Created:
    """A container whose process waits for GO."""

    __slots__ = ("channel", "pid", "started", "terminal_fd")

    def __init__(self, pid: int, ours: Socket, terminal_fd: int | None) -> None:
        self.pid = pid
        self.started = processes.start_time(pid)
        self.channel = ours
        self.terminal_fd = terminal_fd


def create(
    launcher: Launcher,
    bundle: str,
    stdio: tuple[int, int, int] | None,
    warn: Callable[[str], None],
    gate_fd: int | None = None,
    plug: Callable[[int], None] = os.close,
    serve: Callable[[int], None] = os.close,
    run_hooks: Callable[[int], None] | None = None,
) -> Created:
    """Make the container of *bundle*; *stdio* are its descriptors, None for a terminal. A child of the caller.

    *plug* takes its network namespace, if it has one to itself, while the child goes on with its mounts; *serve* the
    descriptor of its root, if that is not the kernel's (union_server.py); *run_hooks* has the hooks of this side run.
    Raises what went wrong in it; nothing is left then.
    """
    try:
        launcher.launch(bundle, stdio, gate_fd)
        forked = forking.await_child(launcher.pid, launcher.channel, channel.READY, warn, plug, serve, run_hooks)
        return Created(forked.pid, launcher.channel, forked.terminal_fd)
    except BaseException:
        launcher.channel.close()
        raise


def start(created: Created, confirm: Callable[[], None] | None = None) -> None:
    """Let the program run, once *confirm* has not raised.

    Raises CommandNotFound and others where execve(2) failed; the process is reaped then.
    """
    try:
        if confirm:
            confirm()
        channel.send(created.channel, channel.GO)
        kind, text, _ = channel.receive(created.channel)
        if kind == channel.ERROR:
            channel.raise_error(text)
    except BaseException:
        forking.end(created.pid)
        raise
    finally:
        created.channel.close()
