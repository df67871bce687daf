"""The language as a whole: positions, all problems at once, bounds, and arbitrary input."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.mapping.expression.evaluator import CompileError, Expression, as_json
from engine.mapping.expression.frame import MOST_WORK, Failed, Frame
from engine.mapping.expression.functions import FUNCTIONS
from engine.mapping.expression.nodes import ExpressionError
from engine.mapping.expression.syntax import LONGEST
from tests.mapping.expression.strategies import EXPRESSIONS, JSON, RECORDS


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
        ("lower([1])", "lower takes a text here, and not an array"),
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
    """All problems of an expression are listed in one error."""
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
    """What fails in the branch that a row does not take does not fail the row."""
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
    """A record fails beyond its limit, whatever records are in its batch."""
    many = MOST_WORK // 100_000  # each visit takes about 75 units
    record, busy = ({"a": [0] * 1000, "b": [0] * size} for size in (many // 2, many * 3))
    expression = "size_of(transformArray(data.b, x -> size_of(transformArray(data.a, y -> y + 1))))"
    found = column(expression, [record, busy, record, {"a": [], "b": []}])
    assert found[0] == found[2] == many // 2
    assert isinstance(found[1], Failed)
    assert found[3] == 0


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


@given(EXPRESSIONS, st.lists(RECORDS, min_size=1, max_size=5))
def test_a_record_has_its_value_whatever_its_batch_is(
    text: str, records: list[dict[str, Any]]
) -> None:
    """By column or one by one: the same values, the same failures, the same work."""
    try:
        expression = Expression(text)
    except ExpressionError:
        return
    lines = [b"%d" % number for number in range(len(records))]
    before = repr(records)
    together = Frame(records, ["e"] * len(records), lines)
    found = expression.column(together)
    assert repr(records) == before
    for number, record in enumerate(records):
        alone = Frame([record], ["e"], [lines[number]])
        assert repr(expression.column(alone)) == repr([found[number]])
        assert alone.work == [together.work[number]]


@pytest.mark.parametrize(
    "expression",
    [
        "transformArray(data.many, x -> lpad('a', 1000000, 'b'))",
        "transformArray(data.many, x -> upper(data.long))",
        "transformArray(data.many, x -> data.deep == data.deep)",
        "transformArray(data.many, x -> transformArray(data.many, y -> y + x))",
        "transformArray(data.many, x -> matches_regex('a', concat('\\\\pL\\\\pL\\\\pL', x)))",
        "transformArray(data.many, x -> matches_regex(data.long, '(a?b?){160}c'))",
        "transformArray(data.many, x -> date('23-Oct-2019 ' + x))",
        "transformArray(data.many, x -> zone_date_to_zone(x, concat('Europe/', x)))",
        "instr(data.long, left(data.long, 200000), 0, 200000)",
    ],
)
def test_hostile_work_ends(expression: str) -> None:
    """What would take minutes or gigabytes fails for its record, by a count and not by a clock."""
    hostile = {"long": "é" * 400_000, "many": list(range(100_000)), "deep": [[1] * 300] * 300}
    frame = Frame([hostile, {}], ["e", "e"])
    failed, fine = Expression(expression).column(frame)
    assert isinstance(failed, Failed)
    assert fine is None
