"""A state of the control plane, and a client of its application without a server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from engine.catalog.database import Catalog
from engine.catalog.resources import new
from engine.control.api.app import CATALOG, CONVERSION, FLOWSERVICE, REGISTRY, app_of
from engine.control.api.app_state import AppState
from engine.control.secrets import secret_store_of
from engine.model.clock import now as machine
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME

CONNECTIONS = f"{FLOWSERVICE}/connections"
DATASETS = f"{CATALOG}/dataSets"
MAPPING_SETS = f"{CONVERSION}/mappingSets"
SCHEMAS = f"{REGISTRY}/tenant/schemas"

MIXPANEL = "6360f136-5980-4111-8bdf-15d29eab3b5a"  # the tutorial's id of its specification
SHIPPED = "https://ns.adobe.com/extconndev/schemas/mixpanel-events"


class AnyLoopback(set[str]):
    """The hosts that a sandbox may have, before it is known which port it gets."""

    def __contains__(self, origin: object) -> bool:
        return str(origin).startswith("http://127.0.0.1:")


@contextmanager
def served(
    home: Path, environ: Mapping[str, str] | None = None, now: Callable[[], int] = machine
) -> Iterator[tuple[TestClient, AppState]]:
    """A client of the routes, without authentication, and the state that they share."""
    with Catalog(home) as catalog:
        state = AppState(
            home, catalog, secret_store_of(home), home / "datasets", environ or {},
            now, lambda: None,
            hosts=AnyLoopback(),
        )  # fmt: skip
        yield TestClient(app_of(state)), state


def keep_connection(state: AppState, host: str, password: str = PASSWORD, **params: str) -> str:
    """A base connection to the sandbox at `host`; its id."""
    body = {
        "name": "shop",
        "connectionSpec": {"id": MIXPANEL, "version": "1.0"},
        "auth": {
            "specName": "Basic Authentication",
            "params": {"host": host, "username": USERNAME, "password": "xxxx", **params},
        },
    }
    made = new(
        "connections", body, state.now(), secret=state.secret_store.encrypt({"password": password})
    )
    state.resources.create(made)
    return made.id


def keep_source(state: AppState, connection: str, project: str = str(PROJECT_ID)) -> str:
    """A source connection of that base connection; its id."""
    body = {
        "name": "shop",
        "baseConnectionId": connection,
        "connectionSpec": {"id": MIXPANEL, "version": "1.0"},
        "data": {"format": "json"},
        "params": {"projectId": project, "timezone": "Pacific Standard Time"},
    }
    made = new("sourceConnections", body, state.now())
    state.resources.create(made)
    return made.id


def problem(answer: Any, number: str) -> str:
    """Check that a response is the problem of that number; return its message."""
    body = answer.json()
    assert body["type"] == f"https://ns.adobe.com/aep/errors/FLOW-{number}", body
    assert answer.status_code == body["status"] == int(number[-3:])
    assert body["errorMessage"] == body["errorDetails"] == body["report"]["detailed-message"]
    return str(body["errorMessage"])
