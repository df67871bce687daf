"""The language as a whole: positions, all problems at once, bounds, and arbitrary input."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.mapping.expression.evaluator import (
    MOST_WORK,
    CompileError,
    Expression,
    Failed,
    Frame,
    as_json,
)
from engine.mapping.expression.functions import FUNCTIONS
from engine.mapping.expression.nodes import ExpressionError
from engine.mapping.expression.syntax import LONGEST


def column(expression: str, records: list[dict[str, Any]]) -> list[Any]:
    """The values of an expression for some records."""
    lines = [json.dumps(record).encode() for record in records]
    return Expression(expression).column(Frame(records, ["Sign up"] * len(records), lines))


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("lowr(data.a)", "there is no function 'lowr'; did you mean lower? (character 1)"),
        ("lower(data.a, 1)", "lower takes 1 arguments, and has 2 (character 1)"),
        ("lower(a)", "'a' names nothing in a record; a path begins with data, properties or event"),
        ("data.a + 'x", "the text has no end; write ' (character 10)"),
        ("data.a = 1", "'=' cannot be used: nothing can be assigned; write == to compare"),
        ("explode(data.a, '(?=x)')", "(?=…) looks ahead"),
        ("explode(data.a, '(a')", "the regular expression"),
        ("format(data.a, 'yyyy-bb')", "'b' is no letter of a date pattern"),
        ("zone_date_to_zone(data.a, 'Mars/Phobos')", "is no time zone"),
        ("to_object('a')", "pairs of keys and values"),
        ("left(data.a, 'x')", '"x" is no number'),
        ("lower([1])", "lower takes a text here, and not a array"),
        ("data.a.size()", "'size' is no method; there are .equals, .equalsIgnoreCase, .get"),
        ("fpid_to_ecid(data.a)", "fpid_to_ecid cannot be used"),
        ("filterArray(data.a, 1)", "takes a lambda here"),
        ("event.name", "event is the event's name"),
        ("'a' - 1", '"a" is no number (character 1)'),
        ("new Date()", "'new' begins a statement"),
        ("hash('sha3', data.a)", "hash knows sha1"),
    ],
)
def test_messages(expression: str, problem: str) -> None:
    """A message says what is wrong, and where."""
    with pytest.raises(ExpressionError) as raised:
        Expression(expression)
    assert problem in str(raised.value)


def test_all_problems_at_once() -> None:
    """Not one after the other, as somebody mends them."""
    with pytest.raises(CompileError) as raised:
        Expression("concat(lowr(data.a), x, left(data.b))")
    assert len(raised.value.problems) == 3


def test_a_property_is_read_as_in_an_attribute() -> None:
    """`data.x` is `x` or else `$x`, `properties.x` is `x` alone; event is the event's name."""
    records = [{"x": 1, "$x": 2}, {"$x": 2}, {}]
    assert column("data.x", records) == [1, 2, None]
    assert column("properties.x", records) == [1, None, None]
    assert column("properties.$x", records) == [2, 2, None]
    assert column("event", records) == column("data.event_name", records) == ["Sign up"] * 3


def test_a_branch_is_evaluated_for_its_rows_only() -> None:
    """So what fails in the other branch fails nobody."""
    records = [{"n": 2}, {"n": 0}]
    assert column("iif(data.n == 0, 'none', 10 / data.n)", records) == [5, "none"]


def test_uuid_is_derived_from_the_line() -> None:
    """Pulling again gives the same ids, two calls and two lines different ones (P4)."""
    records = [{"a": 1}, {"a": 2}]
    found = column("[uuid(), guid()]", records)
    assert found == column("[uuid(), guid()]", records)
    assert len({each for row in found for each in row}) == 4
    assert found[0][0][14] == "4"


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 2000 + "1" + ")" * 2000,
        "!" * 4000 + "1",
        "1" + "+1" * 2000,
        "a" * (LONGEST + 1),
        "[" * 4000,
        "data" + ".a" * 2000,
        "data.a" + "[0]" * 1000,
        "explode(data.a, '(a{1000}){1000}')",
        "explode(data.a, '" + "(a?b?)" * 150 + "{900}c')",
    ],
)
def test_what_is_too_large_is_refused(expression: str) -> None:
    """By its size alone, before anything is computed."""
    with pytest.raises(ExpressionError):
        Expression(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "lpad('a', 1000000000, 'b')",
        "replacestr(data.long, 'a', data.long)",
        "concat(data.long, data.long, data.long)",
        "transformArray(data.many, x -> transformArray(data.many, y -> x))",
        "transformArray(data.many, x -> data.many)",
    ],
)
def test_what_becomes_too_large_fails_for_its_record(expression: str) -> None:
    """A counted limit: the record fails, whatever the machine, and its neighbours do not."""
    large = {"long": "a" * 500_000, "many": [0] * 1000}
    [failed, fine] = column(expression, [large, {"long": "a", "many": [1]}])
    assert isinstance(failed, Failed)
    if "1000000000" not in expression:
        assert not isinstance(fine, Failed)


def test_doubling_is_bounded() -> None:
    """An array that holds itself twice at each level is small in memory, and endless as text."""
    expression = "data.a"
    for _ in range(10):
        expression = f"transformArray([{expression}], x -> [x, x, x, x])"
    [found] = column(expression, [{"a": 1}])
    assert isinstance(found, Failed)


def test_work_is_counted_for_each_record() -> None:
    """So it never depends on the batch that a record happens to be in."""
    record = {"a": [0] * (MOST_WORK // 2)}
    found = column("size_of(transformArray(data.a, x -> x))", [record] * 5)
    assert found == [MOST_WORK // 2] * 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip
PIECES = st.sampled_from(
    [
        *("data.a", "event", "properties.b", "1", "2.5", "'x'", "null", "true", "(", ")", ",", "["),
        *("]", "{", "}", ":", "?", "??", "+", "-", "*", "/", "==", "<", "=~", "&&", "!", "x", "->"),
        *(f"{name}(" for name in FUNCTIONS),
    ]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map(" ".join), JSON)
@example("transformArray(data.a, x -> x)", [1])
def test_any_text_is_an_expression_or_an_error(text: str, content: Any) -> None:
    """Nothing else comes of it, neither when it is compiled nor for any record."""
    try:
        expression = Expression(text)
    except ExpressionError:
        return
    [found] = expression.column(Frame([{"a": content, "b": 1}], ["e"], [b"{}"]))
    if not isinstance(found, Failed):
        json.dumps(as_json(found))


ARGUMENTS = st.sampled_from(
    ["data.a", "data.b", "data.c", "'a'", "2", "null", "[1, 'b']", "'yyyy'"]
)


@given(st.sampled_from(sorted(FUNCTIONS)), st.lists(ARGUMENTS, max_size=4), JSON, JSON)
def test_any_function_takes_any_value(name: str, arguments: list[str], a: Any, b: Any) -> None:
    """A value of the wrong kind is a failed value for that record."""
    call = f"{name}({', '.join(arguments)})"
    try:
        expression = Expression(call)
    except ExpressionError:
        return
    records = [{"a": a, "b": b, "c": "2024-01-01"}, {"a": b}]
    found = expression.column(Frame(records, ["e", "f"], [b"1", b"2"]))
    assert len(found) == 2
    json.dumps([as_json(each) for each in found if not isinstance(each, Failed)])
    alone = [
        expression.column(Frame([record], [event], [line]))[0]
        for record, event, line in zip(records, ["e", "f"], [b"1", b"2"], strict=True)
    ]
    assert repr(found) == repr(alone)
