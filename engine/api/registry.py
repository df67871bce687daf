"""Schemas and datasets: the few calls of Adobe's Schema Registry and Catalog that the tutorial
needs. A schema is what the engine can make a table of; the shipped one is always there.
"""

import secrets
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from engine import config
from engine.api.plane import Plane, Shared
from engine.api.problems import invalid
from engine.declared import schema_named
from engine.errors import InputError, NotThere
from engine.report import PROGRAM
from engine.resources import Resource, Resources, new
from engine.schema import Schema

Json = dict[str, Any]

SHIPPED = "mixpanel-events"
TENANT = "extconndev"  # whose namespace the tutorial's fields are in
_OURS = ("$id", "meta:altId", "meta:resourceType", "version", "meta:registryMetadata")
_BRIEF = ("$id", "meta:altId", "version", "title")

schemas = APIRouter(prefix="/tenant/schemas", tags=["Schemas"])
datasets = APIRouter(prefix="/dataSets", tags=["Datasets"])

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


class DataSetBody(BaseModel):
    """A dataset: the table that a flow fills."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(min_length=1)]
    schemaRef: SchemaRef  # noqa: N815  # Catalog's name


# Schemas ------------------------------------------------------------------------------------


def keep_shipped(plane: Plane) -> None:
    """Have the shipped schema among the resources, as this version of the program has it."""
    resources = plane.resources
    _, document = config.find("schema", SHIPPED)
    id_, origin = document["$id"], f"schemas/{SHIPPED}.json"
    try:
        before = resources.get("schemas", id_)
    except NotThere:
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


@schemas.get("")
def list_schemas(plane: Shared, accept: Annotated[str, Header()] = "") -> Json:
    """All schemas: whole, or with `Accept: application/vnd.adobe.xed-id+json` only their names."""
    found: dict[str, Json] = {}
    for schema in plane.resources.all("schemas"):
        shown = _shown(schema)
        found.setdefault(shown["$id"], shown)  # that of a file may be the shipped one
    results = list(found.values())
    if "-id+json" in accept:
        results = [{key: each[key] for key in _BRIEF if key in each} for each in results]
    page = {"orderby": "created", "next": None, "count": len(results)}
    return {"results": results, "_page": page, "_links": {"next": None}}


@schemas.get("/{schema_id:path}")
def get_schema(plane: Shared, schema_id: SchemaId) -> Json:
    """One schema, with everything that it refers to in it, whatever `Accept` says."""
    return _shown(schema_named(plane.resources, schema_id))


@schemas.delete("/{schema_id:path}", status_code=204)
def delete_schema(plane: Shared, schema_id: SchemaId) -> Response:
    """Delete a schema that no dataset has."""
    schema = schema_named(plane.resources, schema_id)
    writable(schema)
    plane.resources.delete("schemas", schema.id)
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
            beside = {key: inline(inner) for key, inner in value.items() if key != "$ref"}
            return beside | {"allOf": [shipped.get(ref), *beside.get("allOf", [])]}
        return {key: inline(inner) for key, inner in value.items()}

    inlined = inline(document)
    if unknown := [ref for ref, known in found.items() if not known]:
        raise invalid(
            "1400-400",
            f"There is no class, field group or schema {unknown[0]} here: a $ref may name "
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


# Datasets -----------------------------------------------------------------------------------


@datasets.post("", status_code=201)
def create_dataset(plane: Shared, body: DataSetBody, response: Response) -> list[str]:
    """Make a dataset; its table is made when a flow first fills it."""
    try:
        schema = schema_named(plane.resources, body.schemaRef.id)
    except NotThere:
        raise InputError(
            f"schemaRef.id: there is no schema {body.schemaRef.id}. Make one first, or give the "
            f"id of one that is there: GET …/schemaregistry/tenant/schemas lists them."
        ) from None
    given = body.model_dump(exclude_unset=True)
    given.pop("uri", None)  # where a configuration file has its table: no client may say so
    dataset = new("dataSets", given, plane.now(), id_=secrets.token_hex(12))
    plane.resources.create(dataset, [schema.id])
    response.headers["Location"] = f"/data/foundation/catalog/dataSets/{dataset.id}"
    return [f"@/dataSets/{dataset.id}"]


@datasets.get("")
def list_datasets(
    plane: Shared,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    start: Annotated[int, Query(ge=0)] = 0,
    name: str | None = None,
) -> Json:
    """The datasets by their ids, the oldest first."""
    every = plane.resources.all("dataSets")
    found = [each for each in every if name in (None, each.body.get("name"))]
    return {each.id: _dataset(plane, each) for each in found[start : start + limit]}


@datasets.get("/{dataset_id}")
def get_dataset(plane: Shared, dataset_id: str) -> Json:
    """One dataset, under its id."""
    dataset = plane.resources.get("dataSets", dataset_id)
    return {dataset.id: _dataset(plane, dataset)}


@datasets.delete("/{dataset_id}", status_code=204)
def delete_dataset(plane: Shared, dataset_id: str) -> Response:
    """Delete a dataset that no target connection has. Its table stays on the disk."""
    writable(plane.resources.get("dataSets", dataset_id))
    plane.resources.delete("dataSets", dataset_id)
    return Response(status_code=204)


def _dataset(plane: Plane, dataset: Resource) -> Json:
    """As Catalog answers it; `basePath` is where its table is."""
    body = {key: value for key, value in dataset.body.items() if key != "uri"}
    return body | {
        "version": "1.0.0",
        "imsOrg": PROGRAM,
        "created": dataset.created_at,
        "updated": dataset.updated_at,
        "createdClient": PROGRAM,
        "createdUser": PROGRAM,
        "updatedUser": PROGRAM,
        "basePath": str(dataset.body.get("uri") or plane.datasets / dataset.id),
        "files": f"@/dataSetFiles?dataSetId={dataset.id}",
    }
