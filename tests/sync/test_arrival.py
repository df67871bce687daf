"""Arrival windows and day windows of one flow, one after another, over a real socket."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.dataset.dataset import Dataset
from engine.dataset.positions import pulled
from engine.errors import InputError
from engine.mixpanel import client
from engine.model.flow import Connection, Schedule
from engine.model.run_record import RunRecord
from engine.model.window import Window, each_day
from engine.sandbox import Sandbox, Spec
from engine.sandbox.events import day_lines
from engine.sync.backfill import Backfill
from engine.sync.incremental import sync_flow
from engine.sync.pull import table_schema
from engine.sync.run_updates import GaveUp, RunUpdate
from engine.sync.runner import Runner
from engine.sync.status import FlowStatus
from engine.sync.window_source import Result
from tests.support.pulling import QUICK, RULES, flow_of

DAY = date(2024, 1, 2)
DAYS = [date(2024, 1, 1), DAY]
HOUR = 3_600_000
NOON = 1_704_196_800_000  # of DAY, in UTC
SPEC = Spec(events_per_day=400, duplicate_percent=0, reject_percent=1, late_percent=20)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC, now=lambda: NOON + 48 * HOUR) as running:
        yield running


class Given:
    """A source of listed windows, each handed out when the last one has ended."""

    def __init__(self, *windows: Window) -> None:
        self._windows = list(windows)
        self.lines: list[int | None] = []
        self._out = False

    def next_window(self) -> Window | None:
        if self._out or not self._windows:
            return None
        self._out = True
        return self._windows.pop(0)

    def on_result(self, result: Result) -> None:
        assert not result.split  # an arrival window is never split
        self._out = False

    def give_up(self) -> int:
        self._windows = []
        return 0


def bring(sandbox: Sandbox, root: Path, *windows: Window, **changes: Any) -> list[str]:
    """Run `windows`; return how each ended."""
    flow = flow_of(sandbox.url, root, partial_ingestion_percent=50.0, **changes)
    with Catalog(root.parent / "home") as catalog:
        dataset = Dataset(root, table_schema(RULES), flow.source)
        runs = Runner(flow, RULES, dataset, catalog, QUICK)
        with runs.prepared():
            records = runs.run(Given(*windows))
    return [record.status for record in records]


def arrived(start: int, end: int) -> Window:
    return Window(DAYS[0], DAYS[-1], arrival=(start, end))


def processed(before: int, since: int = 0) -> list[int]:
    """Return the processing times of the valid events that the table should hold, sorted."""
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
    """Two neighbouring arrival windows lose no event and double none."""
    done = bring(sandbox, root, arrived(NOON - 5 * HOUR, NOON), arrived(NOON, NOON + HOUR))
    assert done == ["success"] * 2
    assert held(root) == processed(NOON + HOUR, NOON - 5 * HOUR)
    assert any(moment >= NOON for moment in held(root))


@pytest.mark.parametrize("late", [False, True])
def test_a_day_pull_keeps_to_what_arrived_before(sandbox: Sandbox, root: Path, late: bool) -> None:
    """In any order, the table holds the events processed before the high watermark."""
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
    """Events outside the window are left out, if a server does not filter as requested."""
    asked = client.params

    def params(connection: Connection, window: Window, *rest: Any) -> dict[str, str]:
        return asked(connection, replace(window, arrival=None), *rest)

    monkeypatch.setattr(client, "params", params)
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    assert "where" not in sandbox.requests[-1]["params"]
    assert held(root) == processed(NOON, NOON - HOUR)


def test_a_window_that_was_planned_on_another_table(sandbox: Sandbox, root: Path) -> None:
    """A window that would leave a gap or double events is refused, and the table stays."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    before = held(root)
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON + HOUR)) == ["failed"]
    assert bring(sandbox, root, arrived(NOON + HOUR, NOON + 2 * HOUR)) == ["failed"]
    assert bring(sandbox, root, Window(DAY, DAY, before=NOON - HOUR)) == ["failed"]
    assert held(root) == before
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert held(root) == processed(NOON + HOUR, NOON - HOUR)


def test_a_window_without_events(sandbox: Sandbox, root: Path) -> None:
    """A window without events is committed all the same, and moves the high watermark."""
    quiet = NOON + 400 * HOUR
    sandbox.project.clock_ms = quiet + 3 * HOUR
    windows = [arrived(quiet, quiet + HOUR), arrived(quiet + HOUR, quiet + 2 * HOUR)]
    assert bring(sandbox, root, *windows) == ["success"] * 2
    table = DeltaTable(root)
    assert table.transaction_version("events/arrival") == quiet + 2 * HOUR
    assert table.transaction_version("events/start") == quiet
    assert held(root) == []
    sandbox.reset()


# Who else may write ----------------------------------------------------------------------


def backfill(sandbox: Sandbox, root: Path, **changes: Any) -> list[str]:
    """Pull the days as the command does; return how each run ended."""
    flow = flow_of(sandbox.url, root, partial_ingestion_percent=50.0, **changes)
    options = replace(QUICK, now=lambda: NOON + HOUR, force=True)
    with Catalog(root.parent / "home") as catalog:
        dataset = Dataset(root, table_schema(RULES), flow.source)
        records = Backfill(flow, RULES, dataset, catalog, options).run(DAYS)
    return [record.status for record in records]


@pytest.mark.parametrize("windows", ["arrival", "day"])
def test_a_backfill_beside_arrivals(sandbox: Sandbox, root: Path, windows: str) -> None:
    """Days end at the high watermark of the table, whatever the configuration says."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    assert set(backfill(sandbox, root, windows=windows)) == {"success"}
    assert held(root) == processed(NOON)
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert held(root) == processed(NOON + HOUR)


def test_a_backfill_before_the_first_arrival(sandbox: Sandbox, root: Path) -> None:
    """Arrival windows begin where the flow's earlier backfill ended."""
    assert set(backfill(sandbox, root, windows="arrival")) == {"success"}
    until = NOON + HOUR - 10 * 60_000  # the delay
    assert held(root) == processed(until)
    table = DeltaTable(root)
    assert {table.transaction_version(f"events/{name}") for name in ("start", "arrival")} == {until}
    assert bring(sandbox, root, arrived(until, NOON + 2 * HOUR)) == ["success"]
    assert held(root) == processed(NOON + 2 * HOUR)


def test_a_backfill_before_the_daemon(sandbox: Sandbox, root: Path) -> None:
    """A backfill of a scheduled flow pulls the first arrival window before any day."""
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
    assert sync_flow(flow, root.parent / "home", options) == []


def test_a_backfill_whose_first_arrival_fails(sandbox: Sandbox, tmp_path: Path) -> None:
    """If the first arrival window fails, no day is pulled."""
    told: list[RunUpdate] = []
    schedule = Schedule("hour", 1, NOON // 1000 - 72 * 3600)
    flow = flow_of(sandbox.url, tmp_path / "table", windows="arrival", schedule=schedule)
    sandbox.faults({"fault": "answer", "status": 200, "body": "[]\n", "times": None})
    options = replace(QUICK, now=lambda: NOON + HOUR)
    with Catalog(tmp_path / "home") as catalog:
        dataset = Dataset(tmp_path / "table", table_schema(RULES), flow.source)
        (run,) = Backfill(flow, RULES, dataset, catalog, options, told.append).run(DAYS)
    sandbox.reset()
    assert run.status == "failed"
    assert GaveUp(len(DAYS)) in told
    assert not dataset.exists


def test_a_backfill_by_another_name(sandbox: Sandbox, root: Path) -> None:
    """Another flow may not replace days of a table with arrival windows."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    with pytest.raises(InputError, match=r'filled by the flow "events".*Let that flow pull'):
        backfill(sandbox, root, name="mine", windows="day")
    assert held(root) == processed(NOON, NOON - HOUR)


def test_arrivals_turned_into_days(sandbox: Sandbox, root: Path) -> None:
    """A flow that changes from arrival to day windows is refused on its old table."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    flow = flow_of(sandbox.url, root, windows="day")
    with pytest.raises(InputError, match="was filled by arrival windows"):
        sync_flow(flow, root.parent / "home", QUICK)


def test_a_table_that_another_flow_filled(sandbox: Sandbox, root: Path) -> None:
    """Arrival windows are refused on a table with days of another flow: they would double."""
    assert set(backfill(sandbox, root, name="mine", windows="day")) == {"success"}
    with pytest.raises(InputError, match='days that the flow "mine" pulled'):
        bring(sandbox, root, arrived(NOON - HOUR, NOON), windows="arrival")


def test_a_reset_that_is_killed(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a killed reset is done or not done, and the next commands go on from there."""
    assert bring(sandbox, root, arrived(NOON - HOUR, NOON)) == ["success"]
    dataset = Dataset(root, table_schema(RULES), flow_of(sandbox.url, root).source)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "discard", lambda _: None)  # as if it had died before
        with dataset.locked():
            dataset.forget("01HKMVZZZZZZZZZZZZZZZZZZZZ", ["events/2024-01-02"])
    assert bring(sandbox, root, arrived(NOON, NOON + HOUR)) == ["success"]
    assert [path.name for path in (root / "_staging").iterdir()] == ["lock"]


# What is seen late, and clocks that are wrong -------------------------------------------------


@pytest.fixture
def late(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with a clock to set; each test sets how late it shows events."""
    spec = sandbox.project.spec
    sandbox.reset()
    yield sandbox
    sandbox.project.spec, sandbox.project.dated = spec, True
    sandbox.reset()


def follow(
    sandbox: Sandbox, root: Path, moments: Sequence[int], ahead: int = 0, **changes: Any
) -> list[RunRecord]:
    """Run a tick at each of these moments of Mixpanel's clock; return the records of all runs."""
    schedule = Schedule("minute", 15, NOON // 1000 - 6 * 3600)
    values: dict[str, Any] = {"windows": "arrival", "schedule": schedule} | changes
    flow = flow_of(sandbox.url, root, partial_ingestion_percent=50.0, **values)
    records = []
    for moment in moments:
        sandbox.project.clock_ms = moment
        options = replace(QUICK, now=partial(int, moment + ahead))
        records += sync_flow(flow, root.parent / "home", options)
    return records


def ticks(first: int, last: int) -> range:
    return range(first, last + 1, 15 * 60_000)


def arriving(before: int, since: int, *, known: bool = False) -> list[int]:
    """As `processed`, of all days; `known`: only events with an id."""
    found = []
    for day in each_day(DAY - timedelta(7), DAY + timedelta(1)):
        for line in b"".join(day_lines(SPEC, day)).splitlines():
            properties = json.loads(line)["properties"]
            moment = properties["mp_processing_time_ms"]
            good = isinstance(properties.get("time"), int)
            if good and since <= moment < before and (not known or "$insert_id" in properties):
                found.append(moment)
    return sorted(found)


@pytest.mark.parametrize("minutes", [20, 45, 60])
def test_what_is_seen_late_comes_with_the_overlap(late: Sandbox, root: Path, minutes: int) -> None:
    """An event that Mixpanel shows later than its processing time is stored once."""
    late.project.spec = replace(SPEC, lag_minutes=minutes)
    items = follow(late, root, ticks(NOON - 2 * HOUR, NOON))
    seen, start = NOON - minutes * 60_000 + 1, NOON - 6 * HOUR
    missing = Counter(arriving(seen, start, known=True)) - Counter(held(root))
    assert not missing
    assert not Counter(held(root)) - Counter(arriving(NOON, start))
    assert arriving(seen, start, known=True)
    for item in items:
        tally = item.result
        assert tally.lines == tally.rows + tally.rejected + tally.duplicates
        assert tally.duplicates == 0  # the sandbox has no duplicates
    assert any(item.result.known for item in items)


def test_without_an_overlap_settling_tells_what_it_found(
    late: Sandbox, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that arrival windows missed are counted and reported when the day is pulled."""
    late.project.spec = replace(SPEC, lag_minutes=45, late_percent=0)
    midnight = NOON - 12 * HOUR
    changes: dict[str, Any] = {
        "overlap_minutes": 0,
        "schedule": Schedule("minute", 15, (midnight - HOUR) // 1000),
        "lookback_days": 1,
    }
    follow(late, root, ticks(midnight - HOUR, midnight + 2 * HOUR), **changes)
    brought = held(root)
    done = follow(late, root, [midnight + 48 * HOUR + 15 * 60_000], **changes)
    (settled,) = [item for item in done if item.result.missed]
    lost = Counter(held(root)) - Counter(brought)
    due = Counter(m for m in arriving(M(root), midnight, known=True) if m in lost)
    assert 0 < settled.result.missed <= due.total()
    flow = flow_of(late.url, root, windows="arrival", **changes)
    with Catalog(root.parent / "home") as catalog:
        (note,) = FlowStatus(flow, catalog, midnight + 49 * HOUR).notes
    assert note == (
        f"settling {DAY} found {settled.result.missed} events that arrival windows "
        "did not bring: overlap_minutes 0 is too short for this project."
    )


def test_settling_finds_nothing_where_the_overlap_is_long_enough(late: Sandbox, root: Path) -> None:
    """No missed event is reported for events without an id, or older than the flow."""
    late.project.spec = replace(SPEC, lag_minutes=45, late_percent=0)
    midnight = NOON - 12 * HOUR
    schedule = Schedule("minute", 15, (midnight - HOUR) // 1000)
    changes: dict[str, Any] = {"schedule": schedule, "lookback_days": 1, "backfill_from": DAYS[0]}
    moments = [*ticks(midnight - HOUR, midnight + 2 * HOUR), midnight + 48 * HOUR + 15 * 60_000]
    done = follow(late, root, moments, **changes)
    assert not [item for item in done if item.result.missed]
    assert any(item.result.rows for item in done[-3:])


def test_a_bad_line_is_rejected_once(late: Sandbox, root: Path) -> None:
    """Windows that overlap its moment leave it out, and the pull of its day has it (P3)."""
    follow(late, root, [NOON])
    bad = json.dumps({"event": "e", "properties": {"mp_processing_time_ms": NOON - HOUR // 3}})
    odd = f'{{"event":"odd","properties":{{"mp_processing_time_ms": {NOON - HOUR // 3}, "a":nan}}}}'
    body = f"{bad}\n{odd}\n{good_line(NOON + 60_000)}\n"
    late.faults({"fault": "answer", "status": 200, "body": body, "times": None})
    (item,) = follow(late, root, [NOON + 15 * 60_000], overlap_minutes=60)
    assert item.result.rejected == 0
    assert item.result.rows == 1
    assert item.result.outside == 2
    fresh = bad.replace(str(NOON - HOUR // 3), str(NOON + 6 * 60_000))
    body = f"{fresh}\n{good_line(NOON + 6 * 60_000)}\n"
    late.reset()
    late.faults({"fault": "answer", "status": 200, "body": body, "times": None})
    (item,) = follow(late, root, [NOON + 30 * 60_000])
    assert item.result.rejected == 1
    (item,) = follow(late, root, [NOON + 45 * 60_000])
    assert item.result.rejected == 0
    assert item.result.known == 1


def good_line(moment: int) -> str:
    properties = {
        "time": moment // 1000, "distinct_id": "u", "$insert_id": str(moment),
        "mp_processing_time_ms": moment,
    }  # fmt: skip
    return json.dumps({"event": "e", "properties": properties})


def test_a_mapping_that_keeps_no_key_has_no_overlap(late: Sandbox, root: Path) -> None:
    """Without key columns there is no overlap, so that nothing is doubled; `status` says so."""
    document = json.loads(json.dumps(RULES.mapping[1]))
    rules = document["mappings"]
    document["mappings"] = [rule for rule in rules if "insert_id" not in json.dumps(rule)]
    assert len(document["mappings"]) < len(rules)
    changes: dict[str, Any] = {"mapping": ("keyless", document)}
    follow(late, root, ticks(NOON - HOUR, NOON), **changes)
    assert max(Counter(held(root)).values()) == 1
    spans = [re.findall(r"[0-9]{13}", asked["params"]["where"]) for asked in late.requests]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    schedule = Schedule("minute", 15, NOON // 1000 - 6 * 3600)
    flow = flow_of(late.url, root, windows="arrival", schedule=schedule, **changes)
    with Catalog(root.parent / "home") as catalog:
        (note,) = FlowStatus(flow, catalog, NOON).notes
    assert "overlap_minutes counts as 0" in note


def test_a_clock_that_is_ahead_for_a_tick(late: Sandbox, root: Path) -> None:
    """The high watermark ends at Mixpanel's clock less the delay; no event is lost or doubled."""
    follow(late, root, [NOON])
    (item,) = follow(late, root, [NOON + HOUR], ahead=8 * HOUR)
    assert M(root) == NOON + HOUR - 10 * 60_000
    assert item.remarks() == [
        "this machine's clock is 8 h 00 min ahead of Mixpanel's: set it right."
    ]
    follow(late, root, [NOON + 2 * HOUR])
    until = NOON + 2 * HOUR - 10 * 60_000
    assert M(root) == until
    assert held(root) == arriving(until, NOON - 6 * HOUR)


def M(root: Path) -> int:  # noqa: N802 - as it is called everywhere
    return DeltaTable(root).transaction_version("events/arrival") or 0


def test_an_m_that_a_wrong_clock_noted(late: Sandbox, root: Path) -> None:
    """A watermark in the future is reported and corrected, and no event is lost or doubled."""
    late.project.dated = False  # it does not tell its clock, as if by a version that did not listen
    follow(late, root, [NOON])
    follow(late, root, [NOON + HOUR], ahead=8 * HOUR)
    assert M(root) == NOON + 9 * HOUR - 10 * 60_000
    late.project.dated = True
    schedule = Schedule("minute", 15, NOON // 1000 - 6 * 3600)
    flow = flow_of(late.url, root, windows="arrival", schedule=schedule)
    with Catalog(root.parent / "home") as catalog:
        status = FlowStatus(flow, catalog, NOON + 2 * HOUR)
    assert "later than now" in status.problem
    follow(late, root, [NOON + 2 * HOUR])
    until = NOON + 2 * HOUR - 10 * 60_000
    assert M(root) == until
    found, wanted = Counter(held(root)), Counter(arriving(until, NOON - 6 * HOUR))
    assert not found - wanted
    assert not Counter(arriving(until, NOON - 6 * HOUR, known=True)) - found
    with Catalog(root.parent / "home") as catalog:
        assert not FlowStatus(flow, catalog, NOON + 2 * HOUR).problem
    follow(late, root, ticks(NOON + 2 * HOUR, NOON + 3 * HOUR))
    assert not Counter(held(root)) - Counter(arriving(M(root), NOON - 6 * HOUR))


def test_a_clock_that_is_behind(late: Sandbox, root: Path) -> None:
    """A right watermark is not moved back: the run reports that this machine's clock is behind."""
    follow(late, root, [NOON + HOUR])
    before, rows = M(root), held(root)
    (item,) = follow(late, root, [NOON + 2 * HOUR], ahead=-8 * HOUR)
    assert item.status == "failed"
    assert "clock is behind" in item.error
    assert (M(root), held(root)) == (before, rows)
    follow(late, root, [NOON + 2 * HOUR])
    assert held(root) == arriving(NOON + 2 * HOUR - 10 * 60_000, NOON - 6 * HOUR)


def test_a_clock_that_is_behind_asks_for_days_once(late: Sandbox, root: Path) -> None:
    """With a clock that is behind, a day is requested once a tick."""
    changes: dict[str, Any] = {"windows": "day", "lookback_days": 1}
    changes["schedule"] = Schedule("hour", 1, NOON // 1000 - 86_400)
    follow(late, root, [NOON + 10 * HOUR], **changes)
    asked = len(late.requests)
    follow(late, root, [NOON + 10 * HOUR], ahead=-8 * HOUR, **changes)
    assert len(late.requests) - asked <= 3


def test_a_failure_400_days_ahead(late: Sandbox, root: Path) -> None:
    """A failure later than now sets no backoff."""
    follow(late, root, [NOON])
    late.faults({"fault": "answer", "status": 500, "times": None})
    (failed,) = follow(late, root, [NOON + HOUR], ahead=400 * 24 * HOUR)
    assert failed.status == "failed"
    late.reset()
    (item,) = follow(late, root, [NOON + HOUR])
    assert item.status == "success"
    with Catalog(root.parent / "home") as catalog:
        schedule = Schedule("minute", 15, NOON // 1000 - 6 * 3600)
        flow = flow_of(late.url, root, windows="arrival", schedule=schedule)
        status = FlowStatus(flow, catalog, NOON + HOUR)
    assert status.last
    assert status.last.id == item.id
    assert not status.wrong


def test_a_day_that_a_wrong_clock_pulled(late: Sandbox, root: Path) -> None:
    """The position of a day is Mixpanel's time of the response, and can be moved back."""
    changes: dict[str, Any] = {"windows": "day", "lookback_days": 1}
    changes["schedule"] = Schedule("hour", 1, NOON // 1000)
    late.project.dated = False
    follow(late, root, [NOON], ahead=10 * HOUR, **changes)
    sums = [pulled(Dataset(root, None, None))[str(DAY)]]
    late.project.dated = True
    position = f"events/{DAY}"
    assert DeltaTable(root).transaction_version(position) == NOON + 10 * HOUR
    follow(late, root, [NOON + HOUR], **changes)
    assert DeltaTable(root).transaction_version(position) == NOON + HOUR
    sums.append(pulled(Dataset(root, None, None))[str(DAY)])
    follow(late, root, [NOON + 2 * HOUR], ahead=8 * HOUR, **changes)
    assert DeltaTable(root).transaction_version(position) == NOON + 2 * HOUR
    assert len(late.requests) < 8  # a day that is due by a wrong clock alone is not asked for ever
    follow(late, root, [NOON + 13 * HOUR], **changes)
    assert DeltaTable(root).transaction_version(position) == NOON + 13 * HOUR
    sums.append(pulled(Dataset(root, None, None))[str(DAY)])
    assert sums == sorted(set(sums))  # by which rejects of an older pull are known as such


def test_days_that_were_deleted_say_nothing_of_the_overlap(late: Sandbox, root: Path) -> None:
    """Rows of an undone day do not count as missed by arrival windows (P10)."""
    late.project.spec = replace(SPEC, late_percent=0)
    follow(late, root, ticks(NOON - 2 * HOUR, NOON))
    DeltaTable(root).delete(f"event_date = '{DAY}'")
    done = follow(late, root, [NOON + 15 * 60_000, NOON + 3 * HOUR])
    whole = [item for item in done if item.result.rows > 50]
    assert whole
    assert not [item for item in done if item.result.missed]


def test_a_tick_that_comes_while_a_day_is_pulled(late: Sandbox, root: Path) -> None:
    """A day whose pull began before a tick is due again at it, in the same turn."""
    before, after = NOON - 10_000, NOON + 10_000

    def now() -> int:
        late.project.clock_ms = after if late.requests else before
        return int(late.project.clock_ms)

    schedule = Schedule("hour", 1, (NOON - 2 * HOUR) // 1000)
    flow = flow_of(
        late.url, root, windows="day", schedule=schedule, lookback_days=0, backfill_from=DAY,
        partial_ingestion_percent=50.0,
    )  # fmt: skip
    done = sync_flow(flow, root.parent / "home", replace(QUICK, now=now))
    assert len(done) == 2
    position = Dataset(root, table_schema(RULES), flow.source).position(f"{flow.name}/{DAY}")
    assert position == after
