"""The record of a run: when it began, what it counted, how it ended. Pure.

The control plane renders Flow Service's payload from it.
"""

from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, Self, get_args

from engine.errors import CODE_PROCESS
from engine.model.batch import Tally
from engine.model.clock import duration
from engine.model.flow import Flow
from engine.model.window import Window

Json = dict[str, Any]
Status = Literal["success", "failed", "inProgress", "scheduled"]

SUCCESS: Status = "success"
FAILED: Status = "failed"
IN_PROGRESS: Status = "inProgress"
SCHEDULED: Status = "scheduled"  # requested, and not started
STATUSES = (SUCCESS, FAILED, IN_PROGRESS, SCHEDULED)

STOPPED = "Stopped before this run ended; nothing changed."
KILLED = "The program was killed before this run ended. The same command again completes it."


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One attempt at one (flow, window), from the request to its end. No secret is in it (P7).

    Moments are in ms since the epoch, None until they come.

    dataset         path or URI of the table
    batch_id        "" until a batch was started
    started_at      when the run was requested or its attempt began
    activities_at   when its activities were last measured; None for a run that never started
    window_start    the first moment of the window in the project's time zone
    window_end      the moment after its last one
    source_id       id of the source connection in Flow Service's terms; target_id likewise
    tally           None while no byte was read
    failure         (code, sentence) of a failed run
    batch_folder    path or URI of `_batches/<batch-id>`; None where no such folder was written
    diagnostics     whether the payload names the files of rejected rows
    clock_ahead     ms by which this machine's clock was ahead of Mixpanel's; 0: it was not
    unfound         a sentence for each mapping rule whose source no event had
    params          what the client that requested the run sent; None where no client did
    """

    id: str
    flow: str
    dataset: str
    window: Window
    batch_id: str
    status: Status
    started_at: int
    updated_at: int
    activities_at: int | None = None
    window_start: int | None = None
    window_end: int | None = None
    source_id: str = ""
    target_id: str = ""
    copy_started: int | None = None
    copy_completed: int | None = None
    promotion_started: int | None = None
    promotion_completed: int | None = None
    tally: Tally | None = None
    failure: tuple[str, str] | None = None
    batch_folder: str | None = None
    diagnostics: bool = True
    clock_ahead: int = 0
    unfound: tuple[str, ...] = ()
    params: Json | None = None

    @property
    def rejected(self) -> int:
        """Number of rejected rows; 0 while it is unknown."""
        return self.tally.rejected if self.tally else 0

    @property
    def result(self) -> Tally:
        """The counts of the run, where all events of a failed run count as rejected (P2, P3)."""
        found = self.tally or Tally()
        if self.status != FAILED:
            return found
        return replace(
            found, rows=0, rejected=found.lines, duplicates=0, missed=0, bytes_written=0, files=0
        )

    @property
    def seconds(self) -> float | None:
        """Seconds from the start to the commit or failure of the run; None while unknown."""
        if self.copy_started is None or self.promotion_completed is None:
            return None
        return (self.promotion_completed - self.copy_started) / 1000

    @property
    def error(self) -> str:
        """Why the run failed; empty if it did not fail."""
        return self.failure[1] if self.failure and self.status == FAILED else ""

    @property
    def is_stopped(self) -> bool:
        """Whether a person stopped the run. Flow Service has no such status: `failed` there."""
        return self.error == STOPPED

    @property
    def status_label(self) -> str:
        """The status as people read it."""
        return "stopped" if self.is_stopped else self.status

    def abandoned(self, at: int, why: str = KILLED) -> Self:
        """The record of this run as failed at `at` (ms), because of `why`."""
        return replace(self, status=FAILED, updated_at=at, failure=(CODE_PROCESS, why))

    def remarks(self, flow: Flow | None = None) -> list[str]:
        """Sentences on what is unusual in a run that has ended."""
        found, tally, window = [], self.result, self.window
        if tally.clamped and window.arrival is None:
            one = tally.clamped == 1
            rows, them = ("1 row has", "it") if one else (f"{tally.clamped:,} rows have", "them")
            found.append(
                f"{rows} a `time` outside the UTC days of {window}: Mixpanel exported {them} there."
            )
        if tally.missed:
            minutes = f" {flow.overlap_minutes}" if flow else ""
            events = "1 event" if tally.missed == 1 else f"{tally.missed:,} events"
            found.append(
                f"settling {window} found {events} that arrival windows did not bring: "
                f"overlap_minutes{minutes} is too short for this project."
            )
        if self.clock_ahead:
            ahead = duration(self.clock_ahead / 1000)
            found.append(f"this machine's clock is {ahead} ahead of Mixpanel's: set it right.")
        return [*found, *self.unfound]

    def as_json(self) -> Json:
        """The record as JSON can hold it; `from_json` reads it."""
        found: Json = {name: getattr(self, name) for name in FIELDS}
        return found | {
            "window": self.window.as_json(),
            "tally": self.tally and self.tally.as_json(),
            "failure": self.failure and list(self.failure),
            "unfound": list(self.unfound),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the record that `as_json` wrote; ValueError for anything else."""
        try:
            sound = all(type(value[name]) in types for name, types in FIELDS.items())
            texts = [*(value["failure"] or ("", "")), *value["unfound"]]
            sound &= len(texts) == 2 + len(value["unfound"])
            sound &= all(type(text) is str for text in texts) and value["status"] in STATUSES
            found = cls.from_fields(value)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"not a run record ({error})") from error
        if not sound or found.as_json() != value:
            raise ValueError("not a run record")
        return found

    @classmethod
    def from_fields(cls, value: Json) -> Self:
        """Return the record of what `as_json` wrote, unchecked: for what this program stored."""
        failure, tally = value["failure"], value["tally"]
        read = {
            "window": Window.from_json(value["window"]),
            "tally": None if tally is None else Tally.from_json(tally),
            "failure": None if failure is None else tuple(failure),
            "unfound": tuple(value["unfound"]),
        }
        return cls(**value | read)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


_JSON_TYPES: dict[Any, type] = {
    Status: str, Window: dict, Tally: dict, Json: dict, tuple[str, str]: list, tuple[str, ...]: list
}  # fmt: skip
# The JSON types of each field.
FIELDS: dict[str, tuple[type, ...]] = {
    each.name: tuple(_JSON_TYPES.get(kind, kind) for kind in _kinds(each.type))
    for each in fields(RunRecord)
}
