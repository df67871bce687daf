"""Keeps the records that Mixpanel processed within the span of a window. Pure.

The request asks for that span already, and the answer is not taken on trust: a record in two
windows would be doubled, and one in none would be lost (P4, P3). Where a window overlaps the one
before it, what comes from there is `early`: the table has it, or it was seen too late.
"""

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from engine.model.batch import KEYS, Batch, Reject, leaf
from engine.model.window import Window

NAME = "mp_processing_time_ms"
PROCESSED = 1 + KEYS.index(NAME)  # its place in `Batch.keys`
DIGITS = 20  # at most, of a moment that is looked for in a line that cannot be decoded
_MARK = f'"{NAME}"'.encode()


def filter_by_arrival(batch: Batch, window: Window) -> int:
    """Drop from a mapped `batch` what lies outside the window's span; how many those were.

    Notes which of the others are `early`.
    """
    start, end = window.requested or (-np.inf, window.before)
    if end is None:
        return 0
    moments = _moments(batch)
    within = (moments >= start) & (moments < end)
    if not window.arrival:
        within |= np.isnan(moments)  # what has no moment is as old as can be
    outside = len(within) - int(np.count_nonzero(within))
    if outside:
        batch.keep(within)
    if start < window.known_until:
        batch.early = moments[within] < window.known_until
    return outside


def leave_out(batch: Batch, window: Window, keys: list[tuple[str, ...]]) -> int:
    """Drop from a checked `batch` what is early and cannot be compared with the table; how many.

    `keys`: where the table keeps the four parts of the key. Without one of them, as without
    `$insert_id`, nobody can tell whether the table has the record; and a line that is rejected was
    rejected before, or it is shown late. Both are left to the pull of its whole day, which has
    them all (P3).
    """
    early = batch.early
    if not len(early) or batch.table is None:
        return 0
    table = batch.table
    if keys:
        event, _, time, insert_id = (leaf(table, path) for path in keys)
        there = pc.and_(pc.and_(event.is_valid(), time.is_valid()), insert_id.is_valid())
        kept = ~early | there.to_numpy(zero_copy_only=False)
    else:
        kept = ~early
    out = len(kept) - int(np.count_nonzero(kept))
    if out:
        batch.keep(kept)
    return out


def early_keys(batch: Batch, keys: list[tuple[str, ...]]) -> list[pa.Array]:
    """The keys of all records of a checked `batch` as the table holds them, and their moments."""
    assert batch.table is not None
    moments = pa.array(_moments(batch), pa.float64())
    return [*(leaf(batch.table, path) for path in keys), moments]


def is_early(reject: Reject, window: Window) -> bool:
    """Whether a rejected line was processed before what the window brings for the first time.

    That of a line which nobody can decode is what stands behind the property's name in it.
    """
    if not window.arrival or (window.requested or (0, 0))[0] >= window.known_until:
        return False
    try:
        moment = _moment(orjson.loads(reject.raw)["properties"][NAME])
    except (ValueError, LookupError, TypeError):
        behind = reject.raw.partition(_MARK)[2][: 2 * DIGITS].lstrip(b' \t:"')
        digits = behind[: len(behind) - len(behind.lstrip(b"0123456789"))]
        moment = _moment(digits.decode())
    return moment < window.known_until


def _moments(batch: Batch) -> Any:
    """When each record was processed, in ms; NaN where it does not say."""
    values = batch.keys[PROCESSED]
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    return np.array([_moment(value) for value in values], np.float64)


def _moment(value: Any) -> float:
    """When it was processed, in ms, as `number(…)` of a filter reads it; NaN if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return np.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return np.nan
