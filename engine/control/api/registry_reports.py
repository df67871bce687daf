"""Reports of the Schema Registry: its numbers, a sample of a schema's data, and an export."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header

from engine.catalog.resources import Resource
from engine.control.api.app_state import AppState, State
from engine.control.api.registry_kinds import (
    ID_FIELDS,
    MADE,
    SCHEMAS,
    TENANT,
    entry,
    find,
    global_resources,
    tenant_resources,
)
from engine.control.api.schema_accept import form_of
from engine.control.run_payload import PROGRAM
from engine.control.schema_documents import Registry
from engine.errors import NotFound
from engine.transform.schema_forms import full, sample
from engine.transform.schema_refs import references

Json = dict[str, Any]
_RECENT = 10  # resources
_ANYWHERE = "<XDM_TENANTID_PLACEHOLDER>"  # stands for the tenant in an export

router = APIRouter(tags=["Schemas"])

Accept = Annotated[str, Header()]


@router.get("/stats")
def get_stats(state: State) -> Json:
    """Return the tenant, how many resources there are, and the newest ones."""
    registry = Registry(state.resources)
    made = {kind.name: tenant_resources(state.resources, kind) for kind in MADE}
    names = ("schemas", "mixins", "datatypes", "classes")
    entries = [entry(each, registry) for name in names for each in made[name]]

    def recent(key: str) -> list[Json]:
        newest = sorted(entries, key=lambda each: -each["meta:registryMetadata"][key])
        return [{name: each.get(name) for name in ID_FIELDS} for each in newest[:_RECENT]]

    schemas = [each for each in entries if each.get("meta:class")]
    usage = [
        {"$id": class_["$id"], "title": class_["title"], "numberOfSchemas": len(of_it)}
        | {"schemas": [{k: each.get(k) for k in ("$id", "title")} for each in of_it]}
        for class_ in _classes(state, registry)
        if (of_it := [each for each in schemas if each["meta:class"] == class_["$id"]])
    ]
    return {
        "imsOrg": PROGRAM,
        "tenantId": TENANT,
        "counts": {name: len(made[name]) for name in names} | {"unions": 0},
        "recentlyCreatedResources": recent("repo:createdDate"),
        "recentlyUpdatedResources": recent("repo:lastModifiedDate"),
        "classUsage": usage,
    }


@router.get("/rpc/sampledata/{sampled_id:path}")
def get_sample(state: State, sampled_id: str, accept: Accept = "") -> Json:
    """Return one row that a schema describes."""
    form_of(accept)
    found, registry = find(state.resources, SCHEMAS, sampled_id), Registry(state.resources)
    row: Json = sample(registry.checked(lambda: full(found.body, registry.document)))
    return row


@router.get("/rpc/export/{exported_id:path}")
def export(state: State, exported_id: str, accept: Accept = "") -> list[Json]:
    """Return a resource after all tenant resources that it names, without the tenant's name."""
    form_of(accept)
    registry, found = Registry(state.resources), dict[str, Resource]()
    queue = [_find_any(state, exported_id)]
    while queue:
        each = queue.pop(0)
        if each.id not in found:
            found[each.id] = each
            queue += filter(None, map(registry.resource, references(each.body)))
    documents = [entry(each, registry) for each in reversed(found.values())]
    for document in documents:
        del document["meta:registryMetadata"]
    text = json.dumps(documents).replace(f'"_{TENANT}', f'"_{_ANYWHERE}')
    exported: list[Json] = json.loads(text.replace(f"/{TENANT}/", f"/{_ANYWHERE}/"))
    return exported


def _classes(state: AppState, registry: Registry) -> list[Json]:
    kind = next(kind for kind in MADE if kind.name == "classes")
    found = [*tenant_resources(state.resources, kind), *global_resources(kind)]
    return [entry(each, registry) for each in found]


def _find_any(state: AppState, name: str) -> Resource:
    """Return the resource of any kind with a name; NotFound if none has it."""
    for kind in MADE:
        try:
            return find(state.resources, kind, name)
        except NotFound:
            continue
    raise NotFound("resources", name)
