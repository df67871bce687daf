"""Windows -> runs: asks within the budget, tries again, commits, reports.

One process commits; the pulls run in it or in processes of their own. It knows neither where its
windows come from nor a command line: it is handed the one, and tells the other what happens.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

from ulid import ULID

from engine import config, plan, positions, record, settling
from engine.batch import Note, Tally
from engine.catalog import Catalog
from engine.dataset import Dataset, Planned
from engine.errors import (
    DatasetError,
    EtlError,
    InputError,
    RateLimited,
    Refused,
    TryAgain,
    Unavailable,
)
from engine.flow import Flow, Run
from engine.report import SCHEDULED
from engine.run import Rules, Staged
from engine.stages.export import DEFAULT_LIMITS, Limits
from engine.window import Window
from engine.workers import Pulls, pulls

Json = dict[str, Any]


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
    """A run is over; `error` is why it failed, None if it did not."""

    run: Run
    item: Json
    tally: Tally
    error: EtlError | None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """So many days were not tried, after a failure that no other window would escape."""

    days: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something was found damaged, or not as this program left it; what is done about it."""

    text: str


Event = Advanced | Waiting | Ended | GaveUp | Noticed


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
    patience: plan.Patience = plan.DEFAULT_PATIENCE
    budget: plan.Budget = plan.DEFAULT_BUDGET
    limits: Limits = DEFAULT_LIMITS
    now: Callable[[], int] = wall_clock


class Windows(Protocol):
    """Where runs get their windows from."""

    def next(self) -> Window | None:
        """One that was not handed out yet; None if there is none now."""

    def ended(self, window: Window, lines: int, error: EtlError | None = None) -> None:
        """A window is over: so many lines came and are committed, or it failed by an error."""

    def give_up(self) -> int:
        """Hand out no more of them: how many days that leaves untried."""


@dataclass(slots=True)
class _Attempt:
    """A run that is asked for now or, after a failure, later."""

    run: Run
    due: float = 0  # by time.monotonic, which nobody sets back
    tries: int = 0
    limited: int = 0


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
        self._running: dict[Future[Staged], _Attempt] = {}
        self._ending: list[_Attempt] = []
        self._ended: list[Json] = []

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
            where = stack.enter_context(pulls(self._options.workers, self._advance))
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
                self._record_failure(attempt, EtlError(record.why_ended(error)))

    # Asking --------------------------------------------------------------------------------

    def _start(self, where: Pulls) -> float | None:
        """Start what may start now; seconds until something else may, if nothing ends before.

        None where nothing is left to wait for.
        """
        while len(self._running) < self._options.workers:
            attempt = self._next()
            if attempt is None:
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
                if budget > max(held_up, plan.SECOND):
                    why = "Mixpanel's hourly budget is used up"
                    self._tell(Waiting(attempt.run, budget / 1000, why))
                return max(held_up, budget) / 1000
            attempt.run = replace(attempt.run, started_at=now)
            self._later.append(attempt)  # where `_abandon` finds it, should its start be cut off
            self._report_start(attempt)
            directory = self._dataset.staging(attempt.run.batch_id)
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

    def _wait(self, now: int, asked: Sequence[int]) -> int:
        return plan.wait_for_slot(asked, len(self._running), now, self._options.budget)

    def _next(self) -> _Attempt | None:
        """What to ask for next: a run that waits and is due, else a new window, else who waits."""
        self._later.sort(key=lambda attempt: attempt.due)
        if self._later and self._later[0].due <= time.monotonic():
            return self._later.pop(0)
        if window := self._windows.next():
            run = Run(self._id(window), self._flow.name, window, str(ULID()), self._now())
            return _Attempt(run)
        return self._later.pop(0) if self._later else None

    def _id(self, window: Window) -> str:
        """That of a run that was asked for, and that `window` is; else a new one."""
        for entry in reversed(self._catalog.history(self._flow.name, SCHEDULED)):
            if window.fulfils(entry.window):
                return str(entry.item["id"])
        return str(uuid4())

    # What came -----------------------------------------------------------------------------

    def _settle(self, pause: float, where: Pulls) -> None:
        """Wait up to `pause` seconds for a pull to end, and bring those that did to their end."""
        until = time.monotonic() + pause
        done: set[Future[Staged]] = set()
        while not done and time.monotonic() < until:
            if not self._running:
                time.sleep(max(0, min(until - time.monotonic(), 0.5)))
                continue
            done, _ = wait(self._running, 0.2, FIRST_COMPLETED)
            where.listen()
        for future in done:
            self._ending = [self._running.pop(future)]
            self._end(self._ending[0], future)
            self._ending = []

    def _end(self, attempt: _Attempt, future: Future[Staged]) -> None:
        batch_id = attempt.run.batch_id
        staged: Staged | None = None
        try:
            staged = future.result()
            self._commit(attempt, staged)
        except TryAgain as error:
            self._dataset.discard(batch_id)
            if not error.reached:
                self._catalog.give_back(self._project, attempt.run.started_at)
            self._retry(attempt, error)
        except BrokenProcessPool as error:
            raise DatasetError(
                "A worker process was killed, perhaps for want of memory."
            ) from error
        except EtlError as error:
            if isinstance(error, Refused) and self._read_credentials_again():
                self._dataset.discard(batch_id)
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
            self._fail(attempt, error)
            if isinstance(error, Refused | DatasetError | InputError):
                self._give_up()

    def _read_credentials_again(self) -> bool:
        """Whether the files of the credentials that were refused hold others by now."""
        connection = self._flow.connection
        fresh = config.read_again(connection)
        self._flow = replace(self._flow, connection=fresh)
        return fresh != connection

    def _retry(self, attempt: _Attempt, error: TryAgain) -> None:
        limited = isinstance(error, RateLimited)
        attempt.limited = attempt.limited + 1 if limited else 0
        attempt.tries += not limited
        tries = attempt.limited if limited else attempt.tries
        decision = plan.decide(error, tries, random.random, self._options.patience)
        if isinstance(decision, plan.Wait):
            attempt.due = time.monotonic() + decision.seconds
            self._later.append(attempt)
            self._tell(Waiting(attempt.run, decision.seconds, str(error)))
            return
        self._fail(attempt, error)
        nothing_came = not (error.tally and error.tally.bytes_received)
        if limited or (isinstance(error, Unavailable) and nothing_came):
            self._give_up()

    def _give_up(self) -> None:
        """What stopped this window would stop every other one."""
        if days := self._windows.give_up():
            self._tell(GaveUp(days))
        for attempt in self._later:
            self._fail(attempt, EtlError("Not tried again: another window of this run failed."))
        self._later = []

    def _commit(self, attempt: _Attempt, staged: Staged) -> None:
        run = replace(attempt.run, window=staged.window)
        attempt.run = run
        planned = partial(self._planned, run, staged)
        held, becomes = planned()
        staged.tally.missed = settling.missed(self._flow, self._dataset, run.window, staged, held)
        self._note(run, staged.tally, becomes)
        item = record.succeeded(self._flow, self._dataset, run, staged, self._now())
        self._dataset.commit(
            run.batch_id,
            staged.files,
            held,
            becomes,
            (self._flow.name, item, run.window.as_json()),
            self._flow.keep_superseded_hours,
            planned,
        )
        item = record.succeeded(self._flow, self._dataset, run, staged, self._now())
        self._save(item, run.window)
        self._ending = []  # told of: `_abandon` has nothing to add
        self._dataset.discard(run.batch_id)
        self._ended.append(item)
        self._windows.ended(run.window, staged.tally.lines)
        self._tell(Ended(run, item, staged.tally, None))

    def _planned(self, run: Run, staged: Staged) -> Planned:
        """What the commit of a run replaces and sets, by the table as it is now (P5)."""
        now = self._now() if staged.answered_at is None else staged.answered_at
        held = positions.replaced(self._flow, self._dataset, run.window, now)
        if not self._options.allow_shrink:
            percent = self._flow.shrink_guard_percent
            self._dataset.check_shrink(held, staged.files, percent, self._rules.key_columns)
        sure = staged.answered_at is not None
        return held, positions.after(self._flow, self._dataset, run, now, sure=sure)

    def _note(self, run: Run, tally: Tally, becomes: Mapping[str, int] | None) -> None:
        """Leave beside a batch's rejects what tells later whether they still matter.

        `becomes`: the positions that its commit sets; None if it failed.
        """
        if not tally.rejected:
            return
        left = {day: positions.left(self._dataset, day, becomes or {}) for day in run.window.days}
        codes = dict(tally.reject_codes)
        note = Note(run.flow, run.window, becomes is not None, left, tally.rejected, codes)
        self._dataset.describe(run.batch_id, note.as_json())

    # Telling -------------------------------------------------------------------------------

    def _advance(self, run_id: str, lines: int, size: int) -> None:
        self._tell(Advanced(run_id, lines, size))

    def _report_start(self, attempt: _Attempt) -> None:
        self._save(record.started(self._flow, attempt.run, self._now()), attempt.run.window)

    def _fail(self, attempt: _Attempt, error: EtlError) -> None:
        self._windows.ended(attempt.run.window, 0, error)
        item = self._record_failure(attempt, error)
        self._tell(Ended(attempt.run, item, error.tally or Tally(), error))

    def _record_failure(self, attempt: _Attempt, error: EtlError) -> Json:
        item = record.failed(self._flow, self._dataset, attempt.run, error, self._now())
        self._save(item, attempt.run.window)
        self._ended.append(item)
        return item

    def _save(self, item: Json, window: Window, flow: str | None = None) -> None:
        self._catalog.save(
            item, flow=flow or self._flow.name, dataset=str(self._dataset.root), window=window
        )


def _told(record: Any) -> tuple[str, Json, Window] | None:
    """The flow, the item and the window of a run that was not told of; None for any other thing.

    To forget positions is no run, and what a hand or a crash changed says nothing.
    """
    try:
        flow, item, window = record
        item["metrics"]["statusSummary"]["status"]
        return str(flow), item, Window.from_json(window)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
