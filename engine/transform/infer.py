"""Infer a JSON Schema of a few exported events, for the tutorial's explore response. Pure."""

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

_KINDS = {bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}

# The bounds of every integer in the tutorial's explore response.
LONG = {"minimum": -9007199254740992, "maximum": 9007199254740991}


def response(records: list[Json]) -> Json:
    """Return the explore response: `format`, the schema of all `records`, and the records."""
    schema = infer(records) if records else {"type": "object", "properties": {}}
    return {"format": "hierarchical", "schema": schema, "data": records}


def infer(values: Iterable[Any]) -> Json:
    """Return the JSON Schema of all `values`, with the keywords that the tutorial's example has.

    Nulls do not count. Values of several types become a string, to which each type can be cast.
    """
    known = [value for value in values if value is not None]
    kinds = {_KINDS.get(type(value), "string") for value in known}
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
