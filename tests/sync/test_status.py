"""The status of a flow: a run whose process was killed, and what pulls an undone day."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.control import declared_flows
from engine.model.flow import Schedule
from engine.model.run_record import IN_PROGRESS
from engine.sandbox import Sandbox, Spec
from engine.sync import open_flow
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from engine.sync.status import FlowStatus
from tests.support.commands import put, variables
from tests.support.flows import FAST, NOON

FLOW = """
home = "home"
[connections.shop]
[flows.events]
connection = "shop"
dataset = "data/events"
windows = "day"
backfill_from = "2024-01-09"
schedule = { frequency = "day", interval = 1, start_time = 1704672000 }
"""


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    """The catalog of a home with one flow that was pulled."""
    monkeypatch.chdir(tmp_path)
    Path("flows.toml").write_text(FLOW)
    with Sandbox(Spec(events_per_day=20), now=lambda: NOON) as sandbox:
        put(variables(sandbox.url), monkeypatch)
        flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
        assert sync_flow(flow, home, Options(now=lambda: NOON, rate_limit=FAST))
    with Killed(home) as catalog:
        yield catalog


class Killed(Catalog):
    """A catalog as a killed process leaves it: without the end of the run."""

    def history(self, *given: Any, **named: Any) -> list[Any]:
        found = super().history(*given, **named)
        return [replace(each, status=IN_PROGRESS) for each in found]


class Late(Killed):
    """A catalog in which the end of a run is recorded just after the run was read."""

    def history(self, *given: Any, **named: Any) -> list[Any]:
        return [] if named.get("limit") == 1 else super().history(*given, **named)


@contextmanager
def nobody() -> Iterator[None]:
    yield


@pytest.mark.parametrize(("is_running", "label"), [(False, "interrupted"), (True, "inProgress")])
def test_a_run_whose_process_was_killed(catalog: Catalog, is_running: bool, label: str) -> None:
    """The run is interrupted once the table's lock is free, and in progress until then."""
    flow, _ = declared_flows.flow_of(Path("flows.toml"), "events")
    dataset = open_flow.dataset_of(flow, open_flow.rules_of(flow))
    with dataset.locked() if is_running else nobody():
        status = FlowStatus(flow, catalog, NOON)
    assert status.last_status == label
    assert status.as_json()["lastRun"]["status"] == label


def test_a_run_that_ends_while_its_status_is_read(catalog: Catalog) -> None:
    """The lock is free by then, but the run is not shown as interrupted."""
    flow, _ = declared_flows.flow_of(Path("flows.toml"), "events")
    with Late(catalog.path.parent) as late:
        assert FlowStatus(flow, late, NOON).last_status == IN_PROGRESS


def test_no_run(catalog: Catalog) -> None:
    """Without a history the status is a dash."""
    flow, _ = declared_flows.flow_of(Path("flows.toml"), "events")
    assert FlowStatus(flow, None, NOON).last_status == "-"


@pytest.mark.parametrize(
    ("schedule", "what"),
    [
        (Schedule("day", 1, 0), "The next tick pulls it."),
        (Schedule("once", None, NOON // 1000 + 60), "The next tick pulls it."),
        (Schedule("once", None, NOON // 1000 - 60), "backfill pulls it."),
        (None, "backfill pulls it."),
    ],
)
def test_what_pulls_an_undone_day_again(
    catalog: Catalog, schedule: Schedule | None, what: str
) -> None:
    """The next tick does; for a `once` flow whose tick has passed, backfill does."""
    flow, _ = declared_flows.flow_of(Path("flows.toml"), "events")
    DeltaTable(flow.dataset).delete("event_date = '2024-01-09'")
    status = FlowStatus(replace(flow, schedule=schedule), catalog, NOON)
    assert status.undone.endswith(what), status.undone
