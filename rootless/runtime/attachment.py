"""A container's attachment to its networks: the connection to slirp, as its monitor keeps it.

The command that starts a container asks slirp to attach it, which reserves its addresses and binds its published ports,
and hands the connection to the monitor: the attachment lives as long as the connection is open, so that a monitor that
is killed gives all of it back. At each start of the container the monitor plugs the network namespace that it then has:

    monitor  {"op": "plug"}, descriptor ─▶ slirp    the container mounts    ◀─ {"ok": true}    GO ─▶ container

The end of the connection means that slirp has died. The repairer, a command line of the settings, starts it again and
brings a new connection. All monitors notice at once, and one repairer serves all: who gets the lock runs it.
The message of the protocol is written out here, since this room does not know `network`.
"""

import _socket
import fcntl
import json
import os
import struct
import time

from rootless import errors
from rootless.errors import RootlessError
from rootless.runtime import channel
from rootless.runtime.channel import Socket

TYPE_CHECKING = False  # as in monitor.py
if TYPE_CHECKING:
    from typing import Any

    from rootless.runtime.clients import Client
    from rootless.runtime.monitor import Monitor

_ANSWER_SECONDS = 30.0  # for slirp to put an interface into the container
_MAX_ANSWER = 1 << 17
_RETRY_SECONDS = 0.5  # until somebody else's repair is looked at again
_LONG_LIFE = 10.0  # seconds of a connection after which the next repair comes at once
_FIRST_DELAY, _MAX_DELAY = 1.0, 60.0  # else
_PLUG = b'{"op":"plug"}'
_DIED = "cannot plug the container into its networks: slirp has died"


class Lost(RootlessError):
    """slirp has just died; it may come back."""


class Attachment:
    """The attachment of one container, in the loop of its monitor."""

    __slots__ = (
        *("_asker", "_delay", "_is_repaired", "_monitor", "_netns_fd", "_pid", "_repair", "_since", "_sock", "_tried"),
    )

    def __init__(self, settings: "dict[str, Any]", connection_fd: int, monitor: "Monitor") -> None:
        """*settings* has `repair`: `argv` and `environment` of the repairer, and the path of its `lock`."""
        self._monitor = monitor
        self._repair: dict[str, Any] = settings["repair"]
        self._sock: Socket | None = None
        self._netns_fd = -1
        self._asker: Client | None = None
        self._pid = 0  # of a repairer of ours
        self._tried = False
        self._delay = 0.0  # until the next repair
        self._take(connection_fd)

    def plug(self, netns_fd: int) -> None:
        """Have slirp put the container's interfaces into its network namespace: see confirm. Takes *netns_fd*."""
        self.unplug()
        self._netns_fd = netns_fd
        if self._sock is None:
            raise RootlessError("the container's networks are gone: slirp has died, and could not be started again")
        try:
            self._send_plug(self._sock)
        except OSError as error:
            raise Lost(_DIED) from error

    def confirm(self) -> None:
        """Wait until what plug() asked for is done. Raises what slirp says, and Lost."""
        if self._sock is None:
            return
        try:
            self._sock.settimeout(_ANSWER_SECONDS)
            _check(self._sock.recv(_MAX_ANSWER))
        except TimeoutError as error:
            raise RootlessError("cannot plug the container into its networks: slirp does not answer") from error
        except OSError as error:
            raise Lost(_DIED) from error

    def unplug(self) -> None:
        """The container's network namespace is gone, or about to go."""
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1

    def close(self) -> None:
        """Give everything back: the container has ended for good."""
        self._monitor.timers.cancel("repair")
        self.unplug()
        self._drop()
        self._tried = True

    @property
    def is_missed(self) -> bool:
        """Whether there is no connection, and there may be one soon."""
        return self._sock is None and not self._tried

    def adopt(self, connection_fd: int, asker: "Client") -> None:
        """Go on with another connection; *asker* is told DONE when the container is plugged, or ERROR."""
        if self._asker:
            self._monitor.send(self._asker, channel.DONE)  # what it brought does not matter any more
            self._asker = None
        self._drop()
        self._take(connection_fd)
        if self._netns_fd < 0:
            self._monitor.send(asker, channel.DONE)
            return
        self._asker = asker
        try:
            self._send_plug(self._sock)  # type: ignore[arg-type]  # just taken
        except OSError:
            self._lose()

    def process_ended(self, pid: int) -> None:
        """A child of the monitor has ended; perhaps it was our repairer."""
        if pid and pid == self._pid:
            self._pid = 0
            self._tried = not self._is_repaired
            if self._tried:
                self._monitor.warn(
                    "the container has lost its networks: slirp has died, and could not be started again"
                )

    def _take(self, connection_fd: int) -> None:
        self._sock = channel.adopt(connection_fd)
        self._since = time.monotonic()
        self._tried, self._is_repaired = False, True
        self._monitor.timers.cancel("repair")
        self._monitor.watch(connection_fd, self._ready)

    def _drop(self) -> None:
        if self._sock is not None:
            self._monitor.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _send_plug(self, sock: Socket) -> None:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", self._netns_fd))
        sock.sendmsg([_PLUG], [rights], _socket.MSG_NOSIGNAL)

    def _ready(self, _event: int) -> None:
        """An answer that nobody waits for: to a plug after a repair. Or the end of slirp."""
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_MAX_ANSWER, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        asker, self._asker = self._asker, None
        try:
            _check(data)
        except RootlessError as error:
            if asker:
                self._monitor.send(asker, channel.ERROR, f"{type(error).__name__}\0{error}\0{error.hint}")
        else:
            if asker:
                self._monitor.send(asker, channel.DONE)

    def _lose(self) -> None:
        """slirp is gone. One that dies again and again is repaired ever more seldom."""
        self._drop()
        asker, self._asker = self._asker, None
        if asker:
            self._monitor.send(asker, channel.ERROR, "RootlessError\0slirp has died\0")
        if time.monotonic() - self._since >= _LONG_LIFE:
            self._delay = 0.0
        self._monitor.timers.set("repair", self._delay, self._begin_repair)
        self._delay = min(self._delay * 2 or _FIRST_DELAY, _MAX_DELAY)

    def _begin_repair(self) -> None:
        """Run the repairer, unless another monitor's is at it: then look again later."""
        if self._sock is not None or self._tried:
            return
        if self._pid:
            self._monitor.timers.set("repair", _RETRY_SECONDS, self._begin_repair)
            return
        try:
            lock_fd = os.open(self._repair["lock"], os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._tried = True  # the user has logged out, and the run directory is gone
            return
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._is_repaired = False
            self._pid = os.fork()
            if self._pid == 0:
                self._run_repairer(lock_fd)
        except BlockingIOError:
            self._monitor.timers.set("repair", _RETRY_SECONDS, self._begin_repair)
        finally:
            os.close(lock_fd)

    def _run_repairer(self, lock_fd: int) -> None:
        """The child, which keeps the lock by the descriptor that it inherits (flock(2)). Never returns."""
        try:
            os.set_inheritable(lock_fd, True)
            argv: list[str] = self._repair["argv"]
            os.execve(argv[0], argv, self._repair["environment"])
        finally:
            os._exit(125)


def _check(data: bytes) -> None:
    """Raise what an answer of slirp says; nothing where it is well."""
    if not data:
        raise Lost(_DIED)
    answer = json.loads(data)
    if not answer.get("ok"):
        kind = getattr(errors, str(answer.get("kind")), RootlessError)
        raise kind(str(answer.get("error")), hint=str(answer.get("hint") or ""))
