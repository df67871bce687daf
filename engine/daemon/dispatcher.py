"""Bring a flow up to date at a tick: turn by turn, a process each, until nothing is left to pull.

`daemon` passes the flows, `tick_timer` the ticks.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from engine.config.environment import read_again
from engine.daemon.launcher import FlowProcess
from engine.daemon.reconcile import Log, after_turn
from engine.daemon.turn_queue import MORE, Turns
from engine.log import log
from engine.model.clock import Clock
from engine.model.flow import Flow

Launch = Callable[[Flow, int], FlowProcess]
RetryIn = Callable[[str, int], None]


class Dispatcher:
    """Gives each flow its turns, in processes that `launch` starts. Thread-safe."""

    def __init__(self, launch: Launch, turns: Turns, clock: Clock, retry_in: RetryIn) -> None:
        """`launch(flow, began)` starts the process of a turn of the tick `began` (ms), or raises
        OSError; `retry_in(flow, ms)` plans a tick beside the schedule's.
        """
        self._launch, self._turns, self._clock, self._retry_in = launch, turns, clock, retry_in
        self._flows: Mapping[str, Flow] = {}
        self._lock = threading.Lock()  # held while a process is started, registered or ended
        self._running: dict[str, FlowProcess] = {}
        self._due: set[str] = set()  # flows that need a turn after the one that may be running
        self._busy: dict[str, threading.Lock] = {}  # held while a flow is brought up to date
        self._stopping = threading.Event()

    def follow(self, flows: Mapping[str, Flow]) -> None:
        """Run `flows` from now on: a turn takes its flow from here when it begins."""
        self._turns.projects = {flow.project for flow in flows.values()}
        self._flows = flows

    def request(self, name: str) -> None:
        """Give flow `name` one more turn at its next tick, even if one is running by then."""
        self._due.add(name)

    def tick(self, name: str) -> None:
        """Bring flow `name` up to date, and return when it is.

        A tick that falls into a running turn is covered by that turn, unless `request` was called
        since the turn began: then one more turn follows.
        """
        busy = self._busy.setdefault(name, threading.Lock())
        again = True
        while again and busy.acquire(blocking=False):
            try:
                self._due.discard(name)
                self._take_turns(name)
            finally:
                busy.release()
            again = name in self._due

    def end(self, name: str) -> None:
        """Terminate the process of flow `name`, if one runs: the flow was removed (P8)."""
        with self._lock:
            if process := self._running.get(name):
                process.end_unwanted()

    def close(self) -> list[FlowProcess]:
        """Start no more turns (P8); return the processes that run."""
        with self._lock:
            self._stopping.set()
            running = list(self._running.values())
        self._turns.close()
        return running

    def _take_turns(self, name: str) -> None:
        began, status = self._clock.now(), MORE
        while not self._stopping.is_set():
            previous, flow = status, self._flows.get(name)
            if not self._turns.take(name, flow.project if flow else ""):
                return
            try:
                status = self._run_turn(name, began)
            finally:
                self._turns.release(name)
            if self._stopping.is_set():
                return
            flow = self._flows.get(name)
            after = after_turn(name, status, previous, flow.schedule if flow else None)
            if after.log:
                write(after.log)
            if after.retry is not None:
                self._retry_in(name, after.retry)
            if after.pause is None:
                return
            # Flows that wait for a turn were woken just now, and would come too late.
            self._stopping.wait(after.pause)

    def _run_turn(self, name: str, began: int) -> int:
        """Run one turn of a flow in a process; return the exit status, 0 for a removed flow."""
        if not (flow := self._flows.get(name)):
            return 0
        try:
            # A secret that was rotated since the daemon read it would be refused at every tick.
            flow = replace(flow, connection=read_again(flow.connection))
            with self._lock:
                if self._stopping.is_set() or name not in self._flows:
                    return 0
                process = self._running[name] = self._launch(flow, began)
        except OSError as error:
            log.error("no process could be started", flow=name, error=error.strerror)
            return 1
        try:
            return process.follow(
                waits=lambda: self._turns.waits(name), works=lambda: self._turns.works(name)
            )
        finally:
            with self._lock:
                self._running.pop(name)


def write(line: Log) -> None:
    """Write a line that `reconcile` decided on to the log."""
    getattr(log, line.level)(line.event, flow=line.flow, **dict(line.detail))
