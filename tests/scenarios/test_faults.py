"""Every fault over a real socket: the exact table, or the table as before and a named cause."""

import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from engine.dataset.dataset import Dataset
from engine.dataset.storage.local import LocalStorage
from engine.model import clock
from engine.model.window import day_start
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync.run_updates import RunUpdate, Waiting
from tests.support.commands import environment, mounted
from tests.support.pulling import DAYS, QUICK, Pull, pull, rows, undisturbed

DAY = DAYS[0]
SPEC = Spec(events_per_day=1500, duplicate_percent=2, reject_percent=0.4)
ALWAYS = None
MIDDLE, START, ALMOST = 0.5, 0.0, 0.99

Fault = dict[str, Any]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture(scope="module")
def expected(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = undisturbed(sandbox, tmp_path_factory.mktemp("undisturbed") / "table", [DAY])
    assert len(found) == 1500 - 6
    return found


@pytest.fixture
def root(sandbox: Sandbox, tmp_path: Path) -> Path:
    sandbox.reset()
    return tmp_path / "table"


def cut(at: float, where: str, end: str = "clean", append: str = "") -> Fault:
    return {"fault": "cut", "at": at, "where": where, "end": end, "append": append}


def answer(status: int, **more: Any) -> Fault:
    return {"fault": "answer", "status": status, **more}


def limited(**headers: str) -> Fault:
    return answer(429, headers={name.replace("_", "-"): text for name, text in headers.items()})


MARKED = [
    pytest.param(
        cut(at, where, append=line), "region" if at == START else "terminated early|inside a line",
        id=f"{line.strip()} at {at} {where}",
    )
    for line in ("terminated early\n", "export terminated early")
    for at, where in ((START, "after_line"), (MIDDLE, "after_line"), (ALMOST, "before_newline"))
]  # fmt: skip

# Each may happen once, and then the table is exact; or always, and then the sentence says why.
PASSING = [
    pytest.param(cut(MIDDLE, "after_line", "reset"), "connection", id="reset"),
    pytest.param(cut(MIDDLE, "inside_line"), "inside a line", id="mid-line, clean end"),
    pytest.param(
        cut(MIDDLE, "after_line", "close"), "not whole|cut|closed|ended", id="no last chunk"
    ),
    pytest.param(cut(MIDDLE, "after_line", "gzip_cut"), "gzip", id="gzip cut"),
    pytest.param({"fault": "gzip_crc"}, "gzip", id="gzip trailer"),
    *MARKED,
    pytest.param(
        {"fault": "insert", "at": 1.0, "text": "no"}, "inside a line: no", id="bad last line"
    ),
    pytest.param(answer(429), "429|rate", id="429"),
    pytest.param(limited(Retry_After="1"), "429|rate", id="429, seconds"),
    pytest.param(limited(Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"), "429|rate", id="429, date"),
    pytest.param(answer(500), "500", id="500"),
    pytest.param(answer(502), "502.*Bad Gateway", id="502 with HTML"),
    pytest.param(answer(503), "503", id="503"),
    pytest.param(answer(200), "HTML", id="200 with HTML"),
    pytest.param(answer(200, body='{"error":"boom"}'), "boom", id="200 with an error"),
]

SILENT = [
    pytest.param(cut(MIDDLE, "after_line", "stall"), "nothing|silent|stopped|second", id="stall"),
    pytest.param({"fault": "delay", "seconds": 30}, "nothing|silent|stopped|second", id="no byte"),
]

LASTING = [
    pytest.param(answer(400), "secret of the service account", id="400 credentials"),
    pytest.param(answer(400, body='{"error":"bad where"}'), "bad where", id="400 where"),
    pytest.param(answer(402), "402.*Payment required", id="402"),
    pytest.param(answer(403), "403.*Permission denied", id="403"),
    pytest.param(answer(404), "404", id="404"),
    pytest.param(
        answer(302, headers={"Location": "http://127.0.0.2:9/x"}), "127.0.0.2", id="redirect"
    ),
]


@pytest.mark.parametrize(("fault", "cause"), [*PASSING, *SILENT])
def test_a_fault_that_passes(
    sandbox: Sandbox, root: Path, expected: list[str], fault: Fault, cause: str
) -> None:
    """P1: one disturbed response is thrown away whole, and the next one makes the exact table."""
    sandbox.faults(fault | {"times": 1})
    done = pull(sandbox.url, root, [DAY])
    assert done.statuses == ["success"]
    assert rows(root) == expected
    assert len(done.waits) == 1


@pytest.mark.parametrize(("fault", "cause"), PASSING)
def test_a_fault_that_stays(sandbox: Sandbox, root: Path, fault: Fault, cause: str) -> None:
    """P1, P2: a response that is never whole ends the run, leaves the table, and says why."""
    sandbox.faults(fault | {"times": ALWAYS})
    done = pull(sandbox.url, root, [DAY])
    assert_failed(done, cause)
    assert rows(root) == []


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "bad credentials %s:%s"}',
        '{"error": "bad credentials Basic %.0s%.0sBASIC"}',
        "no event: %s:%s",
        '{"error": "%.0s%.10s',  # cut off inside the password
        '{"error": "Basic %.0s%.0sHALF',
    ],
)
def test_a_response_that_repeats_the_credentials(sandbox: Sandbox, root: Path, body: str) -> None:
    """P7: an error that quotes a response shows no credentials, not even a part of them."""
    basic = b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    text = (body % (USERNAME, PASSWORD)).replace("BASIC", basic).replace("HALF", basic[:-6])
    sandbox.faults(answer(200, body=text) | {"times": ALWAYS})
    done = pull(sandbox.url, root, [DAY])
    assert_failed(done, r"bad credentials|inside a line")
    whole = json.dumps(done.items)
    assert "***" in whole
    for secret in (USERNAME, PASSWORD, PASSWORD[:8], basic, basic[:-6]):
        assert secret not in whole


@pytest.mark.parametrize("status", [203, 206])
def test_no_record_holds_the_text_of_an_event(sandbox: Sandbox, root: Path, status: int) -> None:
    """P7: events of a response with another status than 200 are refused, and never shown."""
    line = '{"event":"Items sold","properties":{"time":1704067200,"distinct_id":"u1@test.com"}}'
    sandbox.faults(answer(status, body=line) | {"times": ALWAYS})
    done = pull(sandbox.url, root, [DAY])
    assert_failed(done, f"answered {status}")
    assert done.waits == []
    assert "u1@test" not in json.dumps(done.items)
    assert "Items sold" not in json.dumps(done.items)


@pytest.mark.parametrize(("fault", "cause"), LASTING)
def test_a_fault_that_lasts(
    sandbox: Sandbox, root: Path, expected: list[str], fault: Fault, cause: str
) -> None:
    """An error that a retry cannot mend is not retried, and the other day is not tried."""
    pull(sandbox.url, root, [DAY])
    before = len(sandbox.requests)
    sandbox.faults(fault | {"times": ALWAYS})
    done = pull(sandbox.url, root, [date(2024, 1, 5), date(2024, 1, 6)])
    assert_failed(done, cause)
    assert len(sandbox.requests) == before + 1
    assert rows(root) == expected


def assert_failed(done: Pull, cause: str) -> None:
    import re

    assert set(done.statuses) == {"failed"}
    message = done.items[0]["metrics"]["statusSummary"]["errors"][0]["message"]
    assert re.search(cause, message), message
    assert "\n" not in message.strip()
    assert len(message) < 700


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"not a record", "INGEST-1401-400"),
        (b'{"event":"x","properties":{"time":1,"v":"\xff\xfe"}}', "INGEST-1401-400"),
        (b'{"event":"x","properties":{"time":NaN}}', "INGEST-1401-400"),
        (b'{"event":"x","properties":{"time":1,"time":2}}', "INGEST-1401-400"),
        (b'["event"]', "INGEST-1401-400"),
        (b'{"event":"x"}', "INGEST-1401-400"),
        (b'{"event":"x","properties":{"distinct_id":"no time"}}', "INGEST-1555-400"),
    ],
)
def test_one_bad_line(
    sandbox: Sandbox, root: Path, expected: list[str], line: bytes, code: str
) -> None:
    """P3: a bad line in the middle is stored verbatim with its reason; the rest goes on."""
    sandbox.faults({"fault": "insert", "at": MIDDLE, "line": line})
    done = pull(sandbox.url, root, [DAY])
    assert done.statuses == ["success"]
    assert rows(root) == expected
    assert done.records["failedRecordCount"] == 7
    manifest = done.items[0]["activities"][1]["statusSummary"]["extensions"]["manifest"]
    kept = [
        json.loads(text)
        for file in Path(manifest["failedRecords"]).iterdir()
        for text in file.read_text().splitlines()
    ]
    entry = next(e for e in kept if e["_corrupt_record"].encode("utf-8", "surrogateescape") == line)
    assert entry["_errors"][0]["code"] == code
    assert len(kept) == 7


def test_values_orjson_cannot_hold(sandbox: Sandbox, root: Path) -> None:
    """Integers beyond 64 bits and lone surrogates arrive digit by digit, escape by escape."""
    time = day_start(DAY, SPEC.zone) // 1000
    line = b'{"event":"Odd","properties":{"time":%d,"big":123456789012345678901234567890,' % time
    line += rb'"half":"\ud83d","item_id":98765432109876543210987,"item_name":"\ude00"}}'
    sandbox.faults({"fault": "insert", "at": MIDDLE, "line": line})
    done = pull(sandbox.url, root, [DAY])
    assert done.statuses == ["success"]
    row = next(json.loads(text) for text in rows(root) if '"Odd"' in text)
    assert row["_extconndev"]["item_id"] == "98765432109876543210987"
    assert row["_extconndev"]["item_name"] is None
    assert "123456789012345678901234567890" in row["unmapped"]
    assert json.loads(row["unmapped"])["half"] == "\ud83d"
    assert json.loads(row["unmapped"])["item_name"] == "\ude00"


def test_connection_refused_then_up(tmp_path: Path, expected: list[str]) -> None:
    """A pull waits for a server that does not listen yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started: list[Sandbox] = []

    def start(event: RunUpdate) -> None:
        if isinstance(event, Waiting) and not started:
            started.append(Sandbox(SPEC, port=port))

    try:
        done = pull(f"http://127.0.0.1:{port}", tmp_path / "table", [DAY], tell=start)
    finally:
        for sandbox in started:
            sandbox.stop()
    assert done.statuses == ["success"]
    assert "refused" in done.waits[0]
    assert rows(tmp_path / "table") == expected


def test_connection_always_refused(tmp_path: Path) -> None:
    """A server that never listens ends the run; the error has its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    done = pull(f"http://127.0.0.1:{port}", tmp_path / "table")
    assert_failed(done, f"127.0.0.1:{port}")


@pytest.mark.parametrize(("fault", "cause"), SILENT)
def test_silence_is_bounded(sandbox: Sandbox, root: Path, fault: Fault, cause: str) -> None:
    """A server that stops sending is given up after the idle limit, every time."""
    sandbox.faults(fault | {"times": ALWAYS})
    quick = type(QUICK.retry_policy)(tries=2, first=0.01, longest=0.01)
    assert_failed(pull(sandbox.url, root, [DAY], change(retry_policy=quick)), cause)
    assert rows(root) == []


def test_a_trickle_arrives(sandbox: Sandbox, root: Path, expected: list[str]) -> None:
    """Slow is not broken: pieces of a few bytes make the same table."""
    sandbox.faults({"fault": "trickle", "bytes": 97, "seconds": 0.0002})
    assert pull(sandbox.url, root, [DAY]).statuses == ["success"]
    assert rows(root) == expected


def test_an_endless_trickle_ends(sandbox: Sandbox, root: Path) -> None:
    """A response that never ends meets the limit for the whole of it."""
    sandbox.faults({"fault": "trickle", "bytes": 3, "seconds": 0.2, "times": ALWAYS})
    limits = type(QUICK.timeouts)(connect=2, idle=2, total=1)
    quick = type(QUICK.retry_policy)(tries=2, first=0.01, longest=0.01)
    done = pull(sandbox.url, root, [DAY], options=change(timeouts=limits, retry_policy=quick))
    assert_failed(done, "second|minute|hour")


def test_an_empty_answer_for_a_full_day(sandbox: Sandbox, root: Path, expected: list[str]) -> None:
    """P5: no event of a day that had some fails the run, except with --allow-shrink."""
    pull(sandbox.url, root, [DAY])
    sandbox.faults(answer(200, body="") | {"times": 2})
    done = pull(sandbox.url, root, [DAY], options=change(force=True))
    assert_failed(done, "--allow-shrink")
    assert rows(root) == expected
    allowed = pull(sandbox.url, root, [DAY], options=change(force=True, allow_shrink=True))
    assert allowed.statuses == ["success"]
    assert rows(root) == []


def test_a_line_of_20_mib(sandbox: Sandbox, root: Path, expected: list[str]) -> None:
    """A line too long for memory is one reject, stored whole in parts."""
    sandbox.faults({"fault": "long_line", "at": MIDDLE, "mib": 20})
    done = pull(sandbox.url, root, [DAY])
    assert done.statuses == ["success"]
    assert rows(root) == expected
    assert done.records["failedRecordCount"] == 7
    batch = Path(
        done.items[0]["activities"][1]["statusSummary"]["extensions"]["manifest"]["failedRecords"]
    )
    parts = [
        json.loads(line) for line in (batch / "parsing_errors_0.json").read_text().splitlines()
    ]
    whole = "".join(part["_corrupt_record"] for part in parts)
    assert [part["_part"] for part in parts] == list(range(len(parts)))
    assert len(whole) > 20 << 20
    assert json.loads(whole)["event"] == "Long"


def test_a_gzip_bomb(sandbox: Sandbox, root: Path) -> None:
    """A line without an end is refused, long before the disk or the memory is full."""
    sandbox.faults({"fault": "bomb", "at": MIDDLE, "mib": 300, "times": ALWAYS})
    assert_failed(pull(sandbox.url, root, [DAY]), "256 MiB")
    assert rows(root) == []


def test_too_many_rejects(sandbox: Sandbox, root: Path) -> None:
    """More rejects than tolerated: nothing is committed, and every reject is stored."""
    few: dict[str, Any] = {"partial_ingestion_percent": 0.1, "partial_ingestion_min": 5}
    done = pull(sandbox.url, root, [DAY], **few)
    assert_failed(done, r"6 of 1,530 records of 2024-01-01 were rejected .*0.1 %")
    assert rows(root) == []
    batch = done.items[0]["activities"][1]["targetInfo"][0]["reference"]["ids"][0]
    kept = root / "_batches" / batch / "row_errors" / "conversion_errors_0.json"
    assert len(kept.read_text().splitlines()) == 6


def test_the_clock_set_back(sandbox: Sandbox, root: Path, expected: list[str]) -> None:
    """A clock that jumps back neither blocks a pull nor keeps a day from being replaced."""
    pull(sandbox.url, root, [DAY])
    back = change(force=True, now=lambda: clock.now() - 86_400_000)
    done = pull(sandbox.url, root, [DAY], options=back)
    assert done.statuses == ["success"]
    assert rows(root) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own; only root may mount one."""
    with mounted(tmp_path / "disk", "2m") as disk:
        yield disk


@pytest.mark.parametrize("free", [0, 100])
def test_disk_full(
    sandbox: Sandbox, small_disk: Path, expected: list[str], tmp_path: Path, free: int
) -> None:
    """A full disk ends the run with that word and leaves the table; with room it goes on."""
    sandbox.reset()
    root, home, again = small_disk / "table", tmp_path / "home", change(force=True)
    assert pull(sandbox.url, root, [DAY], home=home).statuses == ["success"]
    ballast = small_disk / "ballast"
    left = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(b"x" * (left - free * 1024))
    assert_failed(pull(sandbox.url, root, [DAY], again, home=home), "disk is full")
    assert rows(root) == expected
    ballast.unlink()
    assert pull(sandbox.url, root, [DAY], again, home=home).statuses == ["success"]
    assert rows(root) == expected


@pytest.mark.parametrize("step", ["write", "_publish", "_write_log"])
def test_disk_full_while_committing(
    sandbox: Sandbox,
    small_disk: Path,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """The last block goes just before a step of the commit: the table as before, and that word.

    Moving files within a disk takes no room, so that there it is the log entry that finds none.
    """
    sandbox.reset()
    root, home, again = small_disk / "table", tmp_path / "home", change(force=True)
    assert pull(sandbox.url, root, [DAY], home=home).statuses == ["success"]
    ballast = small_disk / "ballast"
    owner: Any = LocalStorage if step == "write" else Dataset
    real = getattr(owner, step)

    def late(*arguments: Any) -> Any:
        with ballast.open("ab", 0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        return real(*arguments)

    monkeypatch.setattr(owner, step, late)
    assert_failed(pull(sandbox.url, root, [DAY], again, home=home), "disk is full; make room")
    assert rows(root) == expected
    monkeypatch.undo()
    ballast.unlink()
    assert pull(sandbox.url, root, [DAY], again, home=home).statuses == ["success"]
    assert rows(root) == expected


# The command itself, but for its waits.
HURRIED = """
from engine.model import retry
retry.DEFAULT_RETRY_POLICY = retry.RetryPolicy(first=0.01, pause=0.01)
from engine.cli.main import main
main()
"""
COMPARISON = (Path(__file__).parents[2] / "docs/comparison.md").read_text("utf-8").splitlines()
SHOWN = {
    "cut once": cut(MIDDLE, "inside_line", "close"),
    "cut in mid-line, clean end": cut(MIDDLE, "inside_line"),
    "half, then `terminated early`": cut(MIDDLE, "after_line", append="terminated early\n"),
    "one bad line": {"fault": "insert", "at": MIDDLE, "text": '{"event": "torn'},
    "429 once": answer(429),
    "500 once": answer(500),
}


@pytest.fixture(scope="module")
def six_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sandbox, list[str]]]:
    """A sandbox with 6,000 events of a day, and the table that they make."""
    with Sandbox(Spec(events_per_day=6000, duplicate_percent=0)) as running:
        found = undisturbed(running, tmp_path_factory.mktemp("undisturbed") / "table", [DAY])
        assert len(found) == 6000
        yield running, found


@pytest.mark.parametrize("column", SHOWN)
def test_what_the_comparison_promises(
    six_thousand: tuple[Sandbox, list[str]], tmp_path: Path, column: str
) -> None:
    """The row of this program in docs/comparison.md is true: all events, and exit status 0."""
    sandbox, expected = six_thousand
    sandbox.reset()
    sandbox.faults(SHOWN[column])
    words = ["backfill", f"--from-date={DAY}", f"--to-date={DAY}", "--dataset=table"]
    done = subprocess.run(
        [sys.executable, "-c", HURRIED, *words],
        env=environment(sandbox), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rows(tmp_path / "table") == expected
    assert sandbox.requests[0]["fault"] is not None
    assert len(sandbox.requests) == (1 if column == "one bad line" else 2)
    came = f"{len(rows(tmp_path / 'table'))}, rc {done.returncode}"
    if kept := list((tmp_path / "table").glob("_batches/*/row_errors/*.json")):
        (entry,) = [json.loads(line) for line in kept[0].read_text().splitlines()]
        assert entry["_corrupt_record"] == '{"event": "torn'
        assert entry["_errors"][0]["message"]
        assert "6,001 events in: 6,000 rows, 1 rejected, 0 duplicates" in done.stdout
        came += "; rejected, stored with its reason"
    (head,) = [line for line in COMPARISON if column in line and line.startswith("| |")]
    (row,) = [line for line in COMPARISON if line.startswith("| **mixpanel-etl**")]
    names, cells = ([cell.strip() for cell in line.split("|")] for line in (head, row))
    assert set(names) == {"", *SHOWN}
    assert dict(zip(names, cells, strict=True))[column] == came


def change(**changes: Any) -> Any:
    from dataclasses import replace

    return replace(QUICK, **changes)
