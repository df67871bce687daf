"""Judge whether the rejects of a window are within its flow's tolerance, day by day. Pure.

The `time` of a rejected line gives its day. If the days of a response are in order, a line without
`time` is of a day between those of its neighbours.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import orjson

from engine.errors import TooManyRejects
from engine.model.batch import Batch, Reject, Tally
from engine.model.window import Window
from engine.transform.moments import utc_day

EPOCH = date(1970, 1, 1)
BLAMED = 3  # up to so many doubtful days, each is requested alone
UNCHANGED = "Nothing was changed; the rejected lines are kept with their reasons."

Span = tuple[date, date]


class RejectDays:
    """Counts the rejects of a window by the days that they may be of, a batch at a time."""

    def __init__(self, window: Window) -> None:
        self._first, self._end = ((day - EPOCH).days for day in (window.from_date, window.to_date))
        self._several = window.arrival is None and self._first != self._end
        self._ordered = True
        # The last day of all batches but one, and of all.
        self._before = self._last = self._first
        self._open: list[int] = []  # the day before each reject without a row behind it so far
        self._between = Counter[tuple[int, int]]()
        self.by_day = Counter[date]()

    def add(self, batch: Batch, table: Any) -> None:
        """Count the rejects of a checked batch; `table` has its rows and its rejected rows."""
        for reject in batch.rejects:
            self._count(reject)
        if not self._several or not table:
            return
        begin = self._before if batch.apart else self._last  # what is apart came before the rest
        days = table.column("event_date").view("int32").to_numpy()
        rows = np.delete(np.arange(len(days)), batch.rejected)
        days = days[rows]
        if len(days):
            ordered = days[0] >= begin and bool((np.diff(days) >= 0).all())
            self._ordered = self._ordered and ordered
            high = int(days[-1 if batch.apart else 0])
            self._between.update((low, high) for low in self._open)
            self._open = []
        checked = (reject for reject in batch.rejects if reject.stage == "check")
        for row, reject in zip(batch.rejected, checked, strict=True):
            if self._day(reject) is not None:
                continue
            at = int(np.searchsorted(rows, row))
            low = int(days[at - 1]) if at else begin
            if at < len(days):
                self._between[low, int(days[at])] += 1
            else:
                self._open.append(low)
        if len(days):
            self._before, self._last = self._last, max(self._last, int(days[-1]))

    def finish(self) -> dict[Span, int]:
        """Return the number of rejects without a day, by the days between which they lie."""
        self._between.update((low, self._end) for low in self._open)
        self._open = []
        whole = (self._first, self._end)
        spans = self._between if self._ordered else {whole: sum(self._between.values())}
        return {(_date(low), _date(high)): count for (low, high), count in spans.items() if count}

    def _count(self, reject: Reject) -> None:
        """Count a reject whose day is known, or whose place among the rows is unknown."""
        day = self._day(reject)
        if reject.part:  # a line in several parts is one line
            return
        if day is not None:
            self.by_day[_date(day)] += 1
        elif reject.stage == "lines":
            self._between[self._first, self._end] += 1

    def _day(self, reject: Reject) -> int | None:
        if not self._several:
            return self._first
        if reject.stage == "lines":
            return None
        try:
            found = utc_day(orjson.loads(reject.raw)["properties"]["time"])
        except (ValueError, KeyError, TypeError, OverflowError):
            return None
        return None if found is None else min(max(found, self._first), self._end)


def _date(number: int) -> date:
    return EPOCH + timedelta(number)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many rejects a flow tolerates, of a window and of each day: the larger of the two.

    `minimum` applies only where a record passed: a day without one is not complete, however few its
    events are. With 0 percent no reject is tolerated.
    """

    percent: float
    minimum: int

    def allows(self, rejected: int, passed: int) -> bool:
        """Return whether `rejected` records are tolerated if `passed` records passed."""
        if rejected <= (rejected + passed) * self.percent / 100:
            return True
        return self.percent > 0 and passed > 0 and rejected <= self.minimum

    def reason(self, rejected: int, passed: int) -> str:
        """Return the end of a sentence: why `rejected` records are too many."""
        if self.percent <= 0:
            return "and this flow tolerates no reject"
        if not passed and rejected <= self.minimum:
            return "so that none passed"
        return f"more than the {self.percent:g} % or the {self.minimum:,} that this flow tolerates"


def judge(
    tally: Tally,
    rows: Mapping[date, int],
    rejects: RejectDays,
    window: Window,
    tolerance: Tolerance,
) -> None:
    """Raise TooManyRejects if a window, or any day of it, has more rejects than tolerated.

    `rows`: the number of rows of each day. A reject without a day counts for each day that it may
    be of. Sets `tally.reject_days`.
    """
    by_day = tally.reject_days = rejects.by_day
    spans = rejects.finish()
    if not tally.rejected:
        return
    passed = tally.lines - tally.rejected
    if not tolerance.allows(tally.rejected, passed):
        raise TooManyRejects(
            f"{tally.rejected:,} of {tally.lines:,} records of {window} were rejected "
            f"({_codes(tally)}){_worst(by_day, window)}, "
            f"{tolerance.reason(tally.rejected, passed)}. {UNCHANGED}"
        )
    if window.arrival or window.from_date == window.to_date:
        return

    def most(day: date) -> int:
        if not rows.get(day):  # P3: no day without a row is complete while lines may be its own
            return by_day[day] + sum(spans.values())
        return by_day[day] + sum(
            count for (low, high), count in spans.items() if low <= day <= high
        )

    bad = [day for day in by_day if not tolerance.allows(by_day[day], rows.get(day, 0))]
    doubtful = [day for day in window.days if not tolerance.allows(most(day), rows.get(day, 0))]
    if not doubtful:
        return
    day = (bad or doubtful)[0]
    count, of_day = (by_day if bad else {day: most(day)})[day], rows.get(day, 0)
    error = TooManyRejects(
        f"{tally.rejected:,} records were rejected ({_codes(tally)}), and {count:,} of them "
        f"{'are' if bad else 'may be'} of {day}, {tolerance.reason(count, of_day)}. {UNCHANGED}"
    )
    error.days = frozenset(bad or (doubtful if len(doubtful) <= BLAMED else ()))
    raise error


def _worst(by_day: Counter[date], window: Window) -> str:
    if window.arrival or window.from_date == window.to_date or not by_day:
        return ""
    day, count = by_day.most_common(1)[0]
    return f", {count:,} of them of {day}"


def _codes(tally: Tally) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in tally.reject_codes.most_common(3))
