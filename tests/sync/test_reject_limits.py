"""The error of a window with too many rejects. Pure."""

from collections import Counter
from datetime import date

import pytest

from engine.errors import TooManyRejects
from engine.model.batch import CORRUPT, Tally
from engine.model.window import Window
from engine.sync.reject_limits import RejectDays, Tolerance, judge

FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)
ONE, TWO = Window(FIRST, FIRST), Window(FIRST, SECOND)
FIVE = Tolerance(5, 10)
NOTHING = Tolerance(0, 10)


def message(
    window: Window, rejected: dict[date, int], rows: dict[date, int], tolerance: Tolerance
) -> str:
    """Return the error of a window with these rejects and rows a day; "" if tolerated."""
    count, days = sum(rejected.values()), RejectDays(window)
    days.by_day = Counter(rejected)
    tally = Tally(lines=count + sum(rows.values()), rejected=count)
    tally.reject_codes[CORRUPT] = count
    try:
        judge(tally, rows, days, window, tolerance)
    except TooManyRejects as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("window", "rejected", "rows", "tolerance", "words"),
    [
        (ONE, {FIRST: 11}, {FIRST: 99}, FIVE, "11 of 110 records of 2024-01-01 were rejected"),
        (ONE, {FIRST: 11}, {FIRST: 99}, FIVE, "more than the 5 % or the 10 that this flow"),
        (ONE, {FIRST: 1}, {FIRST: 999_999}, NOTHING, "and this flow tolerates no reject"),
        (ONE, {FIRST: 3}, {}, FIVE, "so that none passed"),
        (TWO, {FIRST: 1, SECOND: 90}, {FIRST: 99}, FIVE, "90 of them of 2024-01-02, more than"),
        (TWO, {SECOND: 60}, {FIRST: 9999, SECOND: 40}, FIVE, "60 of them are of 2024-01-02, more"),
        (TWO, {SECOND: 3}, {FIRST: 9999}, FIVE, "3 of them are of 2024-01-02, so that none passed"),
    ],
)
def test_the_sentence_names_day_and_reason(
    window: Window,
    rejected: dict[date, int],
    rows: dict[date, int],
    tolerance: Tolerance,
    words: str,
) -> None:
    """The error names the bad day, and a limit only if that limit was exceeded."""
    said = message(window, rejected, rows, tolerance)
    assert words in said
    assert " 0 %" not in said


@pytest.mark.parametrize(
    ("rejected", "rows", "tolerance"),
    [
        ({}, {FIRST: 1}, NOTHING),
        ({FIRST: 10}, {FIRST: 1}, FIVE),
        ({FIRST: 50}, {FIRST: 950}, FIVE),
    ],
)
def test_what_is_tolerated(
    rejected: dict[date, int], rows: dict[date, int], tolerance: Tolerance
) -> None:
    """Rejects are tolerated up to the share or the least count, whichever is larger."""
    assert message(ONE, rejected, rows, tolerance) == ""
