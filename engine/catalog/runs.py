"""Run records as rows of the catalog's table `runs`, and what they add to the totals."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from engine.catalog import flow_totals
from engine.model.flow import flow_id
from engine.model.run_record import FIELDS, RunRecord

Request = tuple[str, int]  # project, moment in ms

NONE = -1  # in a column of moments
_JSON = ("window", "tally", "failure", "unfound", "params")
_MOMENTS = tuple(name for name, types in FIELDS.items() if int in types and len(types) > 1)
_NAMES = [f'"{name}"' for name in (*FIELDS, "flow_id")]
COLUMNS = ", ".join(_NAMES[:-1])  # of a record, for `from_row`

_PUT = (
    f"INSERT INTO runs ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608  # our own names only
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in _NAMES[1:])}"
)
_ADD = """
INSERT INTO totals (flow, what, value) VALUES (?, ?, ?)
ON CONFLICT (flow, what) DO UPDATE SET value = value + excluded.value
"""
_REACH = """
INSERT INTO totals (flow, what, value) VALUES (?1, ?2, ?3)
ON CONFLICT (flow, what) DO UPDATE
SET value = CASE WHEN value > ?4 THEN excluded.value ELSE max(value, excluded.value) END
"""


def from_row(row: Sequence[Any]) -> RunRecord:
    """Return the record of a row of `COLUMNS`."""
    found = dict(zip(FIELDS, row, strict=True))
    found |= {name: orjson.loads(found[name]) for name in _JSON}
    found |= {name: None for name in _MOMENTS if found[name] == NONE}
    return RunRecord.from_fields(found | {"diagnostics": bool(found["diagnostics"])})


def save(connection: Any, record: RunRecord) -> None:
    """Store a record in place of the run's last one; add to the totals what is new in it.

    A run that was recorded as failed may turn out to be committed. Its flow then has one more
    success, and the failure stays in the totals: a total never falls.
    """
    query = f"SELECT {COLUMNS} FROM runs WHERE id = ?"  # noqa: S608  # our own names only
    before = connection.execute(query, [record.id]).fetchone()
    count(connection, record, flow_totals.counts(from_row(before)) if before else {})
    put(connection, record)


def add(connection: Any, records: Iterable[RunRecord], requests: Iterable[Request]) -> None:
    """Store records and requests, unless they, or newer records, are stored already."""
    newer = "SELECT 1 FROM runs WHERE id = ? AND updated_at > ?"
    for record in records:
        if not connection.execute(newer, (record.id, record.updated_at)).fetchone():
            save(connection, record)
    connection.executemany(
        "INSERT INTO requests (project, at) SELECT ?1, ?2"
        " WHERE NOT EXISTS (SELECT 1 FROM requests WHERE project = ?1 AND at = ?2)",
        requests,
    )


def count(connection: Any, record: RunRecord, counted: dict[str, int]) -> None:
    """Add to the totals of a flow what a run counts beyond what was `counted` of it before."""
    for what, value in flow_totals.counts(record).items():
        connection.execute(_ADD, (record.flow, what, max(0, value - counted.get(what, 0))))
    if moment := flow_totals.reached(record):
        # What is later than now was reached by a clock that was ahead.
        connection.execute(_REACH, (record.flow, flow_totals.REACHED, moment, record.updated_at))


def put(connection: Any, record: RunRecord) -> None:
    """Store a record in place of the run's last one, without a change of totals."""
    found = record.as_json()
    found |= {name: json.dumps(found[name], separators=(",", ":")) for name in _JSON}
    found |= {name: NONE for name in _MOMENTS if found[name] is None}
    connection.execute(_PUT, [*found.values(), flow_id(record.flow)])
