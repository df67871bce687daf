"""Which hosts the daemon may call for its clients, and which texts it refuses."""

from base64 import b32encode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, new
from engine.config.file import Api, Config, load
from engine.control import declared_flows, to_flow
from engine.control.api.app import FLOWSERVICE, app_of
from engine.control.api.app_state import AppState
from engine.control.api.server import Server
from engine.control.secrets import secret_store_of
from engine.errors import InputError
from engine.sync import sample
from tests.support.api_client import (
    CONNECTIONS,
    DATASETS,
    MAPPING_SETS,
    MIXPANEL,
    SCHEMAS,
    SHIPPED,
    keep_connection,
    keep_source,
    problem,
)

Json = dict[str, Any]
SECRET = "8iQbnjuk5/of+nobody"


@contextmanager
def app_state(home: Path) -> Iterator[AppState]:
    """A state whose clients may use Mixpanel's own hosts and one more."""
    with Catalog(home) as catalog:
        yield AppState(
            home, catalog, secret_store_of(home), home / "data", {},
            lambda: 1, lambda: None,
            hosts={"http://127.0.0.1:8080"},
        )  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Iterator[AppState]:
    with app_state(tmp_path) as state:
        yield state


@pytest.fixture(scope="module")
def empty_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppState]:
    """A state without connections, for requests that are all refused."""
    with app_state(tmp_path_factory.mktemp("empty")) as state:
        yield state


@pytest.fixture
def client(state: AppState) -> TestClient:
    return TestClient(app_of(state))


def connection(host: str | None = None, **more: Any) -> Json:
    params = {"username": "reader", "password": SECRET} | ({"host": host} if host else {})
    auth = {"specName": "Basic Authentication", "params": params}
    return {"name": "n", "connectionSpec": {"id": MIXPANEL}, "auth": auth} | more


# Hosts -------------------------------------------------------------------------------------

TAKEN = [
    None, "us", "EU", "in", "https://data.mixpanel.com", "https://DATA-eu.mixpanel.com:443",
    "http://127.0.0.1:8080", "http://127.0.0.1:8080/",
]  # fmt: skip
OTHERS = [
    "http://127.0.0.1:22", "http://127.0.0.1", "https://127.0.0.1:8080", "http://localhost:8080",
    "http://169.254.169.254", "https://data.mixpanel.com.evil.example", "https://mixpanel.com",
    "http://data.mixpanel.com", "https://data.mixpanel.com:8443", "https://data.mixpanel.com.",
    "http://[::1]:8080", "http://0x7f.1:8080", "https://data.mixpanel.com@evil.example",
]  # fmt: skip


@pytest.mark.parametrize("host", TAKEN)
def test_allowed_hosts(client: TestClient, host: str | None) -> None:
    """Mixpanel's own hosts, in any spelling, and those of the configuration are allowed."""
    assert client.post(CONNECTIONS, json=connection(host)).status_code == 201


@pytest.mark.parametrize("host", OTHERS)
def test_other_hosts_are_refused(state: AppState, client: TestClient, host: str) -> None:
    """A connection to another host is refused by POST and by PATCH, without any request."""
    said = problem(client.post(CONNECTIONS, json=connection(host)), "1400-400")
    assert host not in said or "@" not in host
    path = f"{CONNECTIONS}/{client.post(CONNECTIONS, json=connection()).json()['id']}"
    params = connection(host)["auth"]["params"]
    for patch in (
        [{"op": "add", "path": "/auth/params", "value": params}],
        [{"op": "add", "path": "/auth/params/host", "value": host},
         {"op": "add", "path": "/auth/params/password", "value": SECRET}],
    ):  # fmt: skip
        problem(client.patch(path, json=patch, headers={"If-Match": "*"}), "1400-400")
    assert "host" not in client.get(path).json()["items"][0]["auth"]["params"]


def test_a_stored_connection_to_another_host_is_not_called(
    state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored connection to another host is neither tested nor explored, and its flow says why it
    does not run.
    """
    monkeypatch.setattr(sample, "sample", pytest.fail)
    base = keep_connection(state, "http://127.0.0.1:22", SECRET, projectId="7")
    for call in ("test", "explore?objectType=rest"):
        said = problem(client.get(f"{CONNECTIONS}/{base}/{call}"), "1400-400")
        assert "mixpanel_hosts" in said
    flow = stored_flow(state, base)
    flows, problems = to_flow.flows(state.resources, state.secret_store, state.datasets, None)
    assert flow not in flows
    assert base in problems[flow]
    assert "mixpanel_hosts" in problems[flow]
    assert SECRET not in problems[flow]
    hosts = {"http://127.0.0.1:22"}
    assert (
        flow in to_flow.flows(state.resources, state.secret_store, state.datasets, None, hosts)[0]
    )
    days = {"windowStartTime": 1, "windowEndTime": 2}
    body = {"flowId": flow, "params": days}
    assert "mixpanel_hosts" in problem(client.post(f"{FLOWSERVICE}/runs", json=body), "1400-400")


def test_without_a_configuration_any_host_is_allowed(state: AppState, client: TestClient) -> None:
    """A command that reads a home without its daemon's file cannot know the allowed hosts, and
    refuses no flow.
    """
    flow = stored_flow(state, keep_connection(state, "http://127.0.0.1:22", SECRET))
    own = Config(state.catalog.path.parent, {})
    flows, problems = declared_flows.flows_in_home(own, None)
    assert (list(flows), problems) == ([flow], {})
    _, problems = declared_flows.flows_in_home(own, state.catalog.path.parent / "flows.toml")
    assert "mixpanel_hosts" in problems[flow]


def test_a_file_may_name_any_host(state: AppState, client: TestClient) -> None:
    """A configuration file may name any host: its author runs the daemon."""
    base = keep_connection(state, "http://127.0.0.1:22", SECRET)

    def applied(before: Resource) -> tuple[Resource, list[str]]:
        return replace(before, origin="flows.toml"), []

    state.resources.change("connections", base, None, 1, applied)
    flow = stored_flow(state, base)
    flows, problems = to_flow.flows(state.resources, state.secret_store, state.datasets, None)
    assert (list(flows), problems) == ([flow], {})


def stored_flow(state: AppState, base: str) -> str:
    """Store a flow of a connection without its checks; return its id."""

    def keep(kind: str, body: Json) -> str:
        made = new(kind, body, 1)
        state.resources.create(made)
        return made.id

    dataset = keep("dataSets", {"name": "d", "schemaRef": {"id": SHIPPED}})
    mapping = {"xdmSchema": SHIPPED, "mappings": []}
    return keep(
        "flows",
        {
            "flowSpec": {"id": "6499120c-0b15-42dc-936e-847ea3c24d72"},
            "sourceConnectionIds": [keep_source(state, base)],
            "targetConnectionIds": [keep("targetConnections", {"params": {"dataSetId": dataset}})],
            "transformations": [
                {"params": {"mappingId": keep("mappingSets", {"versions": [mapping]})}}
            ],
            "scheduleParams": {"startTime": 1, "frequency": "hour", "interval": 1},
        },
    )


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ('["http://127.0.0.1:8080/"]', ("http://127.0.0.1:8080",)),
        ('["https://Proxy.example.org:443", "eu"]',
         ("https://proxy.example.org", "https://data-eu.mixpanel.com")),
    ],
)  # fmt: skip
def test_the_configuration_adds_hosts(tmp_path: Path, value: str, hosts: tuple[str, ...]) -> None:
    """In the table [api], as the scheme and host of a URL."""
    path = tmp_path / "etl.toml"
    path.write_text(f"[api]\nmixpanel_hosts = {value}\n")
    api = load(path, {}).api
    assert api
    assert api.mixpanel_hosts == hosts


@pytest.mark.parametrize("value", ['"eu"', "[]", "[5]", '["x"]', '["http://a/b"]', '["*"]'])
def test_what_is_no_host(tmp_path: Path, value: str) -> None:
    """The key is named."""
    path = tmp_path / "etl.toml"
    path.write_text(f"[api]\nmixpanel_hosts = {value}\n")
    with pytest.raises(InputError, match=r"api\.mixpanel_hosts: must be a list of schemes"):
        load(path, {})


def test_a_daemon_follows_its_file(tmp_path: Path) -> None:
    """A host that was removed from the configuration is no longer called."""
    first = Api(port=0, mixpanel_hosts=("http://127.0.0.1:1", "http://127.0.0.1:2"))
    server = Server(tmp_path, first, {}, lambda: 1, lambda: None, tuple)
    path = tmp_path / "etl.toml"
    path.write_text('[api]\nmixpanel_hosts = ["http://127.0.0.1:2", "http://127.0.0.1:3"]\n')
    with server._socket, server.state.catalog:
        assert server.state.hosts == set(first.mixpanel_hosts)
        server.follow(load(path, {}), str(path))
        assert server.state.hosts == {"http://127.0.0.1:2", "http://127.0.0.1:3"}


# Texts -------------------------------------------------------------------------------------

FORMS: list[Callable[[str], str]] = [
    lambda secret: secret,
    lambda secret: f"the password is {secret}!",
    lambda secret: f"curl -u reader:{secret} …",
    lambda secret: quote(secret, safe=""),
    lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
    lambda secret: quote(quote(secret, safe="")),
    lambda secret: escape(secret).replace("h", "&#104;"),
    lambda secret: "".join(f"\\u{ord(sign):04x}" for sign in secret),
    lambda secret: secret.encode().hex(),
    lambda secret: secret.encode().hex(":").upper(),
    lambda secret: b32encode(secret.encode()).decode().rstrip("="),
    lambda secret: urlsafe_b64encode(f"reader:?~{secret}".encode()).decode(),
    lambda secret: secret[::-1],
    lambda secret: f"{secret[:3]}\u200b{secret[3:]}",
    lambda secret: f"Basic {b64encode(f'reader:{secret}'.encode()).decode()}",
]
PLACES: list[Callable[[str], Json]] = [
    lambda text: {"description": text},
    lambda text: {"name": text},
    lambda text: {"tags": [{"note": text}]},
    lambda text: {"tags": {text: 1}},
    lambda text: {text: "x"},
    lambda text: {"labels": ["a", [text]]},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_text_with_the_password_is_refused(
    empty_state: AppState, form: Callable[[str], str], place: Callable[[str], Json]
) -> None:
    """P7: a password in any text and encoding is refused, not stored, and not repeated."""
    client = TestClient(app_of(empty_state))
    answer = client.post(CONNECTIONS, json=connection(None, **place(form(SECRET))))
    problem(answer, "1400-400")
    assert form(SECRET) not in answer.text
    assert empty_state.resources.all("connections") == []


def test_a_patch_brings_no_password_into_a_text(client: TestClient) -> None:
    """Neither by the text, nor by a password that a text already has."""
    body = connection(None, description="hunter2-of-nobody")
    path = f"{CONNECTIONS}/{client.post(CONNECTIONS, json=body).json()['id']}"
    for value in (
        {"path": "/description", "value": f"see {SECRET}"},
        {"path": "/auth/params/password", "value": "hunter2-of-nobody"},
        {"path": "/auth/params/username", "value": f"{SECRET}"},
    ):
        patch = [{"op": "replace"} | value]
        assert client.patch(path, json=patch, headers={"If-Match": "*"}).status_code == 400


def test_no_other_resource_holds_it_either(state: AppState, client: TestClient) -> None:
    """A source connection, a dataset, a schema, a mapping set."""
    base = client.post(CONNECTIONS, json=connection()).json()["id"]
    source = {
        "name": SECRET,
        "baseConnectionId": base,
        "connectionSpec": {"id": MIXPANEL},
        "data": {"format": "json"},
        "params": {"projectId": 5},
    }
    schema = {"title": SECRET, "properties": {"a": {"type": "string"}}}
    mappings = {"mappings": [{}], "xdmSchema": SHIPPED, "description": SECRET}
    for path, body in (
        (f"{FLOWSERVICE}/sourceConnections", source),
        (DATASETS, {"name": SECRET, "schemaRef": {"id": SHIPPED}}),
        (SCHEMAS, schema),
        (f"{MAPPING_SETS}?validate=false", mappings),
    ):
        answer = client.post(path, json=body)
        problem(answer, "1400-400")
        assert SECRET not in answer.text
    assert client.post(SCHEMAS, json=schema | {"title": "plain"}).status_code == 201


def test_a_short_password_is_found_as_a_whole_text_alone(client: TestClient) -> None:
    """A short password is found as a whole text only, as it is part of many words."""
    body = connection(None, description="a new connection")
    body["auth"]["params"]["password"] = "new"
    assert client.post(CONNECTIONS, json=body).status_code == 201
    problem(client.post(CONNECTIONS, json=body | {"description": " new "}), "1400-400")


def test_line_ends_are_no_part_of_credentials(state: AppState, client: TestClient) -> None:
    """Line ends around credentials, as shells leave them, are removed."""
    body = connection()
    body["auth"]["params"] |= {"username": "reader\n", "password": f"{SECRET}\r\n", "host": "eu\n"}
    id_ = client.post(CONNECTIONS, json=body).json()["id"]
    kept = state.resources.get("connections", id_)
    assert kept.secret
    assert state.secret_store.decrypt(kept.secret) == {"password": SECRET}
    assert kept.body["auth"]["params"]["username"] == "reader"
