"""Schemas and what they are made of: the calls of Adobe's Schema Registry.

A schema is one that the engine can make a table of. It is stored as it was sent: with `$ref` to a
class, to field groups and to data types. The shipped schema is always listed.
"""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from engine.catalog.resources import Resource, new
from engine.config.shipped_files import find as find_shipped
from engine.control.api import registry_lists
from engine.control.api.app_state import AppState, State
from engine.control.api.etag_checks import Bound
from engine.control.api.json_patch import merged
from engine.control.api.password_leaks import check_texts
from engine.control.api.problems import invalid
from engine.control.api.registry_kinds import (
    BEHAVIORS,
    MADE,
    TENANT,
    UNIONS,
    Kind,
    entry,
    find,
    global_resources,
    shown_as,
    tenant_resources,
)
from engine.control.api.schema_accept import form_of
from engine.control.api.schema_checks import check_change, check_document, used_by
from engine.control.api.serializers import quoted
from engine.control.schema_documents import Registry
from engine.errors import NotFound

Json = dict[str, Any]

SHIPPED = "mixpanel-events"
_ASSIGNED = ("$id", "meta:altId", "meta:resourceType", "version")
_ADDED = ("meta:registryMetadata", "meta:containerId", "meta:tenantNamespace", "meta:descriptors")
_PATCHABLE = (
    *("title", "description", "type", "meta:*", "allOf", "anyOf", "oneOf", "not", "required"),
    *("properties", "definitions", "$defs", "patternProperties", "dependentSchemas"),
)  # top-level fields that a patch may change

router = APIRouter(tags=["Schemas"])

ResourceId = Annotated[str, "its `$id`, URL-encoded, or its `meta:altId`"]
Accept = Annotated[str, Header()]
Patch = Annotated[Json | list[Json], Body()]


class SchemaBody(BaseModel):
    """A schema, class, field group or data type, with `properties` or `allOf` with `$ref`."""

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
    _, document = find_shipped("schema", SHIPPED)
    id_, origin = document["$id"], f"schemas/{SHIPPED}.json"
    try:
        before = resources.get("schemas", id_)
    except NotFound:
        resources.create(new("schemas", document, state.now(), id_=id_, origin=origin))
        return
    if before.body != document:
        after = replace(before, body=document)
        resources.change("schemas", id_, None, state.now(), lambda _: (after, ()))


def check_writable(resource: Resource) -> None:
    """Raise Problem for a resource that a file or the program declares."""
    if resource.origin:
        raise invalid(
            "1400-400",
            f"{resource.id} of the {resource.kind} comes from {resource.origin}, and cannot be "
            "changed or deleted here.",
        )


# Calls of each kind --------------------------------------------------------------------------


def _create(state: AppState, kind: Kind, document: Json) -> Json:
    hash_ = secrets.token_hex(24)
    id_ = f"https://ns.adobe.com/{TENANT}/{kind.type}/{hash_}"
    assigned = {
        "$id": id_,
        "meta:altId": f"_{TENANT}.{kind.type}.{hash_}",
        "meta:resourceType": kind.type,
        "version": "1.0",
    }
    made = new(kind.resource, assigned | _sent(document), state.now(), id_=id_)
    check_texts(state, made.body)
    registry = Registry(state.resources, made)
    check_document(made, registry)
    state.resources.create(made, used_by(made, registry))
    return entry(made, registry)


def _sent(document: Json) -> Json:
    """Return what a client says of a resource itself."""
    return {key: value for key, value in document.items() if key not in (*_ASSIGNED, *_ADDED)}


def _listed(state: AppState, kind: Kind, container: str, request: Request, accept: str) -> Json:
    form, registry = form_of(accept), Registry(state.resources)
    is_global = container == "global"
    found = global_resources(kind) if is_global else tenant_resources(state.resources, kind)
    by_id: dict[str, Json] = {}  # a configuration file may repeat the shipped schema
    for resource in found:
        item = entry(resource, registry)
        by_id.setdefault(item["$id"], item)

    def shown(item: Json) -> Json:
        return shown_as(form, item, registry, default_full=False)

    return registry_lists.page(request, f"/{container}/{kind.name}", by_id.values(), shown)


def _shown(state: AppState, kind: Kind, name: str, response: Response, accept: str) -> Json:
    form, registry = form_of(accept), Registry(state.resources)
    resource = find(state.resources, kind, name)
    if resource.etag:
        response.headers["ETag"] = quoted(resource.etag)
    item = shown_as(form, entry(resource, registry), registry, default_full=True)
    if form.has("desc"):
        about = [each.body for each in state.resources.all("descriptors")]
        item["meta:descriptors"] = [
            each for each in about if each["xdm:sourceSchema"] == item["$id"]
        ]
    return item


def _changed(
    state: AppState, kind: Kind, name: str, bound: Any, change: Callable[[Json], Json]
) -> Json:
    before = find(state.resources, kind, name)
    bound.check(before)
    check_writable(before)
    after = replace(before, body=change(before.body))
    registry = Registry(state.resources, after)
    check_texts(state, after.body)
    if any(after.body.get(key) != before.body.get(key) for key in _ASSIGNED):
        raise invalid("1400-400", f"{', '.join(_ASSIGNED)}: are assigned, and never change.")
    if not isinstance(after.body.get("title"), str):
        raise invalid("1400-400", "title: must be a text.")
    check_change(state.resources, before, after, registry)
    uses = used_by(after, registry)

    def edit(now: Resource) -> tuple[Resource, list[str]]:
        return replace(now, body=after.body), uses

    stored = state.resources.change(kind.resource, before.id, before.etag, state.now(), edit)
    return entry(stored, Registry(state.resources))


def _delete(state: AppState, kind: Kind, name: str, bound: Any) -> None:
    def check(resource: Resource) -> None:
        bound.check(resource)
        check_writable(resource)

    found = find(state.resources, kind, name)
    check(found)
    state.resources.delete(kind.resource, found.id, check)
    for each in state.resources.all("descriptors"):
        if each.body["xdm:sourceSchema"] == found.body.get("$id", found.id):
            state.resources.delete("descriptors", each.id)


# Routes -------------------------------------------------------------------------------------


def _add_reads(kind: Kind, container: str) -> None:
    """Add the list of a kind in a container, and the look-up of one."""
    path = f"/{container}/{kind.name}"

    @router.get(path, openapi_extra=registry_lists.PARAMETERS, description=f"List {kind.name}.")
    def list_all(state: State, request: Request, accept: Accept = "") -> Json:
        return _listed(state, kind, container, request, accept)

    @router.get(f"{path}/{{resource_id:path}}", description=f"Return one of the {kind.name}.")
    def get(state: State, resource_id: ResourceId, response: Response, accept: Accept = "") -> Json:
        return _shown(state, kind, resource_id, response, accept)


def _add_writes(kind: Kind) -> None:
    """Add the calls that create, change and delete resources of a kind."""
    path = f"/tenant/{kind.name}"
    one = f"{path}/{{resource_id:path}}"

    @router.post(path, status_code=201, description=f"Create one of the {kind.name}.")
    def create(state: State, body: SchemaBody) -> Json:
        return _create(state, kind, body.model_dump(exclude_unset=True))

    @router.put(one, description=f"Replace one of the {kind.name}.")
    def replace_one(state: State, resource_id: ResourceId, body: SchemaBody, bound: Bound) -> Json:
        sent = _sent(body.model_dump(exclude_unset=True))

        def change(before: Json) -> Json:
            return {key: before[key] for key in _ASSIGNED if key in before} | sent

        return _changed(state, kind, resource_id, bound, change)

    @router.patch(
        one,
        description=f"Change one of the {kind.name} by a merge or a JSON Patch. The columns of a "
        "dataset that uses it cannot be changed.",
    )
    def change_one(state: State, resource_id: ResourceId, body: Patch, bound: Bound) -> Json:
        def change(before: Json) -> Json:
            return merged(before, body, _PATCHABLE)

        return _changed(state, kind, resource_id, bound, change)

    @router.delete(one, status_code=204, description=f"Delete one of the {kind.name}, if unused.")
    def delete_one(state: State, resource_id: ResourceId, bound: Bound) -> Response:
        _delete(state, kind, resource_id, bound)
        return Response(status_code=204)


for _kind in MADE:
    _add_writes(_kind)
    _add_reads(_kind, "tenant")
    _add_reads(_kind, "global")
_add_reads(UNIONS, "tenant")
_add_reads(BEHAVIORS, "global")
