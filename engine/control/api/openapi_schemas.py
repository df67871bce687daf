"""JSON Schemas of request and response bodies for /openapi.json: what the routes' types leave out.

Handlers accept more (`validation`, `to_flow`): line ends around texts, and properties that they
ignore.
"""

from typing import Any

from engine.config.fields import ACCOUNT, OPTIONS, SCHEDULES, SOURCE, schema_of
from engine.config.value_types import any_case, nullable, text
from engine.control.api.json_patch import MOST_OPERATIONS, MOST_PATH, OPERATIONS
from engine.control.validation import PARTS

Json = dict[str, Any]

_STRING: Json = {"type": "string"}
_TEXT = text().schema


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _one(items: Json) -> Json:
    return {"type": "array", "minItems": 1, "maxItems": 1, "items": items}


def _body(kind: str, *places: str, **more: Json) -> Json:
    """Build the schema of a body that has the parts of its kind and the fields of `places`."""
    body = _object("", name=_STRING, description=_STRING, **more)
    body["required"] = list(more)
    for place in places:
        _put(body, place, schema_of(place))
    for part in PARTS[kind]:
        _put(body, part.path, part.type.schema if part.type else {"type": "object"})
    return body


def _put(body: Json, path: str, schema: Json) -> None:
    """Require the property at a path, and set its schema unless it has one."""
    key, _, rest = path.partition(".")
    if key not in body["required"]:
        body["required"].append(key)
    if rest:
        _put(body["properties"].setdefault(key, _object("")), rest, schema)
    else:
        body["properties"].setdefault(key, schema)


MAPPING = _object(
    "mappingId",
    mappingId=_TEXT | {"description": "The id of a mapping set"},
    mappingVersion={"description": "0 for the first"},
)
_FLOW = _body(
    "flows",
    SCHEDULES,
    sourceConnectionIds=_one(_TEXT),
    targetConnectionIds=_one(_TEXT),
    transformations=_one(_object("params", params=MAPPING)),
)
_FLOW["properties"]["options"] = nullable(schema_of(OPTIONS))
_PATCH = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_OPERATIONS,
    "items": _object(
        "op path",
        op=any_case(OPERATIONS),
        path=_STRING | {"pattern": "^/[a-zA-Z]+", "maxLength": MOST_PATH},
    ),
}
_ID = _STRING | {"minLength": 1}
_CREATED = _object("id etag", id=_ID, etag=_STRING | {"pattern": '^"[^"]+"$'})
_ITEM = _object("id", id=_ID)
_SINGLE = _object("items", items=_one(_ITEM))
_LIST = {
    "anyOf": [
        _object("items _links", items={"type": "array", "items": _ITEM}, _links={"type": "object"}),
        _object("count", count={"type": "integer", "minimum": 0}),
    ]
}
_SET = _object(
    "id version", id=_STRING | {"pattern": "^[0-9a-f]{32}$"}, version={"type": "integer"}
)
_SCHEMA = _object("$id", **{"$id": _ID, "meta:altId": _STRING})
_DATASETS = {"type": "array", "items": _STRING | {"pattern": "^@/dataSets/[0-9a-f]{24}$"}}

BODIES: dict[str, Json] = {
    "post connections": _body("connections", ACCOUNT),
    "post sourceConnections": _body("sourceConnections", SOURCE),
    "post targetConnections": _body("targetConnections"),
    "post flows": _FLOW,
    "post runs": _object(
        "flowId params", flowId=_TEXT, params={"type": "object", "minProperties": 1}
    ),
    "patch {id}": _PATCH,
}
"""By a method and the last part of a path."""

_DOCUMENTS = ("schemas", "classes", "fieldgroups", "mixins", "datatypes")
RESPONSES: dict[str, Json] = {
    **dict.fromkeys(BODIES, _CREATED),
    "post action": _CREATED,
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
    **{f"post {kind}": _SCHEMA for kind in _DOCUMENTS},
    **{f"{method} {{resource_id}}": _SCHEMA for method in ("get", "put", "patch")},
    "post dataSets": _DATASETS,
}
"""Of success, by the same."""
