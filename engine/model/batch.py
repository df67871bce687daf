"""What the stages of a pull hand each other: batches, rejects, counts. Pure data."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from engine.model.window import Window

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

CORRUPT = "INGEST-1401-400"  # the line is not a record
REQUIRED = "INGEST-1555-400"  # a required field is missing or null
KEYS = ("distinct_id", "time", "$insert_id", "mp_processing_time_ms")  # of `Batch.keys`
INVALID = "MAPPER-3700-400"  # the mapped record breaks the schema otherwise


@dataclass(frozen=True, slots=True)
class Reject:
    """One line that a stage rejected, verbatim (P3).

    `violations` has, for an event that broke the schema, a mapping for each violation with
    `keyword`, `message`, `pointerToViolation`, `schemaLocation`. A line too long to be held in
    memory comes as several rejects that count as one: `part` 0, 1, 2 … of its bytes.
    """

    stage: str
    code: str
    message: str
    raw: bytes
    violations: tuple[dict[str, Any], ...] = ()
    part: int | None = None

    def of(self, line: bytes) -> "Reject":
        """Return the same reject of another line."""
        return Reject(self.stage, self.code, self.message, line, self.violations, self.part)


@dataclass(frozen=True, slots=True)
class BatchManifest:
    """What decides later whether the rejects of a batch still matter: `batch.json`, beside them.

    `days` has for each day the sum of all flows' positions after the batch: a day that has another
    sum now was pulled again, by whatever flow. `codes` adds up to `rejected`.
    """

    flow: str
    window: Window
    committed: bool
    days: dict[date, int]
    rejected: int
    codes: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as JSON can hold it; `from_json` reads it."""
        days = {day.isoformat(): version for day, version in self.days.items()}
        names = {f.name: getattr(self, f.name) for f in fields(self)}
        return names | {"window": self.window.as_json(), "days": days}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "BatchManifest":
        """Return what `as_json` wrote; KeyError, TypeError or ValueError for anything else."""
        days = {date.fromisoformat(day): version for day, version in value["days"].items()}
        names = {f.name: value[f.name] for f in fields(cls)}
        return cls(**names | {"window": Window.from_json(value["window"]), "days": days})


@dataclass(slots=True)
class Tally:
    """Counts of events and bytes, from which all metrics are made; `a + b` adds them.

    P3: lines == rows + rejected + duplicates, always.
    """

    lines: int = 0
    rows: int = 0
    rejected: int = 0
    duplicates: int = 0
    warnings: int = 0  # events with a value that could not be cast and went to `unmapped`
    clamped: int = 0  # rows whose `time` lies outside the days of the window
    outside: int = 0  # events of another window, which has them; not counted in `lines`
    known: int = 0  # events of the overlap that the table has already; not counted in `lines`
    missed: int = 0  # rows that arrival windows should have brought before
    bytes_received: int = 0  # on the wire
    bytes_read: int = 0  # after decompression
    bytes_written: int = 0
    files: int = 0
    reject_codes: Counter[str] = field(default_factory=Counter)
    reject_days: Counter[date] = field(default_factory=Counter)  # of rejects whose day is known

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)}
        )

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them; `from_json` reads them."""
        days = {day.isoformat(): count for day, count in self.reject_days.items()}
        counts: dict[str, Any] = dict(zip(_COUNTS, _counts(self), strict=True))
        return counts | {"reject_codes": dict(self.reject_codes), "reject_days": days}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Tally":
        """Return what `as_json` wrote; KeyError, TypeError or ValueError for anything else."""
        codes = Counter(value["reject_codes"])
        days = Counter({date.fromisoformat(day): n for day, n in value["reject_days"].items()})
        found = cls(**value | {"reject_codes": codes, "reject_days": days})
        if set(map(type, (*_counts(found), *codes.values(), *days.values()))) != {int}:
            raise ValueError("not the counts of a run")
        return found


_COUNTS = [each.name for each in fields(Tally) if each.type is int]
_counts = attrgetter(*_COUNTS)


@dataclass(slots=True)
class Batch:
    """Some events between two stages; all lists are in step with `lines`.

    lines       raw lines, without their line end
    apart       numbers of lines of its block that are not in it, and take the slow path
    names       the property names that occur in it, if they were collected
    records     decoded lines                                              from `decode`
    columns     values for each destination of the mapping set: a list       from `evaluate`,
                or an Arrow array that is the column already                 from `fast_path`
    rest        unmapped properties: one dict per event                       from `evaluate`,
                or an Arrow array of their JSON text                       from `fast_path`
    keys        event, distinct_id, time, $insert_id, mp_processing_time_ms, a list each, raw
    key_paths   path of each of them in `table`, unchanged; empty where one of them has no column
    table       the destination columns, `unmapped` and `event_date`       from `columns`
    rejects     what was rejected so far; no longer in `lines`
    early       whether each event may be in the table already; empty: no event may
    rejected    numbers of the rows that validation removed from `table`, in order
    uncast      numbers of rows with a value that could not be cast   } before the rejected
    clamped     numbers of rows whose `time` lies outside the window  } rows were removed
    """

    lines: Sequence[bytes] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    apart: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    columns: list[Any] = field(default_factory=list)
    rest: Any = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    key_paths: list[tuple[str, ...]] = field(default_factory=list)
    table: "pa.RecordBatch | None" = None
    rejects: list[Reject] = field(default_factory=list)
    early: Any = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    uncast: set[int] = field(default_factory=set)
    clamped: set[int] = field(default_factory=set)

    def keep(self, rows: "Mask") -> None:
        """Drop the events for which `rows`, a bool for each, is false; row numbers stay."""
        self.columns = [_filtered(values, rows) for values in self.columns]
        self.keys = [_filtered(values, rows) for values in self.keys]
        self.records = _filtered(self.records, rows)
        self.rest = _filtered(self.rest, rows)
        self.lines = _filtered(self.lines, rows)
        if len(self.early):
            self.early = self.early[rows]
        if self.table is not None:
            self.table = self.table.filter(rows)


def _filtered(values: Any, rows: "Mask") -> Any:
    if hasattr(values, "filter"):  # an Arrow array
        return values.filter(rows)
    return list(compress(values, rows.tolist()))


def leaf(batch: "pa.RecordBatch", path: tuple[str, ...]) -> Any:
    """Return the column at `path`: structs on the way are always valid and hide no null."""
    array = batch.column(path[0])
    for name in path[1:]:
        array = array.field(name)
    return array


def split(block: bytes, apart: list[int]) -> tuple[bytes, bytes]:
    """Split a block into one without the lines numbered in `apart`, and one of those lines."""
    if not apart:
        return block, b""
    lines = block.split(b"\n")
    taken = b"\n".join(lines[number] for number in apart)
    for number in reversed(apart):
        del lines[number]
    return b"\n".join(lines), taken


class Lines(Sequence[bytes]):
    """The lines of a block, split when the first is read: most blocks have no reject."""

    def __init__(self, block: bytes, rows: int) -> None:
        self._block = block
        self._rows = rows
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Any) -> Any:
        self._lines = self._lines or self._block.split(b"\n")
        return self._lines[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self[:])
