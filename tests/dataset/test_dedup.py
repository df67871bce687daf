"""Duplicates are found by their keys, never by a hash alone."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset import dedup
from engine.dataset.dedup import Duplicates

Row = tuple[Any, Any, Any, Any, Any]
TEXT_OR_NONE = st.none() | st.sampled_from(["", "a", "a\n", "\x00", "Å", "12345678", "123456789"])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 3),
    st.just(2**70),
    st.sampled_from(["a", "b", "\ud83d", ""]),
    st.just([1]),
    st.just({"x": 1}),
)
rows = st.lists(
    st.tuples(
        st.sampled_from(["e", "f"]), scalars, scalars, scalars, st.one_of(st.none(), st.integers())
    ),
    max_size=60,
)


def lost(directory: Path, batches: Sequence[Sequence[Row]]) -> list[int]:
    found = Duplicates(directory)
    for batch in batches:
        found.add([list(column) for column in zip(*batch, strict=True)] or [[], [], [], [], []])
    mask = found.superseded()
    found.close()
    return [] if mask is None else mask.nonzero()[0].tolist()


def arrays(*columns: list[Any]) -> list[Any]:
    types = [pa.string(), pa.string(), pa.int64(), pa.string(), pa.int64()]
    return [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]


def brute_force(all_rows: Sequence[Row]) -> list[int]:
    """Mixpanel's rule without any optimisation: `repr` distinguishes True, 1 and "1"."""
    best: dict[str, int] = {}
    gone = []
    for index, row in enumerate(all_rows):
        if row[3] is None:
            continue
        key = repr(row[:4])
        held = best.setdefault(key, index)
        if held == index:
            continue
        old, new = all_rows[held][4], row[4]
        if (new if new is not None else -1) > (old if old is not None else -1):
            best[key] = index
            gone.append(held)
        else:
            gone.append(index)
    return sorted(gone)


@settings(deadline=None)
@given(st.lists(rows, max_size=5))
def test_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Row]]
) -> None:
    """Whatever the keys and the sizes of the batches, the result is that of Mixpanel's rule."""
    directory = tmp_path_factory.mktemp("keys")
    flat = [row for batch in batches for row in batch]
    assert lost(directory, batches) == brute_force(flat)


class Spooled:
    """Spooled rows with their keys among their columns."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[Any]] = {}  # by the number of its first row

    def read(self, rows: Any) -> Iterator[tuple[Any, list[Any]]]:
        for first, columns in self.blocks.items():
            part = rows[(rows >= first) & (rows < first + len(columns[0]))]
            if len(part):
                yield part, [column.take(pa.array(part - first)) for column in columns]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lists", "arrays", "spooled"]),
            st.lists(st.tuples(*[TEXT_OR_NONE] * 2), min_size=1, max_size=9),
        ),
        max_size=6,
    )
)
def test_the_form_of_the_keys_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[str, list[tuple[Any, Any]]]]
) -> None:
    """Keys may come as lists, as arrays, or be read from the spool: the duplicates are the same."""
    aside = Spooled()
    found = Duplicates(tmp_path_factory.mktemp("keys"), aside.read)
    flat: list[Row] = []
    for form, pairs in batches:
        block: list[Row] = [("e", user, 7, name, len(flat)) for user, name in pairs]
        columns = [list(column) for column in zip(*block, strict=True)]
        if form == "spooled":
            aside.blocks[len(flat)] = arrays(*columns)
        found.add(columns if form == "lists" else arrays(*columns), spooled=form == "spooled")
        flat += block
    mask = found.superseded()
    found.close()
    assert ([] if mask is None else mask.nonzero()[0].tolist()) == brute_force(flat)


@settings(deadline=None)
@given(st.lists(rows, max_size=5))
def test_columns_and_digests_agree(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Row]]
) -> None:
    """To compare keys by columns gives what to compare their digests gives."""
    at_once = lost(tmp_path_factory.mktemp("keys"), batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Duplicates, "_compare_columns", lambda *_: False)
        assert lost(tmp_path_factory.mktemp("keys"), batches) == at_once


@pytest.mark.parametrize("kind", ["texts", "others"])
def test_processing_times_beyond_any_double(tmp_path: Path, kind: str) -> None:
    """An integer too large for a double counts as the latest moment, and raises nothing."""
    key = ("e", "u", 1 if kind == "texts" else 1.5, "x")
    assert lost(tmp_path, [[(*key, 10**400), (*key, 9)], [(*key, -(10**400))]]) == [1, 2]


def test_equal_hashes_of_different_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two events with the same hash and different keys both stay."""
    monkeypatch.setattr(dedup, "hash_keys", lambda ids, _: np.full(len(ids), 42, np.uint64))
    one, other = ("e", "u", 1, "x", 5), ("e", "u", 1, "y", 5)
    assert lost(tmp_path, [[one, other, one]]) == [2]


def test_the_last_processed_stays(tmp_path: Path) -> None:
    """Of equal keys the one with the largest processing time stays, at any place."""
    keys = ("e", "u", 1, "x")
    assert lost(tmp_path, [[(*keys, 5), (*keys, 9)], [(*keys, 7)]]) == [0, 2]


def test_more_suspects_than_fit_into_a_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: a day full of duplicates is compared slice by slice, with the same result."""
    monkeypatch.setattr(dedup, "SLICE", 10)
    monkeypatch.setattr(dedup, "READ", 7)
    flat: list[Row] = [("e", "u", n % 50, "x", n) for n in range(200)]
    assert lost(tmp_path, [flat[:90], flat[90:]]) == list(range(150))


def test_one_insert_id_for_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: one `$insert_id` and one time for a whole day are compared in several passes."""
    for name, value in {"SLICE": 200, "SIEVE": 1 << 10, "READ": 1 << 10}.items():
        monkeypatch.setattr(dedup, name, value)
    found = Duplicates(tmp_path)
    count, step = 10_000, 100
    for start in range(0, count, step):
        block = range(start, start + step)
        users = [f"u{n % (count - 1000)}" for n in block]
        found.add(arrays(["e"] * step, users, [7] * step, [""] * step, list(block)))
    tracemalloc.start()
    mask = found.superseded()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found.close()
    assert mask is not None
    assert mask.nonzero()[0].tolist() == list(range(1000))
    assert peak < 65 * count  # in a single turn it would be 93


@pytest.mark.parametrize("part", range(5))
def test_deeply_nested_values(tmp_path: Path, part: int) -> None:
    """A value nested as deeply as a decoder goes is no duplicate, and raises nothing."""
    nested: Any = []
    for _ in range(1015):
        nested = [nested]
    plain: Row = ("e", "u", 1, "x", 5)
    odd = list(plain)
    odd[part] = nested
    assert lost(tmp_path, [[plain, tuple(odd), tuple(odd), plain]]) == [3]


@pytest.mark.parametrize("share", [0, 10, 50])
def test_memory_for_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    """P6: while rows come, none of them is in memory; at the end 8 bytes each, and one slice."""
    for name, value in {"SLICE": 10_000, "SIEVE": 1 << 16, "READ": 1 << 15}.items():
        monkeypatch.setattr(dedup, name, value)
    count, step = 100_000, 4_000
    again = count * share // 100
    tracemalloc.start()
    found = Duplicates(tmp_path)
    for start in range(0, count, step):
        block = range(start, start + step)
        ids = [f"{n % (count - again):036}" for n in block]
        found.add(arrays(["e"] * step, ["u"] * step, [1] * step, ids, [1] * step))
        del ids
    held, _ = tracemalloc.get_traced_memory()
    assert held < count
    tracemalloc.reset_peak()
    mask = found.superseded()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found.close()
    assert (0 if mask is None else mask.sum()) == again
    assert peak < 8 * count + 32 * again + (3 << 20)


# Beside rows that a table has already ----------------------------------------------------


def lost_beside(directory: Path, new: Sequence[Row], known: Sequence[tuple[Any, ...]]) -> list[int]:
    """Return the rows of `new` that each other or the `known` keys of the table replace."""
    found = Duplicates(directory)
    found.add([list(column) for column in zip(*new, strict=True)])
    for start in range(0, len(known), 2):  # part by part
        part = [list(column) for column in zip(*known[start : start + 2], strict=True)]
        found.add_stored(arrays(*part, [0] * len(part[0]))[:4])
    mask = found.superseded()
    found.close()
    return [] if mask is None else np.flatnonzero(mask[: len(new)]).tolist()


def test_stored_rows_replace_new_ones(tmp_path: Path) -> None:
    """Stored rows replace new ones with an equal key, whenever those were processed."""
    new: list[Row] = [
        ("e", "d", 1, "i", 10**15),
        ("e", "d", 1, None, 5),
        ("e", "d", 2, "i", 5),
        ("e", 487, 3, "j", 5),  # a number: the table's column has it as a text
        ("f", "d", 1, "i", 5),
        ("e", "x", 1, "i", 5),
        ("e", "d", 4, "k", 5),
        ("e", "d", 4, "k", 9),
    ]
    known = [
        ("e", "d", 1, "i"),
        ("e", "d", 1, None),
        ("e", "487", 3, "j"),
        ("e", "d", 99, "i"),
        ("e", "z", 4, "k"),
    ]
    assert lost_beside(tmp_path / "a", new, known) == [0, 3, 6]
    assert lost_beside(tmp_path / "b", new, known[3:]) == [6]


def test_memory_for_stored_rows(tmp_path: Path) -> None:
    """P6: of the table's keys only those that may be equal to a new one are written down."""
    found = Duplicates(tmp_path)
    found.add([["e"], ["d"], [1], ["i7"], [5]])
    for start in range(0, 100_000, 10_000):
        ids = [f"i{number}" for number in range(start, start + 10_000)]
        count = [1] * len(ids)
        found.add_stored(arrays(["e"] * len(ids), ["d"] * len(ids), count, ids, count)[:4])
    assert (tmp_path / "hashes").stat().st_size <= 8 * 3
    mask = found.superseded()
    assert mask is not None
    assert mask[:1].tolist() == [True]
    found.close()
