"""Archives as people have them: compressed by bzip2 or xz, too, which layers never are. Bounded in what it holds."""

import bz2
import lzma
from collections.abc import Callable
from typing import Any, Protocol

from rootless.errors import CorruptData
from rootless.store.layer_stream import Readable

_PIECE = 1 << 20
_MAX_DICTIONARY = 128 << 20  # bytes of memory that an xz stream may ask for


class _Decompressor(Protocol):
    """What bz2's and lzma's decompressors have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_FORMATS: dict[bytes, Callable[[], Any]] = {
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_DICTIONARY),
}


class Expanded:
    """A file that is expanded if it is bzip2 or xz; a LayerStream of it knows the rest."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._head = b""
        while len(self._head) < 6 and (more := file.read(_PIECE)):
            self._head += more
        self._new = next((new for magic, new in _FORMATS.items() if self._head.startswith(magic)), None)
        self._decompressor: _Decompressor | None = self._new() if self._new else None

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes, none at the end. Raises CorruptData."""
        if self._decompressor is None:
            data, self._head = self._head[:size], self._head[size:]
            return data or self._file.read(size) or b""
        try:
            return self._expand(size)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise CorruptData(f"a bad compressed stream: {error}") from error

    def readinto(self, buffer: memoryview, /) -> int:
        """The same into *buffer*; how many."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _expand(self, size: int) -> bytes:
        while self._decompressor:
            if self._decompressor.eof:
                rest = (self._decompressor.unused_data or self._file.read(_PIECE) or b"").lstrip(b"\0")
                if not rest:
                    return b""
                self._head, self._decompressor = rest, self._new() if self._new else None
                continue
            given, self._head = self._head, b""
            if not given and self._decompressor.needs_input:
                given = self._file.read(_PIECE) or b""
                if not given:
                    raise EOFError("it is cut short")
            if data := self._decompressor.decompress(given, size):
                return data
        return b""
