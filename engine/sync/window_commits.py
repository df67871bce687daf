"""Decide what the commit of a requested window replaces and sets, and whether it may be made.

App transactions of the commit mark each day with the rules that it was pulled with, and a day that
came empty. A table without these marks works as well.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from hashlib import sha256

from ulid import ULID

from engine.dataset import positions, single_days
from engine.dataset.dataset import Dataset, Planned
from engine.dataset.positions import app_id
from engine.errors import EtlError
from engine.model.batch import BatchManifest, Tally
from engine.model.day_borders import UTC
from engine.model.flow import Flow, Run
from engine.model.schedule import FULL_DAY
from engine.model.window import day_over
from engine.sync.options import Options
from engine.sync.pull import Rules, StagedRun

YOUNG = 7 * FULL_DAY  # within which an empty day is requested once more


class WindowCommits:
    """The commit policy of backfill and incremental sync."""

    rejects = None

    def __init__(self, flow: Flow, rules: Rules, dataset: Dataset, options: Options) -> None:
        self._flow, self._rules = flow, rules
        self._dataset, self._options = dataset, options
        self._rules_mark = _rules_mark(rules)

    def plan(self, run: Run, staged: StagedRun) -> Planned:
        """Plan the commit for the table as it is now; ShrinkDetected if a day would shrink (P5)."""
        now = self._options.now() if staged.answered_at is None else staged.answered_at
        held = positions.replaced(self._flow, self._dataset, run.window, now)
        if not self._options.allow_shrink:
            percent = self._flow.shrink_guard_percent
            keys = self._rules.key_columns
            own = single_days.own_rows(self._dataset, held, keys)
            self._dataset.check_shrink(own, staged.files, percent, keys)
        sure = staged.answered_at is not None
        becomes = positions.after(self._flow, self._dataset, run, now, sure=sure)
        becomes |= single_days.after(self._dataset, run.window, self._begin(run, staged))
        empty, mark = self.empty_days(run, staged), self._rules_mark
        return held, becomes | _day_marks(self._flow, self._dataset, run, empty, mark)

    def misaligned(self, run: Run, staged: StagedRun) -> EtlError | None:
        """Return an error if the rows show that the project's days are not UTC days.

        The days of the window and of the table may then lack rows at their borders, or hold rows of
        another day. Notes in the table which days have to be pulled again.
        """
        known = single_days.begin(self._dataset)
        begins = known or self._begin(run, staged)
        if run.window.arrival or not begins:
            return None
        several = len(run.window.days) > 1
        if not several and (known or single_days.is_alone(self._dataset, run.window)):
            return None
        if not known and self._dataset.exists:
            self._note_days(begins)
        return EtlError(f"{outside(staged)}{single_days.SENTENCE}.")

    def _note_days(self, begins: int) -> None:
        batch_id = str(ULID())
        arrives = self._dataset.position(app_id(self._flow, positions.ARRIVAL))
        noted = single_days.found(self._dataset, begins, arrives=arrives is not None)
        self._dataset.staging(batch_id)
        self._dataset.commit(batch_id, [], {}, noted, None)
        self._dataset.discard(batch_id)

    def manifest(
        self, run: Run, tally: Tally, positions_set: Mapping[str, int] | None
    ) -> BatchManifest:
        """Describe a batch with rejects, so that a replay can judge whether they still matter."""
        left = {
            day: positions.left(self._dataset, day, positions_set or {}) for day in run.window.days
        }
        codes = dict(tally.reject_codes)
        committed = positions_set is not None
        return BatchManifest(run.flow, run.window, committed, left, tally.rejected, codes)

    def empty_days(self, run: Run, staged: StagedRun) -> list[date]:
        """Return the days, over when the pull began, of which it brought no line."""
        if run.window.arrival:
            return []
        filled = {file.day for file in staged.files} | set(staged.tally.reject_days)
        zone = self._flow.connection.zone
        over = (day for day in run.window.days if day_over(day, zone) <= run.started_at)
        return [day for day in over if day not in filled]

    def _begin(self, run: Run, staged: StagedRun) -> int:
        """Return when the project's days begin, by the rows of a pull; UTC if that is unknown."""
        if staged.borders is None:
            return UTC
        over = day_over(run.window.to_date, self._flow.connection.zone) <= run.started_at
        return staged.borders.begin(over=over)


def outside(staged: StagedRun) -> str:
    """Return the begin of a sentence: how many rows of a pull lie outside its UTC days."""
    count = staged.borders.rows_outside if staged.borders else 0
    rows = "1 row lies" if count == 1 else f"{count:,} rows lie"
    return f"{rows} outside the UTC days that were asked for: " if count else ""


def _rules_mark(rules: Rules) -> int:
    """Return a number that identifies a mapping set and a schema by content, not by name."""
    documents = json.dumps([rules.mapping[1], rules.schema[1]], sort_keys=True)
    return int.from_bytes(sha256(documents.encode()).digest()[:6]) + 1  # 0: forgotten


def _day_marks(
    flow: Flow, dataset: Dataset, run: Run, empty: Collection[date], rules: int
) -> dict[str, int]:
    """Return the marks that the commit of `run` changes.

    A day that came `empty` while it was young is marked until it is pulled again, once.
    """
    if run.window.arrival:
        return {}
    found = {_rules_id(flow, day): rules for day in run.window.days}
    for day in run.window.days:
        noted = dataset.position(_empty_id(flow, day))
        young = run.started_at < day_over(day, flow.connection.zone) + YOUNG
        if noted is None and day in empty and young:
            found[_empty_id(flow, day)] = run.started_at
        elif noted:
            found[_empty_id(flow, day)] = 0
    return {name: value for name, value in found.items() if dataset.position(name) != value}


def is_doubtful(flow: Flow, dataset: Dataset, day: date) -> bool:
    """Return whether `day` came empty the only time it was pulled, soon after its end."""
    return bool(dataset.position(_empty_id(flow, day)))


def pulled_otherwise(
    flow: Flow, dataset: Dataset, days: Sequence[date], rules: Rules
) -> list[date]:
    """Return those of `days` known to be pulled with another mapping set or schema."""
    mark = _rules_mark(rules)
    found = {day: dataset.position(_rules_id(flow, day)) for day in days}
    return [day for day, noted in found.items() if noted and noted != mark]


def _rules_id(flow: Flow, day: date) -> str:
    # Not the app id of a day, so that sums over a day's positions leave it out.
    return f"{app_id(flow, day)}/rules"


def _empty_id(flow: Flow, day: date) -> str:
    return f"{app_id(flow, day)}/empty"
