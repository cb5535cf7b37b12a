"""Interpolation is a pure function of the text and the variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.compose.interpolate import (
    InterpolationError,
    Part,
    Variable,
    interpolate,
    parse,
    source,
    value,
    variables,
)

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
LITERALS = st.text("ab$ :-?+{\n", min_size=1, max_size=8)
BARE = NAMES.map(Variable)
OPERATORS = st.sampled_from([":-", "-", ":+", "+"])
PARTS: st.SearchStrategy[list[Part]] = st.recursive(
    st.lists(LITERALS | BARE, max_size=3),
    lambda parts: st.lists(LITERALS | st.builds(Variable, NAMES, OPERATORS, parts.map(tuple)), max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(NAMES, st.text(max_size=5), max_size=4)


def nothing(name: str) -> str | None:
    return None


@given(PARTS, VALUES)
def test_what_is_written_out_is_read_as_the_same_text(parts: list[Part], values: dict[str, str]) -> None:
    text = source(tuple(parts))
    assert interpolate(text, values.get) == value(tuple(parts), values.get)
    assert {variable.name for variable in variables(parse(text))} == {v.name for v in variables(tuple(parts))}


@given(st.text(max_size=60), VALUES)
def test_any_text_has_a_value_or_is_an_interpolation_error(text: str, values: dict[str, str]) -> None:
    try:
        interpolate(text, values.get)
    except InterpolationError:
        assert "$" in text


@given(st.text(max_size=30))
def test_doubled_dollar_signs_are_the_text_itself(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), nothing) == text


@given(st.text(max_size=30), st.text(max_size=30))
def test_values_are_not_looked_at_again(before: str, given_value: str) -> None:
    assert interpolate(before.replace("$", "$$") + "${V}", {"V": given_value}.get) == before + given_value


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(InterpolationError, match="nested"):
        parse("${A:-" * 60 + "}" * 60)


def test_a_word_that_is_not_needed_is_not_evaluated() -> None:
    assert interpolate("${A:-${B:?never}}", {"A": "1"}.get) == "1"
    assert interpolate("${A:+${B:?never}}", nothing) == ""


def test_unset_variables_are_told_of_once_each_time() -> None:
    told: list[str] = []
    interpolate("$A ${B} ${C:-} ${D-x}", {"B": ""}.get, told.append)
    assert told == ["A"]
