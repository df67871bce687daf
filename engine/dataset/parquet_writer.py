"""Writes the rows of one batch to Parquet files in a staging folder, each event once.

It knows neither the Delta table nor what a column means.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.dataset import layout
from engine.dataset.reject_files import RejectFiles
from engine.dataset.spool import ENCODERS, GROUP_BYTES, Mask, Spool
from engine.dataset.storage.local import sync
from engine.model.batch import Batch

FILE_BYTES = 128 << 20
HELD_BYTES = 32 << 20  # Arrow bytes that all spools together hold in memory (P6)
GROUP_ROWS = 122_880
SAMPLE = 8_192  # rows by which is decided whether a column's values repeat

Keys = Callable[[date], Iterable[list[Any]]]
"""The keys of the rows of a day that are in the table and stay: four Arrow arrays at a time."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A finished Parquet file. `path`: below the staging folder, and later below the root."""

    path: str
    day: date
    rows: int
    bytes: int
    stats: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """The finished files of a batch; rows that the table already stores are counted in `known`."""

    files: list[StagedFile]
    duplicates: int
    known: int = 0  # early rows that the table has already


class Writer:
    """Spools the rows of a batch by day; `finish` encodes them to data files (P6).

    The rejects of the batch are written beside them; see `layout`.
    """

    def __init__(self, directory: Path, batch_id: str, schema: pa.Schema) -> None:
        self._directory = directory
        self._batch_id = batch_id
        self._schema = schema.remove(schema.get_field_index("event_date"))
        self._days: dict[date, Spool] = {}
        self._numbers = count()
        self._rejects = RejectFiles(directory / layout.STAGED_BATCH)
        self._encoders = ThreadPoolExecutor(ENCODERS, "parquet")
        self._closed = False

    def write(self, batch: Batch, early: Mask | None = None, keys: Sequence[Any] = ()) -> None:
        """Add the rows and the rejects of `batch`.

        early  True for each row that the table may hold already
        keys   with `early`: the keys of all rows, with the types of the table's columns
        """
        if batch.rejects:
            self._rejects.write(batch.rejects)
        table = batch.table
        if table is None or not table.num_rows:
            return
        days = table.column("event_date")
        table = table.drop_columns("event_date")
        if early is not None and early.any():
            self._add_early(table, days, early, keys)
            rest = pa.array(np.flatnonzero(~early))
            table, days = table.take(rest), days.take(rest)
            batch.keep(~early)
        distinct = pc.unique(days)
        for day in distinct:
            part, of_part = table, batch.keys
            if len(distinct) > 1:
                rows = np.flatnonzero(pc.equal(days, day).to_numpy(zero_copy_only=False))
                part, of_part = table.take(pa.array(rows)), [_take(c, rows) for c in batch.keys]
            self._spool(day.as_py()).add(part, of_part, batch.key_paths)
            self._limit_memory()

    def _add_early(
        self, table: pa.RecordBatch, days: pa.Array, early: Mask, keys: Sequence[Any]
    ) -> None:
        for day in pc.unique(days.filter(pa.array(early))):
            of_day = pc.equal(days, day).to_numpy(zero_copy_only=False)
            at = pa.array(np.flatnonzero(early & of_day))
            spool = self._spool(day.as_py())
            spool.add_early(table.take(at), [column.take(at) for column in keys])
        self._limit_memory()

    def _spool(self, day: date) -> Spool:
        if day not in self._days:
            folder = self._directory / layout.spool(day)
            self._days[day] = Spool(folder, self._schema, self._encoders)
        return self._days[day]

    def _limit_memory(self) -> None:
        """Write rows to the disk where the spools hold too many bytes in memory (P6)."""
        spools = self._days.values()
        if sum(spool.held_bytes + spool.writing_bytes for spool in spools) > HELD_BYTES:
            max(spools, key=lambda spool: spool.held_bytes).flush()
            for spool in spools:  # P6: rows that wait for the disk are in memory as well
                spool.wait()

    def finish(self, stored: Keys = lambda _: ()) -> StagedBatch:
        """Encode the rows of every day that no other row replaces, and return the files.

        A row whose key is among the `stored` ones of its day is replaced.
        """
        duplicates = known = 0
        encoding: list[tuple[date, Future[list[Path]]]] = []
        for day, spool in sorted(self._days.items()):
            spool.flush()
            spool.wait()
            spool.close()
            lost = spool.superseded(stored(day))
            duplicates += 0 if lost is None else int(lost.sum())
            known += spool.already_stored()
            encoding += [
                (day, self._encoders.submit(self._encode, day, spool.read(part, lost)))
                for part in spool.parts()
            ]
        staged = [self._describe(day, path) for day, paths in encoding for path in paths.result()]
        self._rejects.finish()
        return StagedBatch(staged, duplicates - known, known)

    def _encode(self, day: date, batches: Iterator[pa.RecordBatch]) -> list[Path]:
        """Write `batches` to files, in row groups of about GROUP_BYTES; return their paths."""
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
        """Close every file and thread. What was staged stays for the caller to delete."""
        self._closed = True
        self._encoders.shutdown(wait=True, cancel_futures=True)
        with suppress(OSError), ExitStack() as stack:  # a full disk: what was staged is deleted
            stack.callback(self._rejects.close)
            for spool in self._days.values():
                stack.callback(spool.close)
                stack.callback(spool.duplicates.close)


def _take(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    if isinstance(column, pa.Array):
        return column.take(pa.array(rows))
    return [column[row] for row in rows.tolist()]


def _groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of `batches` as tables of about GROUP_BYTES, at most GROUP_ROWS rows each."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in filter(len, batches):
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if size >= GROUP_BYTES or rows >= GROUP_ROWS:
            yield pa.Table.from_batches(held, schema)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema)


def _statistics(metadata: pq.FileMetaData) -> dict[str, Any]:
    """Return a file's statistics for Delta: its rows; bounds and nulls of columns of numbers.

    Each reader parses them to open the table: nulls of texts, which few queries use, are missing.
    """
    low, high, nulls = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for index in range(metadata.num_columns):
        path = metadata.schema.column(index).path.split(".")
        chunks = [
            metadata.row_group(group).column(index).statistics
            for group in range(metadata.num_row_groups)
        ]
        if "list" in path or "key_value" in path or not all(chunks):
            continue
        bounds = [(chunk.min, chunk.max) for chunk in chunks if chunk.has_min_max]
        # A bool is no bound, and that of a text may be cut short: only numbers are safe to compare.
        if bounds and all(type(value) in (int, float) for pair in bounds for value in pair):
            _put(low, path, min(pair[0] for pair in bounds))
            _put(high, path, max(pair[1] for pair in bounds))
            if all(chunk.has_null_count for chunk in chunks):
                _put(nulls, path, sum(chunk.null_count for chunk in chunks))
    bounds_by_name = {"minValues": low, "maxValues": high, "nullCount": nulls}
    return {"numRecords": metadata.num_rows, **bounds_by_name}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _ordered(fields: Iterable[pa.Field], above: str = "") -> list[str]:
    """Return the columns whose bounds help a reader to skip rows, by Parquet's names: no texts.

    Ids come in no order, and their bounds would take a seventh of the time of writing.
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
    """Return the columns whose values repeat, by Parquet's names.

    A dictionary of other values takes a fifth of the time of writing, and enlarges the column.
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
