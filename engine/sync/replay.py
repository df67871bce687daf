"""What batches rejected, and the replay of it: the kept lines, through the stages once more.

A reject matters until its batch was replayed or its day was pulled again: the newer pull has the
same line, as a row or as a reject of its own, so that to replay the old one could double a row
(P4). Both are read from the table's positions alone. It knows no command line.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from difflib import get_close_matches
from typing import Any
from uuid import uuid4

import orjson
from ulid import ULID

from engine.catalog.database import Catalog
from engine.dataset import layout
from engine.dataset.dataset import Dataset
from engine.dataset.positions import pulled
from engine.errors import DatasetError, EtlError, InputError, TooManyRejects, disk_error
from engine.model.batch import BatchManifest
from engine.model.flow import Flow, Run
from engine.model.run_record import RunRecord
from engine.sync.pull import ReplayInput, Rules, StagedRun, pull
from engine.sync.run_records import failed, started, succeeded, why_ended
from engine.sync.runner import Ended, Event, Options, Runs, wall_clock
from engine.transform.moments import utc_day

Json = dict[str, Any]

REPLAYABLE, FAILED, REPLAYED, SUPERSEDED = "replayable", "failed", "replayed", "superseded"
UNKNOWN = "unknown"  # written by a version that left no note
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A batch that has rejects. `current`: those of its days that nobody has pulled since."""

    batch_id: str
    note: BatchManifest | None
    current: frozenset[date]
    replayed: bool

    @property
    def state(self) -> str:
        """What can be done about its rejects."""
        if self.note is None:
            return UNKNOWN
        if self.replayed:
            return REPLAYED
        if not self.current:
            return SUPERSEDED
        return REPLAYABLE if self.note.committed else FAILED

    def as_json(self) -> Json:
        """What there is to say of it."""
        note = self.note.as_json() if self.note else {}
        shown = {name: note.get(name) for name in ("flow", "window", "rejected", "codes")}
        current = sorted(map(str, self.current))
        return {"batch": self.batch_id, "state": self.state, **shown, "current_days": current}


# Looking ---------------------------------------------------------------------------------


def pending(dataset: Dataset) -> list[Rejected]:
    """The batches whose rejects still matter, the newest first. Reads none of the rejects."""
    _check_place(dataset)
    sums = pulled(dataset)
    batches = (each for each in dataset.batches if _has(dataset, each))
    found = (_judged(dataset, each, sums) for each in batches)
    return [each for each in found if each.state not in (REPLAYED, SUPERSEDED)]


def look(dataset: Dataset, batch_id: str) -> Rejected:
    """The batch of that name; InputError if it is none, or has rejected nothing."""
    _check_place(dataset)
    batches = dataset.batches
    if batch_id not in batches:  # what names no entry of the folder is no path to anywhere either
        some = [each for each in batches if _has(dataset, each)]
        near = get_close_matches(batch_id.upper(), some, 3, 0.8) or some[:3]
        more = " …" if len(some) > len(near) else ""
        hint = f" Batches with rejects: {', '.join(near)}{more}." if near else " None has rejects."
        raise InputError(f'{dataset.root} has no batch "{batch_id}".{hint}')
    if not _has(dataset, batch_id):
        raise InputError(f"Batch {batch_id} has no rejects: all of its lines are in the table.")
    return _judged(dataset, batch_id, pulled(dataset))


def entries(dataset: Dataset, batch_id: str) -> Iterator[Json]:
    """The kept rejects of a batch, one at a time, as its files hold them."""
    for path in sorted((dataset.batch_directory(batch_id) / layout.REJECTS).glob("*.json")):
        with disk_error(f"read {path}"), path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry: Json = json.loads(line)
                    raw_of(entry)
                    reason_of(entry)
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise DatasetError(
                        f"{path}, line {number}, is no reject any more: the file was changed or "
                        "damaged. Put it back as it was."
                    ) from None
                yield entry


def raw_of(entry: Json) -> bytes:
    """The rejected line, or the part of it, byte for byte (P3)."""
    text: str = entry["_corrupt_record"]
    return text.encode("utf-8", "surrogateescape")


def reason_of(entry: Json) -> tuple[str, str]:
    """The code and the sentence that say why it was rejected."""
    error = entry["_errors"][0]
    return error["code"], error["message"]


def _check_place(dataset: Dataset) -> None:
    if not dataset.exists and not dataset.batches:
        raise InputError(f"There is no table in {dataset.root}. Give another --dataset.")


def _has(dataset: Dataset, batch_id: str) -> bool:
    return (dataset.batch_directory(batch_id) / layout.REJECTS).is_dir()


def _judged(dataset: Dataset, batch_id: str, sums: Counter[str]) -> Rejected:
    note = _note(dataset, batch_id)
    if note is None:
        return Rejected(batch_id, None, frozenset(), replayed=False)
    current = {day for day, left in note.days.items() if sums[day.isoformat()] == left}
    replayed = dataset.position(_app_id(note, batch_id)) is not None
    return Rejected(batch_id, note, frozenset(current), replayed)


def _note(dataset: Dataset, batch_id: str) -> BatchManifest | None:
    path = dataset.batch_directory(batch_id) / layout.MANIFEST
    try:
        with disk_error(f"read {path}"):
            return BatchManifest.from_json(json.loads(path.read_bytes())) if path.exists() else None
    except (ValueError, KeyError, TypeError, AttributeError):  # nor does one that is damaged
        return None


def _app_id(note: BatchManifest, batch_id: str) -> str:
    """The name under which the table keeps that a batch was replayed."""
    return f"{note.flow}/replay/{batch_id}"


# Replaying -------------------------------------------------------------------------------


class Replay:
    """Brings the rejects of a batch that pass by now into the table. `run` is the whole of it."""

    def __init__(
        self,
        flow: Flow,
        rules: Rules,
        dataset: Dataset,
        catalog: Catalog,
        tell: Callable[[Event], None] = lambda _: None,
    ) -> None:
        # Every line of it was rejected once: no share of them is too much.
        self._flow = replace(flow, partial_ingestion_percent=100)
        self._rules = rules
        self._dataset = dataset
        self._catalog = catalog
        self._tell = tell
        self._prepared = Runs(flow, rules, dataset, catalog, Options()).prepared
        self.left_out = 0  # lines of days that were pulled again

    def run(self, batch_id: str) -> RunRecord:
        """Replay a batch, once and never again; the record of the run.

        What fails again becomes the rejects of the run's own batch. Raises InputError for a batch
        that cannot be replayed, nothing for a run that fails: its record says so. What ends the
        program leaves everything as it was, or is committed (P2, P8).
        """
        look(self._dataset, batch_id)  # before a lock leaves its trace where no table is
        with self._prepared():
            rejected = self._opened(batch_id)
            run = self._new_run(rejected.note)
            try:
                self._catalog.save(started(self._flow, self._dataset, run, wall_clock()))
                staged = self._pull(run, rejected)
                self._commit(run, rejected, staged)
                record = succeeded(self._flow, self._dataset, run, staged, wall_clock())
                self._catalog.save(record)
            except BaseException as error:
                if self._dataset.is_committed(run.batch_id):
                    raise  # it could not be told of; the next start does
                return self._fail(run, error)
            self._dataset.discard(run.batch_id)
            self._tell(Ended(record, None))
            return record

    def _fail(self, run: Run, error: BaseException) -> RunRecord:
        """Leave nothing but the record of a run that failed; raises what ends the program."""
        self._dataset.discard(run.batch_id)
        told = error if isinstance(error, EtlError) else EtlError(why_ended(error))
        record = failed(self._flow, self._dataset, run, told, wall_clock())
        self._catalog.save(record)
        if told is not error:
            raise error
        self._tell(Ended(record, told))
        return record

    def _opened(self, batch_id: str) -> "_Replayable":
        """A batch that can be replayed; InputError for any other, with the way on."""
        found = look(self._dataset, batch_id)
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
        assert found.note
        if found.note.flow != self._flow.name:
            raise InputError(
                f'Batch {batch_id} is of the flow "{found.note.flow}", not of '
                f'"{self._flow.name}": give its --config and --flow. Nothing was done.'
            )
        rejected = _Replayable(batch_id, found.note, found.current)
        if not any(self._lines(rejected)):
            raise InputError(
                f"Batch {batch_id} has no line that is certainly of a day which nobody pulled "
                f"since: {again}. Nothing was done."
            )
        return rejected

    def _new_run(self, note: BatchManifest) -> Run:
        window = replace(
            note.window, overlap=0, doubtful=0, again=False
        )  # its own lines, and no others
        return Run(str(uuid4()), self._flow.name, window, str(ULID()), wall_clock())

    def _pull(self, run: Run, rejected: "_Replayable") -> StagedRun:
        self.left_out = 0
        place = self._dataset.batch_directory(rejected.batch_id) / layout.REJECTS
        kept = ReplayInput(self._lines(rejected), str(place))
        directory = self._dataset.staging(run.batch_id)
        return pull(
            self._flow, self._rules, run, directory, kept=kept, existing_keys=self._dataset.read
        )

    def _lines(self, rejected: "_Replayable") -> Generator[bytes, None, None]:
        """The lines whose day nobody pulled since; counts the others."""
        all_current = rejected.current == rejected.note.days.keys()

        def is_current(entry: Json) -> bool:
            if all_current or _day(entry, rejected.note) in rejected.current:
                return True
            self.left_out += not entry.get("_part")
            return False

        yield from _chunks(filter(is_current, entries(self._dataset, rejected.batch_id)))

    def _commit(self, run: Run, rejected: "_Replayable", staged: StagedRun) -> None:
        """P2: rows, the batch's end and the rejects that stay become true in one commit."""
        tally, note = staged.tally, rejected.note
        codes = dict(tally.reject_codes)
        if tally.rejected == tally.lines:
            why = ", ".join(f"{code} {count:,}" for code, count in codes.items())
            error = TooManyRejects(
                f"None of the {tally.lines:,} rejected lines of batch {rejected.batch_id} passes "
                f"({why}). Nothing was changed: mend the mapping or the schema, and replay it then."
            )
            error.tally, error.copied = tally, staged.copy_completed
            raise error
        if tally.rejected:
            left = replace(note, rejected=tally.rejected, codes=codes)
            self._dataset.describe(run.batch_id, left.as_json())
        record = succeeded(self._flow, self._dataset, run, staged, wall_clock())
        self._dataset.commit(
            run.batch_id,
            staged.files,
            {},
            {_app_id(note, rejected.batch_id): run.started_at},
            record.as_json(),
        )


@dataclass(frozen=True, slots=True)
class _Replayable:
    """A batch whose rejects may go into the table, those of its `current` days."""

    batch_id: str
    note: BatchManifest
    current: frozenset[date]


def _chunks(kept: Iterator[Json]) -> Generator[bytes, None, None]:
    """Rejects as the bytes that they came from: a line each, the parts of a long one together."""
    inside = False
    for entry in kept:
        raw, part = raw_of(entry), entry.get("_part")
        if inside and not part:
            yield b"\n"
        inside = part is not None
        if inside:
            yield raw
        else:  # of a line that ends with \r\n the stages take both away
            yield raw + (b"\r\n" if raw.endswith(b"\r") else b"\n")
    if inside:
        yield b"\n"


def _day(entry: Json, note: BatchManifest) -> date | None:
    """The day that a rejected line belongs to, None if that is not certain.

    Mixpanel exported it under one of the batch's days, and only its `time` can say which.
    """
    if len(note.days) == 1:
        return next(iter(note.days))
    try:
        found = utc_day(orjson.loads(raw_of(entry))["properties"]["time"])
        day = None if found is None else EPOCH + timedelta(found)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return day if day in note.days else None
