"""The folders of batches below `_batches`: those that say nothing of rejects go after a while.

Each batch leaves one, tens of thousands in a year. Their names are ULIDs, which tell their time: no
folder is looked into before it is old enough.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from ulid import ULID

DAY_MS = 86_400_000
MOST = 10_000  # folders at one time: the next day goes on
BATCH = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
INPUT = re.compile(r"fileMetaData[0-9]{1,9}\.json")
INPUTS = "input_files"


def tidy(folder: Path, keep_days: float, now: int) -> int:
    """Remove the old batches of `folder` that have no rejects (P3); how many.

    To be called by who holds the table's lock, at `now`, in ms. The first run of a day does it, as
    long as the newest batch is of the day before: at every other run names are listed, no more. Age
    is counted up to that newest batch, of those no later than now: a clock that is wrong once makes
    none of them older. It stays itself.
    """
    names = _names(folder)
    newest = max((name for name in names if name[:10] <= _time(now)), default=None)
    if newest is None:
        return 0
    until = ULID.from_str(newest).milliseconds
    if until // DAY_MS == now // DAY_MS:
        return 0
    oldest = _time(max(0, int(until - keep_days * DAY_MS)))
    old = sorted(name for name in names if name[:10] < oldest)
    removed = 0
    for name in old:
        if removed == MOST:
            break
        removed += _remove(folder / name)
    return removed


def _names(folder: Path) -> list[str]:
    """What this program named: not what others put there."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        return [entry.name for entry in found if BATCH.fullmatch(entry.name)]
    return []


def _time(moment: int) -> str:
    """How a ULID of that moment, in ms, begins: they are in the order of their times."""
    return str(ULID.from_timestamp(moment / 1000))[:10]


def _remove(batch: Path) -> bool:
    """Remove a batch that says no more than what was asked for; whether it did."""
    inputs = batch / INPUTS
    with suppress(OSError):  # what somebody else put there or holds stays: it does no harm
        if batch.is_symlink() or inputs.is_symlink() or {*batch.iterdir()} - {inputs}:
            return False
        for path in inputs.iterdir() if inputs.is_dir() else ():
            if INPUT.fullmatch(path.name):
                path.unlink()
        if inputs.is_dir():
            inputs.rmdir()
        batch.rmdir()
        return True
    return False
