"""What bodies and answers look like, for /openapi.json: what the routes' own types do not say.

The routes read more leniently (`bodies`, `declared`); what is said here they all keep to.
"""

from collections.abc import Iterable
from typing import Any

from engine.config.fields import MOST_WHOLE
from engine.config.file import LAST_SECOND
from engine.control.api.json_patch import MOST_OPERATIONS, MOST_PATH, OPERATIONS
from engine.control.validation import AUTH_SPECS, DATA_LAKE, FLOW_SPEC, MIXPANEL, MOST_USER_NAME
from engine.model.flow import FREQUENCIES

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_NAME: Json = {"type": "string", "minLength": 1, "pattern": "\\S"}


def _whole(least: int, most: int, pattern: str = "^[0-9]{1,18}$") -> Json:
    """A whole number, which may be written as a text."""
    text = {"type": "string", "pattern": pattern}
    return {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, text]}


def _any_case(words: Iterable[str]) -> Json:
    """One of some words, in any case."""
    forms = ("".join(f"[{letter.upper()}{letter}]" for letter in word) for word in words)
    return {"type": "string", "pattern": f"^({'|'.join(forms)})$"}


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
            username=_TEXT | {"pattern": f"^[!-9;-~]{{1,{MOST_USER_NAME}}}$"},
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
    params=_object(
        "projectId",
        projectId=_whole(1, 10**18, "^\\s*[0-9]{1,18}\\s*$"),
        timezone={"type": ["string", "null"]},
    ),
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
        startTime=_whole(0, LAST_SECOND),
        frequency=_any_case(FREQUENCIES),
        interval=_whole(1, MOST_WHOLE),
    ),
)
_RUN = _object("flowId params", flowId=_NAME, params={"type": "object", "minProperties": 1})
_PATCH = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_OPERATIONS,
    "items": _object(
        "op path",
        op=_any_case(OPERATIONS),
        path=_TEXT | {"pattern": "^/[a-zA-Z]+", "maxLength": MOST_PATH},
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
