"""The table changes by commit only, and a crash at any line of a commit leaves it true."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as arrow_dataset
import pytest
from deltalake import DeltaTable

from engine import dataset as module
from engine.batch import Batch
from engine.dataset import Dataset, local_path
from engine.errors import DatasetError, InputError, Shrunk
from engine.stages.writer import StagedBatch, Writer

SCHEMA = pa.schema(
    [
        ("_extconndev", pa.struct([("name", pa.string()), ("n", pa.int64())])),
        ("unmapped", pa.string()),
        ("event_date", pa.date32()),
    ]
)
SOURCE = {"project_id": 1, "events": [], "where": None}
DAY, NEXT = date(2024, 1, 1), date(2024, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "table"


@pytest.fixture
def table(root: Path) -> Iterator[Dataset]:
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        dataset.create()
        yield dataset


def stage(dataset: Dataset, batch_id: str, values: list[int], day: date = DAY) -> StagedBatch:
    writer = Writer(dataset.staging(batch_id), batch_id, SCHEMA)
    rows = pa.array([{"name": "x", "n": n} for n in values], SCHEMA.field(0).type)
    empty = pa.nulls(len(values), pa.string())
    days = pa.array([day] * len(values), pa.date32())
    none = [None] * len(values)
    writer.write(
        Batch(
            table=pa.RecordBatch.from_arrays([rows, empty, days], schema=SCHEMA),
            keys=[none] * 5,
        )
    )
    staged = writer.finish()
    writer.close()
    return staged


def put(dataset: Dataset, batch_id: str, values: list[int], version: int, day: date = DAY) -> None:
    staged = stage(dataset, batch_id, values, day)
    dataset.commit(batch_id, staged.files, dataset.held([day]), {f"f/{day}": version}, batch_id)
    dataset.discard(batch_id)


def by_delta(root: Path) -> list[int]:
    return sorted(
        row["_extconndev"]["n"] for row in DeltaTable(root).to_pyarrow_table().to_pylist()
    )


def by_glob(root: Path) -> list[int]:
    files = [str(path) for path in root.glob("event_date=*/*.parquet")]
    if not files:
        return []
    return sorted(
        row["_extconndev"]["n"] for row in arrow_dataset.dataset(files).to_table().to_pylist()
    )


def test_a_day_is_replaced_for_every_reader(table: Dataset, root: Path) -> None:
    """P4: a second pull of a day replaces what the first one put there, in log and directory."""
    put(table, "A", [1, 2, 3], 10)
    put(table, "B", [7], 10, NEXT)
    put(table, "C", [1, 2, 4], 11)
    assert by_delta(root) == by_glob(root) == [1, 2, 4, 7]
    assert table.position(f"f/{DAY}") == 11
    assert table.held([DAY, NEXT])[DAY].rows == 3


def test_an_empty_day_is_a_commit_too(table: Dataset, root: Path) -> None:
    """A day without events leaves its position, so that it is not asked for again."""
    put(table, "A", [], 5)
    assert table.position(f"f/{DAY}") == 5
    assert by_delta(root) == []


def test_a_shrunken_day_is_refused(table: Dataset) -> None:
    """P5: fewer than the tolerated share of the rows held raises, naming day and counts."""
    put(table, "A", list(range(100)), 1)
    held = table.held([DAY])
    table.check_shrink(held, stage(table, "B", list(range(90))).files, 90)
    with pytest.raises(Shrunk, match=r"2024-01-01 holds 100 rows and would hold 89"):
        table.check_shrink(held, stage(table, "C", list(range(89))).files, 90)
    with pytest.raises(Shrunk, match=r"would hold 0"):
        table.check_shrink(held, [], 90)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def steps() -> dict[str, str]:
    """What a commit does to the outside, in order; a crash may come before or after each."""
    return {
        "intent written": "_write_synced",
        "files moved": "_move_in",
        "logged": "_log",
        "settled": "_settle",
    }


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", steps())
def test_killed_at_any_step(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    """P2: whatever the step at which a commit dies, the next start has the old or the new rows."""
    first = Dataset(root, SCHEMA, SOURCE)
    with first.locked():
        first.create()
        put(first, "A", [1, 2], 1)
        staged = stage(first, "B", [3, 4, 5])
        held = first.held([DAY])
        name = steps()[step]
        owner: Any = module if name == "_write_synced" else Dataset
        real: Callable[..., Any] = getattr(owner, name)
        dead = False

        def fatal(*arguments: Any) -> Any:
            nonlocal dead
            if not dead and moment == "after":
                real(*arguments)
            dead = True
            raise Killed

        def nothing(*_: Any) -> bool:
            raise Killed

        monkeypatch.setattr(owner, name, fatal)
        if name != "_settle":
            monkeypatch.setattr(Dataset, "_settle", nothing)
        with pytest.raises(Killed):
            first.commit("B", staged.files, held, {f"f/{DAY}": 2}, "record of B")
    monkeypatch.undo()

    again = Dataset(root, SCHEMA, SOURCE)
    with again.locked():
        committed = again.position(f"f/{DAY}") == 2
        assert committed is (
            (step, moment) in {("logged", "after"), ("settled", "before"), ("settled", "after")}
        )
        assert by_delta(root) == by_glob(root) == ([3, 4, 5] if committed else [1, 2])
        assert again.unreported == ([("B", "record of B")] if committed else [])
        again.discard("B")
        assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]


def test_two_processes(table: Dataset, root: Path) -> None:
    """The second process says who holds the dataset; a lock of a dead process is no obstacle."""
    second = Dataset(root, SCHEMA, SOURCE)
    held = pytest.raises(DatasetError, match=f"in use by process {os.getpid()}")
    with held, second.locked():
        pass


def test_the_lock_dies_with_its_process(root: Path) -> None:
    """kill -9 of the holder frees the dataset at once."""
    code = (
        "import sys, pathlib, pyarrow as pa, os, signal\n"
        "from tests.test_dataset import SCHEMA, SOURCE\n"
        "from engine.dataset import Dataset\n"
        f"with Dataset(pathlib.Path({str(root)!r}), SCHEMA, SOURCE).locked():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False
    )
    assert done.returncode < 0
    with Dataset(root, SCHEMA, SOURCE).locked():
        assert (root / "_staging" / "lock").read_text() == str(os.getpid())


def test_superseded_files_are_kept_for_a_while(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With time travel asked for, replaced files stay until their hours are over."""
    put(table, "A", [1], 1)
    staged = stage(table, "B", [2])
    table.commit("B", staged.files, table.held([DAY]), {f"f/{DAY}": 2}, None, 2)
    table.discard("B")
    assert by_delta(root) == [2]
    assert by_glob(root) == [1, 2]
    past = DeltaTable(root, version=1).to_pyarrow_table().to_pylist()
    assert [row["_extconndev"]["n"] for row in past] == [1]
    monkeypatch.setattr("engine.dataset.time.time", lambda: 1e11)
    table._sweep()
    assert by_glob(root) == [2]
    assert list((root / "_superseded").iterdir()) == []


def test_places_that_are_no_dataset(tmp_path: Path) -> None:
    """A file, a directory with other things in it, another scheme: a sentence each."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Dataset(tmp_path / "file", SCHEMA, SOURCE)
    with pytest.raises(InputError, match=r"not empty \(it holds thesis.txt\)"):
        Dataset(tmp_path / "full", SCHEMA, SOURCE)
    with pytest.raises(InputError, match="s3:// is not supported"):
        local_path("s3://bucket/events")
    assert local_path("file:///a%20b") == Path("/a b")


def test_another_schema_or_source(table: Dataset, root: Path) -> None:
    """An existing table with other columns or other events is refused, with every difference."""
    other = pa.schema(
        [
            ("_extconndev", pa.struct([("n", pa.string()), ("new", pa.bool_())])),
            *list(SCHEMA)[1:],
        ]
    )
    with pytest.raises(InputError) as caught:
        Dataset(root, other, SOURCE)
    message = str(caught.value)
    assert "the table has _extconndev.name (string)" in message
    assert "the schema has _extconndev.new (boolean)" in message
    assert "_extconndev.n is long in the table and string in the schema" in message
    with pytest.raises(InputError, match="One table mirrors one source"):
        Dataset(root, SCHEMA, SOURCE | {"project_id": 2})


def test_what_stands_in_the_log(table: Dataset, root: Path) -> None:
    """The commit names the batch, and gives readers row counts and bounds to skip files by."""
    put(table, "A", [5, 9], 1)
    log = (root / "_delta_log" / f"{1:020}.json").read_text()
    entry = [json.loads(line) for line in log.splitlines()]
    added = next(action["add"] for action in entry if "add" in action)
    assert added["path"] == f"event_date={DAY}/A-0.parquet"
    stats = json.loads(added["stats"])
    assert stats["numRecords"] == 2
    assert stats["minValues"]["_extconndev"]["n"] == 5
    assert stats["maxValues"]["_extconndev"]["n"] == 9
    assert next(a["commitInfo"] for a in entry if "commitInfo" in a)["batchId"] == "A"
