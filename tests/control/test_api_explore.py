"""Exploring and testing a connection through the control plane, against the sandbox."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog.database import Catalog
from engine.control.api import explore
from engine.control.api.explore import decode_source_params
from engine.model import retry, schedule
from engine.sandbox import PASSWORD, PROJECT_ID, Sandbox
from engine.sync import sample
from engine.transform.infer import LONG, infer
from tests.support.api_client import CONNECTIONS, keep_connection, keep_source, problem, served

Client = Any
MAILCHIMP = "eyJsaXN0SWQiOiIxMGMwOTdjYTcxIn0="  # the tutorial's leftover: {"listId": "10c097ca71"}
TUTORIAL = "objectType=rest&object=json&fileType=json&preview=true&sourceParams="
PROJECT = {"projectId": str(PROJECT_ID), "timezone": "Pacific Standard Time"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def packed(params: Any) -> str:
    return quote(b64encode(json.dumps(params).encode()).decode(), safe="")


def test_the_tutorials_answer(sandbox: Sandbox, tmp_path: Path) -> None:
    """`sourceParams` with a project returns a few events and their schema."""
    sandbox.reset()
    with served(tmp_path) as (client, state):
        path = f"{CONNECTIONS}/{keep_connection(state, sandbox.url)}/explore"
        answer = client.get(f"{path}?{TUTORIAL}{packed(PROJECT)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["format", "schema", "data"]
    assert found["format"] == "hierarchical"
    assert len(found["data"]) == 10
    assert found["schema"] == infer(found["data"])
    assert found["schema"]["properties"]["properties"]["properties"]["time"] == {
        "type": "integer", **LONG,
    }  # fmt: skip
    (asked,) = sandbox.requests
    assert asked["params"]["project_id"] == str(PROJECT_ID)
    assert asked["params"]["limit"] == "10"


@pytest.mark.parametrize("where", ["source connection", "auth.params", "environment"])
def test_the_mailchimp_leftover(sandbox: Sandbox, tmp_path: Path, where: str) -> None:
    """The tutorial's own `sourceParams` name no project: it comes from another place."""
    sandbox.reset()
    number = str(PROJECT_ID)
    environ = {"MIXPANEL_PROJECT_ID": number} if where == "environment" else {}
    with served(tmp_path, environ) as (client, state):
        params = {"projectId": number} if where == "auth.params" else {}
        connection = keep_connection(state, sandbox.url, **params)
        keep_source(state, keep_connection(state, sandbox.url), "1")  # of another connection
        if where == "source connection":
            keep_source(state, connection)
        answer = client.get(f"{CONNECTIONS}/{connection}/explore?{TUTORIAL}{MAILCHIMP}")
        assert client.get(f"{CONNECTIONS}/{connection}/test").json() == {"result": True}
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"]


def test_no_project_is_known(tmp_path: Path) -> None:
    """Without a project, explore and test answer what to send."""
    with served(tmp_path) as (client, state):
        path = f"{CONNECTIONS}/{keep_connection(state, 'https://data.mixpanel.com')}"
        for address in (f"{path}/explore?{TUTORIAL}{MAILCHIMP}", f"{path}/test"):
            said = problem(client.get(address), "1359-400")
            assert 'base64 of {"projectId"' in said


SPELLED = json.dumps(PROJECT | {"x": "??>>~~"}).encode()


@pytest.mark.parametrize(
    "spelled",
    [
        b64encode(SPELLED).decode(),
        b64encode(SPELLED).decode().rstrip("="),
        urlsafe_b64encode(SPELLED).decode(),
        urlsafe_b64encode(SPELLED).decode().rstrip("="),
        b64encode(SPELLED).decode().replace("+", " "),  # as a `+` that nobody escaped comes
        quote(b64encode(SPELLED).decode(), safe=""),
    ],
)
@pytest.mark.parametrize(
    "types", ["objectType=REST&FileType=JSON", "objectType=rest&fileType=json", ""]
)
def test_every_spelling(sandbox: Sandbox, tmp_path: Path, spelled: str, types: str) -> None:
    """Base64 of either alphabet, padded or not; types in any case; `fileType` and `FileType`."""
    assert decode_source_params(unquote(spelled)) == json.loads(SPELLED)
    with served(tmp_path) as (client, state):
        path = f"{CONNECTIONS}/{keep_connection(state, sandbox.url)}/explore"
        answer = client.get(f"{path}?{types}&preview=false&sourceParams={spelled}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == []
    assert answer.json()["schema"]["properties"]["event"] == {"type": "string"}


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_any_parameters_are_decoded(params: dict[str, Any]) -> None:
    """`sourceParams` in any variant of base64 decode to the same object."""
    text = json.dumps(params).encode()
    for spelled in (b64encode(text), urlsafe_b64encode(text)):
        assert (
            decode_source_params(spelled.decode())
            == decode_source_params(spelled.decode().rstrip("="))
            == params
        )


@pytest.mark.parametrize(
    ("query", "number", "words"),
    [
        ("sourceParams=%25%25%25", "1389-400", "base64"),
        ("sourceParams=YQ", "1389-400", "base64"),  # "a"
        ("sourceParams=W10=", "1389-400", "JSON object"),  # []
        ("sourceParams=" + "W1" * 6000, "1389-400", "base64"),
        ("sourceParams=é", "1389-400", "base64"),
        ("objectType=TABLE", "1358-400", "objectType"),
        ("fileType=Delimited", "1327-400", "Delimited"),
        ("FileType=delimited", "1327-400", "delimited"),
        ("preview=perhaps", "1400-400", "preview"),
        (f"sourceParams={packed({'projectId': 'a word'})}", "1400-400", "number of a project"),
        (f"sourceParams={packed(PROJECT | {'timezone': 'Mars'})}", "1400-400", "time zone"),
    ],
)
def test_invalid_parameters_are_refused(
    tmp_path: Path, query: str, number: str, words: str
) -> None:
    """Invalid parameters are a 400 with the reason, without a request to Mixpanel."""
    with served(tmp_path) as (client, state):
        path = f"{CONNECTIONS}/{keep_connection(state, 'http://127.0.0.1:1')}/explore"
        assert words in problem(client.get(f"{path}?{query}"), number)


def test_an_unknown_connection(tmp_path: Path) -> None:
    with served(tmp_path) as (client, _):
        for what in ("explore", "test"):
            assert "none" in problem(client.get(f"{CONNECTIONS}/none/{what}"), "1439-404")


@pytest.mark.parametrize(
    ("answered", "number", "words"),
    [
        ({"status": 400, "body": "Unable to authenticate request\n"}, "1400-400", "authenticate"),
        ({"status": 402}, "1400-400", "Payment required"),
        ({"status": 429}, "1400-429", "rate limits"),
        ({"status": 503}, "1400-503", "503"),
    ],
)
def test_mixpanels_reason(
    sandbox: Sandbox, tmp_path: Path, answered: dict[str, Any], number: str, words: str
) -> None:
    """Mixpanel's reason for a refusal is in the response, in Flow Service's form."""
    sandbox.reset()
    with served(tmp_path) as (client, state):
        connection = keep_connection(state, sandbox.url)
        keep_source(state, connection)
        for what in ("explore", "test"):
            sandbox.faults({"fault": "answer", **answered})
            assert words in problem(client.get(f"{CONNECTIONS}/{connection}/{what}"), number)


def test_an_unreachable_host_costs_no_request(tmp_path: Path) -> None:
    """A request that could not be sent does not count for the hour's budget."""
    with served(tmp_path) as (client, state):
        connection = keep_connection(state, "http://127.0.0.1:1")
        keep_source(state, connection)
        said = problem(client.get(f"{CONNECTIONS}/{connection}/test"), "1400-503")
        assert "cannot be reached" in said
        assert not state.catalog.recent_requests(f"http://127.0.0.1:1/{PROJECT_ID}", state.now())


def test_mixpanel_takes_too_long(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client waits for minutes at most, not for as long as a run does."""
    sandbox.reset()
    sandbox.faults({"fault": "delay", "seconds": 60})
    monkeypatch.setattr(explore, "TIMEOUT", 0.2)
    with served(tmp_path) as (client, state):
        connection = keep_connection(state, sandbox.url)
        keep_source(state, connection)
        said = problem(client.get(f"{CONNECTIONS}/{connection}/test"), "1400-503")
        assert "0.2 seconds" in said


def test_few_wait_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mixpanel that hangs takes no more than four threads from the other calls."""
    inside, gate = Semaphore(0), Event()

    def slow(*_: object) -> list[Any]:
        inside.release()
        assert gate.wait(30)
        return []

    monkeypatch.setattr(sample, "sample", slow)
    with served(tmp_path) as (client, state), ThreadPoolExecutor(4) as clients:
        connection = keep_connection(state, "http://127.0.0.1:1")
        keep_source(state, connection)
        path = f"{CONNECTIONS}/{connection}/test"
        try:
            waiting = [clients.submit(client.get, path) for _ in range(4)]
            assert all(inside.acquire(timeout=30) for _ in waiting)
            monkeypatch.setattr(sample, "sample", lambda *_: [])
            said = problem(client.get(path), "1400-429")
        finally:
            gate.set()
        assert "4 clients are waiting" in said
        assert [each.result().status_code for each in waiting] == [200] * 4
        assert client.get(path).json() == {"result": True}


def test_no_secret_is_shown(sandbox: Sandbox, tmp_path: Path) -> None:
    """P7: no response has a secret, even where the server repeats it."""
    sandbox.reset()
    with served(tmp_path) as (client, state):
        connection = keep_connection(state, sandbox.url, password="another-password")
        keep_source(state, connection)
        refused = client.get(f"{CONNECTIONS}/{connection}/test")
        assert "another-password" not in refused.text
        assert "Check" in problem(refused, "1400-400")
        assert PASSWORD not in refused.text
        known = keep_connection(state, sandbox.url)
        keep_source(state, known)
        for what in ("explore", "test"):
            for status, number in ((400, "1400-400"), (200, "1400-503")):
                body = f'{{"error": "bad credentials: {PASSWORD}"}}'
                sandbox.faults({"fault": "answer", "status": status, "body": body})
                said = problem(client.get(f"{CONNECTIONS}/{known}/{what}"), number)
                assert "bad credentials: ***" in said
                assert PASSWORD not in said


def test_the_budget_is_shared(sandbox: Sandbox, tmp_path: Path) -> None:
    """All requests count for the hour's budget, and an exhausted budget sends none."""
    sandbox.reset()
    project, moment = f"{sandbox.url}/{PROJECT_ID}", [1_700_000_000_000]
    with served(tmp_path, now=lambda: moment[0]) as (client, state), Catalog(tmp_path) as other:
        connection = keep_connection(state, sandbox.url)
        keep_source(state, connection)
        path = f"{CONNECTIONS}/{connection}/test"
        assert client.get(path).json() == {"result": True}
        assert other.recent_requests(project, moment[0]) == moment
        for _ in range(retry.DEFAULT_RATE_LIMIT.per_hour - 1):  # by a flow, say
            moment[0] += schedule.SECOND
            assert other.acquire(project, moment[0], lambda _: 0) == 0
        moment[0] += schedule.SECOND
        before = len(sandbox.requests)
        said = problem(client.get(path), "1400-429")
        assert "there is room for the next one in 59 min" in said
        assert len(sandbox.requests) == before
        moment[0] += schedule.HOUR
        assert client.get(path).json() == {"result": True}


def test_half_a_character(sandbox: Sandbox, tmp_path: Path) -> None:
    """An event with half a surrogate pair, which UTF-8 has no room for, is shown all the same."""
    sandbox.reset()
    line = r'{"event": "\ud800", "properties": {"time": 1, "huge": 123456789012345678901234567890}}'
    sandbox.faults({"fault": "insert", "lines": 0, "text": line})
    with served(tmp_path) as (client, state):
        connection = keep_connection(state, sandbox.url)
        keep_source(state, connection)
        answer = client.get(f"{CONNECTIONS}/{connection}/explore")
    assert r'"\ud800"' in answer.text
    assert "123456789012345678901234567890" in answer.text
