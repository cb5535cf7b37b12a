"""Stopping and continuing every process of a container, for hosts where we have no control group to freeze.

SIGSTOP cannot be caught or ignored, and reaches the init of a pid namespace when it comes from outside. Processes that
are forked while we walk are found by walking again until a walk finds nothing new. Unlike the freezer's, this stop can
be seen: a parent inside is told by SIGCHLD.
"""

import os
from contextlib import suppress

from rootless.linux import namespaces

_SIGSTOP = 19
_SIGCONT = 18
_MAX_WALKS = 100


def freeze(init_pid: int) -> None:
    """Stop all processes in the pid namespace of *init_pid*. Raises ProcessLookupError where it is gone."""
    stopped: set[int] = set()
    for _ in range(_MAX_WALKS):
        new = set(members(init_pid)) - stopped
        if not new:
            return
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, _SIGSTOP)
        stopped |= new


def thaw(init_pid: int) -> None:
    """Let them all go on."""
    for pid in members(init_pid):
        with suppress(ProcessLookupError):
            os.kill(pid, _SIGCONT)


def members(init_pid: int) -> list[int]:
    """The pids, as seen from here, of the processes that live in the pid namespace of *init_pid*."""
    own = os.stat("/proc/self/ns/pid")
    target = os.stat(f"/proc/{init_pid}/ns/pid")
    if (own.st_ino, own.st_dev) == (target.st_ino, target.st_dev):
        return [init_pid]  # --pid=host: the rest of that namespace is the machine
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # ended meanwhile, or somebody else's
                if namespaces.same_namespace("pid", name, init_pid):
                    found.append(int(name))
    return found
