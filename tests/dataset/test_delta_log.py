"""The log is read as deltalake reads it, at a lower cost."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from engine.dataset import table as module
from engine.dataset.dataset import Dataset
from engine.dataset.delta_log import Log
from engine.dataset.storage.local import LocalStorage
from engine.errors import DatasetError, InputError

SCHEMA = pa.schema(
    [
        ("_extconndev", pa.struct([("name", pa.string()), ("n", pa.int64())])),
        ("unmapped", pa.string()),
        ("event_date", pa.date32()),
    ]
)
SOURCE = {"project_id": 1, "events": [], "where": None}
DAYS = [date(2024, 1, day) for day in range(1, 6)]


def put(dataset: Dataset, number: int) -> None:
    """Commit no file, and set one position."""
    dataset.staging(f"batch-{number}")
    dataset.commit(f"batch-{number}", [], {}, {f"f/{DAYS[number % 5]}": number}, None)
    dataset.discard(f"batch-{number}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "table"
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        for number in range(1, 8):
            put(dataset, number)
    return root


def forms(root: Path) -> Iterator[str]:
    """Yield the forms of one log: entries, a checkpoint, and entries after it."""
    log = root / "_delta_log"
    yield "entries"
    DeltaTable(root).create_checkpoint()
    yield "a checkpoint beside the entries"
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        put(dataset, 8)
    yield "a checkpoint and what came after it"
    for entry in sorted(log.glob("*.json"))[:-2]:
        entry.unlink()
    yield "nothing before the checkpoint"
    DeltaTable(root).alter.set_table_properties({"delta.checkpointInterval": "50"})
    yield "a later entry that describes the table anew"


def test_the_state_equals_that_of_deltalake(root: Path) -> None:
    """Version, schema, properties and positions, read at once or while the log grows."""
    growing = Log(LocalStorage(root))
    for form in forms(root):
        theirs, fresh = DeltaTable(root), Log(LocalStorage(root))
        version = fresh.newest()
        assert version == theirs.version() == growing.newest(), form
        for log in (fresh, growing):
            state = log.state(version)
            assert state, form
            assert state.is_plain, form
            assert json.loads(state.metadata["schemaString"]) == json.loads(
                theirs.schema().to_json()
            )
            assert state.metadata["configuration"] == theirs.metadata().configuration
            assert state.positions == {
                f"f/{day}": theirs.transaction_version(f"f/{day}") for day in DAYS
            }


@pytest.mark.parametrize("hint", [None, "", "{}", '{"version": 999}', '{"version": "x"}', "[]"])
def test_the_newest_version_needs_no_hint(root: Path, hint: str | None) -> None:
    """The hint of the last checkpoint may be missing, wrong or cut off."""
    DeltaTable(root).create_checkpoint()
    path = root / "_delta_log" / "_last_checkpoint"
    path.unlink()
    if hint is not None:
        path.write_text(hint)
    assert Log(LocalStorage(root)).newest() == DeltaTable(root).version()


def test_a_broken_checkpoint(root: Path) -> None:
    """The entries that it sums up give the same state; without them there is no state."""
    whole = Log(LocalStorage(root)).state(7)
    DeltaTable(root).create_checkpoint()
    (checkpoint,) = (root / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(b"PAR1 no more")
    assert Log(LocalStorage(root)).state(7) == whole
    (root / "_delta_log" / f"{0:020}.json").unlink()
    assert Log(LocalStorage(root)).state(7) is None


def test_planning_loads_no_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions, schema and source are read without the list of data files."""

    def loaded(*_: Any) -> Any:
        raise AssertionError("the table's files were loaded")

    monkeypatch.setattr(module, "DeltaTable", loaded)
    dataset = Dataset(root, SCHEMA, SOURCE)
    with dataset.locked():
        assert dataset.exists
        assert dataset.position(f"f/{DAYS[0]}") == 5
        with pytest.raises(InputError, match="another schema"):
            Dataset(root, SCHEMA.remove(1), SOURCE)
        with pytest.raises(InputError, match="holds other events"):
            Dataset(root, SCHEMA, SOURCE | {"project_id": 2})


@pytest.mark.parametrize(
    "protocol",
    [
        {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["ours"]},
        {"minReaderVersion": 99, "minWriterVersion": 2},
    ],
)
def test_a_table_with_another_protocol(root: Path, protocol: dict[str, Any]) -> None:
    """A table with features that are unknown here is deltalake's to read, or to refuse."""
    entry = {"protocol": protocol | {"writerFeatures": protocol.get("readerFeatures", [])}}
    (root / "_delta_log" / f"{8:020}.json").write_text(json.dumps(entry) + "\n")
    state = Log(LocalStorage(root)).state(8)
    assert state
    assert not state.is_plain
    with pytest.raises(DatasetError, match="Cannot open the table"):
        Dataset(root, SCHEMA, SOURCE)
