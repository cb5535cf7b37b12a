"""The fork that becomes a container's first process, or makes it: forked early, so that it is ready when it is needed.

The monitor forks it before anything else. It loads what mounting and JSON take, which the monitor then does without for
the rest of its life, and waits for a bundle. Of no further use to the monitor after that; for the next start of the
container there is another one.
"""

import os

from rootless.linux import namespaces, processes
from rootless.runtime import channel
from rootless.runtime.channel import Socket

TYPE_CHECKING = False  # without loading `typing`
if TYPE_CHECKING:
    from rootless.runtime.extras import Extras
    from rootless.runtime.seccomp import Filter
    from rootless.spec.runtime import Config

_CLONE_PARENT = 0x8000


class Launcher:
    """A launcher that waits, from the side of the monitor."""

    __slots__ = ("channel", "pid")

    def __init__(
        self, filtered: "Filter | None" = None, config: "Config | None" = None, extra: "Extras | None" = None
    ) -> None:
        """*filtered* and *config* are those of the bundle that will come, where they are known already."""
        self.channel, theirs = channel.pair()
        self.pid = os.fork()
        if self.pid == 0:
            self.channel.close()
            _wait_for_bundle(theirs, filtered, config, extra)
        theirs.close()

    def launch(self, bundle: str, stdio: tuple[int, int, int] | None, gate_fd: int | None = None) -> None:
        """Have it make the container of *bundle*: see container.py for what it says from then on, init.py for gates."""
        gate = () if gate_fd is None else (gate_fd,)
        channel.send(self.channel, channel.LAUNCH, bundle, (*(stdio or ()), *gate))


def _only(sock: Socket, kept: tuple[int, ...]) -> Socket:
    """*sock*, and no other descriptor above 2: the owner of the monitor must see its channel end with the monitor.

    *kept* are 3 and those after it, to be handed on.
    """
    last = 3 + len(kept)
    if sock.fileno() != last:
        os.dup2(sock.detach(), last)
        sock = channel.adopt(last)
    processes.close_from(last + 1)
    return sock


def _wait_for_bundle(
    to_parent: Socket, filtered: "Filter | None", config: "Config | None", extra: "Extras | None"
) -> None:
    """The child. Never returns."""
    try:
        to_parent = _only(to_parent, extra.preserved if extra else ())
        # Here, and not at the top: in this process only.
        import json

        from rootless.runtime import extras, init, nested, seccomp

        kind, bundle, fds = channel.receive(to_parent)
        if kind != channel.LAUNCH:
            os._exit(0)
        # None, or three for stdio; one more, or one alone, is the gate.
        stdio = (fds[0], fds[1], fds[2]) if len(fds) >= 3 else None
        gate_fd = fds[-1] if len(fds) in (1, 4) else None
        directory = os.fsdecode(bundle)
        if config is None:
            with open(os.path.join(directory, "config.json"), "rb") as file:
                config = json.loads(file.read())
        filtered = filtered or seccomp.prepare(config["linux"].get("seccomp"))
        for path, flag in init.joined_namespaces(config):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, flag)
            os.close(fd)
        # A sibling of this process, so that the monitor is its parent, and can wait for it.
        flags = init.clone_flags(config)
        if flags & namespaces.CLONE_NEWUSER:
            nested.enter(config["linux"], stdio or ())
            flags &= ~namespaces.CLONE_NEWUSER
        pid = namespaces.clone(flags | _CLONE_PARENT)
        if pid == 0:
            init.run(config, directory, stdio, to_parent, gate_fd, filtered, extra or extras.NONE)
        channel.send(to_parent, channel.FORKED, str(pid))
        os._exit(0)
    except BaseException as error:
        channel.send_error(to_parent, error)
    finally:
        os._exit(125)
