"""The forms in which the schema registry shows a schema: full, flat, without texts, as a sample.

Pure. A form is for readers and clients; rows are checked against the schema as it is written.
"""

from collections.abc import Callable
from typing import Any

from engine.transform.schema import follow
from engine.transform.schema_refs import RefError, bundled

Json = dict[str, Any]
MOST, DEEPEST = 20_000, 100  # objects of a full form, and of one in another

_MAPS = ("properties", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_NESTED = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
_DEFINITIONS = ("definitions", "$defs")
_OF_A_DOCUMENT = frozenset(
    {
        "$id", "$schema", "version", "meta:altId", "meta:resourceType", "meta:extends",
        "meta:class", "meta:abstract", "meta:extensible", "meta:intendedToExtend",
    }
)  # fmt: skip
_TEXTS = ("title", "description")
_SAMPLES: Json = {
    "integer": 0, "number": 0.5, "boolean": True, "array": [], "object": {}, "null": None,
}  # fmt: skip
_FORMATS = {"date-time": "2024-01-01T00:00:00Z", "date": "2024-01-01"}


def full(document: Json, lookup: Callable[[str], Json | None]) -> Json:
    """Return a document with everything that `$ref` and `allOf` bring merged into it.

    It has no definitions. `lookup` returns a document by its `$id`. Raises RefError.
    """
    whole = bundled(document, lookup)
    merged: Json = _Merger(whole).merged(whole, frozenset(), 0)
    return merged


class _Merger:
    """Merges the parts of a bundle, and counts them."""

    def __init__(self, whole: Json) -> None:
        self._whole = whole
        self._count = 0

    def merged(self, node: Any, trail: frozenset[str], depth: int) -> Any:
        """Return a subschema without `$ref` and `allOf`; `trail` are those that led to it."""
        if not isinstance(node, dict):
            return node
        self._count += 1
        if self._count > MOST or depth > DEEPEST:
            raise RefError(f"merged, it has more than {MOST:,} parts, or {DEEPEST} in one another")
        found = {key: self._value(key, value, trail, depth + 1) for key, value in node.items()
                 if key not in ("$ref", "allOf", *_DEFINITIONS)}  # fmt: skip
        for part in self._parts(node):
            ref = part.get("$ref") if part is node else None
            inner = trail
            if isinstance(ref, str):
                if ref in trail:
                    raise RefError(f"{ref[:200]} contains itself")
                inner = trail | {ref}
                part = self._followed(ref)
            _combine(found, self.merged(part, inner, depth + 1))
        return found

    def _parts(self, node: Json) -> list[Any]:
        """Return what is in the same place as a node; the node itself for its `$ref`."""
        listed = node.get("allOf")
        parts = (
            [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        )
        return [node, *parts] if isinstance(node.get("$ref"), str) else parts

    def _followed(self, ref: str) -> Any:
        try:
            return follow(self._whole, ref)
        except LookupError:
            raise RefError(f"the $ref {ref[:200]} points at nothing") from None

    def _value(self, key: str, value: Any, trail: frozenset[str], depth: int) -> Any:
        if key in _MAPS and isinstance(value, dict):
            return {name: self.merged(each, trail, depth) for name, each in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self.merged(each, trail, depth) for each in value]
        return self.merged(value, trail, depth) if key in _NESTED else value


def _combine(found: Json, more: Any) -> None:
    """Add to a merged subschema what another one says; what `found` says itself stays."""
    if not isinstance(more, dict):
        return
    for key, value in more.items():
        if key in _OF_A_DOCUMENT:
            continue
        here = found.get(key)
        if key not in found:
            found[key] = value
        elif key == "properties" and isinstance(here, dict) and isinstance(value, dict):
            members = dict(here)
            for name, each in value.items():
                if isinstance(members.get(name), dict):
                    members[name] = dict(members[name])
                    _combine(members[name], each)
                else:
                    members.setdefault(name, each)
            found[key] = members
        elif key == "required" and isinstance(here, list) and isinstance(value, list):
            found[key] = [*here, *(name for name in value if name not in here)]


def without_texts(document: Any, *, names: bool = False) -> Any:
    """Return a document without titles and descriptions; `names`: its keys are field names."""
    if isinstance(document, list):
        return [without_texts(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        key: without_texts(value, names=not names and key in (*_MAPS, *_DEFINITIONS))
        for key, value in document.items()
        if names or key not in _TEXTS
    }


def flat(document: Json) -> Json:
    """Return a full form whose `properties` are its leaves, by their paths with slashes."""
    leaves: Json = {}
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        path, node = stack.pop()
        members = node.get("properties") if isinstance(node, dict) else None
        if isinstance(members, dict) and members:
            inner = [(f"{path}/{name}".lstrip("/"), each) for name, each in members.items()]
            stack += reversed(inner)
        elif path:
            leaves[path] = node
    return document | {"properties": leaves}


def sample(node: Any) -> Any:
    """Return a value that a subschema of a full form describes."""
    if not isinstance(node, dict):
        return None
    for key in ("const", "default"):
        if key in node:
            return node[key]
    for key in ("enum", "examples"):
        if isinstance(node.get(key), list) and node[key]:
            return node[key][0]
    if isinstance(node.get("properties"), dict):
        return {name: sample(each) for name, each in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        return {"key": sample(node["additionalProperties"])}
    if isinstance(node.get("items"), dict):
        return [sample(node["items"])]
    kind = node.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    if kind in ("integer", "number") and "minimum" in node:
        return max(node["minimum"], _SAMPLES[kind])
    return _SAMPLES.get(str(kind), _FORMATS.get(str(node.get("format")), "text"))
