"""HTTP in all its forms: ignored bodies, HEAD, conditional headers, encodings, targets."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from engine.control.api.app import FLOWSERVICE, app_of
from engine.control.api.app_state import AppState
from engine.control.api.auth import AuthMiddleware
from engine.control.api.request_bodies import LARGEST_BODY
from engine.control.api.request_target import LONGEST_TARGET
from engine.model.flow import Secret
from tests.support.api_client import (
    CONNECTIONS,
    DATASETS,
    MAPPING_SETS,
    SCHEMAS,
    SHIPPED,
    keep_connection,
    problem,
    served,
)

Client = TestClient
Json = dict[str, Any]
DATASET: Json = {"name": "d", "schemaRef": {"id": SHIPPED}}
FLOWS = f"{FLOWSERVICE}/flows"


@pytest.fixture
def state_and_client(tmp_path: Path) -> Iterator[tuple[AppState, Client]]:
    with served(tmp_path) as (client, state):
        yield state, client


@pytest.fixture
def client(state_and_client: tuple[AppState, Client]) -> Client:
    return state_and_client[1]


def dataset(client: Client, **more: Any) -> str:
    answer = client.post(DATASETS, json=DATASET | more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()[0].rpartition("/")[2])


# Bodies that mean nothing ------------------------------------------------------------------

NOTHING = [b"null", b"", b"{", b"\xff\xfe\x00", b"x" * (LARGEST_BODY - 1), b"[" * 1000, b"{}"]


@pytest.mark.parametrize("body", NOTHING)
@pytest.mark.parametrize("encoding", [None, "br"])
def test_the_body_of_a_delete_or_a_get_is_ignored(
    client: Client, body: bytes, encoding: str | None
) -> None:
    """The body of a DELETE or a GET is ignored: Adobe's command line sends `null` with every
    DELETE.
    """
    headers = {"Content-Type": "application/json; charset=utf-16"}
    headers |= {"Content-Encoding": encoding} if encoding else {}
    id_ = dataset(client)
    for method in ("GET", "HEAD", "DELETE"):
        answer = client.request(method, f"{DATASETS}/{id_}", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
    problem(client.get(f"{DATASETS}/{id_}"), "1439-404")


def test_an_ignored_body_is_bounded(client: Client) -> None:
    """A body that is ignored may be no larger than any other."""
    problem(
        client.request("DELETE", f"{DATASETS}/x", content=b"x" * (LARGEST_BODY + 1)), "1400-413"
    )


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"junk"])
def test_an_action_has_no_body(client: Client, body: bytes) -> None:
    """The body of an action is ignored; its parameter names the action."""
    answer = client.post(f"{FLOWS}/x/action?op=enable", content=body)
    problem(answer, "1439-404")


def test_a_deleted_dataset_is_named(client: Client) -> None:
    """As Catalog answers."""
    id_ = dataset(client)
    answer = client.delete(f"{DATASETS}/{id_}")
    assert (answer.status_code, answer.json()) == (200, [f"@/dataSets/{id_}"])


# HEAD --------------------------------------------------------------------------------------


def test_head_is_get_without_a_body(client: Client) -> None:
    """On every route that can be read: the same status and headers, whatever the answer is."""
    id_ = dataset(client)
    paths = client.app.openapi()["paths"]  # type: ignore[attr-defined]  # FastAPI's
    reads = [path for path, calls in paths.items() if "get" in calls]
    assert len(reads) > 25
    for path in [*reads, f"{DATASETS}/{id_}", f"{FLOWS}?limit=0", "/docs", "/openapi.json"]:
        if path.endswith(("/test", "/explore")):
            continue
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        kept = {"content-type", "etag", "www-authenticate", "allow"}
        for name in kept & got.headers.keys():
            assert head.headers[name] == got.headers[name], (path, name)


def test_a_file_is_not_read_for_a_head(
    state_and_client: tuple[AppState, Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A HEAD of a file returns its length without reading the file."""
    from fastapi.responses import FileResponse

    state, _ = state_and_client
    app, file = app_of(state), tmp_path / "large"
    file.write_bytes(b"x" * 300_000)
    app.get("/large")(lambda: FileResponse(file))
    client = TestClient(app)
    assert client.get("/large").content == b"x" * 300_000
    monkeypatch.setattr("anyio.open_file", pytest.fail)
    head = client.head("/large")
    assert (head.status_code, head.headers["content-length"]) == (200, "300000")


def test_head_where_there_is_no_get(client: Client) -> None:
    """HEAD of a path without GET is 405 with the methods of the path."""
    assert client.head(f"{MAPPING_SETS}/x/y/z").status_code == 404
    answer = client.put(FLOWS)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, GET, HEAD")


# Conditions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ('"{etag}"', 200),
        ("{etag}", 200),
        ('W/"{etag}"', 200),
        ('"other", "{etag}"', 200),
        ('"other","{etag}", "third"', 200),
        ("other, {etag}", 200),
        ("*", 200),
        ('"{etag}', 200),
        ('"other"', 412),
        ('"other,{etag}"', 412),
        ('"other, {etag}"', 412),
        ('"other", "third"', 412),
        ("other", 412),
        ('""', 400),
        ("", 400),
        (",", 400),
        (", ".join(["x"] * 200), 412),
        (", ".join(f"x{n}" for n in range(200)), 400),
    ],
)
def test_a_change_is_bound_to_any_of_the_etags(
    state_and_client: tuple[AppState, Client], value: str, status: int
) -> None:
    """If-Match matches by any member of its list, also weak ones and those without quotes."""
    state, client = state_and_client
    path = f"{CONNECTIONS}/{keep_connection(state, 'https://data.mixpanel.com')}"
    etag = client.get(path).json()["items"][0]["etag"].strip('"')
    headers = {"If-Match": value.format(etag=etag)}
    patch = [{"op": "replace", "path": "/name", "value": "new"}]
    assert client.patch(path, json=patch, headers=headers).status_code == status


@pytest.mark.parametrize("kind", ["connections", "dataSets", "schemas"])
def test_a_delete_is_bound_too(state_and_client: tuple[AppState, Client], kind: str) -> None:
    """A DELETE checks If-Match, else If-Unmodified-Since; without them it always deletes."""
    state, client = state_and_client

    def made() -> str:
        if kind == "connections":
            return f"{CONNECTIONS}/{keep_connection(state, 'eu')}"
        if kind == "dataSets":
            return f"{DATASETS}/{dataset(client)}"
        schema = {"title": "t", "properties": {"a": {"type": "string"}}}
        return f"{SCHEMAS}/{client.post(SCHEMAS, json=schema).json()['meta:altId']}"

    path = made()
    current = client.get(path).headers["etag"]
    long_ago = format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)
    later = format_datetime(datetime(2100, 1, 1, tzinfo=UTC), usegmt=True)
    for headers in (
        {"If-Match": '"stale"'},
        {"If-Match": '"stale"', "If-Unmodified-Since": later},
        {"If-Unmodified-Since": long_ago},
    ):
        problem(client.delete(path, headers=headers), "1404-412")
    for nothing in ('""', "", " , "):  # as of a client that lost its etag
        problem(client.delete(path, headers={"If-Match": nothing}), "1403-400")
    ended = client.delete(path, headers={"If-Match": f'"other", {current}'})
    assert ended.status_code in (200, 204)
    for headers in (
        {"If-Unmodified-Since": later},
        {"If-Unmodified-Since": "no date"},
        {"If-Match": current, "If-Unmodified-Since": long_ago},
        {},
    ):
        path = made()
        fresh = {name: client.get(path).headers["etag"] if name == "If-Match" else value
                 for name, value in headers.items()}  # fmt: skip
        assert client.delete(path, headers=fresh).status_code in (200, 204), headers


def test_an_action_and_a_mapping_set_are_bound(state_and_client: tuple[AppState, Client]) -> None:
    """Whatever changes a resource hears of If-Match."""
    _, client = state_and_client
    body = {"mappings": [{}], "xdmSchema": SHIPPED}
    id_ = client.post(f"{MAPPING_SETS}?validate=false", json=body).json()["id"]
    path = f"{MAPPING_SETS}/{id_}?validate=false"
    problem(client.put(path, json=body, headers={"If-Match": "stale"}), "1404-412")
    assert client.put(path, json=body, headers={"If-Match": "*"}).status_code == 200


def test_conditional_reads(client: Client) -> None:
    """A read is 304 without a body for a matching If-None-Match, 412 for another If-Match."""
    path = f"{DATASETS}/{dataset(client)}"
    first = client.get(path)
    etag = first.headers["etag"]
    for value, status in (
        (etag, 304),
        (f'"x", {etag}', 304),
        (f"W/{etag}", 304),
        ("*", 304),
        ('"x"', 200),
    ):
        for call in (client.get, client.head):
            answer = call(path, headers={"If-None-Match": value})
            assert answer.status_code == status, value
            assert answer.headers["etag"] == etag
            assert answer.content == (first.content if (status, call) == (200, client.get) else b"")
    problem(client.get(path, headers={"If-Match": '"x"'}), "1404-412")
    assert client.get(path, headers={"If-Match": etag}).status_code == 200
    assert client.get(DATASETS, headers={"If-None-Match": etag}).status_code == 200
    client.patch(path, json={"name": "other"})
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


# Encodings ---------------------------------------------------------------------------------


def post(client: Client, content: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(DATASETS, content=content, headers=named)


BODY = json.dumps(DATASET).encode()


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (gzip.compress(BODY), {"content_encoding": "gzip"}),
        (gzip.compress(BODY), {"content_encoding": "X-GZIP"}),
        (gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), {"content_encoding": "gzip"}),
        (BODY, {"content_encoding": "identity"}),
        (BODY, {"content_type": 'application/json; charset="UTF-8"'}),
        (BODY, {"content_type": "application/json;charset=us-ascii"}),
        (b"\xef\xbb\xbf" + BODY, {}),
        (gzip.compress(b"\xef\xbb\xbf" + BODY), {"content_encoding": "gzip"}),
    ],
)
def test_bodies_that_are_taken(client: Client, content: bytes, headers: dict[str, str]) -> None:
    """With gzip, with a byte order mark, with the charset's name."""
    assert post(client, content, **headers).status_code == 201


def test_a_body_that_is_not_utf8_is_named_so(client: Client) -> None:
    """A body in Latin-1 without a charset is refused as not UTF-8, in no words of Python's."""
    for content in ('{"name": "é"}'.encode("latin-1"), b'{"name": "' + b"x" * 300_000 + b'\xff"}'):
        said = problem(post(client, content), "1400-400")
        assert said == "The request body is not in UTF-8: send JSON in UTF-8."


@pytest.mark.parametrize(
    ("content", "headers", "said"),
    [
        (zlib.compress(BODY), {"content_encoding": "deflate"}, "encoding deflate"),
        (BODY, {"content_encoding": "br"}, "encoding br"),
        (BODY, {"content_encoding": "gzip, gzip"}, "encoding gzip, gzip"),
        (BODY, {"content_encoding": "x" * 500}, "is not read here"),
        (BODY.decode().encode("utf-16"), {}, "in UTF-8"),
        (BODY.decode().encode("utf-16-le"), {}, "in UTF-8"),
        (BODY.decode().encode("utf-16-be"), {}, "in UTF-8"),
        (BODY.decode().encode("utf-32"), {}, "in UTF-8"),
        (b"\xff\xfe", {}, "in UTF-8"),
        (BODY, {"content_type": "application/json; charset=utf-16"}, "charset utf-16"),
        (BODY, {"content_type": "application/json; charset=latin1"}, "charset latin1"),
    ],
)
def test_unsupported_encodings_are_415(
    client: Client, content: bytes, headers: dict[str, str], said: str
) -> None:
    """Unsupported encodings and charsets are 415 with the supported ones."""
    answer = post(client, content, **headers)
    assert said in problem(answer, "1400-415")
    assert len(answer.json()["errorMessage"]) < 250
    assert "gzip" in answer.headers["accept-encoding"]


def test_a_gzip_body_is_bounded_by_its_content(client: Client) -> None:
    """A gzip bomb is 413, in one member or in many; damaged or truncated gzip is 400."""
    bomb = gzip.compress(b" " * (LARGEST_BODY + 1))
    assert len(bomb) < 10_000
    problem(post(client, bomb, content_encoding="gzip"), "1400-413")
    halves = gzip.compress(b" " * LARGEST_BODY) + gzip.compress(BODY)
    problem(post(client, halves, content_encoding="gzip"), "1400-413")
    assert (
        post(client, gzip.compress(b" " * 9000 + BODY), content_encoding="gzip").status_code == 201
    )
    many = gzip.compress(b" ") * 5_000
    problem(post(client, many, content_encoding="gzip"), "1400-400")
    problem(post(client, gzip.compress(BODY)[:-3], content_encoding="gzip"), "1400-400")
    problem(post(client, BODY, content_encoding="gzip"), "1400-400")
    assert "Content-Encoding" in problem(post(client, gzip.compress(BODY)), "1400-400")


@pytest.mark.parametrize(
    "body",
    ['{"name": "a", "name": "b"}', '{"a": [{"b": 1, "c": 2, "b": 1}]}', '{"a": 1, "\\u0061": 1}'],
)
def test_a_key_twice_is_refused(client: Client, body: str) -> None:
    """An object with the same key twice is refused at any depth and in any spelling."""
    assert "twice" in problem(post(client, body.encode()), "1400-400")


# Targets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        b"/data//foundation/flowservice/flows",
        b"//data/foundation///flowservice/flows//",
        b"http://127.0.0.1:8787/data/foundation/flowservice/flows",
        b"HTTP://localhost/data/foundation//flowservice/flows/",
    ],
)
def test_a_target_means_a_path(client: Client, target: bytes) -> None:
    """Absolute targets and doubled slashes lead to the plain path, and need the token."""
    guard = AuthMiddleware(client.app, Secret("t"), ["127.0.0.1"])

    async def ask(scope_target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
        statuses = list[int]()
        scope = {
            "type": "http", "method": "GET", "path": scope_target.decode(), "query_string": b"",
            "raw_path": scope_target, "headers": headers, "scheme": "http", "http_version": "1.1",
            "server": ("127.0.0.1", 8787), "root_path": "",
        }  # fmt: skip

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await guard(scope, receive, send)
        return statuses[0]

    token, host = (b"x-api-key", b"t"), (b"host", b"localhost")
    assert asyncio.run(ask(target, [token, host])) == 200
    assert asyncio.run(ask(target, [host])) == 401
    evil = b"http://evil.example/data/foundation/flowservice/flows"
    assert asyncio.run(ask(evil, [token, host])) == 403  # the target's name is what was called


def test_an_address_in_a_path_stays_one(client: Client) -> None:
    """The id of a schema has two slashes, escaped or not."""
    for id_ in (SHIPPED, SHIPPED.replace("/", "%2F").replace(":", "%3A")):
        assert client.get(f"{SCHEMAS}/{id_}").json()["$id"] == SHIPPED


def test_a_long_target_is_refused(client: Client) -> None:
    """A target that is too long is 414; an error quotes only the start of a long one."""
    problem(client.get(f"{FLOWS}?a={'b' * LONGEST_TARGET}"), "1400-414")
    for query in ("a" * 16_000, f"property={'b' * 16_000}", f"limit={'9' * 16_000}"):
        answer = client.get(f"{FLOWS}?{query}")
        assert answer.status_code == 400
        assert len(answer.content) < 2_000
    for path in (f"{FLOWS}/{'f' * 16_000}", f"/{'n' * 16_000}", f"{DATASETS}/{'d' * 15_000}"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert len(answer.content) < 2_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (DATASETS, {"name": "d", "schemaRef": {"id": "x" * 900_000}}),
        (MAPPING_SETS, {"mappings": [{}], "xdmSchema": "x" * 900_000}),
        (SCHEMAS, {"title": "t", "properties": {"a": {"$ref": "x" * 900_000}}}),
        (CONNECTIONS, {"connectionSpec": {"id": "x" * 900_000}}),
        (f"{FLOWSERVICE}/runs", {"flowId": "x" * 900_000, "params": {"a": 1}}),
    ],
)
def test_a_long_text_in_a_body_is_not_repeated(client: Client, path: str, body: Json) -> None:
    """A response does not repeat a long text of its request."""
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert len(answer.content) < 8_000


def test_a_missing_host_header_is_named(client: Client) -> None:
    """A request of HTTP/1.0 without a Host header is refused with the name of the header."""
    guarded = TestClient(AuthMiddleware(client.app, Secret("t"), []), headers={"x-api-key": "t"})
    said = problem(guarded.get(FLOWS, headers={"Host": ""}), "2120-403")
    assert "Host header is missing" in said
    assert guarded.get("/healthz", headers={"Host": ""}).status_code == 200


def test_no_body_is_read_without_a_token(client: Client) -> None:
    """A path that needs no token can be read only."""
    guarded = TestClient(AuthMiddleware(client.app, Secret("t"), []), "http://localhost")
    assert guarded.head("/healthz").status_code == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert guarded.request(method, "/healthz", content=b"x").status_code == 401
