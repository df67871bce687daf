"""What a backfill, an incremental sync and a replay give the runner: windows, and their commits."""

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
    """How a window ended: `lines` were committed, or `error` was raised.

    split  whether its days have to be handed out again in smaller windows (P9)
    bad    the days that are known to be the cause of a split
    """

    window: Window
    lines: int = 0
    error: EtlError | None = None
    split: bool = False
    bad: frozenset[date] = frozenset()


class WindowSource(Protocol):
    """Hands out the windows of a flow."""

    def next_window(self) -> Window | None:
        """Return a window that was not handed out yet; None if no window is due now."""

    def on_result(self, result: Result) -> None:
        """Learn how a window ended."""

    def give_up(self) -> int:
        """Hand out no more windows; return the number of days that stay untried."""


class CommitPolicy(Protocol):
    """Decides what the commit of a window replaces, and which positions it sets."""

    @property
    def rejects(self) -> RejectedLines | None:
        """The rejected lines to read; None to make a request."""

    def plan(self, run: Run, staged: StagedRun) -> Planned:
        """Return the rows replaced, by day, and the positions set, for the table as it is now (P5).

        Raises PermanentError for a commit that must not be made.
        """

    def misaligned(self, run: Run, staged: StagedRun) -> EtlError | None:
        """Return an error if each day of the window has to be requested alone; else None."""

    def manifest(
        self, run: Run, tally: Tally, positions: Mapping[str, int] | None
    ) -> BatchManifest:
        """Describe a batch with rejects; `positions`: set by its commit, None for a failed run."""

    def empty_days(self, run: Run, staged: StagedRun) -> list[date]:
        """Return the days, over when the pull began, of which it brought no line."""
