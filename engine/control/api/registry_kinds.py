"""The kinds of resources of the Schema Registry, and how one is shown.

A resource of the container `tenant` is one that a client or a file made; those of `global` are
XDM's own, and are the program's. A look-up in either container finds both, as clients expect.
"""

from dataclasses import dataclass
from typing import Any

from engine.catalog.resources import Resource, Resources
from engine.config.shipped_files import standard
from engine.control.api.schema_accept import Form
from engine.control.run_payload import PROGRAM
from engine.control.schema_documents import Registry, names_of
from engine.errors import NotFound
from engine.transform.schema_forms import flat, full, without_texts

Json = dict[str, Any]

TENANT = "extconndev"  # the namespace of the tutorial's fields
ID_FIELDS = ("$id", "meta:altId", "version", "title")  # of the media type xed-id
_BORN = 1640995200000  # ms since the epoch: before every resource


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource.

    name      the last part of its path
    resource  the kind of resources that are stored; "" for a kind that no client makes
    type      its `meta:resourceType`, and the part before the hash of its ids
    """

    name: str
    resource: str
    type: str


SCHEMAS = Kind("schemas", "schemas", "schemas")
MADE = (
    SCHEMAS,
    Kind("classes", "classes", "classes"),
    Kind("fieldgroups", "fieldgroups", "mixins"),
    Kind("mixins", "fieldgroups", "mixins"),  # the older name of field groups
    Kind("datatypes", "datatypes", "datatypes"),
)
UNIONS = Kind("unions", "", "unions")
BEHAVIORS = Kind("behaviors", "", "behaviors")


def tenant_resources(resources: Resources, kind: Kind) -> list[Resource]:
    """Return the resources that clients and files made, the oldest first."""
    return resources.all(kind.resource) if kind.resource else []


def global_resources(kind: Kind) -> list[Resource]:
    """Return XDM's own resources of a kind."""
    return [
        Resource(kind.name, id_, "", _BORN, _BORN, body, origin="XDM itself")
        for id_, body in standard().items()
        if body["meta:resourceType"] == kind.type
    ]


def find(resources: Resources, kind: Kind, name: str) -> Resource:
    """Return the resource with an id, a `$id` or a `meta:altId`; NotFound if none has it."""
    everything = [*tenant_resources(resources, kind), *global_resources(kind)]
    for each in sorted(everything, key=lambda each: each.id != name):
        if name in names_of(each):
            return each
    raise NotFound(kind.name, name)


def entry(resource: Resource, registry: Registry) -> Json:
    """Return a resource as it was written, with all that the registry adds to it."""
    is_global = standard().get(resource.id) is resource.body
    body = resource.body
    type_ = str(body.get("meta:resourceType", "schemas"))
    extends = _extended(body, registry)
    shown: Json = {"$id": resource.id, "version": "1.0", "type": "object"}
    shown |= {"meta:xdmType": "object", "meta:abstract": type_ != "schemas"}
    shown |= {"meta:extensible": type_ != "schemas"}
    shown |= body
    if is_global:
        shown["version"] = "1.0"
    if extends:
        shown["meta:extends"] = extends
    if type_ == "schemas" and (class_ := class_of(body, registry)):
        shown["meta:class"] = class_
    shown["meta:containerId"] = "global" if is_global else "tenant"
    if not is_global:
        shown |= {"imsOrg": PROGRAM, "meta:tenantNamespace": f"_{TENANT}"}
    shown["meta:registryMetadata"] = {
        "repo:createdDate": resource.created_at,
        "repo:lastModifiedDate": resource.updated_at,
        "xdm:createdClientId": PROGRAM,
        "xdm:lastModifiedClientId": PROGRAM,
        "xdm:createdUserId": PROGRAM,
        "xdm:lastModifiedUserId": PROGRAM,
        "eTag": resource.etag,
    }
    return shown


def shown_as(form: Form, item: Json, registry: Registry, *, default_full: bool) -> Json:
    """Return an `entry` in the form that a client asked for."""
    if form.has("id"):
        return {key: item[key] for key in ID_FIELDS if key in item}
    if form.has("full") or form.has("flat") or (form.words is None and default_full):
        written = item
        item = registry.checked(lambda: full(written, registry.document))
    if form.has("flat"):
        item = flat(item)
    return without_texts(item) if form.has("notext") else item


def named_by(document: Json) -> list[str]:
    """Return the `$id` of each document that the `allOf` of a document names."""
    parts = document.get("allOf")
    listed = parts if isinstance(parts, list) else []
    refs = [part.get("$ref") for part in listed if isinstance(part, dict)]
    return [ref for ref in refs if isinstance(ref, str) and ref[:1] != "#"]


def class_of(document: Json, registry: Registry) -> str | None:
    """Return the `$id` of the class that a schema is of, if it has one."""
    return next((ref for ref in named_by(document) if type_of(ref, registry) == "classes"), None)


def type_of(id_: str, registry: Registry) -> str:
    """Return the `meta:resourceType` of the document with a `$id`; "" if there is none."""
    return str((registry.document(id_) or {}).get("meta:resourceType", ""))


def _extended(document: Json, registry: Registry) -> list[str]:
    """Return the `$id` of each document that a document is made of, and of those that they are."""
    found = dict.fromkeys(named_by(document))
    queue = list(found)
    while queue:
        following = registry.document(queue.pop(0)) or {}
        new = [ref for ref in named_by(following) if ref not in found]
        found |= dict.fromkeys(new)
        queue += new
    return list(found)
