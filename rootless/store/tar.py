"""Reading a tar archive that anybody may have written: a stream, never sought in, with a limit on everything.

Python's own `tarfile` is not for this: it seeks, keeps every member, and has been led out of the directory or into
endless loops by archives made for that. This reader knows the formats that archives come in (v7, ustar, GNU and pax,
with GNU's ways to store sparse files), and turns away whatever two programs would read differently:

- where GNU tar and Go's archive/tar, which Docker has, agree, so does this; where they do not, the archive is refused;
- so it is for a wrong checksum, a number that makes no sense, an archive that is cut anywhere but between members;
- metadata is read into memory up to MAX_RECORD; content never is, `take` gives views of the chunks that came in.

The archive ends with two zero blocks, or with the input; what comes after that is not looked at. Names are bytes, and
are kept as they are.

A member without extended headers takes 5 µs. Its checksum is why zlib is here: the lower half of an Adler-32 is the sum
of the bytes modulo 65521, ten times as fast as sum(), and exact for ASCII, which 512 bytes of cannot reach that.

Sources: POSIX.1-2017, pax, "EXTENDED DESCRIPTION"; GNU tar's manual, "Basic Tar Format" and "Storing Sparse Files".
"""

import binascii
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from rootless.errors import CorruptData

BLOCK = 512
MAX_RECORD = 1 << 20  # bytes of one extended header, long name or sparse map, and of all that global headers say

_MAX_EXTENSIONS = 16  # in front of one member; what programs write is at most a long name, a long link, a pax header
_MAX_ID = (1 << 32) - 2  # -1 means "leave it as it is" to chown(2)
_MAX_DEVICE = (1 << 32) - 1
_ZEROS = bytes(BLOCK)
_SPACES = 8 * ord(" ")  # the checksum is taken with spaces in its own place

# name mode uid gid size mtime chksum typeflag linkname magic+version devmajor devminor prefix
_HEADER = Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12x")
_OLD_GNU_MAP = Struct("386x96sc12s17x")  # four segments, isextended, realsize, where ustar has its prefix
_OLD_GNU_MORE = Struct("504sc7x")  # 21 segments, isextended
_POSIX_MAGIC = b"ustar\0"  # and a version that nobody looks at
_GNU_MAGIC = b"ustar  \0"

_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


class Kind(Enum):
    """What a member is, by its type flag."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {
    **{kind.value: kind for kind in Kind},
    b"\0": Kind.FILE,  # before POSIX; a directory if the name ends in a slash
    b"7": Kind.FILE,  # "contiguous"
    b"S": Kind.FILE,  # sparse, GNU's old way
}


class TarLimits(NamedTuple):
    """What an archive may have: bytes of content in one member, holes included, and members."""

    member_size: int = 1 << 40
    members: int = 10_000_000


DEFAULT_LIMITS = TarLimits()


class Segment(NamedTuple):
    """A part of a sparse file that is stored: where in the file, and how many bytes."""

    offset: int
    size: int


class Member:
    """One entry, as its headers tell. *size* is the file's; of a sparse one only the segments are stored."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "size", "sparse", "uid", "xattrs")

    name: bytes
    kind: Kind
    mode: int  # the 12 bits of chmod(2)
    uid: int
    gid: int
    size: int
    mtime_ns: int  # nanoseconds since 1970
    link: bytes  # target of a symbolic link, name of the member that a hard link is to
    major: int
    minor: int
    xattrs: dict[bytes, bytes]  # by full name, user.x
    sparse: list[Segment] | None  # in order, not overlapping


class _Extensions:
    """What stands in front of a member's own header, and is about it."""

    __slots__ = ("count", "long_link", "long_name", "records")

    def __init__(self) -> None:
        self.count = 0
        self.long_name: bytes | None = None
        self.long_link: bytes | None = None
        self.records: list[tuple[bytes, bytes]] = []


class TarReader:
    """The members of an archive that comes as chunks of any sizes.

        for member in reader:
            while view := reader.take():
                ...

    Content that is not taken is skipped. Raises CorruptData that tells where, and what *chunks* raises.
    """

    def __init__(self, chunks: Iterable[bytes], limits: TarLimits = DEFAULT_LIMITS) -> None:
        self._chunks = iter(chunks)
        self._limits = limits
        self._chunk = b""
        self._view = memoryview(self._chunk)
        self._position = 0  # in the chunk
        self._before = 0  # bytes in the chunks before this one
        self._left = 0  # bytes of content that can be taken
        self._padding = 0  # bytes between them and the next header
        self._members = 0
        self._globals: dict[bytes, bytes] = {}
        self._ended = False

    def __iter__(self) -> Iterator[Member]:
        while member := self.next_member():
            yield member

    def next_member(self) -> Member | None:
        """The next one, or None after the last."""
        if self._ended:
            return None
        self._skip_content()
        extensions = None
        while block := self._header_block():
            fields = _HEADER.unpack(block)
            try:
                _check_sum(block, fields[6])
                if fields[7] in _KINDS:
                    return self._member(block, fields, extensions)
                extensions = extensions or _Extensions()
                self._extend(extensions, fields[7], _number(fields[4]))
            except ValueError as error:
                raise self._corrupt(str(error)) from None
        self._ended = True
        if extensions:
            raise self._corrupt("an extended header without a member")
        return None

    def take(self, limit: int = 1 << 20) -> memoryview:
        """The next bytes of content, at most *limit*; none at its end. The view stays valid, nothing is copied."""
        if self._position == len(self._chunk) and self._left:
            self._next_chunk()
        size = min(limit, self._left, len(self._chunk) - self._position)
        view = self._view[self._position : self._position + size]
        self._position += size
        self._left -= size
        return view

    def read(self, limit: int) -> bytes:
        """All content that is stored. Raises CorruptData if there are more than *limit* bytes of it."""
        if self._left > limit:
            raise self._corrupt(f"{self._left} bytes, where at most {limit} are expected")
        return self._content(self._left)

    # Bytes

    def _corrupt(self, what: str) -> CorruptData:
        return CorruptData(f"tar archive, before byte {self._before + self._position}: {what}")

    def _next_chunk(self) -> None:
        """Go to the next chunk; the end of the input here cuts the archive."""
        if not self._more():
            raise self._corrupt("cut short")

    def _more(self) -> bool:
        self._before += len(self._chunk)
        self._position = 0
        self._chunk = next(filter(None, self._chunks), b"")
        self._view = memoryview(self._chunk)
        return bool(self._chunk)

    def _exactly(self, size: int) -> bytes:
        """That many bytes, whatever they are."""
        parts: list[bytes] = []
        while True:
            part = self._chunk[self._position : self._position + size]
            self._position += len(part)
            size -= len(part)
            if not size:
                return b"".join((*parts, part)) if parts else part
            parts.append(part)
            self._next_chunk()

    def _content(self, size: int) -> bytes:
        if size > self._left:
            raise ValueError("less content than its format needs")
        self._left -= size
        return self._exactly(size)

    def _skip_content(self) -> None:
        size = self._left + self._padding
        while size > len(self._chunk) - self._position:
            size -= len(self._chunk) - self._position
            self._next_chunk()
        self._position += size
        self._left = self._padding = 0

    def _header_block(self) -> bytes | None:
        """The next block, or None if the archive ends here."""
        block = self._block()
        if block is None or block[0] or block != _ZEROS:
            return block
        if self._block() not in (None, _ZEROS):
            # GNU tar takes a lone zero block for the end, others for nothing.
            raise self._corrupt("a block of zeros between members")
        return None

    def _block(self) -> bytes | None:
        block = self._chunk[self._position : self._position + BLOCK]
        if len(block) == BLOCK:
            self._position += BLOCK
            return block
        if self._position == len(self._chunk) and not self._more():
            return None
        return self._exactly(BLOCK)

    # Headers; all of these raise ValueError

    def _extend(self, extensions: _Extensions, flag: bytes, size: int) -> None:
        """Read an extended header or a long name."""
        if flag not in (b"x", b"g", b"L", b"K"):
            raise ValueError(f"members of type {flag!r} are not supported")
        extensions.count += 1
        if extensions.count > _MAX_EXTENSIONS:
            raise ValueError(f"more than {_MAX_EXTENSIONS} extended headers for one member")
        if not 0 <= size <= MAX_RECORD:
            raise ValueError(f"an extended header of {size} bytes")
        content = self._exactly(size)
        self._exactly(-size % BLOCK)
        if flag == b"x":
            extensions.records = _parse_records(content)
        elif flag == b"g":
            self._extend_all(_parse_records(content))
        elif flag == b"L":
            extensions.long_name = _long_name(content)
        else:
            extensions.long_link = _long_name(content)

    def _extend_all(self, records: list[tuple[bytes, bytes]]) -> None:
        """Remember what a global header says. GNU tar heeds it and Docker does not, so it may not say much."""
        for key, _ in records:
            if key in (b"path", b"linkpath", b"size") or key.startswith((b"GNU.sparse.", *_XATTR_KEYS)):
                raise ValueError(f"a global header with {key!r}")
        self._globals.update(records)
        if sum(len(key) + len(value) for key, value in self._globals.items()) > MAX_RECORD:
            raise ValueError("too many global headers")

    def _member(self, block: bytes, fields: tuple[bytes, ...], extensions: _Extensions | None) -> Member:
        """The member that *block* is the header of, ready to take its content from."""
        name, mode, uid, gid, size, mtime, _, flag, link, magic, major, minor, prefix = fields
        self._members += 1
        if self._members > self._limits.members:
            raise ValueError(f"more than {self._limits.members} members")
        member = Member()
        member.kind = kind = _KINDS[flag]
        member.name = name.partition(b"\0")[0]
        if prefix[0] and magic.startswith(_POSIX_MAGIC):
            member.name = prefix.partition(b"\0")[0] + b"/" + member.name
        member.link = link.partition(b"\0")[0]
        member.mode = _mode(mode)
        member.uid = _number(uid)
        member.gid = _number(gid)
        member.size = _number(size)
        member.mtime_ns = _number(mtime) * 1_000_000_000
        device = kind is Kind.CHARACTER or kind is Kind.BLOCK
        member.major = _number(major) if device else 0
        member.minor = _number(minor) if device else 0
        member.xattrs = {}
        member.sparse = None
        sparse: list[tuple[bytes, bytes]] = []
        if extensions or self._globals:
            sparse = self._apply(member, extensions or _Extensions())
        if not (0 <= member.uid <= _MAX_ID and 0 <= member.gid <= _MAX_ID):
            raise ValueError(f"owner {member.uid}:{member.gid}")
        if not (0 <= member.major <= _MAX_DEVICE and 0 <= member.minor <= _MAX_DEVICE):
            raise ValueError(f"device {member.major}:{member.minor}")
        if kind is Kind.FILE:
            self._begin_file(member, flag)
            if flag == b"S":
                self._set_map(member, *self._old_map(block, magic))
            elif sparse:
                self._set_map(member, *self._pax_map(sparse, magic))
        elif member.size:
            # Whether content follows: GNU tar says so of all but directories and hard links, Docker of none.
            if kind is not Kind.DIRECTORY and kind is not Kind.HARD_LINK:
                raise ValueError(f"a {kind.name.lower()} of {member.size} bytes")
            member.size = 0
        return member

    def _apply(self, member: Member, extensions: _Extensions) -> list[tuple[bytes, bytes]]:
        """Let the extensions have their say; what pax records say of sparse files is returned, without `GNU.sparse.`"""
        sparse: list[tuple[bytes, bytes]] = []
        name = link = None
        for key, value in (*self._globals.items(), *extensions.records):
            if key == b"path":
                name = _text(value)
            elif key == b"linkpath":
                link = _text(value)
            elif key in _PAX_NUMBERS:
                _PAX_NUMBERS[key](member, value)
            elif key.startswith(_XATTR_KEYS):
                _set_xattr(member, key, value)
            elif key.startswith(b"GNU.sparse."):
                sparse.append((key[11:], value))
        if (name and extensions.long_name) or (link and extensions.long_link):
            raise ValueError("a long name both ways, as GNU's and as a pax record")
        member.name = dict(sparse).get(b"name") or name or extensions.long_name or member.name
        member.link = link or extensions.long_link or member.link
        return sparse

    # Content

    def _begin_file(self, member: Member, flag: bytes) -> None:
        """From here on take() gives the content of *member*, whose size is still what is stored."""
        self._check_size(member.size)
        if member.name.endswith(b"/"):
            if flag != b"\0" or member.size:
                raise ValueError("a file whose name ends in a slash")
            member.kind = Kind.DIRECTORY
        self._left = member.size
        self._padding = -member.size % BLOCK

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self._limits.member_size:
            raise ValueError(f"a file of {size} bytes")

    def _set_map(self, member: Member, size: int, numbers: list[int]) -> None:
        """Make *member* sparse: *size* bytes, and offsets and sizes in turn of what is stored."""
        self._check_size(size)
        if len(numbers) % 2:
            raise ValueError("a sparse map with an odd number of numbers")
        segments = [Segment(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        end = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise ValueError("a sparse map that is not in order")
            end = offset + length
        if end > size or sum(segment.size for segment in segments) != self._left:
            raise ValueError("a sparse map that does not fit the content")
        member.size = size
        member.sparse = segments

    def _old_map(self, block: bytes, magic: bytes) -> tuple[int, list[int]]:
        """Size and map of a type S member; more of the map may follow its header."""
        if magic != _GNU_MAGIC:
            raise ValueError("a sparse file of GNU's type in an archive that is not")
        fields, more, size = _OLD_GNU_MAP.unpack(block)
        numbers = _map_fields(fields)
        while more != b"\0":
            fields, more = _OLD_GNU_MORE.unpack(self._exactly(BLOCK))
            numbers += _map_fields(fields)
            if len(numbers) > MAX_RECORD // 12:
                raise ValueError("too long a sparse map")
        return _number(size), numbers

    def _pax_map(self, records: list[tuple[bytes, bytes]], magic: bytes) -> tuple[int, list[int]]:
        """Size and map of a sparse file, in one of three versions of GNU's pax records."""
        if not magic.startswith(_POSIX_MAGIC):
            raise ValueError("a sparse file with pax records in an archive of another format")
        values = dict(records)
        size = _decimal(values.get(b"realsize", values.get(b"size", b"")))
        version = values.get(b"major", b"0"), values.get(b"minor", b"0")
        if version == (b"1", b"0"):
            return size, self._stored_map()
        if version not in ((b"0", b"0"), (b"0", b"1")):
            raise ValueError(f"a sparse file of version {version}")
        keys = [key for key, _ in records if key in (b"offset", b"numbytes")]
        if b"map" in values:
            texts = values[b"map"].split(b",")
        elif keys == [b"offset", b"numbytes"] * (len(keys) // 2):
            texts = [value for key, value in records if key in (b"offset", b"numbytes")]
        else:
            raise ValueError("a sparse map that is not in order")
        if len(texts) != 2 * _decimal(values.get(b"numblocks", b"")):
            raise ValueError("a sparse map that has not as many parts as it says")
        return size, [_decimal(text) for text in texts]

    def _stored_map(self) -> list[int]:
        """The map that version 1.0 puts in front of the content: a number per line, first how many pairs follow."""
        raw = b""
        lines, wanted = 0, 1
        while lines < wanted:
            block = self._content(BLOCK)
            raw += block
            lines += block.count(b"\n")
            if wanted == 1 and lines:
                wanted = 1 + 2 * _decimal(raw.partition(b"\n")[0])
            if len(raw) > MAX_RECORD:
                raise ValueError("too long a sparse map")
        return [_decimal(line) for line in raw.split(b"\n")[1:wanted]]


# Fields and records; all of these raise ValueError


def _check_sum(block: bytes, field: bytes) -> None:
    """Compare the checksum in *field* with the sum of the bytes of *block*, which some take for signed."""
    expected = _number(field)
    if block.isascii():
        own = (zlib.adler32(block) & 0xFFFF) - 1 - (zlib.adler32(field) & 0xFFFF) + 1 + _SPACES
        if own != expected:
            raise ValueError("not the header of a member: its checksum is wrong")
        return
    own = sum(block) - sum(field) + _SPACES
    signed = own - 256 * sum(byte > 127 for byte in block)
    if expected not in (own, signed):
        raise ValueError("not the header of a member: its checksum is wrong")


@lru_cache(4096)
def _number(field: bytes) -> int:
    """A number of a header: octal, ended by a space or NUL; or base 256 (GNU). Blank is 0."""
    if field[0] & 0x80:
        return _base256(field)
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.isdigit() and b"8" not in digits and b"9" not in digits:
        return int(digits, 8)
    if field.strip(b" \0"):
        raise ValueError(f"{field!r} where a number should be")
    return 0


def _base256(field: bytes) -> int:
    """Two's complement, with the first bit set to tell that it is."""
    if field[0] not in (0x80, 0xFF):
        raise ValueError(f"{field!r} where a number should be")
    value = int.from_bytes(field if field[0] == 0xFF else b"\0" + field[1:], "big", signed=True)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"the number {value}")
    return value


@lru_cache(4096)
def _mode(field: bytes) -> int:
    """Permissions; where a blank is, GNU tar reads 7777 and others 0."""
    if not field.strip(b" \0"):
        raise ValueError("no mode")
    return _number(field) & 0o7777


def _map_fields(fields: bytes) -> list[int]:
    """Offsets and sizes out of 12-byte fields, up to the first pair that is blank."""
    numbers = []
    for at in range(0, len(fields), 24):
        if not fields[at : at + 24].strip(b"\0"):
            break
        numbers += [_number(fields[at : at + 12]), _number(fields[at + 12 : at + 24])]
    return numbers


def _parse_records(content: bytes) -> list[tuple[bytes, bytes]]:
    """The records of an extended header: `LENGTH KEY=VALUE\\n`, where the length counts all of it."""
    records = []
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 10)
        end = at + _decimal(content[at:space]) if space > 0 else 0
        equals = content.find(b"=", space, end)
        key, value, last = content[space + 1 : equals], content[equals + 1 : end - 1], content[end - 1 : end]
        if equals < 0 or not key or b"\0" in key or last != b"\n":
            raise ValueError("a malformed record in an extended header")
        records.append((key, value))
        at = end
    return records


def _long_name(content: bytes) -> bytes:
    """The content of GNU's extra member, which ends at a NUL."""
    return _text(content.partition(b"\0")[0])


def _text(value: bytes) -> bytes:
    """A name in a record. Without a value, GNU tar reads an empty one, and others the one in the header."""
    if not value or b"\0" in value:
        raise ValueError("a name that is empty or has a NUL in it")
    return value


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ValueError(f"{value[:40]!r} where a number should be")
    return int(value)


def _set_size(member: Member, value: bytes) -> None:
    member.size = _decimal(value)
    if member.size and member.kind is Kind.HARD_LINK:
        raise ValueError("a hard link with content")


def _set_uid(member: Member, value: bytes) -> None:
    member.uid = _decimal(value)


def _set_gid(member: Member, value: bytes) -> None:
    member.gid = _decimal(value)


def _set_mtime(member: Member, value: bytes) -> None:
    """`-1.5` is one and a half seconds before 1970; digits below a nanosecond are cut."""
    match = _TIME.fullmatch(value)
    if not match:
        raise ValueError(f"{value[:40]!r} where a time should be")
    sign, seconds, fraction = match.groups(b"")
    nanoseconds = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    member.mtime_ns = -nanoseconds if sign else nanoseconds


_PAX_NUMBERS: dict[bytes, Callable[[Member, bytes], None]] = {
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
}
_XATTR_KEYS = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")


def _set_xattr(member: Member, key: bytes, value: bytes) -> None:
    """SCHILY's has the value as it is, and GNU tar escapes `=` in the name; LIBARCHIVE's repeats it in base64."""
    name = key.partition(b".xattr.")[2]
    if key.startswith(b"SCHILY."):
        member.xattrs[name.replace(b"%3D", b"=").replace(b"%25", b"%")] = value
        return
    name = _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), name)
    try:
        member.xattrs.setdefault(name, binascii.a2b_base64(value))
    except binascii.Error as error:
        raise ValueError(f"extended attribute {name!r}: {error}") from None
