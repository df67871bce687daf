"""Count events of a whole-day pull that arrival windows should have brought before."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow.compute as pc

from engine.dataset import positions
from engine.dataset.dataset import Dataset
from engine.dataset.key_hashes import fingerprints
from engine.dataset.positions import START, app_id
from engine.dataset.table import DayContents
from engine.model import schedule
from engine.model.flow import Flow
from engine.model.window import Window, day_over
from engine.sync.pull import StagedRun


def count(
    flow: Flow,
    dataset: Dataset,
    window: Window,
    staged: StagedRun,
    held: Mapping[date, DayContents],
) -> int:
    """Count the events that are new to the table although an arrival window should have had them.

    An event counts if it has an `$insert_id`, and Mixpanel processed it after the first arrival
    window began, at most `lookback_days` after its day, and earlier than the overlap before the
    high watermark. Events of undone days do not count: arrival windows may have brought them. Uses
    8 bytes of memory a row of the table (P6).
    """
    start = dataset.position(app_id(flow, START))
    if start is None or window.before is None or not staged.keys:
        return 0
    found, undone = 0, positions.undone(flow, dataset, window.days)
    for day, there in held.items():
        files = [file.path for file in staged.files if file.day == day]
        if not there.rows or not files or day in undone:
            continue
        late = day_over(day, flow.connection.zone) + flow.lookback_days * schedule.FULL_DAY
        until = min(late, window.before - flow.overlap_minutes * schedule.MINUTE)
        keys = staged.keys[:-1]
        known = _fingerprints(dataset.read(day, keys))
        for columns in dataset.read_files([staged.directory / path for path in files], staged.keys):
            found += _new(columns, known, start, until)
    return found


def _new(columns: list[Any], known: Any, start: int, until: int) -> int:
    """Count the rows that are not among `known` and were processed from `start` to `until` (ms)."""
    *keys, moments = columns
    due = pc.and_(pc.greater_equal(moments, start), pc.less(moments, until))
    due = pc.and_(due, keys[3].is_valid()).fill_null(False).to_numpy(zero_copy_only=False)
    return int(np.count_nonzero(due & ~np.isin(fingerprints(keys), known)))


def _fingerprints(parts: Iterable[list[Any]]) -> Any:
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *map(fingerprints, parts)]))
