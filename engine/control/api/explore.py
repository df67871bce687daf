"""Test a connection, and sample a few of its events, within the project's rate limit."""

import json
from base64 import b64decode
from datetime import timedelta
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from engine.catalog.resources import new
from engine.control.api.app_state import AppState, State
from engine.control.api.problems import Problem, cut, invalid
from engine.control.to_flow import check_host, connection_of
from engine.control.validation import MIXPANEL
from engine.errors import PermanentError, RateLimited, RetryableError
from engine.model.flow import Connection, Flow
from engine.model.window import DAY, Window, latest_day
from engine.transform.infer import response

Json = dict[str, Any]

router = APIRouter(prefix="/connections/{connection_id}", tags=["Connections"])

EVENTS = 10  # as many as the tutorial's answer has
TIMEOUT = 120.0  # seconds that Mixpanel may take, while a client waits
MOST_SAMPLES = 4  # at a time: each holds a thread of the server
_SLOTS = BoundedSemaphore(MOST_SAMPLES)
_REST = {"pattern": "^[Rr][Ee][Ss][Tt]$"}
_JSON = {"pattern": "^[Jj][Ss][Oo][Nn]$"}
_RESPONSES: dict[int | str, Json] = {
    429: {"description": "The hour's requests of the project are used up, or too many wait"},
    503: {"description": "Mixpanel does not answer"},
}
WEEK = timedelta(days=7)  # the days that are sampled, as one day may have no events


@router.get("/test", responses=_RESPONSES)
def test(state: State, connection_id: str) -> Json:
    """Test the credentials of a connection; an error gives Mixpanel's reason."""
    _sample(state, connection_id, {}, 1)
    return {"result": True}


@router.get(
    "/explore",
    response_class=Response,
    responses=_RESPONSES | {200: {"content": {"application/json": {}}}},
)
def explore(
    state: State,
    connection_id: str,
    _: Annotated[
        str, Query(alias="object", description="As the tutorial sends it: there is one object.")
    ] = "",
    object_type: Annotated[str, Query(alias="objectType", json_schema_extra=_REST)] = "rest",
    file_type: Annotated[str, Query(alias="fileType", json_schema_extra=_JSON)] = "json",
    other_type: Annotated[str, Query(alias="FileType", json_schema_extra=_JSON)] = "json",
    source_params: Annotated[
        str,
        Query(
            alias="sourceParams",
            description='base64 of {"projectId": "2384945", "timezone": "Pacific Standard Time"}',
        ),
    ] = "",
    preview: Annotated[bool, Query(description="whether to return the events too")] = True,
) -> Response:
    """Return a few events of the last week, and the schema that fits them."""
    if object_type.lower() != "rest":
        raise invalid(
            "1358-400",
            "The provided param 'objectType' is invalid: it must be rest. "
            "Please provide a valid objectType and try again.",
        )
    for form in (file_type, other_type):
        if form.lower() != "json":
            raise invalid(
                "1327-400",
                f"The format of source data supplied={cut(form)} is not supported. "
                "The allowed values are: [json]. Please provide allowed values and try again.",
            )
    records = _sample(state, connection_id, decode_source_params(source_params), EVENTS)
    answer = response(records) | ({} if preview else {"data": []})
    # Escaped, not in UTF-8: an event may hold a lone surrogate.
    return Response(json.dumps(answer), media_type="application/json")


def _sample(state: AppState, connection_id: str, params: Json, limit: int) -> list[Json]:
    from engine.mixpanel.timeouts import Timeouts
    from engine.sync.sample import sample  # imports numpy and httpx: not in an idle daemon

    connection = _connection(state, connection_id, params)
    today = latest_day(state.now(), connection.zone)
    days = Window(today - WEEK, today - DAY)
    flow = Flow("explore", connection, "")
    if not _SLOTS.acquire(blocking=False):
        detail = (
            f"{MOST_SAMPLES} clients are waiting for Mixpanel at a time. Please try again later."
        )
        raise Problem("1400-429", "Too many requests", detail)
    try:
        limits = Timeouts(TIMEOUT, TIMEOUT, TIMEOUT, TIMEOUT)
        return sample(flow, state.home, days, limit, state.now, limits)
    except RateLimited as error:
        raise Problem("1400-429", "Too many requests", str(error)) from error
    except RetryableError as error:
        raise Problem("1400-503", "Service unavailable", str(error)) from error
    except PermanentError as error:
        raise invalid("1400-400", str(error)) from error
    finally:
        _SLOTS.release()


def _connection(state: AppState, id_: str, source_params: Json) -> Connection:
    """Return a connection with its project, which a request, a source connection, the connection
    or the environment names.
    """
    resources = state.resources
    base = resources.get("connections", id_)
    check_host(base, state.hosts)
    sources = resources.all("sourceConnections")
    places = [
        source_params,
        *(s.body["params"] for s in sources if s.body["baseConnectionId"] == id_),
    ]
    places.append((base.body.get("auth") or {}).get("params") or {})
    names = {"projectId": "MIXPANEL_PROJECT_ID", "timezone": "MIXPANEL_TIMEZONE"}
    places.append({name: state.environ.get(variable) for name, variable in names.items()})
    params = next((each for each in places if each.get("projectId")), None)
    if params is None:
        raise invalid(
            "1359-400",
            "The param projectId is missing in the request. Please provide sourceParams, the "
            'base64 of {"projectId": "<number>", "timezone": "<the project\'s time zone>"}, or '
            "create a source connection first, and try again.",
        )
    body = {
        "baseConnectionId": id_,
        "connectionSpec": {"id": MIXPANEL[0]},
        "data": {"format": "json"},
        "params": {name: params[name] for name in names if params.get(name) is not None},
    }
    return connection_of(new("sourceConnections", body, state.now()), resources, state.secret_store)


def decode_source_params(text: str) -> Json:
    """Decode `sourceParams`: base64 of a JSON object, of either alphabet, padded or not.

    An unescaped `+` arrives as a space.
    """
    plain = text.strip().translate(str.maketrans("-_ ", "+/+"))
    try:
        params = json.loads(b64decode(plain + "=" * (-len(plain) % 4), validate=True) or "{}")
    except (ValueError, RecursionError):
        params = None
    if not isinstance(params, dict):
        raise invalid(
            "1389-400",
            "An error occurred while parsing the provided base64-encoded string: sourceParams "
            "must be the base64 of a JSON object. Please provide a valid encoded string and try "
            "again.",
        )
    return params
