"""Runs that clients ask for: a window of their own, or that of a run that failed, once more.

Such a run is kept as `scheduled`; the flow's next turn, which is at once, begins with it.
"""

from datetime import UTC, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

from fastapi import APIRouter

from engine.catalog.resources import Json, Resource
from engine.control import to_flow
from engine.control.api.collection import Document
from engine.control.api.connections import without_secrets
from engine.control.api.plane import AppState, Shared
from engine.control.api.problems import cut, invalid, unsupported
from engine.control.run_payload import payload
from engine.control.validation import DISABLED, ENABLED, integer
from engine.dataset.storage.local import canonical
from engine.errors import NotFound
from engine.model.flow import Flow, Run, flow_id
from engine.model.run_record import FAILED
from engine.model.schedule import DAYS_PER_REQUEST
from engine.model.window import Window, latest_day
from engine.sync import run_records

_SECONDS = 100_000_000_000  # what is larger was meant in milliseconds

router = APIRouter(prefix="/runs", tags=["runs"])


@router.post("", status_code=201)
def run_now(plane: Shared, body: Document) -> Json:
    """Have the days pulled again that hold a span of time."""
    flow_id, params = body.get("flowId"), body.get("params")
    if not flow_id or not isinstance(flow_id, str):
        raise invalid(
            "1446-400",
            "The flow ID cannot be null or empty. Please update the flow ID and try again.",
        )
    if not isinstance(params, dict) or not params:
        raise _bad_params()
    try:
        resource = plane.resources.get("flows", flow_id)
    except NotFound:
        raise invalid("1430-400", f"Flow not found with id {cut(flow_id)}.") from None
    flow = _flow(plane, resource)
    return _schedule(plane, flow, _window(plane, flow.connection.zone, params), params)


@router.post("/{id}/action", status_code=201)
def act(plane: Shared, id: str, op: str) -> Json:  # noqa: A002 - its name in the path
    """Pull the window of a run that failed once more (RE_TRIGGER); the new run."""
    if op.lower() != "re_trigger":
        raise unsupported(op, ["RE_TRIGGER"])
    run = plane.catalog.run(id)
    if run is None:
        raise NotFound("runs", id)
    if run.status != FAILED:
        raise invalid(
            "1387-400",
            f"The flowRunId={cut(id)} is in an invalid state={run.status} for re-triggering. "
            "Only a run that failed can be.",
        )
    flow = _flow(plane, plane.resources.get("flows", flow_id(run.flow)))
    return _schedule(plane, flow, run.window, run.params or {})


def _flow(plane: AppState, resource: Resource) -> Flow:
    state = resource.body.get("state", ENABLED)
    if state == DISABLED:
        raise invalid(
            "1388-400",
            f"The flow={resource.id} is in state={state} and cannot be re-triggered. "
            "The flow must be in enabled state for re-triggering.",
        )
    resources = plane.resources
    flow = to_flow.flow_of(resource, resources, plane.vault, plane.datasets, plane.hosts)
    if flow.schedule is None:
        raise invalid(
            "1386-400",
            f"The flowId={resource.id} has no scheduleParams: the daemon leaves it alone. "
            "Give it a schedule and try again.",
        )
    return flow


def _schedule(plane: AppState, flow: Flow, window: Window, params: Json) -> Json:
    run = Run(str(uuid4()), flow.name, window, "", plane.now())
    place = canonical(flow.dataset)
    record = run_records.scheduled(flow, place, run, without_secrets(params))
    plane.catalog.save(record)
    return payload(record)


def _window(plane: AppState, zone: ZoneInfo, params: Json) -> Window:
    """The days that a span touches, by UTC or by the project's clock."""
    start, end = (_moment(params, name) for name in ("windowStartTime", "windowEndTime"))
    if end < start:
        raise invalid(
            "1381-400",
            f"WindowEndTime={end} cannot be before Window StartTime={start}. "
            "Please provide a valid end time and try again.",
        )
    today = latest_day(plane.now(), zone)
    first = min(datetime.fromtimestamp(start, clock).date() for clock in (UTC, zone))
    last = min(latest_day(max(start, end - 1) * 1000, zone), today)
    if first > today:
        raise invalid(
            "1384-400", f"The window begins on {first}. Please provide one that begins by {today}."
        )
    if (last - first).days >= DAYS_PER_REQUEST:
        raise invalid(
            "1384-400",
            f"The window is {first} to {last}. Please ask for at most {DAYS_PER_REQUEST} days at "
            "a time.",
        )
    return Window(first, last)


def _moment(params: Json, name: str) -> int:
    """In seconds, as the documents have it; milliseconds are understood too."""
    given = integer(params.get(name))
    if given is None or not 0 <= given < _SECONDS * 1000:
        raise _bad_params()
    return given // 1000 if given >= _SECONDS else given


def _bad_params() -> Exception:
    return invalid(
        "1384-400",
        "The params provided for creating flow run are invalid or empty. "
        "Please provide windowStartTime and windowEndTime, in seconds since 1970, and try again.",
    )
