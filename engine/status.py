"""What people ask about a flow: how far it is, what is due, when it will be done.

It reads the table, the catalog and the clock, and changes none of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from typing import Any

from engine import given, plan, positions
from engine.catalog import Catalog, Entry
from engine.dataset import Dataset
from engine.errors import EtlError
from engine.flow import Flow
from engine.plan import Due, Positions
from engine.report import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS, remarks
from engine.upkeep import check_kind, check_still_there, comparable, counts, failed_days
from engine.window import utc

Json = dict[str, Any]
MOST_RUNS = 1000  # of the last day
NOTED = 7 * plan.FULL_DAY  # ms for which what a run has to tell is repeated
NO_OVERLAP = (
    "its mapping set does not keep event, distinct_id, time and $insert_id in columns, by which an "
    "event is known again: overlap_minutes counts as 0, and what Mixpanel shows late comes when "
    "its day settles."
)


class FlowStatus:
    """A flow as it is at `now`, in ms since the epoch. `problem` is why it cannot be told."""

    def __init__(self, flow: Flow, catalog: Catalog | None, now: int) -> None:
        self.flow = flow
        self.now = now
        self.problem = ""
        self.positions = Positions(None, None, {})
        self.days: set[date] = set()
        self.due: list[Due] = []
        self.last: Entry | None = None  # run
        self.notes: list[str] = []  # what is worth knowing, and is no failure
        self.wrong = ""  # why the last arrival window, or the last run of all, failed
        self.rejected = 0  # records, in the runs of the last day
        self.asked = 0  # requests in the last hour, of all flows of the project
        self._rests: dict[date, int] = {}
        self._catalog = catalog
        if catalog:
            self._read_catalog(catalog)
        try:
            rules = given.rules_of(flow)
            self.flow = comparable(flow, rules)
            if self.flow != flow and flow.windows == "arrival":
                self.notes.append(NO_OVERLAP)
            self._read(given.dataset_of(flow, rules))
        except EtlError as error:
            self.problem = str(error)

    def _read_catalog(self, catalog: Catalog) -> None:
        self._rests = failed_days(self.flow, catalog, self.now)[1]
        # A run that began later than now was noted by a clock that was ahead.
        until = plan.latest(self.now)
        history = catalog.history(self.flow.name, limit=MOST_RUNS, until=until)
        self.last = history[0] if history else None
        ended = [run for run in history if run.status not in (IN_PROGRESS, SCHEDULED)]
        # A day that came well does not hide that nothing arrives any more.
        arrivals = [run for run in ended if run.window.arrival and self.flow.windows == "arrival"]
        failed = [run for run in (*arrivals[:1], *ended[:1]) if run.status == FAILED]
        self.wrong = error_of(failed[0]) if failed else ""
        self.asked = len(catalog.asked(self.flow.project, self.now))
        self._remark(run for run in ended if run.started_at > self.now - NOTED)
        for run in catalog.history(self.flow.name, SUCCESS, limit=MOST_RUNS, until=until):
            if run.started_at > self.now - plan.FULL_DAY:
                records = run.item["metrics"]["recordSummary"]
                self.rejected += records.get("failedRecordCount", 0)

    def _remark(self, runs: Iterable[Entry]) -> None:
        """Note what runs have to tell; of those with the same windows' kind, the newest alone."""
        missed = (run for run in runs if run.window.arrival is None)
        found = (remarks(run.item, run.window, self.flow) for run in missed)
        self.notes += next(filter(None, found), [])

    def _read(self, dataset: Dataset) -> None:
        self.days = dataset.days()
        self.positions = positions.read(self.flow, dataset, self.now)
        if self._catalog:
            check_still_there(self.flow, dataset, self._catalog)
        check_kind(self.flow, dataset)
        if wrong := wrong_position(self.positions, self.now):
            self.problem = wrong
        self.due = self._due(max(counts(self.flow, dataset, self.now), default=None))

    def _due(self, events_per_day: float | None) -> list[Due]:
        """What the daemon would pull now, one after another: nothing without a schedule."""
        if not self.flow.schedule:
            return []
        plan_ = partial(
            plan.due, self.flow, now=self.now, events_per_day=events_per_day, rests=self._rests
        )
        found = list(plan_(self.positions))
        if found and (span := found[0].window.arrival):  # and what is due once that has come
            began = span[0] if self.positions.start is None else self.positions.start
            then = replace(self.positions, start=began, arrival=span[1])
            found[1:] = plan_(then)
        return found

    @property
    def next_tick(self) -> int | None:
        """In ms since the epoch."""
        return plan.next_tick(self.flow.schedule, self.now) if self.flow.schedule else None

    @property
    def behind(self) -> int | None:
        """Ms between the end of the last arrival window and now."""
        arrival = self.positions.arrival
        return None if arrival is None else self.now - arrival

    @property
    def to_fill(self) -> int:
        """Days that are still to be pulled whole."""
        return sum(len(due.window.days) for due in self.due if not due.window.arrival)

    @property
    def hours(self) -> float:
        """How many hours the budget makes of what is due."""
        left = max(len(self.due) - (plan.DEFAULT_BUDGET.per_hour - self.asked), 0)
        return left / plan.DEFAULT_BUDGET.per_hour

    def as_json(self) -> Json:
        """All of it; moments in ms since the epoch."""
        last = self.last
        return {
            "flow": self.flow.name,
            "dataset": self.flow.dataset,
            "windows": self.flow.windows,
            "arrivedUntil": self.positions.arrival,
            "behindMs": self.behind,
            "lastRun": last and {
                "id": last.item["id"],
                "status": last.status,
                "startedAt": last.started_at,
                "error": error_of(last) or None,
            },
            "nextTick": self.next_tick,
            "daysHeld": len(self.days),
            "daysToFill": self.to_fill,
            "rejectedLastDay": self.rejected,
            "requestsLastHour": self.asked,
            "requestsAnHour": plan.DEFAULT_BUDGET.per_hour,
            "problem": self.problem or self.wrong or None,
            "notes": self.notes,
        }  # fmt: skip


def wrong_position(found: Positions, now: int) -> str:
    """What is wrong with an M that is later than now; empty where it is not."""
    if found.arrival is None or not plan.is_later(found.arrival, now):
        return ""
    return (
        f"the table says that it holds what arrived until {utc(found.arrival)}, which is later "
        f"than now ({utc(now)}). If this machine's clock was ahead, the next run asks again for "
        "what may be missing; if it is behind, set it right."
    )


def error_of(run: Entry) -> str:
    """Why a run failed; empty for one that did not."""
    errors = run.item["metrics"]["statusSummary"].get("errors", [])
    return str(errors[0]["message"]) if errors and run.status == FAILED else ""


@dataclass(frozen=True)
class Reset:
    """Days of a flow whose positions are to be forgotten, and what that would pull again."""

    status: FlowStatus
    first: date | None
    last: date | None

    @cached_property
    def asked(self) -> list[date]:
        """Those of the span that were pulled, in order."""
        first, last = self.first or date.min, self.last or date.max
        return sorted(day for day in self.status.positions.pulled if first <= day <= last)

    @cached_property
    def due(self) -> list[Due]:
        """What would be due then, beside the arrival window."""
        found, asked = self.status.positions, set(self.asked)
        kept = {day: at for day, at in found.pulled.items() if day not in asked}
        then = replace(found, pulled=kept)
        due = plan.due(self.status.flow, then, self.status.now)
        return [each for each in due if not each.window.arrival]

    @property
    def days(self) -> list[date]:
        """Those of `asked` that are pulled again then: to forget the others would do nothing."""
        again = {day for each in self.due for day in each.window.days}
        return [day for day in self.asked if day in again]

    @property
    def names(self) -> list[str]:
        """The app ids of the positions of `days`."""
        return [positions.app_id(self.status.flow, day) for day in self.days]
