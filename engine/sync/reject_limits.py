"""Whether the rejects of a window are within what its flow tolerates, day by day. Pure.

A rejected line with a `time` tells its day. Of one without, its neighbours tell between which days
it stands, as long as the days of a response come one after the other.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import orjson

from engine.errors import TooManyRejects
from engine.model.batch import Batch, Reject, Tally
from engine.model.flow import Flow
from engine.model.window import Window
from engine.transform.moments import utc_day

EPOCH = date(1970, 1, 1)
BLAMED = 3  # days that may be to blame, up to which each of them is asked for alone

Span = tuple[date, date]


class RejectDays:
    """Counts the rejects of a window by the days that they can be of, a batch at a time."""

    def __init__(self, window: Window) -> None:
        self._first, self._end = ((day - EPOCH).days for day in (window.from_date, window.to_date))
        self._several = window.arrival is None and self._first != self._end
        self._ordered = True
        # The last day of all batches but one, and of all.
        self._before = self._last = self._first
        self._open: list[int] = []  # the day before each reject that no row stands behind as yet
        self._between = Counter[tuple[int, int]]()
        self.told = Counter[date]()

    def add(self, batch: Batch, table: Any) -> None:
        """Take a batch that was checked; `table` has its rows and those that were rejected."""
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
        """How many rejects that tell no day stand between which days."""
        self._between.update((low, self._end) for low in self._open)
        self._open = []
        whole = (self._first, self._end)
        spans = self._between if self._ordered else {whole: sum(self._between.values())}
        return {(_date(low), _date(high)): count for (low, high), count in spans.items() if count}

    def _count(self, reject: Reject) -> None:
        """Count a reject that tells its day, or of which not even the place is known."""
        day = self._day(reject)
        if reject.part:  # a line in several parts is one line
            return
        if day is not None:
            self.told[_date(day)] += 1
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


def judge(
    tally: Tally, rows: Mapping[date, int], untold: Mapping[Span, int], window: Window, flow: Flow
) -> None:
    """Raise TooManyRejects if a window, or any day of it, has more than the flow tolerates.

    `rows` of each day; `untold` rejects may all be of any day that they may be of.
    """
    if not tally.rejected:
        return
    if not _tolerated(tally.rejected, tally.lines - tally.rejected, flow):
        raise TooManyRejects(
            f"{tally.rejected:,} of {tally.lines:,} records were rejected ({_codes(tally)}), more "
            f"than {_limits(flow)}. Nothing was changed; "
            "the rejected lines are kept with their reasons."
        )
    if window.arrival or window.from_date == window.to_date:
        return
    told, spans = tally.reject_days, list(untold.items())

    def most(day: date) -> int:
        if not rows.get(day):  # P3: no day without a row is complete while lines may be its own
            return told[day] + sum(untold.values())
        return told[day] + sum(count for (low, high), count in spans if low <= day <= high)

    bad = [day for day in told if not _tolerated(told[day], rows.get(day, 0), flow)]
    doubtful = [day for day in window.days if not _tolerated(most(day), rows.get(day, 0), flow)]
    if not doubtful:
        return
    error = TooManyRejects(
        f"{tally.rejected:,} records were rejected ({_codes(tally)}), which "
        f"{'are' if bad else 'may be'} more than {_limits(flow)} of {(bad or doubtful)[0]}. "
        "Nothing was changed; the rejected lines are kept with their reasons."
    )
    error.days = frozenset(bad or (doubtful if len(doubtful) <= BLAMED else ()))
    raise error


def _tolerated(rejected: int, passed: int, flow: Flow) -> bool:
    """Whether so many rejects beside so many other records are within what the flow tolerates.

    `partial_ingestion_min` holds only where something passed: a day of which nothing passed is not
    complete, however few its events are. 0 % tolerates none.
    """
    percent = flow.partial_ingestion_percent
    if rejected <= (rejected + passed) * percent / 100:
        return True
    return percent > 0 and passed > 0 and rejected <= flow.partial_ingestion_min


def _limits(flow: Flow) -> str:
    return (
        f"the {flow.partial_ingestion_percent:g} % or the {flow.partial_ingestion_min:,} "
        "that this flow tolerates"
    )


def _codes(tally: Tally) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in tally.reject_codes.most_common(3))
