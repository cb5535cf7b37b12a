"""Values of words: BuildKit's rules one by one, and properties that hold for whatever a Dockerfile has."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rootless.dockerfile.expand import expand, expand_heredoc, expand_words, expansion
from rootless.dockerfile.instructions import DockerfileError

VARIABLES = {"name": "foobarbaz", "empty": "", "two": "x  y", "path": "/a/b/c.tar.gz", "star": "a*b", "ümlaut": "ü"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("plain", "plain"),
        ("$name", "foobarbaz"),
        ("${name}", "foobarbaz"),
        ("a${name}b$empty-", "afoobarbazb-"),
        ("$name_x", ""),
        ("$nothing", ""),
        ("$ümlaut", "ü"),
        # Quotes and escapes
        ('"$name"', "foobarbaz"),
        ("'$name'", "$name"),
        (r"\$name", "$name"),
        (r'"\$name \a \" \\"', r'$name \a " ' + "\\"),
        (r"'\'", "\\"),
        (r"a\ b", "a b"),
        ("a\"b\"'c'", "abc"),
        (r"\'\"", "'\""),
        ('""', ""),
        ("end\\", "end"),
        # A dollar without a name
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$.", "$."),
        ("$1x", "x"),
        ("$@", ""),
        # Defaults
        ("${nothing:-d}", "d"),
        ("${nothing-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${name:-d}", "foobarbaz"),
        ("${nothing:-}", ""),
        ("${nothing:-$name}", "foobarbaz"),
        ("${nothing:-${other:-deep}}", "deep"),
        ('${nothing:-"a b"}', "a b"),
        ("${nothing:-'}'}", "}"),
        (r"${nothing:-\}}", "}"),
        # Alternatives
        ("${name:+d}", "d"),
        ("${name+d}", "d"),
        ("${empty:+d}", ""),
        ("${empty+d}", "d"),
        ("${nothing:+d}", ""),
        ("${nothing+d}", ""),
        # Demands
        ("${name:?no}", "foobarbaz"),
        ("${empty?no}", ""),
        # Beginnings and ends
        ("${name#foo}", "barbaz"),
        ("${name#bar}", "foobarbaz"),
        ("${name#*b}", "arbaz"),
        ("${name##*b}", "az"),
        ("${name%baz}", "foobar"),
        ("${name%b*}", "foobar"),
        ("${name%%b*}", "foo"),
        ("${name#???}", "barbaz"),
        ("${name%?}", "foobarba"),
        ("${name##*}", ""),
        ("${name#*}", "foobarbaz"),
        ("${name%%*}", ""),
        ("${path##*/}", "c.tar.gz"),
        ("${path%/*}", "/a/b"),
        ("${path%%.*}", "/a/b/c"),
        (r"${star#a\*}", "b"),
        (r"${star#a\?}", "a*b"),
        ("${name#$nothing}", "foobarbaz"),
        ("${nothing#a}", ""),
        ("${path%.[a-z]z}", "/a/b/c.tar.gz"),
        # Replacements
        ("${name/ba/X}", "fooXrbaz"),
        ("${name//ba/X}", "fooXrXz"),
        ("${name/x/y}", "foobarbaz"),
        ("${name/b*/X}", "fooX"),
        ("${name//b?r/}", "foobaz"),
        ("${name//o/$two}", "fx  yx  ybarbaz"),
        (r"${path//\//-}", "-a-b-c.tar.gz"),
        ("${path//[/x}", "/a/b/c.tar.gz"),
        ("${name//a?/(&)}", "foob(&)b(&)"),
    ],
)
def test_a_word_has_its_value(word: str, value: str) -> None:
    assert expand(word, VARIABLES) == value


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("'a", "a single quote is not closed in 'a"),
        ('a"', 'a double quote is not closed in a"'),
        ('"$', "a double quote is not closed"),
        ("${", "there is no } to close ${"),
        ("${name", "there is no } to close ${"),
        ("${name:-x", "there is no } to close ${"),
        ("${name:", "${name: is not known"),
        ("${}", "there is no name after ${"),
        ("${:-x}", "there is no name after ${"),
        ("${{x}", "there is no name after ${"),
        ("${name:#x}", "${name:# is not known"),
        ("${name^^}", "${name^ is not known"),
        ("${name/x}", "there is no / after ${…/"),
        ("${name/x/y", "there is no } to close ${"),
        ("${nothing:?give it}", "nothing: give it"),
        ("${nothing?}", "nothing: is not set"),
        ("${empty:?}", "empty: is empty"),
        ("${a:-" * 60 + "}" * 60, "variables are nested too deeply"),
    ],
)
def test_a_word_that_is_wrong_says_how(word: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(word, VARIABLES)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("a b", ["a", "b"]),
        ("  a  ", ["a"]),
        ("$two", ["x", "y"]),
        ('"$two"', ["x  y"]),
        ("a$two'z z'", ["ax", "yz z"]),
        (r"a\ b", ["a b"]),
        ('"" $empty', []),
        ("a\t$name\n'b'", ["a", "foobarbaz", "b"]),
    ],
)
def test_words_are_split_at_blanks_that_are_not_quoted(word: str, words: list[str]) -> None:
    assert expand_words(word, VARIABLES) == words


def test_the_backtick_escapes_where_the_directive_says_so() -> None:
    assert expand('`$name\\$name"`"\\"', VARIABLES, escape="`") == '$name\\foobarbaz"\\'


def test_quotes_in_a_heredoc_are_part_of_it() -> None:
    assert expand_heredoc("'$name' \"${nothing:-x}\" it's \\$name\n", VARIABLES, escape="`") == (
        "'foobarbaz' \"x\" it's $name\n"
    )


def test_a_name_that_is_not_set_is_known_unless_the_word_has_an_answer() -> None:
    assert expansion("$a ${b} ${c:-x} ${d+x} ${e#f} ${name} ${g:-$h}", VARIABLES).missing == {"a", "b", "e", "h"}


def test_values_cannot_multiply_without_end() -> None:
    variables = {"a": "x" * 1000}
    with pytest.raises(DockerfileError, match="longer than a mebibyte"):
        expand("$a" * 2000, variables)
    with pytest.raises(DockerfileError, match="longer than"):
        expand("${a//x/" + "y" * 10_000 + "}", variables)


def test_a_pattern_with_many_stars_takes_no_time() -> None:
    variables = {"a": "a" * 20_000}
    assert expand("${a##" + "*a" * 50 + "b}", variables) == variables["a"]
    with pytest.raises(DockerfileError, match="too long for a pattern"):
        expand("${a//*b*b/}", variables)


letters = st.text(alphabet="ab$'\"\\`{}:-+?#%/* _1ü\n", max_size=30)
values = st.dictionaries(st.sampled_from(["a", "b", "ab", "_", "a1"]), st.text("ab*? /\\'\"$", max_size=12))


@given(letters, values, st.sampled_from(["\\", "`"]))
@example("${a/*/}", {"a": ""}, "\\")
@example("${a%\\", {"a": "x"}, "\\")
def test_whatever_a_word_is_it_has_a_value_or_an_error(word: str, variables: dict[str, str], escape: str) -> None:
    try:
        found = expansion(word, variables, escape=escape)
    except DockerfileError:
        return
    assert found.text == expand(word, variables, escape=escape)
    assert all(found.words)
    if not set("'\"$`\\") & set(word):
        assert (found.text, found.words) == (word, tuple(word.split()))


@given(st.text(max_size=40), st.sampled_from(["\\", "`"]))
def test_what_is_quoted_means_itself(text: str, escape: str) -> None:
    if "'" not in text:
        assert expansion(f"'{text}'", {}, escape=escape).text == text
    assert expansion("".join(escape + char for char in text), {}, escape=escape).text == text
    quoted = "".join(escape + char if char in f'"${escape}' else char for char in text)
    assert expansion(f'"{quoted}"', {}, escape=escape).text == text


def slow_match(pattern: str, text: str) -> bool:
    """Whether the whole of *text* matches, by trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_match(pattern[1:], text[n:]) for n in range(len(text) + 1))
    if pattern[0] == "\\" and len(pattern) > 1:
        return text[:1] == pattern[1] and slow_match(pattern[2:], text[1:])
    return bool(text) and pattern[0] in ("?", text[0]) and slow_match(pattern[1:], text[1:])


patterns = st.lists(st.sampled_from(["a", "b", "*", "?", "\\*", "\\?"]), max_size=6).map("".join)


@given(patterns, st.text("ab*?", max_size=8))
def test_beginnings_and_ends_are_the_shortest_and_the_longest(pattern: str, value: str) -> None:
    heads = [n for n in range(len(value) + 1) if slow_match(pattern, value[:n])]
    tails = [n for n in range(len(value) + 1) if slow_match(pattern, value[n:])]
    assert expand(f"${{v#{pattern}}}", {"v": value}) == value[min(heads, default=0) :]
    if not pattern.startswith("#"):
        assert expand(f"${{v##{pattern}}}", {"v": value}) == value[max(heads, default=0) :]
    assert expand(f"${{v%{pattern}}}", {"v": value}) == value[: max(tails, default=len(value))]
    assert expand(f"${{v%%{pattern}}}", {"v": value}) == value[: min(tails, default=len(value))]


@given(patterns.filter(bool), st.text("ab*?", max_size=8), st.text("xy", max_size=2), st.booleans())
def test_a_replacement_takes_the_longest_match_from_the_left(
    pattern: str, value: str, replacement: str, everywhere: bool
) -> None:
    expected, place, again = "", 0, True
    while place < len(value):
        ends = [end for end in range(place, len(value) + 1) if again and slow_match(pattern, value[place:end])]
        expected += replacement if ends else value[place]
        place = max([place + 1, *ends])
        again = everywhere or (again and not ends)
    if not value and slow_match(pattern, ""):
        expected = replacement
    assert expand(f"${{v/{'/' if everywhere else ''}{pattern}/{replacement}}}", {"v": value}) == expected


@pytest.mark.parametrize("pattern", ["?", "*a", "a"])
def test_what_replacements_come_to_is_bounded_while_they_are_made(pattern: str) -> None:
    variables = {"value": "a" * 4000, "long": "r" * 900_000}
    tracemalloc.start()
    try:
        with pytest.raises(DockerfileError):
            expand(f"${{value//{pattern}/$long}}", variables)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
