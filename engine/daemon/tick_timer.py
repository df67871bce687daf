"""Fire the ticks of flows when they are due. The only importer of APScheduler.

What is due at a tick is decided in `model.schedule`; what a tick does, in `dispatcher`.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from engine.model.clock import Clock
from engine.model.flow import Schedule
from engine.model.schedule import next_tick

MAX_TICKS = 10_000  # ticks at the same moment, a thread each; most of them wait for a turn


class FlowTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Compute the ticks of a flow from its schedule and the daemon's clock, for APScheduler."""

    def __init__(self, schedule: Schedule, clock: Clock) -> None:
        self._schedule, self._clock = schedule, clock

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The next tick: the first one is `now`, and ticks that were missed since are one."""
        if previous is None:
            return now
        tick = next_tick(self._schedule, self._clock.now())
        return None if tick is None else _machine_time(self._clock, tick)


class TickTimer:
    """Calls `tick` with the name of a flow, in a thread, at each tick of the flow."""

    def __init__(self, tick: Callable[[str], None], clock: Clock) -> None:
        self._tick, self._clock = tick, clock
        self._jobs = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(MAX_TICKS)},
            job_defaults={"coalesce": True, "max_instances": MAX_TICKS, "misfire_grace_time": None},
            timezone=UTC,
        )

    def start(self) -> None:
        """Fire what is due from now on."""
        self._jobs.start()

    def add_ticks(self, flow: str, schedule: Schedule) -> None:
        """Plan the ticks of `flow` in place of those planned before; the first is now."""
        trigger = FlowTrigger(schedule, self._clock)
        self.remove_ticks(flow)  # a job that is replaced would not fire now
        self._jobs.add_job(self._tick, trigger, [flow], id=flow)

    def remove_ticks(self, flow: str) -> None:
        """Plan no more ticks of `flow`, if there are any."""
        with suppress(JobLookupError):  # its last tick has come, or comes at this moment
            self._jobs.remove_job(flow)

    def tick_now(self, flow: str) -> None:
        """Fire a tick of `flow` now, beside its planned ticks."""
        self._jobs.add_job(self._tick, "date", [flow])

    def retry_in(self, flow: str, ms: int) -> None:
        """Plan one tick of `flow` after `ms` of the daemon's clock, in place of those planned."""
        at = _machine_time(self._clock, self._clock.now() + ms)
        self._jobs.add_job(self._tick, "date", [flow], id=flow, replace_existing=True, run_date=at)

    def wakeup(self) -> None:
        """Compare the planned ticks with the wall clock, which may have been set since."""
        self._jobs.wakeup()

    def stop(self) -> None:
        """Fire no more ticks; return without waiting for those that were fired."""
        # Between two passes over the jobs: a pass under way would miss jobs that shutdown removes.
        self._jobs.pause()
        self._jobs.get_jobs()  # waits for a pass that has begun
        self._jobs.shutdown(wait=False)


def _machine_time(clock: Clock, moment: int) -> datetime:
    """What the machine's clock shows at `moment` (ms since the epoch) of `clock`."""
    return datetime.fromtimestamp(clock.machine(moment) / 1000, UTC)
