"""Batches as Catalog lists them, from the history of runs."""

from collections.abc import Iterator
from typing import Any

import pytest

from engine.control.api.app import CATALOG
from engine.errors import CODE_COPY
from engine.model.batch import Tally
from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS
from tests.support.api_client import DATASETS, MAPPING_SETS, SHIPPED, problem, served
from tests.support.records import record

Client = Any
BATCHES = f"{CATALOG}/batches"


@pytest.fixture(scope="module")
def client_and_dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """Five runs of a dataset, the newest of them in progress, and one of another table."""
    with served(tmp_path_factory.mktemp("home")) as (client, state):
        body = {"name": "d", "schemaRef": {"id": SHIPPED}}
        id_ = client.post(DATASETS, json=body).json()[0].rpartition("/")[2]
        root = str(state.datasets / id_)
        tally = Tally(lines=10, rows=8, rejected=2, bytes_read=100)
        for n, status in enumerate([SUCCESS, FAILED, SUCCESS, SUCCESS, IN_PROGRESS]):
            more: dict[str, Any] = {"tally": tally} if status == SUCCESS else {}
            if status == FAILED:
                more["failure"] = (CODE_COPY, "no answer")
            state.catalog.save(
                record(f"r{n}", status, 1_000 * (n + 1), batch_id=f"b{n}", dataset=root, **more)
            )
        state.catalog.save(record("other", SUCCESS, 500, batch_id="b9", tally=tally))
        yield client, id_


def test_batches_by_id(client_and_dataset: tuple[Client, str]) -> None:
    """The newest first, with its dataset, its counts and its errors."""
    client, id_ = client_and_dataset
    listed = client.get(BATCHES).json()
    assert list(listed) == ["b4", "b3", "b2", "b1", "b0", "b9"]
    assert listed["b3"].items() >= {
        "status": "success", "created": 4_000, "recordCount": 8, "failedRecordCount": 2,
        "relatedObjects": [{"type": "dataSet", "id": id_}],
    }.items()  # fmt: skip
    assert listed["b3"]["metrics"]["inputRecordCount"] == 10
    assert listed["b1"]["errors"] == [{"code": CODE_COPY, "description": "no answer"}]
    assert (listed["b1"]["status"], listed["b4"]["status"]) == ("failed", "processing")
    assert listed["b9"]["relatedObjects"] == []
    assert client.get(f"{BATCHES}/b3").json() == {"b3": listed["b3"]}
    problem(client.get(f"{BATCHES}/none"), "1439-404")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("limit=2", ["b4", "b3"]),
        ("limit=2&start=4", ["b0", "b9"]),
        ("limit=2&start=6", []),
        ("orderBy=asc:created&limit=2", ["b9", "b0"]),
        ("orderBy=-updated&limit=1", ["b4"]),
        ("status=failed", ["b1"]),
        ("status=failure", ["b1"]),
        ("status=aborted", []),
        ("createdAfter=3000&createdBefore=5000", ["b3"]),
        ("created=500", ["b9"]),
        ("dataSet=none", []),
    ],
)
def test_a_page_of_batches(
    client_and_dataset: tuple[Client, str], query: str, ids: list[str]
) -> None:
    """Filters, order and pages; past the end an empty object, for which clients wait."""
    client, _ = client_and_dataset
    assert list(client.get(f"{BATCHES}?{query}").json()) == ids


def test_batches_of_a_dataset(client_and_dataset: tuple[Client, str]) -> None:
    """With the fields that are named alone; what is no parameter of it is a 400."""
    client, id_ = client_and_dataset
    found = client.get(f"{BATCHES}?dataSet={id_}&properties=status&limit=1").json()
    assert found == {"b4": {"status": "processing"}}
    for query in ("limit=0", "limit=101", "start=x", "createdAfter=x"):
        problem(client.get(f"{BATCHES}?{query}"), "1452-400")
    problem(client.get(f"{BATCHES}?orderBy=size"), "1433-400")
    problem(client.get(f"{BATCHES}?what=1"), "1451-400")


def test_the_last_batches_of_each_dataset(client_and_dataset: tuple[Client, str]) -> None:
    """The last one of any status, of success and of failure."""
    client, id_ = client_and_dataset
    last = client.get(f"{CATALOG}/lastBatches").json()
    assert list(last) == [id_]
    assert last[id_].items() >= {
        "lastBatchId": "b4", "lastBatchStatus": "processing", "lastSuccessfulBatchId": "b3",
        "lastFailedBatchId": "b1", "created": 5_000,
    }.items()  # fmt: skip
    assert client.get(f"{CATALOG}/lastBatches?dataSetId={id_},x").json() == last
    assert client.get(f"{CATALOG}/lastBatches?lastBatchStatus=success").json() == {}


def test_the_fields_of_a_dataset(client_and_dataset: tuple[Client, str]) -> None:
    """`observableSchema` where it is named."""
    client, id_ = client_and_dataset
    path = f"{DATASETS}/{id_}"
    assert "observableSchema" not in client.get(path).json()[id_]
    found = client.get(f"{path}?properties=observableSchema").json()[id_]
    assert "_extconndev" in found["observableSchema"]["properties"]
    listed = client.get(f"{DATASETS}?properties=observableSchema,name").json()[id_]
    assert listed == found | {"name": "d"}


def test_a_mapping_set_is_deleted(client_and_dataset: tuple[Client, str]) -> None:
    """204, then 404."""
    client, _ = client_and_dataset
    rule = {"source": "data.city", "destination": "_extconndev.city"}
    body = {"xdmSchema": SHIPPED, "mappings": [rule]}
    id_ = client.post(f"{MAPPING_SETS}?validate=false", json=body).json()["id"]
    assert client.delete(f"{MAPPING_SETS}/{id_}").status_code == 204
    problem(client.delete(f"{MAPPING_SETS}/{id_}"), "1439-404")
