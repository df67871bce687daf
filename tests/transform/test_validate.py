"""Validation: its rejects and their messages, and that jsonschema gives the same results."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.model.batch import INVALID, REQUIRED, Batch
from engine.transform.columns import Columns
from engine.transform.schema import Field, Schema
from engine.transform.validate import Checker

DAYS = (date(2024, 1, 1), date(2024, 1, 31))
Json = dict[str, Any]


def leaves(at: Field, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every field below `at` that is no object."""
    if at.type != "object":
        return [path]
    return [leaf for child in at.fields for leaf in leaves(child, (*path, child.name))]


def columns_of(schema: Schema) -> Columns:
    """The columns stage of a schema, with a column for each of its leaves."""
    return Columns(schema, leaves(schema.root), lambda *_: None, days=DAYS, keep_unmapped=True)


def built(
    schema: Schema, rows: list[dict[tuple[str, ...], Any]], columns: Columns | None = None
) -> Batch:
    """A batch of `rows`, each given by the raw value of each path, after the columns stage."""
    paths = leaves(schema.root)
    batch = Batch(
        lines=[b"line %d" % n for n in range(len(rows))],
        records=[{"n": n} for n in range(len(rows))],
        columns=[[row.get(path) for row in rows] for path in paths],
        rest=[{} for _ in rows],
        keys=[list(range(len(rows))) for _ in range(5)],
    )
    (columns or columns_of(schema)).build(batch)
    assert not batch.uncast
    return batch


def checked(document: Json, *rows: Json) -> Batch:
    """Return a batch of `rows`, each the members of its root, after the check."""
    schema = Schema.parse("test", document)
    batch = built(schema, [{(name,): value for name, value in row.items()} for row in rows])
    Checker(schema).check(batch)
    return batch


def shop(**keywords: Any) -> Json:
    """A schema of four columns; `keywords` go to its root."""
    properties: Json = {
        "name": {"type": "string"},
        "count": {"type": "integer", "minimum": 1, "maximum": 5},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "when": {"type": "string", "format": "date-time"},
    }
    return {"type": "object", "properties": properties, **keywords}


def test_good_rows_pass_untouched() -> None:
    """A batch of valid rows is not changed."""
    batch = checked(shop(), {"name": "x", "count": 1, "kind": "a"}, {})
    assert (len(batch.lines), batch.rejects) == (2, [])


def test_a_reject_says_what_where_and_why() -> None:
    """P3: a bad row becomes a reject with its raw line and one mapping for each violation."""
    batch = checked(shop(required=["name"]), {"name": "x"}, {"count": 9}, {"name": "y", "count": 2})
    assert batch.lines == [b"line 0", b"line 2"]
    (reject,) = batch.rejects
    assert (reject.stage, reject.code, reject.raw) == ("check", REQUIRED, b"line 1")
    assert reject.message == "#: 'name' is a required property (and 1 more)"
    assert reject.violations == (
        {
            "keyword": "required",
            "message": "'name' is a required property",
            "pointerToViolation": "#",
            "schemaLocation": "#/required",
        },
        {
            "keyword": "maximum",
            "message": "9 is greater than the maximum of 5",
            "pointerToViolation": "#/count",
            "schemaLocation": "#/properties/count/maximum",
        },
    )


def test_a_reject_without_a_missing_field_is_invalid() -> None:
    """A reject has the code REQUIRED for a missing field, INVALID for other violations."""
    (reject,) = checked(shop(), {"kind": "c"}).rejects
    assert reject.code == INVALID


def test_every_list_stays_in_step() -> None:
    """A rejected row is dropped from every list of the batch."""
    batch = checked(shop(), *({"count": n} for n in (1, 0, 2, 6, 3)))
    assert batch.lines == [b"line 0", b"line 2", b"line 4"]
    assert batch.records == [{"n": 0}, {"n": 2}, {"n": 4}]
    assert batch.keys == [[0, 2, 4]] * 5
    assert len(batch.rest) == 3
    assert batch.columns[1] == [1, 2, 3]
    assert batch.table is not None
    assert batch.table.column("count").to_pylist() == [1, 2, 3]


def test_what_was_noted_of_a_rejected_row_does_not_count() -> None:
    """A rejected row counts neither as clamped nor as a failed cast."""
    schema = Schema.parse("test", shop())
    batch = built(schema, [{("count",): n} for n in (1, 0, 2)])
    batch.uncast, batch.clamped = {0, 1}, {1, 2}
    Checker(schema).check(batch)
    assert (batch.uncast, batch.clamped) == ({0}, {2})


def test_required_within_an_absent_object_asks_for_nothing() -> None:
    """An object whose fields are all null is absent: its `required` does not apply."""
    inner = {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}
    inner["properties"]["b"] = {"type": "string"}  # type: ignore[index]  # it is a dict
    schema = Schema.parse("test", {"type": "object", "properties": {"o": inner}})
    batch = built(schema, [{}, {("o", "b"): "x"}])
    Checker(schema).check(batch)
    assert [r.raw for r in batch.rejects] == [b"line 1"]


def test_a_long_value_does_not_make_a_long_message() -> None:
    """A message shows about 200 characters of a value, and the reason."""
    (reject,) = checked(shop(), {"kind": "x" * 100_000}).rejects
    assert reject.message.endswith("… is not one of ['a', 'b']")
    assert len(reject.message) < 300


def test_a_batch_without_rows_passes() -> None:
    """A batch without rows has no reject."""
    assert checked(shop(required=["name"])).rejects == []


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00.5+01:00", "2023-12-31T23:00:00.500Z"),
        (1_704_067_200_000, "2024-01-01T00:00:00Z"),
    ],
)
def test_a_date_time_is_checked_as_rfc_3339_in_utc(raw: object, text: str) -> None:
    """The schema sees a time as text in UTC, with ms only where there are any."""
    document = shop()
    document["properties"]["when"]["const"] = text
    assert checked(document, {"when": raw}).rejects == []
    document["properties"]["when"]["const"] = "else"
    assert len(checked(document, {"when": raw}).rejects) == 1


# The referee. Schemas and records are drawn to collide: small pools of values and of limits.

STRINGS = [
    "",
    "a",
    "ab",
    "abc",
    "é",
    "😀😀",
    "a\nb",
    "1",
    "A",
    "x@y",
    "2024-01-01",
    "12:00",
    "zz" * 300,
]
INTEGERS = [-129, -2, -1, 0, 1, 2, 3, 5, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
NUMBERS = [0.0, -0.0, 0.1, 0.3, 1.0, 1.5, 2.0, 3.0, 1e300, -1e-300, float(2**53), 7.5]
TIMES = ["2024-01-01T00:00:00Z", "1999-12-31T23:59:59.123Z", "0001-01-01T00:00:00Z"]
DATES = ["2024-01-01", "1999-12-31", "9999-12-31"]
VALUES: dict[str, list[Any]] = {
    "string": STRINGS,
    "long": INTEGERS,
    "byte": [-128, -1, 0, 1, 2, 127],
    "number": NUMBERS,
    "boolean": [True, False],
    "date": DATES,
    "date-time": TIMES,
}
BASE: dict[str, Json] = {
    "string": {"type": "string"},
    "long": {"type": ["integer", "null"]},
    "byte": {"meta:xdmType": "byte", "type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
}
SIZES = st.integers(0, 4)


def some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Up to three of `keywords`, each with what its strategy draws."""
    pairs = [st.tuples(st.just(k.strip("_")), s) for k, s in keywords.items()]
    return st.lists(st.one_of(pairs), max_size=3).map(dict)


LIMITS = [*INTEGERS, 0.1, 1.5, 1e300]
LENGTHS = [0, 1, 2, 3, 600]
ENUMS: list[list[Any]] = [
    *(STRINGS[:4], ["é", 2, True], [1, 0.1, "1"], [True], [1.0, 0], [DATES[0], TIMES[0]], [None])
]
ONE_KEYWORD: dict[str, list[Any]] = {
    "minimum": LIMITS,
    "maximum": LIMITS,
    "exclusiveMinimum": LIMITS,
    "exclusiveMaximum": LIMITS,
    "multipleOf": [1, 2, 3, 0.1, 0.5],
    "minLength": LENGTHS,
    "maxLength": LENGTHS,
    "minItems": LENGTHS,
    "maxItems": LENGTHS,
    "minProperties": LENGTHS,
    "maxProperties": LENGTHS,
    "pattern": ["a", "^a$", "^[a-z]+$", "b\\Z", "é|😀", r"^\d", ".", "^$"],
    "format": ["email", "ipv4", "date", "regex"],
    "enum": ENUMS,
    "const": [value for enum in ENUMS for value in enum],
    "uniqueItems": [True, False],
    "required": [["a"]],
    "propertyNames": [{"maxLength": 1}],
    "contains": [{"type": "string"}, {"minimum": 2}],
    "title": ["a title"],
    "default": [0],
    "unheardOf": [0],
    "not": [{"type": "string"}, {"minLength": 2}, {"minimum": 2}, {"const": True}],
    "anyOf": [[{"minimum": 2}, {"maxLength": 1}], [True], [False]],
    "allOf": [[{"minimum": 2}, {"maxLength": 1}], [True], [False]],
    "if": [{"minLength": 2}],
}
SIMPLE = some(**{key: st.sampled_from(limits) for key, limits in ONE_KEYWORD.items()})


def fitting(kind: str) -> st.SearchStrategy[Json]:
    """Keywords that mean something for a value of `kind`."""
    keys = ["enum", "const", "not", "anyOf", "allOf"]
    if kind in ("long", "byte", "number"):
        keys += ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
    elif kind == "string":
        keys += ["minLength", "maxLength", "pattern", "format"]
    return some(**{key: st.sampled_from(ONE_KEYWORD[key]) for key in keys})


LEAF = st.deferred(
    lambda: (
        SIMPLE
        | SIMPLE.map(lambda s: {**s, "title": "t"})
        | st.builds(
            lambda s, k, parts: {**s, k: parts},
            SIMPLE,
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            st.lists(SIMPLE | st.booleans(), min_size=1, max_size=2),
        )
        | st.builds(lambda s, n: {**s, "not": n}, SIMPLE, SIMPLE)
        | st.builds(lambda a, b, c: {"if": a, "then": b, "else": c}, SIMPLE, SIMPLE, SIMPLE)
        | st.builds(lambda s, c: {**s, "contains": c}, SIMPLE, SIMPLE)
    )
)
NAMES = st.sampled_from(["a", "b", "c/d", "e~f"])
NEEDS = st.lists(NAMES, max_size=2, unique=True)
PARTS = st.lists(
    st.builds(lambda n: {"required": [n]}, NAMES)
    | st.builds(lambda n, leaf: {"properties": {n: leaf}, "required": [n]}, NAMES, LEAF),
    min_size=1,
    max_size=2,
)
OBJECT = some(required=NEEDS, allOf=PARTS)
STRANGE_OBJECT = some(
    required=NEEDS,
    allOf=PARTS | st.just([{"minProperties": 1}]) | st.just([False]),
    minProperties=SIZES,
    maxProperties=SIZES,
    dependentRequired=st.dictionaries(NAMES, NEEDS, max_size=1),
    propertyNames=SIMPLE,
    additionalProperties=st.booleans(),
    unevaluatedProperties=st.booleans(),
    patternProperties=st.dictionaries(st.just("^a"), LEAF, max_size=1),
    not_=st.builds(lambda names: {"required": names}, st.lists(NAMES, max_size=1)),
    anyOf=st.lists(st.builds(lambda n: {"required": [n]}, NAMES), min_size=1, max_size=2),
)


def typed(kind: str, limits: Json) -> Json:
    """A schema node of a `kind`, with `limits` that leave it of that kind."""
    node = {**limits, **BASE[kind]}
    if kind == "string" and node.get("format") == "date":
        node["format"] = "ipv4"
    return node


@st.composite
def members(draw: st.DrawFn, defs: Json, depth: int) -> tuple[Json, Any]:
    """A schema node, and a strategy for the values of its field: a dict of them for an object."""
    kind = draw(st.sampled_from([*BASE, "array", "map", "object"] if depth else [*BASE]))
    node: Json
    values: Any
    if kind == "object":
        node, values = draw(objects(defs, depth - 1))
    elif kind in ("array", "map"):
        inner, pool = draw(members(defs, 0))
        lists, dicts = st.lists(pool, max_size=3), st.dictionaries(NAMES, pool, max_size=3)
        key = "items" if kind == "array" else "additionalProperties"
        node = {**draw(LEAF), "type": "array" if kind == "array" else "object", key: inner}
        values = st.none() | (lists if kind == "array" else dicts)
    else:
        node = typed(kind, draw(fitting(kind) | fitting(kind) | LEAF))
        values = st.none() | st.sampled_from(VALUES[kind])
    if draw(st.integers(0, 3)) == 0:
        name = f"def{len(defs)}"
        defs[name] = node
        node = {"$ref": f"#/$defs/{name}", **({} if kind == "object" else draw(fitting("long")))}
    return node, values


@st.composite
def objects(draw: st.DrawFn, defs: Json, depth: int) -> tuple[Json, dict[str, Any]]:
    """An object's schema node, and a strategy for each of its members."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    drawn = {name: draw(members(defs, depth)) for name in names}
    properties = {name: node for name, (node, _) in drawn.items()}
    more = STRANGE_OBJECT if draw(st.integers(0, 4)) == 0 else OBJECT
    node = {**draw(more), "type": "object", "properties": properties}
    parts = [dict(part) for part in node.get("allOf", ()) if isinstance(part, dict)]
    if len(parts) == len(node.get("allOf", ())) > 0:
        node["allOf"] = parts
    for part in parts:  # a property must be typed: what has no type elsewhere, goes
        kept = {n: leaf for n, leaf in part.get("properties", {}).items() if n in properties}
        if "properties" in part:
            part["properties"] = {n: v for n, v in kept.items() if "format" not in v}
    return node, {name: values for name, (_, values) in drawn.items()}


def drawn_values(draw: st.DrawFn, values: Any) -> Any:
    """Draw one value, nested as `values` is."""
    if isinstance(values, dict):
        return {name: drawn_values(draw, inner) for name, inner in values.items()}
    return draw(values)


def flat(
    value: Json, path: tuple[str, ...], objects_at: set[tuple[str, ...]]
) -> dict[tuple[str, ...], Any]:
    """The values of a nested record by path; `objects_at` are the paths to go into."""
    found: dict[tuple[str, ...], Any] = {}
    for name, inner in value.items():
        here = (*path, name)
        found.update(flat(inner, here, objects_at) if here in objects_at else {here: inner})
    return found


def as_json(value: Json, path: tuple[str, ...], objects_at: set[tuple[str, ...]]) -> Json | None:
    """Return the record as JSON for the schema: without nulls and without empty objects."""
    found: Json = {}
    for name, inner in value.items():
        if (*path, name) in objects_at:
            inner = as_json(inner, (*path, name), objects_at)
        elif isinstance(inner, list):
            inner = [v for v in inner if v is not None]
        elif isinstance(inner, dict):
            inner = {k: v for k, v in inner.items() if v is not None}
        if inner is not None:
            found[name] = inner
    return found or None


def object_paths(at: Field, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The path of every object, the root's too."""
    below = [object_paths(f, (*path, f.name)) for f in at.fields if f.type == "object"]
    return {path}.union(*below)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Json, list[Json]]:
    """A JSON Schema, and records for it."""
    defs: Json = {}
    node, values = draw(objects(defs, 2))
    rows = [drawn_values(draw, values) for _ in range(draw(st.integers(1, 6)))]
    return {**node, "$defs": defs}, rows


def pointer(*parts: object) -> str:
    """A JSON pointer."""
    return "/".join(["#", *(str(p).replace("~", "~0").replace("/", "~1") for p in parts)])


def assert_agreement(document: Json, *batches: list[Json]) -> None:
    """The check and jsonschema reject the same rows of each batch, for the same reasons."""
    schema = Schema.parse("drawn", document)
    checker, inside = Checker(schema), object_paths(schema.root)
    judge = Draft202012Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER)
    columns = columns_of(schema)
    reasons = {  # a row may be in several batches
        id(row): {
            (e.validator, pointer(*e.absolute_path), pointer(*e.absolute_schema_path))
            for e in judge.iter_errors(as_json(row, (), inside) or {})
        }
        for row in {id(row): row for rows in batches for row in rows}.values()
    }
    for rows in batches:
        batch = built(schema, [flat(row, (), inside) for row in rows], columns)
        expected = {b"line %d" % n: reasons[id(row)] for n, row in enumerate(rows)}
        expected = {line: found for line, found in expected.items() if found}
        checker.check(batch)
        keys = ("keyword", "pointerToViolation", "schemaLocation")
        assert {
            r.raw: {tuple(violation[key] for key in keys) for violation in r.violations}
            for r in batch.rejects
        } == expected
        assert len(batch.lines) + len(batch.rejects) == len(rows)  # P3
        assert batch.table is not None
        assert batch.table.num_rows == len(batch.lines)


@settings(deadline=None, max_examples=250)
@given(cases())
def test_the_verdict_is_always_that_of_jsonschema(case: tuple[Json, list[Json]]) -> None:
    """Whatever the schema: the same rows are rejected, for the same reasons, as by jsonschema."""
    assert_agreement(*case)


@pytest.mark.parametrize("kind", VALUES)
def test_every_keyword_alone_is_read_as_jsonschema_reads_it(kind: str) -> None:
    """Each keyword with each limit, at a field of each type, against every value in turn."""
    for key, limits in ONE_KEYWORD.items():
        for limit in limits:
            node = typed(kind, {key: limit})
            held: Json = {"type": "array", "items": node}
            properties = {
                "a": node,
                "l": held,
                "m": {"type": "object", "additionalProperties": node},
            }
            rows: list[Json] = [{"a": value} for value in [None, *VALUES[kind]]]
            rows += [{"l": [None, value]} for value in VALUES[kind][:3]]
            rows += [{"m": {"k": value, "n": None}} for value in VALUES[kind][:3]]
            alone = [[row] for row in rows[1:]]
            assert_agreement({"type": "object", "properties": properties}, rows, *alone)


OBJECTS: list[Json] = [
    {"properties": {"x": {"type": "string"}}, "required": ["x"]},
    {"properties": {"x": {"type": "string"}}, "required": ["x", "absent"]},
    {"properties": {"x": {"type": "string"}, "y": {"type": "string"}}, "required": ["y"]},
    {"properties": {"x": {"type": "string"}, "y": {"type": "string"}}, "minProperties": 2},
    {"properties": {"x": {"type": "string"}}, "allOf": [{"properties": {"x": False}}]},
    {"properties": {"x": {"type": "string"}}, "allOf": [{"required": ["x"]}, {"maxProperties": 0}]},
    {"properties": {"x": {"type": "string"}}, "allOf": [False]},
    {"properties": {"x": {"type": "string", "minLength": 2}, "y": {"type": "string"}}},
]


@pytest.mark.parametrize("inner", OBJECTS)
@pytest.mark.parametrize("around", [{}, {"required": ["o"]}, {"minProperties": 1}])
def test_an_object_is_read_as_jsonschema_reads_it(inner: Json, around: Json) -> None:
    """Objects are judged as by jsonschema, at the root, in fields and in arrays."""
    inner = {"type": "object", **inner}
    members_of: list[Json] = [
        {},
        {"x": "a"},
        {"y": "b"},
        {"x": None, "y": "b"},
        {"x": "a", "y": "b"},
    ]
    known = [{k: v for k, v in m.items() if k in inner["properties"]} for m in members_of]
    assert_agreement(inner, known)
    other = {"type": "object", "properties": {"z": {"type": "string"}}}
    rows: list[Json] = [{"o": m, "p": p} for m in known for p in ({}, {"z": "c"})]
    document = {"type": "object", "properties": {"o": inner, "p": other}, **around}
    assert_agreement(document, rows)
    document = {"type": "object", "properties": {"l": {"type": "array", "items": inner}}}
    assert_agreement(document, [{"l": [None, m]} for m in members_of[:2] if m in known])


def test_times_of_the_property_test_are_what_they_say() -> None:
    """The pools of times above are in the form that the schema is applied to."""
    for text in TIMES:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        assert moment.isoformat().startswith(text[:19])
