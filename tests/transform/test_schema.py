"""Schemas: how a JSON Schema is parsed, and which are refused."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from engine.errors import InputError
from engine.transform.schema import Field, Schema, follow

Json = dict[str, Any]
SHIPPED = Path(__file__).parents[2] / "schemas" / "mixpanel-events.json"
LONG_BOUNDS = (-9007199254740992, 9007199254740991)


def one(node: Any, **root: Any) -> Json:
    """A schema whose only field `a` is described by `node`."""
    return {"type": "object", "properties": {"a": node}, **root}


def test_the_shipped_schema_has_the_fields_of_the_tutorial() -> None:
    """The shipped schema is one struct of eleven fields, in their order and types."""
    schema = Schema.parse("mixpanel-events", json.loads(SHIPPED.read_bytes()))
    (tenant,) = schema.root.fields
    assert tenant.name == "_extconndev"
    assert [(field.name, field.type) for field in tenant.fields] == [
        ("distinct_id", "string"),
        ("event_name", "string"),
        ("import", "boolean"),
        ("insert_id", "string"),
        ("item_id", "string"),
        ("item_name", "string"),
        ("item_price", "string"),
        ("mp_api_endpoint", "string"),
        ("mp_api_timestamp_ms", "long"),
        ("mp_processing_time_ms", "long"),
        ("time", "long"),
    ]
    inner = schema.document["properties"]["_extconndev"]
    assert schema.document["required"] == ["_extconndev"]
    assert inner["required"] == ["event_name", "time"]
    for node in inner["properties"].values():
        bounds = (node.get("minimum"), node.get("maximum"))
        assert bounds == (LONG_BOUNDS if node["type"] == "integer" else (None, None))


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"type": "string"}, "string"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "format": "date-time"}, "date-time"),
        ({"type": "string", "format": "email"}, "string"),
        ({"type": "number"}, "number"),
        ({"meta:xdmType": "double"}, "number"),
        ({"type": "integer"}, "long"),
        ({"type": "integer", "minimum": 0, "maximum": 9}, "long"),
        ({"type": "integer", "minimum": -2147483648, "maximum": 2147483647}, "int"),
        ({"type": "integer", "minimum": -2147483648, "maximum": 2147483648}, "int"),
        ({"type": "integer", "minimum": -32768, "maximum": 32768}, "short"),
        ({"type": "integer", "minimum": -128, "maximum": 127}, "byte"),
        ({"type": "integer", "minimum": -128, "maximum": 127, "meta:xdmType": "long"}, "long"),
        ({"type": "integer", "meta:xdmType": "short"}, "short"),
        ({"type": "number", "meta:xdmType": "int"}, "int"),
        ({"type": "string", "meta:xdmType": "date-time"}, "date-time"),
        ({"type": "string", "format": "date", "meta:xdmType": "string"}, "string"),
        ({"type": "boolean"}, "boolean"),
        ({"type": ["string", "null"]}, "string"),
        ({"type": ["null", "integer"]}, "long"),
        ({"type": ["boolean"]}, "boolean"),
        ({"type": "array", "items": {"type": "string"}}, "array"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "map"),
        ({"type": "object", "properties": {"b": {"type": "string"}}}, "object"),
        ({"properties": {"b": {"type": "string"}}}, "object"),
        ({"allOf": [{"type": "string"}, {"format": "date"}, True]}, "date"),
    ],
)
def test_a_type_is_read_from_xdm_or_else_from_json_schema(node: Json, kind: str) -> None:
    """`meta:xdmType` is the type; without it `type`, `format` and bounds are."""
    field = Schema.parse("test", one(node)).find(("a",))
    assert field is not None
    assert field.type == kind


def test_arrays_maps_and_objects_nest() -> None:
    """The elements of arrays, maps and objects are typed, too."""
    person = {"type": "object", "properties": {"name": {"type": "string"}}}
    document = one({"type": "object", "additionalProperties": {"type": "array", "items": person}})
    item = Field("items", "object", (Field("name", "string"),))
    expected = Field("a", "map", items=Field("items", "array", items=item))
    assert Schema.parse("test", document).root.fields == (expected,)


def test_references_and_all_of_are_merged() -> None:
    """A field group is written as definitions that an `allOf` brings together."""
    document = {
        "type": "object",
        "allOf": [{"$ref": "#/definitions/x~1y%20z"}, {"properties": {"b": {"$ref": "#/$defs/b"}}}],
        "definitions": {"x/y z": {"properties": {"a": {"type": "string"}, "b": {"title": "B"}}}},
        "$defs": {"b": {"type": "boolean"}},
    }
    assert Schema.parse("test", document).root.fields == (
        Field("a", "string"),
        Field("b", "boolean"),
    )


def test_find_walks_objects() -> None:
    """A path of object members leads to its field, any other path to None."""
    schema = Schema.parse("test", one({"properties": {"b": {"type": "string"}}}))
    assert schema.find(("a", "b")) == Field("b", "string")
    assert schema.find(()) is schema.root
    assert schema.find(("a", "c")) is None
    assert schema.find(("a", "b", "c")) is None
    assert schema.find(("x", "b")) is None


@pytest.mark.parametrize(
    ("document", "at", "text"),
    [
        ([], "", "is not a JSON object"),
        ({"type": "string"}, "#", "a record is an object"),
        ({"type": "object"}, "#", "without properties"),
        (one({}), "#/properties/a", "has no type"),
        (one(True), "#/properties/a", "has no type"),
        (one({"enum": ["x"]}), "#/properties/a", "has no type"),
        (one({"type": "strnig"}), "#/properties/a", "unknown type 'strnig'"),
        (one({"type": "long"}), "#/properties/a", "unknown type 'long'"),
        (one({"meta:xdmType": "text"}), "#/properties/a", "unknown meta:xdmType 'text'"),
        (one({"type": "null"}), "#/properties/a/type", "one type and 'null'"),
        (one({"type": ["string", "integer"]}), "#/properties/a/type", "one type and 'null'"),
        (one({"type": []}), "#/properties/a/type", "one type and 'null'"),
        (one({"type": {}}), "#/properties/a", "unknown type"),
        (one({"type": "string", "meta:xdmType": "long"}), "#/properties/a", "is not"),
        (one({"type": "integer", "meta:xdmType": "number"}), "#/properties/a", "is not"),
        (
            one({"allOf": [{"type": "string"}, {"type": "integer"}]}),
            "#/properties/a",
            "integer and as string",
        ),
        (one({"type": "array"}), "#/properties/a", "without 'items'"),
        (one({"type": "array", "items": True}), "#/properties/a", "without 'items'"),
        (one({"type": "array", "items": {}}), "#/properties/a/items", "has no type"),
        (one({"meta:xdmType": "map"}), "#/properties/a", "without 'additionalProperties'"),
        (one({"type": "object"}), "#/properties/a", "without properties"),
        (one({"$ref": "https://ns.adobe.com/x"}), "#/properties/a/$ref", "is not local"),
        (one({"$ref": "#/$defs/x"}), "#/properties/a/$ref", "points at nothing"),
        (one({"$ref": "#x"}), "#/properties/a/$ref", "is not local"),
        (one({"$ref": "#"}), "#/properties/a", "cannot be recursive"),
        (one({"type": "string", "$id": "x"}), "#/properties/a/$id", "cannot be followed"),
        (
            one({"type": "string"}, **{"not": {"$ref": "https://x"}}),
            "#/not/$ref",
            "is not local",
        ),
        (one({"type": "string", "format": "uri"}), "#/properties/a/format", "pip install"),
        (
            one({"type": "string", "anyOf": [{"format": "date-time"}]}),
            "#/properties/a/anyOf/0/format",
            "cannot be checked",
        ),
        (one({"type": "string", "minLength": "3"}), "#/properties/a/minLength", "integer"),
        (one({"type": "string", "pattern": "("}), "#/properties/a/pattern", "regex"),
        (one({"type": "string"}, required=3), "#/required", "array"),
        (one({"type": "string"}, anyOf=[{"type": 5}]), "#/anyOf/0/type", "5"),
        (one({"type": "string"}, allOf=5), "#/allOf", "array"),
        ({"type": "object", "properties": []}, "#/properties", "object"),
        (
            {"properties": {"Unmapped": {"type": "string"}}},
            "#/properties/Unmapped",
            "column of every table",
        ),
        (
            {"properties": {"a b": {"type": "string"}}},
            "#/properties/a b",
            "table readers refuse",
        ),
        ({"properties": {"": {"type": "string"}}}, "#/properties/", "table readers refuse"),
        (
            {"properties": {"a": {"type": "string"}, "A": {"type": "string"}}},
            "#/properties/A",
            "differs from 'a' only by case",
        ),
    ],
)
def test_what_cannot_be_a_column_is_refused_by_its_pointer(
    document: Any, at: str, text: str
) -> None:
    """A schema that cannot be typed or checked is an InputError with place and reason."""
    with pytest.raises(InputError) as error:
        Schema.parse("test", document)
    lines = str(error.value).splitlines()
    assert any(line.strip().startswith(f"{at}:" if at else "") and text in line for line in lines)


def test_the_names_of_the_tables_own_columns_are_free_further_down() -> None:
    """Only a top-level field can collide with `unmapped` and `event_date`."""
    document = one({"properties": {"unmapped": {"type": "string"}}})
    assert Schema.parse("test", document).find(("a", "unmapped")) == Field("unmapped", "string")


def test_every_problem_is_listed_at_once() -> None:
    """The error for a schema lists all of its problems."""
    properties = {"a": {}, "b": {"type": "string", "format": "uri"}, "c": {"$ref": "#/x"}}
    with pytest.raises(InputError) as error:
        Schema.parse("test", {"type": "object", "properties": properties, "required": 3})
    message = str(error.value)
    for at in ("#/properties/a:", "#/properties/b/format:", "#/properties/c/$ref:", "#/required:"):
        assert at in message


def test_the_same_part_may_be_used_in_two_places() -> None:
    """Only a part that contains itself is recursive."""
    part = {"type": "object", "properties": {"x": {"type": "string"}}}
    document = {
        "$ref": "#/$defs/part",
        "properties": {"a": {"$ref": "#/$defs/part"}, "b": {"$ref": "#/$defs/part"}, "c": part},
        "$defs": {"part": part},
    }
    names = [field.name for field in Schema.parse("test", document).root.fields]
    assert names == ["a", "b", "c", "x"]


def doubling(levels: int, key: str) -> Json:
    """A small schema in which each part refers to the next one twice, under `key`."""
    parts_of = {}
    for level in range(levels):
        both = [{"$ref": f"#/$defs/p{level + 1}"}] * 2
        parts_of[f"p{level}"] = (
            {"type": "object", "properties": dict(zip("lr", both, strict=True))}
            if key == "properties"
            else {"type": "string", key: both}
        )
    return one(
        {"$ref": "#/$defs/p0"},
        **{"$defs": parts_of | {f"p{levels}": {"type": "string"}}},
    )


@pytest.mark.parametrize(
    "document",
    [
        doubling(13, "properties"),
        doubling(13, "allOf"),
        doubling(13, "anyOf"),  # of which no column is made, and every record is held against it
        one({"$ref": "#/$defs/p0"}, **{"$defs": {f"p{n}": {"$ref": f"#/$defs/p{n + 1}"}
            for n in range(1000)}}),
        one({"$ref": "#/$defs/p0"}, **{"$defs": {
            f"p{n}": {"type": "object",
                      "properties": {m: {"$ref": f"#/$defs/p{m}"} for m in "0123456"}}
            for n in range(7)}}),
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(10_000)}},
    ],
    ids=["properties", "allOf", "anyOf", "deep", "in themselves", "wide"],
)  # fmt: skip
def test_a_schema_with_too_many_references_is_refused(document: Json) -> None:
    """A small schema that expands to very many subschemas is refused."""
    started = perf_counter()
    with pytest.raises(InputError, match="more than 10,000 subschemas, or more than 100 in one"):
        Schema.parse("test", document)
    assert perf_counter() - started < 1


def test_a_large_schema() -> None:
    """A subschema counts once per reference, and may have thousands of them."""
    assert len(Schema.parse("test", doubling(10, "properties")).root.fields) == 1


@pytest.mark.parametrize("ref", ["#/a/2", "#/a/x", "#/b", "#/c/d"])
def test_follow_raises_where_there_is_nothing(ref: str) -> None:
    """A reference without a target is a LookupError, whatever its path contains."""
    with pytest.raises(LookupError):
        follow({"a": [1, 2], "c": 3}, ref)
