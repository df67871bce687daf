"""A Delta table as it stands: where it is, what it holds, up to where it was pulled.

What is below its root is `dataset`'s to change; here it is only read.
"""

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from engine.deltalog import Log, differences
from engine.disk import LACKING, NO_LINKS
from engine.errors import DatasetError, InputError, disk_error

SOURCE = "mixpanel-etl.source"  # the table property that tells whose events it holds
OURS = {"_delta_log", "_staging", "_batches", "_superseded"}
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how deltalake passes on what the system says
UNREACHABLE = re.compile(r"[\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")  # in a path, for deltalake


@dataclass(frozen=True, slots=True)
class Held:
    """What the table holds of one day."""

    rows: int
    files: list[tuple[str, int]]  # path below the root, bytes


class Table:
    """One table of Parquet files, to be read."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        """Held against a schema and a source; without them it can only be looked at."""
        self.root = Path(os.path.realpath(root))  # one table has one name, wherever we are
        self._schema = None if schema is None else Schema.from_arrow(schema)
        self._source = None if source is None else json.dumps(source, sort_keys=True)
        self._check_place()
        self._open()

    def _check_place(self) -> None:
        if odd := UNREACHABLE.search(str(self.root)):
            raise InputError(
                f"A Delta table cannot be kept in {str(self.root)!r}: Delta readers take its "
                f"{odd[0]!r} for something else. Give another directory for the dataset."
            )
        standing = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not standing.is_dir():
            raise InputError(f"{standing} is a file. Give a directory for the dataset.")
        log = Log(self.root)
        if not self.root.exists() or log.has_table():
            return
        others = sorted(entry.name for entry in self.root.iterdir() if entry.name not in OURS)
        others += log.foreign()
        if others:
            some = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
            raise InputError(
                f"{self.root} is no table of this program and is not empty (it holds {some}). "
                "Give an empty or a new directory for the dataset."
            )

    def _open(self) -> None:
        """Look at the table anew: whether there is one, and whether it is what it should be."""
        self._log = Log(self.root)
        self._table: DeltaTable | None = None  # once something asks for files
        version = self._log.newest()
        self._seen = -1 if version is None else version
        self._mark = self._log.mark(self._seen)
        if self._schema is None or not self.exists:
            return
        with translated(f"open the table {self.root}"):
            state = self._log.state(self._seen)
            if state is None or not state.is_plain:
                table = self._current()  # refuses what it cannot read
                has, configuration = table.schema().to_json(), table.metadata().configuration
            else:
                has, configuration = state.metadata["schemaString"], state.metadata["configuration"]
            wrong = differences(json.loads(has), json.loads(self._schema.to_json()))
            source = configuration.get(SOURCE)
        if wrong:
            raise InputError(
                f"The table {self.root} has another schema: {'; '.join(wrong)}. "
                "Use the schema it was made with, or another --dataset."
            )
        if source is not None and source != self._source:
            raise InputError(
                f"The table {self.root} holds other events: it was made for {source}, and now "
                f"{self._source} is asked for. One table mirrors one source: use another --dataset."
            )

    @property
    def exists(self) -> bool:
        """Whether there is a table already."""
        return self._seen >= 0

    def held(self, days: Sequence[date]) -> dict[date, Held]:
        """What the table holds of each of `days`."""
        found = {day: Held(0, []) for day in days}
        if not self.exists:
            return found
        if not self._log.has_table():
            raise DatasetError(
                f"Cannot read the log of {self.root}: it is gone. "
                "Put it back, or use another --dataset."
            )
        with translated(f"read the log of {self.root}"):
            files = self._files("partition.event_date", pa.array(days, pa.date32()))
        columns = ("path", "size_bytes", "num_records", "partition.event_date")
        values = (files[column].to_pylist() for column in columns)
        for path, size, rows, day in zip(*values, strict=True):
            of_day = found[day]
            of_day.files.append((path, size))
            found[day] = Held(of_day.rows + (rows or 0), of_day.files)
        return found

    def read(self, day: date, columns: Sequence[tuple[str, ...]]) -> Iterator[list[pa.Array]]:
        """These columns, by their paths, of what the table holds of `day`, part by part (P6)."""
        from pyarrow import dataset as parquet  # 40 ms, that every pull saves

        files = [str(self.root / path) for path, _ in self.held([day])[day].files]
        with translated(f"read the table {self.root}"):
            wanted = {str(at): pc.field(*path) for at, path in enumerate(columns)}
            ahead = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
            for file in files:
                yield from (
                    batch.columns
                    for batch in parquet.dataset(file).scanner(columns=wanted, **ahead).to_batches()
                )

    @property
    def _version(self) -> int:
        """Of the table as its log is now."""
        assert self.exists
        self._seen = self._log.latest(self._seen)
        return self._seen

    def _current(self) -> DeltaTable:
        """The table as its log is now. To load it takes a tenth of a second at 10,000 files."""
        if self._table is None:
            self._table = DeltaTable(self.root)
        elif self._version != self._table.version():
            self._table.update_incremental()
        return self._table

    def _files(self, column: str, values: pa.Array) -> pa.Table:
        """The files in the table whose `column` is one of `values`."""
        files = pa.table(self._current().get_add_actions(flatten=True))
        return files.filter(pc.is_in(files[column], values))

    def days(self) -> set[date]:
        """The days that the table holds rows of."""
        if not self.exists:
            return set()
        with translated(f"read the log of {self.root}"):
            files = pa.table(self._current().get_add_actions(flatten=True))
        return set(files["partition.event_date"].to_pylist())

    def position(self, app_id: str) -> int | None:
        """The version last committed under `app_id`: for a day, when it was pulled (ms)."""
        if not self.exists:
            return None
        with translated(f"read the log of {self.root}"):
            positions = self._log.positions(self._version)
            if positions is None:
                return self._current().transaction_version(app_id)
        return positions.get(app_id)

    @property
    def positions(self) -> Mapping[str, int]:
        """Every app id's version; empty where only deltalake could tell."""
        if not self.exists:
            return {}
        with translated(f"read the log of {self.root}"):
            return self._log.positions(self._version) or {}

    def batch_directory(self, batch_id: str) -> Path:
        """Where a batch's rejects and inputs are found once it has ended."""
        return self.root / "_batches" / batch_id

    @property
    def batches(self) -> list[str]:
        """The batches that have left something to say, the newest first."""
        folder = self.root / "_batches"
        with disk_error(f"read {folder}"):
            found = folder.iterdir() if folder.is_dir() else ()
            return sorted((path.name for path in found), reverse=True)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what deltalake and the system say into a sentence: "Cannot <doing>: …"."""
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
