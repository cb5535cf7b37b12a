"""From a layer's blob, compressed or not, to the tar archive in it and its diff_id.

The first bytes tell what a blob is; what its media type says is not asked. The diff_id is the digest of all bytes that
come out, those after the end of the archive too, whoever reads them. So what counts as the end of a stream matters:

- gzip: any number of members, then zeros, as gzip(1) has it; anything else is an error. Checksums are compared.
- zstd: any number of frames. The reader of `zstandard` takes a stream that is cut for one that has ended; therefore a
  frame of our own is put behind it, and only if its content is the last to come out is the stream whole.

A thread reads, decompresses and hashes, a few chunks ahead, while the caller writes files: isal, zstandard and hashlib
let go of the interpreter lock for as long as they work, and so does write(2).
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from gzip import BadGzipFile
from io import FileIO, RawIOBase
from types import TracebackType
from typing import IO, Protocol, cast, final

import zstandard
from isal import igzip, isal_zlib

from rootless.errors import CorruptData
from rootless.spec.digest import DiffID

CHUNK = 1 << 20  # bytes
MAX_SIZE = 1 << 40  # bytes that may come out of one layer, unless told otherwise
MAX_WINDOW = 128 << 20  # bytes of memory that a zstd stream may ask for; `zstd --long` asks for that

_AHEAD = 4  # chunks
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte of 0x50 to 0x5f
_UNKNOWN = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x04\x22\x4d\x18": "lz4"}
_END_MARK = b"the stream is whole"


class Readable(Protocol):
    """A file open for reading, or what behaves like one."""

    def read(self, size: int, /) -> bytes | None: ...

    def readinto(self, buffer: memoryview, /) -> int | None: ...


@final
class LayerStream:
    """The chunks of a layer, uncompressed, to go through once. At the end, `diff_id` and `size` are known.

        with LayerStream(blob_fd) as stream:
            unpack_layer(stream, ...)
            stream.diff_id

    Going through it raises CorruptData for a stream that is bad or cut or has more than *limit* bytes, OSError where
    the blob cannot be read. Leaving it stops the thread.
    """

    def __init__(
        self,
        source: int | Readable,
        *,
        limit: int = MAX_SIZE,
        read: Callable[[Readable], Iterator[bytes]] | None = None,
    ) -> None:
        """*source* is an fd, of which a duplicate is used, or a file that stays open until this is left.

        *read* makes chunks of it; without, `decompressed` does.
        """
        self.size = 0  # bytes that have come out
        self._limit = limit
        self._read = read or decompressed
        self._hash = hashlib.sha256()
        self._own = FileIO(os.dup(source)) if isinstance(source, int) else None
        self._source: Readable = self._own or source  # type: ignore[assignment]
        self._ready: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = self._left = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="layer", daemon=True)

    def __enter__(self) -> "LayerStream":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def diff_id(self) -> DiffID:
        """The digest of all that has come out, which is the layer's when that was all."""
        return DiffID("sha256:" + self._hash.hexdigest())

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended)
                chunk = self._ready.popleft() if self._ready else None
                self._changed.notify_all()
            if chunk is None:
                break
            yield chunk
        if self._failure:
            raise self._failure

    def _work(self) -> None:
        """The thread. What goes wrong is raised where the chunks are waited for."""
        try:
            for chunk in self._read(self._source):
                self.size += len(chunk)
                if self.size > self._limit:
                    raise CorruptData(f"a layer of more than {self._limit} bytes")
                self._hash.update(chunk)
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < _AHEAD or self._left)
                    if self._left:
                        return
                    self._ready.append(chunk)
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
        finally:
            if self._own:
                self._own.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()


def decompressed(source: Readable) -> Iterator[bytes]:
    """The chunks of a stream that is gzip, zstd or neither. Raises CorruptData, and what reading *source* raises."""
    head = b""
    while len(head) < 6 and (more := source.read(CHUNK)):
        head += more
    whole = Between(head, source)
    try:
        if head.startswith(_GZIP):
            yield from _chunks(igzip.IGzipFile(fileobj=whole, mode="rb"))  # type: ignore[no-untyped-call]
        elif head.startswith(_ZSTD) or (head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50):
            yield from _zstd(whole)
        else:
            for magic, name in _UNKNOWN.items():
                if head.startswith(magic):
                    raise CorruptData(f"compressed with {name}, which layers cannot be")
            yield head
            yield from _chunks(source)
    except (BadGzipFile, EOFError, OverflowError, isal_zlib.error, zstandard.ZstdError) as error:  # type: ignore[misc]
        raise CorruptData(f"a bad compressed stream: {error}") from error


def _chunks(file: Readable) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _zstd(stream: "Between") -> Iterator[bytes]:
    """The chunks of a zstd stream, which ends where our own mark comes out of it."""
    stream.tail = zstandard.ZstdCompressor().compress(_END_MARK)
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    reader = decompressor.stream_reader(cast(IO[bytes], stream), read_across_frames=True)
    last = b""
    for chunk in _chunks(reader):
        if len(chunk) < len(_END_MARK):
            last += chunk
            continue
        if last:
            yield last
        last = chunk
    if not last.endswith(_END_MARK):
        raise CorruptData("a compressed stream that is cut short")
    yield last[: -len(_END_MARK)]


class Between(RawIOBase):
    """A file: what was read of another one already, the rest of that, and a *tail*."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest
        self.tail = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        if not self._head:
            size = self._rest.readinto(buffer)
            if size:
                return size
            self._head, self.tail = self.tail, b""
        size = min(len(buffer), len(self._head))
        buffer[:size] = self._head[:size]
        self._head = self._head[size:]
        return size
