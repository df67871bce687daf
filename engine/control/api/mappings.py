"""Mapping sets: Data Prep's calls. A set keeps all its versions; none of them ever changes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any
from uuid import UUID, uuid4, uuid5

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, Resources, new
from engine.control.api.plane import Shared
from engine.control.api.preconditions import Bound
from engine.control.api.problems import cut, invalid
from engine.control.api.registry import SchemaRef, writable
from engine.control.api.secrecy import check_texts
from engine.control.to_flow import schema_named
from engine.errors import InputError, NotFound
from engine.mapping import mapping_set
from engine.model.run_payload import PROGRAM
from engine.transform.schema import Schema

Json = dict[str, Any]

KIND = "mappingSets"
MOST = 100  # records of a preview

router = APIRouter(prefix="/mappingSets", tags=["Mapping sets"])

Version = Annotated[int | None, Query(ge=0, description="the newest unless it is given")]


class OutputSchema(BaseModel):
    """What the mappings write."""

    model_config = ConfigDict(extra="allow")

    schemaRef: SchemaRef  # noqa: N815  # Data Prep's name


class MappingSet(BaseModel):
    """`xdmSchema` is the older way to say what `outputSchema` says."""

    model_config = ConfigDict(extra="allow")

    mappings: Annotated[list[Json], Field(min_length=1)]
    xdmSchema: str | None = None  # noqa: N815  # Data Prep's name
    outputSchema: OutputSchema | None = None  # noqa: N815  # Data Prep's name


class Preview(BaseModel):
    """Some records, as explore shows them, and what to make of them."""

    data: Annotated[list[Any], Field(max_length=MOST)] | Json
    mappingSet: MappingSet  # noqa: N815  # Data Prep's name


@router.post("")
def create(plane: Shared, body: MappingSet, *, validate: bool = True) -> Json:
    """Make a mapping set; `validate=false` leaves the check to the flow that uses it."""
    document = body.model_dump(exclude_unset=True)
    if validate:
        mapping_set.parse("of the request", document, _schema_of(plane.resources, document))
    made = new(KIND, {"versions": [document]}, plane.now(), id_=uuid4().hex)
    check_texts(plane, document)
    plane.resources.create(made)
    return _named(made, 0)


@router.get("")
def list_all(
    plane: Shared,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    start: Annotated[int, Query(ge=0)] = 0,
    name: str | None = None,
    order: Annotated[
        str,
        Query(alias="orderBy", pattern="^[-+ ]?(createdDate|(updated|modified|lastUpdate)Date)$"),
    ] = "-lastUpdateDate",
    expand: Annotated[bool, Query(alias="expandSchema")] = False,
) -> Json:
    """The newest version of each mapping set."""
    every = plane.resources.all(KIND)
    found = [each for each in every if name in (None, each.body["versions"][-1].get("name"))]
    by_creation = order.endswith("createdDate")
    found.sort(
        key=lambda each: each.created_at if by_creation else each.updated_at,
        reverse=order.startswith("-"),
    )
    shown = found[start : start + limit]
    links: Json = {}
    if len(found) > start + limit:
        query = f"start={start + limit}&limit={limit}&orderBy={order.replace('+', '%2B')}"
        links["next"] = {"href": f"/mappingSets?{query}", "templated": False}
    data = [_shown(plane.resources, each, None, expand=expand) for each in shown]
    return {"data": data, "_page": {"count": len(data), "limit": limit}, "_links": links}


@router.post("/validate")
def validate_set(plane: Shared, body: MappingSet) -> Json:
    """What is wrong with each mapping, in their order."""
    document = body.model_dump(exclude_unset=True)
    schema = _schema_of(plane.resources, document)
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
def preview(plane: Shared, body: Preview, raw: Annotated[bytes, Depends(_raw)]) -> list[Json]:
    """What a run would make of some records, the digits of their numbers as they were sent."""
    from engine.sync.preview import preview as previewed
    from engine.sync.pull import Rules

    document = body.mappingSet.model_dump(exclude_unset=True)
    schema = _schema_of(plane.resources, document)
    data = msgspec.json.decode(raw, type=_Verbatim).data
    listed = isinstance(body.data, list)
    records = msgspec.json.decode(data, type=list[msgspec.Raw]) if listed else [data]
    wanted = Rules(("of the request", document), (schema.name, schema.document))
    return previewed(wanted, map(bytes, records), plane.now())


@router.get("/{mapping_set_id}")
def get(
    plane: Shared,
    mapping_set_id: str,
    version: Version = None,
    expand: Annotated[bool, Query(alias="expandSchema")] = False,
) -> Json:
    """One mapping set; with `expandSchema` the schema is in it."""
    found = plane.resources.get(KIND, mapping_set_id)
    return _shown(plane.resources, found, version, expand=expand)


def _shown(resources: Resources, found: Resource, version: int | None, *, expand: bool) -> Json:
    answer = _set(resources, found, version)
    if expand:
        with suppress(NotFound):  # it was deleted, or never looked for
            schema = schema_named(resources, str(answer["xdmSchema"]))
            answer["outputSchema"] |= {"jsonSchema": schema.body}
    return answer


@router.put("/{mapping_set_id}")
def put(
    plane: Shared, mapping_set_id: str, body: MappingSet, bound: Bound, *, validate: bool = True
) -> Json:
    """Add a version. Flows keep the version that they name."""
    document = body.model_dump(exclude_unset=True)
    check_texts(plane, document)
    if validate:
        mapping_set.parse("of the request", document, _schema_of(plane.resources, document))

    def edit(before: Resource) -> tuple[Resource, tuple[str, ...]]:
        bound.check(before)
        writable(before)
        versions = [*before.body["versions"], document]
        return replace(before, body={"versions": versions}), ()

    after = plane.resources.change(KIND, mapping_set_id, None, plane.now(), edit)
    return _set(plane.resources, after, None)


@router.get("/{mapping_set_id}/mappings")
def list_mappings(plane: Shared, mapping_set_id: str, version: Version = None) -> list[Json]:
    """The mappings of a set."""
    found = plane.resources.get(KIND, mapping_set_id)
    mappings: list[Json] = _set(plane.resources, found, version)["mappings"]
    return mappings


@router.get("/{mapping_set_id}/mappings/{mapping_id}")
def get_mapping(
    plane: Shared, mapping_set_id: str, mapping_id: str, version: Version = None
) -> Json:
    """One of the mappings of a set."""
    for mapping in list_mappings(plane, mapping_set_id, version):
        if mapping["id"] == mapping_id:
            return mapping
    raise NotFound("mappings", mapping_id)


def _schema_of(resources: Resources, document: Mapping[str, Any]) -> Schema:
    """The schema that a mapping set writes; InputError if it names none that is there."""
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
    return Schema.parse(str(schema.body.get("title") or schema.id), schema.body)


def _named(found: Resource, version: int) -> Json:
    """What every mapping set, and every mapping, begins with."""
    return {
        "id": found.id,
        "version": version,
        "createdDate": found.created_at,
        "modifiedDate": found.updated_at,
        "createdBy": PROGRAM,
        "modifiedBy": PROGRAM,
    }


def _set(resources: Resources, found: Resource, version: int | None) -> Json:
    """One version of a mapping set, the newest unless it is given, under old and new names."""
    versions: list[Json] = found.body["versions"]
    if version is None:
        version = len(versions) - 1
    if version >= len(versions):
        raise invalid(
            "1412-400",
            f"Invalid Mapping Version in request: {found.id} has the versions 0 to "
            f"{len(versions) - 1}. Please provide correct mapping version.",
        )
    document = versions[version]
    named = _named(found, version)
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
    """One mapping; its id grows from that of its set."""
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
    """What Data Prep's validation says of one mapping."""
    if not problems:
        return {"status": "SUCCESS", "errors": None}
    where = {
        name: mapping[name] for name in ("source", "destination", "sourceType") if name in mapping
    }
    return {"status": "FAILED", "errors": [where | {"exception": each} for each in problems]}
