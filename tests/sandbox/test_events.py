"""The sandbox's events: the same every time, exact in number, right by both kinds of clock."""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sandbox import Spec, day_lines, truth
from engine.sandbox.event_shapes import SHAPES
from engine.sandbox.where import compile_where

DAY = date(2024, 3, 5)
TUTORIAL = {"time", "distinct_id", "$insert_id", "$mp_api_endpoint", "$mp_api_timestamp_ms"} | {
    "item_id", "item_name", "item_price", "mp_processing_time_ms"}  # fmt: skip


def records(spec: Spec, day: date = DAY, **options: Any) -> list[dict[str, Any]]:
    """Every line of the day, decoded."""
    lines = b"".join(day_lines(spec, day, **options)).split(b"\n")
    assert lines.pop() == b""
    return [orjson.loads(line) for line in lines]


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_day_is_the_same_bytes_each_time(shape: str) -> None:
    """A day depends on the spec and its date alone, not on earlier requests."""
    spec = Spec(shape=shape, events_per_day=3000, duplicate_percent=5, reject_percent=1)
    first = b"".join(day_lines(spec, DAY))
    list(day_lines(spec, DAY + timedelta(1)))
    assert b"".join(day_lines(spec, DAY)) == first
    assert b"".join(day_lines(replace(spec, seed=2), DAY)) != first
    assert b"".join(day_lines(spec, DAY + timedelta(1))) != first


@settings(deadline=None, max_examples=25)
@given(
    events=st.integers(0, 5000),
    duplicates=st.sampled_from([0, 0.5, 3, 20]),
    rejects=st.sampled_from([0, 0.1, 2.5]),
)
def test_counts_are_exact(events: int, duplicates: float, rejects: float) -> None:
    """The numbers of events, rejects and duplicates are exactly those of the spec."""
    spec = Spec(events_per_day=events, duplicate_percent=duplicates, reject_percent=rejects)
    found = truth(spec, DAY)
    assert len(found.rejects) == round(events * rejects / 100)
    assert len(found.events) == events - len(found.rejects)
    assert found.duplicates == round(events * duplicates / 100)
    assert found.lines == len(records(spec)) == events + found.duplicates


@pytest.mark.parametrize("visible_at", [None, 1709683200000, 1709640000000])
def test_truth_agrees_with_a_recount(visible_at: int | None) -> None:
    """`truth` is what sorting all lines by key and processing time leaves."""
    spec = Spec(events_per_day=4000, duplicate_percent=10, reject_percent=1, late_percent=10)
    lines = records(spec, visible_at=visible_at)
    rejected = [r for r in lines if not isinstance(r["properties"].get("time"), int)]
    good = [r for r in lines if isinstance(r["properties"].get("time"), int)]
    good.sort(key=lambda r: r["properties"]["mp_processing_time_ms"])
    last: dict[str, Any] = {}
    for number, record in enumerate(good):
        p = record["properties"]
        key = [record["event"], p.get("distinct_id"), p["time"], p.get("$insert_id", number)]
        last[repr(key)] = record
    found = truth(spec, DAY, visible_at=visible_at)
    assert sorted(map(orjson.dumps, found.events)) == sorted(map(orjson.dumps, last.values()))
    assert len(found.rejects) == len(rejected)
    assert found.duplicates == len(good) - len(last)
    assert visible_at is None or found.lines < truth(spec, DAY).lines


def test_events_are_in_no_order_of_time_and_copies_lie_apart() -> None:
    """Lines are in no order of time or arrival; of two copies, either may be the later one."""
    spec = Spec(events_per_day=5000, duplicate_percent=10)
    properties = [record["properties"] for record in records(spec)]
    for name in ("time", "mp_processing_time_ms"):
        values = [p[name] for p in properties]
        assert 0.4 < sum(a < b for a, b in itertools.pairwise(values)) / 5500 < 0.6
    places: dict[str, list[int]] = {}
    for place, p in enumerate(properties):
        places.setdefault(p.get("$insert_id", str(place)), []).append(place)
    pairs = [pair for pair in places.values() if len(pair) == 2]
    assert len(pairs) == 500
    assert max(b - a for a, b in pairs) > 2000
    moments = [[properties[at]["mp_processing_time_ms"] for at in pair] for pair in pairs]
    assert 100 < sum(a < b for a, b in moments) < 400
    changed = [properties[a].keys() != properties[b].keys() or any(
        properties[a][k] != properties[b][k] for k in properties[a] if k[:3] != "mp_"
    ) for a, b in pairs]  # fmt: skip
    assert 100 < sum(changed) < 400


@pytest.mark.parametrize(
    ("timezone", "day", "offsets"),
    [
        ("Asia/Kolkata", DAY, {5.5}),
        ("America/Los_Angeles", DAY, {-8}),
        ("America/Los_Angeles", date(2024, 3, 10), {-8, -7}),
        ("America/Los_Angeles", date(2024, 11, 3), {-8, -7}),
    ],
)
def test_an_older_project_counts_by_its_wall_clock(
    timezone: str, day: date, offsets: set[float]
) -> None:
    """`time` is the wall clock as epoch seconds, on a real time of that day; arrival is UTC."""
    spec = Spec(shape="small", clock="local", timezone=timezone, late_percent=0)
    zone, seen = ZoneInfo(timezone), Counter[float]()
    for record in records(spec, day):
        p = record["properties"]
        shown = datetime.fromtimestamp(p["time"], UTC)
        received = datetime.fromtimestamp(p["$mp_api_timestamp_ms"] / 1000, UTC)
        assert shown.date() == day
        there = shown.replace(tzinfo=zone)
        again = {there.replace(fold=f).astimezone(UTC).astimezone(zone) for f in (0, 1)}
        assert there.replace(tzinfo=None) in {moment.replace(tzinfo=None) for moment in again}
        seen[round((shown - received) / timedelta(hours=1) * 4) / 4] += 1
    assert seen.keys() == offsets


@pytest.mark.parametrize("timezone", ["Asia/Kolkata", "America/Los_Angeles"])
def test_a_newer_project_counts_in_utc(timezone: str) -> None:
    """`time` is UTC, whatever zone the project has; with `in_ms` it has milliseconds."""
    spec = Spec(timezone=timezone, late_percent=0)
    for record, finer in zip(records(spec), records(spec, in_ms=True), strict=True):
        p = record["properties"]
        assert datetime.fromtimestamp(p["time"], UTC).date() == DAY
        assert 0 <= p["mp_processing_time_ms"] / 1000 - p["time"] < 4 * 3600
        assert finer["properties"]["time"] // 1000 == p["time"]


def test_late_events_arrive_within_their_days() -> None:
    """`late_percent` of the events arrive up to `late_days` days later, none after `settled_ms`."""
    spec = Spec(shape="small", events_per_day=5000, late_percent=10, late_days=3)
    moments = [r["properties"]["mp_processing_time_ms"] for r in records(spec)]
    times = [r["properties"]["time"] * 1000 for r in records(spec)]
    late = [m - t for m, t in zip(moments, times, strict=True) if m - t > 4 * 3_600_000]
    assert 400 < len(late) < 600
    assert 2.5 * 86_400_000 < max(late) < 3.2 * 86_400_000
    assert max(moments) < spec.settled_ms(DAY)


def test_volumes_by_day() -> None:
    """A named day has its own volume, weekends theirs."""
    spec = Spec(events_per_day=100, weekend_percent=30, volumes={DAY: 7})
    assert [spec.events_on(DAY + timedelta(n)) for n in range(-1, 6)] == [
        100,
        7,
        100,
        100,
        100,
        30,
        30,
    ]
    assert truth(spec, DAY).lines == 7
    assert list(day_lines(replace(spec, volumes={DAY: 0}), DAY)) == []


@pytest.mark.parametrize(
    ("shape", "most", "sizes"),
    [("small", 10, (310, 350)), ("wide", 36, (1050, 1300)), ("typed", 36, (1100, 1400))],
)
def test_shapes_have_their_size(shape: str, most: int, sizes: tuple[int, int]) -> None:
    """Properties and bytes of each shape, the tutorial's fields always among them."""
    found = records(Spec(shape=shape))
    assert max(len(record["properties"]) for record in found) == most
    assert all(record["properties"].keys() >= TUTORIAL for record in found)
    assert sizes[0] < len(b"".join(day_lines(Spec(shape=shape), DAY))) / len(found) < sizes[1]
    assert any("$import" in record["properties"] for record in found)


ODDITIES: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("no distinct_id", lambda p: "distinct_id" not in p),
    ("no $insert_id", lambda p: "$insert_id" not in p),
    ("both insert ids", lambda p: "insert_id" in p and "$insert_id" in p),
    ("colliding names", lambda p: {"userName", "username", "$userName"} <= p.keys()),
    ("a version as a number", lambda p: p.get("$browser_version") == 99),
    ("a version as a text", lambda p: p.get("$browser_version") == "91.0.4472.101"),
    ("a price as a number", lambda p: isinstance(p.get("item_price"), int | float)),
    ("a numeric distinct_id", lambda p: isinstance(p.get("distinct_id"), int)),
    ("an imported event", lambda p: p.get("$import") is True),
    ("beyond 2**53", lambda p: p.get("order_id", 0) > 2**53),
    ("nested", lambda p: isinstance(p.get("basket"), list)),
]


@pytest.mark.parametrize(("name", "shows"), ODDITIES)
def test_mixed_holds_every_oddity(name: str, shows: Callable[[dict[str, Any]], bool]) -> None:
    """A default day of a thousand events shows each oddity of real projects."""
    assert sum(shows(record["properties"]) for record in records(Spec())) >= 3, name


def test_mixed_holds_every_kind_of_text() -> None:
    """Raw line breaks of Unicode, bytes 0x85, emoji and scripts; each line is one JSON text."""
    whole = b"".join(day_lines(Spec(), DAY))
    for text in ("\u2028", "\u0085", "\u0445", "\u0105", "\N{PARTY POPPER}", "\u5546", "\ufffd"):
        assert text.encode() in whole
    assert b"%" in whole


def test_generation_speed(record_property: Callable[[str, object], None]) -> None:
    """Measured, not judged: it depends on the machine."""
    for shape in ("small", "wide"):
        began = time.perf_counter()
        size = sum(map(len, day_lines(Spec(shape=shape, events_per_day=50_000), DAY)))
        speed = size / (time.perf_counter() - began) / 1e6
        record_property(f"{shape} MB/s", round(speed))
        sys.stdout.write(f"{shape} {speed:.0f} MB/s\n")


A, B = 1709683200000, 1709683300000
ARRIVED = 'number(properties["mp_processing_time_ms"])'


@pytest.mark.parametrize(
    ("where", "properties", "kept"),
    [
        (f"{ARRIVED} >= {A} and {ARRIVED} < {B}", {"mp_processing_time_ms": A}, True),
        (f"{ARRIVED} >= {A} and {ARRIVED} < {B}", {"mp_processing_time_ms": B}, False),
        (f"{ARRIVED} >= {A} and {ARRIVED} < {B}", {"mp_processing_time_ms": str(A)}, True),
        (f"{ARRIVED} >= {A} and {ARRIVED} < {B}", {}, False),
        ('(properties["x"] == "y") and (number(properties["n"])>=4)', {"x": "y", "n": 4}, True),
        ('(properties["x"] == "y") AND (number(properties["n"])>=4)', {"x": "z", "n": 4}, False),
        ('properties["x"] == "and (T"', {"x": "and (T"}, True),
        ('properties["x"] == "properties[\\"y\\"]"', {"x": 'properties["y"]'}, True),
        ('properties["x"] == 1', {"x": "1"}, False),
        ('properties["x"] == 1', {"x": 1.0}, True),
        ('properties["x"] == 1', {"x": True}, False),
        ('properties["x"] != "y"', {"x": 1}, True),
        ('properties["x"] < 2', {"x": "1"}, False),
        ('properties["x"] < -1.5', {"x": -2}, True),
        ('properties["x"] == true', {"x": True}, True),
        ('defined(properties["x"])', {"x": 0}, True),
        ('defined(properties["x"])', {"x": None}, False),
        ('properties["$time"] >= 5', {"time": 5}, True),
    ],
)  # fmt: skip
def test_where(where: str, properties: dict[str, Any], kept: bool) -> None:
    """Comparisons as Mixpanel documents them: no equality between types, order of numbers only."""
    assert compile_where(where)(properties) is kept


@pytest.mark.parametrize(
    "where",
    ["", "x", "\0", "T", 'properties["x"]', 'properties["x"] == ', '(properties["x"] == 1',
     'properties["x"] == 1 or properties["x"] == 2', 'properties["x"] == 1 and',
     'properties["x"] == 1 properties["x"] == 1', "drop()"],
)  # fmt: skip
def test_where_refuses_the_rest(where: str) -> None:
    """An expression that cannot be read is an error, never a filter that selects all."""
    with pytest.raises(ValueError, match="cannot read"):
        compile_where(where)
