"""Schemas that name others: what they mean is what they would mean written out."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.transform import schema_refs
from engine.transform.schema import Schema
from engine.transform.schema_refs import RefError, bundled, references

XDM = {
    document["$id"]: document
    for path in sorted((Path(__file__).parents[2] / "schemas/xdm").glob("*.json"))
    for document in [json.loads(path.read_text(encoding="utf-8"))]
}
EVENT = "https://ns.adobe.com/xdm/context/experienceevent"
OWN: dict[str, Any] = {
    "type": "object",
    "title": "Own events",
    "allOf": [{"$ref": EVENT}, {"$ref": "#/definitions/own"}],
    "definitions": {
        "own": {
            "properties": {
                "_extconndev": {"type": "object", "properties": {"city": {"type": "string"}}}
            }
        }
    },
}


def leaves(document: dict[str, Any]) -> dict[str, str]:
    """The type of each field at the top."""
    schema = Schema.parse("s", bundled(document, XDM.get))
    return {field.name: field.type for field in schema.root.fields}


def test_a_class_brings_its_fields() -> None:
    """Those of its behavior and of what it refers to as well, with what they require."""
    found = bundled(OWN, XDM.get)
    assert leaves(OWN) == {
        "_id": "string",
        "timestamp": "date-time",
        "eventType": "string",
        "identityMap": "map",
        "eventMergeId": "string",
        "producedBy": "string",
        "_extconndev": "object",
    }
    assert set(OWN["definitions"]) == {"own"}  # what was given is not changed
    assert "own" in found["definitions"]


def test_a_document_that_stands_alone_stays_as_it_is() -> None:
    """Without a `$ref` to another one there is nothing to do."""
    alone = {"type": "object", "properties": {"a": {"$ref": "#/definitions/a"}},
             "definitions": {"a": {"type": "string"}}}  # fmt: skip
    assert bundled(alone, XDM.get) == alone


def test_a_reference_into_another_document() -> None:
    """By a fragment, and from there to a place in that document."""
    other = {"definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"type": "integer"}}}
    document = {"type": "object", "properties": {"n": {"$ref": "urn:other#/definitions/a"}}}
    schema = Schema.parse("s", bundled(document, {"urn:other": other}.get))
    assert schema.root.fields[0].type == "long"


def test_documents_that_name_each_other_are_taken_once() -> None:
    """So a circle ends."""
    known = {"urn:a": {"allOf": [{"$ref": "urn:b"}]}, "urn:b": {"allOf": [{"$ref": "urn:a"}]}}
    assert len(bundled({"$ref": "urn:a"}, known.get)["definitions"]) == 2


def test_what_is_not_there_is_named() -> None:
    """A sentence's end, with the id."""
    with pytest.raises(RefError, match="there is no class, field group, data type or schema urn:x"):
        bundled({"$ref": "urn:x"}, XDM.get)


def test_too_many_and_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of documents, and large ones, are bounded by count."""
    with pytest.raises(RefError, match="more than 200 others"):
        bundled({"$ref": "urn:1"}, lambda id_: {"$ref": f"urn:{int(id_[4:]) + 1}"})
    monkeypatch.setattr(schema_refs, "LARGEST", 10)
    with pytest.raises(RefError, match="more than 10 parts"):
        bundled({"allOf": [{} for _ in range(10)]}, XDM.get)


def test_a_chain_needs_no_deep_recursion() -> None:
    """Each document of two hundred names the next one, in an `allOf`."""

    def lookup(id_: str) -> dict[str, Any]:
        after = int(id_[4:]) + 1
        return {"allOf": [{"$ref": f"urn:{after}"}] if after < 200 else []}

    assert len(bundled({"$ref": "urn:1"}, lookup)["definitions"]) == 199
    deep: Any = {}
    for _ in range(400):
        deep = {"not": deep}
    with pytest.raises(RefError, match="more than 300 levels"):
        bundled(deep, XDM.get)


def test_definitions_that_have_a_name_already_stay() -> None:
    """A document that is taken in gets another one."""
    own = {"$ref": EVENT, "definitions": {"ref1": {"type": "string"}, "ref2": {}}}
    found = bundled(own, XDM.get)["definitions"]
    assert found["ref1"] == {"type": "string"}
    assert len(found) == 2 + len({"event", "series", "map", "item"})


def test_references_are_those_of_other_documents() -> None:
    """Each once, in their order, without a fragment."""
    document = {"allOf": [{"$ref": "urn:b#/x"}, {"$ref": "#/y"}], "not": [{"$ref": "urn:a"}] * 2}
    assert references(document) == ["urn:b", "urn:a"]
