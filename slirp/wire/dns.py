"""DNS messages (RFC 1035): questions taken apart, answers put together, addresses read out of the answers of others.

A message is a header of six 16-bit numbers (id, flags, and how many records are in each of four sections), the
question, and records. A name is labels, each after its length; a length of 0xC0 and more is half of a pointer to the
rest of the name, earlier in the message. Pointers are followed a bounded number of times and only backwards. A question
holds none here: nothing stands before it that it could point to.

EDNS (RFC 6891) is one record of type OPT in the last section, that says how large an answer by UDP may be.

Names are text without the last dot; what is no letter, digit, hyphen or underscore stands as \\DDD, so that a dot
within a label is not mistaken for one between labels.
"""

import struct
from typing import NamedTuple

A, CNAME, PTR, AAAA, OPT, ANY = 1, 5, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)

RESPONSE, TRUNCATED, RECURSION_DESIRED, RECURSION_AVAILABLE, CHECKING_DISABLED = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
_OPCODE, _RCODE = 0x7800, 0x000F
_DNSSEC_OK = 0x8000

HEADER = 12
SMALLEST = 512  # bytes that every resolver takes by UDP
OURS = 1232  # bytes of UDP that we say to take (the DNS flag day of 2020)
MAX_NAME = 255
_MAX_LABEL = 63
_MAX_POINTERS = 16
_MAX_RECORDS = 100  # of an answer, that are looked at
_MAX_EXTRA = 4  # records after a question: OPT, perhaps a signature
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_TO_QUESTION = b"\xc0\x0c"  # a pointer to the name that is asked for

_header = struct.Struct("!6H")
_fixed = struct.Struct("!HHIH")  # of a record, after its name: type, class, TTL, length


class Query(NamedTuple):
    """A question. *section*: its bytes; *size*: what its asker takes by UDP; *edns*: its EDNS flags, if it has any."""

    id: int
    flags: int
    name: str
    kind: int
    klass: int
    section: bytes
    size: int
    edns: int | None

    @property
    def opcode(self) -> int:
        """0 is a question; the others are for servers among themselves."""
        return (self.flags & _OPCODE) >> 11


class Record(NamedTuple):
    """One of an answer: *value* is an address (A, AAAA) or a name (CNAME)."""

    name: str
    kind: int
    ttl: int
    value: bytes | str


class Answer(NamedTuple):
    """What came back."""

    id: int
    code: int
    truncated: bool
    records: tuple[Record, ...]


def parse_query(data: bytes) -> Query | None:
    """The one question in *data*; None for what is none, or is malformed."""
    if len(data) < HEADER + 5:
        return None
    message_id, flags, questions, answers, authorities, extra = _header.unpack_from(data)
    if flags & RESPONSE or (questions, answers, authorities) != (1, 0, 0) or extra > _MAX_EXTRA:
        return None
    read = _name(data, HEADER, pointers=0)
    if read is None or read[1] + 4 > len(data):
        return None
    name, at = read
    kind, klass = struct.unpack_from("!HH", data, at)
    size, edns = SMALLEST, None
    position: int | None = at + 4
    for _ in range(extra):
        record = _record(data, position or 0)
        if record is None:
            return None
        record_kind, record_class, ttl, _start, end = record
        if record_kind == OPT:
            size, edns = max(record_class, SMALLEST), ttl
        position = end
    return Query(message_id, flags, name, kind, klass, data[HEADER : at + 4], size, edns)


def parse_answer(data: bytes, query: Query) -> Answer | None:
    """The answer to *query* in *data*; None for anything else, an answer to another question too (not its id)."""
    end = HEADER + len(query.section)
    if len(data) < HEADER:
        return None
    message_id, flags, questions, answers, _, _ = _header.unpack_from(data)
    if not flags & RESPONSE or (flags ^ query.flags) & _OPCODE:
        return None
    if questions == 0 and flags & _RCODE and len(data) == HEADER:
        return Answer(message_id, flags & _RCODE, False, ())  # servers refuse so, what they do not want to parse
    if questions != 1 or not _same_question(data[HEADER:end], query.section):
        return None
    records = _records(data, end, min(answers, _MAX_RECORDS))
    if records is None and not flags & TRUNCATED:
        return None
    return Answer(message_id, flags & _RCODE, bool(flags & TRUNCATED), records or ())


def learned(query: Query, answer: Answer) -> list[tuple[bytes, int]]:
    """The addresses that *answer* has for the name asked for, by its aliases too, and for how many seconds each."""
    name, until = query.name.lower(), 1 << 31
    aliases = {record.name.lower(): record for record in answer.records if record.kind == CNAME}
    names = {name: until}
    while (alias := aliases.pop(name, None)) is not None:
        name, until = str(alias.value).lower(), min(until, alias.ttl)
        names.setdefault(name, until)
    return [
        (record.value, min(record.ttl, names[record.name.lower()]))
        for record in answer.records
        if isinstance(record.value, bytes) and record.name.lower() in names
    ]


def answer(
    query: Query, code: int, records: list[tuple[int, bytes]] | None = None, *, ttl: int = 0, size: int = 65535
) -> bytes:
    """A message that answers *query*: *records* are (type, data), all of the name asked for.

    What does not fit into *size* bytes is left out, and the answer says that it is cut off.
    """
    flags = RESPONSE | query.flags & (_OPCODE | RECURSION_DESIRED | CHECKING_DISABLED) | RECURSION_AVAILABLE | code
    edns = b"" if query.edns is None else b"\0" + _fixed.pack(OPT, OURS, query.edns & _DNSSEC_OK, 0)
    room = size - HEADER - len(query.section) - len(edns)
    parts = []
    for kind, data in records or ():
        part = _TO_QUESTION + _fixed.pack(kind, IN, ttl, len(data)) + data
        room -= len(part)
        if room < 0:
            flags |= TRUNCATED
            break
        parts.append(part)
    head = _header.pack(query.id, flags, 1, len(parts), 0, 1 if edns else 0)
    return b"".join((head, query.section, *parts, edns))


def refusal(data: bytes, code: int) -> bytes | None:
    """An answer of a header alone to a message that cannot be parsed; None where it is not even one that asks."""
    if len(data) < HEADER or data[2] & 0x80:
        return None
    flags = int.from_bytes(data[2:4], "big")
    kept = RESPONSE | flags & (_OPCODE | RECURSION_DESIRED) | RECURSION_AVAILABLE | code
    return data[:2] + kept.to_bytes(2, "big") + bytes(8)


def packed_name(name: str) -> bytes | None:
    """*name* as it stands in a message, uncompressed; None where it cannot: a label is empty, or something too long."""
    labels = [label.encode("utf-8") for label in name.split(".")]
    if not all(0 < len(label) <= _MAX_LABEL for label in labels):
        return None
    data = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return data if len(data) <= MAX_NAME else None


def reverse_address(name: str) -> bytes | None:
    """The address that *name* (4.3.2.1.in-addr.arpa, or 32 digits and ip6.arpa) asks back from; None for others."""
    labels = name.lower().split(".")
    if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
        if all(label.isdecimal() and label.isascii() and str(int(label)) == label for label in labels[:4]):
            numbers = [int(label) for label in reversed(labels[:4])]
            return bytes(numbers) if max(numbers) < 256 else None
    elif labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
        digits = "".join(reversed(labels[:32]))
        if len(digits) == 32 and all(digit in "0123456789abcdef" for digit in digits):
            return bytes.fromhex(digits)
    return None


def _same_question(one: bytes, other: bytes) -> bool:
    """Names are equal in either case; type and class follow, and are numbers."""
    return one[-4:] == other[-4:] and one[:-4].lower() == other[:-4].lower()


def _name(data: bytes, at: int, *, pointers: int = _MAX_POINTERS) -> tuple[str, int] | None:
    """The name at *at*, and where the next thing begins."""
    labels: list[str] = []
    length, after, lowest = 0, -1, at
    while at < len(data):
        size = data[at]
        if size >= 0xC0:
            if pointers == 0 or at + 2 > len(data):
                return None
            pointers -= 1
            after = after if after >= 0 else at + 2
            at = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
            if at >= lowest:
                return None
            lowest = at
            continue
        if size == 0:
            return ".".join(labels), after if after >= 0 else at + 1
        length += size + 1
        if size > _MAX_LABEL or length >= MAX_NAME or at + 1 + size > len(data):
            return None
        labels.append(_label(data[at + 1 : at + 1 + size]))
        at += 1 + size
    return None


def _label(label: bytes) -> str:
    if _PLAIN.issuperset(label):
        return label.decode("ascii")
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in label)


def _skip_name(data: bytes, at: int) -> int | None:
    while at < len(data):
        size = data[at]
        if size >= 0xC0:
            return at + 2
        if size > _MAX_LABEL:
            return None
        at += 1 + size
        if size == 0:
            return at
    return None


def _record(data: bytes, at: int) -> tuple[int, int, int, int, int] | None:
    """Type, class, TTL of the record at *at*, and where its data starts and ends."""
    start = _skip_name(data, at)
    if start is None or start + _fixed.size > len(data):
        return None
    kind, klass, ttl, length = _fixed.unpack_from(data, start)
    start += _fixed.size
    return (kind, klass, ttl, start, start + length) if start + length <= len(data) else None


def _records(data: bytes, at: int, count: int) -> tuple[Record, ...] | None:
    """The addresses and aliases among *count* records from *at* on; None where these are malformed."""
    records = []
    for _ in range(count):
        record = _record(data, at)
        if record is None:
            return None
        kind, klass, ttl, start, end = record
        value: bytes | str | None = None
        if klass == IN and (kind, end - start) in ((A, 4), (AAAA, 16)):
            value = data[start:end]
        elif klass == IN and kind == CNAME:
            target = _name(data, start)
            value = target[0] if target else None
        owner = _name(data, at) if value is not None else None
        if value is not None and owner:
            records.append(Record(owner[0], kind, ttl if ttl < 1 << 31 else 0, value))  # RFC 2181, 8
        at = end
    return tuple(records)
