"""A link in virtual time between two ends of TCP, that loses, repeats, delays and reorders as it is told.

Segments travel as bytes, through `wire.tcp`. An end has `arrived`, `timer`, `deadline`, `take_segments` and `pump`.
"""

import heapq
import random
from typing import NamedTuple, Protocol

from slirp.tcp import Connection
from slirp.tcp_budget import IN_ALL, Budget
from slirp.tcp_states import Out, Sizes, State
from slirp.wire import tcp


class Weather(NamedTuple):
    """What the link does: chances of 0 to 1, and seconds."""

    loss: float = 0.0
    repetition: float = 0.0
    jitter: float = 0.0


class End(Protocol):
    def arrived(self, segment: tcp.Segment, now: float) -> None: ...
    def timer(self, now: float) -> None: ...
    def take(self) -> list[Out]: ...
    def done(self) -> bool: ...
    @property
    def deadline(self) -> float: ...


def over_the_wire(out: Out, source: int = 1, destination: int = 2) -> tcp.Segment:
    """What arrives of what was sent."""
    window, options = out.window, out.options
    header = tcp.header(source, destination, out.sequence, out.acknowledgement, out.flags, window, options)
    segment = tcp.parse(memoryview(header + bytes(out.payload)))
    assert segment is not None
    return segment


class Link:
    """Two ends, and what is under way between them."""

    def __init__(self, first: End, second: End, weather: Weather, seed: int) -> None:
        self.ends = (first, second)
        self.weather = weather
        self.random = random.Random(seed)
        self.now = 0.0
        self.carried = 0
        self.lost = 0
        self._under_way: list[tuple[float, int, int, tcp.Segment]] = []

    def run(self, until: float) -> None:
        """Let time pass until both are done, or it is *until*."""
        while not all(end.done() for end in self.ends):
            self._collect()
            when = min(end.deadline for end in self.ends)
            if self._under_way and self._under_way[0][0] <= when:
                self.now, _, target, segment = heapq.heappop(self._under_way)
                self.ends[target].arrived(segment, self.now)
                continue
            assert when <= until, f"nothing more will happen before {until}"
            self.now = max(self.now, when)
            for end in self.ends:
                end.timer(self.now)

    def _collect(self) -> None:
        for target, end in ((1, self.ends[0]), (0, self.ends[1])):
            for out in end.take():
                self._carry(over_the_wire(out), target)

    def _carry(self, segment: tcp.Segment, target: int) -> None:
        weather = self.weather
        lost = self.random.random() < weather.loss and (self.carried > 20 or self.lost < 3)  # else nobody would meet
        self.lost += lost
        copies = 1 + (self.random.random() < weather.repetition) - lost
        for _ in range(copies):
            self.carried += 1
            delay = 0.001 + self.random.random() * weather.jitter
            heapq.heappush(self._under_way, (self.now + delay, self.carried, target, segment))


class Host:
    """A connection of ours with a program on the host's side, that sends *stream* and takes bytes when it likes."""

    def __init__(self, stream: bytes, *, piece: int = 10000, appetite: int = 1 << 30, seed: int = 0) -> None:
        self.connection: Connection | None = None
        self.stream = memoryview(stream)
        self.received = bytearray()
        self.piece, self.appetite = piece, appetite
        self.random = random.Random(seed)
        self.ended = False  # the other end's stream
        self.sent_end = False
        self.mss = 1000
        self.budget = Budget(IN_ALL)
        self._takes_at = float("inf")

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.mss, self.mss)

    def call(self, iss: int) -> "Host":
        self.connection = Connection.call(iss, self.sizes, self.budget, 0.0)
        return self

    def iss(self) -> int:
        return self.random.choice((0, 0xFFFFFFFF, 0xFFFFF000, 1 << 31, self.random.getrandbits(32)))

    def arrived(self, segment: tcp.Segment, now: float) -> None:
        if self.connection is None:
            if segment.flags & tcp.SYN:
                self.connection = Connection.answer(segment, self.iss(), self.sizes, self.budget, now)
            return
        view = self.connection.arrived(segment, now)
        if view is not None:
            taken = self._take(view)
            self.connection.keep(view[taken:])
        self._pump(now)
        if self.random.random() < 0.5:
            self.connection.flush()

    def _take(self, view: memoryview) -> int:
        size = min(len(view), self.random.randint(0, self.appetite))
        self.received += view[:size]
        return size

    def _pump(self, now: float) -> None:
        connection = self.connection
        assert connection is not None
        while connection.room() and not self.sent_end:
            size = min(connection.room(), self.piece, len(self.stream))
            if size:
                connection.host_data(bytes(self.stream[:size]), now)
                self.stream = self.stream[size:]
            else:
                connection.host_eof(now)
                self.sent_end = True
        if connection.take_shutdown():
            self.ended = True
        self._takes_at = now + 0.01 if connection.pending or connection.ack_due else float("inf")

    @property
    def deadline(self) -> float:
        return min(self.connection.deadline, self._takes_at) if self.connection is not None else float("inf")

    def timer(self, now: float) -> None:
        connection = self.connection
        if connection is None:
            return
        connection.timer(now)
        if connection.pending:
            head = connection.receiver.head()
            taken = self._take(head)
            head.release()
            connection.host_took(taken)
        self._pump(now)
        connection.flush()

    def take(self) -> list[Out]:
        return self.connection.take_segments() if self.connection is not None else []

    def done(self) -> bool:
        connection = self.connection
        return connection is not None and connection.state is State.CLOSED and not connection.pending
