"""`python -m fuse`: see --help."""

import os
import sys

from fuse import server, supervisor
from fuse.checks import shown
from fuse.command import Command, parse_command
from fuse.errors import UnionError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run, and exit."""
    sys.exit(_status(sys.argv[1:]))


def _status(arguments: list[str]) -> int:
    try:
        command = parse_command(arguments)
        if isinstance(command, str):
            sys.stdout.write(command)
            return 0
        _check_descriptors(command)
        if command.options.ignored:
            sys.stderr.write(f"fuse: without effect here: {shown(b', '.join(command.options.ignored))}\n")
        return _run(command, lambda: None) if command.foreground else _in_background(command)
    except UnionError as error:
        return server.failed(error)


def _check_descriptors(command: Command) -> None:
    given = (("--ready-fd", command.ready_fd), ("--exit-fd", command.exit_fd), ("/dev/fd/N:", command.mounted_fd))
    for name, fd in given:
        if fd < 0:
            continue
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise UnionError(f"{name} {fd}: {error.strerror}", hint="it has to be open, and inherited") from error


def _run(command: Command, ready: "Callable[[], None]") -> int:
    try:
        return abs(supervisor.run(command, lambda: _ready(command, ready)))
    except OSError as error:
        raise UnionError(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)) from error


def _ready(command: Command, then: "Callable[[], None]") -> None:
    if command.ready_fd >= 0:
        try:
            os.write(command.ready_fd, b"ready\n")
        except BrokenPipeError:
            pass  # whoever wanted to know has left
        os.close(command.ready_fd)
    then()


def _in_background(command: Command) -> int:
    """Go on in a child; return when it can be used, or has failed and said so: the exit status."""
    told_fd, tell_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told_fd)
        os.setsid()
        try:
            status = _run(command, lambda: _detach(tell_fd))
        except UnionError as error:
            status = server.failed(error)
        os._exit(status)
    os.close(tell_fd)
    if os.read(told_fd, 1):
        return 0
    return abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) or 1


def _detach(tell_fd: int) -> None:
    server.be_silent()
    os.write(tell_fd, b".")
    os.close(tell_fd)


if __name__ == "__main__":
    main()
