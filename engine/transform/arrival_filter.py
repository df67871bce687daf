"""Filter records by processing time: only those within the span of a window stay. Pure.

The request names the same span, but a response may hold other records: a record in two windows
would be doubled, and one in no window would be lost (P4, P3). Records of the overlap with the
previous window are `early`: the table has them, or Mixpanel showed them late.
"""

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from engine.model.batch import KEYS, Batch, Reject, leaf
from engine.model.window import Window

NAME = "mp_processing_time_ms"
PROCESSED = 1 + KEYS.index(NAME)  # its index in `Batch.keys`
DIGITS = 20  # maximum length of a processing time in a line that cannot be decoded
_MARK = f'"{NAME}"'.encode()


def filter_by_arrival(batch: Batch, window: Window) -> int:
    """Drop the records of a mapped `batch` outside the window's span; return their number.

    Sets `batch.early` for the others.
    """
    start, end = window.requested or (-np.inf, window.before)
    if end is None:
        return 0
    moments = _moments(batch)
    within = (moments >= start) & (moments < end)
    if not window.arrival:
        within |= np.isnan(moments)  # a record without a processing time counts as old
    outside = len(within) - int(np.count_nonzero(within))
    if outside:
        batch.keep(within)
    if start < window.known_until:
        batch.early = moments[within] < window.known_until
    return outside


def leave_out(batch: Batch, window: Window, keys: list[tuple[str, ...]]) -> int:
    """Drop the early records of a checked `batch` that cannot be compared with the table.

    Returns their number. `keys`: the columns of the four parts of the key. Without one of them, as
    without `$insert_id`, it is unknown whether the table has the record: the pull of the whole day
    brings it (P3).
    """
    if not len(batch.early) or batch.table is None:
        return 0
    keep = ~batch.early
    if keys:
        event, _, time, insert_id = (leaf(batch.table, path) for path in keys)
        complete = pc.and_(pc.and_(event.is_valid(), time.is_valid()), insert_id.is_valid())
        keep |= complete.to_numpy(zero_copy_only=False)
    dropped = len(keep) - int(np.count_nonzero(keep))
    if dropped:
        batch.keep(keep)
    return dropped


def early_keys(batch: Batch, keys: list[tuple[str, ...]]) -> list[pa.Array]:
    """Return the key columns of a checked `batch`, then its processing times in ms."""
    assert batch.table is not None
    moments = pa.array(_moments(batch), pa.float64())
    return [*(leaf(batch.table, path) for path in keys), moments]


def is_early(reject: Reject, window: Window) -> bool:
    """Return whether a rejected line was processed within the overlap with the previous window.

    In a line that cannot be decoded, the processing time is the digits after the property's name.
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
    values = batch.keys[PROCESSED]
    if isinstance(values, pa.Array):
        values = values.to_pylist()
    return np.array([_moment(value) for value in values], np.float64)


def _moment(value: Any) -> float:
    """Return a number as Mixpanel's filter function `number(…)` reads it; NaN for other values."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return np.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return np.nan
