""".env files: quoting, expansion, and what wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.compose.dotenv import Setting, merge_env, parse_env
from rootless.compose.nodes import ComposeError


def values(text: str, outside: dict[str, str] | None = None, form: str = "") -> dict[str, str | None]:
    return dict(parse_env(text, "f", (outside or {}).get, form))


@pytest.mark.parametrize(
    "line, value",
    [
        ("A=1", "1"),
        ("A= 1 ", "1"),
        ("A=", ""),
        ("A=a b", "a b"),
        ("A=a #b", "a"),
        ("A=a#b", "a#b"),
        ("A=#b", ""),
        ("A='a #b'", "a #b"),
        ("A='$X'", "$X"),
        ('A="$X"', "x"),
        ('A="\\$X"', "$X"),
        ("A=${X:-d}${Y:-d}", "xd"),
        ('A="a\\nb\\t\\"c\\""', 'a\nb\t"c"'),
        ("A='a\\nb'", "a\\nb"),
        ("A='it\\'s'", "it's"),
        ('A="a\nb"', "a\nb"),
        ("A: 1", "1"),
        ("export A=1", "1"),
        ("  A = 1", "1"),
        ("A=1\r\n", "1"),
        ("\ufeffA=1", "1"),
        ("A.b-c=1", None),
        ("X", "x"),
        ("Z", None),
        ("A='1' # c", "1"),
        ("exportA=1", None),
    ],
)
def test_a_line_has_this_value(line: str, value: str | None) -> None:
    found = values(line, {"X": "x"})
    assert list(found.values()) == [value] if value is not None or line == "Z" else len(found) == 1


@pytest.mark.parametrize(
    "text, line", [("A=1\n=2", 2), ("A B=1", 1), ("A='x", 1), ("A=1\nB='x' y", 2), ("A=$", 1), ("\n\nA=${", 3)]
)
def test_an_error_names_the_line(text: str, line: int) -> None:
    with pytest.raises(ComposeError, match=f"^f:{line}: "):
        values(text)


def test_in_the_raw_format_nothing_is_special() -> None:
    assert values("# c\nA='$X' # y\nB\n\n C=1", {"X": "x"}, "raw") == {"A": "'$X' # y", "B": None, "C": "1"}


def test_earlier_lines_are_expanded_and_the_outside_wins() -> None:
    assert values("A=1\nB=$A$X", {"X": "x"}) == {"A": "1", "B": "1x"}
    assert values("A=1\nB=$A", {"A": "2"}) == {"A": "1", "B": "2"}


def test_later_files_win_and_the_outside_wins_over_all() -> None:
    files = [[Setting("A", "1"), Setting("B", "1")], [Setting("B", "2"), Setting("C", None)]]
    assert merge_env(files, {"A": "0"}.get) == {"A": "0", "B": "2"}


@given(st.text(max_size=80))
def test_any_text_is_settings_or_a_compose_error(text: str) -> None:
    try:
        parse_env(text, "f", lambda name: None)
    except ComposeError:
        pass


@given(st.text("ab'\"\\$# \n\t=é", max_size=20))
def test_what_is_quoted_is_itself(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    assert values(f'A="{quoted}"') == {"A": text}
