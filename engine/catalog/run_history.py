"""The catalog of who pulls: what cannot be written into it now is kept, and pulling goes on.

History is no reason not to pull. While another process holds the file, or its disk is full, runs
and requests are kept in memory and in a file beside the catalog; whoever can write next does.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from engine.catalog import runs, version_0_1
from engine.catalog.database import Catalog, CatalogUnavailable
from engine.dataset.storage.local import write_synced
from engine.model.flow import flow_id
from engine.model.run_record import RunRecord
from engine.model.schedule import HOUR
from engine.model.window import Window

UNWRITTEN = "unwritten"  # the folder in the home
PATIENCE = 5.0  # seconds to wait for who holds the file, at first
HURRY = 0.1  # … and from then on: what waits for us is Mixpanel's answer
AT_THE_END = 1.0  # … and for the last time (P8)


@dataclass(frozen=True, slots=True)
class _Left:
    """Runs, and requests as project and moment, that are not in the catalog yet."""

    runs: Sequence[RunRecord] = ()
    requests: Sequence[tuple[str, int]] = ()


class RunHistory(Catalog):
    """A catalog whose runs and requests can be saved at any time. For one thread.

    `tell` gets a sentence when the file cannot be used, once, and another one at the end if that is
    still so. A file that is damaged, or was deleted while it was in use, is an error as ever.
    """

    def __init__(self, home: Path, tell: Callable[[str], object] = lambda _: None) -> None:
        self._home, self._tell = home, tell
        self._runs: dict[str, RunRecord] = {}  # that are to be written, by id
        self._requests: list[tuple[str, int]] = []
        self._beside = home / UNWRITTEN / f"{uuid4()}.json"
        self._told = self._is_open = False
        self._left = list((home / UNWRITTEN).glob("*.json"))  # by those that could not, and ended
        self._opened()
        self._flush()

    def save(self, record: RunRecord) -> None:
        """Store a run in place of its last record: in the file as soon as it can be written."""
        if self._flush() and self._opened():
            try:
                return super().save(record)
            except CatalogUnavailable as error:
                self._fails(error)
        self._runs[record.id] = record
        self._keep_beside()
        return None

    def history(
        self,
        flow: str | None = None,
        status: str | None = None,
        dataset: str | None = None,
        limit: int = 100,
        until: int | None = None,
    ) -> list[RunRecord]:
        """The newest runs first, also those that are not written yet."""
        found: list[RunRecord] = []
        if self._opened():
            try:
                found = super().history(flow, status, dataset, limit, until)
            except CatalogUnavailable as error:
                self._fails(error)
        if not self._runs:
            return found
        merged = [entry for entry in found if entry.id not in self._runs]
        for entry in self._runs.values():
            of_flow = flow is None or flow_id(entry.flow) == flow_id(flow)
            of_status = status is None or entry.status.lower() == status.lower()
            is_later = until is not None and entry.started_at > until
            if of_flow and of_status and dataset in (None, entry.dataset) and not is_later:
                merged.append(entry)
        merged.sort(key=lambda entry: entry.started_at, reverse=True)
        return merged if limit < 0 else merged[:limit]

    def abandon(self, dataset: str, at: int) -> int:
        """Mark what is still `inProgress` on `dataset` as failed; else the next start does."""
        if self._opened():
            try:
                return super().abandon(dataset, at)
            except CatalogUnavailable as error:
                self._fails(error)
        return 0

    def ask(self, project: str, now: int, wait: Callable[[Sequence[int]], int]) -> int:
        """Take a slot in the budget of `project`; 0, or the ms until there may be one.

        Without the file it is noted beside it: other processes count that once they cannot write
        either, or once it is in the file.
        """
        if self._flush() and self._opened():
            try:
                return super().ask(project, now, wait)
            except CatalogUnavailable as error:
                self._fails(error)
        pause = wait(self.asked(project, now))
        if pause == 0:
            self._requests.append((project, now))
            self._keep_beside()
        return pause

    def asked(self, project: str, now: int) -> list[int]:
        """When the project was asked in the hour before `now`, as far as that is known."""
        found: list[int] = []
        if self._opened():
            try:
                found = super().asked(project, now)
            except CatalogUnavailable as error:
                self._fails(error)
        others = [path for path in self._beside.parent.glob("*.json") if path != self._beside]
        noted = [each for path in others for each in (_read(path) or _Left()).requests]
        unwritten = [at for of, at in (*self._requests, *noted) if of == project]
        return sorted(found + [at for at in unwritten if now - HOUR < at <= now])

    def release(self, project: str, at: int) -> None:
        """Free the slot that `ask` gave at that moment, in ms; if that cannot be, it is lost."""
        if (project, at) in self._requests:
            self._requests.remove((project, at))
            self._keep_beside()
        elif self._opened():
            try:
                super().release(project, at)
            except CatalogUnavailable as error:
                self._fails(error)

    def close(self, seconds: float = -1) -> None:
        """Write what is left, or leave it beside the catalog; then let go of the file."""
        if self._is_unwritten:
            if self._is_open:
                self.wait_for_others(AT_THE_END)
            if not self._flush():
                self._say_what_is_left()
        if self._is_open:
            super().close(seconds)

    def _say_what_is_left(self) -> None:
        count = "1 run" if len(self._runs) == 1 else f"{len(self._runs)} runs"
        if self._keep_beside():
            self._tell(
                f"The history of {count} is not in the catalog {self.path}. It is kept in "
                f"{self._beside} until the next run of any flow, which writes it."
            )
        else:
            self._tell(
                f"The history of {count} is lost: neither the catalog {self.path} nor its folder "
                "can be written. What was pulled is in the table."
            )

    # The file, and what stands in for it ---------------------------------------------------

    @property
    def _is_unwritten(self) -> bool:
        return bool(self._runs or self._requests)

    def _opened(self) -> bool:
        """Open the file if it is not open yet; whether it is."""
        if not self._is_open:
            try:
                super().__init__(self._home, HURRY if self._told else PATIENCE)
            except CatalogUnavailable as error:
                self._fails(error)
            else:
                self._is_open = True
        return self._is_open

    def _fails(self, error: CatalogUnavailable) -> None:
        """Say so, once; from now on nobody waits long for the file."""
        if not self._told:
            self._tell(f"{error} Pulling goes on, and the history is written later.")
        self._told = True
        if self._is_open:
            self.wait_for_others(HURRY)

    def _flush(self) -> bool:
        """Write all that is kept, also by others that ended; whether nothing is left."""
        if not self._is_unwritten and not self._left:
            return True
        if not self._opened():
            self._keep_beside()
            return False
        left = {path: found for path in self._left if (found := _read(path))}
        try:
            with self.transaction() as connection:
                for found in left.values():
                    runs.add(connection, found.runs, found.requests)
                runs.add(connection, list(self._runs.values()), self._requests)
        except CatalogUnavailable as error:
            self._fails(error)
            self._keep_beside()
            return False
        self._runs, self._requests, self._left = {}, [], []
        for path in (*left, self._beside):
            with suppress(OSError):  # it is written again then, which changes nothing
                path.unlink(missing_ok=True)
        return True

    def _keep_beside(self) -> bool:
        """Keep what is not written in a file, which outlives this process; whether that went."""
        if not self._is_unwritten:
            return True
        records = [record.as_json() for record in self._runs.values()]
        try:
            self._beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_synced(self._beside, json.dumps({"runs": records, "requests": self._requests}))
        except OSError:  # told at the end, if it is so until then
            return False
        return True


def _read(path: Path) -> _Left | None:
    """What another process kept; None for a file that has just gone, or is damaged: it stays."""
    try:
        found = json.loads(path.read_text("utf-8"))
        records = [_record(run) for run in found["runs"]]
        return _Left(records, [(str(of), int(at)) for of, at in found["requests"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(run: dict[str, Any]) -> RunRecord:
    if "item" not in run:
        return RunRecord.from_json(run)
    window = Window.from_json(run["window"])
    return version_0_1.record_of(run["item"], run["flow"], run["dataset"], window)
