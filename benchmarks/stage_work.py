"""Run the stages of a pull one after the other in one thread, and time each stage.

As a program, it prints the time of each stage, on the slow path and on the fast path. The loop is a
copy of the one in `engine.sync.pull`, without threads: change both together.
"""

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from isal import isal_zlib

from benchmarks.server import FIRST
from benchmarks.shapes import documents
from engine.dataset.dedup import Duplicates
from engine.dataset.parquet_writer import Writer
from engine.sync.pull import Rules
from engine.transform import decode
from engine.transform.columns import Columns
from engine.transform.fast_path import Direct
from engine.transform.validate import Checker

PIECE = 1 << 18
PLAIN, SHORT = "the plain way", "the short way"


class Clock:
    """The nanoseconds of each stage."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._since = time.perf_counter_ns()

    def start(self) -> None:
        """Start timing."""
        self._since = time.perf_counter_ns()

    def stop(self, stage: str) -> None:
        """Add the time until now to a stage, and start timing the next one."""
        now = time.perf_counter_ns()
        self.spent[stage] += now - self._since
        self._since = time.perf_counter_ns()

    def each(self, items: Iterable[Any], stage: str) -> Iterator[Any]:
        """Yield the items, and time how long it takes to produce them."""
        found = iter(items)
        while True:
            self.start()
            item = next(found, None)
            self.stop(stage)
            if item is None:
                return
            yield item


def gunzip(source: Path, clock: Clock) -> list[bytes]:
    """Yield the decompressed body in pieces."""
    packed = source.read_bytes()
    unzip = isal_zlib.decompressobj(31)
    pieces = (unzip.decompress(packed[at : at + PIECE]) for at in range(0, len(packed), PIECE))
    return list(clock.each(filter(None, pieces), "gunzip"))


def once(options: dict[str, Any], way: str, folder: Path) -> tuple[Clock, float]:
    """Run all stages; return the clock and the percentage of lines on the fast path."""
    mapping_document, schema_document = documents(options["more"])
    schema, mapping = Rules(("x", mapping_document), ("x", schema_document)).compile()
    day = date.fromisoformat(FIRST)
    clock = Clock()
    chunks = gunzip(Path(options["source"]), clock)
    columns = Columns(
        schema, mapping.destinations, mapping.restore, days=(day, day), keep_unmapped=True
    )
    checker, direct = (
        Checker(schema),
        Direct(mapping.rules, mapping.destinations, keep_unmapped=True),
    )
    inner = Clock()

    def ahead(pieces: Iterable[Any]) -> Iterator[Any]:
        for piece in pieces:
            inner.start()
            batch = direct.read(piece) if isinstance(piece, bytes) and direct.willing() else None
            inner.stop("direct")
            yield batch or piece

    total = short = 0
    with (
        closing(Duplicates(folder / "duplicates")) as duplicates,
        closing(Writer(folder / "files", "x", columns.arrow_schema)) as writer,
    ):
        reading = decode.read(chunks, direct=ahead if way == SHORT else None)
        for batch in clock.each(reading, "lines"):
            total += len(batch.lines)
            short += len(batch.lines) if batch.columns else 0
            if not batch.columns:
                mapping.apply(batch)
                clock.stop("mapping")
                if way == SHORT:
                    direct.learn(batch.names)
            clock.start()
            columns.build(batch)
            clock.stop("columns")
            checker.check(batch)
            clock.stop("check")
            duplicates.add(batch.keys)
            clock.stop("duplicates")
            writer.write(batch)
            clock.stop("writer with duplicates")
        clock.start()
        duplicates.superseded()
        clock.stop("duplicates")
        writer.finish()
        clock.stop("writer with duplicates")
    clock.spent["lines"] -= inner.spent["direct"]
    clock.spent.update(inner.spent)
    return clock, 100 * short / max(total, 1)


def main(argument: str) -> None:
    """Measure both paths and print the figures as JSON."""
    options = json.loads(argument)
    count = sum(
        1 for chunk in gunzip(Path(options["source"]), Clock()) for _ in range(chunk.count(b"\n"))
    )
    gc.disable()  # as in a pull
    found: dict[str, Any] = {}
    for number in range(options["warm"] + options["repeats"]):
        for way in (PLAIN, SHORT):
            folder = Path(options["folder"]) / f"{way}-{number}"
            clock, percent = once(options, way, folder)
            if way == SHORT and percent < 50:
                continue  # the fast path refuses such events, so both would be the slow path
            gc.collect()
            kept = found.setdefault(way, {"notes": {}, "stages": {}})
            if way == SHORT:
                kept["notes"]["direct"] = f"{percent:.0f} % of the lines went this way"
            for stage, spent in clock.spent.items():
                if number >= options["warm"]:
                    kept["stages"].setdefault(stage, []).append(round(spent / max(count, 1), 1))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
