"""Slots of a project's rate limit, acquired from the request ledger for the runs of one flow."""

import time
from collections.abc import Callable
from functools import partial

from engine.catalog.database import Catalog
from engine.model import retry, schedule
from engine.model.flow import Run
from engine.sync.options import Options
from engine.sync.run_updates import RunUpdate, Waiting


class RequestSlots:
    """Acquires slots; `in_flight` returns the number of requests that are running."""

    def __init__(
        self,
        catalog: Catalog,
        project: str,
        options: Options,
        report: Callable[[RunUpdate], None],
        in_flight: Callable[[], int],
    ) -> None:
        self._catalog, self._project, self._options = catalog, project, options
        self._report, self._in_flight = report, in_flight

    def acquire(self, run: Run, now: int) -> float:
        """Acquire a slot at `now` (ms), and return 0; or report and return the seconds to wait."""
        pause = self._acquire(now)
        if pause > schedule.SECOND:
            self._report_wait(run, pause)
        return pause / 1000

    def wait(self, run: Run) -> None:
        """Return once a slot is acquired for one more request of `run`."""
        reported = False
        while pause := self._acquire(self._options.now()):
            if pause > schedule.SECOND and not reported:
                self._report_wait(run, pause)
                reported = True
            time.sleep(min(pause / 1000, 0.5))

    def release(self, at: int) -> None:
        """Free the slot that was acquired at `at` (ms), for a request that was not sent."""
        self._catalog.release(self._project, at)

    def _acquire(self, now: int) -> int:
        limit, running = self._options.rate_limit, self._in_flight()
        wait = partial(retry.wait_for_slot, in_flight=running, now=now, limit=limit)
        return self._catalog.acquire(self._project, now, wait)

    def _report_wait(self, run: Run, pause: int) -> None:
        self._report(Waiting(run, pause / 1000, "Mixpanel's hourly budget is used up"))
