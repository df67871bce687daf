"""The sandbox's export endpoint over a real socket, as Mixpanel documents it."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from isal import isal_zlib

from engine.errors import InputError
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec, day_lines, serve, truth

DAY = date(2024, 3, 5)
SPEC = Spec(events_per_day=600)
NOON = int(datetime(2024, 3, 20, 12, tzinfo=UTC).timestamp() * 1000)
Answer = tuple[int, Message, bytes]


def basic(text: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(text.encode()).decode()


def ask(url: str, *, gzip: bool = False, auth: str | None = None, **params: Any) -> Answer:
    """An export request for DAY, changed by `params`; None takes a parameter away."""
    asked = {"project_id": PROJECT_ID, "from_date": DAY, "to_date": DAY} | params
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    headers = {"Authorization": basic(f"{USERNAME}:{PASSWORD}") if auth is None else auth}
    return call(
        url,
        "GET",
        f"/api/2.0/export?{query}",
        headers | ({"Accept-Encoding": "gzip"} if gzip else {}),
    )


def call(
    url: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
) -> Answer:
    """Any request, by a connection of its own."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def lines(body: bytes) -> list[bytes]:
    """The body's lines, whether the last one ends or not."""
    return body.removesuffix(b"\n").split(b"\n") if body else []


def stored(spec: Spec = SPEC, *days: date, **options: Any) -> list[bytes]:
    """The lines that the sandbox holds."""
    return lines(b"".join(b for day in days or (DAY,) for b in day_lines(spec, day, **options)))


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """One sandbox for this module."""
    with Sandbox(SPEC, now=lambda: NOON) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """The sandbox, without what an earlier test left."""
    running.reset()
    return running


@pytest.mark.parametrize("path", ["/api/2.0/export", "/api/2.0/export/"])
def test_a_day_comes_whole(sandbox: Sandbox, path: str) -> None:
    """Plain text lines, in chunks, marked as not Mixpanel's, with or without a trailing slash."""
    query = urlencode({"project_id": PROJECT_ID, "from_date": DAY, "to_date": DAY})
    auth = {"Authorization": basic(f"{USERNAME}:{PASSWORD}")}
    status, headers, body = call(sandbox.url, "GET", f"{path}?{query}", auth)
    assert (status, headers["content-type"]) == (200, "text/plain")
    assert headers["transfer-encoding"] == "chunked"
    assert headers["X-Sandbox"] == "not Mixpanel"
    assert lines(body) == stored()


def test_both_dates_are_inclusive(sandbox: Sandbox) -> None:
    """Two neighbouring dates are two days; half of all bodies end without a line end."""
    after = DAY + timedelta(1)
    assert lines(ask(sandbox.url, to_date=after)[2]) == stored(SPEC, DAY, after)
    ends = {ask(sandbox.url, from_date=d, to_date=d)[2][-1:] for d in (DAY, after)}
    assert ends == {b"\n", b"}"}


@pytest.mark.parametrize("auth", ["", basic("a:b"), basic(f"{USERNAME}:no"), "Bearer x", "Basic !"])
def test_wrong_credentials(sandbox: Sandbox, auth: str) -> None:
    """400 with a plain text, as recorded; the log of requests keeps no credential."""
    status, headers, body = ask(sandbox.url, auth=auth)
    assert (status, body) == (400, b"Unable to authenticate request\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert sandbox.requests[-1]["status"] == 400
    assert "uthoriz" not in str(sandbox.requests)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"project_id": None}, "project_id is required"),
        ({"project_id": 1}, "not a member of this project"),
        ({"from_date": None}, "from_date must be a date"),
        ({"to_date": "2024-3-05"}, "to_date must be a date"),
        ({"to_date": "20240305"}, "to_date must be a date"),
        ({"from_date": "2024-03-06"}, "from_date cannot be later than to_date"),
        ({"to_date": "2024-03-21"}, "to_date cannot be later than today"),
    ],
)
def test_wrong_parameters_are_answered_in_text(
    sandbox: Sandbox, params: dict[str, Any], message: str
) -> None:
    """400, plain text."""
    status, headers, body = ask(sandbox.url, **params)
    assert status == 400
    assert headers["content-type"].startswith("text/plain")
    assert message in body.decode()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"where": "x"}, "where: cannot read"),
        ({"event": "Items sold"}, "event must be a JSON array"),
        ({"event": "[1]"}, "event must be a JSON array"),
        ({"limit": 100_001}, "limit must be"),
        ({"limit": 0}, "limit must be"),
    ],
)
def test_wrong_expressions_are_answered_in_json(
    sandbox: Sandbox, params: dict[str, Any], message: str
) -> None:
    """400, JSON with the request and the error."""
    status, headers, body = ask(sandbox.url, **params)
    assert (status, headers["content-type"]) == (400, "application/json")
    answer = json.loads(body)
    assert message in answer["error"]
    assert answer["request"].startswith("/api/2.0/export?project_id=")


def test_events_limit_where_and_milliseconds(sandbox: Sandbox) -> None:
    """Each parameter filters as documented, alone and with the others."""
    every = [json.loads(line) for line in stored()]
    found = [json.loads(line) for line in lines(ask(sandbox.url, event='["Items sold","x"]')[2])]
    assert found == [record for record in every if record["event"] == "Items sold"]
    assert lines(ask(sandbox.url, limit=5)[2]) == stored()[:5]
    assert lines(ask(sandbox.url, time_in_ms="true")[2]) == stored(in_ms=True)
    middle = sorted(r["properties"]["mp_processing_time_ms"] for r in every)[300]
    span = 'number(properties["mp_processing_time_ms"])'
    where = f"{span} >= {middle} and {span} < {middle + 3_600_000}"
    wanted = [
        record
        for record in every
        if middle <= record["properties"]["mp_processing_time_ms"] < middle + 3_600_000
    ]
    assert [json.loads(line) for line in lines(ask(sandbox.url, where=where)[2])] == wanted
    both = ask(sandbox.url, where=where, event='["Items sold"]', limit=2)[2]
    assert [json.loads(x) for x in lines(both)] == [
        r for r in wanted if r["event"] == "Items sold"
    ][:2]
    assert ask(sandbox.url, event='["x"]')[2] == b""


def test_gzip_only_above_its_threshold(sandbox: Sandbox) -> None:
    """Gzip if the client accepts it and the body is larger than 1400 bytes."""
    plain = ask(sandbox.url)
    packed = ask(sandbox.url, gzip=True)
    assert "content-encoding" not in plain[1]
    assert packed[1]["content-encoding"] == "gzip"
    assert isal_zlib.decompress(packed[2], 31) == plain[2]
    for limit in range(1, 8):
        size = len(ask(sandbox.url, limit=limit)[2])
        coded = ask(sandbox.url, gzip=True, limit=limit)[1].get("content-encoding")
        assert coded == ("gzip" if size > 1400 else None)


def test_chunks_do_not_match_lines() -> None:
    """No chunk but the last ends where a line ends."""
    with Sandbox(Spec(events_per_day=9000)) as sandbox:
        connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"))
        query = urlencode({"project_id": PROJECT_ID, "from_date": DAY, "to_date": DAY})
        connection.request("GET", f"/api/2.0/export?{query}", headers={
            "Authorization": basic(f"{USERNAME}:{PASSWORD}")})  # fmt: skip
        response = connection.getresponse()
        assert response.fp is not None
        ends = []
        while size := int(response.fp.readline(), 16):
            ends.append(response.fp.read(size)[-1:])
            response.fp.readline()
        connection.close()
    assert len(ends) > 3
    assert b"\n" not in ends[:-1]


def test_events_appear_when_they_are_processed(sandbox: Sandbox) -> None:
    """Events that are processed after the sandbox's now are left out."""
    now = int(datetime(2024, 3, 5, 12, tzinfo=UTC).timestamp() * 1000)
    assert call(sandbox.url, "POST", "/control/clock", body={"now_ms": now})[0] == 200
    half = lines(ask(sandbox.url)[2])
    assert half == stored(visible_at=now)
    assert 200 < len(half) < 400
    assert max(json.loads(x)["properties"]["mp_processing_time_ms"] for x in half) <= now
    assert ask(sandbox.url, to_date=DAY + timedelta(1))[0] == 400
    assert call(sandbox.url, "POST", "/control/clock", body={"now_ms": None})[0] == 200
    assert len(lines(ask(sandbox.url)[2])) == 606


@pytest.mark.parametrize(
    ("clock", "timezone", "today"),
    [
        ("utc", "Asia/Kolkata", date(2024, 3, 20)),
        ("local", "Asia/Kolkata", date(2024, 3, 21)),
        ("utc", "America/Los_Angeles", date(2024, 3, 20)),
        ("local", "America/Los_Angeles", date(2024, 3, 20)),
    ],
)
def test_today_is_the_projects_today(clock: str, timezone: str, today: date) -> None:
    """At 20:00 UTC a legacy project in India is a day further; a newer one counts in UTC."""
    spec = Spec(events_per_day=20, clock=clock, timezone=timezone)
    with Sandbox(spec, now=lambda: NOON + 8 * 3_600_000) as sandbox:
        assert ask(sandbox.url, to_date=today)[0] == 200
        assert ask(sandbox.url, to_date=today + timedelta(1))[0] == 400
        body = ask(sandbox.url)[2]
    times = [json.loads(line)["properties"]["time"] for line in lines(body)]
    assert {datetime.fromtimestamp(moment, UTC).date() for moment in times} == {DAY}


def test_rate_limits() -> None:
    """3 a second and 60 an hour, rolling, by the sandbox's clock; 429 says how long to wait."""
    now = [NOON]
    with Sandbox(Spec(events_per_day=1), now=lambda: now[0], per_hour=60, per_second=3) as sandbox:
        assert [ask(sandbox.url)[0] for _ in range(4)] == [200, 200, 200, 429]
        now[0] += 999
        assert ask(sandbox.url)[0] == 429
        now[0] += 1
        assert ask(sandbox.url)[0] == 200
        for _ in range(56):
            now[0] += 500
            assert ask(sandbox.url)[0] == 200
        status, headers, body = ask(sandbox.url)
        assert (status, json.loads(body)["code"]) == (429, 429)
        assert int(headers["Retry-After"]) == 3600 - 29
        now[0] = NOON + 3_600_000 - 1
        assert ask(sandbox.url)[0] == 429
        now[0] += 1
        assert ask(sandbox.url)[0] == 200


def test_requests_are_logged(sandbox: Sandbox) -> None:
    """Parameters, time and status of each export request, also by the control endpoint."""
    ask(sandbox.url, limit=3)
    ask(sandbox.url, limit=0)
    logged = json.loads(call(sandbox.url, "GET", "/control/requests")[2])
    assert logged == sandbox.requests
    assert [entry["status"] for entry in logged] == [200, 400]
    assert logged[0]["params"]["limit"] == "3"
    assert logged[0]["time"] == NOON
    assert PASSWORD not in json.dumps(logged)


def test_it_explains_itself(sandbox: Sandbox) -> None:
    """The page at / says that this is not Mixpanel."""
    assert b"NOT Mixpanel" in call(sandbox.url, "GET", "/")[2]


@pytest.mark.parametrize("host", ["192.0.2.1", "example.com", "::", "0.0.0.0"])
def test_it_listens_on_loopback_only(host: str) -> None:
    """Any other address is refused."""
    with pytest.raises(InputError, match="loopback only"):
        serve(host)


def test_cached_bodies_are_the_same(tmp_path: Path) -> None:
    """A second answer comes from the cache, with the bytes of the first; filters go past it."""
    with Sandbox(SPEC, now=lambda: NOON, cache_dir=tmp_path) as sandbox:
        first = [ask(sandbox.url)[2], ask(sandbox.url, gzip=True)[2]]
        files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        assert [path.read_bytes() for path in files] == first
        files[0].write_bytes(b"from the cache")
        assert ask(sandbox.url)[2] == b"from the cache"
        assert len(lines(ask(sandbox.url, limit=600)[2])) == 600
        assert isal_zlib.decompress(first[1], 31) == first[0]
        ask(sandbox.url, from_date="2024-03-20", to_date="2024-03-20")  # events still to come
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    other = Spec(events_per_day=600, duplicate_percent=0)
    with Sandbox(other, now=lambda: NOON, cache_dir=tmp_path) as sandbox:
        assert lines(ask(sandbox.url)[2]) == stored(other)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_is_a_process_that_stops_at_once(stop: signal.Signals) -> None:
    """Its first line is its URL; a signal ends it within a second, a stalled answer or not."""
    command = [sys.executable, "-m", "engine.sandbox", "--port=0", "--events-per-day=50"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        fault = {"fault": "cut", "end": "stall", "where": "after_line"}
        assert call(url, "POST", "/control/faults", body=[fault])[0] == 200
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        query = urlencode({"project_id": PROJECT_ID, "from_date": DAY, "to_date": DAY})
        connection.request("GET", f"/api/2.0/export?{query}", headers={
            "Authorization": basic(f"{USERNAME}:{PASSWORD}")})  # fmt: skip
        assert connection.getresponse().read(100)
        began = time.monotonic()
        os.kill(process.pid, stop)
        assert process.wait(5) == 0
        assert time.monotonic() - began < 1
        connection.close()
        said = process.stderr.read()
        assert said.startswith(f"This is a stand-in, NOT Mixpanel: invented events at {url}.")
        assert said.count("\nexport MIXPANEL_") == 5


def test_one_command_by_two_names(tmp_path: Path) -> None:
    """`python -m engine.sandbox` is `mixpanel-etl sandbox`; each option says what it serves."""
    shown = [
        subprocess.run(
            [sys.executable, "-m", *name, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for name in (["engine.sandbox"], ["engine", "sandbox"])
    ]
    assert shown[0] == shown[1]
    assert "--events-per-day" in shown[0]
    words = [
        "--port=0", "--seed=7", "--shape=small", "--events-per-day=50", "--duplicate-percent=4",
        "--reject-percent=6", "--late-percent=8", "--clock=local",
        "--timezone=Tokyo Standard Time", "--per-hour=2", "--per-second=2",
        f"--cache-dir={tmp_path}",
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "engine.sandbox", *words], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            spec = Spec(7, 50, "small", 4.0, 6.0, 8.0, clock="local", timezone="Asia/Tokyo")
            assert lines(ask(url)[2]) == stored(spec)
            assert [path.name for path in tmp_path.rglob("*.jsonl")] == [f"{DAY}_{DAY}.jsonl"]
            assert [ask(url)[0] for _ in range(2)] == [200, 429]
            assert int(ask(url)[1]["Retry-After"]) > 3000
        finally:
            process.kill()


def test_truth_is_what_a_client_gets(sandbox: Sandbox) -> None:
    """P3 of the sandbox itself: lines = events + rejects + duplicates."""
    found = truth(SPEC, DAY)
    received = lines(ask(sandbox.url)[2])
    assert len(received) == len(found.events) + len(found.rejects) + found.duplicates
