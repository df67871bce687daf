"""The columns stage: casts, sources of failed casts, and `event_date`."""

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.batch import Batch
from engine.transform.casts import CASTS, FAILED, cast
from engine.transform.columns import Columns
from engine.transform.moments import utc_day
from engine.transform.schema import Field, Schema

SHIPPED = Path(__file__).parents[2] / "schemas" / "mixpanel-events.json"
FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)
EPOCH = date(1970, 1, 1)
TRUE_WORDS = ["y", "yes", "Y", "YES", "on", "ON", "true", "TRUE"]
FALSE_WORDS = ["n", "N", "no", "NO", "off", "OFF", "false", "FALSE"]
Json = dict[str, Any]

NODES: dict[str, Json] = {
    **{kind: {"meta:xdmType": kind} for kind in ("string", "number", "long", "int", "short")},
    **{kind: {"meta:xdmType": kind} for kind in ("byte", "boolean", "date", "date-time")},
    "array": {"type": "array", "items": {"type": "integer"}},
    "map": {"type": "object", "additionalProperties": {"type": "string", "format": "date"}},
    "object": {
        "properties": {"i": {"type": "integer"}, "o": {"properties": {"s": {"type": "string"}}}}
    },
}


class Restored(list[tuple[int, int]]):
    """A stand-in for the mapping's restore: notes each row and column, and marks the rest."""

    def __call__(self, batch: Batch, row: int, column: int) -> None:
        """Note the call."""
        self.append((row, column))
        batch.rest[row]["restored"] = column


def build(
    node: Json,
    values: list[Any],
    *,
    rest: list[Json] | None = None,
    times: list[Any] | None = None,
    keep: bool = True,
    days: tuple[date, date] = (FIRST, LAST),
) -> tuple[Batch, Restored]:
    """Build a batch of one column `a`; return the batch and the calls of restore."""
    schema = Schema.parse("test", {"type": "object", "properties": {"a": node}})
    count, restored = len(values), Restored()
    batch = Batch(
        lines=[b"{}"] * count,
        columns=[values],
        rest=[{} for _ in values] if rest is None else rest,
        keys=[None, None, [1704067200] * count if times is None else times, None, None],
    )
    Columns(schema, [("a",)], restored, days=days, keep_unmapped=keep).build(batch)
    assert batch.table is not None
    batch.table.validate(full=True)
    return batch, restored


def column(batch: Batch, name: str = "a") -> list[Any]:
    """Return the values of a column of the table, dates and times as integers."""
    assert batch.table is not None
    array = batch.table.column(name)
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.int64() if pa.types.is_timestamp(array.type) else pa.int32())
    return list(array.to_pylist())


def ms(*parts: int) -> int:
    """Ms since the epoch of a UTC time."""
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]  # ints


def day(*parts: int) -> int:
    """Days since the epoch."""
    return (date(*parts) - EPOCH).days


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "é😀", "é😀"),
        ("string", "", ""),
        ("string", 10**30, "1" + "0" * 30),
        ("string", -5, "-5"),
        ("string", 800.5, "800.5"),
        ("string", 800.0, "800.0"),
        ("string", 1e21, "1e+21"),
        ("string", 0.1 + 0.2, "0.30000000000000004"),
        ("string", True, FAILED),
        ("string", ["a"], FAILED),
        ("string", {"a": 1}, FAILED),
        ("string", "\ud800", FAILED),
        ("string", "a\udfff", FAILED),
        ("string", math.inf, FAILED),
        ("boolean", True, True),
        *(("boolean", word, True) for word in TRUE_WORDS),
        *(
            ("boolean", word, False)
            for word in ["n", "N", "no", "NO", "off", "OFF", "false", "FALSE"]
        ),
        ("boolean", "Yes", FAILED),
        ("boolean", "", FAILED),
        ("boolean", 1, FAILED),
        ("boolean", 0.0, FAILED),
        ("long", 2**63 - 1, 2**63 - 1),
        ("long", -(2**63), -(2**63)),
        ("long", 2**63, FAILED),
        ("long", 3.0, 3),
        ("long", -0.0, 0),
        ("long", 3.5, FAILED),
        ("long", 2.0**63, FAILED),
        ("long", math.nan, FAILED),
        ("long", True, FAILED),
        ("long", "12", 12),
        ("long", "-0012", -12),
        ("long", "+7.00", 7),
        ("long", "9223372036854775807", 2**63 - 1),
        ("long", "9223372036854775808", FAILED),
        ("long", "9" * 5000, FAILED),
        ("long", "0" * 5000 + "7", 7),
        ("long", "1.5", FAILED),
        ("long", "1e3", FAILED),
        ("long", " 1", FAILED),
        ("long", "1_000", FAILED),
        ("long", "\u0661", FAILED),
        ("long", "", FAILED),
        ("long", [1], FAILED),
        ("int", 2**31 - 1, 2**31 - 1),
        ("int", 2**31, FAILED),
        ("short", -32768, -32768),
        ("short", 32768.0, FAILED),
        ("byte", "127", 127),
        ("byte", 128, FAILED),
        ("number", 1.5, 1.5),
        ("number", 3, 3.0),
        ("number", 2**53, 2.0**53),
        ("number", 2**53 + 1, FAILED),
        ("number", 2**60, 2.0**60),
        ("number", 2**1024 - 1, FAILED),
        ("number", 10**400, FAILED),
        ("number", "800.00", 800.0),
        ("number", ".5e-3", 0.0005),
        ("number", "1e999", FAILED),
        ("number", "NaN", FAILED),
        ("number", "1_0", FAILED),
        ("number", "", FAILED),
        ("number", math.inf, FAILED),
        ("number", False, FAILED),
        ("date-time", 1704067200123, 1704067200123),
        ("date-time", 10**15, FAILED),
        ("date-time", -(10**15), FAILED),
        ("date-time", 1704067200.0, FAILED),
        ("date-time", True, FAILED),
        ("date-time", "2024-01-01T00:00:00Z", ms(2024, 1, 1)),
        ("date-time", "2024-01-01T01:00:00+01:00", ms(2024, 1, 1)),
        ("date-time", "2024-01-01T00:00:00.123456789-08:00", ms(2024, 1, 1, 8) + 123),
        ("date-time", "2024-01-01 00:00:00-0830", ms(2024, 1, 1, 8, 30)),
        ("date-time", "2024-01-01 00:00:00.123+0000", ms(2024, 1, 1) + 123),
        ("date-time", "2024-01-01 00:00:00.5", ms(2024, 1, 1) + 500),
        ("date-time", "2024-01-01T00:00:00.123+08", ms(2023, 12, 31, 16) + 123),
        ("date-time", "2019-10-23 11:24", ms(2019, 10, 23, 11, 24)),
        ("date-time", "2024-02-29", ms(2024, 2, 29)),
        ("date-time", "2023-02-29", FAILED),
        ("date-time", "2018-00-23T22:07:01Z", FAILED),
        ("date-time", "2024-01-01T24:00:00Z", FAILED),
        ("date-time", "2024-01-01T00:00:00+25:00", FAILED),
        ("date-time", "0001-01-01T00:00:00+01:00", FAILED),
        ("date-time", "1/05/2024 12:30:00 AM", ms(2024, 1, 5, 0, 30)),
        ("date-time", "11/05/2024 12:30:00 pm", ms(2024, 11, 5, 12, 30)),
        ("date-time", "11/05/2024 01:30:00 PM", ms(2024, 11, 5, 13, 30)),
        ("date-time", "11/05/2024 13:30:00 PM", FAILED),
        ("date-time", "05.1.2024 08:00:00 AM", ms(2024, 1, 5, 8)),
        ("date-time", "yesterday", FAILED),
        ("date-time", "1704067200123", FAILED),
        ("date", "2024-01-05", day(2024, 1, 5)),
        ("date", "2024-01-05T23:30:00-01:00", day(2024, 1, 6)),
        ("date", 1704067200123, day(2024, 1, 1)),
        ("date", -1, day(1969, 12, 31)),
        ("date", "2024/01/05", day(2024, 1, 5)),
        ("date", "2024.01.05", day(2024, 1, 5)),
        ("date", "2024-Jan-05", day(2024, 1, 5)),
        ("date", "20240105", day(2024, 1, 5)),
        ("date", "01-05-2024", day(2024, 1, 5)),
        ("date", "12112020", day(2020, 12, 11)),
        ("date", "1/05/2024", day(2024, 1, 5)),
        ("date", "13/05/2024", FAILED),
        ("date", "05.1.2024", day(2024, 1, 5)),
        ("date", "05.Jan.2024", day(2024, 1, 5)),
        ("date", "05-JAN-2024", day(2024, 1, 5)),
        ("date", "05-Jab-2024", FAILED),
        ("date", "\u0662024-01-05", FAILED),
        ("date", {}, FAILED),
    ],
)
def test_a_value_is_cast_as_adobe_converts_it(kind: str, value: object, expected: object) -> None:
    """Values are cast by Adobe's conversion table and Data Prep's patterns; others fail."""
    result = CASTS[kind](value)
    assert (type(result), result) == (type(expected), expected)
    batch, restored = build(NODES[kind], [value])
    assert column(batch) == [None if expected is FAILED else expected]
    assert (batch.uncast, restored) == (({0}, [(0, 0)]) if expected is FAILED else (set(), []))


# Values of JSON as they come: of one type for a whole column, mostly, which the fast paths take.

INTEGERS = st.integers() | st.sampled_from(
    [s * 2**b + d for s in (1, -1) for b in (7, 15, 31, 53, 63, 64) for d in (-1, 0, 1)]
)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 127.0, 1e21, 2.0**53, 2.0**63, -(2.0**63)])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=5) | st.sampled_from(
    [
        *("true", "no", "1", "-5", "2.0", "1.5", "1e5", "99999999999999999999", "2147483648"),
        *("2024-01-01", "2024-01-01T10:00:00.5+02:00", "12112020", "05-Jan-2024"),
    ]
)
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(TEXTS | st.sampled_from(["i", "o", "s"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KINDS: list[st.SearchStrategy[Any]] = [
    st.none() | TEXTS,
    st.none() | st.sampled_from(["a", "é", ""]),
    st.none() | INTEGERS,
    st.none() | st.integers(-200, 200),
    st.none() | st.integers(0, 2 * 10**12),
    st.none() | FLOATS,
    st.none() | st.integers(-9, 9) | st.floats(-1e6, 1e6),
    st.none() | st.booleans(),
    st.none() | st.booleans() | FLOATS,
    SCALARS,
    VALUES,
]
COLUMNS: st.SearchStrategy[list[Any]] = st.sampled_from(KINDS).flatmap(
    lambda kind: st.lists(kind, max_size=6)
)


def as_read(field: Field, value: Any) -> Any:
    """Return the result of `cast` as the table returns it: nested dates are dates."""
    if field.type == "object":
        return {f.name: as_read(f, (value or {}).get(f.name)) for f in field.fields}
    if field.type == "map" and value is not None:
        return [(k, None if v is None else EPOCH + timedelta(days=v)) for k, v in value]
    return value


@pytest.mark.parametrize("kind", NODES)
@settings(deadline=None, max_examples=150)
@given(values=COLUMNS)
def test_the_fast_paths_are_the_casts(kind: str, values: list[Any]) -> None:
    """A column holds the cast of each value, also where Arrow builds the column alone."""
    field = Schema.parse("test", {"properties": {"a": NODES[kind]}}).root.fields[0]
    lost: list[list[int]] = [[] for _ in values]
    expected = [cast(field, *pair) for pair in zip(values, lost, strict=True)]
    batch, restored = build(NODES[kind], values)
    got = column(batch)
    expected = [as_read(field, value) for value in expected]
    assert repr(got) == repr(expected)  # tells -0.0 from 0.0, and True from 1
    assert batch.uncast == {row for row, found in enumerate(lost) if any(found)}
    assert restored == [(row, 0) for row, found in enumerate(lost) if found]  # P3


def test_a_part_of_an_object_fails_alone() -> None:
    """A failed cast nulls its own attribute; a member without a field is restored without a
    warning.
    """
    value = {"i": "x", "o": {"s": "kept", "more": 1}}
    batch, restored = build(NODES["object"], [value, {"i": 1, "gone": None}, None, "no object"])
    assert column(batch) == [
        {"i": None, "o": {"s": "kept"}},
        {"i": 1, "o": {"s": None}},
        {"i": None, "o": {"s": None}},
        {"i": None, "o": {"s": None}},
    ]
    assert batch.uncast == {0, 3}
    assert restored == [(0, 0), (3, 0)]
    assert batch.table is not None
    assert batch.table.column("a").null_count == 0  # a struct is always valid


def test_elements_of_an_array_keep_their_place() -> None:
    """A null in an array, and an element that could not be cast, is a null element."""
    batch, restored = build(NODES["array"], [[1, None, "x", "3"], [], None])
    assert column(batch) == [[1, None, None, 3], [], None]
    assert (batch.uncast, restored) == ({0}, [(0, 0)])


def test_entries_of_a_map_keep_their_names() -> None:
    """A failed cast is a null entry of its map; an entry whose name is no text is dropped."""
    batch, restored = build(NODES["map"], [{"a": "2024-01-01", "b": "x", "\ud800": "2024-01-01"}])
    assert column(batch) == [[("a", date(2024, 1, 1)), ("b", None)]]
    assert (batch.uncast, restored) == ({0}, [(0, 0)])


def test_the_default_table() -> None:
    """The default table has the tutorial's struct, `unmapped` and `event_date`; columns without a
    rule are null.
    """
    schema = Schema.parse("mixpanel-events", json.loads(SHIPPED.read_bytes()))
    paths = [("_extconndev", "event_name"), ("_extconndev", "time")]
    columns = Columns(schema, paths, Restored(), days=(FIRST, LAST), keep_unmapped=True)
    assert columns.arrow_schema.names == ["_extconndev", "unmapped", "event_date"]
    assert columns.arrow_schema.types[1:] == [pa.string(), pa.date32()]
    struct = columns.arrow_schema.types[0]
    assert struct.field("import").type == pa.bool_()
    assert struct.field("item_price").type == pa.string()
    assert struct.field("time").type == pa.int64()
    times = [1704067200, 1704153600]
    keys = [["a", "b"], None, times, None, None]
    batch = Batch(lines=[b"", b""], columns=[["a", "b"], times], rest=[{}, {"x": 1}], keys=keys)
    columns.build(batch)
    assert batch.table is not None
    assert batch.table.schema == columns.arrow_schema
    rows = batch.table.to_pylist()
    assert rows[1]["_extconndev"]["event_name"] == "b"
    assert rows[1]["_extconndev"]["distinct_id"] is None
    assert [row["unmapped"] for row in rows] == [None, '{"x":1}']
    assert [row["event_date"] for row in rows] == [date(2024, 1, 1), date(2024, 1, 2)]


def test_a_destination_outside_the_schema_is_a_mistake() -> None:
    """A destination that the schema lacks is an error, as its values would be lost."""
    schema = Schema.parse("test", {"properties": {"a": NODES["string"]}})
    with pytest.raises(ValueError, match="no field"):
        Columns(schema, [("b",)], Restored(), days=(FIRST, LAST), keep_unmapped=True)


def test_a_failed_cast_is_in_unmapped() -> None:
    """P3: the source of a failed cast is in `unmapped`."""
    batch, _ = build(NODES["long"], [1, "x"])
    assert column(batch, "unmapped") == [None, '{"restored":0}']


def test_unmapped_can_be_dropped() -> None:
    """Without `unmapped` the column is null, nothing is restored, and warnings count."""
    batch, restored = build(NODES["long"], [1, "x"], rest=[{"p": 1}, {}], keep=False)
    assert column(batch, "unmapped") == [None, None]
    assert (restored, batch.uncast) == ([], {1})


@settings(deadline=None, max_examples=150)
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4))
def test_unmapped_reads_back_as_the_rest(rest: list[Json]) -> None:
    """P3: `unmapped` is JSON text of the same properties, big integers and half characters too."""
    finite = [json.loads(json.dumps(r), parse_constant=lambda _: None) for r in rest]
    batch, _ = build(NODES["string"], [None] * len(rest), rest=finite)
    texts = column(batch, "unmapped")
    assert [None if text is None else json.loads(text) for text in texts] == [
        r or None for r in finite
    ]


def test_unmapped_survives_absurd_nesting() -> None:
    """P3: of a record nested too deeply for any JSON writer, `unmapped` has the whole line."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    batch, _ = build(NODES["string"], ["x"], rest=[{"deep": deep}])
    assert column(batch, "unmapped") == ["{}"]


@pytest.mark.parametrize(
    ("times", "days", "clamped"),
    [
        ([1704067200, 1704153599], [1, 1], 0),
        ([1704067200, 1704153600, 1704326399], [1, 2, 3], 0),
        ([1704067199, 1704326400], [1, 3], 2),
        ([1704067200123, 1704153600000], [1, 2], 0),
        ([1704153600.75, 1704153600], [2, 2], 0),
        ([1704153599.999], [1], 0),
        (["1704153600", "1704153600.5", "1704153600000"], [2, 2, 2], 0),
        (["2024-01-02T23:59:59", "2024-01-02T23:59:59-01:00", "2024-01-03"], [2, 3, 3], 0),
        ([None, 1704153600], [1, 2], 1),
        (["soon", True, [], {}, "", math.nan, 1704153600], [1, 1, 1, 1, 1, 1, 2], 6),
        ([-1, -0.5, 0], [1, 1, 1], 3),
        ([10**400, -(10**400), 1e300, "1e300", "9" * 400], [3, 1, 3, 3, 1], 5),
        ([], [], 0),
    ],
)
def test_event_date_is_the_utc_day_of_time(times: list[Any], days: list[int], clamped: int) -> None:
    """Seconds, ms, texts and dates give their UTC day, clamped to the window and counted."""
    batch, _ = build(NODES["string"], [None] * len(times), times=times)
    assert column(batch, "event_date") == [day(2024, 1, d) for d in days]
    assert len(batch.clamped) == clamped


TIMES = st.integers(-(10**10), 10**10) | INTEGERS
FRACTIONS = st.floats(-1e6, 1e6) | FLOATS | st.integers(1704000000, 1704400000)
WORDS: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, "yesterday", "2024-01-02", "1704100000", [], 1 << 70]
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(TIMES, max_size=4)
    | st.lists(FRACTIONS, max_size=4)
    | st.lists(st.integers(1704000000, 1704400000) | TIMES | FRACTIONS | WORDS, max_size=6),
    st.sampled_from([(FIRST, LAST), (EPOCH - timedelta(days=2), EPOCH + timedelta(days=2))]),
)
def test_event_date_of_a_batch_is_that_of_each_row(
    times: list[Any], days: tuple[date, date]
) -> None:
    """The day of a row is that of `utc_day`, whatever the form of the other times."""
    whole, _ = build(NODES["string"], [None] * len(times), times=times, days=days)
    first, last = ((each - EPOCH).days for each in days)
    alone = [utc_day(time) for time in times]
    held = [first if day is None else min(max(day, first), last) for day in alone]
    assert column(whole, "event_date") == held
    assert whole.clamped == {
        row for row, pair in enumerate(zip(alone, held, strict=True)) if pair[0] != pair[1]
    }


def test_a_fraction_before_midnight_is_still_the_day_before() -> None:
    """Times before 1970 are cut downwards too."""
    days = (EPOCH - timedelta(days=1), EPOCH)
    for times in ([-0.5, 0], [-0.5, None]):
        batch, _ = build(NODES["string"], [None, None], times=times, days=days)
        assert column(batch, "event_date")[0] == -1
