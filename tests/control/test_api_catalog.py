"""Datasets and schemas as other people's clients read and change them; and the one sandbox."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.resources import new
from engine.control.api.app_state import AppState
from tests.support.api_client import DATASETS, SCHEMAS, SHIPPED, problem, served

Client = Any
Json = dict[str, Any]
SANDBOXES = "/data/foundation/sandbox-management/sandboxes"
OWN: Json = {
    "title": "Prices",
    "description": "What things cost.",
    "type": "object",
    "properties": {
        "_shop": {
            "type": "object",
            "properties": {
                "price": {"type": "number", "title": "Price"},
                "title": {"type": "string", "description": "of the thing"},
            },
        }
    },
}


@pytest.fixture
def state_and_client(tmp_path: Path) -> Iterator[tuple[AppState, Client]]:
    with served(tmp_path) as (client, state):
        yield state, client


@pytest.fixture
def client(state_and_client: tuple[AppState, Client]) -> Client:
    return state_and_client[1]


def dataset(client: Client, **more: Any) -> str:
    body = {"name": "Items sold", "schemaRef": {"id": SHIPPED}} | more
    return str(client.post(DATASETS, json=body).json()[0].rpartition("/")[2])


def shown(client: Client, id_: str) -> Json:
    found: Json = client.get(f"{DATASETS}/{id_}").json()[id_]
    return found


def test_a_dataset_has_what_clients_index(client: Client) -> None:
    """aepp reads `classification`, the table's tag and the rest without a look for them."""
    found = shown(client, dataset(client))
    assert found["classification"] == {"dataBehavior": "time-series", "managedBy": "CUSTOMER"}
    assert found["tags"] == {"adobe/pqs/table": ["items_sold"]}
    assert {"state", "namespace", "version", "imsOrg", "basePath", "files"} <= found.keys()
    own = shown(client, dataset(client, tags={"adobe/pqs/table": ["sold"], "a": ["b"]}))
    assert own["tags"] == {"adobe/pqs/table": ["sold"], "a": ["b"]}


@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({"name": "new"}, {"name": "new"}),
        ({"description": "text"}, {"description": "text"}),
        ({"description": None}, {"description": None}),
        ({"tags": {"b": ["2"]}}, {"tags": {"a": ["1"], "b": ["2"]}}),
        ({"tags": {"a": None}}, {"tags": {}}),
        ({"name": "new", "schemaRef": {"id": SHIPPED}}, {"name": "new"}),
        ([{"op": "replace", "path": "/name", "value": "new"}], {"name": "new"}),
        ([{"op": "add", "path": "/tags/unifiedProfile", "value": ["enabled:true"]}],
         {"tags": {"a": ["1"], "unifiedProfile": ["enabled:true"]}}),
        ([{"op": "remove", "path": "/tags/a"}], {"tags": {}}),
    ],
)  # fmt: skip
def test_a_dataset_changes(client: Client, patch: Any, after: Json) -> None:
    """By a merge or by a JSON Patch: its name, its description and its tags."""
    id_ = dataset(client, tags={"a": ["1"]})
    before = shown(client, id_)
    answer = client.patch(f"{DATASETS}/{id_}", json=patch)
    assert (answer.status_code, answer.json()) == (200, [f"@/dataSets/{id_}"]), answer.text
    found = shown(client, id_)
    for name, value in after.items():
        if name == "tags":
            value = {"adobe/pqs/table": ["items_sold"]} | value
        assert found.get(name) == value
    assert found["basePath"] == before["basePath"]
    assert client.delete(f"{DATASETS}/{id_}").status_code == 200


@pytest.mark.parametrize(
    "patch",
    [
        {"schemaRef": {"id": "other"}},
        {"uri": "/etc"},
        {"name": ""},
        {"name": None},
        {"name": 5},
        {"description": ["x"]},
        {"tags": ["x"]},
        {"tags": {"a": "b"}},
        {"tags": {"a": [1]}},
        {"basePath": "/etc"},
        {},
        [],
        [{"op": "replace", "path": "/schemaRef/id", "value": "x"}],
        [{"op": "remove", "path": "/name"}],
        [{"op": "add", "path": "/uri", "value": "/etc"}],
        [{"op": "add", "path": "", "value": {}}],
        [{"op": "move", "from": "/name", "path": "/description"}],
        ["x"],
        "text",
    ],
)
def test_what_of_a_dataset_does_not_change(client: Client, patch: Any) -> None:
    """Its schema, its place, and whatever is no name, description or tag."""
    id_ = dataset(client)
    before = client.get(f"{DATASETS}/{id_}")
    assert client.patch(f"{DATASETS}/{id_}", json=patch).status_code == 400
    assert client.get(f"{DATASETS}/{id_}").json() == before.json()
    assert client.get(f"{DATASETS}/{id_}").headers["etag"] == before.headers["etag"]


def test_a_change_is_of_a_version_and_of_what_is_a_clients(
    state_and_client: tuple[AppState, Client],
) -> None:
    """412 for a stale If-Match, 404 for what is not there, 400 for what a file declares."""
    state, client = state_and_client
    path = f"{DATASETS}/{dataset(client)}"
    problem(client.patch(path, json={"name": "x"}, headers={"If-Match": "stale"}), "1404-412")
    problem(client.patch(f"{DATASETS}/none", json={"name": "x"}), "1439-404")
    body = {"name": "d", "schemaRef": {"id": SHIPPED}, "uri": "/data/events"}
    state.resources.create(new("dataSets", body, 0, id_="0" * 24, origin="flows.toml"))
    assert "flows.toml" in problem(client.patch(f"{DATASETS}/{'0' * 24}", json=body), "1400-400")


# Schemas -------------------------------------------------------------------------------------


def schema(client: Client) -> tuple[str, Json]:
    answer = client.post(SCHEMAS, json=OWN)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return f"{SCHEMAS}/{found['meta:altId']}", found


PRICE = "/properties/_shop/properties/price"


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "replace", "path": "/title", "value": "new"}],
        [{"op": "remove", "path": "/description"}],
        [{"op": "add", "path": "/meta:immutableTags", "value": ["union"]}],
        [{"op": "replace", "path": f"{PRICE}/title", "value": "In euros"}],
        [{"op": "add", "path": f"{PRICE}/description", "value": "text"}],
        {"title": "new", "description": "also"},
        {"properties": {"_shop": {"properties": {"price": {"title": "In euros"}}}}},
    ],
)
def test_a_schema_changes(client: Client, patch: Any) -> None:
    """What it says in words, of itself and of its fields; it is answered whole."""
    path, before = schema(client)
    answer = client.patch(path, json=patch)
    assert answer.status_code == 200, answer.text
    after = client.get(path).json()
    assert answer.json() == after != before
    assert after["$id"] == before["$id"]


@pytest.mark.parametrize(
    "patch",
    [
        [{"op": "remove", "path": PRICE}],
        [{"op": "replace", "path": f"{PRICE}/type", "value": "string"}],
        [{"op": "add", "path": f"{PRICE}/meta:xdmType", "value": "int"}],
        [{"op": "add", "path": f"{PRICE}/maximum", "value": 5}],
        [{"op": "remove", "path": "/properties/_shop/properties/title"}],
        [{"op": "add", "path": "/properties/more", "value": {"type": "string"}}],
        [{"op": "add", "path": "/required", "value": ["_shop"]}],
        [{"op": "replace", "path": "/$id", "value": "x"}],
        [{"op": "replace", "path": "/meta:altId", "value": "x"}],
        [{"op": "remove", "path": "/title"}],
        {"properties": {"_shop": {"properties": {"title": None}}}},
        {"title": 5},
        {"$id": "x"},
        {},
    ],
)
def test_what_of_a_schema_does_not_change(client: Client, patch: Any) -> None:
    """Whatever the table of its dataset has, a field called title among it; and its names."""
    path, before = schema(client)
    dataset(client, schemaRef={"id": before["$id"]})
    assert client.patch(path, json=patch).status_code == 400
    assert client.get(path).json() == before


def test_a_schema_without_a_dataset_gets_other_fields(client: Client) -> None:
    """By PATCH and by PUT, as long as no dataset has it; its names are the registry's."""
    path, before = schema(client)
    more = {"op": "add", "path": "/properties/more", "value": {"type": "string"}}
    assert "more" in client.patch(path, json=[more]).json()["properties"]
    replaced = client.put(path, json=OWN | {"title": "Again", "$id": "x"}).json()
    assert replaced["$id"] == before["$id"]
    assert "more" not in client.get(path).json()["properties"]
    assert client.patch(path, json=[more | {"path": "/$id", "value": "x"}]).status_code == 400
    bad = more | {"value": {"type": "complex"}}
    assert "complex" in problem(client.patch(path, json=[bad]), "1400-400")


def test_the_shipped_schema_does_not_change(client: Client) -> None:
    """It is the program's."""
    path = f"{SCHEMAS}/_extconndev.schemas.mixpanel-events"
    assert "mixpanel-events.json" in problem(client.patch(path, json={"title": "x"}), "1400-400")
    own, _ = schema(client)
    problem(client.patch(own, json={"title": "x"}, headers={"If-Match": '"stale"'}), "1404-412")


# Sandboxes -----------------------------------------------------------------------------------


def test_there_is_one_sandbox(client: Client) -> None:
    """Clients ask for it at their start."""
    (prod,) = client.get(SANDBOXES).json()["sandboxes"]
    assert client.get(f"{SANDBOXES}/prod").json() == prod
    assert (prod["name"], prod["state"], prod["isDefault"]) == ("prod", "active", True)
    assert client.get(f"{SANDBOXES}?limit=1&offset=1").json()["sandboxes"] == []
    problem(client.get(f"{SANDBOXES}/dev"), "1439-404")
