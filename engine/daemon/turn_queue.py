"""Decide which flows may run now: a flow that works takes a turn, a flow that waits takes none.

A flow is its name and the project whose budget it uses. Nothing is started here.
"""

import threading
from collections import Counter
from collections.abc import Collection

MORE = 75  # exit status of a flow's process whose turn is over while something is left to pull
LATER = 76  # exit status of a flow's process that has to wait for Mixpanel's hourly budget
WAITS, WORKS = b"w", b"W"  # reports of a flow's process while it runs

# Processes for each turn. One that waits takes about 100 MB and no turn; without a bound, hundreds
# of flows whose host is silent would fill the memory.
PROCESSES = 4


class Turns:
    """Gives turns to flows, so that no project holds up another one. Safe to share among threads.

    At most `at_work` flows work at a time. One more may for each project of which none does, up to
    twice as many. At most `places` run in all, working or waiting; of these one stays free for each
    project of which none runs, while there are enough places. First come, first served, but a
    project with fewer flows at work goes first.
    """

    def __init__(self, at_work: int, places: int | None = None) -> None:
        self.at_work = at_work
        self.places = places or PROCESSES * at_work
        self.projects: Collection[str] = ()  # of all flows
        self._changed = threading.Condition()
        self._closed = False
        self._queue: list[tuple[str, str]] = []  # flows that want a turn, and their projects
        self._running: dict[str, str] = {}  # flow -> project
        self._working: set[str] = set()  # those of the running that do not wait

    def take(self, name: str, project: str, timeout: float | None = None) -> bool:
        """Wait for a turn of flow `name`; False after `timeout` seconds, or once this is closed."""
        entry = (name, project)
        with self._changed:
            self._queue.append(entry)
            try:
                self._changed.wait_for(lambda: self._closed or self._next() == entry, timeout)
                if self._closed or self._next() != entry:
                    return False
                self._running[name] = project
                self._working.add(name)
            finally:
                self._queue.remove(entry)
                self._changed.notify_all()
        return True

    def release(self, name: str) -> None:
        """End the turn of flow `name`: its process has ended."""
        with self._changed:
            self._running.pop(name, None)
            self._working.discard(name)
            self._changed.notify_all()

    def waits(self, name: str) -> None:
        """Free the turn of flow `name`, whose process waits, but not its place."""
        with self._changed:
            self._working.discard(name)
            self._changed.notify_all()

    def works(self, name: str) -> None:
        """Count flow `name` as working again: its process went on without waiting for a turn."""
        with self._changed:
            if name in self._running:
                self._working.add(name)

    def close(self) -> None:
        """Give no more turns; each `take` that waits returns False at once (P8)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def queued(self) -> list[str]:
        """The names of the flows that wait for a turn, first come first."""
        return [name for name, _ in self._queue]

    def _next(self) -> tuple[str, str] | None:
        running = Counter(self._running.values())
        working = Counter(self._running[name] for name in self._working)
        fitting = [entry for entry in self._queue if self._fits(entry[1], running, working)]
        return min(fitting, key=lambda entry: working[entry[1]], default=None)

    def _fits(self, project: str, running: Counter[str], working: Counter[str]) -> bool:
        most = self.at_work if working[project] else 2 * self.at_work
        if working.total() >= most or running.total() >= self.places:
            return False
        reserved = set(self.projects) - running.keys() - {project}
        return not running[project] or running.total() + len(reserved) < self.places
