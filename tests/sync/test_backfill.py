"""A backfill: which requests it makes, when, what it commits, and what a failure stops."""

import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.catalog.database import Catalog
from engine.control.run_payload import payload
from engine.dataset.dataset import Dataset
from engine.dataset.parquet_writer import Writer
from engine.dataset.positions import app_id
from engine.dataset.storage.local import local_path
from engine.errors import DatasetError, EtlError, InputError
from engine.mixpanel.timeouts import Timeouts
from engine.model import clock as clock_module
from engine.model import due_windows
from engine.model.flow import Connection, Schedule, Secret
from engine.model.retry import RateLimit, RetryPolicy
from engine.model.run_record import RunRecord
from engine.model.window import day_start
from engine.sandbox import PASSWORD, PROJECT_ID, USERNAME, Sandbox, Spec
from engine.sync import request_slots
from engine.sync import runner as module
from engine.sync.attempts import SPLIT_AFTER, UNANSWERED
from engine.sync.backfill import Backfill, missing_days
from engine.sync.pull import table_schema
from engine.sync.run_updates import Advanced, Ended, GaveUp, RunUpdate, Waiting
from engine.transform.columns import Columns
from tests.support.pulling import QUICK, RULES, Pull, flow_of, pull, rows

SPEC = Spec(events_per_day=200, duplicate_percent=1, reject_percent=0.5)
LINES, ROWS = 203, 200 - 1  # of a day
FIRST = date(2024, 1, 1)
ONE_BY_ONE = replace(QUICK, days_per_request=1)
ALWAYS = None


def days(count: int, first: date = FIRST) -> list[date]:
    return [first + timedelta(days=offset) for offset in range(count)]


class Clock:
    """A fake of the module `time`: time passes only in `sleep`."""

    def __init__(self, wall: datetime) -> None:
        self.wall = wall.timestamp()
        self.steady = 0.0
        self.slept = 0.0

    def time_ns(self) -> int:
        return round(self.wall * 1000) * 1_000_000

    def monotonic(self) -> float:
        return self.steady

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.wall += seconds
        self.steady += seconds
        self.slept += seconds

    def now_ms(self) -> int:
        return self.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture
def sandbox(server: Sandbox) -> Iterator[Sandbox]:
    server.reset()
    yield server
    server.project.spec = SPEC


@pytest.fixture
def clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for the backfill and the sandbox, in the afternoon of 2024-03-01."""
    clock = Clock(datetime(2024, 3, 1, 15, tzinfo=UTC))
    for each in (module, clock_module, request_slots):
        monkeypatch.setattr(each, "time", clock)
    monkeypatch.setattr(sandbox.project, "now", clock.now_ms)
    return clock


def asked(sandbox: Sandbox) -> list[str]:
    """Return the days of each request, as `1` or `2-4` of January."""
    spans = []
    for request in sandbox.requests:
        first, last = (int(request["params"][name][-2:]) for name in ("from_date", "to_date"))
        spans.append(f"{first}" if first == last else f"{first}-{last}")
    return spans


def history(root: Path) -> list[Any]:
    with Catalog(root.parent / "home") as catalog:
        return catalog.history()


def left_in_staging(root: Path) -> list[str]:
    return [path.name for path in (root / "_staging").iterdir() if path.name != "lock"]


def answer(body: str = "", status: int = 200, **more: Any) -> dict[str, Any]:
    return {"fault": "answer", "status": status, "body": body, **more}


def stopping(kind: type[RunUpdate], do: Callable[[], None]) -> Callable[[RunUpdate], None]:
    """Return a callback that calls something at the first update of a kind."""
    done: list[RunUpdate] = []

    def tell(event: RunUpdate) -> None:
        if isinstance(event, kind) and not done:
            done.append(event)
            do()

    return tell


def interrupt() -> None:
    raise KeyboardInterrupt


# Which windows, in which order ---------------------------------------------------------------


def test_packing_is_learned(sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first day comes alone; then a request has as many days as the fullest window suggests."""
    monkeypatch.setattr(due_windows, "EVENTS_PER_REQUEST", 3 * LINES)
    pull(sandbox.url, root, days(1, date(2024, 1, 6)))  # a hole that no window spans
    done = pull(sandbox.url, root, list(reversed(days(12))))
    assert asked(sandbox) == ["6", "1", "2-4", "5", "7-9", "10-12"]
    assert set(done.statuses) == {"success"}
    assert len(rows(root)) == 12 * ROWS


def test_a_full_day_makes_windows_smaller(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quiet days grow the request, a full one shrinks it for the next seven windows."""
    monkeypatch.setattr(due_windows, "EVENTS_PER_REQUEST", 4 * LINES)
    volumes = dict.fromkeys(days(2, date(2024, 1, 6)), 1000)
    sandbox.project.spec = replace(SPEC, volumes=volumes)
    pull(sandbox.url, root, days(14))
    assert asked(sandbox) == ["1", "2-5", "6-9", "10", "11", "12", "13", "14"]


@pytest.mark.parametrize(("size", "spans"), [(1, "1 2 3 4 5"), (2, "1-2 3-4 5"), (9, "1-5")])
def test_a_given_size(sandbox: Sandbox, tmp_path: Path, size: int, spans: str) -> None:
    """`days_per_request` holds from the first request on; the table is the same."""
    root = tmp_path / "table"
    pull(sandbox.url, root, days(5), replace(QUICK, days_per_request=size))
    assert asked(sandbox) == spans.split()
    assert len(rows(root)) == 5 * ROWS


def test_two_workers_make_the_same_table(sandbox: Sandbox, tmp_path: Path) -> None:
    """Two worker processes make the same table as one, and each run is reported once."""
    one, two = tmp_path / "one" / "table", tmp_path / "two" / "table"
    pull(sandbox.url, one, days(4), ONE_BY_ONE)
    done = pull(sandbox.url, two, days(4), replace(ONE_BY_ONE, workers=2))
    assert done.statuses == ["success"] * 4
    assert rows(two) == rows(one)
    assert done.records["outputRecordCount"] == 4 * ROWS
    assert len(history(two)) == 4


# How often, and when -------------------------------------------------------------------------


def test_the_budget_is_kept(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """The requests stay within 5 an hour and 2 a second, and waits are reported."""
    sandbox.project.per_hour, sandbox.project.per_second = 5, 2
    budget = replace(ONE_BY_ONE, rate_limit=RateLimit(per_hour=5, per_second=2))
    try:
        first = pull(sandbox.url, root, days(7), budget)
        second = pull(sandbox.url, root, days(12), budget)  # as after a restart: the ledger stays
    finally:
        sandbox.project.per_hour = sandbox.project.per_second = None
    assert [request["status"] for request in sandbox.requests] == [200] * 12
    assert 7200 <= clock.slept < 7210
    assert set(first.statuses + second.statuses) == {"success"}
    assert [why for why in first.waits + second.waits if "budget" not in why] == []
    waits = [event.seconds for event in first.told if isinstance(event, Waiting)]
    assert len(waits) == 1  # that there are two a second is no hourly budget
    assert waits[0] > 1


def test_another_flow_shares_the_budget(sandbox: Sandbox, tmp_path: Path, clock: Clock) -> None:
    """All flows of a project share its budget, for any table."""
    budget = replace(ONE_BY_ONE, rate_limit=RateLimit(per_hour=2, per_second=9))
    home = tmp_path / "home"
    pull(sandbox.url, tmp_path / "one", days(2), budget, home=home)
    pull(sandbox.url, tmp_path / "two", days(1), budget, home=home, name="other")
    assert clock.slept >= 3600


def test_retry_after_is_honoured(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """A 429 is waited for as long as it says, and costs no try."""
    sandbox.faults(answer("slow", 429, headers={"Retry-After": "120"}, times=3))
    patience = RetryPolicy(tries=1, limited=4)
    done = pull(sandbox.url, root, days(1), replace(QUICK, retry_policy=patience))
    assert done.statuses == ["success"]
    at = [request["time"] for request in sandbox.requests]
    assert all(120_000 <= after - before < 122_000 for before, after in pairwise(at))
    assert len(at) == 4


def test_429_without_end(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """After too many 429 in a row the backfill ends: other days would fail too."""
    sandbox.faults(answer("slow", 429, times=ALWAYS))
    done = pull(
        sandbox.url, root, days(3), replace(ONE_BY_ONE, retry_policy=RetryPolicy(limited=3))
    )
    assert done.statuses == ["failed"] * 3
    assert len(sandbox.requests) == 7
    assert [entry.status for entry in history(root)] == ["failed"] * 3


def test_other_windows_go_on_meanwhile(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """While a window waits for its next try, the others are pulled."""
    sandbox.faults(answer("no", 500, times=2, day="2024-01-01"))
    patience = RetryPolicy(tries=3, first=60)
    done = pull(sandbox.url, root, days(3), replace(ONE_BY_ONE, retry_policy=patience))
    assert asked(sandbox) == ["1", "2", "3", "1", "1"]
    assert done.statuses == ["success"] * 3
    assert 30 <= clock.slept <= 180


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_tries_are_counted(sandbox: Sandbox, root: Path, clock: Clock, tries: int) -> None:
    """A window is requested exactly as often as the policy says."""
    sandbox.faults(answer("no", 500, times=ALWAYS))
    patience = RetryPolicy(tries=tries)
    done = pull(sandbox.url, root, days(1), replace(QUICK, retry_policy=patience))
    assert done.statuses == ["failed"]
    assert asked(sandbox) == ["1"] * tries
    assert [entry.status for entry in history(root)] == ["failed"]


def test_a_clock_set_back_during_a_wait(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """A wait takes as long as announced, even if the clock is set back meanwhile."""
    sandbox.faults(answer("no", 500))

    def set_back() -> None:
        clock.wall -= 86_400

    tell = stopping(Waiting, set_back)
    patience = RetryPolicy(first=10)
    done = pull(sandbox.url, root, days(1), replace(QUICK, retry_policy=patience), tell)
    assert done.statuses == ["success"]
    assert clock.slept <= 11


# Again ---------------------------------------------------------------------------------------


def test_again_changes_nothing(sandbox: Sandbox, root: Path) -> None:
    """P4: complete days are not requested; with force they are replaced, and nothing doubles."""
    pull(sandbox.url, root, days(3))
    before, files = rows(root), set(root.glob("event_date=*/*"))
    count = len(sandbox.requests)
    again = pull(sandbox.url, root, days(3))
    assert (again.items, len(sandbox.requests)) == ([], count)
    assert set(root.glob("event_date=*/*")) == files
    forced = pull(sandbox.url, root, days(3), replace(QUICK, force=True, days_per_request=2))
    assert forced.statuses == ["success"] * 2
    assert rows(root) == before
    assert not files & set(root.glob("event_date=*/*"))


def test_positions_come_from_the_table(sandbox: Sandbox, root: Path) -> None:
    """P2: complete days are known without the catalog."""
    pull(sandbox.url, root, days(2))
    count = len(sandbox.requests)
    shutil.rmtree(root.parent / "home")
    assert pull(sandbox.url, root, days(3)).statuses == ["success"]
    assert asked(sandbox)[count:] == ["3"]


def test_what_another_process_did_meanwhile(sandbox: Sandbox, root: Path, tmp_path: Path) -> None:
    """A dataset is read again once it is locked, since another process may have filled it."""
    flow = flow_of(sandbox.url, root)
    opened = Dataset(root, table_schema(RULES), flow.source)
    pull(sandbox.url, root, days(2))
    count = len(sandbox.requests)
    with Catalog(tmp_path / "home") as catalog:
        done = Backfill(flow, RULES, opened, catalog, QUICK).run(days(2))
    assert (done, len(sandbox.requests)) == ([], count)


def test_today_is_pulled_again(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """A day that was not over when it was requested is requested again."""
    today = clock.now_ms()
    day = date(2024, 3, 1)
    pull(sandbox.url, root, [day])
    early = len(rows(root))
    clock.wall += 3600
    pull(sandbox.url, root, [day])
    clock.wall += 24 * 3600
    pull(sandbox.url, root, [day])
    whole = len(rows(root))
    pull(sandbox.url, root, [day])
    assert len(sandbox.requests) == 3
    assert today < clock.now_ms()
    assert 0 < early < whole


def test_a_day_that_ends_while_it_is_pulled(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """P4: the position of a day is when it was requested, not when it was committed."""
    clock.wall = datetime(2024, 3, 1, 23, 59, tzinfo=UTC).timestamp()
    day = date(2024, 3, 1)

    def pass_midnight() -> None:
        clock.wall += 7200

    pull(sandbox.url, root, [day], tell=stopping(Advanced, pass_midnight))
    assert pull(sandbox.url, root, [day]).statuses == ["success"]
    assert pull(sandbox.url, root, [day]).items == []


def test_positions_only_grow(sandbox: Sandbox, root: Path, clock: Clock) -> None:
    """P2: two commits of a day never have the same position, for any clock."""
    flow, found = flow_of(sandbox.url, root), []
    for _ in range(3):
        pull(sandbox.url, root, days(1), replace(QUICK, force=True))
        dataset = Dataset(root, table_schema(RULES), flow.source)
        found.append(dataset.position(app_id(flow, FIRST)))
        clock.wall -= 1
    assert found == [found[0] + n for n in range(3) if found[0]]


@pytest.mark.parametrize(
    ("timezone", "day", "over"),
    [
        ("UTC", "2024-03-10", "2024-03-11T00:00"),
        ("America/Los_Angeles", "2024-03-10", "2024-03-11T07:00"),  # a day of 23 hours
        ("America/Los_Angeles", "2024-11-03", "2024-11-04T08:00"),  # a day of 25 hours
        ("Asia/Kolkata", "2024-03-10", "2024-03-11T00:00"),  # over by UTC last
        ("America/Sao_Paulo", "2018-11-03", "2018-11-04T03:00"),  # the next has no midnight
        ("Pacific/Apia", "2011-12-29", "2011-12-30T10:00"),  # the next day did not exist
    ],
)
def test_when_a_day_is_over(
    sandbox: Sandbox, root: Path, clock: Clock, timezone: str, day: str, over: str
) -> None:
    """A day is complete if it was requested after its end in the project's zone and in UTC."""
    connection = replace(flow_of(sandbox.url, root).connection, timezone=timezone)
    flow = flow_of(sandbox.url, root, connection=connection)
    wanted = [date.fromisoformat(day)]
    due = []
    for minutes in (-1, 0):
        at = datetime.fromisoformat(over).replace(tzinfo=UTC) + timedelta(minutes=minutes)
        clock.wall = at.timestamp()
        pull(sandbox.url, root, wanted, connection=connection)
        dataset = Dataset(root, table_schema(RULES), flow.source)
        due.append(missing_days(flow, dataset, wanted))
    assert due == [wanted, []]


# What a failure stops ------------------------------------------------------------------------

BAD = "".join(f'{{"event":"e","properties":{{"n":{n}}}}}\n' for n in range(9))
OWN = [
    pytest.param({"fault": "cut", "times": ALWAYS}, "inside a line", id="truncated"),
    pytest.param({"fault": "cut", "end": "reset", "times": ALWAYS}, "broke", id="heavy"),
    pytest.param(
        answer(BAD, times=ALWAYS), "9 of 9 records of 2024-01-02 were rejected", id="rejects"
    ),
    pytest.param(answer("", times=ALWAYS), "holds 199 rows and would hold 0", id="shrunk"),
]


@pytest.mark.parametrize(("fault", "cause"), OWN)
def test_a_failure_of_its_own(
    sandbox: Sandbox, root: Path, fault: dict[str, Any], cause: str
) -> None:
    """P1, P5: a window that fails by its content leaves its day as it was; the others go on."""
    pull(sandbox.url, root, days(3))
    before = rows(root)
    sandbox.faults(fault | {"day": "2024-01-02"})
    once = replace(ONE_BY_ONE, force=True, retry_policy=RetryPolicy(tries=1))
    done = pull(sandbox.url, root, days(4), once)
    assert sorted(done.statuses) == ["failed", "success", "success", "success"]
    (message,) = [
        item["metrics"]["statusSummary"]["errors"][0]["message"]
        for item in done.items
        if item["metrics"]["statusSummary"]["status"] == "failed"
    ]
    assert cause in message
    now = rows(root)
    assert set(before) < set(now)
    assert len(now) == 4 * ROWS
    assert left_in_staging(root) == []
    assert len(history(root)) == 2 + 4  # one day, then two; a run is told of once


def test_refused_credentials_stop_every_window(sandbox: Sandbox, root: Path) -> None:
    """Refused credentials end the backfill after one request."""
    sandbox.faults(answer("Unable to authenticate request", 400, times=ALWAYS))
    done = pull(sandbox.url, root, days(20), replace(QUICK, days_per_request=19))
    assert done.statuses == ["failed"]
    assert [event.days for event in done.told if isinstance(event, GaveUp)] == [1]
    assert len(sandbox.requests) == 1
    assert "secret of the service account" in done.message


def test_an_outage_stops_every_window(sandbox: Sandbox, root: Path) -> None:
    """If windows in a row get no response, the backfill ends before all were tried."""
    sandbox.faults(answer("boom", 503, times=ALWAYS))
    done = pull(sandbox.url, root, days(60), replace(QUICK, days_per_request=20))
    assert set(done.statuses) == {"failed"}
    assert len([event for event in done.told if isinstance(event, GaveUp)]) == 1
    # At most: two tries of each of 3 windows, a request for each of the 4 halvings of the first one
    # down to a day (20, 10, 5, 3, 2), and two tries of each of the 3 parts that end it all.
    assert len(sandbox.requests) <= 3 * SPLIT_AFTER + 4 + 2 * UNANSWERED
    halves = [each["params"]["to_date"] for each in sandbox.requests[3 * SPLIT_AFTER :]]
    assert max(halves) <= "2024-01-20"
    assert "503" in done.message


def test_a_file_in_the_way_of_a_day(sandbox: Sandbox, root: Path) -> None:
    """P9: a day that cannot be written fails in a sentence, alone."""
    pull(sandbox.url, root, days(1))
    (root / "event_date=2024-01-02").write_text("in the way")
    done = pull(sandbox.url, root, days(5), replace(QUICK, days_per_request=5))
    assert sorted(done.statuses)[0] == "failed"
    assert done.statuses.count("failed") == 1
    (message,) = errors_of(done)
    assert "Cannot commit to" in message
    (root / "event_date=2024-01-02").unlink()
    assert len(rows(root)) == 4 * ROWS
    assert left_in_staging(root) == []


def test_a_disk_that_takes_nothing(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that cannot be written ends the backfill at its first window."""
    pull(sandbox.url, root, days(1))
    before, count = rows(root), len(sandbox.requests)

    def full(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("engine.dataset.storage.local.write_synced", full)
    done = pull(sandbox.url, root, days(5), ONE_BY_ONE)
    assert done.statuses == ["failed"]
    assert "the file system is read-only" in done.message
    assert len(sandbox.requests) == count + 1
    assert rows(root) == before
    assert left_in_staging(root) == []


def errors_of(done: Pull) -> list[str]:
    """Return the errors of the runs that failed."""
    summaries = (item["metrics"]["statusSummary"] for item in done.items)
    return [one["errors"][0]["message"] for one in summaries if one["status"] == "failed"]


def test_one_shrunken_day_of_a_window(sandbox: Sandbox, root: Path) -> None:
    """P5: the day that shrank is refused and named; the days beside it are committed."""
    whole = replace(QUICK, days_per_request=3, force=True)
    pull(sandbox.url, root, days(3), whole)
    spec = replace(SPEC, events_per_day=900, volumes={days(3)[1]: 150})
    sandbox.project.spec = spec
    count = len(sandbox.requests)
    done = pull(sandbox.url, root, days(3), whole)
    assert asked(sandbox)[count:] == ["1-3", "1", "2", "3"]
    assert done.statuses == ["success", "failed", "success"]
    (message,) = errors_of(done)
    assert "2024-01-02 holds 199 rows and would hold" in message
    assert "2024-01-03" not in message
    before = rows(root)
    assert len([row for row in before if '"2024-01-02"' in row]) == ROWS
    assert len(before) > 1700
    # P3: what is known of the run is told, though nothing of it is in the table.
    item = done.items[1]
    records = item["metrics"]["recordSummary"]
    assert records["inputRecordCount"] == records["failedRecordCount"] > 150
    copy, promotion = (one["statusSummary"]["status"] for one in item["activities"])
    assert (copy, promotion) == ("success", "failed")
    # The request that was split left a record as well, and no reject of it is lost.
    batches = [item, next(payload(e) for e in history(root) if len(e.window.days) == 3)]
    for one in batches:
        batch = one["activities"][1]["targetInfo"][0]["reference"]["ids"][0]
        assert (root / "_batches" / batch / "row_errors").is_dir()
    sandbox.project.spec = replace(spec, events_per_day=900)
    allowed = pull(sandbox.url, root, days(3), replace(whole, allow_shrink=True))
    assert set(allowed.statuses) == {"success"}
    assert len([row for row in rows(root) if '"2024-01-02"' in row]) < ROWS


def test_a_bug_is_a_crash(sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: an unexpected exception is not caught; table and staging are as before."""
    pull(sandbox.url, root, days(1))
    before = rows(root)
    with monkeypatch.context() as patch:
        patch.setattr(Columns, "build", lambda *_: [][0])
        with pytest.raises(IndexError):
            pull(sandbox.url, root, days(3))
    assert rows(root) == before
    assert left_in_staging(root) == []
    assert [entry.status for entry in history(root)] == ["failed", "success"]
    defect = "A defect of mixpanel-etl ended the program (IndexError)"
    assert history(root)[0].error.startswith(defect)


def test_a_line_that_is_nowhere(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: a pull whose lines do not add up is not committed."""
    finish = Writer.finish
    monkeypatch.setattr(Writer, "finish", lambda *given: replace(finish(*given), duplicates=0))
    done = pull(sandbox.url, root, days(5), ONE_BY_ONE)
    assert done.statuses == ["failed"] * 3  # a defect of one day is no other's, until it is
    assert [event.days for event in done.told if isinstance(event, GaveUp)] == [2]
    assert "do not add up" in done.message
    assert rows(root) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no way to name an open file")
def test_what_a_power_cut_may_not_undo(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: data, rejects and intent are on the disk before the log that names them."""
    real, synced = os.fsync, list[str]()

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    pull(sandbox.url, root, days(1))
    day = "event_date=2024-01-01"
    order = [
        rf"/{day}/\w+-\d+\.parquet", "/intent.partial", r"/_staging/\w+",
        "/row_errors/conversion_errors_0.json", "/row_errors", "/batch.json",
        f"/{day}", "/_batches",
        f"/_delta_log/{1:020}.json", "/_delta_log",
    ]  # fmt: skip
    synced = synced[: synced.index(f"{root}/_delta_log/{1:020}.json") + 2]  # then it is tidied up
    at = [max(n for n, path in enumerate(synced) if re.search(f"{end}$", path)) for end in order]
    assert at == sorted(at)


def test_a_killed_worker(sandbox: Sandbox, root: Path) -> None:
    """P9: a killed worker costs its window one try, and the backfill goes on."""
    sandbox.faults({"fault": "cut", "where": "after_line", "end": "stall", "day": "2024-01-02"})

    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    options = replace(ONE_BY_ONE, workers=2)
    done = pull(sandbox.url, root, days(3), options, stopping(Advanced, kill))
    assert done.statuses == ["success"] * 3
    assert {why for why in done.waits if "worker process was killed" in why}
    assert "inProgress" not in [entry.status for entry in history(root)]
    assert left_in_staging(root) == []
    assert len(rows(root)) == 3 * ROWS


def test_a_day_that_kills_its_worker(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: a day that kills its worker at each try fails alone, and costs others one try."""
    sandbox.faults({"fault": "delay", "seconds": 30, "day": "2024-01-02", "times": ALWAYS})
    limits = Timeouts(connect=2, first_byte=40, idle=40, total=60)
    options = replace(
        ONE_BY_ONE, workers=2, timeouts=limits, retry_policy=RetryPolicy(tries=3, first=0.01)
    )
    monkeypatch.setattr(module, "wait", killing(sandbox, "2024-01-02"))
    done = pull(sandbox.url, root, days(4), options)
    assert sorted(done.statuses) == ["failed", "success", "success", "success"]
    assert ["A worker process was killed" in message for message in errors_of(done)] == [True]
    assert len(rows(root)) == 3 * ROWS
    assert asked(sandbox).count("2") <= 3
    assert left_in_staging(root) == []


def killing(sandbox: Sandbox, day: str) -> Callable[..., Any]:
    """A `concurrent.futures.wait` that kills every worker once `day` is requested again."""
    from concurrent.futures import wait

    seen = set[str]()

    def wait_and_kill(running: Any, *arguments: Any) -> Any:
        done = wait(running, *arguments)
        attempts = running.values() if hasattr(running, "values") else ()
        for attempt in attempts:
            run = attempt.run
            if str(run.window) == day and run.batch_id not in seen and not done.done:
                seen.add(run.batch_id)
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)
        return done

    return wait_and_kill


# Stopping, and dying at a bad moment ---------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Make SIGINT raise KeyboardInterrupt, also if the shell ignored it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_while_it_reads(sandbox: Sandbox, root: Path, workers: int) -> None:
    """P8: Ctrl-C leaves no staging and no open run, and ends soon."""
    pull(sandbox.url, root, days(1))
    before, main = rows(root), threading.main_thread().ident
    sandbox.faults({"fault": "cut", "where": "after_line", "end": "stall", "times": ALWAYS})

    def stop_when_asked() -> None:
        deadline = time.monotonic() + 20
        while len(sandbox.requests) < 1 + workers and time.monotonic() < deadline:
            time.sleep(0.01)
        signal.pthread_kill(main or 0, signal.SIGINT)

    threading.Thread(target=stop_when_asked).start()
    options = replace(ONE_BY_ONE, workers=workers, timeouts=Timeouts(idle=9))
    told: list[RunUpdate] = []
    with pytest.raises(KeyboardInterrupt):
        pull(sandbox.url, root, days(4), options, told.append)
    assert not [event for event in told if isinstance(event, Ended)]
    assert time.time() * 1000 - sandbox.requests[-1]["time"] < 8000
    assert rows(root) == before
    assert left_in_staging(root) == []
    statuses = [entry.status for entry in history(root)]
    assert statuses == ["failed"] * workers + ["success"]


def test_stopped_while_it_waits(sandbox: Sandbox, root: Path) -> None:
    """P8: Ctrl-C ends a wait for the next try, and the run is recorded as failed."""
    sandbox.faults(answer("no", 500, times=ALWAYS))
    with pytest.raises(KeyboardInterrupt):
        pull(sandbox.url, root, days(2), ONE_BY_ONE, stopping(Waiting, interrupt))
    assert [entry.status for entry in history(root)] == ["failed"]


def test_stopped_after_a_commit(sandbox: Sandbox, root: Path) -> None:
    """A commit that was reported stays a success, although Ctrl-C follows at once."""
    with pytest.raises(KeyboardInterrupt):
        pull(sandbox.url, root, days(2), ONE_BY_ONE, stopping(Ended, interrupt))
    assert [entry.status for entry in history(root)] == ["success"]
    assert len(rows(root)) == ROWS


@pytest.mark.parametrize("death", [EtlError("The catalog cannot be written."), KeyboardInterrupt()])
def test_a_commit_nobody_was_told_of(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch, death: BaseException
) -> None:
    """P2: a commit whose record could not be saved is recorded by the next start."""
    save = Catalog.save

    def dying(self: Catalog, record: RunRecord) -> None:
        if record.status == "success":
            raise death
        save(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "save", dying)
        with pytest.raises(type(death)):
            pull(sandbox.url, root, days(1))
    assert len(rows(root)) == ROWS
    assert [entry.status for entry in history(root)] == ["inProgress"]
    again = pull(sandbox.url, root, days(1), name="another")
    assert again.statuses == ["success"]  # its own position is another one
    told = [(entry.flow, entry.status) for entry in history(root)]
    assert told == [("another", "success"), ("events", "success")]
    assert history(root)[1].result.rows == ROWS
    assert left_in_staging(root) == []


def test_an_error_behind_the_commit(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a commit that succeeded counts, even if an error followed."""
    from engine.dataset.storage import local

    real = local.sync

    def sync(path: Path) -> None:
        if path.name == f"{1:020}.json":
            raise OSError(5, "Input/output error")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(local, "sync", sync)
        with pytest.raises(DatasetError, match="Input/output error"):
            pull(sandbox.url, root, days(1))
    assert len(rows(root)) == ROWS
    assert pull(sandbox.url, root, days(1)).items == []
    assert [entry.status for entry in history(root)] == ["success"]


def test_what_a_crash_left_is_swept(sandbox: Sandbox, root: Path) -> None:
    """P2: the next start removes the staging of a dead process, and no other files."""
    pull(sandbox.url, root, days(1))
    left = root / "_staging" / "01DEAD" / "event_date=2024-01-01"
    left.mkdir(parents=True)
    (left / "01DEAD-0.parquet").write_bytes(b"half")
    (root / "_staging" / "a file").write_text("of somebody else")
    (root / "_superseded").mkdir()
    (root / "_superseded" / ".DS_Store").write_text("")
    assert pull(sandbox.url, root, days(2)).statuses == ["success"]
    assert left_in_staging(root) == ["a file"]
    assert len(rows(root)) == 2 * ROWS


def test_superseded_files_go_when_their_time_is_over(sandbox: Sandbox, root: Path) -> None:
    """Replaced files stay for their hours; the first start after that deletes them."""
    keep: dict[str, Any] = {"keep_superseded_hours": 1e-9}
    pull(sandbox.url, root, days(1), **keep)
    pull(sandbox.url, root, days(1), replace(QUICK, force=True), **keep)
    assert len(list(root.glob("event_date=*/*.parquet"))) == 2
    pull(sandbox.url, root, days(1), **keep)
    assert len(rows(root)) == ROWS


# Places --------------------------------------------------------------------------------------


def test_removed_while_it_runs(sandbox: Sandbox, root: Path) -> None:
    """If the table is deleted, the run fails, and the next one makes the table again."""
    pull(sandbox.url, root, days(2))
    done = pull(
        sandbox.url, root, days(3, date(2024, 1, 5)), ONE_BY_ONE,
        stopping(Advanced, lambda: shutil.rmtree(root)),
    )  # fmt: skip
    assert done.statuses == ["failed"]
    assert pull(sandbox.url, root, days(2)).statuses == ["success"] * 2
    assert len(rows(root)) == 2 * ROWS


def test_log_removed_while_it_runs(sandbox: Sandbox, root: Path) -> None:
    """If the log is deleted, the run fails and leaves no file in the table."""
    pull(sandbox.url, root, days(1))
    done = pull(
        sandbox.url, root, days(1, date(2024, 1, 5)), QUICK,
        stopping(Advanced, lambda: shutil.rmtree(root / "_delta_log")),
    )  # fmt: skip
    assert done.statuses == ["failed"]
    assert "Cannot read the log of" in done.message
    assert not (root / "event_date=2024-01-05").exists()


@pytest.mark.parametrize("name", ["a b", "日本-ä", "100%", "x#y?z", "[b]*", "s3:x", "'q'"])
def test_names_of_places(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """A directory may have any name, as a path and as a URI."""
    root = tmp_path / name / "table"
    pull(sandbox.url, root, days(1))
    same = local_path(root.as_uri())
    assert same == root
    assert pull(sandbox.url, same, days(2)).statuses == ["success"]
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert len(list(root.glob("event_date=*/*.parquet"))) == 2


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", "a%20b"])
def test_names_that_delta_cannot_take(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    """A name that Delta would change is refused before anything is written."""
    with pytest.raises(InputError, match="cannot be kept in"):
        pull(sandbox.url, tmp_path / name, days(1), home=tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_uri_of_another_machine() -> None:
    """`file://data/events` names another machine, and is refused."""
    with pytest.raises(InputError, match=r"another machine, data\. .*file:///"):
        local_path("file://data/events")
    assert local_path("file://localhost/a%20b") == Path("/a b")


def test_workers_of_a_flow_with_arrival_windows(sandbox: Sandbox, tmp_path: Path) -> None:
    """With workers, the first arrival window comes before the days as well."""
    now = day_start(FIRST + timedelta(days=3), ZoneInfo("UTC"))
    sandbox.project.clock_ms = now
    done = pull(
        sandbox.url,
        tmp_path / "table",
        days(2),
        replace(QUICK, workers=2, now=lambda: now),
        windows="arrival",
        schedule=Schedule("hour", 1, now // 1000 - 86_400),
    )
    assert set(done.statuses) == {"success"}
    assert len(done.items) > 1  # the arrival window, then days


def test_a_relative_path(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is resolved at the start; the history has the absolute path."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    tell = stopping(Advanced, lambda: os.chdir(elsewhere))
    pull(sandbox.url, Path("table"), days(2), ONE_BY_ONE, tell, home=tmp_path / "home")
    assert len(rows(tmp_path / "table")) == 2 * ROWS
    assert list(elsewhere.iterdir()) == []
    assert {entry.dataset for entry in history(tmp_path / "table")} == {str(tmp_path / "table")}


def test_two_names_of_a_table(sandbox: Sandbox, tmp_path: Path) -> None:
    """A symbolic link leads to the same table, with one lock and one history."""
    root, link = tmp_path / "table", tmp_path / "link"
    link.symlink_to(root)  # dangling, as yet
    pull(sandbox.url, link, days(1))
    assert pull(sandbox.url, root, days(1)).items == []
    schema, source = table_schema(RULES), flow_of(sandbox.url, root).source
    with (
        Dataset(root, schema, source).locked(),
        pytest.raises(DatasetError, match="in use"),
        Dataset(link, schema, source).locked(),
    ):
        pass
    assert {entry.dataset for entry in history(root)} == {str(root)}


def test_a_damaged_log(sandbox: Sandbox, root: Path) -> None:
    """A half-written last entry is set aside and its day pulled again."""
    pull(sandbox.url, root, days(1))
    log = root / "_delta_log"
    (log / f"{9:020}.json.tmp").write_text('{"add"')
    (log / "_commit_1.json.tmp").write_text('{"add"')
    assert pull(sandbox.url, root, days(2)).statuses == ["success"]
    newest = max(log.glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:-40])
    assert set(pull(sandbox.url, root, days(3)).statuses) == {"success"}
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert len(rows(root)) == 3 * ROWS


def test_every_disk_error_is_a_sentence(
    sandbox: Sandbox, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A staging directory that cannot be made is reported as an error of the disk."""
    pull(sandbox.url, root, days(1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)
        dataset = Dataset(root, table_schema(RULES), flow_of("", root).source)
        with pytest.raises(DatasetError, match="the disk is full"):
            dataset.staging("B")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("rotated", [True, False])
def test_credentials_that_are_rotated(
    sandbox: Sandbox, tmp_path: Path, workers: int, rotated: bool
) -> None:
    """Refused credentials are read again; the window is requested again if they changed."""
    path = tmp_path / "secret"
    path.write_text(PASSWORD if rotated else "old")
    connection = Connection(
        sandbox.url, USERNAME, Secret("old"), PROJECT_ID, files=(("password", str(path)),)
    )
    options = replace(QUICK, workers=workers, days_per_request=31)
    done = pull(sandbox.url, tmp_path / "table", options=options, connection=connection)
    assert done.statuses == (["success"] if rotated else ["failed"])
    assert len(sandbox.requests) == 1 + rotated


def test_credentials_that_are_rotated_while_two_windows_are_out(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both windows are requested again, each as a new batch."""
    path = tmp_path / "secret"
    path.write_text(PASSWORD)
    connection = Connection(
        sandbox.url, USERNAME, Secret("old"), PROJECT_ID, files=(("password", str(path)),)
    )
    batches: list[str] = []
    staging = Dataset.staging

    def note(self: Dataset, batch_id: str) -> Path:
        batches.append(batch_id)
        return staging(self, batch_id)

    monkeypatch.setattr(Dataset, "staging", note)
    options = replace(QUICK, workers=2, days_per_request=1)
    done = pull(sandbox.url, tmp_path / "table", options=options, connection=connection)
    assert done.statuses == ["success", "success"]
    assert len(batches) == len(set(batches)) == 4
