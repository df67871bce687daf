"""Runs that clients request: of a window, or of a failed run again.

A requested run is stored as `scheduled`. The daemon starts it at once.
"""

from datetime import UTC, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

from fastapi import APIRouter

from engine.catalog.resources import Json, Resource
from engine.config.value_types import integer
from engine.control import to_flow
from engine.control.api.app_state import AppState, State
from engine.control.api.connections import without_secrets
from engine.control.api.problems import cut, invalid, unsupported
from engine.control.api.resource_routes import Document
from engine.control.run_payload import payload
from engine.control.validation import DISABLED, ENABLED
from engine.dataset.storage.local import canonical
from engine.errors import NotFound
from engine.model.due_windows import DAYS_PER_REQUEST
from engine.model.flow import Flow, Run, flow_id
from engine.model.run_record import FAILED
from engine.model.window import Window, latest_day
from engine.sync import run_records

_MOST_SECONDS = 100_000_000_000  # larger numbers are milliseconds

router = APIRouter(prefix="/runs", tags=["runs"])


@router.post("", status_code=201)
def run_now(state: State, body: Document) -> Json:
    """Request a run of the days of a time span."""
    flow_id, params = body.get("flowId"), body.get("params")
    if not flow_id or not isinstance(flow_id, str):
        raise invalid(
            "1446-400",
            "The flow ID cannot be null or empty. Please update the flow ID and try again.",
        )
    if not isinstance(params, dict) or not params:
        raise _bad_params()
    try:
        resource = state.resources.get("flows", flow_id)
    except NotFound:
        raise invalid("1430-400", f"Flow not found with id {cut(flow_id)}.") from None
    flow = _flow(state, resource)
    return _schedule(state, flow, _window(state, flow.connection.zone, params), params)


@router.post("/{id}/action", status_code=201)
def act(state: State, id: str, op: str) -> Json:  # noqa: A002 - its name in the path
    """Request the window of a failed run again (RE_TRIGGER); return the new run."""
    if op.lower() != "re_trigger":
        raise unsupported(op, ["RE_TRIGGER"])
    run = state.catalog.run(id)
    if run is None:
        raise NotFound("runs", id)
    if run.status != FAILED:
        raise invalid(
            "1387-400",
            f"The flowRunId={cut(id)} is in an invalid state={run.status} for re-triggering. "
            "Only a run that failed can be.",
        )
    flow = _flow(state, state.resources.get("flows", flow_id(run.flow)))
    return _schedule(state, flow, run.window, run.params or {})


def _flow(state: AppState, resource: Resource) -> Flow:
    flow_state = resource.body.get("state", ENABLED)
    if flow_state == DISABLED:
        raise invalid(
            "1388-400",
            f"The flow={resource.id} is in state={flow_state} and cannot be re-triggered. "
            "The flow must be in enabled state for re-triggering.",
        )
    resources = state.resources
    flow = to_flow.flow_of(resource, resources, state.secret_store, state.datasets, state.hosts)
    if flow.schedule is None:
        raise invalid(
            "1386-400",
            f"The flowId={resource.id} has no scheduleParams: the daemon leaves it alone. "
            "Give it a schedule and try again.",
        )
    return flow


def _schedule(state: AppState, flow: Flow, window: Window, params: Json) -> Json:
    run = Run(str(uuid4()), flow.name, window, "", state.now())
    place = canonical(flow.dataset)
    record = run_records.scheduled(flow, place, run, without_secrets(params))
    state.catalog.save(record)
    return payload(record)


def _window(state: AppState, zone: ZoneInfo, params: Json) -> Window:
    """Return the days of a span, in UTC or in the project's time zone."""
    start, end = (_moment(params, name) for name in ("windowStartTime", "windowEndTime"))
    if end < start:
        raise invalid(
            "1381-400",
            f"WindowEndTime={end} cannot be before Window StartTime={start}. "
            "Please provide a valid end time and try again.",
        )
    today = latest_day(state.now(), zone)
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
    """Return a moment in seconds since the epoch; milliseconds are accepted too."""
    moment = integer(params.get(name))
    if moment is None or not 0 <= moment < _MOST_SECONDS * 1000:
        raise _bad_params()
    return moment // 1000 if moment >= _MOST_SECONDS else moment


def _bad_params() -> Exception:
    return invalid(
        "1384-400",
        "The params provided for creating flow run are invalid or empty. "
        "Please provide windowStartTime and windowEndTime, in seconds since 1970, and try again.",
    )
