"""The tables of the catalog, and the migration of a file of an earlier version."""

import json
from typing import Any

from engine.catalog import runs, version_0_1
from engine.model.window import Window

VERSION = 4  # of the tables; PRAGMA user_version of the file

_REQUESTS = """
CREATE TABLE requests (project TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX requests_by_project ON requests (project, at)
"""
_RESOURCES = """
CREATE TABLE resources (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, etag TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    body TEXT NOT NULL, secret BLOB, origin TEXT
);
CREATE INDEX resources_by_kind ON resources (kind, created_at);
CREATE TABLE uses (user TEXT NOT NULL, used TEXT NOT NULL, PRIMARY KEY (user, used));
CREATE INDEX uses_by_used ON uses (used)
"""
_TOTALS = """
CREATE TABLE totals (
    flow TEXT NOT NULL, what TEXT NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (flow, what)
) WITHOUT ROWID
"""
# The fields of a run record and `flow_id`, which follows from `flow`. Moments are in ms, -1 for
# none; "window", tally, failure, unfound and params are JSON.
_RUNS = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, flow TEXT NOT NULL, dataset TEXT NOT NULL, "window" TEXT NOT NULL,
    batch_id TEXT NOT NULL, status TEXT NOT NULL COLLATE NOCASE,
    started_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, activities_at INTEGER NOT NULL,
    window_start INTEGER NOT NULL, window_end INTEGER NOT NULL,
    source_id TEXT NOT NULL, target_id TEXT NOT NULL,
    copy_started INTEGER NOT NULL, copy_completed INTEGER NOT NULL,
    promotion_started INTEGER NOT NULL, promotion_completed INTEGER NOT NULL,
    tally TEXT NOT NULL, failure TEXT NOT NULL, batch_folder TEXT, diagnostics INTEGER NOT NULL,
    clock_ahead INTEGER NOT NULL, unfound TEXT NOT NULL, params TEXT NOT NULL,
    flow_id TEXT NOT NULL COLLATE NOCASE
)
"""
# Each index has all columns that lists are filtered and ordered by, so that only the rows that are
# shown are read.
_INDEXES = """
CREATE INDEX runs_by_time ON runs
    (started_at, id, flow_id, status, updated_at, copy_started, promotion_completed);
CREATE INDEX runs_by_flow ON runs
    (flow_id, started_at, id, status, updated_at, copy_started, promotion_completed);
CREATE INDEX runs_by_status ON runs
    (status, started_at, id, flow_id, updated_at, copy_started, promotion_completed);
CREATE INDEX runs_by_update ON runs
    (updated_at, id, flow_id, status, started_at, copy_started, promotion_completed);
CREATE INDEX runs_by_begin ON runs
    (copy_started, id, flow_id, status, started_at, updated_at, promotion_completed);
CREATE INDEX runs_by_end ON runs
    (promotion_completed, id, flow_id, status, started_at, updated_at, copy_started);
CREATE INDEX runs_by_batch ON runs (batch_id)
"""


def version_of(connection: Any) -> int:
    """Return the version of the tables in the file; 0 where it has no tables."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: Any) -> None:
    """Bring the file to `VERSION`, in one transaction: a crash leaves it as it was.

    Versions 1 to 3, all of program version 0.1, store a run as its item of Flow Service's payload.
    1 has no resources, 1 and 2 have no totals. ValueError for a run that is not such an item.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = version_of(connection)
    if version < VERSION:  # another process may have been faster
        if version:
            connection.execute("ALTER TABLE runs RENAME TO old_runs")
        created = [_RUNS]
        created += [_REQUESTS] if version < 1 else []
        created += [_RESOURCES] if version < 2 else []
        created += [_TOTALS] if version < 3 else []
        _execute(connection, ";".join(created))
        if version:
            _convert(connection, count=version < 3)
            connection.execute("DROP TABLE old_runs")
        _execute(connection, _INDEXES)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _execute(connection: Any, script: str) -> None:
    for statement in script.split(";"):
        connection.execute(statement.strip())


def _convert(connection: Any, *, count: bool) -> None:
    """Store the runs of `old_runs` as records, a thousand at a time, in their old order (P6).

    `count`: whether to add them to the totals.
    """
    query = 'SELECT rowid, item, flow, dataset, "window" FROM old_runs WHERE rowid > ? LIMIT 1000'
    last = 0
    while rows := connection.execute(query, [last]).fetchall():
        for last, item, flow, dataset, text in rows:  # noqa: B007  # the next query begins there
            window = Window.from_json(json.loads(text))
            record = version_0_1.record_of(json.loads(item), flow, dataset, window)
            if count:
                runs.count(connection, record, {})
            runs.put(connection, record)
