"""A blob on its way to a registry: what it has of it, and the pieces that are still to go.

The registry names a place for each upload (Location), another one after each piece. All that is left goes in one piece
unless the registry finds that too large (413), or says how small a piece may be (OCI-Chunk-Min-Length). After a broken
connection the place is asked how far the upload came (Range); where it does not say, the upload begins anew.

The bytes are hashed as they leave, and the last ones leave only if all were right: a registry never gets a whole blob
under a name that is not its own.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

from rootless.errors import CorruptData, RegistryFailure
from rootless.registry.answers import TemporaryFailure
from rootless.registry.transport import Body, Response
from rootless.spec.digest import new_hash
from rootless.spec.image import Descriptor

Read = Callable[[int, int], bytes]  # offset and count: that part of the blob

_LARGEST_WRITE = 1 << 20  # bytes
_SMALLEST_WRITE = 1 << 16
_QUICK, _SLOW = 0.02, 0.2  # seconds for one piece: it grows, or shrinks
_FIRST_CHUNK = 32 << 20  # bytes of a piece where all at once is too much
_SMALLEST_CHUNK = 1 << 18
_PROGRESS_WORTH_AN_ATTEMPT = 1 << 20  # bytes that make up for a broken connection


class Range(NamedTuple):
    """A part of a blob, from *start* to before *end*."""

    start: int
    end: int

    @property
    def header(self) -> str:
        """Content-Range, as uploads have it: without a unit, both ends included."""
        return f"{self.start}-{self.end - 1}"


@final
class Upload:
    """One blob, over any number of attempts."""

    def __init__(self, blob: Descriptor, read: Read, progress: Callable[[int], None]) -> None:
        self.blob = blob
        self.location = ""  # where the rest goes; empty as long as the registry has not said
        self.offset = 0  # bytes that the registry has
        self.is_certain = True  # that it has exactly these
        self._read = read
        self._progress = progress
        self._chunk = 0  # bytes of a piece, 0 for all that is left
        self._least = 0
        self._sent = 0  # the most that has ever been sent
        self._at_failure = 0
        self._hash = new_hash(blob.digest)
        self._hashed = 0

    def begin(self, location: str, headers: Response) -> None:
        """The registry has opened an upload at *location*."""
        self.location, self.offset, self.is_certain = location, 0, True
        least = headers.headers.get("OCI-Chunk-Min-Length", "")
        if least.isascii() and least.isdecimal() and len(least) < 12:
            self._least = int(least)

    def abandon(self) -> None:
        """The next attempt begins a new upload."""
        self.location, self.offset, self.is_certain = "", 0, True
        self._progress(0)

    def next(self) -> Range:
        """What is to be sent now."""
        end = min(self.offset + self._chunk, self.blob.size) if self._chunk else self.blob.size
        return Range(self.offset, end)

    def body(self, part: Range) -> Body | bytes:
        """*part* as what goes with a request."""
        return _Part(self, part) if part.start < part.end else b""

    def accepted(self, part: Range, response: Response, location: str) -> None:
        """The registry has taken *part*, and is ready for the next at *location*."""
        self.location, self.offset, self.is_certain = location, part.end, True
        if "Range" in response.headers:
            self._believe(response)

    def resume(self, response: Response, location: str) -> None:
        """The registry has said how far the upload came."""
        self.location, self.is_certain = location, True
        self._believe(response)

    def shrink(self) -> None:
        """The registry finds pieces of this size too large. Raises RegistryFailure where smaller ones make no sense."""
        smaller = self._chunk // 2 if self._chunk else min(_FIRST_CHUNK, self.blob.size // 2)
        if smaller < max(self._least, _SMALLEST_CHUNK):
            raise RegistryFailure(f"blob {self.blob.digest}: the registry takes no pieces of {max(smaller, 1)} bytes")
        self._chunk = smaller

    def weigh(self, failure: TemporaryFailure) -> None:
        """A failure after which the registry had more than after any before costs no attempt."""
        self.is_certain = False
        if self.offset - self._at_failure >= _PROGRESS_WORTH_AN_ATTEMPT:
            failure.cost = 0
        self._at_failure = max(self._at_failure, self.offset)

    def _believe(self, response: Response) -> None:
        """Take in Range. "0-0" is what docker-registry says of nothing at all."""
        parts = re.fullmatch(r"(?:bytes=)?0-([0-9]{1,18})", response.headers.get("Range", ""))
        end = int(parts[1]) + 1 if parts and parts[1] != "0" else 0
        if parts is None or end > self._sent:
            self.abandon()
            raise TemporaryFailure(f"blob {self.blob.digest}: the registry does not say what it has of it")
        self.offset = end
        self._progress(end)

    def pieces(self, part: Range) -> Iterator[bytes]:
        """The bytes of *part*, in pieces whose size follows the speed: what is slow should show that it goes on."""
        position, size = part.start, _SMALLEST_WRITE
        while position < part.end:
            data = self._read(position, min(size, part.end - position))
            if not data:
                raise self._damaged(f"has only {position} bytes")
            self._check(position, data)
            start = time.monotonic()
            yield data
            seconds = time.monotonic() - start
            position += len(data)
            self._sent = max(self._sent, position)
            self._progress(position)
            if seconds < _QUICK:
                size = min(size * 2, _LARGEST_WRITE)
            elif seconds > _SLOW:
                size = max(size // 2, _SMALLEST_WRITE)

    def _check(self, position: int, data: bytes) -> None:
        """Hash what was not hashed yet of *data*; at the end of the blob, compare."""
        end = position + len(data)
        if position <= self._hashed < end:
            self._hash.update(memoryview(data)[self._hashed - position :])
            self._hashed = end
            if end == self.blob.size and self._hash.hexdigest() != self.blob.digest.partition(":")[2]:
                raise self._damaged("is damaged")

    def _damaged(self, how: str) -> CorruptData:
        return CorruptData(
            f"blob {self.blob.digest} in the store {how}", hint="remove the image, and pull or make it again"
        )


class _Part:
    """A part of a blob as a body: iterated once."""

    def __init__(self, upload: Upload, part: Range) -> None:
        self._upload = upload
        self._part = part

    def __iter__(self) -> Iterator[bytes]:
        return self._upload.pieces(self._part)

    def __len__(self) -> int:
        return self._part.end - self._part.start
