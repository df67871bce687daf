"""What the standard class of a schema brings: members that are columns only if they are used. Pure.

Standard documents are those of XDM itself: classes, behaviors and what they name. A schema that is
made of them is a bundle, see schema_refs.
"""

from dataclasses import dataclass, replace
from typing import Any

from engine.transform.schema import Schema, follow

Json = dict[str, Any]
STANDARD = "_xdm."  # how the `meta:altId` of a standard document starts


@dataclass(frozen=True, slots=True)
class ClassMembers:
    """The names of fields at the top of a schema that standard documents alone describe.

    required  those of them that a standard document requires of every row
    """

    names: frozenset[str]
    required: frozenset[str]


def class_members(schema: Schema) -> ClassMembers:
    """Return the members that a schema has of its standard class."""
    own, standard, required = set[str](), set[str](), set[str]()
    seen = set[tuple[int, bool]]()
    stack: list[tuple[Any, bool]] = [(schema.document, False)]
    while stack:
        node, is_standard = stack.pop()
        if not isinstance(node, dict):
            continue
        if node is not schema.document:
            is_standard = is_standard or str(node.get("meta:altId")).startswith(STANDARD)
        if (id(node), is_standard) in seen:
            continue
        seen.add((id(node), is_standard))
        (standard if is_standard else own).update(node.get("properties") or ())
        if is_standard:
            required.update(node.get("required") or ())
        if isinstance(ref := node.get("$ref"), str):
            stack.append((follow(schema.document, ref), is_standard))
        stack += ((part, is_standard) for part in node.get("allOf") or ())
    names = frozenset(standard - own)
    return ClassMembers(names, names & required)


def without_unused(schema: Schema, used: set[str]) -> Schema:
    """Return a schema without those members of its standard class that are not `used`."""
    unused = class_members(schema).names - used
    fields = tuple(field for field in schema.root.fields if field.name not in unused)
    return replace(schema, root=replace(schema.root, fields=fields)) if unused else schema
