"""The history of runs, the ledger of requests and what the control plane keeps, in one SQLite file
that any number of processes read and write. The only importer of sqlite3. The data's truth is never
here: it is in the table.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock, RLock, get_ident
from types import TracebackType
from typing import Any, Self

from engine.catalog import runs, schema
from engine.catalog.schema import VERSION
from engine.dataset.storage.local import can_share_memory, make_folder
from engine.errors import EtlError, InputError, disk_error
from engine.model.flow import flow_id
from engine.model.run_record import IN_PROGRESS, SCHEDULED, RunRecord
from engine.model.schedule import HOUR, SECOND

NAME = "catalog.sqlite3"

_DAY_MS = 24 * HOUR
_BUSY_SECONDS = 30
_ROOM = 1 << 16  # bytes, more than a change takes

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


class CatalogUnavailable(EtlError):
    """The file is locked, or cannot be written or read at this moment; it may be later."""


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
        except (sqlite3.DatabaseError, ValueError) as error:
            self._let_go()
            raise InputError(
                f"The catalog {self.path} cannot be read ({error}). Put a copy back, or move it "
                "away: a new one is made, without the history of runs and what clients declared."
            ) from error

    def save(self, record: RunRecord) -> None:
        """Store a run in place of its last record."""
        with self.transaction() as connection:
            runs.save(connection, record)

    def history(
        self,
        flow: str | None = None,
        status: str | None = None,
        dataset: str | None = None,
        limit: int = 100,
        until: int | None = None,
    ) -> list[RunRecord]:
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
            f"SELECT {runs.COLUMNS} FROM runs{where}"  # noqa: S608  # our own names only
            " ORDER BY started_at DESC, rowid DESC LIMIT ?",
            [*values, limit],
        )
        return [runs.from_row(row) for row in rows]

    def run(self, id_: str) -> RunRecord | None:
        """The run with that id; None if there is none."""
        query = f"SELECT {runs.COLUMNS} FROM runs WHERE id = ?"  # noqa: S608  # our own names only
        rows = self.read(query, [id_])
        return runs.from_row(rows[0]) if rows else None

    def asked_for(self) -> set[str]:
        """The flows of which runs are scheduled."""
        query = "SELECT DISTINCT flow FROM runs WHERE status = ?"
        return {flow for (flow,) in self.read(query, [SCHEDULED])}

    def abandon(self, dataset: str, at: int) -> int:
        """Mark what is still `inProgress` on `dataset` as failed; how many those were.

        To be called by who holds the dataset's lock: then no other process can be running them.
        """
        left = f"SELECT {runs.COLUMNS} FROM runs WHERE status = ? AND dataset = ?"  # noqa: S608  # our own names only
        with self.transaction() as connection:
            rows = connection.execute(left, (IN_PROGRESS, dataset)).fetchall()
            for row in rows:
                runs.save(connection, runs.from_row(row).abandoned(at))
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
            schema.migrate(self._connection)
        version = self._version()
        if version > VERSION:
            self._let_go()
            raise InputError(
                f"The catalog {self.path} was written by a newer mixpanel-etl (its version is "
                f"{version}, this program knows {VERSION}). Update mixpanel-etl."
            )

    def _version(self) -> int:
        return schema.version_of(self._connection)

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


def _filter(**columns: str | None) -> tuple[str, list[Any]]:
    """A WHERE clause of our own column names, and the values for it."""
    given = {column: value for column, value in columns.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f" WHERE {clause}" if clause else ""), list(given.values())
