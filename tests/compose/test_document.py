"""YAML as Compose files mean it: places, plain scalars, limits."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.compose.document import parse_documents, resolve_plain
from rootless.compose.nodes import ComposeError, Node, plain
from rootless.compose.render import to_yaml
from rootless.compose.scalars import parse_duration, parse_size
from rootless.errors import InvalidInput
from rootless.spec.durations import format_duration

SCALARS = (
    st.none() | st.booleans() | st.integers(-1000, 10**12) | st.text(st.characters(exclude_categories=("Cs", "Cc")))
)


def parse(text: str) -> Node:
    return parse_documents(text, "f.yaml")[0]


@pytest.mark.parametrize(
    "text, value",
    [
        ("1", 1), ("-1", -1), ("0o17", 15), ("017", 15), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("09", 9.0),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("true", True), ("True", True), ("yes", "yes"), ("on", "on"),
        ("~", None), ("null", None), ("22:22", "22:22"), ("1.2.3", "1.2.3"), ("2001-01-01", "2001-01-01"),
        ("-", "-"), ("+", "+"), (".", "."), ("0_", 0), ("y", "y"), (".inf", float("inf")),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_this(text: str, value: object) -> None:
    assert resolve_plain(text) == value
    assert type(resolve_plain(text)) is type(value)


def test_places_are_those_of_keys_and_items() -> None:
    found = parse("a:\n  b: 1\n  c:\n    - x\n    - y\n")
    inner = found.value["a"].value
    assert [node.place.line for node in (found.value["a"], inner["b"], inner["c"], *inner["c"].value)] == [
        1,
        2,
        3,
        4,
        5,
    ]


@given(st.dictionaries(st.text("abc-", min_size=1), st.lists(SCALARS) | SCALARS, min_size=1))
def test_what_is_printed_is_read_as_the_same(data: dict[str, object]) -> None:
    document = {f"x-{key}": value for key, value in data.items()}
    assert plain(parse(to_yaml(document, raw=True))) == document


@given(st.text(max_size=100))
def test_any_text_is_documents_or_a_compose_error(text: str) -> None:
    try:
        parse_documents(text, "f")
    except ComposeError as error:
        assert str(error).startswith("f")  # noqa: PT017


def test_aliases_cost_no_time_until_they_are_too_many() -> None:
    text = "x0: &x0 [l,l]\n" + "".join(f"x{n}: &x{n} [*x{n - 1},*x{n - 1}]\n" for n in range(1, 60))
    began = time.monotonic()
    with pytest.raises(ComposeError, match="aliases make this more"):
        parse(text)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!binary", "!other", "!<tag:example.org,2000:x>"])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ComposeError, match="unknown tag"):
        parse(f"a: {tag} x")


@given(st.integers(0, 10**15))
def test_a_duration_is_read_as_it_is_printed(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "nanoseconds, text",
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (10**6, "1ms"), (90 * 10**9, "1m30s"), (3600 * 10**9, "1h0m0s")],
)
def test_durations_are_printed_as_go_does(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@pytest.mark.parametrize(
    "text, size", [("1", 1), ("1b", 1), ("2k", 2048), ("2KB", 2048), ("1.5m", 1572864), ("1gib", 1 << 30), ("-1", -1)]
)
def test_a_size_is_this_many_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.text("0123456789kmgbi.-", max_size=12))
def test_other_sizes_are_invalid_input(text: str) -> None:
    try:
        assert parse_size(text) >= -1
    except InvalidInput:
        pass
