"""The keys that let go of a container, among those that are for its program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.engine.attach import DEFAULT_DETACH_KEYS, Detector, parse_detach_keys
from rootless.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (DEFAULT_DETACH_KEYS, b"\x10\x11"),
        ("ctrl-a,d", b"\x01d"),
        ("CTRL-A", b"\x01"),
        ("ctrl-@", b"\0"),
        ("ctrl-[", b"\x1b"),
        ("ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1c\x1d\x1e\x1f"),
        ("~,.", b"~."),
        ("a", b"a"),
        ("", b""),
    ],
)
def test_keys_are_read_as_docker_reads_them(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ctrl-aa", "ctrl-é", "abc", "é", "a,,b", ",", "alt-a", "ctrl-p,"])
def test_other_keys_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid detach keys"):
        parse_detach_keys(text)


def feed(keys: bytes, *pieces: bytes) -> tuple[bytes, bool]:
    """All that went to the program, and whether the keys were complete in the end."""
    detector, passed = Detector(keys), b""
    for piece in pieces:
        data, detached = detector.feed(piece)
        passed += data
        if detached:
            return passed, True
    return passed, False


def test_what_comes_before_the_keys_goes_to_the_program_and_what_comes_after_does_not() -> None:
    assert feed(b"\x10\x11", b"ls\n\x10\x11exit\n") == (b"ls\n", True)


def test_the_keys_may_come_one_by_one() -> None:
    assert feed(b"\x10\x11", b"a\x10", b"\x11b") == (b"a", True)


def test_the_beginning_of_the_keys_is_held_back_until_the_next_key() -> None:
    assert feed(b"\x10\x11", b"\x10") == (b"", False)
    assert feed(b"\x10\x11", b"\x10", b"x") == (b"\x10x", False)


def test_the_first_key_twice_goes_through_once() -> None:
    assert feed(b"\x10\x11", b"\x10\x10\x11") == (b"\x10", True)


def test_keys_that_repeat_themselves_are_found_at_any_place() -> None:
    assert feed(b"aab", b"aaab") == (b"a", True)
    assert feed(b"abac", b"ababac") == (b"ab", True)


def test_without_keys_all_goes_through() -> None:
    assert feed(b"", b"\x10\x11") == (b"\x10\x11", False)


@given(st.binary(min_size=1, max_size=4), st.lists(st.binary(max_size=6)), st.binary(max_size=4))
def test_the_keys_are_found_where_they_first_are(keys: bytes, pieces: list[bytes], after: bytes) -> None:
    typed = b"".join(pieces) + keys
    assert feed(keys, *pieces, keys + after) == (typed[: typed.index(keys)], True)


@given(st.lists(st.binary(max_size=6)), st.sampled_from([b"ab", b"aab", b"abab", b"a"]))
def test_where_they_are_not_nothing_is_lost_but_what_may_be_their_beginning(pieces: list[bytes], keys: bytes) -> None:
    typed = b"".join(pieces)
    passed, detached = feed(keys, *pieces)
    if detached:
        assert keys in typed
        return
    held = typed[len(passed) :]
    assert typed.startswith(passed)
    assert keys.startswith(held)
    assert len(held) < len(keys)
