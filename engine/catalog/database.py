"""The catalog: run history, request ledger and control plane resources, in one SQLite file.

Any number of processes read and write it. The only importer of sqlite3.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock, RLock, get_ident
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
_ROOM = 1 << 16  # bytes, more than a transaction takes

# SQLite's codes for a file that is locked, or that cannot be written or read at this moment.
_NOT_NOW = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip


class CatalogUnavailable(EtlError):
    """The file is locked, or cannot be written or read at this moment; it may be later."""


class Catalog:
    """`<home>/catalog.sqlite3`, made where it is missing, readable by its owner only.

    Threads may share it: they write one after another, and reads do not wait for writes.
    InputError if the file cannot be used as it is, EtlError if a later read or write fails.
    No record may contain a secret (P7).
    """

    def __init__(self, home: Path, busy: float = _BUSY_SECONDS) -> None:
        """`busy`: how many seconds to wait while another process has the file locked."""
        self.path = home / NAME
        self._busy = busy
        self._lock, self._read_lock = RLock(), Lock()
        self._writer: int | None = None  # the thread that is in a transaction
        try:
            make_folder(home, 0o700)
            self._journal = "WAL" if can_share_memory(home) else "TRUNCATE"
            with suppress(FileExistsError):  # closing a file that is in use would free its locks
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            open_ = partial(sqlite3.connect, timeout=busy, isolation_level=None)
            self._connection, self._reading = (
                open_(self.path, check_same_thread=False) for _ in range(2)
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
            Catalog.close(self)
            if self._journal != "WAL" and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:
                raise InputError(
                    f"The catalog {self.path} was made on another file system, and this one has no "
                    "memory that processes share. Move it away, and a new one is made that can do "
                    "without; or give MIXPANEL_ETL_HOME a folder on a local disk."
                ) from error
            raise _error(error, f"The catalog {self.path} cannot be opened ({error}).") from error
        except (sqlite3.DatabaseError, ValueError) as error:
            Catalog.close(self)
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
        """Return the newest runs first; `status` in any case, `limit` -1 for all.

        `until`: leave out runs that started later, in ms. A run that started later than now was
        saved by a clock that was ahead, and would hide all runs after it.
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
        """Return the run with that id; None if the catalog has no such run."""
        query = f"SELECT {runs.COLUMNS} FROM runs WHERE id = ?"  # noqa: S608  # our own names only
        rows = self.read(query, [id_])
        return runs.from_row(rows[0]) if rows else None

    def flow_names(self) -> list[str]:
        """Return the names of the flows that have runs."""
        return [flow for (flow,) in self.read("SELECT DISTINCT flow FROM runs ORDER BY flow")]

    def scheduled_flows(self) -> set[str]:
        """Return the names of the flows that have scheduled runs."""
        query = "SELECT DISTINCT flow FROM runs WHERE status = ?"
        return {flow for (flow,) in self.read(query, [SCHEDULED])}

    def abandon(self, dataset: str, at: int) -> int:
        """Mark runs still `inProgress` on `dataset` as failed; return how many there were.

        The caller holds the dataset's lock, so that no other process can be running them.
        """
        left = f"SELECT {runs.COLUMNS} FROM runs WHERE status = ? AND dataset = ?"  # noqa: S608  # our own names only
        with self.transaction() as connection:
            rows = connection.execute(left, (IN_PROGRESS, dataset)).fetchall()
            for row in rows:
                runs.save(connection, runs.from_row(row).abandoned(at))
        return len(rows)

    def acquire(self, project: str, now: int, wait: Callable[[Sequence[int]], int]) -> int:
        """Take a slot of the rate limit of `project`; return 0, or the ms until one may be free.

        `wait` gets the moments (ms) of the project's requests in the hour before `now`, the oldest
        first, and decides: if it returns 0, a request at `now` is stored. This is one transaction,
        so that two processes never get the same slot. Requests older than a day are deleted.
        """
        query = "SELECT at FROM requests WHERE project = ? AND at > ? AND at <= ? ORDER BY at"
        # A process that got a slot while this one waited for the lock stored a moment after `now`.
        # Later moments were stored before the clock was set back, and would block for that long.
        latest = now + _BUSY_SECONDS * SECOND
        with self.transaction() as connection:
            rows = connection.execute(query, (project, now - HOUR, latest))
            pause = wait([min(at, now) for (at,) in rows])
            if pause == 0:
                insert = "INSERT INTO requests (project, at) VALUES (?, ?)"
                connection.execute(insert, (project, now))
                old = "DELETE FROM requests WHERE project = ? AND at < ?"
                connection.execute(old, (project, now - _DAY_MS))
        return pause

    def recent_requests(self, project: str, now: int) -> list[int]:
        """Return the moments (ms) of requests in the hour before `now`, the oldest first."""
        query = "SELECT at FROM requests WHERE project = ? AND at > ? AND at <= ? ORDER BY at"
        return [at for (at,) in self.read(query, [project, now - HOUR, now])]

    def release(self, project: str, at: int) -> None:
        """Free the slot that `acquire` gave at `at` (ms), for a request that was not sent."""
        one = "SELECT rowid FROM requests WHERE project = ? AND at = ? LIMIT 1"
        with self.transaction() as connection:
            connection.execute(f"DELETE FROM requests WHERE rowid IN ({one})", (project, at))  # noqa: S608  # our own text only

    def close(self, seconds: float = -1) -> None:
        """Close the file; wait up to `seconds` for a thread that writes (-1: without limit).

        A thread that still writes then goes on until the program ends, which loses at most its
        transaction, as a kill does.
        """
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

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_ahead(self) -> None:
        """Set the journal mode, after another process that does the same: SQLite does not wait."""
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
        """Turn write-ahead logging on and migrate the tables; InputError for a newer version.

        Readers then never wait for writers, except on a file system without shared memory.
        """
        self._write_ahead()
        self._connection.execute("PRAGMA synchronous = NORMAL")
        if self._version() < VERSION:
            schema.migrate(self._connection)
        version = self._version()
        if version > VERSION:
            Catalog.close(self)
            raise InputError(
                f"The catalog {self.path} was written by a newer mixpanel-etl (its version is "
                f"{version}, this program knows {VERSION}). Update mixpanel-etl."
            )

    def _version(self) -> int:
        return schema.version_of(self._connection)

    def check(self) -> None:
        """Raise EtlError if the file cannot be read or its folder has no room; wait for nothing."""
        self._check_file()
        folder = self.path.parent
        with disk_error(f"write in {folder}"), TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
        self.read("SELECT id FROM runs LIMIT 1")

    def _check_file(self) -> None:
        """Raise EtlError if the file was deleted or replaced: writes to it would be lost."""
        # Without opening the file: closing it again would free its locks.
        if _file(self.path) != self._file:
            raise EtlError(
                f"The catalog {self.path} was deleted or replaced while it was in use. Bring it "
                "back, and restart the program."
            )

    def wait_for_others(self, seconds: float) -> None:
        """Set how many seconds to wait from now on while another process has the file locked."""
        self._busy = seconds
        for connection in (self._connection, self._reading):
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all writes of the block, or discard them; other processes wait to write."""
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
        """Return the rows of a query, with the changes of a transaction of this thread."""
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
    """Return the device and inode of the file at `path`; None if there is no file."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _filter(**columns: str | None) -> tuple[str, list[Any]]:
    """Return a WHERE clause for the columns that are not None, and its values."""
    given = {column: value for column, value in columns.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f" WHERE {clause}" if clause else ""), list(given.values())
