"""Writing a tar archive, so that the same members always make the same bytes.

POSIX's ustar, with a pax header before a member that does not fit: a name of more than 100 bytes, a number of too many
digits, extended attributes. Everything that could differ between two machines or two days is fixed: no names of users,
no times but whole seconds of modification (as Docker has them), records sorted by key. Names are bytes, and stay so.

Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar for SCHILY.xattr.
"""

import zlib
from collections.abc import Callable, Mapping

from rootless.store.tar import BLOCK, Kind

Write = Callable[[bytes | memoryview], object]

_MAX_OCTAL_ID = 0o7777777  # in 7 digits
_MAX_OCTAL_SIZE = 0o77777777777  # in 11
_SECOND = 1_000_000_000
_GATHERED = 1 << 18  # bytes that are put together before they are written
_END = bytes(2 * BLOCK)
# From the magic to the numbers of a device: "ustar", version "00", neither user's nor group's name.
_MAGIC = b"ustar\x0000" + bytes(64)
_REST = bytes(155 + 12)
_NO_DEVICE = b"0000000\x000000000\x00"
_PAX_NAME = b"PaxHeaders.0/"


class TarWriter:
    """An archive on its way to *write*, which is given bytes or views that it does not keep.

    For each member: `header`, then its content by `content`, exactly as many bytes as announced; at last `finish`.
    Raises what *write* raises, ValueError for what no archive can hold.
    """

    __slots__ = ("_buffer", "_left", "_padding", "_write", "length")

    def __init__(self, write: Write) -> None:
        self._write = write
        self._buffer = bytearray()
        self._left = 0  # bytes of content that are to come
        self._padding = 0
        self.length = 0  # bytes of the archive so far

    def header(
        self,
        name: bytes,
        kind: Kind,
        mode: int,
        owner: tuple[int, int],
        mtime_ns: int,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] | None = None,
        xattrs: Mapping[bytes, bytes] = {},
    ) -> None:
        """Begin a member; *mode* is the 12 bits of chmod(2), *name* of a directory ends in a slash."""
        if self._left:
            raise ValueError(f"{self._left} bytes of a member's content are missing")
        uid, gid = owner
        seconds = mtime_ns // _SECOND
        fits = uid <= _MAX_OCTAL_ID and gid <= _MAX_OCTAL_ID and size <= _MAX_OCTAL_SIZE
        fits = fits and 0 <= seconds <= _MAX_OCTAL_SIZE
        if not fits or xattrs or len(name) > 100 or len(link) > 100:
            self._extend(name, _records(name, link, (uid, gid, size, seconds), xattrs))
        numbers, sizes = (mode, uid, gid), (size, seconds)
        if not fits:
            numbers = (mode, _fitting(uid, _MAX_OCTAL_ID), _fitting(gid, _MAX_OCTAL_ID))
            sizes = (_fitting(size, _MAX_OCTAL_SIZE), _fitting(seconds, _MAX_OCTAL_SIZE))
        self._put(_block(name, kind.value, numbers, sizes, link, device))
        self._left = size
        self._padding = -size % BLOCK

    def content(self, data: bytes | memoryview) -> None:
        """Content of the member that was begun last."""
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("more content than its header says")
        self._put(data)
        if not self._left and self._padding:
            self._put(_END[: self._padding])
            self._padding = 0

    @property
    def missing(self) -> int:
        """How many bytes of content are to come."""
        return self._left

    def finish(self) -> None:
        """End the archive."""
        self._put(_END)
        self._flush()

    def _extend(self, name: bytes, records: Mapping[bytes, bytes]) -> None:
        data = b"".join(_record(key, records[key]) for key in sorted(records))
        shown = (_PAX_NAME + name.rstrip(b"/").rpartition(b"/")[2])[:100]
        self._put(_block(shown, b"x", (0o644, 0, 0), (len(data), 0), b"", None))
        self._put(data + bytes(-len(data) % BLOCK))

    def _put(self, data: bytes | memoryview) -> None:
        self.length += len(data)
        if len(data) >= _GATHERED:
            self._flush()
            self._write(data)
            return
        self._buffer += data
        if len(self._buffer) >= _GATHERED:
            self._flush()

    def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            self._write(memoryview(data))


def _block(
    name: bytes,
    flag: bytes,
    numbers: tuple[int, int, int],
    sizes: tuple[int, int],
    link: bytes,
    device: tuple[int, int] | None,
) -> bytes:
    """The 512 bytes of a header: *numbers* are mode, uid and gid, *sizes* size and mtime."""
    name, link = name[:100], link[:100]
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0" % numbers + b"%011o\0%011o\0" % sizes
    numbered = _NO_DEVICE if device is None else b"%07o\0%07o\0" % device
    tail = flag + link.ljust(100, b"\0") + _MAGIC + numbered + _REST
    if name.isascii() and link.isascii():
        # See store/tar.py: exact for ASCII, and ten times as fast as sum().
        total = (zlib.adler32(head + tail) & 0xFFFF) - 1
    else:
        total = sum(head) + sum(tail)
    return b"%b%06o\0 %b" % (head, total + 8 * ord(" "), tail)


def _records(
    name: bytes, link: bytes, numbers: tuple[int, int, int, int], xattrs: Mapping[bytes, bytes]
) -> dict[bytes, bytes]:
    """The pax records of a member: for what its header has no room for, and its attributes."""
    records = {b"SCHILY.xattr." + _escaped(key): value for key, value in xattrs.items()}
    if len(name) > 100:
        records[b"path"] = name
    if len(link) > 100:
        records[b"linkpath"] = link
    limits = (_MAX_OCTAL_ID, _MAX_OCTAL_ID, _MAX_OCTAL_SIZE, _MAX_OCTAL_SIZE)
    for key, number, most in zip((b"uid", b"gid", b"size", b"mtime"), numbers, limits, strict=True):
        if not 0 <= number <= most:
            records[key] = b"%d" % number
    return records


def _fitting(number: int, most: int) -> int:
    """What the header says where a pax record says *number*."""
    return number if 0 <= number <= most else 0


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where the length counts all of it, itself too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _escaped(name: bytes) -> bytes:
    """The name of an attribute as GNU tar writes it, which Go takes as it is: only where it must be escaped."""
    if b"=" in name or b"%3D" in name or b"%25" in name:
        return name.replace(b"%", b"%25").replace(b"=", b"%3D")
    return name
