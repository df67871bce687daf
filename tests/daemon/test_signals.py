"""The daemon reads all signals, in their order, and other threads can wake it."""

import signal
import threading

import pytest

from engine.daemon.signals import CHANGED, DRAIN, GRACE, receive_signals

pytestmark = pytest.mark.usefixtures("handlers")


def test_signals_are_read_in_their_order() -> None:
    """Received signals do not end the process; afterwards the old handlers are back."""
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    with receive_signals() as signals:
        assert signals.wait(0) is None
        for sign in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(sign)
        received = [signals.wait(10) for _ in range(3)]
        assert received == [signal.SIGHUP, signal.SIGTERM, signal.SIGINT]
        assert signals.wait(0) is None
    assert signal.set_wakeup_fd(before) == before


def test_another_thread_wakes_the_daemon() -> None:
    """More calls of `wake` than the pipe can hold block no thread."""
    with receive_signals() as signals:

        def wake() -> None:
            for _ in range(100_000):
                signals.wake()

        thread = threading.Thread(target=wake)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        assert signals.wait(10) == CHANGED


def test_the_end_comes_within_ten_seconds() -> None:
    """P8: a window that drains to its last second still ends before its process is killed."""
    assert DRAIN + 1 < GRACE <= 10
