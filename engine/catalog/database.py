"""The history of runs, the ledger of requests and what the control plane keeps, in one SQLite file
that any number of processes read and write. The only importer of sqlite3. The data's truth is never
here: it is in the table.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock, RLock, get_ident
from types import TracebackType
from typing import Any, Self

from engine.catalog import metrics as figures
from engine.dataset.storage.local import can_share_memory, make_folder
from engine.errors import EtlError, InputError, disk_error
from engine.model.run_payload import (
    IN_PROGRESS,
    SCHEDULED,
    Json,
    abandoned,
    batch_id,
    flow_id,
    is_stopped,
)
from engine.model.schedule import HOUR, SECOND
from engine.model.window import Window

VERSION = 3
NAME = "catalog.sqlite3"

_DAY_MS = 24 * HOUR
_BUSY_SECONDS = 30
_ROOM = 1 << 16  # bytes, more than a change takes

_TABLES = """
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
"""
_RESOURCES = """
CREATE TABLE resources (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    etag       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    body       TEXT NOT NULL,
    secret     BLOB,
    origin     TEXT
);
CREATE INDEX resources_by_kind ON resources (kind, created_at);
CREATE TABLE uses (user TEXT NOT NULL, used TEXT NOT NULL, PRIMARY KEY (user, used));
CREATE INDEX uses_by_used ON uses (used);
"""
# -1: there is none. Each index has all that lists are filtered and ordered by, so that a run's item
# is read only where it is shown.
_COLUMNS = """
ALTER TABLE runs ADD COLUMN flow_id TEXT NOT NULL DEFAULT '' COLLATE NOCASE;
ALTER TABLE runs ADD COLUMN batch_id TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN updated_at INTEGER NOT NULL DEFAULT -1;
ALTER TABLE runs ADD COLUMN begun_at INTEGER NOT NULL DEFAULT -1;
ALTER TABLE runs ADD COLUMN ended_at INTEGER NOT NULL DEFAULT -1;
CREATE TABLE totals (
    flow  TEXT NOT NULL,
    what  TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (flow, what)
) WITHOUT ROWID
"""
_INDEXES = """
DROP INDEX runs_by_time;
DROP INDEX runs_by_flow;
DROP INDEX runs_by_status;
DROP INDEX runs_by_flow_and_status;
CREATE INDEX runs_by_time ON runs
    (started_at, id, flow_id, status, updated_at, begun_at, ended_at);
CREATE INDEX runs_by_flow ON runs
    (flow_id, started_at, id, status, updated_at, begun_at, ended_at);
CREATE INDEX runs_by_status ON runs
    (status, started_at, id, flow_id, updated_at, begun_at, ended_at);
CREATE INDEX runs_by_update ON runs
    (updated_at, id, flow_id, status, started_at, begun_at, ended_at);
CREATE INDEX runs_by_begin ON runs
    (begun_at, id, flow_id, status, started_at, updated_at, ended_at);
CREATE INDEX runs_by_end ON runs
    (ended_at, id, flow_id, status, started_at, updated_at, begun_at);
CREATE INDEX runs_by_batch ON runs (batch_id)
"""

# SQLite's codes for a file that others hold, or that cannot be written or read at this moment.
_NOT_NOW = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
)

_KEEP = """
INSERT INTO runs (id, flow, dataset, status, started_at, "window", item,
    flow_id, batch_id, updated_at, begun_at, ended_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET flow = excluded.flow, dataset = excluded.dataset,
    status = excluded.status, started_at = excluded.started_at, "window" = excluded."window",
    item = excluded.item, flow_id = excluded.flow_id, batch_id = excluded.batch_id,
    updated_at = excluded.updated_at, begun_at = excluded.begun_at, ended_at = excluded.ended_at
"""
_ADD = """
INSERT INTO totals (flow, what, value) VALUES (?, ?, ?)
ON CONFLICT (flow, what) DO UPDATE SET value = value + excluded.value
"""
_REACH = """
INSERT INTO totals (flow, what, value) VALUES (?1, ?2, ?3)
ON CONFLICT (flow, what) DO UPDATE
SET value = CASE WHEN value > ?4 THEN excluded.value ELSE max(value, excluded.value) END
"""


class CatalogUnavailable(EtlError):
    """The file is locked, or cannot be written or read at this moment; it may be later."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of the history: what it was, and its item of the runs payload."""

    flow: str
    dataset: str
    status: str
    started_at: int  # ms since the epoch
    window: Window
    item: Json

    @property
    def told(self) -> str:
        """The status as people read it."""
        return "stopped" if is_stopped(self.item) else self.status


class Catalog:
    """`<home>/catalog.sqlite3`, made where it is missing, readable by its owner only.

    Safe to share between threads: they write one after another, and read without waiting for that.
    InputError where the file cannot be used as it is, EtlError
    where a later read or write fails. Nothing that is saved here may hold a secret (P7).
    """

    def __init__(self, home: Path, busy: float = _BUSY_SECONDS) -> None:
        """`busy`: for how many seconds to wait while another process holds the file."""
        self.path = home / NAME
        self._busy = busy
        self._lock, self._read_lock = RLock(), Lock()
        self._writer: int | None = None  # the thread that is in a transaction
        try:
            make_folder(home, 0o700)
            self._journal = "WAL" if can_share_memory(home) else "TRUNCATE"
            with suppress(FileExistsError):  # to close it while it is open would free its locks
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._connection, self._reading = (
                sqlite3.connect(
                    self.path, timeout=busy, isolation_level=None, check_same_thread=False
                )
                for _ in range(2)
            )
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(
                f"The catalog {self.path} cannot be written ({reason}). Give MIXPANEL_ETL_HOME, "
                "or `home` in the configuration, a folder that can be."
            ) from error
        try:
            self._prepare()
            self._file = _file(self.path)
        except sqlite3.OperationalError as error:  # busy, the disk is full, …
            self._let_go()
            if self._journal != "WAL" and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise InputError(
                    f"The catalog {self.path} was made on another file system, and this one has no "
                    "memory that processes share. Move it away, and a new one is made that can do "
                    "without; or give MIXPANEL_ETL_HOME a folder on a local disk."
                ) from error
            raise _error(error, f"The catalog {self.path} cannot be opened ({error}).") from error
        except sqlite3.DatabaseError as error:
            self._let_go()
            raise InputError(
                f"The catalog {self.path} cannot be read ({error}). It holds only the history of "
                "runs: move it away, and a new one is made."
            ) from error

    def save(self, item: Json, *, flow: str, dataset: str, window: Window) -> None:
        """Keep a run, in place of what was kept under its id.

        `item` is its item of the runs payload, which also tells its status and its start.
        """
        with self.transaction() as connection:
            keep(connection, item, flow, dataset, window)

    def history(
        self,
        flow: str | None = None,
        status: str | None = None,
        dataset: str | None = None,
        limit: int = 100,
        until: int | None = None,
    ) -> list[Entry]:
        """The newest runs first. Upper and lower case of `status` are the same.

        `until`: without those that began later, in ms. A run that began later than now was noted
        by a clock that was ahead; it would hide all that came after it.
        """
        id_ = flow and flow_id(flow)
        where, values = _filter(flow_id=id_, status=status, dataset=dataset)
        if until is not None:
            where += f"{' AND' if where else ' WHERE'} started_at <= ?"
            values.append(until)
        rows = self.read(
            f'SELECT flow, dataset, status, started_at, "window", item FROM runs{where}'  # noqa: S608  # our own names only
            " ORDER BY started_at DESC, rowid DESC LIMIT ?",
            [*values, limit],
        )
        return [_entry(*row) for row in rows]

    def run(self, id_: str) -> Entry | None:
        """The run with that id; None if there is none."""
        query = 'SELECT flow, dataset, status, started_at, "window", item FROM runs WHERE id = ?'
        rows = self.read(query, [id_])
        return _entry(*rows[0]) if rows else None

    def asked_for(self) -> set[str]:
        """The flows of which runs are scheduled."""
        query = "SELECT DISTINCT flow FROM runs WHERE status = ?"
        return {flow for (flow,) in self.read(query, [SCHEDULED])}

    def abandon(self, dataset: str, at: int) -> int:
        """Mark what is still `inProgress` on `dataset` as failed; how many those were.

        To be called by who holds the dataset's lock: then no other process can be running them.
        """
        left = 'SELECT item, flow, dataset, "window" FROM runs WHERE status = ? AND dataset = ?'
        with self.transaction() as connection:
            rows = connection.execute(left, (IN_PROGRESS, dataset)).fetchall()
            for item, flow, place, window in rows:
                failed = abandoned(json.loads(item), at)
                keep(connection, failed, flow, place, Window.from_json(json.loads(window)))
        return len(rows)

    def ask(self, project: str, now: int, wait: Callable[[Sequence[int]], int]) -> int:
        """Take a slot in the budget of `project`; 0, or the ms until there may be one.

        `wait` is given when the project was asked in the hour before `now`, in ms, the oldest
        first, and decides: if it returns 0, a request at `now` is noted. No other process comes in
        between, so that a last slot is given once. What is older than a day is forgotten.
        """
        query = "SELECT at FROM requests WHERE project = ? AND at > ? AND at <= ? ORDER BY at"
        # Who was let in while we waited for the file noted a moment after our `now`. Moments still
        # later were noted before the clock was set back: they would block for as long as that.
        latest = now + _BUSY_SECONDS * SECOND
        with self.transaction() as connection:
            rows = connection.execute(query, (project, now - HOUR, latest))
            pause = wait([min(at, now) for (at,) in rows])
            if pause == 0:
                connection.execute(
                    "INSERT INTO requests (project, at) VALUES (?, ?)", (project, now)
                )
                connection.execute(
                    "DELETE FROM requests WHERE project = ? AND at < ?", (project, now - _DAY_MS)
                )
        return pause

    def asked(self, project: str, now: int) -> list[int]:
        """When the project was asked in the hour before `now`, in ms, the oldest first."""
        query = "SELECT at FROM requests WHERE project = ? AND at > ? AND at <= ? ORDER BY at"
        return [at for (at,) in self.read(query, [project, now - HOUR, now])]

    def release(self, project: str, at: int) -> None:
        """Free the slot that `ask` gave at that moment, in ms, for a request that never left."""
        one = "SELECT rowid FROM requests WHERE project = ? AND at = ? LIMIT 1"
        with self.transaction() as connection:
            connection.execute(f"DELETE FROM requests WHERE rowid IN ({one})", (project, at))  # noqa: S608  # our own text only

    def close(self, seconds: float = -1) -> None:
        """Let go of the file. Who still writes after so many seconds does so until the program
        ends, as at a kill: every change is one transaction.
        """
        self._let_go(seconds)

    def _let_go(self, seconds: float = -1) -> None:
        if not self._lock.acquire(timeout=seconds):
            return
        try:
            with self._read_lock:
                self._reading.close()
            self._connection.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_ahead(self) -> None:
        """SQLite waits for others, but not here, where two processes make a catalog at once."""
        until = time.monotonic() + self._busy
        while True:
            try:
                self._connection.execute(f"PRAGMA journal_mode = {self._journal}")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _prepare(self) -> None:
        """Write-ahead logging, so that no reader ever waits for a writer; tables where missing.

        Where a file system cannot do that, readers and writers wait for each other.
        """
        self._write_ahead()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if self._version() < VERSION:
            self._connection.execute("BEGIN IMMEDIATE")
            for step in _STEPS[self._version() :]:  # none if another process was faster
                for part in step:
                    part(self._connection)
            self._connection.execute(f"PRAGMA user_version = {max(VERSION, self._version())}")
            self._connection.execute("COMMIT")
        version = self._version()
        if version > VERSION:
            self._let_go()
            raise InputError(
                f"The catalog {self.path} was written by a newer mixpanel-etl (its version is "
                f"{version}, this program knows {VERSION}). Update mixpanel-etl."
            )

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def check(self) -> None:
        """EtlError where nothing could be written now, as far as that shows without waiting."""
        self._check_file()
        with (
            disk_error(f"write in {self.path.parent}"),
            TemporaryFile(dir=self.path.parent) as file,
        ):
            file.write(bytes(_ROOM))
        self.read("SELECT id FROM runs LIMIT 1")

    def _check_file(self) -> None:
        """What is written to a file that was deleted is lost. (To open it would free its locks.)"""
        if _file(self.path) != self._file:
            raise EtlError(
                f"The catalog {self.path} was deleted or replaced while it was in use. Bring it "
                "back, and restart the program."
            )

    def wait_for_others(self, seconds: float) -> None:
        """For how long to wait, from now on, while another process holds the file."""
        self._busy = seconds
        for connection in (self._connection, self._reading):
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything in it is kept, or nothing; no other process writes in between."""
        with self._lock, self._translated("written"):
            self._check_file()
            self._connection.execute("BEGIN IMMEDIATE")
            self._writer = get_ident()
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                self._writer = None
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows that a query has; in a transaction of this thread, as that has left them."""
        writing = self._writer == get_ident()
        connection = self._connection if writing else self._reading
        with self._lock if writing else self._read_lock, self._translated("read"):
            return connection.execute(query, values).fetchall()

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = f"The catalog {self.path} cannot be {verb} ({error})."
            raise _error(error, message) from error


def _error(error: sqlite3.Error, message: str) -> EtlError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return CatalogUnavailable(message) if code in _NOT_NOW else EtlError(message)


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there; None for none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def keep(
    connection: sqlite3.Connection, item: Json, flow: str, dataset: str, window: Window
) -> None:
    """Keep a run, and add what it counts now, and did not before, to the totals of its flow.

    A run that failed may turn out to be committed. Its flow has one more success then, and the
    failure stays: a total never falls.
    """
    query = "SELECT item FROM runs WHERE id = ?"
    before = connection.execute(query, [item["id"]]).fetchone()
    counted = figures.counts(json.loads(before[0])) if before else {}
    _count(connection, item, flow, window, counted)
    connection.execute(_KEEP, _row(item, flow, dataset, window))


def add(
    connection: sqlite3.Connection, runs: Sequence[Entry], requests: Sequence[tuple[str, int]]
) -> None:
    """Keep runs and requests (project, moment), unless they, or newer records, are there."""
    newer = "SELECT 1 FROM runs WHERE id = ? AND updated_at > ?"
    for entry in runs:
        item = entry.item
        if not connection.execute(newer, (item["id"], item["updatedAt"])).fetchone():
            keep(connection, item, entry.flow, entry.dataset, entry.window)
    connection.executemany(
        "INSERT INTO requests (project, at) SELECT ?1, ?2"
        " WHERE NOT EXISTS (SELECT 1 FROM requests WHERE project = ?1 AND at = ?2)",
        requests,
    )


def _count(
    connection: sqlite3.Connection, item: Json, flow: str, window: Window, counted: dict[str, int]
) -> None:
    for what, value in figures.counts(item).items():
        connection.execute(_ADD, (flow, what, max(0, value - counted.get(what, 0))))
    if moment := figures.reached(item, window):
        # What is later than now was reached by a clock that was ahead.
        connection.execute(_REACH, (flow, figures.REACHED, moment, item["updatedAt"]))


def _row(item: Json, flow: str, dataset: str, window: Window) -> tuple[Any, ...]:
    metrics = item["metrics"]
    took = metrics.get("durationSummary", {})  # nothing of the kind in a run that is to come
    return (
        item["id"],
        flow,
        dataset,
        metrics["statusSummary"]["status"],
        item["createdAt"],
        json.dumps(window.as_json()),
        json.dumps(item, separators=(",", ":")),
        item["flowId"],
        batch_id(item) or "",
        item["updatedAt"],
        took.get("startedAtUTC", -1),
        took.get("completedAtUTC", -1),
    )


def _sql(script: str) -> Callable[[sqlite3.Connection], None]:
    def run(connection: sqlite3.Connection) -> None:
        for statement in script.split(";"):
            connection.execute(statement)

    return run


def _fill(connection: sqlite3.Connection) -> None:
    """What version 3 keeps of runs, for those that are there: a thousand at a time."""
    query = 'SELECT rowid, item, flow, dataset, "window" FROM runs WHERE rowid > ? LIMIT 1000'
    last = 0
    while rows := connection.execute(query, [last]).fetchall():
        for last, text, flow, dataset, window_text in rows:  # noqa: B007  # the next ones come after it
            item, window = json.loads(text), Window.from_json(json.loads(window_text))
            _count(connection, item, flow, window, {})
            connection.execute(_KEEP, _row(item, flow, dataset, window))


# What every version adds to the one before it.
_STEPS = ((_sql(_TABLES),), (_sql(_RESOURCES),), (_sql(_COLUMNS), _fill, _sql(_INDEXES)))


def _entry(flow: str, dataset: str, status: str, started_at: int, window: str, item: str) -> Entry:
    return Entry(
        flow, dataset, status, started_at, Window.from_json(json.loads(window)), json.loads(item)
    )


def _filter(**columns: str | None) -> tuple[str, list[Any]]:
    """A WHERE clause of our own column names, and the values for it."""
    given = {column: value for column, value in columns.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f" WHERE {clause}" if clause else ""), list(given.values())
