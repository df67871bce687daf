"""Mapping sets with expressions: where their values go, what stays, and what a failure does."""

import json
from typing import Any

import pytest

from engine.errors import InputError
from engine.mapping import mapping_set
from engine.sync.preview import preview
from engine.sync.pull import Rules
from engine.transform.schema import Schema

TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "real": {"type": "number"},
    "flag": {"type": "boolean"},
    "day": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "list": {"type": "array", "items": {"type": "string"}},
    "object": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "at": {"type": "string", "format": "date-time"}},
    },
    "items": {
        "type": "array",
        "items": {"type": "object", "properties": {"sku": {"type": "string"}}},
    },
}
EVENT = {
    "event": "Sign up",
    "properties": {"time": 1_704_067_205, "$browser": "Chrome", "url": "https://a.b/c?x=1"},
}


def document(**expressions: str) -> dict[str, Any]:
    """A mapping set with an expression for each destination; a dot is written `__`."""
    return {
        "mappings": [
            {
                "sourceType": "EXPRESSION",
                "source": expression,
                "destination": name.replace("__", ".").replace("_every", "[*]"),
            }
            for name, expression in expressions.items()
        ]
    }


def schema(*required: str) -> dict[str, Any]:
    """The schema of all TYPES."""
    return {"type": "object", "properties": TYPES, "required": list(required)}


def previewed(
    expressions: dict[str, str], *required: str, event: dict[str, Any] = EVENT
) -> dict[str, Any]:
    """What a run makes of one event."""
    rules = Rules(("m", document(**expressions)), ("s", schema(*required)))
    [found] = preview(rules, [json.dumps(event).encode()])
    return found


@pytest.mark.parametrize(
    ("destination", "expression", "expected"),
    [
        ("text", "lower(data.browser)", "chrome"),
        ("text", "date(data.time * 1000)", "2024-01-01T00:00:05Z"),
        ("text", "data.time / 2", "852033602"),
        ("whole", "data.time + 1", 1_704_067_206),
        ("real", "data.time / 2.0", 852_033_602.5),
        ("flag", "data.browser == 'Chrome'", True),
        ("day", "date(data.time * 1000)", "2024-01-01"),
        ("moment", "data.time * 1000", "2024-01-01T00:00:05Z"),
        ("moment", "date('2024-01-01 10:00', 'yyyy-MM-dd HH:mm')", "2024-01-01T10:00:00Z"),
        ("list", "explode(data.browser, 'o')", ["Chr", "me"]),
        ("object", "to_object('a', event, 'at', date(data.time * 1000))",
         {"a": "Sign up", "at": "2024-01-01T00:00:05Z"}),
        ("object__a", "upper(event)", {"a": "SIGN UP"}),
        ("items_every__sku", "explode('a,b')", [{"sku": "a"}, {"sku": "b"}]),
    ],
)  # fmt: skip
def test_where_a_value_goes(destination: str, expression: str, expected: Any) -> None:
    """A value of each kind lands in a destination of each type that can take it."""
    found = previewed({destination: expression})
    assert found["errors"] is None
    assert found["data"][destination.partition("_")[0]] == expected


@pytest.mark.parametrize(
    ("destination", "expression", "problem"),
    [
        ("flag", "'a' + data.browser", None),
        ("text", "data.a == 1", "the expression gives a boolean, and 'text' is of type string"),
        ("list", "lower(data.a)", "the expression gives a text, and 'list' is of type array"),
        ("text", "explode(data.a)", "the expression gives an array, and 'text' is of type string"),
        ("moment", "data.time", "data.time * 1000"),
        ("items_every__sku", "lower(data.a)", "takes an array's elements"),
        ("nowhere", "1", "has no 'nowhere'"),
        ("text", "lowr(data.a)", "did you mean lower?"),
    ],
)
def test_before_the_first_request(destination: str, expression: str, problem: str | None) -> None:
    """What can never fit is refused with its mapping, where the kinds are certain."""
    judged = mapping_set.verdicts(
        "m", document(**{destination: expression}), Schema.parse("s", schema())
    )
    if problem is None:
        assert judged == [[]]
    else:
        assert problem in "; ".join(judged[0])


def test_all_problems_of_all_mappings() -> None:
    """Each with its mapping."""
    wanted = document(text="lowr(data.a)", whole="x", real="1 +")
    with pytest.raises(InputError) as raised:
        mapping_set.parse("m", wanted, Schema.parse("s", schema()))
    assert str(raised.value).count("\n") == 3


def test_a_transform_error_leaves_its_attribute_out() -> None:
    """The row goes on; the reason is told."""
    found = previewed({"whole": "to_integer(data.browser)", "text": "event"})
    assert found["data"] == {"text": "Sign up"}
    assert found["errors"] == [{"destination": "whole", "exception": '"Chrome" is no integer'}]


def test_a_transform_error_of_a_required_attribute_rejects_its_row() -> None:
    """With its true reason, and where it came from."""
    found = previewed({"whole": "to_integer(data.browser)", "text": "event"}, "whole")
    assert found["data"] is None
    [error] = found["errors"]
    assert '"Chrome" is no integer' in error["exception"]
    assert "to_integer(data.browser)" in error["exception"]
