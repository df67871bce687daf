"""Windows -> runs: requests within the rate limit, retries, commits and records.

This process commits; an executor runs the pulls. A `WindowSource` hands out the windows.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any
from uuid import uuid4

from ulid import ULID

from engine.catalog.database import Catalog
from engine.config.environment import read_again
from engine.dataset import positions, single_days
from engine.dataset.dataset import Dataset
from engine.errors import (
    DatasetError,
    EtlError,
    PermanentError,
    Refused,
    RetryableError,
    WorkerKilled,
)
from engine.model.batch import Tally
from engine.model.flow import Flow, Run
from engine.model.run_record import SCHEDULED, RunRecord
from engine.model.window import Window
from engine.sync import missed_events, run_records, splitting
from engine.sync.attempts import Attempt, Retry, SplitWindow, decide, tries_before
from engine.sync.executors import open_executor
from engine.sync.executors.base import Executor
from engine.sync.options import Options
from engine.sync.pull import Rules, StagedRun
from engine.sync.pull_task import Credentials, PullTask
from engine.sync.request_slots import RequestSlots
from engine.sync.run_updates import Advanced, Ended, GaveUp, Noticed, RunUpdate, Split, Waiting
from engine.sync.window_commits import WindowCommits, outside
from engine.sync.window_source import CommitPolicy, Result, WindowSource


class Runner:
    """Brings the windows of a source into the dataset of a flow."""

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
        self._options, self._now, self._report = options, options.now, report
        self._source: WindowSource
        self._commits: CommitPolicy
        self._waiting: list[Attempt] = []
        self._running: dict[Future[StagedRun], Attempt] = {}
        self._slots = RequestSlots(
            catalog, flow.project, options, report, lambda: len(self._running)
        )
        self._ending: list[Attempt] = []  # the attempt whose end has no record yet
        self._ended: list[RunRecord] = []
        self._failures = Counter[date]()  # tries that each day used up in windows that were split
        self._parts_due = 0.0  # when the parts of a split window may begin, monotonic seconds
        self._killers = set[date]()  # days of windows whose worker was killed
        self._unanswered = 0  # windows in a row that failed for want of a response or a table

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Lock the dataset and recover what a crash left."""
        with self._dataset.locked():
            positions.check_owner(self._flow, self._dataset)
            self._recover()
            self._dataset.clean_up_batches(self._flow.keep_batches_days, self._now())
            yield

    def run(self, source: WindowSource, commits: CommitPolicy | None = None) -> list[RunRecord]:
        """Pull and commit every window of `source`; return the records of the runs that ended.

        The dataset must be `prepared`. A run that fails raises nothing: its record has the error.
        On KeyboardInterrupt running pulls are discarded, and commits stay (P8).
        """
        self._source = source
        own = WindowCommits(self._flow, self._rules, self._dataset, self._options)
        self._commits = commits or own
        with ExitStack() as stack:
            stack.push(self._abandon)
            opened = open_executor(self._options.workers, self._advanced, self._slots.wait)
            executor = stack.enter_context(opened)
            while (pause := self._start(executor)) is not None:
                self._wait(pause, executor)
        return self._ended

    def _recover(self) -> None:
        """Record commits whose process died before it could; end open runs as failed."""
        self._report_notices()
        for batch_id, unreported in self._dataset.unreported:
            if record := run_records.unreported(unreported, str(self._dataset.root)):
                self._catalog.save(record)
            self._dataset.discard(batch_id)
        self._catalog.abandon(str(self._dataset.root), self._now())

    def _report_notices(self) -> None:
        for notice in self._dataset.notices:
            self._report(Noticed(notice))
        self._dataset.notices.clear()

    def _abandon(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        """Leave no run open and nothing staged, whatever ended `run`; report nothing."""
        for attempt in [*self._running.values(), *self._waiting, *self._ending]:
            if not self._dataset.is_committed(attempt.run.batch_id):
                self._dataset.discard(attempt.run.batch_id)
                self._record_failure(attempt, EtlError(run_records.why_ended(error)))

    def _start(self, executor: Executor) -> float | None:
        """Start the pulls that may start now; return the seconds until another one may.

        None: nothing is left to wait for.
        """
        while len(self._running) < self._options.workers:
            attempt = self._next_attempt()
            if attempt is None:
                break
            self._waiting.append(attempt)  # `_abandon` finds it if its start is cut off
            if self._must_run_alone(attempt):
                break
            now = self._now()
            if pause := self._pause_before(attempt, now):
                return pause
            attempt.run = replace(attempt.run, started_at=now)
            record = run_records.started(self._flow, self._dataset, attempt.run, self._now())
            self._catalog.save(record)
            attempt.connection = self._flow.connection
            future = executor.submit(self._task(attempt.run), Credentials.of(attempt.connection))
            self._waiting.remove(attempt)
            self._running[future] = attempt
        return 3600 if self._running else None

    def _task(self, run: Run) -> PullTask:
        """Describe a pull; one that adds to days compares its events with the table's (P4)."""
        rejects = self._commits.rejects
        adds = run.window.arrival or rejects
        return PullTask.of(
            self._flow,
            self._rules.mapping,
            self._rules.schema,
            run,
            self._dataset.staging(run.batch_id),
            table=str(self._dataset.root) if adds else None,
            timeouts=self._options.timeouts,
            rejects=rejects,
        )

    def _pause_before(self, attempt: Attempt, now: int) -> float:
        """Return the seconds until `attempt` may start; 0: now, and its slot is acquired."""
        backoff = attempt.due - time.monotonic()
        if backoff > 0:
            return backoff
        # P11: a replay makes no request.
        return 0 if self._commits.rejects else self._slots.acquire(attempt.run, now)

    def _next_attempt(self) -> Attempt | None:
        """Return a waiting attempt that is due, else a new one, else one that waits."""
        self._waiting.sort(key=lambda attempt: attempt.due)
        if self._waiting and self._waiting[0].due <= time.monotonic():
            return self._waiting.pop(0)
        if window := self._source.next_window():
            requested = self._requested_id(window)
            id_ = requested or str(uuid4())
            run = Run(id_, self._flow.name, window, str(ULID()), self._now())
            tries = tries_before(window, self._failures, self._options.retry_policy)
            return Attempt(run, self._parts_due if tries else 0, tries, requested=bool(requested))
        return self._waiting.pop(0) if self._waiting else None

    def _must_run_alone(self, attempt: Attempt) -> bool:
        """Return whether `attempt` must wait for running pulls, since one killed a worker."""
        running = [each.run.window for each in self._running.values()]
        windows = [attempt.run.window, *running]
        return bool(running) and any(self._killers.intersection(one.days) for one in windows)

    def _requested_id(self, window: Window) -> str | None:
        """Return the id of the run that a client requested and that `window` fulfils."""
        if self._commits.rejects:
            return None
        scheduled = reversed(self._catalog.history(self._flow.name, SCHEDULED))
        return next((run.id for run in scheduled if window.fulfils(run.window)), None)

    def _wait(self, pause: float, executor: Executor) -> None:
        """Wait up to `pause` seconds for a pull to end, and finish those that did."""
        until = time.monotonic() + pause
        done: set[Future[StagedRun]] = set()
        while not done and time.monotonic() < until:
            if not self._running:
                time.sleep(max(0, min(until - time.monotonic(), 0.5)))
                continue
            done, _ = wait(self._running, 0.2, FIRST_COMPLETED)
            executor.forward_progress()
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done, _ = wait(self._running)  # it broke for all of them
            executor.restart()
        for future in done:
            self._ending = [self._running.pop(future)]
            self._finish(self._ending[0], future)
            self._ending = []

    def _finish(self, attempt: Attempt, future: Future[StagedRun]) -> None:
        staged: StagedRun | None = None
        try:
            try:
                staged = future.result()
            except BrokenProcessPool as error:
                self._killers.update(attempt.run.window.days)
                raise WorkerKilled(
                    "A worker process was killed, perhaps for want of memory."
                ) from error
            self._commit(attempt, staged)
        except EtlError as error:
            if isinstance(error, RetryableError) and not error.reached:
                self._slots.release(attempt.run.started_at)
            elif not isinstance(error, RetryableError):
                if self._dataset.is_committed(attempt.run.batch_id):
                    raise  # the commit has no record yet: the next start makes it
                if staged:
                    error.tally, error.copied = staged.tally, staged.copy_completed
            self._on_failure(attempt, error)

    def _on_failure(self, attempt: Attempt, error: EtlError) -> None:
        """Discard what a failed pull left, and retry, split or fail the run."""
        run = attempt.run
        refused = isinstance(error, Refused) and self._has_other_credentials(attempt)
        if refused or isinstance(error, RetryableError) or not self._save_rejects(run, error):
            self._dataset.discard(run.batch_id)
        if refused:
            attempt.renew(attempt.due)
            self._waiting.append(attempt)
            return
        failures = attempt.count(error) if isinstance(error, RetryableError) else 0
        window = None if self._commits.rejects else run.window
        policy = self._options.retry_policy
        decision, self._unanswered = decide(
            error, failures, window, self._unanswered, policy, random.random
        )
        if isinstance(decision, Retry):
            attempt.renew(time.monotonic() + decision.seconds)
            self._waiting.append(attempt)
            self._report(Waiting(attempt.run, decision.seconds, str(error)))
        elif isinstance(decision, SplitWindow):
            if isinstance(error, RetryableError):
                for day in run.window.days:
                    self._failures[day] = max(self._failures[day], attempt.tries)
            self._parts_due = time.monotonic() + decision.seconds
            bad = error.days if isinstance(error, PermanentError) else frozenset[date]()
            self._split(attempt, error, bad)
        else:
            self._fail(attempt, error)
            if decision.give_up:
                self._give_up()

    def _save_rejects(self, run: Run, error: EtlError) -> bool:
        """Save the rejects of a failed run beside the table; return whether there are any."""
        if not (error.tally and error.tally.rejected) or self._commits.rejects:
            return False
        with suppress(DatasetError):  # `error` says what failed already
            self._describe(run, error.tally, None)
        self._dataset.keep_diagnostics(run.batch_id)
        return True

    def _has_other_credentials(self, attempt: Attempt) -> bool:
        """Read the files of the credentials again; return whether they changed."""
        fresh = read_again(self._flow.connection)
        self._flow = replace(self._flow, connection=fresh)
        return fresh != attempt.connection

    def _split(self, attempt: Attempt, error: EtlError, bad: frozenset[date]) -> None:
        """Replace a failed window by smaller ones (P9)."""
        run, flow, now = attempt.run, self._flow, self._now()
        record = run_records.failed(flow, self._dataset, run, error, now, splitting.AGAIN)
        self._catalog.save(record)
        self._ending = []
        if attempt.requested:
            for window in reversed(splitting.parts(run.window, bad)):  # the last saved runs first
                part = Run(str(uuid4()), flow.name, window, "", self._now())
                root = str(self._dataset.root)
                self._catalog.save(run_records.scheduled(flow, root, part, {}))
        self._source.on_result(Result(run.window, error=error, split=True, bad=bad))
        self._report(Split(run, error))

    def _give_up(self) -> None:
        """Fail the waiting runs and take no other window: each would fail in the same way."""
        if days := self._source.give_up():
            self._report(GaveUp(days))
        for attempt in self._waiting:
            self._fail(attempt, EtlError("Not tried again: another window of this run failed."))
        self._waiting = []

    def _commit(self, attempt: Attempt, staged: StagedRun) -> None:
        """Commit a staged run and record it (P2)."""
        run = attempt.run = replace(attempt.run, window=staged.window)
        if error := self._commits.misaligned(run, staged):
            error.tally, error.copied = staged.tally, staged.copy_completed
            self._dataset.discard(run.batch_id)
            self._split(attempt, error, frozenset(run.window.days))
            return
        plan = partial(self._commits.plan, run, staged)
        held, positions_set = plan()
        missed = missed_events.count(self._flow, self._dataset, run.window, staged, held)
        staged.tally.missed = missed
        empty = self._commits.empty_days(run, staged)
        self._describe(run, staged.tally, positions_set)
        record = run_records.succeeded(self._flow, self._dataset, run, staged, self._now())
        hours, files = self._flow.keep_superseded_hours, staged.files
        self._dataset.commit(
            run.batch_id, files, held, positions_set, record.as_json(), hours, plan
        )
        # Once more: the catalog's record ends when the commit did.
        record = run_records.succeeded(self._flow, self._dataset, run, staged, self._now())
        self._catalog.save(record)
        self._ending = []
        self._dataset.discard(run.batch_id)
        self._ended.append(record)
        self._unanswered = 0
        self._forget(run.window)
        self._source.on_result(Result(run.window, staged.tally.lines))
        self._report(Ended(record, None, tuple(empty)))
        self._report_notices()
        if single_days.MARK in positions_set:
            self._report(Noticed(f"{outside(staged)}{single_days.SENTENCE}."))

    def _describe(self, run: Run, tally: Tally, positions_set: Mapping[str, int] | None) -> None:
        if tally.rejected:
            manifest = self._commits.manifest(run, tally, positions_set)
            self._dataset.describe(run.batch_id, manifest.as_json())

    def _forget(self, window: Window) -> None:
        for day in window.days:
            self._failures.pop(day, None)
        self._killers.difference_update(window.days)

    def _advanced(self, run_id: str, lines: int, size: int) -> None:
        self._report(Advanced(run_id, lines, size))

    def _fail(self, attempt: Attempt, error: EtlError) -> None:
        self._forget(attempt.run.window)
        self._source.on_result(Result(attempt.run.window, error=error))
        self._report(Ended(self._record_failure(attempt, error), error))

    def _record_failure(self, attempt: Attempt, error: EtlError) -> RunRecord:
        record = run_records.failed(self._flow, self._dataset, attempt.run, error, self._now())
        self._catalog.save(record)
        self._ended.append(record)
        return record
