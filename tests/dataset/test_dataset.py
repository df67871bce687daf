"""A table changes only by commits, and a crash at any line of a commit leaves old or new rows."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as arrow_dataset
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from ulid import ULID

from engine.dataset.dataset import Dataset
from engine.dataset.parquet_writer import StagedBatch, Writer
from engine.dataset.storage.local import LocalStorage, local_path
from engine.errors import DatasetError, InputError, ShrinkDetected
from engine.model.batch import Batch

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
def table(root: Path) -> Iterator[Dataset]:
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        dataset.create()
        yield dataset


def stage_days(dataset: Dataset, batch_id: str, days: dict[date, list[int]]) -> StagedBatch:
    writer = Writer(dataset.staging(batch_id), batch_id, SCHEMA)
    for day, values in days.items():
        rows = pa.array([{"name": "x", "n": n} for n in values], SCHEMA.field(0).type)
        columns = [rows, pa.nulls(len(values), pa.string())]
        columns.append(pa.array([day] * len(values), pa.date32()))
        table = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        writer.write(Batch(table=table, keys=[[None] * len(values)] * 5))
    staged = writer.finish()
    writer.close()
    return staged


def stage(dataset: Dataset, batch_id: str, values: list[int], day: date = DAY) -> StagedBatch:
    return stage_days(dataset, batch_id, {day: values})


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


def test_an_empty_day_is_committed_too(table: Dataset, root: Path) -> None:
    """A day without events leaves its position, so that no request is made for it again."""
    put(table, "A", [], 5)
    assert table.position(f"f/{DAY}") == 5
    assert by_delta(root) == []


def test_a_day_that_shrank_is_refused(table: Dataset) -> None:
    """P5: fewer than the tolerated share of its rows raise ShrinkDetected with day and counts."""
    put(table, "A", list(range(100)), 1)
    held = table.held([DAY])
    table.check_shrink(held, stage(table, "B", list(range(90))).files, 90)
    with pytest.raises(ShrinkDetected, match=r"2024-01-01 holds 100 rows and would hold 89"):
        table.check_shrink(held, stage(table, "C", list(range(89))).files, 90)
    with pytest.raises(ShrinkDetected, match=r"would hold 0"):
        table.check_shrink(held, [], 90)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def steps() -> dict[str, str]:
    """The steps of a commit that change files, in order; a crash may come before or after each."""
    return {
        "intent written": "write",
        "files moved": "_publish",
        "logged": "_write_log",
        "commit_and_sweep": "_recover",
    }


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", steps())
def test_killed_at_any_step_of_a_commit(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    """P2: after a crash at any step of a commit, the next start has the old or the new rows."""
    first = Dataset(root, SCHEMA, SOURCE)
    with first.locked():
        first.create()
        put(first, "A", [1, 2], 1)
        staged = stage(first, "B", [3, 4, 5])
        held = first.held([DAY])
        name = steps()[step]
        owner: Any = LocalStorage if name == "write" else Dataset
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
        if name != "_recover":
            monkeypatch.setattr(Dataset, "_recover", nothing)
        with pytest.raises(Killed):
            first.commit("B", staged.files, held, {f"f/{DAY}": 2}, "record of B")
    monkeypatch.undo()

    again = Dataset(root, SCHEMA, SOURCE)
    with again.locked():
        committed = again.position(f"f/{DAY}") == 2
        assert committed is (
            (step, moment)
            in {("logged", "after"), ("commit_and_sweep", "before"), ("commit_and_sweep", "after")}
        )
        assert by_delta(root) == by_glob(root) == ([3, 4, 5] if committed else [1, 2])
        assert again.unreported == ([("B", "record of B")] if committed else [])
        again.discard("B")
        assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]


def test_a_second_process_is_refused(table: Dataset, root: Path) -> None:
    """The second process gets a sentence that names the process with the lock."""
    second = Dataset(root, SCHEMA, SOURCE)
    held = pytest.raises(DatasetError, match=f"in use by process {os.getpid()}")
    with held, second.locked():
        pass


def test_kill_frees_the_lock(root: Path) -> None:
    """kill -9 of the process with the lock frees the dataset at once."""
    code = (
        "import sys, pathlib, pyarrow as pa, os, signal\n"
        "from tests.dataset.test_dataset import SCHEMA, SOURCE\n"
        "from engine.dataset.dataset import Dataset\n"
        f"with Dataset(pathlib.Path({str(root)!r}), SCHEMA, SOURCE).locked():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode < 0
    with Dataset(root, SCHEMA, SOURCE).locked():
        assert (root / "_staging" / "lock").read_text() == str(os.getpid())


def test_superseded_files_stay_for_their_hours(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `keep_superseded_hours`, replaced files stay until their hours are over."""
    put(table, "A", [1], 1)
    staged = stage(table, "B", [2])
    table.commit("B", staged.files, table.held([DAY]), {f"f/{DAY}": 2}, None, 2)
    table.discard("B")
    assert by_delta(root) == [2]
    assert by_glob(root) == [1, 2]
    past = DeltaTable(root, version=1).to_pyarrow_table().to_pylist()
    assert [row["_extconndev"]["n"] for row in past] == [1]
    monkeypatch.setattr("engine.dataset.dataset.time.time", lambda: 1e11)
    table._sweep()
    assert by_glob(root) == [2]
    assert not list(root.glob("_superseded/*"))


def test_superseded_files_of_a_clock_that_was_ahead(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that a clock noted a year ahead stay for their hours, not for the year."""
    ahead = time.time() + 366 * 86_400
    batch = str(ULID.from_timestamp(ahead))
    put(table, str(ULID()), [1], 1)
    monkeypatch.setattr("engine.dataset.dataset.time.time", lambda: ahead)
    staged = stage(table, batch, [2])
    table.commit(batch, staged.files, table.held([DAY]), {f"f/{DAY}": 2}, None, 2)
    table.discard(batch)
    for hours, left in ((0, [1, 2]), (1, [1, 2]), (3, [2])):
        now = ahead - 366 * 86_400 + hours * 3600
        monkeypatch.setattr("engine.dataset.dataset.time.time", partial(float, now))
        table._sweep()
        assert by_glob(root) == left


def test_places_that_cannot_be_a_dataset(tmp_path: Path) -> None:
    """A root that is a file, is not empty, or has another URI scheme is refused."""
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


def test_another_schema_or_source_is_refused(table: Dataset, root: Path) -> None:
    """The error lists every column that differs, or names both sources."""
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


def test_the_log_entry_of_a_commit(table: Dataset, root: Path) -> None:
    """A commit names its batch, and has row counts and bounds by which readers skip files."""
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


# A table that is not there yet ---------------------------------------------------------------


@pytest.mark.parametrize(
    "left",
    [
        [],
        [f"{0:020}.json#1"],
        [f"{0:020}.json#1", f"{0:020}.json#2"],
        [f"{0:020}.checkpoint.parquet#1", "_last_checkpoint#1"],
    ],
    ids=lambda left: ", ".join(name.lstrip("0") for name in left) or "empty",
)
def test_a_log_without_a_table(root: Path, left: list[str]) -> None:
    """P2: what deltalake leaves when it is killed while it makes the table is no obstacle."""
    (root / "_delta_log").mkdir(parents=True)
    for name in left:
        (root / "_delta_log" / name).write_text('{"commitInfo"')
    dataset = Dataset(root, SCHEMA, SOURCE)
    assert dataset.position(f"f/{DAY}") is None
    with dataset.locked():
        dataset.create()
        put(dataset, "A", [1, 2], 1)
    assert by_delta(root) == by_glob(root) == [1, 2]
    names = sorted(path.name for path in (root / "_delta_log").iterdir())
    assert names == [f"{0:020}.json", f"{1:020}.json"]


def test_killed_while_the_table_is_made(root: Path) -> None:
    """If the kernel kills a process while it writes version 0, the next process makes the table."""
    code = (
        "import sys, pathlib, resource, signal\n"
        "from tests.dataset.test_dataset import SCHEMA, SOURCE\n"
        "from engine.dataset.dataset import Dataset\n"
        f"dataset = Dataset(pathlib.Path({str(root)!r}), SCHEMA, SOURCE)\n"
        "with dataset.locked():\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "    dataset.create()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode < 0
    assert [path.name for path in (root / "_delta_log").iterdir()] == [f"{0:020}.json#1"]
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        dataset.create()
        put(dataset, "A", [1], 1)
    assert by_delta(root) == [1]


@pytest.mark.parametrize("name", ["_delta_log/notes.json", "thesis.txt", "event_date=2024-01-01"])
def test_a_log_without_a_table_beside_other_files(root: Path, name: str) -> None:
    """A directory with other files is refused, although it has a log without a table."""
    (root / "_delta_log").mkdir(parents=True)
    (root / name).write_text("x")
    with pytest.raises(InputError, match=rf"not empty \(it holds {name}\)"):
        Dataset(root, SCHEMA, SOURCE)
    assert (root / name).exists()


# A disk that is full -------------------------------------------------------------------------

# What deltalake 1.6 says on a full disk: of the log entry, and of the checkpoint after it.
NO_ENTRY = (
    "Generic LocalFileSystem error\n          \x1b[31m↳\x1b[0m Unable to copy data to file\n"
    "           \x1b[31m↳\x1b[0m No space left on device (os error 28)\n"
)
NO_CHECKPOINT = (
    "Kernel error: Arrow error: External: Generic LocalFileSystem error: Unable to copy data to "
    "file: No space left on device (os error 28)"
)


class FullDisk:
    """A disk with room for `room` more steps; `taken` lists the steps that were tried."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int) -> None:
        self.taken: list[str] = []
        self._room = room
        for owner, name in [
            (Path, "open"),
            (Path, "mkdir"),
            (Path, "rename"),
            (os, "fsync"),
            (os, "link"),
        ]:
            patch.setattr(owner, name, self._limited(name, getattr(owner, name)))
        real = DeltaTable.create_write_transaction

        def log(*arguments: Any, **options: Any) -> None:
            self._step("entry", OSError(NO_ENTRY))
            real(*arguments, **options)
            self._step("checkpoint", DeltaError(NO_CHECKPOINT))

        patch.setattr(DeltaTable, "create_write_transaction", log)

    def _limited(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            reads = name == "open" and "w" not in [*arguments[1:2], options.get("mode")]
            if not reads:
                self._step(name, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            return real(*arguments, **options)

        return step

    def _step(self, name: str, error: Exception) -> None:
        self.taken.append(name)
        if len(self.taken) > self._room:
            raise error


INTENT = ["open", "fsync", "rename", "fsync"]
MOVED = [
    "fsync",
    *["mkdir", "rename"] * 3,
    *["fsync"] * 4,
]  # two days and what the batch has to say, which is synced before; the root
LOGGED = [*INTENT, *MOVED, "entry", "checkpoint", "fsync", "fsync"]
COMMIT = [*LOGGED, "fsync"]  # a file is deleted
KEPT = [*LOGGED, "mkdir", "fsync", *INTENT]


@pytest.mark.parametrize(
    ("keep", "steps", "room"),
    [(0, COMMIT, room) for room in range(len(COMMIT) + 1)]
    + [(2, KEPT, room) for room in range(len(LOGGED), len(KEPT) + 1)],
)
def test_a_disk_full_at_any_step_of_a_commit(
    root: Path, monkeypatch: pytest.MonkeyPatch, keep: int, steps: list[str], room: int
) -> None:
    """P2: a disk that fills at any step leaves the old or the new rows, and a sentence says so.

    A commit with room for every one of `steps` succeeds, so that none of them is left out.
    """
    first = Dataset(root, SCHEMA, SOURCE)
    with first.locked():
        first.create()
        put(first, "A", [1, 2], 1)
        staged = stage_days(first, "B", {DAY: [3, 4, 5], NEXT: [6]})
        (root / "_staging" / "B" / "batch").mkdir(exist_ok=True)
        held, positions = first.held([DAY, NEXT]), {f"f/{DAY}": 2, f"f/{NEXT}": 1}
        disk = FullDisk(monkeypatch, room)
        if room < len(steps):
            with pytest.raises(DatasetError, match=r"^Cannot .*: the disk is full; make room"):
                first.commit("B", staged.files, held, positions, "record of B", keep)
        else:
            first.commit("B", staged.files, held, positions, "record of B", keep)
        monkeypatch.undo()
    assert disk.taken[: room + 1] == steps[: room + 1]

    committed = room > steps.index("entry")
    assert by_delta(root) == ([3, 4, 5, 6] if committed else [1, 2])
    again = Dataset(root, SCHEMA, SOURCE)
    with again.locked():
        assert again.unreported == ([("B", "record of B")] if committed else [])
        assert (root / "_batches" / "B").exists() is committed
        assert by_glob(root) == sorted([*by_delta(root), *([1, 2] if committed and keep else [])])
        again.discard("B")
        put(again, "C", [9], 3)
    assert by_delta(root) == ([6, 9] if committed else [9])
    assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]


# What a crash leaves -------------------------------------------------------------------------


def test_killed_while_a_batch_is_discarded(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash while a batch is discarded leaves no intent, so that no record is reported twice."""
    staged = stage(table, "B", [1])
    table.commit("B", staged.files, {}, {f"f/{DAY}": 1}, "record of B")

    def fatal(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", fatal)
    with pytest.raises(Killed):
        table.discard("B")
    monkeypatch.undo()
    assert (root / "_staging" / "B").is_dir()
    table._sweep()
    assert table.unreported == []
    assert not (root / "_staging" / "B").exists()
    assert by_delta(root) == by_glob(root) == [1]


def test_an_intent_that_cannot_be_deleted(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent that cannot be deleted is an error: nothing may be committed beside it."""
    staged = stage(table, "B", [1])
    table.commit("B", staged.files, {}, {f"f/{DAY}": 1}, None)

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "no", str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(DatasetError, match=r"Cannot tidy up in .*: this user may not write there"):
        table.discard("B")
    assert (root / "_staging" / "B" / "intent.json").exists()
    monkeypatch.undo()
    table.discard("B")
    table.discard("B")
    assert not (root / "_staging" / "B").exists()


def test_recovery_of_a_commit_that_was_replaced_in_part(table: Dataset, root: Path) -> None:
    """P2: of two days of one commit one was replaced since: the files of the other stay."""
    staged = stage_days(table, "B", {DAY: [1, 2], NEXT: [3]})
    (root / "_staging" / "B" / "batch").mkdir(exist_ok=True)
    table.commit("B", staged.files, {}, {f"f/{DAY}": 1, f"f/{NEXT}": 1}, "record of B")
    put(table, "C", [4], 2, NEXT)
    table._sweep()
    assert by_delta(root) == by_glob(root) == [1, 2, 4]
    assert table.unreported == [("B", "record of B")]
    assert (root / "_batches" / "B").is_dir()


def test_recovery_of_a_failed_commit_before_a_later_one(table: Dataset, root: Path) -> None:
    """Files published for a commit that failed are deleted, though its day was committed since."""
    put(table, "A", [1], 1)
    staged = stage(table, "B", [2])
    held = table.held([DAY])
    directory = root / "_staging" / "B"
    intent = {
        "add": [file.path for file in staged.files],
        "remove": [path for path, _ in held[DAY].files],
        "positions": {f"f/{DAY}": 2},
        "due": 0,
        "record": "record of B",
    }
    (directory / "intent.json").write_text(json.dumps(intent))
    table._publish("B", staged.files)
    put(table, "C", [3], 3)
    table._sweep()
    assert by_delta(root) == by_glob(root) == [3]
    assert table.unreported == []


def test_superseded_files_that_a_restore_brought_back(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RESTORE brings replaced files back into the table: they are not deleted when due."""
    put(table, "A", [1, 2], 1)
    staged = stage(table, "B", [3])
    table.commit("B", staged.files, table.held([DAY]), {f"f/{DAY}": 2}, None, 2)
    table.discard("B")
    DeltaTable(root).restore(1)
    monkeypatch.setattr("engine.dataset.dataset.time.time", lambda: 1e11)
    again = Dataset(root, SCHEMA, SOURCE)
    table._table = again._table
    table._sweep()
    assert by_delta(root) == [1, 2]
    assert not list(root.glob("_superseded/*"))


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("removals", range(6))
def test_killed_while_replaced_files_are_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch, keep: int, removals: int
) -> None:
    """P2: after a crash between two deletions, at once or when due, the next start ends them."""
    first = Dataset(root, SCHEMA, SOURCE)
    left = removals
    unlink = Path.unlink

    def fatal(path: Path, missing_ok: bool = False) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        unlink(path, missing_ok)

    def commit_and_sweep() -> None:
        """Commit, discard, and sweep when the replaced files are due."""
        first.commit("B", staged.files, held, positions, "record of B", keep)
        first.discard("B")
        monkeypatch.setattr("engine.dataset.dataset.time.time", lambda: 1e11)
        first._sweep()

    with first.locked():
        first.create()
        staged = stage_days(first, "A", {DAY: [1], NEXT: [2]})
        first.commit("A", staged.files, {}, {"f/1": 1, "f/2": 1}, None)
        first.discard("A")
        held, positions = first.held([DAY, NEXT]), {"f/1": 2, "f/2": 2}
        staged = stage_days(first, "B", {DAY: [3], NEXT: [4]})
        monkeypatch.setattr(Path, "unlink", fatal)
        deletions = 3 + (keep > 0)  # two files, the intent, and the list of what is kept
        if removals < deletions:
            with pytest.raises(Killed):
                commit_and_sweep()
        else:
            commit_and_sweep()
        monkeypatch.undo()

    monkeypatch.setattr("engine.dataset.dataset.time.time", lambda: 1e11)
    again = Dataset(root, SCHEMA, SOURCE)
    with again.locked():
        again.discard("B")
    assert by_delta(root) == by_glob(root) == [3, 4]
    assert not list(root.glob("_superseded/*"))
    assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]


# Positions, and the log on the disk ----------------------------------------------------------


def sum_up(root: Path, parts: bool = False) -> None:
    """Write a checkpoint, in `parts` as other programs do, and delete the entries before it."""
    log = root / "_delta_log"
    DeltaTable(root).create_checkpoint()
    for entry in sorted(log.glob("*.json"))[:-1]:
        entry.unlink()
    if parts:
        (checkpoint,) = log.glob("*.checkpoint.parquet")
        version = int(checkpoint.name[:20])
        checkpoint.rename(log / f"{version:020}.checkpoint.{1:010}.{1:010}.parquet")
        hint = json.loads((log / "_last_checkpoint").read_text())
        (log / "_last_checkpoint").write_text(json.dumps(hint | {"parts": 1}))


@pytest.mark.parametrize("parts", [False, True])
def test_positions_equal_those_of_deltalake(root: Path, parts: bool) -> None:
    """Positions from entries or a checkpoint equal those of deltalake, as the table grows."""

    def positions(dataset: Dataset) -> list[int | None]:
        names, log = [f"f/{DAY}", f"f/{NEXT}", "f/never"], DeltaTable(root)
        found = [dataset.position(name) for name in names]
        assert found == [log.transaction_version(name) for name in names]
        return found

    first = Dataset(root, SCHEMA, SOURCE)
    with first.locked():
        first.create()
        assert positions(first) == [None, None, None]
        put(first, "A", [1], 1)
        assert positions(first) == [1, None, None]
        put(first, "B", [2], 2)
        put(first, "C", [3], 7, NEXT)
        assert positions(first) == [2, 7, None]
    sum_up(root, parts)
    again = Dataset(root, SCHEMA, SOURCE)
    with again.locked():
        assert positions(again) == [2, 7, None]
        put(again, "D", [4], 3)
        assert positions(again) == [3, 7, None]


@pytest.mark.parametrize("summed_up", [False, True])
def test_positions_of_ten_years_are_read_at_once(
    table: Dataset, root: Path, monkeypatch: pytest.MonkeyPatch, summed_up: bool
) -> None:
    """The log is read once for all the days of a version, however many there are."""
    names = {f"f/{DAY + timedelta(days=n)}": n for n in range(3650)}
    table.staging("A")
    table.commit("A", [], {}, names, None)
    if summed_up:
        sum_up(root)

    def slow(*_: Any) -> int:
        raise AssertionError("asked for one at a time")

    monkeypatch.setattr(DeltaTable, "transaction_version", slow)
    again = Dataset(root, SCHEMA, SOURCE)
    assert again.position("f/never") is None
    (root / "_delta_log").rename(root / "moved")
    assert {name: again.position(name) for name in names} == names
    assert again._log.state(1) is again._log.state(1)


def test_another_table_in_the_same_place(root: Path) -> None:
    """A table that was deleted and made anew is read again under the lock."""

    def make(version: int) -> Dataset:
        dataset = Dataset(root, SCHEMA, SOURCE)
        with dataset.locked():
            dataset.create()
            put(dataset, "A", [version], version)
        return dataset

    first = make(5)
    assert first.position(f"f/{DAY}") == 5
    shutil.rmtree(root)
    make(9)
    with first.locked():
        assert first.position(f"f/{DAY}") == 9


class Synced:
    """Record what is forced to the disk, by inode, and the names below the root then."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.files: dict[int, set[str]] = {}

        def fsync(handle: int) -> None:
            names = {path.name for path in root.rglob("*")}
            self.files.setdefault(os.fstat(handle).st_ino, names)

        patch.setattr(os, "fsync", fsync)

    def at(self, path: Path) -> set[str]:
        """The names below the root when `path` was first forced to the disk."""
        return self.files[path.stat().st_ino]


def test_the_log_is_synced_before_files_are_deleted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: after a power cut there is version 0, and each entry and checkpoint before a deletion."""
    synced = Synced(monkeypatch, root)
    log = root / "_delta_log"
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        synced.files.clear()
        dataset.create()
        for path in (log / f"{0:020}.json", log, root):
            assert f"{0:020}.json" in synced.at(path)
        assert dataset._table is not None
        dataset._table.alter.set_table_properties({"delta.checkpointInterval": "4"})
        dataset._table.update_incremental()
        put(dataset, "A", [1], 1)
        synced.files.clear()
        put(dataset, "B", [2], 2)
        for name in (f"{3:020}.json", f"{3:020}.checkpoint.parquet", "_last_checkpoint"):
            assert "A-0.parquet" in synced.at(log / name)
        assert not (root / f"event_date={DAY}" / "A-0.parquet").exists()


def test_old_entries_are_deleted_after_the_checkpoint(table: Dataset, root: Path) -> None:
    """Entries that are too old stay until the checkpoint is on the disk."""
    log = root / "_delta_log"
    assert table._table is not None
    table._table.alter.set_table_properties({"delta.checkpointInterval": "3"})
    table._table.update_incremental()
    long_ago = time.time() - 90 * 86_400
    for entry in log.iterdir():
        os.utime(entry, (long_ago, long_ago))
    put(table, "A", [1], 1)
    assert (log / f"{2:020}.checkpoint.parquet").exists()
    assert (log / f"{0:020}.json").exists()
    put(table, "B", [2], 2)
    assert not (log / f"{0:020}.json").exists()
    assert by_delta(root) == [2]
    assert Dataset(root, SCHEMA, SOURCE).position(f"f/{DAY}") == 2
