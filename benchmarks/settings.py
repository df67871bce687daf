"""What is measured, how much and how often. Pure data, filled by the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.result import FOLDER, Result, begin

SHAPES = ("small", "wide", "typed", "days")  # `days`: two days of `small`
PARTS = (
    *("events", "properties", "rules", "expressions", "rejects", "duplicates", "days", "batches"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a measurement.

    events   events per window; `memory` has the sizes of several windows
    runs     rounds that count, after `warm` rounds that do not
    batches  batches in the tables to which one more day is committed
    history  runs in a catalog
    quick    tiny, to show that it works
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
        """Return an empty result of the subcommand `what`."""
        return begin(
            what, events=self.events, runs=self.runs, history=self.history, quick=self.quick
        )
