"""A server of the control plane's routes, and a client that calls it."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from engine.catalog.database import Catalog
from engine.catalog.resources import new
from engine.config.shipped_files import find
from engine.control.api.app import FLOWSERVICE, app_of
from engine.control.api.app_state import AppState
from engine.control.api.server import _listening
from engine.control.secrets import secret_store_of
from engine.model.clock import now
from tests.support.api_client import AnyLoopback

Json = dict[str, Any]
MIXPANEL = "6360f136-5980-4111-8bdf-15d29eab3b5a"
PASSWORD = "8iQbnjuk5-of-nobody"
CURLS = Path(__file__).parents[1] / "fixtures" / "tutorial_curls.json"


@dataclass
class Answer:
    status: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The code of an error, as "1403-400"."""
        assert self.body["status"] == self.status
        assert self.body["errorMessage"]
        return str(self.body["type"].partition("FLOW-")[2])


@dataclass
class Served:
    """A control plane that answers at `url`, without a guard, and all that it works with."""

    url: str
    state: AppState
    client: httpx.Client

    def call(self, method: str, path: str, body: Any = None, etag: str | None = None) -> Answer:
        """One call of Flow Service's; a body that is no text is sent as JSON."""
        content = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        headers = {} if etag is None else {"If-Match": etag}
        address = self.url + FLOWSERVICE + path
        answer = self.client.request(method, address, content=content, headers=headers)
        return Answer(answer.status_code, answer.text)

    def make(self, kind: str, body: Json) -> str:
        """Make a resource; its id."""
        made = self.call("POST", f"/{kind}", body)
        assert made.status == 201, made.text
        return str(made.body["id"])

    def show(self, kind: str, id_: str) -> Json:
        """The one item of a resource."""
        (item,) = self.call("GET", f"/{kind}/{id_}").body["items"]
        assert isinstance(item, dict)
        return item

    def keep(self, kind: str, body: Json) -> str:
        """Make a resource of another part's, past its routes; its id."""
        resource = new(kind, body, now())
        self.state.resources.create(resource)
        return resource.id

    def connection(self, host: str = "https://data.mixpanel.com") -> str:
        body = tutorial("connections")
        body["auth"]["params"] |= {"host": host, "password": PASSWORD}
        return self.make("connections", body)

    def source(self, base: str | None = None, **params: Any) -> str:
        body = tutorial("sourceConnections") | {"baseConnectionId": base or self.connection()}
        given: Json = {"projectId": "2384945", "timezone": "Pacific Standard Time"}
        return self.make("sourceConnections", body | {"params": given | params})

    def target(self) -> str:
        schema = self.keep("schemas", find("schema", "mixpanel-events")[1] | {"$id": fresh("s")})
        dataset = self.keep("dataSets", {"name": "d", "schemaRef": {"id": schema}})
        body = tutorial("targetConnections") | {"params": {"dataSetId": dataset}}
        return self.make("targetConnections", body)

    def mapping(self, **more: Any) -> str:
        rules = {"version": 0, "mappings": tutorial("mappingSets")["mappings"]} | more
        return self.keep("mappingSets", rules | {"versions": [rules]})

    def flow_body(self, **changes: Any) -> Json:
        """Make all that the tutorial's flow needs, and return the body of that flow."""
        body = tutorial("flows") | {
            "sourceConnectionIds": [self.source()],
            "targetConnectionIds": [self.target()],
            "transformations": [
                {"name": "Mapping", "params": {"mappingId": self.mapping(), "mappingVersion": "0"}}
            ],
        }
        return body | changes


_NUMBERS = iter(range(1_000_000))


def fresh(name: str) -> str:
    """A name that nothing else has."""
    return f"https://ns.adobe.com/tests/schemas/{name}{next(_NUMBERS)}"


@cache
def _curls() -> str:
    return CURLS.read_text()


def curls() -> list[Json]:
    """The tutorial's eleven calls."""
    found: list[Json] = json.loads(_curls())
    return found


def tutorial(kind: str) -> Json:
    """The body that the tutorial posts to a collection, its own copy."""
    (body,) = [
        each["body"]
        for each in curls()
        if each["method"] == "POST" and each["url"].endswith(f"/{kind}")
    ]
    assert isinstance(body, dict)
    return body


@contextmanager
def serving(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A control plane at home in `folder`, until the end."""
    with Catalog(folder / "home") as catalog, _listening("127.0.0.1", 0) as listening:
        state = AppState(
            folder / "home",
            catalog,
            secret_store_of(folder / "home"),
            folder / "datasets",
            environ or {},
            now,
            lambda: None,
            hosts=AnyLoopback(),
        )
        server = uvicorn.Server(uvicorn.Config(app_of(state), lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client() as client:
                yield Served(url, state, client)
        finally:
            server.should_exit = True
            thread.join()
