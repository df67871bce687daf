"""The daemon runs flows that clients create, and a kill of the daemon loses no resource."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from deltalake import DeltaTable

from engine.config.shipped_files import find
from engine.control.api.app import CATALOG, CONVERSION, FLOWSERVICE, REGISTRY
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from tests.support.api_server import MIXPANEL, Json
from tests.support.daemons import Trial, clock_of, position, until

HOUR = 3_600_000
DATA_LAKE = {"id": "c604ff05-7f1a-43c0-8e18-33bf874cb11c", "version": "1.0"}
SOURCE = {"id": MIXPANEL, "version": "1.0"}
FLOW_SPEC = {"id": "6499120c-0b15-42dc-936e-847ea3c24d72", "version": "1.0"}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(shape="small", events_per_day=100)) as running:
        yield running


@pytest.fixture
def tried(sandbox: Sandbox, tmp_path: Path) -> Trial:
    """A trial whose daemon has a control plane and no flow in its file."""
    clock = clock_of(3600)
    sandbox.project.now = clock.now
    tried = Trial(tmp_path, sandbox, clock)
    tried.config.write_text(
        f'home = "{tried.home}"\n[api]\nlisten = "127.0.0.1:0"\ndatasets = "{tmp_path}/data"\n'
        f'mixpanel_hosts = ["{sandbox.url}"]\n'
    )
    return tried


class FlowClient:
    """A client that creates flows through the API of the running daemon."""

    def __init__(self, tried: Trial) -> None:
        self._tried = tried
        self._started = 0
        self.client = httpx.Client(timeout=30)

    def meet(self) -> None:
        """Wait for a daemon that has just been started."""
        self._started += 1
        until(lambda: len(self._tried.lines("started")) == self._started)
        self.client.base_url = self._tried.lines("listening")[-1]["address"]
        self.client.headers["x-api-key"] = (self._tried.home / "api.token").read_text()

    def post(self, path: str, body: Json) -> Json:
        """Create a resource; return the body of the response."""
        answer = self.client.post(path, json=body)
        assert answer.status_code in (200, 201), answer.text
        found = answer.json()
        return found if isinstance(found, dict) else {"id": found[0].rpartition("/")[2]}

    def steps(self) -> Iterator[tuple[str, str]]:
        """Create a flow and what it uses; yield the path and the id of each resource."""
        flowservice, url = FLOWSERVICE, self._tried.sandbox.url
        params = {"host": url, "username": USERNAME, "password": PASSWORD}
        auth = {"specName": "Basic Authentication", "params": params}
        body: Json = {"name": "shop", "connectionSpec": SOURCE, "auth": auth}
        base = self.post(path := f"{flowservice}/connections", body)["id"]
        yield path, base
        body = {"name": "events", "baseConnectionId": base, "connectionSpec": SOURCE}
        body |= {"data": {"format": "json"}, "params": {"projectId": str(PROJECT_ID)}}
        source = self.post(path := f"{flowservice}/sourceConnections", body)["id"]
        yield path, source
        schema = self.schema()
        ref = {"id": schema, "contentType": "application/vnd.adobe.xed+json;version=1"}
        body = {"name": "events", "schemaRef": ref}
        self.dataset = self.post(path := f"{CATALOG}/dataSets", body)["id"]
        yield path, self.dataset
        body = {"name": "events", "connectionSpec": DATA_LAKE, "data": {"format": "json"}}
        body |= {"params": {"dataSetId": self.dataset}}
        target = self.post(path := f"{flowservice}/targetConnections", body)["id"]
        yield path, target
        rules = find("mapping", "mixpanel-events")[1]["mappings"]
        body = {"version": 0, "xdmSchema": schema, "mappings": rules}
        mapping = self.post(path := f"{CONVERSION}/mappingSets", body)["id"]
        yield path, mapping
        start = self._tried.clock.first // 1000
        body = {
            "name": "events", "flowSpec": FLOW_SPEC,
            "sourceConnectionIds": [source], "targetConnectionIds": [target],
            "transformations": [{"name": "Mapping", "params": {"mappingId": mapping}}],
            "scheduleParams": {"startTime": start, "frequency": "minute", "interval": 15},
        }  # fmt: skip
        self.flow = self.post(path := f"{flowservice}/flows", body)["id"]
        yield path, self.flow

    def schema(self) -> str:
        """Make a schema like the shipped one: its id."""
        own = {k: v for k, v in find("schema", "mixpanel-events")[1].items() if k != "$id"}
        return str(self.post(f"{REGISTRY}/tenant/schemas", own)["$id"])

    def make(self) -> tuple[str, Path]:
        """Create a flow and what it uses; return its id and its table."""
        for _ in self.steps():
            pass
        return self.flow, self._tried.folder / "data" / self.dataset

    def act(self, flow: str, op: str) -> None:
        """Enable or disable a flow."""
        answer = self.client.post(f"{FLOWSERVICE}/flows/{flow}/action", params={"op": op})
        assert answer.status_code == 200, answer.text


class EventClient(FlowClient):
    """A client that makes an ExperienceEvent schema of the tutorial's fields."""

    def schema(self) -> str:
        """Look the class up, and make a field group for it, and a schema of both: its id."""
        classes = self.client.get(f"{REGISTRY}/global/classes").json()["results"]
        (class_,) = [each for each in classes if each["title"] == "XDM ExperienceEvent"]
        fields = {"properties": find("schema", "mixpanel-events")[1]["properties"]}
        group = self.post(
            f"{REGISTRY}/tenant/fieldgroups",
            {
                "title": "Mixpanel", "type": "object", "meta:intendedToExtend": [class_["$id"]],
                "definitions": {"mixpanel": fields}, "allOf": [{"$ref": "#/definitions/mixpanel"}],
            },
        )  # fmt: skip
        refs = [{"$ref": each["$id"], "type": "object"} for each in (class_, group)]
        body = {"title": "Mixpanel events", "type": "object", "allOf": refs}
        return str(self.post(f"{REGISTRY}/tenant/schemas", body)["$id"])


def test_an_experience_event_from_its_class_to_its_rows(tried: Trial) -> None:
    """The tutorial's mapping fills a table of that class: with its id and its time in UTC."""
    user = EventClient(tried)
    with tried.daemon(), user.client:
        user.meet()
        flow, table = user.make()
        until(lambda: arrived(flow, table))
        until(lambda: DeltaTable(table).to_pyarrow_table().num_rows > 50)
        rows = DeltaTable(table).to_pyarrow_table()
        assert set(rows.column_names) == {
            "_extconndev", "_id", "timestamp", "unmapped", "event_date",
        }  # fmt: skip
        for row in rows.to_pylist():
            own = row["_extconndev"]
            assert row["timestamp"].timestamp() == own["time"]
            assert row["_id"] == own["insert_id"] or len(row["_id"]) == 36
        query = {"dataSet": user.dataset, "status": "success", "limit": 1}
        (batch,) = user.client.get(f"{CATALOG}/batches", params=query).json().values()
        assert batch["relatedObjects"] == [{"type": "dataSet", "id": user.dataset}]
        assert batch["tags"]["flowId"] == [flow]


@pytest.fixture
def user(tried: Trial) -> Iterator[FlowClient]:
    user = FlowClient(tried)
    with user.client:
        yield user


def arrived(flow: str, table: Path) -> int:
    """Return the high watermark of a flow; 0 before the first arrival window."""
    return position(table, f"{flow}/arrival")


def test_a_flow_runs_while_it_is_enabled(tried: Trial, user: FlowClient) -> None:
    """A flow runs once created, pauses while disabled, runs a requested window, and ends if
    deleted.
    """
    with tried.daemon() as process:
        user.meet()
        flow, other = user.make(), user.make()
        until(lambda: arrived(*flow) and arrived(*other))

        def rests() -> bool:
            """Return whether the flow brings no event in an hour of the other flow."""
            before, there = arrived(*flow), arrived(*other)
            until(lambda: arrived(*other) > there + HOUR)
            return arrived(*flow) == before

        user.act(flow[0], "DISABLE")
        until(rests)
        user.act(flow[0], "ENABLE")
        before = arrived(*flow)
        until(lambda: arrived(*flow) > before)

        patch = [{"op": "replace", "path": "/scheduleParams/frequency", "value": "week"},
                 {"op": "replace", "path": "/scheduleParams/interval", "value": 1}]  # fmt: skip
        shown = user.client.get(f"{FLOWSERVICE}/flows/{flow[0]}").json()["items"][0]
        headers = {"If-Match": shown["etag"]}
        path = f"{FLOWSERVICE}/flows/{flow[0]}"
        assert user.client.patch(path, json=patch, headers=headers).status_code == 200
        until(rests)  # until next week

        day = tried.clock.first // 1000 - 2 * 86_400
        params = {"windowStartTime": day, "windowEndTime": day + 3600}
        run = user.post(f"{FLOWSERVICE}/runs", {"flowId": flow[0], "params": params})["id"]

        def status() -> Any:
            item = user.client.get(f"{FLOWSERVICE}/runs/{run}").json()["items"][0]
            return item["metrics"]["statusSummary"]["status"]

        until(lambda: status() == "success")
        assert user.client.delete(path).status_code == 204
        assert user.client.get(path).status_code == 404
        until(rests)
        process.terminate()
        assert process.wait(20) == 0
    assert not [line for line in tried.lines() if line["level"] == "error"]
    assert PASSWORD not in tried.log.read_text()


def test_a_kill_between_calls_loses_no_resource(tried: Trial, user: FlowClient) -> None:
    """After a kill, created resources are shown unchanged, and the next call can use them."""
    steps, path, id_ = user.steps(), "", ""
    for killed_after in ("connections", "dataSets", "flows", ""):
        with tried.daemon() as process:
            user.meet()
            if path:
                answer = user.client.get(f"{path}/{id_}")
                assert answer.status_code == 200
                assert id_ in answer.text
            while not path.endswith(killed_after):
                path, id_ = next(steps)
            if not killed_after:
                until(lambda: arrived(user.flow, tried.folder / "data" / user.dataset))
            process.kill()


def test_a_kill_during_calls_loses_no_answered_resource(tried: Trial, user: FlowClient) -> None:
    """After a kill during calls, every resource with a response exists, and all are complete."""
    path = f"{FLOWSERVICE}/connections"
    params = {"username": USERNAME, "password": PASSWORD}
    auth = {"specName": "Basic Authentication", "params": params}
    made: list[str] = []

    def make() -> None:
        try:
            while True:
                body = {"name": "shop", "connectionSpec": SOURCE, "auth": auth}
                made.append(user.post(path, body)["id"])
        except httpx.HTTPError:
            return

    with tried.daemon() as process:
        user.meet()
        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(made) > 20)
        process.kill()
        for thread in threads:
            thread.join()
    with tried.daemon():
        user.meet()
        for id_ in made:
            assert user.client.get(f"{path}/{id_}").json()["items"][0]["auth"] is not None
        everything = user.client.get(path, params={"limit": 100}).json()["items"]
        assert all(item["etag"] and item["name"] == "shop" for item in everything)
