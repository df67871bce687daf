"""docs/openapi-coverage.md says of the official files' operations what the application does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import served

ROOT = Path(__file__).parents[1]
OFFICIAL: dict[str, list[str]] = json.loads(
    (ROOT / "fixtures/adobe_operations.json").read_text("utf-8")
)
DOCUMENT = (ROOT.parent / "docs/openapi-coverage.md").read_text("utf-8")
BASES = {
    "flow-service": ("Flow Service", "/data/foundation/flowservice"),
    "data-prep": ("Data Prep", "/data/foundation/conversion"),
    "data-access": ("Data Access", "/data/foundation/export"),
    "catalog": ("Catalog", "/data/foundation/catalog"),
    "schema-registry": ("Schema Registry", "/data/foundation/schemaregistry"),
}
WHOLE = ("flow-service", "data-prep")  # of which every operation is in the document


def documented(heading: str) -> dict[str, str]:
    """The operations in the table under a heading, with the cell that follows."""
    (part,) = re.findall(rf"^## {heading}$(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)
    rows: list[tuple[str, str]] = re.findall(r"^\| `([A-Z]+ \S+)` \| (.*?) \|", part, re.M)
    assert len(rows) == len(dict(rows))
    return dict(rows)


def route(operation: str, base: str = "") -> str:
    """An operation as it can be compared, whatever its parameters are called."""
    method, path = operation.split(" ")
    path = path.replace("{CONTAINER_ID}", "tenant").rstrip("/")
    path = path if "/behaviors" in path else path.replace("/global/", "/tenant/")
    return f"{method} {base}{re.sub('{[^}]+}', '{}', path)}"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with served(tmp_path_factory.mktemp("home")) as (client, _):
        paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    return {route(f"{method.upper()} {path}") for path, calls in paths.items() for method in calls}


@pytest.mark.parametrize("service", BASES)
def test_what_is_said_of_a_service(service: str, ours: set[str]) -> None:
    """What the table calls answered is a route, and what is a route is called answered."""
    heading, base = BASES[service]
    rows, official = documented(heading), OFFICIAL[service]
    assert set(rows) <= set(official)
    if service in WHOLE:
        assert list(rows) == official
    else:
        assert f"The file has {len(official)} operations." in DOCUMENT
    assert set(rows.values()) <= {"yes", "no"}
    answered = {operation for operation in official if route(operation, base) in ours}
    assert {operation for operation, word in rows.items() if word == "yes"} == answered


def test_what_is_ours_alone(ours: set[str]) -> None:
    """The routes that no official file has are named too."""
    theirs = {
        route(operation, base)
        for service, (_, base) in BASES.items()
        for operation in OFFICIAL[service]
    }
    assert {route(each) for each in documented("Ours alone")} == ours - theirs
