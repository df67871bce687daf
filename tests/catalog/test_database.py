"""The catalog: history and ledger survive, are shared between processes, and fail in sentences."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest

from engine.catalog import version_0_1
from engine.catalog.database import NAME, Catalog
from engine.catalog.schema import VERSION
from engine.control.run_payload import payload
from engine.errors import EtlError, InputError
from engine.model.batch import INVALID, Tally
from engine.model.flow import Connection, Flow, Run, Secret, flow_id
from engine.model.run_record import (
    FAILED,
    FIELDS,
    IN_PROGRESS,
    KILLED,
    SUCCESS,
    RunRecord,
    Status,
)
from engine.model.window import Window
from engine.sync import run_records
from tests.support.commands import mounted
from tests.support.records import DAY, record

HOUR = 3_600_000
ROOT = Path(__file__).parents[2]
FLOW = Flow("events", Connection("https://h", "reader", Secret("s3cret"), 1), "data/events")


def save(catalog: Catalog, run: str, status: Status = SUCCESS, **other: Any) -> None:
    """Store a run; `other`: fields of its record."""
    catalog.save(record(run, status, **other))


def ids(records: list[RunRecord]) -> list[str]:
    return [each.id for each in records]


def test_a_saved_run_comes_back_as_it_was(tmp_path: Path) -> None:
    """A record is read back whole, by another process or after a restart."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a", started_at=7)
    with Catalog(tmp_path) as catalog:
        assert catalog.history() == [record("a", started_at=7)]
        (entry,) = catalog.history()
    assert (entry.flow, entry.dataset, entry.status) == ("events", "data/events", "success")
    assert (entry.started_at, entry.window) == (7, DAY)


def test_a_run_has_one_row(tmp_path: Path) -> None:
    """The record of the end replaces the record of the start."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a", IN_PROGRESS)
        assert catalog.history(status="inProgress") == [record("a", IN_PROGRESS)]
        save(catalog, "a", SUCCESS)
        assert catalog.history() == [record("a", SUCCESS)]
        assert len(catalog.history()) == 1


def test_runs_are_listed_newest_first_and_filtered(tmp_path: Path) -> None:
    """Order is by start, then by saving; status in any case; a limit leaves out the oldest."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "old", FAILED, started_at=1)
        save(catalog, "other", SUCCESS, started_at=2, flow="other")
        save(catalog, "first", SUCCESS, started_at=3)
        save(catalog, "second", FAILED, started_at=3)
        assert ids(catalog.history()) == ["second", "first", "other", "old"]
        assert ids(catalog.history(limit=1)) == ["second"]
        assert ids(catalog.history(flow="events")) == ["second", "first", "old"]
        assert ids(catalog.history(status="Failed")) == ["second", "old"]
        assert ids(catalog.history(flow="events", status="SUCCESS")) == ["first"]
        assert catalog.history(flow="nobody") == []
        assert (len(catalog.history()), len(catalog.history(status="FAILED"))) == (4, 2)


def test_runs_that_a_dead_process_left_in_progress_fail(tmp_path: Path) -> None:
    """Only open runs of the given dataset become failed."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "killed", IN_PROGRESS)
        save(catalog, "done", SUCCESS)
        save(catalog, "elsewhere", IN_PROGRESS, dataset="data/other")
        assert ids(catalog.history(None, IN_PROGRESS, "data/events")) == ["killed"]
        assert catalog.abandon("data/events", 9_000) == 1
        assert ids(catalog.history(status=IN_PROGRESS)) == ["elsewhere"]
        (killed,) = catalog.history(status=FAILED)
        assert killed == record("killed", IN_PROGRESS).abandoned(9_000)
        assert (killed.status, killed.updated_at, killed.error) == (FAILED, 9_000, KILLED)
        assert catalog.abandon("data/events", 9_000) == 0


def ask(catalog: Catalog, project: str, now: int, pause: int = 0) -> list[int]:
    """Acquire a slot, which is free unless `pause`; return the moments that `wait` received."""
    told: list[Sequence[int]] = []

    def wait(moments: Sequence[int]) -> int:
        told.append(moments)
        return pause

    assert catalog.acquire(project, now, wait) == pause
    (moments,) = told
    return list(moments)


def test_requests_survive_a_restart_and_are_counted_by_project(tmp_path: Path) -> None:
    """Requests are listed in order, with those of an earlier process."""
    with Catalog(tmp_path) as catalog:
        for project, at in (("1", 30), ("1", 10), ("2", 20)):
            ask(catalog, project, at)
    with Catalog(tmp_path) as catalog:
        assert ask(catalog, "1", 30, pause=1) == [10, 30]
        assert ask(catalog, "2", 30, pause=1) == [20]


def test_only_a_request_that_may_be_sent_is_stored(tmp_path: Path) -> None:
    """No request is stored for a process that has to wait, or whose decision fails."""
    with Catalog(tmp_path) as catalog:
        ask(catalog, "1", 10, pause=700)
        with pytest.raises(ZeroDivisionError):
            catalog.acquire("1", 10, lambda moments: 1 // len(moments))
        assert ask(catalog, "1", 10) == []
        assert ask(catalog, "1", 20) == [10]


def test_requests_count_for_an_hour(tmp_path: Path) -> None:
    """A request stored while this process waited counts; one in the far future does not."""
    now = 9 * HOUR
    with Catalog(tmp_path) as catalog:
        for at in (now - HOUR, now - HOUR + 1, now, now + 30_000, now + 30_001):
            ask(catalog, "1", at)
        assert ask(catalog, "1", now, pause=1) == [now - HOUR + 1, now, now]


def test_requests_older_than_a_day_are_deleted(tmp_path: Path) -> None:
    """The ledger holds the requests of one day at most."""
    with Catalog(tmp_path) as catalog:
        for at in (0, HOUR, 24 * HOUR + 1):
            ask(catalog, "1", at)
    assert noted(tmp_path, "1") == [HOUR, 24 * HOUR + 1]


def noted(home: Path, project: str) -> list[int]:
    """The moments of all requests of the project in the file."""
    with closing(sqlite3.connect(home / NAME)) as file:
        query = "SELECT at FROM requests WHERE project = ? ORDER BY at"
        return [at for (at,) in file.execute(query, [project])]


def test_deciding_and_storing_a_request_is_one_transaction(tmp_path: Path) -> None:
    """No other process can store a request in between, and so take the same slot."""

    def wait(moments: Sequence[int]) -> int:
        other = stack.enter_context(closing(sqlite3.connect(tmp_path / NAME, timeout=0)))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO requests VALUES ('1', 1)")
        return 0

    with Catalog(tmp_path) as catalog, ExitStack() as stack:
        assert catalog.acquire("1", 1, wait) == 0
    assert noted(tmp_path, "1") == [1]


def test_processes_never_exceed_the_rate_limit(tmp_path: Path) -> None:
    """Two processes that acquire slots at full speed get all slots, and not one more."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from engine.catalog.database import Catalog\n"
        "from engine.model.retry import RateLimit, wait_for_slot\n"
        "budget = RateLimit(per_hour=30, per_second=1000)\n"
        "with Catalog(Path(sys.argv[1])) as catalog:\n"
        "    print('ready', flush=True); sys.stdin.readline(); got = 0\n"
        "    for _ in range(40):\n"
        "        now = time.time_ns() // 1_000_000\n"
        "        wait = lambda moments: wait_for_slot(moments, 0, now, budget)\n"
        "        got += catalog.acquire('1', now, wait) == 0\n"
        "    print(got)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) for _ in range(2)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sum(int(process.communicate(timeout=60)[0]) for process in started) == 30
    assert len(noted(tmp_path, "1")) == 30


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    """The folder is 700; the file and what SQLite writes beside it are 600."""
    home = tmp_path / "home"
    with Catalog(home) as catalog:
        save(catalog, "a")
        assert home.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
    assert set(modes) == {NAME, f"{NAME}-wal", f"{NAME}-shm"}
    assert set(modes.values()) == {0o600}


def test_no_credential_is_in_the_file(tmp_path: Path) -> None:
    """P7: neither the password nor the account's name is anywhere in its bytes."""
    with Catalog(tmp_path) as catalog:
        run = Run("a", "events", DAY, "", 1_000)
        catalog.save(run_records.scheduled(FLOW, "data/events", run, {}))
    text = (tmp_path / NAME).read_bytes()
    assert b"data/events" in text
    assert b"s3cret" not in text
    assert b"reader" not in text


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    """While another connection has a write open, the catalog opens and reads what was before."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a")
    writer = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM runs")
    started = perf_counter()
    with Catalog(tmp_path) as reader:
        assert ids(reader.history()) == ["a"]
    assert perf_counter() - started < 10  # a writer's lock is waited for much longer
    writer.execute("ROLLBACK")
    writer.close()


def test_a_thread_that_waits_to_write_blocks_no_reader(tmp_path: Path) -> None:
    """While another process writes, a waiting writer blocks neither readers nor `close`."""
    catalog = Catalog(tmp_path)
    save(catalog, "a")
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(save, catalog, "b")
            while catalog._lock.acquire(blocking=False):  # it is not that far yet
                catalog._lock.release()
            started = perf_counter()
            assert ids(catalog.history()) == ["a"]
            catalog.close(0)
            assert perf_counter() - started < 5
            assert not waiting.done()
            other.execute("ROLLBACK")
            waiting.result()
    assert sorted(ids(catalog.history())) == ["a", "b"]
    catalog.close()


def test_what_is_read_in_a_transaction(tmp_path: Path) -> None:
    """The thread of a transaction reads its changes; other threads read the state before."""
    with Catalog(tmp_path) as catalog, ThreadPoolExecutor(1) as pool:
        save(catalog, "a")
        with catalog.transaction() as connection:
            connection.execute("DELETE FROM runs")
            assert ids(catalog.history()) == []
            assert ids(pool.submit(catalog.history).result()) == ["a"]
        assert ids(catalog.history()) == []


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_was_deleted(tmp_path: Path, other: bool) -> None:
    """Nothing is written to a file that was deleted or replaced: it could not be read again."""
    with Catalog(tmp_path / "home") as catalog:
        save(catalog, "a")
        catalog.check()
        shutil.rmtree(tmp_path / "home")
        if other:
            Catalog(tmp_path / "home").close()
        for use in (catalog.check, lambda: save(catalog, "b"), lambda: ask(catalog, "1", 1)):
            with pytest.raises(EtlError, match="deleted or replaced"):
                use()


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """`check` raises before a write is due, and reading still works."""
    home = tmp_path / "home"
    with mounted(home, "1m"), Catalog(home) as catalog:
        save(catalog, "a")
        catalog.check()
        with suppress(OSError), (home / "filling").open("wb", buffering=0) as filling:
            while filling.write(bytes(4096)):
                pass
        with pytest.raises(EtlError, match="the disk is full"):
            catalog.check()
        assert ids(catalog.history()) == ["a"]


def test_processes_share_one_file(tmp_path: Path) -> None:
    """Several processes create the file at once and write to it; no write is lost."""
    code = (
        "import sys; from pathlib import Path; from engine.catalog.database import Catalog\n"
        "with Catalog(Path(sys.argv[1])) as catalog:\n"
        "    for number in range(20): catalog.acquire(sys.argv[2], number, lambda _: 0)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), project], cwd=ROOT)
        for project in ("1", "2", "2")
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(noted(tmp_path, "1")) == 20
    assert len(noted(tmp_path, "2")) == 40


def test_two_processes_that_make_the_file_at_once_make_one(tmp_path: Path) -> None:
    """The slower one, which saw no tables, finds those that the faster one created."""

    class Slower(Catalog):
        overtaken = False

        def _version(self) -> int:
            version = super()._version()
            if not self.overtaken:
                self.overtaken = True
                with Catalog(tmp_path) as faster:
                    save(faster, "a")
            return version

    with Slower(tmp_path) as catalog:
        assert catalog.overtaken
        assert ids(catalog.history()) == ["a"]


def test_it_waits_for_who_is_making_the_file(tmp_path: Path) -> None:
    """SQLite refuses one of two processes that set the journal mode at once: it tries again."""
    left = 3

    def execute(statement: str) -> None:
        nonlocal left
        if left := left - 1:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

    with Catalog(tmp_path) as catalog, pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_connection", SimpleNamespace(execute=execute))
        catalog._write_ahead()
    assert left == 0


def test_threads_share_one_catalog(tmp_path: Path) -> None:
    """Workers write through the same object, whole transactions at a time."""
    with Catalog(tmp_path) as catalog:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: save(catalog, str(number)), range(60)))
            list(pool.map(lambda number: ask(catalog, "1", number), range(60)))
        assert len(catalog.history()) == 60
    assert noted(tmp_path, "1") == list(range(60))


def test_a_write_that_breaks_changes_nothing(tmp_path: Path) -> None:
    """A write is one transaction: if its second half fails, its first half is undone."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a", IN_PROGRESS)
        save(catalog, "b", IN_PROGRESS)
        breaking = sqlite3.connect(tmp_path / NAME)
        breaking.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON runs WHEN old.id = 'b' "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        breaking.close()
        with pytest.raises(EtlError, match=r"catalog .* cannot be written .*no room"):
            catalog.abandon("data/events", 9_000)
        assert len(catalog.history(status=IN_PROGRESS)) == 2
        save(catalog, "c")
        assert len(catalog.history()) == 3


# The tables of version 1, as that version made them.
VERSION_1 = """
CREATE TABLE runs (
    id         TEXT PRIMARY KEY,
    flow       TEXT NOT NULL,
    dataset    TEXT NOT NULL,
    status     TEXT NOT NULL COLLATE NOCASE,
    started_at INTEGER NOT NULL,
    "window"   TEXT NOT NULL,
    item       TEXT NOT NULL
);
CREATE INDEX runs_by_time ON runs (started_at);
CREATE INDEX runs_by_flow ON runs (flow, started_at);
CREATE INDEX runs_by_status ON runs (status, started_at);
CREATE INDEX runs_by_flow_and_status ON runs (flow, status, started_at);
CREATE TABLE requests (project TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX requests_by_project ON requests (project, at);
PRAGMA user_version = 1;
"""


def whole(home: Path) -> dict[str, Any]:
    """The rows of every table, and every definition, as they are in the file."""
    with closing(sqlite3.connect(home / NAME)) as file:
        tables = [name for (name,) in file.execute("SELECT name FROM sqlite_master "
                  "WHERE type = 'table' ORDER BY name")]  # fmt: skip
        found = {name: file.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
                 for name in tables}  # fmt: skip
        found["schema"] = file.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        found["version"] = file.execute("PRAGMA user_version").fetchall()
    return found


def done(run: str, status: Status = SUCCESS, **other: Any) -> RunRecord:
    """The record of a run that has ended, with all of its counts."""
    known: dict[str, Any] = {
        "batch_id": f"batch-{run}", "dataset": "d", "updated_at": 4_000, "activities_at": 4_000,
        "copy_completed": 3_000, "promotion_started": 3_000, "promotion_completed": 3_500,
        "tally": Tally(lines=10, rows=7, rejected=2, duplicates=1, bytes_read=100,
                       bytes_written=40, files=1, reject_codes=Counter({INVALID: 2})),
        "failure": ("CONNECTOR-1001-500", "It failed.") if status == FAILED else None,
    }  # fmt: skip
    return record(run, status, **known | other)


def test_a_file_of_schema_version_1_becomes_as_a_new_one(tmp_path: Path) -> None:
    """The migrated rows equal those of records that are saved now, in more than one chunk."""
    (tmp_path / "old").mkdir()
    records = [
        done(f"{number:04}", FAILED if number % 7 == 3 else SUCCESS) for number in range(1500)
    ]
    records += [record("running", IN_PROGRESS), record("other", flow="other")]
    with closing(sqlite3.connect(tmp_path / "old" / NAME)) as old, old:
        old.executescript(VERSION_1)
        for each in records:
            row = (each.id, each.flow, each.dataset, each.status, each.started_at,
                   json.dumps(DAY.as_json()), json.dumps(payload(each)))  # fmt: skip
            old.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        old.execute("INSERT INTO requests VALUES ('1', 5)")
    with Catalog(tmp_path / "old") as catalog, Catalog(tmp_path / "new") as fresh:
        assert len(catalog.history(limit=2000)) == 1502
        assert asked_once(catalog)
        for each in records:
            read = version_0_1.record_of(payload(each), each.flow, each.dataset, each.window)
            assert payload(read) == payload(each)
            assert read == each or each.status == FAILED  # of which the payload has less
            fresh.save(read)
        fresh.acquire("1", 5, lambda _: 0)
    assert whole(tmp_path / "old") == whole(tmp_path / "new")
    with Catalog(tmp_path / "old") as again:
        assert totals(again)["events", "runs success"] == 1500 - 214
    assert whole(tmp_path / "old") == whole(tmp_path / "new")


def asked_once(catalog: Catalog) -> bool:
    return catalog.recent_requests("1", 5) == [5]


def totals(catalog: Catalog) -> dict[tuple[str, str], int]:
    return {(flow, what): value for flow, what, value in catalog.read("SELECT * FROM totals")}


def test_totals_are_of_runs_that_are_over(tmp_path: Path) -> None:
    """The counts of a run are added once, however often the run is saved."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a", IN_PROGRESS)
        assert totals(catalog) == {}
        for each in (done("a"), done("a"), done("b")):
            catalog.save(each)
        expected = {
            "runs success": 2, "events in": 20, "events out": 14, "events rejected": 4,
            "events duplicate": 2, "bytes in": 200, "bytes out": 80, "ms copy": 4000,
            "ms promotion": 1000, "reached": 9,
        }  # fmt: skip
        assert totals(catalog) == {("events", what): value for what, value in expected.items()}


def test_totals_never_fall(tmp_path: Path) -> None:
    """Totals stay if runs are deleted, or if a failed run turns out to be committed."""
    with Catalog(tmp_path) as catalog:
        before: dict[tuple[str, str], int] = {}
        save(catalog, "left", IN_PROGRESS)
        for step in (
            lambda: catalog.save(done("a", FAILED)),
            lambda: catalog.save(done("a")),
            lambda: catalog.save(done("a", FAILED)),
            lambda: catalog.abandon("data/events", 9_000),
            lambda: catalog.read("DELETE FROM runs"),
        ):
            step()
            after = totals(catalog)
            assert all(after[name] >= value for name, value in before.items())
            before = after
        assert before["events", "runs success"] == 1
        assert before["events", "runs failed"] == 3
        assert before["events", "events out"] == 7
        assert catalog.history() == []


@pytest.mark.parametrize(
    ("window", "reached"),
    [
        (Window(date(2024, 3, 1), date(2024, 3, 2), (5, 900)), 900),
        (Window(date(1970, 1, 1), date(1970, 1, 1)), 1_000),  # no later than the run began
        (Window(date(1970, 1, 1), date(1970, 1, 1), before=700), 700),
    ],
)
def test_how_far_a_flow_has_come_is_where_its_windows_end(
    tmp_path: Path, window: Window, reached: int
) -> None:
    """That is the end of its window, limited by `before` and by the start of the run."""
    with Catalog(tmp_path) as catalog:
        for status in (FAILED, SUCCESS):
            save(catalog, "a", status, window=window)
            assert totals(catalog).get(("events", "reached")) == (
                reached if status == SUCCESS else None
            )
        save(catalog, "b", window=replace(DAY, arrival=(1, 2)))
        assert totals(catalog)["events", "reached"] == reached


def test_a_newer_catalog_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file of a later version is not changed, and the error says what to do."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a")
    with sqlite3.connect(tmp_path / NAME) as newer:
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    with pytest.raises(InputError, match=r"newer mixpanel-etl .* Update"):
        Catalog(tmp_path)


def test_a_corrupt_file_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    """The error names the file and the remedy, and the file is not changed."""
    content = b"not a database, and long enough to be read as one" * 40
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(InputError, match=r"catalog.sqlite3 cannot be read .*move it away"):
        Catalog(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


@pytest.mark.parametrize("obstacle", ["home", "file"])
def test_a_place_that_cannot_be_written_is_an_error_in_a_sentence(
    tmp_path: Path, obstacle: str
) -> None:
    """The home is a file, or the catalog is a folder: both are errors in a sentence."""
    home = tmp_path / "home"
    if obstacle == "home":
        home.write_text("")
    else:
        (home / NAME).mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot be written .*MIXPANEL_ETL_HOME"):
        Catalog(home)


def test_a_page_of_a_hundred_thousand_runs_is_fast(tmp_path: Path) -> None:
    """Every list is read from an index, in well under 50 ms, however long the history is."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "seed")
        filling = sqlite3.connect(tmp_path / NAME)
        filling.create_function("flow_id", 1, flow_id)
        values = {f'"{name}"': f'"{name}"' for name in (*FIELDS, "flow_id")} | {
            '"id"': "'run-' || i",
            '"flow"': "'flow-' || (i % 7)",
            '"flow_id"': "flow_id('flow-' || (i % 7))",
            '"status"': "CASE i % 100 WHEN 0 THEN 'failed' ELSE 'success' END",
            '"started_at"': "i",
        }
        filling.execute(
            f"INSERT INTO runs ({', '.join(values)}) "
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
            f"SELECT {', '.join(values.values())} FROM n JOIN runs"
        )
        filling.commit()
        filling.close()
        flow, status = "flow-3", "Failed"
        for wanted, plan in (
            ((None, None), "SCAN runs USING INDEX runs_by_time"),
            ((flow, None), "SEARCH runs USING INDEX runs_by_flow (flow_id=?)"),
            ((None, status), "SEARCH runs USING INDEX runs_by_status (status=?)"),
            ((flow, status), "SEARCH runs USING INDEX runs_by_status (status=?)"),
        ):
            took: list[float] = []
            queries: list[str] = []
            for _ in range(3):
                started = perf_counter()
                assert len(catalog.history(wanted[0], wanted[1], limit=100)) == 100
                took.append(perf_counter() - started)
            assert min(took) < 0.05, took
            catalog._reading.set_trace_callback(queries.append)
            catalog.history(*wanted)
            catalog._reading.set_trace_callback(None)
            steps = catalog._connection.execute(f"EXPLAIN QUERY PLAN {queries[0]}").fetchall()
            assert [step[3] for step in steps] == [
                plan,
                "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY",  # of runs that began at one moment
            ]


def test_a_second_one_in_this_process_frees_no_lock(tmp_path: Path) -> None:
    """A second catalog in a process frees no lock of the first: no close of its file may do so."""
    with Catalog(tmp_path) as catalog:
        save(catalog, "a")
        Catalog(tmp_path).close()
        script = f"from pathlib import Path; from engine.catalog.database import Catalog; Catalog(Path({str(tmp_path)!r})).close()"  # noqa: E501
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
        save(catalog, "b")
        with Catalog(tmp_path) as other:
            assert sorted(ids(other.history())) == ["a", "b"]
