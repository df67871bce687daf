"""Decide what the commit of a requested window replaces and sets, and whether it may be made."""

from collections.abc import Mapping
from datetime import date

from ulid import ULID

from engine.dataset import positions, single_days
from engine.dataset.dataset import Dataset, Planned
from engine.errors import EtlError
from engine.model.batch import BatchManifest, Tally
from engine.model.day_borders import UTC
from engine.model.flow import Flow, Run
from engine.model.window import day_over
from engine.sync import day_marks
from engine.sync.options import Options
from engine.sync.pull import Rules, StagedRun


class WindowCommits:
    """The commit policy of backfill and incremental sync."""

    rejects = None

    def __init__(self, flow: Flow, rules: Rules, dataset: Dataset, options: Options) -> None:
        self._flow, self._rules = flow, rules
        self._dataset, self._options = dataset, options
        self._rules_mark = day_marks.of_rules(rules)

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
        return held, becomes | day_marks.after(self._flow, self._dataset, run, empty, mark)

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
        arrives = self._dataset.position(positions.app_id(self._flow, positions.ARRIVAL))
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
