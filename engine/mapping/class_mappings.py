"""The mappings that the program adds to a set: they fill what a standard class requires. Pure."""

from typing import Any

from engine.transform.schema import Schema
from engine.transform.schema_class import class_members

FILLED = {
    "_id": "coalesce(data.insert_id, uuid())",
    "timestamp": "data.time * 1000",  # Mixpanel sends seconds; a date-time takes milliseconds
}
"""The expression for each member of an ExperienceEvent that every row must have."""


def with_class_members(document: Any, schema: Schema) -> Any:
    """Return a mapping set with FILLED for what its schema's class requires and it does not map.

    A document that is no mapping set is returned as it is.
    """
    entries = document.get("mappings") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return document
    required = class_members(schema).required
    wanted = [name for name in FILLED if name in required]
    if not wanted:
        return document
    mapped = {_first_name(entry) for entry in entries if isinstance(entry, dict)}
    added = [
        {"sourceType": "EXPRESSION", "source": FILLED[name], "destination": name}
        for name in wanted
        if name not in mapped
    ]
    return document | {"mappings": [*entries, *added]} if entries else document


def _first_name(entry: dict[str, Any]) -> str:
    """Return the name of the field at the top that a mapping writes to."""
    text = str(entry.get("destination") or entry.get("destinationXdmPath") or "")
    return text.removeprefix("${").removesuffix("}").partition(".")[0].partition("[")[0]
