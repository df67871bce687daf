"""The responses to a pull's requests, as decompressed chunks that a thread fetches ahead."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass

from engine.errors import EtlError, TooLate
from engine.mixpanel import client
from engine.model.batch import Tally
from engine.model.flow import Connection
from engine.model.window import Window, day_over, utc
from engine.sync.pull_task import PullTask

AHEAD = 4  # decompressed chunks that may wait for the main thread (P6)


@dataclass(frozen=True, slots=True)
class Input:
    """The bytes of one response, or of the rejected lines of a replay.

    `whole`: the bytes are no response, so that no end can be missing.
    """

    window: Window
    chunks: Iterator[bytes]
    whole: bool = False


class ServerClock:
    """Mixpanel's clock by the head of a response, and the window that it limits.

    A window may end at the flow's delay before Mixpanel's now: if this machine's clock is ahead and
    the window ended later, events that Mixpanel shows until then would be lost (P4).
    """

    def __init__(self, task: PullTask) -> None:
        self.answered_at: int | None = None  # ms since the epoch, from the first response
        self._task = task
        self._window: Window | None = None

    @property
    def window(self) -> Window:
        """Return the window of the pull once a response has started; EtlError if it is empty."""
        if self._window is None:
            wanted = self._task.run.window
            if self._task.rejects or self.answered_at is None:
                self._window = wanted
            else:
                self._window = wanted.until(self.answered_at - self._task.delay_minutes * 60_000)
        if self._window is None:
            raise EtlError(
                f"By Mixpanel's clock ({utc(self.answered_at or 0)}) nothing new can have arrived "
                f"yet; this machine's shows {utc(self._task.run.started_at)}. If they differ, set "
                "this machine's right: a time service such as chrony does it."
            )
        return self._window


def inputs(
    task: PullTask,
    connection: Connection,
    tally: Tally,
    clock: ServerClock,
    acquire_slot: Callable[[], None],
    left_out: list[int],
) -> Generator[Input, None, None]:
    """Yield the response to each request of the window in turn, or the rejected lines to replay."""
    if task.rejects:
        with closing(task.rejects.read(left_out)) as lines, closing(_counted(lines, tally)) as each:
            yield Input(task.run.window, each, whole=True)
        return
    for number, window in enumerate(task.run.window.requests):
        if number:
            acquire_slot()
        with closing(_fetched(task, connection, window, tally, clock)) as chunks:
            yield Input(window, chunks)


def _counted(chunks: Iterator[bytes], tally: Tally) -> Generator[bytes, None, None]:
    for chunk in chunks:
        tally.bytes_read += len(chunk)
        yield chunk


def _fetched(
    task: PullTask, connection: Connection, window: Window, tally: Tally, clock: ServerClock
) -> Generator[bytes, None, None]:
    """Yield the decompressed response, fetched by a thread at most AHEAD chunks ahead."""
    chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
    closed = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not closed.is_set():
            with suppress(queue.Full):
                chunks.put(item, timeout=1)
                return

    def receive(window: Window) -> None:
        with client.stream(
            connection, window, events=task.events, where=task.where, timeouts=task.timeouts,
            stopped=closed.is_set,
        ) as response:  # fmt: skip
            # The first response limits the window of the others as well (P4).
            clock.answered_at = clock.answered_at or response.answered_at
            before = tally.bytes_received
            try:
                for chunk in response:
                    put(chunk)
                    if closed.is_set():
                        return
            finally:
                tally.bytes_received = before + response.received

    def fetch() -> None:
        try:
            try:
                receive(window)
            except TooLate as error:
                if shorter := _a_day_shorter(window, task.run.started_at, connection, error):
                    receive(shorter)
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where chunks are taken
            put(error)

    try:
        threading.Thread(target=fetch, name="export", daemon=True).start()
        while (item := chunks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            tally.bytes_read += len(item)
            yield item
    finally:
        closed.set()


def _a_day_shorter(
    window: Window, started_at: int, connection: Connection, error: TooLate
) -> Window | None:
    """Return `window` without a last day that has not begun; None if that is its only day.

    Whether "today" is by UTC or by the project's clock is unknown. A day that has not begun by
    either has no events. Raises `error` for a day that is over by both.
    """
    running = day_over(window.to_date, connection.zone) > started_at
    if window.arrival is None and not running:
        raise error
    return window.without_last_day
