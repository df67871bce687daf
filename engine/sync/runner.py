"""Windows -> runs: asks within the budget, tries again, commits, reports.

One process commits; the pulls run in it or in processes of their own. It knows neither where its
windows come from nor a command line: it is handed the one, and tells the other what happens.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from ulid import ULID

from engine.catalog.database import Catalog
from engine.config import file as config
from engine.dataset import positions, single_days
from engine.dataset.dataset import Dataset, Planned
from engine.errors import (
    DatasetError,
    EtlError,
    InputError,
    PermanentError,
    RateLimited,
    Refused,
    RetryableError,
    Unavailable,
    WorkerKilled,
)
from engine.mixpanel.timeouts import DEFAULT_TIMEOUTS, Timeouts
from engine.model import schedule
from engine.model.batch import BatchManifest, Tally
from engine.model.day_borders import UTC
from engine.model.flow import Connection, Flow, Run
from engine.model.run_payload import SCHEDULED
from engine.model.window import Window, day_over
from engine.sync import day_marks, run_records, settling, splitting
from engine.sync.executors import Executor, pulls
from engine.sync.pull import Rules, StagedRun

Json = dict[str, Any]
SPLIT_AFTER = 2  # failures of a window that its size or one of its days can cause
LOST = 3  # windows in a row that failed without an answer: nobody would get one


@dataclass(frozen=True, slots=True)
class Advanced:
    """A run has read so much, so far."""

    run_id: str
    lines: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run cannot ask for so many seconds."""

    run: Run
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A run is over; `error` is why it failed, None if it did not.

    `empty`: the days, over by now, of which Mixpanel sent no event at all.
    """

    run: Run
    item: Json
    tally: Tally
    error: EtlError | None
    empty: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """A window failed, and its days are asked for again in smaller requests."""

    run: Run
    error: EtlError


@dataclass(frozen=True, slots=True)
class NoEvents:
    """Mixpanel sent no event of these days, which are `all` that were pulled, or some of them."""

    flow: Flow
    days: list[date]
    all: bool


@dataclass(frozen=True, slots=True)
class GaveUp:
    """So many days were not tried, after a failure that no other window would escape."""

    days: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something was found damaged, or not as this program left it; what is done about it."""

    text: str


Event = Advanced | Waiting | Ended | Split | NoEvents | GaveUp | Noticed


def wall_clock() -> int:
    """Now, in ms since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """How runs are gone about."""

    workers: int = 1
    days_per_request: int | None = None  # None: learned from the counts seen
    force: bool = False
    allow_shrink: bool = False
    patience: schedule.RetryPolicy = schedule.DEFAULT_RETRY_POLICY
    budget: schedule.RateLimit = schedule.DEFAULT_RATE_LIMIT
    limits: Timeouts = DEFAULT_TIMEOUTS
    now: Callable[[], int] = wall_clock


class Windows(Protocol):
    """Where runs get their windows from."""

    def next(self) -> Window | None:
        """One that was not handed out yet; None if there is none now."""

    def ended(self, window: Window, lines: int, error: EtlError | None = None) -> None:
        """A window is over: so many lines came and are committed, or it failed by an error."""

    def split(self, window: Window, bad: Collection[date]) -> None:
        """A window failed by its size or by a day: its days are to come again in smaller ones.

        `bad`: the days that are known to be to blame.
        """

    def give_up(self) -> int:
        """Hand out no more of them: how many days that leaves untried."""


@dataclass(slots=True)
class _Attempt:
    """A run that is asked for now or, after a failure, later."""

    run: Run
    due: float = 0  # by time.monotonic, which nobody sets back
    tries: int = 0
    limited: int = 0
    ordered: bool = False  # somebody asked for this very window
    connection: Connection | None = None  # with the credentials of the last request


class Runs:
    """Brings windows of a flow into its dataset. `run` is the whole of it."""

    def __init__(
        self,
        flow: Flow,
        rules: Rules,
        dataset: Dataset,
        catalog: Catalog,
        options: Options,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self._flow = flow
        self._rules = rules
        self._dataset = dataset
        self._catalog = catalog
        self._options = options
        self._tell = tell
        self._now = options.now
        self._project = flow.project
        self._windows: Windows
        self._later: list[_Attempt] = []
        self._running: dict[Future[StagedRun], _Attempt] = {}
        self._ending: list[_Attempt] = []
        self._ended: list[Json] = []
        self._rules_mark = day_marks.of_rules(rules)
        self._failures = Counter[date]()  # of windows that were split: a day's share in them
        self._resume = 0.0  # when the parts of such a window may begin
        self._alone = set[date]()  # of windows whose worker was killed
        self._lost = 0  # windows in a row that failed without an answer

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Hold the dataset, with everything settled that a crash left."""
        with self._dataset.locked():
            positions.check_owner(self._flow, self._dataset)
            self._recover()
            self._dataset.tidy_batches(self._flow.keep_batches_days, self._now())
            yield

    def run(self, windows: Windows) -> list[Json]:
        """Pull and commit every one of `windows`; the items of the runs that ended.

        To be called while the dataset is `prepared`. Raises nothing for a run that fails: its item
        says so. On KeyboardInterrupt what runs is thrown away, and what is committed stays (P8).
        """
        self._windows = windows
        with ExitStack() as stack:
            stack.push(self._abandon)
            where = stack.enter_context(pulls(self._options.workers, self._advance, self._turn))
            while (pause := self._start(where)) is not None:
                self._settle(pause, where)
        return self._ended

    def _recover(self) -> None:
        """Tell of commits whose process died before it could; other open runs died before."""
        for notice in self._dataset.notices:
            self._tell(Noticed(notice))
        self._dataset.notices.clear()
        for batch_id, told in self._dataset.unreported:
            if found := _told(told):
                flow, item, window = found
                self._save(item, window, flow)
            self._dataset.discard(batch_id)
        self._catalog.abandon(str(self._dataset.root), self._now())

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        """On the way out: no run stays open, nothing that was staged stays behind.

        Nobody is told: whoever stopped the command, or the error that did, knows.
        """
        for attempt in [*self._running.values(), *self._later, *self._ending]:
            if not self._dataset.is_committed(attempt.run.batch_id):
                self._dataset.discard(attempt.run.batch_id)
                self._record_failure(attempt, EtlError(run_records.why_ended(error)))

    # Asking --------------------------------------------------------------------------------

    def _start(self, where: Executor) -> float | None:
        """Start what may start now; seconds until something else may, if nothing ends before.

        None where nothing is left to wait for.
        """
        while len(self._running) < self._options.workers:
            attempt = self._next()
            if attempt is None:
                break
            if self._has_to_be_alone(attempt):
                self._later.append(attempt)
                break
            now = self._now()
            held_up = (attempt.due - time.monotonic()) * 1000
            budget = (
                0
                if held_up > 0
                else self._catalog.ask(self._project, now, partial(self._wait, now))
            )
            if max(held_up, budget) > 0:
                self._later.append(attempt)
                if budget > max(held_up, schedule.SECOND):
                    why = "Mixpanel's hourly budget is used up"
                    self._tell(Waiting(attempt.run, budget / 1000, why))
                return max(held_up, budget) / 1000
            attempt.run = replace(attempt.run, started_at=now)
            self._later.append(attempt)  # where `_abandon` finds it, should its start be cut off
            self._report_start(attempt)
            directory = self._dataset.staging(attempt.run.batch_id)
            attempt.connection = self._flow.connection
            future = where.submit(
                self._flow,
                self._rules,
                attempt.run,
                directory,
                self._options.limits,
                self._dataset.read,
            )
            self._later.remove(attempt)
            self._running[future] = attempt
        return 3600 if self._running else None

    def _turn(self, run: Run) -> None:
        """Wait until `run`, which takes several requests, may make one more within the budget."""
        told = False
        while True:
            now = self._now()
            pause = self._catalog.ask(self._project, now, partial(self._wait, now))
            if pause == 0:
                return
            if pause > schedule.SECOND and not told:
                why = "Mixpanel's hourly budget is used up"
                self._tell(Waiting(run, pause / 1000, why))
                told = True
            time.sleep(min(pause / 1000, 0.5))

    def _wait(self, now: int, asked: Sequence[int]) -> int:
        return schedule.wait_for_slot(asked, len(self._running), now, self._options.budget)

    def _next(self) -> _Attempt | None:
        """What to ask for next: a run that waits and is due, else a new window, else who waits."""
        self._later.sort(key=lambda attempt: attempt.due)
        if self._later and self._later[0].due <= time.monotonic():
            return self._later.pop(0)
        if window := self._windows.next():
            ordered = self._id(window)
            run = Run(ordered or str(uuid4()), self._flow.name, window, str(ULID()), self._now())
            tries = self._tries_before(window)
            return _Attempt(run, self._resume if tries else 0, tries, ordered=bool(ordered))
        return self._later.pop(0) if self._later else None

    def _tries_before(self, window: Window) -> int:
        """Count failures of larger windows against `window`; leave a single day two tries."""
        if window.arrival:
            return 0
        failures = max(self._failures[day] for day in window.days)
        left = self._options.patience.tries - SPLIT_AFTER
        return failures if len(window.days) > 1 else min(failures, max(0, left))

    def _has_to_be_alone(self, attempt: _Attempt) -> bool:
        """Whether `attempt` must wait for running pulls to end, for one of them killed a worker."""
        running = [each.run.window for each in self._running.values()]
        windows = [attempt.run.window, *running]
        return bool(running) and any(self._alone.intersection(one.days) for one in windows)

    def _id(self, window: Window) -> str | None:
        """That of a run that was asked for, and that `window` is."""
        for entry in reversed(self._catalog.history(self._flow.name, SCHEDULED)):
            if window.fulfils(entry.window):
                return str(entry.item["id"])
        return None

    # What came -----------------------------------------------------------------------------

    def _settle(self, pause: float, where: Executor) -> None:
        """Wait up to `pause` seconds for a pull to end, and bring those that did to their end."""
        until = time.monotonic() + pause
        done: set[Future[StagedRun]] = set()
        while not done and time.monotonic() < until:
            if not self._running:
                time.sleep(max(0, min(until - time.monotonic(), 0.5)))
                continue
            done, _ = wait(self._running, 0.2, FIRST_COMPLETED)
            where.listen()
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done, _ = wait(self._running)  # it broke for all of them
            where.restart()
        for future in done:
            self._ending = [self._running.pop(future)]
            self._end(self._ending[0], future)
            self._ending = []

    def _end(self, attempt: _Attempt, future: Future[StagedRun]) -> None:
        batch_id = attempt.run.batch_id
        staged: StagedRun | None = None
        try:
            try:
                staged = future.result()
            except BrokenProcessPool as error:
                self._alone.update(attempt.run.window.days)
                raise WorkerKilled(
                    "A worker process was killed, perhaps for want of memory."
                ) from error
            self._commit(attempt, staged)
        except RetryableError as error:
            self._dataset.discard(batch_id)
            if not error.reached:
                self._catalog.release(self._project, attempt.run.started_at)
            self._retry(attempt, error)
        except EtlError as error:
            if isinstance(error, Refused) and self._has_other_credentials(attempt):
                self._dataset.discard(batch_id)
                attempt.run = replace(attempt.run, batch_id=str(ULID()))  # each try has its own
                self._later.append(attempt)
                return
            if self._dataset.is_committed(batch_id):
                raise  # it could not be told of; the next start does
            if staged:
                error.tally, error.copied = staged.tally, staged.copy_completed
            if error.tally and error.tally.rejected:
                with suppress(DatasetError):  # it says what failed already
                    self._note(attempt.run, error.tally, None)
                self._dataset.keep_diagnostics(batch_id)
            else:
                self._dataset.discard(batch_id)
            if _may_be_split(attempt.run.window, error):
                self._split(attempt, error)
                return
            self._fail(attempt, error)
            of_everyone = isinstance(error, Refused | InputError)
            if isinstance(error, DatasetError):
                self._lost += 1
                of_everyone = error.lasting or self._lost >= LOST
            if of_everyone:
                self._give_up()

    def _asks_for_days_alone(self, attempt: _Attempt, staged: StagedRun) -> bool:
        """Whether the days of a window have to come again, each by itself; then they will.

        So it is where its rows show that the project's days are not UTC days: its own days, and
        what the table holds, may lack rows at their borders, or have those of another.
        """
        run, flow = attempt.run, self._flow
        several = len(run.window.days) > 1
        known = single_days.begin(self._dataset)
        begins = known or _begin(run, staged, flow)
        if run.window.arrival or not begins:
            return False
        if not several and (known or single_days.is_alone(self._dataset, run.window)):
            return False
        if not known and self._dataset.exists:
            self._note_days(begins)
        error = EtlError(f"{_beside(staged)}{single_days.SENTENCE}.")
        error.tally, error.copied = staged.tally, staged.copy_completed
        self._dataset.discard(run.batch_id)
        item = run_records.failed(flow, self._dataset, run, error, self._now(), splitting.AGAIN)
        self._save(item, run.window)
        self._ending = []  # its record is there
        if attempt.ordered:
            self._order([Window(day, day) for day in run.window.days])
        self._windows.split(run.window, run.window.days)
        self._tell(Split(run, error))
        return True

    def _note_days(self, begins: int) -> None:
        """Note in the table how the project's days begin, and which days it has to pull again."""
        batch_id = str(ULID())
        arrives = self._dataset.position(positions.app_id(self._flow, positions.ARRIVAL))
        noted = single_days.found(self._dataset, begins, arrives=arrives is not None)
        self._dataset.staging(batch_id)
        self._dataset.commit(batch_id, [], {}, noted, None)
        self._dataset.discard(batch_id)

    def _has_other_credentials(self, attempt: _Attempt) -> bool:
        """Read the files of the credentials again; whether they differ from those refused."""
        fresh = config.read_again(self._flow.connection)
        self._flow = replace(self._flow, connection=fresh)
        return fresh != attempt.connection

    def _retry(self, attempt: _Attempt, error: RetryableError) -> None:
        limited = isinstance(error, RateLimited)
        attempt.limited, attempt.tries = (
            (attempt.limited + 1, attempt.tries) if limited else (0, attempt.tries + 1)
        )
        patience = self._options.patience
        decision = schedule.decide(
            error, attempt.limited if limited else attempt.tries, random.random, patience
        )
        silent = _is_silent(error)
        if not silent and not limited:
            self._lost = 0
        splits = attempt.tries >= min(SPLIT_AFTER, patience.tries)
        given_up = silent and self._lost > 0  # others had no answer either: no more tries
        if splits and not given_up and _may_be_split(attempt.run.window, error):
            tries = min(attempt.tries, patience.tries - 1)
            last = schedule.decide(error, tries, random.random, patience)
            waits = silent and isinstance(last, schedule.Wait)
            self._split(attempt, error, getattr(last, "seconds", 0) if waits else 0)
            return
        if isinstance(decision, schedule.Wait) and not given_up:
            attempt.due = time.monotonic() + decision.seconds
            attempt.run = replace(attempt.run, batch_id=str(ULID()))  # each try has its own
            self._later.append(attempt)
            self._tell(Waiting(attempt.run, decision.seconds, str(error)))
            return
        self._fail(attempt, error)
        self._lost += silent
        if limited or not error.reached or self._lost >= LOST:
            self._give_up()

    def _split(self, attempt: _Attempt, error: EtlError, wait: float = 0) -> None:
        """Replace a failed window by smaller ones and remember its failures (P9)."""
        run = attempt.run
        bad = error.days if isinstance(error, PermanentError) else frozenset[date]()
        if isinstance(error, RetryableError):
            for day in run.window.days:
                self._failures[day] = max(self._failures[day], attempt.tries)
        self._resume = time.monotonic() + wait
        item = run_records.failed(
            self._flow, self._dataset, run, error, self._now(), splitting.AGAIN
        )
        self._save(item, run.window)
        self._ending = []  # its record is there
        if attempt.ordered:
            self._order(splitting.parts(run.window, bad))
        self._windows.split(run.window, bad)
        self._tell(Split(run, error))

    def _order(self, windows: Sequence[Window]) -> None:
        """Schedule the parts of a window that a client requested, in place of that window."""
        for window in reversed(windows):  # the last one that was asked for comes first
            run = Run(str(uuid4()), self._flow.name, window, "", self._now())
            self._save(run_records.scheduled(self._flow, run, {}), window)

    def _give_up(self) -> None:
        """What stopped this window would stop every other one."""
        if days := self._windows.give_up():
            self._tell(GaveUp(days))
        for attempt in self._later:
            self._fail(attempt, EtlError("Not tried again: another window of this run failed."))
        self._later = []

    def _commit(self, attempt: _Attempt, staged: StagedRun) -> None:
        run = replace(attempt.run, window=staged.window)
        attempt.run = run
        if self._asks_for_days_alone(attempt, staged):
            return
        planned = partial(self._planned, run, staged)
        held, becomes = planned()
        staged.tally.missed = settling.missed(self._flow, self._dataset, run.window, staged, held)
        empty = _empty_days(run, staged, self._flow)
        self._note(run, staged.tally, becomes)
        marked = single_days.MARK in becomes
        item = run_records.succeeded(self._flow, self._dataset, run, staged, self._now())
        self._dataset.commit(
            run.batch_id,
            staged.files,
            held,
            becomes,
            (self._flow.name, item, run.window.as_json()),
            self._flow.keep_superseded_hours,
            planned,
        )
        item = run_records.succeeded(self._flow, self._dataset, run, staged, self._now())
        self._save(item, run.window)
        self._ending = []  # told of: `_abandon` has nothing to add
        self._dataset.discard(run.batch_id)
        self._ended.append(item)
        self._lost = 0
        self._forget(run.window)
        self._windows.ended(run.window, staged.tally.lines)
        self._tell(Ended(run, item, staged.tally, None, tuple(empty)))
        if marked:
            self._tell(Noticed(f"{_beside(staged)}{single_days.SENTENCE}."))

    def _forget(self, window: Window) -> None:
        """Reset the failure counts of the days of `window`."""
        for day in window.days:
            self._failures.pop(day, None)
        self._alone.difference_update(window.days)

    def _planned(self, run: Run, staged: StagedRun) -> Planned:
        """What the commit of a run replaces and sets, by the table as it is now (P5)."""
        now = self._now() if staged.answered_at is None else staged.answered_at
        held = positions.replaced(self._flow, self._dataset, run.window, now)
        if not self._options.allow_shrink:
            percent = self._flow.shrink_guard_percent
            keys = self._rules.key_columns
            own = single_days.own_rows(self._dataset, held, keys)
            self._dataset.check_shrink(own, staged.files, percent, keys)
        sure = staged.answered_at is not None
        becomes = positions.after(self._flow, self._dataset, run, now, sure=sure)
        empty = _empty_days(run, staged, self._flow)
        begins = _begin(run, staged, self._flow)
        becomes |= single_days.after(self._dataset, run.window, begins)
        return held, becomes | day_marks.after(
            self._flow, self._dataset, run, empty, self._rules_mark
        )

    def _note(self, run: Run, tally: Tally, becomes: Mapping[str, int] | None) -> None:
        """Leave beside a batch's rejects what tells later whether they still matter.

        `becomes`: the positions that its commit sets; None if it failed.
        """
        if not tally.rejected:
            return
        left = {day: positions.left(self._dataset, day, becomes or {}) for day in run.window.days}
        codes = dict(tally.reject_codes)
        note = BatchManifest(run.flow, run.window, becomes is not None, left, tally.rejected, codes)
        self._dataset.describe(run.batch_id, note.as_json())

    # Telling -------------------------------------------------------------------------------

    def _advance(self, run_id: str, lines: int, size: int) -> None:
        self._tell(Advanced(run_id, lines, size))

    def _report_start(self, attempt: _Attempt) -> None:
        self._save(run_records.started(self._flow, attempt.run, self._now()), attempt.run.window)

    def _fail(self, attempt: _Attempt, error: EtlError) -> None:
        self._forget(attempt.run.window)
        self._windows.ended(attempt.run.window, 0, error)
        item = self._record_failure(attempt, error)
        self._tell(Ended(attempt.run, item, error.tally or Tally(), error))

    def _record_failure(self, attempt: _Attempt, error: EtlError) -> Json:
        item = run_records.failed(self._flow, self._dataset, attempt.run, error, self._now())
        self._save(item, attempt.run.window)
        self._ended.append(item)
        return item

    def _save(self, item: Json, window: Window, flow: str | None = None) -> None:
        self._catalog.save(
            item, flow=flow or self._flow.name, dataset=str(self._dataset.root), window=window
        )


def _told(record: Any) -> tuple[str, Json, Window] | None:
    """Parse an unreported record into flow, item and window; None if it describes no run.

    A commit that only resets positions is no run, and a crash may have damaged the record.
    """
    try:
        flow, item, window = record
        item["metrics"]["statusSummary"]["status"]
        return str(flow), item, Window.from_json(window)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _may_be_split(window: Window, error: EtlError) -> bool:
    """Whether `error` may be due to the size of `window` or to one of its days."""
    if window.arrival or len(window.days) == 1:
        return False
    if isinstance(error, RetryableError):
        return error.reached and not isinstance(error, RateLimited)
    if isinstance(error, DatasetError):
        return not error.lasting
    return isinstance(error, PermanentError) and not isinstance(error, Refused)


def _begin(run: Run, staged: StagedRun, flow: Flow) -> int:
    """When the days of the project begin, by the rows of a pull; UTC where they do not tell."""
    if staged.borders is None:
        return UTC
    over = day_over(run.window.to_date, flow.connection.zone) <= run.started_at
    return staged.borders.begin(over=over)


def _beside(staged: StagedRun) -> str:
    """How many rows of a pull lie in the UTC days beside its own, to begin a sentence with."""
    count = staged.borders.existing_keys if staged.borders else 0
    rows = "1 row lies" if count == 1 else f"{count:,} rows lie"
    return f"{rows} outside the UTC days that were asked for: " if count else ""


def _is_silent(error: RetryableError) -> bool:
    """Whether no event came at all: that may be so for every other window too."""
    came = error.tally is not None and error.tally.bytes_received > 0
    return error.empty or (isinstance(error, Unavailable) and not came)


def _empty_days(run: Run, staged: StagedRun, flow: Flow) -> list[date]:
    """The days of a pull, over when it began, of which it brought no line."""
    if run.window.arrival:
        return []
    filled = {file.day for file in staged.files} | set(staged.tally.reject_days)
    zone = flow.connection.zone
    over = (day for day in run.window.days if day_over(day, zone) <= run.started_at)
    return [day for day in over if day not in filled]
