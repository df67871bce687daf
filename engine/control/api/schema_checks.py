"""Check the documents of the Schema Registry before they are stored, and what uses them."""

from typing import Any

from engine.catalog.resources import Resource, Resources
from engine.control.api.problems import invalid
from engine.control.api.registry_kinds import class_of, named_by, type_of
from engine.control.schema_documents import KINDS, Registry
from engine.transform.schema import Schema
from engine.transform.schema_forms import full
from engine.transform.schema_refs import references

Json = dict[str, Any]

_NAMES = ("$id", "meta:altId", "meta:resourceType", "version")  # say nothing of a table
_MAPS = ("properties", "definitions", "$defs", "patternProperties", "dependentSchemas")
_DOCUMENTATION = ("title", "description")


def check_document(resource: Resource, registry: Registry) -> None:
    """Raise InputError unless a document can be resolved; a schema must be one of a table."""
    registry.checked(lambda: full(resource.body, registry.document))
    if resource.kind != "schemas":
        return
    _check_class(resource.body, registry)
    whole = registry.whole(resource.body)
    title = str(resource.body.get("title") or resource.id)
    Schema.parse(title, {key: value for key, value in whole.items() if key not in _NAMES})


def _check_class(schema: Json, registry: Registry) -> None:
    """Raise Problem for two classes, or for a field group that is made for another class."""
    named = named_by(schema)
    classes = [each for each in named if type_of(each, registry) == "classes"]
    if len(classes) > 1:
        raise invalid("1400-400", f"allOf: names {len(classes)} classes; a schema is of one.")
    class_ = class_of(schema, registry)
    if class_ is None:
        return
    fitting = {class_, *named_by(registry.document(class_) or {})}
    for each in named:
        group = registry.document(each) or {}
        intended = group.get("meta:intendedToExtend") if each != class_ else None
        if isinstance(intended, list) and intended and fitting.isdisjoint(map(str, intended)):
            raise invalid(
                "1400-400",
                f"allOf: the field group {each} is for other classes than {class_}: add that to "
                "its meta:intendedToExtend.",
            )


def check_change(
    resources: Resources, before: Resource, after: Resource, registry: Registry
) -> None:
    """Raise InputError or Problem for a change that a table or a schema could not follow.

    `registry` holds the changed document. The columns of a table never change.
    """
    check_document(after, registry)
    users = _all_users(resources, before.id)
    if table_of(after.body) != table_of(before.body):
        if dataset := next((id_ for kind, id_ in users if kind == "dataSets"), None):
            raise invalid(
                "1400-400",
                f"Dataset {dataset} has a table of this. Only titles, descriptions and meta: "
                "members can be changed, and none that says what a table has. Make another schema "
                "for other fields.",
            )
        for kind, id_ in users:
            if kind in KINDS:
                check_document(resources.get(kind, id_), registry)


def used_by(resource: Resource, registry: Registry) -> list[str]:
    """Return the ids of the resources that a document names: they cannot be deleted before it."""
    named = map(registry.resource, references(resource.body))
    return [each.id for each in named if each and each.id != resource.id]


def _all_users(resources: Resources, id_: str) -> list[tuple[str, str]]:
    """Return the kind and id of all that uses a resource, directly or through another one."""
    found: dict[tuple[str, str], None] = {}
    queue = [id_]
    while queue:
        for user in resources.users(queue.pop()):
            if user not in found:
                found[user] = None
                queue.append(user[1])
    return list(found)


def table_of(schema: Any, *, names: bool = False) -> Any:
    """Return a schema without its documentation; `names`: its keys are names of fields."""
    if isinstance(schema, list):
        return [table_of(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: table_of(value, names=not names and key in _MAPS)
        for key, value in schema.items()
        if names or not (key in _DOCUMENTATION or _is_metadata(key))
    }


def _is_metadata(key: str) -> bool:
    return key.startswith("meta:") and key != "meta:xdmType"
