"""Patterns of .dockerignore: rules one by one, and all of them against a matcher that tries everything."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.dockerfile.ignore import Patterns
from rootless.dockerfile.instructions import DockerfileError


@pytest.mark.parametrize(
    ("pattern", "out", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b/a", "ab", "b"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b/a"]),
        ("./a//b/../c", ["a/c"], ["a/b", "c"]),
        ("  a  ", ["a"], ["b"]),
        ("*", ["a", "a/b", ".x"], []),
        ("*.log", ["a.log", ".log", "d.log/x"], ["x/a.log", "a.logs"]),
        ("*/*.log", ["x/a.log"], ["a.log", "x/y/a.log"]),
        ("?.c", ["a.c"], [".c", "ab.c", "a/b.c"]),
        ("**", ["a", "a/b"], []),
        ("**/a", ["a", "x/a", "x/y/a", "x/a/z"], ["xa", "ab"]),
        ("**/*.pyc", ["a.pyc", "x/y/a.pyc"], ["a.py"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["ab", "a/xb"]),
        ("**a", ["a", "xa", "x/ya"], ["ab"]),
        ("a**b", ["ab", "a/b", "ax/b", "ax/y/b"], ["axb"]),
        ("a**", ["a", "ab", "a/b"], ["ba"]),
        ("**/a/**/b", ["a/b", "x/a/y/b"], ["a", "b"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        (r"[\]x]", ["]", "x"], ["\\"]),
        (r"\*", ["*"], ["a", "\\*"]),
        (r"a\?b", ["a?b"], ["axb"]),
        ("a.b+(c)|{d}^$", ["a.b+(c)|{d}^$"], ["aXb+(c)|{d}^$"]),
        ("ü*", ["üx", "ü"], ["u"]),
        ("../a", ["../a"], ["a"]),
    ],
)
def test_a_pattern_leaves_out_what_it_matches_and_all_below(pattern: str, out: list[str], kept: list[str]) -> None:
    patterns = Patterns.parse(pattern)
    assert [path for path in out if not patterns.excludes(path, False)] == []
    assert [path for path in kept if patterns.excludes(path, False)] == []


def test_the_last_pattern_that_matches_decides() -> None:
    patterns = Patterns.parse("*.md\n!README*\nREADME-secret.md\n")
    asked = ("a.md", "README.md", "README-secret.md", "x/a.md")
    assert [patterns.excludes(path) for path in asked] == [True, False, True, False]


def test_a_directory_comes_back_with_what_is_in_it() -> None:
    patterns = Patterns.parse("*\n!src\nsrc/**/*.o\n")
    asked = ("x", "src", "src/a.c", "src/a.o", "src/x/a.o")
    assert [patterns.excludes(path) for path in asked] == [True, False, False, True, True]


def test_comments_blanks_and_a_byte_order_mark_are_no_patterns() -> None:
    patterns = Patterns.parse("\ufeff# a\n\n  \n#b\r\n !c \n d\r\n")
    assert [patterns.excludes(path) for path in ("a", "#b", "c", "d")] == [False, False, False, True]
    assert not Patterns.parse("# only\n")


def test_patterns_of_exclude_have_no_comments() -> None:
    assert Patterns.of(["#a", "*.x", "!b.x"]).excludes("#a")
    assert not Patterns.of(["#a", "*.x", "!b.x"]).excludes("b.x")


@pytest.mark.parametrize(
    "text", ["a\n!\n", "a\n! \n", "a\n[\n", "a\n[a\n", "a\n[]a]\n", "a\n[b-a]\n", "a\n[a-]\n", "a\nx\\\n"]
)
def test_a_pattern_that_cannot_be_read_is_named_with_its_line(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^\.dockerignore:2: "):
        Patterns.parse(text)


@pytest.mark.parametrize(
    ("text", "path", "may"),
    [
        ("a", "a", False),
        ("a\n!a/b/c", "a", True),
        ("a\n!a/b/c", "a/b", True),
        ("a\n!a/b/c", "a/c", False),
        ("a\n!a/b/c", "a/b/c", False),
        ("*\n!x", "a", False),
        ("a\n!a/*/c", "a/b", True),
        ("a\n!**/keep", "a/b", True),
        ("a\n!b*", "a", False),
        ("a\n!a\n", "a", False),
    ],
)
def test_a_directory_is_entered_only_if_something_in_it_may_come_back(text: str, path: str, may: bool) -> None:
    assert Patterns.parse(text).may_include_below(path) is may


@pytest.mark.parametrize(
    "pattern", ["*a" * 60 + "b", "**/a" * 40 + "b", "*a*a/" * 12 + "b", "**a" * 30 + "b", "[^b]*" * 30 + "c"]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    patterns = Patterns.parse(pattern)
    begin = time.process_time()
    for path in ("a" * 255, "/".join(["aaaa"] * 100), "/".join(["a" * 200] * 15)):
        assert not patterns.excludes(path)
    assert time.process_time() - begin < 5


# The slow matcher: what BuildKit's rules say, word for word, with everything tried.


def slow_match(pattern: str, path: str) -> bool:
    if pattern.startswith("**/"):
        rest = pattern[3:]
        return slow_match(rest, path) or any(
            slow_match(rest, path[n + 1 :]) for n in range(len(path)) if path[n] == "/"
        )
    if pattern == "**":
        return True
    if pattern.startswith("**"):
        rest = pattern[2:]
        return slow_match(rest, path) or any(
            slow_match(rest, path[n + 1 :]) for n in range(len(path)) if path[n] == "/"
        )
    if pattern.startswith("*"):
        for n in range(len(path) + 1):
            if "/" in path[:n]:
                return False
            if slow_match(pattern[1:], path[n:]):
                return True
        return False
    if not pattern or not path:
        return pattern == path
    if pattern.startswith("["):
        inside, _, rest = pattern[1:].partition("]")
        return (path[0] in inside.lstrip("^")) != inside.startswith("^") and slow_match(rest, path[1:])
    if pattern.startswith("?"):
        return path[0] != "/" and slow_match(pattern[1:], path[1:])
    if pattern.startswith("\\"):
        pattern = pattern[1:]
    return pattern[0] == path[0] and slow_match(pattern[1:], path[1:])


def slow_pattern_match(pattern: str, path: str) -> bool:
    """With what BuildKit takes a shorter way for: a pattern that has `**` at one end, and nothing else."""
    plain = set(pattern[2:]) & set("*?[\\")
    if pattern.startswith("**") and not plain:
        return path.endswith(pattern[2:]) or (path == pattern[3:] and pattern[2:3] == "/")
    return slow_match(pattern, path)


def slow_excludes(patterns: list[str], path: str) -> bool:
    parts = path.split("/")
    excluded = False
    for pattern in patterns:
        again = pattern.startswith("!")
        above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        if any(slow_pattern_match(pattern.removeprefix("!"), place) for place in above):
            excluded = not again
    return excluded


pieces = st.lists(st.sampled_from(["a", "b", "*", "**", "?", "[ab]", "[^a]", "\\*", "ab"]), min_size=1, max_size=3).map(
    "".join
)
pattern_texts = st.builds(
    lambda again, parts: again + "/".join(parts),
    st.sampled_from(["", "", "!"]),
    st.lists(pieces, min_size=1, max_size=3),
).filter(lambda text: "***" not in text)
paths = st.lists(st.text("ab*", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@given(st.lists(pattern_texts, max_size=4), st.lists(paths, min_size=1, max_size=4))
def test_patterns_mean_what_the_slow_matcher_says(texts: list[str], asked: list[str]) -> None:
    patterns = Patterns.parse("\n".join(texts))
    assert [patterns.excludes(path) for path in asked] == [slow_excludes(texts, path) for path in asked]


@given(st.lists(pattern_texts, max_size=4), paths, paths)
def test_what_is_not_entered_has_nothing_that_comes_back(texts: list[str], path: str, below: str) -> None:
    patterns = Patterns.parse("\n".join(texts))
    if patterns.excludes(path) and not patterns.may_include_below(path):
        assert patterns.excludes(f"{path}/{below}")


@given(st.text(max_size=60), st.text(max_size=20))
def test_whatever_a_file_of_patterns_has_it_is_read_or_refused(text: str, path: str) -> None:
    try:
        patterns = Patterns.parse(text)
    except DockerfileError:
        return
    patterns.excludes(path)
    patterns.may_include_below(path)
