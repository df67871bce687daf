"""Bring one flow up to date: pull the windows that are due by the table's positions, one by one."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import chain
from pathlib import Path
from uuid import uuid4

from ulid import ULID

from engine.catalog.buffered import BufferedCatalog
from engine.catalog.database import Catalog
from engine.dataset import positions
from engine.dataset.dataset import Dataset
from engine.dataset.positions import ARRIVAL, app_id
from engine.dataset.storage.local import canonical
from engine.errors import CODE_COPY, DatasetError, EtlError, InputError, RateLimited, Refused
from engine.model import due_windows, retry
from engine.model import schedule as plan
from engine.model.due_windows import Due
from engine.model.flow import Flow, Run
from engine.model.run_record import FAILED, KILLED, SCHEDULED, SUCCESS, RunRecord
from engine.model.window import DAY, Window, each_day, latest_day
from engine.sync import open_flow, run_records, splitting
from engine.sync.options import Options
from engine.sync.pull import Rules
from engine.sync.run_updates import RunUpdate, Waiting
from engine.sync.runner import Runner
from engine.sync.window_source import Result

REMEMBERED = 1000  # runs of the history in which a day's failures in a row are counted
RESERVE = 10  # requests of an hour that are reserved for arrival windows
RECENT = 7  # days from which the events of a day are estimated


@dataclass(slots=True)
class RunContext:
    """State of one sync, shared with the process of the flow.

    stop_requested  a stop signal came
    idle            a stop would interrupt nothing
    seconds         time limit of the sync; `more` is set if windows are still due then
    later           the windows that are due have to wait for the rate limit
    began           the tick that the sync is a part of, in ms: what fails in it waits for the next
    """

    stop_requested: bool = False
    idle: bool = True
    seconds: float = math.inf
    more: bool = False
    later: bool = False
    began: int = 0


def sync_flow(
    flow: Flow,
    home: Path,
    options: Options,
    report: Callable[[RunUpdate], None] = lambda _: None,
    turn: RunContext | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> list[RunRecord]:
    """Pull the windows of `flow` that are due; return the records of the runs that ended.

    `warn` gets a sentence if the history cannot be written. If the sync cannot start, raises
    EtlError and records a failed run.
    """
    with BufferedCatalog(home, warn) as catalog:
        try:
            rules = open_flow.rules_of(flow)
            flow = comparable(flow, rules)
            dataset = open_flow.dataset_of(flow, rules)
            check_still_there(flow, dataset, catalog)
            check_kind(flow, dataset)
            return IncrementalSync(
                flow, rules, dataset, catalog, options, report, turn or RunContext()
            ).run()
        except EtlError as error:
            _record(flow, catalog, options.now(), error)
            raise
        except Exception as error:
            _record(flow, catalog, options.now(), EtlError(run_records.why_ended(error)))
            raise


class IncrementalSync:
    """A source of the windows of a flow that are due, each planned when it is handed out."""

    def __init__(
        self,
        flow: Flow,
        rules: Rules,
        dataset: Dataset,
        catalog: Catalog,
        options: Options,
        report: Callable[[RunUpdate], None],
        turn: RunContext,
    ) -> None:
        self._flow, self._dataset, self._catalog = flow, dataset, catalog
        self._turn, self._report = turn, report
        self._now, self._budget = options.now, options.rate_limit
        self._until = time.monotonic() + turn.seconds
        self._runner = Runner(flow, rules, dataset, catalog, options, self._on_update)
        self._out: Window | None = None  # handed out, and not ended
        self._planned_at = 0  # when the last window was handed out, in ms
        self._over = False
        self._arrived = False  # whether the last window was one of arrival
        self._again = 0  # when an arrival window that failed may be requested again, in ms
        now = options.now()
        if ended := _arrival_ended(flow, catalog, turn.began, now):
            self._again = self._next_tick(ended)
        self._failures, self._backoffs = failed_days(flow, catalog, now)
        history = catalog.history(flow.name, limit=REMEMBERED, until=plan.latest(now))
        self._sizes = splitting.from_history(history, now)
        self._counts: list[float] = []

    def run(self) -> list[RunRecord]:
        """Pull until nothing is due or a stop is requested; return the records of ended runs."""
        with self._runner.prepared():
            self._counts = counts(self._flow, self._dataset, self._now())
            return self._runner.run(self)

    def next_window(self) -> Window | None:
        """Return the most urgent window, once the last one ended: a commit changes the plan."""
        self._turn.idle = False
        if self._out or self._over or self._turn.stop_requested:
            return None
        now = self._planned_at = self._now()
        self._out = self._most_urgent(now)
        if self._out and time.monotonic() > self._until:
            self._turn.more, self._out = True, None
        if self._out and self._has_to_wait(self._out, now):
            self._turn.later, self._out = True, None
        return self._out

    def _most_urgent(self, now: int) -> Window | None:
        """Return the first window that is due and in no backoff; after an arrival window a day.

        Where an arrival window takes longer than the interval, the next is due at once, and no day
        would ever be pulled. Windows requested by clients come first, but no day before the first
        arrival window: that would begin where the day ends and leave out other days.
        """
        requested = [run.window for run in self._catalog.history(self._flow.name, SCHEDULED)]
        days = [window for window in requested if not window.arrival]
        expected = max(self._counts, default=None)
        due = due_now(self._flow, self._dataset, now, expected, self._backoffs, self._sizes)
        arrived = self._dataset.position(app_id(self._flow, ARRIVAL))
        first = next(due, None)
        arrives = first and first.window.arrival
        if days and not (arrives and first and (arrived is None or first.window.again)):
            return replace(days[-1], before=due_windows.advance_to(self._flow, arrived, now))
        hurry = len(requested) > len(days) or now >= self._again
        windows = (each.window for each in chain([first] if first else [], due))
        awake = (window for window in windows if not window.arrival or hurry)
        urgent = next(awake, None)
        if len(requested) > len(days) and not (urgent and urgent.arrival):
            run_records.complete_arrivals(self._catalog, self._flow, now)
        if urgent and urgent.arrival and self._arrived:
            other = next(awake, None)
            return other if other and not self._has_to_wait(other, now) else urgent
        return urgent

    def _has_to_wait(self, window: Window, now: int) -> bool:
        """Return whether the rate limit delays `window` by more than a minute.

        RESERVE requests an hour are left to arrival windows, so that no backfill delays them.
        """
        budget = self._budget
        if not window.arrival:
            budget = replace(budget, per_hour=max(1, budget.per_hour - RESERVE))
        recent = self._catalog.recent_requests(self._flow.project, now)
        return retry.wait_for_slot(recent, 0, now, budget) > plan.MINUTE

    def on_result(self, result: Result) -> None:
        """Learn from how a window ended; put a day that failed by its own events in backoff."""
        window = result.window
        planned, self._out = self._out, None
        self._arrived = window.arrival is not None
        if result.split:  # its days stay due: the next plan requests them in smaller windows
            self._arrived = False
            self._sizes.failed(window, result.bad)
            return
        now = self._now()
        if window.arrival:
            # Without a schedule every moment is a tick: one window is enough. So is one that
            # Mixpanel's clock cut off because it is behind ours.
            if result.error or not self._flow.schedule or window != planned:
                self._again = self._next_tick(now)
            return
        if result.error is None:
            self._counts = [*self._counts[1 - RECENT :], result.lines / len(window.days)]
            self._sizes.came(window)
        for day in window.days:
            if result.error is None:
                self._failures.pop(day, None)
                self._backoffs.pop(day, None)
                if self._stays_due(day):
                    self._backoffs[day] = min(self._next_tick(now), now + plan.FULL_DAY)
            elif not isinstance(result.error, RateLimited | Refused) and len(window.days) == 1:
                self._failures[day] += 1
                self._backoffs[day] = now + due_windows.backoff(self._failures[day])
                self._sizes.failed(window)

    def _stays_due(self, day: date) -> bool:
        """Return whether `day` stays due after its pull, because Mixpanel's clock is behind ours.

        Judged by the tick at which the pull was planned: a later tick makes the day due again.
        Without a schedule every moment is a tick, and one pull is enough.
        """
        schedule = self._flow.schedule
        tick = plan.last_tick(schedule, self._planned_at) if schedule else self._now()
        reached = self._dataset.position(app_id(self._flow, day))
        if self._flow.windows != "day" or tick is None or reached is None:
            return False
        return reached < tick or plan.is_later(reached, self._now())

    def _next_tick(self, moment: int) -> int:
        """Return the first tick after `moment` (ms); a day later if there is none."""
        schedule = self._flow.schedule
        return (schedule and plan.next_tick(schedule, moment)) or moment + plan.FULL_DAY

    def give_up(self) -> int:
        """Hand out no more windows; the days stay due at the next tick."""
        self._over = True
        return 0

    def _on_update(self, update: RunUpdate) -> None:
        self._turn.idle = isinstance(update, Waiting)
        if self._turn.idle and self._turn.stop_requested:
            raise KeyboardInterrupt
        self._report(update)


def comparable(flow: Flow, rules: Rules) -> Flow:
    """Return `flow`, without an overlap if its mapping set has no key to find duplicates by."""
    if not flow.overlap_minutes or rules.compile()[1].key_columns:
        return flow
    return replace(flow, overlap_minutes=0)


def due_now(
    flow: Flow,
    dataset: Dataset,
    now: int,
    events_per_day: float | None,
    backoffs: Mapping[date, int],
    sizes: splitting.Sizes,
) -> Iterator[Due]:
    """Yield what is due by the table as it is, the most urgent first."""
    found, bounds, cap = positions.read(flow, dataset, now), sizes.bounds, sizes.cap
    return due_windows.due(
        flow, found, now, events_per_day=events_per_day, backoffs=backoffs, bounds=bounds, cap=cap
    )


def counts(flow: Flow, dataset: Dataset, now: int) -> list[float]:
    """Return the number of rows of each of the last RECENT days that the table has rows of."""
    last = latest_day(now, flow.connection.zone)
    held = dataset.held(list(each_day(last - 2 * RECENT * DAY, last)))
    return [float(day.rows) for day in held.values() if day.rows][-RECENT:]


def failed_days(
    flow: Flow, catalog: Catalog, now: int | None = None
) -> tuple[Counter[date], dict[date, int]]:
    """Return the failures in a row of each day, and the end of its backoff in ms.

    Read from the run history: where that is lost, the day is requested a little sooner. A run that
    failed later than `now` had a clock that was ahead, and does not count.
    """
    failures, last, good = Counter[date](), dict[date, int](), set[date]()
    until = None if now is None else plan.latest(now)
    killed = set[date]()
    for run in catalog.history(flow.name, limit=REMEMBERED, until=until):  # the newest first
        days = [] if run.window.arrival else [day for day in run.window.days if day not in good]
        if run.status == SUCCESS:
            good.update(days)
        elif run.status == FAILED and len(run.window.days) == 1:
            own = _by_own_fault(run)
            if run.error == KILLED:  # twice: the day is perhaps too large for the memory
                own = bool(killed.intersection(days))
                killed.update(days)
            if own:
                failures.update(days)
                last = dict.fromkeys(days, run.started_at) | last
    return failures, {
        day: last[day] + due_windows.backoff(count) for day, count in failures.items()
    }


def _arrival_ended(flow: Flow, catalog: Catalog, since: int, now: int) -> int | None:
    """Return when the last arrival window since `since` began, if it has to wait for another tick.

    It has to if it failed, or was cut off by Mixpanel's clock, which is behind ours. Read from the
    history, since each sync of a flow is a process.
    """
    until = plan.latest(now)
    for run in catalog.history(flow.name, limit=REMEMBERED, until=until):  # the newest first
        if run.started_at < since:
            break
        if run.window.arrival and not run.is_stopped:
            return run.started_at if run.status == FAILED or run.clock_ahead else None
    return None


def _by_own_fault(run: RunRecord) -> bool:
    """Return whether a run failed by its events: by their number or their processing."""
    if run.failure and run.failure[0] == CODE_COPY:  # the response began, and was cut off
        return run.result.bytes_read > 0
    return run.result.lines > 0


def check_still_there(flow: Flow, dataset: Dataset, catalog: Catalog) -> None:
    """Raise DatasetError if a table with commits is gone: its disk may not be mounted."""
    root = str(dataset.root)
    if not dataset.exists and catalog.history(flow.name, SUCCESS, root, limit=1):
        raise DatasetError(
            f"The table {root} is gone, and runs were committed to it. Put it back; to begin "
            f"anew, give the flow another dataset or move {catalog.path} away."
        )


def check_kind(flow: Flow, dataset: Dataset) -> None:
    """Raise InputError for day windows on a table of arrival windows: each would undo the other."""
    if flow.windows == "day" and dataset.position(app_id(flow, ARRIVAL)) is not None:
        raise InputError(
            f'The table {dataset.root} was filled by arrival windows: windows = "day" cannot go on '
            'with it. Write windows = "arrival", or give the flow another dataset.'
        )


def _record(flow: Flow, catalog: Catalog, now: int, error: EtlError) -> None:
    """Record a sync that could not start as a failed run."""
    today = latest_day(now, flow.connection.zone)
    # An empty span of arrival: this is no failure of that day, and puts the day in no backoff.
    id_, window = str(uuid4()), Window(today, today, (now, now))
    if scheduled := catalog.history(flow.name, SCHEDULED):
        id_, window = scheduled[-1].id, scheduled[-1].window
    run = Run(id_, flow.name, window, str(ULID()), now)
    catalog.save(run_records.not_started(flow, canonical(flow.dataset), run, error, now))
