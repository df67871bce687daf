"""What bodies and answers look like, for /openapi.json: what the routes' own types do not say.

The routes read more leniently (`bodies`, `declared`); what is said here they all keep to.
"""

from typing import Any

from engine.bodies import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MIXPANEL
from engine.flow import FREQUENCIES

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_NAME: Json = {"type": "string", "minLength": 1, "pattern": "\\S"}
_WHOLE: Json = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]{1,10}$"}]}


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _spec(*ids: str) -> Json:
    return _object("id", id={"type": "string", "enum": list(ids)})


def _one(items: Json) -> Json:
    return {"type": "array", "minItems": 1, "maxItems": 1, "items": items}


_DESCRIBED: Json = {"name": _TEXT, "description": _TEXT}
_CONNECTION = _object(
    "connectionSpec auth",
    **_DESCRIBED,
    connectionSpec=_spec(*MIXPANEL),
    auth=_object(
        "specName params",
        specName={"type": "string", "enum": list(AUTH_SPECS)},
        params=_object(
            "username password",
            host={"type": ["string", "null"]},
            username=_TEXT | {"pattern": "^[A-Za-z0-9._-]+$"},
            password=_NAME | {"format": "password", "writeOnly": True},
        ),
    ),
)
_SOURCE = _object(
    "baseConnectionId connectionSpec data params",
    **_DESCRIBED,
    baseConnectionId=_TEXT,
    connectionSpec=_spec(*MIXPANEL),
    data=_object("format", format={"type": "string", "enum": ["json"]}),
    params=_object("projectId", projectId=_WHOLE, timezone={"type": ["string", "null"]}),
)
_TARGET = _object(
    "connectionSpec data params",
    **_DESCRIBED,
    connectionSpec=_spec(DATA_LAKE),
    data={"type": "object"},
    params=_object("dataSetId", dataSetId=_NAME),
)
_FLOW = _object(
    "flowSpec sourceConnectionIds targetConnectionIds transformations scheduleParams",
    **_DESCRIBED,
    flowSpec=_spec(FLOW_SPEC),
    sourceConnectionIds=_one(_NAME),
    targetConnectionIds=_one(_NAME),
    transformations=_one(_object("params", params=_object("mappingId", mappingId=_NAME))),
    scheduleParams=_object(
        "startTime frequency",
        startTime=_WHOLE,
        frequency={"type": "string", "enum": list(FREQUENCIES)},
        interval=_WHOLE,
    ),
)
_RUN = _object("flowId params", flowId=_NAME, params={"type": "object", "minProperties": 1})
_PATCH = {
    "type": "array",
    "minItems": 1,
    "items": _object(
        "op path",
        op={"type": "string", "enum": [*(op := ("add", "replace", "remove")), *map(str.upper, op)]},
        path=_TEXT | {"pattern": "^/[a-zA-Z]+"},
    ),
}
_ID = _TEXT | {"minLength": 1}
_MADE = _object("id etag", id=_ID, etag=_TEXT | {"pattern": '^"[^"]+"$'})
_ITEM = _object("id", id=_ID)
_SINGLE = _object("items", items=_one(_ITEM))
_LIST = {
    "anyOf": [
        _object("items _links", items={"type": "array", "items": _ITEM}, _links={"type": "object"}),
        _object("count", count={"type": "integer", "minimum": 0}),
    ]
}
_SET = _object("id version", id=_TEXT | {"pattern": "^[0-9a-f]{32}$"}, version={"type": "integer"})
_SCHEMA = {"type": "object", "required": ["$id"], "properties": {"$id": _ID, "meta:altId": _TEXT}}
_DATASETS = {"type": "array", "items": _TEXT | {"pattern": "^@/dataSets/[0-9a-f]{24}$"}}

BODIES: dict[str, Json] = {
    "post connections": _CONNECTION,
    "post sourceConnections": _SOURCE,
    "post targetConnections": _TARGET,
    "post flows": _FLOW,
    "post runs": _RUN,
    "patch {id}": _PATCH,
}
"""By a method and the last part of a path."""

ANSWERS: dict[str, Json] = {
    **dict.fromkeys(BODIES, _MADE),
    "post action": _MADE,
    **{
        f"get {kind}": _LIST
        for kind in (
            *("connections", "sourceConnections", "targetConnections", "flows", "runs"),
            *("connectionSpecs", "flowSpecs"),
        )
    },
    "get {id}": _SINGLE,
    "get {run_id}": _SINGLE,
    "post mappingSets": _SET,
    "get {mapping_set_id}": _SET,
    "put {mapping_set_id}": _SET,
    "post schemas": _SCHEMA,
    "get {schema_id}": _SCHEMA,
    "post dataSets": _DATASETS,
}
"""Of success, by the same."""
