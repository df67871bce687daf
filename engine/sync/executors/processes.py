"""Runs pulls in worker processes that are spawned, so that none inherits a lock or a thread."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import SimpleQueue
from signal import (
    SIG_BLOCK,
    SIG_IGN,
    SIG_SETMASK,
    SIGINT,
    SIGTERM,
    pthread_sigmask,
    raise_signal,
    signal,
)

from engine.errors import InputError
from engine.sync.executors.base import Executor, ProgressCallback, throttled
from engine.sync.pull import StagedRun, pull
from engine.sync.pull_task import Credentials, PullTask

STOPS = (SIGINT, SIGTERM)
LONGEST_CREDENTIALS = 1 << 14  # bytes; a pipe holds them before a worker reads
ProgressQueue = SimpleQueue[tuple[str, int, int]]


class ProcessExecutor:
    """Runs pulls in worker processes.

    A task is pickled; its credentials go through a pipe that the worker gets with it (P7). A window
    of several requests is pulled by `inline`: only this process can acquire slots for them.
    """

    def __init__(self, workers: int, on_progress: ProgressCallback, inline: Executor) -> None:
        self._on_progress = on_progress
        self._inline = inline
        self._workers = workers
        self._context = get_context("spawn")
        self._open()

    def _open(self) -> None:
        # A new queue as well: a worker that was killed may have held the lock of the old one.
        self._progress: ProgressQueue = self._context.SimpleQueue()
        self._pool = ProcessPoolExecutor(
            self._workers, self._context, _start_worker, (self._progress,)
        )

    def submit(self, task: PullTask, credentials: Credentials) -> Future[StagedRun]:
        """Start the pull in a worker process. Raises nothing: the future holds every error."""
        if len(task.run.window.requests) > 1:
            return self._inline.submit(task, credentials)
        failed: Future[StagedRun] = Future()
        try:
            with _deferred_stops():
                return self._pool.submit(_pull, task, self._piped(credentials))
        except (BrokenProcessPool, InputError) as error:  # a worker died in the meantime
            failed.set_exception(error)
            return failed

    def _piped(self, credentials: Credentials) -> Connection:
        """Return the end of a pipe from which a worker reads the credentials."""
        value = credentials.as_bytes()
        if len(value) > LONGEST_CREDENTIALS:
            raise InputError("The name and the secret of the service account are too long.")
        receiver, sender = self._context.Pipe(duplex=False)
        with sender:
            sender.send_bytes(value)
        return receiver

    def forward_progress(self) -> None:
        """Pass the progress of the workers on to the callback."""
        while not self._progress.empty():
            self._on_progress(*self._progress.get())

    def restart(self) -> None:
        """Kill all workers, so that none writes into a discarded directory, and start anew."""
        self.stop()
        self._open()

    def stop(self) -> None:
        """Kill all workers."""
        processes = list((self._pool._processes or {}).values())  # from 3.14 on: kill_workers
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


@contextmanager
def _deferred_stops() -> Iterator[None]:
    """Defer stop signals while a worker process is started: its start needs this process.

    The new process inherits the blocked signals until it ignores them. Blocking is not enough in
    this process, since another thread may receive the signal; so a handler notes it.
    """
    received = list[int]()
    mask = pthread_sigmask(SIG_BLOCK, STOPS)
    handlers = {sign: signal(sign, lambda number, _: received.append(number)) for sign in STOPS}
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal(sign, handler)
        pthread_sigmask(SIG_SETMASK, mask)
        if received:
            raise_signal(received[0])


_progress: ProgressQueue  # in a worker: where its pulls report


def _start_worker(progress: ProgressQueue) -> None:
    """Ignore stop signals in the worker and exit when the parent process exits."""
    global _progress
    _progress = progress
    for sign in STOPS:
        signal(sign, SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="follow", daemon=True).start()


def _pull(task: PullTask, pipe: Connection) -> StagedRun:
    def report(run_id: str, lines: int, size: int) -> None:
        _progress.put((run_id, lines, size))

    with pipe:
        credentials = Credentials.from_bytes(pipe.recv_bytes())
    return pull(task, credentials, throttled(task.run.id, report))
