"""Hooks: programs that the configuration has run at points of a container's life (config.md, "POSIX-platform Hooks").

    prestart, createRuntime    in our namespaces, when the container's stand and it has not pivoted: by the command
    createContainer            in the container's namespaces, before it pivots: by its first process; the host's paths
    startContainer             in the container, just before the program; the container's paths
    poststart, poststop        in our namespaces, after the program has begun, and after the container is deleted

Each gets the state on stdin, has only the environment that it is given, and is waited for; after its timeout it is
killed. One that fails before the program runs is the end of the container; later ones are warned of.
"""

import os
import select
from collections.abc import Callable

from rootless.errors import RootlessError
from rootless.linux import files, processes
from rootless.spec.runtime import Config

_SIGKILL = 9
_SHOWN = 1000  # bytes of what a failing hook says


def run(hooks: Config, kind: str, state: bytes, warn: Callable[[str], None] | None = None) -> None:
    """Run the hooks of *kind*, in order. Raises RootlessError at the first that fails, or tells *warn* and goes on."""
    for index, hook in enumerate(hooks.get(kind) or ()):
        try:
            _run(hook, state)
        except (RootlessError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else error
            message = f"hooks.{kind}[{index}]: {hook['path']}: {text}"
            if warn is None:
                raise RootlessError(message) from error
            warn(message)


def _run(hook: Config, state: bytes) -> None:
    """One hook, whose state comes from a file without a name: a hook need not read it."""
    state_fd, output_fd = os.memfd_create("state", os.MFD_CLOEXEC), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        files.write_all(state_fd, state)
        os.lseek(state_fd, 0, os.SEEK_SET)
        status = _wait(_begin(hook, state_fd, output_fd), hook.get("timeout"))
        if status:
            said = os.pread(output_fd, _SHOWN, 0).decode("utf-8", "replace").strip()
            code = os.waitstatus_to_exitcode(status)
            how = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
            raise RootlessError(f"{how}: {said}" if said else how)
    finally:
        os.close(state_fd)
        os.close(output_fd)


def _begin(hook: Config, state_fd: int, output_fd: int) -> int:
    """The pid of the hook's process, a group of its own. Raises OSError where it cannot be executed."""
    environment = dict(entry.split("=", 1) for entry in hook.get("env") or () if "=" in entry)
    return os.posix_spawn(
        hook["path"],
        hook.get("args") or [hook["path"]],
        environment,
        setpgroup=0,
        setsigdef=[number for number in range(1, 65) if number not in (_SIGKILL, 19, 32, 33)],
        file_actions=[(os.POSIX_SPAWN_DUP2, state_fd, 0), *((os.POSIX_SPAWN_DUP2, output_fd, n) for n in (1, 2))],
    )


def _wait(pid: int, timeout: int | None) -> int:
    """The status of the process; killed after *timeout* seconds."""
    if timeout:
        pidfd = processes.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        ended = poll.poll(min(timeout, 10**6) * 1000)
        os.close(pidfd)
        if not ended:
            os.killpg(pid, _SIGKILL)
            os.waitpid(pid, 0)
            raise RootlessError(f"not done after {timeout} s")
    return os.waitpid(pid, 0)[1]
