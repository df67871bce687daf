"""Ticks fire at once when they are planned, then by the schedule and the daemon's clock."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from queue import Empty, Queue

import pytest

from engine.daemon.tick_timer import FlowTrigger, TickTimer
from engine.model.clock import Clock
from engine.model.flow import Schedule
from tests.support.daemons import START, clock_of

DAILY, ONCE = Schedule("day", 1, 0), Schedule("once", None, 0)
NOW = datetime(2024, 1, 10, 10, 7, tzinfo=UTC)


def test_the_first_tick_is_now_and_missed_ticks_are_one() -> None:
    """Later ticks are those of the schedule, by the daemon's clock."""
    clock = clock_of(1, START + 7 * 60_000)  # 10:07
    trigger = FlowTrigger(Schedule("minute", 15, START // 1000), clock)
    assert trigger.get_next_fire_time(None, NOW) == NOW
    long_ago = NOW - timedelta(days=3)
    tick = trigger.get_next_fire_time(long_ago, NOW)
    assert tick == datetime.fromtimestamp(clock.machine(START + 15 * 60_000) / 1000, UTC)


def test_once_has_one_tick() -> None:
    """A `once` schedule has no tick after its first."""
    trigger = FlowTrigger(ONCE, clock_of(1))
    assert trigger.get_next_fire_time(None, NOW) == NOW
    assert trigger.get_next_fire_time(NOW, NOW) is None


def test_a_clock_that_runs_faster_has_its_ticks_sooner() -> None:
    """A tick of the daemon's clock is converted to the machine's time."""
    clock = clock_of(60)
    tick = FlowTrigger(Schedule("hour", 1, START // 1000), clock).get_next_fire_time(NOW, NOW)
    assert tick == datetime.fromtimestamp((clock.began + 60_000) / 1000, UTC)


class Ticks:
    """A scheduler that runs, and the ticks that it fired."""

    def __init__(self) -> None:
        self.fired: Queue[str] = Queue()
        self.scheduler = TickTimer(self.fired.put, Clock())

    def next(self) -> str:
        return self.fired.get(timeout=10)

    def are_none(self) -> bool:
        """Return whether no tick is left: a marker that was fired last comes first."""
        self.scheduler.tick_now("marker")
        return self.next() == "marker"


@pytest.fixture
def ticks() -> Iterator[Ticks]:
    made = Ticks()
    made.scheduler.start()
    yield made
    made.scheduler.stop()


def test_planned_ticks_begin_at_once(ticks: Ticks) -> None:
    """The first tick of a schedule that replaces another one is now as well."""
    for schedule in (DAILY, Schedule("day", 2, 0), ONCE, ONCE, DAILY):
        ticks.scheduler.add_ticks("events", schedule)
        assert ticks.next() == "events"
    assert ticks.are_none()


def test_a_tick_beside_those_that_are_planned(ticks: Ticks) -> None:
    """`tick_now` works for a flow without planned ticks, such as `once` after its tick."""
    ticks.scheduler.tick_now("events")
    assert ticks.next() == "events"
    ticks.scheduler.add_ticks("events", ONCE)
    assert ticks.next() == "events"
    ticks.scheduler.tick_now("events")
    ticks.scheduler.tick_now("events")
    assert [ticks.next(), ticks.next()] == ["events"] * 2
    assert ticks.are_none()


def test_removed_ticks_do_not_come(ticks: Ticks) -> None:
    """Removing the ticks of a flow that has no ticks is no error."""
    ticks.scheduler.add_ticks("events", ONCE)
    assert ticks.next() == "events"
    ticks.scheduler.remove_ticks("events")
    ticks.scheduler.retry_in("events", 50)
    ticks.scheduler.remove_ticks("events")
    ticks.scheduler.remove_ticks("events")
    with pytest.raises(Empty):
        ticks.fired.get(timeout=0.15)


def test_a_retry_is_one_tick(ticks: Ticks) -> None:
    """A retry comes after the named time, and replaces an earlier retry."""
    ticks.scheduler.retry_in("events", 3_600_000)
    ticks.scheduler.retry_in("events", 1)
    assert ticks.next() == "events"
    assert ticks.are_none()


def test_no_tick_after_the_end() -> None:
    """A tick that is planned for later does not fire after the scheduler was stopped."""
    made = Ticks()
    made.scheduler.start()
    made.scheduler.retry_in("events", 50)
    made.scheduler.stop()
    with pytest.raises(Empty):
        made.fired.get(timeout=0.15)
