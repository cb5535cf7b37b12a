"""The spare process: forks STACK when HUB says so, also the second time, when HUB itself could not any more.

HUB has many modules by then, secrets of its trade, and a filter that refuses new processes. The spare is as the program
was at its start: next to nothing in memory, no descriptor but its channel. On that, HUB says

    start   with two descriptors: STACK's channel to HUB, and a pipe for its standard error
    kill    SIGKILL to STACK

and hears `started PID` and `ended STATUS` (as waitpid(2) gives it). Everything hangs on HUB: at the end of the channel
the spare kills STACK and leaves, and STACK dies with the spare, whatever it is doing (PR_SET_PDEATHSIG).
"""

import array
import os
import select
import socket

_KILL = 9
_RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def serve(channel: socket.socket) -> None:
    """Until HUB's end of *channel* is closed."""
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1):
        os.dup2(null_fd, fd)
    if null_fd > 2:
        os.close(null_fd)
    pid, pidfd = 0, -1
    while True:
        if pidfd in _readable([channel.fileno(), pidfd]):
            _, status = os.waitpid(pid, 0)
            os.close(pidfd)
            pid, pidfd = 0, -1
            _say(channel, f"ended {status}")
            continue
        word, fds = _receive(channel)
        if word == b"start" and not pid and len(fds) == 2:
            pid = _fork(channel, fds)
            pidfd = os.pidfd_open(pid)
            _say(channel, f"started {pid}")
        elif pid and word in (b"kill", b""):
            os.kill(pid, _KILL)
        for fd in fds:
            os.close(fd)
        if not word:
            break
    if pid:
        os.waitpid(pid, 0)


def _readable(fds: list[int]) -> list[int]:
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll()]


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    try:
        data, ancillary, _, _ = channel.recvmsg(64, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return b"", []
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if (level, kind) == _RIGHTS:
            fds.frombytes(rights)
    return data, list(fds)


def _say(channel: socket.socket, text: str) -> None:
    try:
        channel.send(text.encode(), socket.MSG_NOSIGNAL)
    except OSError:
        pass  # HUB is gone, which the next receive tells


def _fork(channel: socket.socket, fds: list[int]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        channel.close()
        _become_stack(parent, *fds)
    finally:
        os._exit(1)


def _become_stack(parent: int, channel_fd: int, error_fd: int) -> None:
    """Only here are STACK's modules loaded: the spare stays small."""
    os.dup2(error_fd, 2)
    os.close(error_fd)
    try:
        from slirp import sandbox, stack

        sandbox.die_with_parent(parent)
        stack.main(socket.socket(fileno=channel_fd))
    except BaseException:
        import traceback  # the process ends here; and it does not get this far where all is well

        traceback.print_exc()
