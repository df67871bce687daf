"""The history of runs, as Flow Service lists it: read off the catalog's indexes, page by page."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from engine.api import batches, listing
from engine.api.listing import Condition, Json, Key, Listing
from engine.api.plane import Shared
from engine.catalog import Catalog
from engine.errors import NotThere

router = APIRouter(tags=["runs"])

# What a list of runs can be filtered and ordered by: columns of the catalog.
COLUMNS = {
    "id": "id",
    "flowId": "flow_id",
    "state": "status",
    "status": "status",
    "metrics.statusSummary.status": "status",
    "createdAt": "started_at",
    "updatedAt": "updated_at",
    "metrics.durationSummary.startedAtUTC": "begun_at",
    "metrics.durationSummary.completedAtUTC": "ended_at",
}
FIELDS = f"Runs are filtered and ordered by {', '.join(COLUMNS)}."
# Where the planner would sort all that pass a filter, it is told to walk in the order instead.
_WALKS = {
    "updated_at": "INDEXED BY runs_by_update",
    "begun_at": "INDEXED BY runs_by_begin",
    "ended_at": "INDEXED BY runs_by_end",
}
_NONE = -1  # in a column of moments: there is none


@router.get("/runs", openapi_extra=listing.documented(COLUMNS))
def list_runs(request: Request, plane: Shared) -> Response:
    """The runs, the newest first: those that are over, that are running and that are to come."""
    wanted = listing.parse(request.query_params.multi_items(), COLUMNS.__contains__, FIELDS)
    if wanted.count:
        return _json({"count": count(plane.catalog, wanted)})
    found = find(plane.catalog, wanted)
    shown, places = found[: wanted.limit], [place for _, place in found]
    last = places[wanted.limit - 1] if len(found) > wanted.limit else None
    items = _items(request, [text for text, _ in shown])
    return _json({"items": items, "_links": listing.links("runs", wanted, last)})


@router.get("/runs/{run_id}")
def get_run(run_id: str, request: Request, plane: Shared) -> Response:
    """One run."""
    rows = plane.catalog.read("SELECT item FROM runs WHERE id = ?", [run_id])
    if not rows:
        raise NotThere("runs", run_id)
    return _json({"items": _items(request, [rows[0][0]])})


def count(catalog: Catalog, wanted: Listing) -> int:
    """How many runs a listing has on all its pages."""
    where, values = _where(wanted.conditions)
    number: int = catalog.read(f"SELECT count(*) FROM runs{_joined(where)}", values)[0][0]  # noqa: S608  # our own names only
    return number


def find(catalog: Catalog, wanted: Listing) -> list[tuple[str, Key]]:
    """A page of items, as JSON, with their places; and one item more, if there is one."""
    columns = [(COLUMNS[field], down) for field, down in wanted.order]
    columns.append(("id", columns[-1][1]))
    where, values = _where(wanted.conditions)
    if wanted.after is not None:
        beyond, more = _beyond(columns, wanted.after)
        where, values = [*where, beyond], [*values, *more]
    keys = ", ".join(f"{column} AS k{n}" for n, (column, _) in enumerate(columns))
    order = ", ".join(f"k{n}{' DESC' if down else ''}" for n, (_, down) in enumerate(columns))
    walk = _WALKS.get(columns[0][0], "")
    # The items are long: they are fetched once it is known which.
    page = f"SELECT rowid AS run, {keys} FROM runs {walk}{_joined(where)} ORDER BY {order} LIMIT ?"  # noqa: S608
    names = ", ".join(f"k{n}" for n in range(len(columns)))
    query = f"SELECT item, {names} FROM ({page}) JOIN runs ON runs.rowid = run ORDER BY {order}"  # noqa: S608
    rows = catalog.read(query, [*values, wanted.limit + 1])
    return [(item, [_ranked(value) for value in place]) for item, *place in rows]


def _where(conditions: Iterable[Condition]) -> tuple[list[str], list[Any]]:
    """Conditions as SQL: names of ours, and the values apart from it."""
    where, values = list[str](), list[Any]()
    for each in conditions:
        column = COLUMNS[each.field]
        if not listing.is_number(each.field):
            texts = [value.lower() if column == "id" else value for value in each.values]
            where.append(f"{column} IN ({', '.join('?' * len(texts))})")
            values += texts
        else:
            where.append(f"{column} {each.operator} ? AND {column} <> {_NONE}")
            values.append(listing.number(each.values[0]))
    return where, values


def _beyond(columns: Sequence[tuple[str, bool]], after: Key) -> tuple[str, list[Any]]:
    """What comes after a place: further in one column, and the same in those before it.

    That it is not before the place in the first column says nothing new, but lets SQLite begin
    there instead of at the beginning.
    """
    places = [rank[1] if len(rank) > 1 else _NONE for rank in after]
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
    return [0] if value == _NONE else [2, value]


def _joined(where: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(where)}" if where else ""


def _items(request: Request, texts: Iterable[str]) -> list[Json]:
    """Items as they are kept, with addresses of ours in place of the files that those lead to."""
    items = [orjson.loads(text) for text in texts]
    for item in items:
        batches.address(request, item)
    return items


def _json(body: Json) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
