"""Receive the signals of the daemon: SIGTERM and SIGINT stop it, SIGHUP reloads its configuration.

Signals are read from a pipe, not handled: a handler that runs just before the main thread falls
asleep, or in answer to a signal that another thread received, would wake no one.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import SIGHUP, SIGINT, SIGTERM, set_wakeup_fd, signal

STOPS = (SIGINT, SIGTERM)
DRAIN = 8  # seconds in which a running window may end after a stop signal (P8)
GRACE = 10  # seconds until the daemon kills what still runs then: DRAIN, and time to clean up
CHANGED = 0  # no signal has this number: the control plane wakes the daemon with it


class SignalQueue:
    """The signals that this process received, in their order. Made by `receive_signals`."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def wait(self, seconds: float) -> int | None:
        """The number of the next signal, CHANGED after `wake`; None if none comes in `seconds`."""
        ready, _, _ = select.select([self._reading], [], [], seconds)
        return os.read(self._reading, 1)[0] if ready else None

    def wake(self) -> None:
        """Make `wait` return CHANGED. Any thread may call this; it never blocks."""
        with suppress(BlockingIOError):  # the pipe is full: `wait` returns anyway
            os.write(self._writing, bytes([CHANGED]))


@contextmanager
def receive_signals() -> Iterator[SignalQueue]:
    """Queue the daemon's signals instead of letting them end the process. Main thread only."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = set_wakeup_fd(writing)
    for sign in (*STOPS, SIGHUP):
        signal(sign, lambda *_: None)
    try:
        yield SignalQueue(reading, writing)
    finally:
        set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
