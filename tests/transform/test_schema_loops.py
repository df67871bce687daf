"""Schemas that apply to one value endlessly are refused; others take bounded time and memory."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.errors import InputError
from engine.transform import jsonschema_validator
from engine.transform.schema import Schema
from engine.transform.validate import Checker
from tests.transform.test_validate import built, checked

Json = dict[str, Any]
STRING = {"type": "string"}


def one(column: Json | None = None, **keywords: Any) -> Json:
    """A schema with one column; `keywords` go to its root."""
    return {"type": "object", "properties": {"a": {**STRING, **(column or {})}}, **keywords}


def nested(levels: int, key: str) -> Any:
    """As many subschemas, each in the one before."""
    node: Any = {}
    for _ in range(levels):
        node = {key: [node] if key.endswith("Of") else node}
    return node


def doubled(levels: int) -> Json:
    """As many nested `unevaluatedProperties`, all for the same value."""
    node: Json = {}
    for _ in range(levels):
        node = {"unevaluatedProperties": STRING, "anyOf": [node]}
    return node


X = {"$ref": "#/$defs/x"}
TWO_WAYS = {"type": "object", "properties": {"a": {"anyOf": [X, X]}}}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (one(anyOf=[X], **{"$defs": {"x": {"anyOf": [X]}}}), "through '#/$defs/x'"),
        (one(**{"not": {"$ref": "#"}}), "in the same place, through '#'"),
        (one({"oneOf": [{"$ref": "#/properties/a"}]}), "through '#/properties/a'"),
        (one({"if": X}, **{"$defs": {"x": {"then": {"not": X}}}}), "in the same place"),
        (one(dependentSchemas={"a": {"$ref": "#"}}), "in the same place"),
        (
            one(anyOf=[X], **{"$defs": {"x": {"items": X, "not": {"not": X}}}}),
            "in the same place",
        ),
        (one(anyOf=[X], **{"$defs": {"x": TWO_WAYS}}), "more than one way"),
        (one(**doubled(9)), "lie in one another"),
        (one(**{"$defs": {"x": nested(400, "not")}}), "in one another"),
        (one(**nested(97, "allOf")), "in one another"),
        (one(default=nested(2000, "not")), "in one another"),
    ],
)
def test_a_schema_without_end_is_refused(document: Json, why: str) -> None:
    """A schema that applies to one value endlessly is refused before the first record."""
    with pytest.raises(InputError) as error:
        Schema.parse("test", document)
    assert why in str(error.value)


def test_a_schema_that_recurs_into_parts_of_a_value_is_accepted() -> None:
    """A schema that recurs into smaller parts of a value is accepted."""
    tree = {"properties": {"a": {"anyOf": [X, {"maxLength": 2}]}}}
    document = one(anyOf=[X], **{"$defs": {"x": tree}})
    assert not checked(document, {"a": "long"}).rejects
    assert not checked(one(**doubled(8)), {"a": "long"}).rejects


def rejected(column: Json, value: Any) -> bool:
    """Return whether a row with this one value is rejected."""
    schema = Schema.parse("test", {"type": "object", "properties": {"l": column}})
    batch = built(schema, [{("l",): value}])
    Checker(schema).check(batch)
    return bool(batch.rejects)


MANY = 300_000
OBJECT = {"type": "object", "properties": {"k": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("keywords", "values", "wrong"),
    [
        ({"uniqueItems": True, "items": OBJECT}, [{"k": n} for n in range(20_000)], False),
        ({"uniqueItems": True, "items": OBJECT}, [{"k": n % 9999} for n in range(20_000)], True),
        ({"unevaluatedItems": False, "contains": STRING, "items": STRING}, ["x"] * 20_000, False),
        ({"items": {**STRING, "pattern": "y"}}, ["x"] * MANY, True),
        ({"items": STRING, "anyOf": [{"items": {"pattern": "y"}}]}, ["x"] * 20_000, True),
    ],
)
def test_no_array_takes_more_than_linear_time(keywords: Json, values: Any, wrong: bool) -> None:
    """An array of many elements is checked in linear time."""
    assert rejected({"type": "array", **keywords}, values) is wrong


def test_no_map_takes_more_than_linear_time() -> None:
    """So is a map of many keys, each of which is evaluated by another keyword."""
    column = {"type": "object", "additionalProperties": STRING, "patternProperties": {"^k": True}}
    values = {f"k{n}": "v" for n in range(20_000)}
    assert not rejected({**column, "unevaluatedProperties": False}, values)


def test_what_a_schema_itself_lists_is_judged_in_linear_time() -> None:
    """The meta-schema wants the elements of some arrays unique: also of an array of nonsense."""
    required = [{}, *range(100_000)]
    with pytest.raises(InputError, match=r"#/required/0: \{\} is not of type"):
        Schema.parse("test", one(required=required))


def test_a_record_has_a_bounded_number_of_violations() -> None:
    """The violations of one record are bounded, also if each element is invalid."""
    column = {"type": "array", "items": {**STRING, "pattern": "y"}}
    batch = checked({"type": "object", "properties": {"l": column}}, {"l": ["x"] * 1000})
    assert len(batch.rejects[0].violations) == jsonschema_validator.MOST_ERRORS


def test_a_number_that_no_double_holds_is_a_divisor_like_any_other() -> None:
    """No limit of a schema makes the check fail instead of the record."""
    assert rejected({"type": "number", "multipleOf": 10**400}, 0.5)
    assert not rejected({"type": "number", "multipleOf": 10**400}, 0.0)


def test_an_enum_of_many_values_is_not_shown_whole() -> None:
    """The message of each wrong value is short, however many would be right."""
    limits = {"enum": [f"e{n}" for n in range(50_000)]}
    batch = checked(one(limits), {"a": "e49999"}, *({"a": f"x{n}"} for n in range(200)))
    assert len(batch.rejects) == 200
    assert "'x0' is not one of ['e0', 'e1'" in batch.rejects[0].message


INSTANCES: list[Any] = [
    *(
        {},
        {"a": 1},
        {"a": "x", "b": 1},
        {"b": "x", "k1": 2},
        {"k1": "x", "c": [1]},
        {"a": {"b": 1}},
    ),
    *([], [1], [1, "x"], [1, True, 1.0], [{"a": 1}, {"a": True}], [{"a": 1}, {"a": 1.0}], [[], []]),
    *("x", 1, 1.0, True, None, 0.5, [None, None], [0, False], ["x", "x"], [[1], [True]]),
]
KEYWORDS: list[Json] = [
    {"unevaluatedProperties": False, "properties": {"a": True}},
    {"unevaluatedProperties": STRING, "patternProperties": {"^k": {"type": "integer"}}},
    {"unevaluatedProperties": False, "anyOf": [{"properties": {"b": STRING}}, {"required": ["a"]}]},
    {"unevaluatedProperties": False, "additionalProperties": STRING},
    {"unevaluatedProperties": False, "if": {"required": ["a"]}, "then": {"properties": {"a": {}}}},
    {"unevaluatedProperties": False, "if": {"required": ["a"]}, "else": {"properties": {"b": {}}}},
    {"unevaluatedProperties": False, "dependentSchemas": {"b": {"properties": {"b": {}}}}},
    {"unevaluatedProperties": False, "allOf": [{"unevaluatedProperties": STRING}]},
    {"unevaluatedProperties": False, "$ref": "#/$defs/p"},
    {"unevaluatedItems": False, "prefixItems": [{"type": "integer"}]},
    {"unevaluatedItems": False, "contains": {"type": "integer"}},
    {"unevaluatedItems": STRING, "oneOf": [{"prefixItems": [True]}, {"contains": {"const": 2}}]},
    {"unevaluatedItems": False, "allOf": [{"unevaluatedItems": {"type": "integer"}}]},
    {"unevaluatedItems": False, "if": {"contains": {"const": 1}}, "then": {"items": True}},
    {"additionalProperties": False, "patternProperties": {"^k": True}, "properties": {"a": {}}},
    {"additionalProperties": False, "properties": {"a": {}}},
    {"additionalProperties": STRING, "patternProperties": {"^k": {"type": "integer"}}},
    {"uniqueItems": True},
    {"uniqueItems": False},
    {"enum": [1, "x", [1], {"a": 1}, None]},
    {"enum": [True, 0, [True]]},
    {"oneOf": [{"type": "integer"}, {"minimum": 1}, {"const": True}, {"type": "object"}]},
    {"anyOf": [{"type": "integer"}, {"required": ["a"]}, False]},
    {"multipleOf": 0.5},
    {"not": {"pattern": "^x"}},
]


@pytest.mark.parametrize("keywords", KEYWORDS)
def test_each_keyword_says_what_jsonschema_says(keywords: Json) -> None:
    """Replaced keywords give jsonschema's verdicts, messages and places."""
    document = {"$schema": Draft202012Validator.META_SCHEMA["$id"], **keywords}
    document["$defs"] = {"p": {"properties": {"a": True}, "patternProperties": {"^k": True}}}
    original, own = Draft202012Validator(document), jsonschema_validator.validator(document)
    for value in INSTANCES:
        results = [
            [(e.validator, e.message, list(e.path), list(e.schema_path)) for e in judge]
            for judge in (own.iter_errors(value), original.iter_errors(value))
        ]
        assert results[0] == results[1], value
