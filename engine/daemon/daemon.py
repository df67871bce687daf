"""Run the flows of a configuration file and of its home until a signal stops the daemon.

The daemon stores nothing but the lock of its home. The control plane is imported only where the
configuration has a table [api].
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from signal import SIGHUP
from typing import TYPE_CHECKING

from engine.config import file
from engine.control import declared_flows
from engine.daemon import reconcile
from engine.daemon.dispatcher import Dispatcher, write
from engine.daemon.launcher import launch
from engine.daemon.reconcile import Action, AddTicks, Log, RemoveTicks, StopProcess, TickNow
from engine.daemon.signals import DRAIN, GRACE, STOPS, SignalQueue, receive_signals
from engine.daemon.tick_timer import TickTimer
from engine.daemon.turn_queue import Turns
from engine.dataset.storage.local import lock_file, make_folder
from engine.errors import EtlError, InputError, disk_error
from engine.log import log
from engine.model.clock import Clock
from engine.model.flow import Flow

if TYPE_CHECKING:
    from engine.control.api.server import Server
    from engine.sync.options import Options

WATCH = 60  # seconds between two comparisons of the ticks with the wall clock


class Daemon:
    """Runs the flows of a configuration file, and those that its home stores. Call `run`, once."""

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        clock: Clock | None = None,
        options: "Options | None" = None,
        signals: Callable[[], AbstractContextManager[SignalQueue]] = receive_signals,
        drain: float = DRAIN,
        grace: float = GRACE,
    ) -> None:
        """`path`: of the configuration file; InputError where it has mistakes.

        After a stop signal, running windows have `drain` seconds to end and processes `grace`.
        """
        self._path, self._environ, self._grace = path, environ, grace
        self._clock = clock or Clock()
        self._receive_signals = signals
        self._config = file.load(path, environ)
        self._stored: dict[str, Flow] = {}  # flows of the home
        self._problems: dict[str, str] = {}  # flow -> why it cannot run
        self._unread: list[str] = []  # why the flows of the home cannot be read
        self._flows: dict[str, Flow] = {}  # all that run
        self._api: Server | None = None
        self._changed = threading.Event()  # set when a client changed a flow or requested a run
        self._scheduler = TickTimer(lambda name: self._dispatcher.tick(name), self._clock)
        self._dispatcher = Dispatcher(
            partial(launch, self._config.home, self._clock, options, drain),
            Turns(max(2, os.cpu_count() or 1)),
            self._clock,
            self._scheduler.retry_in,
        )

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit status. SIGHUP reads the configuration again."""
        with self._receive_signals() as signals, _lock_of(self._config.home):
            if self._config.api:
                self._listen(self._config.api, signals)
            self._scheduler.start()
            self._publish()
            self._update()
            log.info("started", config=str(self._path), flows=len(self._flows), pid=os.getpid())
            if self._api:
                self._api.start()
            self._watch(signals)
            self._stop(signals)
        return 0

    def _listen(self, api: file.Api, signals: SignalQueue) -> None:
        """Open the socket of the control plane, which answers requests once it is started."""
        from engine.control.api.server import Server

        def changed() -> None:  # in a thread of the control plane
            if not self._changed.is_set():  # P8: a stop waits for one update at most
                self._changed.set()
                signals.wake()

        def unready() -> list[str]:
            problems = [f"Flow {name} cannot run: {why}" for name, why in self._problems.items()]
            return [*self._unread, *problems]

        home, now = self._config.home, self._clock.now
        self._api = Server(home, api, self._environ, now, changed, unready)
        detail = {"token_file": str(self._api.token_file)} if self._api.token_file else {}
        log.info("listening", address=self._api.address, **detail)

    def _watch(self, signals: SignalQueue) -> None:
        """Follow changes of the configuration, of the home and of the clock until a stop signal."""
        ahead = time.time() - time.monotonic()
        while (sign := signals.wait(WATCH)) not in STOPS:
            if sign == SIGHUP:
                self._reload()
            if self._changed.is_set():
                self._changed.clear()  # what changes from now on is read by the next update
                self._update()
            before, ahead = ahead, time.time() - time.monotonic()
            if reconcile.is_set_back(before, ahead):
                self._carry_out(reconcile.replan(self._flows))
            self._scheduler.wakeup()  # it sleeps by the monotonic clock, ticks are of the wall's

    def _reload(self) -> None:
        """Read the configuration file again; log why it is refused, and go on with the old one."""
        try:
            fresh = file.load(self._path, self._environ)
        except InputError as error:
            refused = str(error)
        else:
            setting = reconcile.refusal(self._config, fresh)
            refused = setting and f"{self._path}: {setting}: cannot change while the daemon runs"
        if refused:
            log.error("configuration refused, the old one stays", error=refused)
            return
        self._config = fresh
        self._publish()
        self._update()
        log.info("configuration read", flows=len(self._flows))

    def _publish(self) -> None:
        """Make the control plane follow the file: its tokens, and its flows as resources."""
        if self._api:
            try:
                self._api.follow(self._config, declared_flows.origin_of(self._path))
            except EtlError as error:
                log.error("the control plane does not follow the file", error=str(error))

    def _update(self) -> None:
        self._read_home()
        before, self._flows = self._flows, self._config.flows | self._stored
        self._dispatcher.follow(self._flows)
        self._carry_out(reconcile.reconcile(before, self._flows))
        try:
            requested = self._api.requested_flows(self._flows.keys()) if self._api else set()
        except EtlError as error:
            log.error("what was asked for cannot be read", error=str(error))
            return
        self._carry_out([TickNow(name) for name in sorted(requested)])

    def _read_home(self) -> None:
        """Read the flows of the home; where that fails, the flows known before stay."""
        try:
            self._stored, problems = declared_flows.flows_in_home(self._config, self._path)
        except EtlError as error:
            self._unread = [f"What the home keeps cannot be read: {error}"]
            log.error("what the home keeps cannot be read", error=str(error))
            return
        self._unread = []
        self._carry_out(reconcile.new_problems(self._problems, problems))
        self._problems = problems

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case AddTicks(name, schedule):
                    self._dispatcher.request(name)
                    self._scheduler.add_ticks(name, schedule)
                case RemoveTicks(name):
                    self._scheduler.remove_ticks(name)
                case TickNow(name):
                    self._dispatcher.request(name)
                    self._scheduler.tick_now(name)
                case StopProcess(name):
                    self._dispatcher.end(name)
                case Log():
                    write(action)

    def _stop(self, signals: SignalQueue) -> None:
        """P8: begin no window; running ones have `grace` seconds, a second signal ends them."""
        running = self._dispatcher.close()
        if self._api:
            self._api.stop()
        self._scheduler.stop()
        log.info("stopping", running=len(running))
        for process in running:
            process.terminate()
        until = time.monotonic() + self._grace
        while any(process.is_alive() for process in running) and time.monotonic() < until:
            if signals.wait(0.05) in STOPS:
                until = 0
        for process in running:
            process.kill()
        for process in running:
            process.join()
        if self._api:
            self._api.join(max(until - time.monotonic(), 0))
        log.info("stopped")


@contextmanager
def _lock_of(home: Path) -> Iterator[None]:
    """Hold the lock of `home` against a second daemon; the kernel frees it with the process."""
    with disk_error(f"write in {home}"):
        make_folder(home, 0o700)
        lock = (home / declared_flows.LOCK).open("a+", encoding="ascii")
    with lock:
        with disk_error(f"write in {home}"):
            holder = lock_file(lock)
        if holder:
            raise InputError(
                f"A daemon runs already with the home {home}: process {holder}. "
                "Stop it first, or give this one another home."
            )
        yield
