"""The commands on flows: what is due, how far each is, and how days are pulled again."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine import given
from engine.runs import Options
from engine.sandbox import Sandbox, Spec
from engine.upkeep import tend
from tests.commands import Run, here, put, variables

NOON = 1_704_888_000_000  # 2024-01-10, 12:00 UTC
HOUR = 3_600_000
FLOWS = """
home = "home"
[connections.shop]
[flows.events]
connection = "shop"
dataset = "data/events"
schedule = {{ frequency = "minute", interval = 15, start_time = {start} }}
backfill_from = "2024-01-02"
[flows.daily]
connection = "shop"
dataset = "data/daily"
windows = "day"
backfill_from = "2024-01-09"
schedule = {{ frequency = "day", interval = 1, start_time = {start} }}
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=100, reject_percent=1), now=lambda: NOON) as running:
        yield running


@pytest.fixture
def run(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    sandbox.reset()
    monkeypatch.chdir(tmp_path)
    put(variables(sandbox.url), monkeypatch)
    monkeypatch.setattr(given, "now", lambda: NOON)
    Path("flows.toml").write_text(FLOWS.format(start=(NOON - 48 * HOUR) // 1000))
    return here(capsys)


def keep(name: str, now: int = NOON) -> list[dict[str, Any]]:
    """What a tick of the flow does, in this process."""
    flow, home = given.flow_of(Path("flows.toml"), name)
    return tend(flow, home, Options(now=lambda: now))


def test_plan_of_a_new_flow(run: Run, sandbox: Sandbox) -> None:
    """What the daemon would ask for, in order of worth, and when that is done; nothing is asked."""
    said = run("plan", "--config=flows.toml")
    assert said.status == 0
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert lines[0] == ["flow", "why", "window"]
    assert lines[1] == ["events", "arrival", "2024-01-08 12:00 to 2024-01-10 11:50"]
    assert lines[2][:2] == ["daily", "day"]
    assert (
        "events: 1 request; 60 of 60 left this hour: done at once. Next tick: 2024-01-10 12:15."
        in (said.err)
    )
    assert sandbox.requests == []
    assert not Path("home").exists()
    assert not Path("data").exists()


def test_plan_once_there_are_arrivals(run: Run) -> None:
    """The days of `backfill_from`, the newest first, as many in one request as fit."""
    keep("events")
    assert run("plan", "--config=flows.toml", "--flow=events").out == ""
    found = json.loads(run("plan", "--config=flows.toml", "--flow=events", "--json").out)
    assert found == [{"flow": "events", "problem": None, "due": []}]
    run("positions", "reset", "--config=flows.toml", "--flow=events", "--yes")
    (found,) = json.loads(run("plan", "--config=flows.toml", "--flow=events", "--json").out)
    assert {due["why"] for due in found["due"]} == {"backfill"}
    assert found["due"][0]["window"]["before"] == NOON - 10 * 60_000
    assert found["due"][0]["window"]["to_date"] == "2024-01-08"


def test_status(run: Run) -> None:
    """Every figure of a flow that was kept, and of one that was not yet."""
    keep("events")
    said = run("status", "--config=flows.toml", "--json")
    assert said.status == 0
    events, daily = json.loads(said.out)
    assert events["arrivedUntil"] == NOON - 10 * 60_000
    assert events["behindMs"] == 10 * 60_000
    assert events["lastRun"]["status"] == "success"
    assert events["nextTick"] == NOON + 15 * 60_000
    assert (events["daysHeld"], events["daysToFill"]) == (9, 0)
    assert events["rejectedLastDay"] > 0
    assert (events["requestsLastHour"], events["requestsAnHour"]) == (daily["requestsLastHour"], 60)
    assert events["requestsLastHour"] >= 2
    assert events["problem"] is None
    assert (daily["arrivedUntil"], daily["lastRun"], daily["daysToFill"]) == (None, None, 2)
    table = run("status", "--config=flows.toml", "--flow=events").out.splitlines()
    assert len(table) == 2
    assert table[1].split("\t")[:3] == ["events", "2024-01-10 11:50", "10 min"]


def test_status_of_what_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow whose credentials are refused, or whose mapping is gone, is named with its reason."""
    with monkeypatch.context() as patch:
        patch.setenv("MIXPANEL_PASSWORD", "wrong")
        keep("events")
    text = Path("flows.toml").read_text()
    Path("flows.toml").write_text(text + 'mapping = "nowhere"\n')
    said = run("status", "--config=flows.toml")
    assert said.status == 1
    assert "events: Mixpanel answered 400: Unable to authenticate request." in said.err
    assert 'daily: There is no mapping "nowhere"' in said.err


def test_positions(run: Run) -> None:
    """Shown as the table has them; a reset asks first, and what it forgets is pulled again."""
    keep("events")
    rows = DeltaTable("data/events").to_pyarrow_table().num_rows
    shown = run("positions", "show", "--config=flows.toml", "--flow=events").out.splitlines()
    assert "events\tarrivals until\t2024-01-10 11:50" in shown
    assert any(line.startswith("events\t2024-01-02\t") for line in shown)
    words = ["positions", "reset", "--config=flows.toml", "--flow=events", "--to-date=2024-01-03"]
    said = run(*words)  # nobody answers
    assert said.status == 1
    assert "2 days, 2024-01-02 to 2024-01-03, would count as never pulled" in said.out
    assert run("plan", "--config=flows.toml", "--flow=events").out == ""
    assert run(*words, "--yes").status == 0
    (found,) = json.loads(run("plan", "--config=flows.toml", "--flow=events", "--json").out)
    assert sum(1 for _ in found["due"]) >= 1
    keep("events")
    assert run("plan", "--config=flows.toml", "--flow=events").out == ""
    assert DeltaTable("data/events").to_pyarrow_table().num_rows == rows
    said = run(*words[:-1], "--from-date=2024-01-10", "--yes")
    assert "Nothing to forget" in said.err


WRONG = [
    (["daemon"], "Missing option '--config'"),
    (["daemon", "--config=nowhere.toml"], "nowhere.toml: cannot be read"),
    (
        ["plan", "--config=flows.toml", "--flow=nobody"],
        'no flow "nobody". It has: events',
    ),
    (["status", "--config=nowhere.toml"], "cannot be read"),
    (["positions", "reset", "--config=flows.toml"], "Missing option '--flow'"),
    (
        ["positions", "reset", "--config=flows.toml", "--flow=events", "--from-date=x"],
        "--from-date .* is no date",
    ),
]


@pytest.mark.parametrize(("words", "sentence"), WRONG)
def test_wrong_words(run: Run, words: list[str], sentence: str) -> None:
    """One sentence, exit 2, nothing tried."""
    said = run(*words)
    assert said.status == 2
    assert re.search(sentence, said.err)
    assert len(said.err.splitlines()) == 1
