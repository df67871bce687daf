"""Schemas: the calls of Adobe's Schema Registry that the tutorial needs.

A schema here is one that the engine can make a table of. The shipped schema is always listed.
"""

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, Resources, new
from engine.config.shipped_files import find
from engine.control.api import catalog_filters
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound
from engine.control.api.json_patch import merged
from engine.control.api.listing import MOST_TOKEN, query_parameters
from engine.control.api.listing_filter import number, top_name
from engine.control.api.listing_order import Key, Order, compare_keys, is_sort_key, sort_key
from engine.control.api.password_leaks import check_texts
from engine.control.api.problems import cut, invalid
from engine.control.api.serializers import quoted
from engine.control.run_payload import PROGRAM
from engine.control.to_flow import schema_named
from engine.errors import NotFound
from engine.transform.schema import Schema

Json = dict[str, Any]

SHIPPED = "mixpanel-events"
TENANT = "extconndev"  # the namespace of the tutorial's fields
_ASSIGNED = ("$id", "meta:altId", "meta:resourceType", "version", "meta:registryMetadata")
_ID_FIELDS = ("$id", "meta:altId", "version", "title")  # of the media type xed-id
DEFAULT_LIMIT, MOST = 300, 500  # schemas of a page
_PATCHABLE = ("title", "description", "meta:*")  # top-level fields that a patch may change
_DOCUMENTATION = ("title", "description")  # fields that do not shape the table
_MAPS = ("properties", "definitions", "$defs", "patternProperties", "dependentSchemas")
_CREATED = "meta:registryMetadata.repo:createdDate"
_ORDERS = {
    "created": _CREATED,
    "updated": "meta:registryMetadata.repo:lastModifiedDate",
}  # short names in an order
FIELDS = frozenset(
    {
        "$id", "$schema", "title", "description", "type", "version", "properties", "definitions",
        "$defs", "allOf", "required", "imsOrg", "meta:altId", "meta:resourceType", "meta:extends",
        "meta:class", "meta:xdmType", "meta:abstract", "meta:extensible", "meta:intendedToExtend",
        "meta:containerId", "meta:tenantNamespace", "meta:registryMetadata", "meta:immutableTags",
        "meta:behaviorType", *_ORDERS,
    }
)  # fmt: skip
"""Fields of a schema. A filter by one of them is valid although no schema has it now."""
_PARAMETERS = query_parameters(
    {
        "property": (
            catalog_filters.DESCRIPTION + " Those of one text are separated by commas.",
            {"type": "array", "items": catalog_filters.SHORT_TEXT},
        ),
        "orderby": (
            "Fields, separated by commas; - before one of them: descending.",
            catalog_filters.SHORT_TEXT,
        ),
        "start": (
            "A value of the first field of the order, or `_page.next`: the page starts after it.",
            {"type": "string", "maxLength": MOST_TOKEN},
        ),
        "limit": (
            "Maximum number of schemas.",
            {"type": "integer", "minimum": 1, "maximum": MOST},
        ),
    }
)

router = APIRouter(prefix="/tenant/schemas", tags=["Schemas"])

SchemaId = Annotated[str, "its `$id`, URL-encoded, or its `meta:altId`"]


class SchemaBody(BaseModel):
    """An XDM schema: JSON Schema with `properties`, or `allOf` with `$ref` to what is shipped."""

    model_config = ConfigDict(extra="allow")

    title: str
    type: Annotated[str, Field(pattern="^object$")] = "object"


class SchemaRef(BaseModel):
    """A reference to a schema by its `$id`."""

    model_config = ConfigDict(extra="allow")

    id: str
    contentType: str | None = None  # noqa: N815  # Catalog's name


def store_shipped_schema(state: AppState) -> None:
    """Store the shipped schema among the resources, or update it to this version's."""
    resources = state.resources
    _, document = find("schema", SHIPPED)
    id_, origin = document["$id"], f"schemas/{SHIPPED}.json"
    try:
        before = resources.get("schemas", id_)
    except NotFound:
        resources.create(new("schemas", document, state.now(), id_=id_, origin=origin))
        return
    if before.body != document:
        after = replace(before, body=document)
        resources.change("schemas", id_, None, state.now(), lambda _: (after, ()))


@router.post("", status_code=201)
def create_schema(state: State, body: SchemaBody) -> Json:
    """Create a schema."""
    hash_ = secrets.token_hex(24)
    document, extended = _inlined(state.resources, body.model_dump(exclude_unset=True))
    properties = {key: value for key, value in document.items() if key not in _ASSIGNED}
    check_texts(state, properties)
    Schema.parse(body.title, properties)
    id_ = f"https://ns.adobe.com/{TENANT}/schemas/{hash_}"
    made: Json = {
        "$id": id_,
        "meta:altId": f"_{TENANT}.schemas.{hash_}",
        "meta:resourceType": "schemas",
        "version": "1.0",
        **properties,
    }
    if extended:
        made["meta:extends"] = extended
    schema = new("schemas", made, state.now(), id_=id_)
    state.resources.create(schema)
    return _serialized(schema)


@router.get("", openapi_extra=_PARAMETERS)
def list_schemas(state: State, request: Request, accept: Annotated[str, Header()] = "") -> Json:
    """List the schemas; with `Accept: application/vnd.adobe.xed-id+json` only their names."""
    values = catalog_filters.values_by_name(request)
    by_id: dict[str, Json] = {}  # a configuration file may repeat the shipped schema
    for schema in state.resources.all("schemas"):
        item = _serialized(schema)
        by_id.setdefault(item["$id"], item | {"id": item["$id"]})
    items, orderby = list(by_id.values()), ",".join(values.get("orderby", ["created"]))
    known = FIELDS.union(*items)

    def is_known(field: str) -> bool:
        return top_name(field) in known

    terms = catalog_filters.parse_terms(values.get("property", []), is_known, joined=True)
    terms = [replace(term, field=_ORDERS.get(term.field, term.field)) for term in terms]
    items = [item for item in items if all(term.holds(item) for term in terms)]
    fields = catalog_filters.parse_order([orderby], is_known, orderby)
    order = tuple((_ORDERS.get(field, field), descending) for field, descending in fields)
    limit_text = values.get("limit", [str(DEFAULT_LIMIT)])[-1]
    limit = catalog_filters.parse_whole("limit", limit_text, 1, MOST)
    results, following = _page(items, order, values.get("start", [None])[-1], limit)
    for each in results:
        del each["id"]
    if "-id+json" in accept:
        results = [{key: each[key] for key in _ID_FIELDS if key in each} for each in results]
    page = {"orderby": orderby, "next": following, "count": len(results)}
    links: Json = {"next": None}
    if following is not None:
        query = request.url.include_query_params(start=following).query
        links["next"] = {"href": f"/tenant/schemas?{query}"}
    return {"results": results, "_page": page, "_links": links}


def _page(
    items: list[Json], order: Order, start: str | None, limit: int
) -> tuple[list[Json], str | None]:
    """Return the items after `start`, and the start of the next page; None on the last one."""
    items = catalog_filters.in_order(items, order)
    if start is not None:
        if len(start) > MOST_TOKEN:
            raise invalid("1400-400", f"start has more than {MOST_TOKEN:,} characters.")
        items = [each for each in items if _is_after(sort_key(each, order), start, order)]
    shown, rest = items[:limit], items[limit:]
    if not rest:
        return shown, None
    last, first = sort_key(shown[-1], order), sort_key(rest[0], order)
    if last[0] != first[0] and last[0][0] in (2, 3):  # the value alone is a start
        text = str(last[0][1])
        if _is_after(first, text, order) and not _is_after(last, text, order):
            return shown, text
    packed = json.dumps(last, separators=(",", ":"), ensure_ascii=False).encode()
    return shown, urlsafe_b64encode(packed).decode().rstrip("=")


def _is_after(key: Key, start: str, order: Order) -> bool:
    """Return whether a sort key comes after `start`: a sort key, or a value of the first field."""
    if (after := _decode_start(start, len(order) + 1)) is not None:
        return compare_keys(key, after, order) > 0
    rank, *value = key[0]
    wanted: Any = number(start) if rank == 2 else start.lower()
    if rank not in (2, 3) or wanted is None:
        return bool((rank > 3) != order[0][1])
    first: Any = value[0]
    return bool(first < wanted if order[0][1] else first > wanted)


def _decode_start(start: str, length: int) -> Key | None:
    """Return the sort key that `start` encodes; None for other texts."""
    try:
        key = json.loads(urlsafe_b64decode((start + "=" * (-len(start) % 4)).encode()))
    except (ValueError, RecursionError):
        return None
    return key if is_sort_key(key) and len(key) == length else None


@router.get("/{schema_id:path}")
def get_schema(state: State, schema_id: SchemaId, response: Response) -> Json:
    """Return one schema with its references resolved, whatever `Accept` says."""
    schema = schema_named(state.resources, schema_id)
    response.headers["ETag"] = quoted(schema.etag)
    return _serialized(schema)


@router.patch("/{schema_id:path}")
def change_schema(
    state: State, schema_id: SchemaId, body: Annotated[Json | list[Json], Body()], bound: Bound
) -> Json:
    """Change titles, descriptions and `meta:` members of a schema, by a merge or a JSON Patch.

    The columns of its table cannot be changed.
    """
    before = schema_named(state.resources, schema_id)
    bound.check(before)
    check_writable(before)
    after = merged(before.body, body, (*_PATCHABLE, *_MAPS))
    if _table_of(after) != _table_of(before.body) or _assigned(after) != _assigned(before.body):
        raise invalid(
            "1400-400",
            "Only titles, descriptions and meta: members of a schema can be changed, and none that "
            "says what its table has. Make another schema for other fields.",
        )
    if not isinstance(after.get("title"), str):
        raise invalid("1400-400", "title: must be a text.")
    check_texts(state, after)
    Schema.parse(after["title"], {key: each for key, each in after.items() if key not in _ASSIGNED})

    def edit(now: Resource) -> tuple[Resource, tuple[str, ...]]:
        return replace(now, body=after), ()

    changed = state.resources.change("schemas", before.id, before.etag, state.now(), edit)
    return _serialized(changed)


def _assigned(document: Json) -> list[Any]:
    return [document.get(name) for name in _ASSIGNED]


def _table_of(schema: Any, *, names: bool = False) -> Any:
    """Return a schema without its documentation; `names`: its keys are names of fields."""
    if isinstance(schema, list):
        return [_table_of(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _table_of(value, names=not names and key in _MAPS)
        for key, value in schema.items()
        if names or not (key in _DOCUMENTATION or _is_metadata(key))
    }


def _is_metadata(key: str) -> bool:
    return key.startswith("meta:") and key != "meta:xdmType"


@router.delete("/{schema_id:path}", status_code=204)
def delete_schema(state: State, schema_id: SchemaId, bound: Bound) -> Response:
    """Delete a schema that no dataset uses."""

    def check(schema: Resource) -> None:
        bound.check(schema)
        check_writable(schema)

    state.resources.delete("schemas", schema_named(state.resources, schema_id).id, check)
    return Response(status_code=204)


def _serialized(schema: Resource) -> Json:
    names = {"$id": schema.id, "version": "1.0"} | schema.body
    return names | {
        "meta:containerId": "tenant",
        "meta:tenantNamespace": f"_{TENANT}",
        "meta:registryMetadata": {
            "repo:createdDate": schema.created_at,
            "repo:lastModifiedDate": schema.updated_at,
            "xdm:createdClientId": PROGRAM,
            "xdm:lastModifiedClientId": PROGRAM,
            "xdm:createdUserId": PROGRAM,
            "xdm:lastModifiedUserId": PROGRAM,
            "eTag": schema.etag,
        },
    }


def _inlined(resources: Resources, document: Json) -> tuple[Json, list[str]]:
    """Return a schema with each `$ref` to a shipped schema replaced by that, and their ids."""
    shipped = {
        each.id: {key: value for key, value in each.body.items() if key[0] != "$"}
        for each in resources.all("schemas")
        if each.origin and each.id == each.body.get("$id")
    }
    is_shipped: dict[str, bool] = {}  # by `$ref`

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(each) for each in value]
        if not isinstance(value, dict):
            return value
        ref = value.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            is_shipped[ref] = ref in shipped
            siblings = {key: inline(inner) for key, inner in value.items() if key != "$ref"}
            return siblings | {"allOf": [shipped.get(ref), *siblings.get("allOf", [])]}
        return {key: inline(inner) for key, inner in value.items()}

    inlined = inline(document)
    if unknown := [ref for ref, known in is_shipped.items() if not known]:
        raise invalid(
            "1400-400",
            f"There is no class, field group or schema {cut(unknown[0])} here: a $ref may name "
            f"{' or '.join(shipped)}, or a place in the same document, as #/$defs/price. "
            "Write all other fields under `properties`.",
        )
    return inlined, list(is_shipped)


def check_writable(resource: Resource) -> None:
    """Raise Problem for a resource that a file declares: it is changed there."""
    if resource.origin:
        raise invalid(
            "1400-400",
            f"{resource.id} of the {resource.kind} comes from {resource.origin}, and cannot be "
            "changed or deleted here.",
        )
