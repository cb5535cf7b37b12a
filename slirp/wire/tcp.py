"""The header of TCP (RFC 9293, 3.1) with the options that matter here.

Whatever bytes arrive, `parse` gives a Segment or None: every length in the header is checked against what is there. An
option that is malformed ends the reading of options, as the kernel does it; the segment itself stays good.
"""

import struct
from typing import NamedTuple

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

CHECKSUM_OFFSET = 16  # of the checksum's field in the header
MAX_SCALE = 14  # RFC 7323, 2.3: a larger shift is read as 14

_FIXED = struct.Struct("!HHLLHHHH")
_END, _NOP, _MSS, _SCALE, _SACK_PERMITTED, _SACK, _TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8


class Options(NamedTuple):
    """What the options said; None or nothing where one is absent. *timestamps* are (value, echo reply)."""

    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    sack: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[int, int] | None = None


class Segment(NamedTuple):
    """One segment. *window* is as sent, not scaled; *payload* is a view of the buffer that was parsed."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    urgent: int
    options: Options
    payload: memoryview


NO_OPTIONS = Options()


def parse(data: memoryview) -> Segment | None:
    """Take the segment in *data* apart. None: too short, or its header is longer than it is."""
    if len(data) < 20:
        return None
    source, destination, sequence, acknowledgement, word, window, _, urgent = _FIXED.unpack_from(data)
    size = word >> 12 << 2
    options = NO_OPTIONS
    if size != 20:
        if size < 20 or size > len(data):
            return None
        options = _parse_options(bytes(data[20:size]))
    return Segment(source, destination, sequence, acknowledgement, word & 255, window, urgent, options, data[size:])


def _parse_options(data: bytes) -> Options:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _NOP:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if size < 2 or at + size > len(data):
            break
        found.setdefault(data[at], data[at + 2 : at + size])
        at += size
    return Options(
        _number(found.get(_MSS), 2),
        _scale(found.get(_SCALE)),
        found.get(_SACK_PERMITTED) == b"",
        _sack(found.get(_SACK, b"")),
        _timestamps(found.get(_TIMESTAMPS)),
    )


def _number(value: bytes | None, size: int) -> int | None:
    return int.from_bytes(value, "big") if value is not None and len(value) == size else None


def _scale(value: bytes | None) -> int | None:
    shift = _number(value, 1)
    return None if shift is None else min(shift, MAX_SCALE)


def _sack(value: bytes) -> tuple[tuple[int, int], ...]:
    return tuple(struct.iter_unpack("!LL", value)) if len(value) % 8 == 0 else ()


def _timestamps(value: bytes | None) -> tuple[int, int] | None:
    if value is None or len(value) != 8:
        return None
    return int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big")


def header(
    source_port: int,
    destination_port: int,
    sequence: int,
    acknowledgement: int,
    flags: int,
    window: int,
    options: bytes = b"",
) -> bytes:
    """The header with a checksum of zero. *options* are padded already, as `syn_options` gives them."""
    word = 20 + len(options) << 10 | flags
    fixed = _FIXED.pack(source_port, destination_port, sequence, acknowledgement, word, window, 0, 0)
    return fixed + options if options else fixed


def syn_options(mss: int, wscale: int | None) -> bytes:
    """The options that a SYN of ours carries: the largest segment we take, and how our windows are scaled."""
    size = struct.pack("!BBH", _MSS, 4, mss)
    return size if wscale is None else size + struct.pack("!BBBB", _NOP, _SCALE, 3, wscale)
