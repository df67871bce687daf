"""The mapping stage: what its rules read, what they build, and that nothing is lost on the way."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.mapping import evaluate
from engine.mapping.mapping_set import Rule
from engine.mapping.mapping_set import parse as parse_rules
from engine.model.batch import KEYS, Batch
from engine.transform.columns import Columns
from engine.transform.schema import Schema

ROOT = Path(__file__).parents[2]
SHIPPED = json.loads((ROOT / "mappings/mixpanel-events.json").read_text())
SHIPPED_CASES = json.loads((ROOT / "mappings/mixpanel-events.cases.json").read_text())
SHIPPED_SCHEMA = Schema.parse(
    "mixpanel-events", json.loads((ROOT / "schemas/mixpanel-events.json").read_text())
)
DATA_PREP = {
    case["name"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "fixtures/data_prep_mapping_cases.json").read_text()
    )["cases"]
}
PARSED: dict[str, Schema] = {}
PERSON = {"name": "string", "email": "string"}
DATA_PREP_TARGETS: dict[str, Any] = {
    "nested attribute": {"pi": PERSON},
    "array index source": {"pi": PERSON},
    "array to array": {"pi": {"emailList": [PERSON]}},
    "wildcard iteration": {"pi": [{"names": {"name": "string"}}]},
    "static": {"userType": "string"},
    "root destination": {"name": "string"},
    "array index destination": {"piList": ["string"]},
    "CSV column with a period": {"pi": PERSON},
    "preview API: int to string cast": {
        "_id": "string",
        "person": {"name": {"firstName": "string", "lastName": "string"}},
    },
    "object copy": {"addr": {"addrLine1": "string", "city": "string", "state": "string"}},
}


def shaped(shape: Any) -> dict[str, Any]:
    """A JSON Schema: a dict is an object, a list an array, a set a map, a text a type."""
    if isinstance(shape, dict):
        fields = {name: shaped(inner) for name, inner in shape.items()}
        return {"type": "object", "properties": fields}
    if isinstance(shape, list):
        return {"type": "array", "items": shaped(shape[0])}
    if isinstance(shape, set):
        return {"type": "object", "additionalProperties": shaped(next(iter(shape)))}
    return {"type": "integer" if shape == "long" else shape}


def target(shape: Any) -> Schema:
    """The schema "s" of that shape; parsed once, for that takes longer than most tests."""
    if repr(shape) not in PARSED:
        PARSED[repr(shape)] = Schema.parse("s", shaped(shape))
    return PARSED[repr(shape)]


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"mappings": [{"source": source, "destination": to} for source, to in pairs]}


def mapping_set(shape: Any, *pairs: tuple[str, str]) -> evaluate.MappingSet:
    return evaluate.parse("m", rules(*pairs), target(shape))


def applied(mappings: evaluate.MappingSet, *records: Any) -> Batch:
    lines = [json.dumps(record).encode() for record in records]
    batch = Batch(lines=lines, records=[json.loads(line) for line in lines])
    mappings.apply(batch)
    for part in (batch.rest, *batch.columns, *batch.keys):
        assert len(part) == len(records)
    assert len(batch.columns) == len(mappings.destinations)
    return batch


def pruned(value: Any) -> Any:
    """`value` without the attributes that are null."""
    if isinstance(value, dict):
        return {name: pruned(inner) for name, inner in value.items() if inner is not None}
    return [pruned(inner) for inner in value] if isinstance(value, list) else value


def xdm(mappings: evaluate.MappingSet, batch: Batch, row: int = 0) -> dict[str, Any]:
    """The XDM record that the columns make at `row`."""
    made: dict[str, Any] = {}
    for path, column in zip(mappings.destinations, batch.columns, strict=True):
        inner = made
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = column[row]
    return dict(pruned(made))


def mapped(shape: Any, properties: dict[str, Any], *pairs: tuple[str, str]) -> Any:
    """(XDM record, rest) of an event with these properties, whose event is mapped away."""
    mappings = mapping_set({**shape, "event": "string"}, *pairs, ("event", "event"))
    batch = applied(mappings, {"event": "e", "properties": properties})
    record = xdm(mappings, batch)
    assert record.pop("event") == "e"
    return record, batch.rest[0]


def problems(document: Any, shape: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        evaluate.parse("m", document, target(shape))
    first, *listed = str(caught.value).split("\n  ")
    assert first == "The mapping set m cannot be used with s:"
    assert "\n" not in "".join(listed)
    return listed


# The documented cases


@pytest.mark.parametrize("case", SHIPPED_CASES, ids=lambda case: case["name"])
def test_shipped_cases(case: dict[str, Any]) -> None:
    """The shipped mapping set maps each of its cases as they say."""
    mappings = evaluate.parse("mixpanel-events", SHIPPED, SHIPPED_SCHEMA)
    batch = applied(mappings, case["input"])
    assert xdm(mappings, batch) == case["output"]
    assert (batch.rest[0] or None) == case["unmapped"]


def test_shipped_cases_in_one_batch() -> None:
    """What a record gives does not depend on the records around it."""
    mappings = evaluate.parse("mixpanel-events", SHIPPED, SHIPPED_SCHEMA)
    batch = applied(mappings, *(case["input"] for case in SHIPPED_CASES))
    for row, case in enumerate(SHIPPED_CASES):
        assert xdm(mappings, batch, row) == case["output"]
        assert (batch.rest[row] or None) == case["unmapped"]
        properties = case["input"]["properties"]
        assert [key[row] for key in batch.keys] == [
            case["input"]["event"],
            *(properties.get(name) for name in KEYS),
        ]


def test_shipped_set_is_the_tutorials() -> None:
    """Eleven leaves, each a column of its own, in the order in which the tutorial maps them."""
    mappings = evaluate.parse("mixpanel-events", SHIPPED, SHIPPED_SCHEMA)
    names = [field.name for field in SHIPPED_SCHEMA.root.fields[0].fields]
    assert mappings.destinations == tuple(("_extconndev", name) for name in names)
    assert len(names) == 11
    assert set(SHIPPED) == {"version", "xdmSchema", "xdmVersion", "id", "mappings"}


@pytest.mark.parametrize("name", DATA_PREP_TARGETS)
def test_data_prep_cases(name: str) -> None:
    """Data Prep's own examples come out as its documentation prints them, before casts."""
    case = DATA_PREP[name]
    entries = [dict(entry) for entry in case.get("mappings") or [case["mapping"]]]
    for entry in entries:
        if entry["sourceType"] == "ATTRIBUTE":
            entry["source"] = f"data.{entry['source']}"
    schema = target(DATA_PREP_TARGETS[name])
    mappings = evaluate.parse("m", {"mappings": entries}, schema)
    batch = applied(mappings, {"event": "e", "properties": case["input"]})
    expected = case["output"]
    if name.startswith("preview"):
        expected = {**expected, "_id": 1234}
    assert xdm(mappings, batch) == expected


def test_data_prep_cases_are_all_here() -> None:
    """The example of an EXPRESSION, which prints the moment of its run, stands alone."""
    assert set(DATA_PREP) - set(DATA_PREP_TARGETS) == {"expression"}
    case = DATA_PREP["expression"]
    entry = case["mapping"] | {
        "source": "concat(upper(data.lastName), upper(data.firstName), now())"
    }
    mappings = evaluate.parse("m", {"mappings": [entry]}, target({"pi": {"created": "string"}}))
    mappings.begin(1_601_072_251_000, "flow")
    batch = applied(mappings, {"event": "e", "properties": case["input"]})
    assert batch.columns == [["SMITHJOHN2020-09-25T22:17:31Z"]]
    assert case["input"].items() <= batch.rest[0].items()


def test_preview_example_end_to_end() -> None:
    """With the casts behind it, the number of Data Prep's preview example becomes a text."""
    case = DATA_PREP["preview API: int to string cast"]
    schema = target(DATA_PREP_TARGETS[case["name"]])
    pairs = [(f"data.{entry['source']}", entry["destination"]) for entry in case["mappings"]]
    mappings = evaluate.parse("m", rules(*pairs), schema)
    batch = applied(mappings, {"event": "e", "properties": {**case["input"], "time": 0}})
    days = date(1970, 1, 1), date(1970, 1, 1)
    columns = Columns(
        schema, mappings.destinations, mappings.restore, days=days, keep_unmapped=True
    )
    columns.build(batch)
    assert batch.table
    [row] = batch.table.to_pylist()
    assert {name: row[name] for name in case["output"]} == case["output"]
    assert json.loads(row["unmapped"]) == {"$record": {"event": "e"}, "time": 0}


# What a source names

NAMED = {
    "insert_id": 1,
    "$insert_id": 2,
    "$only": 3,
    "event": 4,
    "$$twice": 5,
    "First Name": 6,
    "First.Name": 7,
    "a\\b}": 8,
    "items": [{"price": 9, "tags": ["x", "y"]}],
    "address": {"street.name": 10, "city": {"Zip Code": 11}, "0": 12},
    "größe": 13,
    "123": 14,
    "null": None,
}


@pytest.mark.parametrize(
    ("source", "value", "consumed"),
    [
        ("data.insert_id", 1, "insert_id"),
        ("properties.insert_id", 1, "insert_id"),
        ("properties.$insert_id", 2, "$insert_id"),
        ("data.$insert_id", 2, "$insert_id"),
        ("data.only", 3, "$only"),
        ("properties.only", None, None),
        ("data.event", 4, "event"),
        ("data.event_name", "e", "event_name"),
        ("event", "e", "event_name"),
        ("data.twice", None, None),
        ("data.$twice", 5, "$$twice"),
        ("data.${First Name}", 6, "First Name"),
        ("${data.First Name}", 6, "First Name"),
        (r"data.First\ Name", 6, "First Name"),
        (r"data.${First\.Name}", 7, "First.Name"),
        (r"data.First\.Name", 7, "First.Name"),
        (r"properties.${a\\b\}}", 8, "a\\b}"),
        ("data.items[0].price", 9, None),
        ("data.items[0].tags[1]", "y", None),
        ("data.items[1].price", None, None),
        ("data.items.price", None, None),
        ("data.items[0][0]", None, None),
        (r"data.address.street\.name", 10, None),
        ("data.address.city.${Zip Code}", 11, None),
        ("data.${address.city.Zip Code}", 11, None),
        ("data.address[0]", None, None),
        ("data.address.${0}", 12, None),
        ("data.größe", 13, "größe"),
        ("data.${123}", 14, "123"),
        ("data.null", None, "null"),
        ("data.insert_id.x", None, None),
        ("data.nowhere", None, None),
    ],
)
def test_source_names(source: str, value: Any, consumed: str | None) -> None:
    """A source reads what it names, and uses it up only when it read the whole of it."""
    mappings = mapping_set({"x": "string"}, (source, "x"))
    batch = applied(mappings, {"event": "e", "properties": NAMED})
    assert batch.columns == [[value]]
    expected = {name: inner for name, inner in NAMED.items() if name != consumed}
    if consumed != "event_name":
        expected["$record"] = {"event": "e"}
    assert batch.rest == [expected]


def test_a_property_named_event_name_stays() -> None:
    """`data.event_name` is the event, whatever properties there are; theirs can be named too."""
    properties = {"event_name": "other"}
    shape = {"x": "string", "y": "string"}
    assert mapped(shape, properties) == ({}, properties)
    assert mapped(shape, properties, ("properties.event_name", "x")) == ({"x": "other"}, {})
    pairs = ("data.event_name", "x"), ("properties.event_name", "y")
    assert mapped(shape, properties, *pairs) == ({"x": "e", "y": "other"}, {})


def test_both_names_can_be_read() -> None:
    """A property that two rules name is read by both, in records with either name or both."""
    shape = {"x": "string", "y": "string", "z": "string"}
    pairs = ("data.id", "x"), ("properties.id", "y"), ("properties.$id", "z")
    assert mapped(shape, {"id": 1, "$id": 2}, *pairs) == ({"x": 1, "y": 1, "z": 2}, {})
    assert mapped(shape, {"$id": 2}, *pairs) == ({"x": 2, "z": 2}, {})
    assert mapped(shape, {"id": 1, "$$id": 3}, *pairs) == ({"x": 1, "y": 1}, {"$$id": 3})


def test_keys_are_raw_whatever_the_rules() -> None:
    """The keys are the raw properties of exactly these names, even where rules read others."""
    shape = {"a": "string", "b": "string", "c": "string"}
    pairs = ("data.insert_id", "a"), ("data.time", "b"), ("data.distinct_id.x", "c")
    batch = applied(
        mapping_set(shape, *pairs),
        {"event": "e", "properties": {"insert_id": 1, "$insert_id": 2, "$time": 3}},
        {"event": "f", "properties": {"time": 4, "$time": 5, "distinct_id": {"x": 6}}},
    )
    assert batch.columns == [[1, None], [3, 4], [None, 6]]
    assert batch.keys == [["e", "f"], [None, {"x": 6}], [None, 4], [2, None], [None, None]]


def test_an_empty_batch() -> None:
    """A batch without records has columns without values."""
    mappings = mapping_set({"x": "string"}, ("data.x", "x"))
    batch = applied(mappings)
    assert (batch.columns, batch.keys, batch.rest) == ([[]], [[], [], [], [], []], [])


def test_columns_and_keys_share_no_list() -> None:
    """A stage that changes a column in place does not change the keys with it."""
    mappings = mapping_set({"x": "long", "y": "string"}, ("data.time", "x"), ("event", "y"))
    batch = applied(mappings, {"event": "e", "properties": {"time": 1}})
    batch.columns[0][0] = batch.columns[1][0] = None
    assert batch.keys[0] == ["e"]
    assert batch.keys[2] == [1]


# What destinations build

ADDRESS = {"city": "string", "geo": {"lat": "number"}, "tags": ["string"]}


@pytest.mark.parametrize(
    ("shape", "pairs", "properties", "made", "consumed"),
    [
        # object copy: whole only if the target has a place for every attribute
        ({"a": ADDRESS}, [("data.x", "a")], {"city": "c", "geo": {"lat": 1}}, None, True),
        ({"a": ADDRESS}, [("data.x", "a")], {"city": None}, {}, True),
        ({"a": ADDRESS}, [("data.x", "a")], {"city": "c", "zip": 1}, {"city": "c"}, False),
        ({"a": ADDRESS}, [("data.x", "a")], {"geo": {"lat": 1, "lon": 2}}, {"geo": {"lat": 1}}, 0),
        ({"a": ADDRESS}, [("data.x", "a")], "no object", None, True),
        ({"a": ADDRESS}, [("data.x", "a")], {"geo": "no object"}, None, True),
        ({"a": ADDRESS}, [("data.x", "a")], None, "absent", True),
        # arrays and maps
        ({"a": [ADDRESS]}, [("data.x", "a")], [{"city": "c"}, {"city": "d"}], None, True),
        ({"a": [ADDRESS]}, [("data.x", "a")], [{"city": "c", "zip": 1}], [{"city": "c"}], False),
        ({"a": ["long"]}, [("data.x", "a")], [1, None, "2"], None, True),
        ({"a": ["long"]}, [("data.x", "a")], [], None, True),
        ({"a": {"long"}}, [("data.x", "a")], {"k": 1, "l m": "2"}, None, True),
        ({"a": {"long"}}, [("data.x.k", "a.one"), ("data.x.l", "a.${t w o}")], {"k": 1, "l": 2},
         {"one": 1, "t w o": 2}, False),
        ({"a": {"long"}}, [("data.x.k", "a.${one}")], {"l": 1}, "absent", False),
        # indexes and wildcards
        ({"a": ["string"]}, [("data.x", "a[2]")], "v", [None, None, "v"], True),
        ({"a": [["long"]]}, [("data.x", "a[0][1]")], 7, [[None, 7]], True),
        ({"a": ["long"]}, [("data.x[*].n", "a")], [{"n": 1}, {}, 3, {"n": 4}],
         [1, None, None, 4], False),
        ({"a": ["long"]}, [("data.x[*].n", "a[*]")], [{"n": 1}], [1], False),
        ({"a": ["long"]}, [("data.x[*].n", "a")], "no list", "absent", False),
        ({"a": [{"n": "long", "m": "long"}]},
         [("data.x[*].o", "a[*].n"), ("data.x[*].p", "a[*].m")],
         [{"o": 1}, {"p": 2}], [{"n": 1}, {"m": 2}], False),
        ({"a": [{"n": "long", "m": "long"}]}, [("data.x[*]", "a[*]")],
         [{"n": 1}, {"o": 2}], [{"n": 1}, {}], False),
        ({"a": [{"b": ["long"]}]}, [("data.x[*].c[*].d", "a[*].b[*]")],
         [{"c": [{"d": 1}, {"d": 2}]}, {}, {"c": [{"d": 3}]}],
         [{"b": [1, 2]}, None, {"b": [3]}], False),
        ({"a": [{"names": {"n": "long"}}]}, [("data.x[*].n", "a[*].names")],
         [{"n": {"n": 1}}, {"n": 2}, {}],
         [{"names": {"n": 1}}, {"names": {"n": 2}}, {}], False),
        # an attribute's own rule and the object around it
        ({"a": ADDRESS}, [("data.x", "a"), ("data.x.town", "a.city")], {"town": "t", "city": "c"},
         {"city": "t"}, False),
        ({"a": ADDRESS}, [("data.x.town", "a.city"), ("data.x", "a")], {"city": "c"},
         {"city": "c"}, True),
        ({"a": ADDRESS}, [("data.x", "a"), ("data.x.town", "a.city")], "text", None, True),
        ({"a": ADDRESS}, [("data.x.tags", "a.tags"), ("data.x", "a")], {"tags": ["t"], "city": 1},
         None, False),
    ],
)  # fmt: skip
def test_built_columns(
    shape: Any, pairs: list[tuple[str, str]], properties: Any, made: Any, consumed: bool
) -> None:
    """Objects, arrays and maps are built as the rules say; a source not wholly there stays."""
    expected = properties if made is None else made
    record, rest = mapped(shape, {"x": properties}, *pairs)
    assert record == ({} if expected == "absent" else {"a": pruned(expected)})
    assert rest == ({} if consumed else {"x": properties})


@pytest.mark.parametrize(
    ("own", "copied", "made", "rest"),
    [
        ("t", {"lat": 1}, "t", ["x"]),
        ("t", {"lat": None}, "t", ["x"]),
        ("t", None, "t", []),
        ({"lat": 2}, {"lat": None}, {"lat": 2}, []),
        ({"lat": 2}, {"lat": 1}, {"lat": 2}, ["x"]),
        (None, {"lat": 1}, {"lat": 1}, []),
    ],
)
def test_an_attributes_own_rule_wins(own: Any, copied: Any, made: Any, rest: list[str]) -> None:
    """An object copied around an attribute fills what its own rule left; what it cannot stays."""
    properties = {"x": {"geo": copied}, "own": own}
    pairs = ("data.x", "a"), ("data.own", "a.geo")
    left = {name: properties[name] for name in rest}
    assert mapped({"a": ADDRESS}, properties, *pairs) == ({"a": {"geo": made}}, left)


def test_a_subtree_is_one_column() -> None:
    """Rules that meet in one array, map or copied object share its column, at its place."""
    shape = {"a": {"list": [{"m": "long", "n": "long"}], "leaf": "long"}, "b": ADDRESS, "c": "long"}
    mappings = mapping_set(
        shape,
        ("data.c", "c"),
        ("data.n", "a.list[0].n"),
        ("data.leaf", "a.leaf"),
        ("data.m", "a.list[1].m"),
        ("data.tags", "b.tags"),
        ("data.lat", "b.geo.lat"),
        ("data.b", "b"),
    )
    assert mappings.destinations == (("c",), ("a", "list"), ("a", "leaf"), ("b",))
    properties = {"n": 1, "m": 2, "leaf": 3, "lat": 4, "tags": ["t"], "b": {"city": "c"}}
    batch = applied(mappings, {"event": "e", "properties": properties})
    assert xdm(mappings, batch) == {
        "a": {"list": [{"n": 1}, {"m": 2}], "leaf": 3},
        "b": {"geo": {"lat": 4}, "tags": ["t"], "city": "c"},
    }
    assert batch.rest == [{"$record": {"event": "e"}}]


def test_static_rules() -> None:
    """A STATIC rule's source is the value of every record, as text, and uses nothing up."""
    document = {
        "mappings": [
            {"sourceType": "STATIC", "source": "data.x", "destination": "x"},
            {"sourceType": "STATIC", "source": "", "destination": "y"},
            {"sourceType": "STATIC", "source": "first", "destination": "z[0]"},
            {"sourceType": "ATTRIBUTE", "source": "event", "destination": "z[1]"},
        ]
    }
    shape = {"x": "string", "y": "long", "z": ["string"]}
    mappings = evaluate.parse("m", document, target(shape))
    record = {"event": "e", "properties": {"x": 1}}
    batch = applied(mappings, record, record)
    assert batch.columns == [["data.x"] * 2, ["", ""], [["first", "e"]] * 2]
    assert batch.rest == [{"x": 1}] * 2


# Putting back


def test_restore_is_exact() -> None:
    """What a column used comes back under its raw name, to the last digit; twice is as once."""
    line = rb'{"event":"e","properties":{"$x":123456789012345678901234567890,"y":"\ud83d","z":1}}'
    shape = {"x": "long", "y": {"a": "long"}, "z": "long"}
    mappings = mapping_set(shape, ("data.x", "x"), ("data.y", "y"), ("data.z", "z"))
    batch = Batch(lines=[b"{}", line], records=[{"event": "", "properties": {}}, json.loads(line)])
    mappings.apply(batch)
    batch.rest[1].pop("$record")
    for _ in range(2):
        mappings.restore(batch, 1, 0)
        mappings.restore(batch, 1, 1)
    assert batch.rest[1] == {"$x": 123456789012345678901234567890, "y": "\ud83d"}


def test_restore_of_an_event_name() -> None:
    """An event's name that could not be cast joins what else `$record` holds."""
    mappings = mapping_set({"x": "long"}, ("event", "x"))
    plain = {"event": "e", "properties": {}}
    more = {"event": "f", "labels": [1], "properties": {"$record": 2}}
    batch = applied(mappings, plain, more)
    assert batch.rest == [{}, {"$record": 2, "$$record": {"labels": [1]}}]
    for _ in range(2):
        mappings.restore(batch, 0, 0)
        mappings.restore(batch, 1, 0)
    assert batch.rest == [
        {"$record": {"event": "e"}},
        {"$record": 2, "$$record": {"labels": [1], "event": "f"}},
    ]


def test_restore_of_all_that_a_built_column_read() -> None:
    """A column that several rules build gives back each of their sources."""
    mappings = mapping_set({"a": ["long"]}, ("data.x", "a[0]"), ("data.y", "a[1]"))
    batch = applied(mappings, {"event": "e", "properties": {"$x": 1, "y": "no"}})
    assert batch.rest[0] == {"$record": {"event": "e"}}
    mappings.restore(batch, 0, 0)
    assert batch.rest[0] == {"$record": {"event": "e"}, "$x": 1, "y": "no"}


def test_restore_of_deep_nesting() -> None:
    """A value nested deeper than the standard library goes comes back all the same."""
    line = b'{"event":"e","properties":{"x":' + b"[" * 1020 + b"]" * 1020 + b"}}"
    mappings = mapping_set({"x": "long"}, ("data.x", "x"))
    batch = Batch(lines=[line], records=[orjson.loads(line)])
    mappings.apply(batch)
    mappings.restore(batch, 0, 0)
    value, depth = batch.rest[0]["x"], 1
    while value:
        [value] = value
        depth += 1
    assert depth == 1020


# What is refused

TARGET = {"a": {"city": "string", "price": "long"}, "list": ["string"], "n": "long", "m": {"long"}}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no object", "is not an object; write {sourceType, source, destination}"),
        ({"source": "data.x"}, "has no 'destination'; write one"),
        ({"destination": "n"}, "has no 'source'; write one"),
        ({"source": 7, "destination": "n"}, "'source' is 7; write it as a text"),
        ({"source": "data.x", "sourceAttribute": "data.y", "destination": "n"}, "differ: 'data.x'"),
        ({"source": "data.x", "destination": "n", "destinatoin": "m"}, "did you mean destination?"),
        ({"sourceType": "EXPRESSION", "source": "1+", "destination": "n"}, "(character 3)"),
        ({"sourceType": "static", "source": "1", "destination": "n"}, "write ATTRIBUTE, EXPR"),
        ({"sourceType": "STATIC", "source": "1", "destination": "list"}, "never be of type array"),
        ({"source": "event", "destination": "a"}, "can never be of type object"),
        ({"source": "x", "destination": "n"}, "source 'x' names nothing in a record"),
        ({"source": "data", "destination": "n"}, "names nothing in a record"),
        ({"source": "properties[0]", "destination": "n"}, "names nothing in a record"),
        ({"source": "event.x", "destination": "n"}, "names nothing in a record"),
        ({"source": "data.event_name[0]", "destination": "n"}, "reads inside the event's name"),
        ({"source": "", "destination": "n"}, "'' is no path"),
        ({"source": "data.", "destination": "n"}, "is no path at 'data.'; write a.b"),
        ({"source": "data..x", "destination": "n"}, "is no path"),
        ({"source": "data.x[", "destination": "n"}, "is no path"),
        ({"source": "data.x[-1]", "destination": "n"}, "is no path"),
        ({"source": "data.${x", "destination": "n"}, "is no path"),
        ({"source": "data.${}", "destination": "n"}, "is no path"),
        ({"source": "data.${.}", "destination": "n"}, "is no path"),
        ({"source": "data.x\n", "destination": "n"}, r"'x\n' in 'data.x\n' is no plain name"),
        ({"source": "data.${x}\n", "destination": "n"}, "is no path"),
        ({"source": "data.First Name", "destination": "n"}, "write '${First Name}'"),
        ({"source": "data.utm-source", "destination": "n"}, "write '${utm-source}'"),
        ({"source": "data.x", "destination": "a.cty"}, "the nearest is a.city. The schema"),
        ({"source": "data.x", "destination": "city"}, "the nearest is a.city. The schema"),
        ({"source": "data.x", "destination": "n[0]"}, "'n', which is long, has no '[0]'"),
        ({"source": "data.x", "destination": "n.x"}, "'n', which is long, has no 'x'"),
        ({"source": "data.x", "destination": "list.x"}, "'list', which is array, has no 'x'"),
        ({"source": "data.x", "destination": "m[0]"}, "'m', which is map, has no '[0]'"),
        ({"source": "data.x", "destination": "a[*].city"}, "'a', which is object, has no '[*]'"),
        ({"source": "data.x", "destination": "a.\n"}, r"has no '\n'"),
        ({"source": "data.x", "destination": "list[1000]"}, "an index ends at 999"),
        ({"source": "data.x[*].y", "destination": "n"}, "has 1 [*] and the destination 0"),
        ({"source": "data.x", "destination": "list[*]"}, "has 0 [*] and the destination 1"),
        ({"source": "data.x[*][*]", "destination": "list"}, "has 2 [*] and the destination 0"),
    ],
)  # fmt: skip
def test_refused_mappings(entry: Any, said: str) -> None:
    """A mapping that can never work is refused, with its place and what to do."""
    good = {"source": "data.good", "destination": "a.price"}
    [problem] = problems({"mappings": [good, entry]}, TARGET)
    assert problem.startswith("mappings[1]: ")
    assert said in problem


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("n", "n", True),
        ("a.city", "${a}.city", True),
        ("a", "a", True),
        ("a", "a.city", False),
        ("a.city", "a", False),
        ("m", "m.k", False),
        ("m.k", "m.l", False),
        ("m.k", "m.k", True),
        ("list", "list[0]", True),
        ("list[0]", "list[1]", False),
        ("list[0]", "list[0]", True),
        ("list[*]", "list[1]", True),
    ],
)
def test_overlapping_destinations(first: str, second: str, clash: bool) -> None:
    """Two rules never write one place; only an object or a map may be filled up besides."""
    entries = [
        {"source": "data.x[*]" if "*" in to else f"data.y{n}", "destination": to}
        for n, to in enumerate((first, second))
    ]
    document = {"mappings": entries}
    if clash:
        [problem] = problems(document, TARGET)
        assert problem.startswith("mappings[1]: mappings[0] writes ")
    else:
        evaluate.parse("m", document, target(TARGET))


def test_every_problem_is_listed_at_once() -> None:
    """One look at the message is enough to mend all of a mapping set."""
    document = {
        "maping": 1,
        "mappings": [
            {"source": "x y", "destination": "nn", "nam": "z"},
            {"source": "data.x", "destination": "n"},
            {"name": "the\nthird", "source": "data.y", "destination": "n"},
        ],
    }
    listed = problems(document, TARGET)
    assert [problem.partition(":")[0] for problem in listed] == [
        "'maping' is not known here; did you mean mappings?",
        *["mappings[0]"] * 3,
        r"mappings[2] ('the\nthird')",
    ]


@pytest.mark.parametrize("document", [None, [], {}, {"mappings": {}}, {"mappings": []}, "x"])
def test_what_is_no_mapping_set(document: Any) -> None:
    """A document of another form is told apart from a mapping set."""
    assert problems(document, TARGET) == [
        "it is not an object with a list 'mappings' that holds at least one"
    ]


def test_documented_forms_are_accepted() -> None:
    """What the service itself echoes, old names and all, can be given back to us."""
    echoed = {
        "id": "394bec970d54410b98e1d4c55a3843ca",
        "version": 0,
        "createdDate": 1614909614000,
        "modifiedDate": 1614909614000,
        "createdBy": "{CREATED_BY}",
        "modifiedBy": "{MODIFIED_BY}",
        "sourceType": "text/x.schema-path",
        "source": "data.x",
        "destination": "n",
        "identity": False,
        "primaryIdentity": False,
        "matchScore": 0.0,
        "functionVersion": 1,
        "sourceAttribute": "data.x",
        "destinationXdmPath": "n",
    }
    old = {"sourceAttribute": "data.y", "destinationXdmPath": "a.city", "identity": True}
    document = {"mappings": [echoed, old], "outputSchema": {"schemaRef": {"id": "x"}}}
    mappings = evaluate.parse("m", document, target(TARGET))
    assert mappings.destinations == (("n",), ("a", "city"))


# Whatever the records and the rules

NAMES = ["a", "$a", "$$a", "b", "event", "event_name", "$record", "time", "$insert_id", "x.y z"]
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "$a", "p", "q"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RECORDS = st.builds(
    lambda more, event, properties: {**more, "event": event, "properties": properties},
    st.dictionaries(st.sampled_from(["labels", "dataset"]), VALUES, max_size=1),
    st.text(max_size=3),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
)
ANY_SHAPE = {
    **{f"leaf{n}": "string" for n in range(6)},
    "object": {"a": "string", "p": {"a": "string", "q": ["string"]}, "q": [{"p": "string"}]},
    "map": {"string"},
    "list": ["string"],
    "objects": [{"a": "string", "p": {"q": "string"}}],
}
LEAVES = [f"leaf{n}" for n in range(6)]
BUILT = [
    *("object", "object.a", "object.p", "object.p.a", "object.p.q", "object.p.q[1]"),
    *("object.q[0].p", "map", "map.a", "map.b", "list", "list[0]", "list[1]", "objects"),
    *("objects[0]", "objects[0].a", "objects[1].p.q"),
]
TOPS = [name.replace(".", r"\.") for name in NAMES]
INNER = ["", "", "", ".a", ".p.q", "[0]", "[1].a"]
ITERATED = [("[*]", "list"), ("[*].a", "objects[*].a"), ("[*].p", "objects[*].p")]


@st.composite
def mapping_sets(draw: st.DrawFn) -> tuple[evaluate.MappingSet, list[Rule]]:
    """A mapping set of up to eight rules that do not overlap, and those rules."""
    pairs = st.tuples(
        st.sampled_from(["data", "properties"]),
        st.sampled_from(TOPS),
        st.one_of(
            st.tuples(st.sampled_from(INNER), st.sampled_from(LEAVES + BUILT)),
            st.sampled_from(ITERATED),
        ),
    )
    chosen: list[tuple[str, str]] = []
    found: list[Rule] = []
    for wrapper, top, (inner, to) in draw(st.lists(pairs, min_size=1, max_size=8)):
        tried = [*chosen, (f"{wrapper}.${{{top}}}{inner}", to)]
        try:
            found = parse_rules("m", rules(*tried), target(ANY_SHAPE))
        except InputError:
            continue
        chosen = tried
    assume(found)
    return evaluate.MappingSet(found, target(ANY_SHAPE)), found


def held(value: Any, built: Any) -> bool:
    """Whether `built` holds all of `value`; a null is held by nothing at all."""
    if value is None:
        return True
    if isinstance(value, dict) and isinstance(built, dict):
        return all(held(inner, built.get(name)) for name, inner in value.items())
    if isinstance(value, list) and isinstance(built, list):
        return len(value) == len(built) and all(map(held, value, built))
    return type(value) is type(built) and bool(value == built)


def walked(built: Any, path: tuple[Any, ...]) -> Any:
    """What is at `path` in `built`, None if nothing is."""
    for step in path:
        try:
            built = built[step]
        except (KeyError, IndexError, TypeError):
            return None
    return built


@pytest.mark.parametrize(
    ("value", "destinations", "stays"),
    [
        ([], ("object", "object.a"), True),
        ([], ("object.a", "object"), True),
        ({"b": 1}, ("object", "other"), True),
        ({"b": 1}, ("other", "object"), True),
        ({"b": 1}, ("object", "wide"), True),
        ({"b": 1}, ("wide", "object"), True),
        ({"a": "x"}, ("object", "other"), False),
    ],
)
def test_what_one_of_two_readers_cannot_hold_stays(
    value: Any, destinations: tuple[str, str], stays: bool
) -> None:
    """P3: a property that two rules read is used up only if both have a place for all of it."""
    shape = {"object": {"a": "string"}, "other": "string", "wide": {"b": "long"}}
    mappings = mapping_set(shape, *(("data.x", destination) for destination in destinations))
    batch = applied(mappings, {"event": "e", "properties": {"x": value}})
    assert ("x" in batch.rest[0]) is stays


@settings(deadline=None, max_examples=300)
@given(mapping_sets(), st.lists(RECORDS, min_size=1, max_size=4))
def test_nothing_disappears(
    made: tuple[evaluate.MappingSet, list[Rule]], records: list[dict[str, Any]]
) -> None:
    """P3: of any record and under any rules, every part is in a column or in the rest."""
    mappings, its_rules = made
    reads_event = any(rule.source.is_event for rule in its_rules)
    batch = applied(mappings, *records)
    for row, record in enumerate(records):
        properties, rest = record["properties"], batch.rest[row]
        columns = {p: c[row] for p, c in zip(mappings.destinations, batch.columns, strict=True)}
        used = properties.keys() - rest.keys()
        assert used == {
            name
            for rule in its_rules
            if (name := rule.source.name_in(properties)) in used and not rule.source.inner
        }
        for rule in its_rules:
            name = rule.source.name_in(properties)
            if name in used and not rule.source.inner:
                root = next(p for p in columns if p == rule.path[: len(p)])
                assert held(properties[name], walked(columns[root], rule.path[len(root) :]))
        assert properties.items() >= {n: v for n, v in rest.items() if n in properties}.items()
        besides = {n: v for n, v in record.items() if n not in ("properties", "event")}
        kept = besides if reads_event else {"event": record["event"], **besides}
        assert [rest[name] for name in rest if name not in properties] == [kept] * bool(kept)
        assert [key[row] for key in batch.keys] == [
            record["event"],
            *(properties.get(name) for name in KEYS),
        ]
        for column in range(len(mappings.destinations)):
            mappings.restore(batch, row, column)
        assert {name: rest[name] for name in used} == {name: properties[name] for name in used}
        kept = {"event": record["event"], **besides}
        assert [rest[name] for name in rest if name not in properties] == [kept]


@st.composite
def plain_pairs(draw: st.DrawFn) -> list[tuple[str, str, str, str]]:
    """(wrapper, property, path inside, leaf) of rules that each fill a leaf."""
    leaves = draw(st.lists(st.sampled_from(LEAVES), min_size=1, unique=True))
    return [
        (
            draw(st.sampled_from(["data", "properties"])),
            name := draw(st.sampled_from(NAMES)),
            draw(st.sampled_from(["", "", ".p", ".p.a"])) if name != "event_name" else "",
            leaf,
        )
        for leaf in leaves
    ]


@settings(deadline=None, max_examples=300)
@given(plain_pairs(), st.lists(RECORDS, max_size=5))
def test_plain_columns_are_what_a_plain_program_reads(
    pairs: list[tuple[str, str, str, str]], records: list[Any]
) -> None:
    """However a batch is read, each value is the one found by looking it up in its own record."""
    escaped = [(f"{w}.${{{n.replace('.', chr(92) + '.')}}}{i}", to) for w, n, i, to in pairs]
    mappings = mapping_set(ANY_SHAPE, *escaped)
    batch = applied(mappings, *records)
    for column, (wrapper, name, inner, _) in enumerate(pairs):
        for row, record in enumerate(records):
            properties = record["properties"]
            names = [name, f"${name}"] if wrapper == "data" else [name]
            value: Any = next((properties[n] for n in names if n in properties), None)
            if wrapper == "data" and name == "event_name":
                value = record["event"]
            assert batch.columns[column][row] == walked(value, tuple(inner.split(".")[1:]))


def test_a_long_set_costs_no_more_guesses() -> None:
    """Near names are looked for a bounded number of times, however many destinations are wrong."""
    wrong = [{"source": "data.x", "destination": "a.cty"}] * 200
    found = problems({"mappings": wrong}, TARGET)
    assert len(found) == 200
    assert sum("the nearest is" in each for each in found) == 20


def test_a_long_set_is_compared_in_linear_time() -> None:
    """No destination is held against each other one: a client's set may have thousands."""
    many = [{"source": f"data.x{n}", "destination": f"m.k{n}"} for n in range(20_000)]
    assert problems({"mappings": [*many, many[7]]}, TARGET) == [
        "mappings[20000]: mappings[7] writes 'm.k7' too; keep one of them"
    ]
