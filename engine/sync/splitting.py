"""The largest number of days in a request, learned from failed and successful windows. Pure.

A window that fails by its size or by one of its days is requested again in halves, down to single
days, so that one bad day holds back no other (P9).
"""

from collections.abc import Collection, Iterable
from datetime import date

from engine.model.run_record import FAILED, KILLED, SUCCESS, RunRecord
from engine.model.window import Window, consecutive

AGAIN = "Its days are asked for again in smaller requests."
REMEMBERED = 86_400_000  # ms for which the size of a window that failed is remembered


class Sizes:
    """The largest windows that are worth requesting.

    `bounds`  for a day, the most days that a request with it may have
    `cap`     the most days of any request: a larger one failed, and all of its days succeeded later
              in smaller ones, so that its size was the cause. None: no such window is known
    """

    def __init__(self) -> None:
        self.bounds: dict[date, int] = {}
        self.cap: int | None = None
        self._failed: list[tuple[int, set[date]]] = []  # its size, its days yet to succeed

    def failed(self, window: Window, bad: Collection[date] = ()) -> None:
        """Halve the requests for the days of `window`; `bad`: the days known to be the cause."""
        days = window.days
        blamed = set(days if len(days) == 1 else bad)
        self.bounds |= dict.fromkeys(blamed, 1)
        self._failed = [(size, left) for size, left in self._failed if not left & blamed]
        if not blamed:
            half = _half(len(days))
            self.bounds |= {day: min(half, self.bounds.get(day, half)) for day in days}
            self._failed.append((len(days), set(days)))

    def came(self, window: Window) -> None:
        """Remove the bounds for the days of `window`, which succeeded."""
        for day in window.days:
            self.bounds.pop(day, None)
        for _, left in self._failed:
            left.difference_update(window.days)
        proven = [_half(size) for size, left in self._failed if not left]
        self._failed = [(size, left) for size, left in self._failed if left]
        self.cap = min(filter(None, [*proven, self.cap]), default=None)


def from_history(entries: Iterable[RunRecord], now: int) -> Sizes:
    """Learn the sizes from the runs of a flow, newest first, of the last day before `now` (ms)."""
    sizes = Sizes()
    recent = [run for run in entries if now - REMEMBERED < run.started_at <= now]
    for run in reversed(recent):
        if run.window.arrival:
            continue
        if run.status == SUCCESS:
            sizes.came(run.window)
        elif run.status == FAILED and _is_evidence(run):
            sizes.failed(run.window)
    return sizes


def _is_evidence(run: RunRecord) -> bool:
    """Return whether the size of a failed run, or its day, may be the cause."""
    if len(run.window.days) == 1:
        return run.result.bytes_read > 0
    return run.error == KILLED or run.error.endswith(AGAIN)


def parts(window: Window, bad: Collection[date] = ()) -> list[Window]:
    """Split `window` in halves, or into its `bad` days, if any, and the days between them."""
    days = window.days
    if bad:
        runs = [*consecutive(day for day in days if day not in bad), *([day] for day in bad)]
    else:
        runs = [days[: _half(len(days))], days[_half(len(days)) :]]
    return [Window(run[0], run[-1]) for run in sorted(runs)]


def _half(count: int) -> int:
    return (count + 1) // 2
