"""Ticks of a schedule: the last, the next, and when a flow counts as stale. Pure."""

from dataclasses import replace

from engine.model.flow import Flow, Schedule

SECOND, MINUTE, HOUR, FULL_DAY = 1_000, 60_000, 3_600_000, 86_400_000  # ms
UNITS = {"minute": MINUTE, "hour": HOUR, "day": FULL_DAY, "week": 7 * FULL_DAY}
TOLERANCE = MINUTE  # how far ahead of now a moment may be: other processes, clock adjustments
SINGLE_REQUESTS = 40  # an hour, for arrival windows that take a request for each day
AHEAD = 14 * HOUR  # the most by which a time zone is ahead of UTC


def is_later(moment: int, now: int) -> bool:
    """Return whether `moment` (ms) is in the future: a clock was ahead then or is behind now."""
    return moment > latest(now)


def latest(now: int) -> int:
    """Return the last moment (ms) that counts as past at `now`."""
    return now + TOLERANCE


def last_tick(schedule: Schedule, now: int) -> int | None:
    """Return the latest tick up to `now`, in ms since the epoch; None before the first.

    Ticks are `start_time` and every whole interval after it, in UTC; `once` has only the first.
    """
    start = schedule.start_time * SECOND
    if now < start:
        return None
    every = interval_ms(schedule)
    return start if every is None else now - (now - start) % every


def next_tick(schedule: Schedule, now: int) -> int | None:
    """Return the first tick after `now`, in ms since the epoch; None after the last."""
    last, every = last_tick(schedule, now), interval_ms(schedule)
    if last is None:
        return schedule.start_time * SECOND
    return None if every is None else last + every


def spaced(flow: Flow) -> Flow:
    """Return `flow` with an interval that leaves time for a request for each day of a window."""
    every = interval_ms(flow.schedule) if flow.schedule else None
    if flow.windows != "arrival" or not flow.schedule or not every:
        return flow
    requests = flow.lookback_days + 3
    shortest = -(-requests * HOUR // SINGLE_REQUESTS)
    interval = (flow.schedule.interval or 1) * -(-shortest // every)
    return replace(flow, schedule=replace(flow.schedule, interval=interval))


def stale_after(schedule: Schedule, delay_minutes: int) -> int:
    """Return the lag in ms of a stale flow: two intervals (`once`: 15 minutes) and its delay."""
    return 2 * (interval_ms(schedule) or 15 * MINUTE) + delay_minutes * MINUTE


def is_once(schedule: Schedule | None) -> bool:
    """Return whether a schedule has only one tick."""
    return schedule is not None and schedule.frequency == "once"


def interval_ms(schedule: Schedule) -> int | None:
    """Return the ms from tick to tick; None for `once`."""
    return None if is_once(schedule) else (schedule.interval or 1) * UNITS[schedule.frequency]
