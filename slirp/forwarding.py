"""Questions that the host's resolvers answer: each asked from a socket of its own, until one of them answers.

    client's question ──▶ Exchange ──▶ Attempt (server 1) ──▶ Attempt (server 2) ──▶ … ──▶ answer, or None

An answer counts if it comes from the server asked (the socket is connected), to the port that the kernel chose at
random for this attempt, with its random id, and answers the same question: whoever wants to be taken for the server has
to guess about 30 bits within the attempt's seconds, and after some wrong guesses the attempt ends and another begins
with another port. Nothing is kept of an answer, so none can poison what another container gets.

A question that came by TCP is asked by TCP; where no server answers by that, by UDP. An answer cut off is passed
on as it is: the client asks again by TCP. A server that fails (SERVFAIL, REFUSED, NOTIMP, silence) is followed by the
next; what all of them failed with is the answer then. One that was silent where another answered is asked last for a
while.
"""

import os
import select
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from slirp.loop import Loop, Timer
from slirp.wire.dns import NOTIMP, REFUSED, SERVFAIL, Answer, Query, parse_answer

MAX_EXCHANGES = 1024  # at a time
MAX_PER_CONTAINER = 256
MAX_SERVERS = 3  # as resolv.conf(5)
_UDP_ROUNDS = (2.0, 4.0)  # how often, and how long each time, a server is asked by UDP: seconds
_TCP_ROUNDS = (4.0,)
_ALL_SECONDS = 12.0  # clients give up before that
_SILENT_SECONDS = 30.0  # how long a server is asked last
_MAX_WRONG = 64  # answers that are none, to one attempt
_READS = 16  # at a time
_FAILED = (SERVFAIL, REFUSED, NOTIMP)

Done = Callable[[bytes | None, Answer | None], None]


class Server(NamedTuple):
    """A resolver: its address, as text, and what makes a socket that reaches it (stream or not)."""

    address: str
    open: Callable[[bool], socket.socket | None]


class Question(NamedTuple):
    """What a client asks: the message as it came, and the question in it; *container* is whose limit it counts for."""

    container: str
    network: str
    message: bytes
    query: Query
    stream: bool


class Forwarder:
    """All exchanges that are under way."""

    def __init__(self, loop: Loop, *, port: int = 53) -> None:
        self.loop, self.port = loop, port
        self._exchanges: dict[Exchange, None] = {}
        self._of: dict[str, int] = {}
        self._silent: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def ask(self, question: Question, servers: Callable[[], list[Server]], done: Done) -> bool:
        """Ask *servers*, call *done* with the answer (its id is the asker's) or None. False: there is no room."""
        if self._of.get(question.container, 0) >= MAX_PER_CONTAINER:
            return False
        if len(self._exchanges) >= MAX_EXCHANGES:
            self._give_way()
        exchange = Exchange(self, question, servers, done)
        self._exchanges[exchange] = None
        self._of[question.container] = self._of.get(question.container, 0) + 1
        exchange.begin()
        return True

    def _give_way(self) -> None:
        """End the oldest exchange of the container that has most: slow names of some are not to cost others theirs."""
        most = max(self._of, key=lambda container: self._of[container])
        next(exchange for exchange in self._exchanges if exchange.question.container == most).end(None, None)

    def servers_changed(self) -> None:
        """Begin anew what waits for a server that is none any more."""
        for exchange in list(self._exchanges):
            exchange.servers_changed()

    def forget(self, *, network: str | None = None, container: str | None = None) -> None:
        """End what was asked there, or by that one, without an answer."""
        for exchange in list(self._exchanges):
            if network == exchange.question.network or container == exchange.question.container:
                exchange.end(None, None)

    def ordered(self, servers: list[Server]) -> list[Server]:
        """Those that were not silent lately first."""
        now = self.loop.now()
        return sorted(servers[:MAX_SERVERS], key=lambda server: self._silent.get(server.address, 0.0) > now)

    def answered(self, server: Server, silent: Iterable[str]) -> None:
        """*server* did, where the *silent* did not."""
        self._silent.pop(server.address, None)
        if len(self._silent) > 64:
            self._silent.clear()
        for address in silent:
            if address != server.address:
                self._silent[address] = self.loop.now() + _SILENT_SECONDS

    def ended(self, exchange: "Exchange") -> None:
        """Make room."""
        del self._exchanges[exchange]
        container = exchange.question.container
        self._of[container] -= 1
        if not self._of[container]:
            del self._of[container]


class Exchange:
    """One question on its way: attempts, one after the other."""

    __slots__ = ("_attempt", "_done", "_failure", "_forwarder", "_left", "_servers", "_silent", "_until", "question")

    def __init__(
        self, forwarder: Forwarder, question: Question, servers: Callable[[], list[Server]], done: Done
    ) -> None:
        self.question = question
        self._forwarder, self._servers, self._done = forwarder, servers, done
        self._until = forwarder.loop.now() + _ALL_SECONDS
        self._left: list[tuple[Server, bool, float]] = []  # by TCP or not, and how long
        self._attempt: Attempt | None = None
        self._failure: tuple[bytes, Answer] | None = None
        self._silent: list[str] = []

    def begin(self) -> None:
        """Ask the first."""
        self._plan()
        # In the next round of the loop: the caller does not know yet that this is under way.
        self._forwarder.loop.later(0, self._next)

    def servers_changed(self) -> None:
        """Go on with those that there are, and do not wait for one that is none any more."""
        self._plan()
        if self._attempt and self._attempt.server.address not in [server.address for server, *_ in self._left]:
            self._next()

    def _plan(self) -> None:
        servers = self._forwarder.ordered(self._servers())
        rounds = [(True, seconds) for seconds in _TCP_ROUNDS if self.question.stream]
        rounds += [(False, seconds) for seconds in _UDP_ROUNDS]
        self._left = [(server, stream, seconds) for stream, seconds in rounds for server in servers]

    def answered(self, server: Server, message: bytes, answer: Answer) -> None:
        """What *server* says; where it fails, the next is asked, and this one not again."""
        answered = self.question.message[:2] + message[2:]
        if answer.code not in _FAILED or answer.truncated:
            self._forwarder.answered(server, self._silent)
            self.end(answered, answer)
            return
        self._failure = answered, answer
        self._left = [row for row in self._left if row[0].address != server.address]
        self._next()

    def silent(self, server: Server) -> None:
        """*server* cannot be reached, or does not answer."""
        self._silent.append(server.address)
        self._next()

    def end(self, message: bytes | None, answer: Answer | None) -> None:
        """Tell the asker, once."""
        if self._attempt:
            self._attempt.close()
            self._attempt = None
        self._left, done, self._done = [], self._done, _nothing
        if done is not _nothing:
            self._forwarder.ended(self)
            done(message, answer)

    def _next(self) -> None:
        if self._attempt:
            self._attempt.close()
            self._attempt = None
        if self._done is _nothing:
            return
        while self._left and self._forwarder.loop.now() < self._until:
            server, stream, seconds = self._left.pop(0)
            attempt = Attempt(self._forwarder, self, server, stream=stream)
            if attempt.start(seconds):
                self._attempt = attempt
                return
        self.end(*(self._failure or (None, None)))


def _nothing(message: bytes | None, answer: Answer | None) -> None:
    """Stands for whom has been told."""


class Attempt:
    """One server asked once, from one socket."""

    __slots__ = (
        *("_exchange", "_forwarder", "_id", "_received", "_rest", "_socket", "_stream", "_timer", "_wrong"),
        "server",
    )

    def __init__(self, forwarder: Forwarder, exchange: Exchange, server: Server, *, stream: bool) -> None:
        self._forwarder, self._exchange, self.server, self._stream = forwarder, exchange, server, stream
        self._id = os.urandom(2)
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._rest = b""  # what has to be sent yet, by TCP
        self._received = bytearray()
        self._wrong = 0

    def start(self, seconds: float) -> bool:
        """Ask, and wait so long. False where the server cannot be asked at all."""
        question, loop = self._exchange.question, self._forwarder.loop
        message = self._id + question.message[2:]
        try:
            self._socket = self.server.open(self._stream)
            if self._socket is None:
                return False
            _connect(self._socket, _socket_address(self.server.address, self._forwarder.port))
            if self._stream:
                self._rest = len(message).to_bytes(2, "big") + message
                loop.watch(self._socket.fileno(), select.EPOLLOUT, self._sendable)
            else:
                self._socket.send(message)
                loop.watch(self._socket.fileno(), select.EPOLLIN, self._datagrams)
        except OSError:  # no route, no descriptor left, refused at once
            self.close()
            return False
        self._timer = loop.later(seconds, self._failed)
        return True

    def close(self) -> None:
        """Do not wait for it."""
        if self._timer:
            self._timer.cancel()
        if self._socket:
            self._forwarder.loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _failed(self) -> None:
        self.close()
        self._exchange.silent(self.server)

    def _datagrams(self, events: int) -> None:
        for _ in range(_READS):
            if self._socket is None:
                return
            try:
                message = self._socket.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # refused
                self._failed()
                return
            if not self._take(message):
                self._wrong += 1
                if self._wrong == _MAX_WRONG:
                    self._failed()

    def _sendable(self, events: int) -> None:
        if self._socket is None:
            return
        try:
            self._rest = self._rest[self._socket.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError:
            self._failed()
            return
        if not self._rest:
            self._forwarder.loop.watch(self._socket.fileno(), select.EPOLLIN, self._receivable)

    def _receivable(self, events: int) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        length = int.from_bytes(self._received[:2], "big")
        if len(self._received) >= 2 + length and len(self._received) > 2:
            if not self._take(bytes(self._received[2 : 2 + length])):
                self._failed()
        elif not data:
            self._failed()

    def _take(self, message: bytes) -> bool:
        """Whether it is the answer."""
        answer = parse_answer(message, self._exchange.question.query) if message[:2] == self._id else None
        if answer is None:
            return False
        self.close()
        self._exchange.answered(self.server, message, answer)
        return True


def _socket_address(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """For connect(2). The interface is looked up here: the C library would ask more than the stack may do."""
    host, _, zone = address.partition("%")
    if not zone:
        return host, port
    return host, port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


def _connect(connection: socket.socket, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
    """Begin to connect; a connection by TCP is there once it can be written to."""
    try:
        connection.connect(address)
    except BlockingIOError:
        return


def host_server(address: str) -> Server:
    """A resolver as the host reaches it, by its address: with %, and the interface as a number, if link-local."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def open_socket(stream: bool) -> socket.socket:
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    return Server(address, open_socket)
