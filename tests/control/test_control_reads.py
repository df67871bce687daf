"""What clients read of real runs: records, files of batches, health and metrics."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from threading import Event, Semaphore
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.catalog.database import Catalog
from engine.catalog.resources import new
from engine.control.api.app import app_of
from engine.control.api.app_state import AppState
from engine.control.run_payload import payload
from engine.control.secrets import secret_store_of
from engine.errors import EtlError
from engine.model.batch import CORRUPT, INVALID, REQUIRED
from engine.model.run_record import IN_PROGRESS, SCHEDULED
from engine.model.schedule import HOUR, SECOND
from engine.model.window import Window
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from tests.support.api_client import keep_connection, keep_source, served
from tests.support.pulling import pull
from tests.support.records import record
from tests.support.serving import serving

Json = dict[str, Any]
DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
SPEC = Spec(events_per_day=50, duplicate_percent=2, reject_percent=4)
SERVICE, EXPORT = "/data/foundation/flowservice", "/data/foundation/export"
NOW = 1_800_000_000_000


@dataclass
class Control:
    """The state over a home in which `items` are the records of two real runs."""

    client: httpx.Client
    state: AppState
    items: list[Json]
    root: Path

    def get(self, address: str, status: int = 200) -> Any:
        answer = self.client.get(address)
        assert answer.status_code == status, answer.text
        return answer.json()

    def lines(self, address: str) -> list[Json]:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.text.splitlines()]

    @property
    def batch(self) -> str:
        return batch_of(self.items[0])


def batch_of(item: Json) -> str:
    batch: str = item["activities"][1]["targetInfo"][0]["reference"]["ids"][0]
    return batch


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """Two days with rejects that succeeded, and one that failed with too many."""
    home, root = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("data") / "events"
    with Sandbox(SPEC) as sandbox:
        items = pull(sandbox.url, root, DAYS[:2], home=home).items
        few: dict[str, Any] = {"partial_ingestion_percent": 1, "partial_ingestion_min": 0}
        strict = pull(sandbox.url, root, DAYS[2:], home=home, **few)
        items += strict.items
    with Catalog(home) as catalog:
        state = AppState(
            home, catalog, secret_store_of(home), home / "tables", {}, lambda: NOW, lambda: None
        )
        app = app_of(state)
        with serving(app) as url, httpx.Client(base_url=url) as client:
            yield Control(client, state, items, root)


# Runs ------------------------------------------------------------------------------------


def test_runs_are_listed_with_urls_for_paths(control: Control) -> None:
    """Runs are listed newest first, as they were stored, with URLs in place of local paths."""
    answer = control.get(f"{SERVICE}/runs")
    assert answer["_links"] == {}
    assert [item["id"] for item in answer["items"]] == [item["id"] for item in control.items[::-1]]
    for shown, kept in zip(answer["items"], control.items[::-1], strict=True):
        for batch, at in ((batch_of(kept), activity) for activity in shown["activities"]):
            assert str(control.root) not in json.dumps(at)
            for summary in (at["fileSummary"], at["statusSummary"]):
                for name, address in summary.get("extensions", {}).get("manifest", {}).items():
                    meta = f"{control.client.base_url}{EXPORT}/batches/{batch}/meta"
                    assert address.startswith(f"{meta}?path="), name
        assert without_manifests(shown) == without_manifests(kept)
        assert control.get(f"{SERVICE}/runs/{kept['id']}") == {"items": [shown]}


def without_manifests(item: Json) -> Json:
    item = json.loads(json.dumps(item))
    for activity in item["activities"]:
        for summary in (activity["fileSummary"], activity["statusSummary"]):
            summary.get("extensions", {}).pop("manifest", None)
    return item


def test_runs_are_filtered_as_the_guide_shows(control: Control) -> None:
    """By flow, status in any case, and time; counted, and page by page."""
    flow, failed = control.items[0]["flowId"], control.items[-1]
    runs = f"{SERVICE}/runs"
    assert control.get(f"{runs}?property=metrics.statusSummary.status==Failed&count=true") == {
        "count": 1
    }
    assert control.get(f"{runs}?property=flowId=={flow.upper()}&count=True") == {"count": 3}
    began = "metrics.durationSummary.startedAtUTC"
    at = failed["metrics"]["durationSummary"]["startedAtUTC"]
    found = control.get(f"{runs}?property={began}>={at}&property={began}<{at + 1}")["items"]
    assert [item["id"] for item in found] == [failed["id"]]
    address, seen = f"{runs}?limit=1&orderby=createdAt", []
    while address:
        answer = control.get(address)
        seen += [item["id"] for item in answer["items"]]
        href = answer["_links"].get("next", {}).get("href")
        address = href and f"{SERVICE}{href}"
    assert seen == [item["id"] for item in control.items]


def test_a_run_that_is_not_there_and_a_filter_that_is_none(control: Control) -> None:
    """In Flow Service's form."""
    gone = control.get(f"{SERVICE}/runs/nobody", 404)
    assert gone["type"].endswith("FLOW-1439-404")
    assert (gone["report"]["id"], gone["report"]["type"]) == ("nobody", "runs")
    wrong = control.get(f"{SERVICE}/runs?property=colour==x", 400)
    assert wrong["type"].endswith("FLOW-1449-400")
    assert "Runs are filtered and ordered by id, flowId, state" in wrong["errorMessage"]


def test_running_and_scheduled_runs_are_listed_too(control: Control) -> None:
    """A running run is listed without an end, a scheduled one without activities."""
    known = {"flow": "other", "dataset": str(control.root), "window": Window(DAYS[0], DAYS[0])}
    records = [record(status, status, NOW, **known) for status in (IN_PROGRESS, SCHEDULED)]
    catalog = control.state.catalog
    for each in records:
        catalog.save(each)
    running, scheduled = map(payload, records)
    try:
        for status, item in (("inProgress", running), ("SCHEDULED", scheduled)):
            assert control.get(f"{SERVICE}/runs?property=state=={status}")["items"] == [item]
        (unfinished,) = [
            family for family in figures(control) if family.name == "mixpanel_etl_runs_unfinished"
        ]
        assert {(s.labels["flow"], s.labels["status"], s.value) for s in unfinished.samples} == {
            ("other", "inProgress", 1),
            ("other", "scheduled", 1),
        }
    finally:
        with catalog.transaction() as connection:
            connection.execute("DELETE FROM runs WHERE flow = 'other'")


# Batches ---------------------------------------------------------------------------------


def manifests(control: Control, item: Json) -> Json:
    """The addresses of a run's record."""
    (shown,) = control.get(f"{SERVICE}/runs/{item['id']}")["items"]
    copy, promotion = shown["activities"]
    assert "manifest" not in json.dumps(copy)
    status: Json = promotion["statusSummary"]["extensions"]["manifest"]
    files: Json = promotion["fileSummary"]["extensions"]["manifest"]
    return status | files


def test_the_urls_of_a_run_lead_to_its_rejects(control: Control) -> None:
    """The URLs of successful and failed runs lead to every rejected record."""
    for item in control.items:
        addresses = manifests(control, item)
        assert addresses.keys() == {"fileInfo", "failedRecords", "sampleErrors"}
        rejected = sum(
            each["recordCount"]
            for each in item["activities"][1]["statusSummary"]["extensions"]["errors"][1:]
        )
        listed = control.get(addresses["failedRecords"])
        assert listed["_page"] == {"count": len(listed["data"]), "limit": 100}
        lines = []
        for file in listed["data"]:
            body = control.client.get(file["_links"]["self"]["href"]).content
            assert file["length"] == str(len(body))
            assert file["_links"]["self"]["href"].endswith(f"?path=row_errors/{file['name']}")
            lines += control.lines(file["_links"]["self"]["href"])
        assert len(lines) == rejected > 0
        assert {line["_errors"][0]["code"] for line in lines} <= {REQUIRED, INVALID, CORRUPT}
        assert control.lines(addresses["sampleErrors"]) == lines[:100]


def test_the_request_of_a_batch_is_shown(control: Control) -> None:
    """The input file of a committed batch shows the request without a secret, and its size."""
    for item in control.items[:2]:
        (file,) = control.get(manifests(control, item)["fileInfo"])["data"]
        (request,) = control.lines(file["_links"]["self"]["href"])
        assert request["records"] == item["metrics"]["recordSummary"]["inputRecordCount"]
        assert request["path"].startswith("http")
    assert control.get(f"{EXPORT}/batches/{batch_of(control.items[2])}/meta?path=input_files") == {
        "_page": {"count": 0, "limit": 100},
        "data": [],
    }


def test_the_rejected_records_of_a_batch_are_its_failed_ones(control: Control) -> None:
    """The same files by their names alone; `%2F` and `/` are the same; so are both spellings."""
    batch = f"{EXPORT}/batches/{control.batch}"
    for file in control.get(f"{batch}/failed")["data"]:
        lines = control.lines(file["_links"]["self"]["href"])
        assert file["_links"]["self"]["href"].endswith(f"/failed?path={file['name']}")
        assert lines == control.lines(f"{batch}/meta?path=row_errors%2F{file['name']}")
        assert lines == control.lines(f"{batch}/meta?path=/row_errors/{file['name']}")
    samples = control.lines(f"{batch}/meta?path=row_error_samples.json")
    assert samples == control.lines(f"{batch}/meta?path=row_errors_sample.json")
    top = [each["name"] for each in control.get(f"{batch}/meta")["data"]]
    assert top == ["input_files", "row_error_samples.json", "row_errors"]


def test_the_files_of_a_batch_are_its_files_in_the_table(control: Control) -> None:
    """The files of a batch have the number and size of its record, and can be downloaded; a failed
    run has none.
    """
    for item in control.items:
        listed = control.get(f"{EXPORT}/batches/{batch_of(item)}/files")
        metrics = item["metrics"]
        assert len(listed["data"]) == metrics["fileSummary"]["outputFileCount"]
        sizes = sum(int(each["size"]) for each in listed["data"])
        assert sizes == metrics["sizeSummary"]["outputBytes"]
        for each in listed["data"]:
            (file,) = control.get(each["_links"]["self"]["href"])["data"]
            body = control.client.get(file["_links"]["self"]["href"])
            assert (body.content[:4], str(len(body.content))) == (b"PAR1", each["size"])
            assert body.headers["content-type"] == "application/octet-stream"


def test_files_of_another_batch_are_not_listed(control: Control) -> None:
    """A file of another batch is not listed, though it is of the same day."""
    (before,) = control.get(f"{EXPORT}/batches/{control.batch}/files")["data"]
    (file,) = control.root.glob(f"*/{before['dataSetFileId']}.parquet")
    other = file.with_name("OTHER-0.parquet")
    other.write_bytes(b"PAR1")
    try:
        assert control.get(f"{EXPORT}/batches/{control.batch}/files")["data"] == [before]
        control.get(f"{EXPORT}/files/OTHER-0", 404)
    finally:
        other.unlink()


def test_a_deleted_batch_has_no_files(control: Control) -> None:
    """A batch whose folder was deleted has no files; its run and its data stay."""
    batch = batch_of(control.items[1])
    folder = control.root / "_batches" / batch
    addresses = manifests(control, control.items[1])
    (file,) = control.get(addresses["fileInfo"])["data"]
    folder.rename(control.root / "elsewhere")
    try:
        nothing = {"_page": {"count": 0, "limit": 100}, "data": []}
        assert control.get(f"{EXPORT}/batches/{batch}/meta") == nothing
        assert control.get(f"{EXPORT}/batches/{batch}/failed") == nothing
        assert control.get(addresses["fileInfo"]) == nothing
        control.get(file["_links"]["self"]["href"], 404)
        assert len(control.get(f"{EXPORT}/batches/{batch}/files")["data"]) == 1
    finally:
        (control.root / "elsewhere").rename(folder)


def test_a_batch_deleted_during_a_request(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is deleted during a request counts as deleted before it."""
    batch = f"{EXPORT}/batches/{batch_of(control.items[1])}/meta"

    def gone(path: Path) -> Iterator[Path]:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", gone)
        assert control.get(batch)["data"] == []

    def named(path: Path) -> Iterator[Path]:
        return iter([path / "fileMetaData1.json", path / "fileMetaData9.json"])

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", named)
        listed = control.get(f"{batch}?path=input_files")["data"]
        assert [each["name"] for each in listed] == ["fileMetaData1.json"]
        control.get(f"{batch}?path=input_files/fileMetaData9.json", 404)


def test_a_long_list_of_files_comes_in_pages(control: Control) -> None:
    """Each page of a long list of files links to the next one."""
    batch = f"{EXPORT}/batches/{control.batch}/meta"
    address: str | None = f"{batch}?limit=1"
    seen = []
    while address:
        answer = control.get(address)
        assert answer["_page"] == {"count": 1, "limit": 1}
        seen += [each["name"] for each in answer["data"]]
        address = answer.get("_links", {}).get("next", {}).get("href")
    assert seen == [each["name"] for each in control.get(batch)["data"]]
    assert len(seen) == 3


@pytest.mark.parametrize(
    "path",
    [
        "batches/NOBODY/meta",
        "batches/NOBODY/failed",
        "batches/NOBODY/files",
        "batches/{batch}/meta?path=batch.json",
        "batches/{batch}/meta?path=nothing",
        "batches/{batch}/meta?path=row_errors/nothing.json",
        "batches/{batch}/meta?path=../../../etc/passwd",
        "batches/{batch}/meta?path=row_errors/../batch.json",
        "batches/{batch}/meta?path=row_errors%2F..%2Fbatch.json",
        "batches/{batch}/meta?path=input_files/../row_error_samples.json",
        "batches/{batch}/meta?path=.",
        "batches/{batch}/meta?path=..",
        "batches/{batch}/meta?path=/etc/passwd",
        "batches/{batch}/meta?path=row_errors%00",
        "batches/{batch}/failed?path=../batch.json",
        "batches/{batch}/failed?path=..",
        "batches/%2E%2E/meta",
        "batches/..%2F{batch}/meta",
        "batches/%00/files",
        "files/{batch}",
        "files/nothing",
        "files/{batch}-9",
        "files/{file}?path=../{file}.parquet",
        "files/-",
    ],
)
def test_paths_outside_a_batch_are_not_found(control: Control, path: str) -> None:
    """Only listed names are served; every other path is 404 in Flow Service's form."""
    (file,) = control.get(f"{EXPORT}/batches/{control.batch}/files")["data"]
    address = path.format(batch=control.batch, file=file["dataSetFileId"])
    answer = control.client.get(f"{EXPORT}/{address}")
    assert answer.status_code == 404
    if "%2F" not in path.partition("?")[0]:
        assert answer.json()["type"].endswith("FLOW-1439-404")


def test_a_link_in_a_batch_s_folder_is_not_followed(control: Control) -> None:
    """A symbolic link in the folder of a batch is not followed."""
    link = control.root / "_batches" / control.batch / "row_errors" / "link.json"
    link.symlink_to("/etc/hostname")
    try:
        control.get(f"{EXPORT}/batches/{control.batch}/meta?path=row_errors/link.json", 404)
    finally:
        link.unlink()


LISTS = ("meta?path=input_files", "meta?path=row_errors", "failed")


@pytest.mark.parametrize(
    ("name", "shown"), [("input_files", LISTS[1:]), ("row_errors", LISTS[:1]), (".", ())]
)
def test_a_folder_that_is_a_link_is_not_followed(
    control: Control, name: str, shown: tuple[str, ...], tmp_path: Path
) -> None:
    """A folder that is a symbolic link is not followed, nor are the files below it."""
    folder = (control.root / "_batches" / control.batch / name).resolve()
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    try:
        for path in LISTS:
            found = control.get(f"{EXPORT}/batches/{control.batch}/{path}")["data"]
            assert bool(found) is (path in shown)
    finally:
        folder.unlink()
        moved.rename(folder)


def test_a_name_that_is_not_utf_8_has_no_address(control: Control) -> None:
    """A file whose name is not UTF-8 is not listed; all others are."""
    path = f"{EXPORT}/batches/{control.batch}/failed"
    before = control.get(path)
    odd = control.root / "_batches" / control.batch / "row_errors" / "\udcff.json"
    odd.touch()
    try:
        assert control.get(path) == before
    finally:
        odd.unlink()


# Health ----------------------------------------------------------------------------------


def figures(control: Control) -> list[Any]:
    answer = control.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return list(text_string_to_metric_families(answer.text))


def samples(control: Control, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metric by the values of its labels, in the order of label names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in figures(control)
        for sample in family.samples
        if sample.name == f"mixpanel_etl_{name}"
    }


def test_it_lives(control: Control) -> None:
    assert control.get("/healthz") == {"status": "ok"}


def test_healthz_needs_no_thread(control: Control) -> None:
    """/healthz answers while every thread of the server is busy."""
    inside, gate = Semaphore(0), Event()

    def waiting() -> tuple[str, ...]:
        inside.release()
        gate.wait(30)
        return ()

    app = app_of(replace(control.state, unready=waiting))
    with serving(app) as url, ThreadPoolExecutor(40) as callers, httpx.Client() as client:
        try:
            for _ in range(40):
                callers.submit(client.get, f"{url}/readyz", timeout=30)
            assert all(inside.acquire(timeout=30) for _ in range(40))
            assert client.get(f"{url}/healthz", timeout=5).json() == {"status": "ok"}
        finally:
            gate.set()


def test_readyz_lists_all_problems(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    """/readyz lists the daemon's problems and an unreadable catalog in one response."""
    assert control.get("/readyz") == {"status": "ready", "problems": []}
    app = app_of(replace(control.state, unready=lambda: ["The scheduler does not run."]))

    def broken(*_: object) -> None:
        raise EtlError("The catalog cannot be read.")

    with serving(app) as url:
        answer = httpx.get(f"{url}/readyz")
        monkeypatch.setattr(Catalog, "read", broken)
        worse = httpx.get(f"{url}/readyz")
        assert httpx.get(f"{url}/healthz").status_code == 200
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
    assert answer.json()["problems"] == ["The scheduler does not run."]
    assert worse.json()["problems"][1] == "The catalog cannot be read."


@pytest.mark.parametrize(
    ("body", "minutes", "ready"),
    [
        ({"frequency": "minute", "interval": 15, "startTime": 1}, 40, True),
        ({"frequency": "minute", "interval": 15, "startTime": 1}, 41, False),
        ({"frequency": "MINUTE", "interval": "15", "startTime": "1"}, 41, False),
        ({"frequency": "day", "interval": 1, "startTime": 1}, 41, True),
        ({"frequency": "minute", "interval": 15, "startTime": NOW // SECOND}, 41, True),
        ({"frequency": "once", "startTime": 1}, 41, False),
        (None, 100_000, True),
    ],
)
@pytest.mark.parametrize("flow_state", ["enabled", "disabled"])
def test_a_flow_that_is_behind_is_not_ready(
    tmp_path: Path, body: Json | None, minutes: int, ready: bool, flow_state: str
) -> None:
    """A flow without data for two intervals and its delay is not ready; a disabled flow, or one
    without a schedule, is never behind.
    """
    with served(tmp_path, now=lambda: NOW) as (client, state):
        params = {} if body is None else {"scheduleParams": body}
        made = NOW - minutes * 60_000
        state.resources.create(new("flows", {"state": flow_state, **params}, made, id_="flow-1"))
        answer = client.get("/readyz")
    problems = ["Flow flow-1 is behind: nothing was brought since 2027-01-15 07:19 UTC."]
    well = ready or flow_state == "disabled"
    assert answer.json()["problems"] == ([] if well else problems)
    assert answer.status_code == (200 if well else 503)


def test_metrics_are_sums_of_run_records(control: Control) -> None:
    """Runs, events, bytes and seconds are the sums of the run records, and P3 holds for them."""
    assert samples(control, "runs_total") == {("events", "success"): 2, ("events", "failed"): 1}
    summaries = Counter[str]()
    seconds = Counter[str]()
    for item in control.items:
        summaries.update(item["metrics"]["recordSummary"])
        summaries.update(item["metrics"]["sizeSummary"])
        for activity in item["activities"]:
            took = activity["durationSummary"]
            seconds[activity["id"]] += took["completedAtUTC"] - took["startedAtUTC"]
    for name, key in (
        ("events_in_total", "inputRecordCount"),
        ("events_out_total", "outputRecordCount"),
        ("events_rejected_total", "failedRecordCount"),
        ("events_duplicate_total", "skippedRecordCount"),
        ("read_bytes_total", "inputBytes"),
        ("written_bytes_total", "outputBytes"),
    ):
        assert samples(control, name) == {("events",): summaries[key]}, name
        assert summaries[key] > 0
    assert samples(control, "stage_seconds_total") == {
        ("events", stage): ms / SECOND for stage, ms in seconds.items()
    }
    came, out, rejected, duplicate = (
        samples(control, f"events_{name}_total")[("events",)]
        for name in ("in", "out", "rejected", "duplicate")
    )
    assert came == out + rejected + duplicate


def test_metrics_are_named_by_prometheus_rules(control: Control) -> None:
    """Metrics have one prefix, a unit, `_total` for counters, a help text and few labels."""
    for family in figures(control):
        assert family.name.startswith("mixpanel_etl_")
        assert family.documentation
        assert not {"_ms", "_kb"} & {family.name[-3:]}
        for sample in family.samples:
            assert sample.labels.keys() <= {"flow", "status", "stage", "project"}
            assert (family.type == "counter") == sample.name.endswith("_total")


def test_requests_and_their_budget(control: Control) -> None:
    """Requests of the last hour are counted by the projects of flows; explored projects are no
    label.
    """
    state = control.state
    assert samples(control, "requests_last_hour") == {}
    source = keep_source(state, keep_connection(state, "https://h"), "7")
    made = [new("flows", {"name": "a", "sourceConnectionIds": [source]}, NOW) for _ in "ab"]
    for each in made:
        state.resources.create(each)
    try:
        assert samples(control, "requests_last_hour") == {("https://h/7",): 0}
        for at in (NOW - HOUR, NOW - HOUR + 1, NOW):
            state.catalog.acquire("https://h/7", at, lambda _: 0)
            state.catalog.acquire("https://elsewhere/8", at, lambda _: 0)
        assert samples(control, "requests_last_hour") == {("https://h/7",): 2}
    finally:
        for each in made:
            state.resources.delete("flows", each.id)
        with state.catalog.transaction() as connection:
            connection.execute("DELETE FROM requests WHERE at >= ?", [NOW - HOUR])
    assert samples(control, "requests_hourly_budget") == {(): 60}


def test_how_far_a_flow_is_behind(control: Control) -> None:
    """The lag counts from the end of the last window, or from the creation; disabled, finished and
    undeclared flows have none.
    """
    assert samples(control, "flow_lag_seconds") == {}
    body = {"name": "events", "scheduleParams": {"frequency": "minute"}}
    made = [
        new("flows", body, NOW - 5000, origin="/etc/flows.toml"),
        new("flows", body, NOW - 5000, id_="fresh"),
        new("flows", body | {"state": "disabled"}, NOW - 5000, id_="off"),
        new("flows", {"scheduleParams": {"frequency": "once"}}, NOW - 5000, id_="once"),
    ]
    for each in made:
        control.state.resources.create(each)
    try:
        ends = [
            item["activities"][0]["durationSummary"]["extensions"]["windowEnd"]
            for item in control.items[:2]
        ]
        assert samples(control, "flow_lag_seconds") == {
            ("events",): (NOW - max(ends)) / SECOND,
            ("fresh",): 5,
        }
        assert samples(control, "runs_total")[("fresh", "failed")] == 0
    finally:
        for each in made:
            control.state.resources.delete("flows", each.id)


def test_a_flow_that_was_deleted_is_no_label(control: Control) -> None:
    """A deleted flow of a client is not a label of any metric."""
    id_ = "6f1fbe2c-4bd9-4d4c-9a5e-3a1b8f3f0b60"
    flow = new("flows", {"name": "mine"}, NOW, id_=id_)
    catalog = control.state.catalog
    control.state.resources.create(flow)
    try:
        catalog.save(record("x", flow=id_, dataset=str(control.root)))
        assert samples(control, "runs_total")[(id_, "success")] == 1
        control.state.resources.delete("flows", id_)
        assert id_ not in control.client.get("/metrics").text
    finally:
        with catalog.transaction() as connection:
            connection.execute("DELETE FROM runs WHERE flow = ?", [id_])
            connection.execute("DELETE FROM totals WHERE flow = ?", [id_])


def test_no_answer_has_a_secret(control: Control) -> None:
    """P7: no response holds the account's name or password."""
    batch = f"{EXPORT}/batches/{control.batch}"
    addresses = ["/metrics", "/readyz", f"{SERVICE}/runs", "/openapi.json"]
    addresses += [f"{batch}/{rest}" for rest in ("files", "failed", "meta")]
    (inputs,) = control.get(f"{batch}/meta?path=input_files")["data"]
    addresses.append(inputs["_links"]["self"]["href"])
    for address in addresses:
        text = control.client.get(address).text
        assert PASSWORD not in text
        assert USERNAME not in text
