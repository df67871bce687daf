"""The arrival filter: which records are within a window's span, from Arrow arrays and lists."""

import json
from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from engine.model.batch import Batch
from engine.model.window import Window
from engine.transform.arrival_filter import PROCESSED, filter_by_arrival

DAY = date(2024, 1, 1)
ARRIVAL = Window(DAY, DAY, arrival=(1_000, 2_000))
BEFORE = Window(DAY, DAY, before=1_000)

CASES = [
    (999, False, True),
    (1_000, True, False),
    (1_999, True, False),
    (2_000, False, False),
    (999.5, False, True),
    (1_999.5, True, False),
    ("1500", True, False),  # as `number(…)` of a filter reads it
    ("soon", False, True),
    (None, False, True),
    (True, False, True),
    ({}, False, True),
    (10**400, False, True),
    ("Infinity", False, False),
]


def mapped(values: list[Any]) -> Batch:
    """Return a batch as the mapping stage leaves it, with a distinct line for each row."""
    keys: list[Any] = [["e"] * len(values) for _ in range(5)]
    keys[PROCESSED] = values
    lines = [str(row).encode() for row in range(len(values))]
    return Batch(lines, columns=[list(range(len(values)))], rest=[{}] * len(values), keys=keys)


@pytest.mark.parametrize("window", [ARRIVAL, BEFORE])
def test_what_is_kept(window: Window) -> None:
    """Both ends of the span, and every kind of value that the property may have."""
    wanted = [bool(case[1 if window.arrival else 2]) for case in CASES]
    batch = mapped([case[0] for case in CASES])
    assert filter_by_arrival(batch, window) == wanted.count(False)
    rows = [row for row, kept in enumerate(wanted) if kept]
    assert batch.columns == [rows]
    assert batch.lines == [str(row).encode() for row in rows]
    assert batch.keys[PROCESSED] == [CASES[row][0] for row in rows]
    assert len(batch.rest) == len(rows)


@pytest.mark.parametrize(("window", "kept"), [(ARRIVAL, [1]), (BEFORE, [0, 3])])
def test_columns_of_arrow(window: Window, kept: list[int]) -> None:
    """Arrow arrays of processing times are filtered like lists."""
    batch = mapped(pa.array([999, 1_000, 2_000, None]))
    batch.columns = [pa.array([0, 1, 2, 3])]
    assert filter_by_arrival(batch, window) == 4 - len(kept)
    assert batch.columns[0].to_pylist() == kept


def test_whole_days_keep_everything() -> None:
    """A window without a span drops no record."""
    batch = mapped([case[0] for case in CASES])
    assert filter_by_arrival(batch, Window(DAY, DAY)) == 0
    assert len(batch.lines) == len(CASES)


@pytest.mark.parametrize("window", [ARRIVAL, BEFORE, Window(DAY, DAY)])
def test_a_window_as_json(window: Window) -> None:
    """A window survives a round trip through JSON, and is read from an older form of it."""
    assert Window.from_json(json.loads(json.dumps(window.as_json()))) == window
    older = {"from_date": "2024-01-01", "to_date": "2024-01-01", "arrival": None}
    assert Window.from_json(older) == Window(DAY, DAY)


def test_a_window_as_people_read_it() -> None:
    """Days as days, arrivals as moments of UTC."""
    assert str(Window(DAY, DAY)) == "2024-01-01"
    assert str(Window(DAY, date(2024, 1, 3), before=5)) == "2024-01-01..2024-01-03"
    arrival = (1_704_067_200_000, 1_704_068_100_000)
    assert str(Window(DAY, DAY, arrival=arrival)) == "2024-01-01 00:00 to 2024-01-01 00:15"
