"""Arrow -> Parquet files of one batch, in a directory that no reader looks at yet.

It knows neither the Delta table nor what a column means.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.dataset import layout
from engine.dataset.dedup import Duplicates
from engine.dataset.reject_files import RejectFiles
from engine.dataset.storage.local import sync
from engine.model.batch import Batch, leaf

FILE_BYTES = 128 << 20
GROUP_BYTES = 4 << 20  # Arrow bytes of a row group: what an encoder holds (P6)
SPOOL_ROWS = 8_192  # rows that go to a day's spool together, if they are less than a row group
HELD_BYTES = 32 << 20  # Arrow bytes held of all days together, until then (P6)
ENCODERS = 2
HALVED = 64 << 20  # Arrow bytes of a day from which on each encoder gets a part of it
GROUP_ROWS = 122_880
SAMPLE = 8_192  # rows that tell whether a column's values repeat

Mask = npt.NDArray[np.bool_]
Keys = Callable[[date], Iterable[list[Any]]]
"""The keys of what the table keeps of a day, besides what is written: four Arrow arrays at once."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A finished Parquet file. `path` is what it will be called below the table's root."""

    path: str
    day: date
    rows: int
    bytes: int
    stats: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """What a batch left in its directory, ready to be committed."""

    files: list[StagedFile]
    duplicates: int
    known: int = 0  # early rows that the table has already: none of `duplicates`


class _Spool:
    """The rows of one day in the order of their coming, on the disk, until all are there.

    Only then is it known which of them a later processed one supersedes; and to encode a row twice
    costs ten times what it costs to lay it aside.
    """

    def __init__(self, directory: Path, schema: pa.Schema, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._schema = schema
        self.duplicates = Duplicates(directory, self._keys)
        self.rows: list[int] = []  # of each batch on the disk
        self.bytes = 0  # of all of them
        self.held: list[pa.RecordBatch] = []
        self.writing_bytes = 0
        self.held_rows = self.held_bytes = 0
        self._path = directory / "rows"
        self._file = pa.OSFile(str(self._path), "wb")
        self._stream = pa.ipc.new_file(self._file, schema)
        self._writing: Future[None] | None = None
        self._early: list[range] = []  # numbers of rows that the table may hold already
        self._key_paths: list[tuple[str, ...]] = []

    def add(self, rows: pa.RecordBatch, keys: list[Any], paths: list[tuple[str, ...]]) -> None:
        """Take rows with their keys; `paths`: where those stand in them, if they do."""
        self._add(rows, keys, paths)

    def add_early(self, rows: pa.RecordBatch, keys: list[Any]) -> None:
        """Take rows that the table may hold already, with their keys as it would hold them."""
        first = sum(self.rows) + self.held_rows
        self._early.append(range(first, first + rows.num_rows))
        self.duplicates.as_columns = True
        self._add(rows, keys, [])

    def _add(self, rows: pa.RecordBatch, keys: list[Any], paths: list[tuple[str, ...]]) -> None:
        self._key_paths = self._key_paths or paths
        self.duplicates.add(keys, laid=bool(paths) and paths == self._key_paths)
        self.held.append(rows)
        self.held_rows += rows.num_rows
        self.held_bytes += rows.nbytes
        if self.held_rows >= SPOOL_ROWS or self.held_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Lay aside what is held; another thread does it, and holds no lock meanwhile."""
        self.wait()
        if self.held:
            rows = self.held[0] if len(self.held) == 1 else pa.concat_batches(self.held)
            self._writing = self._threads.submit(self._stream.write_batch, rows)
            self.writing_bytes = self.held_bytes
            self.rows.append(self.held_rows)
            self.bytes += self.held_bytes
            self.held, self.held_rows, self.held_bytes = [], 0, 0

    def wait(self) -> None:
        """Wait for what is being laid aside; raises what came of it."""
        writing, self._writing, self.writing_bytes = self._writing, None, 0
        if writing:
            writing.result()

    def superseded(self, kept: Iterable[list[Any]]) -> Mask | None:
        """The rows that another one replaces, or that are `kept` already; None: none is."""
        rows = sum(self.rows)
        for keys in kept:
            self.duplicates.add_known(keys)
        lost = self.duplicates.superseded()
        return None if lost is None else lost[:rows]

    def known(self) -> int:
        """How many early rows the table has; known once it is `superseded`."""
        had = self.duplicates.had
        return (
            0
            if had is None
            else sum(int(had[part.start : part.stop].sum()) for part in self._early)
        )

    def parts(self) -> list[range]:
        """The numbers of its batches, a range for each encoder if there is much to encode."""
        wanted = ENCODERS if self.bytes >= HALVED else 1
        bounds = [len(self.rows) * part // wanted for part in range(wanted + 1)]
        return [range(*bounds[part : part + 2]) for part in range(wanted)]

    def _keys(self, rows: Any) -> Iterator[tuple[Any, list[Any]]]:
        """The keys of `rows`, a batch after the other: all that are to be read from here."""
        starts = np.array([0, *accumulate(self.rows)])
        owners = np.searchsorted(starts, rows, side="right") - 1
        with pa.OSFile(str(self._path)) as file:
            names = [path[0] for path in self._key_paths]
            wanted = sorted({self._schema.get_field_index(name) for name in names})
            options = pa.ipc.IpcReadOptions(included_fields=wanted)
            batches = pa.ipc.open_file(file, options=options)
            for index in np.unique(owners).tolist():
                part = rows[owners == index]
                at, batch = pa.array(part - starts[index]), batches.get_batch(index)
                yield part, [leaf(batch, path).take(at) for path in self._key_paths]

    def read(self, part: range, lost: Mask | None) -> Iterator[pa.RecordBatch]:
        """The batches of `part` without the rows that are `lost`."""
        starts = [0, *accumulate(self.rows)]
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as batches:
            for index in part:
                batch = batches.get_batch(index)
                gone = lost[starts[index] : starts[index + 1]] if lost is not None else None
                if gone is not None and gone.any():
                    batch = batch.filter(pa.array(~gone))
                yield batch

    def close(self) -> None:
        """End the file, if that is still to be done. Nothing can be added any more."""
        if not self._file.closed:
            with self._file, self._stream:
                pass


class Writer:
    """Writes the rows of a batch to `<directory>/event_date=<day>/<batch-id>-<n>.parquet`.

    Its rejects go to `<directory>/batch/row_errors/*.json`. While rows come they are laid aside,
    a day at a time; `finish` encodes them. Neither holds more than a few batches (P6).
    """

    def __init__(self, directory: Path, batch_id: str, schema: pa.Schema) -> None:
        self._directory = directory
        self._batch_id = batch_id
        self._schema = schema.remove(schema.get_field_index("event_date"))
        self._days: dict[date, _Spool] = {}
        self._numbers = count()
        self._rejects = RejectFiles(directory / layout.STAGED_BATCH)
        self._encoders = ThreadPoolExecutor(ENCODERS, "parquet")
        self._closed = False

    def write(self, batch: Batch, early: Mask | None = None, keys: Sequence[Any] = ()) -> None:
        """Take the rows and the rejects of `batch`.

        `early`: whether each row may be in the table; then `keys` are those of all rows as the
        table would hold them.
        """
        if batch.rejects:
            self._rejects.write(batch.rejects)
        table = batch.table
        if table is None or not table.num_rows:
            return
        days = table.column("event_date")
        table = table.drop_columns("event_date")
        if early is not None and early.any():
            self._take_early(table, days, early, keys)
            rest = pa.array(np.flatnonzero(~early))
            table, days = table.take(rest), days.take(rest)
            batch.keep(~early)
        distinct = pc.unique(days)
        if not len(distinct):
            return
        if len(distinct) == 1:
            self._take(distinct[0].as_py(), table, batch.keys, batch.key_paths)
            return
        for day in distinct:
            rows = np.flatnonzero(pc.equal(days, day).to_numpy(zero_copy_only=False))
            at = rows.tolist()
            keys = [
                column.take(pa.array(rows))
                if isinstance(column, pa.Array)
                else [column[row] for row in at]
                for column in batch.keys
            ]
            self._take(day.as_py(), table.take(pa.array(rows)), keys, batch.key_paths)

    def _take_early(
        self, table: pa.RecordBatch, days: pa.Array, early: Mask, keys: Sequence[Any]
    ) -> None:
        for day in pc.unique(days.filter(pa.array(early))):
            of_day = pc.equal(days, day).to_numpy(zero_copy_only=False)
            at = pa.array(np.flatnonzero(early & of_day))
            spool = self._spool(day.as_py())
            spool.add_early(table.take(at), [column.take(at) for column in keys])
        self._let_go()

    def _take(
        self, day: date, rows: pa.RecordBatch, keys: list[Any], paths: list[tuple[str, ...]]
    ) -> None:
        self._spool(day).add(rows, keys, paths)
        self._let_go()

    def _spool(self, day: date) -> _Spool:
        if day not in self._days:
            folder = self._directory / layout.spool(day)
            self._days[day] = _Spool(folder, self._schema, self._encoders)
        return self._days[day]

    def _let_go(self) -> None:
        """Lay aside what is too much to be held (P6)."""
        spools = self._days.values()
        if sum(spool.held_bytes + spool.writing_bytes for spool in spools) > HELD_BYTES:
            max(spools, key=lambda spool: spool.held_bytes).flush()
            for spool in spools:  # P6: what waits for the disk is held as well
                spool.wait()

    def finish(self, kept: Keys = lambda _: ()) -> StagedBatch:
        """Encode every day without its superseded rows, and tell what there is.

        A row that is `kept` in the table already is superseded by that one.
        """
        duplicates = known = 0
        encoding: list[tuple[date, Future[list[Path]]]] = []
        for day, spool in sorted(self._days.items()):
            spool.flush()
            spool.wait()
            spool.close()
            lost = spool.superseded(kept(day))
            duplicates += 0 if lost is None else int(lost.sum())
            known += spool.known()
            encoding += [
                (day, self._encoders.submit(self._encode, day, spool.read(part, lost)))
                for part in spool.parts()
            ]
        staged = [self._describe(day, path) for day, paths in encoding for path in paths.result()]
        self._rejects.finish()
        return StagedBatch(staged, duplicates - known, known)

    def _encode(self, day: date, batches: Iterator[pa.RecordBatch]) -> list[Path]:
        """The files that hold `batches`, each row group of about GROUP_BYTES."""
        paths: list[Path] = []
        with ExitStack() as stack:
            sink: pq.ParquetWriter | None = None
            for group in _groups(batches, self._schema):
                if self._closed:
                    break
                if sink is None:
                    paths.append(self._new_path(day))
                    sink = stack.enter_context(self._open(paths[-1], group))
                sink.write_table(group, row_group_size=len(group))
                if paths[-1].stat().st_size >= FILE_BYTES:
                    sink.close()
                    sink = None
        return paths

    def _new_path(self, day: date) -> Path:
        path = self._directory / layout.data_file(day, self._batch_id, next(self._numbers))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _open(self, path: Path, first: pa.Table) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=_repeating(first.slice(0, SAMPLE)),
            write_statistics=_ordered(self._schema),
            write_page_index=True,
        )

    def _describe(self, day: date, path: Path) -> StagedFile:
        sync(path)
        metadata = pq.read_metadata(path)
        name = path.relative_to(self._directory).as_posix()
        return StagedFile(name, day, metadata.num_rows, path.stat().st_size, _statistics(metadata))

    def close(self) -> None:
        """Let go of every file and thread; what was staged stays for the caller to remove."""
        self._closed = True
        self._encoders.shutdown(wait=True, cancel_futures=True)
        with suppress(OSError), ExitStack() as stack:  # a full disk: all of it is thrown away
            stack.callback(self._rejects.close)
            for spool in self._days.values():
                stack.callback(spool.close)
                stack.callback(spool.duplicates.close)


def _groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of `batches` as tables of about GROUP_BYTES, at most GROUP_ROWS rows; none empty."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if size >= GROUP_BYTES or rows >= GROUP_ROWS:
            yield pa.Table.from_batches(held, schema)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema)


def _statistics(metadata: pq.FileMetaData) -> dict[str, Any]:
    """What Delta wants to know of a file: its rows, and of its numbers the bounds and the nulls.

    Of a text's nulls, which hardly anybody asks for, it would say more than of all the rest: each
    reader has to parse it, of every file, to open the table.
    """
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    for index in range(metadata.num_columns):
        path = metadata.schema.column(index).path.split(".")
        chunks = [
            metadata.row_group(group).column(index).statistics
            for group in range(metadata.num_row_groups)
        ]
        if "list" in path or "key_value" in path or not all(chunks):
            continue
        bounds = [(chunk.min, chunk.max) for chunk in chunks if chunk.has_min_max]
        # A bool is no bound, and a text's may be cut short: numbers alone are safe to compare.
        if bounds and all(type(value) in (int, float) for pair in bounds for value in pair):
            _put(low, path, min(pair[0] for pair in bounds))
            _put(high, path, max(pair[1] for pair in bounds))
            if all(chunk.has_null_count for chunk in chunks):
                _put(nulls, path, sum(chunk.null_count for chunk in chunks))
    return {
        "numRecords": metadata.num_rows,
        "minValues": low,
        "maxValues": high,
        "nullCount": nulls,
    }


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _ordered(fields: Iterable[pa.Field], above: str = "") -> list[str]:
    """The columns whose bounds help a reader to skip rows, under Parquet's names: all but texts.

    Events come in no order, so between the first and the last id of a row group lies every other;
    to find those two costs a seventh of writing.
    """
    found: list[str] = []
    for field in fields:
        name = above + field.name
        if pa.types.is_struct(field.type):
            found += _ordered(field.type, f"{name}.")
        elif not (pa.types.is_nested(field.type) or pa.types.is_string(field.type)):
            found.append(name)
    return found


def _repeating(rows: pa.Table) -> list[str]:
    """The columns worth a dictionary, under the names by which Parquet knows them.

    One of values that hardly ever repeat is built only to be thrown away, at a fifth of the cost
    of writing; without it such a column even takes less room.
    """

    def walk(name: str, values: pa.Array) -> list[str]:
        if pa.types.is_struct(values.type):
            fields = zip(values.type, values.flatten(), strict=True)
            return [leaf for child, below in fields for leaf in walk(f"{name}.{child.name}", below)]
        if pa.types.is_nested(values.type):
            return []
        return [name] if 2 * len(values.unique()) <= max(len(values), 2) else []

    names = [walk(n, rows.column(n).combine_chunks()) for n in rows.column_names if n != "unmapped"]
    return [name for found in names for name in found]
