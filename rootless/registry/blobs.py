"""Blobs on their way into a sink: going on where they broke off, and never more bytes than were promised.

The sink holds a prefix of the blob, from this attempt or from last week. `Range` asks for the rest, and servers answer
in three ways: 206 with the rest; 200 with everything, so that the sink starts again; 416 when they think that the
prefix is longer than the blob, so that it starts again too.
"""

import re
import time
from collections.abc import Callable
from typing import Protocol, final

from rootless.errors import CorruptData
from rootless.registry.answers import TemporaryFailure
from rootless.registry.transport import Response

_LARGEST_READ = 1 << 20  # bytes
_SMALLEST_READ = 1 << 15
_QUICK, _SLOW = 0.02, 0.2  # seconds: a read that takes less is followed by a larger one, more, by a smaller one
_PROGRESS_WORTH_AN_ATTEMPT = 1 << 20  # bytes that make up for a broken connection


class Sink(Protocol):
    """Where a blob goes. Its owner hashes the bytes, and knows at the end whether they are the right ones."""

    @property
    def offset(self) -> int:
        """How many bytes of the blob it holds already."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""

    def restart(self) -> None:
        """Throw everything away: the next bytes are the first."""


@final
class Transfer:
    """One blob going into one sink, over any number of attempts."""

    def __init__(self, sink: Sink, size: int, progress: Callable[[int], None]) -> None:
        self._sink = sink
        self._progress = progress
        self.size = size
        self.offset = sink.offset
        if self.offset > size:
            self.restart()

    @property
    def missing(self) -> int:
        return self.size - self.offset

    def write(self, data: bytes) -> None:
        self._sink.write(data)
        self.offset += len(data)
        self._progress(self.offset)

    def restart(self) -> None:
        self._sink.restart()
        self.offset = 0
        self._progress(0)

    def range_headers(self) -> dict[str, str]:
        """The header that asks for what is missing."""
        return {"Range": f"bytes={self.offset}-"} if self.offset else {}


def receive(response: Response, transfer: Transfer, what: str) -> None:
    """Write what an answer with status 200, 206 or 416 brings. *what* names the blob and the server for messages.

    Raises TemporaryFailure where another attempt may go on, CorruptData where the blob has another length.
    """
    begin = transfer.offset
    try:
        _place(response, transfer, what)
        _copy(response, transfer, what)
    except TemporaryFailure as failure:
        if transfer.offset - begin >= _PROGRESS_WORTH_AN_ATTEMPT:
            failure.cost = 0
        raise
    except CorruptData:
        transfer.restart()
        raise


def _place(response: Response, transfer: Transfer, what: str) -> None:
    """See to it that what comes belongs at transfer.offset, and is as much as is missing there."""
    if response.status == 416 or (response.status == 206 and not _continues(response, transfer)):
        transfer.restart()
        raise TemporaryFailure(f"{what}: the server cannot go on where it broke off")
    if response.status == 200 and transfer.offset:
        transfer.restart()
    length = response.content_length
    if length is not None and length != transfer.missing:
        raise CorruptData(f"{what}: {transfer.missing} bytes expected, {length} announced")


def _continues(response: Response, transfer: Transfer) -> bool:
    """Whether Content-Range says that the body is the rest of a blob of the right size."""
    parts = re.fullmatch(
        r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "")
    )
    return parts is not None and int(parts[1]) == transfer.offset and parts[3] in ("*", str(transfer.size))


def _copy(response: Response, transfer: Transfer, what: str) -> None:
    """The body, in pieces whose size follows the speed: large ones cost least, small ones are not lost when it breaks.

    One byte more than is missing is asked for, to find out that there is one.
    """
    size = _SMALLEST_READ
    while True:
        start = time.monotonic()
        data = response.read(min(size, transfer.missing + 1))
        if len(data) > transfer.missing:
            raise CorruptData(f"{what}: longer than the {transfer.size} bytes that it should have")
        if not data:
            break
        transfer.write(data)
        seconds = time.monotonic() - start
        if seconds < _QUICK:
            size = min(size * 2, _LARGEST_READ)
        elif seconds > _SLOW:
            size = max(size // 2, _SMALLEST_READ)
    if transfer.missing:
        raise TemporaryFailure(f"{what}: the connection ended after {transfer.offset} of {transfer.size} bytes")
