"""Each damaged state of a table is mended and named, or a sentence says what to do."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, TableFeatures

from engine.dataset.dataset import Dataset
from engine.errors import DatasetError
from engine.sandbox import Sandbox, Spec
from tests.dataset.test_dataset import DAY, NEXT, SCHEMA, SOURCE, Killed, by_delta, by_glob, stage
from tests.dataset.test_dataset import put as commit
from tests.support.commands import DAYS, Run, here, put, variables
from tests.support.pulling import rows

TABLE = Path("data/events")
LOG = TABLE / "_delta_log"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=50, reject_percent=1)) as running:
        yield running


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first test leaves a copy of what it pulled, for the next ones."""
    return tmp_path_factory.mktemp("pulled") / "copy"


@pytest.fixture
def run(
    sandbox: Sandbox,
    pulled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The command line, after three days were pulled in two commits."""
    sandbox.reset()
    monkeypatch.chdir(tmp_path)
    put(variables(sandbox.url) | {"MIXPANEL_ETL_HOME": "home"}, monkeypatch)
    run = here(capsys)
    if pulled.exists():
        shutil.copytree(pulled, tmp_path, dirs_exist_ok=True)
    else:
        assert run("backfill", *DAYS).status == 0
        shutil.copytree(tmp_path, pulled)
    sandbox.reset()
    return run


def newest() -> Path:
    return max(LOG.glob("*.json"))


def is_sentence(text: str) -> bool:
    return "defect" not in text and "Traceback" not in text


# The newest entry of the log -----------------------------------------------------------------


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_after_its_files(path: Path) -> None:
    """Cut the last line; all others are whole."""
    os.truncate(path, path.stat().st_size - 5)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def no_json(path: Path) -> None:
    path.write_text("[1, 2]\n")


CUTS = [cut_in_half, cut_after_its_files, empty, zeros, no_json]


@pytest.mark.parametrize("harm", CUTS)
def test_the_newest_entry_is_cut_off(run: Run, harm: Callable[[Path], None]) -> None:
    """A newest entry that is cut off is set aside and named; its rows are pulled again."""
    right = rows(TABLE.absolute())
    entry = newest()
    harm(entry)
    said = run("backfill", *DAYS)
    assert said.status == 0, said
    assert f"{entry.name}, the newest entry of the log, could not be read" in said.err
    assert entry.with_name(f"{entry.name}.damaged").exists()
    assert rows(TABLE.absolute()) == right
    assert "Nothing to do" in run("backfill", *DAYS).out


@pytest.mark.parametrize("harm", CUTS)
def test_commands_that_only_read_leave_damage_in_place(
    run: Run, harm: Callable[[Path], None]
) -> None:
    """`status`, `check`, `plan` and `--dry-run` report the entry, and change nothing."""
    harm(newest())
    before = everything()
    config = Path("flows.toml")
    config.write_text(
        'home = "home"\n[connections.c]\n[flows.events]\nconnection = "c"\nwindows = "day"\n'
        'dataset = "data/events"\n'
        'schedule = { frequency = "day", interval = 1, start_time = 1704067200 }\n'
    )
    for words in (["status"], ["plan"], ["check"]):
        said = run(*words, "--config=flows.toml")
        assert f"{newest().name} in " in said.out + said.err, said
        assert "cannot be read. The next run sets it aside" in said.out + said.err
    said = run("backfill", "--dry-run", *DAYS)
    assert "The next run sets it aside" in said.err
    config.unlink()
    assert everything() == before


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in TABLE.rglob("*") if path.is_file()}


def test_several_entries_are_cut_off(run: Run) -> None:
    """Several newest entries that are cut off are all set aside."""
    right = rows(TABLE.absolute())
    for entry in sorted(LOG.glob("*.json"))[1:]:
        cut_in_half(entry)
    assert run("backfill", *DAYS).status == 0
    assert len(list(LOG.glob("*.damaged"))) == 2
    assert rows(TABLE.absolute()) == right


@pytest.mark.parametrize("harm", [cut_in_half, empty, zeros])
def test_an_entry_in_the_middle_is_cut_off(run: Run, harm: Callable[[Path], None]) -> None:
    """An older entry that is cut off stays, and the error says what to do."""
    entry = sorted(LOG.glob("*.json"))[1]
    harm(entry)
    before = everything()
    said = run("backfill", *DAYS)
    assert said.status == 1
    assert f"{entry.name} cannot be read, and the table needs it. Put it back" in said.err
    assert is_sentence(said.err)
    assert everything().keys() - before.keys() <= {str(TABLE / "_staging/lock")}


# Checkpoints ---------------------------------------------------------------------------------


def corrupt_pages(path: Path) -> None:
    """Write junk between the ends of the file."""
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])


@pytest.mark.parametrize("harm", [cut_in_half, empty, zeros, corrupt_pages])
@pytest.mark.parametrize("hint", ["kept", "gone", "junk"])
def test_a_broken_checkpoint(run: Run, harm: Callable[[Path], None], hint: str) -> None:
    """A broken checkpoint is set aside, and every command reads the entries instead."""
    right = rows(TABLE.absolute())
    DeltaTable(TABLE).create_checkpoint()
    (checkpoint,) = LOG.glob("*.checkpoint.parquet")
    harm(checkpoint)
    if hint == "gone":
        (LOG / "_last_checkpoint").unlink()
    elif hint == "junk":
        (LOG / "_last_checkpoint").write_text("{")
    said = run("backfill", *DAYS, "--force")
    assert said.status == 0, said
    assert f"{checkpoint.name}, a checkpoint of the log, could not be read" in said.err
    assert len(rows(TABLE.absolute())) == len(right) > 0
    assert DeltaTable(TABLE).version() > 0


def test_a_broken_checkpoint_of_a_table_with_features(run: Run) -> None:
    """A table that only deltalake can read is mended like any other table."""
    right = rows(TABLE.absolute())
    feature = TableFeatures.ChangeDataFeed
    DeltaTable(TABLE).alter.add_feature(feature, allow_protocol_versions_increase=True)
    DeltaTable(TABLE).create_checkpoint()
    (checkpoint,) = LOG.glob("*.checkpoint.parquet")
    cut_in_half(checkpoint)
    said = run("backfill", "--dry-run", *DAYS)
    assert "The next run sets it aside" in said.err, said
    said = run("backfill", *DAYS, "--force")
    assert said.status == 0, said
    assert f"{checkpoint.name}, a checkpoint of the log, could not be read" in said.err
    assert rows(TABLE.absolute()) == right


def test_a_broken_checkpoint_that_is_needed(run: Run) -> None:
    """A broken checkpoint without the entries before it stays, and the error says what to do."""
    DeltaTable(TABLE).create_checkpoint()
    (checkpoint,) = LOG.glob("*.checkpoint.parquet")
    cut_in_half(checkpoint)
    for entry in LOG.glob("*.json"):
        entry.unlink()
    said = run("backfill", *DAYS)
    assert said.status == 1
    assert f"{checkpoint.name} cannot be read, and the table needs it. Put it back" in said.err
    assert checkpoint.exists()


@pytest.mark.parametrize("junk", ["", "{}", "[]", "{", '{"version": 999}', "\x00\x00"])
def test_a_broken_hint(run: Run, junk: str) -> None:
    """The file that names the last checkpoint may hold anything."""
    DeltaTable(TABLE).create_checkpoint()
    (LOG / "_last_checkpoint").write_text(junk)
    assert "Nothing to do" in run("backfill", *DAYS).out
    assert run("backfill", *DAYS, "--force").status == 0


# Commits on their way ------------------------------------------------------------------------

JUNK: list[Any] = [
    b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"7", b'"text"',
    b'{"add": 1, "remove": [], "positions": {}, "due": 0, "record": null}',
    b'{"add": [], "remove": [1], "positions": {}, "due": 0, "record": null}',
    b'{"add": [], "remove": [], "positions": {"f": "x"}, "due": 0, "record": null}',
    b'{"add": [], "remove": [], "positions": [], "due": "x", "record": null}',
    b'{"add": ["../../x"], "remove": [], "positions": {}, "due": 0, "record": null}',
    b"[" * 100_000,
]  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    dataset = Dataset(tmp_path / "table", SCHEMA, SOURCE)
    with dataset.locked():
        dataset.create()
        commit(dataset, "A", [1, 2], 1)
    return dataset


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:20]))
@pytest.mark.parametrize("step", ["_publish", "_write_log", "_recover"])
def test_an_intent_that_cannot_be_read(
    table: Dataset, monkeypatch: pytest.MonkeyPatch, step: str, junk: bytes
) -> None:
    """The log shows whether the batch was committed; the file is set aside, and named."""
    staged_at = table.root / "_staging" / "B"

    def dies(*_: Any) -> Any:
        raise Killed

    with table.locked():
        staged = stage(table, "B", [3, 4, 5])
        held = table.held([DAY])
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, step, dies)
            patch.setattr(Dataset, "is_committed", dies)
            with pytest.raises(Killed):
                table.commit("B", staged.files, held, {f"f/{DAY}": 2}, "record of B")
    committed = table.position(f"f/{DAY}") == 2
    assert committed is (step == "_recover")
    (staged_at / "intent.json").write_bytes(junk)
    again = Dataset(table.root, SCHEMA, SOURCE)
    with again.locked():
        (notice,) = again.notices
        assert "batch B" in notice
        assert ("it is in the table" in notice) is committed
        assert by_delta(again.root) == by_glob(again.root) == ([3, 4, 5] if committed else [1, 2])
        again.discard("B")
        commit(again, "C", [9], 3)
    assert by_delta(again.root) == by_glob(again.root) == [9]
    names = sorted(path.name for path in (again.root / "_staging").iterdir())
    assert names == ["B-intent.json.damaged", "lock"]


def test_junk_in_a_foreign_folder_of_staging(run: Run) -> None:
    """`{}` as an intent in another program's folder stops no command."""
    folder = TABLE / "_staging" / "somebodys"
    folder.mkdir()
    (folder / "intent.json").write_text("{}")
    said = run("backfill", *DAYS)
    assert said.status == 0
    assert "somebodys-intent.json.damaged" in said.err
    assert not folder.exists()
    assert run("backfill", *DAYS).err == ""


def test_a_list_of_files_outside_the_table(table: Dataset, tmp_path: Path) -> None:
    """Nothing outside the table is deleted, whatever a list of replaced files names."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    kept = table.root / "_superseded"
    kept.mkdir()
    paths = [str(victim), "../victim", f"event_date={DAY}/../../victim", "file:///etc/hostname"]
    intent = {"add": [], "remove": paths, "positions": {}, "due": 1, "record": None}
    (kept / "1-B.json").write_text(json.dumps(intent))
    with table.locked():
        pass
    assert victim.exists()


def link(path: Path) -> None:
    target = path.parents[2] / "elsewhere"
    target.mkdir(exist_ok=True)
    (target / "intent.json").write_text("{}")
    path.symlink_to(target)


def file(path: Path) -> None:
    path.write_text("junk")


def folder_of_things(path: Path) -> None:
    (path / "more").mkdir(parents=True)
    (path / "more" / "thing").write_text("x")


NAMES = ["junk", "x-y.json", "-1-B.json", "99999999999999999999-B.json", "1-B.json", "é\n.json"]


@pytest.mark.parametrize("what", [file, folder_of_things, link])
@pytest.mark.parametrize("name", NAMES)
def test_junk_among_lists_of_replaced_files(
    table: Dataset, name: str, what: Callable[[Path], None]
) -> None:
    """Junk among the lists of replaced files is set aside and named once, and commits go on."""
    kept = table.root / "_superseded"
    kept.mkdir()
    what(kept / name)
    with table.locked():
        assert len(table.notices) == 1
        assert name in table.notices[0]
        commit(table, "B", [3], 2)
    assert by_delta(table.root) == by_glob(table.root) == [3]
    assert [path.name for path in kept.iterdir()] == [f"{name}.damaged"]
    again = Dataset(table.root, SCHEMA, SOURCE)
    with again.locked():
        assert again.notices == []


def test_a_link_among_staged_batches(table: Dataset) -> None:
    """A link in the staging folder is set aside and named; its target is not touched."""
    link(table.root / "_staging" / "junk")
    with table.locked():
        assert "junk" in table.notices[0]
        commit(table, "B", [3], 2)
    assert by_delta(table.root) == [3]
    assert (table.root.parent / "elsewhere" / "intent.json").exists()


def test_an_unreported_record_of_any_form(run: Run) -> None:
    """The record in an intent may be anything: the commit stands."""
    entry = json.loads(newest().read_text().splitlines()[0])
    batch = entry["commitInfo"]["batchId"]
    folder = TABLE / "_staging" / batch
    folder.mkdir()
    added = [str(path.relative_to(TABLE)) for path in TABLE.glob(f"event_date=*/{batch}-*")]
    records: tuple[Any, ...] = ("x", 7, [], {}, ["a", "b", "c"], ["a", {"metrics": 1}, {}])
    for record in records:
        intent = {"add": added, "remove": [], "positions": {}, "due": 0, "record": record}
        folder.mkdir(exist_ok=True)
        (folder / "intent.json").write_text(json.dumps(intent))
        said = run("backfill", *DAYS)
        assert said.status == 0, said
    assert not folder.exists()


def test_an_entry_that_another_program_is_writing(
    table: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is cut off when a commit is made is an error, and the next run mends it."""
    entry = table.root / "_delta_log" / f"{2:020}.json"
    with table.locked():
        staged = stage(table, "B", [3], NEXT)
        entry.write_text('{"commitInfo":{"op')
        with pytest.raises(DatasetError) as caught:
            table.commit("B", staged.files, table.held([NEXT]), {f"f/{NEXT}": 1}, None)
        assert "cannot be read" in str(caught.value)
    again = Dataset(table.root, SCHEMA, SOURCE)
    with again.locked():
        commit(again, "C", [4], 1, NEXT)
    assert by_delta(table.root) == by_glob(table.root) == [1, 2, 4]


# Data files ----------------------------------------------------------------------------------


CONFIG = """
home = "home"
[connections.c]
[flows.events]
connection = "c"
windows = "day"
dataset = "data/events"
"""


def a_data_file() -> Path:
    """A data file of the first day."""
    return min(TABLE.glob("event_date=*/*.parquet"))


def test_a_folder_in_the_place_of_a_data_file(run: Run) -> None:
    """P10: `check` counts the file as missing; the next backfill pulls its day and goes on."""
    right = rows(TABLE.absolute())
    file = a_data_file()
    file.unlink()
    (file / "more").mkdir(parents=True)
    Path("flows.toml").write_text(CONFIG)
    said = run("check", "--config=flows.toml")
    assert said.status == 1
    assert "1 file of it is not on the disk" in said.out
    Path("flows.toml").unlink()
    said = run("backfill", *DAYS)
    assert said.status == 0, said
    assert f"{file.name} is nothing that this program left there: it is now" in said.err
    assert (file.with_name(f"{file.name}.damaged") / "more").is_dir()
    assert rows(TABLE.absolute()) == right
    assert "Nothing to do" in run("backfill", *DAYS).out


def test_forget_beside_a_folder_in_the_place_of_a_data_file(table: Dataset) -> None:
    """Positions can be reset whatever stands in the place of a data file."""
    (file,) = table.root.glob("event_date=*/*.parquet")
    file.unlink()
    file.mkdir()
    with table.locked():
        table.forget("F", [f"f/{DAY}"])
        assert table.position(f"f/{DAY}") == 0
        commit(table, "B", [3], 1)
        assert file.name in table.notices[0]
    assert by_delta(table.root) == by_glob(table.root) == [3]


def cut_and_filled_up(path: Path) -> None:
    """Replace all but the beginning of the file by zeros."""
    path.write_bytes(path.read_bytes()[:100] + bytes(path.stat().st_size - 100))


@pytest.mark.parametrize("harm", [zeros, cut_and_filled_up])
def test_a_data_file_that_is_no_parquet(run: Run, harm: Callable[[Path], None]) -> None:
    """`check` names the day of a file of the right size, and how to pull that day again."""
    right = rows(TABLE.absolute())
    file = a_data_file()
    harm(file)
    Path("flows.toml").write_text(CONFIG)
    said = run("check", "--config=flows.toml")
    assert said.status == 1
    assert "1 file of it does not hold Parquet: of 2024-01-01" in said.out
    assert "backfill --force" in said.out
    Path("flows.toml").unlink()
    assert run("backfill", *DAYS, "--force").status == 0
    assert rows(TABLE.absolute()) == right


@pytest.mark.parametrize("name", ["_batches", "_staging", "_superseded", "_delta_log"])
def test_a_file_in_the_place_of_a_folder(run: Run, name: str) -> None:
    """Each command says which file is in the way, and that it has to be moved; it is left there."""
    folder = TABLE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("x")
    said = run("backfill", *DAYS)
    assert said.status == 2
    assert f"{name} is a file, and the dataset needs a folder of that name. Move" in said.err
    assert folder.read_text() == "x"
