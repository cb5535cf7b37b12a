"""Names and numbers of signals."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.errors import InvalidInput
from rootless.spec import signals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SIGTERM", 15),
        ("TERM", 15),
        ("term", 15),
        ("sigKill", 9),
        ("15", 15),
        ("64", 64),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
        ("RTMAX-1", 63),
        ("CLD", 17),
    ],
)
def test_signals_have_names_and_numbers(text: str, expected: int) -> None:
    assert signals.parse_signal(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "65", "-1", "FOO", "SIG", "SIGSIGTERM", "RTMIN+31", "RTMAX-31", "9 ", "\u0661"]
)
def test_other_signals_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="invalid signal: "):
        signals.parse_signal(text)


def test_the_numbers_are_those_of_this_system() -> None:
    for known in signal.valid_signals():
        if isinstance(known, signal.Signals) and not known.name.startswith("SIGRT"):
            assert signals.parse_signal(known.name) == known


@given(st.integers(1, 64).filter(lambda number: number not in (32, 33)))
def test_a_signals_name_is_read_back(number: int) -> None:
    assert signals.parse_signal(signals.signal_name(number)) == number
