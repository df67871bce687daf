"""A Delta table as it stands: where it is, what it holds, up to where it was pulled.

What is below its root is `dataset`'s to change; here it is only read.
"""

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
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq  # counts rows, writes nothing
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from engine.dataset import features
from engine.dataset.contents import ROWS, Change, Contents, change, notes_of
from engine.dataset.delta_log import Foreign, Log, State, columns_of, differences
from engine.dataset.intent import is_inside
from engine.dataset.storage.local import LACKING, NO_LINKS
from engine.errors import DatasetError, InputError, disk_error
from engine.model.flow import source_in_words
from engine.model.window import is_day

SOURCE = "mixpanel-etl.source"  # the table property that tells whose events it holds
COLUMNS = "mixpanel-etl.columns"  # the table property that names the columns it was made with
OURS = {"_delta_log", "_staging", "_batches", "_superseded"}
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how deltalake passes on what the system says
FILES = ["path", "size_bytes", "num_records", "partition.event_date"]
UNDOING = {"RESTORE", "DELETE", "TRUNCATE", "WRITE", "CREATE", "REPLACE"}  # what takes rows away
NOTHING = Contents()
UNREACHABLE = re.compile(r"[\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")  # in a path, for deltalake


@dataclass(frozen=True, slots=True)
class DayContents:
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
        self._present = set[str]()  # files of the table that were found on the disk
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
        self._listing: tuple[int, pa.Table] | None = None  # the files of a version
        self._contents: tuple[int, dict[date, Contents]] | None = None
        self._fits: Mapping[str, Any] | None = None  # the metadata that was found to fit
        version = self._log.newest()
        self._seen = -1 if version is None else version
        self._mark = self._log.mark(self._seen)
        if self._schema is not None and self.exists:
            self._check_fit()

    def _check_fit(self) -> None:
        """Raise InputError unless the table as it is now can take our files, and is ours."""
        with translated(f"open the table {self.root}"):
            state = self._log.state(self._version)
            if state is not None and state.is_plain and state.metadata is self._fits:
                return
            if state is None or not state.is_plain:
                table = self._current()  # refuses what it cannot read
                state = _described(table)
        has, properties = (
            json.loads(state.metadata["schemaString"]),
            state.metadata["configuration"],
        )
        wrong = self._differences(has, properties)
        if wrong:
            raise InputError(
                f"The table {self.root} has another schema: {'; '.join(wrong)}. "
                "Use the schema it was made with, or another --dataset."
            )
        source = properties.get(SOURCE)
        if source is not None and source != self._source:
            raise InputError(
                f"The table {self.root} holds other events: it was made for {_in_words(source)}, "
                f"and what is asked for now is {_in_words(self._source)}. One table mirrors one "
                "source: use another --dataset."
            )
        self._check_features(state, has)
        self._fits = state.metadata

    def _differences(self, has: Mapping[str, Any], properties: Mapping[str, Any]) -> list[str]:
        """How the table's schema differs from ours, but for columns that somebody added.

        Those may be null, and are in our rows.
        """
        assert self._schema
        want = json.loads(self._schema.to_json())
        made_with = properties.get(COLUMNS)
        if made_with is None and self._fits is not None:  # it was made by a version that notes none
            made_with = self._fits["configuration"].get(COLUMNS) or self._fits["schemaString"]
        with suppress(ValueError, TypeError, KeyError):
            known = json.loads(made_with) if made_with else None
            if isinstance(known, dict):
                known = [*columns_of(known)]
            if known is not None:
                return differences(has, want, set(known))
        return differences(has, want)

    def _check_features(self, state: State, schema: Mapping[str, Any]) -> None:
        """Raise InputError if files cannot be added and removed rightly in such a table."""
        why = features.obstacles(state.protocol, state.metadata["configuration"], schema)
        if features.may_have_vectors(state.protocol) and self._has_vectors():
            why.append(
                "rows of its files are marked as deleted by deletion vectors, which this program "
                "does not write: ALTER TABLE … SET TBLPROPERTIES "
                "('delta.enableDeletionVectors' = false), then REORG TABLE … APPLY (PURGE)"
            )
        if why:
            raise InputError(
                f"The table {self.root} cannot be written rightly: {'; '.join(why)}. "
                "Change the table back, or use another --dataset."
            )

    def _has_vectors(self) -> bool:
        """Whether a file of the table has a deletion vector; so too if one cannot be read."""
        try:
            return any(batch.num_rows for batch in self._current().deletion_vectors())
        except (DeltaError, OSError):
            return True

    @property
    def exists(self) -> bool:
        """Whether there is a table already."""
        return self._seen >= 0

    def held(self, days: Sequence[date]) -> dict[date, DayContents]:
        """What the table holds of each of `days`."""
        found = {day: DayContents(0, []) for day in days}
        if not self.exists:
            return found
        if not self._log.has_table():
            raise DatasetError(
                f"Cannot read the log of {self.root}: it is gone. "
                "Put it back, or use another --dataset."
            )
        with translated(f"read the log of {self.root}"):
            return self._held(self._current(), days)

    def _held(self, table: DeltaTable, days: Sequence[date]) -> dict[date, DayContents]:
        """What `table`, as it was loaded, holds of each of `days`."""
        found = {day: DayContents(0, []) for day in days}
        files = self._files(table)
        files = files.filter(pc.is_in(files["partition.event_date"], pa.array(days, pa.date32())))
        for path, size, rows, day in _listed(files):
            of_day = found[day]
            of_day.files.append((path, size))
            found[day] = DayContents(of_day.rows + self._count(path, rows), of_day.files)
        return found

    def _count(self, path: str, rows: int | None) -> int:
        """The rows of a file; of one whose writer noted none, by the file itself."""
        if rows is None:
            with suppress(FileNotFoundError, NotADirectoryError):
                rows = pq.read_metadata(self._place(path)).num_rows
        return rows or 0

    def contents(self) -> dict[date, Contents]:
        """What the table holds of every day that it has files of."""
        if not self.exists:
            return {}
        with translated(f"read the log of {self.root}"):
            table = self._current()
            if self._contents is None or self._contents[0] != table.version():
                self._contents = table.version(), self._contents_of(table)
        return self._contents[1]

    def _contents_of(
        self, table: DeltaTable, days: Sequence[date] | None = None
    ) -> dict[date, Contents]:
        """What `table`, as it was loaded, holds of `days`, or of every day that it has files of."""
        listing = self._files(table)
        if days is not None:
            wanted = pa.array(days, pa.date32())
            listing = listing.filter(pc.is_in(listing["partition.event_date"], wanted))
        files: dict[date, list[tuple[str, int]]] = {}
        gone = Counter[date]()
        for path, size, rows, day in _listed(listing):
            known = self._count(path, rows) if rows is None else rows
            files.setdefault(day, []).append((path, known))
            if path not in self._present and not self._is_there(path, size):
                gone[day] += 1
        return {day: Contents.of(each, gone[day]) for day, each in files.items()}

    def changes(self, days: Collection[date] | None = None) -> dict[date, Change]:
        """Those of `days`, or of all, that are not as this program left them, in order (P10)."""
        if not self.exists:
            return {}
        noted = self.positions
        if days is None:
            there = self.contents()
            wanted = there.keys() | {date.fromisoformat(day) for day in notes_of(noted)}
        else:
            with translated(f"read the log of {self.root}"):
                there = self._contents_of(self._current(), list(days))
            wanted = set(days)
        found = (change(day, there.get(day, NOTHING), noted) for day in sorted(wanted))
        changed = {each.day: each for each in found if each}
        undone = {each.day for each in changed.values() if each.undone}
        changed |= self._overwritten(wanted - undone, there, noted)
        return self._changes_unnoted(wanted, there, noted) | dict(sorted(changed.items()))

    def _overwritten(
        self, days: Collection[date], there: Mapping[date, Contents], noted: Mapping[str, int]
    ) -> dict[date, Change]:
        """Those of `days` of which another program took rows, and added as many or more (P10).

        Their number says nothing then; the log does, as far as it goes. What UPDATE and MERGE
        write anew is left.
        """
        doubtful = [
            day for day in days if f"{ROWS}{day}" in noted and there.get(day, NOTHING).foreign
        ]
        if not doubtful:
            return {}
        taken = {
            day
            for other in self._log.others(self._version)
            if other.operation.split()[0] in UNDOING
            for day in other.taken
        }
        return {
            day: Change(day, noted.get(f"{ROWS}{day}"), has.rows, has.gone, undone=True)
            for day in doubtful
            if str(day) in taken
            for has in (there.get(day, NOTHING),)
        }

    def _changes_unnoted(
        self, wanted: set[date], there: Mapping[date, Contents], noted: Mapping[str, int]
    ) -> dict[date, Change]:
        """As `changes`, of days that a version of this program wrote which noted nothing."""
        names = {name[-10:] for name in noted if "/" in name}
        if not ({*map(str, wanted)} | {name for name in names if is_day(name)}) - notes_of(noted):
            return {}
        found = {
            date.fromisoformat(day)
            for other in self._log.others(self._version)
            if other.operation.split()[0] in UNDOING
            for day in other.days
            if is_day(day) and f"{ROWS}{day}" not in noted
        }
        holds = {day: there.get(day, NOTHING) for day in sorted(found)}
        return {
            day: Change(day, None, has.rows, has.gone, undone=True) for day, has in holds.items()
        }

    def last_change(self) -> Foreign | None:
        """The last commit by which another program changed rows that stayed so, if it is known."""
        with translated(f"read the log of {self.root}"):
            others = self._log.others(self._version) if self.exists else ()
        return next((other for other in others if other.days), None)

    def _is_there(self, path: str, size: int) -> bool:
        """Whether a file of the table is on the disk, wholly. One that was is not looked for."""
        if path in self._present or not is_inside(path):
            return True
        place = f"{self.root}/{path}" if "%" not in path else self._place(path)
        try:
            there = os.stat(place).st_size >= size  # noqa: PTH116  # a Path takes as long again
        except (FileNotFoundError, NotADirectoryError):
            return False
        if there:
            self._present.add(path)
        return there

    def _place(self, path: str) -> Path:
        """Where a file of the table is: the log may have its path as part of a URL."""
        place = self.root / path
        return place if "%" not in path or place.exists() else self.root / unquote(path)

    def read(self, day: date, columns: Sequence[tuple[str, ...]]) -> Iterator[list[pa.Array]]:
        """These columns, by their paths, of what the table holds of `day`, part by part (P6)."""
        held = self.held([day])[day].files  # P10: a day that lacks a file is pulled again, whole
        files = [self._place(path) for path, size in held if self._is_there(path, size)]
        yield from self.read_files(files, columns)

    def read_files(
        self, files: Sequence[Path], columns: Sequence[tuple[str, ...]]
    ) -> Iterator[list[pa.Array]]:
        """These columns, by their paths, of Parquet files like the table's, part by part (P6)."""
        from pyarrow import dataset as parquet  # 40 ms, that every pull saves

        with translated(f"read the table {self.root}"):
            wanted = {str(at): pc.field(*path) for at, path in enumerate(columns)}
            ahead = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
            for file in files:
                yield from (
                    [_plain(column) for column in batch.columns]
                    for batch in parquet.dataset(str(file))
                    .scanner(columns=wanted, **ahead)
                    .to_batches()
                )

    @property
    def _version(self) -> int:
        """Of the table as its log is now."""
        assert self.exists
        if self._mark != self._log.mark(self._seen):
            self._follow()
        version = self._log.latest(self._seen)
        if version != self._seen:
            self._seen, self._mark = version, self._log.mark(version)
        return self._seen

    def _follow(self) -> None:
        """Find the newest version anew: the entry seen last was cleaned up, or is another one."""
        log = Log(self.root)
        version = log.newest()
        if version is None:  # somebody is taking it away: what was read of it stays what it was
            return
        self._log, self._seen, self._mark = log, version, log.mark(version)
        self._table = self._listing = self._contents = None

    def _id(self) -> str | None:
        """What tells the table from another one in its place."""
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
        if self._log.state(self._seen) is None:
            self._log.check(self._seen)  # an entry of nothing means nothing to deltalake
        try:
            return DeltaTable(self.root, version=self._seen if self._log.cut_off else None)
        except DeltaError:
            if not self._log.find_broken():
                self._log.check(self._seen)
                raise
        self._mend()
        return DeltaTable(self.root)

    def _mend(self) -> None:
        """Set aside what a crash left of the log; who only reads says so instead."""
        raise DatasetError(f"{self._log.damage}. The next run sets it aside and goes on.")

    @property
    def damage(self) -> str:
        """What the next run sets aside of the log, as a sentence; empty if nothing."""
        damage = self._log.damage
        return damage and f"{damage}. The next run sets it aside and goes on."

    def _files(self, table: DeltaTable) -> pa.Table:
        """The files of `table`, as it was loaded: their paths, sizes, rows and days."""
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

    def days(self) -> set[date]:
        """The days that the table holds rows of."""
        return set(self.contents())

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


def _plain(column: pa.Array) -> pa.Array:
    """Texts as this program writes them: files of other programs have them in other forms."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    return column if kind is column.type else column.cast(kind)


def _listed(files: pa.Table) -> Iterator[tuple[str, int, int | None, date]]:
    """Path, bytes, rows and day of each of `files`."""
    return zip(*(files[column].to_pylist() for column in FILES), strict=True)


def _described(table: DeltaTable) -> State:
    """What deltalake says of a table whose log it alone can read."""
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


def _in_words(source: str | None) -> str:
    """A source as the table keeps it, in words; whoever wrote the table may have put anything."""
    try:
        return source_in_words(json.loads(source or ""))
    except (ValueError, RecursionError):
        return source_in_words(None)


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
