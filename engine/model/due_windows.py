"""Plan which windows of a flow are due, and how many days go into one request. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

from engine.model.day_borders import UTC
from engine.model.flow import Flow
from engine.model.schedule import (
    AHEAD,
    FULL_DAY,
    HOUR,
    MINUTE,
    SECOND,
    interval_ms,
    is_later,
    last_tick,
    spaced,
)
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

EVENTS_PER_REQUEST = 1_000_000  # Mixpanel's own advice: keep a request under one to two million
DAYS_PER_REQUEST = 31
NOTHING: Mapping[date, int] = MappingProxyType({})
UNKNOWN = 1  # ms: a day's position, where the clock that set it was wrong


def next_window(
    days: Sequence[date],
    events_per_day: float | None,
    days_per_request: int | None,
    bounds: Mapping[date, int] = NOTHING,
    cap: int | None = None,
) -> Window:
    """Return the first window of `days` (not empty): neighbouring days for one request.

    At most `days_per_request` days (None: `fitting_days`), `cap` days, and what `bounds` allows for
    each of its days.
    """
    most = days_per_request or fitting_days(events_per_day)
    first = next(_parts(days, min(most, cap or most), bounds))
    return Window(first[0], first[-1])


def fitting_days(events_per_day: float | None) -> int:
    """Return how many days stay within EVENTS_PER_REQUEST and DAYS_PER_REQUEST; 1 if unknown."""
    if events_per_day is None:
        return 1
    return max(1, min(DAYS_PER_REQUEST, int(EVENTS_PER_REQUEST / max(events_per_day, 1))))


def request_range(days: Sequence[date], days_per_request: int | None) -> tuple[int, int]:
    """Return the fewest and the most requests for `days`; equal where the size is fixed."""
    runs = consecutive(days)
    fewest = sum(-(-len(run) // (days_per_request or DAYS_PER_REQUEST)) for run in runs)
    return fewest, len(days) if days_per_request is None else fewest


@dataclass(frozen=True, slots=True)
class Positions:
    """How far a flow is, as its table stores it; moments in ms since the epoch.

    start       begin of its first arrival window; None before the first
    arrival     the high watermark: end of the last arrival window; None before the first
    pulled      for each day the moment up to which its last whole pull has its events: `before` of
                that window, else the moment of the pull; UNKNOWN where a clock was ahead
    doubtful    moment up to which the table may have events beyond the high watermark; 0: none
    undone      days of which another program changed or removed rows (P10)
    begin       seconds from the begin of a UTC day to that of a project's day; if not UTC, each
                day takes a request
    misfiled    days with rows stored under their UTC days, in the order of their next pulls
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
            raise ValueError("arrival windows have a start and an end, or neither")


@dataclass(frozen=True, slots=True)
class Due:
    """A window to pull now; `why`: arrival, undone, day, misfiled, settle or backfill."""

    window: Window
    why: str


def backoff(failures: int) -> int:
    """Return the ms for which a day waits after `failures` in a row: 15 minutes to a day."""
    return min(FULL_DAY, 15 * MINUTE << min(failures - 1, 10)) if failures > 0 else 0


def due(
    flow: Flow,
    positions: Positions,
    now: int,
    *,
    events_per_day: float | None = None,
    backoffs: Mapping[date, int] = NOTHING,
    bounds: Mapping[date, int] = NOTHING,
    cap: int | None = None,
) -> Iterator[Due]:
    """Yield the windows to pull now, the most urgent first; after a commit, plan again.

    `backoffs`: until when a failed day waits; then it is pulled in a separate request (P9). One
    that is longer than the longest was set by a clock that was ahead, and is ignored.
    `bounds`, `cap`: the most days of a request with this day, and of any request.
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
    bounds = {**bounds, **dict.fromkeys(backoffs, 1)}
    for why, days in _with_undone(flow, positions, wanted, now).items():
        waiting = [day for day in days if now < backoffs.get(day, now) <= now + FULL_DAY]
        if why == "misfiled" and any(backoffs[day] <= now + HOUR for day in waiting):
            return  # another order would double events: they wait for an hour at most
        ready = [day for day in days if day not in waiting]
        newest_first = positions.begin > UTC if why == "misfiled" else why == "backfill"
        for part in _parts(ready, most, bounds, newest_first=newest_first):
            yield Due(Window(part[0], part[-1], before=before), why)


def _arrival(flow: Flow, positions: Positions, tick: int, now: int) -> Window | None:
    """Return the arrival window that is due at `tick`, if any.

    A high watermark later than now was set by a clock that was ahead, at an unknown moment: the
    window then covers all that days which have not settled may lack, and sets it back.
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
    """Return how many ms before `begin` the next arrival window requests as well.

    The overlap ends where the first arrival window began, unless all of its days were pulled whole:
    what arrived before is not in the table.
    """
    if positions.misfiled:  # duplicates would not be found: the table has them under another day
        return 0
    overlap, start, zone = flow.overlap_minutes * MINUTE, positions.start, flow.connection.zone
    if start is None or start <= begin - overlap:
        return 0 if start is None else overlap
    first = last_over(begin - overlap - _lookback(flow), zone) + DAY
    history = each_day(first, latest_day(start, zone))
    whole = all(positions.pulled.get(day, UNKNOWN) > UNKNOWN for day in history)
    return overlap if whole else max(0, begin - start)


def _span(flow: Flow, positions: Positions, tick: int) -> tuple[int, int] | None:
    """Return the span of arrival that is due, up to the flow's delay before `tick`; None if empty.

    It begins at the high watermark. The first span begins at `start_time` or, if later, at
    `lookback_days` (or a longer interval) before its end. Counted from its end and not from now, so
    that nothing is lost while it fails. `once` counts from its only tick.
    """
    end = tick - flow.delay_minutes * MINUTE
    begin = positions.arrival
    if begin is None:
        begin = _first(flow, end)
        # P4: days pulled before the first arrival window have what arrived until then.
        touched = last_over(begin - _lookback(flow), flow.connection.zone)
        begin = max([begin, *(at for day, at in positions.pulled.items() if day > touched)])
    return (begin, end) if begin < end else None


def _first(flow: Flow, end: int) -> int:
    """Return the begin of the first arrival window, if it ends at `end`; both in ms."""
    every = interval_ms(flow.schedule) if flow.schedule else None
    begin = end - max(_lookback(flow), every or 0)
    if flow.schedule and every:
        begin = max(begin, flow.schedule.start_time * SECOND)
    return begin


def advance_to(flow: Flow, arrival: int | None, now: int) -> int | None:
    """Return up to which arrival (ms) a day that is pulled now may have events; None: any (P4).

    This is the high watermark `arrival`, or before the first arrival window the begin of that: it
    begins after the days that were pulled, and what arrived of other days in between would be lost.
    """
    if arrival is not None or flow.windows == "day":
        return arrival
    until = now - flow.delay_minutes * MINUTE
    if flow.schedule is None:
        return until
    tick = last_tick(flow.schedule, now) or flow.schedule.start_time * SECOND
    return min(until, _first(flow, tick - flow.delay_minutes * MINUTE))


def _beside_arrivals(flow: Flow, positions: Positions, now: int) -> dict[str, list[date]]:
    """Return the days to pull whole beside arrival windows, by reason.

    No day before the first arrival window: the high watermark limits what is pulled of a day.
    """
    start, arrival, pulled = positions.start, positions.arrival, positions.pulled
    if start is None or arrival is None or is_later(arrival, now):
        return {}
    zone = flow.connection.zone
    began = latest_day(start, zone)  # the last day of which arrival windows may lack something
    # Not after the high watermark, or late events would be left out; nor after `now`: if the clock
    # was ahead when the watermark was set and is right again, late events are yet to come.
    settled_up_to = last_over(min(arrival, now) - _lookback(flow), zone)
    backfill: list[date] = []
    if flow.backfill_from:
        backfill = _never(pulled, flow.backfill_from, min(began, latest_day(now, zone)))
    settle = _never(pulled, began + DAY, settled_up_to) + _unsettled(flow, pulled, settled_up_to)
    return {"settle": settle, "backfill": backfill}


def _with_undone(
    flow: Flow, positions: Positions, wanted: Mapping[str, list[date]], now: int
) -> dict[str, list[date]]:
    """Put the days that were undone before `wanted`: each is due whole, once (P10).

    No day before the first arrival window: the high watermark limits what is pulled of a day.
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
        # Before other days: an event may be in a misfiled day and in another one.
        "misfiled": list(positions.misfiled),
    }
    return first | rest


def _by_days(flow: Flow, positions: Positions, tick: int) -> dict[str, list[date]]:
    """Return the days that a flow with day windows pulls at `tick`, by reason.

    From `backfill_from` on, else from the day of `start_time`, else from yesterday or the first day
    that was pulled.
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
    """Return the days up to `settled_up_to` not pulled since they were `lookback_days` old."""
    zone, lookback = flow.connection.zone, _lookback(flow)
    return [
        day
        for day, at in pulled.items()
        if day <= settled_up_to and at < day_over(day, zone) + lookback
    ]


def _lookback(flow: Flow) -> int:
    return flow.lookback_days * FULL_DAY


def _parts(
    days: Sequence[date], most: int, bounds: Mapping[date, int], *, newest_first: bool = False
) -> Iterator[list[date]]:
    """Split `days` into requests: of at most `most` neighbours, or of what `bounds` has for any."""
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
