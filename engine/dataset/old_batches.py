"""Deletes the folders of old batches without rejects from `_batches` (P3).

There are tens of thousands in a year. Their names are ULIDs, which contain a time.
"""

from collections.abc import Iterator
from contextlib import suppress

from ulid import ULID

from engine.dataset import layout
from engine.dataset.storage.base import Storage

DAY_MS = 86_400_000
MOST = 10_000  # folders that one call deletes; the next day goes on


def clean_up(storage: Storage, keep_days: float, now: int) -> int:
    """Delete the batches without rejects that are older than `keep_days`; return their number.

    The caller holds the lock; `now` in ms since the epoch. Only the first run of a day deletes.
    Age is counted up to the newest batch that is not later than `now`, and that batch stays: a
    clock that is wrong once makes no batch older.
    """
    names = [
        entry.name
        for entry in storage.entries(layout.BATCHES)
        if entry.kind == "folder" and layout.is_batch_id(entry.name)
    ]
    newest = max((name for name in names if name[:10] <= _time(now)), default=None)
    if newest is None:
        return 0
    until = ULID.from_str(newest).milliseconds
    if until // DAY_MS == now // DAY_MS:
        return 0
    oldest = _time(max(0, int(until - keep_days * DAY_MS)))
    paths, count = list[str](), 0
    for name in sorted(name for name in names if name[:10] < oldest):
        if count == MOST:
            break
        with suppress(OSError):  # a folder that another program holds may stay
            if found := list(_files_to_delete(storage, layout.batch(name))):
                paths += found
                count += 1
    with suppress(OSError):
        storage.delete(paths)
    return count


def _time(moment: int) -> str:
    """Return the first ten letters, the time, of a ULID of that moment in ms."""
    return str(ULID.from_timestamp(moment / 1000))[:10]


def _files_to_delete(storage: Storage, folder: str) -> Iterator[str]:
    """Yield the paths to delete of a batch that holds only notes on its inputs."""
    entries = list(storage.entries(folder))
    if not entries:
        yield f"{folder}/"
    if [(entry.name, entry.kind) for entry in entries] != [(layout.INPUTS, "folder")]:
        return
    inputs = f"{folder}/{layout.INPUTS}"
    names = [entry.name for entry in storage.entries(inputs)]
    if all(map(layout.is_input_note, names)):
        yield from (f"{inputs}/{name}" for name in names)
        if not names:
            yield f"{folder}/"
