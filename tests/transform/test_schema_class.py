"""What a schema has of its standard class: columns only where they are used."""

import json
from pathlib import Path
from typing import Any

from engine.transform.schema import Schema
from engine.transform.schema_class import class_members, without_unused
from engine.transform.schema_refs import bundled

XDM = {
    document["$id"]: document
    for path in sorted((Path(__file__).parents[2] / "schemas/xdm").glob("*.json"))
    for document in [json.loads(path.read_text(encoding="utf-8"))]
}
EVENT = "https://ns.adobe.com/xdm/context/experienceevent"
OWN = {"_shop": {"type": "object", "properties": {"price": {"type": "number"}}}}


def schema(*refs: str, **more: Any) -> Schema:
    parts = [{"$ref": ref} for ref in refs] or [{}]
    document = {"type": "object", "allOf": parts, "properties": OWN}
    return Schema.parse("s", bundled(document | more, XDM.get))


def test_members_of_an_experience_event() -> None:
    """All that the class brings, and what it requires; not the schema's own fields."""
    members = class_members(schema(EVENT))
    assert members.names == {
        "_id", "timestamp", "eventType", "identityMap", "eventMergeId", "producedBy",
    }  # fmt: skip
    assert members.required == {"_id", "timestamp"}


def test_a_schema_without_a_class_has_none() -> None:
    """It stays as it is."""
    plain = schema()
    assert not class_members(plain).names
    assert without_unused(plain, set()) is plain


def test_a_member_that_the_schema_describes_too_is_its_own() -> None:
    """It is a column whether or not a mapping names it."""
    own = schema(EVENT, properties=OWN | {"eventType": {"type": "string"}})
    assert "eventType" not in class_members(own).names


def test_only_used_members_are_columns() -> None:
    """The document, against which rows are checked, still requires what it requires."""
    whole = schema(EVENT)
    used = without_unused(whole, {"_id", "timestamp"})
    assert [field.name for field in used.root.fields] == ["_shop", "_id", "timestamp"]
    assert used.document is whole.document


def test_a_class_of_ones_own_keeps_its_fields() -> None:
    """Only what XDM itself describes is left out."""
    own = {
        "$id": "urn:class", "allOf": [{"$ref": "https://ns.adobe.com/xdm/data/time-series"}],
        "properties": {"kind": {"type": "string"}},
    }  # fmt: skip
    document = {"type": "object", "allOf": [{"$ref": "urn:class"}]}
    parsed = Schema.parse("s", bundled(document, (XDM | {"urn:class": own}).get))
    assert class_members(parsed).names == {"_id", "timestamp", "eventType"}
