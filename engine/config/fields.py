"""The fields of connections, flows, schedules and the control plane, in files and in the API.

A new option of a flow is one line in FLOW, and its field with its default in `model/flow.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

from engine.config import value_types as types
from engine.config.toml_tables import Problems, read_table
from engine.config.value_types import Json, Type, number, one_of, whole
from engine.errors import InputError
from engine.model.flow import FREQUENCIES, Connection, Flow

# Objects in the API's bodies: one of connections, one of source connections, two of flows.
ACCOUNT, SOURCE, SCHEDULES, OPTIONS = "auth.params", "params", "scheduleParams", "options"
NOWHERE = ""  # a resource of its own
MAX_KEYS = 100  # of a client's object: each unknown key is compared with all known ones
LEAST_MINUTES = 15  # between two ticks
LEAST_INTERVAL = dict.fromkeys(FREQUENCIES, 1) | {"minute": LEAST_MINUTES}
REQUIRED = {
    ACCOUNT: ("username", "password"),
    SOURCE: ("projectId",),
    SCHEDULES: ("startTime", "frequency"),
    OPTIONS: (),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its key in the file and in the model, and its `place` in the API's bodies."""

    key: str
    type: Type
    description: str
    place: str = OPTIONS

    @property
    def name(self) -> str:
        """The name in the API: `lookback_days` is `lookbackDays` there."""
        first, *more = self.key.split("_")
        return first + "".join(map(str.title, more))

    @property
    def schema(self) -> Json:
        """The JSON Schema of the field in the API, with description and default."""
        default = {"default": _DEFAULTS[self.key]} if self.key in _DEFAULTS else {}
        return {**self.type.schema, "description": self.description, **default}


CONNECTION = (
    Field("host", types.HOST, "The address of Mixpanel's raw export", ACCOUNT),
    Field("username", types.USERNAME, "The name of a service account", ACCOUNT),
    Field("password", types.PASSWORD, "The secret of the service account", ACCOUNT),
    Field("project_id", types.PROJECT, "The number of the project", SOURCE),
    Field("timezone", types.TIME_ZONE, "The project's time zone: its IANA or Windows name", SOURCE),
)
SCHEDULE = (
    Field("frequency", types.FREQUENCY, "The unit of the interval", SCHEDULES),
    Field("interval", types.INTERVAL, "Units between two ticks; at least 15 minutes", SCHEDULES),
    Field("start_time", types.START, "Seconds since 1970; may be past", SCHEDULES),
)
FLOW = (
    Field("connection", types.CONNECTION, "The project to read", NOWHERE),
    Field("dataset", types.DATASET, "The table to write", NOWHERE),
    Field("mapping", types.MAPPING, "How properties become columns", NOWHERE),
    Field("schema", types.SCHEMA, "The XDM schema of the table", NOWHERE),
    Field("schedule", types.SCHEDULE, "When the daemon ticks", NOWHERE),
    Field("windows", one_of("arrival", "day"), "What a tick pulls: what arrived, or whole days"),
    Field("lookback_days", whole(1), "Age in days at which a day is pulled once more"),
    Field("delay_minutes", whole(0), "How long before a tick its arrival window ends"),
    Field("overlap_minutes", whole(0), "How long before the high watermark a window starts"),
    Field("backfill_from", types.DATE, "The first day to pull"),
    Field("events", types.EVENTS, "The names of the events to pull; all if left out", SOURCE),
    Field("where", types.WHERE, "Which events to pull: an expression of Mixpanel's", SOURCE),
    Field("partial_ingestion_percent", number(100), "Share of a day's rows that may be rejected"),
    Field("partial_ingestion_min", whole(0), "Rejected rows of a day that never fail a run"),
    Field("unmapped", one_of("keep", "drop"), "What happens to properties without a rule"),
    Field("shrink_guard_percent", number(100), "Share of its rows that a day keeps at least"),
    Field("keep_superseded_hours", number(100_000), "Hours before replaced files are deleted"),
    Field("keep_batches_days", number(100_000), "Days before a batch's folder is deleted"),
)
_API_ONLY = (
    Field("backfill", types.FLAG, "Whether to pull the days since the start time", SCHEDULES),
    Field("error_diagnostics_enabled", types.FLAG, "Whether runs show their rejected rows"),
)
API = {
    "listen": types.ADDRESS,
    "token": types.TOKEN,
    "key": types.KEY,
    "datasets": types.FOLDER,
    "hosts": types.HOST_NAMES,
    "url": types.URL,
    "mixpanel_hosts": types.ORIGINS,
}
"""The table [api], which configures the control plane and is no part of it."""

SHOWN = frozenset(each.name for each in CONNECTION if not each.type.secret)
"""The names in the API of a connection's fields that are no secrets."""
_DEFAULTS = {
    each.name: each.default
    for each in (*fields_of(Connection), *fields_of(Flow))
    if isinstance(each.default, int | float | str) and each.name != "windows"  # by the schedule
}
_ALL = (*CONNECTION, *SCHEDULE, *FLOW, *_API_ONLY)
_PLACED = {place: {each.name: each for each in _ALL if each.place == place} for place in REQUIRED}


def types_of(fields: Iterable[Field]) -> dict[str, Type]:
    """Return the types of fields by key, as `read_table` takes them."""
    return {each.key: each.type for each in fields}


def write(place: str, values: Mapping[str, Any]) -> Json:
    """Return the object at a place of a body: of `values` by key, without those that are None."""
    known = {name: each for name, each in _PLACED[place].items() if each.key in values}
    found = {name: each.type.write(values[each.key]) for name, each in known.items()}
    return {name: value for name, value in found.items() if value is not None}


def read(place: str, given: Json) -> dict[str, Any]:
    """Return the values of the object at a place of a body, by key; secrets are left out.

    Only options refuse unknown names and nulls. InputError lists every problem.
    """
    fields = {name: each for name, each in _PLACED[place].items() if not each.type.secret}
    if place != OPTIONS:
        given = {name: given[name] for name in fields if given.get(name) is not None}
    if len(given) > MAX_KEYS:
        raise InputError(f"{place}: has more than {MAX_KEYS} keys")
    problems = Problems(place)
    read = {name: replace(each.type, read=each.type.read_text_too) for name, each in fields.items()}
    values = read_table(given, read, "", problems)
    problems.raise_any()
    return {fields[name].key: value for name, value in values.items()}


def schema_of(place: str) -> Json:
    """Return the JSON Schema of the object at a place of a body."""
    required = REQUIRED[place]
    properties = {
        name: each.schema if name in required or place == OPTIONS else types.nullable(each.schema)
        for name, each in _PLACED[place].items()
    }
    closed = {"additionalProperties": False} if place == OPTIONS else {}
    return {"type": "object", "required": list(required), "properties": properties, **closed}
