"""Plan which windows of a flow are due, and how many days go into one request. Pure.

The clock is an argument. A plan is carried out elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType

from engine.model.day_borders import UTC
from engine.model.flow import Flow, Schedule
from engine.model.window import (
    DAY,
    Window,
    consecutive,
    day_begin,
    day_over,
    each_day,
    last_over,
    latest_day,
)

SECOND, MINUTE, HOUR, FULL_DAY = 1_000, 60_000, 3_600_000, 86_400_000  # ms
UNITS = {"minute": MINUTE, "hour": HOUR, "day": FULL_DAY, "week": 7 * FULL_DAY}
EVENTS_PER_REQUEST = 1_000_000  # Mixpanel's own advice: keep a request under one to two million
DAYS_PER_REQUEST = 31
NOTHING: Mapping[date, int] = MappingProxyType({})
TOLERANCE = MINUTE  # how much later than now another process, or a clock that is trimmed, may note
AHEAD = 14 * HOUR  # by which the clocks of a project can be ahead of UTC
SINGLE_REQUESTS = 40  # an hour, for arrival windows that ask for each day by itself
UNKNOWN = 1  # ms: a day's position, where the clock that noted it was wrong


def next_window(
    days: Sequence[date],
    events_per_day: float | None,
    days_per_request: int | None,
    bounds: Mapping[date, int] = NOTHING,
    cap: int | None = None,
) -> Window:
    """The first window that `days` (not empty) make: neighbouring days in one request.

    How many: `days_per_request`, or where that is None as many as `fitting_days` says; never more
    than `cap`, nor than any of the days has in `bounds`.
    """
    most = days_per_request or fitting_days(events_per_day)
    first = next(_parts(days, min(most, cap or most), bounds))
    return Window(first[0], first[-1])


def fitting_days(events_per_day: float | None) -> int:
    """How many days keep to EVENTS_PER_REQUEST, at most DAYS_PER_REQUEST; one if none is known."""
    if events_per_day is None:
        return 1
    return max(1, min(DAYS_PER_REQUEST, int(EVENTS_PER_REQUEST / max(events_per_day, 1))))


def request_range(days: Sequence[date], days_per_request: int | None) -> tuple[int, int]:
    """The fewest and the most requests that `days` can take; equal where the size is fixed."""
    runs = consecutive(days)
    if days_per_request is not None:
        count = sum(-(-len(run) // days_per_request) for run in runs)
        return count, count
    return sum(-(-len(run) // DAYS_PER_REQUEST) for run in runs), len(days)


# What is due ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Positions:
    """What the table says of a flow; moments in ms since the epoch.

    start       where its arrival windows began; None before the first
    arrival     M, the end of the last arrival window; None before the first
    pulled      up to which moment each day was last pulled whole: a window's `before`, or where
                it has none the moment of the pull; UNKNOWN where a clock that was ahead noted it
    doubtful    up to which moment the table may hold events beyond M; 0: M is as far as it goes
    undone      days that the table does not hold any more as they were brought (P10)
    begin       how many seconds after a UTC day the project's begin: if not UTC, each day is asked
                for by itself
    misfiled    days with rows that are filed by their UTC days, the first to be pulled again first
    """

    start: int | None
    arrival: int | None
    pulled: Mapping[date, int]
    doubtful: int = 0
    undone: frozenset[date] = frozenset()
    begin: int = UTC
    misfiled: tuple[date, ...] = ()

    def __post_init__(self) -> None:
        if (self.start is None) != (self.arrival is None):
            raise ValueError("arrival windows have a start and an end, or there were none")


@dataclass(frozen=True, slots=True)
class Due:
    """A window to pull now.

    `why`: "arrival", "undone", "day", "misfiled", "settle" or "backfill".
    """

    window: Window
    why: str


def is_later(moment: int, now: int) -> bool:
    """Whether `moment` (ms) was noted by a clock that was ahead, or `now` is by one behind."""
    return moment > latest(now)


def latest(now: int) -> int:
    """The last moment (ms) that counts as past at `now`."""
    return now + TOLERANCE


def last_tick(schedule: Schedule, now: int) -> int | None:
    """The latest tick up to `now`, in ms since the epoch; None before the first.

    Ticks are `start_time` and every whole interval after it, in UTC; `once` has the first alone.
    """
    start = schedule.start_time * SECOND
    if now < start:
        return None
    every = _interval(schedule)
    return start if every is None else now - (now - start) % every


def next_tick(schedule: Schedule, now: int) -> int | None:
    """The first tick after `now`, in ms since the epoch; None when there is none to come."""
    last, every = last_tick(schedule, now), _interval(schedule)
    if last is None:
        return schedule.start_time * SECOND
    return None if every is None else last + every


def spaced(flow: Flow) -> Flow:
    """`flow` with its ticks so far apart that the hour's budget allows arrival windows of single
    days: a request for each day.
    """
    every = _interval(flow.schedule) if flow.schedule else None
    if flow.windows != "arrival" or not flow.schedule or not every:
        return flow
    requests = flow.lookback_days + 3
    least = -(-requests * HOUR // SINGLE_REQUESTS)
    interval = (flow.schedule.interval or 1) * -(-least // every)
    return replace(flow, schedule=replace(flow.schedule, interval=interval))


def stale_after(schedule: Schedule, delay_minutes: int) -> int:
    """Ms behind which a flow is stale: two intervals and its delay, the least ones for `once`."""
    return 2 * (_interval(schedule) or 15 * MINUTE) + delay_minutes * MINUTE


def is_once(schedule: Schedule | None) -> bool:
    """Whether there is a single tick."""
    return schedule is not None and schedule.frequency == "once"


def _interval(schedule: Schedule) -> int | None:
    """Ms from tick to tick; None for `once`."""
    if is_once(schedule):
        return None
    return (schedule.interval or 1) * UNITS[schedule.frequency]


def rest(failures: int) -> int:
    """Ms for which a day that failed so often in a row is left alone: 15 minutes to a day."""
    return min(FULL_DAY, 15 * MINUTE << min(failures - 1, 10)) if failures > 0 else 0


def due(
    flow: Flow,
    positions: Positions,
    now: int,
    *,
    events_per_day: float | None = None,
    rests: Mapping[date, int] = NOTHING,
    bounds: Mapping[date, int] = NOTHING,
    cap: int | None = None,
) -> Iterator[Due]:
    """What to pull now, the most urgent first: arrival, undone, day, misfiled, settle, backfill.

    It is a plan for these positions only: a commit makes another. `rests`: until when a day that
    failed is left alone; after that it travels alone, so that it holds up none of its neighbours.
    A rest that lasts longer than any was noted by a clock that was ahead.
    `bounds`, `cap`: the most days of a request that has this day, and of any.
    """
    if positions.begin != UTC:
        flow, cap = spaced(flow), 1
    tick = now if flow.schedule is None else last_tick(flow.schedule, now)
    if tick is None:
        return
    if flow.windows == "arrival":
        if window := _arrival(flow, positions, tick, now):
            yield Due(window, "arrival")
        before = positions.arrival
        wanted = _beside_arrivals(flow, positions, now)
    else:
        before = None
        wanted = _by_days(flow, positions, tick)
    most = min(fitting_days(events_per_day), cap or DAYS_PER_REQUEST)
    bounds = {**bounds, **dict.fromkeys(rests, 1)}
    for why, days in _with_undone(flow, positions, wanted, now).items():
        resting = [day for day in days if now < rests.get(day, now) <= now + FULL_DAY]
        if why == "misfiled" and any(rests[day] <= now + HOUR for day in resting):
            return  # in another order events would be doubled: they wait, but not for ever
        awake = [day for day in days if day not in resting]
        first = positions.begin > UTC if why == "misfiled" else why == "backfill"
        for part in _parts(awake, most, bounds, newest_first=first):
            yield Due(Window(part[0], part[-1], before=before), why)


def _arrival(flow: Flow, positions: Positions, tick: int, now: int) -> Window | None:
    """The arrival window that is due at `tick`, if one is.

    An M later than now was noted by a clock that was ahead. When it was noted nobody knows, so all
    that days which have not settled may lack is asked for once more, and M is put back.
    """
    zone, again = flow.connection.zone, False
    if positions.arrival is not None and is_later(positions.arrival, now):
        again, end = True, tick - flow.delay_minutes * MINUTE
        span = (day_begin(last_over(end - _lookback(flow), zone) + DAY, zone), end)
        if positions.start is not None and span[0] < positions.start < end:
            span = (positions.start, end)
    elif found := _span(flow, positions, tick):
        span = found
        again = positions.arrival is None and UNKNOWN in positions.pulled.values()
    else:
        return None
    overlap = 0 if again else _overlap(flow, positions, span[0])
    first = last_over(span[0] - overlap - _lookback(flow), zone) + DAY
    doubtful = positions.doubtful if positions.doubtful > span[0] else 0
    last = latest_day(now, zone)
    if positions.begin != UTC:
        last = max(last, latest_day(now + AHEAD, zone))
    return Window(first, last, span, None, overlap, doubtful, again, alone=positions.begin != UTC)


def _overlap(flow: Flow, positions: Positions, begin: int) -> int:
    """How far before `begin` the next arrival window asks as well, in ms.

    Not before the first one began, unless all that is asked for then was pulled whole: what came
    before that is no part of the table.
    """
    if positions.misfiled:  # what comes again would not be found where the table has it
        return 0
    overlap, start, zone = flow.overlap_minutes * MINUTE, positions.start, flow.connection.zone
    if start is None or start <= begin - overlap:
        return 0 if start is None else overlap
    first = last_over(begin - overlap - _lookback(flow), zone) + DAY
    history = each_day(first, latest_day(start, zone))
    whole = all(positions.pulled.get(day, UNKNOWN) > UNKNOWN for day in history)
    return overlap if whole else max(0, begin - start)


def _span(flow: Flow, positions: Positions, tick: int) -> tuple[int, int] | None:
    """The span of arrival time that is due: from the end of the last one to `delay` before `tick`.

    The first begins at `start_time`, or `lookback_days` before its end if that is later (before
    its end and not before now: while it fails, it loses no ground). Where an interval is longer
    than that it reaches back one interval, for the tick at `start_time` has nothing to bring.
    `once` has that tick alone, and reaches back from it.
    """
    end = tick - flow.delay_minutes * MINUTE
    begin = positions.arrival
    if begin is None:
        begin = _first(flow, end)
        # P4: days that were pulled before there were arrival windows hold what arrived until then.
        touched = last_over(begin - _lookback(flow), flow.connection.zone)
        begin = max([begin, *(at for day, at in positions.pulled.items() if day > touched)])
    return (begin, end) if begin < end else None


def _first(flow: Flow, end: int) -> int:
    """Where the first arrival window begins, if it ends there."""
    every = _interval(flow.schedule) if flow.schedule else None
    begin = end - max(_lookback(flow), every or 0)
    if flow.schedule and every:
        begin = max(begin, flow.schedule.start_time * SECOND)
    return begin


def reach(flow: Flow, arrival: int | None, now: int) -> int | None:
    """Up to which arrival a day that is pulled now may hold events; None: all there are (P4).

    M, where there are arrival windows. Where the first one is yet to come, a day may not go
    further than where that will begin: it goes on from there, and what arrived of other days
    between would be lost.
    """
    if arrival is not None or flow.windows == "day":
        return arrival
    until = now - flow.delay_minutes * MINUTE
    if flow.schedule is None:
        return until
    tick = last_tick(flow.schedule, now) or flow.schedule.start_time * SECOND
    return min(until, _first(flow, tick - flow.delay_minutes * MINUTE))


def _beside_arrivals(flow: Flow, positions: Positions, now: int) -> dict[str, list[date]]:
    """The days to pull whole beside arrival windows, by why.

    Only once there are such windows: M tells how much of a day to keep, and when it has settled.
    """
    start, arrival, pulled = positions.start, positions.arrival, positions.pulled
    if start is None or arrival is None or is_later(arrival, now):
        return {}
    zone = flow.connection.zone
    began = latest_day(start, zone)  # the last day of which arrival windows may lack something
    # By M: a pull before M reaches that moment would leave out what is late. By `now` too: if the
    # clock was ahead when M was written and has been set right, what is late is yet to come.
    settled_up_to = last_over(min(arrival, now) - _lookback(flow), zone)
    backfill: list[date] = []
    if flow.backfill_from:
        backfill = _never(pulled, flow.backfill_from, min(began, latest_day(now, zone)))
    settle = _never(pulled, began + DAY, settled_up_to) + _unsettled(flow, pulled, settled_up_to)
    return {"settle": settle, "backfill": backfill}


def _with_undone(
    flow: Flow, positions: Positions, wanted: Mapping[str, list[date]], now: int
) -> dict[str, list[date]]:
    """`wanted`, after the days that were undone: they are due whole, each once (P10).

    Beside arrival windows up to M, and so once there is one.
    """
    if flow.windows == "arrival" and (
        positions.arrival is None or is_later(positions.arrival, now)
    ):
        return dict(wanted)
    again = positions.undone.union(positions.misfiled)
    rest = {why: [day for day in days if day not in again] for why, days in wanted.items()}
    first = {
        "undone": sorted(positions.undone),
        "day": rest.pop("day", []),
        # Before any other: between a day that is filed rightly and one that is not, an event may
        # be in both.
        "misfiled": list(positions.misfiled),
    }
    return first | rest


def _by_days(flow: Flow, positions: Positions, tick: int) -> dict[str, list[date]]:
    """The days that a flow with day windows pulls at `tick`, by why.

    Without `backfill_from` it begins with the day of its `start_time`. Without that, with
    yesterday, or with the first day that it has pulled: what was missed since is due.
    """
    zone = flow.connection.zone
    pulled = {day: at for day, at in positions.pulled.items() if day not in positions.undone}
    settled_up_to = last_over(tick - _lookback(flow), zone)
    if flow.backfill_from:
        first = flow.backfill_from
    elif flow.schedule and flow.schedule.start_time:
        first = last_over(flow.schedule.start_time * SECOND, zone) + DAY
    elif flow.schedule:
        first = min([last_over(tick, zone), *pulled])
    else:
        first = last_over(tick, zone)
    running = [
        day
        for day, at in pulled.items()
        if day > settled_up_to and at < min(tick, day_over(day, zone))
    ]
    return {
        "day": running + _never(pulled, max(first, settled_up_to + DAY), latest_day(tick, zone)),
        "settle": _unsettled(flow, pulled, settled_up_to),
        "backfill": _never(pulled, first, settled_up_to),
    }


def _never(pulled: Mapping[date, int], first: date, last: date) -> list[date]:
    return [day for day in each_day(first, last) if day not in pulled]


def _unsettled(flow: Flow, pulled: Mapping[date, int], settled_up_to: date) -> list[date]:
    """The days up to `settled_up_to` that were not pulled since they were `lookback_days` old."""
    zone, lookback = flow.connection.zone, _lookback(flow)
    return [
        day
        for day, at in pulled.items()
        if day <= settled_up_to and at < day_over(day, zone) + lookback
    ]


def _lookback(flow: Flow) -> int:
    """How late an event may arrive, in ms."""
    return flow.lookback_days * FULL_DAY


def _parts(
    days: Sequence[date], most: int, bounds: Mapping[date, int], *, newest_first: bool = False
) -> Iterator[list[date]]:
    """`days` as requests: at most `most` neighbours in one, or what `bounds` has of any of them."""
    for run in sorted(consecutive(days), reverse=newest_first):
        part: list[date] = []
        limit = most
        for day in reversed(run) if newest_first else run:
            limit = min(limit, bounds.get(day, most))
            if len(part) >= limit:
                yield sorted(part)
                part, limit = [], min(most, bounds.get(day, most))
            part.append(day)
        yield sorted(part)
