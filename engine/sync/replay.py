"""Which rejects of a table still matter, and the replay of a batch as a source of one window.

A reject matters until its batch was replayed or its day was pulled again: the newer pull has the
same line, as a row or as a reject, so that a replay of the older line could double a row (P4). Both
are read from the table's positions.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.catalog.database import Catalog
from engine.dataset import layout
from engine.dataset.dataset import Dataset, Planned
from engine.dataset.positions import pulled
from engine.errors import InputError, TooManyRejects, disk_error
from engine.model.batch import BatchManifest, Tally
from engine.model.flow import Flow, Run
from engine.model.run_record import RunRecord
from engine.model.window import Window
from engine.sync.options import Options
from engine.sync.pull import Rules, StagedRun
from engine.sync.rejected_lines import RejectedLines
from engine.sync.run_updates import RunUpdate
from engine.sync.runner import Runner
from engine.sync.window_source import Result

Json = dict[str, Any]

REPLAYABLE, FAILED, REPLAYED, SUPERSEDED = "replayable", "failed", "replayed", "superseded"
UNKNOWN = "unknown"  # written by a version that left no manifest


@dataclass(frozen=True, slots=True)
class Rejected:
    """A batch that has rejects. `current`: those of its days that were not pulled again."""

    batch_id: str
    manifest: BatchManifest | None
    current: frozenset[date]
    replayed: bool

    @property
    def state(self) -> str:
        """Return what can be done with the rejects: REPLAYABLE, or why they cannot be replayed."""
        if self.manifest is None:
            return UNKNOWN
        if self.replayed or not self.current:
            return REPLAYED if self.replayed else SUPERSEDED
        return REPLAYABLE if self.manifest.committed else FAILED

    def as_json(self) -> Json:
        """Return the batch as JSON can hold it."""
        manifest = self.manifest.as_json() if self.manifest else {}
        shown = {name: manifest.get(name) for name in ("flow", "window", "rejected", "codes")}
        current = sorted(map(str, self.current))
        return {"batch": self.batch_id, "state": self.state, **shown, "current_days": current}


def pending(dataset: Dataset) -> list[Rejected]:
    """Return the batches whose rejects still matter, the newest first. No reject is read."""
    _check_place(dataset)
    sums = pulled(dataset)
    batches = (each for each in dataset.batches if _has(dataset, each))
    found = (_judged(dataset, each, sums) for each in batches)
    return [each for each in found if each.state not in (REPLAYED, SUPERSEDED)]


def find(dataset: Dataset, batch_id: str) -> Rejected:
    """Return the batch `batch_id`; InputError if it does not exist or has no rejects."""
    _check_place(dataset)
    batches = dataset.batches
    if batch_id not in batches:  # only an entry of the folder is used as a path
        some = [each for each in batches if _has(dataset, each)]
        near = get_close_matches(batch_id.upper(), some, 3, 0.8) or some[:3]
        more = " …" if len(some) > len(near) else ""
        hint = f" Batches with rejects: {', '.join(near)}{more}." if near else " None has rejects."
        raise InputError(f'{dataset.root} has no batch "{batch_id}".{hint}')
    if not _has(dataset, batch_id):
        raise InputError(f"Batch {batch_id} has no rejects: all of its lines are in the table.")
    return _judged(dataset, batch_id, pulled(dataset))


def rejects_folder(dataset: Dataset, batch_id: str) -> Path:
    """Return the folder with the rejects of a batch."""
    return dataset.batch_directory(batch_id) / layout.REJECTS


def _check_place(dataset: Dataset) -> None:
    if not dataset.exists and not dataset.batches:
        raise InputError(f"There is no table in {dataset.root}. Give another --dataset.")


def _has(dataset: Dataset, batch_id: str) -> bool:
    return rejects_folder(dataset, batch_id).is_dir()


def _judged(dataset: Dataset, batch_id: str, sums: Counter[str]) -> Rejected:
    path = dataset.batch_directory(batch_id) / layout.MANIFEST
    try:
        with disk_error(f"read {path}"):
            content = path.read_bytes() if path.exists() else b"null"
        manifest = BatchManifest.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):  # missing or damaged
        return Rejected(batch_id, None, frozenset(), replayed=False)
    current = {day for day, left in manifest.days.items() if sums[day.isoformat()] == left}
    replayed = dataset.position(_app_id(manifest, batch_id)) is not None
    return Rejected(batch_id, manifest, frozenset(current), replayed)


def _app_id(manifest: BatchManifest, batch_id: str) -> str:
    """Return the app id of the position that a replay of the batch sets."""
    return f"{manifest.flow}/replay/{batch_id}"


class Replay:
    """Brings those rejects of a batch that now pass into the table."""

    def __init__(
        self,
        flow: Flow,
        rules: Rules,
        dataset: Dataset,
        catalog: Catalog,
        report: Callable[[RunUpdate], None] = lambda _: None,
    ) -> None:
        # Every line was rejected before: no share of rejects is too large.
        self._flow = replace(flow, partial_ingestion_percent=100)
        self._dataset = dataset
        self._runner = Runner(self._flow, rules, dataset, catalog, Options(), report)
        self.left_out = 0  # lines of days that were pulled again

    def run(self, batch_id: str) -> RunRecord:
        """Replay a batch, which is possible once; return the record of the run.

        Lines that fail again become rejects of the run's batch. Raises InputError for a batch that
        cannot be replayed; a run that fails raises nothing: its record has the error. If the
        program ends early, the table is as before or has the commit (P2, P8).
        """
        find(self._dataset, batch_id)  # a lock would create the folder of a table that is missing
        with self._runner.prepared():
            replayed = self._opened(batch_id)
            (record,) = self._runner.run(replayed, replayed)
            self.left_out = replayed.left_out
            return record

    def _opened(self, batch_id: str) -> "_ReplayedBatch":
        """Return a batch that can be replayed; InputError for any other, with what to do."""
        found = find(self._dataset, batch_id)
        again = "pull its days again, with backfill --force"
        reasons = {
            UNKNOWN: f"does not say which days it is of: {again}",
            REPLAYED: "was replayed already; what failed again is in the batch of that replay",
            SUPERSEDED: "is of days that were pulled again since: the newer batches have its lines",
            FAILED: "is of a run that failed, so that none of its lines is in the table: "
            "run its backfill again",
        }
        if found.state in reasons:
            raise InputError(f"Batch {batch_id} {reasons[found.state]}. Nothing was done.")
        assert found.manifest
        if found.manifest.flow != self._flow.name:
            raise InputError(
                f'Batch {batch_id} is of the flow "{found.manifest.flow}", not of '
                f'"{self._flow.name}": give its --config and --flow. Nothing was done.'
            )
        folder = rejects_folder(self._dataset, batch_id)
        rejects = RejectedLines(str(folder), tuple(found.manifest.days), found.current)
        if not any(rejects.read([0])):
            raise InputError(
                f"Batch {batch_id} has no line that is certainly of a day which nobody pulled "
                f"since: {again}. Nothing was done."
            )
        return _ReplayedBatch(batch_id, found.manifest, rejects)


class _ReplayedBatch:
    """A source of one window, and the policy by which it is committed."""

    def __init__(self, batch_id: str, manifest: BatchManifest, rejects: RejectedLines) -> None:
        self.rejects, self.left_out = rejects, 0
        self._batch_id, self._manifest = batch_id, manifest
        # Only the lines of the batch.
        self._windows = [replace(manifest.window, overlap=0, doubtful=0, again=False)]

    def next_window(self) -> Window | None:
        return self._windows.pop() if self._windows else None

    def on_result(self, result: Result) -> None:
        pass  # the batch has one window

    def give_up(self) -> int:
        return 0  # days left

    def plan(self, run: Run, staged: StagedRun) -> Planned:
        """Add the rows, and set the position of the replay, in one commit (P2)."""
        tally = staged.tally
        self.left_out = staged.left_out
        if tally.rejected == tally.lines:
            why = ", ".join(f"{code} {count:,}" for code, count in tally.reject_codes.items())
            raise TooManyRejects(
                f"None of the {tally.lines:,} rejected lines of batch {self._batch_id} passes "
                f"({why}). Nothing was changed: mend the mapping or the schema, and replay it then."
            )
        return {}, {_app_id(self._manifest, self._batch_id): run.started_at}

    def misaligned(self, run: Run, staged: StagedRun) -> None:
        return None  # the rows of a replay do not show when the project's days begin

    def manifest(
        self, run: Run, tally: Tally, positions_set: Mapping[str, int] | None
    ) -> BatchManifest:
        """Describe lines that were rejected again as rejects of the days of the first batch."""
        return replace(self._manifest, rejected=tally.rejected, codes=dict(tally.reject_codes))

    def empty_days(self, run: Run, staged: StagedRun) -> list[date]:
        return []  # rejected lines do not show which days are empty
