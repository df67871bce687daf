"""What to ask for next, when, and what to do about a failure. Pure: clock and dice are arguments.

It decides and does nothing: another piece waits, asks and gives up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from engine.errors import EtlError, RateLimited, TryAgain
from engine.window import Window, consecutive

HOUR, SECOND = 3_600_000, 1_000  # ms
EVENTS_PER_REQUEST = 1_000_000  # Mixpanel's own advice: keep a request under one to two million
DAYS_PER_REQUEST = 31


@dataclass(frozen=True, slots=True)
class Budget:
    """What Mixpanel allows a project: requests an hour (rolling), a second, and at a time."""

    per_hour: int = 60
    per_second: int = 3
    at_once: int = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on with a window that fails; times in seconds.

    tries       pulls of a window that may fail before it is given up
    first       wait after the first failure; it doubles each time, up to `longest`
    limited     answers 429 in a row that are put up with: they cost a wait, not a try
    pause       wait after a first 429 without `Retry-After`; it doubles, up to `longest_pause`
    obeyed      the longest `Retry-After` that is believed
    """

    tries: int = 5
    first: float = 5
    longest: float = 300
    limited: int = 24
    pause: float = 60
    longest_pause: float = 900
    obeyed: float = 3600


DEFAULT_BUDGET = Budget()
DEFAULT_PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Wait:
    """Pull the window again, in so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Give the window up."""


def decide(
    failure: EtlError,
    failures: int,
    uniform: Callable[[], float],
    patience: Patience = DEFAULT_PATIENCE,
) -> Wait | Stop:
    """What to do after the `failures`-th failure of a window (from 1 on).

    Answers 429 are counted apart from other failures. Half of every wait is jitter, by `uniform`
    (0 to 1), so that workers that failed together do not come back together.
    """
    if not isinstance(failure, TryAgain):
        return Stop()
    limited = isinstance(failure, RateLimited)
    if failures >= (patience.limited if limited else patience.tries):
        return Stop()
    first, longest = (
        (patience.pause, patience.longest_pause) if limited else (patience.first, patience.longest)
    )
    wait = min(longest, first * 2.0 ** min(failures - 1, 60))
    wait *= 0.5 + uniform() / 2
    if failure.retry_after is not None:
        asked = min(failure.retry_after, patience.obeyed)
        wait = asked + uniform() if limited else max(wait, asked)
    return Wait(wait)


def wait_for_slot(asked: Sequence[int], in_flight: int, now: int, budget: Budget) -> int:
    """Ms until one more request fits into the budget; 0: now.

    `asked`: when requests were made, in ms. Moments that lie in the future were noted before the
    clock was set back: they do not count, or they would block for as long as it was set back.
    """
    if in_flight >= budget.at_once:
        return SECOND
    past = sorted(moment for moment in asked if moment <= now)
    waits = [0]
    for most, span in ((budget.per_hour, HOUR), (budget.per_second, SECOND)):
        recent = [moment for moment in past if moment > now - span]
        if len(recent) >= most:
            waits.append(recent[-most] + span - now)
    return max(waits)


def next_window(
    days: Sequence[date], events_per_day: float | None, days_per_request: int | None
) -> Window:
    """The first window that `days` (not empty) make: neighbouring days in one request.

    How many: `days_per_request`, or where that is None as many as keep to EVENTS_PER_REQUEST at
    `events_per_day`, at most DAYS_PER_REQUEST; a single day as long as nothing is known.
    """
    if days_per_request is None:
        days_per_request = 1
        if events_per_day is not None:
            fitting = EVENTS_PER_REQUEST / max(events_per_day, 1)
            days_per_request = max(1, min(DAYS_PER_REQUEST, int(fitting)))
    first = consecutive(days)[0][:days_per_request]
    return Window(first[0], first[-1])


def request_range(days: Sequence[date], days_per_request: int | None) -> tuple[int, int]:
    """The fewest and the most requests that `days` can take; equal where the size is fixed."""
    runs = consecutive(days)
    if days_per_request is not None:
        count = sum(-(-len(run) // days_per_request) for run in runs)
        return count, count
    return sum(-(-len(run) // DAYS_PER_REQUEST) for run in runs), len(days)
