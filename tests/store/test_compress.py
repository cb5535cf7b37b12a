"""Compressing archives: the same bytes from the same archive."""

import io
import random

import pytest

from rootless.errors import InvalidInput
from rootless.store.compress import compressor
from rootless.store.layer_stream import decompressed


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_comes_out_does_not_depend_on_how_it_came_in(compression: str) -> None:
    data = random.Random(5).randbytes(1 << 20) * 2 + b"end"
    made = []
    for step in (len(data), 70_000):
        parts: list[bytes] = []
        with compressor(compression, lambda part, parts=parts: parts.append(bytes(part))) as write:  # type: ignore[misc]
            for at in range(0, len(data), step):
                write(data[at : at + step])
        made.append(b"".join(parts))
    assert made[0] == made[1]
    assert b"".join(decompressed(io.BytesIO(made[0]))) == data


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bzip2"), compressor("bzip2", lambda data: None):
        pass
