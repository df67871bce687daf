"""The daemon as a process, against the sandbox's arrival clock: the table is what arrived before M.

Its clock runs faster than the machine's, some hours in a second; everything else is real.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.control import declared_flows
from engine.daemon.flow_process import Pulse, work
from engine.daemon.scheduler import Daemon
from engine.daemon.turns import LATER, MORE, WAITS, WORKS, Turns
from engine.dataset.dataset import Dataset
from engine.log import configure
from engine.model.flow import Flow
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync.incremental import sync_flow
from engine.sync.options import Options
from tests.support.commands import children, mounted, put
from tests.support.daemons import START, Trial, alive_below, clock_of, expected, held_keys, until

HOUR = 3_600_000
SPEC = Spec(
    shape="small", events_per_day=400, late_percent=10, reject_percent=1, duplicate_percent=3
)
BACKFILL = 'backfill_from = "2024-01-04"\npartial_ingestion_percent = 60'
FIRST = date(2024, 1, 4)


def trial(folder: Path, sandbox: Sandbox, speed: float, first: int = START, **more: Any) -> Trial:
    """A trial whose sandbox goes by the same clock."""
    clock = clock_of(speed, first)
    sandbox.project.now = clock.now
    return Trial(folder, sandbox, clock, **more)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


def is_exact(tried: Trial, spec: Spec, first: date = FIRST, name: str = "events") -> bool:
    """Whether the table is exactly the events that were processed before M, each once."""
    reached = tried.reached(name)
    last = datetime.fromtimestamp(reached / 1000, UTC).date() + timedelta(days=1)
    have, want = held_keys(tried.table(name), first), expected(spec, first, last, reached)
    for what, rest in (("missing", want - have), ("too much", have - want)):
        if rest:
            print(what, len(rest), list(rest)[:3])  # noqa: T201 - shown where the test fails
    return have == want


def stop(process: "subprocess.Popen[bytes]", sign: signal.Signals = signal.SIGTERM) -> float:
    """Ask a daemon to end; the seconds that it took."""
    began = time.monotonic()
    process.send_signal(sign)
    assert process.wait(20) == 0
    return time.monotonic() - began


def is_pulling(tried: Trial) -> bool:
    """Whether a window is on its way, and its process hears of a stop."""
    return any(path.is_dir() for path in tried.table().glob("_staging/*"))


CLOCKS = [
    # The clocks go back and forward in the days around these moments.
    ("utc", "UTC", START),
    ("local", "America/Los_Angeles", 1_699_124_400_000),  # 2023-11-04, 12:00 there
    ("utc", "America/Los_Angeles", 1_710_014_400_000),  # 2024-03-09, 12:00 there
    ("local", "Asia/Kolkata", START),
]


@pytest.mark.parametrize(("clock", "zone", "first"), CLOCKS)
def test_two_days(sandbox: Sandbox, tmp_path: Path, clock: str, zone: str, first: int) -> None:
    """Late events, duplicates and day boundaries, on both kinds of project clock."""
    spec = Spec(
        shape="small", events_per_day=300, late_percent=10, reject_percent=1, duplicate_percent=3,
        clock=clock, timezone=zone,
    )  # fmt: skip
    sandbox.project.spec = spec
    tried = trial(tmp_path, sandbox, 12 * 3600, first, timezone=zone)
    begin = datetime.fromtimestamp(first / 1000, UTC).date() - timedelta(days=4)
    tried.write(more=f'backfill_from = "{begin}"\npartial_ingestion_percent = 60')
    with tried.daemon() as process:
        until(lambda: tried.reached() > first + 48 * HOUR)
        until(lambda: tried.filled(begin))
        stop(process)
    assert is_exact(tried, spec, begin)
    statuses = {line["event"] for line in tried.lines()}
    assert statuses <= {"started", "run", "stopping", "stopped", "stopped; nothing is half done"}


def test_the_catalog_is_no_truth(sandbox: Sandbox, tmp_path: Path) -> None:
    """Deleted between two runs of the daemon, it costs nothing but the history."""
    tried = trial(tmp_path, sandbox, 3600)  # nothing settles meanwhile
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.reached() > START + HOUR and tried.filled(FIRST))
        stop(process)
    for path in tried.home.glob("catalog*"):
        path.unlink()
    asked = len(sandbox.requests)
    with tried.daemon() as process:
        before = tried.reached()
        until(lambda: tried.reached() > before)
        stop(process)
    assert is_exact(tried, SPEC)
    again = [r["params"] for r in sandbox.requests[asked:] if "where" not in r["params"]]
    assert again == []  # every day of before is known from the table


def test_down_for_thirty_days(sandbox: Sandbox, tmp_path: Path) -> None:
    """One window brings all that arrived meanwhile; the days that settled are pulled once."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.filled(FIRST))
        stop(process)
    moment = tried.clock.now() + 30 * 24 * HOUR
    moment -= moment % (HOUR // 4) - HOUR // 60  # just after a tick: no other one comes in between
    later = trial(tmp_path, sandbox, 1, moment)
    asked = len(sandbox.requests)
    before = tried.reached()
    later.config.write_text(tried.config.read_text())
    with later.daemon() as process:
        until(lambda: later.reached() > before)
        until(lambda: not alive_below(process))
        stop(process)
    windows = [r["params"] for r in sandbox.requests[asked:]]
    assert sum("where" in window for window in windows) == 1
    assert len(windows) <= 1 + 2  # and what settled: 31 days at most in a request
    assert is_exact(later, SPEC)


def test_a_second_daemon(sandbox: Sandbox, tmp_path: Path) -> None:
    """It says who runs already and touches nothing; a lock that nobody holds is no obstacle."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as first:
        until(lambda: tried.lines("started"))
        second = tried.start()
        assert second.wait(20) != 0
        assert f"process {first.pid}" in tried.log.read_text()
        first.kill()
        first.wait()
        until(lambda: not alive_below(first))
    with tried.daemon() as third:
        until(lambda: len(tried.lines("started")) == 2)
        stop(third)


def test_a_configuration_that_changes(sandbox: Sandbox, tmp_path: Path) -> None:
    """SIGHUP: a bad file is refused and the old one stays; a good one is followed."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write("events", more=BACKFILL)
    with tried.daemon() as process:
        until(tried.reached)
        good = tried.config.read_text()
        tried.config.write_text(good + "unknown = 1\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: tried.lines("configuration refused, the old one stays"))
        assert "unknown" in tried.lines("configuration refused, the old one stays")[0]["error"]
        before = tried.reached()
        until(lambda: tried.reached() > before)
        tried.write("other", more=BACKFILL + "\nkeep_superseded_hours = 24")
        process.send_signal(signal.SIGHUP)
        until(lambda: tried.filled(FIRST, "other"))
        assert "a glob counts their rows twice" in tried.log.read_text()
        until(lambda: not [line for line in tried.lines("run")[-1:] if line["flow"] == "events"])
        stop(process)
    assert is_exact(tried, SPEC, name="other")


def test_one_flow_harms_no_other(sandbox: Sandbox, tmp_path: Path) -> None:
    """A mapping that is gone parks its flow, with a record of every tick; the other goes on."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write("events", "broken", more=BACKFILL, broken='mapping = "nowhere"')
    with tried.daemon() as process:
        until(lambda: len(tried.lines("nothing can be done until the next tick")) >= 2)
        until(lambda: tried.filled(FIRST))
        stop(process)
    assert is_exact(tried, SPEC)
    parked = tried.lines("nothing can be done until the next tick")
    assert {line["flow"] for line in parked} == {"broken"}
    assert 'no mapping "nowhere"' in parked[0]["error"]
    assert len(history(tried, "broken")) >= 2


def history(tried: Trial, flow: str) -> list[dict[str, Any]]:
    with Catalog(tried.home) as catalog:
        return [entry.item for entry in catalog.history(flow, limit=1000)]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_a_window_runs(sandbox: Sandbox, tmp_path: Path, sign: signal.Signals) -> None:
    """A window that will not end is abandoned whole within ten seconds, and told of."""
    tried = trial(tmp_path, sandbox, 60)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 60, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        assert stop(process, sign) < 11
        assert not list(children(process.pid))
    assert tried.reached() == 0
    (run,) = history(tried, "events")
    assert run["metrics"]["statusSummary"]["status"] == "failed"
    assert "Stopped" in json.dumps(run)


def test_stop_drains_what_is_nearly_done(sandbox: Sandbox, tmp_path: Path) -> None:
    """A window that ends within the grace is committed, and no other is begun."""
    tried = trial(tmp_path, sandbox, 60)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 1.5, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        assert stop(process) < 8
    assert tried.reached() > 0
    assert len(sandbox.requests) == 1
    assert [run["metrics"]["statusSummary"]["status"] for run in history(tried, "events")] == [
        "success"
    ]


def test_impatience(sandbox: Sandbox, tmp_path: Path) -> None:
    """A second signal ends it at once, and leaves no process behind."""
    tried = trial(tmp_path, sandbox, 60)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 60, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        runs = alive_below(process)
        process.send_signal(signal.SIGTERM)
        until(lambda: tried.lines("stopping"))
        assert stop(process) < 4
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in runs))


def test_secrets(sandbox: Sandbox, tmp_path: Path) -> None:
    """P7: no password in anything that a daemon writes, nor in a list of processes."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write("events", "other", more=BACKFILL)
    lists = []
    with tried.daemon() as process:
        sandbox.faults({"fault": "answer", "status": 500, "times": 2})
        until(lambda: alive_below(process))
        lists += [command for _, command in children(process.pid)]
        until(lambda: tried.reached() and tried.reached("other"))
        stop(process)
    assert PASSWORD not in "".join(lists)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_log_entry_half_written(sandbox: Sandbox, tmp_path: Path) -> None:
    """A commit whose entry a crash of the machine cut off is named, and its window comes again."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.filled(FIRST))
        stop(process)
    last = max(tried.table().glob("_delta_log/*.json"))
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    count = len(tried.lines())
    with tried.daemon() as process:
        until(lambda: last.name in json.dumps(tried.lines()[count:]))
        before = tried.reached()
        # Files that the lost commit replaced are gone: their days are pulled again.
        until(lambda: all(Path(each).exists() for each in DeltaTable(tried.table()).file_uris()))
        until(lambda: tried.reached() > before)
        stop(process)
    assert is_exact(tried, SPEC)


def test_refused_for_an_hour(sandbox: Sandbox, tmp_path: Path) -> None:
    """Answers 429 without end: a wait is told once a run, and one window brings it all after."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.filled(FIRST))
        sandbox.faults({"fault": "answer", "status": 429, "times": None})
        told = len(tried.lines("run failed"))
        until(lambda: len(tried.lines("run failed")) > told)
        before, asked = tried.reached(), len(sandbox.requests)
        sandbox.reset()
        sandbox.project.now = tried.clock.now
        until(lambda: tried.reached() > before)
        stop(process)
    assert asked > 5  # again and again
    assert all(line["run"] and line["window"] for line in tried.lines("waiting"))
    runs = len(tried.lines("run")) + len(tried.lines("run failed")) + 1
    assert len(tried.lines("waiting")) <= runs
    assert is_exact(tried, SPEC)


def test_a_table_that_is_gone_for_a_while(sandbox: Sandbox, tmp_path: Path) -> None:
    """A disk that is not mounted: no new table is begun in its place, and it goes on from there."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.filled(FIRST))
        until(lambda: not alive_below(process))
        tried.table().rename(tmp_path / "elsewhere")
        until(lambda: tried.lines("nothing can be done until the next tick"))
        assert not any(tried.table().glob("_delta_log/*"))
        until(lambda: not alive_below(process))
        if tried.table().exists():
            shutil.rmtree(tried.table())
        (tmp_path / "elsewhere").rename(tried.table())
        before = tried.reached()
        until(lambda: tried.reached() > before)
        stop(process)
    lines = tried.lines("nothing can be done until the next tick")
    assert all("is gone" in line["error"] for line in lines)
    assert is_exact(tried, SPEC)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own; only root may mount one."""
    with mounted(tmp_path / "data", "4m") as disk:
        yield disk


def test_a_full_disk(sandbox: Sandbox, tmp_path: Path, small_disk: Path) -> None:
    """Every tick says so and changes nothing; once there is room, it catches up by itself."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    with tried.daemon() as process:
        until(lambda: tried.filled(FIRST))
        with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        until(lambda: [line for line in tried.lines() if line["level"] == "error"])
        (small_disk / "filler").unlink()
        before = tried.reached()
        until(lambda: tried.reached() > before)
        stop(process)
    errors = [line["error"] for line in tried.lines() if line["level"] == "error"]
    assert all("full" in error or "No space" in error for error in errors)
    assert is_exact(tried, SPEC)


KILLS = int(os.environ.get("KILLS", "4"))


def test_kill(sandbox: Sandbox, tmp_path: Path) -> None:
    """P2: the daemon or one of its runs, killed at any moment, again and again."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write(more=BACKFILL)
    dice = random.Random(KILLS)
    for _ in range(KILLS):
        with tried.daemon() as process:
            until(lambda: alive_below(process))
            time.sleep(dice.random() * 3)  # the moment is what is tried
            runs = alive_below(process)
            if runs and dice.random() < 0.5:
                os.kill(runs[0], signal.SIGKILL)
                time.sleep(dice.random())
            process.kill()
            process.wait()
            until(lambda: not any(_alive(pid) for pid in runs))  # noqa: B023
        if tried.reached():
            assert not (held_keys(tried.table(), FIRST) - expected_now(tried))
    with tried.daemon() as process:
        before = tried.reached()
        until(lambda: tried.reached() > before and tried.filled(FIRST))
        stop(process)
    assert is_exact(tried, SPEC)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def expected_now(tried: Trial) -> Counter[str]:
    reached = tried.reached()
    last = datetime.fromtimestamp(reached / 1000, UTC).date() + timedelta(days=1)
    return expected(SPEC, FIRST, last, reached)


def test_a_run_ends_with_its_daemon(sandbox: Sandbox, tmp_path: Path) -> None:
    """However the daemon ends, no process goes on pulling for it."""
    tried = trial(tmp_path, sandbox, 60)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 60, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        runs = alive_below(process)
        assert runs
        process.kill()
        process.wait()
        until(lambda: not any(_alive(pid) for pid in runs), 10)


def test_a_password_that_is_rotated(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file is read again at the next tick at the latest: nobody has to send a signal."""
    tried = trial(tmp_path, sandbox, 3600)
    tried.write()
    secret = tmp_path / "secret"
    secret.write_text("not-any-more\n")
    text = tried.config.read_text()
    given = 'password = { env = "TRIAL_PASSWORD" }'
    tried.config.write_text(text.replace(given, f'password = {{ file = "{secret}" }}'))
    with tried.daemon() as process:
        until(lambda: tried.lines("run failed"))
        secret.write_text(f"{PASSWORD}\n")
        until(tried.reached)
        stop(process)


def test_who_waits_holds_up_no_other_project(sandbox: Sandbox, tmp_path: Path) -> None:
    """A host that accepts and is silent has as many flows as there are turns: a flow of another
    project is brought up to date meanwhile, and the end comes in its time (P8).
    """
    tried = trial(tmp_path, sandbox, 60)
    silent = [f"silent{number}" for number in range(max(2, os.cpu_count() or 1))]
    sandbox.faults({"fault": "delay", "seconds": 60, "times": None})
    with Sandbox(SPEC, now=tried.clock.now) as well:
        tried.write(*silent)
        first = tried.config.read_text()
        other = replace(tried, sandbox=well)
        other.write("other")
        second = other.config.read_text().partition("[connections.shop]")[2]
        more = second.replace('"shop"', '"well"')
        tried.config.write_text(f"{first}[connections.well]{more}")
        with tried.daemon() as process:
            until(lambda: tried.reached("other"))
            assert not tried.lines("run failed")
            assert stop(process) < 11


# Without a process -----------------------------------------------------------------------


def test_flows_take_turns(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two flows with work for days leave room for a third, though only two run at a time."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write("long", "longer", "short")
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    daemon = Daemon(tried.config, os.environ)
    turns: list[str] = []

    def turn(name: str, began: int) -> int:
        turns.append(name)
        time.sleep(0.02)  # a turn takes its time, and gives the lock of the interpreter away
        return 0 if name == "short" else MORE

    monkeypatch.setattr(daemon, "_turn", turn)
    threads = [
        threading.Thread(target=daemon._tick, args=[name]) for name in ("long", "longer", "short")
    ]
    for thread in threads:
        thread.start()
        until(lambda: turns)
    until(lambda: "short" in turns, 10)
    daemon._stopping.set()
    for thread in threads:
        thread.join()


def test_hundreds_of_flows_that_wait(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many flows wait for the hour's budget, one that has not to wait has its turn."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    daemon = Daemon(tried.config, os.environ)
    turns: list[str] = []

    def turn(name: str, began: int) -> int:
        turns.append(name)
        return 0 if name == "short" else LATER

    monkeypatch.setattr(daemon, "_turn", turn)
    daemon._scheduler.start()
    try:
        for number in range(250):
            daemon._soon(f"waiting{number}")
        until(lambda: len(turns) >= 250, 20)
        daemon._soon("short")
        until(lambda: "short" in turns, 10)
    finally:
        daemon._stopping.set()
        daemon._turns.close()
        daemon._stop_ticks()


def test_what_a_process_says_of_itself() -> None:
    """Three quiet seconds in a row and it waits; it works again as soon as it does anything."""
    pulse = Pulse(used=10, at=0)
    used = [10.9, 10.92, 10.93, 11.5, 11.5, 11.52, 11.53, 11.54, 12.4, 12.41]
    words = [pulse.look(seconds, at) for at, seconds in enumerate(used, 1)]
    assert words == [b"", b"", b"", b"", b"", b"", WAITS, b"", WORKS, b""]


def test_what_a_process_says_moves_its_turn(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits another flow has the turn; and its end is seen, whatever it said before."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    daemon = Daemon(tried.config, os.environ)
    daemon._turns = Turns(1)
    assert daemon._turns.take("events", "p")
    says, speaks = get_context("spawn").Pipe(duplex=False)
    ended, end = get_context("spawn").Pipe(duplex=False)
    process: Any = SimpleNamespace(sentinel=ended)
    thread = threading.Thread(target=daemon._listen_to, args=["events", process, says])
    thread.start()
    assert not daemon._turns.take("other", "p", timeout=0)
    speaks.send_bytes(WAITS)
    assert daemon._turns.take("other", "p", timeout=10)
    speaks.send_bytes(WORKS)
    until(lambda: "events" in daemon._turns._working, 10)
    daemon._turns.release("other")
    assert not daemon._turns.take("other", "p", timeout=0)
    end.send_bytes(b".")
    thread.join(10)
    assert not thread.is_alive()


def test_a_process_that_cannot_be_started(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told, and the flow is tried again at its next tick."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    daemon = Daemon(tried.config, os.environ)

    def start(flow: Flow, began: int) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(daemon, "_start", start)
    configure()
    daemon._tick("events")
    said = json.loads(capsys.readouterr().err)
    assert (said["event"], said["flow"]) == ("no process could be started", "events")


def test_an_evening_west_of_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where UTC has a day that the project has not yet, day windows go on with those it has."""
    evening = START + 15 * HOUR  # 2024-01-11, 01:00 in UTC; 17:00 the day before in Los Angeles
    spec = Spec(shape="small", events_per_day=50, clock="local", timezone="America/Los_Angeles")
    put({"TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD}, monkeypatch)
    with Sandbox(spec, now=lambda: evening) as sandbox:
        tried = Trial(tmp_path, sandbox, clock_of(1), timezone="America/Los_Angeles")
        tried.write(more='windows = "day"\nbackfill_from = "2024-01-10"')
        flow, home = declared_flows.flow_of(tried.config, "events")
        items = sync_flow(flow, home, Options(now=lambda: evening))
    statuses = [item["metrics"]["statusSummary"]["status"] for item in items]
    assert set(statuses) == {"success"}
    assert held_keys(tried.table(), date(2024, 1, 10)) == expected(
        spec, date(2024, 1, 10), date(2024, 1, 10), evening
    )


def test_a_clock_that_is_set(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back, the ticks are planned anew; and the scheduler is woken, whatever it sleeps by."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    daemon = Daemon(tried.config, os.environ)
    signals = iter([None, None, signal.SIGTERM])
    clock = iter([1000.0, 1060.0, 1120.0 - 86_400])
    steady = iter([0.0, 60.0, 120.0])
    done: list[str] = []
    monkeypatch.setattr(daemon, "_signal", lambda _: next(signals))
    monkeypatch.setattr(daemon, "_follow", lambda before: done.append(f"planned anew {before}"))
    monkeypatch.setattr(daemon._scheduler, "wakeup", lambda: done.append("woken"))
    fake = SimpleNamespace(time=lambda: next(clock), monotonic=lambda: next(steady))
    monkeypatch.setattr("engine.daemon.scheduler.time", fake)
    daemon._watch()
    assert done == ["woken", "planned anew {}", "woken"]


def test_a_stop_in_the_middle_of_a_commit(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: what is nearly done is brought to its end; nothing is begun after it."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write(more=BACKFILL)
    put({"TRIAL_USERNAME": USERNAME, "TRIAL_PASSWORD": PASSWORD}, monkeypatch)
    flow, home = declared_flows.flow_of(tried.config, "events")
    write = Dataset._write_log

    def stopped(dataset: Dataset, *given: Any) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return write(dataset, *given)

    monkeypatch.setattr(Dataset, "_write_log", stopped)
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert work(flow, home, tried.clock, None, 0) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for sign, handler in before.items():
            signal.signal(sign, handler)
    assert tried.reached() > 0
    assert len(sandbox.requests) == 1
    assert [run["metrics"]["statusSummary"]["status"] for run in history(tried, "events")] == [
        "success"
    ]


def test_a_home_that_moves(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its lock and its history would stay behind: the change is refused, and the rest with it."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    daemon = Daemon(tried.config, os.environ)
    text = tried.config.read_text()
    tried.config.write_text(text.replace(str(tried.home), str(tmp_path / "moved")))
    configure()
    daemon._reload()
    said = json.loads(capsys.readouterr().err)
    assert "home: cannot change while the daemon runs" in said["error"]
    assert daemon._config.home == tried.home


def test_waiting_for_the_budget_is_told_once(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not once a minute; and a turn that had something to do in between begins it anew."""
    tried = trial(tmp_path, sandbox, 1)
    tried.write()
    put({"TRIAL_USERNAME": "u", "TRIAL_PASSWORD": "p"}, monkeypatch)
    monkeypatch.setattr("engine.daemon.scheduler.LATER_SECONDS", 0)
    daemon = Daemon(tried.config, os.environ)
    ends = iter([LATER, LATER, MORE, LATER, 0])
    moments = set()

    def turn(name: str, began: int) -> int:
        moments.add(began)
        return next(ends)

    monkeypatch.setattr(daemon, "_turn", turn)
    configure()
    daemon._tick("events")
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in said] == ["waiting"] * 2
    assert len(moments) == 1  # turns of one tick
