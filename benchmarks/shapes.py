"""The shapes of events, with their mapping sets and schemas. Pure data.

`small`, `wide` and `typed` are shapes of the sandbox. `properties-N` has the ten properties of the
tutorial and generated ones, N in all. Types are XDM's: string, long, number, boolean, date,
date-time, array.
"""

import copy
import json
import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from types import MappingProxyType
from typing import Any

from benchmarks.process import ROOT

Columns = dict[str, str]  # name of a property -> type

TUTORIAL: Columns = {
    "time": "long",
    "distinct_id": "string",
    "$insert_id": "string",
    "$import": "boolean",
    "$mp_api_endpoint": "string",
    "$mp_api_timestamp_ms": "long",
    "item_id": "string",
    "item_name": "string",
    "item_price": "string",
    "mp_processing_time_ms": "long",
}
KINDS = ("string", "string", "long", "boolean")  # of generated properties, repeated
JSON_TYPES = {
    "string": {"type": "string"},
    "long": {"type": "integer", "meta:xdmType": "long"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date", "meta:xdmType": "date"},
    "date-time": {"type": "string", "format": "date-time", "meta:xdmType": "date-time"},
    "array": {"type": "array", "items": {"type": "string"}},
}


def invented(shape: str) -> Columns:
    """Return the properties that `properties-N` adds to the tutorial's; other shapes add none."""
    found = re.fullmatch(r"properties-(\d+)", shape)
    more = int(found[1]) - len(TUTORIAL) if found else 0
    return {f"extra_{index:03}": KINDS[index % len(KINDS)] for index in range(more)}


def mapped(shape: str) -> Columns:
    """Return the properties that become columns: the tutorial's, or all of `typed`."""
    if shape != "typed":
        return TUTORIAL
    from engine.sandbox.event_shapes import TYPED

    return TUTORIAL | TYPED


def names(shape: str) -> list[str]:
    """Return all properties of the events of one of the sandbox's shapes."""
    from engine.sandbox import Spec, day_lines

    blocks = day_lines(Spec(shape=shape, events_per_day=500), date(2024, 1, 1))
    lines = b"".join(blocks).splitlines()
    return sorted(set[str]().union(*(json.loads(line)["properties"] for line in lines)))


@cache
def _shipped(kind: str) -> Any:
    return json.loads((ROOT / kind / "mixpanel-events.json").read_text("utf-8"))


EXPRESSIONS = {  # two templates of a text column each
    "label": 'concat(data.item_name, " (", data.item_id, ")")',
    "kind": 'iif(data.item_price == "free", "free", "paid")',
}


def documents(
    more: Columns, expressions: Mapping[str, str] = MappingProxyType({})
) -> tuple[Any, Any]:
    """Return the shipped mapping set and schema with a rule and a field for each of `more`.

    Each of `expressions` gets a rule, and a field of type string.
    """
    mapping, schema = (copy.deepcopy(_shipped(kind)) for kind in ("mappings", "schemas"))
    mapping["mappings"] += [
        {"sourceType": "ATTRIBUTE", "source": f"data.{name}", "destination": f"_extconndev.{name}"}
        for name in more
    ]
    mapping["mappings"] += [
        {"sourceType": "EXPRESSION", "source": source, "destination": f"_extconndev.{name}"}
        for name, source in expressions.items()
    ]
    schema["properties"]["_extconndev"]["properties"] |= {
        name: JSON_TYPES[kind]
        for name, kind in (more | dict.fromkeys(expressions, "string")).items()
    }
    return mapping, schema
