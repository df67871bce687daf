"""P9: one bad day holds back no other day, with few requests and a clear report."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog.database import Catalog
from engine.cli.progress import describe, history, summary
from engine.daemon.flow_process import RunLogger
from engine.model import due_windows
from engine.model.flow import Flow, Run, Schedule
from engine.model.window import Window, day_start
from engine.sandbox import Sandbox, Spec
from engine.sandbox.faults import Fault
from engine.sandbox.query import Query
from engine.sync import run_records, splitting, window_commits
from engine.sync.incremental import RunContext, sync_flow
from engine.sync.options import Options
from engine.sync.pull import Rules
from engine.sync.run_updates import Ended, NoEvents, Split
from tests.support.pulling import QUICK, RULES, Pull, flow_of, pull, rows

SPEC = Spec(events_per_day=40, duplicate_percent=0, reject_percent=0, late_percent=0)
FIRST = date(2024, 1, 1)
MONTH = replace(QUICK, days_per_request=31)
EARLY: dict[str, Any] = {"fault": "cut", "where": "after_line", "append": "terminated early\n"}
NOW = int(datetime(2024, 2, 2, 15, tzinfo=UTC).timestamp() * 1000)


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=offset) for offset in range(count)]


BAD = days(31)[19]


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture
def sandbox(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    server.reset()
    yield server
    server.project.spec = SPEC


def disturb(
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    meets: Callable[[Query], bool],
) -> None:
    """Inject `fault` into each request for which `meets` is true."""
    found = Fault.parse(fault)
    monkeypatch.setattr(sandbox.project, "fault_for", lambda query: found if meets(query) else None)


def large(query: Query) -> bool:
    return query.first != query.last


def holds_bad(query: Query) -> bool:
    return query.first <= BAD <= query.last


def held(root: Path) -> set[date]:
    """Return the days that the table has rows of."""
    return {date.fromisoformat(json.loads(row)["event_date"]) for row in rows(root)}


def errors_of(done: Pull) -> list[str]:
    summaries = (item["metrics"]["statusSummary"] for item in done.items)
    return [one["errors"][0]["message"] for one in summaries if one["status"] == "failed"]


FAULTS = [
    pytest.param(EARLY, id="terminated early"),
    pytest.param(EARLY | {"at": 0.0}, id="nothing but terminated early"),
    pytest.param({"fault": "cut", "end": "reset"}, id="reset"),
    pytest.param({"fault": "answer", "status": 503}, id="503"),
    pytest.param({"fault": "answer", "status": 504, "body": "timeout"}, id="504"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_large_request_that_never_comes(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """If only single days succeed, single days are requested soon."""
    disturb(sandbox, monkeypatch, fault, large)
    done = pull(sandbox.url, root, days(12), MONTH)
    assert set(done.statuses) == {"success"}
    assert held(root) == set(days(12))
    assert len(rows(root)) == 12 * 40
    # Down to a day once, 12, 12, 6, 3, 2; by then it is known that the days are well.
    assert len(sandbox.requests) <= 12 + 5


def test_a_split_before_the_first_arrival_window(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first days of a table for arrival windows are split as well (P9)."""
    disturb(sandbox, monkeypatch, EARLY, large)
    done = pull(sandbox.url, root, days(4), MONTH, windows="arrival")
    assert set(done.statuses) == {"success"}
    assert held(root) == set(days(4))


@pytest.mark.parametrize("fault", FAULTS[::2])
def test_one_day_that_never_comes(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """One bad day of 31 is found by halving and named; all others are committed."""
    disturb(sandbox, monkeypatch, fault, holds_bad)
    done = pull(sandbox.url, root, days(31), MONTH)
    assert done.statuses.count("failed") == 1
    assert held(root) == set(days(31)) - {BAD}
    assert len(sandbox.requests) <= 2 + 2 * 5 + QUICK.retry_policy.tries
    (failed,) = [event for event in done.told if isinstance(event, Ended) and event.error]
    assert failed.record.window == Window(BAD, BAD)
    assert str(BAD) in describe(failed)


def test_the_bad_day_is_asked_for_alone_later(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command requests the day that failed alone, without a large window first."""
    disturb(sandbox, monkeypatch, EARLY, holds_bad)
    pull(sandbox.url, root, days(31), MONTH)
    count = len(sandbox.requests)
    monkeypatch.undo()
    done = pull(sandbox.url, root, days(33), MONTH)
    assert set(done.statuses) == {"success"}
    spans = [request["params"] for request in sandbox.requests[count:]]
    assert [span["from_date"] for span in spans] == [str(BAD), "2024-02-01"]


def test_a_stop_forgets_no_size(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill that is stopped after a split starts again with the smaller requests."""
    disturb(sandbox, monkeypatch, EARLY, large)

    def stop(event: Any) -> None:
        if isinstance(event, Split):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(sandbox.url, root, days(7), MONTH, stop)
    count = len(sandbox.requests)
    pull(sandbox.url, root, days(7), MONTH)
    assert sandbox.requests[count]["params"]["to_date"] == "2024-01-04"
    with Catalog(root.parent / "home") as catalog:
        assert not catalog.history(status="inProgress")


def test_each_try_is_a_batch_of_its_own(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry has a new batch id; the run's record has that of the last try."""
    from engine.dataset.dataset import Dataset

    staged: list[str] = []
    real = Dataset.staging

    def staging(self: Dataset, batch_id: str) -> Path:
        staged.append(batch_id)
        return real(self, batch_id)

    monkeypatch.setattr(Dataset, "staging", staging)
    sandbox.faults({"fault": "cut", "times": 2})
    done = pull(sandbox.url, root, days(1))
    assert len(set(staged)) == len(staged) == 3
    (item,) = done.items
    assert item["activities"][1]["targetInfo"][0]["reference"]["ids"] == [staged[-1]]
    assert all(path.name.startswith(staged[-1]) for path in root.glob("event_date=*/*.parquet"))


def test_five_days_of_which_one_shrank(sandbox: Sandbox, root: Path) -> None:
    """P5: four days are replaced; the day that shrank keeps its rows, and the error names it."""
    pull(sandbox.url, root, days(5), MONTH)
    sandbox.reset()
    sandbox.project.spec = replace(SPEC, events_per_day=60, volumes={days(5)[2]: 3})
    done = pull(sandbox.url, root, days(5), replace(MONTH, force=True))
    assert done.statuses.count("failed") == 1
    (message,) = errors_of(done)
    assert "2024-01-03 holds 40 rows and would hold 3." in message
    assert "2024-01-04" not in message
    assert len(rows(root)) == 4 * 60 + 40
    assert len(sandbox.requests) == 4
    for item in done.items:  # P3
        records = item["metrics"]["recordSummary"]
        assert records["inputRecordCount"] == sum(
            records[name]
            for name in ("outputRecordCount", "failedRecordCount", "skippedRecordCount")
        )


# Thresholds for each day -------------------------------------------------------------------


def month_with_a_wrong_day(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    """31 days of 50 events; the first `wrong` events of the 20th have `tyme` for `time`."""

    def blocks(self: Query, *arguments: Any) -> Iterator[bytes]:
        for n, day in enumerate(days(31)):
            if not self.first <= day <= self.last:
                continue
            at = day_start(day, SPEC.zone) // 1000
            for k in range(50):
                name = "tyme" if day == BAD and k < wrong else "time"
                properties = {name: at + k, "distinct_id": "u", "$insert_id": f"{n}-{k}"}
                yield json.dumps({"event": "e", "properties": properties}).encode() + b"\n"

    monkeypatch.setattr(Query, "blocks", blocks)


@pytest.mark.parametrize("wrong", [50, 49, 12])
def test_one_day_of_rejects(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """Lines without a `time` are judged as rejects of the day between their neighbours."""
    month_with_a_wrong_day(sandbox, monkeypatch, wrong)
    done = pull(sandbox.url, root, days(31), MONTH)
    assert done.statuses.count("failed") == 1
    assert f"{wrong} of 50 records of {BAD} were rejected" in errors_of(done)[0]
    assert held(root) == set(days(31)) - {BAD}
    assert len(sandbox.requests) <= 1 + 2 * 5
    again = pull(sandbox.url, root, days(31), MONTH)
    assert again.statuses == ["failed"]  # the day is not complete


@pytest.mark.parametrize(
    ("good", "bad", "options", "passes"),
    [
        (12, 1, {}, True),
        (12, 10, {}, True),
        (12, 11, {}, False),
        (0, 3, {}, False),  # of a day that has no row nothing is complete
        (12, 1, {"partial_ingestion_min": 0}, False),
        (12, 5, {"partial_ingestion_min": 4}, False),
        (12, 1, {"partial_ingestion_percent": 0.0}, False),
        (400, 20, {"partial_ingestion_min": 0}, True),
        (0, 3, {"partial_ingestion_percent": 100.0}, True),
    ],
)
def test_the_least_count(
    sandbox: Sandbox,
    root: Path,
    good: int,
    bad: int,
    options: dict[str, Any],
    passes: bool,
) -> None:
    """A few rejects are tolerated beside good rows, for any share."""
    at = day_start(FIRST, SPEC.zone) // 1000
    lines = [{"event": "e", "properties": {"time": at, "distinct_id": n}} for n in range(good)]
    lines += [{"event": "e", "properties": {"distinct_id": n}} for n in range(bad)]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    sandbox.faults({"fault": "answer", "status": 200, "body": body})
    done = pull(sandbox.url, root, days(1), **options)
    assert done.statuses == ["success" if passes else "failed"]


@pytest.mark.parametrize("place", ["first", "last", "shuffled"])
def test_rejects_out_of_place(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A day of rejects alone is never complete, wherever its lines are in the response."""
    lines = []
    for n, day in enumerate(days(4)):
        at = day_start(day, SPEC.zone) // 1000
        name = "tyme" if n == 1 else "time"
        lines += [
            (day, {"event": "e", "properties": {name: at + k, "distinct_id": f"{n}-{k}"}})
            for k in range(4 if n == 1 else 60)
        ]
    if place == "shuffled":
        Random(1).shuffle(lines)
    else:
        lines.sort(key=lambda pair: (pair[0] == days(4)[1]) == (place == "last"))

    def blocks(self: Query, *_: Any) -> Iterator[bytes]:
        for day, line in lines:
            if self.first <= day <= self.last:
                yield json.dumps(line).encode() + b"\n"

    monkeypatch.setattr(Query, "blocks", blocks)
    done = pull(sandbox.url, root, days(4), MONTH)
    assert done.statuses.count("failed") == 1
    assert held(root) == set(days(4)) - {days(4)[1]}


# Days without events -----------------------------------------------------------------------


def told_of_nothing(done: Pull) -> list[str]:
    return [describe(event) for event in done.told if isinstance(event, NoEvents)]


def test_an_empty_day_is_said(sandbox: Sandbox, root: Path) -> None:
    """An empty day among others is no failure, and is reported with what to check."""
    sandbox.project.spec = replace(SPEC, volumes={BAD: 0})
    done = pull(sandbox.url, root, days(31), MONTH)
    assert set(done.statuses) == {"success"}
    (said,) = told_of_nothing(done)
    assert said.startswith(f"Mixpanel has no event of {BAD} (http://127.0.0.1:")
    for word in ("region", "project", "filter", "dates"):
        assert word in said
    assert pull(sandbox.url, root, days(31), MONTH).items == []  # long over: not asked for again


def test_a_range_without_events(sandbox: Sandbox, root: Path) -> None:
    """If no event of the flow's names exists, the report names them."""
    done = pull(sandbox.url, root, days(3), MONTH, events=("items_sold",))
    (said,) = told_of_nothing(done)
    assert said.startswith("No event is called items_sold on these days.")
    assert "2024-01-01..2024-01-03" in said


def test_a_young_empty_day_is_asked_for_once_more(sandbox: Sandbox, root: Path) -> None:
    """An empty day younger than a week is requested once more, and not again."""
    sandbox.project.spec = replace(SPEC, volumes={FIRST: 0})
    noon = day_start(FIRST, SPEC.zone) + 36 * 3_600_000
    young = replace(QUICK, now=lambda: noon)
    assert [len(pull(sandbox.url, root, days(1), young).items) for _ in range(3)] == [1, 1, 0]
    sandbox.project.spec = SPEC
    forced = pull(sandbox.url, root, days(1), replace(young, force=True))
    assert forced.statuses == ["success"]
    assert pull(sandbox.url, root, days(1), young).items == []


# Another mapping ---------------------------------------------------------------------------


def test_another_mapping_is_noticed(sandbox: Sandbox, root: Path) -> None:
    """Complete days of another mapping set or schema are counted, by content and not by name."""
    from engine.dataset.dataset import Dataset
    from engine.sync.pull import table_schema

    pull(sandbox.url, root, days(2))
    flow = flow_of(sandbox.url, root)
    dataset = Dataset(root, table_schema(RULES), flow.source)
    other = Rules(("other", {**RULES.mapping[1], "version": 2}), RULES.schema)
    renamed = Rules(("other", RULES.mapping[1]), RULES.schema)
    assert window_commits.pulled_otherwise(flow, dataset, days(3), other) == days(2)
    assert window_commits.pulled_otherwise(flow, dataset, days(3), renamed) == []
    assert summary([], 2, "x", 2).endswith(
        "2 complete days were pulled with another mapping; --force pulls them again."
    )


# What is said of a run that failed ---------------------------------------------------------


def test_a_failed_run_has_no_result(
    sandbox: Sandbox, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The counts of a failed run are shown as no result."""
    sandbox.faults({"fault": "cut", "times": None})
    done = pull(sandbox.url, root, days(1))
    (event,) = [event for event in done.told if isinstance(event, Ended)]
    assert "rows" not in describe(event)
    with Catalog(root.parent / "home") as catalog:
        history(catalog.history())
    cells = capsys.readouterr().out.splitlines()[1].split("\t")
    assert cells[3:7] == ["failed", "-", "-", "-"]
    assert "inside a line" in cells[-1]
    RunLogger(flow_of(sandbox.url, root))(event)
    logged = capsys.readouterr()
    for word in ("rows", "rejected", "duplicates"):
        assert word not in logged.out + logged.err
    assert "inside a line" in logged.out + logged.err


# The daemon --------------------------------------------------------------------------------


def turn(sandbox: Sandbox, root: Path, now: int, **changes: Any) -> list[str]:
    """Run one turn of a flow with day windows from 2024 on; return how its runs ended."""
    flow: Flow = flow_of(
        sandbox.url,
        root,
        schedule=Schedule("day", 1, day_start(FIRST, SPEC.zone) // 1000),
        backfill_from=FIRST,
        **changes,
    )
    options: Options = replace(QUICK, now=lambda: now)
    records = sync_flow(flow, root.parent / "home", options, turn=RunContext(began=now))
    return [record.status for record in records]


@pytest.mark.parametrize("fault", [EARLY, {"fault": "answer", "status": 503}])
def test_the_daemon_splits_too(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """One bad day waits in backoff, and all other days are stored after a turn."""
    monkeypatch.setattr(due_windows, "fitting_days", lambda _: 31)
    monkeypatch.setattr(sandbox.project, "now", lambda: NOW)
    disturb(sandbox, monkeypatch, fault, holds_bad)
    found = turn(sandbox, root, NOW)
    assert found.count("failed") == 1
    assert held(root) >= set(days(32)) - {BAD}
    assert BAD not in held(root)
    assert len(sandbox.requests) <= 3 + 2 + 2 * 5 + QUICK.retry_policy.tries
    if fault is EARLY:  # its rest lasts beyond the turn
        count = len(sandbox.requests)
        turn(sandbox, root, NOW + 60_000)
        assert len(sandbox.requests) == count


def test_the_next_turn_begins_smaller(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process learns the sizes of requests from the history."""
    monkeypatch.setattr(due_windows, "fitting_days", lambda _: 31)
    monkeypatch.setattr(sandbox.project, "now", lambda: NOW)
    disturb(sandbox, monkeypatch, EARLY, large)
    asked: list[int] = []
    for n in range(2):
        count = len(sandbox.requests)
        monkeypatch.setattr("engine.sync.incremental.IncrementalSync._has_to_wait", stop_after(12))
        turn(sandbox, root, NOW + n * 60_000)
        sizes = [
            (date.fromisoformat(one["params"]["to_date"])
             - date.fromisoformat(one["params"]["from_date"])).days + 1
            for one in sandbox.requests[count:]
        ]  # fmt: skip
        asked.append(max(sizes))
    assert asked == [6, 1]  # the days within `lookback_days` came first


def test_a_window_that_was_asked_for_is_split(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requested window fails under its id, and its days get new ids."""
    monkeypatch.setattr(due_windows, "fitting_days", lambda _: 31)
    monkeypatch.setattr(sandbox.project, "now", lambda: NOW)
    turn(sandbox, root, NOW)
    count = len(sandbox.requests)
    window = Window(FIRST, days(4)[-1])
    flow = flow_of(sandbox.url, root)
    with Catalog(root.parent / "home") as catalog:
        run = Run("asked-for", flow.name, window, "", NOW)
        catalog.save(run_records.scheduled(flow, str(root), run, {}))
    disturb(sandbox, monkeypatch, EARLY, large)
    assert set(turn(sandbox, root, NOW + 60_000)) == {"success"}
    spans = [one["params"] for one in sandbox.requests[count:]]
    assert {one["from_date"] for one in spans if one["from_date"] == one["to_date"]} == {
        str(day) for day in days(4)
    }
    with Catalog(root.parent / "home") as catalog:
        entry = catalog.run("asked-for")
        assert entry
        assert entry.status == "failed"
        assert entry.error.endswith(splitting.AGAIN)
        assert not catalog.history(flow.name, "scheduled")
    assert len(rows(root)) == len(set(rows(root)))


def stop_after(windows: int) -> Callable[..., bool]:
    """A turn that ends after a number of windows."""
    left = [windows]

    def has_to_wait(*_: Any) -> bool:
        left[0] -= 1
        return left[0] < 0

    return has_to_wait


# The sizes themselves ----------------------------------------------------------------------


@given(st.integers(1, 62), st.sets(st.integers(0, 61)), st.integers(1, 62), st.integers(1, 31))
def test_halving_comes_to_an_end(count: int, bad: set[int], limit: int, most: int) -> None:
    """For any bad days or sizes, every good day is committed, in few requests."""
    wanted, sizes = days(count), splitting.Sizes()
    wrong = {days(62)[n] for n in bad} & set(wanted)
    left, came, failed, requests = list(wanted), set[date](), set[date](), 0
    while left:
        window = due_windows.next_window(left, None, most, sizes.bounds, sizes.cap)
        requests += 1
        taken = set(window.days)
        left = [day for day in left if day not in taken]
        if taken & wrong or len(taken) > limit:
            sizes.failed(window)
            if len(taken) > 1:
                left = sorted({*left, *taken})
            else:
                failed |= taken
        else:
            sizes.came(window)
            came |= taken
    assert (came, failed) == (set(wanted) - wrong, wrong)
    assert requests <= 2 * count


@given(st.integers(2, 40), st.sets(st.integers(0, 39)))
def test_parts_make_up_the_window(count: int, bad: set[int]) -> None:
    """The parts of a window are its days in order, none twice and none of them the window."""
    window = Window(FIRST, days(count)[-1])
    blamed = {days(40)[n] for n in bad} & set(window.days)
    found = splitting.parts(window, blamed)
    assert [day for part in found for day in part.days] == window.days
    assert window not in found
    assert all(len(part.days) == 1 for part in found if blamed & set(part.days))
