"""Days whose rows another program removed are due again, and reported as not complete (P10)."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from engine.control import declared_flows
from engine.dataset.dataset import Dataset
from engine.dataset.day_changes import Change, DaySummary, compare, figures_after
from engine.dataset.positions import pulled
from engine.model import clock, due_windows
from engine.model.due_windows import Positions
from engine.model.run_record import RunRecord
from engine.model.window import day_over, each_day
from engine.sandbox import Sandbox, Spec
from engine.sync import sample
from engine.sync.backfill import missing_days
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from engine.sync.pull import table_schema
from tests.support.commands import Run
from tests.support.flows import FAST, FLOWS, HOUR, NOON
from tests.support.pulling import QUICK, RULES, Pull, flow_of, pull, rows

FOUR = [date(2024, 1, day) for day in (1, 2, 3, 4)]
ONE_BY_ONE = replace(QUICK, days_per_request=1)
AGAIN = replace(ONE_BY_ONE, force=True)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    spec = Spec(events_per_day=60, reject_percent=1, late_percent=5)
    with Sandbox(spec, now=lambda: NOON) as running:
        yield running


def backfill(sandbox: Sandbox, root: Path, **changes: Any) -> Pull:
    sandbox.reset()
    return pull(sandbox.url, root, FOUR, ONE_BY_ONE, **changes)


def requested(sandbox: Sandbox) -> list[str]:
    """Return the days of the requests since the last reset."""
    return sorted(request["params"]["from_date"] for request in sandbox.requests)


def all_rows(root: Path) -> list[str]:
    """Return the rows for a Delta reader; other programs leave files that a glob reads too."""
    found = DeltaTable(root).to_pyarrow_table().to_pylist()
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in found)


def restore(version: int) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        DeltaTable(root).restore(version, ignore_missing_files=True)

    return act


def delete(predicate: str | None) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        DeltaTable(root).delete(predicate)

    return act


def overwrite(root: Path) -> None:
    """Replace the whole table, as another program, by a few rows."""
    table = DeltaTable(root).to_pyarrow_table().slice(0, 5)
    write_deltalake(root, table, mode="overwrite")


def sum_up(root: Path) -> None:
    """Write a checkpoint, and delete the entries before it."""
    DeltaTable(root).create_checkpoint()
    for entry in sorted((root / "_delta_log").glob("*.json"))[:-1]:
        entry.unlink()


def in_parts(root: Path) -> None:
    """Write a checkpoint in several parts, as Spark does, and delete the entries before it."""
    sum_up(root)
    log = root / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.rename(log / f"{checkpoint.name[:20]}.checkpoint.{1:010}.{1:010}.parquet")
    hint = json.loads((log / "_last_checkpoint").read_text())
    (log / "_last_checkpoint").write_text(json.dumps(hint | {"parts": 1}))


def nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("undo", "days"),
    [
        (restore(2), FOUR[2:]),
        (restore(0), FOUR),
        (delete("event_date = '2024-01-02'"), FOUR[1:2]),
        (delete("event_date >= '2024-01-03' and _extconndev['time'] % 2 = 0"), FOUR[2:]),
        (delete(None), FOUR),
        (overwrite, FOUR),
    ],
    ids=["restored", "to nothing", "a day", "some rows", "all rows", "overwritten"],
)
@pytest.mark.parametrize("then", [nothing, sum_up, in_parts])
def test_undone_days_are_pulled_again(
    sandbox: Sandbox,
    root: Path,
    undo: Callable[[Path], None],
    days: list[date],
    then: Callable[[Path], None],
) -> None:
    """The same backfill pulls the undone days alone, also with a checkpoint in the log."""
    backfill(sandbox, root)
    right = all_rows(root)
    undo(root)
    then(root)
    done = backfill(sandbox, root)
    assert requested(sandbox) == list(map(str, days))
    assert set(done.statuses) == {"success"}
    assert all_rows(root) == right
    backfill(sandbox, root)
    assert requested(sandbox) == []


@pytest.mark.parametrize("hours", [0, 24])
def test_a_restore_to_an_older_pull_of_a_day(sandbox: Sandbox, root: Path, hours: int) -> None:
    """A RESTORE brings back as many rows, of an older pull: the day is due again.

    Files that were deleted meanwhile are due again as well, and their removal is no error.
    """
    backfill(sandbox, root)
    pull(sandbox.url, root, FOUR, AGAIN, keep_superseded_hours=hours)
    right = all_rows(root)
    version = DeltaTable(root).version()
    DeltaTable(root).restore(version - 4, ignore_missing_files=True)
    done = backfill(sandbox, root)
    assert requested(sandbox) == list(map(str, FOUR))
    assert set(done.statuses) == {"success"}
    assert all_rows(root) == right


def test_what_other_programs_may_do(sandbox: Sandbox, root: Path) -> None:
    """After OPTIMIZE, VACUUM, an update and a checkpoint no day is due."""
    backfill(sandbox, root)
    pull(sandbox.url, root, FOUR[:1], AGAIN)
    DeltaTable(root).optimize.z_order(["unmapped"])
    DeltaTable(root).vacuum(0, enforce_retention_duration=False, dry_run=False)
    DeltaTable(root).update(updates={"unmapped": "'x'"}, predicate="event_date = '2024-01-02'")
    DeltaTable(root).create_checkpoint()
    backfill(sandbox, root)
    assert requested(sandbox) == []


def test_a_table_without_figures(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a table of an early version, the entries of the log show what was undone."""
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "_figures", lambda *_: {})
        backfill(sandbox, root)
    right = all_rows(root)
    backfill(sandbox, root)
    assert requested(sandbox) == []
    DeltaTable(root).restore(2)
    backfill(sandbox, root)
    assert requested(sandbox) == ["2024-01-03", "2024-01-04"]
    assert all_rows(root) == right
    DeltaTable(root).optimize.z_order(["unmapped"])
    backfill(sandbox, root)
    assert requested(sandbox) == []


def test_restored_while_it_is_open(sandbox: Sandbox, root: Path) -> None:
    """A table that is open reads its log again after a RESTORE."""
    backfill(sandbox, root)
    flow = flow_of(sandbox.url, root)
    dataset = Dataset(root, table_schema(RULES), flow.source)
    assert missing_days(flow, dataset, FOUR) == []
    DeltaTable(root).restore(2)
    assert missing_days(flow, dataset, FOUR) == FOUR[2:]
    sums = pulled(dataset)
    assert [name for name in sums if name in map(str, FOUR)] == list(map(str, FOUR))


# Of flows -------------------------------------------------------------------------------------


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands, where `flows.toml` has two flows, at noon."""
    monkeypatch.setattr(clock, "now", lambda: NOON)
    monkeypatch.setattr(sample, "_take_slot", lambda *_: NOON)  # the clock stands still
    Path("flows.toml").write_text(FLOWS.format(start=(NOON - 48 * HOUR) // 1000))
    return run


def sync(name: str) -> list[RunRecord]:
    """Sync the flow once, in this process."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), name)
    return sync_flow(flow, home, Options(now=lambda: NOON, rate_limit=FAST))


UNDOING = [
    restore(0),
    restore(1),
    delete("event_date >= '2024-01-07'"),
    delete("_extconndev['time'] % 3 = 0"),
]


@pytest.mark.parametrize("undo", UNDOING)
@pytest.mark.parametrize("name", ["events", "daily"])
def test_the_daemon_pulls_undone_days_again(
    run: Run, name: str, undo: Callable[[Path], None]
) -> None:
    """A sync pulls days and arrival windows that were undone, and no row twice."""
    root = Path("data", name)
    assert sync(name)
    right = all_rows(root)
    assert sync(name) == []
    undo(root)
    lost = sorted({row.split('"event_date": "')[1][:10] for row in right} - days_of(root))
    said = run("status", "--config=flows.toml", f"--flow={name}")
    assert said.status == 1
    assert f"{name}: " in said.err
    assert "due again, for the table does not hold what was pulled" in said.err
    assert ("RESTORE" in said.err) is ("DELETE" not in said.err)
    due = json.loads(run("plan", "--config=flows.toml", f"--flow={name}", "--json").out)[0]["due"]
    undone = {
        str(day)
        for each in due
        if each["why"] == "undone"
        for day in each_day(
            *(date.fromisoformat(each["window"][n]) for n in ("from_date", "to_date"))
        )
    }
    assert set(lost) <= undone
    assert {record.status for record in sync(name)} == {"success"}
    assert all_rows(root) == right
    assert run("status", "--config=flows.toml", f"--flow={name}").status == 0
    assert sync(name) == []


def days_of(root: Path) -> set[str]:
    files = pa.table(DeltaTable(root).get_add_actions(flatten=True))
    return set(map(str, files["partition.event_date"].to_pylist()))


def test_rows_of_another_program_stay(run: Run) -> None:
    """A day that only has more rows stays as it is, and status and backfill report it."""
    sync("daily")
    root = Path("data/daily")
    day = DeltaTable(root).to_pyarrow_table(filters=[("event_date", "=", date(2024, 1, 9))])
    write_deltalake(root, day.slice(0, 3), mode="append")
    found = all_rows(root)
    said = run("status", "--config=flows.toml", "--flow=daily")
    assert said.status == 0
    assert "daily: another program wrote to the table (WRITE, " in said.err
    assert "rows and held" in said.err
    dates = ["--from-date=2024-01-09", "--to-date=2024-01-09"]
    said = run("backfill", "--config=flows.toml", "--flow=daily", *dates)
    assert "left so without --force: 2024-01-09 holds" in said.err
    assert sync("daily") == []
    assert all_rows(root) == found


# Files that are gone --------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove_day(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize("harm", [remove, cut, remove_day])
@pytest.mark.parametrize("name", ["events", "daily"])
def test_a_missing_file(run: Run, harm: Callable[[Path], None], name: str) -> None:
    """`check` names its day, `status` and `plan` show it as due, and the daemon pulls it."""
    root, options = Path("data", name), ["--config=flows.toml", f"--flow={name}"]
    sync("events")
    sync("daily")
    right = rows(root.absolute())
    harm(next(root.glob("event_date=2024-01-09/*.parquet")))
    said = run("check", "--config=flows.toml")
    assert said.status == 1
    assert f"wrong  {name}: files of dataset data/{name}\n" in said.out
    assert "1 file of it is not on the disk, or cut off there: of 2024-01-09." in said.out
    said = run("status", *options)
    assert said.status == 1
    assert "2024-01-09 lacks 1 file on the disk" in said.err
    (due,) = json.loads(run("plan", *options, "--json").out)[0]["due"]
    assert (due["why"], due["window"]["from_date"]) == ("undone", "2024-01-09")
    (record,) = sync(name)
    assert record.status == "success"
    assert rows(root.absolute()) == right
    assert run("status", *options).status == 0
    assert run("check", "--config=flows.toml").status == 0


def test_a_backfill_pulls_the_day_of_a_missing_file(sandbox: Sandbox, root: Path) -> None:
    """The same backfill command pulls the day of a missing file again."""
    backfill(sandbox, root)
    right = rows(root)
    next(root.glob("event_date=2024-01-03/*.parquet")).unlink()
    done = backfill(sandbox, root)
    assert requested(sandbox) == ["2024-01-03"]
    assert done.statuses == ["success"]
    assert rows(root) == right


# What is decided ------------------------------------------------------------------------------

DAY = FOUR[0]
OURS = DaySummary.of([(f"event_date={DAY}/A-0.parquet", 10)])
NEWER = DaySummary.of([(f"event_date={DAY}/B-0.parquet", 10)])
COMPACTED = DaySummary.of([(f"event_date={DAY}/part-0-x.parquet", 10)])
NOTED = {f"rows:{DAY}": 10, f"files:{DAY}": OURS.file_hash}


@pytest.mark.parametrize(
    ("there", "undone"),
    [
        (OURS, None),
        (NEWER, True),
        (COMPACTED, None),
        (replace(COMPACTED, rows=9), True),
        (replace(COMPACTED, rows=11), False),
        (DaySummary(), True),
        (replace(OURS, missing=1), True),
        (OURS.plus(COMPACTED), False),
    ],
)
def test_which_days_are_undone(there: DaySummary, undone: bool | None) -> None:
    """Undone: days with fewer rows, missing files, or other files of this program."""
    found = compare(DAY, there, NOTED)
    assert (found and found.undone) == undone
    assert compare(DAY, replace(there, missing=0), {}) is None


def test_which_figures_are_noted() -> None:
    """A whole pull ends the loss of a day; rows that are added do not."""
    after = OURS.plus(DaySummary.of([(f"event_date={DAY}/C-0.parquet", 5)]))
    assert figures_after(DAY, OURS, after, NOTED, whole=False)[f"rows:{DAY}"] == 15
    lost = replace(COMPACTED, rows=4)
    added = lost.plus(DaySummary.of([(f"event_date={DAY}/C-0.parquet", 6)]))
    noted = NOTED | figures_after(DAY, lost, added, NOTED, whole=False)
    found = compare(DAY, added, noted)
    assert found == Change(DAY, 16, 10, 0, undone=True)
    assert compare(DAY, NEWER, figures_after(DAY, lost, NEWER, NOTED, whole=True)) is None


def test_undone_days_are_due_first() -> None:
    """Undone days are due first, one a window; with arrival windows, up to the watermark."""
    flow = flow_of("http://127.0.0.1", Path("t"), windows="day", backfill_from=FOUR[0])
    now = day_over(FOUR[3] + timedelta(days=20), flow.connection.zone)
    whole = dict.fromkeys(FOUR, now)
    found = Positions(None, None, {FOUR[0]: now, FOUR[3]: now}, undone=frozenset(FOUR[1:3]))
    due = list(due_windows.due(flow, found, now, events_per_day=1))
    assert (due[0].why, due[0].window.days) == ("undone", FOUR[1:3])
    assert not any(set(each.window.days) & set(FOUR) for each in due[1:])
    arriving = replace(flow, windows="arrival")
    found = Positions(now - 9, now - 5, whole, undone=frozenset(FOUR[:1]))
    (first, *_) = [
        each for each in due_windows.due(arriving, found, now) if not each.window.arrival
    ]
    assert (first.why, first.window.days, first.window.before) == ("undone", FOUR[:1], now - 5)
    waiting = Positions(None, None, {}, undone=frozenset(FOUR))
    assert "undone" not in {each.why for each in due_windows.due(arriving, waiting, now)}


def lose_half_and_double_the_rest(root: Path) -> None:
    """Leave as many rows as before: half of them lost, the other half doubled."""
    of_day = DeltaTable(root).to_pyarrow_table(filters=[("event_date", "=", FOUR[1])])
    half = of_day.num_rows // 2
    replaced = f"event_date = '{FOUR[1]}'"
    write_deltalake(root, of_day.slice(0, half), mode="overwrite", predicate=replaced)
    write_deltalake(root, of_day.slice(0, of_day.num_rows - half), mode="append")


def double_and_delete_some(root: Path) -> None:
    """Leave more rows than before, and some events lost."""
    of_day = DeltaTable(root).to_pyarrow_table(filters=[("event_date", "=", FOUR[1])])
    write_deltalake(root, of_day, mode="append")
    names = of_day["_extconndev"].combine_chunks().field("insert_id").to_pylist()
    DeltaTable(root).delete(
        f"event_date = '{FOUR[1]}' and _extconndev['insert_id'] = '{next(filter(None, names))}'"
    )


@pytest.mark.parametrize("act", [lose_half_and_double_the_rest, double_and_delete_some])
def test_a_day_that_lost_rows_and_got_others(
    sandbox: Sandbox, root: Path, act: Callable[[Path], None]
) -> None:
    """P10: that a day has as many rows as before, or more, does not hide the lost ones."""
    backfill(sandbox, root)
    right = all_rows(root)
    act(root)
    assert all_rows(root) != right
    backfill(sandbox, root)
    assert requested(sandbox) == [str(FOUR[1])]
    assert all_rows(root) == right
    backfill(sandbox, root)
    assert requested(sandbox) == []
