"""store/expand.py: every compression that people use, and streams that lie or are cut."""

import bz2
import gzip
import hashlib
import io
import lzma
import subprocess
import sys
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless.errors import CorruptData
from rootless.store.expand import uncompressed

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: data,
    "gzip": gzip.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("how", COMPRESS)
@given(data=st.binary(max_size=5000), repeat=st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_what_is_compressed_comes_out_as_it_went_in(how: str, data: bytes, repeat: int) -> None:
    whole = data * repeat
    packed = COMPRESS[how](whole)
    assert b"".join(uncompressed(io.BytesIO(packed))) == whole


@pytest.mark.parametrize("how", ["xz", "bzip2"])
def test_streams_one_after_the_other_are_one(how: str) -> None:
    packed = COMPRESS[how](b"first") + COMPRESS[how](b"second")
    assert b"".join(uncompressed(io.BytesIO(packed))) == b"firstsecond"


@pytest.mark.parametrize("how", ["gzip", "zstd", "xz", "bzip2"])
def test_a_stream_that_is_cut_or_damaged_is_refused(how: str) -> None:
    packed = COMPRESS[how](hashlib.sha512(b"x").digest() * 100 + bytes(range(256)) * 50)
    middle = len(packed) // 2
    for bad in (packed[:middle], packed[:middle] + bytes([packed[middle] ^ 0x55]) + packed[middle + 1 :]):
        with pytest.raises(CorruptData):
            b"".join(uncompressed(io.BytesIO(bad)))


def test_an_xz_stream_that_asks_for_more_memory_than_is_allowed_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}]
    packed = lzma.compress(b"x" * 1000, filters=filters)
    with pytest.raises(CorruptData, match="bad compressed stream"):
        b"".join(uncompressed(io.BytesIO(packed)))


def test_what_few_archives_need_is_loaded_for_these_alone() -> None:
    check = (
        "import io, sys; from rootless.store.expand import uncompressed; "
        "list(uncompressed(io.BytesIO(b'plain'))); sys.exit(bool({'bz2', 'lzma'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
