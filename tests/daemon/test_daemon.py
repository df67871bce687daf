"""The daemon as a process, with the sandbox: the table is what arrived before the watermark.

The daemon's clock runs some hours a second; everything else is real.
"""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from engine.sandbox import PASSWORD, Sandbox, Spec
from tests.support.commands import children, mounted
from tests.support.daemons import (
    BACKFILL,
    FIRST,
    SPEC,
    START,
    Trial,
    alive_below,
    expected,
    held_keys,
    is_exact,
    is_pulling,
    stop,
    trial,
    until,
)

HOUR = 3_600_000


CLOCKS = [
    # The clocks go back and forward in the days around these moments.
    ("utc", "UTC", START),
    ("local", "America/Los_Angeles", 1_699_124_400_000),  # 2023-11-04, 12:00 there
    ("utc", "America/Los_Angeles", 1_710_014_400_000),  # 2024-03-09, 12:00 there
    ("local", "Asia/Kolkata", START),
]


@pytest.mark.parametrize(("clock", "zone", "first"), CLOCKS)
def test_two_days(sandbox: Sandbox, tmp_path: Path, clock: str, zone: str, first: int) -> None:
    """The table is right with late events, duplicates and both kinds of project clock."""
    spec = Spec(
        shape="small", events_per_day=300, late_percent=10, reject_percent=1, duplicate_percent=3,
        clock=clock, timezone=zone,
    )  # fmt: skip
    sandbox.project.spec = spec
    tried = trial(tmp_path, sandbox, 24 * 3600, first, timezone=zone)
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
    """A catalog that is deleted between two runs of the daemon costs only the history."""
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
    """After 30 days one window brings what arrived, and each settled day is pulled once."""
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
    """A second daemon names the process of the first; a lock without a holder is ignored."""
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
    """SIGHUP: a file with mistakes is refused and the old one stays; a correct one is used."""
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
    """A flow without its mapping fails with a record at each tick; the other flow goes on."""
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
    assert len(tried.runs("broken")) >= 2


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stop_while_a_window_runs(sandbox: Sandbox, tmp_path: Path, sign: signal.Signals) -> None:
    """A window that exceeds the drain time is discarded, and its run recorded as stopped."""
    tried = trial(tmp_path, sandbox, 60, drain=0.5)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 60, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        assert stop(process, sign) < 4
        assert not list(children(process.pid))
    assert tried.reached() == 0
    (run,) = tried.runs()
    assert run.status == "failed"
    assert "Stopped" in str(run.failure)


def test_stop_drains_what_is_nearly_done(sandbox: Sandbox, tmp_path: Path) -> None:
    """A window that ends within the drain time is committed, and no other one starts."""
    tried = trial(tmp_path, sandbox, 60)
    tried.write(more=BACKFILL)
    sandbox.faults({"fault": "delay", "seconds": 1.5, "times": None})
    with tried.daemon() as process:
        until(lambda: is_pulling(tried))
        assert stop(process) < 8
    assert tried.reached() > 0
    assert len(sandbox.requests) == 1
    assert [run.status for run in tried.runs()] == ["success"]


def test_impatience(sandbox: Sandbox, tmp_path: Path) -> None:
    """A second signal ends the daemon at once and leaves no process behind."""
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
    """P7: no password is in the files or logs of a daemon, nor in a list of processes."""
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
    """The daemon names a log entry that a crash cut off, and pulls its window again."""
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
    """A wait for answers 429 is logged once a run, and one window brings all events afterwards."""
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
    """While the disk is not mounted no new table is made; afterwards the flow goes on."""
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
    """Mount a file system of 4 MiB, which only root may do."""
    with mounted(tmp_path / "data", "4m") as disk:
        yield disk


def test_a_full_disk(sandbox: Sandbox, tmp_path: Path, small_disk: Path) -> None:
    """Each tick on a full disk fails and changes nothing; with room again, the flow catches up."""
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
    """P2: the table is right although the daemon or a run is killed at any moment."""
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
    """When the daemon is killed, its processes exit too."""
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
    """The next tick reads the file of a password again, without a signal."""
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
    """Flows of a silent host hold up no flow of another project, and the stop is timely (P8)."""
    tried = trial(tmp_path, sandbox, 60, drain=0.5)
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
            assert stop(process) < 5
