"""`--filter` selects what Docker's does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli import filters
from rootless.cli.filters import collect_filters, parse_filter
from rootless.cli.time_values import SECOND
from rootless.errors import InvalidInput

KNOWN = ("name", "label", "label!", "status", "exited", "dangling", "since", "until")


def collected(*texts: str) -> filters.Filters:
    return collect_filters(map(parse_filter, texts), KNOWN)


def test_a_filter_is_a_key_and_a_value() -> None:
    assert parse_filter("Name = a=b ") == ("name", "a=b")
    assert parse_filter("label!=a=b") == ("label!", "a=b")
    with pytest.raises(InvalidInput, match=r"^bad format of filter \(expected name=value\)$"):
        parse_filter("name")


def test_values_of_a_key_are_collected() -> None:
    assert collected("name=a", "status=x", "name=b", "name=a") == {"name": ["a", "b"], "status": ["x"]}


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^invalid filter 'nmae'$"):
        collected("nmae=x")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], True),
        (["label=a"], True),
        (["label=a=1"], True),
        (["label=a=2"], False),
        (["label=a", "label=b=x=y"], True),
        (["label=a", "label=c"], False),
        (["label=a="], False),
        (["label=b"], True),
        (["label!=c"], True),
        (["label!=a"], False),
        (["label!=a=2"], True),
        (["label=b", "label!=a=1"], False),
    ],
)
def test_labels(wanted: list[str], expected: bool) -> None:
    assert filters.match_labels_filters(collected(*wanted), {"a": "1", "b": "x=y"}) is expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], True),
        (["web-1"], True),
        (["eb"], True),
        (["^web"], True),
        (["^/web"], True),
        (["1$"], True),
        (["x", "w.b"], True),
        (["^eb"], False),
        (["WEB"], False),
        (["("], False),
        (["web-1["], False),
    ],
)
def test_names(wanted: list[str], expected: bool) -> None:
    assert filters.match_name(wanted, "web-1") is expected


def test_a_name_that_is_no_pattern_matches_itself() -> None:
    assert filters.match_name(["a["], "a[")


@given(st.text(max_size=8), st.text(max_size=8))
def test_any_pattern_matches_or_does_not(pattern: str, name: str) -> None:
    assert filters.match_name([pattern], name) in (True, False)
    assert filters.match_name([name], name)


def test_ids_are_known_by_their_beginning() -> None:
    assert filters.match_id(["4f", "sha256:4f5"], "sha256:4f5a")
    assert filters.match_id([], "x")
    assert not filters.match_id(["5a"], "sha256:4f5a")
    assert not filters.match_id([""], "4f5a")


def test_some_keys_have_one_value() -> None:
    assert filters.one_value(collected("since=a"), "since") == "a"
    assert filters.one_value({}, "since") == ""
    with pytest.raises(InvalidInput, match="once"):
        filters.one_value(collected("since=a", "since=b"), "since")


def test_some_values_are_true_or_false() -> None:
    assert filters.bool_value(collected("dangling=true"), "dangling") is True
    assert filters.bool_value(collected("dangling=0"), "dangling") is False
    assert filters.bool_value({}, "dangling") is None
    for text in ("dangling=maybe", "dangling="):
        with pytest.raises(InvalidInput, match=f"invalid filter '{text}'"):
            filters.bool_value(collected(text), "dangling")


def test_statuses_are_known_words_and_exits_are_numbers() -> None:
    assert filters.one_of_filter(collected("status=running"), "status", ("running",)) == ["running"]
    with pytest.raises(InvalidInput, match="invalid filter 'status=runing'"):
        filters.one_of_filter(collected("status=runing"), "status", ("running",))
    assert filters.exit_codes(collected("exited=0", "exited=137")) == {0, 137}
    with pytest.raises(InvalidInput, match="invalid filter 'exited=x'"):
        filters.exit_codes(collected("exited=x"))


def test_times_are_relative_to_now() -> None:
    assert filters.time_window(collected("until=10s"), 100 * SECOND) == (None, 90 * SECOND)
    assert filters.time_window(collected("since=5", "until=7.5"), 0) == (5 * SECOND, 7_500_000_000)
