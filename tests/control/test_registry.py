"""The Schema Registry: classes, field groups, data types and schemas that are made of them."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from engine.control.api.app import REGISTRY
from tests.support.api_client import DATASETS, SCHEMAS, problem, served

Client = Any
Json = dict[str, Any]
EVENT = "https://ns.adobe.com/xdm/context/experienceevent"
PROFILE = "https://ns.adobe.com/xdm/context/profile"
SERIES = "https://ns.adobe.com/xdm/data/time-series"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(tmp_path_factory.mktemp("home")) as (client, _):
        yield client


def fields(**members: Json) -> Json:
    """A definition with fields of the tenant's, as clients write one."""
    own = {"type": "object", "properties": members}
    return {"customFields": {"type": "object", "properties": {"_extconndev": own}}}


def make(client: Client, kind: str, **body: Any) -> Json:
    answer = client.post(f"{REGISTRY}/tenant/{kind}", json=body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def group(client: Client, **more: Any) -> Json:
    """A field group for ExperienceEvents, as the registry's own user interface makes one."""
    body: Json = {
        "title": "Shop",
        "type": "object",
        "meta:intendedToExtend": [EVENT],
        "definitions": fields(price={"type": "number", "title": "Price"}, city={"type": "string"}),
        "allOf": [{"$ref": "#/definitions/customFields", "type": "object"}],
    }
    return make(client, "fieldgroups", **(body | more))


def event_schema(client: Client, *groups: Json, title: str = "Events") -> Json:
    refs = [EVENT, *(each["$id"] for each in groups)]
    entries = [{"$ref": ref, "type": "object", "meta:xdmType": "object"} for ref in refs]
    return make(client, "schemas", title=title, description="", allOf=entries)


def at(document: Json | str, kind: str = "schemas", container: str = "tenant") -> str:
    id_ = document if isinstance(document, str) else document["$id"]
    return f"{REGISTRY}/{container}/{kind}/{quote_plus(id_)}"


def accepting(client: Client, path: str, form: str, version: str = "; version=1") -> Any:
    return client.get(path, headers={"Accept": f"application/vnd.adobe.{form}+json{version}"})


# Making -------------------------------------------------------------------------------------


def test_a_schema_of_a_class_and_a_field_group(client: Client) -> None:
    """It is answered as it was sent, with what the registry knows of it."""
    shop = group(client)
    assert shop["$id"].startswith("https://ns.adobe.com/extconndev/mixins/")
    assert shop["meta:altId"].startswith("_extconndev.mixins.")
    assert shop["meta:resourceType"] == "mixins"
    made = event_schema(client, shop)
    assert [each["$ref"] for each in made["allOf"]] == [EVENT, shop["$id"]]
    assert made["meta:class"] == EVENT
    assert made["meta:extends"][:2] == [EVENT, shop["$id"]]
    assert SERIES in made["meta:extends"]
    assert made.items() >= {
        "meta:resourceType": "schemas", "meta:xdmType": "object", "meta:abstract": False,
        "meta:extensible": False, "meta:containerId": "tenant", "type": "object",
        "meta:tenantNamespace": "_extconndev", "version": "1.0", "imsOrg": "mixpanel-etl",
    }.items()  # fmt: skip


def test_other_ways_to_write_one(client: Client) -> None:
    """`properties: {}` beside a `$ref`, own fields in definitions or in `properties`."""
    made = make(
        client, "schemas", title="Own", type="object",
        definitions=fields(city={"type": "string"}),
        properties={"_shop": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        allOf=[{"$ref": EVENT, "properties": {}}, {"$ref": "#/definitions/customFields"}],
    )  # fmt: skip
    found = accepting(client, at(made), "xed-full").json()["properties"]
    assert found["_extconndev"]["properties"] == {"city": {"type": "string"}}
    assert {"_shop", "_id", "timestamp"} <= found.keys()


def test_a_class_and_a_data_type_of_ones_own(client: Client) -> None:
    """A class of a behavior; a data type in a field; a schema of both."""
    class_ = make(client, "classes", title="Visit", allOf=[{"$ref": SERIES}], type="object")
    assert class_["$id"].startswith("https://ns.adobe.com/extconndev/classes/")
    assert class_["meta:extends"] == [SERIES]
    money = make(
        client, "datatypes", title="Money", type="object",
        properties={"amount": {"type": "number"}, "currency": {"type": "string"}},
    )  # fmt: skip
    assert money["meta:resourceType"] == "datatypes"
    made = make(
        client, "schemas", title="Visits", allOf=[{"$ref": class_["$id"]}],
        properties={"_shop": {"type": "object", "properties": {"price": {"$ref": money["$id"]}}}},
    )  # fmt: skip
    assert made["meta:class"] == class_["$id"]
    assert made["meta:extends"] == [class_["$id"], SERIES]
    price = client.get(at(made)).json()["properties"]["_shop"]["properties"]["price"]
    assert price["properties"]["amount"] == {"type": "number"}
    for kind, used in (("classes", class_), ("datatypes", money)):
        assert made["$id"] in problem(client.delete(at(used, kind)), "1447-400")
    assert client.delete(at(made)).status_code == 204
    for kind, used in (("classes", class_), ("datatypes", money)):
        assert client.delete(at(used, kind)).status_code == 204
        problem(client.get(at(used, kind)), "1439-404")


@pytest.mark.parametrize(
    ("refs", "words"),
    [
        ([EVENT, PROFILE], "names 2 classes"),
        ([EVENT, "https://ns.adobe.com/extconndev/mixins/none"], "extconndev/mixins/none"),
        ([PROFILE, "group"], "meta:intendedToExtend"),
        ([EVENT, "broken"], "has type string, which meta:xdmType"),
    ],
)
def test_what_no_schema_is_made_of(client: Client, refs: list[str], words: str) -> None:
    """The reason names the document."""
    shop, listed = group(client), client.get(SCHEMAS).json()["_page"]["count"]
    broken = group(client, definitions=fields(x={"type": "string", "meta:xdmType": "long"}))
    ids = {"group": shop["$id"], "broken": broken["$id"]}
    allof = [{"$ref": ids.get(ref, ref)} for ref in refs]
    answer = client.post(SCHEMAS, json={"title": "s", "allOf": allof})
    assert words in problem(answer, "1400-400")
    assert client.get(SCHEMAS).json()["_page"]["count"] == listed


@pytest.mark.parametrize(
    "body",
    [
        {"allOf": 5}, {"allOf": "x"}, {"allOf": [5, None]}, {"properties": 5},
        {"definitions": 5, "allOf": [{"$ref": EVENT}]}, {"required": 5},
        {"properties": {"a": {"$ref": "#/definitions/none/x"}}},
        {"properties": {"a": {"$ref": "#"}}}, {"meta:intendedToExtend": 5}, {"$ref": 5},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["schemas", "classes", "fieldgroups", "datatypes"])
def test_documents_of_any_shape(client: Client, kind: str, body: Json) -> None:
    """Each is made and shown, or refused with a sentence."""
    answer = client.post(f"{REGISTRY}/tenant/{kind}", json={"title": "odd"} | body)
    assert answer.status_code in (201, 400), answer.text
    if answer.status_code == 201:
        assert client.get(at(answer.json(), kind)).status_code == 200
        assert client.delete(at(answer.json(), kind)).status_code == 204


# Reading ------------------------------------------------------------------------------------


def test_forms_by_accept(client: Client) -> None:
    """Written, full, flat, without texts; of both families; with a version or without."""
    made = event_schema(client, group(client))
    path = at(made)
    assert accepting(client, path, "xed").json() == made
    whole = accepting(client, path, "xed-full").json()
    assert "allOf" not in whole
    price = {"type": "number", "title": "Price"}
    assert whole["properties"]["_extconndev"]["properties"]["price"] == price
    for family, version in (("xdm", ";version=1.0"), ("xed", ""), ("xdm", "; version=1")):
        assert accepting(client, path, f"{family}-full", version).json() == whole
    for header in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        assert client.get(path, headers=header).json() == whole
    silent = accepting(client, path, "xed-full-notext").json()
    assert "title" not in silent
    assert silent["properties"]["_extconndev"]["properties"]["price"] == {"type": "number"}
    leaves = accepting(client, path, "xdm-full-flat").json()["properties"]
    assert leaves["_extconndev/price"] == price
    assert list(accepting(client, path, "xed-id").json()) == [
        "$id", "meta:altId", "version", "title",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "accept",
    ["application/vnd.adobe.xed-full+json; version=2", "application/vnd.adobe.xed-some+json"],
)
def test_a_form_or_version_that_is_not_there(client: Client, accept: str) -> None:
    """406, with the header."""
    answer = client.get(at(EVENT, "classes"), headers={"Accept": accept})
    assert accept[:30] in problem(answer, "1400-406")


@pytest.mark.parametrize("container", ["tenant", "global"])
@pytest.mark.parametrize("name", [EVENT, "_xdm.context.experienceevent"])
def test_a_look_up_finds_both_containers(client: Client, container: str, name: str) -> None:
    """By `$id` and by `meta:altId`: clients look for standard classes under tenant."""
    found = accepting(client, at(name, "classes", container), "xdm-full").json()
    assert found["$id"] == EVENT
    assert found["meta:containerId"] == "global"
    assert SERIES in found["meta:extends"]
    assert {"_id", "timestamp"} <= found["properties"].keys()
    assert quote(EVENT, safe="") in at(EVENT)


def test_lists_of_both_containers(client: Client) -> None:
    """Each with results, page and links; empty where nothing is there."""
    listed = client.get(f"{REGISTRY}/global/classes").json()
    assert {each["$id"] for each in listed["results"]} == {EVENT, PROFILE}
    assert listed["_page"]["next"] is None
    behaviors = client.get(f"{REGISTRY}/global/behaviors").json()["results"]
    assert [each["$id"].rpartition("/")[2] for each in behaviors] == [
        "adhoc", "record", "time-series",
    ]  # fmt: skip
    assert accepting(client, at(SERIES, "behaviors", "global"), "xdm-full").json()["$id"] == SERIES
    names = {
        kind: {each["title"] for each in client.get(f"{REGISTRY}/{kind}").json()["results"]}
        for kind in ("global/fieldgroups", "global/datatypes", "global/schemas", "tenant/unions")
    }
    assert names == {
        "global/fieldgroups": {"IdentityMap"}, "global/datatypes": {"Identity item"},
        "global/schemas": set(), "tenant/unions": set(),
    }  # fmt: skip
    problem(client.get(at(PROFILE, "unions")), "1439-404")


def test_a_list_is_filtered_ordered_and_paged(client: Client) -> None:
    """Filters with == and !=, a descending order, and `start` from the page before."""
    titles = ["Paged b", "Paged a", "Paged c"]
    for title in titles:
        group(client, title=title)
    kinds = f"{REGISTRY}/tenant/fieldgroups"
    query = {"property": "title~^Paged", "orderby": "-title", "limit": 2}
    first = client.get(kinds, params=query).json()
    assert [each["title"] for each in first["results"]] == ["Paged c", "Paged b"]
    second = client.get(kinds, params=query | {"start": first["_page"]["next"]}).json()
    assert [each["title"] for each in second["results"]] == ["Paged a"]
    assert (second["_page"]["next"], second["_links"]) == (None, {"next": None})
    older = client.get(f"{REGISTRY}/tenant/mixins", params=query).json()
    assert older["results"] == first["results"]
    only = {"property": f"meta:intendedToExtend=={PROFILE}"}
    assert client.get(kinds, params=only).json()["results"] == []
    made = event_schema(client)
    by_class = {"property": f"meta:extends=={EVENT}"}
    ids = [each["$id"] for each in client.get(SCHEMAS, params=by_class).json()["results"]]
    assert made["$id"] in ids
    others = {"property": f"meta:extends!={EVENT}"}
    assert made["$id"] not in client.get(SCHEMAS, params=others).text


# Changing -----------------------------------------------------------------------------------


def test_a_field_group_changes_until_a_dataset_has_it(client: Client) -> None:
    """Then its titles alone do; and it is not deleted while a schema names it."""
    shop = group(client)
    made = event_schema(client, shop)
    more = "/definitions/customFields/properties/_extconndev/properties/more"
    add: list[Json] = [{"op": "add", "path": more, "value": {"type": "string"}}]
    answer = client.patch(at(shop, "fieldgroups"), json=add)
    assert answer.status_code == 200, answer.text
    members = client.get(at(made)).json()["properties"]["_extconndev"]["properties"]
    assert "more" in members
    bad = [
        add[0] | {"path": "/definitions/customFields/properties/_id", "value": {"type": "array"}}
    ]
    problem(client.patch(at(shop, "fieldgroups"), json=bad), "1400-400")  # the schema would break
    assert made["$id"] in problem(client.delete(at(shop, "fieldgroups")), "1447-400")
    body = {"name": "d", "schemaRef": {"id": made["$id"]}}
    assert client.post(DATASETS, json=body).status_code == 201
    again = [add[0] | {"path": f"{more}2"}]
    assert "table" in problem(client.patch(at(shop, "fieldgroups"), json=again), "1400-400")
    title = [{"op": "replace", "path": "/title", "value": "Shop 2"}]
    assert client.patch(at(shop, "mixins"), json=title).json()["title"] == "Shop 2"


def test_a_schema_gets_a_field_group_later(client: Client) -> None:
    """By a patch of `allOf`, or by a PUT of the schema as it was read."""
    made, shop = event_schema(client), group(client)
    add = [{"op": "add", "path": "/allOf/-", "value": {"$ref": shop["$id"], "type": "object"}}]
    assert shop["$id"] in client.patch(at(made), json=add).json()["meta:extends"]
    read = accepting(client, at(made), "xed").json()
    read["allOf"].pop()
    assert shop["$id"] not in client.put(at(made), json=read).json()["meta:extends"]
    assert client.delete(at(shop, "fieldgroups")).status_code == 204


def test_standard_documents_are_read_only(client: Client) -> None:
    """400 under tenant, and no such method under global."""
    problem(client.delete(at(EVENT, "classes")), "1400-400")
    problem(client.patch(at(EVENT, "classes"), json={"title": "x"}), "1400-400")
    answer = client.post(f"{REGISTRY}/global/classes", json={"title": "x"})
    problem(answer, "1400-405")


# Descriptors and reports --------------------------------------------------------------------


def test_a_descriptor_of_an_identity(client: Client) -> None:
    """Made, listed in each form, replaced, shown with its schema, deleted, gone with the schema."""
    made = event_schema(client, group(client))
    descriptors = f"{REGISTRY}/tenant/descriptors"
    body = {
        "@type": "xdm:descriptorIdentity", "xdm:sourceSchema": made["$id"],
        "xdm:sourceVersion": 1, "xdm:sourceProperty": "/_extconndev/city",
        "xdm:namespace": "Email", "xdm:isPrimary": True,
    }  # fmt: skip
    answer = client.post(descriptors, json=body)
    assert answer.status_code == 201, answer.text
    said = answer.json()
    assert said.items() >= body.items()
    id_ = said["@id"]
    by_type = accepting(client, descriptors, "xdm", "").json()
    assert by_type == {"xdm:descriptorIdentity": [said]} == client.get(descriptors).json()
    assert accepting(client, descriptors, "xdm-id", "").json() == {body["@type"]: [id_]}
    paged = accepting(client, f"{descriptors}?property=@type=={body['@type']}", "xdm-v2", "").json()
    assert (paged["results"], paged["_page"]["next"]) == ([said], None)
    links = accepting(client, descriptors, "xdm-v2-link", "").json()["results"]
    assert links == [f"/tenant/descriptors/{id_}"]
    other = client.put(f"{descriptors}/{id_}", json=body | {"xdm:isPrimary": False}).json()
    assert other == said | {"xdm:isPrimary": False} == client.get(f"{descriptors}/{id_}").json()
    assert accepting(client, at(made), "xed-full-desc").json()["meta:descriptors"] == [other]
    for wrong in ({"xdm:sourceProperty": "/_extconndev/none"}, {"xdm:sourceSchema": "urn:none"}):
        problem(client.post(descriptors, json=body | wrong), "1400-400")
    kept = client.post(descriptors, json=body).json()["@id"]
    assert client.delete(f"{descriptors}/{id_}").status_code == 204
    assert client.delete(at(made)).status_code == 204
    for gone in (id_, kept):
        problem(client.get(f"{descriptors}/{gone}"), "1439-404")
    empty = accepting(client, f"{REGISTRY}/global/descriptors", "xdm-v2", "").json()
    assert empty["results"] == []


def test_the_numbers_of_the_registry(client: Client) -> None:
    """The tenant's name, which clients ask for first; counts, and schemas by their class."""
    made = event_schema(client)
    stats = client.get(f"{REGISTRY}/stats/").json()
    assert stats["tenantId"] == "extconndev"
    assert stats["counts"]["schemas"] == client.get(SCHEMAS).json()["_page"]["count"]
    assert made["$id"] in [each["$id"] for each in stats["recentlyCreatedResources"]]
    (usage,) = [each for each in stats["classUsage"] if each["$id"] == EVENT]
    assert usage["numberOfSchemas"] == len(usage["schemas"]) > 0


def test_a_sample_and_an_export(client: Client) -> None:
    """A row of the schema; all documents that a tenant made of it, without the tenant's name."""
    shop = group(client)
    made = event_schema(client, shop)
    row = client.get(f"{REGISTRY}/rpc/sampledata/{quote_plus(made['$id'])}").json()
    assert row["_extconndev"] == {"price": 0.5, "city": "text"}
    assert row["timestamp"] == "2024-01-01T00:00:00Z"
    exported = client.get(f"{REGISTRY}/rpc/export/{made['meta:altId']}").json()
    assert [each["title"] for each in exported] == ["Shop", "Events"]
    assert "extconndev" not in str(exported)
    problem(client.get(f"{REGISTRY}/rpc/export/none"), "1439-404")
