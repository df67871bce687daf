"""Destination columns to an Arrow batch in the schema's types, `unmapped` and `event_date` beside.

It casts, and it never rejects: what a schema demands of the result is another stage's business.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from engine.model.batch import Batch
from engine.model.day_borders import Borders
from engine.transform.moments import (
    FIRST_MS,
    LAST_MS,
    NUMBER,
    SECONDS_END,
    integral,
    moment,
    utc_day,
)
from engine.transform.schema import Field, Schema

DAY_MS = 86_400_000
DAY_SECONDS = 86_400

FAILED: Any = object()
TRUE = {"y", "yes", "Y", "YES", "on", "ON", "true", "TRUE"}
FALSE = {"n", "N", "no", "NO", "off", "OFF", "false", "FALSE"}
BITS = {"long": 64, "int": 32, "short": 16, "byte": 8}
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
    """One field of the table: `column` of the batch fills it, or `children` do, or nothing."""

    field: Field
    type: Any
    column: int | None
    children: tuple["_Node", ...] = ()


class Columns:
    """Builds `batch.table`: the fields of the schema, then `unmapped`, then `event_date`.

    `destinations`  the path that each of `batch.columns` goes to, in order
    `restore`       puts what a column read at a row back into `batch.rest` (P3)
    `days`          first and last day asked for; `event_date` never leaves them
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
        """File what is built from now on under the days from `first` to `last`."""
        self._days = ((first - date(1970, 1, 1)).days, (last - date(1970, 1, 1)).days)
        self.borders = Borders(*self._days)

    def build(self, batch: Batch) -> None:
        """Fill `batch.table`, row by row in step with `batch.lines`; count what did not fit."""
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
        """The column value by value; what is lost on the way goes to `unmapped` (P3)."""
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
            results = [_there(node.field, result) for result in results]
        batch.uncast.update(row for row, count in losses.items() if count)
        for row in losses if self._keep else ():
            self._restore(batch, row, column)  # P3
        return pa.array(results, node.type)

    def _unmapped(self, batch: Batch) -> Any:
        """What no column holds, as JSON text; null where that is nothing (P3)."""
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
        """The UTC day of each `time`, held within the days asked for; notes `batch.clamped`."""
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
    """How `field` is filled; takes the columns that it uses out of `places`."""
    column = places.pop(path, None)
    children: tuple[_Node, ...] = ()
    if column is None:
        children = tuple(_plan(child, (*path, child.name), places) for child in field.fields)
    return _Node(field, arrow_type(field), column, children)


def arrow_type(field: Field) -> Any:
    """The Arrow type of an XDM field."""
    if field.type == "object":
        return pa.struct([pa.field(child.name, arrow_type(child)) for child in field.fields])
    if field.items is None:
        return SCALARS[field.type]
    items = arrow_type(field.items)
    return pa.list_(items) if field.type == "array" else pa.map_(pa.string(), items)


# Fast paths. Each answers None unless Arrow alone gives exactly what `cast` gives for every value.


def as_is(kind: str, values: list[Any]) -> Any:
    """`values` as an array of the XDM type `kind`, if none of them needs a cast; else None."""
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
    # Asked for doubles, Arrow would take True for 1.0.
    if not set(map(type, values)) <= {float, int, type(None)}:
        return None
    array = pa.array(values, pa.float64())
    return array if pc.all(pc.is_finite(array), min_count=0).as_py() else None


def _integers(kind: str, values: list[Any]) -> Any:
    # Asked for integers, Arrow would cut 1.5 to 1; left to infer, it says int64 only of integers.
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
    """Seconds since the epoch, an int64 each, if every time is a plain number; else None."""
    try:  # cuts fractions of a second off, which no day needs
        array = times if isinstance(times, pa.Array) else pa.array(times, pa.int64())
    except _REFUSALS:
        return None
    if array.type != pa.int64():
        return None
    if array.null_count:
        return None
    numbers = array.to_numpy()
    if len(numbers) and numbers.min() <= 0:
        return None  # cut towards zero, a fraction could land on the next day
    return np.where(numbers > SECONDS_END, numbers // 1000, numbers)


def each_day(times: Any, early: int, late: int) -> tuple[Any, Any]:
    """Days since the epoch and seconds, of times of any kind; those of a text are of its noon.

    The days are held within two, `early` stands for none at all. Those that are no plain numbers
    are looked at one by one, and the others are not kept waiting.
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


# The casts, a value at a time: Adobe's table of conversions from inbound to target types.


def cast(field: Field, value: Any, lost: list[int]) -> Any:
    """`value`, as JSON gives it, in the form that Arrow takes for `field`; None where it fails.

    `lost` gets a 1 for each value that could not be cast (it is null alone, its siblings stay) and
    a 0 for each member of an object that the schema has no field for.
    """
    if value is None:
        return None
    if field.type == "object" and isinstance(value, dict):
        known = {child.name for child in field.fields}
        lost += [0 for name, inner in value.items() if name not in known and inner is not None]
        pairs = ((child, cast(child, value.get(child.name), lost)) for child in field.fields)
        return {child.name: _there(child, inner) for child, inner in pairs}
    if field.type == "array" and isinstance(value, list):
        assert field.items
        return [cast(field.items, inner, lost) for inner in value]
    if field.type == "map" and isinstance(value, dict):
        assert field.items
        named = {name: inner for name, inner in value.items() if _string(name) is not FAILED}
        lost += [1] * (len(value) - len(named))
        return [(name, cast(field.items, inner, lost)) for name, inner in named.items()]
    result = CASTS[field.type](value) if field.type in CASTS else FAILED
    if result is FAILED:
        lost.append(1)
        return None
    return result


def _there(field: Field, value: Any) -> Any:
    """`value`; for an object that is absent, one without a value, as rules leave it too."""
    if value is not None or field.type != "object":
        return value
    return {child.name: _there(child, None) for child in field.fields}


def _string(value: Any) -> Any:
    """Text as it is; a number as the shortest JSON text that reads back as the same number.

    So 800.5 is "800.5", 800.0 is "800.0" and 1e21 is "1e+21"; an integer keeps every digit.
    """
    if type(value) is str:
        return value if value.isascii() or not _SURROGATE.search(value) else FAILED
    if type(value) is int:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return orjson.dumps(value).decode()
    return FAILED


def _boolean(value: Any) -> Any:
    """Data Prep's words for true and false, in its own spellings."""
    if type(value) is bool:
        return value
    if type(value) is str:
        return True if value in TRUE else False if value in FALSE else FAILED
    return FAILED


_SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair is no character: UTF-8 has no room for it


def _integer(bits: int) -> Callable[[Any], Any]:
    """A cast to integers of `bits` bits, of what is integral and in their range.

    White space around a text fails, here as for numbers, since no conversion of Adobe's takes it
    off; the event's own `time` comes as its second already.
    """
    end = 1 << (bits - 1)

    def integer(value: Any) -> Any:
        number = value
        if type(value) is str:
            number = integral(value)
        elif type(value) is float:
            number = int(value) if value.is_integer() else None
        return number if type(number) is int and -end <= number < end else FAILED

    return integer


def _number(value: Any) -> Any:
    """Doubles, decimal text (the nearest double), and integers that a double holds exactly."""
    number: float | None = None
    if type(value) is str and NUMBER.fullmatch(value):
        number = float(value)
    elif type(value) is float:
        number = value
    elif type(value) is int and value.bit_length() <= 1024:
        try:
            number = float(value)
        except OverflowError:  # rounds up past the largest double
            return FAILED
        number = number if number == value else None
    return FAILED if number is None or not math.isfinite(number) else number


def _date_time(value: Any) -> Any:
    """Milliseconds since the epoch, of the same as an integer or of a text in a known pattern."""
    ms = value if type(value) is int else moment(value) if type(value) is str else None
    return ms if ms is not None and FIRST_MS <= ms <= LAST_MS else FAILED


def _date(value: Any) -> Any:
    """Days since the epoch: the UTC day of what `_date_time` takes."""
    ms = _date_time(value)
    return FAILED if ms is FAILED else ms // DAY_MS


CASTS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "boolean": _boolean,
    "number": _number,
    "date": _date,
    "date-time": _date_time,
    **{kind: _integer(bits) for kind, bits in BITS.items()},
}


def _json(rest: dict[str, Any], line: bytes) -> bytes | str:
    """`rest` as JSON text, whatever it holds."""
    try:
        return orjson.dumps(rest)
    except TypeError:  # an integer beyond 64 bits, half of a surrogate pair, deep nesting
        pass
    try:
        return json.dumps(rest, separators=(",", ":"))
    except RecursionError:  # nested beyond all reason: the whole line instead (P3)
        return line.decode(errors="replace")
