"""Putting fragments of IP packets together again, without being held up or filled up by who sends them.

A datagram of up to 65507 bytes is larger than the MTU, and a container may have a small one. Fragments that overlap
make no sense but in attacks: such a packet is given up, with all that is still to come of it (RFC 5722; for IPv4 as
well). An exact repetition is left out. What is held is bounded in time, in pieces of a packet, in bytes of a sender and
in all, the bookkeeping counted; where it gets tight, the oldest packet of the sender who holds most goes.

Pure: the time comes in, whole packets come out.
"""

from bisect import bisect_right
from collections.abc import Hashable

from slirp.wire import ip
from slirp.wire.ip import Fragment, Packet

LIFETIME = 30.0  # seconds, from a packet's first fragment on
MOST_BYTES = 4 << 20
MOST_BYTES_OF_ONE = 1 << 20
MOST_PIECES = 256  # of one packet: 65507 bytes at an MTU of 296
PIECE_COSTS = 200  # bytes of Python that hold a piece
WHOLE_COSTS = 1000


class _Whole:
    """A packet in the making. *dead*: given up, and remembered so that the rest of it is not taken for a start."""

    __slots__ = ("dead", "expires", "held", "length", "offsets", "owner", "pieces", "protocol")

    def __init__(self, owner: Hashable, expires: float) -> None:
        self.owner = owner
        self.expires = expires
        self.pieces: list[bytes] = []
        self.offsets: list[int] = []
        self.length = -1  # until the last fragment tells
        self.held = 0
        self.protocol = 0
        self.dead = False


class Reassembly:
    """Fragments of all senders; *owner* is whatever tells them apart."""

    __slots__ = ("_held", "_wholes", "dropped", "held")

    def __init__(self) -> None:
        self._wholes: dict[tuple[Hashable, ...], _Whole] = {}  # oldest first, and so in the order they expire
        self._held: dict[Hashable, int] = {}
        self.held = 0
        self.dropped = 0  # packets given up

    def add(self, owner: Hashable, packet: Packet, now: float) -> Packet | None:
        """Take a fragment (*packet* is not kept). The whole packet if this completes one, else None."""
        fragment = packet.fragment
        if fragment is None:
            return packet
        self.expire(now)
        protocol = packet.protocol if packet.version == 4 else None  # RFC 8200 §4.5: not part of the key there
        key = (owner, packet.source, packet.destination, protocol, fragment.identification)
        whole = self._wholes.get(key)
        if whole is None:
            whole = self._wholes[key] = _Whole(owner, now + LIFETIME)
            self._account(whole, WHOLE_COSTS)
        if not whole.dead and not self._place(whole, packet, fragment):
            self._give_up(whole)
        result = self._complete(key, whole, packet)
        self._make_room(owner)
        return result

    def expire(self, now: float) -> float | None:
        """Forget what is too old. The seconds until the next packet expires, None if there is none."""
        while self._wholes:
            key, whole = next(iter(self._wholes.items()))
            if whole.expires > now:
                return whole.expires - now
            self._remove(key)
        return None

    def forget(self, owner: Hashable) -> None:
        """Forget everything of *owner*."""
        for key in [key for key, whole in self._wholes.items() if whole.owner == owner]:
            self._remove(key)

    def _place(self, whole: _Whole, packet: Packet, fragment: Fragment) -> bool:
        """Put the fragment where it belongs; False if it contradicts what is there."""
        start, end = fragment.offset, fragment.offset + len(packet.payload)
        index = bisect_right(whole.offsets, start)
        if index and whole.offsets[index - 1] == start and whole.pieces[index - 1] == packet.payload:
            return fragment.more or whole.length == end
        if index and whole.offsets[index - 1] + len(whole.pieces[index - 1]) > start:
            return False
        if index < len(whole.offsets) and whole.offsets[index] < end:
            return False
        if not self._fits(whole, end, fragment.more) or len(whole.pieces) >= MOST_PIECES:
            return False
        if start == 0:
            whole.protocol = packet.protocol
        whole.offsets.insert(index, start)
        whole.pieces.insert(index, bytes(packet.payload))
        self._account(whole, len(packet.payload) + PIECE_COSTS)
        return True

    def _fits(self, whole: _Whole, end: int, more: bool) -> bool:
        if more:
            return whole.length < 0 or end <= whole.length
        reached = whole.offsets[-1] + len(whole.pieces[-1]) if whole.offsets else 0
        if whole.length >= 0 or reached > end:
            return False
        whole.length = end
        return True

    def _complete(self, key: tuple[Hashable, ...], whole: _Whole, packet: Packet) -> Packet | None:
        """The whole packet, if nothing is missing. The pieces do not overlap, so their sizes tell."""
        missing = whole.length - (whole.held - WHOLE_COSTS - PIECE_COSTS * len(whole.pieces))
        if whole.dead or whole.length < 0 or missing:
            return None
        self._remove(key)
        if packet.version == 4 and whole.length > 65535 - ip.HEADER4:
            return None
        ends = packet.source, packet.destination, whole.protocol
        start = ip.header(*ends, whole.length, hop_limit=packet.hop_limit)
        result = ip.parse(memoryview(b"".join((start, *whole.pieces))))
        return None if result is None or result.fragment else result

    def _give_up(self, whole: _Whole) -> None:
        self.dropped += 1
        whole.dead = True
        self._account(whole, WHOLE_COSTS - whole.held)
        whole.pieces, whole.offsets = [], []

    def _make_room(self, owner: Hashable) -> None:
        while self._held.get(owner, 0) > MOST_BYTES_OF_ONE:
            self._remove_oldest(owner)
        while self.held > MOST_BYTES:
            self._remove_oldest(max(self._held, key=lambda one: self._held[one]))

    def _remove_oldest(self, owner: Hashable) -> None:
        self.dropped += 1
        self._remove(next(key for key, whole in self._wholes.items() if whole.owner == owner))

    def _remove(self, key: tuple[Hashable, ...]) -> None:
        whole = self._wholes.pop(key)
        self._account(whole, -whole.held)

    def _account(self, whole: _Whole, change: int) -> None:
        whole.held += change
        self.held += change
        left = self._held.get(whole.owner, 0) + change
        if left:
            self._held[whole.owner] = left
        else:
            self._held.pop(whole.owner, None)
