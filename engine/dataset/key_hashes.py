"""64-bit hashes of the keys of events, many rows at once."""

from collections.abc import Sequence
from json import dumps
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NO_HASH = 0  # of a row that is never a duplicate
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
DEEP = 250  # levels of nesting, about as many as orjson goes down

Hashes = npt.NDArray[np.uint64]
Keys = Sequence[Any]  # five parts, each a list of values or an Arrow array


def hash_keys(ids: Any, times: Any) -> Hashes:
    """Return a hash for each row, of its `$insert_id` and its time, in lists or Arrow arrays.

    NO_HASH for a row without `$insert_id`, or with one that is nested too deeply.
    """
    if not isinstance(ids, pa.Array):
        ids = _texts(ids)
        times = pa.array([t if type(t) is int and abs(t) < 1 << 63 else 0 for t in times])
    elif not pa.types.is_string(ids.type):
        ids = _texts(ids.to_pylist())
    numbers = np.zeros(len(ids), np.uint64)
    if pa.types.is_integer(times.type):
        numbers = times.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    hashes = _mix(_hash_texts(ids) * MULTIPLIER + numbers)
    hashes[hashes == NO_HASH] = 1
    if ids.null_count:
        hashes[ids.is_null().to_numpy(zero_copy_only=False)] = NO_HASH
    return hashes


def fingerprints(keys: Keys) -> Hashes:
    """Return a hash for each row of all four parts of the key, given as columns of the table."""
    event, distinct_id, time, insert_id = keys
    found = hash_keys(insert_id, time)
    for texts in (event, distinct_id):
        found = _mix(found * MULTIPLIER + _hash_texts(texts.cast(pa.string())))
    return found


def _texts(values: Sequence[Any]) -> pa.Array:
    """Return `values` as texts; other values, and texts that are no UTF-8, as their JSON."""
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return pa.array([None if v is None else _text(v) for v in values], pa.string())


def _text(value: Any) -> str | None:
    if isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value):
        return value
    return None if is_deep(value) else dumps(value, sort_keys=True)


def is_deep(value: Any) -> bool:
    """Whether `value` is nested too deeply to be compared, as `json` recurses."""
    level = [value]
    for _ in range(DEEP):
        level = [inner for inner in level if isinstance(inner, list | dict)]
        if not level:
            return False
        level = [
            v for inner in level for v in (inner.values() if isinstance(inner, dict) else inner)
        ]
    return True


def _hash_texts(texts: pa.Array) -> Hashes:
    """Return a hash for each text: all texts of one length at once, eight bytes at a time."""
    rows = len(texts)
    hashes = np.zeros(rows, np.uint64)
    if texts.null_count == rows:
        return hashes
    _, offsets_buffer, text_buffer = texts.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset :][: rows + 1].astype(np.int64)
    text = np.frombuffer(text_buffer, np.uint8) if text_buffer else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        padded = np.zeros((len(at), -(-length // 8) * 8), np.uint8)
        if len(at) == rows and length:
            padded[:, :length] = text[offsets[0] : offsets[-1]].reshape(rows, length)
        else:
            padded[:, :length] = text[offsets[at][:, None] + np.arange(length)]
        found = np.full(len(at), length, np.uint64)
        for word in padded.view(np.uint64).T:
            found = found * MULTIPLIER + word
        hashes[at] = found
    return hashes


def _mix(numbers: Hashes) -> Hashes:
    """Return numbers of which each bit depends on each bit of `numbers`."""
    numbers = (numbers ^ (numbers >> np.uint64(32))) * MULTIPLIER
    numbers = (numbers ^ (numbers >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return numbers ^ (numbers >> np.uint64(32))
