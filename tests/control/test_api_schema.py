"""The application conforms to its own OpenAPI document. Schemathesis tests it with all of its
checks: `SCHEMATHESIS=100` generates far more cases, `SCHEMATHESIS_SEED` the same ones again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine.control import to_flow
from engine.control.api.app import REGISTRY
from engine.control.api.auth import AuthMiddleware
from engine.model.flow import Secret
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from tests.support.api_client import (
    CONNECTIONS,
    DATASETS,
    MAPPING_SETS,
    MIXPANEL,
    SCHEMAS,
    SHIPPED,
    served,
)
from tests.support.pulling import pull
from tests.support.serving import serving

Json = Any
ROOT = Path(__file__).parents[1]
TOKEN = "the-token-of-this-test"
SERVICE = CONNECTIONS.rpartition("/")[0]
LAKE, FLOW = "c604ff05-7f1a-43c0-8e18-33bf874cb11c", "6499120c-0b15-42dc-936e-847ea3c24d72"
MAPPING = json.loads((ROOT.parent / "mappings/mixpanel-events.json").read_text())
DOCUMENTS = ("classes", "fieldgroups", "mixins", "datatypes")  # besides schemas
# What shares the code of another operation, of which all cases are asked: few are of it, unless
# more are wanted. And one method that a path does not have is as good as six.
ALIKE = [
    *(f"GET {SERVICE}/{kind}" for kind in ("connections", "sourceConnections")),
    *(f"GET {SERVICE}/{kind}" for kind in ("targetConnections", "connectionSpecs", "flowSpecs")),
    *(
        f"{method} {SERVICE}/{kind}/{{id}}"
        for kind in ("sourceConnections", "targetConnections", "flows")
        for method in ("GET", "PATCH", "DELETE")
    ),
    f"GET {SERVICE}/flowSpecs/{{id}}",
    f"PUT {MAPPING_SETS}/{{mapping_set_id}}",
    "GET /data/foundation/export/batches/{batch}/failed",
    *(f"POST {REGISTRY}/tenant/{kind}" for kind in DOCUMENTS),
    *(
        f"GET {REGISTRY}/{container}/{kind}{one}"
        for container, kinds in (
            ("tenant", (*DOCUMENTS, "unions")),
            ("global", (*DOCUMENTS, "schemas", "behaviors")),
        )
        for kind in kinds
        for one in ("", "/{resource_id}")
    ),
    *(
        f"{method} {REGISTRY}/tenant/{kind}/{{resource_id}}"
        for kind in DOCUMENTS
        for method in ("PUT", "PATCH", "DELETE")
    ),
    f"GET {REGISTRY}/global/descriptors",
]
QUICKER = f"""
[phases.coverage]
unexpected-methods = ["TRACE"]
[[operations]]
include-name = {json.dumps(ALIKE)}
phases.coverage.enabled = false
"""
START = 1_704_067_200_000  # 2024-01-01


def make(client: Any, path: str, body: Json) -> str:
    """Create a resource; return its id."""
    answer = client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    found = answer.json()
    return str(found[0].rpartition("/")[2] if isinstance(found, list) else found["id"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Json]]:
    """The URL of the application, which has a resource of each kind, and its OpenAPI document.

    Its clock is a minute later at each call, so that no budget is used up.
    """
    home, minutes = tmp_path_factory.mktemp("home"), count(START, 60_000)
    environ = {"MIXPANEL_PROJECT_ID": str(PROJECT_ID)}
    patch = pytest.MonkeyPatch()
    with (
        Sandbox(Spec(events_per_day=20, reject_percent=5)) as sandbox,
        served(home, environ, lambda: next(minutes)) as (client, _),
        patch.context() as patched,
    ):
        patched.setattr(to_flow, "HOST", sandbox.url)  # nobody else is ever asked
        root = tmp_path_factory.mktemp("data") / "events"
        item = pull(sandbox.url, root, [date(2024, 1, 1)], home=home).items[0]
        document = client.get("/openapi.json").json()
        give_examples(document, *resources(client, sandbox.url, item))
        with serving(AuthMiddleware(client.app, Secret(TOKEN), [])) as url:
            yield url, document


def resources(client: Any, host: str, item: Json) -> tuple[dict[str, str], dict[str, Json]]:
    """Create the tutorial's resources; return ids by parameter and bodies by path."""
    params = {"host": host, "username": USERNAME, "password": PASSWORD}
    spec, ref = {"id": MIXPANEL, "version": "1.0"}, {"id": SHIPPED}
    bodies: dict[str, Json] = {
        CONNECTIONS: {
            "name": "shop",
            "connectionSpec": spec,
            "auth": {"specName": "Basic Authentication", "params": params},
        },
        SCHEMAS: {"title": "own", "properties": {"a": {"type": "string"}}},
        DATASETS: {"name": "events", "schemaRef": ref},
        MAPPING_SETS: MAPPING | {"xdmSchema": SHIPPED},
    }
    connection = make(client, CONNECTIONS, bodies[CONNECTIONS])
    dataset = make(client, DATASETS, bodies[DATASETS])
    mapping = make(client, MAPPING_SETS, bodies[MAPPING_SETS])
    bodies[f"{SERVICE}/sourceConnections"] = {
        "baseConnectionId": connection,
        "connectionSpec": spec,
        "data": {"format": "json"},
        "params": {"projectId": str(PROJECT_ID), "timezone": "Pacific Standard Time"},
    }
    bodies[f"{SERVICE}/targetConnections"] = {
        "connectionSpec": {"id": LAKE},
        "data": {"format": "json"},
        "params": {"dataSetId": dataset},
    }
    source, target = (
        make(client, f"{SERVICE}/{kind}", bodies[f"{SERVICE}/{kind}"])
        for kind in ("sourceConnections", "targetConnections")
    )
    bodies[f"{SERVICE}/flows"] = {
        "flowSpec": {"id": FLOW, "version": "1.0"},
        "sourceConnectionIds": [source],
        "targetConnectionIds": [target],
        "transformations": [{"name": "Mapping", "params": {"mappingId": mapping}}],
        "scheduleParams": {"startTime": "4102444800", "frequency": "minute", "interval": 15},
    }
    flow = make(client, f"{SERVICE}/flows", bodies[f"{SERVICE}/flows"])
    another = {"params": {"dataSetId": make(client, DATASETS, bodies[DATASETS])}}
    free = bodies[f"{SERVICE}/targetConnections"] | another  # a table is one flow's alone
    target_of_next = make(client, f"{SERVICE}/targetConnections", free)
    bodies[f"{SERVICE}/flows"] |= {"targetConnectionIds": [target_of_next]}
    days = {"windowStartTime": START, "windowEndTime": START + 1}
    bodies[f"{SERVICE}/runs"] = {"flowId": flow, "params": days}
    bodies[f"{MAPPING_SETS}/preview"] = {
        "data": [{"event": "a", "properties": {"time": 1}}],
        "mappingSet": bodies[MAPPING_SETS],
    }
    ids = {
        f"{CONNECTIONS}/{{id}}": connection,
        "connection_id": connection,
        f"{SERVICE}/sourceConnections/{{id}}": source,
        f"{SERVICE}/targetConnections/{{id}}": target,
        f"{SERVICE}/flows/{{id}}": flow,
        "run_id": item["id"],
        "batch": item["activities"][1]["targetInfo"][0]["reference"]["ids"][0],
        "batch_id": item["activities"][1]["targetInfo"][0]["reference"]["ids"][0],
        "dataset_id": dataset,
        "mapping_set_id": mapping,
        f"{SCHEMAS}/{{resource_id}}": "_extconndev.schemas.mixpanel-events",
        "sampled_id": "_extconndev.schemas.mixpanel-events",
        "exported_id": "_extconndev.schemas.mixpanel-events",
        f"{SERVICE}/connectionSpecs/{{id}}": MIXPANEL,
        f"{SERVICE}/flowSpecs/{{id}}": FLOW,
    }
    return ids, bodies


def give_examples(document: Json, ids: dict[str, str], bodies: dict[str, Json]) -> None:
    """Put existing ids and valid bodies into the document."""
    for path, calls in document["paths"].items():
        body = bodies.get(path.removesuffix("/validate").removesuffix("/{mapping_set_id}"))
        for method, call in calls.items():
            for parameter in call.get("parameters", []):
                known = ids.get(parameter["name"]) or ids.get(path.removesuffix("/action"))
                if known and parameter["in"] == "path" and method != "delete":
                    parameter["example"] = known
                    anything = parameter["schema"]
                    parameter["schema"] = {"anyOf": [{"const": known}, anything]}
            if body and method in ("post", "put"):
                call["requestBody"]["content"]["application/json"]["example"] = body


def test_the_application_conforms_to_its_document(
    service: tuple[str, Json], tmp_path: Path
) -> None:
    """No 5xx, no undocumented status or form, and no invalid request is accepted."""
    url, document = service
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    more = os.environ.get("SCHEMATHESIS", "")
    config = (ROOT / "schemathesis.toml").read_text() + ("" if more else QUICKER)
    schemes = document["components"]["securitySchemes"]
    keys = {"http": "bearer", "apiKey": "api_key"}
    for name, scheme in schemes.items():
        config += f'\n[auth.openapi.{name}]\n{keys[scheme["type"]]} = "{TOKEN}"\n'
    (tmp_path / "schemathesis.toml").write_text(config)
    seed = os.environ.get("SCHEMATHESIS_SEED", "1")
    # The phase of coverage takes the examples too.
    phases = "examples,coverage,fuzzing,stateful" if more else "coverage,fuzzing,stateful"
    words = [
        "--phases",
        phases,
        "--max-examples",
        more or "1",
        "--seed",
        seed,
        "--no-shrink",
        "--continue-on-failure",
    ]
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", "openapi.json", "--url", url, "--warnings", "off", *words),
        ],
        # Where tables of Unicode are kept, which take a second to make.
        env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT.parent / ".hypothesis")},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout[-6000:]}{ran.stderr[-2000:]}"
    assert more or f"{len(ALIKE)} skipped" in ran.stdout
    assert f"Tested: {sum(map(len, document['paths'].values()))}" in ran.stdout
