"""Archives as people have them: compressed by bzip2 or xz, too, which layers never are. Bounded in what it holds."""

from collections.abc import Callable, Iterator
from typing import Protocol, cast

from rootless.errors import CorruptData
from rootless.store.layer_stream import CHUNK, Between, Readable, decompressed

_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"
_MAX_MEMORY = 256 << 20  # bytes that an xz stream may ask for


class _Decompressor(Protocol):
    """What bz2's and lzma's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


def uncompressed(source: Readable) -> Iterator[bytes]:
    """The chunks of *source*, which may be compressed with gzip, zstd, xz or bzip2.

    Raises CorruptData for a stream that is bad or cut, and what reading *source* raises.
    """
    head = b""
    while len(head) < len(_XZ) and (more := source.read(CHUNK)):
        head += more
    whole = cast(Readable, Between(head, source))
    if head.startswith(_XZ):
        return _streams(whole, _new_xz)
    if head.startswith(_BZIP2):
        return _streams(whole, _new_bzip2)
    return decompressed(whole)


def _new_xz() -> _Decompressor:
    import lzma  # few archives are

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_MEMORY)


def _new_bzip2() -> _Decompressor:
    import bz2  # likewise

    return bz2.BZ2Decompressor()


def _streams(source: Readable, new: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """What comes out of streams that follow each other, with zeros between them."""
    decompressor, data = new(), source.read(CHUNK) or b""
    while True:
        if decompressor.eof:
            data = (decompressor.unused_data or source.read(CHUNK) or b"").lstrip(b"\0")
            if not data:
                return
            decompressor = new()
        if chunk := _decompress(decompressor, data):
            yield chunk
        data = b""
        if decompressor.needs_input and not decompressor.eof:
            data = source.read(CHUNK) or b""
            if not data:
                raise CorruptData("a bad compressed stream: it is cut short")


def _decompress(decompressor: _Decompressor, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, CHUNK)
    except Exception as error:
        # LZMAError is in a module that is loaded for such archives alone; bz2 raises OSError.
        if isinstance(error, (OSError, EOFError, ValueError)) or type(error).__name__ == "LZMAError":
            raise CorruptData(f"a bad compressed stream: {error}") from error
        raise
