"""What the table remembers of a project whose days are not UTC days of `time`.

Such a project is asked for one day at a time, and each row is filed under the day that was asked
for. Two kinds of app transactions say so, of the table and so for every flow of it:

    single:days       when its days begin: seconds after UTC's, and ORIGIN; 0 or none: with UTC's
    misfiled:<day>    1: the day holds rows by their UTC days, and has to be pulled again

Which of the misfiled days comes first matters: in the other order, what lies at the border of two
days would be in both of them until the second has come.
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

MARK = "single:days"  # no position of a flow: those have a "/"
MISFILED = "misfiled:"
ORIGIN = 2 * SECONDS  # a version is no negative number
SENTENCE = (
    "the project's days are not UTC days of `time`; from now on each day is asked for by itself"
)
SAID = "the project's days are not UTC days of `time`, so each day is asked for by itself."


def begin(dataset: Dataset) -> int:
    """How many seconds after a UTC day those of the table's project begin, or UTC."""
    noted = dataset.position(MARK)
    return noted - ORIGIN if noted else UTC


def misfiled(dataset: Dataset, days: Collection[date] | None = None) -> list[date]:
    """Those of `days`, or of all, that have to be pulled again; the first one first."""
    found = begin(dataset)
    if not found:
        return []
    known = dataset.positions
    if known:
        names = (name for name, value in known.items() if value and name.startswith(MISFILED))
        noted = {date.fromisoformat(name.removeprefix(MISFILED)) for name in names}
    else:  # only deltalake can tell, of one name at a time
        held = {each for day in dataset.days() for each in (day - DAY, day, day + DAY)}
        noted = {day for day in held if dataset.position(f"{MISFILED}{day}")}
    return sorted(noted if days is None else noted.intersection(days), reverse=found > UTC)


def found(dataset: Dataset, begins: int, *, arrives: bool) -> dict[str, int]:
    """What to note once it is known how days begin: all that the table holds is misfiled.

    `arrives`: its rows came by arrival, and so also those of the day beside: it has to have them.
    """
    held = dataset.days()
    existing_keys = {day + DAY if begins < UTC else day - DAY for day in held if arrives}
    return {MARK: ORIGIN + begins} | {f"{MISFILED}{day}": 1 for day in sorted(held | existing_keys)}


def after(dataset: Dataset, window: Window, begins: int) -> dict[str, int]:
    """What the commit of a window of days notes; `begins`: what its rows tell, UTC for nothing."""
    if window.arrival:
        return {}
    noted = {MARK: ORIGIN + begins} if begins and not begin(dataset) else {}
    noted |= dict.fromkeys((f"{MISFILED}{day}" for day in window.days), 0)
    return {name: value for name, value in noted.items() if (dataset.position(name) or 0) != value}


def is_alone(dataset: Dataset, window: Window) -> bool:
    """Whether the table holds no day but the one that `window` brings whole."""
    return len(window.days) == 1 and dataset.days() <= set(window.days)


def own_rows(
    dataset: Dataset,
    held: Mapping[date, DayContents],
    keys: Callable[[], Sequence[tuple[str, ...]]],
) -> Mapping[date, DayContents]:
    """`held`, with those rows alone of a misfiled day that lie well within the project's day.

    The others are, or may be, of the day beside: that they go is no loss (P5). `keys`: the columns
    of the four parts of the key. Where they do not tell the time of a row, none counts.
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
    """How many of `times` lie well within the day that begins at the second `first`."""
    times = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.timestamp("ms", times.type.tz)).cast(pa.int64())
    seconds = whole_seconds(times.drop_null())
    if seconds is None:
        return 0
    within = (seconds >= first + CHANGE) & (seconds < first + SECONDS - CHANGE)
    return int(np.count_nonzero(within))
