"""A range of days as a source of windows for the runner."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

from engine.catalog.database import Catalog
from engine.dataset import positions, single_days
from engine.dataset.dataset import Dataset
from engine.dataset.positions import ARRIVAL, app_id
from engine.model import due_windows, schedule
from engine.model.flow import Flow
from engine.model.run_record import RunRecord
from engine.model.window import Window, day_over, latest_day
from engine.sync import splitting, window_commits
from engine.sync.options import Options
from engine.sync.pull import Rules
from engine.sync.run_updates import DaysDue, Ended, GaveUp, NoEvents, Noticed, RunUpdate
from engine.sync.runner import Runner
from engine.sync.window_source import Result


def missing_days(
    flow: Flow, dataset: Dataset, days: Sequence[date], now: int | None = None
) -> list[date]:
    """Return those of `days` that are not complete in the table.

    A day is missing if it was never pulled, was pulled before it was over, was undone (P10), came
    empty soon after its end and was not requested again, or holds rows by UTC days that are not the
    project's. A day pulled later than `now` was pulled by a clock that was ahead, so it is missing.
    """
    zone, lost = flow.connection.zone, positions.undone(flow, dataset, days)
    pulled = {day: dataset.position(app_id(flow, day)) for day in days}
    misfiled = set(single_days.misfiled(dataset, days))
    return [
        day
        for day, at in pulled.items()
        if at is None
        or at < day_over(day, zone)
        or (now is not None and schedule.is_later(at, now))
        or day in lost
        or window_commits.is_doubtful(flow, dataset, day)
        or day in misfiled
    ]


def first_arrival(flow: Flow, dataset: Dataset, now: int) -> Window | None:
    """Return the first arrival window of a scheduled flow; None if it is not due any more.

    It has to come before every day: pulled later, it would begin where the pulled days end, and
    leave out all other days (P4).
    """
    arrived = dataset.position(app_id(flow, ARRIVAL))
    wrong = arrived is not None and schedule.is_later(arrived, now)  # it is put back first
    if not wrong and (flow.schedule is None or arrived is not None):
        return None
    due = due_windows.due(flow, positions.read(flow, dataset, now), now)
    return next((each.window for each in due if each.window.arrival), None)


class Backfill:
    """Brings a range of days into a dataset, by `run`."""

    def __init__(
        self,
        flow: Flow,
        rules: Rules,
        dataset: Dataset,
        catalog: Catalog,
        options: Options,
        report: Callable[[RunUpdate], None] = lambda _: None,
    ) -> None:
        self._flow, self._rules, self._dataset, self._catalog = flow, rules, dataset, catalog
        self._options, self._report = options, report
        self._runner = Runner(flow, rules, dataset, catalog, options, self._note)
        self._sizes = splitting.Sizes()
        self._empty: list[date] = []  # days without events
        self._days: list[date] = []  # that are left
        self._first: Window | None = None  # an arrival window that has to come before every day
        self._arriving = False  # whether no day may start until a running window has ended
        self._before: int | None = None  # the high watermark
        self._counts: list[float] = []  # events a day, of each window that was committed
        self._again = set[date]()  # misfiled days that are requested again
        self._refiling: date | None = None  # the misfiled day that is being pulled
        self.committed = 0  # days
        self.otherwise = 0  # complete days that were pulled with another mapping set or schema

    def run(self, days: Sequence[date]) -> list[RunRecord]:
        """Pull and commit every one of `days` that is due; return the records of ended runs.

        A run that fails raises nothing: its record has the error. On KeyboardInterrupt running
        pulls are discarded, and commits stay (P8).
        """
        with self._runner.prepared():
            flow, dataset, now = self._flow, self._dataset, self._options.now()
            force = self._options.force
            due = days if force else missing_days(flow, dataset, days, now)
            self._days = sorted(due)
            self._report(DaysDue(len(due)))
            if due:
                self._first = first_arrival(flow, dataset, now)
            self._before = self._high_watermark()
            self.committed = complete = len(days) - len(due)
            rest = sorted(set(days).difference(due))
            self.otherwise = len(window_commits.pulled_otherwise(flow, dataset, rest, self._rules))
            size = self._options.days_per_request
            if due and size and size > 1 and single_days.begin(dataset):
                self._report(Noticed(f"{size} days in a request are too many: {single_days.SAID}"))
            history = self._catalog.history(flow.name)
            self._sizes = splitting.from_history(history, self._options.now())
            records = self._runner.run(self)
        if self._empty:
            all_ = len(self._empty) == self.committed - complete
            self._report(NoEvents(self._flow, sorted(self._empty), all_))
        return records

    def _note(self, update: RunUpdate) -> None:
        if isinstance(update, Ended):
            self._empty += update.empty
        self._report(update)

    def next_window(self) -> Window | None:
        """Return a window of the first days that are left, as large as a request should be."""
        if self._first:
            first, self._first, self._arriving = self._first, None, True
            return first
        if self._arriving:
            return None
        if single_days.begin(self._dataset):
            return self._next_alone()
        if not self._days:
            return None
        expected = max(self._counts[-7:], default=None)  # events a day, a cautious estimate
        size, sizes = self._options.days_per_request, self._sizes
        window = due_windows.next_window(self._days, expected, size, sizes.bounds, sizes.cap)
        return self._handed_out(window)

    def _next_alone(self) -> Window | None:
        """Return a window of one day; misfiled days come first, one after the other."""
        if self._refiling or not (self._days or self._again):
            return None
        last = latest_day(self._options.now(), self._flow.connection.zone)
        misfiled = (
            day
            for day in single_days.misfiled(self._dataset)
            if day not in self._again and day <= last
        )
        self._refiling = next(misfiled, None)
        if self._refiling:
            self._again.add(self._refiling)
        day = self._refiling or next(iter(self._days), None)
        return self._handed_out(Window(day, day)) if day else None

    def _handed_out(self, window: Window) -> Window:
        """Return `window` up to the high watermark, and take its days off the list."""
        taken = set(window.days)
        self._days = [day for day in self._days if day not in taken]
        # Without an arrival window so far, the first day decides where arrival windows begin.
        self._arriving = self._before is not None and self._arrived is None
        return replace(window, before=self._before)

    @property
    def _arrived(self) -> int | None:
        return self._dataset.position(app_id(self._flow, ARRIVAL))

    def _high_watermark(self) -> int | None:
        """Return the high watermark (ms), to which days beside arrival windows are cut off (P4)."""
        return due_windows.advance_to(self._flow, self._arrived, self._options.now())

    def on_result(self, result: Result) -> None:
        """Learn how many events a day has, and put the days of a split window back.

        If the first arrival window fails, no day is pulled.
        """
        window = result.window
        if self._refiling in window.days:
            self._refiling = None
        if result.split:
            self._arriving = False  # nothing was committed, so no day decided where they begin
            self._sizes.failed(window, result.bad)
            self._days = sorted({*self._days, *window.days})
            self._refiling = None
            return
        if self._arriving:
            self._arriving, self._before = False, self._high_watermark()
        if window.arrival:
            if result.error and (left := self.give_up()):
                self._report(GaveUp(left))
        elif result.error is None:
            self._sizes.came(window)
            self._counts.append(result.lines / len(window.days))
            self.committed += len(window.days)

    def give_up(self) -> int:
        """Drop the days that are left, and return their number."""
        left, self._days = len(self._days), []
        self._again.clear()
        return left
