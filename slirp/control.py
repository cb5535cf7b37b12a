"""The control socket: who may speak to HUB, one request at a time on each connection, and no client that holds it up.

    lock file   PATH.held, flock(2) held for life: who has it is the one; a lock dies with its holder
    socket      PATH, mode 0600, replaced where a dead process left one; SO_PEERCRED must be the same user
    request     one message (channel.py), answered before the next of that connection is read
    answer      {"ok": true, …}, or {"ok": false, "kind", "error", "hint"}; long ones in parts with "more": true

A client that does not take its answers is not read from either, and after a while it is dropped. Until STACK is there,
requests are worked off, and their answers held: so the two get ready side by side, and nobody is told that all is well
before it is.
"""

import errno
import fcntl
import os
import select
import socket
import struct
from collections import deque

from slirp import channel
from slirp.errors import Conflict, InvalidInput, SlirpError

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from slirp.loop import Loop, Timer

_MOST_CONNECTIONS = 4096  # an attachment is one
_PATIENCE = 20.0  # seconds for a client that does not take its answer
_IDLE = 120.0  # seconds for one that asks for nothing and has nothing attached
_PART = 96 << 10  # bytes of a part of a long answer, about
_PAUSE = 0.2  # seconds
_MOST_PARTS = 256  # that wait for a client to take them
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Connection:
    """A client. *attachment* is what it holds, the hub's; *closed* tells that it is gone."""

    __slots__ = ("_active", "_loop", "_out", "_server", "_timer", "asking", "attachment", "closed", "sock")

    def __init__(self, loop: "Loop", server: "Server", sock: socket.socket) -> None:
        self._loop, self._server, self.sock = loop, server, sock
        self._out: deque[bytes] = deque()
        self._active = loop.now()
        self._timer: Timer | None = None
        self._watch_over()
        self.asking = False  # a request has not been answered yet
        self.attachment: Any = None
        self.closed = False
        self._listen()

    def _listen(self) -> None:
        self._loop.watch(self.sock.fileno(), select.EPOLLIN, self._ready)

    def _watch_over(self) -> None:
        """Look after it from time to time. Where something is attached, only while it does not take an answer."""
        if self._timer is None:
            self._timer = self._loop.later(_PATIENCE, self._look)

    def _look(self) -> None:
        """Drop it where nothing moves: an attachment may be as silent as it likes, and a request may take its time."""
        self._timer = None
        silent = self._loop.now() - self._active
        idle = self.attachment is None and not self.asking and silent >= _IDLE
        if idle or (self._out and silent >= _PATIENCE):
            self.close()
        elif self._out or self.attachment is None:
            self._watch_over()

    def _ready(self, events: int) -> None:
        self._active = self._loop.now()
        if events & select.EPOLLOUT:
            self._send_on()
        elif self.asking or not events & select.EPOLLIN:  # it has hung up
            self.close()
        else:
            self._read()

    def _read(self) -> None:
        try:
            message, fds = channel.receive(self.sock)
        except channel.Malformed as error:
            self.asking = True
            self.fail(InvalidInput(f"not a request: {error}"))
            return
        except BlockingIOError:
            return
        except OSError:
            message, fds = None, []
        if message is None:
            self.close()
            return
        self.asking = True
        self._loop.watch(self.sock.fileno(), 0, self._ready)  # not before the answer; EPOLLHUP comes all the same
        try:
            self._server.handle(self, message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def answer(self, **fields: "Any") -> None:
        """The answer to its request."""
        self.answer_parts([fields])

    def answer_parts(self, parts: "Iterable[dict[str, Any]]") -> None:
        """The answer, as several messages."""
        told = list(parts) or [{}]
        for number, fields in enumerate(told):
            more = {"more": True} if number + 1 < len(told) else {}
            self._out.append(channel.encoded({"ok": True, **fields, **more}))
        self._answered()

    def part(self, **fields: "Any") -> None:
        """The first or a middle part of an answer; who takes none of very many is dropped."""
        if len(self._out) > _MOST_PARTS:
            self.close()
            return
        self._out.append(channel.encoded({"ok": True, **fields, "more": True}))
        self._send_on()

    def fail(self, error: SlirpError) -> None:
        """The answer that it cannot be done."""
        told = {"ok": False, "kind": error.kind, "error": _one_line(str(error)), "hint": _one_line(error.hint)}
        self._out.append(channel.encoded(told))
        self._answered()

    def _answered(self) -> None:
        self.asking = False
        self._send_on()

    def _send_on(self) -> None:
        if self._server.holds:
            return
        while self._out and not self.closed:
            try:
                self.sock.send(self._out[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._loop.watch(self.sock.fileno(), select.EPOLLOUT, self._ready)
                self._watch_over()
                return
            except OSError:
                self.close()
                return
            self._out.popleft()
        if not self.closed and not self.asking:
            self._listen()

    def release(self, error: SlirpError | None) -> None:
        """Send the answer that was held; or, instead, that *error* is all that came of it."""
        if error and (self._out or self.asking):
            self._out.clear()
            self.fail(error)
        elif self._out:
            self._send_on()

    def close(self) -> None:
        """It is gone, and with it what it held."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self.sock.fileno())
        self.sock.close()
        self._server.lost(self)


class Server:
    """The listening socket and its connections; *handle* gets each request, *gone* each connection that has ended."""

    __slots__ = ("_gone", "_handle", "_listener", "_lock_fd", "_loop", "_path", "connections", "holds")

    def __init__(self, path: str) -> None:
        """Take the place at *path*. Raises Conflict where another process has it, SlirpError."""
        self._path = path
        self._loop: Loop | None = None
        self.holds = False  # answers; see release()
        self.connections: set[Connection] = set()
        self._lock_fd = _locked(path)
        try:
            self._listener = _listening(path)
        except OSError as error:
            os.unlink(_lock_path(path))
            os.close(self._lock_fd)
            raise SlirpError(f"cannot listen at {path}: {error.strerror or error}") from error

    def serve(
        self,
        loop: "Loop",
        handle: "Callable[[Connection, dict[str, Any], list[int]], None]",
        gone: "Callable[[Connection], None]",
    ) -> None:
        """Begin to accept."""
        self._loop, self._handle, self._gone = loop, handle, gone
        self._watch(loop)

    def release(self, error: SlirpError | None = None) -> None:
        """Hold answers no longer, where they were held; with *error*, that is the answer to what was asked so far."""
        if self.holds:
            self.holds = False
            for connection in list(self.connections):
                connection.release(error)

    def _watch(self, loop: "Loop") -> None:
        if self._lock_fd >= 0:
            loop.watch(self._listener.fileno(), select.EPOLLIN, lambda events: self._accept(loop))

    def _pause(self, loop: "Loop") -> None:
        """There are no descriptors left: those who wait are not looked at for a moment."""
        loop.unwatch(self._listener.fileno())
        loop.later(_PAUSE, lambda: self._watch(loop))

    def accept(self) -> None:
        """Everybody who waits, and may."""
        if self._loop is not None:
            self._accept(self._loop)

    def _accept(self, loop: "Loop") -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                self._pause(loop)
                return
            sock.setblocking(False)
            if _uid_of_peer(sock) != os.geteuid() or len(self.connections) >= _MOST_CONNECTIONS:
                sock.close()
                continue
            self.connections.add(Connection(loop, self, sock))

    def handle(self, connection: Connection, message: "dict[str, Any]", fds: list[int]) -> None:
        """Have a request handled; *fds* are closed afterwards. A bug is told to the client, too, and logged."""
        try:
            self._handle(connection, message, fds)
        except SlirpError as error:
            connection.fail(error)
        except Exception as error:
            if not connection.closed:
                connection.fail(SlirpError(f"slirp failed: {type(error).__name__}: {error}"))
            raise

    def lost(self, connection: Connection) -> None:
        """It has been closed."""
        self.connections.discard(connection)
        self._gone(connection)

    def close(self) -> None:
        """Listen no more; the socket is gone from its directory before another process can take the place."""
        if self._lock_fd < 0:
            return  # since then it may be another's
        if self._loop is not None:
            self._loop.unwatch(self._listener.fileno())
        for path in (self._path, _lock_path(self._path)):
            try:
                os.unlink(path)
            except OSError:
                pass  # somebody has cleaned up already
        self._listener.close()
        os.close(self._lock_fd)
        self._lock_fd = -1


def parts(rows: "list[Any]") -> "list[list[Any]]":
    """*rows* in groups that fit a message each."""
    groups: list[list[Any]] = [[]]
    size = 0
    for row in rows:
        length = len(channel.encoded({"row": row}))
        if groups[-1] and size + length > _PART:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += length
    return groups


def _lock_path(path: str) -> str:
    return f"{path}.held"


def _locked(path: str) -> int:
    """The lock, of a file that is still the one at its place: the holder before us may just have removed it."""
    while True:
        fd = _open_lock(_lock_path(path))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise Conflict(f"another slirp serves {path}") from error
        try:
            if os.path.samestat(os.fstat(fd), os.stat(_lock_path(path))):
                return fd
        except FileNotFoundError:
            pass  # removed, and the next one makes another
        os.close(fd)


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SlirpError(f"cannot open {path}: {error.strerror}") from error


def _listening(path: str) -> socket.socket:
    try:
        os.unlink(path)  # whoever has the lock is the only one who may listen here
    except FileNotFoundError:
        pass
    directory, name = os.path.split(path)
    directory_fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        mask = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{directory_fd}/{name}")  # an address is shorter than a path may be: unix(7)
        finally:
            os.umask(mask)
        sock.listen(512)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory_fd)
    return sock


def _uid_of_peer(sock: socket.socket) -> int:
    """As the user namespace shows it: another user of the machine is no id that anybody of ours has."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])


def _one_line(text: str) -> str:
    return " ".join(text.split())[:4000]
