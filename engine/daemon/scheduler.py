"""The daemon: ticks -> one process a flow -> runs. It keeps no state but the lock of its home.

APScheduler is imported here alone. Nothing heavy is: what pulls does so in a process of its own,
so that a crash or a leak of one flow touches no other, and the daemon at rest is small. So does
the control plane wait to be asked for: only a configuration with [api] brings it.
"""

import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import (
    SIG_BLOCK,
    SIG_IGN,
    SIG_UNBLOCK,
    SIGHUP,
    SIGINT,
    SIGTERM,
    Signals,
    pthread_sigmask,
    set_wakeup_fd,
    signal,
)
from typing import TYPE_CHECKING

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from engine import log
from engine.config import file
from engine.control import declared_flows
from engine.daemon.turns import LATER, MORE, WAITS, WORKS, Turns
from engine.dataset.storage.local import make_folder, take
from engine.errors import EtlError, InputError, disk_error
from engine.model import schedule as plan
from engine.model.clock import Clock
from engine.model.flow import Flow, Schedule, superseded_in_words

if TYPE_CHECKING:
    from engine.control.api.server import Server
    from engine.sync.options import Options

GRACE = 10  # seconds that running windows have to end in, once they are asked to (P8)
MOST_FLOWS = 10_000  # that tick at the same moment: threads, of which most wait for a turn
WATCH = 60  # seconds between two looks at the clock
LATER_SECONDS = 60  # until a flow whose budget is used up gets another turn
AGAIN = 15 * plan.MINUTE  # after a tick of `once` that failed, for which there is no next
STOPS = (SIGINT, SIGTERM)
SIGNALS = (*STOPS, SIGHUP)
CHANGED = 0  # no signal has this number: the control plane wakes the daemon with it


class Ticks(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """The ticks of a flow, for APScheduler, by whatever clock the daemon goes."""

    def __init__(self, schedule: Schedule, clock: Clock) -> None:
        self._schedule, self._clock = schedule, clock

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next tick; those that were missed meanwhile are one, and the first is at once."""
        if previous is None:
            return now
        tick = plan.next_tick(self._schedule, self._clock.now())
        return None if tick is None else self._moment(tick)

    def _moment(self, tick: int) -> datetime:
        return datetime.fromtimestamp(self._clock.machine(tick) / 1000, UTC)


class Daemon:
    """Runs the flows of a configuration file, and those that its home keeps, until it is told to
    stop. `run` is the whole of it.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        clock: Clock | None = None,
        options: "Options | None" = None,
    ) -> None:
        self._path = path
        self._environ = environ
        self._clock = clock or Clock()
        self._options = options
        self._config = file.load(path, environ)
        self._lock = threading.Lock()
        self._kept: dict[str, Flow] = {}  # in the home
        self._problems: dict[str, str] = {}  # of those that cannot run
        self._unread: list[str] = []  # why what the home keeps is not known
        self._flows: dict[str, Flow] = self._config.flows  # all that run
        self._running: dict[str, BaseProcess] = {}
        self._says: dict[str, Connection] = {}  # what those say of themselves
        self._draining: set[BaseProcess] = set()  # those of flows that are not wanted any more
        self._due: set[str] = set()  # flows that are to have a turn, whatever runs now
        self._busy: dict[str, threading.Lock] = {}  # held while a flow is brought up to date
        self._signals = self._signalling = -1  # handles
        self._api: Server | None = None
        self._changed = threading.Event()  # something was, through the control plane
        self._stopping = threading.Event()
        self._turns = Turns(max(2, os.cpu_count() or 1))
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(MOST_FLOWS)},
            job_defaults={
                "coalesce": True,
                "max_instances": MOST_FLOWS,
                "misfire_grace_time": None,
            },
            timezone=UTC,
        )

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit status. SIGHUP reads the configuration again."""
        with _heard() as (self._signals, self._signalling), _alone(self._config.home):
            if self._config.api:
                self._listen(self._config.api)
            self._scheduler.start()
            self._flows = {}
            self._show()
            self._read()
            log.log.info("started", config=str(self._path), flows=len(self._flows), pid=os.getpid())
            if self._api:
                self._api.start()
            self._watch()
            self._stop()
        return 0

    def _listen(self, api: file.Api) -> None:
        """Open the control plane's door; it is answered once the flows are known."""
        from engine.control.api.server import Server

        def changed() -> None:  # in a thread of the control plane's
            if self._changed.is_set():  # P8: no stop waits for more than one reading
                return
            self._changed.set()
            with suppress(BlockingIOError):  # so much is waiting that it is awake
                os.write(self._signalling, bytes([CHANGED]))

        def unready() -> list[str]:
            problems = [f"Flow {name} cannot run: {why}" for name, why in self._problems.items()]
            return [*self._unread, *problems]

        home, now = self._config.home, self._clock.now
        self._api = Server(home, api, self._environ, now, changed, unready)
        told = {"token_file": str(self._api.token_file)} if self._api.token_file else {}
        log.log.info("listening", address=self._api.address, **told)

    def _watch(self) -> None:
        """Until a stop is asked for: read the configuration again, and keep an eye on the clock."""
        ahead = time.time() - time.monotonic()
        while (sign := self._signal(WATCH)) not in STOPS:
            if sign == SIGHUP:
                self._reload()
            if self._changed.is_set():
                self._changed.clear()  # what changes from now on is read after this
                self._read()
            was, ahead = ahead, time.time() - time.monotonic()
            if ahead < was - WATCH:  # it was set back: the next ticks lie too far ahead
                self._follow({})
            self._scheduler.wakeup()  # it sleeps by another clock than the ticks have

    # What runs when -------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the configuration again; a bad one is told of, and the old one stays."""
        refused = ""
        try:
            fresh = file.load(self._path, self._environ)
        except InputError as error:
            refused = str(error)
        else:
            was = self._config
            for name, one, other in (
                ("home", fresh.home, was.home),
                ("api", fresh.api and fresh.api.fixed, was.api and was.api.fixed),
            ):
                if one != other:
                    refused = f"{self._path}: {name}: cannot change while the daemon runs"
        if refused:
            log.log.error("configuration refused, the old one stays", error=refused)
            return
        self._config = fresh
        self._show()
        self._read()
        log.log.info("configuration read", flows=len(self._flows))

    def _show(self) -> None:
        """Let the control plane follow the file: who may call, and what its flows are."""
        if self._api:
            try:
                self._api.follow(self._config, declared_flows.origin_of(self._path))
            except EtlError as error:
                log.log.error("the control plane does not follow the file", error=str(error))

    def _read(self) -> None:
        """Follow what file and home declare by now; what of it cannot run is told of once."""
        try:
            self._kept, problems = declared_flows.kept(self._config, self._path)
        except EtlError as error:
            self._unread = [f"What the home keeps cannot be read: {error}"]
            log.log.error("what the home keeps cannot be read", error=str(error))
        else:
            self._unread = []
            for name, why in problems.items():
                if self._problems.get(name) != why:
                    log.log.error("this flow cannot run", flow=name, error=why)
            self._problems = problems
        before, self._flows = self._flows, self._config.flows | self._kept
        for name, flow in self._flows.items():
            hours = flow.keep_superseded_hours
            if hours and (name not in before or before[name].keep_superseded_hours != hours):
                log.log.warning(superseded_in_words(hours), flow=name)
        self._follow(before)
        self._hurry()

    def _follow(self, before: Mapping[str, Flow]) -> None:
        """Make the jobs fit the flows: they are made from these, and kept nowhere else. What
        changed of a flow takes effect at once: it gets a turn, after the one that may be running.
        """
        self._turns.projects = {flow.project for flow in self._flows.values()}
        for name in before.keys() - self._flows.keys():
            self._forget(name)
            self._end(name)
        for name, flow in self._flows.items():
            was = before.get(name)
            if was and was.schedule == flow.schedule:
                if was != flow and flow.schedule:
                    self._soon(name)
                continue
            self._forget(name)
            if flow.schedule:
                self._due.add(name)
                ticks = Ticks(flow.schedule, self._clock)
                self._scheduler.add_job(self._tick, ticks, [name], id=name)
            else:
                log.log.warning("this flow has no schedule: it is left alone", flow=name)

    def _end(self, name: str) -> None:
        """P8: what runs for a flow that is not wanted any more drains, and no other turn comes."""
        with self._lock:
            if process := self._running.get(name):
                self._draining.add(process)
                process.terminate()

    def _hurry(self) -> None:
        """A tick, now, of those flows that somebody asked for a run of."""
        running = self._flows.keys()
        try:
            asked = self._api.asked(running) if self._api else set()
        except EtlError as error:
            log.log.error("what was asked for cannot be read", error=str(error))
            return
        for name in asked:
            self._soon(name)

    def _soon(self, name: str) -> None:
        """A tick of a flow now, beside those that it has to come, if it has any."""
        self._due.add(name)
        self._scheduler.add_job(self._tick, "date", [name])

    def _forget(self, name: str) -> None:
        with suppress(JobLookupError):  # it has none, or no more
            self._scheduler.remove_job(name)

    def _tick(self, name: str) -> None:
        """Bring a flow up to date. What runs already sees to a tick that falls into it, unless
        something was changed or asked for since it began: then it is done once more.
        """
        busy = self._busy.setdefault(name, threading.Lock())
        again = True
        while again and busy.acquire(blocking=False):
            try:
                self._due.discard(name)
                self._keep_up(name)
            finally:
                busy.release()
            again = name in self._due

    def _keep_up(self, name: str) -> None:
        """Give a flow its turns, between those of others, until there is nothing more to do."""
        began, status = self._clock.now(), MORE
        while status in (MORE, LATER) and not self._stopping.is_set():
            before, flow = status, self._flows.get(name)
            if not self._turns.take(name, flow.project if flow else ""):
                return
            try:
                status = self._turn(name, began)
            finally:
                self._turns.release(name)
            if status == LATER != before:
                log.log.info("waiting", flow=name, why="Mixpanel's hourly budget is used up")
            # Who waits for a turn is woken now, and would come too late.
            self._stopping.wait(LATER_SECONDS if status == LATER else 0.1)
        if self._stopping.is_set():
            return
        if status not in (0, 1, 2):
            why = Signals(-status).name if status < 0 else f"exit status {status}"
            log.log.error("the run's process was ended from outside", flow=name, why=why)
        flow = self._flows.get(name)
        if flow and status and plan.is_once(flow.schedule):  # it has no next tick
            at = self._clock.machine(self._clock.now() + AGAIN)
            self._scheduler.add_job(
                self._tick, "date", [name], id=name, replace_existing=True,
                run_date=datetime.fromtimestamp(at / 1000, UTC),
            )  # fmt: skip

    def _turn(self, name: str, began: int) -> int:
        """Run what is due of a flow in a process of its own; its exit status."""
        flow = self._flows.get(name)
        try:
            process = flow and self._start(flow, began)
        except OSError as error:
            log.log.error("no process could be started", flow=name, error=error.strerror)
            return 1
        if not process:
            return 0
        if says := self._says.pop(name, None):
            with says:
                self._listen_to(name, process, says)
        process.join()
        with self._lock:
            self._running.pop(name, None)
            if process in self._draining:  # how it ended says nothing
                self._draining.remove(process)
                return 0
        return process.exitcode or 0

    def _listen_to(self, name: str, process: BaseProcess, says: Connection) -> None:
        """Until a flow's process ends: what it says of itself moves its turn."""
        while says in wait([process.sentinel, says]):
            try:
                word = says.recv_bytes(1)
            except (EOFError, OSError):  # it closed its end, and does nothing else any more
                break
            if word == WAITS:
                self._turns.waits(name)
            elif word == WORKS:
                self._turns.works(name)

    def _start(self, flow: Flow, began: int) -> BaseProcess | None:
        # What was rotated since the daemon read it would be refused once at every tick.
        flow = replace(flow, connection=file.read_again(flow.connection))
        context = get_context("spawn")
        says, speaks = context.Pipe(duplex=False)
        work = partial(_work, flow, self._config.home, self._clock, self._options, began, speaks)
        process = context.Process(target=work, name=f"run of {flow.name}")
        with speaks, self._lock:
            if self._stopping.is_set() or flow.name not in self._flows:
                says.close()
                return None
            # A new process hears of a stop when it can deal with it: see `_work`.
            pthread_sigmask(SIG_BLOCK, STOPS)
            try:
                process.start()
            except BaseException:
                says.close()
                raise
            finally:
                pthread_sigmask(SIG_UNBLOCK, STOPS)
            self._running[flow.name] = process
            self._says[flow.name] = says
        return process

    # The end --------------------------------------------------------------------------------

    def _stop(self) -> None:
        """P8: no new window; what runs has GRACE to end in, and a second signal ends it at once."""
        with self._lock:
            self._stopping.set()
            running = list(self._running.values())
        self._turns.close()
        if self._api:
            self._api.stop()
        self._stop_ticks()
        log.log.info("stopping", running=len(running))
        for process in running:
            process.terminate()
        until = time.monotonic() + GRACE
        while any(process.is_alive() for process in running) and time.monotonic() < until:
            if self._signal(0.05) in STOPS:
                until = 0
        for process in running:
            process.kill()
        for process in running:
            process.join()
        if self._api:
            self._api.join(max(until - time.monotonic(), 0))
        log.log.info("stopped")

    def _stop_ticks(self) -> None:
        """Stop the scheduler between two looks at its jobs: within one, it would miss those."""
        self._scheduler.pause()
        self._scheduler.get_jobs()  # waits for a look that has begun
        self._scheduler.shutdown(wait=False)

    def _signal(self, seconds: float | None = None) -> int | None:
        """The next signal that was sent; None if there is none within so many seconds."""
        ready, _, _ = select.select([self._signals], [], [], seconds)
        return os.read(self._signals, 1)[0] if ready else None


@contextmanager
def _heard() -> Iterator[tuple[int, int]]:
    """Where the numbers of signals can be read as they come, and where others can be written.

    A handler would not do: one that was called just before the main thread falls asleep, or by a
    signal that another thread got, wakes nobody.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = set_wakeup_fd(writing)
    for sign in SIGNALS:
        signal(sign, lambda *_: None)
    try:
        yield reading, writing
    finally:
        set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second daemon off `home`. The kernel lets go of the lock however the first ends."""
    with disk_error(f"write in {home}"):
        make_folder(home, 0o700)
        lock = (home / declared_flows.LOCK).open("a+", encoding="ascii")
    with lock:
        with disk_error(f"write in {home}"):
            holder = take(lock)
        if holder:
            raise InputError(
                f"A daemon runs already with the home {home}: process {holder}. "
                "Stop it first, or give this one another home."
            )
        yield


def _work(
    flow: Flow,
    home: Path,
    clock: Clock,
    options: "Options | None",
    began: int,
    speaks: Connection,
) -> None:
    """One turn of one flow: the whole of its process, which hears of a stop once it can obey."""
    from engine.daemon.flow_process import work

    signal(SIGHUP, SIG_IGN)
    raise SystemExit(work(flow, home, clock, options, began, speaks))
