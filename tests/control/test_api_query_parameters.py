"""What an address may ask: every parameter of every route is answered, or refused by its name."""

import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams

from engine.control.api import listing, runs
from engine.control.api.app import EXPORT, FLOWSERVICE
from engine.control.api.listing_filter import split_values
from engine.control.api.listing_order import sort_key
from engine.control.api.problems import Problem
from engine.control.api.query_parameters import declared_by
from tests.support.api_client import (
    CONNECTIONS,
    DATASETS,
    MAPPING_SETS,
    SCHEMAS,
    SHIPPED,
    problem,
    served,
)

Client = Any
Json = dict[str, Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an empty home, for requests that change nothing."""
    with served(tmp_path_factory.mktemp("empty")) as (client, _):
        yield client


def calls(client: Client) -> list[tuple[str, str]]:
    """Every method and path of the application, the pages of its own among them."""
    found = [("GET", "/docs"), ("GET", "/openapi.json")]
    for path, methods in client.app.openapi()["paths"].items():
        found += [(method.upper(), path) for method in methods]
    return found


def test_an_unknown_parameter_is_refused_by_every_route(client: Client) -> None:
    """Named, with what there is, and before anything is looked up."""
    every = calls(client)
    assert len(every) > 50
    for method, path in every:
        body: Json = {} if method in ("GET", "DELETE") or path.endswith("action") else {"json": {}}
        op = "op=enable&" if path.endswith("action") else ""
        said = problem(client.request(method, f"{path}?{op}no.such=1", **body), "1451-400")
        assert "Invalid params no.such provided" in said, (method, path)


def test_what_may_be_given_once_is_refused_twice(client: Client) -> None:
    """Also with the same value: nobody knows what a client meant."""
    for path, name in (
        (f"{FLOWSERVICE}/flows", "limit"),
        (f"{FLOWSERVICE}/runs", "count"),
        (DATASETS, "name"),
        (SCHEMAS, "start"),
    ):
        said = problem(client.get(f"{path}?{name}=1&{name}=1"), "1400-400")
        assert f"{name} is given twice" in said
    assert client.get(f"{DATASETS}?property=name==a&property=name==b").status_code == 200


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (f"{CONNECTIONS}/{{connection_id}}/explore", "objectType object FileType sourceParams"),
        (
            DATASETS,
            "version created updated createdClient createdUser updatedUser name description",
        ),
        (DATASETS, "enableErrorDiagnostics orderBy limit start property properties tags"),
        (f"{DATASETS}/{{dataset_id}}", "properties"),
        (SCHEMAS, "property orderby start limit"),
        (MAPPING_SETS, "limit start name orderBy expandSchema"),
        (f"{EXPORT}/files/{{file}}", "start limit path"),
        (f"{EXPORT}/batches/{{batch}}/meta", "start limit path"),
        (f"{EXPORT}/batches/{{batch}}/failed", "start limit path"),
        (f"{EXPORT}/batches/{{batch}}/files", "start limit"),
    ],
)
def test_what_the_official_files_name_is_known(client: Client, path: str, names: str) -> None:
    """Every parameter that the specification of an operation names is one of the route's."""
    parameters = client.app.openapi()["paths"][path]["get"]["parameters"]
    assert set(names.split()) <= {each["name"] for each in parameters if each["in"] == "query"}


def test_a_signature_is_a_declaration() -> None:
    """Whatever a function of a route takes from the query is known, and nothing else."""

    def route(limit: int = 1, *, deep: bool = False) -> None: ...

    assert declared_by(APIRoute("/x", route)) == {"limit": False, "deep": False}


# A client's text costs no more than its length -----------------------------------------------


def lines_of(parse: Any) -> int:
    """How many lines of Python a call takes, whatever it raises; C code counts as a line."""
    count = 0

    def watch(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return watch

    sys.settrace(watch)
    try:
        parse()
    except Problem:
        pass
    finally:
        sys.settrace(None)
    return count


PARTS = ["+", " ", "=", "name=", '"', "a,", '",', "[]", ".", "a.", "-", "1e", "\t=", "~=", "' \","]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["property", "orderby", "continuationToken", "limit"])
def test_work_grows_with_the_length_alone(name: str, part: str) -> None:
    """Four times the text is at most about four times the work, and there is a greatest length."""

    def parse(length: int, before: str = "") -> int:
        text = (before + part * length)[:length]
        query = QueryParams([(name, text)])
        return lines_of(lambda: listing.parse(query.multi_items(), lambda _: True))

    for before in ("", "name=="):
        short, long = parse(400, before), parse(1600, before)
        assert long <= 6 * short + 200
    assert parse(400_000) < 20_000


def test_a_token_that_hides_a_filter_is_bounded_too() -> None:
    """What a token says is read as what a client says."""
    said = [{"property": ["+" * 5_000]}, 5, [[3, "a"], [3, "b"]]]
    token = urlsafe_b64encode(json.dumps(said).encode()).decode()
    with pytest.raises(Problem):
        listing.parse([("continuationToken", token)], runs.COLUMNS.__contains__)


def test_a_link_is_never_longer_than_an_address_may_be(client: Client) -> None:
    """However long the names are that a list is ordered by."""
    with_long_names = [{"id": str(n), "name": "é" * 5_000 + str(n)} for n in range(3)]
    wanted = listing.parse([("orderby", "name"), ("limit", "1")], lambda _: True)
    place = sort_key(with_long_names[0], wanted.order)
    href = listing.links("flows", wanted, place)["next"]["href"]
    assert len(href) < 8_000
    assert listing.parse([("continuationToken", href.partition("=")[2])], lambda _: True).after


# Quotes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ('"RestStorageToAEP"', ("RestStorageToAEP",)),
        ("'a'", ("a",)),
        ('"a","b" , c', ("a", "b", "c")),
        ('"a,b"', ("a,b",)),
        ('""x""', ('"x"',)),
        ('"a', ('"a',)),
        ('a"', ('a"',)),
        ('"', ('"',)),
        ('"a"b"', ('a"b',)),
        ("a,,b", ("a", "", "b")),
        ("\"a'", ("\"a'",)),
    ],
)
def test_one_pair_of_quotes_is_no_part_of_a_value(value: str, members: tuple[str, ...]) -> None:
    """As Adobe's tutorials print filters; a comma between quotes separates nothing."""
    assert split_values(value) == members


@pytest.mark.parametrize("name", ["RestStorageToAEP", '"RestStorageToAEP"', '"reststoragetoaep"'])
def test_a_specification_is_found_by_its_name(client: Client, name: str) -> None:
    """With quotes and without, in any case."""
    path = f"{FLOWSERVICE}/flowSpecs?property=name=={quote(name)}"
    assert len(client.get(path).json()["items"]) == 1


@pytest.mark.parametrize("name", ["datalake", "dataLake", "DATALAKE"])
def test_the_data_lake_is_found_whatever_its_case(client: Client, name: str) -> None:
    """By a filter, and in the place of its id."""
    for path in (f"connectionSpecs/{name}", f"connectionSpecs?property=name==%22{name}%22"):
        (item,) = client.get(f"{FLOWSERVICE}/{path}").json()["items"]
        assert item["id"] == "c604ff05-7f1a-43c0-8e18-33bf874cb11c"
        assert item["name"] == "datalake"  # aepp compares it itself, with its case
    problem(client.get(f"{FLOWSERVICE}/connectionSpecs/mixpanel"), "1439-404")  # there are two


# Datasets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of three datasets, for reads."""
    with served(tmp_path_factory.mktemp("shop")) as (client, _):
        create_datasets(client)
        yield client


def create_datasets(client: Client) -> None:
    for name, more in (
        ("pg", {"description": "orders", "tags": {"team": ["a", "b"]}}),
        ("PG", {"tags": {"team": ["b"], "unifiedProfile": ["enabled:true"]}}),
        ("mixpanel", {"enableErrorDiagnostics": True}),
    ):
        body = {"name": name, "schemaRef": {"id": SHIPPED}} | more
        assert client.post(DATASETS, json=body).status_code == 201


def names(client: Client, query: str) -> list[str]:
    return [each["name"] for each in client.get(f"{DATASETS}?{query}").json().values()]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("property=name==pg", ["pg"]),
        ("property=name==%22pg%22", ["pg"]),
        ("property=name==nosuch", []),
        ("property=name!=pg", ["PG", "mixpanel"]),
        ("property=name~^p", ["pg"]),
        ("property=description", ["pg"]),
        ("property=!description", ["PG", "mixpanel"]),
        ("property=tags.team==b", ["pg", "PG"]),
        ("property=tags.team==b&property=name==PG", ["PG"]),
        ("property=created>0", ["pg", "PG", "mixpanel"]),
        ("property=created<1000", []),
        ("property=schemaRef.id==" + quote(SHIPPED), ["pg", "PG", "mixpanel"]),
        ("name=pg", ["pg"]),
        ("description=orders", ["pg"]),
        ("enableErrorDiagnostics=true", ["mixpanel"]),
        ("version=1.0.0", ["pg", "PG", "mixpanel"]),
        ("state=nosuch", []),
        ("tags=team:a", ["pg"]),
        ("tags=team:*", ["pg", "PG"]),
        ("tags=team:b,unifiedProfile:enabled:true", ["PG"]),
        ("orderBy=name&limit=1", ["mixpanel"]),
        ("orderBy=desc:created,updated&limit=1&start=1", ["PG"]),
        ("orderBy=asc:created", ["pg", "PG", "mixpanel"]),
        ("limit=2&start=2", ["mixpanel"]),
    ],
)
def test_datasets_are_filtered(shop: Client, query: str, found: list[str]) -> None:
    """By every parameter of Catalog; names as they are written, since a client may delete one."""
    assert names(shop, query) == found


@pytest.mark.parametrize(
    "query",
    [
        "property=nosuch==x", "property=", "property===x", "property=name==", "property=name=pg",
        "property=name~(", "property=created>now", "property=" + "x" * 3000,
        "orderBy=nosuch", "orderBy=", "orderBy=" + "name," * 900, "properties=" + "x" * 3000,
        "limit=0", "limit=101", "limit=", "limit=1e1", "limit=%D9%A3", "start=-1", "start=x",
        "created=now", "tags=team",
    ],
)  # fmt: skip
def test_what_datasets_are_not_filtered_by(shop: Client, query: str) -> None:
    """It is a 400: never the list of all, and never more of a text than can be read."""
    answer = shop.get(f"{DATASETS}?{query}")
    assert answer.status_code == 400
    assert len(answer.json()["errorMessage"]) < 300


def test_a_regular_expression_of_a_client_takes_no_time(shop: Client) -> None:
    """One that would take for ever where it backtracks."""
    body = {"name": "a" * 5000 + "!", "schemaRef": {"id": SHIPPED}}
    assert shop.post(DATASETS, json=body).status_code == 201
    assert names(shop, "property=name~^" + quote("(a+)+$")) == []


def test_fields_of_datasets_are_chosen(shop: Client) -> None:
    """`properties`, of a list and of one."""
    found = shop.get(f"{DATASETS}?properties=name,created&limit=1").json()
    ((id_, shown),) = found.items()
    assert set(shown) == {"name", "created"}
    assert shop.get(f"{DATASETS}/{id_}?properties=name").json() == {id_: {"name": "pg"}}


def test_a_page_is_a_hundred(tmp_path: Path) -> None:
    """A page has as many datasets as it may have, unless fewer are asked for."""
    with served(tmp_path) as (client, _):
        for _ in range(103):
            client.post(DATASETS, json={"name": "x", "schemaRef": {"id": SHIPPED}})
        assert len(client.get(DATASETS).json()) == 100
        assert len(client.get(f"{DATASETS}?start=100").json()) == 3


# Schemas ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of some schemas beside the shipped one, for reads; two have the same title."""
    with served(tmp_path_factory.mktemp("library")) as (client, _):
        create_schemas(client)
        yield client


def create_schemas(client: Client) -> None:
    for title in ("Prices", "Prices", "Ads, and more", "Zoo"):
        own: Json = {"title": title, "properties": {"a": {"type": "string"}}}
        own |= {"allOf": [{"$ref": SHIPPED}]} if title == "Zoo" else {}
        assert client.post(SCHEMAS, json=own).status_code == 201


def titles(client: Client, query: str) -> list[str]:
    return [each["title"] for each in client.get(f"{SCHEMAS}?{query}").json()["results"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("property=title==nosuch", []),
        ("property=title==Prices", ["Prices", "Prices"]),
        ("property=title==%22Zoo%22", ["Zoo"]),
        ("property=title==Ads, and more", ["Ads, and more"]),
        ("property=title==Zoo,version==1.0", ["Zoo"]),
        ("property=title==Zoo&property=version==2", []),
        ("property=meta:extends==" + quote(SHIPPED), ["Zoo"]),
        ("property=meta:extends!=" + quote(SHIPPED) + "&property=title~^[PZ]", ["Prices"] * 2),
        ("property=meta:extends!=https://ns.adobe.com/xdm/data/adhoc&property=title==Zoo", ["Zoo"]),
        ("orderby=-title&limit=1", ["Zoo"]),
        ("orderBy=title&limit=1", ["Ads, and more"]),
        ("orderby=title&start=Prices", ["Zoo"]),
        ("property=created<1000", []),
        ("property=title==Zoo&property=created>1000", ["Zoo"]),
        ("orderby=-title&start=Mixpanel%20events", ["Ads, and more"]),
    ],
)
def test_schemas_are_filtered(library: Client, query: str, found: list[str]) -> None:
    """By every parameter of the Schema Registry."""
    assert titles(library, query) == found


@pytest.mark.parametrize(
    "order", ["title", "-title", "created", "-updated", "description,title", "$id"]
)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_of_schemas_have_every_schema_once(library: Client, order: str, limit: int) -> None:
    """`_page.next` is the start of the next one, null at the end, equal titles or not."""
    found, start = list[str](), ""
    for _ in range(6):
        answer = library.get(f"{SCHEMAS}?orderby={quote(order)}&limit={limit}{start}").json()
        assert answer["_page"]["count"] == len(answer["results"]) <= limit
        found += [each["$id"] for each in answer["results"]]
        following = answer["_page"]["next"]
        if following is None:
            break
        assert urlsplit(answer["_links"]["next"]["href"]).query
        start = f"&start={quote(str(following))}"
    every = [each["$id"] for each in library.get(SCHEMAS).json()["results"]]
    assert sorted(found) == sorted(every)


@pytest.mark.parametrize(
    "query",
    ["property=nosuch==x", "property=", "orderby=nosuch", "limit=0", "limit=501", "limit=x",
     "property=title~[", "start=" + "x" * 13_000, "container=x"],
)  # fmt: skip
def test_what_schemas_are_not_filtered_by(library: Client, query: str) -> None:
    """It is a 400: never the list of all."""
    assert library.get(f"{SCHEMAS}?{query}").status_code == 400
