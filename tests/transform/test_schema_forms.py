"""The forms in which the registry shows a schema."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.transform.schema_forms import flat, full, sample, without_texts
from engine.transform.schema_refs import RefError

XDM = {
    document["$id"]: document
    for path in sorted((Path(__file__).parents[2] / "schemas/xdm").glob("*.json"))
    for document in [json.loads(path.read_text(encoding="utf-8"))]
}
EVENT: dict[str, Any] = {
    "$id": "urn:own",
    "title": "Own",
    "type": "object",
    "allOf": [
        {"$ref": "https://ns.adobe.com/xdm/context/experienceevent", "properties": {}},
        {"$ref": "#/definitions/own"},
    ],
    "definitions": {
        "own": {
            "required": ["_shop"],
            "properties": {
                "_shop": {
                    "type": "object",
                    "properties": {
                        "title": {"type": "string", "title": "Title"},
                        "price": {"$ref": "#/definitions/price", "title": "Price"},
                    },
                }
            },
        },
        "price": {"type": "number", "minimum": 1, "title": "a price"},
    },
}


def test_the_full_form_holds_everything() -> None:
    """Fields of the class and of definitions are under `properties`, nothing is left to follow."""
    found = full(EVENT, XDM.get)
    assert not {"allOf", "definitions", "$ref"} & found.keys()
    assert found["required"] == ["_id", "timestamp", "_shop"]
    assert {"_id", "timestamp", "identityMap", "_shop"} <= found["properties"].keys()
    price = found["properties"]["_shop"]["properties"]["price"]
    assert price == {"type": "number", "minimum": 1, "title": "Price"}
    assert "$ref" not in json.dumps(found)
    assert (found["$id"], found["title"]) == ("urn:own", "Own")
    assert "meta:altId" not in found  # the class has one of its own


def test_a_document_without_references_is_its_own_full_form() -> None:
    """Other keywords, and values that look like keywords, stay."""
    plain = {
        "type": "object",
        "properties": {"a": {"type": "string", "enum": ["allOf"], "default": {"$ref": 1}}},
    }
    assert full(plain, XDM.get) == plain


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"properties": {"a": {"$ref": "#/definitions/none"}}}, "points at nothing"),
        ({"properties": {"a": {"$ref": "#"}}}, "contains itself"),
        ({"$ref": "urn:none"}, "no class, field group"),
    ],
)
def test_what_has_no_full_form(document: dict[str, Any], words: str) -> None:
    """The reason is a sentence's end."""
    with pytest.raises(RefError, match=words):
        full(document, XDM.get)


def test_a_form_is_bounded_by_count() -> None:
    """A small document may name itself without end in effect: twice two times two."""
    doubled = {
        f"d{n}": {"properties": {k: {"$ref": f"#/definitions/d{n + 1}"} for k in "ab"}}
        for n in range(40)
    }
    doubled["d40"] = {"type": "string"}  # type: ignore[dict-item]
    with pytest.raises(RefError, match="more than 20,000 parts"):
        full({"$ref": "#/definitions/d0", "definitions": doubled}, XDM.get)


def test_a_long_chain_of_documents_is_refused_by_its_depth() -> None:
    """It takes no deep recursion to follow one."""

    def lookup(id_: str) -> dict[str, Any]:
        return {
            "allOf": [{"$ref": f"urn:{min(int(id_[4:]) + 1, 190)}"}] if id_ != "urn:190" else []
        }

    with pytest.raises(RefError, match="100 in one another"):
        full({"$ref": "urn:1"}, lookup)


def test_other_forms() -> None:
    """Leaves by paths with slashes; no texts, but a field called title; a value that fits."""
    found = full(EVENT, XDM.get)
    leaves = flat(found)["properties"]
    assert leaves["_shop/price"]["type"] == "number"
    assert "_shop" not in leaves
    silent = without_texts(found)
    assert "title" not in silent
    assert silent["properties"]["_shop"]["properties"]["title"] == {"type": "string"}
    value = sample(found)
    assert Draft202012Validator(found).is_valid(value), value
    assert value["_shop"] == {"title": "text", "price": 1}
