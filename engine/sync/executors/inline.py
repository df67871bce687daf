"""Runs pulls in this process, one after the other: `submit` returns when its pull has ended."""

from concurrent.futures import Future
from functools import partial

from engine.errors import EtlError
from engine.sync.executors.base import AcquireSlot, ProgressCallback, throttled
from engine.sync.pull import StagedRun, pull
from engine.sync.pull_task import Credentials, PullTask
from engine.transform.second_process import cores


class InlineExecutor:
    """Runs each pull within `submit`."""

    def __init__(self, on_progress: ProgressCallback, acquire_slot: AcquireSlot) -> None:
        self._on_progress = on_progress
        self._acquire_slot = acquire_slot

    def submit(self, task: PullTask, credentials: Credentials) -> Future[StagedRun]:
        """Run the pull and return its ended future."""
        future: Future[StagedRun] = Future()
        try:
            staged = pull(
                task,
                credentials,
                throttled(task.run.id, self._on_progress),
                partial(self._acquire_slot, task.run),
                second_core=cores() > 1,
            )
            future.set_result(staged)
        except EtlError as error:
            future.set_exception(error)
        return future

    def forward_progress(self) -> None:
        """Do nothing: the callback was called while the pull ran."""

    def restart(self) -> None:
        """Do nothing: there is no worker process."""
