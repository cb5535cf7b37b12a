"""Two connected sockets as one connection: splice(2) carries the bytes, Python only says from where to where.

Each direction goes source socket → pipe → sink socket, page by page without a copy. Events come by edge: each says what
has become possible, and a direction is then pumped until the kernel says EAGAIN or it has had its turn; whoever has
more to do stands behind the others. What is shorter than a page, as questions and answers are, is read and sent
instead: two system calls where splicing takes four. A pipe is borrowed while bytes are under way and given back when it
is empty, so that an idle connection costs two descriptors and nothing else. What may be lent is counted in pages, since
the kernel counts all pipes of the user together (pipe-user-pages-soft, pipe(7)). Where there is no pipe left, because
many sinks do not read, bytes are peeked at, sent, and only those that were taken are consumed: slower, but nothing is
held.

What one end does, the other sees: the end of a stream is shut down on the far side once the last byte has passed, and a
reset becomes a reset. Urgent data stays in line; splice(2) does not get past it, so from there on bytes are copied.
"""

import errno
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable

TYPE_CHECKING = False  # typing's own, without the import
if TYPE_CHECKING:
    from slirp.loop import Loop

READING = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET
BOTH = READING | select.EPOLLOUT  # for a socket that has once taken less than there was
_LAST = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR  # after which nothing more comes
_INWARD = select.EPOLLIN | select.EPOLLPRI | _LAST
_OUTWARD = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
PAGE = 4096
SMALL, LARGE = 16, 256  # slots of a pipe, each of which takes a fragment of 4 to 32 KiB from TCP
LARGE_FROM = 8 << 20  # bytes after which a direction gets a large pipe
KEPT = 64  # empty pipes of a size that stay open
CHUNK = 1 << 20  # bytes that one splice may move
TURN = 4 << 20  # bytes, or
ROUNDS = 16  # times through the pipe, before others have their turn
_PEEK = 64 << 10
_SPLICE_F_MOVE, _SPLICE_F_NONBLOCK = 1, 2
_FLAGS = _SPLICE_F_MOVE | _SPLICE_F_NONBLOCK
_F_SETPIPE_SZ = 1031
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close(2) sends a RST


class Pipe:
    """Both ends, and the number of slots."""

    __slots__ = ("read_fd", "slots", "write_fd")

    def __init__(self, slots: int) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.slots = SMALL
        if slots != SMALL:
            try:
                self.slots = fcntl.fcntl(self.write_fd, _F_SETPIPE_SZ, slots * PAGE) // PAGE
            except OSError:
                pass  # above the limit of this user: the pipe stays as it is, and works

    def close(self) -> None:
        """Close it with what is in it."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class Pipes:
    """The pipes of all relays, *pages* of them at most; half of these for large ones."""

    __slots__ = ("_free", "_large", "_pages", "_scratch", "lent")

    def __init__(self, pages: int = 8192) -> None:
        self._pages = pages
        self._large = pages // 2
        self._free: dict[bool, list[Pipe]] = {False: [], True: []}
        self.lent = 0  # pages
        self._scratch = memoryview(bytearray(_PEEK))

    def take(self, large: bool) -> Pipe | None:
        """An empty pipe; a large one if wanted and there is room; None where all are out, or descriptors are."""
        large = large and self.lent + LARGE <= self._large
        if self.lent + SMALL > self._pages:
            return None
        free = self._free[large]
        try:
            pipe = free.pop() if free else Pipe(LARGE if large else SMALL)
        except OSError:
            return None
        self.lent += pipe.slots
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool = True) -> None:
        """Take it back; what is in it is thrown away."""
        self.lent -= pipe.slots
        free = self._free[pipe.slots > SMALL]
        if empty and len(free) * pipe.slots < KEPT * SMALL:
            free.append(pipe)
        else:
            pipe.close()

    def scratch(self) -> memoryview:
        """A buffer for those who have no pipe."""
        return self._scratch


def available_pages(default: int = 16384) -> int:
    """Half of the pages that the kernel lets this user have in pipes."""
    try:
        with open("/proc/sys/fs/pipe-user-pages-soft") as file:
            limit = int(file.read())
    except (OSError, ValueError):
        limit = default
    return (limit or default) // 2  # 0 is no limit


class Direction:
    """One way through a relay."""

    __slots__ = (
        *("armed", "brief", "copied", "ended", "ending", "held", "moved", "over", "pipe", "readable", "rest"),
        *("shut", "sink", "source", "to", "writable"),
    )

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source.fileno()
        self.sink = sink.fileno()
        self.to = sink
        self.pipe: Pipe | None = None
        self.held = 0  # bytes in the pipe
        self.brief = True  # what there was last was short
        self.rest = b""  # of that, what the sink did not take; a page at most
        self.moved = 0  # bytes that the sink has taken
        self.readable = False
        self.writable = True
        self.armed = False  # its edges of becoming writable are heard of
        self.ending = False  # the source will say no more than it has
        self.ended = False  # for it has said so, by its last byte
        self.over = False  # and that has been read
        self.shut = False  # and the sink knows
        self.copied = False  # there has been urgent data


class Relay:
    """*inner*, on the container's side, and *outer*, on the host's: both connected, non-blocking, and ours from now on.

    *on_end* is called once, when both are closed.
    """

    __slots__ = ("_again", "_in", "_leaving", "_loop", "_on_end", "_out", "_pipes", "inner", "outer")

    def __init__(
        self,
        loop: "Loop",
        inner: socket.socket,
        outer: socket.socket,
        on_end: "Callable[[Relay], None]",
        pipes: Pipes,
    ) -> None:
        self._loop = loop
        self.inner = inner
        self.outer = outer
        self._on_end: Callable[[Relay], None] | None = on_end
        self._pipes = pipes
        self._out = Direction(inner, outer)
        self._in = Direction(outer, inner)
        self._again = False
        self._leaving = False
        loop.watch(self._out.source, READING, self._inner_event)
        loop.watch(self._in.source, READING, self._outer_event)

    @property
    def sent(self) -> int:
        """Bytes from the container."""
        return self._out.moved

    @property
    def received(self) -> int:
        """Bytes to the container."""
        return self._in.moved

    @property
    def state(self) -> str:
        """As netstat(8) would say it of the two ends together."""
        if not (self._out.over or self._in.over):
            return "established"
        return "closing" if self._out.over and self._in.over else "half-closed"

    def close(self) -> None:
        """Close both ends; what the kernel has taken is still delivered."""
        self._finish(reset_inner=False, reset_outer=False)

    def abort(self) -> None:
        """Reset both ends."""
        self._finish(reset_inner=True, reset_outer=True)

    def _inner_event(self, events: int) -> None:
        self._event(events, self._out, self._in, self.inner)

    def _outer_event(self, events: int) -> None:
        self._event(events, self._in, self._out, self.outer)

    def _event(self, events: int, reads: Direction, writes: Direction, sock: socket.socket) -> None:
        if events & _INWARD:
            reads.readable = True
            if events & select.EPOLLPRI:
                reads.copied, reads.brief = True, False
            if events & _LAST:
                reads.ending = True
                reads.ended |= not events & select.EPOLLERR  # a reset is an error, and shuts down as well
                if events & select.EPOLLERR and reads.over and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.abort()  # nobody reads there any more who would be told
                    return
        if events & _OUTWARD:
            writes.writable = True
        self._pump()

    def _pump(self) -> None:
        try:
            more = False
            for way in (self._out, self._in):
                if way.held or way.rest or (way.readable and not way.over):
                    more |= self._move(way)
        except OSError as error:
            if error.errno not in _ENDS:
                self.abort()
                raise
            self.abort()
            return
        if self._out.shut and self._in.shut:
            if not self._leaving:
                self._leaving = True
                self._loop.sometime(self.close)  # a client's next connection is more urgent
        elif more and not self._again:
            self._again = True
            self._loop.later(0, self._next_turn)

    def _next_turn(self) -> None:
        self._again = False
        if self._on_end is not None:
            self._pump()

    def _move(self, way: Direction) -> bool:
        """Move what can be moved; whether there may be more than its turn allows. Raises OSError: the end of it."""
        if (way.rest or (way.brief and not way.held)) and not self._move_briefly(way):
            return False
        if not way.held and (not way.readable or way.over):
            return False
        if way.pipe is None:
            if not way.copied:
                way.pipe = self._pipes.take(way.moved > LARGE_FROM)
            if way.pipe is None:
                return self._copy(way)
        limit = way.moved + PAGE
        more = self._splice(way, way.pipe)
        if not way.held:
            self._pipes.give_back(way.pipe)
            way.pipe = None
            way.brief = way.moved < limit and not way.copied
            if way.over and not way.shut:
                self._shut(way)
        return more

    def _move_briefly(self, way: Direction) -> bool:
        """By read(2) and send(2), which is cheaper for what is short; whether there is more than that."""
        while way.writable and (way.rest or (way.brief and way.readable and not way.over)):
            data = way.rest or self._read(way)
            if data:
                taken = self._send(way, data)
                way.moved += taken
                way.rest = data[taken:]
        if way.over and not way.rest and not way.shut:
            self._shut(way)
        return not (way.brief or way.rest)

    def _read(self, way: Direction) -> bytes:
        try:
            data = os.read(way.source, PAGE)
        except BlockingIOError:
            way.readable = False
            return b""
        way.brief = len(data) < PAGE
        if not data:
            way.over = True
        elif way.brief:
            # That was all: what comes later is an edge again (epoll(7)), also where urgent data has stopped us. After
            # the event that told of the end, nothing comes later. An error is found only by another read.
            way.over = way.ended
            way.readable = way.ending
        return data

    def _send(self, way: Direction, data: bytes) -> int:
        try:
            taken = way.to.send(data, socket.MSG_MORE if way.over else 0)  # the end travels with the last bytes
        except BlockingIOError:
            taken = 0
        if taken < len(data):
            self._full(way)
        return taken

    def _full(self, way: Direction) -> None:
        """The sink takes no more: hear of it when it does."""
        way.writable = False
        if not way.armed:
            way.armed = True
            handler = self._outer_event if way is self._out else self._inner_event
            self._loop.watch(way.sink, BOTH, handler)  # an edge at once, if it does by now

    def _splice(self, way: Direction, pipe: Pipe) -> bool:
        limit = way.moved + TURN
        for _ in range(ROUNDS):
            if not way.held:
                if not way.readable or way.over or way.moved > limit:
                    return way.readable and not way.over
                try:
                    way.held = os.splice(way.source, pipe.write_fd, CHUNK, flags=_FLAGS)
                except BlockingIOError:
                    way.readable = False
                    return False
                if not way.held:
                    # The end, or urgent data in front of it. Which, its event tells, where that is still to come.
                    way.over = way.ending
                    way.readable = False
                    return False
            if not way.writable:
                return False
            try:
                taken = os.splice(pipe.read_fd, way.sink, way.held, flags=_FLAGS)
            except BlockingIOError:
                self._full(way)
                return False
            way.held -= taken
            way.moved += taken
        return True

    def _copy(self, way: Direction) -> bool:
        """As _splice, without a pipe."""
        source, sink = (self.inner, self.outer) if way is self._out else (self.outer, self.inner)
        room = self._pipes.scratch()
        for _ in range(ROUNDS):
            if not way.writable:
                return False
            try:
                length = source.recv_into(room, 0, socket.MSG_PEEK)
            except BlockingIOError:
                way.readable = False
                return False
            if not length:
                way.over = True
                self._shut(way)
                return False
            try:
                taken = sink.send(room[:length])
            except BlockingIOError:
                self._full(way)
                return False
            source.recv_into(room, taken)
            way.moved += taken
        return True

    def _shut(self, way: Direction) -> None:
        way.shut = True
        if self._out.shut and self._in.shut:  # it has nothing more to say either: close(2) tells it the same
            self._loop.unwatch(way.sink)
            way.to.close()
        else:
            way.to.shutdown(socket.SHUT_WR)

    def _finish(self, *, reset_inner: bool, reset_outer: bool) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        for way in (self._out, self._in):
            if way.pipe is not None:
                self._pipes.give_back(way.pipe, empty=not way.held)
                way.pipe = None
        for sock, reset in ((self.inner, reset_inner), (self.outer, reset_outer)):
            self._loop.unwatch(sock.fileno())
            close(sock, reset=reset)
        on_end(self)


# What ends a connection by somebody's doing, here or far away.
_ENDS = frozenset(
    (
        *(errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH),
        *(errno.ENOTCONN, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.ENETDOWN, errno.EPERM, errno.EACCES),
        *(errno.EPROTO, errno.ENETRESET, errno.ESHUTDOWN, errno.ENOBUFS, errno.ENOMEM),
    )
)


def close(sock: socket.socket, *, reset: bool) -> None:
    """Close a TCP socket; with *reset*, its peer gets a RST at once."""
    if reset:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            pass  # not connected any more: there is nobody to tell
    sock.close()


def prepare(sock: socket.socket) -> None:
    """Options of a relayed socket. A listener hands them to those that it accepts (inherited, tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the sender has put it together as it wants it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds out about a peer that is gone without a word
