"""The daemon follows the process of a turn: the reports of the process, and its exit status."""

import signal
import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import pytest

from engine.daemon.launcher import FlowProcess
from engine.daemon.turn_queue import WAITS, WORKS


class Ended:
    """A process that SIGTERM ended, perhaps when it was about to exit."""

    exitcode = -signal.SIGTERM

    def __init__(self, sentinel: Connection) -> None:
        self.sentinel = sentinel

    def join(self) -> None: ...

    terminate = kill = is_alive = join


def pipe() -> tuple[Connection, Connection]:
    return get_context("spawn").Pipe(duplex=False)


def test_reports_of_a_process_are_passed_on() -> None:
    """`follow` passes each report on at once, and returns when the process has ended."""
    reports, sender = pipe()
    sentinel, end = pipe()
    process: Any = Ended(sentinel)
    reported: list[str] = []
    passed = threading.Semaphore(0)

    def note(word: str) -> Callable[[], None]:
        def on() -> None:
            reported.append(word)
            passed.release()

        return on

    followed = FlowProcess(process, reports)
    thread = threading.Thread(target=followed.follow, args=[note("waits"), note("works")])
    thread.start()
    for report in (WAITS, WORKS):
        sender.send_bytes(report)
        assert passed.acquire(timeout=10)
    assert reported == ["waits", "works"]
    end.send_bytes(b".")
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("unwanted", "status"), [(True, 0), (False, -signal.SIGTERM)])
def test_who_ended_a_process(unwanted: bool, status: int) -> None:
    """The end of a process whose flow was removed counts as success; other signals are reported."""
    reports, sender = pipe()
    sentinel, _end = pipe()
    sender.close()
    process: Any = Ended(sentinel)
    followed = FlowProcess(process, reports)
    if unwanted:
        followed.end_unwanted()
    assert followed.follow(pytest.fail, pytest.fail) == status
