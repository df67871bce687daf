"""Inference of a schema from a few events, and the output of `explore`."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.sandbox import Sandbox, Spec, day_lines
from engine.transform.infer import LONG, infer, response
from tests.support.commands import Run

Json = Any


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        (["a"], {"type": "string"}),
        ([1], {"type": "integer", **LONG}),
        ([1.5], {"type": "number"}),
        ([1, 1.5], {"type": "number"}),
        ([True], {"type": "boolean"}),
        ([True, 1], {"type": "string"}),
        (["a", 1], {"type": "string"}),
        ([None, 1], {"type": "integer", **LONG}),
        ([None], {"type": "string"}),
        ([["a"], ["b"]], {"type": "array", "items": {"type": "string"}}),
        ([[1], [1.5]], {"type": "array", "items": {"type": "number"}}),
        ([{"a": 1}, {"b": "x"}], {
            "type": "object",
            "properties": {"a": {"type": "integer", **LONG}, "b": {"type": "string"}},
        }),
        ([{"a": 1}, "x"], {"type": "string"}),
    ],
)  # fmt: skip
def test_the_schema_of_values(values: list[Json], schema: Json) -> None:
    """Each kind of value has its type; values of several kinds are a string."""
    assert infer(values) == schema


def test_the_tutorials_words() -> None:
    """The response has the tutorial's three keys, and its bounds for integers."""
    record = {"event": "Items sold", "properties": {"time": 1652423938, "item_id": "29066"}}
    answer = response([record])
    assert list(answer) == ["format", "schema", "data"]
    assert answer["format"] == "hierarchical"
    assert answer["data"] == [record]
    assert answer["schema"]["properties"]["properties"]["properties"]["time"] == {
        "type": "integer", "minimum": -9007199254740992, "maximum": 9007199254740991,
    }  # fmt: skip


BOUND = 9007199254740991
SCALARS = st.one_of(
    st.booleans(), st.integers(-BOUND, BOUND), st.floats(allow_nan=False), st.text(max_size=5)
)


def alike(kind: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Records whose properties have values of one kind each."""
    return st.lists(st.dictionaries(st.sampled_from("abc"), kind, max_size=3), min_size=1)


@settings(deadline=None, max_examples=50)
@given(st.one_of(*(alike(kind) for kind in (st.integers(-BOUND, BOUND), st.text(), st.booleans()))))
def test_the_schema_fits(records: list[Json]) -> None:
    """The schema of records with clear types accepts all of them."""
    schema = infer(records)
    Draft202012Validator.check_schema(schema)
    assert all(Draft202012Validator(schema).is_valid(record) for record in records)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.recursive(SCALARS | st.none(), lambda inner: st.lists(inner) | alike(inner))))
def test_anything_has_a_schema(values: list[Json]) -> None:
    """Whatever came, the answer is a JSON Schema."""
    Draft202012Validator.check_schema(infer(values))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=50)) as running:
        yield running


def test_a_few_events(run: Run, sandbox: Sandbox) -> None:
    """The command sends one request for as many events as it shows, and shows them unchanged."""
    said = run("explore", "--from-date", "2024-01-01", "--limit", "3")
    assert said.status == 0
    first = [json.loads(line) for line in b"".join(first_lines()).splitlines()[:3]]
    assert json.loads(said.out)["data"] == first
    assert [request["params"]["limit"] for request in sandbox.requests] == ["3"]


def first_lines() -> Iterator[bytes]:
    from datetime import date

    yield from day_lines(Spec(events_per_day=50), date(2024, 1, 1))


def test_yesterday_by_default(run: Run, sandbox: Sandbox) -> None:
    """Without a day, the last complete day is sampled."""
    from datetime import UTC, datetime, timedelta

    days = [datetime.now(UTC).date() - timedelta(days=1)]
    assert run("explore").status == 0
    days.append(datetime.now(UTC).date() - timedelta(days=1))  # midnight may have passed
    assert sandbox.requests[0]["params"]["from_date"] in map(str, days)


def test_no_events(run: Run, sandbox: Sandbox) -> None:
    """A day without events is reported as one."""
    sandbox.faults({"fault": "answer", "status": 200, "body": ""})
    said = run("explore", "--from-date", "2024-01-01")
    assert (said.status, json.loads(said.out)["data"]) == (0, [])
    assert "no events of 2024-01-01" in said.err


def test_every_text_can_be_shown(run: Run, sandbox: Sandbox) -> None:
    """Letters of every script are printed unchanged, half a surrogate pair as JSON's escape."""
    line = '{"event":"検索","properties":{"time":1704067200,"half":"\\ud83d"}}'
    sandbox.faults({"fault": "insert", "lines": 0, "text": line})
    said = run("explore", "--from-date", "2024-01-01", "--limit", "2")
    assert '"検索"' in said.out
    assert json.loads(said.out)["data"][0]["properties"]["half"] == "\ud83d"


def test_refused(run: Run, sandbox: Sandbox) -> None:
    """An error of Mixpanel's is a sentence on stderr, and stdout is empty."""
    sandbox.faults({"fault": "answer", "status": 403})
    said = run("explore", "--from-date", "2024-01-01")
    assert (said.status, said.out) == (1, "")
    assert "403" in said.err
