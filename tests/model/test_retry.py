"""How long a failed window and the rate limit make a request wait, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    DatasetError,
    EtlError,
    InputError,
    RateLimited,
    Refused,
    ShrinkDetected,
    TooManyRejects,
    Truncated,
    Unavailable,
)
from engine.model.retry import RateLimit, RetryPolicy, wait_after, wait_for_slot

NOW = 1_700_000_000_000
BUDGET = RateLimit()


@pytest.mark.parametrize(
    ("failure", "failures", "shortest", "longest"),
    [
        (Truncated("cut"), 1, 2.5, 5),
        (Unavailable("down"), 2, 5, 10),
        (Truncated("cut"), 4, 20, 40),
        (Truncated("cut", retry_after=50), 1, 50, 50),
        (Unavailable("down", retry_after=1e9), 1, 3600, 3600),
        (RateLimited("slow"), 1, 30, 60),
        (RateLimited("slow"), 10, 450, 900),
        (RateLimited("slow", retry_after=7), 1, 7, 8),
        (RateLimited("slow", retry_after=1e9), 20, 3600, 3601),
    ],
)
def test_waits(failure: EtlError, failures: int, shortest: float, longest: float) -> None:
    """The wait before a retry grows with each failure, is bounded, and half of it is random."""
    assert wait_after(failure, failures, lambda: 0.0) == shortest
    assert wait_after(failure, failures, lambda: 1.0) == longest


@pytest.mark.parametrize(
    ("failure", "failures"),
    [
        (Truncated("cut"), 5),
        (Unavailable("down"), 5),
        (RateLimited("slow"), 24),
        (Refused("no"), 1),
        (TooManyRejects("many"), 1),
        (ShrinkDetected("few"), 1),
        (DatasetError("full"), 1),
        (InputError("wrong"), 1),
    ],
)
def test_gives_up(failure: EtlError, failures: int) -> None:
    """A window is given up after its tries, and at once if a retry cannot help."""
    assert wait_after(failure, failures, lambda: 0.5) is None


def test_rate_limits_do_not_use_up_tries() -> None:
    """A 429 costs a wait, not one of the five tries."""
    assert wait_after(RateLimited("slow"), 6, lambda: 0.5)


def test_no_wait_overflows() -> None:
    """The doubling is bounded for any number of failures."""
    patience = RetryPolicy(tries=10_000)
    assert wait_after(Truncated("cut"), 9_999, lambda: 1.0, patience) == 300


@pytest.mark.parametrize(
    ("asked", "in_flight", "wait"),
    [
        ([], 0, 0),
        ([NOW - 10, NOW - 5], 2, 0),
        ([NOW - 900, NOW - 500, NOW - 100], 0, 100),
        ([NOW - n * 1000 for n in range(1, 61)], 0, 3_540_000),
        ([NOW - n * 1000 for n in range(1, 60)], 0, 0),
        ([NOW - 3_600_000 + n for n in range(1, 61)], 0, 1),
        ([NOW + 5_000] * 60, 0, 0),
        ([], 100, 1000),
    ],
)
def test_the_budget(asked: list[int], in_flight: int, wait: int) -> None:
    """60 an hour, 3 a second, 100 at a time; moments in the future do not count."""
    assert wait_for_slot(asked, in_flight, NOW, BUDGET) == wait


@given(st.lists(st.integers(0, 30_000), max_size=400), st.integers(1, 9), st.integers(1, 3))
def test_the_budget_is_never_exceeded(gaps: list[int], per_hour: int, per_second: int) -> None:
    """Requests at the first allowed moments never exceed the limit of an hour or a second."""
    budget = RateLimit(per_hour, per_second)
    now, asked = NOW, list[int]()
    for gap in gaps:
        now += gap
        if wait_for_slot(asked, 0, now, budget) == 0:
            asked.append(now)
    for moment in asked:
        assert sum(moment <= other < moment + 3_600_000 for other in asked) <= per_hour
        assert sum(moment <= other < moment + 1000 for other in asked) <= per_second


@given(st.lists(st.integers(0, 100_000), max_size=100))
def test_waiting_is_enough(ago: list[int]) -> None:
    """After the returned wait, one request is allowed."""
    asked = [NOW - moment for moment in ago]
    wait = wait_for_slot(asked, 0, NOW, BUDGET)
    assert wait_for_slot(asked, 0, NOW + wait, BUDGET) == 0
