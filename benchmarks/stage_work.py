"""The stages of a pull, one after the other in one thread, each with its own clock.

As a program it prints, for the plain way of a record and for the short one, what each stage took.
The loop is that of `engine.run.pull` without its threads; whoever changes that one changes this.
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
    """Nanoseconds of each stage."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._since = time.perf_counter_ns()

    def start(self) -> None:
        """From now on."""
        self._since = time.perf_counter_ns()

    def stop(self, stage: str) -> None:
        """Until now; and from now on for the next one."""
        now = time.perf_counter_ns()
        self.spent[stage] += now - self._since
        self._since = time.perf_counter_ns()

    def each(self, items: Iterable[Any], stage: str) -> Iterator[Any]:
        """The items, on the clock while they are made."""
        found = iter(items)
        while True:
            self.start()
            item = next(found, None)
            self.stop(stage)
            if item is None:
                return
            yield item


def gunzip(source: Path, clock: Clock) -> list[bytes]:
    """The decompressed body in pieces."""
    packed = source.read_bytes()
    unzip = isal_zlib.decompressobj(31)
    pieces = (unzip.decompress(packed[at : at + PIECE]) for at in range(0, len(packed), PIECE))
    return list(clock.each(filter(None, pieces), "gunzip"))


def once(given: dict[str, Any], way: str, folder: Path) -> tuple[Clock, float]:
    """All stages over all lines; the clock, and the percentage of lines that went the short way."""
    mapping_document, schema_document = documents(given["more"])
    schema, mapping = Rules(("x", mapping_document), ("x", schema_document)).compile()
    day = date.fromisoformat(FIRST)
    clock = Clock()
    chunks = gunzip(Path(given["source"]), clock)
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
    """Measure both ways, and print the figures as JSON."""
    given = json.loads(argument)
    count = sum(
        1 for chunk in gunzip(Path(given["source"]), Clock()) for _ in range(chunk.count(b"\n"))
    )
    gc.disable()  # as a pull does
    found: dict[str, Any] = {}
    for number in range(given["warm"] + given["repeats"]):
        for way in (PLAIN, SHORT):
            folder = Path(given["folder"]) / f"{way}-{number}"
            clock, percent = once(given, way, folder)
            if way == SHORT and percent < 50:
                continue  # it declines such events, so that both ways are the plain one
            gc.collect()
            kept = found.setdefault(way, {"notes": {}, "stages": {}})
            if way == SHORT:
                kept["notes"]["direct"] = f"{percent:.0f} % of the lines went this way"
            for stage, spent in clock.spent.items():
                if number >= given["warm"]:
                    kept["stages"].setdefault(stage, []).append(round(spent / max(count, 1), 1))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
