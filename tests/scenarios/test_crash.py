"""P2 at each system call: kill the command before it, or cut the power, and run it again.

Each test tries some of the moments of a command; CRASHES=all tries every one (`make test-long`).
"""

import copy
import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from engine.catalog.database import Catalog
from engine.control.run_payload import payload
from engine.sandbox import Sandbox, Spec
from tests.support import crashes
from tests.support.crashes import Crasher, Cut, Disk, Step, build

pytestmark = pytest.mark.skipif(crashes.COMPILER is None, reason="there is no C compiler")

SPEC = Spec(events_per_day=30, duplicate_percent=5, reject_percent=8)
EVERY = os.environ.get("CRASHES") == "all"
KILLS, CUTS = 3, 2  # moments of each case, otherwise
DECISIVE = ("intent", "_delta_log", "event_date=", "_batches", "_superseded")  # of a commit
LENIENT = {"partial_ingestion_percent": 50}
TOGETHER = {**LENIENT, "days_per_request": 2}
REPLACED = {**TOGETHER, "force": True}

SCENARIOS: dict[str, dict[str, Any]] = {
    "two days in one commit": TOGETHER,
    "a day a commit": {**LENIENT, "days_per_request": 1},
    "days that are replaced": REPLACED,
    "replaced files that stay for an hour": {**REPLACED, "keep_superseded_hours": 1},
    "a commit with a checkpoint": REPLACED,
}


@dataclass
class Case:
    """A command, what is on the disk before it, and what is there after it if nothing happens."""

    name: str
    before: Path
    base: Path
    rows: list[str]
    rejects: int
    steps: list[Step]
    start: Disk
    journal: bytes

    @property
    def options(self) -> dict[str, Any]:
        return SCENARIOS[self.name]

    def restore(self) -> None:
        """Put everything back to where it was before the command."""
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.copytree(self.before, self.base)


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crasher]:
    library = crashes.compiled(tmp_path_factory.mktemp("shim"))
    with Sandbox(SPEC) as sandbox, Crasher(library, sandbox.url) as running:
        yield running


@pytest.fixture(scope="module", params=SCENARIOS)
def case(
    request: pytest.FixtureRequest, crasher: Crasher, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    folder, name = tmp_path_factory.mktemp("crash"), request.param
    base, before, journal = folder / "disk", folder / "before", folder / "journal"
    base.mkdir()
    if SCENARIOS[name].get("force"):
        assert set(crasher.run(base, options=LENIENT)["statuses"]) == {"success"}
    if name == "a commit with a checkpoint":
        interval = {"delta.checkpointInterval": "2"}
        DeltaTable(base / "table").alter.set_table_properties(interval)
    shutil.copytree(base, before)
    disk = Disk(base)
    start = copy.deepcopy(disk)
    done = crasher.run(base, journal=journal, options=SCENARIOS[name])
    assert set(done["statuses"]) == {"success"}, done
    steps = list(disk.play(journal.read_bytes()))
    found, rejects = _rows(base), _rejects(base)
    assert rejects
    return Case(name, before, base, found, rejects, steps, start, journal.read_bytes())


# Killed ------------------------------------------------------------------------------------


def test_the_journal_has_the_calls_of_every_library(case: Case) -> None:
    """Played to its end, the model of the disk holds every file and byte of the disk."""
    case.restore()
    disk = copy.deepcopy(case.start)
    assert disk.image(Cut("nothing lost", 1, "all")) == _files(case.base)
    for _ in disk.play(case.journal):
        pass
    build(case.base, disk.image(Cut("nothing lost", 1, "all")))
    _check_table(case, "nothing")


def test_killed_before_a_call(case: Case, crasher: Crasher) -> None:
    """P2, P4: killed before any call, the same command gives the table of an undisturbed run."""
    for step in _some(case, KILLS):
        case.restore()
        killed = crasher.run(case.base, kill_at=step.call, options=case.options)
        # Threads make it a few calls more or less.
        if killed["signal"] != signal.SIGKILL:
            assert step.call > case.steps[-1].call - 50, (step, killed)
        _check_again(case, crasher, f"killed before {step}")
        _check_history(case)


# The power cut -----------------------------------------------------------------------------


def test_power_cut(case: Case, crasher: Crasher) -> None:
    """P2, P4: the same if everything that was not synced is lost, whole or in part."""
    tried = set[int]()
    for step, cut, image in _images(case):
        build(case.base, image)
        with Catalog(case.base / "home") as catalog:
            catalog.history()
        table = hash(frozenset(each for each in image.items() if each[0].startswith("table")))
        if table not in tried:
            tried.add(table)
            build(case.base, image)
            _check_again(case, crasher, f"power cut before {step}, {cut.name}")


def test_a_reported_commit_survives_a_power_cut(case: Case) -> None:
    """P2: once a command has succeeded, no power cut takes any of its rows away."""
    disk = copy.deepcopy(case.start)
    for _ in disk.play(case.journal):
        pass
    for cut in crashes.cuts(0):
        build(case.base, disk.image(cut))
        _check_table(case, f"power cut after the end, {cut.name}")


def test_the_rejects_of_a_failed_run_survive_a_power_cut(crasher: Crasher, tmp_path: Path) -> None:
    """P3: once a run is reported as failed, no power cut takes its rejects away."""
    base, journal = tmp_path / "disk", tmp_path / "journal"
    base.mkdir()
    disk = Disk(base)
    strict = {**TOGETHER, "partial_ingestion_percent": 1, "partial_ingestion_min": 0}
    assert set(crasher.run(base, journal=journal, options=strict)["statuses"]) == {"failed"}
    rejects = sorted(each for each in base.rglob("_batches/*/*") if each.is_file())
    rejects += sorted(base.rglob("_batches/*/row_errors/*"))
    held = {str(path.relative_to(base)): path.read_bytes() for path in rejects}
    assert len(held) >= 3
    for _ in disk.play(journal.read_bytes()):
        pass
    for cut in crashes.cuts(0):
        left = disk.image(cut)
        assert {path: left.get(path) for path in held} == held, cut.name


def _images(case: Case) -> Iterator[tuple[Step, Cut, dict[str, bytes | None]]]:
    """Yield what may be left after each moment; for most writes only what involves no chance."""
    disk = copy.deepcopy(case.start)
    wanted = set(_some(case, CUTS))
    for step in disk.play(case.journal):
        if step in wanted:
            certain = step.kind == "write" and not any(part in step.paths for part in DECISIVE)
            cuts = crashes.cuts(step.call)
            if not EVERY:
                cuts = [cuts[0], *cuts[-2:]]
            for cut in cuts[: 3 if certain else None]:
                yield step, cut, disk.image(cut)


def _some(case: Case, number: int) -> list[Step]:
    """Return all moments, or `number` of them, all but one within a commit."""
    if EVERY:
        return case.steps
    dice = random.Random(case.name)
    decisive = [step for step in case.steps if any(part in step.paths for part in DECISIVE)]
    decisive = [step for step in decisive if step.kind != "write"]
    return [*dice.sample(decisive, number - 1), *dice.sample(case.steps, 1)]


# What has to be there ----------------------------------------------------------------------


def _check_again(case: Case, crasher: Crasher, what: str) -> None:
    again = crasher.run(case.base, options=case.options)
    assert set(again.get("statuses", "?")) <= {"success"}, (what, again)
    assert "calls" in again, (what, again)
    _check_table(case, what)
    left = [path.name for path in (case.base / "table" / "_staging").iterdir()]
    assert left == ["lock"], what


def _check_table(case: Case, what: str) -> None:
    """Check the rows, the files, of which none is left over, and the rejects (P3)."""
    assert _rows(case.base) == case.rows, what
    assert _rejects(case.base) == case.rejects, what
    table = case.base / "table"
    there = {str(path.relative_to(table)) for path in table.glob("event_date=*/*")}
    waiting = (json.loads(path.read_text()) for path in table.glob("_superseded/*"))
    due = set(chain.from_iterable(each["remove"] for each in waiting))
    assert there - due == set(_live(case.base)), what
    assert not due or "keep_superseded_hours" in case.options, what


def _check_history(case: Case) -> None:
    """P3: no run stays open, and the newest run records add up to what is in the table."""
    with Catalog(case.base / "home") as catalog:
        items = [(entry.window.days, payload(entry)["metrics"]) for entry in catalog.history()]
    rows = rejects = 0
    told = set[Any]()
    for days, metrics in items:
        status = metrics["statusSummary"]["status"]
        assert status in ("success", "failed")
        if status == "success" and not told & set(days):
            told |= set(days)
            rows += metrics["recordSummary"]["outputRecordCount"]
            rejects += metrics["recordSummary"]["failedRecordCount"]
    assert (rows, rejects) == (len(case.rows), case.rejects)


def _live(base: Path) -> list[str]:
    """Return the files of the table, by their paths below the root."""
    table = pa.table(DeltaTable(base / "table").get_add_actions())
    return list(table["path"].to_pylist())


def _rows(base: Path) -> list[str]:
    found = DeltaTable(base / "table").to_pyarrow_table().to_pylist()
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in found)


def _rejects(base: Path) -> int:
    """Return how many lines the batches of the live files have rejected."""
    batches = {Path(path).name.rpartition("-")[0] for path in _live(base)}
    folders = [base / "table" / "_batches" / batch for batch in batches]
    notes = sum(json.loads((each / "batch.json").read_text())["rejected"] for each in folders)
    files = chain.from_iterable(each.glob("row_errors/*.json") for each in folders)
    lines = chain.from_iterable(path.read_text().splitlines() for path in files)
    assert sum(bool(json.loads(line)["_corrupt_record"]) for line in lines) == notes
    return int(notes)


def _files(base: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {"": None}
    for path in base.rglob("*"):
        found[str(path.relative_to(base))] = None if path.is_dir() else path.read_bytes()
    return found
