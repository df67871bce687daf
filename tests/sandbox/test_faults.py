"""Each of the sandbox's faults, seen over a real socket."""

import base64
import http.client
import json
import socket
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from threading import Event
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec, day_lines
from engine.sandbox.faults import ARGUMENTS, BODIES, Fault, cut, insert

DAY = date(2024, 3, 5)  # its body ends with a line end
SPEC = Spec(events_per_day=300, duplicate_percent=0)
STORED = b"".join(day_lines(SPEC, DAY))
LINES = STORED.splitlines(keepends=True)
NOON = int(datetime(2024, 3, 20, 12, tzinfo=UTC).timestamp() * 1000)
TARGET = "/api/2.0/export?" + urlencode(
    {"project_id": PROJECT_ID, "from_date": DAY, "to_date": DAY}
)
AUTH = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


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


def connect(sandbox: Sandbox, *, gzip: bool = False, timeout: float = 10) -> socket.socket:
    """A connection on which the export of DAY is requested."""
    host, port = sandbox.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout)
    coding = "Accept-Encoding: gzip\r\n" if gzip else ""
    connection.sendall(
        f"GET {TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{coding}"
        f"Authorization: {AUTH}\r\n\r\n".encode()
    )
    return connection


def get(sandbox: Sandbox, *, gzip: bool = False) -> tuple[int, Any, bytes]:
    """Status, headers and body as a well-behaved client reads them; it raises on a cut body."""
    with connect(sandbox, gzip=gzip) as connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        with response:
            return response.status, response.headers, response.read()


def unzip(body: bytes) -> bytes:
    """The content of a whole gzip stream."""
    return zlib.decompress(body, 31)


@pytest.mark.parametrize("gzip", [False, True])
def test_reset(sandbox: Sandbox, gzip: bool) -> None:
    """A TCP RST after part of the body."""
    sandbox.faults({"fault": "cut", "end": "reset"})
    received: list[bytes] = []
    with connect(sandbox, gzip=gzip) as connection, pytest.raises(ConnectionResetError):
        received.extend(iter(lambda: connection.recv(65536), b""))
    whole = b"".join(received)
    assert whole.startswith(b"HTTP/1.1 200 OK")
    if not gzip:
        assert LINES[0][:50] in whole
        assert LINES[-1] not in whole


@pytest.mark.parametrize("gzip", [False, True])
def test_close_without_the_last_chunk(sandbox: Sandbox, gzip: bool) -> None:
    """The connection ends at a line end, without the chunk of length zero."""
    sandbox.faults({"fault": "cut", "end": "close", "where": "after_line", "lines": 100})
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(sandbox, gzip=gzip)
    partial = caught.value.partial
    if gzip:
        partial = zlib.decompressobj(31).decompress(partial)
    assert partial == b"".join(LINES[:100])


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize(
    ("where", "end"),
    [("after_line", LINES[149]), ("before_newline", LINES[149][:-1]), ("inside_line", None)],
)
def test_cut_with_a_clean_end(sandbox: Sandbox, gzip: bool, where: str, end: bytes | None) -> None:
    """The body stops at the middle; HTTP and gzip end as if it were whole."""
    sandbox.faults({"fault": "cut", "where": where})
    body = get(sandbox, gzip=gzip)[2]
    body = unzip(body) if gzip else body
    assert STORED.startswith(body)
    if end is not None:
        assert body == b"".join(LINES[:149]) + end
    else:
        rest = body.removeprefix(b"".join(LINES[:150]))
        assert 0 < len(rest) < len(LINES[150]) - 1
        assert LINES[150].startswith(rest)


def test_cut_inside_the_last_line(sandbox: Sandbox) -> None:
    """A cut at the very end still leaves the last line unfinished."""
    sandbox.faults({"fault": "cut", "at": 1})
    rest = get(sandbox)[2].removeprefix(b"".join(LINES[:-1]))
    assert 0 < len(rest) < len(LINES[-1]) - 1
    assert LINES[-1].startswith(rest)


def test_gzip_cut(sandbox: Sandbox) -> None:
    """HTTP ends cleanly, the gzip stream has no end."""
    sandbox.faults({"fault": "cut", "end": "gzip_cut", "where": "after_line"})
    _, headers, body = get(sandbox, gzip=True)
    assert headers["content-encoding"] == "gzip"
    unzipper = zlib.decompressobj(31)
    assert unzipper.decompress(body) == b"".join(LINES[:150])
    assert not unzipper.eof


def test_gzip_crc(sandbox: Sandbox) -> None:
    """Everything is there, but the checksum is wrong."""
    sandbox.faults({"fault": "gzip_crc"})
    body = get(sandbox, gzip=True)[2]
    assert zlib.decompress(body[10:-8], -15) == STORED
    with pytest.raises(zlib.error, match="incorrect data check"):
        unzip(body)


@pytest.mark.parametrize("marker", ["terminated early\n", "export terminated early"])
@pytest.mark.parametrize("lines", [0, 150, 299])
@pytest.mark.parametrize("where", ["after_line", "before_newline"])
def test_terminated_early(sandbox: Sandbox, marker: str, lines: int, where: str) -> None:
    """Mixpanel's own sign of an abort: on a line of its own, or glued to the last one."""
    sandbox.faults({"fault": "cut", "where": where, "lines": lines, "append": marker})
    wanted = b"".join(LINES[:lines])
    if where == "before_newline":
        wanted = wanted.removesuffix(b"\n")
    body = get(sandbox)[2]
    assert body == wanted + marker.encode()


NAMED = {"nan": b'{"event":"e","properties":{"time":NaN}}', "utf8": b'{"event":"\xff\xfe"}',
         "twice": b'{"event":"e","properties":{"a":1,"a":2}}', "text": b"not a record",
         "bigint": b'{"event":"e","properties":{"n":123456789012345678901234567890}}',
         "surrogate": b'{"event":"\\ud83d","properties":{}}', "empty": b""}  # fmt: skip


@pytest.mark.parametrize("name", list(NAMED))
@pytest.mark.parametrize("place", [{"at": 0}, {"at": 0.5}, {"lines": 7}, {"at": 1}])
def test_insert(sandbox: Sandbox, name: str, place: dict[str, Any]) -> None:
    """Any bytes as a line anywhere, the rest of the body untouched."""
    sandbox.faults({"fault": "insert", "line": base64.b64encode(NAMED[name]).decode()} | place)
    before = place.get("lines", int(place.get("at", 0) * 300))
    body = get(sandbox)[2]
    assert body == b"".join([*LINES[:before], NAMED[name] + b"\n", *LINES[before:]])


def test_insert_takes_bytes_and_texts(sandbox: Sandbox) -> None:
    """From Python a line may be bytes; a text needs no base64."""
    sandbox.faults({"fault": "insert", "line": b"\xff"}, {"fault": "insert", "text": "hm"})
    assert b"\n\xff\n" in get(sandbox)[2]
    assert b"\nhm\n" in get(sandbox)[2]


def test_long_line(sandbox: Sandbox) -> None:
    """A valid event of many MiB."""
    sandbox.faults({"fault": "long_line", "mib": 20, "time": 1709700000})
    line = unzip(get(sandbox, gzip=True)[2]).split(b"\n")[150]
    record = json.loads(line)
    assert record["properties"]["time"] == 1709700000
    assert len(record["properties"]["text"]) == 20 << 20


def test_bomb(sandbox: Sandbox) -> None:
    """Much of one letter in little gzip."""
    sandbox.faults({"fault": "bomb", "mib": 64, "letter": "\0", "at": 0})
    body = get(sandbox, gzip=True)[2]
    assert len(body) < 1 << 20
    assert unzip(body) == bytes(64 << 20) + b"\n" + STORED


@pytest.mark.parametrize("status", list(BODIES))
def test_answers(sandbox: Sandbox, status: int) -> None:
    """Another status with its usual body, once; then the events again."""
    sandbox.faults({"fault": "answer", "status": status})
    found, headers, body = get(sandbox)
    assert (found, headers["content-type"], body.decode()) == (status, *BODIES[status])
    assert sandbox.requests[-1] | {"time": 0, "params": {}} == {
        "status": status, "fault": "answer", "time": 0, "params": {}}  # fmt: skip
    assert get(sandbox)[2] == STORED
    assert sandbox.requests[-1]["fault"] is None


@pytest.mark.parametrize(
    ("args", "content_type"),
    [
        ({"status": 200, "body": '{"error":"x"}'}, "text/plain"),
        ({"status": 400, "body": '{"request":"/","error":"Timeout Error."}'}, "application/json"),
        ({"status": 400, "body": "no such thing\n"}, "text/plain"),
        ({"status": 200, "body": ""}, "text/plain"),
        ({"status": 200, "body": "<html>", "headers": {"content-type": "text/html"}}, "text/html"),
        ({"status": 302, "headers": {"Location": "http://192.0.2.1/"}}, "text/plain"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, "application/json"),
        ({"status": 429, "headers": {"Retry-After": "Wed, 20 Mar 2024 12:00:09 GMT"}},
         "application/json"),
    ],
)  # fmt: skip
def test_answers_as_told(sandbox: Sandbox, args: dict[str, Any], content_type: str) -> None:
    """Status, body and headers can be any."""
    sandbox.faults({"fault": "answer"} | args)
    status, headers, body = get(sandbox)
    assert (status, headers["content-type"]) == (args["status"], content_type)
    if "body" in args:
        assert body.decode() == args["body"]
    for name, value in args.get("headers", {}).items():
        assert headers[name] == value
    assert ("Retry-After" in headers) == ("Retry-After" in args.get("headers", {}))


def test_answer_with_bytes(sandbox: Sandbox) -> None:
    """A body that is no text comes in base64: any response can be staged."""
    sandbox.faults({"fault": "answer", "status": 200, "body_base64": "/wAK"})
    assert get(sandbox)[2] == b"\xff\x00\n"


@pytest.mark.parametrize("lines", [0, 100])
def test_stall(sandbox: Sandbox, lines: int) -> None:
    """Some of the body, then nothing; others are served meanwhile."""
    sandbox.faults({"fault": "cut", "end": "stall", "where": "after_line", "lines": lines})
    with connect(sandbox) as connection, http.client.HTTPResponse(connection) as response:
        response.begin()
        head = b"".join(LINES[:lines])
        assert not head or response.read(len(head)) == head
        assert get(sandbox)[2] == STORED
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            response.read(1)


@pytest.mark.parametrize("gzip", [False, True])
def test_trickle(sandbox: Sandbox, gzip: bool) -> None:
    """The whole body in chunks of a few bytes."""
    sandbox.faults({"fault": "trickle", "bytes": 700, "seconds": 0.0001})
    with connect(sandbox, gzip=gzip) as connection, connection.makefile("rb") as raw:
        while raw.readline() != b"\r\n":
            pass
        sizes, body = [], b""
        while size := int(raw.readline(), 16):
            sizes.append(size)
            body += raw.read(size)
            raw.readline()
    assert max(sizes) == 700
    assert (unzip(body) if gzip else body) == STORED


def test_delay(sandbox: Sandbox) -> None:
    """`delay`: no byte for a while, then the whole response."""
    sandbox.faults({"fault": "delay", "seconds": 0.3})
    with connect(sandbox, timeout=0.1) as connection:
        with pytest.raises(TimeoutError):
            connection.recv(10)
        connection.settimeout(10)
        assert connection.recv(10) == b"HTTP/1.1 2"


def test_a_reset_forgets_requests_under_way(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that a fault delays past `reset` is not among the requests after it."""
    began = Event()

    def now() -> int:
        began.set()
        return NOON

    monkeypatch.setattr(sandbox.project, "now", now)
    sandbox.faults({"fault": "delay", "seconds": 0.3})
    with connect(sandbox) as connection:
        assert began.wait(10)
        sandbox.reset()
        assert connection.recv(10) == b"HTTP/1.1 2"
    assert sandbox.requests == []


def test_faults_queue_and_count_down(sandbox: Sandbox) -> None:
    """The first fault that fits a request is its own; null means always; a day narrows it."""
    sandbox.faults(
        {"fault": "answer", "status": 503, "times": 2},
        {"fault": "answer", "status": 502, "day": "2024-03-06"},
        {"fault": "answer", "status": 404, "times": None, "day": DAY.isoformat()},
    )
    assert [get(sandbox)[0] for _ in range(5)] == [503, 503, 404, 404, 404]


def test_faults_by_the_control_endpoint(sandbox: Sandbox) -> None:
    """A process drives the sandbox of another; what it says wrong is explained."""

    def control(method: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=10)
        connection.request(method, "/control/faults", json.dumps(body))
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    assert control("POST", [{"fault": "answer", "times": None}]) == (200, b'{"faults":1}')
    assert get(sandbox)[0] == 500
    assert control("DELETE")[0] == 200
    assert get(sandbox)[0] == 200
    for wrong in (
        1,
        [1],
        {"fault": "x"},
        {"fault": "cut", "size": 1},
        {"fault": "cut", "end": "x"},
    ):
        status, message = control("POST", wrong)
        assert status == 400
        assert message
    assert b"none of answer, cut" in control("POST", {"fault": "x"})[1]
    assert get(sandbox)[0] == 200


BLOCKS = st.lists(
    st.lists(st.binary(max_size=6).map(lambda b: b.replace(b"\n", b"-") + b"\n"), min_size=1).map(
        b"".join
    ),
    max_size=5,
)


@settings(deadline=None)
@given(blocks=BLOCKS, before=st.integers(0, 40))
def test_places_do_not_depend_on_blocks(blocks: list[bytes], before: int) -> None:
    """Lines are inserted, and bodies cut, at the same line in blocks of any size."""
    whole = [line + b"\n" for line in b"".join(blocks).split(b"\n")[:-1]]
    wanted = b"".join([*whole[:before], b"X\n", *whole[before:]])
    assert b"".join(insert(iter(blocks), before, iter([b"X\n"]))) == wanted
    head = b"".join(whole[:before])
    assert b"".join(cut(iter(blocks), before, "after_line", b"!")) == head + b"!"
    glued = head.removesuffix(b"\n") + b"!"
    assert b"".join(cut(iter(blocks), before, "before_newline", b"!")) == glued
    inside = b"".join(cut(iter(blocks), before, "inside_line", b""))
    assert b"".join(whole).startswith(inside)
    assert inside.startswith(head)
    assert (len(inside) > len(head)) == (len(whole) > before)


def test_every_fault_is_documented() -> None:
    """The page that people read names every fault and argument."""
    import engine.sandbox.faults as module

    assert module.__doc__ is not None
    for name, args in ARGUMENTS.items():
        for word in (name, *args):
            assert word in module.__doc__
    assert Fault.parse({"fault": "cut"}).times == 1
