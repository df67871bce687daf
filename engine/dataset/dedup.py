"""Finds the duplicates among the rows of one day, with 9 bytes of memory for each row (P6).

Mixpanel does not deduplicate its export. Its rule is that events with an equal key (`event`,
`distinct_id`, `time`, `$insert_id`) are one event, and that the one processed last counts. Here
are only keys, numbered in the order in which they came: no table, no mapping.
"""

import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from json import dumps as plain_dumps
from json import loads as plain_loads
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from engine.dataset.key_hashes import NO_HASH, Hashes, Keys, hash_keys, is_deep

SLICE = 100_000  # suspect hashes that are compared at a time (P6)
BLOCK_ROWS = 1_000  # rows whose keys are written at a time
READ = 1 << 17  # hashes that are read at a time
SIEVE = 1 << 22  # places of the sieve that drops most hashes

# The types of the key's parts, in Python and in Arrow, for which columns are compared at once.
KINDS = [(str, pa.string()), (str, pa.string()), (int, pa.int64()), (str, pa.string())]

Rows = npt.NDArray[np.int64]
Part = tuple[Rows, Keys]
ReadSpooled = Callable[[Rows], Iterable[Part]]
"""Numbers of rows, ascending -> their keys, in parts, from the spool that holds the rows."""


class _Block(NamedTuple):
    """Where the file has the keys of rows `first` to `end` (exclusive).

    Without `pick`, the keys are in the spool and not in this file.
    """

    first: int
    end: int
    offset: int
    length: int
    pick: Callable[[bytes, Rows], Keys] | None  # (form, rows) -> their keys


class Duplicates:
    """The keys of one day's rows, in the order in which they were added.

    One file has a 64-bit hash of each row, to be sorted at the end. Another has the keys: two rows
    are one event only if their keys are equal. Keys that are among the columns of the spooled rows
    are not written again: `read_spooled` reads them.
    """

    def __init__(self, directory: Path, read_spooled: ReadSpooled = lambda _: ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._read_spooled = read_spooled
        self._hashes = (directory / "hashes").open("w+b")
        self._file = (directory / "keys").open("w+b")
        self._pending: list[list[Any]] = [[], [], [], [], []]
        self._blocks: list[_Block] = []
        self._apart: set[int] = set()  # rows that are no duplicates, besides those without a hash
        self._added: Hashes | None = None  # of the rows added before the first stored one
        self._first_stored: int | None = None  # the first row of `add_stored`
        self.as_columns = False  # whether some keys have the types of the table's columns
        self.already_stored: npt.NDArray[np.bool_] | None = None  # set by `superseded`

    def add(self, keys: Keys, *, spooled: bool = False) -> None:
        """Add rows: the four parts of their keys, and when each row was processed.

        Each of the five is a list of values, or all five are Arrow arrays. `spooled`: they are
        arrays that `read_spooled` can read.
        """
        hashes = hash_keys(keys[3], keys[2])
        self._hashes.write(hashes.data)
        if spooled:
            self._flush()
            self._store(len(hashes), b"", None)
            return
        if isinstance(keys[0], pa.Array):
            self._flush()
            columns = pa.RecordBatch.from_arrays(list(keys), names=["0", "1", "2", "3", "4"])
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, columns.schema) as stream:
                stream.write_batch(columns)
            self._store(len(hashes), sink.getvalue(), _pick_arrow)
            return
        for held, new in zip(self._pending, keys, strict=True):
            held.extend(new)
        if len(self._pending[0]) >= BLOCK_ROWS:
            self._flush()

    def add_stored(self, keys: Sequence[pa.Array]) -> None:
        """Register keys already stored in the table; added rows with an equal key are duplicates.

        `keys` are the four parts. Those that no added row can have are left out.
        """
        if self._added is None:
            self._hashes.seek(0)
            self._added = np.unique(np.fromfile(self._hashes, np.uint64))
            self._hashes.seek(0, os.SEEK_END)
        hashes = hash_keys(keys[3], keys[2])
        rows = pa.array(np.flatnonzero((hashes != NO_HASH) & np.isin(hashes, self._added)))
        if len(rows):
            self._flush()
            if self._first_stored is None:
                self._first_stored = self._blocks[-1].end if self._blocks else 0
                self.as_columns = True
            self.add([*(column.take(rows) for column in keys), pa.repeat(np.inf, len(rows))])

    def _flush(self) -> None:
        rows, pending = len(self._pending[0]), self._pending
        if not rows:
            return
        self._pending = [[], [], [], [], []]
        try:
            self._store(rows, orjson.dumps(pending), _pick_json)
        except TypeError:  # an integer beyond 64 bits, a lone surrogate, deep nesting
            first = self._blocks[-1].end if self._blocks else 0
            for part in pending:
                for row, value in enumerate(part):
                    if is_deep(value):
                        part[row] = None
                        self._apart.add(first + row)
            self._store(rows, plain_dumps(pending).encode(), _pick_odd_json)

    def _store(self, rows: int, form: Any, pick: Callable[[bytes, Rows], Keys] | None) -> None:
        first = self._blocks[-1].end if self._blocks else 0
        if self._blocks and not pick and not self._blocks[-1].pick:
            self._blocks[-1] = self._blocks[-1]._replace(end=first + rows)
            return
        self._blocks.append(_Block(first, first + rows, self._file.tell(), len(form), pick))
        self._file.write(form)

    def superseded(self) -> npt.NDArray[np.bool_] | None:
        """Return True for each row that a later processed one replaces; None if there is no such.

        Of rows processed at the same time, the first one stays. Sets `already_stored`: the rows
        that a stored one replaces. Nothing can be added afterwards.
        """
        self._flush()
        suspects, count = _repeated(self._hashes)
        if not len(suspects):
            return None
        lost = np.zeros(count, np.bool_)
        self.already_stored = np.zeros(count, np.bool_)
        for rows in _slices(self._hashes, suspects):
            self._compare(rows, lost)
        return lost if lost.any() else None

    def _compare(self, rows: Rows, lost: npt.NDArray[np.bool_]) -> None:
        """Mark in `lost` every row of `rows` whose key another of them has, processed later.

        Many rows are compared in several passes: a project may send one `$insert_id` for all (P6).
        """
        if len(rows) <= 2 * SLICE and self._compare_columns(rows, lost):
            return
        passes = -(-len(rows) // (10 * SLICE))
        for number in range(passes):
            digests, processed, owners = bytearray(), array("d"), array("q")
            for row, key, moment in self._read(rows):
                digest = _digest(_as_columns(key) if self.as_columns else key)
                if row not in self._apart and digest[0] % passes == number:
                    digests += digest
                    processed.append(moment)
                    owners.append(row)
            keys = np.frombuffer(digests, [("low", np.uint64), ("high", np.uint64)])
            self._mark(np.array(owners, np.int64), processed, [keys["low"], keys["high"]], lost)

    def _compare_columns(self, rows: Rows, lost: npt.NDArray[np.bool_]) -> bool:
        """Do as `_compare`, a column at a time; return False if a key has a part of another type.

        Equal values of a column get equal numbers, which are compared without a loop over rows.
        """
        parts: list[tuple[Rows, list[pa.Array]]] = []
        for part, keys in self._parts(rows):
            typed = _typed(keys)
            if typed is None:
                return False
            parts.append((part, typed))
        numbers = np.concatenate([part for part, _ in parts])
        columns = [pa.chunked_array(column) for column in zip(*(k for _, k in parts), strict=True)]
        encoded = [column.combine_chunks().dictionary_encode() for column in columns[:-1]]
        codes = [column.indices.fill_null(-1).to_numpy() for column in encoded]
        compared = ~np.isin(numbers, list(self._apart))
        processed = columns[-1].to_numpy()
        self._mark(numbers[compared], processed[compared], [code[compared] for code in codes], lost)
        return True

    def _mark(
        self, numbers: Rows, processed: Any, keys: Sequence[npt.NDArray[Any]], lost: Any
    ) -> None:
        """Mark the rows that another one replaces, and those that a stored one replaces."""
        lose, win = _pairs(numbers, processed, keys)
        lost[lose] = True
        if self._first_stored is not None and self.already_stored is not None:
            self.already_stored[lose] = win >= self._first_stored

    def _parts(self, rows: Rows) -> Iterator[Part]:
        """Yield the numbers and the keys of `rows` (ascending), in parts."""
        owner = np.searchsorted([block.end for block in self._blocks], rows, side="right")
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        for index, part in zip(owner[starts], np.split(rows, starts[1:]), strict=True):
            block = self._blocks[index]
            if block.pick is None:
                yield from self._read_spooled(part)
                continue
            self._file.seek(block.offset)
            yield part, block.pick(self._file.read(block.length), part - block.first)

    def _read(self, rows: Rows) -> Iterator[tuple[int, list[Any], float]]:
        """Yield number, key and processing time of each of `rows` (ascending)."""
        for part, keys in self._parts(rows):
            listed = (k.to_pylist() if isinstance(k, pa.Array) else k for k in keys)
            for row, *key, processed in zip(part.tolist(), *listed, strict=True):
                yield row, key, _number(processed)

    def close(self) -> None:
        """Close the files."""
        with self._hashes, self._file:
            pass


def _repeated(hashes: BinaryIO) -> tuple[Hashes, int]:
    """Return the hashes that occur more than once, in order, and the number of all hashes."""
    hashes.seek(0)
    ordered = np.fromfile(hashes, np.uint64)
    ordered.sort()
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(ordered), READ):
        part = ordered[start : start + READ + 1]
        again = part[1:][part[1:] == part[:-1]]
        found.append(again[again != NO_HASH])
    return np.unique(np.concatenate(found)), len(ordered)


def _slices(hashes: BinaryIO, suspects: Hashes) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows with a suspect hash, in parts that hold all rows of each of their hashes."""
    for start in range(0, len(suspects), SLICE):
        part = suspects[start : start + SLICE]
        sieve = np.zeros(SIEVE, np.bool_)
        sieve[part % SIEVE] = True
        found = []
        hashes.seek(first := 0)
        while len(block := np.fromfile(hashes, np.uint64, READ)):
            rows = np.flatnonzero(sieve[block % SIEVE])
            found.append(rows[np.isin(block[rows], part)] + first)
            first += len(block)
        yield np.concatenate(found)


def _pairs(numbers: Rows, processed: Any, keys: Sequence[npt.NDArray[Any]]) -> tuple[Rows, Rows]:
    """Return those of `numbers` whose key another row has, processed later, and that row."""
    # Equal keys side by side, the one that stays before the others.
    order = np.lexsort((numbers, -np.array(processed), *keys))
    equal = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    places = np.arange(len(order))
    firsts = np.maximum.accumulate(np.where(np.concatenate(([True], ~equal)), places, 0))
    lose = places[1:][equal]
    return numbers[order[lose]], numbers[order[firsts[lose]]]


def _typed(keys: Keys) -> list[pa.Array] | None:
    """Return the keys as arrays of KINDS, and processing times as doubles; None for other types.

    Arrow itself would take True for the integer 1.
    """
    found: list[pa.Array] = []
    for values, (kind, arrow) in zip(keys, KINDS, strict=False):
        if isinstance(values, pa.Array):
            array = pa.nulls(len(values), arrow) if pa.types.is_null(values.type) else values
        elif not set(map(type, values)) <= {kind, type(None)}:
            return None
        else:
            try:
                array = pa.array(values, arrow)
            except (OverflowError, pa.ArrowException, UnicodeEncodeError):
                return None
        if array.type != arrow:
            return None
        found.append(array)
    processed = keys[-1].to_pylist() if isinstance(keys[-1], pa.Array) else keys[-1]
    return [*found, pa.array(list(map(_number, processed)), pa.float64())]


def _pick_arrow(form: bytes, rows: Rows) -> Keys:
    with pa.ipc.open_stream(form) as stream:
        (batch,) = stream
    columns: list[Any] = batch.take(pa.array(rows)).columns
    return columns


def _pick_json(form: bytes, rows: Rows) -> Keys:
    return [[column[row] for row in rows.tolist()] for column in orjson.loads(form)]


def _pick_odd_json(form: bytes, rows: Rows) -> Keys:
    return [[column[row] for row in rows.tolist()] for column in plain_loads(form)]


def _digest(key: list[Any]) -> bytes:
    """Return 16 bytes that are equal for equal keys, and different for others."""
    kinds = set(map(type, key))
    if kinds & {bool, list, dict}:
        text = plain_dumps(key, sort_keys=True)
    elif float in kinds:  # the same number may be written in two ways
        text = repr([int(v) if type(v) is float and v.is_integer() else v for v in key])
    else:
        text = repr(key)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _as_columns(key: list[Any]) -> list[Any]:
    """Return the key as the table's columns hold it: a number in `distinct_id` becomes a text."""
    event, distinct_id, *rest = key
    return [event, str(distinct_id) if type(distinct_id) is int else distinct_id, *rest]


def _number(processed: Any) -> float:
    try:
        return float(processed) if isinstance(processed, int | float) else -1.0
    except OverflowError:  # an integer beyond any double
        return math.inf if processed > 0 else -math.inf
