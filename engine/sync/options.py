"""Options of a sync: workers, days per request, retries, rate limit, timeouts and clock."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.mixpanel.timeouts import DEFAULT_TIMEOUTS, Timeouts
from engine.model import clock, retry


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a sync: concurrency, retries, rate limit, time-outs.

    `days_per_request`: None derives it from the number of events seen so far.
    """

    workers: int = 1
    days_per_request: int | None = None
    force: bool = False
    allow_shrink: bool = False
    retry_policy: retry.RetryPolicy = retry.DEFAULT_RETRY_POLICY
    rate_limit: retry.RateLimit = retry.DEFAULT_RATE_LIMIT
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    now: Callable[[], int] = clock.now
