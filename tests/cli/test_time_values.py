"""Durations and times as Go and Docker read and print them."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.time_values import (
    SECOND,
    ago,
    human_duration,
    local_time,
    parse_duration,
    parse_time,
    rfc3339,
)
from rootless.errors import InvalidInput
from rootless.spec.durations import format_duration

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 24 * 3600 * SECOND


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    os.environ.pop("TZ")
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1h30m", 90 * MINUTE),
        ("300ms", 300_000_000),
        ("1.5s", 1_500_000_000),
        ("-1s", -SECOND),
        ("+5m", 5 * MINUTE),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),
        ("7ns", 7),
        (".5h", 30 * MINUTE),
        ("0.1h", 6 * MINUTE),
        ("1.h", HOUR),
        ("1s1s", 2 * SECOND),
        ("-0", 0),
        ("0.1234567891s", 123_456_789),
    ],
)
def test_durations_are_those_of_go(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("foo", 'time: invalid duration "foo"'),
        ("1", 'time: missing unit in duration "1"'),
        ("1h30", 'time: missing unit in duration "1h30"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        (".s", 'time: invalid duration ".s"'),
        ("1.2.3s", 'time: missing unit in duration "1.2.3s"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("99999999999999999999h", 'time: invalid duration "99999999999999999999h"'),
    ],
)
def test_other_durations_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (300_000_000, "300ms"),
        (1_500_000_000, "1.5s"),
        (90 * SECOND, "1m30s"),
        (90 * MINUTE, "1h30m0s"),
        (-HOUR, "-1h0m0s"),
        (100 * HOUR + 1, "100h0m0.000000001s"),
    ],
)
def test_durations_are_printed_as_go_does(duration: int, expected: str) -> None:
    assert format_duration(duration) == expected


@given(st.integers(-(1 << 62), 1 << 62))
def test_a_printed_duration_is_read_back(duration: int) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.-+hmsnuµ ", max_size=10))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        parse_duration(text)
    with suppress(InvalidInput):
        parse_time(text, 0)


NOW = 1_700_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - 10 * MINUTE),
        ("1h30m", NOW - 90 * MINUTE),
        ("0", 0),
        ("1136073600", 1136073600 * SECOND),
        ("2006", 2006 * SECOND),
        ("1136073600.000000001", 1136073600 * SECOND + 1),
        ("1136073600.5", 1136073600 * SECOND + 500_000_000),
        ("2006-01-02T15:04:05Z", 1136214245 * SECOND),
        ("2006-01-02T15:04:05.123456789Z", 1136214245 * SECOND + 123_456_789),
        ("2006-01-02T15:04:05.999+02:30", (1136214245 - 9000) * SECOND + 999_000_000),
        ("2006-01-02T15:04:05-07:00", (1136214245 + 25200) * SECOND),
        ("2006-01-02T15:04Z", 1136214240 * SECOND),
        ("2006-01-02Z", 1136160000 * SECOND),
        ("1969-12-31T23:59:59.5Z", -SECOND + 500_000_000),
    ],
)
def test_points_in_time(text: str, expected: int) -> None:
    assert parse_time(text, NOW) == expected


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2006-01-02T15:04:05", 1136214245 - 3600),
        ("2006-07-02T15:04:05", 1151852645 - 7200),
        ("2006-01-02T15:04", 1136214240 - 3600),
        ("2006-01-02T15", 1136214000 - 3600),
        ("2006-01-02", 1136160000 - 3600),
    ],
)
def test_a_time_without_a_zone_is_local(text: str, seconds: int) -> None:
    assert parse_time(text, NOW) == seconds * SECOND


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2006-13-01",
        "2006-01-02T25",
        "2006-01-02 15:04:05",
        "2006-01-02T15:04:05+99:99",
        "1.2.3",
        "0000-01-01",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="failed to parse value as time or duration"):
        parse_time(text, NOW)


@given(st.integers(0, 4_000_000_000 * SECOND))
def test_a_printed_time_is_read_back(moment: int) -> None:
    assert parse_time(rfc3339(moment), 0) == moment


@pytest.mark.usefixtures("_berlin")
def test_times_are_printed_as_docker_does() -> None:
    assert rfc3339(1136214245 * SECOND + 5) == "2006-01-02T15:04:05.000000005Z"
    assert local_time(1136214245 * SECOND + 5) == "2006-01-02 16:04:05 +0100 CET"


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (-5, "Less than a second"),
        (450_000_000, "Less than a second"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (MINUTE, "About a minute"),
        (119 * SECOND, "About a minute"),
        (3 * MINUTE, "3 minutes"),
        (59 * MINUTE + 59 * SECOND, "59 minutes"),
        (HOUR, "About an hour"),
        (HOUR + 29 * MINUTE, "About an hour"),
        (HOUR + 31 * MINUTE, "2 hours"),
        (3 * HOUR + 59 * MINUTE, "4 hours"),
        (36 * HOUR, "36 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY + 5 * HOUR, "13 days"),
        (14 * DAY, "2 weeks"),
        (30 * DAY, "4 weeks"),
        (44 * DAY, "6 weeks"),
        (60 * DAY, "2 months"),
        (164 * DAY, "5 months"),
        (720 * DAY, "24 months"),
        (734 * DAY, "2 years"),
        (1155 * DAY, "3 years"),
    ],
)
def test_durations_for_people(duration: int, expected: str) -> None:
    assert human_duration(duration) == expected


def test_how_long_ago() -> None:
    assert ago(NOW - 3 * MINUTE, NOW) == "3 minutes ago"
