"""Flows through HTTP: only flows that can run are created, and they run; requested runs."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.catalog.resources import Resource, new
from engine.config.shipped_files import find
from engine.control import to_flow
from engine.control.run_payload import payload
from engine.model.flow import Flow, Schedule, Secret
from engine.model.run_record import SCHEDULED
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from engine.sync.incremental import sync_flow
from engine.sync.run_updates import Ended, RunUpdate
from engine.sync.status import FlowStatus
from tests.support.api_server import Answer, Json, Served, fresh, serving, tutorial
from tests.support.pulling import QUICK

HOUR = 3_600_000
NOON = 1_704_888_000_000  # 2024-01-10, 12:00 UTC


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("api")) as served:
        yield served


def flow_of(api: Served, id_: str) -> Flow:
    """The flow that the engine runs."""
    flows, problems = to_flow.flows(
        api.state.resources, api.state.secret_store, api.state.datasets, None, api.state.hosts
    )
    assert id_ not in problems
    return flows[id_]


def patch(api: Served, id_: str, *operations: tuple[str, str, Any]) -> Any:
    body = [{"op": op, "path": path, "value": value} for op, path, value in operations]
    return api.call("PATCH", f"/flows/{id_}", body, api.show("flows", id_)["etag"])


# Made and shown -----------------------------------------------------------------------------


def test_the_tutorials_flow(api: Served) -> None:
    """The tutorial's flow is shown as in the examples, and the engine runs it."""
    body = api.flow_body()
    id_ = api.make("flows", body)
    shown = api.show("flows", id_)
    assert {name: shown[name] for name in body} == body
    (source,), (target,) = body["sourceConnectionIds"], body["targetConnectionIds"]
    spec = tutorial("connections")["connectionSpec"]
    assert shown["inheritedAttributes"] == {
        "sourceConnections": [
            {
                "id": source,
                "connectionSpec": spec,
                "baseConnection": {
                    "id": api.show("sourceConnections", source)["baseConnectionId"],
                    "connectionSpec": spec,
                },
            }
        ],
        "targetConnections": [
            {"id": target, "connectionSpec": tutorial("targetConnections")["connectionSpec"]}
        ],
        "properties": {"isSourceFlow": True, "isDestinationFlow": False},
    }
    assert shown["runs"] == f"/runs?property=flowId=={id_}"
    assert (shown["state"], shown["lastOperation"]["operation"]) == ("enabled", "create")
    assert "lastRunDetails" not in shown
    flow = flow_of(api, id_)
    assert flow.schedule == Schedule("minute", 15, 1_625_040_887)
    assert (flow.windows, flow.partial_ingestion_percent, flow.diagnostics) == ("arrival", 5, True)
    assert (flow.source_id, flow.target_id) == (source, target)
    assert flow.connection.timezone == "America/Los_Angeles"
    dataset = api.show("targetConnections", target)["params"]["dataSetId"]
    assert flow.dataset == str(api.state.datasets / dataset)


def test_numbers_as_texts_and_options(api: Served) -> None:
    """Both spellings of a schedule; Flow Service's options and ours."""
    schedule = {"startTime": 1625040887, "frequency": "Day", "interval": "15", "backfill": "true"}
    options = {
        "partialIngestionPercent": 20, "errorDiagnosticsEnabled": False, "lookbackDays": 3,
        "delayMinutes": 0, "windows": "day", "unmapped": "drop", "shrinkGuardPercent": 50.5,
        "keepSupersededHours": 1, "keepBatchesDays": 90, "partialIngestionMin": 3,
    }  # fmt: skip
    id_ = api.make("flows", api.flow_body(scheduleParams=schedule, options=options))
    flow = flow_of(api, id_)
    assert flow.schedule == Schedule("day", 15, 1_625_040_887)
    assert flow.backfill_from == date(2021, 6, 30)
    assert (flow.partial_ingestion_percent, flow.lookback_days, flow.delay_minutes) == (20, 3, 0)
    assert flow.partial_ingestion_min == 3
    assert (flow.windows, flow.unmapped, flow.shrink_guard_percent) == ("day", "drop", 50.5)
    assert (flow.keep_superseded_hours, flow.keep_batches_days) == (1, 90)
    assert flow.diagnostics  # they come with partial ingestion
    options = {"errorDiagnosticsEnabled": "false", "backfillFrom": "2024-01-01"}
    id_ = api.make("flows", api.flow_body(options=options))
    assert not flow_of(api, id_).diagnostics
    assert flow_of(api, id_).backfill_from == date(2024, 1, 1)
    once = {"startTime": "1625040887", "frequency": "once"}
    id_ = api.make("flows", api.flow_body(scheduleParams=once))
    assert flow_of(api, id_).schedule == Schedule("once", None, 1_625_040_887)


MINUTE = {"startTime": "1625040887", "frequency": "minute", "interval": 15}
RULES: Json = {"mappings": tutorial("mappingSets")["mappings"]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"flowSpec": None}, "1413-400"),
        ({"flowSpec": {"id": "9753525b-82c7-4dce-8a9b-5ccfce2b9876"}}, "1413-400"),
        ({"state": "enabled"}, "1410-400"),
        ({"sourceConnectionIds": []}, "1338-400"),
        ({"sourceConnectionIds": None}, "1338-400"),
        ({"sourceConnectionIds": [None]}, "1338-400"),
        ({"sourceConnectionIds": [7]}, "1400-400"),
        ({"sourceConnectionIds": ["a", "b"]}, "1321-400"),
        ({"sourceConnectionIds": "a"}, "1321-400"),
        ({"sourceConnectionIds": ["a"]}, "1439-404"),
        ({"targetConnectionIds": []}, "1338-400"),
        ({"targetConnectionIds": ["a", "b"]}, "1321-400"),
        ({"targetConnectionIds": ["a"]}, "1439-404"),
        ({"transformations": []}, "1370-400"),
        ({"transformations": None}, "1370-400"),
        ({"transformations": ["x"]}, "1400-400"),
        ({"transformations": [{"name": "Mapping"}]}, "1359-400"),
        ({"transformations": [{"params": {"mappingVersion": 0}}]}, "1359-400"),
        ({"transformations": [{"params": {"mappingId": "bf5286a9"}}]}, "1439-404"),
        ({"scheduleParams": None}, "1359-400"),
        ({"scheduleParams": {}}, "1359-400"),
        ({"scheduleParams": MINUTE | {"startTime": None}}, "1359-400"),
        ({"scheduleParams": MINUTE | {"startTime": "yesterday"}}, "1340-400"),
        ({"scheduleParams": MINUTE | {"startTime": 1_625_040_887_000}}, "1340-400"),
        ({"scheduleParams": MINUTE | {"startTime": 1.5}}, "1340-400"),
        ({"scheduleParams": MINUTE | {"frequency": "month"}}, "1397-400"),
        ({"scheduleParams": MINUTE | {"frequency": ["minute"]}}, "1397-400"),
        ({"scheduleParams": MINUTE | {"interval": None}}, "1359-400"),
        ({"scheduleParams": MINUTE | {"interval": 14}}, "1362-400"),
        ({"scheduleParams": MINUTE | {"interval": "14"}}, "1362-400"),
        ({"scheduleParams": MINUTE | {"interval": "x"}}, "1363-400"),
        ({"scheduleParams": MINUTE | {"interval": True}}, "1363-400"),
        ({"scheduleParams": MINUTE | {"interval": 10**9}}, "1363-400"),
        ({"scheduleParams": MINUTE | {"frequency": "hour", "interval": 0}}, "1362-400"),
        ({"scheduleParams": MINUTE | {"frequency": "once"}}, "1361-400"),
        (
            {"scheduleParams": {"frequency": "once", "startTime": 1, "backfill": False}},
            "1364-400",
        ),
        ({"scheduleParams": MINUTE | {"backfill": "perhaps"}}, "1400-400"),
        ({"options": {"lookbackdays": 3}}, "1400-400"),
        ({"options": {"partialIngestionPercent": 101}}, "1400-400"),
        ({"options": {"errorDiagnosticsEnabled": "yes"}}, "1400-400"),
        ({"options": "none"}, "1400-400"),
        ({"name": 7}, "1400-400"),
    ],
)
def test_a_flow_that_cannot_run_is_refused(
    api: Served, shared: Json, change: Json, code: str
) -> None:
    """A flow that cannot run is refused with Flow Service's number."""
    before = len(api.state.resources.all("flows"))
    wrong = api.call("POST", "/flows", shared | change)
    assert wrong.code == code, wrong.text
    assert len(api.state.resources.all("flows")) == before


@pytest.fixture(scope="module")
def shared(api: Served) -> Json:
    """The resources that a flow uses, and its body."""
    return api.flow_body()


@pytest.mark.parametrize(
    ("rules", "version", "code"),
    [
        (RULES, "1", "1412-400"),
        (RULES, -1, "1412-400"),
        (RULES, "x", "1412-400"),
        (RULES | {"xdmSchema": "https://ns.adobe.com/other"}, 0, "1425-400"),
        (RULES | {"outputSchema": {"schemaRef": {"id": "other"}}}, 0, "1425-400"),
        ({"mappings": [{"sourceType": "ATTRIBUTE", "source": "data.a", "destination": "_b.c"}]},
         0, "1419-400"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit(
    api: Served, shared: Json, rules: Json, version: Any, code: str
) -> None:
    """The version, schema and rules of a mapping set are checked when a flow is created."""
    params = {"mappingId": api.mapping(**rules), "mappingVersion": version}
    transformations = [{"name": "Mapping", "params": params}]
    wrong = api.call("POST", "/flows", shared | {"transformations": transformations})
    assert wrong.code == code, wrong.text


def test_the_mappings_schema_is_the_datasets(api: Served) -> None:
    """A mapping set names its dataset's schema by `$id`, and a flow runs its version of it."""
    id_ = fresh("schema")
    schema = api.keep("schemas", find("schema", "mixpanel-events")[1] | {"$id": id_})
    dataset = api.keep("dataSets", {"name": "d", "schemaRef": {"id": id_}})
    target = tutorial("targetConnections") | {"params": {"dataSetId": dataset}}
    versions = [RULES | {"xdmSchema": "other"}, RULES | {"xdmSchema": id_}]
    mapping = api.keep("mappingSets", versions[-1] | {"version": 1, "versions": versions})
    params = {"mappingId": mapping, "mappingVersion": 1}
    flow = api.make("flows", api.flow_body(
        targetConnectionIds=[api.make("targetConnections", target)],
        transformations=[{"name": "Mapping", "params": params}],
    ))  # fmt: skip
    assert flow_of(api, flow).mapping == (f"{mapping} (version 1)", versions[1])
    assert flow_of(api, flow).schema[1] == api.state.resources.get("schemas", schema).body
    assert patch(api, flow, ("replace", "/transformations/0/params/mappingVersion", 0)).code == (
        "1425-400"
    )


def test_one_flow_a_dataset(api: Served) -> None:
    """A second flow with the same dataset is refused: it would replace the first one (P4)."""
    body = api.flow_body()
    first = api.make("flows", body)
    wrong = api.call("POST", "/flows", body)
    assert (wrong.code, f"the table of flow {first}" in wrong.text) == ("1400-400", True)
    assert api.call("DELETE", f"/flows/{first}").status == 204
    api.make("flows", body)


def test_of_flows_made_at_once_one_has_the_dataset(api: Served) -> None:
    """Of flows with one dataset that are created at the same time, one is stored."""
    body = json.dumps(api.flow_body())
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: api.call("POST", "/flows", body).status, range(8)))
    assert sorted(made) == [201] + [400] * 7


def test_a_client_cannot_choose_the_path_of_a_table(api: Served, tmp_path: Path) -> None:
    """A client cannot choose the path of a table, and so writes to no other folder."""
    body = api.flow_body()
    target = api.show("targetConnections", body["targetConnectionIds"][0])
    dataset = target["params"]["dataSetId"]

    def move(before: Resource) -> tuple[Resource, list[str]]:
        return replace(before, body=before.body | {"uri": str(tmp_path)}), []

    api.state.resources.change("dataSets", dataset, None, 0, move)
    flow = flow_of(api, api.make("flows", body))
    assert flow.dataset == str(api.state.datasets / dataset)


def test_a_table_of_other_events(api: Served, tmp_path: Path) -> None:
    """A table of another flow or kind of windows is refused when a flow is created."""
    body = api.flow_body()
    dataset = flow_of(api, api.make("flows", body)).dataset
    Path(dataset).mkdir(parents=True)
    (Path(dataset) / "notes.txt").write_text("mine")
    for flow in api.state.resources.all("flows"):
        if flow.body["targetConnectionIds"] == body["targetConnectionIds"]:
            api.call("DELETE", f"/flows/{flow.id}")
    wrong = api.call("POST", "/flows", body)
    assert (wrong.code, "notes.txt" in wrong.text) == ("1400-400", True)


# Changed ------------------------------------------------------------------------------------


def test_the_tutorials_change(api: Served) -> None:
    """The tutorial's patch changes frequency, name and description of the running flow."""
    id_ = api.make("flows", api.flow_body())
    before = flow_of(api, id_)
    changed = patch(
        api, id_,
        ("replace", "/scheduleParams/frequency", "day"),
        ("replace", "/name", "New dataflow name"),
        ("replace", "/description", "Updated dataflow description"),
    )  # fmt: skip
    assert changed.status == 200
    shown = api.show("flows", id_)
    assert (shown["name"], shown["description"]) == (
        "New dataflow name", "Updated dataflow description",
    )  # fmt: skip
    assert shown["lastOperation"]["operation"] == "update"
    assert flow_of(api, id_) == replace(before, schedule=Schedule("day", 15, 1_625_040_887))
    for operation, code in (
        (("replace", "/scheduleParams/interval", 0), "1362-400"),
        (("replace", "/scheduleParams/frequency", "once"), "1361-400"),
        (("remove", "/transformations/0", None), "1370-400"),
        (("replace", "/sourceConnectionIds/0", "x"), "1365-400"),
        (("replace", "/flowSpec/id", "x"), "1365-400"),
        (("add", "/options", {"windows": "never"}), "1400-400"),
    ):
        assert patch(api, id_, operation).code == code
    assert api.show("flows", id_) == shown
    assert patch(api, id_, ("add", "/options", {"lookbackDays": 9})).status == 200
    assert flow_of(api, id_).lookback_days == 9


def test_a_change_that_breaks_a_flow_is_refused(api: Served, running: str) -> None:
    """A change of a resource that breaks an enabled flow is refused, that of a disabled flow is
    not.
    """
    turn(api, running)
    shown = api.show("flows", running)
    (source,), (target,) = shown["sourceConnectionIds"], shown["targetConnectionIds"]
    other = api.show("targetConnections", api.flow_body()["targetConnectionIds"][0])["params"]
    taken = api.make("flows", api.flow_body())
    taken = api.show("flows", taken)["targetConnectionIds"][0]
    taken = api.show("targetConnections", taken)["params"]
    changes = [
        ("sourceConnections", source, {"projectId": "7", "timezone": "UTC"}, 400),
        ("targetConnections", target, taken, 400),
        ("targetConnections", target, other, 200),
    ]
    for kind, id_, params, status in changes:
        change = [{"op": "replace", "path": "/params", "value": params}]
        answer = api.call("PATCH", f"/{kind}/{id_}", change, "*")
        assert answer.status == status, answer.text
    api.call("POST", f"/flows/{running}/action?op=DISABLE")
    change = [{"op": "replace", "path": "/params", "value": taken}]
    assert api.call("PATCH", f"/targetConnections/{target}", change, "*").status == 200
    wrong = api.call("POST", f"/flows/{running}/action?op=ENABLE")
    assert "two flows cannot share one" in wrong.text


def test_a_list_reads_the_runs_of_its_page_only(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list reads the last runs of the flows on its page only."""
    made = [api.make("flows", api.flow_body(name=f"listed {n}")) for n in range(3)]
    looked, history = list[str](), Catalog.history

    def counted(catalog: Catalog, flow: str, **more: Any) -> Any:
        looked.append(flow)
        return history(catalog, flow, **more)

    monkeypatch.setattr(Catalog, "history", counted)
    ids = ",".join(made)
    answer = api.call("GET", f"/flows?limit=1&property=id=={ids}&orderby=createdAt").body
    assert looked == made[:1]
    assert answer["items"] == [api.show("flows", made[0])]
    asked = f"/flows?property=id=={ids}&property=inheritedAttributes.sourceConnections[].id==x"
    assert api.call("GET", asked).body["items"] == []


def test_enabled_and_disabled(api: Served) -> None:
    """A disabled flow does not run, and an action that changes no state is refused."""
    id_ = api.make("flows", api.flow_body())
    assert api.call("POST", f"/flows/{id_}/action?op=ENABLE").code == "1422-400"
    assert api.call("POST", f"/flows/{id_}/action?op=disable").body["id"] == id_
    assert api.show("flows", id_)["state"] == "disabled"
    flows, problems = to_flow.flows(
        api.state.resources, api.state.secret_store, api.state.datasets, None, api.state.hosts
    )
    assert id_ not in flows | problems
    assert api.call("POST", f"/flows/{id_}/action?op=DISABLE", "").code == "1422-400"
    assert patch(api, id_, ("replace", "/name", "still here")).status == 200
    assert api.show("flows", id_)["state"] == "disabled"
    assert api.call("POST", f"/flows/{id_}/action?op=Enable").status == 200
    assert flow_of(api, id_).name == id_
    for op in ("PUBLISH", ""):
        assert api.call("POST", f"/flows/{id_}/action?op={op}").code == "1434-400"
    assert api.call("POST", f"/flows/{id_}/action").status == 400
    assert api.call("POST", "/flows/none/action?op=ENABLE").code == "1439-404"


# Runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=200)) as running:
        running.project.now = lambda: NOON
        yield running


@pytest.fixture
def running(api: Served, sandbox: Sandbox) -> str:
    """Create a flow that pulls from the sandbox; return its id."""
    return flow_on(api, sandbox)


def flow_on(api: Served, sandbox: Sandbox, start: int = NOON // 1000 - 86_400, **more: Any) -> str:
    body = tutorial("connections")
    body["auth"]["params"] |= {"host": sandbox.url, "username": USERNAME, "password": PASSWORD}
    source = api.source(
        api.make("connections", body), projectId=PROJECT_ID, timezone=str(PROJECT_ID)
    )
    schedule = MINUTE | {"startTime": start}
    body = api.flow_body(sourceConnectionIds=[source], scheduleParams=schedule, **more)
    return api.make("flows", body)


def turn(api: Served, id_: str, now: int = NOON) -> list[Json]:
    """Run one turn of a flow as the daemon does."""
    records = sync_flow(flow_of(api, id_), api.state.home, replace(QUICK, now=lambda: now))
    return [payload(record) for record in records]


def ask(api: Served, id_: str, first: int, last: int) -> Any:
    params = {"windowStartTime": first, "windowEndTime": last, "startTime": last,
              "deltaColumn": {"name": "time"}}  # fmt: skip
    return api.call("POST", "/runs", {"flowId": id_, "params": params})


def demanding() -> Json:
    """A schema that few events fit."""
    schema: Json = json.loads(json.dumps(find("schema", "mixpanel-events")[1]))
    schema["properties"]["_extconndev"]["required"] = ["import"]
    return schema


def status_of(api: Served, run: str) -> str:
    entry = api.state.catalog.run(run)
    assert entry
    assert payload(entry)["metrics"]["statusSummary"]["status"] == entry.status
    return entry.status


def test_a_flow_of_the_apis_pulls(api: Served, running: str) -> None:
    """The runs of a flow name its resources, and the flow shows its last run."""
    (run,) = turn(api, running)
    assert run["flowId"] == running
    shown = api.show("flows", running)
    copy, promotion = run["activities"]
    assert [copy["sourceInfo"][0]["id"]] == shown["sourceConnectionIds"]
    assert [promotion["targetInfo"][0]["id"]] == shown["targetConnectionIds"]
    assert shown["lastRunDetails"] == {
        "id": run["id"], "state": "success", **run["metrics"]["durationSummary"],
    }  # fmt: skip
    assert run["metrics"]["recordSummary"]["outputRecordCount"] > 0


def test_a_requested_run_is_scheduled_and_runs_first(api: Served, running: str) -> None:
    """A requested run is scheduled, and the flow's next turn starts with it, under its id."""
    turn(api, running)
    asked = ask(api, running, NOON // 1000 - 2 * 86_400, NOON - 86_400_000)
    assert asked.status == 201
    item = asked.body
    assert item["metrics"]["statusSummary"] == {"status": SCHEDULED}
    assert (item["activities"], item["flowId"], item["etag"][0]) == ([], running, '"')
    assert status_of(api, item["id"]) == SCHEDULED
    (run,) = turn(api, running, NOON + 60_000)
    assert run["id"] == item["id"]
    assert status_of(api, item["id"]) == "success"
    entry = api.state.catalog.run(run["id"])
    assert entry
    assert (entry.window.from_date, entry.window.to_date) == (date(2024, 1, 8), date(2024, 1, 9))
    reached = NOON - 10 * 60_000 - (NOON // 1000 - 86_400) * 1000 % (15 * 60_000)
    assert entry.window.before is not None
    assert abs(entry.window.before - reached) <= 15 * 60_000  # where arrival windows stand
    assert turn(api, running, NOON + 60_000) == []


def rows(api: Served, id_: str) -> int:
    return int(DeltaTable(flow_of(api, id_).dataset).count())


def test_a_requested_day_before_the_first_arrival_window(api: Served, sandbox: Sandbox) -> None:
    """P4: a day that is requested before the first arrival window runs after it, so that no day is
    skipped.
    """
    made = [flow_on(api, sandbox) for _ in range(2)]
    for id_ in made:
        flow = flow_of(api, id_)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Secret, "reveal", lambda _: "wrong")
            (failed,) = sync_flow(flow, api.state.home, replace(QUICK, now=lambda: NOON))
        assert status_of(api, failed.id) == "failed"
    asked = ask(api, made[0], NOON // 1000, NOON // 1000).body["id"]
    assert turn(api, made[0]) == []  # of the same tick
    assert status_of(api, asked) == SCHEDULED
    later = NOON + 15 * 60_000
    assert [run["id"] == asked for run in turn(api, made[0], later)] == [False, True]
    turn(api, made[1], later)
    assert rows(api, made[0]) == rows(api, made[1]) > 0


def test_a_requested_day_before_the_start_time(api: Served, sandbox: Sandbox) -> None:
    """P4: a requested day does not move the start of the first arrival window."""
    flow = flow_on(api, sandbox, NOON // 1000 - 3)  # the first tick has nothing to bring
    asked = ask(api, flow, NOON // 1000, NOON // 1000).body["id"]
    assert [run["id"] for run in turn(api, flow)] == [asked]
    entry = api.state.catalog.run(asked)
    assert entry
    assert entry.window.before == NOON - 10 * 60_000
    late = flow_on(api, sandbox, NOON // 1000 - 14 * 60)
    asked = ask(api, late, NOON // 1000, NOON // 1000).body["id"]
    assert [run["id"] for run in turn(api, late)] == [asked]
    entry = api.state.catalog.run(asked)
    assert entry
    assert entry.window.before == NOON - 14 * 60_000


def test_re_trigger_of_a_failed_run(
    api: Served, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RE_TRIGGER pulls the window of a failed run under a new id."""
    running = flow_on(api, sandbox, options={"partialIngestionMin": 0})
    monkeypatch.setattr(sandbox.project, "clock_ms", NOON + HOUR)
    turn(api, running)
    asked = ask(api, running, NOON // 1000 - 86_400, NOON // 1000 - 86_400).body["id"]
    assert api.call("POST", f"/runs/{asked}/action?op=RE_TRIGGER").code == "1387-400"
    target = api.show("flows", running)["targetConnectionIds"][0]
    dataset = api.show("targetConnections", target)["params"]["dataSetId"]
    schema = api.state.resources.get("dataSets", dataset).body["schemaRef"]["id"]

    def put(document: Json) -> None:
        api.state.resources.change(
            "schemas", schema, None, 0, lambda before: (replace(before, body=document), [])
        )

    put(demanding())
    statuses = [
        run["metrics"]["statusSummary"]["status"] for run in turn(api, running, NOON + HOUR)
    ]
    assert set(statuses) == {"failed"}
    arrival = next(
        run.id for run in api.state.catalog.history(running, "failed") if run.window.arrival
    )
    assert status_of(api, asked) == "failed"
    put(find("schema", "mixpanel-events")[1])
    again = [api.call("POST", f"/runs/{id_}/action?op=re_trigger") for id_ in (asked, arrival)]
    assert [answer.status for answer in again] == [201, 201]
    status = FlowStatus(flow_of(api, running), api.state.catalog, NOON + HOUR)
    assert "rejected" in status.wrong  # what is to come hides nothing of what was
    ran = [run["id"] for run in turn(api, running, NOON + HOUR)]
    assert ran == [answer.body["id"] for answer in again]
    assert {status_of(api, id_) for id_ in ran} == {"success"}
    late = api.call("POST", f"/runs/{arrival}/action?op=re_trigger").body["id"]
    assert turn(api, running, NOON + HOUR) == []
    entry = api.state.catalog.run(late)
    assert entry
    assert entry.status == "success"  # all of it has come by now
    assert entry.result.lines == 0


def test_a_run_requested_during_a_turn_waits_for_no_tick(api: Served, running: str) -> None:
    """A run requested in a turn starts without a tick; a failed arrival window waits for one."""
    asked = list[str]()

    def listen(event: RunUpdate) -> None:
        if isinstance(event, Ended) and event.error and not asked:
            again = api.call("POST", f"/runs/{event.record.id}/action?op=RE_TRIGGER")
            asked.append(again.body["id"])

    flow = replace(flow_of(api, running), schema=("s", demanding()))
    ran = sync_flow(flow, api.state.home, replace(QUICK, now=lambda: NOON), listen)
    assert asked[0] in [run.id for run in ran]
    assert status_of(api, asked[0]) == "failed"


def test_requested_runs_end_with_their_flow(api: Served, running: str) -> None:
    """A turn that cannot start leaves no scheduled run, and a deleted flow gets no turn."""
    asked = ask(api, running, NOON // 1000, NOON // 1000).body["id"]
    flow = flow_of(api, running)
    Path(flow.dataset).mkdir(parents=True)
    (Path(flow.dataset) / "notes.txt").write_text("mine")
    with pytest.raises(Exception, match=r"notes\.txt"):
        turn(api, running)
    assert status_of(api, asked) == "failed"
    assert api.call("DELETE", f"/flows/{running}").status == 204
    again = api.call("POST", f"/runs/{asked}/action?op=RE_TRIGGER")
    assert again.code == "1439-404"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "1446-400"),
        ({"flowId": ""}, "1446-400"),
        ({"flowId": "aa6a206f", "params": {"windowStartTime": 1}}, "1430-400"),
        ({"params": None}, "1384-400"),
        ({"params": {}}, "1384-400"),
        ({"params": {"windowStartTime": 1}}, "1384-400"),
        ({"params": {"windowStartTime": "x", "windowEndTime": 1}}, "1384-400"),
        ({"params": {"windowStartTime": 2, "windowEndTime": 1}}, "1381-400"),
        ({"params": {"windowStartTime": 1, "windowEndTime": 2678402}}, "1384-400"),
        ({"params": {"windowStartTime": 99999999999, "windowEndTime": 99999999999}}, "1384-400"),
        ({"params": {"windowStartTime": 10**18, "windowEndTime": 10**18}}, "1384-400"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_requested(api: Served, idle: str, body: Json, code: str) -> None:
    """Each wrong request of a run has its number, and schedules nothing."""
    given = body if not body or "flowId" in body else {"flowId": idle} | body
    wrong = api.call("POST", "/runs", given)
    assert wrong.code == code, wrong.text
    assert api.state.catalog.history(idle) == []


def test_a_future_window_is_named_in_its_error(api: Served, idle: str) -> None:
    """The error of a window in the future names the days of the request."""
    for start, end, sentence in (
        (86_400, 86_400 * 40, "The window is 1970-01-01 to 1970-02-09. Please ask for at most 31"),
        (99_999_999_999, 99_999_999_999, "The window begins on 5138-11-16. Please provide one"),
    ):
        assert sentence in ask(api, idle, start, end).body["errorMessage"]


@pytest.fixture(scope="module")
def idle(api: Served) -> str:
    return api.make("flows", api.flow_body())


def test_a_flow_of_a_file_is_changed_there(api: Served, tmp_path: Path) -> None:
    """A flow of a configuration file is shown, and changed in the file only; it may be deleted once
    the file is missing, unless the daemon runs that file.
    """
    body = api.flow_body()
    del body["scheduleParams"]
    file = tmp_path / "flows.toml"
    file.touch()
    resource = new("flows", body | {"name": "by-hand"}, NOON, origin=str(file))
    api.state.resources.create(resource)
    assert api.show("flows", resource.id)["name"] == "by-hand"
    assert ask(api, resource.id, 0, 0).code == "1386-400"

    def refused(*others: Answer) -> bool:
        answers = api.call("DELETE", f"/flows/{resource.id}"), *others
        return {(each.code, str(file) in each.text) for each in answers} == {("1400-400", True)}

    def changes() -> tuple[Answer, Answer]:
        disabled = api.call("POST", f"/flows/{resource.id}/action?op=DISABLE")
        return patch(api, resource.id, ("replace", "/name", "x")), disabled

    assert refused(*changes())
    file.unlink()
    api.state.files.add(str(file))
    assert refused(*changes())
    api.state.files.clear()
    assert {answer.code for answer in changes()} == {"1400-400"}
    assert api.call("DELETE", f"/flows/{resource.id}").status == 204


def test_a_disabled_flow_runs_nothing(api: Served) -> None:
    """Neither by name nor once more."""
    id_ = api.make("flows", api.flow_body())
    api.call("POST", f"/flows/{id_}/action?op=DISABLE")
    assert ask(api, id_, 0, 0).code == "1388-400"
    assert api.call("POST", "/runs/none/action?op=RE_TRIGGER").code == "1439-404"
    assert api.call("POST", "/runs/none/action?op=PUBLISH").code == "1434-400"
