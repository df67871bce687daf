"""Where pulls run: in this process, or in processes of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.sync.executors.base import AcquireSlot, Executor, ProgressCallback
from engine.sync.executors.inline import InlineExecutor
from engine.sync.executors.processes import ProcessExecutor


@contextmanager
def open_executor(
    workers: int, on_progress: ProgressCallback, acquire_slot: AcquireSlot
) -> Iterator[Executor]:
    """Open an executor for `workers` pulls at a time. Kill what still runs at the end (P8)."""
    inline = InlineExecutor(on_progress, acquire_slot)
    if workers == 1:
        yield inline
        return
    executor = ProcessExecutor(workers, on_progress, inline)
    try:
        yield executor
    finally:
        executor.stop()
