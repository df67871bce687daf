"""Routes accept the bodies that /openapi.json allows: patterns, lengths, choices."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.config.value_types import MAX_USERNAME
from engine.control.api.openapi_schemas import BODIES
from tests.support.api_server import Served, serving, tutorial

Json = dict[str, Any]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture(scope="module")
def bodies(api: Served) -> dict[str, Json]:
    """A body of each kind that is taken."""
    connection = tutorial("connections")
    connection["auth"]["params"] |= {"username": "reader", "password": "of-nobody-at-all"}
    source = {"baseConnectionId": api.connection(), "params": {"projectId": "2384945"}}
    flow = api.flow_body()
    dataset = api.show("targetConnections", api.target())["params"]["dataSetId"]
    return {
        "connections": connection,
        "sourceConnections": tutorial("sourceConnections") | source,
        "targetConnections": tutorial("targetConnections") | {"params": {"dataSetId": dataset}},
        "flows": flow,
    }


USERS = [
    "ok", "a.b-c_d", "x.4f2a.mp-service-account", "a@b", "{MIXPANEL}", "a b", " a", "a:b",
    "\U0001f600", "é", "a\tb", "a\nb", "a\x00", "\x7f", "", 5, None, ["a"],
    "x" * MAX_USERNAME, "x" * (MAX_USERNAME + 1),
]  # fmt: skip
WHOLES = [
    *(
        "1625040887",
        1625040887,
        0,
        "0",
        -1,
        "-1",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "٣",
        "",
        1.5,
        10**30,
    ),
    *("9" * 18, "9" * 19, True, None, [1], 253402300799, 253402300800),
]
WORDS: list[Any] = ["", " ", "x", None, 5, [], {}]
VALUES: list[tuple[str, str, list[Any]]] = [
    ("connections", "auth/params/username", USERS),
    ("connections", "auth/params/password", [*WORDS, "of-nobody-at-all"]),
    ("connections", "auth/params/host", [None, 5, [], "eu"]),
    ("connections", "auth/specName", [*WORDS, "Basic Authentication", "basic authentication"]),
    ("connections", "connectionSpec/id", [*WORDS, "6360F136-5980-4111-8BDF-15D29EAB3B5A"]),
    ("connections", "name", [*WORDS, "a\nb"]),
    ("connections", "description", WORDS),
    ("sourceConnections", "params/projectId", [*WHOLES, " 7\n"]),
    ("sourceConnections", "params/timezone", [None, 5, [], "UTC"]),
    ("sourceConnections", "data/format", [*WORDS, "json", "JSON", "delimited"]),
    ("targetConnections", "params/dataSetId", WORDS),
    ("targetConnections", "data", [None, 5, [], {}]),
    ("flows", "scheduleParams/startTime", WHOLES),
    ("flows", "scheduleParams/interval", [*WHOLES, 15, "15", 100_000, 100_001]),
    ("flows", "scheduleParams/frequency",
     [*WORDS, "minute", "MINUTE", "Hour", "month", "wee\u212a", "once "]),
    ("flows", "sourceConnectionIds", [*WORDS, ["a", "b"], [""], [None], [5]]),
    ("flows", "targetConnectionIds", [*WORDS, ["a", "b"], [""], [None]]),
    ("flows", "transformations", [*WORDS, [{}, {}], [{}], [5], [{"params": {}}]]),
    ("flows", "flowSpec/id", WORDS),
    ("flows", "scheduleParams/backfill", [*WORDS, True, "TRUE", "no"]),
    ("flows", "options", [*WORDS, {"lookbackDays": 1}, {"lookbackdays": 1}]),
    ("flows", "options/lookbackDays", [*WHOLES, 100_000, 100_001]),
    ("flows", "options/partialIngestionPercent", [*WHOLES, 100, 100.5]),
    ("flows", "options/errorDiagnosticsEnabled", [*WORDS, True, "false", "FALSE", "no"]),
    ("flows", "options/backfillFrom", [*WORDS, "2024-01-01", "2024-1-1", "20240101"]),
    ("flows", "options/windows", [*WORDS, "day", "DAY"]),
    ("sourceConnections", "params/events", [*WORDS, ["a"], [" "], [5]]),
    ("sourceConnections", "params/where", [*WORDS, "true"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "place", "values"), VALUES, ids=[v[0] + v[1] for v in VALUES])
def test_what_is_published_is_held(
    api: Served, bodies: dict[str, Json], kind: str, place: str, values: list[Any]
) -> None:
    """Nothing is taken that the document forbids, but for line ends, which are no part of a text;
    the user name, whose pattern is the handler's own, is taken whenever it fits.
    """
    validator = Draft202012Validator(BODIES[f"post {kind}"])
    assert validator.is_valid(bodies[kind])
    *steps, last = place.split("/")
    for value in values:
        body = deepcopy(bodies[kind])
        within = body
        for step in steps:
            within = within.setdefault(step, {})
        within[last] = value
        answer = api.call("POST", f"/{kind}", json.dumps(body))
        fits = validator.is_valid(body)
        assert answer.status in (201, 400, 404), (value, answer.text)
        assert fits or answer.status != 201, value
        assert not (fits and place.endswith("username")) or answer.status == 201, answer.text
        if answer.status == 201 and kind == "flows":  # the next one is to have its table
            api.call("DELETE", f"/flows/{answer.body['id']}")


@pytest.mark.parametrize("user", ["ok\n", "ok\r\n", "\nok"])
def test_line_ends_are_trimmed(api: Served, bodies: dict[str, Json], user: str) -> None:
    """Line ends around a name are removed before it is stored."""
    body = deepcopy(bodies["connections"])
    body["auth"]["params"]["username"] = user
    id_ = api.make("connections", body)
    assert api.show("connections", id_)["auth"]["params"]["username"] == "ok"


OPERATIONS = [
    {"op": "add", "path": "/name", "value": "x"}, {"op": "ADD", "path": "/name", "value": "x"},
    {"op": "Replace", "path": "/name", "value": "x"}, {"op": "copy", "from": "/name", "path": "/a"},
    {"op": "test", "path": "/name", "value": "x"}, {"op": "", "path": "/name"}, {"path": "/name"},
    {"op": "add"}, {"op": "add", "path": "", "value": {}},
    {"op": "add", "path": "name", "value": 1},
    {"op": "add", "path": 5, "value": 1}, {"op": ["add"], "path": "/name", "value": "x"},
    {"op": "add", "path": "/name/" + "x" * 2000, "value": 1},
    {"op": "add", "path": "//", "value": 1},
    {"op": "add", "path": "/~0name", "value": 1}, {"op": "add", "path": "/name~", "value": 1},
]  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS)
def test_patches_are_held_to_what_is_published(api: Served, operation: Json) -> None:
    """In any case of the operation's name."""
    validator = Draft202012Validator(BODIES["patch {id}"])
    id_ = api.connection()
    status = api.call("PATCH", f"/connections/{id_}", [operation], "*").status
    assert status in (200, 400)
    assert validator.is_valid([operation]) or status == 400


def test_a_body_of_very_many_keys_is_refused_at_once(api: Served) -> None:
    """Each key that is not known is compared with those that are: of a few that is no time."""
    body = api.flow_body(options={f"x{n}": 1 for n in range(60_000)})
    answer = api.call("POST", "/flows", body)
    assert (answer.status, "more than 100 keys" in answer.text) == (400, True)


def test_a_patch_is_bounded(api: Served) -> None:
    """No more operations than are published."""
    id_ = api.connection()
    one = {"op": "add", "path": "/name", "value": "x"}
    assert api.call("PATCH", f"/connections/{id_}", [one] * 1000, "*").status == 200
    assert api.call("PATCH", f"/connections/{id_}", [one] * 1001, "*").status == 400
