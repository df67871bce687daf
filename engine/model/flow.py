"""What a person declares (Connection, Flow), and one attempt to pull it (Run). Pure data."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from engine.model.window import Window

HOST = "https://data.mixpanel.com"
DocumentSource = str | tuple[str, Any]  # a name or a path; or a name and the document
DELAY_MINUTES = 10
MOST_NAMES = 5  # of events, in a sentence
LONGEST_WORDS = 200  # characters of a sentence that describes a source
_IDS = UUID("8f2c0f3e-52a5-4b0e-9d0c-6c9c3c6a4b51")  # never changes: every derived id has it
FREQUENCIES = ("once", "minute", "hour", "day", "week")


class Secret:
    """A text that neither `repr` nor `str` shows: only `reveal` returns it (P7)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the line that sends it."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Connection:
    """A Mixpanel project and the service account that reads it. `timezone` is an IANA name.

    `files`: (field, path) of credentials that were read from files, whose contents may change.
    """

    host: str
    username: str
    password: Secret
    project_id: int
    timezone: str = "UTC"
    name: str = "mixpanel"
    files: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def zone(self) -> ZoneInfo:
        """Return the time zone of the project's calendar."""
        return ZoneInfo(self.timezone)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The tutorial's schedule; `interval` is None for `once`.

    `start_time` is in epoch seconds; 0: not set, and ticks are counted from 1970 on.
    """

    frequency: str
    interval: int | None
    start_time: int


@dataclass(frozen=True, slots=True)
class Flow:
    """What to copy from where to where.

    mapping, schema       a shipped name, a path, or a name and the JSON document itself
    source_id, target_id  ids of the connections that its runs name; "": derived from its name
    diagnostics           whether run records name the files of rejected rows; these are always
                          written (P3)
    """

    name: str
    connection: Connection
    dataset: str
    mapping: DocumentSource = "mixpanel-events"
    schema: DocumentSource = "mixpanel-events"
    events: tuple[str, ...] = ()
    where: str | None = None
    partial_ingestion_percent: float = 5.0
    partial_ingestion_min: int = 10
    unmapped: str = "keep"
    shrink_guard_percent: float = 90.0
    keep_superseded_hours: float = 0.0
    keep_batches_days: float = 30.0
    windows: str = "day"
    lookback_days: int = 5
    delay_minutes: int = DELAY_MINUTES
    overlap_minutes: int = 60
    backfill_from: date | None = None
    schedule: Schedule | None = None
    diagnostics: bool = True
    source_id: str = ""
    target_id: str = ""

    @property
    def project(self) -> str:
        """Return the project whose rate limit its requests use, as host and id."""
        return f"{self.connection.host}/{self.connection.project_id}"

    @property
    def source(self) -> dict[str, Any]:
        """Return what selects the events of the flow: flows that share a table have the same."""
        return {
            "project_id": self.connection.project_id,
            "events": sorted(self.events),
            "where": self.where,
        }


@lru_cache(maxsize=1 << 10)
def flow_id(name: str) -> str:
    """Return the `flowId` of the flow `name`: the name, where that is a UUID already."""
    with suppress(ValueError):
        if str(UUID(name)) == name:
            return name
    return id_of("flow", name)


def source_id(flow: Flow) -> str:
    """Return the id of the source connection that the runs of `flow` name."""
    return flow.source_id or id_of("source", flow.name)


def target_id(flow: Flow) -> str:
    """Return the id of the target connection that the runs of `flow` name."""
    return flow.target_id or id_of("target", flow.name)


@lru_cache(maxsize=1 << 10)
def id_of(kind: str, name: str) -> str:
    """Return the UUID derived from a kind of thing and its name, the same on every machine."""
    return str(uuid5(_IDS, f"{kind}/{name}"))


def source_in_words(source: Any) -> str:
    """Describe in a few words which events a table holds, from what `Flow.source` returned."""
    if not isinstance(source, dict):
        return "another source"
    events = source.get("events")
    names = events if isinstance(events, list) else []
    shown = ", ".join(f'"{name}"' for name in names[:MOST_NAMES])
    more = f" and {len(names) - MOST_NAMES} more events" if len(names) > MOST_NAMES else ""
    words = f"{shown}{more}" if names else "all events"
    words += f" of project {source.get('project_id')}"
    if where := source.get("where"):
        words += f" where {where}"
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"


def superseded_in_words(hours: float) -> str:
    """Describe what `keep_superseded_hours` means to readers of the table: by glob and by Delta."""
    if not hours:
        return (
            "replaced files go at once: a glob counts nothing twice, and a query that is reading "
            "one may fail and has to be asked again"
        )
    return (
        f"replaced files stay for {hours:g} hours: a query that is reading one ends well, and "
        "until then a glob counts their rows twice; read the table with a Delta reader"
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at one (Flow, Window). No secret is part of it (P7)."""

    id: str
    flow: str
    window: Window
    batch_id: str
    started_at: int  # ms since the epoch
