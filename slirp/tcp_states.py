"""What a connection of TCP may be in, how it may end, and what it wants sent: the words that its modules share."""

from enum import Enum
from typing import NamedTuple

MASK, _HALF = 0xFFFFFFFF, 1 << 31


class State(Enum):
    """As in RFC 9293, 3.3.2. LISTEN is not a connection's."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN-WAIT-1"
    FIN_WAIT_2 = "FIN-WAIT-2"
    CLOSE_WAIT = "CLOSE-WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST-ACK"
    TIME_WAIT = "TIME-WAIT"
    CLOSED = "CLOSED"


class End(Enum):
    """How it came to its end."""

    FINISHED = "finished"  # both directions, in order
    RESET = "reset"  # by the container; a refused SYN is one, too
    TIMED_OUT = "timed out"
    ABORTED = "aborted"  # by the host's side


class Out(NamedTuple):
    """A segment to send, all but the ports."""

    flags: int
    sequence: int
    acknowledgement: int
    window: int
    options: bytes
    payload: bytes | memoryview


class Sizes(NamedTuple):
    """*mss* is the largest segment that we take; *largest* what we may send in one piece, where the device cuts it."""

    mss: int
    largest: int


class Limiter:
    """So many in a second, and no more."""

    __slots__ = ("_count", "_most", "_since")

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._since = 0.0

    def allows(self, now: float) -> bool:
        """Whether one more may be; it is counted."""
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        return self._count <= self._most


def nearest(number: int, reference: int) -> int:
    """The sequence number *number* of the wire as the one that is nearest to *reference*."""
    return reference + ((number - reference + _HALF) & MASK) - _HALF


# The other end may still send data, or has to acknowledge ours
RECEIVING = frozenset((State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2))
SENDING = frozenset((State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK))
AFTER_FIN_SENT = {State.ESTABLISHED: State.FIN_WAIT_1, State.CLOSE_WAIT: State.LAST_ACK}
AFTER_FIN_ACKED = {
    State.FIN_WAIT_1: State.FIN_WAIT_2,
    State.CLOSING: State.TIME_WAIT,
    State.LAST_ACK: State.CLOSED,
}
AFTER_FIN_ARRIVED = {
    State.ESTABLISHED: State.CLOSE_WAIT,
    State.FIN_WAIT_1: State.CLOSING,
    State.FIN_WAIT_2: State.TIME_WAIT,
}
