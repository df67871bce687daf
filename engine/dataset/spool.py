"""Holds the rows of one day on the local disk until it is known which of them are written."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.dataset.dedup import Duplicates
from engine.model.batch import leaf

GROUP_BYTES = 4 << 20  # Arrow bytes of a row group, which an encoder holds in memory (P6)
SPOOL_ROWS = 8_192  # rows that are spooled together, if they are smaller than a row group
ENCODERS = 2
HALVED = 64 << 20  # Arrow bytes of a day from which on each encoder gets a part of it

Mask = npt.NDArray[np.bool_]


class Spool:
    """The rows of one day in the order in which they came, on the disk until all are there.

    Only then are duplicates known, and to encode a row takes ten times as long as to spool it.
    """

    def __init__(self, directory: Path, schema: pa.Schema, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._schema = schema
        self.duplicates = Duplicates(directory, self._keys)
        self.rows: list[int] = []  # of each record batch on the disk
        self.bytes = 0  # of all of them
        self.held: list[pa.RecordBatch] = []
        self.writing_bytes = 0
        self.held_rows = self.held_bytes = 0
        self._path = directory / "rows"
        self._file = pa.OSFile(str(self._path), "wb")
        self._stream = pa.ipc.new_file(self._file, schema)
        self._writing: Future[None] | None = None
        self._early: list[range] = []  # numbers of the rows of `add_early`
        self._key_paths: list[tuple[str, ...]] = []

    def add(self, rows: pa.RecordBatch, keys: list[Any], paths: list[tuple[str, ...]]) -> None:
        """Add rows with their keys; `paths`: the columns of `rows` that hold the keys, or none."""
        self._key_paths = self._key_paths or paths
        spooled = bool(paths) and paths == self._key_paths
        self.duplicates.add(keys, spooled=spooled)
        self.held.append(rows)
        self.held_rows += rows.num_rows
        self.held_bytes += rows.nbytes
        if self.held_rows >= SPOOL_ROWS or self.held_bytes >= GROUP_BYTES:
            self.flush()

    def add_early(self, rows: pa.RecordBatch, keys: list[Any]) -> None:
        """Add rows that the table may hold already; `keys` have the types of its columns."""
        first = sum(self.rows) + self.held_rows
        self._early.append(range(first, first + rows.num_rows))
        self.duplicates.as_columns = True
        self.add(rows, keys, [])

    def flush(self) -> None:
        """Write the rows in memory to the disk, in another thread."""
        self.wait()
        if self.held:
            rows = self.held[0] if len(self.held) == 1 else pa.concat_batches(self.held)
            self._writing = self._threads.submit(self._stream.write_batch, rows)
            self.writing_bytes = self.held_bytes
            self.rows.append(self.held_rows)
            self.bytes += self.held_bytes
            self.held, self.held_rows, self.held_bytes = [], 0, 0

    def wait(self) -> None:
        """Wait until the rows are written, or raise the error."""
        writing, self._writing, self.writing_bytes = self._writing, None, 0
        if writing:
            writing.result()

    def superseded(self, stored: Iterable[list[Any]]) -> Mask | None:
        """Return True for each row that another or a `stored` one replaces; None if all stay."""
        rows = sum(self.rows)
        for keys in stored:
            self.duplicates.add_stored(keys)
        lost = self.duplicates.superseded()
        return None if lost is None else lost[:rows]

    def already_stored(self) -> int:
        """Return how many rows of `add_early` the table has; call it after `superseded`."""
        found = self.duplicates.already_stored
        return (
            0
            if found is None
            else sum(int(found[part.start : part.stop].sum()) for part in self._early)
        )

    def parts(self) -> list[range]:
        """Return the numbers of the record batches, a range for each encoder if they are large."""
        wanted = ENCODERS if self.bytes >= HALVED else 1
        bounds = [len(self.rows) * part // wanted for part in range(wanted + 1)]
        return [range(*bounds[part : part + 2]) for part in range(wanted)]

    def _keys(self, rows: Any) -> Iterator[tuple[Any, list[Any]]]:
        """Yield the keys of `rows` (ascending) from the columns of the record batches."""
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
        """Yield the record batches of `part` without the rows that are `lost`."""
        starts = [0, *accumulate(self.rows)]
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as batches:
            for index in part:
                batch = batches.get_batch(index)
                gone = lost[starts[index] : starts[index + 1]] if lost is not None else None
                if gone is not None and gone.any():
                    batch = batch.filter(pa.array(~gone))
                yield batch

    def close(self) -> None:
        """Finish the file, unless that was done. Nothing can be added afterwards."""
        if not self._file.closed:
            with self._file, self._stream:
                pass
