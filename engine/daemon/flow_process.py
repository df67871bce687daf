"""One tick of one flow, as a process of its own: it works, logs, and stops when it is told to."""

import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import (
    ITIMER_REAL,
    SIG_UNBLOCK,
    SIGALRM,
    SIGINT,
    SIGTERM,
    pthread_sigmask,
    setitimer,
    signal,
)
from types import FrameType

from engine.daemon.turns import LATER, MORE, WAITS, WORKS
from engine.errors import EtlError, sentence_of, status_of
from engine.log import configure, log
from engine.model.clock import Clock
from engine.model.flow import Flow, Run
from engine.model.run_payload import remarks
from engine.sync.empty_days import sentence
from engine.sync.incremental import RunContext, sync_flow
from engine.sync.options import Options
from engine.sync.run_updates import Ended, Noticed, RunUpdate, Split, Waiting

SECONDS = 600  # that a turn may take
LOOK = 1  # seconds between two looks at how much this process works
QUIET = 3  # looks in a row at a process that does next to nothing: it waits for somebody else
IDLE = 0.05  # of a processor: what a process uses that waits
DRAIN = 8  # seconds in which a running window may end, after a stop was asked for (P8)


def work(
    flow: Flow,
    home: Path,
    clock: Clock,
    options: Options | None,
    began: int,
    speaks: Connection | None = None,
) -> int:
    """Bring `flow` up to date; the exit status: 0, MORE or LATER, 1 a failure, 2 wrong input.

    `began`: the tick that this is a turn of, in ms; `speaks`: where the daemon hears whether this
    process works or waits.
    """
    configure(flow=flow.name)
    _follow_parent(speaks)
    turn = RunContext(seconds=SECONDS, began=began)
    options = replace(options or Options(), now=clock.now)
    try:
        _listen(turn)
        items = sync_flow(flow, home, options, RunLogger(flow), turn, _warn)
    except KeyboardInterrupt:
        log.info("stopped; nothing is half done")
        return 0
    except EtlError as error:
        log.error("nothing can be done until the next tick", error=str(error))
        return status_of(error)
    except Exception as error:  # noqa: BLE001 - P7: nobody knows what its text holds
        log.error("failed", error=sentence_of(error))
        return 1
    failed = [item for item in items if item["metrics"]["statusSummary"]["status"] == "failed"]
    if turn.more or turn.later:
        return MORE if turn.more else LATER
    return 1 if failed else 0


def _warn(why: str) -> None:
    log.warning("the history cannot be written", why=why)


class RunLogger:
    """Logs a line a run, and a wait when it begins: once, however often it is looked at."""

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
                lines = {"after_lines": event.tally.lines} if event.tally.lines else {}
                log.error("run failed", **_of(event.run), **lines, error=str(event.error))
                return
            metrics = event.item["metrics"]
            records, took = metrics["recordSummary"], metrics["durationSummary"]
            told = {
                "rows": records.get("outputRecordCount", 0),
                "rejected": records.get("failedRecordCount", 0),
                "duplicates": records.get("skippedRecordCount", 0),
                "seconds": (took["completedAtUTC"] - took["startedAtUTC"]) / 1000,
            }
            if known := records.get("extensions", {}).get("knownRecordCount"):
                told["known"] = known
            log.info("run", **_of(event.run), **told)
            for remark in remarks(event.item, event.run.window):
                log.warning("noticed", **_of(event.run), what=remark)
            if event.empty:
                all_ = len(event.empty) == len(event.run.window.days)
                why = sentence(self._flow, list(event.empty), all_=all_)
                log.warning("no events", **_of(event.run), why=why)
        elif isinstance(event, Split):
            error = str(event.error)
            log.warning("asked for in smaller requests", **_of(event.run), error=error)


def _of(run: Run) -> dict[str, str]:
    return {"run": run.id, "window": str(run.window)}


def _listen(turn: RunContext) -> None:
    """P8: a window that runs has DRAIN seconds to end; where nothing runs, the end is at once."""

    def asked(*_: object) -> None:
        if not turn.asked:
            turn.asked = True
            if turn.idle:
                raise KeyboardInterrupt
            setitimer(ITIMER_REAL, DRAIN)

    def enough(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal(SIGALRM, enough)
    for sign in (SIGINT, SIGTERM):
        signal(sign, asked)
    pthread_sigmask(SIG_UNBLOCK, (SIGINT, SIGTERM))


@dataclass(slots=True)
class Pulse:
    """Tells from the processor time of a process whether it works or waits.

    Whatever it waits for, a silent host, a slow disk, a lock of somebody else, shows alike.
    """

    used: float  # seconds of a processor, until the last look
    at: float  # when that was, in seconds
    quiet: int = 0  # looks in a row that found it idle
    waits: bool = False

    def look(self, used: float, at: float) -> bytes:
        """WAITS or WORKS, where that changed; else nothing."""
        idle = used - self.used < IDLE * (at - self.at)
        self.used, self.at = used, at
        self.quiet = self.quiet + 1 if idle else 0
        if (waits := self.quiet >= QUIET) == self.waits:
            return b""
        self.waits = waits
        return WAITS if waits else WORKS


def _follow_parent(speaks: Connection | None) -> None:
    """Exit when the daemon has exited; until then report to it whether this process works or
    waits.
    """
    parent = parent_process()
    if parent is None:
        return

    sentinel, pulse = parent.sentinel, Pulse(time.process_time(), time.monotonic())

    def follow() -> None:
        while not wait([sentinel], LOOK):
            word = pulse.look(time.process_time(), time.monotonic())
            if word and speaks:
                with suppress(OSError):  # the daemon is gone: the next look ends this
                    speaks.send_bytes(word)
        os._exit(1)

    threading.Thread(target=follow, name="follow", daemon=True).start()
