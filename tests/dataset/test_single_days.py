"""Projects whose days are not UTC days of `time`: each day holds what Mixpanel exports for it."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.model import day_borders, due_windows
from engine.model import schedule as plan
from engine.model.day_borders import Borders
from engine.model.flow import Schedule
from engine.model.window import each_day
from engine.sandbox import Sandbox, Spec
from engine.sandbox.events import day_lines
from engine.sync.incremental import sync_flow
from engine.sync.run_updates import Noticed, Split
from engine.sync.status import FlowStatus
from tests.support.pulling import QUICK, flow_of, pull

FIRST, SECOND, THIRD = DAYS = [date(2024, 1, day) for day in (1, 2, 3)]
HOUR = 3_600_000
NOON = 1_704_196_800_000  # of SECOND, in UTC
EARLY_ZONE, LATE_ZONE = "Etc/GMT-2", "Etc/GMT+8"  # days that begin at 22:00 UTC, and at 8:00
SPEC = Spec(
    events_per_day=240, duplicate_percent=0, late_percent=0, clock="days", timezone=EARLY_ZONE
)


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(SPEC, now=lambda: NOON + 400 * 24 * HOUR) as sandbox:
        yield sandbox


@pytest.fixture(params=[EARLY_ZONE, LATE_ZONE])
def sandbox(running: Sandbox, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    running.reset()
    running.project.spec = replace(SPEC, timezone=request.param)
    yield running
    running.project.spec = SPEC
    running.reset()


def truth(spec: Spec, days: Sequence[date], before: int = 1 << 62) -> Counter[Any]:
    """Return day and processing time of every event that Mixpanel exports for `days`."""
    moments = ((day, moment) for day in days for moment in processed(str(spec), spec, day))
    return Counter((day, moment) for day, moment in moments if moment < before)


CACHE: dict[tuple[str, date], list[int]] = {}


def processed(key: str, spec: Spec, day: date) -> list[int]:
    if (key, day) not in CACHE:
        lines = b"".join(day_lines(spec, day)).splitlines()
        CACHE[key, day] = [json.loads(x)["properties"]["mp_processing_time_ms"] for x in lines]
    return CACHE[key, day]


def held(root: Path) -> Counter[Any]:
    """Return day and processing time of every row of the table."""
    at = pc.field("_extconndev", "mp_processing_time_ms")
    columns = {"day": pc.field("event_date"), "at": at}
    table = DeltaTable(root).to_pyarrow_dataset().to_table(columns=columns)
    return Counter(zip(table["day"].to_pylist(), table["at"].to_pylist(), strict=True))


def days_of(sandbox: Sandbox) -> list[tuple[str, str]]:
    """Return the days of each request."""
    asked = (each["params"] for each in sandbox.requests)
    return [(params["from_date"], params["to_date"]) for params in asked]


def apart(held: Counter[Any], wanted: Counter[Any]) -> tuple[int, int]:
    """Return how many events are there too often, and how many are missing, in any day."""
    there, due = (Counter(moment for _, moment in each.elements()) for each in (held, wanted))
    return (there - due).total(), (due - there).total()


# Backfill ----------------------------------------------------------------------------------


def test_a_day_pulled_again_leaves_its_neighbours(sandbox: Sandbox, tmp_path: Path) -> None:
    """Three days, then the second with force: each day is as Mixpanel exports it, both times."""
    options = replace(QUICK, days_per_request=3)
    done = pull(sandbox.url, tmp_path / "t", DAYS, options)
    wanted = truth(sandbox.project.spec, DAYS)
    assert held(tmp_path / "t") == wanted
    assert set(done.statuses) == {"success"}
    pull(sandbox.url, tmp_path / "t", [SECOND], replace(options, force=True))
    assert held(tmp_path / "t") == wanted
    singles = [(first, last) for first, last in days_of(sandbox)[1:] if first == last]
    assert len(singles) == len(days_of(sandbox)) - 1 == 4


def test_requests_are_for_single_days_once_it_is_known(sandbox: Sandbox, tmp_path: Path) -> None:
    """Once the first day shows how days begin, each request is for a single day."""
    done = pull(sandbox.url, tmp_path / "t", DAYS)
    assert days_of(sandbox) == [(str(day), str(day)) for day in DAYS]
    said = [event.text for event in done.told if isinstance(event, Noticed)]
    assert len(said) == 1
    assert "the project's days are not UTC days of `time`" in said[0]
    assert said[0][0].isdigit()
    days = [*DAYS, date(2024, 1, 4)]
    done = pull(sandbox.url, tmp_path / "t", days, replace(QUICK, days_per_request=31, force=True))
    assert days_of(sandbox)[3:] == [(str(day), str(day)) for day in days]
    assert any("31 days in a request are too many" in getattr(e, "text", "") for e in done.told)
    assert held(tmp_path / "t") == truth(sandbox.project.spec, days)


def test_days_filed_by_utc_are_pulled_again(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table whose days shared requests before it was known is right at the end.

    No event is in it twice meanwhile.
    """
    root, options = tmp_path / "t", replace(QUICK, days_per_request=3)
    days = [*each_day(FIRST, date(2024, 1, 6))]
    wanted = truth(sandbox.project.spec, days)
    with monkeypatch.context() as patch:
        patch.setattr(Borders, "begin", lambda *_, **__: day_borders.UTC)
        pull(sandbox.url, root, days, options)
    assert held(root) != wanted
    doubled: list[int] = []

    def look(event: Any) -> None:
        if not isinstance(event, Noticed):
            doubled.append(apart(held(root), wanted)[0])

    done = pull(sandbox.url, root, [SECOND], replace(options, force=True), look)
    assert held(root) == wanted
    assert max(doubled) == 0
    assert any(isinstance(event, Split) for event in done.told)
    assert set(done.statuses) == {"success"}
    assert pull(sandbox.url, root, days).items == []


def test_a_run_reports_rows_outside_its_utc_day(running: Sandbox, tmp_path: Path) -> None:
    """The line of a run and `status` report rows outside their UTC day."""
    running.reset()
    done = pull(running.url, tmp_path / "t", DAYS)
    counts = [
        item["metrics"]["recordSummary"]["extensions"]["clampedRecordCount"] for item in done.items
    ]
    assert min(counts) > 0
    flow = flow_of(running.url, tmp_path / "t")
    with Catalog(tmp_path / "home") as catalog:
        notes = FlowStatus(flow, catalog, NOON + 48 * HOUR).notes
    assert "the project's days are not UTC days of `time`" in notes[-1]


@pytest.mark.parametrize("workers", [1, 2])
def test_single_days_with_several_workers(sandbox: Sandbox, tmp_path: Path, workers: int) -> None:
    """Requests for several days that are running when it becomes known are not committed."""
    days = [*each_day(FIRST, date(2024, 1, 8))]
    options = replace(QUICK, days_per_request=4, workers=workers)
    pull(sandbox.url, tmp_path / "t", days, options)
    assert held(tmp_path / "t") == truth(sandbox.project.spec, days)


# What counts -------------------------------------------------------------------------------


def seen(*times: str, first: date = SECOND, last: date = SECOND) -> Borders:
    day = date(1970, 1, 1)
    found = Borders((first - day).days, (last - day).days)
    seconds = np.array([int(datetime.fromisoformat(f"{t}Z").timestamp()) for t in times])
    found.add(seconds // 86_400, seconds)
    return found


@pytest.mark.parametrize(
    ("times", "begins"),
    [
        (["2024-01-02T00:00", "2024-01-02T23:59"], day_borders.UTC),
        (["2024-01-01T22:00", "2024-01-02T21:59"], -2 * 3600),
        (["2024-01-02T08:00", "2024-01-03T07:59:59"], 8 * 3600),
        (["2024-01-01T22:00", "2024-01-02T23:59"], day_borders.UTC),  # one clock that was wrong
        (["1970-01-02T22:00", "2024-01-02T21:59"], day_borders.UTC),
        (["2024-01-01T22:00"] * 9 + ["2024-01-02T23:59"], day_borders.UTC),
        (["2024-01-01T22:00"] * 10 + ["2024-01-02T23:59"], -2 * 3600),
        (["2024-01-01T22:00"] * 10 + ["2024-01-02T23:59"] * 1000, day_borders.UTC),
    ],
)
def test_how_days_begin(times: list[str], begins: int) -> None:
    """A few odd rows do not lead to single days; a day that begins at another hour does."""
    assert seen(*times).begin(over=True) == begins


def test_few_rows_of_a_day_that_goes_on_show_nothing() -> None:
    """Rows of a day that is not over do not show how days begin."""
    times = ["2024-01-01T22:00", "2024-01-02T09:00"]
    assert seen(*times).begin(over=False) == day_borders.UTC
    assert seen(*times).begin(over=True) == -2 * 3600


@pytest.mark.parametrize(
    ("schedule", "spaced"),
    [
        (Schedule("minute", 1, 0), Schedule("minute", 12, 0)),
        (Schedule("minute", 15, 0), Schedule("minute", 15, 0)),
        (Schedule("hour", None, 0), Schedule("hour", 1, 0)),
        (Schedule("once", None, 0), Schedule("once", None, 0)),
    ],
)
def test_runs_that_the_rate_limit_allows(schedule: Schedule, spaced: Schedule) -> None:
    """A request for each day: at most as many as there are slots in the hour."""
    flow = replace(flow_of("http://x", Path("t")), windows="arrival", schedule=schedule)
    assert plan.spaced(flow).schedule == spaced


# A daemon's life ---------------------------------------------------------------------------

LIFE = replace(SPEC, events_per_day=120, late_percent=10, late_days=1)


@pytest.mark.parametrize(
    ("zone", "known", "history"),
    [
        (EARLY_ZONE, False, True),
        (EARLY_ZONE, True, False),
        (LATE_ZONE, False, False),
        (LATE_ZONE, True, True),
    ],
)
def test_arrival_windows_over_some_days(
    running: Sandbox, tmp_path: Path, zone: str, known: bool, history: bool
) -> None:
    """Days that arrive, are pulled whole, and come from history: no event twice, none missing.

    Whether the flow knows the project's zone or not.
    """
    spec = replace(LIFE, timezone=zone)
    running.reset()
    running.project.spec = spec
    schedule = Schedule("hour", 8, (NOON - 8 * HOUR) // 1000)
    flow = flow_of(
        running.url,
        tmp_path / "t",
        windows="arrival",
        lookback_days=1,
        backfill_from=date(2023, 12, 29) if history else None,
        schedule=schedule,
    )
    if known:
        flow = replace(flow, connection=replace(flow.connection, timezone=spec.timezone))
    doubled = []
    days = list(each_day(date(2023, 12, 29), date(2024, 1, 9)))
    for hours in range(0, 24 * 4 + 1, 8):
        running.project.clock_ms = NOON + hours * HOUR
        sync_flow(flow, tmp_path / "home", replace(QUICK, now=partial(int, NOON + hours * HOUR)))
        until = DeltaTable(tmp_path / "t").transaction_version("events/arrival") or 0
        wanted = truth(spec, days, until)
        doubled.append(apart(held(tmp_path / "t"), wanted)[0])
    assert max(doubled) == 0
    since = 0 if history else DeltaTable(tmp_path / "t").transaction_version("events/start") or 0
    first = date(2023, 12, 29)
    if not history:
        first = datetime.fromtimestamp(since / 1000, UTC).date() + timedelta(2)
    settled = [day for day in days if day >= first]
    there = Counter({key: n for key, n in held(tmp_path / "t").items() if key[0] >= first})
    assert there == truth(spec, settled, until)
    assert all(first == last for first, last in days_of(running)[-10:])
    running.project.spec = SPEC
    running.reset()


def test_day_windows_over_some_days(running: Sandbox, tmp_path: Path) -> None:
    """Day windows that shared a request before it was known: all is right at the end."""
    running.reset()
    days = [*each_day(FIRST, date(2024, 1, 4))]
    schedule = Schedule("day", 1, NOON // 1000 - 36 * 3600)
    flow = flow_of(running.url, tmp_path / "t", windows="day", schedule=schedule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Borders, "begin", lambda *_, **__: day_borders.UTC)
        pull(running.url, tmp_path / "t", days[:3], replace(QUICK, days_per_request=3))
    late = NOON + 72 * HOUR
    running.project.clock_ms = late
    sync_flow(flow, tmp_path / "home", replace(QUICK, now=partial(int, late)))
    there = {key: n for key, n in held(tmp_path / "t").items() if key[0] in days}
    assert there == truth(SPEC, days)


@pytest.mark.parametrize(("begin", "first"), [(-7200, FIRST), (7200, THIRD)])
def test_the_order_of_misfiled_days(begin: int, first: date) -> None:
    """Misfiled days are due in the order that leaves no event in two days."""
    order = DAYS if begin < 0 else DAYS[::-1]
    found = due_windows.Positions(None, None, {}, begin=begin, misfiled=tuple(order))
    flow = replace(flow_of("http://x", Path("t")), windows="day")
    now = NOON + 96 * HOUR
    due = [each.window.days for each in due_windows.due(flow, found, now) if each.why == "misfiled"]
    assert due == [[day] for day in order]
    resting = list(due_windows.due(flow, found, now, backoffs={first: now + HOUR // 2}))
    assert not [each for each in resting if each.why in ("misfiled", "settle", "backfill")]
    long = list(due_windows.due(flow, found, now, backoffs={first: now + 2 * HOUR}))
    assert len([each for each in long if each.why == "misfiled"]) == 2
