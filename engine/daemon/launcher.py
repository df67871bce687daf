"""Launch a process for each turn of a flow, and follow the process until it ends.

A crash or a leak of one flow touches no other flow. Arrow is imported by the process alone, so that
the daemon stays small.
"""

from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import SIG_BLOCK, SIG_IGN, SIG_UNBLOCK, SIGHUP, pthread_sigmask, signal
from typing import TYPE_CHECKING, Any

from engine.daemon.signals import STOPS
from engine.daemon.turn_queue import WAITS, WORKS
from engine.model.clock import Clock
from engine.model.flow import Flow

if TYPE_CHECKING:
    from engine.sync.options import Options


class FlowProcess:
    """The process of one turn of one flow; a stop signal lets a window under way drain (P8)."""

    def __init__(self, process: BaseProcess, reports: Connection) -> None:
        """`reports`: where the process sends WAITS and WORKS."""
        self._process, self._reports, self._unwanted = process, reports, False
        self.terminate, self.kill = process.terminate, process.kill
        self.join, self.is_alive = process.join, process.is_alive

    def follow(self, waits: Callable[[], None], works: Callable[[], None]) -> int:
        """Wait until the process ends; return its exit status, minus the signal that ended it.

        Calls `waits` and `works` as the process reports that it waits or works. The status of a
        process that was unwanted says nothing about its flow: 0.
        """
        with self._reports as reports:
            while reports in wait([self._process.sentinel, reports]):
                try:
                    report = reports.recv_bytes(1)
                except (EOFError, OSError):  # the process closed its end: it is about to exit
                    break
                if report == WAITS:
                    waits()
                elif report == WORKS:
                    works()
        self.join()
        return 0 if self._unwanted else self._process.exitcode or 0

    def end_unwanted(self) -> None:
        """Terminate the process because its flow was removed."""
        self._unwanted = True
        self.terminate()


def launch(
    home: Path, clock: Clock, options: "Options | None", drain: float, flow: Flow, began: int
) -> FlowProcess:
    """Start a process that brings `flow` up to date; OSError where none can be started.

    `drain`: seconds in which a window may end after a stop signal; `began`: the tick that the turn
    belongs to, in ms.
    """
    context = get_context("spawn")
    reports, sender = context.Pipe(duplex=False)
    target = partial(_run, flow, home, clock, options, began, sender, drain)
    process = context.Process(target=target, name=f"run of {flow.name}")
    with sender:
        # Stop signals stay blocked in the new process until `work` can obey them.
        pthread_sigmask(SIG_BLOCK, STOPS)
        try:
            process.start()
        except BaseException:
            reports.close()
            raise
        finally:
            pthread_sigmask(SIG_UNBLOCK, STOPS)
    return FlowProcess(process, reports)


def _run(*arguments: Any) -> None:
    from engine.daemon.flow_process import work

    signal(SIGHUP, SIG_IGN)
    raise SystemExit(work(*arguments))
