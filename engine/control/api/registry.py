"""Schemas: the few calls of Adobe's Schema Registry that the tutorial needs. A schema is what the
engine can make a table of; the shipped one is always there.
"""

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, Resources, new
from engine.config import file
from engine.control.api import filters
from engine.control.api.items import quoted
from engine.control.api.listing import MOST_TOKEN, Key, compare, is_place, number, place
from engine.control.api.patch import merged
from engine.control.api.plane import AppState, Shared
from engine.control.api.preconditions import Bound
from engine.control.api.problems import cut, invalid
from engine.control.api.secrecy import check_texts
from engine.control.run_payload import PROGRAM
from engine.control.to_flow import schema_named
from engine.errors import NotFound
from engine.transform.schema import Schema

Json = dict[str, Any]

SHIPPED = "mixpanel-events"
TENANT = "extconndev"  # whose namespace the tutorial's fields are in
_OURS = ("$id", "meta:altId", "meta:resourceType", "version", "meta:registryMetadata")
_BRIEF = ("$id", "meta:altId", "version", "title")
DEFAULT_LIMIT, MOST = 300, 500  # schemas of a page
_CHANGED = ("title", "description", "meta:*")  # what a patch may change at the top of a schema
_WORDS = ("title", "description")  # what is said of a field, and makes no table
_MAPS = ("properties", "definitions", "$defs", "patternProperties", "dependentSchemas")
_CREATED = "meta:registryMetadata.repo:createdDate"
_ORDERS = {
    "created": _CREATED,
    "updated": "meta:registryMetadata.repo:lastModifiedDate",
}  # what Schema Registry calls them in an order
FIELDS = frozenset(
    {
        "$id", "$schema", "title", "description", "type", "version", "properties", "definitions",
        "$defs", "allOf", "required", "imsOrg", "meta:altId", "meta:resourceType", "meta:extends",
        "meta:class", "meta:xdmType", "meta:abstract", "meta:extensible", "meta:intendedToExtend",
        "meta:containerId", "meta:tenantNamespace", "meta:registryMetadata", "meta:immutableTags",
        "meta:behaviorType", *_ORDERS,
    }
)  # fmt: skip
"""What a schema of the registry has: a field that none has now is no mistake."""
_PARAMETERS = {
    "property": (
        filters.WORDS + " Those of one text are separated by commas.",
        {"type": "array", "items": {"type": "string", "maxLength": filters.MOST_TEXT}},
    ),
    "orderby": (
        "Fields, separated by commas; - before one of them: descending.",
        {"type": "string", "maxLength": filters.MOST_TEXT},
    ),
    "start": (
        "After which value of the first of these fields, or of which `_page.next`.",
        {"type": "string", "maxLength": MOST_TOKEN},
    ),
    "limit": ("How many.", {"type": "integer", "minimum": 1, "maximum": MOST}),
}

schemas = APIRouter(prefix="/tenant/schemas", tags=["Schemas"])

SchemaId = Annotated[str, "its `$id`, URL-encoded, or its `meta:altId`"]


class SchemaBody(BaseModel):
    """An XDM schema: JSON Schema with `properties`, or `allOf` with `$ref` to what is shipped."""

    model_config = ConfigDict(extra="allow")

    title: str
    type: Annotated[str, Field(pattern="^object$")] = "object"


class SchemaRef(BaseModel):
    """Which schema."""

    model_config = ConfigDict(extra="allow")

    id: str
    contentType: str | None = None  # noqa: N815  # Catalog's name


# Schemas ------------------------------------------------------------------------------------


def keep_shipped(plane: AppState) -> None:
    """Have the shipped schema among the resources, as this version of the program has it."""
    resources = plane.resources
    _, document = file.find("schema", SHIPPED)
    id_, origin = document["$id"], f"schemas/{SHIPPED}.json"
    try:
        before = resources.get("schemas", id_)
    except NotFound:
        resources.create(new("schemas", document, plane.now(), id_=id_, origin=origin))
        return
    if before.body != document:
        after = replace(before, body=document)
        resources.change("schemas", id_, None, plane.now(), lambda _: (after, ()))


@schemas.post("", status_code=201)
def create_schema(plane: Shared, body: SchemaBody) -> Json:
    """Make a schema of your own."""
    hash_ = secrets.token_hex(24)
    document, extended = _inlined(plane.resources, body.model_dump(exclude_unset=True))
    given = {key: value for key, value in document.items() if key not in _OURS}
    check_texts(plane, given)
    Schema.parse(body.title, given)
    id_ = f"https://ns.adobe.com/{TENANT}/schemas/{hash_}"
    made: Json = {
        "$id": id_,
        "meta:altId": f"_{TENANT}.schemas.{hash_}",
        "meta:resourceType": "schemas",
        "version": "1.0",
        **given,
    }
    if extended:
        made["meta:extends"] = extended
    schema = new("schemas", made, plane.now(), id_=id_)
    plane.resources.create(schema)
    return _shown(schema)


@schemas.get(
    "",
    openapi_extra={
        "parameters": [
            {"name": name, "in": "query", "description": words, "schema": schema}
            for name, (words, schema) in _PARAMETERS.items()
        ]
    },
)
def list_schemas(plane: Shared, request: Request, accept: Annotated[str, Header()] = "") -> Json:
    """The schemas: whole, or with `Accept: application/vnd.adobe.xed-id+json` only their names."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        given.setdefault(name.lower(), []).append(value)
    found: dict[str, Json] = {}
    for schema in plane.resources.all("schemas"):
        shown = _shown(schema)
        found.setdefault(shown["$id"], shown | {"id": shown["$id"]})  # a file may have the shipped
    items, orderby = list(found.values()), ",".join(given.get("orderby", ["created"]))
    known = FIELDS.union(*items)
    wanted = filters.terms(given.get("property", []), lambda each: _top(each) in known, joined=True)
    wanted = [replace(term, field=_ORDERS.get(term.field, term.field)) for term in wanted]
    items = [each for each in items if all(term.holds(each) for term in wanted)]
    fields = filters.order([orderby], lambda each: _top(each) in known, orderby)
    limit = filters.whole("limit", given.get("limit", [str(DEFAULT_LIMIT)])[-1], 1, MOST)
    order = tuple((_ORDERS.get(field, field), down) for field, down in fields)
    results, following = _page(items, order, given.get("start", [None])[-1], limit)
    for each in results:
        del each["id"]
    if "-id+json" in accept:
        results = [{key: each[key] for key in _BRIEF if key in each} for each in results]
    page = {"orderby": orderby, "next": following, "count": len(results)}
    links: Json = {"next": None}
    if following is not None:
        query = request.url.include_query_params(start=following).query
        links["next"] = {"href": f"/tenant/schemas?{query}"}
    return {"results": results, "_page": page, "_links": links}


def _top(field: str) -> str:
    return field.partition(".")[0].removesuffix("[]")


def _page(
    items: list[Json], order: Sequence[tuple[str, bool]], start: str | None, limit: int
) -> tuple[list[Json], str | None]:
    """The items after `start`, and the start of what follows them; None if nothing does."""
    items = filters.in_order(items, order)
    if start is not None:
        if len(start) > MOST_TOKEN:
            raise invalid("1400-400", f"start has more than {MOST_TOKEN:,} characters.")
        items = [each for each in items if _is_after(place(each, order), start, order)]
    shown, rest = items[:limit], items[limit:]
    if not rest:
        return shown, None
    last, first = place(shown[-1], order), place(rest[0], order)
    if last[0] != first[0] and last[0][0] in (2, 3):  # the value alone tells where to go on
        text = str(last[0][1])
        if _is_after(first, text, order) and not _is_after(last, text, order):
            return shown, text
    packed = json.dumps(last, separators=(",", ":"), ensure_ascii=False).encode()
    return shown, urlsafe_b64encode(packed).decode().rstrip("=")


def _is_after(found: Key, start: str, order: Sequence[tuple[str, bool]]) -> bool:
    """Whether a place comes after a start: another place, else a value of the first field."""
    if (after := _unpacked(start, len(order) + 1)) is not None:
        return compare(found, after, order) > 0
    rank, *value = found[0]
    wanted: Any = number(start) if rank == 2 else start.lower()
    if rank not in (2, 3) or wanted is None:
        return bool((rank > 3) != order[0][1])
    found_value: Any = value[0]
    return bool(found_value < wanted if order[0][1] else found_value > wanted)


def _unpacked(start: str, length: int) -> Key | None:
    """The place that a start is; None for what is none."""
    try:
        found = json.loads(urlsafe_b64decode((start + "=" * (-len(start) % 4)).encode()))
    except (ValueError, RecursionError):
        return None
    return found if is_place(found) and len(found) == length else None


@schemas.get("/{schema_id:path}")
def get_schema(plane: Shared, schema_id: SchemaId, response: Response) -> Json:
    """One schema, with everything that it refers to in it, whatever `Accept` says."""
    schema = schema_named(plane.resources, schema_id)
    response.headers["ETag"] = quoted(schema.etag)
    return _shown(schema)


@schemas.patch("/{schema_id:path}")
def change_schema(
    plane: Shared, schema_id: SchemaId, body: Annotated[Json | list[Json], Body()], bound: Bound
) -> Json:
    """Change what a schema says of itself and of its fields, by a merge or by a JSON Patch: titles,
    descriptions and `meta:` members. What its table has stays.
    """
    before = schema_named(plane.resources, schema_id)
    bound.check(before)
    writable(before)
    after = merged(before.body, body, (*_CHANGED, *_MAPS))
    if _table_of(after) != _table_of(before.body) or _ours(after) != _ours(before.body):
        raise invalid(
            "1400-400",
            "Only titles, descriptions and meta: members of a schema can be changed, and none that "
            "says what its table has. Make another schema for other fields.",
        )
    if not isinstance(after.get("title"), str):
        raise invalid("1400-400", "title: must be a text.")
    check_texts(plane, after)
    Schema.parse(after["title"], {key: each for key, each in after.items() if key not in _OURS})

    def edit(now: Resource) -> tuple[Resource, tuple[str, ...]]:
        return replace(now, body=after), ()

    changed = plane.resources.change("schemas", before.id, before.etag, plane.now(), edit)
    return _shown(changed)


def _ours(document: Json) -> list[Any]:
    return [document.get(name) for name in _OURS]


def _table_of(schema: Any, *, names: bool = False) -> Any:
    """A schema without what it says in words; `names`: its keys are names of fields."""
    if isinstance(schema, list):
        return [_table_of(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _table_of(value, names=not names and key in _MAPS)
        for key, value in schema.items()
        if names or not (key in _WORDS or _is_said(key))
    }


def _is_said(key: str) -> bool:
    return key.startswith("meta:") and key != "meta:xdmType"


@schemas.delete("/{schema_id:path}", status_code=204)
def delete_schema(plane: Shared, schema_id: SchemaId, bound: Bound) -> Response:
    """Delete a schema that no dataset has."""

    def check(schema: Resource) -> None:
        bound.check(schema)
        writable(schema)

    plane.resources.delete("schemas", schema_named(plane.resources, schema_id).id, check)
    return Response(status_code=204)


def _shown(schema: Resource) -> Json:
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
    """A schema with the shipped ones in the place of each `$ref` to them; and which those are."""
    shipped = {
        each.id: {key: value for key, value in each.body.items() if key[0] != "$"}
        for each in resources.all("schemas")
        if each.origin and each.id == each.body.get("$id")
    }
    found: dict[str, bool] = {}

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(each) for each in value]
        if not isinstance(value, dict):
            return value
        ref = value.get("$ref")
        if isinstance(ref, str) and not ref.startswith("#"):
            found[ref] = ref in shipped
            existing_keys = {key: inline(inner) for key, inner in value.items() if key != "$ref"}
            return existing_keys | {"allOf": [shipped.get(ref), *existing_keys.get("allOf", [])]}
        return {key: inline(inner) for key, inner in value.items()}

    inlined = inline(document)
    if unknown := [ref for ref, known in found.items() if not known]:
        raise invalid(
            "1400-400",
            f"There is no class, field group or schema {cut(unknown[0])} here: a $ref may name "
            f"{' or '.join(shipped)}, or a place in the same document, as #/$defs/price. "
            "Write all other fields under `properties`.",
        )
    return inlined, list(found)


def writable(resource: Resource) -> None:
    """A resource that a file declares is changed there."""
    if resource.origin:
        raise invalid(
            "1400-400",
            f"{resource.id} of the {resource.kind} comes from {resource.origin}, and cannot be "
            "changed or deleted here.",
        )
