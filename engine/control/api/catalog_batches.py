"""Batches: Catalog's calls, read from the history of runs. A batch is what a run adds to a table.

A list is an object by id, and an empty one past its end: clients read pages until they get that.
"""

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request

from engine.catalog.runs import COLUMNS as RECORD
from engine.catalog.runs import from_row
from engine.control.api import catalog_filters
from engine.control.api.app_state import AppState, State
from engine.control.api.listing import query_parameters
from engine.control.api.problems import cut, invalid
from engine.control.run_payload import PROGRAM, payload
from engine.control.to_flow import dataset_of
from engine.dataset.storage.local import canonical
from engine.errors import NotFound
from engine.model.flow import flow_id
from engine.model.run_record import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS, RunRecord

Json = dict[str, Any]

MOST = 100  # batches of a page, which is the default too
MOST_SKIPPED = 999_999_999
LATEST = 10**15  # ms since the epoch
_STATUSES = {SUCCESS: "success", FAILED: "failed", IN_PROGRESS: "processing", SCHEDULED: "queued"}
_WANTED = {name: status for status, name in _STATUSES.items()} | {"failure": FAILED}
_ORDERS = {"created": "started_at", "updated": "updated_at", "id": "batch_id"}
_MOMENTS = {
    "createdAfter": "started_at > ?",
    "createdBefore": "started_at < ?",
    "created": "started_at = ?",
}
_TEXT = catalog_filters.SHORT_TEXT
_WHOLE: Json = {"type": "integer", "minimum": 0, "maximum": LATEST}
_PAGE: dict[str, tuple[str, Json]] = {
    "limit": ("Maximum number of them.", {"type": "integer", "minimum": 1, "maximum": MOST}),
    "start": ("Number of them to skip.", _WHOLE | {"maximum": MOST_SKIPPED}),
    "properties": ("The fields of the response, separated by commas.", _TEXT),
}
_BATCHES = query_parameters(
    _PAGE
    | dict.fromkeys(_MOMENTS, ("In ms since the epoch.", _WHOLE))
    | {
        "dataSet": ("Only those of these datasets, separated by commas.", _TEXT),
        "status": ("success, failed, processing or queued; others have no batches.", _TEXT),
        "orderBy": ("asc: or desc:, and one of created, updated and id.", _TEXT),
    }
)
_LAST = query_parameters(
    _PAGE
    | {
        "dataSetId": ("Only these datasets, separated by commas.", _TEXT),
        "lastBatchStatus": ("Only datasets whose last batch has this status.", _TEXT),
    }
)

router = APIRouter(tags=["Batches"])


@router.get("/batches", openapi_extra=_BATCHES)
def list_batches(state: State, request: Request) -> Json:
    """List the batches by their ids, the newest first."""
    values = _values(request)
    where, bound = ["batch_id <> ''"], list[Any]()
    for name, condition in _MOMENTS.items():
        if (text := values.get(name.lower())) is not None:
            where.append(condition)
            bound.append(catalog_filters.parse_whole(name, text, 0, LATEST))
    datasets = _dataset_ids(state)
    if (text := values.get("status")) is not None:
        where.append("status = ?")
        bound.append(_WANTED.get(text.lower(), ""))
    if (text := values.get("dataset")) is not None:
        wanted = set(text.split(","))
        roots = [root for root, id_ in datasets.items() if id_ in wanted]
        where.append(f"dataset IN ({', '.join('?' * len(roots))})")
        bound += roots
    start, limit = _range(values)
    query = (
        f"SELECT {RECORD} FROM runs WHERE {' AND '.join(where)}"  # noqa: S608  # our own names only
        f" ORDER BY {_order(values.get('orderby'))} LIMIT ? OFFSET ?"
    )
    records = [from_row(row) for row in state.catalog.read(query, [*bound, limit, start])]
    return _projected({each.batch_id: _batch(each, datasets) for each in records}, values)


@router.get("/batches/{batch_id}")
def get_batch(state: State, batch_id: str) -> Json:
    """Return one batch under its id."""
    query = f"SELECT {RECORD} FROM runs WHERE batch_id = ? AND batch_id <> '' ORDER BY started_at"  # noqa: S608  # our own names only
    rows = state.catalog.read(query, [batch_id])
    if not rows:
        raise NotFound("batches", batch_id)
    return {batch_id: _batch(from_row(rows[-1]), _dataset_ids(state))}


@router.get("/lastBatches", openapi_extra=_LAST)
def list_last_batches(state: State, request: Request) -> Json:
    """List the last batch, the last successful and the last failed one of each dataset."""
    values = _values(request)
    query = (
        "SELECT dataset, status, batch_id, max(started_at), updated_at FROM runs"
        " WHERE batch_id <> '' GROUP BY dataset, status ORDER BY 4"
    )
    datasets, found = _dataset_ids(state), dict[str, Json]()
    for root, status, batch, created, updated in state.catalog.read(query, []):
        if (id_ := datasets.get(root)) is None:
            continue
        last = found.setdefault(id_, {"imsOrg": PROGRAM})
        last |= {"lastBatchId": batch, "lastBatchStatus": _STATUSES[status]}
        last |= {"created": created, "updated": updated}
        if status in (SUCCESS, FAILED):
            last["lastSuccessfulBatchId" if status == SUCCESS else "lastFailedBatchId"] = batch
    if (text := values.get("datasetid")) is not None:
        wanted = set(text.split(","))
        found = {id_: last for id_, last in found.items() if id_ in wanted}
    if (status := values.get("lastbatchstatus")) is not None:
        found = {k: last for k, last in found.items() if last["lastBatchStatus"] == status.lower()}
    start, limit = _range(values)
    return _projected(dict(list(found.items())[start : start + limit]), values)


def _values(request: Request) -> dict[str, str]:
    """Return the query parameters by their names in lower case."""
    values = catalog_filters.values_by_name(request).items()
    return {name: catalog_filters.check_length(name, given[-1]) for name, given in values}


def _range(values: Json) -> tuple[int, int]:
    """Return how many to skip, and how many to return at most."""
    start = catalog_filters.parse_whole("start", values.get("start", "0"), 0, MOST_SKIPPED)
    limit = catalog_filters.parse_whole("limit", values.get("limit", str(MOST)), 1, MOST)
    return start, limit


def _order(text: str | None) -> str:
    """Return the SQL of Catalog's `desc:created`."""
    direction, _, field = (text or "desc:created").rpartition(":")
    sign = field[:1] if field[:1] in ("-", "+", " ") else ""
    column = _ORDERS.get(field.removeprefix(sign))
    if column is None or direction not in ("", "asc", "desc"):
        raise catalog_filters.invalid_order(cut(text or ""))
    falling = direction == "desc" or sign == "-"
    return f"{column}{' DESC' if falling else ''}, id"


def _projected(items: dict[str, Json], values: Json) -> Json:
    text = values.get("properties")
    if text is None:
        return items
    names = {each.strip() for each in text.split(",")}
    if not names - {""}:
        raise invalid("1452-400", "properties: name at least one field.")
    return {id_: {k: v for k, v in each.items() if k in names} for id_, each in items.items()}


def _dataset_ids(state: AppState) -> dict[str, str]:
    """Return the id of the dataset whose table has a path, as runs name it."""
    found: dict[str, str] = {}
    for dataset in state.resources.all("dataSets"):
        path = dataset_of(dataset, state.datasets)
        found |= {path: dataset.id, canonical(path): dataset.id}
    return found


def _batch(record: RunRecord, datasets: dict[str, str]) -> Json:
    """Return a run as Catalog shows a batch."""
    item = payload(record)
    counts, sizes = item["metrics"]["recordSummary"], item["metrics"]["sizeSummary"]
    status = item["metrics"]["statusSummary"]
    metrics = {
        "startTime": record.copy_started,
        "endTime": record.promotion_completed,
        "inputRecordCount": counts.get("inputRecordCount"),
        "outputRecordCount": counts.get("outputRecordCount"),
        "failedRecordCount": counts.get("failedRecordCount"),
        "inputByteSize": _known(sizes["inputBytes"]),
        "outputByteSize": _known(sizes["outputBytes"]),
    }
    id_ = datasets.get(record.dataset)
    batch: Json = {
        "imsOrg": PROGRAM,
        "created": record.started_at,
        "createdClient": PROGRAM,
        "createdUser": PROGRAM,
        "updatedUser": PROGRAM,
        "updated": record.updated_at,
        "started": record.copy_started,
        "completed": record.promotion_completed,
        "status": _STATUSES[record.status],
        "version": "1.0.0",
        "inputFormat": {"format": "json"},
        "recordCount": counts.get("outputRecordCount"),
        "failedRecordCount": counts.get("failedRecordCount"),
        "relatedObjects": [{"type": "dataSet", "id": id_}] if id_ else [],
        "metrics": _present(metrics.items()),
        "errors": [
            {"code": each["code"], "description": each["message"]}
            for each in status.get("errors", [])
        ],
        "tags": {"flowId": [flow_id(record.flow)], "flowRunId": [record.id]},
        "sandboxId": item["sandboxId"],
    }
    return _present(batch.items())


def _known(count: int) -> int | None:
    return None if count < 0 else count


def _present(items: Iterable[tuple[str, Any]]) -> Json:
    return {key: value for key, value in items if value is not None}
