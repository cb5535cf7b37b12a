import gzip
import hashlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData
from rootless.store import layer_stream
from rootless.store.layer_stream import CHUNK, LayerStream
from tests.support.evil_tar import archive, entry

Compress = Callable[[bytes], bytes]

DATA = archive(entry(b"a", content=os.urandom(3000)), entry(b"zeros", content=bytes(3 << 20)))


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    yield
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before


def zstd(data: bytes, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)


class Pieces:
    """A file whose reads give *sizes* bytes in turn, or all that is asked for; then it is at its end, or broken."""

    def __init__(self, data: bytes, sizes: tuple[int, ...] = (), error: OSError | None = None) -> None:
        self._data = data
        self._sizes = list(sizes)
        self._error = error

    def read(self, size: int, /) -> bytes:
        if self._sizes:
            size = min(size, self._sizes.pop(0))
        piece, self._data = self._data[:size], self._data[size:]
        if not piece and self._error:
            raise self._error
        return piece

    def readinto(self, buffer: memoryview, /) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def through(blob: bytes, limit: int = 1 << 40) -> bytes:
    with LayerStream(Pieces(blob), limit=limit) as stream:
        return b"".join(stream)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_a_layer_comes_out_and_its_diff_id_is_known(compress: Compress, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(compress(DATA))
    fd = os.open(tmp_path / "blob", os.O_RDONLY)
    try:
        with LayerStream(fd) as stream:
            chunks = list(stream)
        assert b"".join(chunks) == DATA
        assert max(map(len, chunks)) <= CHUNK
        assert stream.size == len(DATA)
        assert stream.diff_id == "sha256:" + hashlib.sha256(DATA).hexdigest()
    finally:
        os.close(fd)


@given(
    data=st.binary(max_size=2000),
    sizes=st.lists(st.integers(1, 50), max_size=20),
    cuts=st.lists(st.integers(0, 2000), max_size=3),
    compress=st.sampled_from([gzip.compress, zstd]),
)
def test_members_and_frames_are_joined_however_the_bytes_come(
    data: bytes, sizes: list[int], cuts: list[int], compress: Compress
) -> None:
    bounds = [0, *sorted(cuts), len(data)]
    blob = b"".join(compress(data[start:end]) for start, end in pairwise(bounds))
    with LayerStream(Pieces(blob, tuple(sizes))) as stream:
        assert b"".join(stream) == data


def test_the_diff_id_is_of_what_comes_after_the_archive_too() -> None:  # T16
    for tail in (b"junk", bytes(5000), DATA):
        with LayerStream(Pieces(gzip.compress(DATA + tail))) as stream:
            for _ in stream:
                pass
        assert stream.diff_id == "sha256:" + hashlib.sha256(DATA + tail).hexdigest()


def test_zeros_may_follow_gzip() -> None:  # T16
    assert through(gzip.compress(DATA) + bytes(5000)) == DATA


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
@pytest.mark.parametrize("tail", [b"j", b"junk" * 100, DATA, b"\0\0j"])
def test_anything_else_behind_a_stream_is_refused(compress: Compress, tail: bytes) -> None:  # T16
    with pytest.raises(CorruptData):
        through(compress(DATA) + tail)


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_a_stream_that_is_cut_is_refused_wherever(compress: Compress) -> None:  # G03
    blob = compress(os.urandom(100) + bytes(1000))
    for length in range(7, len(blob)):
        with pytest.raises(CorruptData):
            through(blob[:length])
    with pytest.raises(CorruptData):
        through((blob * 2)[:-1])


@pytest.mark.parametrize("compress", [gzip.compress, zstd], ids=["gzip", "zstd"])
def test_no_flipped_bit_passes_unseen(compress: Compress) -> None:
    data = os.urandom(100) + bytes(1000)
    blob = compress(data)
    for at in range(len(blob)):
        for bit in (1, 16):
            damaged = bytes([*blob[:at], blob[at] ^ bit, *blob[at + 1 :]])
            try:
                out = through(damaged)
            except CorruptData:
                continue
            # What is left: fields that say nothing of the data (gzip's time), and the magic itself, without which
            # it is not compressed; the archive's reader sees that.
            assert out in (data, damaged)


def test_a_skippable_frame_may_come_first() -> None:
    frame = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"skip!"
    assert through(frame + zstd(DATA)) == DATA
    with pytest.raises(CorruptData):
        through(zstd(DATA) + frame[:-1])
    with pytest.raises(CorruptData, match="cut short"):
        through(zstd(DATA) + frame[:4] + (5000).to_bytes(4, "little") + b"not all of it")


@pytest.mark.parametrize("blob", [b"BZh91AY&SY", b"\xfd7zXZ\0\0\0", b"\x04\x22\x4d\x18abc"])
def test_other_compressions_are_named(blob: bytes) -> None:
    with pytest.raises(CorruptData, match=r"bzip2|xz|lz4"):
        through(blob)


def test_an_empty_blob_is_an_empty_stream() -> None:
    assert through(b"") == b""
    assert through(b"x") == b"x"


def test_an_error_of_the_file_is_raised_as_it_is() -> None:
    with (
        LayerStream(Pieces(gzip.compress(DATA)[:500], error=OSError(5, "I/O"))) as stream,
        pytest.raises(OSError) as caught,
    ):
        list(stream)
    assert caught.value.errno == 5


def test_leaving_early_stops_the_thread() -> None:
    start = time.process_time()
    with LayerStream(Pieces(gzip.compress(bytes(64 << 20)))) as stream:
        for _ in stream:
            break
    with pytest.raises(KeyboardInterrupt), LayerStream(Pieces(gzip.compress(bytes(64 << 20)))):
        raise KeyboardInterrupt
    assert stream.size <= (layer_stream._AHEAD + 2) * CHUNK
    assert time.process_time() - start < 2


# Bombs


def memory_beyond(limit_mib: int, before: int) -> None:
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < limit_mib


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: zstd(data, 19)], ids=["gzip", "zstd"])
def test_a_bomb_goes_off_in_little_memory_and_stops_at_the_limit(compress: Compress) -> None:  # T12
    blob = compress(bytes(16 << 20)) * 60
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with LayerStream(Pieces(blob), limit=500 << 20) as stream, pytest.raises(CorruptData, match="more than 524288000"):
        for _ in stream:
            pass
    assert stream.size <= (500 << 20) + CHUNK
    memory_beyond(64, before)


def frame_with_window(log: int) -> bytes:
    """A zstd frame that wants a window of 2**log bytes, with one block of three bytes (RFC 8878)."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(log - 10) << 3]) + ((3 << 3) | 1).to_bytes(3, "little") + b"abc"


def test_a_zstd_stream_gets_at_most_128_mib_for_its_window() -> None:  # T12
    assert through(frame_with_window(27)) == b"abc"
    for log in (28, 31, 41):
        with pytest.raises(CorruptData, match="memory"):
            through(frame_with_window(log))


def test_a_million_empty_members_take_a_moment() -> None:  # T12
    for blob in (gzip.compress(b"") * 1_000_000, zstd(b"") * 1_000_000):
        start = time.process_time()
        assert through(blob) == b""
        assert time.process_time() - start < 3


def test_an_endless_gzip_header_is_refused() -> None:  # T12
    with pytest.raises(CorruptData):
        through(b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"a" * (4 << 20))
