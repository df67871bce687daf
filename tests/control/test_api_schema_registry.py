"""Schemas, datasets and specifications through the control plane."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft7Validator

from engine.catalog.resources import new
from engine.control.api.app import FLOWSERVICE
from engine.control.api.schema_registry import store_shipped_schema
from engine.transform.schema import Schema
from tests.support.api_client import DATASETS, MIXPANEL, SCHEMAS, SHIPPED, problem, served

Client = Any
Json = dict[str, Any]
DOCUMENT: Json = json.loads(
    (Path(__file__).parents[2] / "schemas/mixpanel-events.json").read_text()
)
OWN = {
    "type": "object",
    "title": "Prices",
    "description": "What things cost.",
    "properties": {"_shop": {"type": "object", "properties": {"price": {"$ref": "#/$defs/price"}}}},
    "$defs": {"price": {"type": "number"}},
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with served(tmp_path) as (client, _):
        yield client


def made(client: Client, **changes: Any) -> Json:
    answer = client.post(SCHEMAS, json=OWN | changes)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def at(name: str) -> str:
    return f"{SCHEMAS}/{quote(name, safe='')}"


# Schemas ------------------------------------------------------------------------------------


def test_the_shipped_schema_is_there(client: Client) -> None:
    """Without anybody's doing: a person can follow the tutorial without making one."""
    (listed,) = client.get(SCHEMAS).json()["results"]
    shown = client.get(at(SHIPPED)).json()
    assert listed == shown == client.get(at("_extconndev.schemas.mixpanel-events")).json()
    assert shown.items() >= DOCUMENT.items()
    assert "mixpanel-events.json" in problem(client.delete(at(SHIPPED)), "1400-400")
    assert client.get(at(SHIPPED)).status_code == 200


def test_a_new_program_brings_its_own(tmp_path: Path) -> None:
    """What an older version of the program kept as the shipped schema is replaced, once."""
    with served(tmp_path) as (client, state):
        first = state.resources.get("schemas", SHIPPED)
        store_shipped_schema(state)
        assert state.resources.get("schemas", SHIPPED) == first
        state.resources.delete("schemas", SHIPPED)
        old = new("schemas", DOCUMENT | {"title": "old"}, 0, id_=SHIPPED, origin="schemas/x.json")
        state.resources.create(old)
        store_shipped_schema(state)
        assert client.get(at(SHIPPED)).json()["title"] == DOCUMENT["title"]


def test_a_files_schema_beside_the_shipped_one(tmp_path: Path) -> None:
    """What a file applied may have the shipped `$id`: it is listed once, and the id means ours."""
    with served(tmp_path) as (client, state):
        state.resources.delete("schemas", SHIPPED)
        theirs = new("schemas", DOCUMENT, 0, origin="flows.toml")
        state.resources.create(theirs)
        store_shipped_schema(state)
        assert len(client.get(SCHEMAS).json()["results"]) == 1
        client.post(DATASETS, json={"name": "d", "schemaRef": {"id": SHIPPED}})
        assert state.resources.users(SHIPPED)
        assert not state.resources.users(theirs.id)


def test_making_a_schema(client: Client) -> None:
    """201 with an `$id` of ours; the same by `$id` and by `meta:altId`; the engine can use it."""
    shown = made(client, **{"$id": "https://example.com/another", "meta:altId": "another"})
    found = re.fullmatch(r"https://ns\.adobe\.com/extconndev/schemas/([0-9a-f]{48})", shown["$id"])
    assert found
    assert shown["meta:altId"] == f"_extconndev.schemas.{found[1]}"
    assert shown["version"] == "1.0"
    registered = shown["meta:registryMetadata"]
    assert registered["repo:createdDate"] == registered["repo:lastModifiedDate"]
    assert shown.items() >= OWN.items()
    written = {"Accept": "application/vnd.adobe.xed+json; version=1"}
    assert client.get(at(shown["$id"]), headers=written).json() == shown
    assert client.get(f"{at(shown['meta:altId'])}/", headers=written).json() == shown
    field = Schema.parse("it", shown).find(("_shop", "price"))
    assert field
    assert field.type == "number"


def test_lists_long_and_short(client: Client) -> None:
    """`Accept: …xed-id+json` asks for the names alone."""
    own = made(client)
    every = client.get(SCHEMAS).json()
    assert [each["$id"] for each in every["results"]] == [SHIPPED, own["$id"]]
    assert every["_page"]["count"] == 2
    short = client.get(SCHEMAS, headers={"Accept": "application/vnd.adobe.xed-id+json"}).json()
    assert [each["title"] for each in short["results"]] == ["Mixpanel events", "Prices"]
    assert list(short["results"][0]) == ["$id", "meta:altId", "version", "title"]


def test_a_schema_of_the_shipped_one(client: Client) -> None:
    """`allOf` with its `$id` has all its fields, and those beside it."""
    shown = made(client, allOf=[{"$ref": SHIPPED, "type": "object"}])
    assert shown["allOf"] == [{"$ref": SHIPPED, "type": "object"}]  # as it was sent
    assert shown["meta:extends"] == [SHIPPED]
    whole = client.get(at(shown["$id"])).json()
    schema = Schema.parse("it", {k: v for k, v in whole.items() if k[:5] != "meta:"})
    assert schema.find(("_extconndev", "time"))
    assert schema.find(("_shop", "price"))
    assert schema.document["required"] == ["_extconndev"]
    assert not {"allOf", "$defs"} & whole.keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allOf": [{"$ref": "https://ns.adobe.com/xdm/context/none"}]}, "xdm/context/none"),
        (
            {"properties": {"a": {"$ref": "other.json"}}},
            "no class, field group, data type or schema other.json",
        ),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "points at nothing"),
        ({"properties": {}}, "without properties"),
        ({"properties": {"a": {"type": "complex"}}}, "unknown type 'complex'"),
        ({"properties": {"event_date": {"type": "string"}}}, "a column of every table"),
        ({"type": "array"}, "type"),
        ({"title": None}, "title"),
    ],
)
def test_what_is_no_schema_of_ours(client: Client, changes: Json, words: str) -> None:
    """It is refused with a sentence, and nothing is kept."""
    assert words in problem(client.post(SCHEMAS, json=OWN | changes), "1400-400")
    assert len(client.get(SCHEMAS).json()["results"]) == 1


def test_deleting_a_schema(client: Client) -> None:
    """204, then 404; not while a dataset has it."""
    own = made(client)
    dataset = client.post(DATASETS, json={"name": "d", "schemaRef": {"id": own["meta:altId"]}})
    id_ = dataset.json()[0].rpartition("/")[2]
    assert id_ in problem(client.delete(at(own["$id"])), "1447-400")
    assert client.delete(f"{DATASETS}/{id_}").status_code == 200
    deleted = client.delete(at(own["$id"]))
    assert (deleted.status_code, deleted.content) == (204, b"")
    for call in (client.get, client.delete):
        assert own["$id"] in problem(call(at(own["$id"])), "1439-404")


# Datasets -----------------------------------------------------------------------------------


def test_making_a_dataset(tmp_path: Path) -> None:
    """Catalog's answer: a list with `@/dataSets/` and 24 hexadecimal digits."""
    with served(tmp_path) as (client, state):
        ref = {"id": SHIPPED, "contentType": "application/vnd.adobe.xed-full+json;version=1"}
        body = {"name": "events", "schemaRef": ref, "tags": {"a": ["b"]}}
        answer = client.post(DATASETS, json=body | {"uri": "/etc"})
        assert answer.status_code == 201
        (name,) = answer.json()
        assert re.fullmatch("@/dataSets/[0-9a-f]{24}", name)
        id_ = name.rpartition("/")[2]
        assert answer.headers["location"] == f"{DATASETS}/{id_}"
        shown = client.get(f"{DATASETS}/{id_}").json()
        assert list(shown) == [id_]
        tags = {"adobe/pqs/table": ["events"], "a": ["b"]}
        assert shown[id_].items() >= (body | {"tags": tags}).items()
        assert shown[id_]["basePath"] == str(state.datasets / id_)  # no client says where
        assert state.resources.get("dataSets", id_).body == body
        assert state.resources.users(SHIPPED) == [("dataSets", id_)]


def test_the_list_of_datasets(client: Client) -> None:
    """An object by id, as Catalog answers; `start`, `limit` and `name` choose from it."""
    ids = [
        client.post(DATASETS, json={"name": f"d{n % 2}", "schemaRef": {"id": SHIPPED}}).json()[0][
            -24:
        ]
        for n in range(4)
    ]
    assert list(client.get(DATASETS).json()) == ids
    assert list(client.get(f"{DATASETS}?start=1&limit=2").json()) == ids[1:3]
    assert list(client.get(f"{DATASETS}?name=d1").json()) == ids[1::2]
    assert client.get(f"{DATASETS}?name=none").json() == {}
    problem(client.get(f"{DATASETS}?limit=none"), "1452-400")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"schemaRef": {"id": SHIPPED}}, "name"),
        ({"name": "", "schemaRef": {"id": SHIPPED}}, "name"),
        ({"name": "d"}, "schemaRef"),
        ({"name": "d", "schemaRef": {"id": "none"}}, "there is no schema none"),
        ({"name": "d", "schemaRef": SHIPPED}, "schemaRef"),
        ([], "body"),
    ],
)
def test_what_is_no_dataset(client: Client, body: Any, words: str) -> None:
    assert words in problem(client.post(DATASETS, json=body), "1400-400")
    assert client.get(DATASETS).json() == {}


def test_deleting_a_dataset(tmp_path: Path) -> None:
    """200 with its name, then 404; not while a target connection has it; its table stays."""
    with served(tmp_path) as (client, state):
        body = {"name": "d", "schemaRef": {"id": SHIPPED}}
        id_ = client.post(DATASETS, json=body).json()[0].rpartition("/")[2]
        (state.datasets / id_).mkdir(parents=True)
        target = new("targetConnections", {"params": {"dataSetId": id_}}, 0)
        state.resources.create(target, [id_])
        assert target.id in problem(client.delete(f"{DATASETS}/{id_}"), "1447-400")
        state.resources.delete("targetConnections", target.id)
        deleted = client.delete(f"{DATASETS}/{id_}")
        assert (deleted.status_code, deleted.json()) == (200, [f"@/dataSets/{id_}"])
        assert (state.datasets / id_).exists()
        for call in (client.get, client.delete):
            problem(call(f"{DATASETS}/{id_}"), "1439-404")


def test_a_files_dataset_stays_the_files(tmp_path: Path) -> None:
    """What was applied from a file is shown, its table where the file has it, and not deleted."""
    with served(tmp_path) as (client, state):
        body = {"name": "d", "schemaRef": {"id": SHIPPED}, "uri": "/data/events"}
        kept = new("dataSets", body, 0, id_="0" * 24, origin="flows.toml")
        state.resources.create(kept)
        assert client.get(f"{DATASETS}/{kept.id}").json()[kept.id]["basePath"] == "/data/events"
        assert "flows.toml" in problem(client.delete(f"{DATASETS}/{kept.id}"), "1400-400")


# Specifications -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["mixpanel", "mixpanel", "datalake"]),
        ("?property=name==mixpanel", ["mixpanel"] * 2),
        ("?property=name==MIXPANEL,datalake&orderby=name", ["datalake", "mixpanel", "mixpanel"]),
        (f"?property=id=={MIXPANEL}", ["mixpanel"]),
    ],
)
def test_connection_specifications(client: Client, query: str, names: list[str]) -> None:
    """Mixpanel under both of its ids, and the data lake; filtered as every list is."""
    answer = client.get(f"{FLOWSERVICE}/connectionSpecs{query}").json()
    assert sorted(each["name"] for each in answer["items"]) == sorted(names)
    assert answer["_links"] == {}


def test_single_specifications(client: Client) -> None:
    """By the ids that the documents name; the password is marked as one."""
    for id_ in (MIXPANEL, "fd2c8ff3-1de0-4f6b-8fa8-4264784870eb"):
        (item,) = client.get(f"{FLOWSERVICE}/connectionSpecs/{id_}").json()["items"]
        assert [each["name"] for each in item["authSpec"]] == [
            "OAuth2 Refresh Code",
            "Basic Authentication",
        ]
        assert item["authSpec"][0]["spec"]["properties"]["password"]["format"] == "password"
    lake = "c604ff05-7f1a-43c0-8e18-33bf874cb11c"
    assert client.get(f"{FLOWSERVICE}/connectionSpecs/{lake}").status_code == 200
    problem(client.get(f"{FLOWSERVICE}/connectionSpecs/none"), "1439-404")
    problem(client.get(f"{FLOWSERVICE}/flowSpecs/none"), "1439-404")


@pytest.mark.parametrize(
    ("params", "fits"),
    [
        ({"frequency": "minute", "interval": 15}, True),
        ({"frequency": "minute", "interval": 14}, False),
        ({"frequency": "minute"}, False),
        ({"frequency": "hour", "interval": 1, "backfill": False}, True),
        ({"frequency": "week", "interval": 0}, False),
        ({"frequency": "once"}, True),
        ({"frequency": "once", "interval": 15}, False),
        ({"frequency": "once", "backfill": True}, False),
        ({"frequency": "month", "interval": 1}, False),
    ],
)
def test_the_schedules_rules(client: Client, params: Json, fits: bool) -> None:
    """The flow specification says which schedules a flow may have, as Adobe's RestStorageToAEP."""
    path = f"{FLOWSERVICE}/flowSpecs"
    (item,) = client.get(f"{path}?property=name==RestStorageToAEP").json()["items"]
    assert client.get(f"{path}/{item['id']}").json() == {"items": [item]}
    assert item["id"] == "6499120c-0b15-42dc-936e-847ea3c24d72"
    validator = Draft7Validator(item["scheduleSpec"]["spec"])
    assert validator.is_valid({"startTime": 1625040887, **params}) is fits
