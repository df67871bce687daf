"""What the table notes of a project whose days are not UTC days of `time`.

Each request to such a project is for a single day, and its rows are filed under that day. Two kinds
of app transactions note it, for every flow of the table:

    single:days       when the project's days begin: ORIGIN plus the seconds after those of UTC;
                      0 or missing: with those of UTC
    misfiled:<day>    1: the day holds rows by their UTC days, and has to be pulled again

In another order of pulls than that of `misfiled`, rows could be in two days for a while.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from engine.dataset.dataset import Dataset
from engine.dataset.table import DayContents
from engine.model.day_borders import CHANGE, SECONDS, UTC
from engine.model.window import DAY, Window
from engine.transform.columns import whole_seconds

MARK = "single:days"  # unlike the positions of flows it has no "/"
MISFILED = "misfiled:"
ORIGIN = 2 * SECONDS  # added because a version cannot be negative
SENTENCE = (
    "the project's days are not UTC days of `time`; from now on each day is asked for by itself"
)
SAID = "the project's days are not UTC days of `time`, so each day is asked for by itself."


def begin(dataset: Dataset) -> int:
    """Return how many seconds after a UTC day those of the project begin, or UTC."""
    noted = dataset.position(MARK)
    return noted - ORIGIN if noted else UTC


def misfiled(dataset: Dataset, days: Collection[date] | None = None) -> list[date]:
    """Return those of `days`, or of all, that have to be pulled again, in that order."""
    found = begin(dataset)
    if not found:
        return []
    known = dataset.positions
    if known:
        names = (name for name, value in known.items() if value and name.startswith(MISFILED))
        noted = {date.fromisoformat(name.removeprefix(MISFILED)) for name in names}
    else:  # only deltalake can read them, one at a time
        held = {each for day in dataset.days() for each in (day - DAY, day, day + DAY)}
        noted = {day for day in held if dataset.position(f"{MISFILED}{day}")}
    return sorted(noted if days is None else noted.intersection(days), reverse=found > UTC)


def found(dataset: Dataset, begins: int, *, arrives: bool) -> dict[str, int]:
    """Return the marks to set once it is found how days begin: all days held are misfiled.

    `arrives`: the table is filled by arrival windows, and the neighbouring days are misfiled too.
    """
    held = dataset.days()
    neighbours = {day + DAY if begins < UTC else day - DAY for day in held if arrives}
    return {MARK: ORIGIN + begins} | {f"{MISFILED}{day}": 1 for day in sorted(held | neighbours)}


def after(dataset: Dataset, window: Window, begins: int) -> dict[str, int]:
    """Return the marks that the commit of a window of days sets.

    `begins`: when the project's days begin by the rows of the window; UTC if they do not show it.
    """
    if window.arrival:
        return {}
    noted = {MARK: ORIGIN + begins} if begins and not begin(dataset) else {}
    noted |= dict.fromkeys((f"{MISFILED}{day}" for day in window.days), 0)
    return {name: value for name, value in noted.items() if (dataset.position(name) or 0) != value}


def is_alone(dataset: Dataset, window: Window) -> bool:
    """Whether the table holds no day except the single one of `window`."""
    return len(window.days) == 1 and dataset.days() <= set(window.days)


def own_rows(
    dataset: Dataset,
    held: Mapping[date, DayContents],
    keys: Callable[[], Sequence[tuple[str, ...]]],
) -> Mapping[date, DayContents]:
    """Return `held`, counting of a misfiled day only the rows well within the project's day.

    The other rows belong, or may belong, to the neighbouring day: to drop them is no loss (P5).
    `keys` returns the columns of the four parts of the key; without a time no row counts.
    """
    again, begins = misfiled(dataset, held.keys()), begin(dataset)
    if not again:
        return held
    columns, found = keys(), dict(held)
    for day in again:
        first = (day - date(1970, 1, 1)).days * SECONDS + begins
        parts = dataset.read(day, [columns[2]]) if columns else ()
        found[day] = replace(held[day], rows=sum(_within(part[0], first) for part in parts))
    return found


def _within(times: Any, first: int) -> int:
    """Return how many of `times` lie well within the day that begins at the second `first`."""
    times = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.timestamp("ms", times.type.tz)).cast(pa.int64())
    seconds = whole_seconds(times.drop_null())
    if seconds is None:
        return 0
    within = (seconds >= first + CHANGE) & (seconds < first + SECONDS - CHANGE)
    return int(np.count_nonzero(within))
