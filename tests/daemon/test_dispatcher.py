"""The dispatcher carries out the ticks of a flow; the processes are fakes."""

import errno
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.daemon import dispatcher as dispatcher_module
from engine.daemon.dispatcher import Dispatcher
from engine.daemon.reconcile import RETRY_MS
from engine.daemon.tick_timer import TickTimer
from engine.daemon.turn_queue import LATER, MORE, Turns
from engine.log import configure
from engine.model.clock import Clock
from engine.model.flow import Connection, Flow, Schedule, Secret
from tests.support.daemons import until

SHOP = Connection("https://h", "reader", Secret("s3cret"), 1)
FLOW = Flow("events", SHOP, "data/events", schedule=Schedule("minute", 15, 0))
Report = Callable[[], None]
Turn = Callable[[Flow, int], int]  # a flow, when its tick began -> exit status


class Process:
    """A fake process: `turn` runs while the process is followed."""

    def __init__(self, turn: Callable[[], int]) -> None:
        self.turn = turn
        self.is_unwanted = False

    def follow(self, waits: Report, works: Report) -> int:
        return self.turn()

    def end_unwanted(self) -> None:
        self.is_unwanted = True


def dispatcher_of(
    launch: Callable[[Flow, int], Any],
    *flows: Flow,
    turns: Turns | None = None,
    retries: list[Any] | None = None,
) -> Dispatcher:
    """Return a dispatcher of `flows` (default: FLOW) that notes retries in a list."""

    def retry_in(name: str, ms: int) -> None:
        assert retries is not None
        retries.append((name, ms))

    made = Dispatcher(launch, turns or Turns(2), Clock(), retry_in)
    made.follow({flow.name: flow for flow in flows or (FLOW,)})
    return made


def each(turn: Turn) -> Callable[[Flow, int], Process]:
    """Return a launch of fake processes that run `turn`."""
    return lambda flow, began: Process(lambda: turn(flow, began))


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """The lines that were logged since the last call."""
    configure()
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


Logged = Callable[[], list[dict[str, Any]]]


def test_flows_take_turns() -> None:
    """Two flows with work for days leave room for a third, though only two run at a time."""
    names = ("long", "longer", "short")
    turns: dict[str, threading.Event] = defaultdict(threading.Event)

    def turn(flow: Flow, began: int) -> int:
        turns[flow.name].set()
        if flow.name == "short":
            return 0
        turns["short"].wait(0.02)  # a turn takes its time
        return MORE

    dispatcher = dispatcher_of(each(turn), *(replace(FLOW, name=name) for name in names))
    threads = [threading.Thread(target=dispatcher.tick, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    assert turns["short"].wait(10)
    dispatcher.close()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_hundreds_of_flows_that_wait() -> None:
    """250 flows that wait for the hourly budget hold up no flow that need not wait."""
    flows = [replace(FLOW, name=f"waiting{number}") for number in range(250)]
    turns: set[str] = set()

    def turn(flow: Flow, began: int) -> int:
        turns.add(flow.name)
        return 0 if flow.name == "short" else LATER

    dispatcher = dispatcher_of(each(turn), *flows, replace(FLOW, name="short"))
    scheduler = TickTimer(dispatcher.tick, Clock())
    scheduler.start()
    try:
        for flow in flows:
            scheduler.tick_now(flow.name)
        until(lambda: len(turns) == 250, 20)
        scheduler.tick_now("short")
        until(lambda: "short" in turns, 10)
    finally:
        dispatcher.close()
        scheduler.stop()


def test_a_wait_for_the_budget_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    """A wait is logged when it begins, not once a minute."""
    monkeypatch.setattr("engine.daemon.reconcile.LATER_SECONDS", 0)
    ends = iter([LATER, LATER, MORE, LATER, 0])
    moments = set()

    def turn(flow: Flow, began: int) -> int:
        moments.add(began)
        return next(ends)

    dispatcher_of(each(turn)).tick("events")
    assert [line["event"] for line in logged()] == ["waiting"] * 2
    assert next(ends, None) is None
    assert len(moments) == 1  # turns of one tick


def test_a_process_that_waits_frees_its_turn() -> None:
    """Another flow has the turn while a process waits; once it works, it counts again."""
    turns = Turns(1)

    class Waiting(Process):
        def follow(self, waits: Report, works: Report) -> int:
            assert not turns.take("other", FLOW.project, timeout=0)
            waits()
            assert turns.take("other", FLOW.project, timeout=0)
            works()
            turns.release("other")
            assert not turns.take("other", FLOW.project, timeout=0)
            return 0

    def launch(flow: Flow, began: int) -> Any:
        return Waiting(lambda: 0)

    dispatcher = dispatcher_of(launch, turns=turns)
    dispatcher.tick("events")
    assert turns.take("other", FLOW.project, timeout=0)


def test_a_process_that_cannot_be_started(logged: Logged) -> None:
    """The reason is logged, and the next tick of the flow tries again."""
    failures = [OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))]
    turns: list[str] = []

    def launch(flow: Flow, began: int) -> Any:
        if failures:
            raise failures.pop()
        return Process(lambda: turns.append(flow.name) or 0)  # type: ignore[func-returns-value]

    dispatcher = dispatcher_of(launch)
    dispatcher.tick("events")
    (line,) = logged()
    assert (line["event"], line["flow"]) == ("no process could be started", "events")
    assert line["error"] == os.strerror(errno.EAGAIN)
    dispatcher.tick("events")
    assert turns == ["events"]


@pytest.mark.parametrize(("requested", "count"), [(False, 2), (True, 3)])
def test_a_tick_that_falls_into_a_turn(requested: bool, count: int) -> None:
    """The running turn covers the tick, unless `request` was called since: one more follows."""
    turns: list[int] = []

    def turn(flow: Flow, began: int) -> int:
        turns.append(began)
        if len(turns) > 1:
            return 0
        if requested:
            dispatcher.request(flow.name)
        dispatcher.tick(flow.name)
        dispatcher.tick(flow.name)
        return MORE

    dispatcher = dispatcher_of(each(turn))
    dispatcher.tick("events")
    assert len(turns) == count
    dispatcher.tick("events")
    assert len(turns) == count + 1


def test_a_change_during_a_turn() -> None:
    """The running turn ends with the old flow, and one more turn follows with the new flow."""
    turns: list[str | None] = []
    processes: list[Process] = []

    def turn(flow: Flow) -> int:
        turns.append(flow.where)
        if len(turns) == 1:
            dispatcher.follow({"events": replace(FLOW, where="true")})
            dispatcher.request("events")
        return 0

    def launch(flow: Flow, began: int) -> Any:
        processes.append(Process(lambda: turn(flow)))
        return processes[-1]

    dispatcher = dispatcher_of(launch)
    dispatcher.tick("events")
    assert turns == [None, "true"]
    assert not any(process.is_unwanted for process in processes)


def test_a_flow_that_is_gone_before_its_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process starts for a flow that was deleted after the decision to start one."""

    def deleted_meanwhile(connection: Connection) -> Connection:
        dispatcher.follow({})
        return connection

    monkeypatch.setattr(dispatcher_module, "read_again", deleted_meanwhile)
    dispatcher = dispatcher_of(each(lambda flow, began: pytest.fail("it was started")))
    dispatcher.tick("events")
    dispatcher.tick("events")  # and now the flow is gone from the beginning


def test_the_process_of_a_flow_that_is_gone_is_ended() -> None:
    """P8: only the process of the deleted flow is ended; without a process nothing happens."""
    processes: dict[str, Process] = {}

    def launch(flow: Flow, began: int) -> Any:
        def turn() -> int:
            dispatcher.end("events")
            return 0

        processes[flow.name] = Process(turn)
        return processes[flow.name]

    dispatcher = dispatcher_of(launch, FLOW, replace(FLOW, name="other"))
    for name in ("other", "events"):
        dispatcher.tick(name)
    dispatcher.end("other")
    assert {name: each.is_unwanted for name, each in processes.items()} == {
        "other": False, "events": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("frequency", "status", "retries"),
    [("once", 1, [("events", RETRY_MS)]), ("once", 0, []), ("minute", 1, [])],
)
def test_a_once_flow_that_failed_is_tried_again(
    frequency: str, status: int, retries: list[Any]
) -> None:
    """The dispatcher plans another tick, since the schedule has no more."""
    planned: list[Any] = []
    flow = replace(FLOW, schedule=Schedule(frequency, None if frequency == "once" else 15, 0))
    dispatcher_of(each(lambda flow, began: status), flow, retries=planned).tick("events")
    assert planned == retries


def test_no_turn_after_the_end() -> None:
    """P8: a closed dispatcher starts no process, and plans nothing after a turn that ends."""

    def turn(flow: Flow, began: int) -> int:
        (process,) = dispatcher.close()
        assert isinstance(process, Process)
        return 1

    once = replace(FLOW, schedule=Schedule("once", None, 0))
    retries: list[Any] = []
    dispatcher = dispatcher_of(each(turn), once, retries=retries)
    dispatcher.tick("events")
    dispatcher.tick("events")  # would fail: no process runs that `turn` could see closed
    assert retries == []
    assert dispatcher.close() == []
