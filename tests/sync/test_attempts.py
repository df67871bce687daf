"""The decision after a failed pull, as a table. Pure."""

from datetime import date

import pytest

from engine.errors import (
    DatasetError,
    EtlError,
    InputError,
    RateLimited,
    Refused,
    RetryableError,
    ShrinkDetected,
    TooManyRejects,
    Truncated,
    Unavailable,
    WorkerKilled,
)
from engine.model.batch import Tally
from engine.model.flow import Run
from engine.model.retry import RetryPolicy
from engine.model.window import Window
from engine.sync.attempts import UNANSWERED, Attempt, Decision, Fail, Retry, SplitWindow, decide

DAY = Window(date(2024, 1, 1), date(2024, 1, 1))
WEEK = Window(date(2024, 1, 1), date(2024, 1, 7))
ARRIVAL = Window(date(2024, 1, 1), date(2024, 1, 7), (1, 2))
POLICY = RetryPolicy(tries=4, limited=3, first=8, pause=80)
GO_ON, GIVE_UP = Fail(give_up=False), Fail(give_up=True)


def unreached() -> EtlError:
    error = Unavailable("no route")
    error.reached = False
    return error


def passing() -> EtlError:
    error = DatasetError("a row too many")
    error.lasting = False
    return error


def cut() -> EtlError:
    error = Unavailable("broken")
    error.tally = Tally(bytes_received=1)
    return error


CASES: list[tuple[EtlError, int, Window, int, Decision, int]] = [
    # error, failures of its kind, window, unanswered before -> decision, unanswered after
    (Truncated("half"), 1, DAY, 0, Retry(8), 0),
    (Truncated("half"), 1, WEEK, 0, Retry(8), 0),
    (Truncated("half"), 2, WEEK, 0, SplitWindow(), 0),
    (Truncated("half"), 2, DAY, 0, Retry(16), 0),
    (Truncated("half"), 2, ARRIVAL, 0, Retry(16), 0),
    (Truncated("half"), 4, DAY, 0, GO_ON, 0),
    (Truncated("half"), 1, DAY, 2, Retry(8), 0),
    (cut(), 4, DAY, 2, GO_ON, 0),
    (WorkerKilled("gone"), 2, WEEK, 0, SplitWindow(), 0),
    (Unavailable("no answer"), 1, DAY, 0, Retry(8), 0),
    (Unavailable("no answer"), 2, WEEK, 0, SplitWindow(16), 0),
    (Unavailable("no answer"), 4, DAY, 0, GO_ON, 1),
    (Unavailable("no answer"), 1, WEEK, 1, GO_ON, 2),
    (Unavailable("no answer"), 1, DAY, UNANSWERED - 1, GIVE_UP, UNANSWERED),
    (unreached(), 1, WEEK, 0, Retry(8), 0),
    (unreached(), 2, WEEK, 0, Retry(16), 0),
    (unreached(), 4, WEEK, 0, GIVE_UP, 1),
    (RateLimited("slow"), 1, WEEK, 0, Retry(80), 0),
    (RateLimited("slow"), 2, WEEK, 1, Retry(160), 1),
    (RateLimited("slow"), 3, WEEK, 0, GIVE_UP, 0),
    (RateLimited("slow", retry_after=5), 1, DAY, 0, Retry(6), 0),
    (Refused("401"), 0, WEEK, 0, GIVE_UP, 0),
    (InputError("no address"), 0, WEEK, 0, GIVE_UP, 0),
    (TooManyRejects("9 of 9"), 0, WEEK, 0, SplitWindow(), 0),
    (TooManyRejects("9 of 9"), 0, DAY, 0, GO_ON, 0),
    (ShrinkDetected("less"), 0, ARRIVAL, 0, GO_ON, 0),
    (DatasetError("disk"), 0, WEEK, 0, GIVE_UP, 1),
    (passing(), 0, WEEK, 0, SplitWindow(), 0),
    (passing(), 0, DAY, 1, GO_ON, 2),
    (passing(), 0, DAY, UNANSWERED - 1, GIVE_UP, UNANSWERED),
    (EtlError("stopped"), 0, WEEK, 0, GO_ON, 0),
]


@pytest.mark.parametrize(("error", "failures", "window", "before", "decision", "after"), CASES)
def test_what_follows_from_a_failure(
    error: EtlError, failures: int, window: Window, before: int, decision: Decision, after: int
) -> None:
    """P9: retry, split, fail alone, or end the run, by the error and what failed before."""
    assert decide(error, failures, window, before, POLICY, lambda: 1.0) == (decision, after)


@pytest.mark.parametrize("error", [Truncated("half"), TooManyRejects("9 of 9"), passing()])
def test_a_replay_is_never_split(error: EtlError) -> None:
    """The lines of a replay come from files: smaller windows would replay them twice."""
    failures = 2 if isinstance(error, RetryableError) else 0
    decision, _ = decide(error, failures, None, 0, POLICY, lambda: 1.0)
    assert not isinstance(decision, SplitWindow)


def test_each_try_is_a_batch_of_its_own() -> None:
    """P2: each try has another batch id, so that a late worker of the last try does no harm."""
    attempt = Attempt(Run("run", "events", DAY, "batch", 0))
    ids = {attempt.run.batch_id}
    for _ in range(3):
        attempt.renew(due=1.0)
        ids.add(attempt.run.batch_id)
    assert len(ids) == 4
    assert attempt.run.id == "run"


def test_responses_429_are_counted_apart() -> None:
    """A 429 costs no try, and another failure starts their count anew."""
    attempt = Attempt(Run("run", "events", DAY, "batch", 0))
    errors = [Truncated("half"), RateLimited("slow"), RateLimited("slow"), Truncated("half")]
    assert [attempt.count(error) for error in errors] == [1, 1, 2, 2]
    assert attempt.count(RateLimited("slow")) == 1
