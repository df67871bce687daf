"""Finds the records of one day that are one event, in 9 bytes of memory a record, at the end.

Mixpanel does not deduplicate its export; its own rule is that records with equal (`event`,
`distinct_id`, `time`, `$insert_id`) are one event and that the one processed last counts.
It knows no table and no mapping: only keys, numbered in the order in which they came.
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

NO_HASH = 0  # a record without `$insert_id` never merges
SLICE = 100_000  # suspect hashes that are settled together (P6)
BLOCK_ROWS = 1_000
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
DEEP = 250  # levels of nesting, about as deep as orjson goes
READ = 1 << 17  # hashes looked at together
SIEVE = 1 << 22  # places of the sieve that most hashes fall through


KINDS = [(str, pa.string()), (str, pa.string()), (int, pa.int64()), (str, pa.string())]

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Keys = Sequence[Any]  # five parts, each a list of values or an Arrow array
Part = tuple[Rows, Keys]
Laid = Callable[[Rows], Iterable[Part]]
"""Numbers of rows, ascending -> their keys, part by part, from where the rows were laid aside."""


class _Block(NamedTuple):
    """Where the keys of rows `first` to `end` (exclusive) lie in the file; no `pick`: not there."""

    first: int
    end: int
    offset: int
    length: int
    pick: Callable[[bytes, Rows], Keys] | None  # (form, rows) -> their keys


class Duplicates:
    """The keys of one day's rows, in the order of their writing.

    A 64-bit hash a row lies in one file, to be sorted at the end, and the keys in another, because
    a hash alone decides nothing: two rows are one event when their keys are equal. Keys that are
    among what is laid aside of a row anyway are not put down once more: `laid` reads them.
    """

    def __init__(self, directory: Path, laid: Laid = lambda _: ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._laid = laid
        self._hashes = (directory / "hashes").open("w+b")
        self._file = (directory / "keys").open("w+b")
        self._pending: list[list[Any]] = [[], [], [], [], []]
        self._blocks: list[_Block] = []
        self._apart: set[int] = set()  # rows that never merge, besides those without a hash
        self._known: Hashes | None = None  # of what was added, once it is held against other rows
        self._first_known: int | None = None  # row
        self.as_columns = False  # whether some keys come as a table's columns hold them
        self.had: npt.NDArray[np.bool_] | None = None  # rows superseded by one that is known

    def add(self, keys: Keys, *, laid: bool = False) -> None:
        """Append rows: the four parts of the key, then when each row was processed.

        Each of the five is a list of values, or all five are Arrow arrays; `laid` can read those.
        """
        hashes = _hashes(keys[3], keys[2])
        self._hashes.write(hashes.data)
        if laid:
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

    def add_known(self, keys: Sequence[pa.Array]) -> None:
        """Append those rows that may be the same event as one that was added: they are had already.

        The four parts of the key. A row that has one of these keys is superseded by it.
        """
        if self._known is None:
            self._hashes.seek(0)
            self._known = np.unique(np.fromfile(self._hashes, np.uint64))
            self._hashes.seek(0, os.SEEK_END)
        hashes = _hashes(keys[3], keys[2])
        rows = pa.array(np.flatnonzero((hashes != NO_HASH) & np.isin(hashes, self._known)))
        if len(rows):
            self._flush()
            if self._first_known is None:
                self._first_known = self._blocks[-1].end if self._blocks else 0
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
                    if _is_deep(value):
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
        """True for each row that a later processed one replaces; None where there are none.

        Of rows processed at the same time, the first one stays. Ends the object's use.
        """
        self._flush()
        suspects, count = _twice(self._hashes)
        if not len(suspects):
            return None
        lost = np.zeros(count, np.bool_)
        self.had = np.zeros(count, np.bool_)
        for rows in _slices(self._hashes, suspects):
            self._settle(rows, lost)
        return lost if lost.any() else None

    def _settle(self, rows: Rows, lost: npt.NDArray[np.bool_]) -> None:
        """Marks in `lost` every row of `rows` whose key another of them has, processed later.

        In several turns where they are many: a project may send one `$insert_id` for all (P6).
        """
        if len(rows) <= 2 * SLICE and self._settle_at_once(rows, lost):
            return
        turns = -(-len(rows) // (10 * SLICE))
        for turn in range(turns):
            digests, processed, owners = bytearray(), array("d"), array("q")
            for row, key, moment in self._read(rows):
                digest = _digest(_as_columns(key) if self.as_columns else key)
                if row not in self._apart and digest[0] % turns == turn:
                    digests += digest
                    processed.append(moment)
                    owners.append(row)
            keys = np.frombuffer(digests, [("low", np.uint64), ("high", np.uint64)])
            self._mark(np.array(owners, np.int64), processed, [keys["low"], keys["high"]], lost)

    def _settle_at_once(self, rows: Rows, lost: npt.NDArray[np.bool_]) -> bool:
        """As `_settle`, a column at a time; False where keys are not all texts and integers.

        Then equal numbers stand for equal values of a column, and no row is looked at.
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
        kept = ~np.isin(numbers, list(self._apart))
        processed = columns[-1].to_numpy()
        self._mark(numbers[kept], processed[kept], [code[kept] for code in codes], lost)
        return True

    def _mark(
        self, numbers: Rows, processed: Any, keys: Sequence[npt.NDArray[Any]], lost: Any
    ) -> None:
        """Mark in `lost` the rows that another supersedes, in `had` those that a known one does."""
        lose, win = _pairs(numbers, processed, keys)
        lost[lose] = True
        if self._first_known is not None and self.had is not None:
            self.had[lose] = win >= self._first_known

    def _parts(self, rows: Rows) -> Iterator[Part]:
        """Keys of `rows` (ascending) and their numbers, part by part."""
        owner = np.searchsorted([block.end for block in self._blocks], rows, side="right")
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        for index, part in zip(owner[starts], np.split(rows, starts[1:]), strict=True):
            block = self._blocks[index]
            if block.pick is None:
                yield from self._laid(part)
                continue
            self._file.seek(block.offset)
            yield part, block.pick(self._file.read(block.length), part - block.first)

    def _read(self, rows: Rows) -> Iterator[tuple[int, list[Any], float]]:
        """Row number, key and processing time of each of `rows` (ascending)."""
        for part, keys in self._parts(rows):
            listed = (k.to_pylist() if isinstance(k, pa.Array) else k for k in keys)
            for row, *key, processed in zip(part.tolist(), *listed, strict=True):
                yield row, key, _number(processed)

    def close(self) -> None:
        """Let go of the files."""
        with self._hashes, self._file:
            pass


def _twice(hashes: BinaryIO) -> tuple[Hashes, int]:
    """The hashes that occur more than once, in order, and how many there are in all."""
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
    """The rows whose hash is suspect, in parts that hold all rows of the hashes in them."""
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
    """Those of the rows `numbers` whose keys another one has, processed later; and which has."""
    # Equal keys side by side, the one that stays before the others.
    order = np.lexsort((numbers, -np.array(processed), *keys))
    equal = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    places = np.arange(len(order))
    firsts = np.maximum.accumulate(np.where(np.concatenate(([True], ~equal)), places, 0))
    lose = places[1:][equal]
    return numbers[order[lose]], numbers[order[firsts[lose]]]


def _typed(keys: Keys) -> list[pa.Array] | None:
    """The keys as arrays of KINDS, the times of processing as doubles; None for another kind.

    Asked for integers, Arrow would take True for 1.
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


def _hashes(ids: Any, times: Any) -> Hashes:
    """A hash a row, of its `$insert_id` and its time, the same whatever form they come in.

    Those two hardly ever agree without the other two; what cannot be told from its hash is told
    by its key. NO_HASH where there is no `$insert_id`, or one of lists in lists without end.
    """
    if not isinstance(ids, pa.Array):
        ids = _texts(ids)
        times = pa.array([t if type(t) is int and abs(t) < 1 << 63 else 0 for t in times])
    elif not pa.types.is_string(ids.type):
        ids = _texts(ids.to_pylist())
    numbers = np.zeros(len(ids), np.uint64)
    if pa.types.is_integer(times.type):
        numbers = times.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    hashes = _mix(_hash_texts(ids) * MULTIPLIER + numbers)
    hashes[hashes == NO_HASH] = 1
    if ids.null_count:
        hashes[ids.is_null().to_numpy(zero_copy_only=False)] = NO_HASH
    return hashes


def fingerprints(keys: Keys) -> Hashes:
    """A hash a row of all four parts of the key, as a table's columns hold them: to count by."""
    event, distinct_id, time, insert_id = keys
    found = _hashes(insert_id, time)
    for texts in (event, distinct_id):
        found = _mix(found * MULTIPLIER + _hash_texts(texts.cast(pa.string())))
    return found


def _texts(values: Sequence[Any]) -> pa.Array:
    """`values` as texts; those that are none, or no UTF-8, by their JSON."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return pa.array([None if v is None else _text(v) for v in values], pa.string())


def _text(value: Any) -> str | None:
    if _is_text(value):
        return str(value)
    return None if _is_deep(value) else plain_dumps(value, sort_keys=True)


def _is_deep(value: Any) -> bool:
    """Whether `value` is nested too deeply to be compared: `json` recurses."""
    level = [value]
    for _ in range(DEEP):
        level = [inner for inner in level if isinstance(inner, list | dict)]
        if not level:
            return False
        level = [
            v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)
        ]
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _hash_texts(texts: pa.Array) -> Hashes:
    """All texts of one length at a time, eight bytes at a time: no loop sees a single text."""
    rows = len(texts)
    hashes = np.zeros(rows, np.uint64)
    if texts.null_count == rows:
        return hashes
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset :][: rows + 1].astype(np.int64)
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        padded = np.zeros((len(at), -(-length // 8) * 8), np.uint8)
        if len(at) == rows and length:
            padded[:, :length] = text[offsets[0] : offsets[-1]].reshape(rows, length)
        else:
            padded[:, :length] = text[offsets[at][:, None] + np.arange(length)]
        found = np.full(len(at), length, np.uint64)
        for word in padded.view(np.uint64).T:
            found = found * MULTIPLIER + word
        hashes[at] = found
    return hashes


def _mix(numbers: Hashes) -> Hashes:
    """Every bit of a number into every bit of another one."""
    numbers = (numbers ^ (numbers >> np.uint64(32))) * MULTIPLIER
    numbers = (numbers ^ (numbers >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ (numbers >> np.uint64(32))


def _digest(key: list[Any]) -> bytes:
    """16 bytes that are equal for equal keys, and for no others that anybody could find."""
    kinds = set(map(type, key))
    if kinds & {bool, list, dict}:
        text = plain_dumps(key, sort_keys=True)
    elif float in kinds:  # the same number may be written in two ways
        text = repr([int(v) if type(v) is float and v.is_integer() else v for v in key])
    else:
        text = repr(key)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _as_columns(key: list[Any]) -> list[Any]:
    """The key as a table's columns hold it: there a number in `distinct_id` has become a text."""
    event, distinct_id, *rest = key
    return [event, str(distinct_id) if type(distinct_id) is int else distinct_id, *rest]


def _number(processed: Any) -> float:
    try:
        return float(processed) if isinstance(processed, int | float) else -1.0
    except OverflowError:  # an integer beyond any double
        return math.inf if processed > 0 else -math.inf
