"""What the runner needs of a backfill, an incremental sync or a replay: windows, and their commits.

Where windows come from is all that these three differ in; the runner is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from engine.dataset.dataset import Planned
from engine.errors import EtlError
from engine.model.batch import BatchManifest, Tally
from engine.model.flow import Run
from engine.model.window import Window
from engine.sync.pull import StagedRun
from engine.sync.rejected_lines import RejectedLines


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a window: so many lines are committed, or it failed by `error`.

    split  its days are to be handed out again in smaller windows (P9)
    bad    of a split window, the days that are known to be its cause
    """

    window: Window
    lines: int = 0
    error: EtlError | None = None
    split: bool = False
    bad: frozenset[date] = frozenset()


class WindowSource(Protocol):
    """Hands out the windows of a flow."""

    def next_window(self) -> Window | None:
        """Return a window that was not handed out yet; None if there is none now."""

    def on_result(self, result: Result) -> None:
        """Take note of how a window ended."""

    def give_up(self) -> int:
        """Hand out no more windows; return the number of days that stay untried."""


class CommitPolicy(Protocol):
    """Decides what the commit of a window replaces and sets."""

    @property
    def rejects(self) -> RejectedLines | None:
        """The rejected lines to read; None to make a request."""

    def plan(self, run: Run, staged: StagedRun) -> Planned:
        """Return the rows replaced, by day, and the positions set, by the table as it is now (P5).

        Raises PermanentError if the commit must not be made.
        """

    def misaligned(self, run: Run, staged: StagedRun) -> EtlError | None:
        """Return an error if each day of the window must be requested alone; None if not."""

    def manifest(
        self, run: Run, tally: Tally, positions: Mapping[str, int] | None
    ) -> BatchManifest:
        """Describe the rejects of a batch.

        `positions`: those that its commit sets; None if the run failed.
        """

    def empty_days(self, run: Run, staged: StagedRun) -> list[date]:
        """Return the days, over when the pull began, of which it brought no line."""
