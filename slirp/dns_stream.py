"""A client of the gateway's DNS that came by TCP: messages after their length (RFC 1035, 4.2.2), many in a row.

Questions are answered in the order in which the answers come (RFC 7766, 6.2.1.1). Who asks faster than it reads, or
than answers come, is not read from for that long; who is silent, or does not finish a message, is hung up on.
"""

import select
import socket
from collections.abc import Callable

from slirp.loop import Loop, Timer

IDLE_SECONDS = 10.0
_MAX_PIPELINED = 32  # questions without an answer
_MAX_UNSENT = 256 << 10  # bytes

Reply = Callable[[bytes], None]


class Stream:
    """One connection; *ask* gets each message and what to answer it with, *ended* is called once, at the end."""

    __slots__ = (
        "_ask",
        "_deadline",
        "_end_seen",
        "_ended",
        "_loop",
        "_pending",
        "_received",
        "_timer",
        "_unsent",
        "socket",
    )

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        ask: Callable[[bytes, Reply], None],
        ended: "Callable[[Stream], None]",
    ) -> None:
        self.socket = connection
        self._loop, self._ask, self._ended = loop, ask, ended
        self._received, self._unsent = bytearray(), bytearray()
        self._pending = 0
        self._end_seen = False
        self._deadline = 0.0
        self._timer: Timer | None = None
        self._touch()
        self._look_out()
        self._watch_clock()

    def close(self) -> None:
        """Hang up."""
        if self.socket.fileno() < 0:
            return
        if self._timer:
            self._timer.cancel()
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()
        self._ended(self)

    def _touch(self) -> None:
        self._deadline = self._loop.now() + IDLE_SECONDS

    def _watch_clock(self) -> None:
        left = self._deadline - self._loop.now()
        if left > 0 or self._pending:
            self._timer = self._loop.later(max(left, 1.0), self._watch_clock)
        else:
            self.close()

    def _look_out(self) -> None:
        """Be told of what can be done."""
        if self._end_seen and not self._pending and not self._unsent:
            self.close()
            return
        reads = select.EPOLLIN if self._has_room() and not self._end_seen else 0
        writes = select.EPOLLOUT if self._unsent else 0
        self._loop.watch(self.socket.fileno(), reads | writes, self._ready)

    def _has_room(self) -> bool:
        return self._pending < _MAX_PIPELINED and len(self._unsent) < _MAX_UNSENT

    def _ready(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
            return
        try:
            if events & select.EPOLLOUT:
                self._send()
            if events & select.EPOLLIN:
                self._receive()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._take_messages()

    def _send(self) -> None:
        sent = self.socket.send(self._unsent)
        del self._unsent[:sent]
        self._touch()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        self._received += data
        self._end_seen = not data

    def _take_messages(self) -> None:
        """Ask what has come whole."""
        while self._has_room() and len(self._received) >= 2:
            end = 2 + int.from_bytes(self._received[:2], "big")
            if len(self._received) < end:
                break
            message = bytes(self._received[2:end])
            del self._received[:end]
            self._pending += 1
            self._touch()
            self._ask(message, self._replier())
        if self.socket.fileno() >= 0:
            self._look_out()

    def _replier(self) -> Reply:
        def reply(message: bytes) -> None:
            """Send it, or hang up where there is none."""
            if self.socket.fileno() < 0:
                return
            if self._pending == _MAX_PIPELINED and self._received:  # perhaps a whole message had to wait for this
                self._loop.later(0, self._go_on)
            self._pending -= 1
            if not message:
                self.close()
                return
            self._unsent.extend(len(message).to_bytes(2, "big") + message)
            self._touch()
            self._look_out()

        return reply

    def _go_on(self) -> None:
        if self.socket.fileno() >= 0:
            self._take_messages()
