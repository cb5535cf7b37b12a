"""The receiving half of a connection: from segments in any order to a stream, and the window that is offered.

Sequence numbers inside the core are integers that do not wrap: a number from the wire is taken as the one nearest to
what is expected next. Bytes that come in order leave at once (`accept` gives them back, uncopied, for the host's
socket); what the socket does not take is kept in `pending`; what comes early waits in a few blocks. Kept bytes count
against the budget and close the window, whose right edge is never drawn back (RFC 9293, 3.8.6.2.2).
"""

from bisect import insort
from collections import deque

from slirp.tcp_budget import Holding

SCALE = 7  # windows in units of 128 bytes: up to 8 MiB
MOST_BLOCKS = 64  # out of order
_CHUNK = (
    65536  # small pieces are kept together in chunks of this size: an object for each would cost more than it holds
)
_OVERHEAD = 64  # what a block costs beside its bytes


class Receiver:
    """*next* is the number expected, *edge* the first beyond the window offered, *fin* that of the FIN, once known."""

    __slots__ = ("_blocks", "_holding", "_offset", "edge", "fin", "mss", "next", "pending", "received", "scale")

    def __init__(self, first: int, holding: Holding, scale: int) -> None:
        self.next = first
        self.edge = first
        self.fin: int | None = None
        self.mss = 1
        self.scale = scale
        self.received = 0  # bytes, in order
        self.pending: deque[bytearray] = deque()
        self._offset = 0  # in the first of them
        self._holding = holding
        self._blocks: list[tuple[int, bytes]] = []

    def first_window(self) -> int:
        """The window of a SYN, which is never scaled."""
        value = min(self._holding.room(), 65535)
        self.edge = max(self.edge, self.next + value)
        return value

    def window(self) -> int:
        """The window to offer, as it stands in the header; from now on *edge* says so."""
        free = max(self._holding.room(), self.edge - self.next)
        value = min(free >> self.scale, 65535)
        self.edge = max(self.edge, self.next + (value << self.scale))
        return value

    def worth_telling(self) -> bool:
        """Whether the window has opened so far that the sender should hear of it (RFC 9293, 3.8.6.2.2)."""
        offered = self.edge - self.next
        room = self._holding.room()
        half = self._holding.limit >> 1
        return offered < half and room - offered >= min(half, 2 * self.mss) and room >> self.scale > 0

    def acceptable(self, sequence: int, length: int) -> bool:
        """RFC 9293, 3.10.7.4: whether any of the segment lies in the window. An empty one may be at its edge."""
        if length == 0:
            return self.next <= sequence <= self.edge
        return sequence < self.edge and sequence + length > self.next

    def accept(self, sequence: int, payload: memoryview) -> memoryview | None:
        """Take what is wanted of *payload*. What is given back is to go to the host's socket, or to `keep`, at once."""
        if self._blocks and sequence <= self.next and self._holding.room() < len(payload):
            self._drop_blocks()  # they hold the room that is needed for what is missing before them
        payload = payload[max(0, self.next - sequence) : max(0, self._limit() - sequence)]
        sequence = max(sequence, self.next)
        if sequence > self.next:
            self._early(sequence, payload)
            return None
        self._advance(len(payload))
        if self.pending or self._blocks:
            self.keep(payload)
            self._join()
            return None
        return payload

    def _limit(self) -> int:
        """The first number that is not taken: of the window, and of what the budget has room for at this moment."""
        limit = min(self.edge, self.next + self._holding.room())
        return limit if self.fin is None else min(limit, self.fin)

    def _advance(self, length: int) -> None:
        self.next += length
        self.received += length

    def keep(self, payload: memoryview | bytes) -> None:
        """What the host's socket has not taken."""
        if not payload:
            return
        self._holding.take(len(payload))
        if self.pending and len(self.pending[-1]) + len(payload) <= _CHUNK:
            self.pending[-1] += payload
        else:
            self.pending.append(bytearray(payload))

    def _early(self, sequence: int, payload: memoryview) -> None:
        for start, block in self._blocks:  # what is there already is trimmed off at both ends
            end = start + len(block)
            if start <= sequence < end:
                payload = payload[end - sequence :]
                sequence = end
            elif sequence < start < sequence + len(payload):
                payload = payload[: start - sequence]
        if payload and len(self._blocks) < MOST_BLOCKS:
            self._holding.take(len(payload) + _OVERHEAD)
            insort(self._blocks, (sequence, bytes(payload)))

    def _drop_blocks(self) -> None:
        self._holding.take(-sum(len(block) + _OVERHEAD for _, block in self._blocks))
        self._blocks.clear()

    def drop(self) -> None:
        """Forget what is kept."""
        self._drop_blocks()
        self._holding.take(-sum(map(len, self.pending)))
        self.pending.clear()
        self._offset = 0

    def _join(self) -> None:
        """Blocks that the stream has reached become part of it."""
        while self._blocks and self._blocks[0][0] <= self.next:
            start, block = self._blocks.pop(0)
            self._holding.take(-len(block) - _OVERHEAD)
            rest = memoryview(block)[self.next - start :]
            self._advance(len(rest))
            self.keep(rest)

    def note_fin(self, sequence: int) -> None:
        """A FIN has this number. The first one counts, unless data beyond it has been taken."""
        if self.fin is None and self.next <= sequence <= self.edge:
            self.fin = sequence
            for block in [block for block in self._blocks if block[0] + len(block[1]) > sequence]:
                self._blocks.remove(block)
                self._holding.take(-len(block[1]) - _OVERHEAD)

    def take_fin(self) -> bool:
        """Whether the stream has reached the FIN just here; its number is passed then."""
        if self.fin is None or self.next != self.fin:
            return False
        self.next += 1
        self.edge = max(self.edge, self.next)
        return True

    def early(self) -> bool:
        """Whether something waits for what is missing before it."""
        return bool(self._blocks)

    def head(self) -> memoryview:
        """The bytes that the host's socket is to get next. Release the view before anything else happens."""
        return memoryview(self.pending[0])[self._offset :]

    def took(self, size: int) -> None:
        """The host's socket has taken *size* bytes of `head`."""
        self._offset += size
        if self._offset >= len(self.pending[0]):
            self._holding.take(-len(self.pending.popleft()))
            self._offset = 0
