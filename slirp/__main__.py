"""`python -m slirp`: see --help.

Two processes come out of one, by way of a third: the spare is forked while next to nothing is in memory, and forks
STACK at once, which loads its modules while HUB loads its own on another processor. What is loaded is no garbage, and
to look for some meanwhile would take a fifth of the time: the collector is off until each of them has what it needs.
"""

# ruff: noqa: E402  # gc.disable() stands between the imports

import gc

gc.disable()

import os
import resource
import socket
import sys

from slirp import channel as channel  # not for here: both will need it, and so it is loaded once
from slirp import loop as loop  # likewise
from slirp import options, spare, syscalls
from slirp import sandbox as sandbox  # likewise
from slirp.errors import SlirpError


def main() -> None:
    """Run, and exit."""
    sys.exit(_status())


def _status() -> int:
    try:
        asked = options.parse(sys.argv[1:])
    except options.Misused as error:
        return _failed(f"{error} (--help tells more)", 2)
    if asked is None:
        sys.stdout.write(options.HELP)
        return 0
    try:
        return _run(asked)
    except SlirpError as error:
        return _failed(f"{error}; {error.hint}" if error.hint else str(error))
    except ImportError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error))


def _failed(why: str, status: int = 1) -> int:
    sys.stderr.write(f"slirp: {why}\n")
    return status


def _run(asked: options.Options) -> int:
    _detach()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_spare(ours, theirs, asked)
    theirs.close()
    try:
        return _be_hub(asked, ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _detach() -> None:
    """A process of its own, that holds no directory, shows its memory to nobody, and may have many descriptors."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        pass  # a standard descriptor that was missing would be the number of some socket
    os.close(fd)
    try:
        os.setsid()
    except PermissionError:
        pass  # it leads its session already
    os.chdir("/")
    os.umask(0o077)


def _be_spare(ours: socket.socket, theirs: socket.socket, asked: options.Options) -> None:
    """Never returns."""
    try:
        syscalls.prctl(syscalls.PR_SET_NAME, b"slirp-spare")
        ours.close()
        for fd in (asked.ready_fd, asked.exit_fd):
            if fd >= 0:
                os.close(fd)
        spare.serve(theirs)
    finally:
        os._exit(0)


def _be_hub(asked: options.Options, spare_channel: socket.socket) -> int:
    # Not before the fork: the spare needs none of it.
    from slirp import control, pyroute2_parts, supervision
    from slirp.log import Log

    for fd in (asked.ready_fd, asked.exit_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)
    server = control.Server(asked.socket)
    try:
        ordered = supervision.order(spare_channel)
        pyroute2_parts.prepare()
        from slirp import hub  # loads pyroute2, while STACK loads what it needs

        gc.freeze()  # never garbage: the collector need not look at it again
        gc.enable()
        return hub.serve(asked, Log(asked.log), server, spare_channel, ordered)
    finally:
        server.close()


if __name__ == "__main__":
    main()
