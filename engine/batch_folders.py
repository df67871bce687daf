"""The folders of batches below `_batches`: those that say nothing of rejects go after a while.

Each batch leaves one, tens of thousands in a year. Their names are ULIDs, which tell their time: no
folder is looked into before it is old enough.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ulid import ULID

DAY_MS = 86_400_000
MARK = ".tidied"  # in `_batches`: when it was tidied last, in ms
MOST = 1000  # folders at one time: the next run goes on
BATCH = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
INPUT = re.compile(r"fileMetaData[0-9]{1,9}\.json")
INPUTS = "input_files"


def tidy(folder: Path, keep_days: float, now: int) -> int:
    """Remove the old batches of `folder` that have no rejects (P3); how many. Once a day.

    To be called by who holds the table's lock, at `now`, in ms. Age is counted up to the newest
    batch that is no later than now: a clock that is wrong once makes none of them older. That one
    stays.
    """
    if not folder.is_dir() or not _is_due(folder / MARK, now):
        return 0
    times = {name: ULID.from_str(name).milliseconds for name in _names(folder)}
    newest = max((time for time in times.values() if time <= now), default=0)
    oldest = newest - keep_days * DAY_MS
    removed = 0
    for name in sorted(name for name, time in times.items() if time < oldest):
        if removed == MOST:
            return removed
        removed += _remove(folder / name)
    (folder / MARK).write_text(str(now), encoding="ascii")
    return removed


def _is_due(mark: Path, now: int) -> bool:
    """A mark later than now was set by a clock that was wrong."""
    with suppress(FileNotFoundError, ValueError):
        return not 0 <= now - int(mark.read_text()) < DAY_MS
    return True


def _names(folder: Path) -> Iterator[str]:
    """What this program named: not what others put there."""
    return (path.name for path in folder.iterdir() if BATCH.fullmatch(path.name))


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
