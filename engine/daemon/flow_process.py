"""The main function of a flow's process: one turn of the flow, its log lines, and its end.

The daemon never imports this module, since it imports Arrow.
"""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import ITIMER_REAL, SIG_UNBLOCK, SIGALRM, pthread_sigmask, setitimer, signal

from engine.daemon.signals import DRAIN, STOPS
from engine.daemon.turn_queue import LATER, MORE, WAITS, WORKS
from engine.errors import EtlError, sentence_of, status_of
from engine.log import configure, log
from engine.model.clock import Clock
from engine.model.flow import Flow, Run
from engine.model.run_record import FAILED, RunRecord
from engine.sync.incremental import RunContext, sync_flow
from engine.sync.options import Options
from engine.sync.run_updates import Ended, NoEvents, Noticed, RunUpdate, Split, Waiting

TURN_SECONDS = 600  # after which a turn ends, though more is due
MEASURE_SECONDS = 1  # between two measurements of the processor time that this process uses
IDLE_MEASUREMENTS = 3  # in a row, after which this process counts as waiting
IDLE_SHARE = 0.05  # of a processor: a process that uses less is idle


def work(
    flow: Flow,
    home: Path,
    clock: Clock,
    options: Options | None,
    began: int,
    sender: Connection | None = None,
    drain: float = DRAIN,
) -> int:
    """Bring `flow` up to date; return the exit status: 0, MORE, LATER, 1 failure, 2 wrong input.

    `began`: the tick that the turn belongs to, in ms; `sender`: where the daemon receives whether
    this process works or waits; `drain`: seconds in which a window may end after a stop signal.
    """
    configure(flow=flow.name)
    _follow_parent(sender)
    turn = RunContext(seconds=TURN_SECONDS, began=began)
    options = replace(options or Options(), now=clock.now)
    try:
        _obey_signals(turn, drain)
        warn = lambda why: log.warning("the history cannot be written", why=why)  # noqa: E731
        records = sync_flow(flow, home, options, RunLogger(flow), turn, warn)
    except KeyboardInterrupt:
        log.info("stopped; nothing is half done")
        return 0
    except EtlError as error:
        log.error("nothing can be done until the next tick", error=str(error))
        return status_of(error)
    except Exception as error:  # noqa: BLE001 - P7: its text may hold anything
        log.error("failed", error=sentence_of(error))
        return 1
    failed = any(record.status == FAILED for record in records)
    if turn.more or turn.later:
        return MORE if turn.more else LATER
    return 1 if failed else 0


class RunLogger:
    """Logs a line for each run of a flow, and one for each wait, when the wait begins."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._waited = ""

    def __call__(self, event: RunUpdate) -> None:
        """Log `event`, if it is worth a line."""
        if isinstance(event, Waiting):
            if event.why != self._waited:
                seconds = round(event.seconds)
                log.warning("waiting", **_of(event.run), seconds=seconds, why=event.why)
            self._waited = event.why
        elif isinstance(event, Noticed):
            log.warning("noticed", what=event.text)
        elif isinstance(event, Ended):
            self._waited = ""
            if event.error:
                count = event.record.result.lines
                lines = {"after_lines": count} if count else {}
                log.error("run failed", **_of(event.record), **lines, error=str(event.error))
                return
            tally = event.record.result
            counts = {name: getattr(tally, name) for name in ("rows", "rejected", "duplicates")}
            known = {"known": tally.known} if tally.known else {}
            took = event.record.seconds
            log.info("run", **_of(event.record), **counts, seconds=took, **known)
            for remark in event.record.remarks():
                log.warning("noticed", **_of(event.record), what=remark)
            if event.empty:
                all_ = len(event.empty) == len(event.record.window.days)
                why = NoEvents(self._flow, event.empty, all_)
                log.warning("no events", **_of(event.record), why=str(why))
        elif isinstance(event, Split):
            error = str(event.error)
            log.warning("asked for in smaller requests", **_of(event.run), error=error)


def _of(run: Run | RunRecord) -> dict[str, str]:
    return {"run": run.id, "window": str(run.window)}


def _obey_signals(turn: RunContext, drain: float) -> None:
    """P8: end at a stop signal: at once while idle, else with the window or after `drain` s."""

    def stop(*_: object) -> None:
        if not turn.stop_requested:
            turn.stop_requested = True
            if turn.idle:
                raise KeyboardInterrupt
            setitimer(ITIMER_REAL, drain)

    def give_up(*_: object) -> None:
        raise KeyboardInterrupt

    signal(SIGALRM, give_up)
    for sign in STOPS:
        signal(sign, stop)
    pthread_sigmask(SIG_UNBLOCK, STOPS)


@dataclass(slots=True)
class Activity:
    """Decides from the processor time of a process whether the process works or waits.

    A wait for a silent host, for a slow disk and for another process's lock all count alike.
    """

    used: float  # processor seconds, at the last measurement
    at: float  # time of the last measurement, in seconds
    idle: int = 0  # measurements in a row in which the process was idle
    waits: bool = False

    def measure(self, used: float, at: float) -> bytes:
        """Return WAITS or WORKS if that changed with this measurement, else no byte."""
        is_idle = used - self.used < IDLE_SHARE * (at - self.at)
        self.used, self.at = used, at
        self.idle = self.idle + 1 if is_idle else 0
        if (waits := self.idle >= IDLE_MEASUREMENTS) == self.waits:
            return b""
        self.waits = waits
        return WAITS if waits else WORKS


def _follow_parent(sender: Connection | None) -> None:
    """Exit when the daemon has exited; until then report to it when this process waits or works."""
    if (parent := parent_process()) is None:
        return
    sentinel, activity = parent.sentinel, Activity(time.process_time(), time.monotonic())

    def follow() -> None:
        while not wait([sentinel], MEASURE_SECONDS):
            report = activity.measure(time.process_time(), time.monotonic())
            if report and sender:
                with suppress(OSError):  # the daemon is gone: the loop ends next
                    sender.send_bytes(report)
        os._exit(1)

    threading.Thread(target=follow, name="follow", daemon=True).start()
