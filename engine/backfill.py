"""A range of days -> windows -> runs: asks within the budget, tries again, commits, reports.

One process commits; the pulls run in it or in processes of their own. It knows no command line:
it tells what happens to a callable.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any
from uuid import uuid4

from ulid import ULID

from engine import plan
from engine.batch import Note, Tally
from engine.catalog import Catalog
from engine.dataset import Dataset
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
from engine.report import FAILED, IN_PROGRESS, SUCCESS, Outcome, payload
from engine.run import Rules, Staged
from engine.stages.export import DEFAULT_LIMITS, Limits
from engine.window import Window, day_over
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
    """Nothing can be asked for so many seconds."""

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


Event = Advanced | Waiting | Ended | GaveUp


@dataclass(frozen=True, slots=True)
class Options:
    """How a backfill goes about it."""

    workers: int = 1
    days_per_request: int | None = None  # None: learned from the counts seen
    force: bool = False
    allow_shrink: bool = False
    patience: plan.Patience = plan.DEFAULT_PATIENCE
    budget: plan.Budget = plan.DEFAULT_BUDGET
    limits: Limits = DEFAULT_LIMITS


@dataclass(slots=True)
class _Attempt:
    """A run that is asked for now or, after a failure, later."""

    run: Run
    due: float = 0  # by time.monotonic, which nobody sets back
    tries: int = 0
    limited: int = 0


def app_id(flow: Flow, day: date) -> str:
    """The name under which the table keeps when a day was pulled."""
    return f"{flow.name}/{day}"


def missing_days(flow: Flow, dataset: Dataset, days: Sequence[date]) -> list[date]:
    """Those of `days` that were never pulled, or were pulled before they were over."""
    zone = flow.connection.zone
    pulled = {day: dataset.position(app_id(flow, day)) for day in days}
    return [day for day, at in pulled.items() if at is None or at < day_over(day, zone)]


def pulled(dataset: Dataset) -> Counter[str]:
    """Of each day, as it is written, the sum of the positions that all flows have of it.

    Positions only grow, so each pull of a day makes its sum larger, by whatever flow.
    """
    sums = Counter[str]()
    for name, version in dataset.positions().items():
        sums[name.rpartition("/")[2]] += version
    return sums


class Backfill:
    """Brings days into a dataset. `run` is the whole of it."""

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
        self._project = project_key(flow)
        self.committed = 0  # days
        self._days: list[date] = []
        self._counts: list[float] = []  # events a day, of each window that came
        self._later: list[_Attempt] = []
        self._running: dict[Future[Staged], _Attempt] = {}
        self._ending: list[_Attempt] = []
        self._ended: list[Json] = []

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Hold the dataset, with everything settled that a crash left."""
        with self._dataset.locked():
            self._recover()
            yield

    def run(self, days: Sequence[date]) -> list[Json]:
        """Pull and commit every one of `days` that is due; the items of the runs that ended.

        Raises nothing for a run that fails: its item says so. On KeyboardInterrupt what runs is
        thrown away, and what is committed stays (P8).
        """
        with ExitStack() as stack:
            stack.enter_context(self.prepared())
            due = days if self._options.force else missing_days(self._flow, self._dataset, days)
            self._days = sorted(due)
            self.committed = len(days) - len(due)
            stack.push(self._abandon)
            where = stack.enter_context(pulls(self._options.workers, self._advance))
            while self._days or self._later or self._running:
                pause = self._start(where)
                self._settle(pause, where)
        return self._ended

    def _recover(self) -> None:
        """Tell of commits whose process died before it could; other open runs died before."""
        for batch_id, (flow, item, window) in self._dataset.unreported:
            self._save(item, Window.from_json(window), flow)
            self._dataset.discard(batch_id)
        self._catalog.abandon(str(self._dataset.root), _now())

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        """On the way out: no run stays open, nothing that was staged stays behind.

        Nobody is told: whoever stopped the command, or the error that did, knows.
        """
        for attempt in [*self._running.values(), *self._later, *self._ending]:
            if not self._dataset.is_committed(attempt.run.batch_id):
                self._dataset.discard(attempt.run.batch_id)
                self._record_failure(attempt, EtlError(why_ended(error)))

    # Asking --------------------------------------------------------------------------------

    def _start(self, where: Pulls) -> float:
        """Start what may start now; seconds until something else may, if nothing ends before."""
        while len(self._running) < self._options.workers:
            attempt = self._next()
            if attempt is None:
                break
            now = _now()
            held_up = (attempt.due - time.monotonic()) * 1000
            budget = (
                0
                if held_up > 0
                else self._catalog.ask(self._project, now, partial(self._wait, now))
            )
            if max(held_up, budget) > 0:
                self._later.append(attempt)
                if budget > max(held_up, plan.SECOND):
                    self._tell(Waiting(budget / 1000, "Mixpanel's hourly budget is used up"))
                return max(held_up, budget) / 1000
            attempt.run = replace(attempt.run, started_at=now)
            self._later.append(attempt)  # where `_abandon` finds it, should its start be cut off
            self._report_start(attempt)
            directory = self._dataset.staging(attempt.run.batch_id)
            future = where.submit(
                self._flow, self._rules, attempt.run, directory, self._options.limits
            )
            self._later.remove(attempt)
            self._running[future] = attempt
        return 3600

    def _wait(self, now: int, asked: Sequence[int]) -> int:
        return plan.wait_for_slot(asked, len(self._running), now, self._options.budget)

    def _next(self) -> _Attempt | None:
        """What to ask for next: a run that waits and is due first, else a new window."""
        if self._later and (not self._days or min(a.due for a in self._later) <= time.monotonic()):
            self._later.sort(key=lambda attempt: attempt.due)
            return self._later.pop(0)
        if not self._days:
            return None
        window = plan.next_window(self._days, self._estimate(), self._options.days_per_request)
        taken = set(window.days)
        self._days = [day for day in self._days if day not in taken]
        return _Attempt(new_run(self._flow, window))

    def _estimate(self) -> float | None:
        """Events a day, to be safe the most that a recent window had."""
        return max(self._counts[-7:], default=None)

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
            self._report(attempt, error)
            if isinstance(error, Refused | DatasetError | InputError):
                self._give_up()

    def _retry(self, attempt: _Attempt, error: TryAgain) -> None:
        limited = isinstance(error, RateLimited)
        attempt.limited = attempt.limited + 1 if limited else 0
        attempt.tries += not limited
        tries = attempt.limited if limited else attempt.tries
        decision = plan.decide(error, tries, random.random, self._options.patience)
        if isinstance(decision, plan.Wait):
            attempt.due = time.monotonic() + decision.seconds
            self._later.append(attempt)
            self._tell(Waiting(decision.seconds, str(error)))
            return
        self._report(attempt, error)
        nothing_came = not (error.tally and error.tally.bytes_received)
        if limited or (isinstance(error, Unavailable) and nothing_came):
            self._give_up()

    def _give_up(self) -> None:
        """What stopped this window would stop every other one."""
        if self._days:
            self._tell(GaveUp(len(self._days)))
        self._days = []
        for attempt in self._later:
            self._report(attempt, EtlError("Not tried again: another window of this run failed."))
        self._later = []

    def _commit(self, attempt: _Attempt, staged: Staged) -> None:
        run, days = attempt.run, attempt.run.window.days
        held = self._dataset.held(days)
        if not self._options.allow_shrink:
            self._dataset.check_shrink(held, staged.files, self._flow.shrink_guard_percent)
        names = [app_id(self._flow, day) for day in days]
        versions = {
            name: max(run.started_at, (self._dataset.position(name) or 0) + 1) for name in names
        }
        self._note(run, staged.tally, versions)
        item = succeeded(self._flow, self._dataset, run, staged)
        self._dataset.commit(
            run.batch_id,
            staged.files,
            held,
            versions,
            (self._flow.name, item, run.window.as_json()),
            self._flow.keep_superseded_hours,
        )
        self._counts.append(staged.tally.lines / len(days))
        item = succeeded(self._flow, self._dataset, run, staged)
        self._save(item, run.window)
        self._ending = []  # told of: `_abandon` has nothing to add
        self._dataset.discard(run.batch_id)
        self._ended.append(item)
        self.committed += len(days)
        self._tell(Ended(run, item, staged.tally, None))

    def _note(self, run: Run, tally: Tally, versions: Mapping[str, int] | None) -> None:
        """Leave beside a batch's rejects what tells later whether they still matter.

        `versions` are the positions that its commit sets; None if it failed.
        """
        if not tally.rejected:
            return
        left, sums = {}, pulled(self._dataset)
        for day in run.window.days:
            name = app_id(self._flow, day)
            held = self._dataset.position(name) or 0
            left[day] = sums[day.isoformat()] - held + (versions or {}).get(name, held)
        codes = dict(tally.reject_codes)
        note = Note(run.flow, run.window, versions is not None, left, tally.rejected, codes)
        self._dataset.describe(run.batch_id, note.as_json())

    # Telling -------------------------------------------------------------------------------

    def _advance(self, run_id: str, lines: int, size: int) -> None:
        self._tell(Advanced(run_id, lines, size))

    def _report_start(self, attempt: _Attempt) -> None:
        self._save(started(self._flow, attempt.run), attempt.run.window)

    def _report(self, attempt: _Attempt, error: EtlError) -> None:
        item = self._record_failure(attempt, error)
        self._tell(Ended(attempt.run, item, error.tally or Tally(), error))

    def _record_failure(self, attempt: _Attempt, error: EtlError) -> Json:
        item = failed(self._flow, self._dataset, attempt.run, error)
        self._save(item, attempt.run.window)
        self._ended.append(item)
        return item

    def _save(self, item: Json, window: Window, flow: str | None = None) -> None:
        self._catalog.save(
            item, flow=flow or self._flow.name, dataset=str(self._dataset.root), window=window
        )


def started(flow: Flow, run: Run) -> Json:
    """The record of a run that begins."""
    return payload(Outcome(run, IN_PROGRESS, copy_started=_now()), flow, _now())


def succeeded(flow: Flow, dataset: Dataset, run: Run, staged: Staged) -> Json:
    """The record of a run that is committed, or is about to be."""
    outcome = Outcome(
        run,
        SUCCESS,
        staged.copy_started,
        staged.copy_completed,
        staged.copy_completed,
        _now(),
        staged.tally,
        batch=str(dataset.batch_directory(run.batch_id)),
    )
    return payload(outcome, flow, _now())


def failed(flow: Flow, dataset: Dataset, run: Run, error: EtlError) -> Json:
    """The record of a run that ended with `error`; its diagnostics are kept by now, if any are."""
    batch = dataset.batch_directory(run.batch_id)
    outcome = Outcome(
        run,
        FAILED,
        copy_started=run.started_at,
        copy_completed=error.copied,
        promotion_started=error.copied,
        promotion_completed=_now(),
        tally=error.tally,
        failure=(error.code, str(error)),
        batch=str(batch) if batch.exists() else None,
    )
    return payload(outcome, flow, _now())


def why_ended(error: BaseException | None) -> str:
    """What a run's record says of `error`, which ended the program before the run."""
    if isinstance(error, EtlError):
        return str(error)
    if isinstance(error, Exception):  # P7: nobody knows what its text holds
        name = type(error).__name__
        return f"A defect of mixpanel-etl ended the program ({name}); nothing changed."
    return "Stopped before this run ended; nothing changed."


def project_key(flow: Flow) -> str:
    """Whose budget a request of `flow` uses."""
    return f"{flow.connection.host}/{flow.connection.project_id}"


def new_run(flow: Flow, window: Window) -> Run:
    """A run that has not begun."""
    return Run(str(uuid4()), flow.name, window, str(ULID()), _now())


def _now() -> int:
    return time.time_ns() // 1_000_000
