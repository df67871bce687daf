"""Says of one row which values could not be cast, and where they came from. Pure.

It is called for rows that are rejected, and looks at them once more: a failed cast leaves a null,
of which a schema can only tell that something required is missing.
"""

import json
from collections.abc import Iterator
from typing import Any

from engine.mapping.evaluate import MappingSet, decoded
from engine.mapping.expression.frame import Failed
from engine.mapping.mapping_set import Rule, Step
from engine.model.batch import Batch
from engine.transform.columns import BITS, CASTS, FAILED
from engine.transform.schema import Field, Schema

LONGEST = 40  # characters of a value that a message shows
Place = tuple[str | int, ...]


class Uncast:
    """What the casts of a flow refused, row by row."""

    def __init__(self, schema: Schema, mapping: MappingSet) -> None:
        self._schema = schema
        self._mapping = mapping

    def __call__(self, batch: Batch, row: int) -> dict[Place, str]:
        """A sentence for each place of the row where a value could not be cast."""
        found: dict[Place, str] = {}
        for column, root in enumerate(self._mapping.destinations):
            field = self._schema.find(root)
            assert field
            for place, read, kind, value in _refused(field, batch.columns[column][row], root, root):
                source = self._source(column, read, batch.lines[row])
                is_failed = isinstance(value, Failed)
                why = value.reason if is_failed else f"{_shown(value)} is no {_named(kind, value)}"
                found[place] = f"{why} (from {source})"
        return found

    def _source(self, column: int, place: Place, line: bytes) -> str:
        """What the value at `place` was read from, in the words of a mapping."""
        rules = [rule for rule in self._mapping.groups[column] if _leads(rule, place)]
        rule = max(rules, key=lambda rule: len(rule.path))
        source = rule.source
        if source.expression:
            return f"the expression {_shown(source.expression.text)}"
        if not source.names:
            return "event" if source.is_event else "the mapping set"
        name = source.name_in(decoded(line)["properties"]) or source.names[0]
        path: tuple[Step, ...] = ("properties", name, *source.inner, *place[len(rule.path) :])
        steps = (f".{s}" if isinstance(s, str) else "[*]" if s is None else f"[{s}]" for s in path)
        return _printable("".join(steps)[1:])


def _refused(
    field: Field, value: Any, place: Place, read: Place
) -> Iterator[tuple[Place, Place, Field, Any]]:
    """The values inside `value` that `columns.cast` takes for failed: where each was to be, and is.

    In a row the elements of a list are counted without those that are null.
    """
    if value is None:
        return
    if field.type == "object" and isinstance(value, dict):
        for child in field.fields:
            yield from _refused(
                child, value.get(child.name), (*place, child.name), (*read, child.name)
            )
    elif field.type == "map" and isinstance(value, dict):
        assert field.items
        for name, inner in value.items():
            yield from _refused(field.items, inner, (*place, name), (*read, name))
    elif field.type == "array" and isinstance(value, list):
        assert field.items
        at = 0
        for number, inner in enumerate(value):
            refused = list(_refused(field.items, inner, (*place, at), (*read, number)))
            yield from refused
            at += inner is not None and not any(to == (*place, at) for to, *_ in refused)
    elif field.type not in CASTS or CASTS[field.type](value) is FAILED:
        yield place, read, field, value


def _leads(rule: Rule, place: Place) -> bool:
    """Whether the rule writes `place`, or what that is in."""
    return all(
        step == at or (step is None and isinstance(at, int))
        for step, at in zip(rule.path, place, strict=False)
    ) and len(rule.path) <= len(place)


def _named(field: Field, value: Any) -> str:
    """What a value should have been."""
    if field.type in BITS and type(value) is int:  # it is one, and too large
        return f"integer of {BITS[field.type]} bits"
    names = {"string": "text", "array": "list"} | dict.fromkeys(BITS, "integer")
    return names.get(field.type, field.type)


def _shown(value: Any) -> str:
    """A value for a message, cut to size."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        cut = value[:LONGEST] + ("…" if len(value) > LONGEST else "")
        return json.dumps(cut, ensure_ascii=not cut.isprintable())
    return _printable(json.dumps(value))


def _printable(text: str) -> str:
    cut = text[:LONGEST] + ("…" if len(text) > LONGEST else "")
    return cut if cut.isprintable() else json.dumps(cut)
