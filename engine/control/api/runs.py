"""The history of runs, as Flow Service lists it: read from the catalog's indexes, page by page."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from engine.catalog.database import Catalog
from engine.catalog.runs import COLUMNS as RECORD
from engine.catalog.runs import NONE, from_row
from engine.control.api import batches, listing
from engine.control.api.app_state import State
from engine.control.api.listing import Listing
from engine.control.api.listing_filter import Condition, Json, is_number, number
from engine.control.api.listing_order import Key
from engine.control.run_payload import payload
from engine.errors import NotFound
from engine.model.run_record import RunRecord

router = APIRouter(tags=["runs"])
_encode = json.JSONEncoder(separators=(",", ":")).encode

# What a list of runs can be filtered and ordered by: columns of the catalog.
COLUMNS = {
    "id": "id",
    "flowId": "flow_id",
    "state": "status",
    "status": "status",
    "metrics.statusSummary.status": "status",
    "createdAt": "started_at",
    "updatedAt": "updated_at",
    "metrics.durationSummary.startedAtUTC": "copy_started",
    "metrics.durationSummary.completedAtUTC": "promotion_completed",
}
FIELDS = f"Runs are filtered and ordered by {', '.join(COLUMNS)}."
# SQLite would sort all runs that pass a filter; with these indexes it reads them in order.
_WALKS = {
    "updated_at": "INDEXED BY runs_by_update",
    "copy_started": "INDEXED BY runs_by_begin",
    "promotion_completed": "INDEXED BY runs_by_end",
}


@router.get("/runs", openapi_extra=listing.documented(COLUMNS))
def list_runs(request: Request, state: State) -> Response:
    """List runs, the newest first: ended, running and scheduled ones."""
    wanted = listing.parse(request.query_params.multi_items(), COLUMNS.__contains__, FIELDS)
    if wanted.count:
        return JSONResponse({"count": count(state.catalog, wanted)})
    found = find(state.catalog, wanted)
    last = found[wanted.limit - 1].place if len(found) > wanted.limit else None
    links = listing.links("runs", wanted, last)
    return _answer(request, (each.record for each in found[: wanted.limit]), {"_links": links})


@router.get("/runs/{run_id}")
def get_run(run_id: str, request: Request, state: State) -> Response:
    """Return one run."""
    record = state.catalog.run(run_id)
    if record is None:
        raise NotFound("runs", run_id)
    return _answer(request, [record], {})


class Found(NamedTuple):
    """A run in a list: its record, and its place in the order."""

    record: RunRecord
    place: Key


def count(catalog: Catalog, wanted: Listing) -> int:
    """Return the number of runs on all pages of a listing."""
    where, values = _where(wanted.conditions)
    total: int = catalog.read(f"SELECT count(*) FROM runs{_joined(where)}", values)[0][0]  # noqa: S608  # our own names only
    return total


def find(catalog: Catalog, wanted: Listing) -> list[Found]:
    """Return a page of runs, and the first run of the next page, if there is one."""
    columns = [(COLUMNS[field], down) for field, down in wanted.order]
    columns.append(("id", columns[-1][1]))
    where, values = _where(wanted.conditions)
    if wanted.after is not None:
        beyond, more = _beyond(columns, wanted.after)
        where, values = [*where, beyond], [*values, *more]
    keys = ", ".join(f"{column} AS k{n}" for n, (column, _) in enumerate(columns))
    order = ", ".join(f"k{n}{' DESC' if down else ''}" for n, (_, down) in enumerate(columns))
    walk = _WALKS.get(columns[0][0], "")
    # Records are long: they are fetched once it is known which.
    page = f"SELECT rowid AS run, {keys} FROM runs {walk}{_joined(where)} ORDER BY {order} LIMIT ?"  # noqa: S608  # our own names only
    names = ", ".join(f"k{n}" for n in range(len(columns)))
    query = f"SELECT {names}, {RECORD} FROM ({page}) JOIN runs ON runs.rowid = run ORDER BY {order}"  # noqa: S608  # our own names only
    rows = catalog.read(query, [*values, wanted.limit + 1])
    split = len(columns)
    return [Found(from_row(row[split:]), [_ranked(key) for key in row[:split]]) for row in rows]


def _where(conditions: Iterable[Condition]) -> tuple[list[str], list[Any]]:
    where, values = list[str](), list[Any]()
    for each in conditions:
        column = COLUMNS[each.field]
        if not is_number(each.field):
            texts = [value.lower() if column == "id" else value for value in each.values]
            where.append(f"{column} IN ({', '.join('?' * len(texts))})")
            values += texts
        else:
            where.append(f"{column} {each.operator} ? AND {column} <> {NONE}")
            values.append(number(each.values[0]))
    return where, values


def _beyond(columns: Sequence[tuple[str, bool]], after: Key) -> tuple[str, list[Any]]:
    """Return the SQL condition for runs after a place in the order, and its values.

    They are further in one column and equal in those before it. The condition on the first column
    alone follows from that; with it SQLite starts at the place instead of at the first row.
    """
    places = [rank[1] if len(rank) > 1 else NONE for rank in after]
    first, down = columns[0]
    parts, values = list[str](), [places[0]]
    for n, (column, falling) in enumerate(columns):
        same = "".join(f"{name} = ? AND " for name, _ in columns[:n])
        parts.append(f"({same}{column} {'<' if falling else '>'} ?)")
        values += places[: n + 1]
    return f"{first} {'<=' if down else '>='} ? AND ({' OR '.join(parts)})", values


def _ranked(value: str | int) -> list[Any]:
    if isinstance(value, str):
        return [3, value]
    return [0] if value == NONE else [2, value]


def _joined(where: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(where)}" if where else ""


def _answer(request: Request, records: Iterable[RunRecord], more: Json) -> Response:
    texts = ((_encode(payload(each)), each.dataset, each.batch_id) for each in records)
    items = ",".join(batches.addressed(request, texts))
    rest = json.dumps(more)[1:]  # without its brace
    return Response(
        f'{{"items":[{items}]{"," if more else ""}{rest}', media_type="application/json"
    )
