"""A Delta table as it is now: what it holds of each day, and its positions. It changes nothing."""

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from engine.dataset import compatibility, layout
from engine.dataset.data_files import DataFiles, read_columns
from engine.dataset.day_changes import Change, DaySummary, find_changes, noted_days
from engine.dataset.delta_log import Log
from engine.dataset.log_entries import Foreign, State
from engine.dataset.storage.base import Storage
from engine.dataset.storage.local import LACKING, NO_LINKS, LocalStorage
from engine.errors import DatasetError, InputError, disk_error

OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how deltalake passes on what the system says
FILES = ["path", "size_bytes", "num_records", "partition.event_date"]


class DamagedLog(DatasetError):
    """A part of the log cannot be read, and the next run can set it aside."""


@dataclass(frozen=True, slots=True)
class DayContents:
    """What the table holds of one day: its rows, and the path and the bytes of each file."""

    rows: int
    files: list[tuple[str, int]]


class Table:
    """One Delta table, open for reading."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        """Open a table, only to read it without `schema`; InputError if it does not fit."""
        self._storage: Storage = LocalStorage(root)
        self.root = self._storage.root
        self._schema = None if schema is None else Schema.from_arrow(schema)
        self._source = None if source is None else json.dumps(source, sort_keys=True)
        self._data = DataFiles(self._storage)
        self._check_place()
        self._open()

    # Opening ---------------------------------------------------------------------------------

    def _check_place(self) -> None:
        """Raise InputError if the root holds things that are not of this program."""
        log = Log(self._storage)
        if log.has_table():
            return
        names = (entry.name for entry in self._storage.entries(""))
        others = sorted(name for name in names if name not in layout.OWN_FOLDERS)
        others += log.foreign_names()
        if others:
            some = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
            raise InputError(
                f"{self.root} is no table of this program and is not empty (it holds {some}). "
                "Give an empty or a new directory for the dataset."
            )

    def _open(self) -> None:
        """Read the log again: the newest version, and whether the table fits."""
        self._log = Log(self._storage)
        self._table: DeltaTable | None = None  # loaded when files are needed
        self._listing: tuple[int, pa.Table] | None = None  # the files of a version
        self._summaries: tuple[int, dict[date, DaySummary]] | None = None
        self._fits: Mapping[str, Any] | None = None  # the metadata that was found to fit
        version = self._log.newest()
        self._read_version = -1 if version is None else version
        self._mark = self._log.mark(self._read_version)
        if self._schema is not None and self.exists:
            with suppress(DamagedLog):  # in `damage`; the table is checked once it is mended
                self._check_fit()

    def _check_fit(self) -> None:
        """Raise InputError unless the table as it is now can take our files, and is ours."""
        assert self._schema
        with translated(f"open the table {self.root}"):
            state = self._log.state(self._version)
            if state is not None and state.is_plain and state.metadata is self._fits:
                return
            if state is None or not state.is_plain:
                state = _state_of(self._current())  # deltalake refuses what it cannot read
        compatibility.check(
            self.root,
            state,
            json.loads(self._schema.to_json()),
            self._source,
            fitted=self._fits,
            has_vectors=self._has_vectors,
        )
        self._fits = state.metadata

    def _has_vectors(self) -> bool:
        """Whether a file has a deletion vector, or the vectors cannot be read."""
        try:
            return any(batch.num_rows for batch in self._current().deletion_vectors())
        except (DeltaError, OSError):
            return True

    @property
    def exists(self) -> bool:
        """Whether there is a table already."""
        return self._read_version >= 0

    # Days ------------------------------------------------------------------------------------

    def held(self, days: Sequence[date]) -> dict[date, DayContents]:
        """Return what the table holds of each of `days`."""
        if not self.exists:
            return {day: DayContents(0, []) for day in days}
        if not self._log.has_table():
            raise DatasetError(
                f"Cannot read the log of {self.root}: it is gone. "
                "Put it back, or use another --dataset."
            )
        with translated(f"read the log of {self.root}"):
            return self._held(self._current(), days)

    def _held(self, table: DeltaTable, days: Sequence[date]) -> dict[date, DayContents]:
        """Return what `table`, as it was loaded, holds of each of `days`."""
        found = {day: DayContents(0, []) for day in days}
        for path, size, rows, day in self._files_of(table, days):
            of_day = found[day]
            of_day.files.append((path, size))
            found[day] = DayContents(of_day.rows + rows, of_day.files)
        return found

    def summaries(self) -> dict[date, DaySummary]:
        """Return the summary of every day that the table has files of."""
        if not self.exists:
            return {}
        with translated(f"read the log of {self.root}"):
            table = self._current()
            if self._summaries is None or self._summaries[0] != table.version():
                self._summaries = table.version(), self._summaries_of(table)
        return self._summaries[1]

    def _summaries_of(
        self, table: DeltaTable, days: Sequence[date] | None = None
    ) -> dict[date, DaySummary]:
        """Return the summaries of `days`, or of all days, by `table` as it was loaded."""
        files: dict[date, list[tuple[str, int]]] = {}
        missing = Counter[date]()
        for path, size, rows, day in self._files_of(table, days):
            files.setdefault(day, []).append((path, rows))
            if not self._data.is_present(path, size):
                missing[day] += 1
        return {day: DaySummary.of(each, missing[day]) for day, each in files.items()}

    def days(self) -> set[date]:
        """Return the days that the table has files of."""
        return set(self.summaries())

    def changes(self, days: Collection[date] | None = None) -> dict[date, Change]:
        """Return those of `days`, or of all, that are not as this program left them (P10)."""
        if not self.exists:
            return {}
        noted = self.positions
        if days is None:
            summaries = self.summaries()
            days = summaries.keys() | {date.fromisoformat(day) for day in noted_days(noted)}
        else:
            with translated(f"read the log of {self.root}"):
                summaries = self._summaries_of(self._current(), list(days))
        return find_changes(days, summaries, noted, lambda: self._log.others(self._version))

    def last_change(self) -> Foreign | None:
        """Return the last commit by which another program changed rows that stayed so."""
        with translated(f"read the log of {self.root}"):
            others = self._log.others(self._version) if self.exists else ()
        return next((other for other in others if other.days), None)

    def no_parquet(self) -> dict[date, list[str]]:
        """Open each file of the table; return by day those that are no Parquet files."""
        found: dict[date, list[str]] = {}
        if self.exists:
            with translated(f"read the files of {self.root}"):
                for path, size, _, day in self._files_of(self._current()):
                    if self._data.is_present(path, size) and not self._data.is_parquet(path):
                        found.setdefault(day, []).append(path)
        return found

    def read(self, day: date, columns: Sequence[tuple[str, ...]]) -> Iterator[list[pa.Array]]:
        """Yield these columns, by their paths, of what the table holds of `day`, in parts (P6)."""
        held = self.held([day])[day].files  # P10: a day that lacks a file is pulled again, whole
        with translated(f"read the table {self.root}"):
            there = (path for path, size in held if self._data.is_present(path, size))
            yield from read_columns(map(self._data.open, there), columns)

    def read_files(
        self, files: Sequence[Path], columns: Sequence[tuple[str, ...]]
    ) -> Iterator[list[pa.Array]]:
        """Yield these columns, by their paths, of staged data files, in parts (P6)."""
        with translated(f"read the table {self.root}"):
            yield from read_columns((pa.OSFile(str(file)) for file in files), columns)

    # Versions --------------------------------------------------------------------------------

    @property
    def _version(self) -> int:
        assert self.exists
        if self._mark != self._log.mark(self._read_version):
            self._follow()
        version = self._log.latest(self._read_version)
        if version != self._read_version:
            self._read_version, self._mark = version, self._log.mark(version)
        return self._read_version

    def _follow(self) -> None:
        """Find the newest version again, after the entry that was read was deleted or replaced."""
        log = Log(self._storage)
        version = log.newest()
        if version is None:  # another program is removing the table
            return
        self._log, self._read_version, self._mark = log, version, log.mark(version)
        self._table = self._listing = self._summaries = None

    def _id(self) -> str | None:
        """The id of the table, which another table in its place does not have."""
        if not self.exists:
            return None
        with translated(f"read the log of {self.root}"):
            state = self._log.state(self._version)
            found = state and state.metadata.get("id")
            return str(found or self._current().metadata().id)

    def _current(self) -> DeltaTable:
        """The table as its log is now. To load it takes a tenth of a second at 10,000 files."""
        version = self._version
        if self._table is None:
            self._table = self._load()
        elif version != self._table.version():
            try:
                self._table.update_incremental()
            except DeltaError:
                self._log.check(version)
                raise
        return self._table

    def _load(self) -> DeltaTable:
        if self._log.state(self._read_version) is None:
            self._log.check(
                self._read_version
            )  # deltalake takes an empty entry for a commit of nothing
        try:
            return DeltaTable(self.root, version=self._read_version if self._log.cut_off else None)
        except DeltaError:
            if not self._log.find_broken():
                self._log.check(self._read_version)
                raise
        self._mend()
        return DeltaTable(self.root)

    def _mend(self) -> None:
        """Set aside what a crash left of the log; a table open for reading says so instead."""
        raise DamagedLog(self.damage)

    @property
    def damage(self) -> str:
        """What the next run sets aside of the log, as a sentence; empty if nothing."""
        damage = self._log.damage
        return damage and f"{damage}. The next run sets it aside and goes on."

    def _files_of(
        self, table: DeltaTable, days: Sequence[date] | None = None
    ) -> Iterator[tuple[str, int, int, date]]:
        """Yield path, bytes, rows and day of each file of `days`, or of all days."""
        files = self._files(table)
        if days is not None:
            wanted = pa.array(days, pa.date32())
            files = files.filter(pc.is_in(files["partition.event_date"], wanted))
        for path, size, rows, day in zip(*(files[c].to_pylist() for c in FILES), strict=True):
            yield path, size, self._data.rows(path) if rows is None else rows, day

    def _files(self, table: DeltaTable) -> pa.Table:
        """Return the files of `table`, as it was loaded, with the columns FILES."""
        if self._listing is None or self._listing[0] != table.version():
            actions = pa.table(table.get_add_actions(flatten=True))
            if lacking := set(FILES) - set(actions.column_names):
                if "partition.event_date" in lacking and len(actions):
                    raise DatasetError(
                        f"The table {self.root} is not partitioned by event_date any more: another "
                        "program replaced it. Put it back, or use another --dataset."
                    )
                for name in lacking:
                    kind = pa.date32() if name == "partition.event_date" else pa.int64()
                    actions = actions.append_column(name, pa.nulls(len(actions), kind))
            files = actions.select(FILES)
            # Rows without a day are another program's: no day of ours can hold them.
            files = files.filter(pc.is_valid(files["partition.event_date"]))
            self._listing = table.version(), files
        return self._listing[1]

    # Positions and batches -------------------------------------------------------------------

    def position(self, app_id: str) -> int | None:
        """Return the position last committed under `app_id`: for a day, when it was pulled (ms)."""
        if not self.exists:
            return None
        with translated(f"read the log of {self.root}"):
            state = self._log.state(self._version)
            if state is None:
                return self._current().transaction_version(app_id)
        return state.positions.get(app_id)

    @property
    def positions(self) -> Mapping[str, int]:
        """The position of every app id; empty if only deltalake can read them."""
        if not self.exists:
            return {}
        with translated(f"read the log of {self.root}"):
            state = self._log.state(self._version)
        return state.positions if state else {}

    def batch_directory(self, batch_id: str) -> Path:
        """The folder of the rejects and inputs of a batch that has ended."""
        return self.root / layout.batch(batch_id)

    @property
    def batches(self) -> list[str]:
        """The names of the folders of batches that have ended, the newest first."""
        with disk_error(f"read {self.root / layout.BATCHES}"):
            names = [entry.name for entry in self._storage.entries(layout.BATCHES)]
        return sorted(names, reverse=True)


def _state_of(table: DeltaTable) -> State:
    """Return the state of a table whose log only deltalake can read, without its positions."""
    protocol, metadata = table.protocol(), table.metadata()
    return State(
        {},
        {
            "id": str(metadata.id),
            "schemaString": table.schema().to_json(),
            "configuration": metadata.configuration,
        },
        {
            "minReaderVersion": protocol.min_reader_version,
            "minWriterVersion": protocol.min_writer_version,
            "readerFeatures": protocol.reader_features,
            "writerFeatures": protocol.writer_features,
        },
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of deltalake and the system into DatasetError: "Cannot <doing>: …"."""
    with disk_error(doing):
        try:
            yield
        except (DeltaError, OSError) as error:
            if found := OS_ERROR.search(str(error)):
                number = int(found[1])
                if number in LACKING and "Unable to rename" in str(error):  # it makes a link
                    raise OSError(errno.ENOTSUP, NO_LINKS) from error
                raise OSError(number, os.strerror(number)) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            first = str(error).strip().splitlines()[0]
            raise DatasetError(f"Cannot {doing}: {first}") from error
