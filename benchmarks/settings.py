"""How much is measured, and how often: pure data, filled by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.result import FOLDER, Result, begin

SHAPES = ("small", "wide", "typed", "days")  # `days`: two days of `small`
PARTS = ("events", "properties", "rules", "rejects", "duplicates", "days", "batches")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person asked for.

    `events` a window; `memory`, of several windows; `runs` that count, after `warm` that do not;
    `batches` in tables that one more day is committed to; `history`, runs in a catalog.
    `quick`: tiny, to see that it works.
    """

    events: int = 1_000_000
    memory: Sequence[int] = (200_000, 1_000_000, 5_000_000)
    batches: Sequence[int] = (10, 1_000, 10_000)
    history: int = 100_000
    runs: int = 3
    warm: int = 1
    shapes: Sequence[str] = SHAPES
    parts: Sequence[str] = PARTS
    peers: Sequence[str] = ("none",)
    folder: Path = field(default=FOLDER)
    quick: bool = False

    def begin(self, what: str) -> Result:
        """An empty result of `what`."""
        return begin(
            what, events=self.events, runs=self.runs, history=self.history, quick=self.quick
        )
