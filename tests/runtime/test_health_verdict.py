"""What the results of health checks add up to: Docker's rules."""

import pytest

from rootless.runtime.health import Verdict


def after(results: list[tuple[int, float]], retries: int = 3, start_period: float = 0) -> Verdict:
    """The verdict after *results*: (exit code, seconds since the start)."""
    verdict = Verdict(retries, start_period)
    for exit_code, seconds in results:
        verdict.add(exit_code, seconds)
    return verdict


def test_it_begins_as_starting() -> None:
    assert after([]).status == "starting"


def test_one_success_makes_it_healthy() -> None:
    assert after([(0, 1)]).status == "healthy"


def test_failures_up_to_the_last_but_one_change_nothing() -> None:
    verdict = after([(0, 1), (1, 2), (1, 3)])
    assert (verdict.status, verdict.failing_streak) == ("healthy", 2)


@pytest.mark.parametrize("first", [[], [(0, 1.0)]])
def test_as_many_failures_as_retries_make_it_unhealthy(first: list[tuple[int, float]]) -> None:
    verdict = after([*first, (1, 2), (7, 3), (-1, 4)])
    assert (verdict.status, verdict.failing_streak) == ("unhealthy", 3)


def test_a_success_in_between_ends_the_streak() -> None:
    verdict = after([(1, 1), (1, 2), (0, 3), (1, 4), (1, 5)])
    assert (verdict.status, verdict.failing_streak) == ("healthy", 2)


def test_it_recovers() -> None:
    assert after([(1, 1), (1, 2), (1, 3), (1, 4), (0, 5)]).status == "healthy"


def test_failures_in_the_start_period_do_not_count() -> None:
    verdict = after([(1, n) for n in range(9)], start_period=10)
    assert (verdict.status, verdict.failing_streak) == ("starting", 0)


def test_failures_after_the_start_period_count() -> None:
    assert after([(1, 5), (1, 11), (1, 12), (1, 13)], start_period=10).status == "unhealthy"


def test_the_first_success_ends_the_start_period() -> None:
    assert after([(0, 1), (1, 2), (1, 3), (1, 4)], start_period=10).status == "unhealthy"


def test_one_retry_is_no_patience() -> None:
    assert after([(1, 1)], retries=1).status == "unhealthy"
