"""Where pulls run: in this process, or in processes of their own.

It knows one thing about a pull: it ends with what it staged or with an EtlError.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
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
from typing import Protocol

from engine.errors import EtlError
from engine.mixpanel.timeouts import Timeouts
from engine.model.batch import Tally
from engine.model.flow import Flow, Run
from engine.sync.pull import Beside, Rules, StagedRun, pull
from engine.transform.second_process import cores

ProgressCallback = Callable[[str, int, int], None]  # run id, lines and bytes so far
RunContext = Callable[[Run], None]  # returns when one more request of the run may be made
STOPS = (SIGINT, SIGTERM)
EVERY = 0.2  # seconds between two words about a pull


class Executor(Protocol):
    """Something that pulls."""

    def submit(
        self,
        flow: Flow,
        rules: Rules,
        run: Run,
        directory: Path,
        limits: Timeouts,
        existing_keys: Beside,
    ) -> Future[StagedRun]:
        """Start a pull; `existing_keys` are those of the table, for windows that add rows."""

    def listen(self) -> None:
        """Pass on what pulls elsewhere told of their progress."""

    def restart(self) -> None:
        """Start anew after a worker process was killed, which ends the pulls of the others too."""


@contextmanager
def pulls(
    workers: int, advance: ProgressCallback, turn: RunContext = lambda _: None
) -> Iterator[Executor]:
    """A place for `workers` pulls at a time. Whatever still runs at the end is killed (P8)."""
    if workers == 1:
        yield _InlineExecutor(advance, turn)
        return
    elsewhere = _ProcessExecutor(workers, advance, _InlineExecutor(advance, turn))
    try:
        yield elsewhere
    finally:
        elsewhere.stop()


class _InlineExecutor:
    """Pulls in this process, one after the other: a submit returns when its pull has ended."""

    def __init__(self, advance: ProgressCallback, turn: RunContext) -> None:
        self._advance = advance
        self._turn = turn

    def submit(
        self,
        flow: Flow,
        rules: Rules,
        run: Run,
        directory: Path,
        limits: Timeouts,
        existing_keys: Beside,
    ) -> Future[StagedRun]:
        future: Future[StagedRun] = Future()
        try:
            tell = _now_and_then(run.id, self._advance)
            held = existing_keys if run.window.arrival else None
            twin = cores() > 1
            turn = partial(self._turn, run)
            staged = pull(
                flow, rules, run, directory, tell, limits, twin=twin, existing_keys=held, turn=turn
            )
            future.set_result(staged)
        except EtlError as error:
            future.set_exception(error)
        return future

    def listen(self) -> None:
        pass

    def restart(self) -> None:
        pass


class _ProcessExecutor:
    """Pulls in processes that are started afresh, so that none inherits a lock or a thread.

    An arrival window is pulled `here`: it comes alone, and needs what the table holds beside it.
    """

    def __init__(self, workers: int, advance: ProgressCallback, here: _InlineExecutor) -> None:
        self._advance = advance
        self._here = here
        self._workers = workers
        self._open()

    def _open(self) -> None:
        # The queue too is a new one each time: a worker that was killed may have held its lock.
        context = get_context("spawn")
        self._words: SimpleQueue[tuple[str, int, int]] = context.SimpleQueue()
        self._pool = ProcessPoolExecutor(self._workers, context, _settle_in, (self._words,))

    def submit(
        self,
        flow: Flow,
        rules: Rules,
        run: Run,
        directory: Path,
        limits: Timeouts,
        existing_keys: Beside,
    ) -> Future[StagedRun]:
        if run.window.arrival:
            return self._here.submit(flow, rules, run, directory, limits, existing_keys)
        try:
            with _not_interrupted():
                return self._pool.submit(_pull, flow, rules, run, directory, limits)
        except BrokenProcessPool as error:  # a worker died in the meantime
            failed: Future[StagedRun] = Future()
            failed.set_exception(error)
            return failed

    def listen(self) -> None:
        while not self._words.empty():
            self._advance(*self._words.get())

    def restart(self) -> None:
        self.stop()  # nobody writes into a directory that is about to be thrown away
        self._open()

    def stop(self) -> None:
        processes = list((self._pool._processes or {}).values())  # from 3.14 on: kill_workers
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


@contextmanager
def _not_interrupted() -> Iterator[None]:
    """Hear of a stop afterwards only: a process that is being started needs its parent's help.

    Nor must it hear of one itself before it can say that it does not care: what is blocked here
    stays blocked in it. Blocking is not enough for us, since another thread may get the signal.
    """
    heard = list[int]()
    mask = pthread_sigmask(SIG_BLOCK, STOPS)
    handlers = {sign: signal(sign, lambda number, _: heard.append(number)) for sign in STOPS}
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal(sign, handler)
        pthread_sigmask(SIG_SETMASK, mask)
        if heard:
            raise_signal(heard[0])


_words: "SimpleQueue[tuple[str, int, int]]"


def _settle_in(words: "SimpleQueue[tuple[str, int, int]]") -> None:
    """Make a new worker process end with its parent, however that ends, and at its word alone."""
    global _words
    _words = words
    for sign in STOPS:
        signal(sign, SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, name="follow", daemon=True).start()


def _pull(flow: Flow, rules: Rules, run: Run, directory: Path, limits: Timeouts) -> StagedRun:
    def put(run_id: str, lines: int, size: int) -> None:
        _words.put((run_id, lines, size))

    return pull(flow, rules, run, directory, _now_and_then(run.id, put), limits)


def _now_and_then(run_id: str, advance: ProgressCallback) -> Callable[[Tally], None]:
    """Tells at most once in EVERY seconds: a batch takes a millisecond."""
    told = 0.0

    def tell(tally: Tally) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= EVERY:
            told = now
            advance(run_id, tally.lines, tally.bytes_read)

    return tell
