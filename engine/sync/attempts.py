"""Attempts at a window, and the decision after a failed one, by pure functions."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date

from ulid import ULID

from engine import errors
from engine.errors import DatasetError, EtlError, PermanentError, RateLimited, RetryableError
from engine.model import retry
from engine.model.flow import Connection, Run
from engine.model.window import Window

SPLIT_AFTER = 2  # failures of a window that its size or one of its days can cause
UNANSWERED = 3  # windows in a row that failed without a response: no other would get one


@dataclass(slots=True)
class Attempt:
    """A run whose request is made now or, after a failure, at `due` (monotonic seconds).

    tries       failures so far except responses 429
    limited     responses 429 in a row
    requested   whether a client requested this window
    connection  the connection of the last request, with its credentials
    """

    run: Run
    due: float = 0
    tries: int = 0
    limited: int = 0
    requested: bool = False
    connection: Connection | None = None

    def renew(self, due: float) -> None:
        """Plan the next try for `due`, with another batch id (P2)."""
        self.run = replace(self.run, batch_id=str(ULID()))
        self.due = due

    def count(self, error: RetryableError) -> int:
        """Count a failure and return the number of failures of its kind."""
        if isinstance(error, RateLimited):
            self.limited += 1
            return self.limited
        self.limited = 0
        self.tries += 1
        return self.tries


@dataclass(frozen=True, slots=True)
class Retry:
    """Request the window again in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SplitWindow:
    """Request the days of the window in smaller windows, in `seconds` at the earliest."""

    seconds: float = 0


@dataclass(frozen=True, slots=True)
class Fail:
    """Let the run fail; `give_up`: every other window would fail too."""

    give_up: bool


Decision = Retry | SplitWindow | Fail


def decide(
    error: EtlError,
    failures: int,
    window: Window | None,
    unanswered: int,
    policy: retry.RetryPolicy,
    uniform: Callable[[], float],
) -> tuple[Decision, int]:
    """Decide what follows from the failed pull of `window`; return also the new `unanswered`.

    failures    of the error's kind in a row, this one included
    window      None if the pull reads rejected lines, which cannot be split
    unanswered  windows in a row that failed for want of a response or of a table
    """
    if not isinstance(error, RetryableError):
        if can_be_split(window, error):
            return SplitWindow(), unanswered
        if isinstance(error, DatasetError):
            unanswered += 1
            return Fail(error.lasting or unanswered >= UNANSWERED), unanswered
        return Fail(isinstance(error, errors.Refused | errors.InputError)), unanswered
    limited = isinstance(error, RateLimited)
    silent = is_silent(error)
    if not silent and not limited:
        unanswered = 0
    wait = retry.wait_after(error, failures, uniform, policy)
    no_more_tries = silent and unanswered > 0  # the window before had no response either
    splits = failures >= min(SPLIT_AFTER, policy.tries) and can_be_split(window, error)
    if splits and not no_more_tries:
        last = retry.wait_after(error, min(failures, policy.tries - 1), uniform, policy)
        return SplitWindow(last or 0 if silent else 0), unanswered
    if wait is not None and not no_more_tries:
        return Retry(wait), unanswered
    unanswered += silent
    return Fail(limited or not error.reached or unanswered >= UNANSWERED), unanswered


def tries_before(window: Window, failures: Counter[date], policy: retry.RetryPolicy) -> int:
    """Count failures of larger windows against `window`; leave a single day two tries."""
    if window.arrival:
        return 0
    used = max(failures[day] for day in window.days)
    return used if len(window.days) > 1 else min(used, max(0, policy.tries - SPLIT_AFTER))


def can_be_split(window: Window | None, error: EtlError) -> bool:
    """Return whether the size of `window` or one of its days may have caused `error`."""
    if window is None or window.arrival or len(window.days) == 1:
        return False
    if isinstance(error, RetryableError):
        return error.reached and not isinstance(error, RateLimited)
    if isinstance(error, DatasetError):
        return not error.lasting
    return isinstance(error, PermanentError) and not isinstance(error, errors.Refused)


def is_silent(error: RetryableError) -> bool:
    """Return whether no byte of a response came, which may happen to every window."""
    came = error.tally is not None and error.tally.bytes_received > 0
    return error.empty or (isinstance(error, errors.Unavailable) and not came)
