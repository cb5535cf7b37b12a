"""Merging as a pure function on nodes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rootless.compose.merge import clean, merge
from rootless.compose.nodes import OVERRIDE, RESET, Node, Place, plain

SCALARS = st.integers(0, 5) | st.text("ab", max_size=2) | st.booleans()
KEYS = st.sampled_from(["user", "labels", "ports", "command", "environment", "x-a", "x-b"])
TREES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3, unique_by=repr) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(KEYS, TREES, max_size=4)


def node(data: Any, tag: str = "") -> Node:
    place = Place("f", 1)
    if isinstance(data, Node):
        return data
    if isinstance(data, dict):
        return Node({key: node(value) for key, value in data.items()}, place, tag)
    if isinstance(data, list):
        return Node([node(value) for value in data], place, tag)
    return Node(data, place, tag)


def merged(base: Any, other: Any, *path: str) -> Any:
    return plain(merge(node(base), node(other), path))


@given(DOCUMENTS)
def test_nothing_over_a_document_is_the_document(data: Any) -> None:
    assert merged(data, {}) == data
    assert merged({}, data) == data


@given(DOCUMENTS, DOCUMENTS)
def test_merging_the_same_once_more_changes_nothing(base: Any, other: Any) -> None:
    once = merged(base, other)
    assert merged(once, other) == once


@given(DOCUMENTS, DOCUMENTS)
def test_all_keys_of_both_are_there_and_inputs_are_left_alone(base: Any, other: Any) -> None:
    ours, theirs = node(base), node(other)
    assert set(plain(merge(ours, theirs))) == set(base) | set(other)
    assert (plain(ours), plain(theirs)) == (base, other)


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_single_values_of_the_last_file_win(first: Any, second: Any, third: Any) -> None:
    result = merged(merged(first, second), third)
    for key, value in third.items():
        if not isinstance(value, (dict, list)):
            assert result[key] == value


@given(DOCUMENTS, DOCUMENTS)
def test_what_is_reset_is_gone_and_what_is_overridden_is_the_other(base: Any, other: Any) -> None:
    for key in base:
        assert key not in merged(base, {**other, key: node(None, RESET)})
        assert merged(base, {key: node(other, OVERRIDE)})[key] == other


def test_tags_in_a_first_file_are_taken_by_their_word() -> None:
    data = node({"a": node(1, RESET), "b": [node(2, RESET), 3], "c": node([1], OVERRIDE)})
    assert plain(clean(data)) == {"b": [3], "c": [1]}


def test_variables_without_a_value_win_in_environments_alone() -> None:
    path = ("services", "web", "environment")
    assert merged({"A": "1"}, {"A": None}, *path) == {"A": None}
    assert merged({"a": "1"}, {"a": None}, "services", "web", "labels") == {"a": "1"}
