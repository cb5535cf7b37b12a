"""Compressing a layer's archive, so that the same archive always makes the same bytes.

Gzip is made of blocks of one MiB, each deflated by a thread on its own (isal lets go of the interpreter lock) and ended
on a whole byte, which together are one member (RFC 1951, RFC 1952). So what comes out depends neither on the number of
processors nor on how the archive came in.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import zstandard
from isal import isal_zlib

from rootless.errors import InvalidInput
from rootless.store.tar_write import Write

_BLOCK = 1 << 20  # bytes that are deflated together
_GZIP_LEVEL = 2  # of isal's 0 to 3
_ZSTD_LEVEL = 3
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, from an unknown system
_LAST_BLOCK = b"\x03\x00"  # of a deflate stream: nothing in it


@contextmanager
def compressor(compression: str, write: Write) -> Iterator[Write]:
    """What compresses on the way to *write*; left without an error, it ends the stream.

    Raises InvalidInput for a *compression* that is not there.
    """
    if compression == "gzip":
        with _Gzip(write) as gzip:
            yield gzip.write
            gzip.finish()
    elif compression == "zstd":
        # What its threads make does not depend on how many there are.
        threads = len(os.sched_getaffinity(0))
        zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=threads, write_checksum=True).compressobj()
        yield lambda data: write(zstd.compress(data))
        write(zstd.flush())
    elif compression:
        raise InvalidInput(f"unknown compression {compression!r}", hint="there are: gzip, zstd")
    else:
        yield write


class _Gzip:
    """One member of gzip, deflated by several threads, which leaving this ends."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._buffer = bytearray()
        self._crc = self._size = 0
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)
        self._pending: deque[Future[bytes]] = deque()
        write(_GZIP_HEADER)

    def __enter__(self) -> "_Gzip":  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def write(self, data: bytes | memoryview) -> None:
        """Take a part of the archive."""
        self._crc = isal_zlib.crc32(data, self._crc)
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) >= _BLOCK:
            self._give(bytes(self._buffer[:_BLOCK]))
            del self._buffer[:_BLOCK]

    def finish(self) -> None:
        """End the stream."""
        self._give(bytes(self._buffer))
        self._take(0)
        self._write(_LAST_BLOCK + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _give(self, block: bytes) -> None:
        self._pending.append(self._pool.submit(_deflate, block))
        self._take(2 * self._threads)

    def _take(self, leave: int) -> None:
        """Write what is deflated, in order, until no more than *leave* blocks are on their way."""
        while len(self._pending) > leave:
            self._write(self._pending.popleft().result())


def _deflate(block: bytes) -> bytes:
    """A block of a raw deflate stream that ends on a whole byte, and refers to nothing before it."""
    compress = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, -15)
    return bytes(compress.compress(block) + compress.flush(isal_zlib.Z_SYNC_FLUSH))
