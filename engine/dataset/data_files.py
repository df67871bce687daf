"""The data files of a table: whether they are there and whole, and what is in their columns."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq  # noqa: TID251  # counts rows, writes nothing

from engine.dataset.layout import is_inside
from engine.dataset.storage.base import Storage

MAGIC = b"PAR1"  # what a Parquet file begins and ends with


class DataFiles:
    """The data files in a storage, by their paths in the log."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._present = set[str]()  # files that were found whole; they are not checked again

    def is_present(self, path: str, size: int) -> bool:
        """Whether a file has all of its `size` bytes; files outside the root are not checked."""
        if path in self._present or not is_inside(path):
            return True
        found = self._storage.stat(self.stored(path))
        if found is None or found.size < size:
            return False
        self._present.add(path)
        return True

    def is_parquet(self, path: str) -> bool:
        """Whether a file has Parquet's first and last bytes; outside the root none is checked."""
        if not is_inside(path):
            return True
        with self._storage.open(self.stored(path)) as file:
            start = file.read(len(MAGIC))
            file.seek(max(0, file.size() - len(MAGIC)))
            return bool(start == MAGIC == file.read())

    def stored(self, path: str) -> str:
        """Return where a file is stored: the log may hold its path as a part of a URL."""
        if "%" not in path or self._storage.stat(path):
            return path
        return unquote(path)

    def open(self, path: str) -> Any:
        """Open a file as Arrow's random access file."""
        return self._storage.open(self.stored(path))

    def rows(self, path: str) -> int:
        """Return the rows of a file whose writer has noted no number in the log; 0 if missing."""
        missing = suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError)
        with missing, self.open(path) as file:
            return int(pq.read_metadata(file).num_rows)
        return 0


def read_columns(
    files: Iterable[Any], columns: Sequence[tuple[str, ...]]
) -> Iterator[list[pa.Array]]:
    """Yield these columns, by their paths, of open Parquet files, in parts (P6)."""
    from pyarrow import dataset as parquet  # 40 ms, which most pulls save

    wanted = {str(at): pc.field(*path) for at, path in enumerate(columns)}
    ahead = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
    for file in files:
        with file:
            fragment = parquet.ParquetFileFormat().make_fragment(file)
            for batch in fragment.scanner(columns=wanted, **ahead).to_batches():
                yield [_plain(column) for column in batch.columns]


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of texts as plain strings, which other programs encode in other ways."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    return column if kind is column.type else column.cast(kind)
