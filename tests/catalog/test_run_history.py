"""History is no reason not to pull: while the catalog cannot be written, runs and requests are kept
beside it, and counted, until somebody can write them.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import run_history
from engine.catalog.database import NAME, Catalog
from engine.catalog.run_history import UNWRITTEN, RunHistory
from engine.dataset.dataset import Dataset
from engine.errors import EtlError, InputError
from engine.model.run_payload import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS
from engine.model.schedule import RateLimit, wait_for_slot
from engine.model.window import Window
from engine.sandbox import PROJECT_ID, Sandbox, Spec
from engine.sync.backfill import Backfill
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from engine.sync.pull import table_schema
from tests.catalog.test_database import item, noted, save
from tests.support.commands import DAYS as WORDS
from tests.support.commands import here, put, variables
from tests.support.pulling import DAYS, QUICK, RULES, flow_of, rows

DAY = Window(date(2024, 3, 1), date(2024, 3, 2))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE", "HURRY", "AT_THE_END"):
        monkeypatch.setattr(run_history, name, 0.01)


@contextmanager
def locked(home: Path, how: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Another process that holds the write lock, or (EXCLUSIVE, not in WAL) every lock."""
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(home / NAME, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


def kept(home: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in (home / UNWRITTEN).glob("*.json")]


def statuses(home: Path) -> list[str]:
    with Catalog(home) as catalog:
        return [entry.status for entry in catalog.history()]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_backfill_beside_a_locked_catalog(
    tmp_path: Path,
    fresh: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It pulls, says so once and where the history is, and the next one writes that; so it does
    where the lock is held before there is any table in the file.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXPANEL_ETL_HOME", "home")
    run = here(capsys)
    if not fresh:
        Catalog(Path("home")).close()
    with Sandbox(Spec(events_per_day=20)) as sandbox:
        put(variables(sandbox.url), monkeypatch)
        with locked(Path("home"), "EXCLUSIVE" if fresh else "IMMEDIATE"):
            said = run("backfill", *WORDS)
        assert (said.status, len(rows(Path("data/events"))) > 50) == (0, True), said.err
        assert said.err.count("Pulling goes on, and the history is written later.") == 1
        (left,) = kept(Path("home"))
        count = len(left["runs"])
        assert f"The history of {count} run" in said.err
        assert "home/unwritten/" in said.err
        assert len(left["requests"]) == count == len(sandbox.requests)
        again = run("backfill", *WORDS)
    assert (again.status, kept(Path("home"))) == (0, [])
    assert statuses(Path("home")) == [SUCCESS] * count
    assert len(noted(Path("home"), f"{sandbox.url}/{PROJECT_ID}")) == count


def test_a_lock_that_is_gone_before_the_end(tmp_path: Path) -> None:
    """Then nothing is left beside the catalog, and nobody has to look for it."""
    told: list[str] = []
    with RunHistory(tmp_path, told.append) as catalog:
        with locked(tmp_path):
            save(catalog, "a", IN_PROGRESS)
            assert len(kept(tmp_path)) == 1
        save(catalog, "a", SUCCESS)
        assert kept(tmp_path) == []
        assert statuses(tmp_path) == [SUCCESS]
    assert len(told) == 1
    assert "cannot be written (database is locked). Pulling goes on" in told[0]


def test_what_a_killed_process_kept(tmp_path: Path) -> None:
    """It is written by the next one, beside what that saves, and counted once in the totals."""
    first = RunHistory(tmp_path)
    with locked(tmp_path):
        save(first, "a", SUCCESS)
        save(first, "b", IN_PROGRESS)  # and killed here
    with RunHistory(tmp_path) as catalog:
        assert {entry.status for entry in catalog.history()} == {SUCCESS, IN_PROGRESS}
        assert catalog.abandon("data/events", 9_000) == 1
    with RunHistory(tmp_path) as catalog:
        assert sorted(entry.status for entry in catalog.history()) == [FAILED, SUCCESS]
        query = "SELECT what, value FROM totals WHERE what LIKE 'runs %'"
        assert dict(catalog.read(query)) == {"runs success": 1, "runs failed": 1}


def test_what_is_newer_stays(tmp_path: Path) -> None:
    """A file that is written late replaces no later record of its run."""
    first = RunHistory(tmp_path)
    with locked(tmp_path):
        save(first, "a", IN_PROGRESS, started_at=1_000)
    (path,) = (tmp_path / UNWRITTEN).iterdir()
    text = path.read_text()
    with Catalog(tmp_path) as catalog:
        later = item("a", SUCCESS, 1_000) | {"updatedAt": 2_000}
        catalog.save(later, flow="events", dataset="d", window=DAY)
    path.write_text(text)
    RunHistory(tmp_path).close()
    assert (statuses(tmp_path), kept(tmp_path)) == ([SUCCESS], [])


def test_a_damaged_file_beside_the_catalog(tmp_path: Path) -> None:
    """It stays where it is, for a person to look at, and is in nobody's way."""
    (tmp_path / UNWRITTEN).mkdir()
    path = tmp_path / UNWRITTEN / "x.json"
    path.write_text('{"runs": [{}')
    with RunHistory(tmp_path) as catalog:
        save(catalog, "a")
        assert catalog.ask("1", 10, lambda _: 0) == 0
    assert path.exists()
    assert statuses(tmp_path) == [SUCCESS]


def test_the_budget_of_a_locked_catalog(tmp_path: Path) -> None:
    """What was asked is counted all the same, in the file, in this process and in those before."""
    budget = RateLimit(per_hour=4, per_second=100)

    def ask(catalog: Catalog, at: int) -> int:
        return catalog.ask("1", at, lambda asked: wait_for_slot(asked, 0, at, budget))

    with Catalog(tmp_path) as catalog:
        assert ask(catalog, 10) == 0
    with locked(tmp_path):
        with RunHistory(tmp_path) as catalog:
            assert [ask(catalog, at) for at in (20, 30)] == [0, 0]
            catalog.release("1", 20)
        with RunHistory(tmp_path) as catalog:
            assert [ask(catalog, at) > 0 for at in (40, 50, 60)] == [False, False, True]
            assert catalog.asked("1", 70) == [10, 30, 40, 50]
    with RunHistory(tmp_path) as catalog:
        assert catalog.asked("1", 70) == [10, 30, 40, 50]
    assert noted(tmp_path, "1") == [10, 30, 40, 50]


def test_what_was_asked_for_is_not_begun_twice(tmp_path: Path) -> None:
    """A run that is not scheduled any more is not, whether or not the file knows."""
    with RunHistory(tmp_path) as catalog:
        save(catalog, "a", SCHEDULED)
        with locked(tmp_path):
            assert len(catalog.history("events", SCHEDULED)) == 1
            save(catalog, "a", SUCCESS)
            assert catalog.history("events", SCHEDULED) == []
            assert len(catalog.history("events", "SUCCESS")) == 1
            assert catalog.history("events", dataset="other") == []


def test_a_catalog_whose_disk_is_full(tmp_path: Path) -> None:
    """As one that is locked."""
    told: list[str] = []
    with RunHistory(tmp_path, told.append) as catalog:
        (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
        catalog._connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(40):
            save(catalog, str(number))
            assert catalog.ask("1", number, lambda _: 0) == 0
        catalog._connection.execute(f"PRAGMA max_page_count = {pages * 10}")
    assert len(told) == 1
    assert "full" in told[0]
    assert len(statuses(tmp_path)) == len(noted(tmp_path, "1")) == 40


def test_nothing_can_be_written(tmp_path: Path) -> None:
    """Not even beside the catalog: that is said at the end, and what was pulled is pulled."""
    (tmp_path / UNWRITTEN).touch()
    told: list[str] = []
    with locked(tmp_path), RunHistory(tmp_path, told.append) as catalog:
        save(catalog, "a")
        assert catalog.ask("1", 1, lambda _: 0) == 0
    assert len(told) == 2
    assert "The history of 1 run is lost" in told[1]


def test_what_is_no_matter_of_time(tmp_path: Path) -> None:
    """A catalog that is damaged, or was deleted while it was in use, is an error as ever."""
    with RunHistory(tmp_path / "home") as catalog:
        (tmp_path / "home" / NAME).unlink()
        with pytest.raises(EtlError, match="deleted or replaced"):
            save(catalog, "a")
    (tmp_path / NAME).write_text("junk, and no SQLite at all" * 100)
    with pytest.raises(InputError, match=r"cannot be read .*move it away"):
        RunHistory(tmp_path)


def test_a_tick_beside_a_locked_catalog(tmp_path: Path) -> None:
    """A flow is brought up to date, and whoever asked for that hears of the history."""
    told: list[str] = []
    Catalog(tmp_path / "home").close()
    with Sandbox(Spec(events_per_day=20)) as sandbox, locked(tmp_path / "home"):
        flow = flow_of(sandbox.url, tmp_path / "table", backfill_from=date(2024, 1, 1))
        now = 1_704_240_000_000  # 2024-01-03
        items = sync_flow(flow, tmp_path / "home", Options(now=lambda: now), warn=told.append)
    assert items
    assert {each["metrics"]["statusSummary"]["status"] for each in items} == {SUCCESS}
    assert len(told) == 2


def test_a_table_that_was_committed_beside_a_locked_catalog(tmp_path: Path) -> None:
    """What a crash left of a commit is told of as soon as the file can be written."""
    home = tmp_path / "home"
    with Sandbox(Spec(events_per_day=20)) as sandbox:
        flow = flow_of(sandbox.url, tmp_path / "table")
        dataset = Dataset(tmp_path / "table", table_schema(RULES), flow.source)
        Catalog(home).close()
        with locked(home), RunHistory(home) as catalog:
            Backfill(flow, RULES, dataset, catalog, QUICK).run(DAYS)
    assert statuses(home) == []
    RunHistory(home).close()
    assert set(statuses(home)) == {SUCCESS}
