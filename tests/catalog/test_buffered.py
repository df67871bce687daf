"""Runs and requests are buffered beside a catalog that cannot be written, and still count."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import buffered
from engine.catalog.buffered import UNWRITTEN, BufferedCatalog
from engine.catalog.database import NAME, Catalog
from engine.control.run_payload import payload
from engine.dataset.dataset import Dataset
from engine.errors import EtlError, InputError
from engine.model.retry import RateLimit, wait_for_slot
from engine.model.run_record import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS
from engine.sandbox import PROJECT_ID, Sandbox, Spec
from engine.sync.backfill import Backfill
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from engine.sync.pull import table_schema
from tests.catalog.test_database import noted, save
from tests.support.commands import DAYS as WORDS
from tests.support.commands import here, put, variables
from tests.support.pulling import DAYS, QUICK, RULES, flow_of, rows
from tests.support.records import record


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_WAIT", "NEXT_WAIT", "LAST_WAIT"):
        monkeypatch.setattr(buffered, name, 0.01)


@contextmanager
def locked(home: Path, how: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Hold the write lock in another process, or (EXCLUSIVE, not in WAL) every lock."""
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
    """A backfill warns once, says where its history is, and the next run writes that history."""
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
    """If the lock is released before the end, no buffer file is left."""
    told: list[str] = []
    with BufferedCatalog(tmp_path, told.append) as catalog:
        with locked(tmp_path):
            save(catalog, "a", IN_PROGRESS)
            assert len(kept(tmp_path)) == 1
        save(catalog, "a", SUCCESS)
        assert kept(tmp_path) == []
        assert statuses(tmp_path) == [SUCCESS]
    assert len(told) == 1
    assert "cannot be written (database is locked). Pulling goes on" in told[0]


def test_the_buffer_of_a_killed_process(tmp_path: Path) -> None:
    """The next process writes the buffer to the catalog, and the totals count it once."""
    first = BufferedCatalog(tmp_path)
    with locked(tmp_path):
        save(first, "a", SUCCESS)
        save(first, "b", IN_PROGRESS)  # and killed here
    with BufferedCatalog(tmp_path) as catalog:
        assert {entry.status for entry in catalog.history()} == {SUCCESS, IN_PROGRESS}
        assert catalog.abandon("data/events", 9_000) == 1
    with BufferedCatalog(tmp_path) as catalog:
        assert sorted(entry.status for entry in catalog.history()) == [FAILED, SUCCESS]
        query = "SELECT what, value FROM totals WHERE what LIKE 'runs %'"
        assert dict(catalog.read(query)) == {"runs success": 1, "runs failed": 1}


def test_history_that_version_0_1_kept(tmp_path: Path) -> None:
    """Buffered runs in the payload's shape are written to the catalog like any others."""
    (tmp_path / UNWRITTEN).mkdir()
    run = record("a", batch_id="B")
    old = {"item": payload(run), "flow": run.flow, "dataset": run.dataset}
    left = {"runs": [old | {"window": run.window.as_json()}], "requests": [["1", 5]]}
    (tmp_path / UNWRITTEN / "x.json").write_text(json.dumps(left))
    with BufferedCatalog(tmp_path) as catalog:
        assert catalog.history() == [run]
    assert (kept(tmp_path), noted(tmp_path, "1")) == ([], [5])


def test_a_newer_record_stays(tmp_path: Path) -> None:
    """A buffer that is written late does not replace a later record of its run."""
    first = BufferedCatalog(tmp_path)
    with locked(tmp_path):
        save(first, "a", IN_PROGRESS, started_at=1_000)
    (path,) = (tmp_path / UNWRITTEN).iterdir()
    text = path.read_text()
    with Catalog(tmp_path) as catalog:
        save(catalog, "a", SUCCESS, updated_at=2_000)
    path.write_text(text)
    BufferedCatalog(tmp_path).close()
    assert (statuses(tmp_path), kept(tmp_path)) == ([SUCCESS], [])


def test_a_damaged_file_beside_the_catalog(tmp_path: Path) -> None:
    """A damaged buffer file stays where it is, and the catalog is used all the same."""
    (tmp_path / UNWRITTEN).mkdir()
    path = tmp_path / UNWRITTEN / "x.json"
    path.write_text('{"runs": [{}')
    with BufferedCatalog(tmp_path) as catalog:
        save(catalog, "a")
        assert catalog.acquire("1", 10, lambda _: 0) == 0
    assert path.exists()
    assert statuses(tmp_path) == [SUCCESS]


def test_the_rate_limit_of_a_locked_catalog(tmp_path: Path) -> None:
    """Requests in the file, of this process and in the buffers of earlier ones count."""
    budget = RateLimit(per_hour=4, per_second=100)

    def ask(catalog: Catalog, at: int) -> int:
        return catalog.acquire("1", at, lambda asked: wait_for_slot(asked, 0, at, budget))

    with Catalog(tmp_path) as catalog:
        assert ask(catalog, 10) == 0
    with locked(tmp_path):
        with BufferedCatalog(tmp_path) as catalog:
            assert [ask(catalog, at) for at in (20, 30)] == [0, 0]
            catalog.release("1", 20)
        with BufferedCatalog(tmp_path) as catalog:
            assert [ask(catalog, at) > 0 for at in (40, 50, 60)] == [False, False, True]
            assert catalog.recent_requests("1", 70) == [10, 30, 40, 50]
    with BufferedCatalog(tmp_path) as catalog:
        assert catalog.recent_requests("1", 70) == [10, 30, 40, 50]
    assert noted(tmp_path, "1") == [10, 30, 40, 50]


def test_a_scheduled_run_starts_once(tmp_path: Path) -> None:
    """A run that has started is not listed as scheduled, although the locked file lists it."""
    with BufferedCatalog(tmp_path) as catalog:
        save(catalog, "a", SCHEDULED)
        with locked(tmp_path):
            assert len(catalog.history("events", SCHEDULED)) == 1
            save(catalog, "a", SUCCESS)
            assert catalog.history("events", SCHEDULED) == []
            assert len(catalog.history("events", "SUCCESS")) == 1
            assert catalog.history("events", dataset="other") == []


def test_a_catalog_whose_disk_is_full(tmp_path: Path) -> None:
    """On a full disk, runs and requests are buffered as beside a locked catalog."""
    told: list[str] = []
    with BufferedCatalog(tmp_path, told.append) as catalog:
        (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
        catalog._connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(40):
            save(catalog, str(number))
            assert catalog.acquire("1", number, lambda _: 0) == 0
        catalog._connection.execute(f"PRAGMA max_page_count = {pages * 10}")
    assert len(told) == 1
    assert "full" in told[0]
    assert len(statuses(tmp_path)) == len(noted(tmp_path, "1")) == 40


def test_nothing_can_be_written(tmp_path: Path) -> None:
    """If not even the buffer can be written, a warning says so, and the table has the events."""
    (tmp_path / UNWRITTEN).touch()
    told: list[str] = []
    with locked(tmp_path), BufferedCatalog(tmp_path, told.append) as catalog:
        save(catalog, "a")
        assert catalog.acquire("1", 1, lambda _: 0) == 0
    assert len(told) == 2
    assert "The history of 1 run is lost" in told[1]


def test_a_catalog_that_is_lost_is_an_error(tmp_path: Path) -> None:
    """A catalog that is damaged, or was deleted while in use, raises instead of buffering."""
    with BufferedCatalog(tmp_path / "home") as catalog:
        (tmp_path / "home" / NAME).unlink()
        with pytest.raises(EtlError, match="deleted or replaced"):
            save(catalog, "a")
    (tmp_path / NAME).write_text("junk, and no SQLite at all" * 100)
    with pytest.raises(InputError, match=r"cannot be read .*move it away"):
        BufferedCatalog(tmp_path)


def test_a_tick_beside_a_locked_catalog(tmp_path: Path) -> None:
    """A flow is synced, and the caller gets a warning about the history."""
    told: list[str] = []
    Catalog(tmp_path / "home").close()
    with Sandbox(Spec(events_per_day=20)) as sandbox, locked(tmp_path / "home"):
        flow = flow_of(sandbox.url, tmp_path / "table", backfill_from=date(2024, 1, 1))
        now = 1_704_240_000_000  # 2024-01-03
        records = sync_flow(flow, tmp_path / "home", Options(now=lambda: now), warn=told.append)
    assert {each.status for each in records} == {SUCCESS}
    assert len(told) == 2


def test_a_table_that_was_committed_beside_a_locked_catalog(tmp_path: Path) -> None:
    """Its runs are in the history as soon as the file can be written."""
    home = tmp_path / "home"
    with Sandbox(Spec(events_per_day=20)) as sandbox:
        flow = flow_of(sandbox.url, tmp_path / "table")
        dataset = Dataset(tmp_path / "table", table_schema(RULES), flow.source)
        Catalog(home).close()
        with locked(home), BufferedCatalog(home) as catalog:
            Backfill(flow, RULES, dataset, catalog, QUICK).run(DAYS)
    assert statuses(home) == []
    BufferedCatalog(home).close()
    assert set(statuses(home)) == {SUCCESS}
