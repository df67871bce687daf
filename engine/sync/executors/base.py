"""What the runner needs of an executor, and the rate at which a pull reports its progress."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from engine.model.batch import Tally
from engine.model.flow import Run
from engine.sync.pull import StagedRun
from engine.sync.pull_task import Credentials, PullTask

ProgressCallback = Callable[[str, int, int], None]  # run id, lines and bytes so far
AcquireSlot = Callable[[Run], None]  # returns once the run may make one more request
INTERVAL = 0.2  # seconds between two progress reports of a pull


class Executor(Protocol):
    """Runs pulls. A future ends with the staged run, an EtlError, or BrokenProcessPool."""

    def submit(self, task: PullTask, credentials: Credentials) -> Future[StagedRun]:
        """Start a pull."""

    def forward_progress(self) -> None:
        """Pass the progress of pulls in other processes on to the callback."""

    def restart(self) -> None:
        """Start anew after a worker process was killed, which ends all running pulls."""


def throttled(run_id: str, on_progress: ProgressCallback) -> Callable[[Tally], None]:
    """Report a tally at most once in INTERVAL seconds: a batch takes a millisecond."""
    reported = 0.0

    def report(tally: Tally) -> None:
        nonlocal reported
        if (now := time.monotonic()) - reported >= INTERVAL:
            reported = now
            on_progress(run_id, tally.lines, tally.bytes_read)

    return report
