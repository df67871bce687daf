"""A block of lines -> Arrow in one step, where that loses nothing.

Most blocks of most exports hold plain events: properties that a rule reads whole, of the type of
their column. Arrow's own JSON reader turns such a block into columns cheaper than decoding, mapping
and building it, and does not hold the interpreter's lock: a thread reads ahead. It is strict about
what would be lost: a property that nobody declared, a key that occurs twice, a value of another
type, half a surrogate pair: each is an error. Whatever is in doubt is declined, and goes the plain
way; the rows are the same.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json

from engine.batch import Batch
from engine.rules import Rule

TYPES = {
    "string": pa.string(),
    "long": pa.int64(),
    "int": pa.int32(),
    "short": pa.int16(),
    "byte": pa.int8(),
    "boolean": pa.bool_(),
}  # not double: the reader takes NaN, and rounds integers beyond 2**53
KEYS = ("distinct_id", "time", "$insert_id", "mp_processing_time_ms")
READERS = 2
AHEAD = 3  # blocks in hand besides the one that is used (P6)
LONGEST_PAUSE = 64  # blocks

Reads = list[tuple[str, tuple[str, ...]]]  # property name, destination
Form = tuple[arrow_json.ParseOptions, Reads]


class Direct:
    """The short way for blocks that `rules` map whole; `destinations` as in `batch.columns`.

    `learn` tells it which property names occur, from blocks that went the plain way. A block that
    had to be declined costs a try: so after each one it pauses, longer every time.
    """

    def __init__(self, rules: Sequence[Rule], destinations: Sequence[tuple[str, ...]]) -> None:
        self._events = [rule.root for rule in rules if rule.source.is_event]
        self._rules = [rule for rule in rules if rule.source.names]
        plain = len(self._events) + len(self._rules) == len(rules) == len(destinations)
        self._able = plain and bool(self._events) and all(_is_plain(rule) for rule in rules)
        self._types = {rule.root: TYPES.get(rule.field.type) for rule in rules}
        self._destinations = list(destinations)
        self._known: set[str] = set()
        self._form: Form | None = None  # replaced as one: other threads are reading by it
        self._pause = self._resting = 0

    def learn(self, batch: Batch) -> None:
        """Look at the names in a batch that went the plain way."""
        if not self._able or batch.names <= self._known:
            return
        self._known |= batch.names
        reads = [
            (name, rule.root)
            for rule in self._rules
            for name in rule.source.names
            if name in self._known
        ]
        names, paths = ({read[part] for read in reads} for part in (0, 1))
        form = None
        if names == self._known and len(reads) == len(names) == len(paths):
            properties = pa.struct([(name, self._types[path]) for name, path in reads])
            options = arrow_json.ParseOptions(
                explicit_schema=pa.schema([("event", pa.string()), ("properties", properties)]),
                unexpected_field_behavior="error",
            )
            form = options, reads
        self._form = form

    def ahead(self, pieces: Iterator[Any]) -> Iterator[tuple[Any, Batch | None]]:
        """Each piece with its batch, in order; READERS threads read AHEAD blocks meanwhile."""
        with ThreadPoolExecutor(READERS, "direct") as pool:
            waiting: deque[tuple[Any, Future[Batch | None] | None]] = deque()
            for piece in pieces:
                block = isinstance(piece, bytes)
                waiting.append((piece, pool.submit(self.read, piece) if block else None))
                if len(waiting) > AHEAD:
                    yield _done(*waiting.popleft())
            while waiting:
                yield _done(*waiting.popleft())

    def read(self, block: bytes) -> Batch | None:
        """The batch in `block`, mapped but not yet built; None where the plain way must do it."""
        form = self._form
        if form is None:
            return None
        if self._resting:
            self._resting -= 1
            return None
        options, reads = form
        table = self._parse(block, options)
        if table is None:
            self._pause = self._resting = min(2 * self._pause or 1, LONGEST_PAUSE)
            return None
        self._pause = 0
        return self._batch(block, table, reads)

    def _parse(self, block: bytes, options: arrow_json.ParseOptions) -> Any:
        if not block or block.endswith(b"\n"):
            return None
        text = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(text == ord("\n"))
        starts = np.append(ends + 1, 0)
        last = np.append(ends - 1, len(text) - 1)
        # Each line is one object: it begins and ends like one, no object can go on after a line
        # that ends so with one that begins so, and there are as many objects as lines.
        if not ((text[starts] == ord("{")).all() and (text[last] == ord("}")).all()):
            return None
        try:
            table = arrow_json.read_json(
                pa.BufferReader(block),
                arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                options,
            )
            table.validate(full=True)  # the reader takes any bytes for a text
        except pa.ArrowInvalid:
            return None
        lacks = table.column("event").null_count or table.column("properties").null_count
        return None if lacks or table.num_rows != len(starts) else table.combine_chunks()

    def _batch(self, block: bytes, table: pa.Table, reads: Reads) -> Batch:
        rows = table.num_rows
        event = table.column("event").chunk(0)
        properties = table.column("properties").chunk(0)
        columns = {path: pa.nulls(rows, self._types[path]) for path in self._destinations}
        columns |= dict.fromkeys(self._events, event)
        keys = dict.fromkeys(KEYS, pa.nulls(rows))
        for (name, path), values in zip(reads, properties.flatten(), strict=True):
            columns[path] = values
            if name in keys:
                keys[name] = values
        return Batch(
            lines=Lines(block, rows), columns=list(columns.values()), keys=[event, *keys.values()]
        )


class Lines(Sequence[bytes]):
    """The lines of a block, taken apart only if somebody looks: hardly ever does a record fail."""

    def __init__(self, block: bytes, rows: int) -> None:
        self._block = block
        self._rows = rows
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Any) -> Any:
        self._lines = self._lines or self._block.split(b"\n")
        return self._lines[index]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self[:])


def _done(piece: Any, future: "Future[Batch | None] | None") -> tuple[Any, Batch | None]:
    return piece, future.result() if future else None


def _is_plain(rule: Rule) -> bool:
    """Whether the rule moves a whole property, or the event's name, into a column of its type."""
    if rule.source.inner or not rule.plain or rule.field.type not in TYPES:
        return False
    return rule.field.type == "string" if rule.source.is_event else True
