"""Decide how long to wait: before a failed window is pulled again, and for the rate limit. Pure.

The clock and randomness are arguments; another module waits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import EtlError, RateLimited, RetryableError
from engine.model.schedule import HOUR, SECOND


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What Mixpanel allows a project: requests an hour (rolling), a second, and at a time."""

    per_hour: int = 60
    per_second: int = 3
    at_once: int = 100


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed window is pulled again, and when; times in seconds.

    tries       number of pulls after which a failing window is given up
    first       wait after the first failure; doubles each time, up to `longest`
    limited     number of 429 responses in a row after which it is given up; they cost no try
    pause       wait after a first 429 without `Retry-After`; doubles, up to `longest_pause`
    obeyed      longest `Retry-After` that is respected
    """

    tries: int = 5
    first: float = 5
    longest: float = 300
    limited: int = 24
    pause: float = 60
    longest_pause: float = 900
    obeyed: float = 3600


DEFAULT_RATE_LIMIT = RateLimit()
DEFAULT_RETRY_POLICY = RetryPolicy()


def wait_after(
    failure: EtlError,
    failures: int,
    uniform: Callable[[], float],
    policy: RetryPolicy = DEFAULT_RETRY_POLICY,
) -> float | None:
    """Return the seconds to wait after the `failures`-th failure of a window; None: give it up.

    429 responses are counted apart from other failures. Half of every wait is jitter, by `uniform`
    (0 to 1), so that workers that failed together do not come back together.
    """
    if not isinstance(failure, RetryableError):
        return None
    limited = isinstance(failure, RateLimited)
    if failures >= (policy.limited if limited else policy.tries):
        return None
    first, longest = (
        (policy.pause, policy.longest_pause) if limited else (policy.first, policy.longest)
    )
    wait = min(longest, first * 2.0 ** min(failures - 1, 60))
    wait *= 0.5 + uniform() / 2
    if failure.retry_after is not None:
        server = min(failure.retry_after, policy.obeyed)
        wait = server + uniform() if limited else max(wait, server)
    return wait


def wait_for_slot(requests: Sequence[int], in_flight: int, now: int, limit: RateLimit) -> int:
    """Return the ms until one more request is within the rate limit; 0: now.

    `requests`: when requests were made, in ms. Moments that lie in the future were stored before
    the clock was set back: they do not count, or they would block for as long as it was set back.
    """
    if in_flight >= limit.at_once:
        return SECOND
    past = sorted(moment for moment in requests if moment <= now)
    waits = [0]
    for most, span in ((limit.per_hour, HOUR), (limit.per_second, SECOND)):
        recent = [moment for moment in past if moment > now - span]
        if len(recent) >= most:
            waits.append(recent[-most] + span - now)
    return max(waits)
