"""Writes tar archives that no program would write: every field of every header may be anything.

    evil_tar.archive(
        evil_tar.entry(b"etc", b"2", link=b"/victim"),
        evil_tar.entry(b"etc/passwd", content=b"pwned"),
    )

A field given as an int is written as tar does (octal, or base-256 where that is too long), bytes as they are.
"""

from collections.abc import Iterable, Mapping

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
POSIX = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)
END = bytes(1024)

Field = int | bytes
Records = Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]]


def number(value: Field, width: int) -> bytes:
    """The bytes of a numeric field."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")[:width]
    octal = b"%0*o\0" % (width - 1, value) if value >= 0 else b""
    return octal if 0 < len(octal) <= width else base256(value, width)


def base256(value: int, width: int) -> bytes:
    """GNU's way to write numbers that are negative, or too long to be octal."""
    raw = value.to_bytes(width, "big", signed=True)
    return bytes([0xFF if value < 0 else 0x80]) + raw[1:]


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    mode: Field = 0o644,
    uid: Field = 0,
    gid: Field = 0,
    size: Field = 0,
    mtime: Field = 0,
    link: bytes = b"",
    magic: bytes = POSIX,
    major: Field = 0,
    minor: Field = 0,
    prefix: bytes = b"",
    checksum: Field | None = None,
) -> bytes:
    """One header block, with the right checksum unless another is given. Names are cut to 100 bytes."""
    before = (
        name[:100].ljust(100, b"\0")
        + number(mode, 8)
        + number(uid, 8)
        + number(gid, 8)
        + number(size, 12)
        + number(mtime, 12)
    )
    after = (
        kind
        + link[:100].ljust(100, b"\0")
        + magic
        + bytes(64)
        + number(major, 8)
        + number(minor, 8)
        + prefix[:167].ljust(167, b"\0")
    )
    if checksum is None:
        checksum = b"%06o\0 " % (sum(before) + sum(after) + 8 * 0x20)
    return before + number(checksum, 8) + after


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def entry(
    name: bytes,
    kind: bytes = FILE,
    content: bytes = b"",
    *,
    pax: Records | None = None,
    long: bool = True,
    size: Field | None = None,
    mode: Field | None = None,
    uid: Field = 0,
    gid: Field = 0,
    mtime: Field = 0,
    link: bytes = b"",
    magic: bytes = POSIX,
    major: Field = 0,
    minor: Field = 0,
    prefix: bytes = b"",
    checksum: Field | None = None,
) -> bytes:
    """A member: its header, a pax header before it, its content. Long names get GNU's extra members if *long*."""
    front = b"" if pax is None else pax_header(pax)
    if long and len(name) > 100:
        front += long_name(name)
    if long and len(link) > 100:
        front += long_name(link, b"K")
    own = header(
        name,
        kind,
        mode=(0o755 if kind == DIRECTORY else 0o644) if mode is None else mode,
        uid=uid,
        gid=gid,
        size=len(content) if size is None else size,
        mtime=mtime,
        link=link,
        magic=magic,
        major=major,
        minor=minor,
        prefix=prefix,
        checksum=checksum,
    )
    return front + own + padded(content)


def record(key: bytes, value: bytes) -> bytes:
    """`25 path=…\\n`, whose length counts itself."""
    length = len(key) + len(value) + 3
    while length != len(b"%d" % length) + len(key) + len(value) + 3:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax_header(records: Records | bytes, kind: bytes = b"x") -> bytes:
    """An extended header; *records* as bytes are written as they are. *kind* g makes it global."""
    if not isinstance(records, bytes):
        pairs = records.items() if isinstance(records, Mapping) else records
        records = b"".join(record(key, value) for key, value in pairs)
    return header(b"pax", kind, size=len(records)) + padded(records)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's member that names (or with K: links) the next one."""
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=GNU) + padded(name + b"\0")


def archive(*members: bytes, end: bytes = END) -> bytes:
    return b"".join(members) + end
