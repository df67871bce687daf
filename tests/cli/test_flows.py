"""The commands on flows: what is due, how far each is, and how days are pulled again."""

import json
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.control import declared_flows
from engine.dataset import positions
from engine.dataset.storage.local import lock_file
from engine.errors import InputError
from engine.model import clock
from engine.model.retry import RateLimit
from engine.model.run_record import RunRecord
from engine.model.window import Window
from engine.sandbox import Sandbox, Spec
from engine.sync import open_flow
from engine.sync.incremental import RESERVE, IncrementalSync, RunContext, failed_days, sync_flow
from engine.sync.options import Options
from engine.sync.window_source import Result
from tests.support.commands import Run
from tests.support.flows import FAST, FLOWS, HOUR, NOON

DAY = date(2024, 1, 9)
LINE = '{"event":"e","properties":{"time":1704801600,"distinct_id":"d"}}\n'


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=100, reject_percent=1), now=lambda: NOON) as running:
        yield running


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands, where `flows.toml` has two flows, at noon."""
    monkeypatch.setattr(clock, "now", lambda: NOON)
    Path("flows.toml").write_text(FLOWS.format(start=(NOON - 48 * HOUR) // 1000))
    return run


def keep(name: str, now: int = NOON) -> list[RunRecord]:
    """Sync the flow once, as a tick does, in this process."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), name)
    return sync_flow(flow, home, Options(now=lambda: now, rate_limit=FAST))


def test_plan_of_a_new_flow(run: Run, sandbox: Sandbox) -> None:
    """`plan` lists due windows in their order, and when they are done; it sends no request."""
    said = run("plan", "--config=flows.toml")
    assert said.status == 0
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert lines[0] == ["flow", "why", "window"]
    assert lines[1] == ["events", "arrival", "2024-01-08 12:00 to 2024-01-10 11:50"]
    assert [line[:2] for line in lines[2:]] == [["events", "backfill"]] * 7 + [["daily", "day"]] * 2
    assert (
        "events: 8 requests; 60 of 60 left this hour: done at once. Next tick: 2024-01-10 12:15."
        in (said.err)
    )
    assert sandbox.requests == []
    assert not Path("home").exists()
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("windows", "planned"),
    [
        ("day", ["day\t2024-01-09", "day\t2024-01-10"]),
        ("arrival", ["arrival\t2024-01-05 11:50 to 2024-01-10 11:50"]),
    ],
)
def test_a_flow_without_start_and_history_asks_for_little(
    run: Run, windows: str, planned: list[str]
) -> None:
    """No `start_time`: ticks are whole intervals of UTC, and no old day is filled."""
    Path("flows.toml").write_text(
        '[connections.shop]\n[flows.events]\nconnection = "shop"\ndataset = "data/events"\n'
        f'windows = "{windows}"\nschedule = {{ frequency = "hour", interval = 1 }}\n'
    )
    said = run("plan", "--config=flows.toml")
    assert [line.split("\t", 1)[1] for line in said.out.splitlines()[1:]] == planned
    assert "Next tick: 2024-01-10 13:00." in said.err


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
    """`status` shows every column of a flow that has run, and of one that has not."""
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
    assert (
        "2 days, 2024-01-02 to 2024-01-03, would count as never pulled, and be due again"
        in said.out
    )
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
    """Wrong options exit with 2 and one sentence, before any request."""
    said = run(*words)
    assert said.status == 2
    assert re.search(sentence, said.err)
    assert len(said.err.splitlines()) == 1


def test_a_day_that_would_not_be_due_again(run: Run) -> None:
    """A reset does not promise what no tick would do, and leaves such a day as it is."""
    keep("daily")
    text = Path("flows.toml").read_text()
    Path("flows.toml").write_text(text.replace('"2024-01-09"', '"2024-01-10"'))
    words = ["positions", "reset", "--config=flows.toml", "--flow=daily", "--yes"]
    said = run(*words, "--to-date=2024-01-09")
    assert "Nothing to forget" in said.err
    assert "1 more would not be due then: for those, backfill --force." in said.err
    assert "1 day, 2024-01-10 to 2024-01-10, would count" in run(*words).out
    assert "2024-01-09" in run("positions", "show", "--config=flows.toml", "--flow=daily").out


def test_a_flow_without_a_schedule(run: Run) -> None:
    """The daemon leaves it alone, and so the plan has nothing of it."""
    text = Path("flows.toml").read_text().replace("schedule", "# schedule")
    Path("flows.toml").write_text(text)
    said = run("plan", "--config=flows.toml", "--flow=daily")
    assert said.out == ""
    assert "daily: it has no schedule: the daemon leaves it alone." in said.err


def test_what_came_well_hides_nothing(
    run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where arrivals fail and a day comes well, something is wrong."""
    keep("events")
    run("positions", "reset", "--config=flows.toml", "--flow=events", "--yes")
    broken = json.dumps({"event": "e", "properties": {"mp_processing_time_ms": NOON}})
    sandbox.faults({"fault": "answer", "status": 200, "body": f"{broken}\n" * 3})
    sandbox.project.clock_ms = NOON + HOUR
    monkeypatch.setattr(clock, "now", lambda: NOON + HOUR)
    keep("events", NOON + HOUR)
    said = run("status", "--config=flows.toml", "--flow=events", "--json")
    (events,) = json.loads(said.out)
    assert events["lastRun"]["status"] == "success"
    assert "3 of 3 records of 2024-01-10 11:50 to 2024-01-10 12:50 were" in events["problem"]
    assert run("status", "--config=flows.toml", "--flow=events").status == 1


def test_what_could_not_begin_is_no_failure_of_a_day(run: Run) -> None:
    """After a missing mapping is back, the running day is pulled at once."""
    good = Path("flows.toml").read_text()
    Path("flows.toml").write_text(good + 'mapping = "nowhere"\n')
    for _ in range(5):
        with pytest.raises(InputError):
            keep("daily")
    Path("flows.toml").write_text(good)
    (found,) = json.loads(run("plan", "--config=flows.toml", "--flow=daily", "--json").out)
    assert {due["why"] for due in found["due"]} == {"day"}
    assert "2024-01-10" in json.dumps(found)


def test_budget_is_left_to_what_arrives(run: Run, sandbox: Sandbox) -> None:
    """A history that is to be filled takes no more than what arrivals leave, and says so."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
    turn = RunContext()
    options = Options(now=lambda: NOON, rate_limit=RateLimit(per_hour=RESERVE + 1, per_second=1000))
    assert len(sync_flow(flow, home, options, turn=turn)) == 1
    assert turn.later
    assert "where" in sandbox.requests[-1]["params"]
    options = Options(now=lambda: NOON, rate_limit=RateLimit(per_hour=RESERVE + 2, per_second=1000))
    assert len(sync_flow(flow, home, options, turn=(again := RunContext()))) == 1
    assert not again.later


def test_a_defect_leaves_a_record(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tick ends in a run record, whatever it is that ended it."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
    monkeypatch.setattr("engine.sync.incremental.counts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sync_flow(flow, home, Options(now=lambda: NOON))
    with Catalog(home) as catalog:
        (run_,) = catalog.history("events")
    assert run_.status == "failed"
    assert "ZeroDivisionError" in run_.error


def test_an_arrival_that_failed_waits_for_the_next_tick(run: Run, sandbox: Sandbox) -> None:
    """The turns of one tick are processes: they do not spend the hour on the same failure."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
    keep("events")
    broken = json.dumps({"event": "e", "properties": {"mp_processing_time_ms": NOON}})
    sandbox.faults({"fault": "answer", "status": 200, "body": f"{broken}\n" * 3, "times": None})
    began = NOON + HOUR
    sandbox.project.clock_ms = began + 2 * HOUR
    options = Options(now=lambda: began + 1000, rate_limit=FAST)
    asked = []
    for of in (began, began, began + 500):
        before = len(sandbox.requests)
        sync_flow(flow, home, options, turn=RunContext(began=of))
        asked.append(len(sandbox.requests) - before)
    assert asked == [1, 0, 0]
    options = Options(now=lambda: began + HOUR, rate_limit=FAST)
    sync_flow(flow, home, options, turn=RunContext(began=began))
    assert len(sandbox.requests) == before + 1
    sync_flow(
        flow, home, options, turn=RunContext(began=began + HOUR + 1)
    )  # the daemon was started again
    assert len(sandbox.requests) == before + 2


def test_a_dry_run_tells_of_the_first_arrival_window(run: Run) -> None:
    """--dry-run lists the flow's first arrival window before the days."""
    words = ("backfill", "--config=flows.toml", "--dry-run", "--flow")
    days = ("--from-date=2024-01-08", "--to-date=2024-01-08", "--force")
    said = run(*words, "events", *days).out
    assert "Before them comes the flow's first arrival window:\nGET " in said
    assert "Requests: 2." in said
    assert "first arrival" not in run(*words, "daily", *days).out
    keep("events")
    assert "Requests: 1." in run(*words, "events", *days).out


def test_history_comes_between_slow_arrivals(run: Run, sandbox: Sandbox) -> None:
    """Where a pull takes longer than the interval, the next arrival window is due at once."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
    turn, before = RunContext(), len(sandbox.requests)

    def now() -> int:
        asked = len(sandbox.requests) - before
        turn.stop_requested = asked >= 3
        return NOON + asked * 20 * 60_000

    sync_flow(flow, home, Options(now=now, rate_limit=FAST), turn=turn)
    asked = [request["params"] for request in sandbox.requests[before:]]
    assert ["where" in params for params in asked] == [True, False, True]


def test_arrivals_do_not_tell_how_much_a_day_has(run: Run, sandbox: Sandbox) -> None:
    """A quarter of an hour has few events: days are not packed by that."""
    flow, home = declared_flows.flow_of(Path("flows.toml"), "events")
    found: list[Any] = []
    with Catalog(home) as catalog:
        dataset = open_flow.dataset_of(flow, open_flow.rules_of(flow))
        options = Options(now=lambda: NOON)
        upkeep = IncrementalSync(
            flow, open_flow.rules_of(flow), dataset, catalog, options, found.append, RunContext()
        )
        upkeep.on_result(Result(Window(DAY, DAY), 900))
        for _ in range(20):
            upkeep.on_result(Result(Window(DAY, DAY, arrival=(1, 2)), 1))
        assert max(upkeep._counts) == 900


def test_a_day_rests_for_its_own_faults_alone(run: Run, sandbox: Sandbox) -> None:
    """A day whose request failed is due at the next tick; one that shrank is not."""
    keep("daily")
    sandbox.faults({"fault": "answer", "status": 403, "times": None})
    keep("daily", NOON + 24 * HOUR)
    flow, home = declared_flows.flow_of(Path("flows.toml"), "daily")
    with Catalog(home) as catalog:
        assert catalog.history("daily")[0].status == "failed"
        assert failed_days(flow, catalog) == ({}, {})
    sandbox.reset()
    sandbox.faults({"fault": "answer", "status": 200, "body": LINE * 3, "times": None})  # P5
    keep("daily", NOON + 24 * HOUR + 15 * 60_000)
    with Catalog(home) as catalog:
        failures, rests = failed_days(flow, catalog)
    assert rests
    assert set(failures.values()) == {1}


def test_a_flow_of_days_that_is_well_again(run: Run) -> None:
    """`status` no longer reports a flow that failed to start, once it has run."""
    good = Path("flows.toml").read_text()
    Path("flows.toml").write_text(good + 'mapping = "nowhere"\n')
    with pytest.raises(InputError):
        keep("daily")
    Path("flows.toml").write_text(good)
    assert run("status", "--config=flows.toml", "--flow=daily").status == 1
    keep("daily", NOON + 1)
    assert run("status", "--config=flows.toml", "--flow=daily").status == 0


def test_a_position_that_lies_ahead(run: Run) -> None:
    """A clock that was ahead does not keep the running day from being pulled."""
    keep("daily", NOON + 24 * HOUR)
    flow, _ = declared_flows.flow_of(Path("flows.toml"), "daily")
    dataset = open_flow.dataset_of(flow, open_flow.rules_of(flow))
    assert max(positions.read(flow, dataset, NOON).pulled.values()) == NOON


def set_schedule(name: str, schedule: str) -> None:
    """Give one of the two flows another schedule."""
    text = Path("flows.toml").read_text()
    head, mark, rest = text.partition(f"[flows.{name}]")
    before, _, after = rest.partition("schedule = ")
    Path("flows.toml").write_text(
        head + mark + before + f"schedule = {schedule}" + after[after.index("\n") :]
    )


@pytest.mark.parametrize(("name", "late"), [("events", 2 * 15 + 10), ("daily", 2 * 24 * 60 + 10)])
def test_a_flow_that_nobody_runs_any_more(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, late: int
) -> None:
    """Once it is behind by more than two intervals and its delay, that is said, with who should
    run it; a moment sooner, all is well. The next tick is never in the past.
    """
    keep(name)
    words = ("status", "--config=flows.toml", f"--flow={name}")
    reached = json.loads(run(*words, "--json").out)[0]["arrivedUntil"] or NOON
    for ahead, status in ((0, 0), (60_000, 1), (3 * 24 * HOUR, 1)):
        now = reached + late * 60_000 + ahead
        monkeypatch.setattr(clock, "now", lambda now=now: now)
        said = run(*words)
        assert (said.status, "It is behind" in said.err) == (status, status == 1), said.err
        assert json.loads(run(*words, "--json").out)[0]["nextTick"] > now
    assert "nothing was brought since 2024-01-10 1" in said.err
    assert "No daemon runs with the home home: start one. Its last run was at 2024-01-1" in said.err
    lock = Path("home", declared_flows.LOCK)
    with lock.open("a+") as file:
        lock_file(file)
        assert f"process {os.getpid()}: see its log" in run(*words).err


@pytest.mark.parametrize(
    ("schedule", "stale"),
    [
        ('{ frequency = "minute", interval = 15, start_time = 1704805200 }', True),
        ('{ frequency = "once", start_time = 1704805200 }', True),
        ('{ frequency = "minute", interval = 15, start_time = 1804805200 }', False),
        ('{ frequency = "minute", interval = 15, start_time = 1704887900 }', False),
        ('{ frequency = "week", interval = 1, start_time = 1704805200 }', False),
    ],
)
def test_a_flow_that_never_ran(run: Run, schedule: str, stale: bool) -> None:
    """A flow that never ran is behind from its first tick on, and not before."""
    set_schedule("events", schedule)
    said = run("status", "--config=flows.toml", "--flow=events")
    assert said.status == stale
    assert ("It never brought anything, though it should since" in said.err) == stale
    assert ("There was no run yet." in said.err) == stale


@pytest.mark.parametrize(("minutes", "stale"), [(40, False), (41, True)])
def test_a_flow_that_was_declared_a_moment_ago(run: Run, minutes: int, stale: bool) -> None:
    """A flow of a new file is not behind at once, though its start time is long past."""
    set_schedule("events", '{ frequency = "minute", interval = 15, start_time = 1625040887 }')
    changed = NOON // 1000 - minutes * 60
    os.utime("flows.toml", (changed, changed))
    assert run("status", "--config=flows.toml", "--flow=events").status == stale


@pytest.mark.parametrize("name", ["events", "daily"])
def test_what_is_done_is_never_behind(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A flow with `once` that has run, or without a schedule, is never behind."""
    set_schedule(name, '{ frequency = "once", start_time = 1704805200 }')
    keep(name)
    monkeypatch.setattr(clock, "now", lambda: NOON + 1000 * HOUR)
    words = ("status", "--config=flows.toml", f"--flow={name}")
    assert run(*words).status == 0
    text = Path("flows.toml").read_text()
    lines = [line for line in text.splitlines() if "once" not in line]
    lines.insert(lines.index("[flows.events]") + 1, 'windows = "arrival"')
    Path("flows.toml").write_text("\n".join(lines) + "\n")
    assert run(*words).status == 0


def test_a_run_that_somebody_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: a clean stop is no failure of the flow: not in `status`, not in its figures."""
    keep("events")
    keep("daily", NOON - HOUR)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.sync.executors.inline.pull", stop)
        for name, now in (("events", NOON + HOUR // 4), ("daily", NOON)):
            with pytest.raises(KeyboardInterrupt):
                keep(name, now)
    monkeypatch.setattr(clock, "now", lambda: NOON + HOUR // 4)
    said = run("status", "--config=flows.toml", "--json")
    assert said.status == 0
    for told in json.loads(said.out):
        assert told["problem"] is None
        assert told["lastRun"]["status"] == "stopped"
        assert told["lastRun"]["error"] is None
    monkeypatch.setenv("MIXPANEL_ETL_HOME", "home")
    assert run("runs", "--limit=1").out.splitlines()[1].split("\t")[3] == "stopped"
    with Catalog(Path("home")) as catalog:
        assert catalog.read("SELECT * FROM totals WHERE what = 'runs failed' AND value > 0") == []
        assert len(catalog.history(status="failed")) == 2
