"""The command line as a person meets it: every message, every option, and what it leaves behind."""

import base64
import ctypes
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.cli.console import PROGRAM, listen_to_signals
from engine.cli.main import main
from engine.config.shipped_files import find
from engine.dataset.dataset import Dataset
from engine.model import clock as clock_module
from engine.model import retry
from engine.sandbox import PASSWORD, USERNAME, Sandbox, Spec
from engine.sync import sample
from engine.sync.options import Options
from engine.sync.pull import table_schema
from tests.support.commands import (
    DAYS,
    Run,
    Said,
    children,
    environment,
    put,
    start,
    variables,
)
from tests.support.pulling import RULES, flow_of, rows, undisturbed

COMMANDS = [
    "backfill", "apply", "runs", "explore", "check", "demo", "sandbox", "daemon", "plan", "status",
    "positions", "positions show", "positions reset",
    "rejects", "rejects list", "rejects show", "rejects replay",
]  # fmt: skip
ONE_DAY = ["--from-date=2024-01-01", "--to-date=2024-01-01"]
ALL = [date(2024, 1, day) for day in (1, 2, 3)]
ESCAPE = "\x1b"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Spec(events_per_day=400, duplicate_percent=2, reject_percent=0.5)) as running:
        yield running


@pytest.fixture(scope="module")
def expected(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return undisturbed(sandbox, tmp_path_factory.mktemp("undisturbed") / "table", ALL)


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands in a terminal of 100 columns, with nothing but the sandbox in the environment."""
    for name in ("MIXPANEL_TIMEZONE", "MIXPANEL_ETL_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return run


def asked(sandbox: Sandbox) -> list[tuple[str, str]]:
    """The days of each request so far."""
    return [(r["params"]["from_date"], r["params"]["to_date"]) for r in sandbox.requests]


# What is wrong with the input ------------------------------------------------------------

TOML = """
[connections.shop]
host = "{host}"
[flows.events]
connection = "shop"
dataset = "data/events"
[flows.sold]
connection = "shop"
dataset = "data/sold"
events = ["Items sold"]
[flows.copy]
connection = "shop"
dataset = "data/copy"
"""

LONG = "x" * 5000
WRONG = [
    (["backfill", "--from-date=2024-01-02", "--to-date=2024-01-01"], {}, "after .* Swap them"),
    (["backfill", "--from-date=2024-01-02", "--to-date=2999-01-01"], {}, "--to-date .* future: 2"),
    (["backfill", "--from-date=2024-02-30", "--to-date=2024-03-01"], {}, "2024 has 29 days"),
    (["backfill", "--from-date=20240101", "--to-date=2024-03-01"], {}, "is no date.* 2024-01-31"),
    (["backfill", "--from-date=\uff12\uff10\uff12\uff14-01-01", *DAYS[1:]], {}, "is no date"),
    (["backfill", "--to-date=2024-03-01"], {}, "Missing option '--from-date'.* backfill --help"),
    (["backfill", *DAYS, "--dataset"], {}, "'--dataset' requires an argument.* backfill --help"),
    (["backfill", *DAYS, "--dataset="], {}, "--dataset is empty"),
    (["backfill", *DAYS, "--event="], {}, "--event is empty"),
    (["backfill", *DAYS, "--where= "], {}, "--where is empty"),
    (["backfill", *DAYS, "--worker=2"], {}, "No such option: --worker.*--workers"),
    (["backfill", *DAYS, "--workers=0"], {}, "'--workers'.*greater than or equal to 1"),
    (["backfill", *DAYS, "--workers=two"], {}, "'--workers'.*integer"),
    (["backfill", *DAYS, "--days-per-request=32"], {}, "number from 1 to 31, or auto"),
    (["backfill", *DAYS, f"--days-per-request={'9' * 5000}"], {}, "number from 1 to 31, or auto"),
    (["backfill", *DAYS, "--days-per-request=x"], {}, "number from 1 to 31, or auto"),
    (["backfill", *DAYS, "Items"], {}, r"unexpected extra argument.*Items"),
    (["backfill", *DAYS, "--mapping=nope"], {}, 'no mapping "nope".*mixpanel-events'),
    (["backfill", *DAYS, "--schema=nope"], {}, 'no schema "nope".*mixpanel-events'),
    (["backfill", *DAYS, "--mapping=broken.json"], {}, "broken.json: is not JSON.*line 1"),
    (["backfill", *DAYS, f"--mapping={LONG}"], {}, "x…x.*: cannot be read .File name too long"),
    (["backfill", *DAYS, f"--schema={LONG}"], {}, "x…x.*: cannot be read .File name too long"),
    (["backfill", *DAYS, f"--config={LONG}"], {}, "x…x.*: cannot be read .File name too long"),
    (["backfill", *DAYS, f"--dataset={LONG}"], {}, "x…x.* .File name too long.. Give another"),
    (["backfill", *DAYS, f"--event={LONG * 14}"], {}, "events and the filter .* too long"),
    (["backfill", *DAYS, f"--where={LONG * 14}"], {}, "events and the filter .* too long"),
    (["backfill", *DAYS, f"--where={LONG * 14}", "--dry-run"], {}, "too long"),
    (["explore", f"--from-date={LONG}"], {}, "x…x.* is no date"),
    (["explore", "--from-date="], {}, "is no date"),
    (["backfill", *DAYS, "--where=\udcff"], {}, r'"--where=\\udcff" is not UTF-8'),
    (["backfill", *DAYS, "--event", "a\udcfe"], {}, r'"a\\udcfe" is not UTF-8'),
    (["runs", "--flow=\ud83d"], {}, "is not UTF-8"),
    (["backfill", *DAYS, "--config="], {}, "--config names no file. Leave it out"),
    (["backfill", *DAYS, "--flow=events"], {}, "give --config as well"),
    (["backfill", *DAYS, "--config=nope.toml"], {}, "nope.toml: cannot be read .No such file"),
    (["backfill", *DAYS, "--config=others"], {}, "others: cannot be read .Is a directory"),
    (["backfill", *DAYS, "--config=two.toml"], {}, r"3 flows \(events, sold, copy\)\. Choose"),
    (["backfill", *DAYS, "--config=two.toml", "--flow=no"], {}, 'no flow "no".*events, sold'),
    (["backfill", *DAYS, "--dataset=s3://key:SECRET@b/t"], {}, "s3://… is not on a local disk"),
    (["backfill", *DAYS, "--dataset=a-file"], {}, "a-file is a file"),
    (["backfill", *DAYS, "--dataset=others"], {}, "is not empty .it holds x.. Give an empty"),
    (["backfill", *DAYS, "--dry-run", "--json"], {}, "leave one of them out"),
    (["backfill", *DAYS], {"MIXPANEL_PROJECT_ID": "abc"}, "MIXPANEL_PROJECT_ID: .*number"),
    (["backfill", *DAYS], {"MIXPANEL_TIMEZONE": "Pacific Standart"}, "Pacific Standard Time"),
    (["backfill", *DAYS], {"MIXPANEL_TIMEZONE": "Europe/Berln"}, "Europe/Berlin"),
    (["backfill", *DAYS], {"MIXPANEL_HOST": "nonsense"}, "MIXPANEL_HOST: must be"),
    (["backfill", *DAYS], {"MIXPANEL_HOST": "http://data.mixpanel.com"}, "https://"),
    (["backfill", *DAYS], {"MIXPANEL_PASSWORD": ""}, "MIXPANEL_PASSWORD: not set. Set the name"),
    (["backfill", *DAYS], {"MIXPANEL_ETL_HOME": "a-file"}, "a-file.*cannot.*MIXPANEL_ETL_HOME"),
    (["runs", "--status=done"], {}, "one of success, failed, inProgress"),
    (["runs", "--limit=0"], {}, "'--limit'.*greater"),
    (["runs", "--limit=99999999999999999999"], {}, "'--limit'.*less than or equal to 1000000000"),
    (["runs", f"--limit={'9' * 5000}"], {}, "'--limit'"),
    (["explore", "--from-date=2999-01-01"], {}, "lies in the future"),
    (["explore"], {"MIXPANEL_USERNAME": ""}, "MIXPANEL_USERNAME: not set"),
    (["check"], {"MIXPANEL_USERNAME": ""}, "MIXPANEL_USERNAME: not set"),
    (["sandbox", "--shape=round"], {}, "one of small, wide, typed, mixed"),
    (["sandbox", "--port=70000"], {}, "'--port'.*65535"),
    (["sandbox", "--clock=noon"], {}, "one of utc, local"),
    (["sandbox", "--timezone=Mars"], {}, '"Mars" is not a time zone'),
    (["sandbox", "--reject-percent=101"], {}, "'--reject-percent'.*100"),
    (["sandbox", "--cache-dir=a-file"], {}, "a-file"),
    (["backfil", *DAYS], {}, "No such command 'backfil'. Did you mean 'backfill'[?] See"),
    (["--verson"], {}, "--version"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "changes", "sentence"),
    WRONG,
    ids=lambda value: ascii(" ".join(value))[-40:] if isinstance(value, list) else None,
)
def test_wrong_input(
    run: Run,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    """Wrong input exits with 2 and a sentence that says what to do; no request, no file."""
    Path("a-file").touch()
    Path("broken.json").write_text("{")
    Path("two.toml").write_text(TOML.format(host=sandbox.url))
    Path("others").mkdir()
    Path("others", "x").touch()
    put(changes, monkeypatch)
    said = run(*words)
    assert (said.status, said.out) == (2, "")
    assert re.fullmatch(rf"Error: .*({sentence}).*\n", said.err, re.DOTALL), said.err
    assert "Traceback" not in said.err
    assert len(said.err) < 1000
    assert not Path("data").exists()
    assert sandbox.requests == []


def test_every_misfit_at_once(run: Run) -> None:
    """A mapping that does not fit is refused with all that is wrong with it."""
    rules = [
        {"sourceType": "ATTRIBUTE", "source": "data.a", "destination": f"_extconndev.{name}"}
        for name in ("one", "two", "item_id")
    ]
    Path("mine.json").write_text(json.dumps({"version": 1, "mappings": rules}))
    said = run("backfill", *DAYS, "--mapping=mine.json")
    assert said.status == 2
    assert "_extconndev.one" in said.err
    assert "_extconndev.two" in said.err
    assert "item_id'" not in said.err


def test_every_problem_of_a_configuration_at_once(run: Run) -> None:
    """One error lists unknown keys, a literal password and wrong values, by file and key."""
    Path("flows.toml").write_text(
        'hom = "x"\n[connections.shop]\nhots = "eu"\npassword = "secret-word"\n'
        '[flows.events]\nconnection = "shp"\ndataset = "d"\nwindows = "nights"\n'
    )
    for words in (["check"], ["backfill", *DAYS]):
        said = run(*words, "--config=flows.toml")
        assert said.status == 2
        for problem in ("hom: ", "shop.hots: ", "shop.password: ", "events.windows: ", '"shop"?'):
            assert problem in said.err
        assert said.err.count("flows.toml: ") == said.err.count("\n")
        assert "secret-word" not in said.err


def test_a_table_with_another_schema(run: Run) -> None:
    """Another schema: the error lists each column that differs; the table stays as it is."""
    assert run("backfill", *ONE_DAY).status == 0
    text = json.dumps(find("schema", "mixpanel-events")[1])
    assert '"item_id"' in text
    Path("other.json").write_text(text.replace('"item_id"', '"article"'))
    mapping = json.dumps(find("mapping", "mixpanel-events")[1])
    Path("map.json").write_text(mapping.replace("_extconndev.item_id", "_extconndev.article"))
    before = rows(Path("data/events"))
    said = run("backfill", *DAYS, "--schema=other.json", "--mapping=map.json")
    assert said.status == 2
    assert "_extconndev.article" in said.err
    assert "_extconndev.item_id" in said.err
    assert "another --dataset" in said.err
    assert rows(Path("data/events")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["backfill", *DAYS, "--password", "hunter2"],
        ["backfill", *DAYS, "--password=hunter2"],
        ["--password=hunter2", "backfill", *DAYS],
        ["backfill", *DAYS, "-p", "hunter2"],
        ["backfill", *DAYS, "-phunter2"],
        ["backfill", *DAYS, "--pasword=hunter2"],
        ["backfill", *DAYS, "--pass=hunter2"],
        ["backfill", *DAYS, "--secret", "hunter2"],
        ["backfill", *DAYS, "--Password=hunter2"],
        ["backfill", *DAYS, "MIXPANEL_PASSWORD=hunter2"],
    ],
)
def test_a_password_on_the_command_line(run: Run, words: list[str]) -> None:
    """P7: it is refused, and not shown again; --debug makes no difference."""
    for more in ([], ["--debug"]):
        said = run(*words, *more)
        assert said.status == 2
        assert "hunter2" not in said.out + said.err


def test_the_way_to_give_a_password_is_told(run: Run) -> None:
    """The error on --password says where a password belongs."""
    assert "MIXPANEL_PASSWORD" in run("backfill", *DAYS, "--password=x").err


def test_debug_anywhere(run: Run) -> None:
    """A traceback with --debug, wherever it stands, and never without; the status is the same."""
    words = ["backfill", *DAYS, "--mapping=nope"]
    for at in range(len(words) + 1):
        said = run(*words[:at], "--debug", *words[at:])
        assert "Traceback (most recent call last)" in said.err
        assert said.err.splitlines()[-1].startswith('Error: There is no mapping "nope"')
        assert said.status == 2


def test_a_defect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is a sentence too; its own message needs --debug (P7)."""

    def fail(*_: object) -> None:
        raise KeyError("some-secret")

    monkeypatch.setattr("engine.config.environment.home", fail)
    said = run("runs")
    assert said.status == 1
    assert "KeyError" in said.err
    assert "--debug" in said.err
    assert "some-secret" not in said.err
    assert "some-secret" in run("runs", "--debug").err


# What a person reads ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(run: Run, command: str) -> None:
    """Every --help fits a screen and shows an example."""
    said = run(*command.split(), "--help")
    lines = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert any("Example" in line and PROGRAM in line for line in lines)
    assert not any(line.endswith("...") for line in lines[1:])


def test_no_words_at_all(run: Run) -> None:
    """The name of the program alone shows what it can do."""
    assert run().out == run("--help").out
    assert all(command.split()[0] in run().out for command in COMMANDS)


def test_help_is_light() -> None:
    """No --help waits for Arrow, Delta or the network library."""
    heavy = ["pyarrow", "deltalake", "httpx", "numpy", "rich", "uvicorn", "sqlite3", "isal"]
    script = f"""
import sys
from engine.cli.main import main
for command in {["", *COMMANDS]!r}:
    try:
        main([*command.split(), "--help"])
    except SystemExit:
        pass
print("loaded", [name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def on_terminal(command: list[str], folder: Path, **variables: str) -> tuple[str, int]:
    """Run a command on a terminal of 100 columns; return what it prints, and its exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, variables)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:
        pass  # a terminal's way to say that everybody has left
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_bar(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """A terminal shows one line that moves, to the last day, and the reasons for a wait above."""
    soon = {"fault": "answer", "status": 429, "headers": {"Retry-After": "0"}}
    sandbox.faults(soon | {"day": "2024-01-02"})
    command = [sys.executable, "-m", "engine", "backfill", *DAYS, "--days-per-request=1"]
    shown, status = on_terminal(command, tmp_path, **environment(sandbox) | {"COLUMNS": "100"})
    assert status == 0
    assert ESCAPE in shown
    last = [line for line in re.split(r"\r\n|\r", shown) if "days" in line][-1]
    assert re.search(r"3/3.* days  1,224 events  [\d.]+ MB/s .*0:00:00", last), last
    assert re.search(r"\nwaiting [\d.]+ s: Mixpanel answered 429", shown.replace("\r\x1b[2K", "\n"))
    assert shown.rstrip().endswith("3 runs committed to data/events.")
    again, _ = on_terminal([*command, "--to-date=2024-01-04"], tmp_path, **environment(sandbox))
    assert re.search(r"1/1.* days", again)  # of four days, one is due
    assert "/4" not in again.partition("1/1")[2]
    plain = environment(sandbox) | {"NO_COLOR": "1"}
    for words in (["backfill", *DAYS, "--force"], ["runs"]):
        shown, _ = on_terminal([sys.executable, "-m", "engine", *words], tmp_path, **plain)
        assert re.search(r"\x1b\[[\d;]*m", shown) is None
    assert "2024-01-02" in shown


def test_no_escape_codes(run: Run) -> None:
    """Without a terminal there is a line for each window, and no code that a terminal reads."""
    said = run("backfill", *DAYS, "--days-per-request=1")
    assert [line[:10] for line in said.err.splitlines()] == [str(day) for day in ALL]
    for words in (["runs"], ["check"], ["--help"], ["backfill"]):
        said = run(*words)
        assert ESCAPE not in said.out + said.err


def whole(root: Path) -> bool:
    """Whether the table has its three days, and no process writes to it."""
    return len(list(root.glob("event_date=*/*"))) == 3 and not list(root.glob("_staging/*/"))


def test_nobody_listens(sandbox: Sandbox, tmp_path: Path) -> None:
    """A closed stdout or stderr, or a reader that went away, is no reason not to do the work."""
    sandbox.reset()
    command = f"{sys.executable} -m engine backfill {' '.join(DAYS)} --days-per-request=1"
    for number, end in enumerate((">&- 2>&-", "2>&1 | head -n 1 > /dev/null")):
        subprocess.run(
            ["/bin/sh", "-c", f"{command} --dataset=data/{number} {end}"],
            env=environment(sandbox), cwd=tmp_path, check=True,
        )  # fmt: skip
        until(partial(whole, tmp_path / "data" / str(number)))


UNHEARD = [
    ["runs"], ["runs", "--json"], ["check"], ["explore"], ["backfill", *DAYS, "--dry-run"],
    ["backfill", *ONE_DAY, "--force"], ["backfill", *ONE_DAY, "--force", "--json"],
]  # fmt: skip


@pytest.mark.parametrize("words", UNHEARD, ids=" ".join)
def test_who_reads_no_further(
    run: Run,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    """`… | head` is no error: the exit status is that of the work, and stderr is empty."""
    run("backfill", *ONE_DAY)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with start(sandbox, tmp_path, *words) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0
    assert [line for line in said.splitlines() if not line.startswith("2024-01-01  ")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", [["runs"], ["check"], ["backfill", *DAYS, "--dry-run"]])
def test_an_answer_that_finds_no_room(
    run: Run,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    """An answer that a full disk cuts off is a failure, in a sentence."""
    run("backfill", *ONE_DAY)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with Path("/dev/full").open("w") as full:
        process = start(sandbox, tmp_path, *words, stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "Error: The answer cannot be printed (No space left on device).\n"


def test_a_stdout_that_cannot_hold_it(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """Where stdout is no UTF-8, what it cannot hold comes as an escape, not as a traceback."""
    command = [sys.executable, "-m", "engine", "backfill", *ONE_DAY, "--dataset=é→"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=False,
        env=environment(sandbox) | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert done.returncode == 0
    assert rb"committed to " + b"\xe9" + rb"\u2192." in done.stdout


# What a backfill does --------------------------------------------------------------------


def test_a_backfill(run: Run, expected: list[str]) -> None:
    """Days are pulled once; the second time there is nothing to do."""
    said = run("backfill", *DAYS)
    assert said.status == 0
    assert said.out == (
        "1,224 events in: 1,194 rows, 6 rejected, 24 duplicates; 2 runs committed to data/events.\n"
    )
    assert rows(Path("data/events")) == expected
    said = run("backfill", *DAYS)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("Nothing to do: all 3 days are complete in data/events. --force")
    said = run("backfill", *ONE_DAY)
    assert said.out == (
        "Nothing to do: the day is complete in data/events. --force pulls it again.\n"
    )


def test_json(run: Run) -> None:
    """--json prints the payload and nothing else, whatever happens on stderr."""
    payload = json.loads(run("backfill", *DAYS, "--json").out)
    assert payload["_links"] == {}
    assert [i["metrics"]["statusSummary"]["status"] for i in payload["items"]] == ["success"] * 2
    assert json.loads(run("backfill", *DAYS, "--json").out) == {"items": [], "_links": {}}
    shown = json.loads(run("runs", "--json").out)
    assert shown["items"] == payload["items"][::-1]


def test_a_failed_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that failed is exit 1, a line, and an item of the payload; --debug shows where."""
    monkeypatch.setenv("MIXPANEL_PASSWORD", "wrong")
    said = run("backfill", *DAYS)
    assert said.status == 1
    assert said.out == "Nothing was committed to data/events: 1 run failed.\n"
    assert "secret of the service account" in said.err
    assert "Traceback" not in said.err
    said = run("backfill", *DAYS, "--json", "--debug")
    assert said.status == 1
    assert json.loads(said.out)["items"][0]["metrics"]["statusSummary"]["status"] == "failed"
    assert "Traceback" in said.err


def test_a_first_try_in_vain(
    run: Run, monkeypatch: pytest.MonkeyPatch, expected: list[str]
) -> None:
    """After a wrong project or filter, the corrected command pulls into the same dataset."""
    with monkeypatch.context() as patch:
        patch.setenv("MIXPANEL_PROJECT_ID", "1")
        assert run("backfill", *DAYS).status == 1
    assert run("backfill", *DAYS, "--where", "broken(((").status == 1
    assert run("backfill", *DAYS).status == 0
    assert rows(Path("data/events")) == expected


@pytest.mark.parametrize("words", [["check"], ["explore"], ["backfill", *ONE_DAY]])
def test_who_reaches_nobody_keeps_the_budget(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """A request that never left is none of the sixty an hour: else a lost network would cost it."""
    monkeypatch.setattr(
        retry, "DEFAULT_RETRY_POLICY", retry.RetryPolicy(tries=3, first=0.01, longest=0.01)
    )
    monkeypatch.setattr(
        "engine.sync.options.Options", partial(Options, retry_policy=retry.DEFAULT_RETRY_POLICY)
    )
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MIXPANEL_HOST", f"http://127.0.0.1:{unused.getsockname()[1]}")
        said = run(*words)
    assert said.status == 1
    assert "cannot be reached" in said.out + said.err
    assert "Check the network" in said.out + said.err
    (path,) = tmp_path.rglob("catalog.sqlite3")
    with closing(sqlite3.connect(path)) as ledger:
        assert ledger.execute("SELECT count(*) FROM requests").fetchall() == [(0,)]


def test_stopped_while_the_program_is_read(tmp_path: Path) -> None:
    """P8: Ctrl-C in the first tenth of a second is a word, and no traceback of our imports."""
    code = (
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def stop(name, *rest):\n"
        "    if name == 'typer': raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = stop\n"
        "from engine.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "runs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Stopped.\n")


def test_two_workers(run: Run, expected: list[str]) -> None:
    """Two processes make the same table as one."""
    assert run("backfill", *DAYS, "--workers=2", "--days-per-request=1").status == 0
    assert rows(Path("data/events")) == expected


def test_requests(run: Run, sandbox: Sandbox) -> None:
    """--event, --where and --days-per-request arrive at Mixpanel."""
    where = 'properties["item_name"] == "Pen"'
    words = ["--event=Items sold", "--event=Sign in", f"--where={where}", "--days-per-request=2"]
    assert run("backfill", *DAYS, *words).status == 0
    assert asked(sandbox) == [("2024-01-01", "2024-01-02"), ("2024-01-03", "2024-01-03")]
    parameters = sandbox.requests[0]["params"]
    assert json.loads(parameters["event"]) == ["Items sold", "Sign in"]
    assert parameters["where"] == where
    sold = DeltaTable("data/events").to_pyarrow_table().to_pylist()
    assert {row["_extconndev"]["item_name"] for row in sold} == {"Pen"}
    said = run("backfill", *DAYS)
    assert said.status == 2
    assert (
        'holds other events: it was made for "Items sold", "Sign in" of project 2384945 where '
        'properties["item_name"] == "Pen", and what is asked for now is all events of project'
        " 2384945."
    ) in said.err


def test_quiet_days_travel_together(run: Run, sandbox: Sandbox) -> None:
    """`auto` learns from the first answer how many days fit into a request."""
    assert run("backfill", "--from-date=2024-01-01", "--to-date=2024-02-15").status == 0
    assert asked(sandbox) == [
        ("2024-01-01", "2024-01-01"), ("2024-01-02", "2024-02-01"), ("2024-02-02", "2024-02-15"),
    ]  # fmt: skip


def test_force(run: Run, sandbox: Sandbox, expected: list[str]) -> None:
    """P4: --force pulls complete days again, and doubles nothing."""
    run("backfill", *DAYS)
    sandbox.reset()
    assert run("backfill", *DAYS, "--force").status == 0
    assert len(sandbox.requests) == 2
    assert rows(Path("data/events")) == expected


def test_partial_ingestion_percent(run: Run, sandbox: Sandbox) -> None:
    """The share of rejects that a day may have can be given for once."""
    time = int(datetime(2024, 1, 1, 5, tzinfo=UTC).timestamp())
    lines = [{"event": "e", "properties": {"time": time, "distinct_id": n}} for n in range(100)]
    lines += [{"event": "e", "properties": {}}] * 20
    body = "".join(json.dumps(line) + "\n" for line in lines)
    sandbox.faults({"fault": "answer", "status": 200, "body": body, "times": None})
    assert run("backfill", *ONE_DAY).status == 1
    assert run("backfill", *ONE_DAY, "--partial-ingestion-percent=16").status == 1
    assert run("backfill", *ONE_DAY, "--partial-ingestion-percent=17").status == 0
    assert run("backfill", *ONE_DAY, "--partial-ingestion-percent=101").status == 2


def test_a_mended_mapping(run: Run, sandbox: Sandbox) -> None:
    """Complete days that another mapping set made are not passed over in silence."""
    mapping = json.loads((ROOT / "mappings" / "mixpanel-events.json").read_text())
    Path("mended.json").write_text(json.dumps(mapping | {"version": 7}))
    run("backfill", *DAYS)
    assert "another mapping" not in run("backfill", *DAYS).out
    words = ["backfill", *DAYS, "--mapping=mended.json"]
    asked_before = len(sandbox.requests)
    said = run(*words)
    assert said.status == 0
    assert "3 complete days were pulled with another mapping; --force pulls them again." in said.out
    assert "3 complete days were pulled with another mapping" in run(*words, "--dry-run").out
    assert len(sandbox.requests) == asked_before
    run(*words, "--force")
    assert "another mapping" not in run(*words).out


def test_an_event_that_nobody_sends(run: Run) -> None:
    """A range without any event is no failure, and says what could be behind it."""
    said = run("backfill", *DAYS, "--event=items_sold")
    assert said.status == 0
    assert "No event is called items_sold on these days." in said.err
    for word in ("region", "project", "filter", "dates"):
        assert word in said.err


def test_allow_shrink(run: Run, sandbox: Sandbox) -> None:
    """P5: a day that would lose its rows fails, and says which option allows it."""
    run("backfill", *ONE_DAY)
    before = rows(Path("data/events"))
    sandbox.faults({"fault": "answer", "status": 200, "body": "", "times": None})
    said = run("backfill", *ONE_DAY, "--force")
    assert said.status == 1
    assert "--allow-shrink" in said.err
    assert rows(Path("data/events")) == before
    assert run("backfill", *ONE_DAY, "--force", "--allow-shrink").status == 0
    assert rows(Path("data/events")) == []


def test_today_is_pulled_again(run: Run, sandbox: Sandbox) -> None:
    """A day that was not over when it was pulled is not complete; one that was is."""
    today = datetime.now(UTC).date()
    days = [f"--from-date={today - timedelta(days=1)}", f"--to-date={today}"]
    assert run("backfill", *days, "--days-per-request=1").status == 0
    sandbox.reset()
    assert run("backfill", *days, "--days-per-request=1", "--allow-shrink").status == 0
    assert (str(today), str(today)) in asked(sandbox)
    assert len(sandbox.requests) < 2 + (datetime.now(UTC).date() > today)


def test_dry_run(run: Run, sandbox: Sandbox) -> None:
    """--dry-run shows the days that are due and their requests, and changes and asks nothing."""
    said = run("backfill", *DAYS, "--dry-run", "--event=Sign in")
    assert said.status == 0
    assert "3 asked for, 0 complete" in said.out
    assert "1 to 3" in said.out
    assert re.findall("from_date=([0-9-]+)", said.out) == [str(day) for day in ALL]
    assert "Sign" in said.out
    assert list(Path.cwd().iterdir()) == []
    run("backfill", *ONE_DAY)
    sandbox.reset()
    before = sorted(Path.cwd().rglob("*"))
    said = run("backfill", *DAYS, "--dry-run", "--days-per-request=2")
    assert "3 asked for, 1 complete" in said.out
    assert said.out.count("GET ") == 1
    assert "from_date=2024-01-02&to_date=2024-01-03" in said.out
    assert sorted(Path.cwd().rglob("*")) == before
    assert sandbox.requests == []


def counted(count: str) -> str:
    """How the line with the requests begins."""
    return (
        f"Requests: {count}. At 60 an hour, which is what Mixpanel allows a project, that is done "
    )


HOURS = [
    ("2024-01-01", "1", counted("1") + "within an hour."),
    ("2024-01-31", "1", counted("31") + "within an hour."),
    ("2024-02-29", "1", counted("60") + "within an hour."),
    ("2024-03-01", "1", counted("61") + "in 2 hours."),
    ("2024-12-31", "1", counted("366") + "in 7 hours."),
    ("2024-12-31", "31", counted("12") + "within an hour."),
    ("2024-02-29", "auto", counted("2 to 60") + "within an hour."),
    ("2024-12-31", "auto", counted("12 to 366") + "in 1 to 7 hours."),
    ("2024-04-30", "2", counted("61") + "in 2 hours."),
]


@pytest.mark.parametrize(("to_date", "size", "sentence"), HOURS)
def test_the_hours_of_a_dry_run(run: Run, to_date: str, size: str, sentence: str) -> None:
    """--dry-run prints how many hours the rate limit requires, and sends no request."""
    words = ["--from-date=2024-01-01", f"--to-date={to_date}", f"--days-per-request={size}"]
    said = run("backfill", *words, "--dry-run")
    assert said.status == 0
    assert said.out.splitlines()[1] == sentence


def test_the_hours_of_nothing(run: Run) -> None:
    """Where every day is complete there is no request, and no hour to wait for."""
    run("backfill", *ONE_DAY)
    said = run("backfill", *ONE_DAY, "--dry-run")
    assert said.out == "Days: 1 asked for, 1 complete already.\nRequests: 0.\n"


def test_the_hours_are_the_budgets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dry-run computes hours from the rate limit that pulls obey."""
    monkeypatch.setattr(retry, "DEFAULT_RATE_LIMIT", retry.RateLimit(per_hour=2))
    said = run("backfill", *DAYS, "--dry-run", "--days-per-request=1")
    assert "At 2 an hour" in said.out
    assert "in 2 hours." in said.out


# Stopping --------------------------------------------------------------------------------

STOPS = [
    ([], signal.SIGINT, {"fault": "delay", "seconds": 60}),
    ([], signal.SIGTERM, {"fault": "trickle", "bytes": 50, "seconds": 0.05}),
    (["--workers=2"], signal.SIGINT, {"fault": "trickle", "bytes": 50, "seconds": 0.05}),
    (["--workers=2"], signal.SIGTERM, {"fault": "delay", "seconds": 60}),
    ([], signal.SIGINT, {"fault": "answer", "status": 500}),
]


def until(true: Callable[[], object]) -> None:
    """Look again and again until `true`, for at most 20 seconds."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.02)


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "data/events/_staging").iterdir()]


@pytest.mark.parametrize(("words", "sign", "fault"), STOPS)
def test_stop(
    run: Run,
    sandbox: Sandbox,
    tmp_path: Path,
    expected: list[str],
    words: list[str],
    sign: signal.Signals,
    fault: dict[str, Any],
) -> None:
    """P8: it ends at once, says how far it came, leaves nothing half done, and goes on from there.

    The signal meets every process of the group, as it does when a person presses Ctrl-C.
    """
    sandbox.faults(fault | {"day": "2024-01-03", "times": None})
    words = ["backfill", *DAYS, "--days-per-request=1", *words]
    process = start(sandbox, tmp_path, *words)
    assert process.stderr
    seen = [process.stderr.readline() for _ in range(2)]
    if fault["fault"] == "answer":
        seen.append(process.stderr.readline())
        assert seen[2].startswith("waiting")
    else:
        until(lambda: len(left(tmp_path)) == 2)
        shown = json.loads(run("runs", "--json", "--status=inprogress").out)  # while it works
        assert len(shown["items"]) == 1
    started = [pid for pid, _ in children(process.pid)]
    moment = time.monotonic()
    os.killpg(process.pid, sign)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - moment < 3
    assert (process.returncode, out) == (1, "")
    again = f"To go on: {PROGRAM} {' '.join(words)}"
    told = [line for line in err.splitlines() if line.startswith("Stopped.")]
    assert len(told) == 1
    assert re.match(r"Stopped. 2 of 3 days are committed and stay", told[0])
    assert told[0].endswith(again)
    assert "Traceback" not in err
    until(lambda: not any(alive(pid) for pid in started))
    assert left(tmp_path) == ["lock"]
    items = json.loads(run("runs", "--json").out)["items"]
    assert {i["metrics"]["statusSummary"]["status"] for i in items} == {"success", "failed"}
    sandbox.reset()
    assert run(*words).status == 0
    assert [day for day, _ in asked(sandbox)] == ["2024-01-03"]
    assert rows(tmp_path / "data/events") == expected


@pytest.mark.parametrize("least", [1, 2, 3])  # the resource tracker, the workers
def test_stop_while_workers_start(
    run: Run, sandbox: Sandbox, tmp_path: Path, expected: list[str], least: int
) -> None:
    """P8: a process that has only just been started has no traceback to show either."""
    words = ["backfill", *DAYS, "--days-per-request=1", "--workers=2"]
    process = start(sandbox, tmp_path, *words)
    until(lambda: len(list(children(process.pid))) >= least or process.poll() is not None)
    assert process.poll() is None
    started = [pid for pid, _ in children(process.pid)]
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert re.search(r"^Stopped. [0-3] of 3 days are committed", err, re.MULTILINE)
    until(lambda: not any(alive(pid) for pid in started))
    assert run(*words).status == 0
    assert rows(tmp_path / "data/events") == expected


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ask(sandbox: Sandbox, folder: Path, moments: list[int]) -> None:
    """Note requests at these moments, in ms, at home in `folder`."""
    with Catalog(folder / ".mixpanel-etl") as catalog:
        for moment in moments:
            catalog.acquire(flow_of(sandbox.url, folder).project, moment, lambda _: 0)


def test_stop_while_the_budget_is_used_up(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """P8: waiting for the next hour is shown, and can be stopped."""
    ask(sandbox, tmp_path, [time.time_ns() // 1_000_000] * 60)
    process = start(sandbox, tmp_path, "backfill", *DAYS)
    assert process.stderr
    assert re.match(r"waiting (60|59) min: .*hourly budget", process.stderr.readline())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "0 of 3 days are committed" in err
    assert "Traceback" not in err
    assert sandbox.requests == []
    assert left(tmp_path) == ["lock"]


@pytest.mark.parametrize("again", [signal.SIGINT, signal.SIGTERM])
def test_impatience(run: Run, again: signal.Signals) -> None:
    """P8: the second Ctrl-C within a few seconds does not cut off what the first one began."""
    listen_to_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    try:
        signal.raise_signal(again)
    except KeyboardInterrupt:
        pytest.fail("the second one was heard")


def pulling(pid: int) -> list[int]:
    """The worker processes of a command."""
    return [child for child, command in children(pid) if "spawn_main" in command]


def test_a_killed_worker(run: Run, sandbox: Sandbox, tmp_path: Path, expected: list[str]) -> None:
    """The death of a worker is reported, and its day is pulled again: the table is exact."""
    sandbox.faults({"fault": "delay", "seconds": 60, "day": "2024-01-03"})
    words = ["backfill", *DAYS, "--days-per-request=1", "--workers=2"]
    process = start(sandbox, tmp_path, *words)
    assert process.stderr
    assert [process.stderr.readline()[:8] for _ in range(2)] == ["2024-01-"] * 2
    # Killed before its request arrives, the worker would leave the delay to the next try.
    until(lambda: len(left(tmp_path)) == 2 and sandbox.project.faults[0].times == 0)
    workers = pulling(process.pid)
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 0
    assert "worker process was killed" in err
    assert "Traceback" not in err
    assert left(tmp_path) == ["lock"]
    until(lambda: not any(alive(pid) for pid in workers))
    assert rows(tmp_path / "data/events") == expected


def test_two_at_once(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """A second command on a dataset fails with the process id of the first."""
    root = tmp_path / "data/events"
    with Dataset(root, table_schema(RULES), flow_of(sandbox.url, root).source).locked():
        said = run("backfill", *DAYS)
    assert said.status == 1
    assert f"in use by process {os.getpid()}" in said.err
    assert sandbox.requests == []


# The other commands ----------------------------------------------------------------------


def test_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history, newest first, by flow, by status, at most so many; a table or the payload."""
    said = run("runs")
    assert (said.status, said.out) == (0, "")
    assert "No such runs in .mixpanel-etl" in said.err
    assert ".mixpanel-etl does not exist" in said.err
    run("backfill", *DAYS)
    with monkeypatch.context() as patch:
        patch.setenv("MIXPANEL_PASSWORD", "wrong")
        run("backfill", *DAYS, "--force")
    lines = [line.split("\t") for line in run("runs").out.splitlines()]
    assert lines[0][1:5] == ["flow", "window", "status", "rows"]
    assert [line[2:5] for line in lines[1:]] == [
        ["2024-01-01", "failed", "-"],
        ["2024-01-02..2024-01-03", "success", "796"],
        ["2024-01-01", "success", "398"],
    ]
    assert "secret of the service account" in lines[1][-1]
    assert len(run("runs", "--status=Failed").out.splitlines()) == 2
    assert len(run("runs", "--limit=2").out.splitlines()) == 3
    assert len(run("runs", "--flow=events").out.splitlines()) == 4
    said = run("runs", "--flow=event")
    assert (said.status, said.out) == (0, "")
    assert said.err.endswith('has no run of a flow "event". It has runs of: events.\n')
    assert json.loads(run("runs", "--flow=nope", "--json").out)["items"] == []
    assert len(json.loads(run("runs", "--json", "--limit=1").out)["items"]) == 1


@pytest.mark.parametrize("words", [["explore"], ["check"]])
def test_an_hour_that_is_used_up(
    run: Run, sandbox: Sandbox, tmp_path: Path, words: list[str]
) -> None:
    """`explore` and `check` take slots of the rate limit; the error says when one is free."""
    now = time.time_ns() // 1_000_000
    ask(sandbox, tmp_path, [now - 600_000] * 58)
    assert run("explore").status == 0
    assert run("check").status == 0
    said = run(*words)
    assert said.status == 1
    sentence = r"60 requests an hour, and they are used up: .* in (50|49) min, at (\S+) UTC.\n"
    found = re.search(sentence, said.out + said.err)
    assert found
    room = datetime.fromtimestamp((now - 600_000 + 3_600_000) / 1000, UTC)
    assert found[2] == f"{room:%H:%M:%S}"
    assert len(sandbox.requests) == 2


def test_a_second_that_is_used_up(
    run: Run, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`explore` and `check` wait for the next second where the limit of a second is reached."""
    now = [time.time_ns()]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += round(seconds * 1e9)

    clock = SimpleNamespace(time_ns=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(sample, "time", clock)
    monkeypatch.setattr(clock_module, "time", clock)
    ask(sandbox, tmp_path, [now[0] // 1_000_000 - 300] * 3)
    assert run("explore").status == 0
    assert slept == [0.7]
    assert len(sandbox.requests) == 1


def test_check(run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` prints a line a test, sends one request a connection, and leaves no file."""
    Path("two.toml").write_text(TOML.format(host=sandbox.url))
    said = run("check", "--config=two.toml")
    assert said.status == 0
    told = [line.split()[:2] for line in said.out.splitlines()]
    assert told == [["ok", "events:"]] * 3 + [["ok", "sold:"]] * 3 + [["ok", "copy:"]] * 2
    assert len(sandbox.requests) == 2  # the first and the last flow ask the same
    assert run("check").status == 0
    assert not Path("data").exists()
    monkeypatch.setenv("MIXPANEL_PASSWORD", "wrong")
    said = run("check")
    assert said.status == 1
    assert [line.split()[0] for line in said.out.splitlines() if line[0] != " "] == [
        "ok", "wrong", "ok",
    ]  # fmt: skip
    assert "secret of the service account" in said.out
    (wrong,) = [line for line in said.out.splitlines() if line.startswith("wrong")]
    assert wrong == f"wrong  events: {sandbox.url}"  # no sentence that sounds true


@pytest.mark.parametrize(
    ("hours", "readers"),
    [
        (0, "replaced files go at once: .* a query that is reading one may fail"),
        (24, "replaced files stay for 24 hours: .* until then a glob counts their rows twice"),
    ],
)
def test_what_replaced_files_mean_to_readers_is_told(
    run: Run, sandbox: Sandbox, hours: int, readers: str
) -> None:
    """By `check`, both sides; and by a backfill to whoever keeps them, for a glob sees them."""
    Path("flows.toml").write_text(
        f'[connections.shop]\nhost = "{sandbox.url}"\n[flows.events]\nconnection = "shop"\n'
        f'dataset = "data/events"\nkeep_superseded_hours = {hours}\n'
    )
    words = ["--config=flows.toml", *ONE_DAY]
    assert re.search(f"ok     events: dataset .*; {readers}", run("check", words[0]).out)
    assert "replaced files" not in run("backfill", *words).err  # there is nothing to replace yet
    said = run("backfill", *words, "--force").err
    assert bool(re.search(readers, said)) == bool(hours)


def test_check_finds_everything(run: Run, sandbox: Sandbox) -> None:
    """A wrong mapping does not hide that the dataset cannot be used either."""
    Path("a-file").touch()
    Path("mine.json").write_text('{"version": 1, "mappings": [{"source": "data.a"}]}')
    Path("flows.toml").write_text(
        f'[connections.shop]\nhost = "{sandbox.url}"\n[flows.events]\nconnection = "shop"\n'
        'dataset = "a-file/table"\nmapping = "mine.json"\n'
    )
    said = run("check", "--config=flows.toml")
    assert said.status == 2
    assert re.findall(r"^(ok|wrong) ", said.out, re.MULTILINE) == ["wrong", "ok", "wrong"]
    assert "mappings[0]" in said.out
    assert "a-file" in said.out


EVENT = """{"title": "Shop", "type": "object",
 "allOf": [{"$ref": "https://ns.adobe.com/xdm/context/experienceevent"}],
 "properties": {"_shop": {"type": "object", "properties": {"city": {"type": "string"}}}}}"""
CITY = '{"mappings": [{"source": "data.city", "destination": "_shop.city"}]}'


def test_a_schema_file_of_a_class(run: Run, sandbox: Sandbox) -> None:
    """`check` and `backfill` follow its `$ref`, and fill what the class requires."""
    Path("shop.json").write_text(EVENT)
    Path("city.json").write_text(CITY)
    Path("flows.toml").write_text(
        f'[connections.shop]\nhost = "{sandbox.url}"\n[flows.events]\nconnection = "shop"\n'
        'dataset = "table"\nmapping = "city.json"\nschema = "shop.json"\n'
    )
    assert run("check", "--config=flows.toml").status == 0
    assert run("backfill", *ONE_DAY, "--config=flows.toml").status == 0
    filled = DeltaTable("table").to_pyarrow_table()
    assert filled.column_names == ["_shop", "_id", "timestamp", "unmapped", "event_date"]
    assert filled.num_rows > filled["_id"].null_count == 0
    Path("shop.json").write_text(EVENT.replace("experienceevent", "nothing"))
    said = run("check", "--config=flows.toml")
    assert said.status == 2
    assert re.search("schema shop.json cannot be used: .*xdm/context/nothing", said.out)


def test_check_names_mapping_and_schema(run: Run, sandbox: Sandbox) -> None:
    """`check` reports a wrong mapping and a wrong schema together."""
    Path("mine.json").write_text('{"type": "wrong"}')
    Path("flows.toml").write_text(
        f'[connections.shop]\nhost = "{sandbox.url}"\n[flows.events]\nconnection = "shop"\n'
        'dataset = "table"\nmapping = "nowhere"\nschema = "mine.json"\n'
    )
    said = run("check", "--config=flows.toml")
    assert said.status == 2
    assert 'no mapping "nowhere"' in said.out
    assert re.search(r"The schema mine\b", said.out)


def test_two_flows_on_one_dataset(run: Run) -> None:
    """A file with two flows of one table is refused, however the path is written (P4)."""
    table = 'connection = "shop"\ndataset = "{}"\n'
    Path("flows.toml").write_text(
        "[connections.shop]\n"
        f"[flows.a]\n{table.format('data/x')}[flows.b]\n{table.format('data/../data/x/')}"
    )
    said = run("check", "--config=flows.toml")
    assert said.status == 2
    assert re.search(r'flows\.b\.dataset: is the table of flow "a"', said.err)


def test_runs_leaves_no_trace(run: Run) -> None:
    """Commands that only read make no catalog."""
    assert run("runs").status == 0
    assert json.loads(run("runs", "--json").out) == {"items": [], "_links": {}}
    assert not Path(".mixpanel-etl").exists()


def test_a_dataset_below_a_file(run: Run) -> None:
    """A dataset below a file is refused with exit status 2."""
    Path("a-file").touch()
    said = run("backfill", *ONE_DAY, "--dataset=a-file/table")
    assert said.status == 2
    assert re.search(r"a-file is a file\b", said.err)


def test_a_dataset_at_home(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A configuration file has no shell that would know `~`."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert run("backfill", *ONE_DAY, "--dataset=~/events").status == 0
    assert list((tmp_path / "me" / "events").glob("event_date=*/*.parquet"))


def test_a_cache_that_cannot_be_written(run: Run) -> None:
    """The sandbox does not start without a word and fail at the first request."""
    Path("a-file").touch()
    said = run("sandbox", "--port=0", "--cache-dir=a-file/cache")
    assert said.status == 1
    assert "Cannot keep answers in a-file/cache" in said.err


@contextmanager
def bound_by_rights() -> Iterator[None]:
    """Take root's right to write everywhere, CAP_DAC_OVERRIDE, from this thread for a while."""
    kernel = ctypes.CDLL(None)
    version = (ctypes.c_uint32 * 2)(0x20080522, 0)
    held = (ctypes.c_uint32 * 6)()
    assert kernel.capget(version, held) == 0
    fewer = (ctypes.c_uint32 * 6)(*held)
    fewer[0] &= ~(1 << 1)
    assert kernel.capset(version, fewer) == 0
    try:
        yield
    finally:
        assert kernel.capset(version, held) == 0


def test_a_dataset_that_cannot_be_written(run: Run, sandbox: Sandbox) -> None:
    """A folder without the right to write in it is named by `check` and by `backfill`."""
    Path("foreign").mkdir(mode=0o555)
    Path("flows.toml").write_text(
        f'[connections.shop]\nhost = "{sandbox.url}"\n'
        '[flows.events]\nconnection = "shop"\ndataset = "foreign/a/table"\n'
    )
    with bound_by_rights():
        checked = run("check", "--config=flows.toml")
        pulled = run("backfill", *ONE_DAY, "--dataset=foreign/table")
    assert (checked.status, pulled.status) == (1, 1)
    assert re.search(r"wrong .*\n +Cannot write in .*foreign: this user may not", checked.out)
    assert re.match(r"Error: Cannot write in .*foreign.*: this user may not", pulled.err)
    assert "Traceback" not in pulled.err + checked.err
    assert list(Path("foreign").iterdir()) == []


def test_demo_twice(run: Run) -> None:
    """P4: the demo needs no account, and a second demo changes nothing."""
    for name in ("USERNAME", "PASSWORD", "PROJECT_ID", "HOST"):
        os.environ.pop(f"MIXPANEL_{name}")
    first = run("demo")
    assert first.status == 0
    before = rows(Path("demo-data"))
    assert run("demo").status == 0
    assert rows(Path("demo-data")) == before
    assert len(before) == 29_970
    for line in (
        "2024-01-01  9,990 rows  10 rejected  100 duplicates  73 with a value not cast  5.7 MB",
        "2024-01-02..2024-01-03  19,980 rows  20 rejected  200 duplicates",
        "  167 with a value not cast  11.3 MB",
        "\n30,300 events in: 29,970 rows, 30 rejected, 300 duplicates; 2 runs committed to demo",
    ):
        assert line in first.out + first.err
    record, _, rest = first.out.partition("\n}\n")
    payload = json.loads(record.partition("\n")[2] + "}")
    assert payload["items"][0]["metrics"]["recordSummary"]["inputRecordCount"] == 20_200
    assert len([line for line in rest.splitlines() if line.count("\t") == 4]) == 11
    assert "duckdb -c" in rest
    assert ESCAPE not in first.out + first.err


def test_demo_elsewhere(run: Run) -> None:
    """The demo refuses a ./demo-data with other files, and changes none."""
    Path("demo-data").mkdir()
    Path("demo-data", "letters").write_text("mine")
    said = run("demo")
    assert said.status == 2
    assert "letters" in said.err
    assert [path.name for path in Path("demo-data").iterdir()] == ["letters"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_alone(sandbox: Sandbox, tmp_path: Path, sign: signal.Signals) -> None:
    """The sandbox prints its URL, serves, and ends within a second of a signal."""
    process = start(sandbox, tmp_path, "sandbox", "--port=0", "--events-per-day=5")
    assert process.stdout
    url = process.stdout.readline().strip()
    with urlopen(url) as answer:
        assert b"NOT Mixpanel" in answer.read()
    moment = time.monotonic()
    process.send_signal(sign)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - moment < 1
    assert process.returncode == 0
    first, *exports = err.splitlines()
    assert first == f"This is a stand-in, NOT Mixpanel: invented events at {url}. To pull them:"
    wanted = variables(url) | {"MIXPANEL_TIMEZONE": "UTC"}
    assert dict(line.removeprefix("export ").split("=", 1) for line in exports) == wanted


# Secrets ---------------------------------------------------------------------------------


def test_the_password_is_nowhere(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """P7: no output, traceback, file or command line holds the password, plain or as it is sent."""
    folder = tmp_path / "scenario"
    folder.mkdir()
    sandbox.faults(
        {"fault": "insert", "text": "a bad line"},
        {"fault": "delay", "seconds": 60, "day": "2024-01-03"},
    )
    words = ["backfill", *DAYS, "--days-per-request=1", "--workers=2", "--debug"]
    process = start(sandbox, folder, *words)
    assert process.stderr
    said = [process.stderr.readline(), process.stderr.readline()]
    until(lambda: sandbox.project.faults[-1].times == 0)  # the delayed request has arrived
    commands = dict(children(process.pid))
    assert len(pulling(process.pid)) == 2
    os.kill(pulling(process.pid)[0], signal.SIGKILL)
    said += process.communicate(timeout=40)
    assert "worker process was killed" in "".join(said)
    os.chdir(folder)
    sandbox.reset()
    sandbox.faults(
        {"fault": "answer", "status": 402}, {"fault": "answer", "status": 403},
        {"fault": "answer", "status": 302, "headers": {"Location": "http://127.0.0.2:9/x"}},
    )  # fmt: skip
    ended: list[Said] = [
        run("backfill", *DAYS, "--debug"),
        run("explore", "--debug"),
        run("check", "--debug"),
        run("runs", "--json"),
        run("runs"),
        run("backfill", *DAYS, "--dry-run"),
    ]
    texts = [*said, *commands.values(), *(one.out + one.err for one in ended)]
    assert "Traceback" in "".join(texts)
    flow = flow_of(sandbox.url, folder)
    wrote = "\n".join([*texts, repr(flow), str(flow), f"{flow.connection.password}"]).encode()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"catalog.sqlite3", "00000000000000000000.json"} <= {path.name for path in files}
    sent = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode())
    for secret in (PASSWORD.encode(), sent, base64.b64encode(PASSWORD.encode()).rstrip(b"=")):
        assert secret not in wrote
        assert [path for path in files if secret in path.read_bytes()] == []


def test_main_leaves() -> None:
    """`main` ends by SystemExit with a number, also where nothing is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
