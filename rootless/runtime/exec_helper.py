"""The process between `exec` and the program that it runs: it enters the container, and stays as the program's parent.

Started by the command (prepared.py), with a channel as descriptor 3. The first message, LAUNCH, brings descriptors:
what to run, as JSON {"pid", "started", "process", "seccomp", "cgroup", "detach"}, and the program's stdin, stdout and
stderr, or none of these for a terminal. It answers TERMINAL with the terminal's master, BEGAN, and EXITED; where the
command goes away before the program, the program gets SIGTERM, unless it runs in the background.
"""

import json
import os
import select
from contextlib import suppress
from typing import Any

from rootless.errors import RootlessError
from rootless.linux import processes
from rootless.runtime import channel, forking, joining
from rootless.runtime.cgroup_place import enter_or_tell

_SIGTERM = 15


def main() -> None:
    """The helper's entry."""
    processes.prctl(processes.PR_SET_DUMPABLE, 0)
    command = channel.adopt(3)
    kind, _, fds = channel.receive(command)
    if kind != channel.LAUNCH:
        return  # the command thought better of it
    with open(fds[0], "rb") as file:
        request = json.loads(file.read())
    try:
        pid = _begin(request, (fds[1], fds[2], fds[3]) if len(fds) > 1 else None, command)
    except RootlessError as error:
        channel.send_error(command, error)
        return
    with suppress(BrokenPipeError):  # a command that has been killed meanwhile: seen by _stay
        channel.send(command, channel.BEGAN)
    _stay(pid, command, detached=request["detach"])


def _begin(request: dict[str, Any], stdio: tuple[int, int, int] | None, command: channel.Socket) -> int:
    ours, theirs = channel.pair()
    helper = os.fork()
    if helper == 0:
        ours.close()
        container = request["pid"], request["started"]
        enter_or_tell(request["cgroup"], theirs)
        joining.join(*container, request["process"], request["seccomp"], stdio, theirs, die_with_parent=False)
    theirs.close()
    for fd in stdio or ():
        os.close(fd)  # they are the program's alone: their ends are its end
    forked = forking.await_child(helper, ours, b"", lambda text: channel.send(command, channel.WARNING, text))
    if forked.terminal_fd is not None:
        channel.send(command, channel.TERMINAL, b"", (forked.terminal_fd,))
        os.close(forked.terminal_fd)
    return forked.pid


def _stay(pid: int, command: channel.Socket, *, detached: bool) -> None:
    """Wait for the program, and for the command to go away.

    In any case to the program's end: whoever would be its parent after us may be slow to ask for its status, or never
    do so, and as long the container could not end (pid_namespaces(7)).
    """
    poll = select.poll()
    pidfd = processes.pidfd_open(pid)
    poll.register(pidfd, select.POLLIN)
    poll.register(command.fileno(), select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == pidfd:
                _, status = os.waitpid(pid, 0)
                code = os.waitstatus_to_exitcode(status)
                with suppress(BrokenPipeError):
                    channel.send(command, channel.EXITED, str(code if code >= 0 else 128 - code))
                return
            if not channel.receive(command)[0]:
                poll.unregister(command.fileno())
                if not detached:
                    with suppress(ProcessLookupError):
                        processes.pidfd_send_signal(pidfd, _SIGTERM)
