"""The status of a flow: how far it is, what is due, how long that takes, what is wrong."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from typing import Any

from engine.catalog.database import Catalog
from engine.dataset import layout, positions, single_days
from engine.dataset.dataset import Dataset
from engine.dataset.day_changes import Change
from engine.dataset.storage.local import holder
from engine.errors import EtlError
from engine.model import due_windows, retry
from engine.model import schedule as plan
from engine.model.clock import duration
from engine.model.day_borders import UTC
from engine.model.due_windows import Due, Positions
from engine.model.flow import Flow
from engine.model.run_record import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS, RunRecord
from engine.model.window import utc
from engine.sync import open_flow
from engine.sync.incremental import check_kind, check_still_there, comparable, counts, failed_days

Json = dict[str, Any]
MOST_RUNS = 1000  # of the last day
NOTED = 7 * plan.FULL_DAY  # ms for which the remarks of a run are repeated
NO_OVERLAP = (
    "its mapping set does not keep event, distinct_id, time and $insert_id in columns, by which an "
    "event is known again: overlap_minutes counts as 0, and what Mixpanel shows late comes when "
    "its day settles."
)


class FlowStatus:
    """The status of a flow at `now`, in ms since the epoch. `problem`: why it cannot be determined.

    `declared`: the moment (ms) since which the flow is declared; 0 if unknown.
    """

    def __init__(self, flow: Flow, catalog: Catalog | None, now: int, declared: int = 0) -> None:
        self.flow, self.now = flow, now
        # A moment later than now was set by another clock, and does not count.
        self._declared = declared if declared <= now else 0
        self.problem = ""
        # Sentences on days that another program changed: those due again, those that stay.
        self.undone = self.changed = ""
        self.positions = Positions(None, None, {})
        self.days: set[date] = set()
        self.due: list[Due] = []
        self.last: RunRecord | None = None
        self.is_interrupted = False  # whether the process of the last run was killed
        self.notes: list[str] = []  # sentences that are no failures
        self.wrong = ""  # why the last arrival window, or the last run of all, failed
        self.rejected = 0  # events, in the runs of the last day
        self.requests_last_hour = 0  # of all flows of the project
        self._backoffs: dict[date, int] = {}
        self._catalog = catalog
        if catalog:
            self._read_catalog(catalog)
        try:
            rules = open_flow.rules_of(flow)
            self.flow = comparable(flow, rules)
            if self.flow != flow and flow.windows == "arrival":
                self.notes.append(NO_OVERLAP)
            self._read(open_flow.dataset_of(flow, rules))
        except EtlError as error:
            self.problem = str(error)

    def _read_catalog(self, catalog: Catalog) -> None:
        self._backoffs = failed_days(self.flow, catalog, self.now)[1]
        # A run that started later than now was saved by a clock that was ahead.
        until = plan.latest(self.now)
        history = catalog.history(self.flow.name, limit=MOST_RUNS, until=until)
        self.last = history[0] if history else None
        # A stopped run is no sign of how the flow is.
        open_ = (IN_PROGRESS, SCHEDULED)
        ended = [run for run in history if run.status not in open_ and not run.is_stopped]
        # The success of a day does not hide that arrival windows fail.
        arrivals = [run for run in ended if run.window.arrival and self.flow.windows == "arrival"]
        failed = [run for run in (*arrivals[:1], *ended[:1]) if run.status == FAILED]
        self.wrong = error_of(failed[0]) if failed else ""
        self.requests_last_hour = len(catalog.recent_requests(self.flow.project, self.now))
        self._remark(run for run in ended if run.started_at > self.now - NOTED)
        for run in catalog.history(self.flow.name, SUCCESS, limit=MOST_RUNS, until=until):
            if run.started_at > self.now - plan.FULL_DAY:
                self.rejected += run.rejected

    def _remark(self, runs: Iterable[RunRecord]) -> None:
        """Add the remarks of the newest run of whole days that has any to the notes."""
        found = (run.remarks(self.flow) for run in runs if run.window.arrival is None)
        self.notes += next(filter(None, found), [])

    def _read(self, dataset: Dataset) -> None:
        if dataset.damage:  # the rest of the table is reported all the same
            self.problem = dataset.damage
        self.is_interrupted = self._was_killed(dataset)
        self.days = dataset.days()
        self._read_changes(dataset)
        self.positions = positions.read(self.flow, dataset, self.now)
        self._note_single_days()
        if self._catalog:
            check_still_there(self.flow, dataset, self._catalog)
        check_kind(self.flow, dataset)
        if wrong := wrong_position(self.positions, self.now):
            self.problem = wrong
        self.due = self._due(max(counts(self.flow, dataset, self.now), default=None))

    def _was_killed(self, dataset: Dataset) -> bool:
        """Return whether the process of the last run ended without recording the run's end.

        A process records the end before it frees the table's lock: a run that still has no end
        after the lock is free was killed.
        """
        if not self._catalog or not self.last or self.last.status != IN_PROGRESS:
            return False
        if holder(dataset.root / layout.LOCK):
            return False
        until = plan.latest(self.now)
        return self._catalog.history(self.flow.name, limit=1, until=until) == [self.last]

    def _note_single_days(self) -> None:
        """Add a note if the project's days are not UTC days, and space the flow's schedule out."""
        if self.positions.begin == UTC:
            return
        note, spaced = single_days.SAID, plan.spaced(self.flow)
        if spaced.schedule != self.flow.schedule and spaced.schedule:
            every = spaced.schedule.interval
            note += (
                f" What arrives is asked for every {every} {spaced.schedule.frequency}s, which the "
                "hourly budget allows."
            )
        if left := len(self.positions.misfiled):
            days = "1 day holds" if left == 1 else f"{left:,} days hold"
            note += f" {days} rows by their UTC days, and will be pulled again."
        self.flow = spaced
        self.notes.append(note)

    def _read_changes(self, dataset: Dataset) -> None:
        """Describe what another program changed in the days of the flow (P10)."""
        undone = positions.undone(self.flow, dataset)
        others = [each for each in dataset.changes().values() if not each.undone]
        if not undone and not others:
            return
        last = dataset.last_change()
        by = f" ({last.operation}, {utc(last.moment)})" if last else ""
        if undone:
            days = "1 day is" if len(undone) == 1 else f"{len(undone):,} days are"
            self.undone = (
                f"{days} due again, for the table does not hold what was pulled{by}: "
                f"{listed(undone.values())}. "
                + ("The next tick pulls" if self.next_tick else "backfill pulls")
                + (" it." if len(undone) == 1 else " them.")
            )
        if others:
            self.changed = (
                f"another program wrote to the table{by}: {listed(others)}. That is left as it is; "
                "backfill --force pulls a day again."
            )

    def _due(self, events: float | None) -> list[Due]:
        """Return what the daemon would pull now, in order, by the `events` of a day."""
        if not self.flow.schedule:
            return []
        now, rests = self.now, self._backoffs
        due = partial(due_windows.due, self.flow, now=now, events_per_day=events, backoffs=rests)
        found = list(due(self.positions))
        if found and (span := found[0].window.arrival):  # and what is due after its commit
            began = span[0] if self.positions.start is None else self.positions.start
            found[1:] = due(replace(self.positions, start=began, arrival=span[1]))
        return found

    @property
    def last_status(self) -> str:
        """Return the status of the last run as people read it; "-" without a run."""
        if self.is_interrupted:
            return "interrupted"
        return self.last.status_label if self.last else "-"

    @property
    def next_tick(self) -> int | None:
        """Return the next tick, in ms since the epoch; None after the last."""
        return plan.next_tick(self.flow.schedule, self.now) if self.flow.schedule else None

    @property
    def behind(self) -> int | None:
        """Return the ms between the end of the last arrival window and now."""
        arrival = self.positions.arrival
        return None if arrival is None else self.now - arrival

    @property
    def stale_since(self) -> int | None:
        """Return since when (ms) the flow is late, by more than two intervals and its delay.

        None: it is on time.
        """
        schedule = self.flow.schedule
        if schedule is None or self.problem:
            return None
        by_days = self.flow.windows == "day"
        reached = self.positions.pulled.values() if by_days else [self.positions.arrival or 0]
        since = max(reached, default=0)
        if plan.is_once(schedule) and since:
            return None
        since = max(since or self._declared, schedule.start_time * plan.SECOND)
        late = self.now - since > plan.stale_after(schedule, self.flow.delay_minutes)
        return since if late else None

    @property
    def faults(self) -> list[str]:
        """Return what is wrong with the flow, a sentence or two for each fault."""
        if self.problem:
            return [self.problem]
        found = [text for text in (self.undone, self.wrong) if text]
        if since := self.stale_since:
            moment = utc(since)
            behind = duration((self.now - since) / 1000)
            if self.positions.arrival is None and not self.positions.pulled:
                found.append(f"It never brought anything, though it should since {moment}.")
            else:
                found.append(f"It is behind: nothing was brought since {moment}, {behind} ago.")
        return found

    @property
    def to_fill(self) -> int:
        """Return the number of days that are still to be pulled whole."""
        return sum(len(due.window.days) for due in self.due if not due.window.arrival)

    @property
    def requests(self) -> int:
        """Return the number of requests for all that is due."""
        return sum(len(due.window.requests) for due in self.due)

    @property
    def hours(self) -> float:
        """Return how many hours the requests for all that is due take within the rate limit."""
        per_hour = retry.DEFAULT_RATE_LIMIT.per_hour
        return max(self.requests - (per_hour - self.requests_last_hour), 0) / per_hour

    def as_json(self) -> Json:
        """Return the status as `--json` prints it; moments in ms since the epoch."""
        last = self.last
        return {
            "flow": self.flow.name,
            "dataset": self.flow.dataset,
            "windows": self.flow.windows,
            "arrivedUntil": self.positions.arrival,
            "behindMs": self.behind,
            "lastRun": last and {
                "id": last.id,
                "status": self.last_status,
                "startedAt": last.started_at,
                "error": error_of(last) or None,
            },
            "nextTick": self.next_tick,
            "daysHeld": len(self.days),
            "daysToFill": self.to_fill,
            "rejectedLastDay": self.rejected,
            "requestsLastHour": self.requests_last_hour,
            "requestsAnHour": retry.DEFAULT_RATE_LIMIT.per_hour,
            "changed": self.changed or None,
            "notes": self.notes,
            "problem": " ".join(self.faults) or None,
            "staleSince": self.stale_since,
        }  # fmt: skip


def listed(changes: Iterable[Change], most: int = 3) -> str:
    """Format the first of `changes`, and how many more there are."""
    found = list(changes)
    more = f"; and {len(found) - most:,} more" if len(found) > most else ""
    return "; ".join(map(str, found[:most])) + more


def wrong_position(found: Positions, now: int) -> str:
    """Return what is wrong with a high watermark that is later than now; else empty."""
    if found.arrival is None or not plan.is_later(found.arrival, now):
        return ""
    return (
        f"the table says that it holds what arrived until {utc(found.arrival)}, which is later "
        f"than now ({utc(now)}). If this machine's clock was ahead, the next run asks again for "
        "what may be missing; if it is behind, set it right."
    )


def error_of(run: RunRecord) -> str:
    """Return why a run failed; empty if it did not fail, or if a person stopped it."""
    return "" if run.is_stopped else run.error


@dataclass(frozen=True)
class Reset:
    """A plan to delete the positions of some days of a flow, and what is then pulled again."""

    status: FlowStatus
    first: date | None
    last: date | None

    @cached_property
    def pulled(self) -> list[date]:
        """Return the days from `first` to `last` that were pulled, in order."""
        first, last = self.first or date.min, self.last or date.max
        return sorted(day for day in self.status.positions.pulled if first <= day <= last)

    @cached_property
    def due(self) -> list[Due]:
        """Return the windows of days that are due after the deletion."""
        found, deleted = self.status.positions, set(self.pulled)
        left = {day: at for day, at in found.pulled.items() if day not in deleted}
        due = due_windows.due(self.status.flow, replace(found, pulled=left), self.status.now)
        return [each for each in due if not each.window.arrival]

    @property
    def days(self) -> list[date]:
        """Return the days of `pulled` that are pulled again; the others do not change."""
        again = {day for each in self.due for day in each.window.days}
        return [day for day in self.pulled if day in again]

    @property
    def names(self) -> list[str]:
        """Return the app ids of the positions of `days`."""
        return [positions.app_id(self.status.flow, day) for day in self.days]
