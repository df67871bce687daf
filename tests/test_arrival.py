"""Arrival windows and day windows of one flow, one after another, over a real socket."""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.backfill import Backfill
from engine.catalog import Catalog
from engine.dataset import Dataset
from engine.errors import EtlError, InputError
from engine.flow import Connection, Schedule
from engine.run import table_schema
from engine.runs import Event, GaveUp, Runs
from engine.sandbox import Sandbox, Spec
from engine.sandbox.events import day_lines
from engine.stages import export
from engine.upkeep import tend
from engine.window import Window
from tests.pulling import QUICK, RULES, flow_of

DAY = date(2024, 1, 2)
DAYS = [date(2024, 1, 1), DAY]
HOUR = 3_600_000
NOON = 1_704_196_800_000  # of DAY, in UTC
SPEC = Spec(events_per_day=400, duplicate_percent=0, reject_percent=1, late_percent=20)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC, now=lambda: NOON + 48 * HOUR) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "table"


class Given:
    """Windows from a list, each handed out when the one before it has ended."""

    def __init__(self, *windows: Window) -> None:
        self._windows = list(windows)
        self.lines: list[int | None] = []
        self._out = False

    def next(self) -> Window | None:
        if self._out or not self._windows:
            return None
        self._out = True
        return self._windows.pop(0)

    def ended(self, window: Window, lines: int, error: EtlError | None = None) -> None:
        self._out = False

    def split(self, window: Window, bad: Collection[date]) -> None:
        raise AssertionError("an arrival window is never split")

    def give_up(self) -> int:
        self._windows = []
        return 0


def bring(sandbox: Sandbox, root: Path, *windows: Window, **changes: Any) -> list[str]:
    """Run `windows`; how each ended."""
    flow = flow_of(sandbox.url, root, partial_ingestion_percent=50.0, **changes)
    with Catalog(root.parent / "home") as catalog:
        dataset = Dataset(root, table_schema(RULES), flow.source)
        runs = Runs(flow, RULES, dataset, catalog, QUICK)
        with runs.prepared():
            items = runs.run(Given(*windows))
    return [item["metrics"]["statusSummary"]["status"] for item in items]


def arrived(start: int, end: int) -> Window:
    return Window(DAYS[0], DAYS[-1], arrival=(start, end))


def processed(before: int, since: int = 0) -> list[int]:
    """The processing times of the good events that are to be in the table, sorted."""
    found = []
    for day in DAYS:
        for line in b"".join(day_lines(SPEC, day)).splitlines():
            properties = json.loads(line)["properties"]
            moment = properties["mp_processing_time_ms"]
            if since <= moment < before and isinstance(properties.get("time"), int):
                found.append(moment)
    return sorted(found)


def held(root: Path) -> list[int]:
    table = DeltaTable(root).to_pyarrow_table().to_pylist()
    return sorted(row["_extconndev"]["mp_processing_time_ms"] for row in table)


def test_windows_without_a_seam(sandbox: Sandbox, root: Path) -> None:
    """Two arrival windows are as one: no event between them, and none in both."""
    done = bring(sandbox, root, arrived(NOON - 5 * HOUR, NOON), arrived(NOON, NOON + HOUR))
    assert done == ["success"] * 2
    assert held(root) == processed(NOON + HOUR, NOON - 5 * HOUR)
    assert any(moment >= NOON for moment in held(root))


@pytest.mark.parametrize("late", [False, True])
def test_a_day_pull_keeps_to_what_arrived_before(sandbox: Sandbox, root: Path, late: bool) -> None:
    """Whatever the order: the table holds exactly what was processed before the last arrival."""
    first, second = arrived(NOON - HOUR, NOON), arrived(NOON, NOON + 2 * HOUR)
    days = Window(DAYS[0], DAYS[-1], before=NOON)
    if late:
        windows = [first, second, Window(DAYS[0], DAYS[-1], before=NOON + 2 * HOUR)]
    else:
        windows = [first, days, second]
    assert bring(sandbox, root, *windows) == ["success"] * 3
    assert held(root) == processed(NOON + 2 * HOUR)


def test_what_the_server_sends_is_not_taken_on_trust(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not filter, or not as asked, adds no event to the window."""
    asked = export.params

    def params(connection: Connection, window: Window, *rest: Any) -> dict[str, str]:
        return asked(connection, replace(window, arrival=None), *rest)

    monkeypatch.setattr(export, "params", params)
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    assert "where" not in sandbox.requests[-1]["params"]
    assert held(root) == processed(NOON, NOON - HOUR)


def test_a_window_that_was_planned_on_another_table(sandbox: Sandbox, root: Path) -> None:
    """A seam or a double is refused, and what the table holds stays."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    before = held(root)
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON + HOUR)) == ["failed"]
    assert bring(sandbox, root, arrived(NOON + HOUR, NOON + 2 * HOUR)) == ["failed"]
    assert bring(sandbox, root, Window(DAY, DAY, before=NOON - HOUR)) == ["failed"]
    assert held(root) == before
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert held(root) == processed(NOON + HOUR, NOON - HOUR)


def test_a_window_without_events(sandbox: Sandbox, root: Path) -> None:
    """It is committed all the same: that nothing came is known from then on."""
    quiet = NOON + 400 * HOUR
    windows = [arrived(quiet, quiet + HOUR), arrived(quiet + HOUR, quiet + 2 * HOUR)]
    assert bring(sandbox, root, *windows) == ["success"] * 2
    table = DeltaTable(root)
    assert table.transaction_version("events/arrival") == quiet + 2 * HOUR
    assert table.transaction_version("events/start") == quiet
    assert held(root) == []


# Who else may write ----------------------------------------------------------------------


def backfill(sandbox: Sandbox, root: Path, **changes: Any) -> list[str]:
    """The days, pulled by the command of a person; how each run ended."""
    flow = flow_of(sandbox.url, root, partial_ingestion_percent=50.0, **changes)
    options = replace(QUICK, now=lambda: NOON + HOUR, force=True)
    with Catalog(root.parent / "home") as catalog:
        dataset = Dataset(root, table_schema(RULES), flow.source)
        items = Backfill(flow, RULES, dataset, catalog, options).run(DAYS)
    return [item["metrics"]["statusSummary"]["status"] for item in items]


@pytest.mark.parametrize("windows", ["arrival", "day"])
def test_a_backfill_beside_arrivals(sandbox: Sandbox, root: Path, windows: str) -> None:
    """It keeps to what they have brought, whatever the configuration says: the table decides."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    assert set(backfill(sandbox, root, windows=windows)) == {"success"}
    assert held(root) == processed(NOON)
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert held(root) == processed(NOON + HOUR)


def test_a_backfill_before_the_first_arrival(sandbox: Sandbox, root: Path) -> None:
    """Arrival windows go on from where the backfill of their flow has put an end to it."""
    assert set(backfill(sandbox, root, windows="arrival")) == {"success"}
    until = NOON + HOUR - 10 * 60_000  # the delay
    assert held(root) == processed(until)
    table = DeltaTable(root)
    assert {table.transaction_version(f"events/{name}") for name in ("start", "arrival")} == {until}
    assert bring(sandbox, root, arrived(until, NOON + 2 * HOUR)) == ["success"]
    assert held(root) == processed(NOON + 2 * HOUR)


def test_a_backfill_before_the_daemon(sandbox: Sandbox, root: Path) -> None:
    """With a schedule what arrives comes first: it would go on from there, without other days."""
    schedule = Schedule("hour", 1, NOON // 1000 - 72 * 3600)
    until = NOON + HOUR - 10 * 60_000
    assert backfill(sandbox, root, windows="arrival", schedule=schedule) == ["success"] * 3
    day = ("event_date", "in", [str(day) for day in DAYS])
    table = DeltaTable(root).to_pyarrow_table(filters=[day])
    times = table.column("_extconndev").combine_chunks().field("mp_processing_time_ms").to_pylist()
    assert sorted(times) == processed(until)
    assert set(backfill(sandbox, root, windows="arrival", schedule=schedule)) == {"success"}
    options = replace(QUICK, now=lambda: NOON + HOUR)
    flow = flow_of(sandbox.url, root, windows="arrival", schedule=schedule)
    assert tend(flow, root.parent / "home", options) == []


def test_a_backfill_whose_first_arrival_fails(sandbox: Sandbox, tmp_path: Path) -> None:
    """No day is pulled then: it would be where arrival windows begin."""
    told: list[Event] = []
    schedule = Schedule("hour", 1, NOON // 1000 - 72 * 3600)
    flow = flow_of(sandbox.url, tmp_path / "table", windows="arrival", schedule=schedule)
    sandbox.faults({"fault": "answer", "status": 200, "body": "[]\n", "times": None})
    options = replace(QUICK, now=lambda: NOON + HOUR)
    with Catalog(tmp_path / "home") as catalog:
        dataset = Dataset(tmp_path / "table", table_schema(RULES), flow.source)
        (run,) = Backfill(flow, RULES, dataset, catalog, options, told.append).run(DAYS)
    sandbox.reset()
    assert run["metrics"]["statusSummary"]["status"] == "failed"
    assert GaveUp(len(DAYS)) in told
    assert not dataset.exists


def test_a_backfill_by_another_name(sandbox: Sandbox, root: Path) -> None:
    """Another flow would replace days without knowing how far they go: it is sent away."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    with pytest.raises(InputError, match=r'kept by the flow "events".*Let that flow pull'):
        backfill(sandbox, root, name="mine", windows="day")
    assert held(root) == processed(NOON, NOON - HOUR)


def test_arrivals_turned_into_days(sandbox: Sandbox, root: Path) -> None:
    """A flow whose kind was changed says so, instead of doubling what is there."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    flow = flow_of(sandbox.url, root, windows="day")
    with pytest.raises(InputError, match="was filled by arrival windows"):
        tend(flow, root.parent / "home", QUICK)


def test_a_table_that_another_flow_filled(sandbox: Sandbox, root: Path) -> None:
    """Arrival windows know nothing of its days, and would bring their events once more."""
    assert set(backfill(sandbox, root, name="mine", windows="day")) == {"success"}
    with pytest.raises(InputError, match='days that the flow "mine" pulled'):
        bring(sandbox, root, arrived(NOON - HOUR, NOON), windows="arrival")


def test_a_reset_that_is_killed(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: it happened or it did not, and what comes after it goes on."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    dataset = Dataset(root, table_schema(RULES), flow_of(sandbox.url, root).source)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "discard", lambda _: None)  # as if it had died before
        with dataset.locked():
            dataset.forget("01HKMVZZZZZZZZZZZZZZZZZZZZ", ["events/2024-01-02"])
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]
