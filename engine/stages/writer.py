"""Arrow -> Parquet files of one batch, in a directory that no reader looks at yet.

It knows neither the Delta table nor what a column means.
"""

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.batch import Batch, Reject
from engine.duplicates import Duplicates

FILE_BYTES = 128 << 20
GROUP_BYTES = 8 << 20  # Arrow bytes of a row group: what the writer holds of one day
HELD_BYTES = 32 << 20  # Arrow bytes held of all days together (P6)
GROUP_ROWS = 122_880
SAMPLE = 8_192  # rows that tell whether a column's values repeat
REJECT_FILES = {"lines": "parsing_errors_0.json", "check": "conversion_errors_0.json"}
SAMPLES = 100


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


@dataclass(slots=True)
class _Day:
    """The files of one day, while they are written."""

    duplicates: Duplicates
    paths: list[Path] = field(default_factory=list)
    sink: pq.ParquetWriter | None = None
    held: list[pa.RecordBatch] = field(default_factory=list)
    held_rows: int = 0
    held_bytes: int = 0


class Writer:
    """Writes the rows of a batch to `<directory>/event_date=<day>/<batch-id>-<n>.parquet`.

    Its rejects go to `<directory>/batch/row_errors/*.json`. A row group is encoded in a thread
    while the next one fills; so at most two are held, whatever the window (P6).
    """

    def __init__(self, directory: Path, batch_id: str, schema: pa.Schema) -> None:
        self._directory = directory
        self._batch_id = batch_id
        self._schema = schema.remove(schema.get_field_index("event_date"))
        self._days: dict[date, _Day] = {}
        self._files = 0
        self._rejects = _RejectFiles(directory / "batch")
        self._encoder = ThreadPoolExecutor(1, "parquet")
        self._encoding: Future[None] | None = None

    def write(self, batch: Batch) -> None:
        """Take the rows and the rejects of `batch`."""
        if batch.rejects:
            self._rejects.write(batch.rejects)
        table = batch.table
        if table is None or not table.num_rows:
            return
        days = table.column("event_date")
        table = table.drop_columns("event_date")
        distinct = pc.unique(days)
        if len(distinct) == 1:
            self._take(distinct[0].as_py(), table, batch.keys)
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
            self._take(day.as_py(), table.take(pa.array(rows)), keys)

    def _take(self, day: date, rows: pa.RecordBatch, keys: list[Any]) -> None:
        state = self._days.get(day)
        if state is None:
            state = _Day(Duplicates(self._directory / "keys" / day.isoformat()))
            self._days[day] = state
        state.duplicates.add(keys)
        state.held.append(rows)
        state.held_rows += rows.num_rows
        state.held_bytes += rows.nbytes
        if state.held_bytes >= GROUP_BYTES or state.held_rows >= GROUP_ROWS:
            self._flush(day, state)
        elif sum(other.held_bytes for other in self._days.values()) > HELD_BYTES:
            self._flush(*max(self._days.items(), key=lambda item: item[1].held_bytes))

    def _flush(self, day: date, state: _Day) -> None:
        """Hand the held rows of `day` to the encoder, as one row group."""
        group = pa.Table.from_batches(state.held, self._schema)
        state.held, state.held_rows, state.held_bytes = [], 0, 0
        self._wait()
        self._encoding = self._encoder.submit(self._encode, day, state, group)

    def _wait(self) -> None:
        if self._encoding is not None:
            self._encoding.result()
            self._encoding = None

    def _encode(self, day: date, state: _Day, group: pa.Table) -> None:
        if state.sink is None:
            path = self._new_path(day)
            state.paths.append(path)
            state.sink = self._open(path, group)
        state.sink.write_table(group, row_group_size=len(group))
        if state.paths[-1].stat().st_size >= FILE_BYTES:
            state.sink.close()
            state.sink = None

    def _new_path(self, day: date) -> Path:
        path = self._directory / f"event_date={day}" / f"{self._batch_id}-{self._files}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files += 1
        return path

    def _open(self, path: Path, first: pa.Table) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=_repeating(first.slice(0, SAMPLE)),
            write_page_index=True,
        )

    def finish(self) -> StagedBatch:
        """Close every file, leave out superseded rows, and tell what there is."""
        for day, state in self._days.items():
            if state.held:
                self._flush(day, state)
        self._wait()
        staged: list[StagedFile] = []
        duplicates = 0
        for day, state in sorted(self._days.items()):
            if state.sink is not None:
                state.sink.close()
                state.sink = None
            lost = state.duplicates.superseded()
            if lost is not None:
                duplicates += int(lost.sum())
                state.paths = self._without(day, state.paths, lost)
            staged += [self._describe(day, path) for path in state.paths]
        self._rejects.finish()
        return StagedBatch(staged, duplicates)

    def _without(self, day: date, paths: list[Path], lost: npt.NDArray[np.bool_]) -> list[Path]:
        """The files again, a row group at a time, without the rows that are `lost`."""
        kept: list[Path] = []
        first = 0
        for path in paths:
            rows = pq.read_metadata(path).num_rows
            gone = lost[first : first + rows]
            first += rows
            if not gone.any():
                kept.append(path)
                continue
            if not gone.all():
                kept.append(self._new_path(day))
                self._copy(path, kept[-1], ~gone)
            path.unlink()
        return kept

    def _copy(self, path: Path, target: Path, keep: npt.NDArray[np.bool_]) -> None:
        first = 0
        with ExitStack() as stack:
            source = stack.enter_context(pq.ParquetFile(path, pre_buffer=False))
            sink: pq.ParquetWriter | None = None
            for index in range(source.num_row_groups):
                group = source.read_row_group(index, use_threads=False)
                first, rows = first + len(group), group.filter(pa.array(keep[first:][: len(group)]))
                sink = sink or stack.enter_context(self._open(target, rows))
                self._wait()
                self._encoding = self._encoder.submit(sink.write_table, rows)
            self._wait()

    def _describe(self, day: date, path: Path) -> StagedFile:
        _sync(path)
        metadata = pq.read_metadata(path)
        name = path.relative_to(self._directory).as_posix()
        return StagedFile(name, day, metadata.num_rows, path.stat().st_size, _statistics(metadata))

    def close(self) -> None:
        """Let go of every file and thread; what was staged stays for the caller to remove."""
        self._encoder.shutdown(wait=True, cancel_futures=True)
        days = self._days.values()
        sinks = [day.sink for day in days if day.sink is not None]
        for open_file in (self._rejects, *(day.duplicates for day in days), *sinks):
            with suppress(OSError):  # a full disk: what is still open here is thrown away
                open_file.close()


class _RejectFiles:
    """Rejects as Adobe's diagnostics files hold them: one JSON object a line, the line verbatim."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, Any] = {}
        self._samples: list[str] = []

    def write(self, rejects: list[Reject]) -> None:
        for reject in rejects:
            name = REJECT_FILES[reject.stage]
            if name not in self._files:
                path = self._directory / "row_errors" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files[name] = path.open("w", encoding="ascii")
            line = _reject_json(reject, name)
            self._files[name].write(line + "\n")
            if len(self._samples) < SAMPLES and len(line) < 1 << 16:
                self._samples.append(line)

    def finish(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        if self._files:
            path = self._directory / "row_error_samples.json"
            path.write_text("".join(line + "\n" for line in self._samples), encoding="ascii")
            _sync(path)

    def close(self) -> None:
        with ExitStack() as stack:
            for file in self._files.values():
                stack.callback(file.close)


def _reject_json(reject: Reject, filename: str) -> str:
    # Bytes that are no UTF-8 travel as escaped lone surrogates: the line can be had back exactly
    # with json.loads(...)["_corrupt_record"].encode("utf-8", "surrogateescape").
    entry: dict[str, Any] = {
        "_corrupt_record": reject.raw.decode("utf-8", "surrogateescape"),
        "_errors": [{"code": reject.code, "message": reject.message}],
        "_filename": filename,
    }
    if reject.violations:
        entry["_validationErrors"] = list(reject.violations)
    if reject.part is not None:
        entry["_part"] = reject.part
    return json.dumps(entry)


def _statistics(metadata: pq.FileMetaData) -> dict[str, Any]:
    """What Delta wants to know of a file: rows, nulls, and the bounds of its numbers."""
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
        if all(chunk.has_null_count for chunk in chunks):
            _put(nulls, path, sum(chunk.null_count for chunk in chunks))
        bounds = [(chunk.min, chunk.max) for chunk in chunks if chunk.has_min_max]
        # A bool is no bound, and a text's may be cut short: numbers alone are safe to compare.
        if bounds and all(type(value) in (int, float) for pair in bounds for value in pair):
            _put(low, path, min(pair[0] for pair in bounds))
            _put(high, path, max(pair[1] for pair in bounds))
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


def _sync(path: Path) -> None:
    """Force `path` to the disk: a commit must not outlive the files it names (P2)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
