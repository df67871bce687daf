"""A few exported events -> the tutorial's explore response. Pure."""

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

# What the tutorial's explore response prints as the bounds of every integer.
LONG = {"minimum": -9007199254740992, "maximum": 9007199254740991}


def response(records: list[Json]) -> Json:
    """`format`, the schema that fits all `records`, and the records themselves."""
    schema = infer(records) if records else {"type": "object", "properties": {}}
    return {"format": "hierarchical", "schema": schema, "data": records}


def infer(values: Iterable[Any]) -> Json:
    """The JSON Schema, in the tutorial's few words, of everything in `values`.

    Nulls tell nothing. A property with values of several types becomes a string, the one type
    that each of them can be cast to.
    """
    known = [value for value in values if value is not None]
    kinds = {_kind(value) for value in known}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) != 1:
        return {"type": "string"}
    kind = kinds.pop()
    if kind == "object":
        names = dict.fromkeys(name for value in known for name in value)
        return {
            "type": "object",
            "properties": {
                name: infer(value[name] for value in known if name in value) for name in names
            },
        }
    if kind == "array":
        return {"type": "array", "items": infer(item for value in known for item in value)}
    return {"type": kind, **(LONG if kind == "integer" else {})}


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case dict():
            return "object"
        case list():
            return "array"
    return "string"
