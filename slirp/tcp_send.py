"""The sending half of a connection: what waits, what is under way, when it is sent again, how much at once.

Retransmission by RFC 6298 (one segment timed at a time, none that was sent twice), fast retransmit and recovery in the
manner of NewReno (RFC 6582), probes of a closed window (RFC 9293, 3.8.6.1). The link is a tun device on the same
machine, where little is ever lost: after a timeout all goes back to what waits and is sent again from there.

`transmit` and its kin give pieces (sequence number, payload, FIN); numbers do not wrap, see tcp_receive.py.
"""

from collections import deque
from collections.abc import Iterator

from slirp.tcp_budget import Holding

Piece = tuple[int, "bytes | memoryview", bool]

NEVER = float("inf")
MOST_TRIES = 15  # of the same bytes, or of probes without an answer: 924 seconds, as Linux has it (tcp_retries2)
FIRST_TIMEOUT, SHORTEST_TIMEOUT, LONGEST_TIMEOUT = 1.0, 0.2, 120.0  # seconds; RFC 6298 (2.1), Linux's TCP_RTO_MIN, MAX
LONGEST_PROBE = 60.0  # seconds between probes of a closed window
LONGEST_STALL = 12 * 3600.0  # seconds that it may stay closed, though the other end answers
SMALLEST_MSS = 536  # RFC 9293, 3.7.1: what every host takes; a smaller one would only multiply our work
MOST_PIECES = 1024  # in either queue
_MOST_BACKOFF_KEPT = 4  # once something is acknowledged; all of it would be lost time, none would never be measured
_SMALL = 4096  # bytes; small pieces from the host that wait are put together
_FIRST_WINDOW, _LARGEST_WINDOW = 10, 8 << 20  # segments (RFC 6928); bytes


class Sender:
    """*una*, *nxt*, *window* as SND.UNA … in RFC 9293; *top* is the highest *nxt* so far; *mss* the largest piece."""

    __slots__ = (
        *("_backoff", "_forced", "_holding", "_recover", "_sent", "_timed", "_told", "_unsent", "_variance"),
        *("cwnd", "deadline", "duplicates", "fin", "mss", "nxt", "persisting", "queued", "recovering", "smoothed"),
        *("ssthresh", "stalled", "timeout", "top", "tries", "una", "unit", "window", "window_largest"),
    )

    def __init__(self, first: int, holding: Holding) -> None:
        self.una = self.nxt = self.top = first
        self.window = self.window_largest = 0
        self._told = (-1, -1)  # sequence and acknowledgement of the segment that told it: SND.WL1, SND.WL2
        self.mss = self.unit = SMALLEST_MSS
        self.fin: int | None = None
        self.queued = 0  # bytes in both queues
        self._sent: deque[tuple[int, bytes | memoryview]] = deque()
        self._unsent: deque[bytes | memoryview] = deque()
        self._holding = holding
        self.deadline = NEVER
        self.timeout = FIRST_TIMEOUT
        self.tries = 0  # timeouts since anything was acknowledged, or probes since anything was heard
        self._backoff = 0
        self.persisting = False
        self._forced = False
        self.stalled = NEVER  # since when
        self.smoothed: float | None = None
        self._variance = 0.0
        self._timed: tuple[int, float] | None = None
        self.cwnd, self.ssthresh = 0, _LARGEST_WINDOW
        self.duplicates = 0
        self.recovering = False
        self._recover = first

    def set_sizes(self, mss: int, largest: int) -> None:
        """*mss* is what the other end takes in one, *largest* what a piece of ours may be, cut by the device."""
        self.unit = max(mss, SMALLEST_MSS)
        self.mss = max(self.unit, largest // self.unit * self.unit)
        self.cwnd = _FIRST_WINDOW * self.mss

    # The host's side

    def room(self) -> int:
        """How many bytes more it would take from the host's socket."""
        if self.fin is not None or len(self._unsent) >= MOST_PIECES or self._holding.limit - self.queued < _SMALL:
            return 0
        return self._holding.room()

    def put(self, data: bytes) -> None:
        """More bytes to send."""
        self.queued += len(data)
        self._holding.take(len(data))
        last = self._unsent[-1] if self._unsent else b""
        if last and len(last) + len(data) <= _SMALL:
            self._unsent[-1] = b"".join((last, data))
        else:
            self._unsent.append(data)

    def finish(self) -> None:
        """There are no more: a FIN follows the last byte."""
        if self.fin is None:
            self.fin = self.una + self.queued

    def drop(self) -> None:
        """Forget all that is queued; nothing is sent any more."""
        self._sent.clear()
        self._unsent.clear()
        self._holding.take(-self.queued)
        self.queued = 0
        self.deadline = NEVER

    def finished(self) -> bool:
        """Whether the FIN has been acknowledged."""
        return self.fin is not None and self.una > self.fin

    # What goes out

    def transmit(self, now: float) -> Iterator[Piece]:
        """The pieces that the window and the congestion window let out at *now*."""
        while self._unsent and len(self._sent) < MOST_PIECES:
            usable = min(self.una + min(self.window, self.cwnd) - self.nxt, self.mss)
            size = min(len(self._unsent[0]), usable)
            if size <= 0 or not self._worthwhile(size, usable):
                break
            yield self._next(size, now)
        if self.fin == self.nxt and self.una + self.window > self.nxt:
            self._pass(1, now)
            yield self.nxt - 1, b"", True
        if self.nxt == self.una and not self.persisting and (self._unsent or self.fin == self.nxt):
            self._persist(now)

    def _worthwhile(self, size: int, usable: int) -> bool:
        """RFC 9293, 3.8.6.2.1: not a sliver of what waits, unless nothing better is to come for long."""
        if size == len(self._unsent[0]) or usable >= self.unit or self._forced:
            return True
        return size >= self.window_largest >> 1

    def _next(self, size: int, now: float) -> Piece:
        chunk = self._unsent.popleft()
        if size < len(chunk):
            view = memoryview(chunk)
            chunk = view[:size]
            self._unsent.appendleft(view[size:])
        sequence = self.nxt
        self._sent.append((sequence, chunk))
        self._pass(size, now)
        return sequence, chunk, False

    def _pass(self, length: int, now: float) -> None:
        if self.nxt == self.una:
            self.persisting = self._forced = False
            self._arm(now)
        self.nxt += length
        if self.nxt > self.top:
            self.top = self.nxt
            if self._timed is None:
                self._timed = (self.nxt, now)

    def _arm(self, now: float) -> None:
        self.deadline = now + min(self.timeout * (1 << self._backoff), LONGEST_TIMEOUT)

    def _persist(self, now: float) -> None:
        """Nothing is under way, so no acknowledgement will come: the window is to be probed."""
        self.persisting = True
        self.tries = self._backoff = 0
        self.stalled = min(self.stalled, now)
        self._arm(now)

    # What comes back

    def update_window(self, window: int, sequence: int, acknowledgement: int) -> bool:
        """The other end's window by a segment with these numbers; False if it is older than what is known."""
        if (sequence, acknowledgement) < self._told:
            return False
        self._told = (sequence, acknowledgement)
        self.window = window
        self.window_largest = max(self.window_largest, window)
        if self.persisting and window:
            self.persisting = False
            self.deadline = NEVER
        return True

    def heard(self) -> None:
        """The other end lives: that it opens its window may take long."""
        if self.persisting:
            self.tries = 0

    def acknowledge(self, number: int, now: float) -> Piece | None:
        """All before *number* (una < number ≤ top) has arrived; a piece that is to be sent again, if there is one."""
        size = number - self.una
        self._forget(number)
        self.tries = self.duplicates = 0
        self.stalled = NEVER
        self.persisting = self._forced = False
        self._backoff = min(self._backoff, _MOST_BACKOFF_KEPT)
        if self._timed is not None and number >= self._timed[0]:
            self._measure(now - self._timed[1])
            self._timed = None
        again = self._grow(number, size)
        self.deadline = NEVER
        if self.nxt > self.una:
            self._arm(now)
        return again

    def _forget(self, number: int) -> None:
        bytes_before = number if self.fin is None else min(number, self.fin)
        self._holding.take(self.una - bytes_before)
        self.queued -= bytes_before - self.una
        while self._sent and self._sent[0][0] < number:
            sequence, chunk = self._sent.popleft()
            if sequence + len(chunk) > number:
                self._sent.appendleft((number, memoryview(chunk)[number - sequence :]))
        if number > self.nxt:  # acknowledged after all, while it waited to be sent again
            self._skip(min(number, bytes_before) - self.nxt)
            self.nxt = number
        self.una = number

    def _skip(self, size: int) -> None:
        while size > 0:
            chunk = self._unsent.popleft()
            if len(chunk) > size:
                self._unsent.appendleft(memoryview(chunk)[size:])
            size -= len(chunk)

    def _measure(self, sample: float) -> None:
        """RFC 6298 (2)."""
        if self.smoothed is None:
            self.smoothed, self._variance = sample, sample / 2
        else:
            self._variance += (abs(self.smoothed - sample) - self._variance) / 4
            self.smoothed += (sample - self.smoothed) / 8
        self._backoff = 0
        self.timeout = min(max(self.smoothed + 4 * self._variance, SHORTEST_TIMEOUT), LONGEST_TIMEOUT)

    def _grow(self, number: int, size: int) -> Piece | None:
        if self.recovering and number < self._recover:
            self.cwnd = max(self.cwnd - size + self.mss, self.mss)
            return self._again()
        if self.recovering:
            self.recovering = False
            self.cwnd = self.ssthresh
        elif self.cwnd < self.ssthresh:
            self.cwnd += size
        else:
            self.cwnd += max(self.mss * size // self.cwnd, 1)
        self.cwnd = min(self.cwnd, _LARGEST_WINDOW)
        return None

    def duplicate(self) -> Piece | None:
        """An acknowledgement came that acknowledges nothing: the third one sends the first piece again."""
        self.duplicates += 1
        if self.recovering:
            self.cwnd += self.mss
        elif self.duplicates == 3 and self.una >= self._recover:
            self._enter_recovery()
            self.cwnd = self.ssthresh + 3 * self.mss
            return self._again()
        return None

    def _enter_recovery(self) -> None:
        self.ssthresh = max((self.nxt - self.una) >> 1, 2 * self.mss)
        self._recover = self.top
        self.recovering = True
        self._timed = None

    def _again(self) -> Piece | None:
        if self._sent:
            sequence, chunk = self._sent[0]
            return sequence, chunk, False
        return (self.una, b"", True) if self.fin == self.una and self.nxt > self.una else None

    def expire(self, now: float) -> Piece | None:
        """The deadline has come. A probe to send, if one is due; `transmit` says what else. See `hopeless`."""
        self.tries += 1
        self._backoff += 1
        if self.nxt > self.una:
            self._go_back()
            return None
        if not self.persisting:
            self.deadline = NEVER
            return None
        self.deadline = now + min(self.timeout * (1 << self._backoff), LONGEST_PROBE)
        if self.window:
            self._forced = True
            return None
        return self.una - 1, b"", False

    def hopeless(self, now: float) -> bool:
        """Whether to give up: nothing comes back, or the window has been closed for too long."""
        return self.tries > MOST_TRIES or now - self.stalled > LONGEST_STALL

    def _go_back(self) -> None:
        self._enter_recovery()
        self.recovering = False  # slow start, not fast recovery
        self._recover = self.una  # and what is lost once more is sent again fast
        self.cwnd = self.mss
        self.duplicates = 0
        self._unsent = deque(_joined([*(chunk for _, chunk in self._sent), *self._unsent], self.mss))
        self._sent.clear()
        self.nxt = self.una


def _joined(chunks: "list[bytes | memoryview]", size: int) -> "Iterator[bytes | memoryview]":
    """The same bytes in pieces of up to *size*: small ones put together, none divided."""
    group: list[bytes | memoryview] = []
    length = 0
    for chunk in chunks:
        if group and length + len(chunk) > size:
            yield b"".join(group) if len(group) > 1 else group[0]
            group, length = [], 0
        group.append(chunk)
        length += len(chunk)
    if group:
        yield b"".join(group) if len(group) > 1 else group[0]
