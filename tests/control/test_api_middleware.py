"""The checks of every request: token, Host header, body; and the form of errors."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Body, Request
from starlette.testclient import TestClient

from engine.catalog.database import Catalog
from engine.control.api.app import app_of
from engine.control.api.app_state import AppState
from engine.control.api.auth import AuthMiddleware, token_of
from engine.control.api.openapi import DOCS, page
from engine.control.api.problems import invalid
from engine.control.api.request_bodies import DEEPEST, LARGEST_BODY
from engine.control.secrets import secret_store_of
from engine.errors import EtagMismatch, InputError, NotFound, ResourceInUse
from engine.model.flow import Secret
from tests.support.api_client import MAPPING_SETS, SHIPPED

ONE = {"sourceType": "ATTRIBUTE", "source": "event", "destination": "_extconndev.event_name"}
TOKEN = "a-token-that-was-thought-of"
SECRET = "hunter2"


@pytest.fixture(scope="module")
def changes() -> list[str]:
    """A line for each notification of a change."""
    return []


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, changes: list[str]) -> Iterator[TestClient]:
    """The application behind its token check, with routes that fail in every way."""
    home = tmp_path_factory.mktemp("home")
    with Catalog(home) as catalog:
        state = AppState(
            home,
            catalog,
            secret_store_of(home),
            home,
            {},
            lambda: 0,
            lambda: changes.append("changed"),
        )
        app = app_of(state)
        fail: dict[str, Exception] = {
            "there": NotFound("flows", "f1"),
            "stale": EtagMismatch("old", "new"),
            "used": ResourceInUse("connections", "c1", "flows", "f1"),
            "input": InputError("The frequency is wrong."),
            "problem": invalid("1413-400", "The spec is wrong."),
            "defect": RuntimeError(SECRET),
        }

        @app.get("/fail/{how}")
        def _fail(how: str) -> None:
            raise fail[how]

        @app.post("/echo")
        @app.patch("/echo")
        def _echo(body: Annotated[Any, Body()]) -> Any:
            return {"got": body}

        @app.post("/typed")
        def _typed(body: dict[str, int], limit: int = 1) -> Any:
            return body

        @app.get("/where")
        def _where(request: Request, a: str = "") -> Any:
            return [str(request.url), str(request.url_for("batch_files", batch="b"))]

        guarded = AuthMiddleware(app, Secret(TOKEN), ["etl.example.org"])
        headers = {"x-api-key": TOKEN}
        with TestClient(guarded, "http://127.0.0.1:8787", headers=headers) as client:
            yield client


def check_form(answer: Any, status: int, code: str) -> None:
    """Check that an error has Flow Service's form and shows nothing internal."""
    assert answer.status_code == status
    body = answer.json()
    assert body["type"] == f"https://ns.adobe.com/aep/errors/FLOW-{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["errorMessage"] == body["errorDetails"] == body["report"]["detailed-message"]
    assert body["report"]["request-id"]
    for word in ("Traceback", "engine/", SECRET, TOKEN):
        assert word not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/fail/there", 404, "1439-404"),
        ("/fail/stale", 412, "1404-412"),
        ("/fail/used", 400, "1418-400"),
        ("/fail/input", 400, "1400-400"),
        ("/fail/problem", 400, "1413-400"),
        ("/fail/defect", 500, "1400-500"),
        ("/nowhere", 404, "1400-404"),
        ("/echo", 405, "1400-405"),
    ],
)
def test_failures(client: TestClient, path: str, status: int, code: str) -> None:
    """Every failure has Flow Service's form; an unexpected one shows nothing of its cause."""
    check_form(client.get(path), status, code)


def test_a_defect_is_logged_without_its_text(
    client: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """P7: the log names the type of an unexpected error, not its text."""
    client.get("/fail/defect")
    said = capsys.readouterr()
    assert "RuntimeError" in said.out + said.err
    assert SECRET not in said.out + said.err


def test_addresses_are_those_of_the_proxy(client: TestClient) -> None:
    """URLs in responses are those of the configured proxy, whichever Host the client used."""
    guard, headers = client.app, {"x-api-key": TOKEN}
    assert isinstance(guard, AuthMiddleware)
    proxied = AuthMiddleware(guard.app, Secret(TOKEN), [], "https://proxy.example.org:8443")
    for called in ("http://127.0.0.1:8787", "http://proxy.example.org:8443"):
        found = TestClient(proxied, called, headers=headers).get("/where?a=b").json()
        assert found == [
            "https://proxy.example.org:8443/where?a=b",
            "https://proxy.example.org:8443/data/foundation/export/batches/b/files",
        ]
    elsewhere = TestClient(proxied, "http://etl.example.org", headers=headers)
    check_form(elsewhere.get("/where"), 403, "2120-403")
    assert client.get("/where").json()[0] == "http://127.0.0.1:8787/where"


# Who may call ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": TOKEN},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"Authorization": "Bearer other", "x-api-key": TOKEN},  # as the tutorial sends both
        {"Authorization": f"Bearer {TOKEN}", "x-api-key": "other"},
    ],
)
def test_each_token_header_suffices(client: TestClient, headers: dict[str, str]) -> None:
    """The token in either of the two headers suffices."""
    del client.headers["x-api-key"]
    try:
        assert client.get("/openapi.json", headers=headers).status_code == 200
    finally:
        client.headers["x-api-key"] = TOKEN


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "2001-401"),
        ({"Authorization": ""}, "2001-401"),
        ({"Authorization": "Bearer "}, "2001-401"),
        ({"Authorization": f"Basic {TOKEN}"}, "2001-401"),
        ({"x-api-key": ""}, "2001-401"),
        ({"x-api-key": TOKEN[:-1]}, "2115-401"),
        ({"x-api-key": f"{TOKEN}x"}, "2115-401"),
        ({"x-api-key": TOKEN.upper()}, "2115-401"),
        ({"Authorization": "Bearer \xfc"}, "2115-401"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/openapi.json", "/docs", "/metrics", "/readyz", "/nowhere", "/healthz/x", "/"]
)
def test_without_the_token_no_path_is_revealed(
    client: TestClient, headers: dict[str, str], code: str, path: str
) -> None:
    """Without the token, known and unknown paths get the same response."""
    del client.headers["x-api-key"]
    try:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = client.get(path, headers=raw)
    finally:
        client.headers["x-api-key"] = TOKEN
    check_form(answer, 401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_open(client: TestClient) -> None:
    """/healthz needs neither the token nor a known Host."""
    del client.headers["x-api-key"]
    try:
        assert client.get("/healthz", headers={"Host": "10.0.0.7"}).status_code == 200
    finally:
        client.headers["x-api-key"] = TOKEN


@pytest.mark.parametrize(
    "host", ["localhost:8787", "127.0.0.1", "[::1]:1", "ETL.example.org", "LOCALHOST"]
)
def test_allowed_host_names(client: TestClient, host: str) -> None:
    """A Host header may have an allowed name with any port."""
    assert client.get("/openapi.json", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[", "a@localhost.x"]
)
def test_dns_rebinding(client: TestClient, host: str) -> None:
    """A Host header with an unknown name is refused, which prevents DNS rebinding."""
    check_form(client.get("/openapi.json", headers={"Host": host}), 403, "2120-403")


def test_the_token_of_a_home(tmp_path: Path) -> None:
    """The token of a home is created once, is long and readable by its owner only; an empty file is
    an error.
    """
    token = token_of(tmp_path / "home")
    path = tmp_path / "home" / "api.token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == token.reveal() == token_of(tmp_path / "home").reveal()
    assert len(token.reveal()) >= 40
    assert token_of(tmp_path / "other").reveal() != token.reveal()
    path.write_text("mine\n")
    assert token_of(tmp_path / "home").reveal() == "mine"
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        token_of(tmp_path / "home")


# Bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "type_", ["application/json", "application/x-www-form-urlencoded", "text/plain", "", None]
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_is_json(client: TestClient, method: str, type_: str | None) -> None:
    """A body is read as JSON whatever its content type: curl calls the tutorial's PATCH a form."""
    headers = {} if type_ is None else {"Content-Type": type_}
    answer = client.request(method, "/echo", content='[{"op": "add"}]', headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"got": [{"op": "add"}]})


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "1405-400"),
        ("null", "1405-400"),
        (" ", "1400-400"),
        ("{", "1400-400"),
        ("{'a': 1}", "1400-400"),
        ("a=b&c=d", "1400-400"),
        ("NaN", "1400-400"),
        ("[1e999]", "1400-400"),
        (r'"\ud800"', "1400-400"),
        ("[" * 100_000, "1400-400"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "1400-400"),
    ],
)
def test_invalid_json_is_refused(client: TestClient, content: str | bytes, code: str) -> None:
    """A body that is not JSON, or that a response could not repeat as JSON, is refused."""
    check_form(client.post("/echo", content=content), 400, code)


def test_the_deepest_body(client: TestClient) -> None:
    """A body of the maximum depth is accepted, a deeper one is refused."""
    deep = "[" * DEEPEST + "]" * DEEPEST
    assert client.post("/echo", content=deep).json() == {"got": json.loads(deep)}


@pytest.mark.parametrize(
    ("path", "content"),
    [("/typed", '{"a": "x"}'), ("/typed", "[]"), ("/typed?limit=x", '{"a": 1}')],
)
def test_never_422(client: TestClient, path: str, content: str) -> None:
    """A value that a route's types refuse is a 400 with the place of the value."""
    answer = client.post(path, content=content)
    check_form(answer, 400, "1400-400")
    assert answer.json()["errorMessage"].startswith(("body", "query.limit"))


def _pieces(count: int) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield b'"'
        for _ in range(count):
            yield b"x" * 1024
        yield b'"'

    return pieces


def test_too_large(client: TestClient) -> None:
    """A body over the maximum is 413, by its header or by its length; the maximum is accepted."""
    check_form(client.post("/echo", content=b'"' + b"x" * LARGEST_BODY), 413, "1400-413")
    check_form(client.post("/echo", content=_pieces(1024)()), 413, "1400-413")
    assert client.post("/echo", content=_pieces(1023)()).status_code == 200


# Paths, and what a change does -----------------------------------------------------------


@pytest.mark.parametrize("path", ["/echo/", "/echo//", "/echo/?"])
def test_slashes_at_the_end(client: TestClient, path: str) -> None:
    """A path with slashes at its end is the same path, without a redirection."""
    answer = client.post(path, content="1", follow_redirects=False)
    assert (answer.status_code, answer.json()) == (200, {"got": 1})


def test_the_daemon_is_notified_of_changes(client: TestClient, changes: list[str]) -> None:
    """The daemon is notified of each successful change, and of no other request."""
    changes.clear()
    client.get("/openapi.json")
    client.post("/echo", content="{")
    client.post("/nowhere", content="1")
    mapping = {"mappings": [{}], "xdmSchema": SHIPPED}
    assert client.post(f"{MAPPING_SETS}/validate/", json=mapping).status_code == 200
    preview = {"data": [], "mappingSet": {"mappings": [ONE], "xdmSchema": SHIPPED}}
    assert client.post(f"{MAPPING_SETS}/preview", json=preview).status_code == 200
    assert changes == []
    client.post("/echo", content="1")
    client.patch("/echo", content="1")
    assert changes == ["changed"] * 2


# The pages -------------------------------------------------------------------------------


def test_openapi(client: TestClient) -> None:
    """The OpenAPI document has the authentication and the errors, and no 422."""
    document = client.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"key": []}]
    assert document["paths"]["/healthz"]["get"]["security"] == []
    typed = document["paths"]["/typed"]["post"]["responses"]
    assert set(typed) == {"200", "400", "401", "403", "404", "405", "406", "413", "414", "415"}
    assert "Validation" not in json.dumps(document)
    assert DOCS not in document["paths"]


def test_the_page(client: TestClient) -> None:
    """The page loads nothing from another host, by its policy too; a browser gets it without a
    token.
    """
    html = client.get("/docs").text
    assert client.get("/docs").status_code == 200
    assert "//" not in html.replace("//www.w3.org", "").split("<script>")[0]
    assert "http" not in html
    policy = page().headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    del client.headers["x-api-key"]
    try:
        asked = client.get("/docs", headers={"Accept": "text/html,*/*"})
    finally:
        client.headers["x-api-key"] = TOKEN
    assert (asked.status_code, asked.text) == (401, html)
