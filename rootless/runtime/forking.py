"""Waiting for a process that a helper fork makes next to itself: what containers, exec and health checks share."""

import os
from collections.abc import Callable

from rootless.errors import RootlessError
from rootless.runtime import channel
from rootless.runtime.channel import Socket


class Forked:
    """A child of ours that a helper fork has cloned: see await_child."""

    __slots__ = ("pid", "terminal_fd")

    def __init__(self) -> None:
        self.pid = 0
        self.terminal_fd: int | None = None


def await_child(
    helper: int,
    ours: Socket,
    until: bytes,
    warn: Callable[[str], None],
    plug: Callable[[int], None] = os.close,
    serve: Callable[[int], None] = os.close,
    run_hooks: Callable[[int], None] | None = None,
) -> Forked:
    """Take messages until kind *until* has come (b"": the end of the channel), and reap *helper*.

    READY may overtake FORKED, since they come from two processes: both are waited for. *plug* is given the descriptor
    of a network namespace that the child has to itself, *serve* that of a mount which waits for its server; *run_hooks*
    the pid of a child that waits for its hooks. Raises what ERROR says, after ending the processes that there are.
    """
    forked = Forked()
    seen = hooks_wait = False
    try:
        while not (seen and forked.pid):
            if hooks_wait and forked.pid and run_hooks:
                hooks_wait = False
                run_hooks(forked.pid)
                channel.send(ours, channel.GO)
            kind, text, fds = channel.receive(ours)
            if kind == channel.FORKED:
                forked.pid = int(text)
                os.waitpid(helper, 0)
                helper = 0
            elif kind == channel.TERMINAL:
                forked.terminal_fd = fds[0]
            elif kind == channel.NETWORK:
                plug(fds[0])
            elif kind == channel.UNION:
                serve(fds[0])
            elif kind == channel.HOOKS:
                hooks_wait = True
            elif kind == channel.WARNING:
                warn(text.decode("utf-8", "replace"))
            elif kind == channel.ERROR:
                channel.raise_error(text)
            elif kind == until and (kind or forked.pid):
                seen = True
            else:
                raise RootlessError("the process died before it was ready")
    except BaseException:
        if forked.terminal_fd is not None:
            os.close(forked.terminal_fd)
        for child in (helper, forked.pid):
            if child:
                end(child)
        raise
    return forked


def end(pid: int) -> None:
    """Kill and reap a child of ours; where it is the init of a pid namespace, the whole of it goes."""
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
