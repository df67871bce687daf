"""Add one more day to a table of many batches. As a program, it prints the time to plan the day and
the time to commit it. The tables are built once and cached.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.process import ROOT
from benchmarks.rounds import new_folder
from benchmarks.server import CACHE, FIRST
from engine.dataset.contents import Contents
from engine.dataset.dataset import Dataset
from engine.dataset.parquet_writer import StagedFile, Writer
from engine.dataset.positions import app_id
from engine.model.batch import Batch
from engine.model.flow import Connection, Flow, Secret
from engine.sync import open_flow
from engine.sync.backfill import missing_days
from engine.sync.pull import table_schema

BEGIN = date(1990, 1, 1)
MADE_BY = (
    "engine/dataset/contents.py",
    "engine/dataset/dataset.py",
    "engine/dataset/table.py",
    "engine/dataset/parquet_writer.py",
    "schemas/mixpanel-events.json",
)
SINCE = 50  # commits since the last checkpoint, the average
VALUES = {pa.string(): "x", pa.int64(): 1, pa.bool_(): True}


class Table:
    """The table at `root`, and a complete file of one row, in `made`, for all its commits."""

    def __init__(self, root: Path, made: Path) -> None:
        connection = Connection("http://127.0.0.1", "", Secret(""), 1)
        self.flow = Flow("events", connection, str(root), windows="day")
        self.schema = table_schema(open_flow.rules_of(self.flow))
        self.root = root
        self._made = made
        made.mkdir()
        self._file = self._one_row()

    def open(self) -> Dataset:
        """Open the table as a command does."""
        return Dataset(self.root, self.schema, self.flow.source)

    def stage(self, dataset: Dataset, batch_id: str, day: date) -> list[StagedFile]:
        """Return what a pull of `day` stages for the commit."""
        target = f"event_date={day}/{batch_id}-0.parquet"
        link(self._made / self._file.path, dataset.staging(batch_id) / target)
        return [replace(self._file, path=target, day=day)]

    def _one_row(self) -> StagedFile:
        record = self.schema.field(0)
        row = {each.name: VALUES[each.type] for each in record.type}
        arrays = [pa.array([row], record.type), pa.nulls(1, pa.string())]
        table = pa.RecordBatch.from_arrays(
            [*arrays, pa.array([BEGIN], pa.date32())], schema=self.schema
        )
        writer = Writer(self._made, "x", self.schema)
        writer.write(Batch(table=table, keys=[[None]] * 5))
        staged = writer.finish()
        writer.close()
        return staged.files[0]

    def one_more(self, day: date) -> tuple[float, float]:
        """Return the ms from opening the table to a plan with `day`, and the ms of its commit."""
        started = time.perf_counter()
        dataset = self.open()
        with dataset.locked():
            dataset.create()
            due = missing_days(self.flow, dataset, [day])
            planned = time.perf_counter()
            batch_id = f"{day.toordinal():026}"
            files = self.stage(dataset, batch_id, day)
            staged = time.perf_counter()
            held = dataset.held(due)
            dataset.check_shrink(held, files, self.flow.shrink_guard_percent)
            now = time.time_ns() // 1_000_000
            dataset.commit(batch_id, files, held, {app_id(self.flow, day): now}, None)
            dataset.discard(batch_id)
        ended = time.perf_counter()
        return (planned - started) * 1000, (ended - staged) * 1000

    def fill(self, batches: int) -> None:
        """Fill the table with batches of one day each.

        The program commits the first batch. The log entries of the others are copies with another
        day, batch id and file number: the same as the program would write, in seconds instead of
        minutes.
        """
        from deltalake import DeltaTable

        self.one_more(BEGIN)
        log = self.root / "_delta_log"
        first = (log / f"{1:020}.json").read_text("utf-8")
        old_id, old_file = f"{BEGIN.toordinal():026}", next(self.root.glob("event_date=*/*"))
        for number in range(1, batches):
            if number == batches - SINCE:
                DeltaTable(self.root).create_checkpoint()
            day = BEGIN + timedelta(days=number)
            new_id = f"{day.toordinal():026}"
            entry = first.replace(old_id, new_id).replace(str(BEGIN), str(day))
            entry = entry.replace(str(_number(BEGIN)), str(_number(day)))
            (log / f"{number + 1:020}.json").write_text(entry, "utf-8")
            link(old_file, self.root / f"event_date={day}" / f"{new_id}-0.parquet")


def _number(day: date) -> int:
    """Return the positions that a commit sets for a day with one file of its batch."""
    return Contents.of([(f"event_date={day}/{day.toordinal():026}-0.parquet", 1)]).files


def link(source: Path, target: Path) -> None:
    """Link the file under another name; no file is ever changed."""
    target.parent.mkdir(parents=True)
    os.link(source, target)


def table(batches: int, folder: Path) -> Table:
    """Copy the cached table with this number of batches to `folder`, to write to it."""
    key = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in MADE_BY)).hexdigest()[:12]
    cached = CACHE / "tables" / f"{batches}-{key}"
    if not cached.exists():
        new = Table(folder / "new", folder / "new-made")
        new.fill(batches)
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new.root, cached)
    shutil.copytree(cached, folder / "table", copy_function=os.link)
    return Table(folder / "table", folder / "made")


def main(argument: str) -> None:
    """Measure and print the figures as JSON."""
    wanted: dict[str, Any] = json.loads(argument)
    CACHE.mkdir(exist_ok=True)
    with new_folder(CACHE) as folder:  # hard links need one file system
        many = table(wanted["batches"], folder)
        first = date.fromisoformat(FIRST)
        days = [first + timedelta(days=number) for number in range(wanted["days"] + 1)]
        times = [many.one_more(day) for day in days][1:]  # the first one is a warm-up
    figures = {
        "ms": [round(plan + commit, 2) for plan, commit in times],
        "ms to plan": [round(plan, 2) for plan, _ in times],
        "ms to commit": [round(commit, 2) for _, commit in times],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
