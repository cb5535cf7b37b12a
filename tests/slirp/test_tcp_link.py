"""Streams arrive whole, whatever the link does to the segments."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slirp.tcp_states import End, Out
from slirp.tcp_states import State as TCPState
from slirp.wire import tcp
from tests.slirp.tcp_link import Host, Link, Weather

_BOUNDED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_LONG = 3600.0

chances = st.floats(0, 0.25)
weathers = st.builds(Weather, chances, chances, st.sampled_from((0.0, 0.002, 0.3)))
seeds = st.integers(0, 1 << 32)


def _stream(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _run(first: Host, second: Host, weather: Weather, seed: int) -> Link:
    link = Link(first, second, weather, seed)
    link.run(_LONG)
    return link


@_BOUNDED
@given(weathers, seeds, st.integers(0, 40000), st.integers(0, 20000), st.sampled_from((536, 1000, 9000)))
def test_both_streams_arrive_whole_over_a_bad_link(
    weather: Weather, seed: int, there: int, back: int, mss: int
) -> None:
    streams = _stream(there, seed), _stream(back, seed + 1)
    first = Host(streams[0], piece=200 + seed % 7000, seed=seed)
    second = Host(streams[1], piece=60 + seed % 900, seed=seed + 1)
    first.mss = second.mss = mss
    first.call(first.iss())
    _run(first, second, weather, seed)
    assert bytes(second.received) == streams[0]
    assert bytes(first.received) == streams[1]
    assert first.ended
    assert second.ended


@_BOUNDED
@given(weathers, seeds, st.integers(300, 3000))
def test_a_slow_reader_gets_everything(weather: Weather, seed: int, appetite: int) -> None:
    stream = _stream(40000, seed)
    first, second = Host(stream, seed=seed), Host(b"", appetite=appetite, seed=seed)
    second.budget.limit = 20000  # the window closes again and again
    first.call(first.iss())
    _run(first, second, weather, seed)
    assert bytes(second.received) == stream


@_BOUNDED
@given(weathers, seeds)
def test_both_ends_may_call_at_the_same_time(weather: Weather, seed: int) -> None:
    first, second = Host(b"from the first", seed=seed), Host(b"from the second", seed=seed + 1)
    first.call(first.iss())
    second.call(second.iss())
    _run(first, second, weather, seed)
    assert bytes(second.received) == b"from the first"
    assert bytes(first.received) == b"from the second"


@_BOUNDED
@given(weathers, seeds)
def test_nothing_is_held_once_it_is_over(weather: Weather, seed: int) -> None:
    first, second = Host(_stream(5000, seed), appetite=500, seed=seed), Host(_stream(5000, seed), seed=seed)
    first.call(first.iss())
    _run(first, second, weather, seed)
    assert first.budget.used == second.budget.used == 0


def test_a_good_link_carries_nothing_twice() -> None:
    stream = _stream(1 << 20, 1)
    first, second = Host(stream, seed=1), Host(b"", seed=2)
    first.call(first.iss())
    link = _run(first, second, Weather(), 1)
    assert bytes(second.received) == stream
    assert link.carried < 2.2 * len(stream) / first.mss


class Plain:
    """A TCP as plain as can be, to compare with: one segment at a time, repeated each second; no early data is kept."""

    def __init__(self, stream: bytes, appetite: int) -> None:
        self.stream = stream
        self.received = bytearray()
        self.appetite = appetite
        self.at = -1  # of the stream acknowledged; -1: not even the SYN
        self.expected: int | None = None
        self.window = 1
        self.fin_seen = False
        self.deadline = 0.0
        self.out: list[Out] = []

    def _put(self, flags: int, offset: int, payload: bytes = b"") -> None:
        acknowledgement = (self.expected or 0) & 0xFFFFFFFF
        flags |= tcp.ACK if self.expected is not None else 0
        self.out.append(Out(flags, (offset + 8) & 0xFFFFFFFF, acknowledgement, self.appetite, b"", payload))

    def timer(self, now: float) -> None:
        if now >= self.deadline:
            self.deadline = now + 1
            self._speak()

    def _speak(self) -> None:
        if self.at < 0:
            self._put(tcp.SYN, -1)
        elif self.at < len(self.stream):
            size = max(1, min(self.window, 700))
            self._put(0, self.at, self.stream[self.at : self.at + size])
        elif self.at == len(self.stream):
            self._put(tcp.FIN, self.at)

    def arrived(self, segment: tcp.Segment, now: float) -> None:
        sequence = segment.sequence
        if segment.flags & tcp.SYN:
            self.expected = self.expected or sequence + 1
        elif self.expected is None:
            return
        elif sequence == self.expected & 0xFFFFFFFF and not self.fin_seen:
            taken = bytes(segment.payload[: self.appetite])
            self.received += taken
            self.expected += len(taken)
            if segment.flags & tcp.FIN and len(taken) == len(segment.payload):
                self.expected += 1
                self.fin_seen = True
        at = (segment.acknowledgement - 8) & 0xFFFFFFFF
        self.window = segment.window
        if at != 0xFFFFFFFF and self.at < at <= len(self.stream) + 1:
            self.at = at
            self.deadline = now + 1
            self._speak()
        if segment.payload or segment.flags & (tcp.SYN | tcp.FIN):
            self._put(0, self.at if self.at <= len(self.stream) else len(self.stream) + 1)

    def take(self) -> list[Out]:
        out, self.out = self.out, []
        return out

    def done(self) -> bool:
        return self.at > len(self.stream) and self.fin_seen


@_BOUNDED
@given(weathers, seeds, st.integers(0, 4000), st.integers(0, 20000), st.integers(1, 5000))
def test_a_plain_tcp_gets_along_with_ours(weather: Weather, seed: int, there: int, back: int, appetite: int) -> None:
    plain, ours = Plain(_stream(there, seed), appetite), Host(_stream(back, seed + 1), seed=seed)
    link = Link(plain, ours, weather, seed)
    ours.done = lambda: ours.connection is not None and ours.sent_end and ours.ended  # type: ignore[method-assign]
    link.run(10 * _LONG)
    assert bytes(ours.received) == plain.stream
    assert bytes(plain.received) == _stream(back, seed + 1)


@_BOUNDED
@given(weathers, seeds)
def test_a_reset_ends_both_even_if_it_is_lost(weather: Weather, seed: int) -> None:
    first, second = Host(_stream(20000, seed), seed=seed), Host(_stream(20000, seed), appetite=300, seed=seed)
    first.call(first.iss())
    link = Link(first, second, weather, seed)
    try:
        link.run(0.5)
    except AssertionError:
        pass  # in the middle of things
    if first.connection is None or second.connection is None or first.done():
        return
    first.connection.host_reset()
    assert first.connection.end is End.ABORTED
    assert first.budget.used == 0
    assert first.connection.state is TCPState.CLOSED
