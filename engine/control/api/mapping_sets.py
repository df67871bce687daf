"""Mapping sets: Data Prep's calls. Every version of a set is stored and never changes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID, uuid4, uuid5

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, Resources, new
from engine.control.api.app_state import State
from engine.control.api.etag_checks import Bound
from engine.control.api.password_leaks import check_texts
from engine.control.api.problems import cut, invalid
from engine.control.api.schema_registry import SchemaRef, check_writable
from engine.control.run_payload import PROGRAM
from engine.control.schema_documents import schema_named, standalone
from engine.errors import InputError, NotFound
from engine.mapping import mapping_set
from engine.transform.schema import Schema

Json = dict[str, Any]

KIND = "mappingSets"
MOST = 100  # records of a preview

router = APIRouter(prefix="/mappingSets", tags=["Mapping sets"])

Version = Annotated[int | None, Query(ge=0, description="Default: the newest.")]


class OutputSchema(BaseModel):
    """The schema that the mappings write."""

    model_config = ConfigDict(extra="allow")

    schemaRef: SchemaRef  # noqa: N815  # Data Prep's name


class MappingSet(BaseModel):
    """A mapping set; `xdmSchema` is the older name of the id in `outputSchema`."""

    model_config = ConfigDict(extra="allow")

    mappings: Annotated[list[Json], Field(min_length=1)]
    xdmSchema: str | None = None  # noqa: N815  # Data Prep's name
    outputSchema: OutputSchema | None = None  # noqa: N815  # Data Prep's name


class Preview(BaseModel):
    """Records, as explore returns them, and the mapping set to apply to them."""

    data: Annotated[list[Any], Field(max_length=MOST)] | Json
    mappingSet: MappingSet  # noqa: N815  # Data Prep's name


@router.post("")
def create(state: State, body: MappingSet, *, validate: bool = True) -> Json:
    """Create a mapping set; with `validate=false` only the flow that uses it checks it."""
    document = body.model_dump(exclude_unset=True)
    if validate:
        mapping_set.parse("of the request", document, _schema_of(state.resources, document))
    made = new(KIND, {"versions": [document]}, state.now(), id_=uuid4().hex)
    check_texts(state, document)
    state.resources.create(made)
    return _named(made, 0)


@router.get("")
def list_all(
    state: State,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    start: Annotated[int, Query(ge=0)] = 0,
    name: str | None = None,
    order: Annotated[
        str,
        Query(alias="orderBy", pattern="^[-+ ]?(createdDate|(updated|modified|lastUpdate)Date)$"),
    ] = "-lastUpdateDate",
    expand: Annotated[bool, Query(alias="expandSchema")] = False,
) -> Json:
    """List the mapping sets, each in its newest version."""
    resources = state.resources.all(KIND)
    matching = [each for each in resources if name in (None, each.body["versions"][-1].get("name"))]
    by_creation = order.endswith("createdDate")
    matching.sort(
        key=lambda each: each.created_at if by_creation else each.updated_at,
        reverse=order.startswith("-"),
    )
    shown = matching[start : start + limit]
    links: Json = {}
    if len(matching) > start + limit:
        query = f"start={start + limit}&limit={limit}&orderBy={order.replace('+', '%2B')}"
        links["next"] = {"href": f"/mappingSets?{query}", "templated": False}
    data = [_serialized(state.resources, each, None, expand=expand) for each in shown]
    return {"data": data, "_page": {"count": len(data), "limit": limit}, "_links": links}


@router.post("/validate")
def validate_set(state: State, body: MappingSet) -> Json:
    """Validate each mapping; return the verdicts in the order of the mappings."""
    document = body.model_dump(exclude_unset=True)
    schema = _schema_of(state.resources, document)
    verdicts = mapping_set.verdicts("of the request", document, schema)
    answers = [
        _verdict(mapping, problems)
        for mapping, problems in zip(document["mappings"], verdicts, strict=True)
    ]
    return {"validationResponse": answers}


async def _raw(request: Request) -> bytes:
    return await request.body()


class _Verbatim(msgspec.Struct):
    data: msgspec.Raw


@router.post("/preview")
def preview(state: State, body: Preview, raw: Annotated[bytes, Depends(_raw)]) -> list[Json]:
    """Return what a run would make of records, with the digits of numbers as they were sent."""
    from engine.sync import preview as sync_preview  # with Arrow: the idle daemon does without
    from engine.sync.pull import Rules

    document = body.mappingSet.model_dump(exclude_unset=True)
    schema = _schema_of(state.resources, document)
    data = msgspec.json.decode(raw, type=_Verbatim).data
    listed = isinstance(body.data, list)
    records = msgspec.json.decode(data, type=list[msgspec.Raw]) if listed else [data]
    rules = Rules(("of the request", document), (schema.name, schema.document))
    return sync_preview.preview(rules, map(bytes, records), state.now())


@router.get("/{mapping_set_id}")
def get(
    state: State,
    mapping_set_id: str,
    version: Version = None,
    expand: Annotated[bool, Query(alias="expandSchema")] = False,
) -> Json:
    """Return one mapping set; with `expandSchema`, with its schema."""
    resource = state.resources.get(KIND, mapping_set_id)
    return _serialized(state.resources, resource, version, expand=expand)


def _serialized(
    resources: Resources, resource: Resource, version: int | None, *, expand: bool
) -> Json:
    item = _set(resources, resource, version)
    if expand:
        with suppress(NotFound):  # it was deleted, or never there
            schema = schema_named(resources, str(item["xdmSchema"]))
            item["outputSchema"] |= {"jsonSchema": standalone(schema, resources)[1]}
    return item


@router.put("/{mapping_set_id}")
def put(
    state: State, mapping_set_id: str, body: MappingSet, bound: Bound, *, validate: bool = True
) -> Json:
    """Add a version. Flows use the version that they name."""
    document = body.model_dump(exclude_unset=True)
    check_texts(state, document)
    if validate:
        mapping_set.parse("of the request", document, _schema_of(state.resources, document))

    def edit(before: Resource) -> tuple[Resource, tuple[str, ...]]:
        bound.check(before)
        check_writable(before)
        versions = [*before.body["versions"], document]
        return replace(before, body={"versions": versions}), ()

    after = state.resources.change(KIND, mapping_set_id, None, state.now(), edit)
    return _set(state.resources, after, None)


@router.delete("/{mapping_set_id}", status_code=204)
def delete(state: State, mapping_set_id: str, bound: Bound) -> Response:
    """Delete a mapping set that no flow uses, with all its versions."""

    def check(resource: Resource) -> None:
        bound.check(resource)
        check_writable(resource)

    state.resources.delete(KIND, mapping_set_id, check)
    return Response(status_code=204)


@router.get("/{mapping_set_id}/mappings")
def list_mappings(state: State, mapping_set_id: str, version: Version = None) -> list[Json]:
    """List the mappings of a set."""
    resource = state.resources.get(KIND, mapping_set_id)
    mappings: list[Json] = _set(state.resources, resource, version)["mappings"]
    return mappings


@router.get("/{mapping_set_id}/mappings/{mapping_id}")
def get_mapping(
    state: State, mapping_set_id: str, mapping_id: str, version: Version = None
) -> Json:
    """Return one mapping of a set."""
    for mapping in list_mappings(state, mapping_set_id, version):
        if mapping["id"] == mapping_id:
            return mapping
    raise NotFound("mappings", mapping_id)


def _schema_of(resources: Resources, document: Mapping[str, Any]) -> Schema:
    """Return the schema that a mapping set writes; InputError unless it names one that exists."""
    ref = (document.get("outputSchema") or {}).get("schemaRef") or {}
    names = {each for each in (document.get("xdmSchema"), ref.get("id")) if each}
    if len(names) != 1:
        raise InputError(
            "xdmSchema and outputSchema.schemaRef.id name two schemas: give one of them."
            if names
            else "The mapping set names no schema: give its id as outputSchema.schemaRef.id."
        )
    name = names.pop()
    try:
        schema = schema_named(resources, name)
    except NotFound:
        raise InputError(
            f"There is no schema {cut(name)}. Make one first, or give the id of one that is there: "
            "GET …/schemaregistry/tenant/schemas lists them."
        ) from None
    return Schema.parse(*standalone(schema, resources))


def _named(resource: Resource, version: int) -> Json:
    """Return the fields that a mapping set and its mappings share."""
    return {
        "id": resource.id,
        "version": version,
        "createdDate": resource.created_at,
        "modifiedDate": resource.updated_at,
        "createdBy": PROGRAM,
        "modifiedBy": PROGRAM,
    }


def _set(resources: Resources, resource: Resource, version: int | None) -> Json:
    """Return a version of a mapping set, by default the newest, with old and new field names."""
    versions: list[Json] = resource.body["versions"]
    if version is None:
        version = len(versions) - 1
    if version >= len(versions):
        raise invalid(
            "1412-400",
            f"Invalid Mapping Version in request: {resource.id} has the versions 0 to "
            f"{len(versions) - 1}. Please provide correct mapping version.",
        )
    document = versions[version]
    named = _named(resource, version)
    ref = (document.get("outputSchema") or {}).get("schemaRef") or {
        "id": document.get("xdmSchema"),
        "contentType": "application/vnd.adobe.xed-full+json;version=1",
    }
    return (
        {"status": "PUBLISHED", "strictMapping": False, "allowNullValues": False}
        | {"supportVersion": "1.1", "xdmVersion": "1.0"}
        | document
        | named
        | {"xdmSchema": ref["id"], "schemaRef": ref, "outputSchema": {"schemaRef": ref}}
        | {"mappings": [_mapping(named, n, each) for n, each in enumerate(document["mappings"])]}
    )


def _mapping(named: Json, number: int, mapping: Json) -> Json:
    """Return one mapping; its id is derived from the id of its set."""
    id_ = uuid5(UUID(named["id"]), f"{named['version']}/{number}").hex
    source = mapping.get("source", mapping.get("sourceAttribute"))
    destination = mapping.get("destination", mapping.get("destinationXdmPath"))
    return (
        {"sourceType": "ATTRIBUTE", "identity": False, "primaryIdentity": False, "matchScore": 0.0}
        | {"functionVersion": 1, "source": source, "destination": destination}
        | mapping
        | {"sourceAttribute": source, "destinationXdmPath": destination}
        | named
        | {"id": id_}
    )


def _verdict(mapping: Json, problems: list[str]) -> Json:
    """Return Data Prep's verdict on one mapping."""
    if not problems:
        return {"status": "SUCCESS", "errors": None}
    where = {
        name: mapping[name] for name in ("source", "destination", "sourceType") if name in mapping
    }
    return {"status": "FAILED", "errors": [where | {"exception": each} for each in problems]}
