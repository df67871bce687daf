"""Keeps the records that Mixpanel processed within the span of a window. Pure.

The request asks for that span already, and the answer is not taken on trust: a record in two
windows would be doubled, and one in none would be lost (P4, P3).
"""

from typing import Any

import numpy as np
import pyarrow as pa

from engine.batch import KEYS, Batch
from engine.window import Window

PROCESSED = 1 + KEYS.index("mp_processing_time_ms")  # its place in `Batch.keys`


def keep_within(batch: Batch, window: Window) -> int:
    """Drop from a mapped `batch` what lies outside the window's span; how many those were."""
    start, end = window.arrival or (-np.inf, window.before)
    if end is None:
        return 0
    values = batch.keys[PROCESSED]
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    moments = np.array([_moment(value) for value in values], np.float64)
    within = (moments >= start) & (moments < end)
    if not window.arrival:
        within |= np.isnan(moments)  # what has no moment is as old as can be
    outside = len(within) - int(np.count_nonzero(within))
    if outside:
        batch.keep(within)
    return outside


def _moment(value: Any) -> float:
    """When it was processed, in ms, as `number(…)` of a filter reads it; NaN if it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return np.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return np.nan
