import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import CorruptData
from rootless.spec.strict_json import MAX_DEPTH, parse_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def parse(data: bytes) -> object:
    return parse_json(data, limit=1 << 20, what="document")


@given(VALUES)
def test_what_json_writes_is_read_back(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused_as_corrupt(data: bytes) -> None:
    with suppress(CorruptData):
        parse(data)


# R03
@pytest.mark.parametrize(
    "data, reason",
    [
        (b'{"a": 1, "a": 1}', "duplicate key 'a'"),
        (b'{"x": [{"a": 1, "b": 2, "\\u0061": 3}]}', "duplicate key 'a'"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[Infinity]", "Infinity is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"1e400", "number out of range: 1e400"),
        (b"-1e400", "number out of range: -1e400"),
        (b"9" * 5000, "number out of range"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half of a surrogate pair"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"a\nb"', "control character"),
        (b"{} {}", "Extra data"),
        (b"{'a': 1}", ""),
        (b"[1,]", ""),
        (b"", ""),
        (b"01", ""),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptData) as caught:
        parse(data)
    assert str(caught.value).startswith("document is not valid JSON: ")
    assert reason in str(caught.value)


def test_a_pair_of_surrogate_escapes_is_one_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_numbers_of_64_bits_are_exact() -> None:
    assert parse(b"[9223372036854775807, -9223372036854775808]") == [(1 << 63) - 1, -(1 << 63)]


# R05
def test_a_document_over_the_limit_is_refused_before_it_is_read() -> None:
    assert parse_json(b'"abc"', limit=5, what="token") == "abc"
    with pytest.raises(CorruptData, match=r"^token is larger than 4 bytes$"):
        parse_json(b'"abc"', limit=4, what="token")


# R14
@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_has_a_limit(opening: bytes, closing: bytes) -> None:
    parse(opening * (MAX_DEPTH - 1) + b"[]" + closing * (MAX_DEPTH - 1))
    for depth in (MAX_DEPTH, 900, 100_000):
        with pytest.raises(CorruptData, match="nested too deeply"):
            parse(opening * depth + b"[]" + closing * depth)


# R14
def test_many_keys_before_a_duplicate_take_no_quadratic_time() -> None:
    keys = ",".join(f'"{n}":0' for n in range(60_000))
    start = time.monotonic()
    with pytest.raises(CorruptData, match="duplicate key '59999'"):
        parse(f'{{{keys},"59999":0}}'.encode())
    assert time.monotonic() - start < 2
