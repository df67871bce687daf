"""Build the Arrow table of a batch: the schema's columns, `unmapped` and `event_date`.

Values are cast here. The `validate` stage rejects rows, this one rejects none.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from engine.model.batch import Batch
from engine.model.day_borders import Borders
from engine.transform.casts import BITS, CASTS, FAILED, absent_as_null, cast
from engine.transform.moments import FIRST_MS, LAST_MS, SECONDS_END, utc_day
from engine.transform.schema import Field, Schema

DAY_SECONDS = 86_400

SCALARS = {
    "string": pa.string(),
    "number": pa.float64(),
    "long": pa.int64(),
    "int": pa.int32(),
    "short": pa.int16(),
    "byte": pa.int8(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "date-time": pa.timestamp("ms", "UTC"),
}
_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError)  # of pa.array

Restore = Callable[[Batch, int, int], None]


@dataclass(frozen=True, slots=True)
class _Node:
    """A field of the table: filled by a `column` of the batch, or by `children`, or null."""

    field: Field
    type: Any
    column: int | None
    children: tuple["_Node", ...] = ()


class Columns:
    """Builds `batch.table`: the fields of the schema, then `unmapped`, then `event_date`.

    `destinations`  the path of each of `batch.columns`, in order
    `restore`       puts the source of a column at a row back into `batch.rest` (P3)
    `days`          first and last day of the window; `event_date` is clamped to them
    """

    def __init__(
        self,
        schema: Schema,
        destinations: Sequence[tuple[str, ...]],
        restore: Restore,
        *,
        days: tuple[date, date],
        keep_unmapped: bool,
    ) -> None:
        self._restore = restore
        self._keep = keep_unmapped
        self.hold(*days)
        places = {path: column for column, path in enumerate(destinations)}
        self._tree = [_plan(field, (field.name,), places) for field in schema.root.fields]
        if places:
            raise ValueError(f"{schema.name} has no field at {next(iter(places))}")
        self.arrow_schema = pa.schema(
            [
                *(pa.field(node.field.name, node.type) for node in self._tree),
                pa.field("unmapped", pa.string()),
                pa.field("event_date", pa.date32()),
            ]
        )

    def hold(self, first: date, last: date) -> None:
        """Clamp `event_date` to the days from `first` to `last` from now on."""
        self._days = ((first - date(1970, 1, 1)).days, (last - date(1970, 1, 1)).days)
        self.borders = Borders(*self._days)

    def build(self, batch: Batch) -> None:
        """Fill `batch.table`, a row for each of `batch.lines`; add to `uncast` and `clamped`."""
        arrays = [self._array(node, batch) for node in self._tree]
        arrays += [self._unmapped(batch), self._event_date(batch)]
        batch.table = pa.RecordBatch.from_arrays(arrays, schema=self.arrow_schema)

    def _array(self, node: _Node, batch: Batch) -> Any:
        if node.column is not None:
            values = batch.columns[node.column]
            if isinstance(values, pa.Array):
                return values
            exact = as_is(node.field.type, values)
            return self._cast(node, batch, node.column) if exact is None else exact
        if not node.children:
            return pa.nulls(len(batch.lines), node.type)
        children = [self._array(child, batch) for child in node.children]
        return pa.StructArray.from_arrays(children, fields=list(node.type))

    def _cast(self, node: _Node, batch: Batch, column: int) -> Any:
        """Cast a column value by value; sources of failed casts go to `unmapped` (P3)."""
        values = batch.columns[column]
        simple = CASTS.get(node.field.type)
        if simple:
            results = [None if value is None else simple(value) for value in values]
            losses = {row: 1 for row, result in enumerate(results) if result is FAILED}
            results = [None if r is FAILED else r for r in results] if losses else results
        else:
            lost: list[list[int]] = [[] for _ in values]
            results = [cast(node.field, *pair) for pair in zip(values, lost, strict=True)]
            losses = {row: sum(found) for row, found in enumerate(lost) if found}
        if node.field.type == "object":
            results = [absent_as_null(node.field, result) for result in results]
        batch.uncast.update(row for row, count in losses.items() if count)
        for row in losses if self._keep else ():
            self._restore(batch, row, column)  # P3
        return pa.array(results, node.type)

    def _unmapped(self, batch: Batch) -> Any:
        """Return `batch.rest` as JSON texts, null for empty ones (P3)."""
        if self._keep and isinstance(batch.rest, pa.Array):
            return batch.rest
        if not self._keep or not any(batch.rest):
            return pa.nulls(len(batch.lines), pa.string())
        try:
            texts: list[Any] = [orjson.dumps(rest) if rest else None for rest in batch.rest]
        except TypeError:  # one of them is beyond orjson
            texts = [
                _json(rest, line) if rest else None
                for rest, line in zip(batch.rest, batch.lines, strict=True)
            ]
        return pa.array(texts, pa.string())

    def _event_date(self, batch: Batch) -> Any:
        """Return the UTC day of each `time`, clamped to the window; add to `batch.clamped`."""
        first, last = self._days
        seconds = whole_seconds(batch.keys[2])
        if seconds is None:
            days, seconds = each_day(batch.keys[2], first - 2, last + 2)
        else:
            days = seconds // DAY_SECONDS
        self.borders.add(days, seconds)
        held = np.clip(days, first, last)
        batch.clamped.update(np.flatnonzero(held != days).tolist())
        return pa.array(held.astype(np.int32)).view(pa.date32())


def _plan(field: Field, path: tuple[str, ...], places: dict[tuple[str, ...], int]) -> _Node:
    column = places.pop(path, None)
    children: tuple[_Node, ...] = ()
    if column is None:
        children = tuple(_plan(child, (*path, child.name), places) for child in field.fields)
    return _Node(field, arrow_type(field), column, children)


def arrow_type(field: Field) -> Any:
    """Return the Arrow type of an XDM field."""
    if field.type == "object":
        return pa.struct([pa.field(child.name, arrow_type(child)) for child in field.fields])
    if field.items is None:
        return SCALARS[field.type]
    items = arrow_type(field.items)
    return pa.list_(items) if field.type == "array" else pa.map_(pa.string(), items)


# Fast paths: None unless Arrow gives exactly the result of `cast` for every value.


def as_is(kind: str, values: list[Any]) -> Any:
    """Return an array of the XDM type `kind` if no value needs a cast, else None."""
    try:
        if kind in ("string", "boolean"):
            return pa.array(values, SCALARS[kind])
        if kind == "number":
            return _doubles(values)
        if kind in SCALARS:
            return _integers(kind, values)
    except _REFUSALS:
        return None
    return None


def _doubles(values: list[Any]) -> Any:
    # With the type given, Arrow takes True for 1.0.
    if not set(map(type, values)) <= {float, int, type(None)}:
        return None
    array = pa.array(values, pa.float64())
    return array if pc.all(pc.is_finite(array), min_count=0).as_py() else None


def _integers(kind: str, values: list[Any]) -> Any:
    # With the type given, Arrow takes 1.5 for 1; it infers int64 from integers only.
    array = pa.array(values)
    if pa.types.is_null(array.type):
        return pa.nulls(len(values), SCALARS[kind])
    if not pa.types.is_int64(array.type) or kind == "date":
        return None
    if kind in BITS:
        return array if kind == "long" else array.cast(SCALARS[kind])
    ends = pc.min_max(array).as_py()
    in_range = ends["min"] >= FIRST_MS and ends["max"] <= LAST_MS
    return array.view(SCALARS[kind]) if in_range else None


def whole_seconds(times: Any) -> Any:
    """Return int64 seconds since the epoch if every time is a positive number, else None."""
    try:  # drops fractions of a second, which do not change the day
        array = times if isinstance(times, pa.Array) else pa.array(times, pa.int64())
    except _REFUSALS:
        return None
    if array.type != pa.int64() or array.null_count:
        return None
    numbers = array.to_numpy()
    if len(numbers) and numbers.min() <= 0:
        return None  # a negative fraction rounds up, perhaps to the next day
    return np.where(numbers > SECONDS_END, numbers // 1000, numbers)


def each_day(times: Any, early: int, late: int) -> tuple[Any, Any]:
    """Return days and seconds since the epoch of times of any kind; of a text, its day's noon.

    Days are clamped to `early` and `late`; `early` also stands for a time that is no moment. Only
    times that are no positive integers are read one by one.
    """
    listed = times.to_pylist() if isinstance(times, pa.Array) else times
    plain = [time if type(time) is int and 0 < time < 1 << 63 else None for time in listed]
    seconds = whole_seconds([1 if time is None else time for time in plain])
    days = np.clip(seconds // DAY_SECONDS, early, late)
    for row in [row for row, time in enumerate(plain) if time is None]:
        day = utc_day(listed[row])
        days[row] = early if day is None else min(max(day, early), late)
        seconds[row] = days[row] * DAY_SECONDS + DAY_SECONDS // 2
    return days, seconds


def _json(rest: dict[str, Any], line: bytes) -> bytes | str:
    with suppress(TypeError):  # an integer beyond 64 bits, half of a surrogate pair, deep nesting
        return orjson.dumps(rest)
    try:
        return json.dumps(rest, separators=(",", ":"))
    except RecursionError:  # too deeply nested: the whole line instead (P3)
        return line.decode(errors="replace")
