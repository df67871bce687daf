"""One turn of a flow in this process: its end at a stop signal, its reports to the daemon."""

import signal
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.control import declared_flows
from engine.daemon.flow_process import Activity, work
from engine.daemon.turn_queue import WAITS, WORKS
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from tests.support.commands import put
from tests.support.daemons import BACKFILL, START, Trial, clock_of, expected, held_keys, trial


def test_a_process_reports_when_it_waits_and_works() -> None:
    """Three idle seconds in a row count as waiting; any activity counts as work."""
    activity = Activity(used=10, at=0)
    used = [10.9, 10.92, 10.93, 11.5, 11.5, 11.52, 11.53, 11.54, 12.4, 12.41]
    reports = [activity.measure(seconds, at) for at, seconds in enumerate(used, 1)]
    assert reports == [b"", b"", b"", b"", b"", b"", WAITS, b"", WORKS, b""]


def test_an_evening_west_of_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a new day has begun in UTC but not in the project, day windows still succeed."""
    evening = START + 15 * 3_600_000  # 01:00 in UTC; 17:00 the day before there
    spec = Spec(shape="small", events_per_day=50, clock="local", timezone="America/Los_Angeles")
    put({"TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD}, monkeypatch)
    with Sandbox(spec, now=lambda: evening) as sandbox:
        tried = Trial(tmp_path, sandbox, clock_of(1), timezone="America/Los_Angeles")
        tried.write(more='windows = "day"\nbackfill_from = "2024-01-10"')
        flow, home = declared_flows.flow_of(tried.config, "events")
        records = sync_flow(flow, home, Options(now=lambda: evening))
    statuses = [record.status for record in records]
    assert set(statuses) == {"success"}
    assert held_keys(tried.table(), date(2024, 1, 10)) == expected(
        spec, date(2024, 1, 10), date(2024, 1, 10), evening
    )


@pytest.mark.usefixtures("handlers")
def test_a_stop_in_the_middle_of_a_commit(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the commit is completed, and nothing starts after it."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write(more=BACKFILL)
    put({"TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD}, monkeypatch)
    flow, home = declared_flows.flow_of(tried.config, "events")
    write = DeltaTable.create_write_transaction

    def stopped(table: DeltaTable, *given: Any, **named: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        write(table, *given, **named)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", stopped)
    try:
        assert work(flow, home, tried.clock, None, 0) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert tried.reached() > 0
    assert len(sandbox.requests) == 1
    assert [run.status for run in tried.runs()] == ["success"]
