"""A catalog for pulls: runs and requests that cannot be written now are buffered.

Pulling goes on while another process has the file locked or its disk is full. The buffer is in
memory and in a file beside the catalog; the next process that can write to the catalog adds it.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from engine.catalog import runs, version_0_1
from engine.catalog.database import Catalog, CatalogUnavailable
from engine.dataset.storage.local import write_synced
from engine.model.flow import flow_id
from engine.model.run_record import RunRecord
from engine.model.schedule import HOUR
from engine.model.window import Window

T = TypeVar("T")

UNWRITTEN = "unwritten"  # the folder of buffer files in the home
FIRST_WAIT = 5.0  # seconds to wait for a locked file, the first time
NEXT_WAIT = 0.1  # … from then on: Mixpanel's response is waiting meanwhile
LAST_WAIT = 1.0  # … and before the program ends (P8)


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Runs and requests (project, moment in ms) that are not in the catalog yet."""

    runs: Sequence[RunRecord] = ()
    requests: Sequence[tuple[str, int]] = ()


class BufferedCatalog(Catalog):
    """A catalog that accepts runs and requests while its file cannot be used. For one thread.

    `warn` gets a sentence the first time that the file cannot be used, and one at the end if it
    still cannot. A file that is damaged, or was deleted while it was in use, raises as in Catalog.
    """

    def __init__(self, home: Path, warn: Callable[[str], object] = lambda _: None) -> None:
        self._home, self._warn = home, warn
        self._runs: dict[str, RunRecord] = {}  # the buffer: by id
        self._requests: list[tuple[str, int]] = []
        self._buffer_file = home / UNWRITTEN / f"{uuid4()}.json"
        self._warned = self._is_open = False
        self._others = list((home / UNWRITTEN).glob("*.json"))  # left by processes that ended
        self._open()
        self._flush()

    def save(self, record: RunRecord) -> None:
        """Store a run in place of its last record, in the buffer while the file cannot be used."""
        if self._flush() and self._open():
            try:
                return super().save(record)
            except CatalogUnavailable as error:
                self._report(error)
        self._runs[record.id] = record
        self._write_buffer()
        return None

    def history(
        self,
        flow: str | None = None,
        status: str | None = None,
        dataset: str | None = None,
        limit: int = 100,
        until: int | None = None,
    ) -> list[RunRecord]:
        """Return the newest runs first, with those in the buffer."""
        call = partial(super().history, flow, status, dataset, limit, until)
        stored: list[RunRecord] = self._use(call, [])
        if not self._runs:
            return stored
        merged = [record for record in stored if record.id not in self._runs]
        for record in self._runs.values():
            of_flow = flow is None or flow_id(record.flow) == flow_id(flow)
            of_status = status is None or record.status.lower() == status.lower()
            is_later = until is not None and record.started_at > until
            if of_flow and of_status and dataset in (None, record.dataset) and not is_later:
                merged.append(record)
        merged.sort(key=lambda record: record.started_at, reverse=True)
        return merged if limit < 0 else merged[:limit]

    def abandon(self, dataset: str, at: int) -> int:
        """Mark runs still `inProgress` on `dataset` as failed; if locked, the next start does."""
        return self._use(partial(super().abandon, dataset, at), 0)

    def acquire(self, project: str, now: int, wait: Callable[[Sequence[int]], int]) -> int:
        """Take a slot of the rate limit of `project`; return 0, or the ms until one may be free.

        Without the file the request is buffered: other processes count it if they cannot use the
        file either, or once it is in the file.
        """
        if self._flush() and self._open():
            try:
                return super().acquire(project, now, wait)
            except CatalogUnavailable as error:
                self._report(error)
        pause = wait(self.recent_requests(project, now))
        if pause == 0:
            self._requests.append((project, now))
            self._write_buffer()
        return pause

    def recent_requests(self, project: str, now: int) -> list[int]:
        """Return the moments of requests in the hour before `now`, with those in all buffers."""
        stored: list[int] = self._use(partial(super().recent_requests, project, now), [])
        others = set(self._buffer_file.parent.glob("*.json")) - {self._buffer_file}
        buffered = [each for path in others for each in (_read(path) or _Buffer()).requests]
        moments = [at for of, at in (*self._requests, *buffered) if of == project]
        return sorted(stored + [at for at in moments if now - HOUR < at <= now])

    def release(self, project: str, at: int) -> None:
        """Free the slot that `acquire` gave at `at` (ms); while the file is locked, it is lost."""
        if (project, at) in self._requests:
            self._requests.remove((project, at))
            self._write_buffer()
        else:
            self._use(partial(super().release, project, at), None)

    def close(self, seconds: float = -1) -> None:
        """Write the buffer to the catalog, or leave it beside that; then close the file."""
        if self._is_unwritten:
            if self._is_open:
                self.wait_for_others(LAST_WAIT)
            if not self._flush():
                self._warn_of_buffer()
        if self._is_open:
            super().close(seconds)

    def _warn_of_buffer(self) -> None:
        count = "1 run" if len(self._runs) == 1 else f"{len(self._runs)} runs"
        if self._write_buffer():
            self._warn(
                f"The history of {count} is not in the catalog {self.path}. It is in "
                f"{self._buffer_file} until the next run of any flow, which writes it."
            )
        else:
            self._warn(
                f"The history of {count} is lost: neither the catalog {self.path} nor its folder "
                "can be written. What was pulled is in the table."
            )

    def _use(self, call: Callable[[], T], otherwise: T) -> T:
        """Return what `call` returns, or `otherwise` while the file cannot be used."""
        if self._open():
            try:
                return call()
            except CatalogUnavailable as error:
                self._report(error)
        return otherwise

    @property
    def _is_unwritten(self) -> bool:
        return bool(self._runs or self._requests)

    def _open(self) -> bool:
        """Open the file if it is closed; return whether it is open now."""
        if not self._is_open:
            try:
                super().__init__(self._home, NEXT_WAIT if self._warned else FIRST_WAIT)
            except CatalogUnavailable as error:
                self._report(error)
            else:
                self._is_open = True
        return self._is_open

    def _report(self, error: CatalogUnavailable) -> None:
        """Warn once, and wait less for the file from now on."""
        if not self._warned:
            self._warn(f"{error} Pulling goes on, and the history is written later.")
        self._warned = True
        if self._is_open:
            self.wait_for_others(NEXT_WAIT)

    def _flush(self) -> bool:
        """Write the buffers, also of processes that ended; return whether nothing is left."""
        if not self._is_unwritten and not self._others:
            return True
        if not self._open():
            self._write_buffer()
            return False
        left = {path: found for path in self._others if (found := _read(path))}
        try:
            with self.transaction() as connection:
                for found in left.values():
                    runs.add(connection, found.runs, found.requests)
                runs.add(connection, list(self._runs.values()), self._requests)
        except CatalogUnavailable as error:
            self._report(error)
            self._write_buffer()
            return False
        self._runs, self._requests, self._others = {}, [], []
        for path in (*left, self._buffer_file):
            with suppress(OSError):  # it is written again then, which changes nothing
                path.unlink(missing_ok=True)
        return True

    def _write_buffer(self) -> bool:
        """Write the buffer to a file beside the catalog (P8); return whether that was possible."""
        if not self._is_unwritten:
            return True
        records = [record.as_json() for record in self._runs.values()]
        try:
            self._buffer_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            buffer = {"runs": records, "requests": self._requests}
            write_synced(self._buffer_file, json.dumps(buffer))
        except OSError:  # `close` warns, if it cannot be written then either
            return False
        return True


def _read(path: Path) -> _Buffer | None:
    """Read a buffer file; None if it was just deleted, or is damaged."""
    try:
        found = json.loads(path.read_text("utf-8"))
        records = [_record(run) for run in found["runs"]]
        return _Buffer(records, [(str(of), int(at)) for of, at in found["requests"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(run: dict[str, Any]) -> RunRecord:
    if "item" not in run:
        return RunRecord.from_json(run)
    window = Window.from_json(run["window"])
    return version_0_1.record_of(run["item"], run["flow"], run["dataset"], window)
