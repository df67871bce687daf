"""A look into a connection: Mixpanel is asked for a few events, within the project's budget."""

import json
from base64 import b64decode
from datetime import timedelta
from threading import BoundedSemaphore
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from engine.catalog.resources import new
from engine.control.api.plane import AppState, Shared
from engine.control.api.problems import Problem, cut, invalid
from engine.control.to_flow import check_host, connection_of
from engine.control.validation import MIXPANEL
from engine.errors import EtlError, PermanentError, RateLimited, RetryableError
from engine.model.flow import Connection, Flow
from engine.model.window import DAY, Window, latest_day
from engine.transform.infer import response

Json = dict[str, Any]

router = APIRouter(prefix="/connections/{connection_id}", tags=["Connections"])

EVENTS = 10  # as many as the tutorial's answer has
PATIENCE = 120.0  # seconds that Mixpanel may take, while a client waits
AT_ONCE = 4  # such clients: each holds a thread, and the other calls need some too
_ROOM = BoundedSemaphore(AT_ONCE)
_REST = {"pattern": "^[Rr][Ee][Ss][Tt]$"}
_JSON = {"pattern": "^[Jj][Ss][Oo][Nn]$"}
_ASKED: dict[int | str, Json] = {
    429: {"description": "The hour's requests of the project are used up, or too many wait"},
    503: {"description": "Mixpanel does not answer"},
}
WEEK = timedelta(days=7)  # that are looked at, so that a quiet day shows something too


@router.get("/test", responses=_ASKED)
def test(plane: Shared, connection_id: str) -> Json:
    """Whether Mixpanel answers these credentials; if not, the problem is Mixpanel's reason."""
    _sample(plane, connection_id, {}, 1)
    return {"result": True}


@router.get(
    "/explore",
    response_class=Response,
    responses=_ASKED | {200: {"content": {"application/json": {}}}},
)
def explore(
    plane: Shared,
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
    preview: Annotated[bool, Query(description="whether to show the events, too")] = True,
) -> Response:
    """A few events of the last week, and the schema that fits them."""
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
    records = _sample(plane, connection_id, _decoded(source_params), EVENTS)
    answer = response(records) | ({} if preview else {"data": []})
    # Not as UTF-8: an event may hold half a surrogate pair.
    return Response(json.dumps(answer), media_type="application/json")


def _sample(plane: AppState, connection_id: str, given: Json, limit: int) -> list[Json]:
    from engine.mixpanel.timeouts import Timeouts
    from engine.sync.sample import (
        sample,  # with numpy and httpx, which the daemon at rest does without
    )

    connection = _connection(plane, connection_id, given)
    today = latest_day(plane.now(), connection.zone)
    days = Window(today - WEEK, today - DAY)
    flow = Flow("explore", connection, "")
    if not _ROOM.acquire(blocking=False):
        detail = f"{AT_ONCE} clients are waiting for Mixpanel at a time. Please try again later."
        raise Problem("1400-429", "Too many requests", detail)
    try:
        limits = Timeouts(PATIENCE, PATIENCE, PATIENCE, PATIENCE)
        return sample(flow, plane.home, days, limit, plane.now, limits)
    except (RetryableError, PermanentError) as error:
        raise _problem(error) from error
    finally:
        _ROOM.release()


def _problem(error: EtlError) -> Problem:
    """What Mixpanel's answer means to a client of ours."""
    if isinstance(error, RateLimited):
        return Problem("1400-429", "Too many requests", str(error))
    if isinstance(error, RetryableError):
        return Problem("1400-503", "Service unavailable", str(error))
    return invalid("1400-400", str(error))


def _connection(plane: AppState, id_: str, given: Json) -> Connection:
    """The connection, for the project that is `given` or known from elsewhere."""
    resources = plane.resources
    base = resources.get("connections", id_)
    check_host(base, plane.hosts)
    sources = resources.all("sourceConnections")
    places = [given, *(s.body["params"] for s in sources if s.body["baseConnectionId"] == id_)]
    places.append((base.body.get("auth") or {}).get("params") or {})
    names = {"projectId": "MIXPANEL_PROJECT_ID", "timezone": "MIXPANEL_TIMEZONE"}
    places.append({ours: plane.environ.get(theirs) for ours, theirs in names.items()})
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
    return connection_of(new("sourceConnections", body, plane.now()), resources, plane.vault)


def _decoded(text: str) -> Json:
    """`sourceParams`: base64 of a JSON object, of either alphabet, with its padding or without.

    A `+` that was not escaped comes as a space.
    """
    plain = text.strip().translate(str.maketrans("-_ ", "+/+"))
    try:
        found = json.loads(b64decode(plain + "=" * (-len(plain) % 4), validate=True) or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise invalid(
            "1389-400",
            "An error occurred while parsing the provided base64-encoded string: sourceParams "
            "must be the base64 of a JSON object. Please provide a valid encoded string and try "
            "again.",
        )
    return found
