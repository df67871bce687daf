"""Whether the days under which Mixpanel exports events are UTC days of their `time`. Pure.

Seen in what one request for days brings: where a project's days begin at another moment, all of its
rows lie within as many times 24 hours as it has days, some of them in the UTC day before or after.
A row that is years off, or one that lies just outside while the days are filled to both their UTC
ends, says nothing of that: a clock somewhere was wrong.
"""

from dataclasses import dataclass
from typing import Any

SECONDS = 86_400
CHANGE = 3_600  # seconds that a day may be longer, where clocks are put back
FEW = 10  # rows in a neighbouring UTC day that are no accident, …
PERCENT = 1.0  # … if they are also this share of all
UTC = 0  # seconds after the begin of a UTC day at which days begin: with it


@dataclass(slots=True)
class Borders:
    """What the rows of one request tell of its days; days and times count from the epoch."""

    first: int
    last: int
    rows: int = 0
    before: int = 0  # rows in the UTC day before the first
    after: int = 0  # … and after the last
    low: int | None = None  # the earliest and the latest second of the rows within these
    high: int | None = None

    def add(self, days: Any, seconds: Any) -> None:
        """Take rows by the UTC day of each `time`, and by its second."""
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
        """The number of rows in the UTC days next to those of the request."""
        return self.before + self.after

    def begin(self, *, over: bool) -> int:
        """How many seconds after a UTC day the project's begin; negative: before; or UTC.

        It is as near as the rows tell. `over`: all days have ended. Of a day that goes on it
        cannot be said what lies within 24 hours.
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
