"""The bytes of an image's layers, for who sends them somewhere: push and save.

A layer that was pulled has its blob, which goes out as it came. A layer made here has none: its archive is made from
its directory, checked against its diff_id, and compressed on the way. Gzip is made of blocks of one MiB, each deflated
by a thread on its own (isal lets go of the interpreter lock) and ended on a whole byte, which together are one member.
So what comes out depends neither on the number of processors nor on how the archive came in.
"""

import hashlib
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import zstandard
from isal import isal_zlib

from rootless.engine.context import Engine
from rootless.engine.image_new import layer_descriptors
from rootless.errors import CorruptData, InvalidInput
from rootless.spec.digest import ChainID, Digest
from rootless.spec.image import OCI_LAYER, Descriptor
from rootless.store.images import Image
from rootless.store.layer_stream import LayerStream
from rootless.store.layout import load_record
from rootless.store.pack import pack
from rootless.store.recorded import read_recorded
from rootless.store.tar_write import Write

COMPRESSIONS = ("gzip", "zstd", "")

_BLOCK = 1 << 20  # bytes that are deflated together
_GZIP_LEVEL = 2  # of isal's 0 to 3: the last one that is faster than reading from a disk
_ZSTD_LEVEL = 3
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, from an unknown system
_LAST_BLOCK = b"\x03\x00"  # of a deflate stream: nothing in it


def has_blob(engine: Engine, image: Image, index: int) -> bool:
    """Whether layer *index* of the image, from the bottom, is kept as the blob that its manifest names."""
    return engine.blobs.has(image.blobs[index])


def write_tar(engine: Engine, layer: ChainID, write: Write) -> None:
    """Give the archive of a layer to *write*, uncompressed.

    Raises CorruptData where what is in the store is not what its diff_id names (at the end: the bytes have been
    written then), and what *write* raises.
    """
    engine.enter_namespace()
    directory = engine.layers.directory(layer)
    try:
        record = load_record(os.path.join(directory, "layer.json"))
    except FileNotFoundError:
        raise CorruptData(
            f"layer {layer} is missing from the store", hint="remove the image, and make it again"
        ) from None
    blob = record.get("blob")
    found = (
        _unpacked(engine, Digest(blob), write)
        if blob and engine.blobs.has(Digest(blob))
        else _packed(engine, directory, write)
    )
    if found != record["diff_id"]:
        raise CorruptData(
            f"layer {layer} holds {found}, and its record says {record['diff_id']}",
            hint="remove the image, and make or pull it again",
        )


def compressed(engine: Engine, image: Image, index: int, compression: str, to_fd: int) -> Descriptor:
    """Write layer *index* of the image, from the bottom, to *to_fd*; what stands for it in a manifest.

    A blob that is kept goes as it is, whatever *compression* says: "gzip", "zstd", or "" for none. Raises CorruptData,
    and OSError for what cannot be written.
    """
    if has_blob(engine, image, index):
        _copy(engine.blobs.path(image.blobs[index]), to_fd)
        return layer_descriptors(engine, image)[index]
    digest = hashlib.sha256()
    written = 0

    def write(data: bytes | memoryview) -> None:
        nonlocal written
        digest.update(data)
        written += len(data)
        write_all(to_fd, data)

    with compressor(compression, write) as sink:
        write_tar(engine, image.layers[index], sink)
    media_type = f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER
    return Descriptor(media_type, Digest(f"sha256:{digest.hexdigest()}"), written)


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


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2), until all is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _packed(engine: Engine, directory: str, write: Write) -> str:
    fd = os.open(os.path.join(directory, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return pack(fd, write, style=engine.whiteout_style, recorded=read_recorded(directory)).diff_id
    finally:
        os.close(fd)


def _unpacked(engine: Engine, blob: Digest, write: Callable[[bytes], object]) -> str:
    """The archive in a blob that was pulled."""
    fd = os.open(engine.blobs.path(blob), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with LayerStream(fd) as stream:
            for chunk in stream:
                write(chunk)
        return stream.diff_id
    finally:
        os.close(fd)


def _copy(path: str, to_fd: int) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_BLOCK):
            write_all(to_fd, chunk)
