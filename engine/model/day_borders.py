"""Detect from the rows of one request whether a project's days are UTC days of `time`. Pure.

Where the days of a project begin at another moment, the rows of n days lie within n times 24 hours,
some of them in the UTC day before the first or after the last. A row that is years off, or one just
outside while the days are full from UTC midnight to midnight, is no evidence: a clock was wrong.
"""

from dataclasses import dataclass
from typing import Any

SECONDS = 86_400
CHANGE = 3_600  # seconds that a day may be longer, where clocks are put back
FEW = 10  # rows in neighbouring UTC days from which they are evidence, …
PERCENT = 1.0  # … if they are also this share of all rows
UTC = 0  # seconds from the begin of a UTC day to that of a project's day


@dataclass(slots=True)
class Borders:
    """Where the rows of one request lie around its days; days and seconds since the epoch."""

    first: int
    last: int
    rows: int = 0
    before: int = 0  # rows in the UTC day before the first
    after: int = 0  # … and after the last
    low: int | None = None  # earliest second of the rows in these days and beside them
    high: int | None = None  # latest second of them

    def add(self, days: Any, seconds: Any) -> None:
        """Count rows, given the UTC day and the second of each `time`, as arrays."""
        self.rows += len(days)
        near = (days >= self.first - 1) & (days <= self.last + 1)
        if not near.any():
            return
        self.before += int((days == self.first - 1).sum())
        self.after += int((days == self.last + 1).sum())
        times = seconds[near]
        low, high = int(times.min()), int(times.max())
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    @property
    def rows_outside(self) -> int:
        """Return the number of rows in the UTC days just before and after the request's."""
        return self.before + self.after

    def begin(self, *, over: bool) -> int:
        """Return the seconds from the begin of a UTC day to that of a project's day, or UTC.

        Negative: the project's days begin earlier. As exact as the rows are dense. `over`: whether
        all days have ended; of a day that goes on it is unknown what lies within 24 hours.
        """
        if not self.rows_outside or self.low is None or self.high is None:
            return UTC
        longest = (self.last - self.first + 1) * SECONDS + CHANGE
        fits = over and self.high - self.low < longest
        many = self.rows_outside >= FEW and self.rows_outside >= self.rows * PERCENT / 100
        if not (fits or many):
            return UTC
        if self.before >= self.after:
            return self.low - self.first * SECONDS
        return self.high + 1 - (self.last + 1) * SECONDS
