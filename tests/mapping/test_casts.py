"""An event's `time` however it is written, and what is said of a value that cannot be cast."""

import json
from datetime import date
from typing import Any

import pytest

from engine.errors import InputError
from engine.mapping.failed_casts import Uncast
from engine.mapping.mapping_set import verdicts
from engine.model.batch import INVALID, REQUIRED, Batch
from engine.sync.preview import preview
from engine.sync.pull import Rules
from engine.transform import decode
from engine.transform.columns import Columns
from engine.transform.validate import Checker
from tests.support.pulling import RULES

SECOND = 1_704_104_430  # 2024-01-01T10:20:30Z
DAY = date(2024, 1, 1)
Json = dict[str, Any]


def made(rules: Rules, *events: Json) -> Batch:
    """The batch of these events after the check, in which a rejected one is no row."""
    schema, mapping = rules.compile()
    days = (date(2023, 1, 1), date(2025, 1, 1))
    columns = Columns(schema, mapping.destinations, mapping.restore, days=days, keep_unmapped=True)
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    [batch] = decode.read([text])
    mapping.apply(batch)
    columns.build(batch)
    Checker(schema, Uncast(schema, mapping)).check(batch)
    return batch


def at(time: Any, **properties: Any) -> Json:
    """An event of that `time`."""
    return {"event": "e", "properties": {"time": time, "$insert_id": "i"} | properties}


def rules(properties: Json, *pairs: tuple[str, str], **root: Any) -> Rules:
    """A schema of these properties, and a mapping of these pairs to it."""
    mappings = [{"source": source, "destination": target} for source, target in pairs]
    schema = {"type": "object", "properties": properties, **root}
    return Rules(("m", {"mappings": mappings}), ("s", schema))


@pytest.mark.parametrize(
    "time",
    [
        *["2024-01-01T10:20:30", "2024-01-01T10:20:30Z", "2024-01-01T10:20:30.9"],
        "2024-01-01 10:20:30",
        *["2024-01-01T11:20:30+01:00", "2024-01-01T04:50:30.123456-05:30"],
        *["01/01/2024 10:20:30 AM"],
        *[f" {SECOND} ", f"{SECOND}.5", f"{SECOND}\n", SECOND + 0.25],
        *[SECOND * 1000, SECOND * 1000 + 999],
        *[f"{SECOND * 1000}", SECOND * 1000 + 0.5, f"{SECOND}.5e0", " 2024-01-01T10:20:30Z\t"],
    ],
)  # fmt: skip
def test_a_time_is_its_second_however_it_is_written(time: Any) -> None:
    """P3: the second in the column, in the key and for the day; the original in `unmapped`."""
    batch = made(RULES, at(time), at(SECOND))
    assert batch.table is not None
    row, plain = batch.table.to_pylist()
    assert row["_extconndev"]["time"] == SECOND
    assert row["event_date"] == plain["event_date"] == DAY
    assert json.loads(row["unmapped"]) == {"time": time}
    assert plain["unmapped"] is None
    assert batch.keys[2] == [SECOND, SECOND]  # P4: the table knows it again
    assert (batch.uncast, batch.rejects) == (set(), [])
    [shown] = preview(RULES, [json.dumps(at(time)).encode()])
    assert (shown["data"]["_extconndev"]["time"], shown["errors"]) == (SECOND, None)


@pytest.mark.parametrize("time", [SECOND, str(SECOND), f"{SECOND}.0", float(SECOND), -5, 0])
def test_a_time_that_is_its_second_is_not_kept_twice(time: Any) -> None:
    """What the column holds whole is not in `unmapped` besides."""
    batch = made(RULES, at(time), at(None) | {"event": None})
    assert batch.table is not None
    [row] = batch.table.to_pylist()
    assert (row["_extconndev"]["time"], row["unmapped"]) == (int(float(time)), None)


def test_a_time_by_its_other_name_and_beside_others() -> None:
    """`data.time` reads `$time` where there is no `time`; the original stays under its own name."""
    batch = made(RULES, {"event": "e", "properties": {"$time": "2024-01-01"}}, at(SECOND * 1000))
    assert batch.table is not None
    first, second = batch.table.to_pylist()
    assert first["_extconndev"]["time"] == 1_704_067_200
    assert json.loads(first["unmapped"]) == {"$time": "2024-01-01"}
    assert json.loads(second["unmapped"]) == {"time": SECOND * 1000}


def test_a_time_inside_what_rules_build_and_twice() -> None:
    """The second goes wherever an integer takes it, a text has it as it came."""
    shape: Json = {
        "l": {"type": "array", "items": {"type": "integer"}},
        "o": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "t": {"type": "string"},
    }
    pairs = ("data.time", "l[0]"), ("properties.o", "o"), ("data.time", "o.a"), ("data.time", "t")
    batch = made(rules(shape, *pairs), at("2024-01-01T10:20:30Z", o={}))
    assert batch.table is not None
    [row] = batch.table.to_pylist()
    assert (row["l"], row["o"], row["t"]) == ([SECOND], {"a": SECOND}, "2024-01-01T10:20:30Z")
    assert json.loads(row["unmapped"])["time"] == "2024-01-01T10:20:30Z"


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("yesterday", '"yesterday" is no integer (from properties.time)'),
        ("x" * 100, f'"{"x" * 40}…" is no integer (from properties.time)'),
        ("\x1b[31m", '"\\u001b[31m" is no integer (from properties.time)'),
        (True, "true is no integer (from properties.time)"),
        ([1], "a list is no integer (from properties.time)"),
        ({"a": 1}, "an object is no integer (from properties.time)"),
        ("", '"" is no integer (from properties.time)'),
        (1 << 63, "9223372036854775808 is no integer of 64 bits (from properties.time)"),
    ],
)
def test_a_failed_cast_is_named(time: Any, said: str) -> None:
    """A required value that cannot be cast is reported as that, with its place and its source."""
    [reject] = made(RULES, at(time)).rejects
    assert reject.code == INVALID
    assert reject.message == f"#/_extconndev/time: {said}"
    [violation] = reject.violations
    assert violation["message"] == said
    assert violation["pointerToViolation"] == "#/_extconndev/time"
    [shown] = preview(RULES, [json.dumps(at(time)).encode()])
    assert shown == {
        "data": None,
        "errors": [{"destination": "_extconndev.time", "exception": said}],
    }


@pytest.mark.parametrize("event", [at(None), {"event": "e", "properties": {"item_id": "x"}}])
def test_what_is_missing_is_said_to_be(event: Json) -> None:
    """A required value that did not come, or is null, is missing."""
    [reject] = made(RULES, event).rejects
    assert reject.code == REQUIRED
    assert reject.message == "#/_extconndev: 'time' is a required property"


REQUIRED_ANYWHERE: Json = {
    "n": {"type": "number"},
    "b": {"type": "boolean"},
    "d": {"type": "string", "format": "date"},
    "s": {"type": "string"},
    "small": {"type": "integer", "minimum": -128, "maximum": 127, "meta:xdmType": "byte"},
    "o": {"type": "object", "required": ["i"], "properties": {"i": {"type": "integer"}}},
    "l": {
        "type": "array",
        "items": {"type": "object", "required": ["i"], "properties": {"i": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize(
    ("name", "value", "place", "said"),
    [
        ("n", "1,5", "#/n", '"1,5" is no number (from properties.n)'),
        ("n", " 1 ", "#/n", '" 1 " is no number (from properties.n)'),
        ("b", 1, "#/b", "1 is no boolean (from properties.b)"),
        ("d", "31.12.24", "#/d", '"31.12.24" is no date (from properties.d)'),
        ("s", {"a": 1}, "#/s", "an object is no text (from properties.s)"),
        ("small", 300, "#/small", "300 is no integer of 8 bits (from properties.small)"),
        ("small", 1.5, "#/small", "1.5 is no integer (from properties.small)"),
        ("o", "x", "#/o", '"x" is no object (from properties.o)'),
        ("o", {"i": "x"}, "#/o/i", '"x" is no integer (from properties.o.i)'),
        ("l", {"i": 1}, "#/l", "an object is no list (from properties.l)"),
        ("l", [7, {"i": 1}, {"i": "x"}], "#/l/1/i", '"x" is no integer (from properties.l[2].i)'),
    ],
)
def test_every_required_field_and_every_cast(name: str, value: Any, place: str, said: str) -> None:
    """Wherever the schema requires it, and whatever it was to be cast to."""
    pair = (f"properties.{name}", name)
    batch = made(
        rules({name: REQUIRED_ANYWHERE[name]}, pair, required=[name]), at(1, **{name: value})
    )
    [reject] = batch.rejects
    assert (reject.code, reject.message) == (INVALID, f"{place}: {said}")


def test_of_one_missing_and_one_that_failed_both_are_told() -> None:
    """A record that lacks something too has that among its violations, and its code."""
    shape = {"n": {"type": "integer"}, "s": {"type": "string"}}
    pairs = ("data.n", "n"), ("data.s", "s")
    [reject] = made(rules(shape, *pairs, required=["n", "s"]), at(1, n="x")).rejects
    told = ['"x" is no integer (from properties.n)', "'s' is a required property"]
    assert [violation["message"] for violation in reject.violations] == told
    assert reject.code == REQUIRED


MOMENTS: Json = {
    "at": {"type": "string", "format": "date-time"},
    "day": {"type": "string", "format": "date"},
    "n": {"type": "integer"},
    "m": {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}},
    "l": {"type": "array", "items": {"type": "string", "format": "date"}},
    "o": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}},
}
TIME = ["data.time", "properties.time", "data.${time}", r"properties.t\ime"]


@pytest.mark.parametrize("source", TIME)
@pytest.mark.parametrize("target", ["at", "day", "m.key", "l[0]", "o.at"])
def test_seconds_are_no_moment_of_ms(source: str, target: str) -> None:
    """`time` to a date or a date-time would be of 1970: refused, with what is right."""
    with pytest.raises(InputError, match="seconds") as caught:
        rules(MOMENTS, (source, target)).compile()
    said = str(caught.value)
    assert "data.time * 1000" in said
    assert "destination of type integer" in said


@pytest.mark.parametrize(
    ("source", "target"),
    [
        *[("data.mp_processing_time_ms", "at"), ("data.$mp_api_timestamp_ms", "day")],
        *[("data.time", "n"), ("data.time.x", "at"), ("data.my_time", "at"), ("data.$time", "at")],
    ],
)
def test_what_is_no_number_of_seconds_may_be_a_moment(source: str, target: str) -> None:
    """A property of ms is a date-time as it is, and `time` an integer."""
    assert len(rules(MOMENTS, (source, target)).compile()[1].rules) == 1


@pytest.mark.parametrize(
    ("destination", "near"),
    [
        ("_extconndev.itemname", "; the nearest is _extconndev.item_name."),
        ("_extconndev.TIME", "; the nearest is _extconndev.time."),
        ("item_price", "; the nearest is _extconndev.item_price."),
        ("_tenant.insert_id", "; the nearest is _extconndev.insert_id."),
        ("_extconndev.colour", "'colour'."),
    ],
)
def test_of_a_column_that_is_not_there_the_nearest_is_named(destination: str, near: str) -> None:
    """One name at most, however many columns begin alike; and that the schema has to have it."""
    [[problem]] = verdicts(
        "m",
        {"mappings": [{"source": "data.x", "destination": destination}]},
        RULES.compile()[0],
    )
    assert near in problem
    assert "The schema has to have the column" in problem
    names = [field.name for field in RULES.compile()[0].root.fields[0].fields]
    assert sum(f"_extconndev.{name}" in problem.partition(";")[2] for name in names) == (
        "nearest" in near
    )
