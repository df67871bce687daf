"""The window of a request, and the calendar arithmetic of its days. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
OPTIONAL = ("overlap", "doubtful", "again", "alone")  # in JSON


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Whole days of the project's calendar, both ends inclusive, as Mixpanel counts them.

    `mp_processing_time_ms`, in ms since the epoch, may narrow it in one of two ways: `arrival` to
    the half-open span `[start, end)`; `before` to events that Mixpanel processed before that
    moment, or that have no processing time.

    overlap   ms before `arrival` that are requested as well: Mixpanel may show an event later than
              its processing time says
    doubtful  moment up to which the table may have events of `arrival` already; 0: it has none
    again     whether all of `arrival` was requested before, by a clock that was wrong
    alone     whether each day takes a request, and its rows are stored under that day
    """

    from_date: date
    to_date: date
    arrival: tuple[int, int] | None = None
    before: int | None = None
    overlap: int = 0
    doubtful: int = 0
    again: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        if self.from_date > self.to_date:
            raise ValueError(f"a window from {self.from_date} to {self.to_date} holds no day")
        if self.arrival is not None and self.before is not None:
            raise ValueError("a window is narrowed by `arrival` or by `before`, not by both")

    @property
    def days(self) -> list[date]:
        """Return the days of the window, in order."""
        return list(each_day(self.from_date, self.to_date))

    @property
    def requests(self) -> "list[Window]":
        """Return a window for each request that this one takes."""
        days = self.days if self.alone else []
        return [replace(self, from_date=day, to_date=day) for day in days] or [self]

    @property
    def without_last_day(self) -> "Window | None":
        """Return the window without its last day; None if it has one day."""
        one = self.from_date == self.to_date
        return None if one else replace(self, to_date=self.to_date - DAY)

    @property
    def requested(self) -> tuple[int, int] | None:
        """Return the span of arrival that the request names, with its overlap, in ms."""
        return self.arrival and (self.arrival[0] - self.overlap, self.arrival[1])

    @property
    def known_until(self) -> int:
        """Return up to which arrival (ms) the table may have its events; 0 for whole days."""
        if not self.arrival:
            return 0
        return self.arrival[1] if self.again else max(self.arrival[0], self.doubtful)

    def until(self, moment: int) -> "Window | None":
        """Return the window without events processed from `moment` (ms) on; None if it is empty.

        A window of whole days stays as it is: its position says up to which moment it has events.
        """
        if self.before is not None:
            return replace(self, before=min(self.before, moment))
        if self.arrival is None or self.arrival[1] <= moment:
            return self
        if self.arrival[0] >= moment:
            return None
        return replace(self, arrival=(self.arrival[0], moment))

    def fulfils(self, scheduled: "Window") -> bool:
        """Return whether both windows are of arrival, or both are of the same days."""
        if self.arrival or scheduled.arrival:
            return bool(self.arrival and scheduled.arrival)
        return (self.from_date, self.to_date) == (scheduled.from_date, scheduled.to_date)

    def __str__(self) -> str:
        if self.arrival:
            start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in self.arrival)
            return f"{start:%F %R} to {end:%F %R}"
        return str(self.from_date) if len(self.days) == 1 else f"{self.from_date}..{self.to_date}"

    def as_json(self) -> dict[str, Any]:
        """Return the window as JSON can hold it; `from_json` reads it."""
        found = {
            "from_date": self.from_date.isoformat(),
            "to_date": self.to_date.isoformat(),
            "arrival": list(self.arrival) if self.arrival else None,
            "before": self.before,
        }
        return found | {name: value for name in OPTIONAL if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Window":
        """Return what `as_json` wrote; LookupError, TypeError or ValueError for others."""
        first, last = (date.fromisoformat(value[name]) for name in ("from_date", "to_date"))
        arrival = value.get("arrival")
        span = (arrival[0], arrival[1]) if arrival else None
        more = {name: value[name] for name in OPTIONAL if name in value}
        return cls(first, last, span, value.get("before"), **more)

    def bounds(self, zone: ZoneInfo) -> tuple[int, int]:
        """Return the first ms and the ms after the last, of `arrival` or of the days in `zone`."""
        if self.arrival:
            return self.arrival
        return day_start(self.from_date, zone), day_start(self.to_date + DAY, zone)


def utc(ms: int) -> str:
    """Format a moment in UTC."""
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%F %R} UTC"
    except (ValueError, OverflowError, OSError):  # beyond any calendar
        return f"{ms} ms"


def each_day(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both inclusive."""
    for offset in range((last - first).days + 1):
        yield first + offset * DAY


def is_day(text: str) -> bool:
    """Return whether `text` is a day as positions write it: 2024-01-31."""
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None


def day_start(day: date, zone: ZoneInfo) -> int:
    """Return the first instant of `day` in `zone`, in ms since the epoch."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def day_begin(day: date, zone: ZoneInfo) -> int:
    """Return when `day` begins in `zone` or in UTC, whichever is earlier, in ms."""
    return min(day_start(day, zone), day_start(day, ZoneInfo("UTC")))


@lru_cache(maxsize=1 << 14)  # called for every day of a table, after every commit
def day_over(day: date, zone: ZoneInfo) -> int:
    """Return when `day` has ended both in `zone` and in UTC, in ms since the epoch.

    Mixpanel reads dates in UTC for newer projects and in the project's zone for older ones, which
    cannot be distinguished from outside.
    """
    return max(day_start(day + DAY, zone), day_start(day + DAY, ZoneInfo("UTC")))


def last_over(now_ms: int, zone: ZoneInfo) -> date:
    """Return the last day that has ended both in `zone` and in UTC."""
    day = latest_day(now_ms, zone)
    while day_over(day, zone) > now_ms:
        day -= DAY
    return day


def latest_day(now_ms: int, zone: ZoneInfo) -> date:
    """Return the last day that can be requested: today in `zone` or in UTC, whichever is later."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    return max(moment.date(), moment.astimezone(zone).date())


def consecutive(days: Iterable[date]) -> list[list[date]]:
    """Group `days` into runs of neighbouring days, in order."""
    runs: list[list[date]] = []
    for day in sorted(set(days)):
        if runs and day - runs[-1][-1] == DAY:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs
