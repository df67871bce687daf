"""Rejects are shown, and replayed into the table once, byte for byte, or not at all."""

import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.database import Catalog
from engine.cli.console import PROGRAM
from engine.config.shipped_files import find
from engine.dataset.dataset import Dataset
from engine.dataset.parquet_writer import Writer
from engine.dataset.storage.local import LocalStorage
from engine.mapping import evaluate
from engine.model.batch import CORRUPT, INVALID, REQUIRED
from engine.model.window import Window
from engine.sandbox import PASSWORD, Sandbox, Spec
from engine.sync.options import Options
from engine.sync.pull import table_schema
from engine.sync.rejected_lines import entries, raw_of
from engine.sync.replay import rejects_folder
from engine.sync.runner import Runner
from engine.sync.window_source import Result
from engine.transform.schema import Schema
from tests.support.commands import Run, Said, here, put, variables
from tests.support.pulling import RULES, flow_of, rows

SPEC = Spec(events_per_day=100, duplicate_percent=1, reject_percent=4)
REJECTS = 4  # of a day
LINES = 101
TABLE = Path("data/events")
FIRST, SECOND = date(2024, 1, 1), date(2024, 1, 2)
TIME = 1704067200 + 3600  # on the first day
FIXED = "--schema=mended.json"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(SPEC) as running:
        yield running


@pytest.fixture
def run(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Run commands in an empty folder with two more schemas: a corrected and a strict one."""
    put(variables(sandbox.url), monkeypatch)
    for name in ("MIXPANEL_TIMEZONE", "MIXPANEL_ETL_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    sandbox.reset()
    schema_file("mended.json", required=["event_name"])
    schema_file("strict.json", item_price={"not": {"pattern": "^free$"}})
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    yield here(capsys)
    for each, handler in before.items():
        signal.signal(each, handler)


def schema_file(name: str, required: list[str] | None = None, **rules: dict[str, Any]) -> None:
    """Write the shipped schema with other requirements and the same columns."""
    document = json.loads(json.dumps(find("schema", "mixpanel-events")[1]))
    inner = document["properties"]["_extconndev"]
    inner["required"] = inner["required"] if required is None else required
    for column, rule in rules.items():
        inner["properties"][column] |= rule
    Path(name).write_text(json.dumps(document))


def backfill(run: Run, days: int = 1, *words: str, status: int = 0) -> str:
    """Pull the first days of 2024 in one request; return the batch."""
    words = ("--from-date=2024-01-01", f"--to-date=2024-01-0{days}", *words)
    known = set(batches())
    said = run("backfill", "--force", "--days-per-request=9", *words)
    assert said.status == status, said.err
    (batch,) = set(batches()) - known
    return batch


def batches() -> list[str]:
    return sorted(path.name for path in TABLE.glob("_batches/[!.]*"))


def loosen(sandbox: Sandbox, name: str = "events") -> str:
    """Return the option of a flow that tolerates every reject."""
    text = f"""
        [connections.shop]
        host = "{sandbox.url}"
        [flows.{name}]
        connection = "shop"
        dataset = "data/events"
        partial_ingestion_percent = 100
        """
    Path("loose.toml").write_text(text)
    return "--config=loose.toml"


def listed(run: Run) -> list[tuple[str, str, Any]]:
    said = run("rejects", "list", "--json")
    assert said.status == 0
    return [(each["batch"], each["state"], each["rejected"]) for each in json.loads(said.out)]


def kept(batch: str) -> list[bytes]:
    """Return the rejected lines of a batch, the parts of a long line joined."""
    lines: list[bytes] = []
    for entry in entries(rejects_folder(Dataset(TABLE, None, None), batch)):
        if entry.get("_part"):
            lines[-1] += raw_of(entry)
        else:
            lines.append(raw_of(entry))
    return lines


def counts(said: Said) -> tuple[int, int, int, int]:
    """Return lines in, rows, rejected and duplicates of the run that a command printed (P3)."""
    (item,) = json.loads(said.out)["items"]
    found = item["metrics"]["recordSummary"]
    names = ("inputRecordCount", "outputRecordCount", "failedRecordCount", "skippedRecordCount")
    lines, good, bad, twice = (found[name] for name in names)
    assert lines == good + bad + twice
    return lines, good, bad, twice


def history(run: Run) -> list[str]:
    items = json.loads(run("runs", "--json").out)["items"]
    return [item["metrics"]["statusSummary"]["status"] for item in items]


def is_tidy() -> bool:
    return [path.name for path in (TABLE / "_staging").iterdir()] == ["lock"]


def event(**properties: Any) -> bytes:
    return json.dumps({"event": "Buy", "properties": {"time": TIME, **properties}}).encode()


def insert(sandbox: Sandbox, *lines: bytes) -> None:
    """Insert these lines in the middle of the next response."""
    sandbox.faults({"fault": "insert", "line": b"\n".join(lines)})


# Looking ---------------------------------------------------------------------------------


def test_list(run: Run) -> None:
    """Batches are listed newest first with days, counts and codes; no reject is read."""
    first, second = backfill(run), backfill(run, 3)
    for path in TABLE.glob("_batches/*/row_errors/*"):
        path.write_bytes(b"\xff")
    (entry,) = json.loads(run("rejects", "list", "--json").out)
    assert entry == {
        "batch": second, "state": "replayable", "flow": "events", "rejected": 3 * REJECTS,
        "window": Window(FIRST, date(2024, 1, 3)).as_json(),
        "codes": {REQUIRED: 6, INVALID: 6},
        "current_days": ["2024-01-01", "2024-01-02", "2024-01-03"],
    }  # fmt: skip
    head, line = run("rejects", "list").out.splitlines()
    assert head.split("\t") == ["batch", "when (UTC)", "flow", "days", "rejected", "codes", "state"]
    cells = line.split("\t")
    assert (cells[0], *cells[2:]) == (
        second, "events", "2024-01-01..2024-01-03", "12",
        f"{REQUIRED} 6, {INVALID} 6", "replayable",
    )  # fmt: skip
    third = backfill(run)
    assert listed(run) == [(third, "replayable", 4), (second, "replayable", 12)]
    assert first not in run("rejects", "list").out


def test_nothing_to_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list is no error, and needs no credentials."""
    batch = backfill(run, 1, FIXED)
    for name in ("MIXPANEL_USERNAME", "MIXPANEL_PASSWORD"):
        monkeypatch.delenv(name)
    assert listed(run) == []
    said = run("rejects", "list")
    assert (said.status, said.out) == (0, "")
    assert "nothing waits for a replay" in said.err
    said = run("rejects", "show", batch)
    assert said.status == 2
    assert "no rejects: all of its lines are in the table" in said.err


def test_show(run: Run, sandbox: Sandbox) -> None:
    """Shows lines with their reasons, up to a limit; --json prints them as stored."""
    insert(sandbox, b'{"event": "\x1b[31mred\xff')
    batch = backfill(run, 1)
    said = run("rejects", "show", batch)
    head, *lines = said.out.splitlines()
    assert head == "code\treason\tline"
    assert len(lines) == REJECTS + 1
    assert "\x1b" not in said.out
    assert {line.split("\t")[0] for line in lines} == {REQUIRED, INVALID, CORRUPT}
    assert any("'time' is a required property" in line for line in lines)
    failed = '/time: "yesterday" is no integer (from properties.time)'
    assert any(failed in line for line in lines)
    assert max(map(len, lines)) < 250
    assert len(run("rejects", "show", batch, "--limit=2").out.splitlines()) == 3
    said = run("rejects", "show", batch, "--json", "--limit=100")
    shown = [json.loads(line) for line in said.out.splitlines()]
    assert shown == list(entries(rejects_folder(Dataset(TABLE, None, None), batch)))


def test_parts_are_one_line(run: Run, sandbox: Sandbox) -> None:
    """A line stored in several parts is shown, counted, replayed and stored as one line."""
    long = [event(text="x" * (17 << 20)), event(text="y" * (17 << 20))]
    insert(sandbox, *long)
    batch = backfill(run, 1, loosen(sandbox))
    assert listed(run) == [(batch, "replayable", REJECTS + 2)]
    assert len(run("rejects", "show", batch).out.splitlines()) == 1 + REJECTS + 2
    parts = run("rejects", "show", batch, "--json").out.splitlines()
    assert len(parts) > REJECTS + 2 * 17
    assert counts(run("rejects", "replay", batch, FIXED, "--json")) == (6, 4, 2, 0)
    ((again, _, _),) = listed(run)
    assert kept(again) == long


# Replaying -------------------------------------------------------------------------------


def test_replay(run: Run) -> None:
    """P2, P3: lines that pass now are added to the table once; the run has a usual record."""
    batch = backfill(run, 2)
    before = rows(TABLE)
    said = run("rejects", "replay", batch, FIXED, "--json")
    assert said.status == 0
    assert counts(said) == (2 * REJECTS, 2 * REJECTS, 0, 0)
    after = rows(TABLE)
    assert set(before) < set(after)
    assert len(after) == len(before) + 2 * REJECTS
    assert listed(run) == []
    assert history(run) == ["success", "success"]
    (item,) = json.loads(said.out)["items"]
    assert item == json.loads(run("runs", "--json", "--limit=1").out)["items"][0]
    manifest = item["activities"][1]["fileSummary"]["extensions"]["manifest"]
    noted = json.loads((Path(manifest["fileInfo"]) / "fileMetaData1.json").read_text())
    assert noted["path"].endswith(f"_batches/{batch}/row_errors")
    assert noted["records"] == 2 * REJECTS
    again = run("rejects", "replay", batch, FIXED)
    assert again.status == 2
    assert "replayed already" in again.err
    assert rows(TABLE) == after
    assert history(run) == ["success", "success"]
    run("backfill", "--from-date=2024-01-01", "--to-date=2024-01-02", "--force", FIXED)
    assert len(rows(TABLE)) == len(after)  # P4: a pull of the days replaces the replayed rows too


def test_what_fails_again(run: Run) -> None:
    """Lines that fail again are rejects of the new batch; the old batch is done."""
    schema_file("half.json", required=["event_name"], distinct_id={"pattern": "^test"})
    batch, before = backfill(run, 2), len(rows(TABLE))
    said = run("rejects", "replay", batch, "--schema=half.json", "--json")
    lines, good, bad, _ = counts(said)
    assert (lines, good + bad) == (8, 8)
    assert good
    assert bad
    ((left, state, count),) = listed(run)
    assert (left != batch, state, count) == (True, "replayable", bad)
    assert set(kept(left)) < set(kept(batch))
    assert counts(run("rejects", "replay", left, FIXED, "--json")) == (bad, bad, 0, 0)
    assert len(rows(TABLE)) == before + 8
    assert listed(run) == []


def test_nothing_passes(run: Run) -> None:
    """If no line passes, nothing is committed and the batch stays replayable."""
    batch, before = backfill(run), rows(TABLE)
    said = run("rejects", "replay", batch)
    assert said.status == 1
    codes = f"{REQUIRED} 3, {INVALID} 1"
    assert f"None of the 4 rejected lines of batch {batch} passes ({codes})" in said.err
    assert "Nothing was committed" in said.out
    assert history(run) == ["failed", "success"]
    assert is_tidy()
    assert batches() == [batch]
    assert rows(TABLE) == before
    assert listed(run) == [(batch, "replayable", REJECTS)]
    assert run("rejects", "replay", batch, FIXED).status == 0


def test_bytes(run: Run, sandbox: Sandbox) -> None:
    """P3: a line that fails again is stored byte for byte; P1 holds for its end."""
    bad = [
        b'{"event": "torn', b"\xff\xfe\x00", b'{"event":"\xed\xa0\x80"}', b"torn\r", b'{"a":1}\r\r',
        b'{"event":"A","properties":{"time":1,"time":2}}', "{\u2028\u0085".encode(),
        b'{"error":"x"}',
    ]  # fmt: skip
    insert(sandbox, *(line + b"\r" for line in bad))
    batch = backfill(run, 1, loosen(sandbox))
    assert sorted(line for line in kept(batch) if line in bad) == sorted(bad)
    said = run("rejects", "replay", batch, FIXED, "--json")
    assert counts(said) == (REJECTS + len(bad), REJECTS, len(bad), 0)
    ((again, _, _),) = listed(run)
    assert kept(again) == [line for line in kept(batch) if line in bad]


def test_twins(run: Run, sandbox: Sandbox) -> None:
    """P4: an event that the table has is not added, and an event that comes twice is added once."""
    good = event(distinct_id="a", item_price="5", **{"$insert_id": "1"})
    twin = event(distinct_id="a", item_price="free", **{"$insert_id": "1"})
    new = event(distinct_id="a", item_price="free", **{"$insert_id": "2"})
    bare = event(distinct_id="a", item_price="free")
    other = event(distinct_id="b", item_price="free", **{"$insert_id": "1"})
    # In the table these are two rows that nothing can tell apart any more.
    alike = [event(distinct_id=of, **{"$insert_id": "3"}) for of in (5, "5")]
    insert(sandbox, twin, good, *alike, new, new, bare, bare, other)
    batch = backfill(run, 1, "--schema=strict.json", loosen(sandbox))
    before = rows(TABLE)
    mine = set(kept(batch))
    assert mine > {twin, new, bare, other}
    bad = len(kept(batch)) - 6
    said = run("rejects", "replay", batch, "--schema=mended.json", "--json")
    # Twice `new` and once `twin` go; records without an `$insert_id` are never one.
    assert counts(said) == (bad + 6, bad + 4, 0, 2)
    added = [row for row in rows(TABLE) if row not in before]
    assert sum('"item_price": "free"' in row for row in added) == 4
    assert sum('"item_price": "5"' in row and '"insert_id": "1"' in row for row in before) == 1


def test_nothing_but_twins(run: Run, sandbox: Sandbox) -> None:
    """P3: if the table has all lines already, no row is added, and the batch is done."""
    good = event(item_price="5", **{"$insert_id": "1"})
    insert(sandbox, good, event(item_price="free", **{"$insert_id": "1"}))
    schema_file("lenient.json", required=["event_name"], item_price={"not": {"pattern": "^free$"}})
    batch, before = backfill(run, 1, "--schema=lenient.json"), rows(TABLE)
    assert counts(run("rejects", "replay", batch, FIXED, "--json")) == (1, 0, 0, 1)
    assert rows(TABLE) == before
    assert listed(run) == []


def test_keys_that_no_column_holds() -> None:
    """Without columns for all four parts of the key, duplicates cannot be found."""
    schema = Schema.parse(*RULES.schema)
    name, document = RULES.mapping
    whole = evaluate.parse(name, document, schema).key_columns
    assert [path[-1] for path in whole] == ["event_name", "distinct_id", "time", "insert_id"]
    for source in ("data.event_name", "data.distinct_id", "data.time", "data.insert_id"):
        left = [each for each in document["mappings"] if each["source"] != source]
        assert evaluate.parse(name, {"mappings": left}, schema).key_columns == []
    cast = [
        each | {"source": "data.item_id"} if each["source"] == "data.time" else each
        for each in document["mappings"]
        if each["source"] != "data.item_id"
    ]
    cast.append({"source": "data.time", "destination": "_extconndev.item_id"})
    assert evaluate.parse(name, {"mappings": cast}, schema).key_columns == []


# What must not be replayed ---------------------------------------------------------------


def test_a_day_that_was_pulled_again(run: Run) -> None:
    """P4: lines of a day that was pulled again are not replayed."""
    batch = backfill(run)
    run("backfill", "--from-date=2024-01-01", "--to-date=2024-01-01", "--force", FIXED)
    before = rows(TABLE)
    said = run("rejects", "replay", batch, FIXED)
    assert said.status == 2
    assert "pulled again since" in said.err
    assert rows(TABLE) == before
    assert listed(run) == []


def test_a_day_that_another_flow_pulled(run: Run, sandbox: Sandbox) -> None:
    """P4: a pull of the day by another flow counts as well."""
    batch = backfill(run)
    newer = backfill(run, 1, loosen(sandbox, "x"))
    before = rows(TABLE)
    assert "pulled again since" in run("rejects", "replay", batch, FIXED).err
    assert rows(TABLE) == before
    assert listed(run) == [(newer, "replayable", REJECTS)]


def test_a_day_that_was_forgotten(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """P4: a day that was reset and pulled again is not taken for unchanged."""
    batch = backfill(run)
    flow = flow_of(sandbox.url, tmp_path / TABLE)
    table = Dataset(tmp_path / TABLE, table_schema(RULES), flow.source)
    name = f"events/{FIRST}"
    with table.locked():
        reached = table.position(name)
        assert reached
        table.forget("A", [name])
        assert table.position(name) == 0
        table.staging("B")
        table.commit("B", [], table.held([FIRST]), {name: reached}, None)
        table.discard("B")
    assert "pulled again since" in run("rejects", "replay", batch, FIXED).err
    assert rows(TABLE) == []


class Windows:
    """Hands out one window."""

    def __init__(self, window: Window) -> None:
        self._windows = [window]

    def next_window(self) -> Window | None:
        return self._windows.pop() if self._windows else None

    def on_result(self, result: Result) -> None:
        assert not result.split  # an arrival window is never split

    def give_up(self) -> int:
        return 0


def test_an_arrival_window(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """Rejects of an arrival window are added to its days, unless these were pulled again."""
    flow = flow_of(sandbox.url, tmp_path / TABLE)
    found: list[str] = []
    for hours in ((0, 40), (40, 112)):
        start, end = (TIME * 1000 + hour * 3_600_000 for hour in hours)
        window = Window(FIRST, date(2024, 1, 5), (start, end))
        with Catalog(Path(".mixpanel-etl").absolute()) as catalog:
            table = Dataset(tmp_path / TABLE, table_schema(RULES), flow.source)
            runs = Runner(flow, RULES, table, catalog, Options())
            with runs.prepared():
                (record,) = runs.run(Windows(window))
        assert record.rejected
        found.append(record.batch_id)
    assert [each[:2] for each in listed(run)] == [(each, "replayable") for each in found[::-1]]
    before = rows(TABLE)
    lines, good, _, _ = counts(run("rejects", "replay", found[0], FIXED, "--json"))
    assert lines == good == len(rows(TABLE)) - len(before)
    backfill(run, 5, "--days-per-request=5")
    assert "pulled again since" in run("rejects", "replay", found[1], FIXED).err


def test_some_days_that_were_pulled_again(run: Run, sandbox: Sandbox) -> None:
    """Only lines that are certainly of the other days are replayed; the rest is counted."""
    second = TIME + 86400
    first = event(item_price="free", **{"$insert_id": "1"})
    later = [
        event(item_price="free", time=second, **{"$insert_id": "2"}),
        event(item_price="free", time=str(second), **{"$insert_id": "3"}),
    ]
    insert(sandbox, first, *later)
    batch = backfill(run, 2, "--schema=strict.json", loosen(sandbox))
    unknown = [line for line in kept(batch) if line not in (first, *later)]
    assert len(unknown) == 2 * REJECTS
    newer = backfill(run, 1)
    assert listed(run) == [(newer, "replayable", 4), (batch, "replayable", 2 * REJECTS + 3)]
    before = rows(TABLE)
    said = run("rejects", "replay", batch, FIXED, "--json")
    assert counts(said) == (2, 2, 0, 0)
    assert f"{2 * REJECTS + 1} lines were left out" in said.err
    added = [row for row in rows(TABLE) if row not in before]
    assert [json.loads(row)["event_date"] for row in added] == ["2024-01-02"] * 2


def test_days_that_nobody_can_tell(run: Run) -> None:
    """If no line shows its day and one day was pulled again, no line is replayed."""
    batch = backfill(run, 2)
    run("backfill", "--from-date=2024-01-02", "--to-date=2024-01-02", "--force")
    said = run("rejects", "replay", batch, FIXED)
    assert said.status == 2
    assert "no line that is certainly of a day" in said.err


def test_a_run_that_failed(run: Run) -> None:
    """The rejects of a failed run cannot be replayed: its backfill has to run again."""
    schema_file("absurd.json", event_name={"maxLength": 1})
    batch = backfill(run, 1, "--schema=absurd.json", status=1)
    assert listed(run) == [(batch, "failed", LINES)]
    assert len(run("rejects", "show", batch, "--limit=1000").out.splitlines()) == 1 + LINES
    said = run("rejects", "replay", batch)
    assert said.status == 2
    assert "of a run that failed" in said.err
    assert not (TABLE / "_delta_log").exists()
    good = backfill(run)
    assert listed(run) == [(good, "replayable", REJECTS)]


def test_a_batch_without_a_note(run: Run) -> None:
    """A batch without a manifest cannot be replayed."""
    batch = backfill(run)
    (note,) = TABLE.glob("_batches/*/batch.json")
    for damage in (lambda: note.write_text("{}"), note.unlink):
        damage()
        assert listed(run) == [(batch, "unknown", None)]
        assert run("rejects", "list").out.splitlines()[1].endswith("unknown")
        said = run("rejects", "replay", batch, FIXED)
        assert said.status == 2
        assert "backfill --force" in said.err


def test_another_flow(run: Run, sandbox: Sandbox) -> None:
    """A flow replays only its own batches."""
    batch = backfill(run)
    said = run("rejects", "replay", batch, FIXED, loosen(sandbox, "x"))
    assert said.status == 2
    assert 'of the flow "events", not of "x"' in said.err


WRONG = [
    (["list", "--dataset=nowhere"], "no table in .*nowhere.*--dataset"),
    (["list", "--dataset="], "--dataset is empty"),
    (["list", "--flow=x"], "--config"),
    (["list", "--config=no.toml"], "no.toml"),
    (["list", "--dataset=mended.json"], "is a file"),
    (["show"], "Missing argument 'BATCH'.*rejects show --help"),
    (["show", "{batch}", "--limit=0"], "greater than or equal to 1"),
    (["show", "../../data"], 'no batch "../../data"'),
    (["show", "NOPE"], 'no batch "NOPE". Batches with rejects: {batch}[.]'),
    (["show", "{lower}"], "Batches with rejects: {batch}[.]"),
    (["replay", "NOPE"], 'no batch "NOPE"'),
    (["replay", "NOPE", "--dataset=nowhere"], "no table in .*nowhere"),
    (["replay", "{batch}", "--schema="], "--schema is empty"),
    (["replay", "{batch}", "--mapping=nope"], 'no mapping "nope"'),
    (["replay", "{batch}", "--schema=wide.json"], "has another schema: .*more"),
    (["reply"], "No such command 'reply'.*rejects --help"),
    ([], "Missing command.*rejects --help"),
]  # fmt: skip


def test_wrong_input(run: Run) -> None:
    """Wrong input is an error in a sentence with status 2, and changes nothing."""
    batch = backfill(run)
    document = json.loads(Path("mended.json").read_text())
    inner = document["properties"]["_extconndev"]["properties"]
    inner["more"] = inner["item_id"]
    Path("wide.json").write_text(json.dumps(document))
    names = {"batch": batch, "lower": batch.lower()}
    before = sorted(Path().rglob("*"))
    for words, sentence in WRONG:
        said = run("rejects", *(word.format(**names) for word in words))
        assert (said.status, said.out) == (2, ""), words
        assert len(said.err.splitlines()) == 1, words
        pattern = sentence.replace("{batch}", batch)
        assert re.search(pattern, said.err), (pattern, said.err)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("command", ["rejects", "rejects list", "rejects show", "rejects replay"])
def test_help(run: Run, command: str) -> None:
    """Every --help fits a screen and shows an example."""
    said = run(*command.split(), "--help")
    lines = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert any("Example" in line and PROGRAM in line for line in lines)
    assert not any(line.endswith("...") for line in lines[1:])


# What ends it on the way -----------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9: no code runs after it."""


STEPS: dict[str, tuple[Any, str]] = {
    "pulled": (Writer, "finish"),
    "noted": (Dataset, "describe"),
    "intent written": (LocalStorage, "write"),
    "files moved": (Dataset, "_publish"),
    "logged": (Dataset, "_write_log"),
    "settled": (Dataset, "_recover"),
    "told": (Catalog, "save"),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, moment: str
) -> None:
    """P2: killed at any step and started again, a replay is committed and recorded once."""
    schema_file("half.json", required=["event_name"], distinct_id={"pattern": "^test"})
    words = ("rejects", "replay", backfill(run), "--schema=half.json", "--json")
    before = rows(TABLE)
    owner, name = STEPS[step]
    real, settle = getattr(owner, name), Dataset._recover
    dead = False

    def fatal(*arguments: Any, **more: Any) -> Any:
        nonlocal dead
        begins = step == "told" and arguments[1].status == "inProgress"
        if begins or (step == "intent written" and not arguments[1].endswith("/intent.json")):
            return real(*arguments, **more)
        if not dead and moment == "after":
            real(*arguments, **more)
        dead = True
        raise Killed

    def unless_dead(*arguments: Any) -> bool:
        if dead:
            raise Killed
        return settle(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "_recover", unless_dead)
        patch.setattr(owner, name, fatal)
        with pytest.raises(Killed):
            run(*words)
    assert dead

    said = run(*words)
    committed = step in ("settled", "told") or (step, moment) == ("logged", "after")
    assert said.status == (2 if committed else 0)
    assert is_tidy()
    added = [row for row in rows(TABLE) if row not in before]
    ((left, _, rejected),) = listed(run)
    assert len(added) + rejected == REJECTS == len(rows(TABLE)) - len(before) + rejected
    assert len(kept(left)) == rejected > 0
    good = [item for item in history(run) if item == "success"]
    assert len(good) == 2
    assert set(history(run)) <= {"success", "failed"}


def test_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: Ctrl-C leaves nothing half done, and a failed run in the history."""
    batch = backfill(run)
    before = rows(TABLE)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "finish", interrupt)
        said = run("rejects", "replay", batch, FIXED)
    assert said.status == 1
    assert f"To go on: {PROGRAM} rejects replay {batch}" in said.err
    assert is_tidy()
    assert rows(TABLE) == before
    assert history(run) == ["failed", "success"]
    assert run("rejects", "replay", batch, FIXED).status == 0


def test_damaged_rejects(run: Run) -> None:
    """A changed file of rejects stops the replay with an error, and nothing is added."""
    batch, before = backfill(run), rows(TABLE)
    (path,) = TABLE.glob("_batches/*/row_errors/*")
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:2]) + "{}\n")
    said = run("rejects", "replay", batch, FIXED)
    assert said.status == 1
    assert "line 3, is no reject any more" in said.err
    assert rows(TABLE) == before
    path.write_text(whole)
    assert run("rejects", "replay", batch, FIXED).status == 0


def test_while_somebody_else_writes(run: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    """A replay is refused while another process has the lock of the dataset."""
    batch = backfill(run)
    flow = flow_of(sandbox.url, tmp_path / TABLE)
    with Catalog(tmp_path / "home") as catalog:
        table = Dataset(tmp_path / TABLE, table_schema(RULES), flow.source)
        with Runner(flow, RULES, table, catalog, Options()).prepared():
            said = run("rejects", "replay", batch, FIXED)
            assert said.status == 1
            assert f"in use by process {os.getpid()}" in said.err
            assert listed(run) == [(batch, "replayable", REJECTS)]


def test_the_password_is_nowhere(run: Run) -> None:
    """P7: neither the output nor a file of a replay holds the password."""
    batch = backfill(run)
    said = [
        run("rejects", "list", "--debug"), run("rejects", "show", batch, "--json"),
        run("rejects", "replay", batch, "--debug"), run("rejects", "replay", batch, FIXED),
    ]  # fmt: skip
    assert "Traceback" in said[2].err
    assert PASSWORD not in "".join(one.out + one.err for one in said)
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert {"batch.json", "catalog.sqlite3"} <= {path.name for path in files}
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
