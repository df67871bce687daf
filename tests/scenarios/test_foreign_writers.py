"""Other programs write to the table too: a commit is made on what was read, or reads again (P4)."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.schema import Field, PrimitiveType

from engine.dataset.dataset import Dataset
from engine.dataset.storage.local import LocalStorage
from engine.dataset.table import Table
from engine.errors import DatasetError, InputError, ShrinkDetected
from engine.sandbox import Sandbox, Spec
from tests.dataset.test_dataset import DAY, NEXT, SCHEMA, SOURCE, by_delta, by_glob, put, stage
from tests.support.pulling import DAYS, QUICK, pull, rows

OLD, NEW, OTHER = [1, 2, 3], [3, 4, 5, 6], [7, 8]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A table of two days, the first in two files."""
    root = tmp_path / "table"
    with Dataset(root, SCHEMA, SOURCE).locked():
        pass
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        dataset.create()
        put(dataset, "A", OLD[:1], 1)
        staged = stage(dataset, "B", OLD[1:])
        dataset.commit("B", staged.files, {}, {f"f/{DAY}": 2}, None)
        dataset.discard("B")
        put(dataset, "C", OTHER, 1, NEXT)
    return root


def compact(root: Path) -> None:
    DeltaTable(root).optimize.compact()


def z_order(root: Path) -> None:
    DeltaTable(root).optimize.z_order(["unmapped"])


def delete(root: Path) -> None:
    DeltaTable(root).delete(f"event_date = '{DAY}'")


def delete_some(root: Path) -> None:
    DeltaTable(root).delete("_extconndev['n'] = 1")


def update(root: Path) -> None:
    DeltaTable(root).update(updates={"unmapped": "'seen'"})


def merge(root: Path) -> None:
    source = pa.table({"event_date": pa.array([DAY], pa.date32())})
    merging = DeltaTable(root).merge(source, "t.event_date = s.event_date", "s", "t")
    merging.when_matched_update({"unmapped": "'merged'"}).execute()


def restore(root: Path) -> None:
    DeltaTable(root).restore(2, ignore_missing_files=True)


def vacuum(root: Path) -> None:
    DeltaTable(root).vacuum(0, enforce_retention_duration=False, dry_run=False)


def add_column(root: Path) -> None:
    DeltaTable(root).alter.add_columns([Field("note", PrimitiveType("string"), nullable=True)])


def append(root: Path) -> None:
    row = pa.array([{"name": "y", "n": 99}], SCHEMA.field(0).type)
    columns = [row, pa.nulls(1, pa.string()), pa.array([NEXT], pa.date32())]
    write_deltalake(root, pa.Table.from_arrays(columns, schema=SCHEMA), mode="append")


def overwrite(root: Path) -> None:
    row = pa.array([{"name": "y", "n": 50}], SCHEMA.field(0).type)
    columns = [row, pa.nulls(1, pa.string()), pa.array([DAY], pa.date32())]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    write_deltalake(root, table, mode="overwrite", predicate=f"event_date = '{DAY}'")


FOREIGN = [
    compact, z_order, delete, delete_some, update, merge, restore, vacuum, add_column, append,
    overwrite,
]  # fmt: skip
OTHERS_THEN: dict[Any, list[int]] = {append: [7, 8, 99], restore: []}
# Where another program may come: after the days were read, and around every step of the commit.
STEPS = [
    (None, ""),
    *(
        (step, moment)
        for step in ("_held", "_publish", "_figures")
        for moment in ("before", "after")
    ),
    ("write", "before"),
    ("write", "after"),
]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize(("step", "moment"), STEPS, ids=lambda each: str(each or "-"))
def test_a_day_is_replaced_whatever_is_committed_meanwhile(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    foreign: Callable[[Path], None],
    step: str | None,
    moment: str,
) -> None:
    """P4: the day holds what was pulled, once, and the other day what the others left there."""
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        staged = stage(dataset, "N", NEW)
        held = dataset.held([DAY])
        if step is None:
            foreign(root)
        else:
            once(monkeypatch, step, moment, lambda: foreign(root))
        dataset.commit("N", staged.files, held, {f"f/{DAY}": 3}, "record of N")
        monkeypatch.undo()
        dataset.discard("N")
        assert dataset.unreported == []
        assert not dataset.changes().get(DAY)
    assert by_delta(root) == sorted(NEW + OTHERS_THEN.get(foreign, OTHER))
    assert live_files_are_there(root)
    with Dataset(root, SCHEMA, SOURCE).locked():
        assert by_delta(root) == sorted(NEW + OTHERS_THEN.get(foreign, OTHER))


def once(patch: pytest.MonkeyPatch, step: str, moment: str, act: Callable[[], None]) -> None:
    """Have `act` run once, before or after a step of a commit."""
    owner: Any = {"write": LocalStorage, "_held": Table}.get(step, Dataset)
    real: Callable[..., Any] = getattr(owner, step)
    done = False

    def stepped(*arguments: Any, **options: Any) -> Any:
        nonlocal done
        if moment == "before" and not done:
            done = True
            act()
        result = real(*arguments, **options)
        if moment == "after" and not done:
            done = True
            act()
        return result

    patch.setattr(owner, step, stepped)


def live_files_are_there(root: Path) -> bool:
    return all(Path(uri.removeprefix("file://")).exists() for uri in DeltaTable(root).file_uris())


@pytest.mark.parametrize("foreign", FOREIGN)
def test_rows_are_added_once_whatever_is_committed_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch, foreign: Callable[[Path], None]
) -> None:
    """P4: arriving rows are added once; a day that lost rows meanwhile is due again (P10)."""
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        staged = stage(dataset, "N", [20])
        once(monkeypatch, "_publish", "after", lambda: foreign(root))
        dataset.commit("N", staged.files, {}, {"f/arrival": 5}, None)
        monkeypatch.undo()
        dataset.discard("N")
        lost = {day for day, each in dataset.changes().items() if each.undone}
    assert by_delta(root).count(20) == 1
    expected: dict[Any, set[date]] = {
        delete: {DAY},
        delete_some: {DAY},
        overwrite: {DAY},
        restore: {NEXT},
    }
    assert lost == expected.get(foreign, set())


def test_forget_removes_no_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions are reset beside another program's commit, whose rows stay."""
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        once(monkeypatch, "_publish", "after", lambda: compact(root))
        dataset.forget("F", [f"f/{DAY}"])
        assert dataset.position(f"f/{DAY}") == 0
    assert by_delta(root) == sorted(OLD + OTHER)


def test_another_program_that_commits_all_the_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a commit gives up after TRIES, says why, and has changed nothing."""
    dataset = Dataset(root, SCHEMA, SOURCE)
    real, count = Dataset._publish, 0

    def busy(*arguments: Any) -> None:
        nonlocal count
        count += 1
        real(*arguments)
        DeltaTable(root).alter.set_table_description(str(count))

    with dataset.locked():
        staged = stage(dataset, "N", NEW)
        monkeypatch.setattr(Dataset, "_publish", busy)
        with pytest.raises(DatasetError, match=r"another program has changed the table 10 times"):
            dataset.commit("N", staged.files, dataset.held([DAY]), {f"f/{DAY}": 3}, None)
    assert count == 10
    assert by_delta(root) == by_glob(root) == sorted(OLD + OTHER)


def test_a_commit_that_is_planned_again_may_be_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: the other program's rows are judged before any of them is replaced or deleted."""
    dataset = Dataset(root, SCHEMA, SOURCE)

    def again() -> Any:
        held = dataset.held([NEXT])
        dataset.check_shrink(held, staged.files, 90)
        return held, {f"f/{NEXT}": 2}

    with dataset.locked():
        staged = stage(dataset, "N", [7, 8], NEXT)
        held = dataset.held([NEXT])
        once(monkeypatch, "_publish", "after", lambda: append(root))
        with pytest.raises(ShrinkDetected, match="holds 3 rows and would hold 2"):
            dataset.commit("N", staged.files, held, {f"f/{NEXT}": 2}, None, again=again)
    assert by_delta(root) == sorted([*OLD, 7, 8, 99])
    assert live_files_are_there(root)


def test_another_table_in_the_same_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: what was planned for one table is not committed to another one in its place."""
    dataset = Dataset(root, SCHEMA, SOURCE)

    def anew() -> None:
        shutil.rmtree(root / "_delta_log")
        for file in root.glob("event_date=*/[ABC]-*.parquet"):
            file.unlink()
        assert dataset._schema
        DeltaTable.create(root, dataset._schema, partition_by=["event_date"])

    with dataset.locked():
        staged = stage(dataset, "N", NEW)
        held = dataset.held([DAY])
        once(monkeypatch, "_check_same", "before", anew)
        with pytest.raises(DatasetError, match="was replaced by another one meanwhile"):
            dataset.commit("N", staged.files, held, {f"f/{DAY}": 3}, None)
    assert by_delta(root) == by_glob(root) == []


def test_a_column_that_another_program_added(root: Path) -> None:
    """A column that another program added is null in this program's rows, and stays in others."""
    add_column(root)
    DeltaTable(root).update(updates={"note": "'mine'"}, predicate=f"event_date = '{NEXT}'")
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        put(dataset, "N", NEW, 3)
    notes = {
        row["_extconndev"]["n"]: row["note"]
        for row in DeltaTable(root).to_pyarrow_table().to_pylist()
    }
    assert notes == dict.fromkeys(NEW) | dict.fromkeys(OTHER, "mine")


def test_a_column_that_the_schema_lacks_is_refused(root: Path) -> None:
    """A column that the table was made with, and that the schema lacks, is an error."""
    with pytest.raises(InputError, match="the table has unmapped"):
        Dataset(root, SCHEMA.remove(1), SOURCE)


# What this program cannot write --------------------------------------------------------------

VECTOR = {
    "storageType": "u", "pathOrInlineDv": "vBn[lx{q8@P<9BNH/isA", "offset": 1, "sizeInBytes": 36,
    "cardinality": 2,
}  # fmt: skip
INLINE = {
    "storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
    "sizeInBytes": 44, "cardinality": 6,
}  # fmt: skip


def mark_deleted(root: Path, vector: dict[str, Any]) -> None:
    """Write what Spark writes when it deletes rows of a file of `DAY` by a deletion vector."""
    log = root / "_delta_log"
    version = DeltaTable(root).version()
    adds = [
        action["add"]
        for entry in sorted(log.glob("*.json"))
        for action in map(json.loads, entry.read_text().splitlines())
        if "add" in action and str(DAY) in action["add"]["path"]
    ]
    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features}
    removed = {name: adds[-1][name] for name in ("path", "size", "partitionValues")}
    actions = [
        {"commitInfo": {"timestamp": 1, "operation": "DELETE", "engineInfo": "Apache-Spark/3.5.0"}},
        {"protocol": protocol | {"writerFeatures": [*features, "appendOnly", "invariants"]}},
        {"remove": removed | {"dataChange": True, "deletionTimestamp": 1}},
        {"add": adds[-1] | {"deletionVector": vector}},
    ]
    lines = (json.dumps(action) + "\n" for action in actions)
    (log / f"{version + 1:020}.json").write_text("".join(lines))


@pytest.mark.parametrize("vector", [VECTOR, INLINE], ids=["file", "inline"])
@pytest.mark.parametrize("summed_up", [False, True])
def test_deletion_vectors_are_refused(root: Path, vector: dict[str, Any], summed_up: bool) -> None:
    """A table with deletion vectors is refused."""
    mark_deleted(root, vector)
    if summed_up:
        DeltaTable(root).create_checkpoint()
        for entry in (root / "_delta_log").glob("*.json"):
            if int(entry.name[:20]) < DeltaTable(root).version():
                entry.unlink()
    before = sorted(path.name for path in (root / "_delta_log").iterdir())
    with pytest.raises(InputError, match=r"deletion vectors.*APPLY \(PURGE\)"):
        Dataset(root, SCHEMA, SOURCE)
    assert sorted(path.name for path in (root / "_delta_log").iterdir()) == before


def test_deletion_vectors_that_are_committed_meanwhile(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed if a vector is written while a day is pulled."""
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        staged = stage(dataset, "N", NEW)
        once(monkeypatch, "_publish", "after", lambda: mark_deleted(root, INLINE))
        with pytest.raises(InputError, match="deletion vectors"):
            dataset.commit("N", staged.files, dataset.held([DAY]), {f"f/{DAY}": 3}, None)
    assert not list(root.glob("event_date=*/N-*"))
    assert live_files_are_there(root)


def test_deletion_vectors_that_were_purged(root: Path) -> None:
    """A table that may have vectors, and has no vector, is written like any other."""
    version = DeltaTable(root).version() + 1
    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features}
    entry = {"protocol": protocol | {"writerFeatures": features}}
    (root / "_delta_log" / f"{version:020}.json").write_text(json.dumps(entry) + "\n")
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        put(dataset, "N", NEW, 3)
        assert dataset.held([DAY])[DAY].rows == len(NEW)
    assert by_glob(root) == sorted(NEW + OTHER)


def alter(**properties: str) -> Callable[[Path], None]:
    """Set table properties, as `delta_x` for `delta.x`."""
    wanted = {name.replace("_", ".", 1): value for name, value in properties.items()}
    return lambda root: DeltaTable(root).alter.set_table_properties(wanted)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (alter(delta_appendOnly="true"), "append-only"),
        (alter(delta_enableChangeDataFeed="true"), "change data feed"),
        (
            lambda root: DeltaTable(root).alter.add_constraint({"c": "event_date > '2000-01-01'"}),
            "DROP CONSTRAINT c",
        ),
    ],
    ids=["append-only", "change data feed", "constraint"],
)
def test_properties_that_cannot_be_written_rightly(
    root: Path, change: Callable[[Path], None], why: str
) -> None:
    """A table that requires more of its writers than this program does is refused at once."""
    change(root)
    with pytest.raises(InputError, match=f"cannot be written rightly: .*{why}"):
        Dataset(root, SCHEMA, SOURCE)


def write_protocol(root: Path, **changes: Any) -> None:
    log = root / "_delta_log"
    version = DeltaTable(root).version() + 1
    (found,) = [
        json.loads(line)
        for line in (log / f"{0:020}.json").read_text().splitlines()
        if "metaData" in line
    ]
    schema = json.loads(found["metaData"]["schemaString"])
    schema["fields"][1]["metadata"] |= changes.pop("column", {})
    found["metaData"]["schemaString"] = json.dumps(schema)
    found["metaData"]["configuration"] |= changes.pop("properties", {})
    entries = [{"protocol": changes}, found]
    (log / f"{version:020}.json").write_text("".join(json.dumps(each) + "\n" for each in entries))


@pytest.mark.parametrize(
    "changes",
    [
        {"minReaderVersion": 1, "minWriterVersion": 4,
         "column": {"delta.generationExpression": "upper('x')"}},
        {"minReaderVersion": 1, "minWriterVersion": 2,
         "column": {"delta.invariants": '{"expression":{"expression":"unmapped <> 1"}}'}},
        {"minReaderVersion": 2, "minWriterVersion": 5,
         "properties": {"delta.columnMapping.mode": "name"},
         "column": {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "c"}},
        {"minReaderVersion": 1, "minWriterVersion": 7,
         "writerFeatures": ["rowTracking", "domainMetadata"]},
        {"minReaderVersion": 3, "minWriterVersion": 7,
         "readerFeatures": ["neverHeardOf"], "writerFeatures": ["neverHeardOf"]},
        {"minReaderVersion": 4, "minWriterVersion": 8},
    ],
    ids=["generated", "invariant", "column mapping", "row tracking", "unknown", "version"],
)  # fmt: skip
def test_unknown_features_are_refused(root: Path, changes: dict[str, Any]) -> None:
    """Any table feature that is unknown here is refused with a sentence."""
    write_protocol(root, **changes)
    with pytest.raises((InputError, DatasetError)) as caught:
        Dataset(root, SCHEMA, SOURCE)
    assert "defect" not in str(caught.value)


# A day that holds events twice ---------------------------------------------------------------

SPEC = Spec(events_per_day=220, duplicate_percent=0)
AGAIN = replace(QUICK, force=True)


def double(root: Path, day: date) -> None:
    """Add every row of a day once more, as an early version did after another program's commit."""
    table = DeltaTable(root).to_pyarrow_table(filters=[("event_date", "=", day)])
    write_deltalake(root, table, mode="append")


def rows_of(root: Path) -> list[str]:
    """Return the rows for a Delta reader: OPTIMIZE leaves files that a glob reads as well."""
    return sorted(
        json.dumps(row, default=str, sort_keys=True)
        for row in DeltaTable(root).to_pyarrow_table().to_pylist()
    )


def test_a_doubled_day_is_repaired(tmp_path: Path) -> None:
    """P5: a day may lose the rows that it holds twice: --force is enough."""
    root = tmp_path / "table"
    with Sandbox(SPEC) as sandbox:
        pull(sandbox.url, root)
        right = rows(root)
        double(root, DAYS[0])
        done = pull(sandbox.url, root, options=AGAIN)
    assert set(done.statuses) == {"success"}, done.message
    assert rows_of(root) == rows(root) == right


def test_a_doubled_day_that_shrank(tmp_path: Path) -> None:
    """P5: if a day lost events too, the guard says how many it holds, and refuses."""
    root = tmp_path / "table"
    with Sandbox(SPEC) as sandbox:
        pull(sandbox.url, root, DAYS[:1])
    double(root, DAYS[0])
    with Sandbox(replace(SPEC, events_per_day=100)) as sandbox:
        done = pull(sandbox.url, root, DAYS[:1], AGAIN)
    # Events without an `$insert_id` are never the same: those count twice.
    assert "holds 440 rows of 227 events and would hold 100" in done.message
    assert len(rows_of(root)) == 440


@pytest.mark.parametrize("foreign", [compact, z_order, update, delete])
def test_a_backfill_beside_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Callable[[Path], None]
) -> None:
    """P4: days in several files, pulled again beside another program, hold each event once."""
    root = tmp_path / "table"
    with Sandbox(SPEC) as sandbox:
        pull(sandbox.url, root)
        right = rows(root)
        for step, moment in (("check_shrink", "after"), ("_publish", "after")):
            double(root, DAYS[0])
            once(monkeypatch, step, moment, lambda: foreign(root))
            done = pull(sandbox.url, root, options=AGAIN)
            monkeypatch.undo()
            assert set(done.statuses) == {"success"}, done.message
            assert rows_of(root) == right
            assert live_files_are_there(root)
