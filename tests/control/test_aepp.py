"""aepp, the Python client of Adobe's platform, on the registry and the catalogue.

Its own requests, as version 0.6.0 sends them, are in a fixture and are sent here each time. Where
aepp itself is installed (`pip install --no-deps aepp==0.6.0`: with all that it names it is another
40 MB), it is driven against a server too.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import served
from tests.support.api_server import Served, serving

Json = dict[str, Any]
REQUESTS: list[Json] = json.loads(
    (Path(__file__).parents[1] / "fixtures/aepp_requests.json").read_text("utf-8")
)
EVENT = "https://ns.adobe.com/xdm/context/experienceevent"
SERIES = "https://ns.adobe.com/xdm/data/time-series"
FIELDS = {
    "title": "Mixpanel",
    "type": "object",
    "meta:intendedToExtend": [EVENT],
    "definitions": {
        "customFields": {
            "type": "object",
            "properties": {
                "_extconndev": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "distinct_id": {"type": "string"}},
                }
            },
        }
    },
    "allOf": [{"$ref": "#/definitions/customFields", "type": "object"}],
}


def test_each_request_of_aepp(tmp_path: Path) -> None:
    """Each has the status that it had when it was recorded, and the members that aepp indexes."""
    made: dict[str, str] = {}
    with served(tmp_path) as (client, _):
        for n, request in enumerate(REQUESTS):
            text = json.dumps(request)
            for name, id_ in made.items():
                text = text.replace(f"{{{name}}}", id_)
            sent = json.loads(text)
            answer = client.request(
                sent["method"],
                f"/data/foundation{sent['path']}",
                headers={"Accept": sent.get("accept", "application/json")},
                json=sent.get("body"),
            )
            assert answer.status_code == sent["status"], (n, sent, answer.text)
            body = answer.json() if answer.content else {}
            assert all(name in body for name in sent.get("has", ())), (n, sent)
            if name := sent.get("makes"):
                id_ = body[0] if isinstance(body, list) else _id_of(body)
                made[name] = id_.rpartition("/")[2]
    assert n > 100
    assert not re.search("{[a-zA-Z]+[0-9]+}", text)


def _id_of(body: Json) -> str:
    return str(body.get("$id", body.get("@id", body.get("id"))))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("aepp")) as server:
        yield server


@pytest.fixture
def aepp(server: Served, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client, set to a server on loopback and a token that needs no other service."""
    aepp = pytest.importorskip("aepp", reason="aepp is not installed")
    for module in ("schema", "catalog", "dataprep"):
        pytest.importorskip(f"aepp.{module}", reason="what aepp needs is not installed")
    settings = {
        "org_id": "org", "client_id": "key", "token": "t", "date_limit": 1e12, "sandbox": "prod",
        "environment": "support", "scopes": None, "auth_code": None, "connectionType": "support",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setitem(aepp.config.config_object, name, value)
    monkeypatch.setitem(aepp.config.endpoints, "global", server.url)
    return aepp


def test_aepp_makes_a_schema_and_a_dataset(aepp: Any) -> None:
    """What a person who does the tutorial calls, from the tenant's id to the dataset's batches."""
    registry, catalog = aepp.schema.Schema(), aepp.catalog.Catalog()
    assert registry.getTenantId() == "extconndev"
    assert len(registry.getBehaviors()) == 3
    assert registry.getBehavior(SERIES)["$id"] == SERIES
    assert registry.getClass(EVENT)["meta:extends"][0] == SERIES
    assert {each["$id"] for each in registry.getClassesGlobal()} >= {EVENT}
    group = registry.createFieldGroup(FIELDS)
    assert registry.getFieldGroup(group["$id"], full=False)["allOf"] == FIELDS["allOf"]
    schema = registry.createExperienceEventSchema("Events", fieldGroupIds=[group["$id"]])
    id_ = schema["$id"]
    assert registry.getSchema(id_, full=False)["meta:class"] == EVENT
    assert "_extconndev.city" in registry.getSchemaPaths(id_)
    assert registry.getSchemaSample(id_)["_extconndev"] == {"city": "text", "distinct_id": "text"}
    assert id_ in {each["$id"] for each in registry.getSchemas()}
    title = [{"op": "replace", "path": "/title", "value": "Mixpanel events"}]
    assert registry.patchSchema(id_, title)["title"] == "Mixpanel events"
    said = registry.createDescriptor(
        sourceSchema=id_, sourceProperty="/_extconndev/distinct_id", namespace="ECID", primary=True
    )
    assert [each["@id"] for each in registry.getDescriptors()] == [said["@id"]]
    assert [each["title"] for each in registry.exportResource(id_)] == [
        "Mixpanel",
        "Mixpanel events",
    ]
    (name,) = catalog.createDataSet(name="events", schemaId=id_)
    dataset = name.rpartition("/")[2]
    assert list(catalog.getDataSets()) == [dataset]
    observed = catalog.getDataSetObservableSchema(dataset)["observableSchema"]
    assert "_extconndev" in observed["properties"]
    assert catalog.enableDatasetProfile(dataset) == [name]
    pages: tuple[Callable[[], Any], ...] = (
        lambda: catalog.getBatches(n_results="inf"), lambda: catalog.getLastBatches(dataset),
    )  # fmt: skip
    assert [page() for page in pages] == [{}, {}]  # aepp ends at an empty page
    rule = {"sourceType": "ATTRIBUTE", "source": "data.city", "destination": "_extconndev.city"}
    output = {"schemaRef": {"id": id_, "contentType": "application/vnd.adobe.xed-full+json"}}
    preparing = aepp.dataprep.DataPrep()
    rules = preparing.createMappingSet(mappingSet={"outputSchema": output, "mappings": [rule]})
    assert preparing.getMappingSet(rules["id"])["xdmSchema"] == id_
    preparing.deleteMappingSet(rules["id"])
    catalog.deleteDataSet(dataset)
    registry.deleteSchema(id_)
    assert registry.getSchemas()[0]["title"] == "Mixpanel events"  # the shipped one alone
    assert registry.getDescriptors() == []
