"""The fields of connections, flows, schedules and the control plane: a line each.

The configuration file, the bodies of the API, its OpenAPI document and its specifications are read
and written by these tables. A new option of a flow is one line in FLOW, and its field with its
default in `model/flow.py`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

from engine.config import value_types as types
from engine.config.tables import Problems, read_table
from engine.config.value_types import Json, Type, number, one_of, secret, text, texts, whole
from engine.errors import InputError
from engine.model.flow import Connection, Flow

# Objects within the bodies of connections, source connections, flows and flows.
ACCOUNT, SOURCE, SCHEDULES, OPTIONS = "auth.params", "params", "scheduleParams", "options"
MAX_KEYS = 100  # of a client's object: each unknown key is compared with all known ones
NOWHERE = ""  # a resource, or no part of the API
ELSEWHERE = '{ env = "NAME" } or { file = "PATH" }'  # where a secret stands
LEAST_MINUTES = 15  # between two ticks
LEAST_INTERVAL: dict[str, int | None] = {
    "once": None,
    "minute": LEAST_MINUTES,
    "hour": 1,
    "day": 1,
    "week": 1,
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its `key` in the configuration file and in the model, its type, its description.

    `place` is the object within the API's bodies that has it.
    """

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
        default = _DEFAULTS.get(self.key)
        more = {"default": default} if isinstance(default, int | float | str) else {}
        return {**self.type.schema, "description": self.description, **more}


CONNECTION = (
    Field("host", types.HOST, "Address of Mixpanel's raw export", ACCOUNT),
    Field("username", types.USERNAME, "Name of a Mixpanel service account", ACCOUNT),
    Field(
        "password",
        secret("password", f"{ELSEWHERE}, the secret of a service account"),
        "Secret of the service account",
        ACCOUNT,
    ),
    Field("project_id", types.PROJECT, "Number of the Mixpanel project", SOURCE),
    Field("timezone", types.TIME_ZONE, "IANA or Windows name of the project's time zone", SOURCE),
)
SCHEDULE = (
    Field("frequency", types.FREQUENCY, "Unit of the interval", SCHEDULES),
    Field("interval", types.INTERVAL, "Units between two ticks; at least 15 minutes", SCHEDULES),
    Field("start_time", types.START, "First tick, in seconds since 1970; may be past", SCHEDULES),
)
FLOW = (
    Field(
        "connection",
        text("the NAME of a table [connections.NAME]"),
        "Mixpanel project to read",
        NOWHERE,
    ),
    Field("dataset", text("the path or URI of the table"), "Table to write", NOWHERE),
    Field("mapping", text("the name of a shipped mapping set or a path"), "Mapping set", NOWHERE),
    Field("schema", text("the name of a shipped schema or a path"), "XDM schema", NOWHERE),
    Field("schedule", types.SCHEDULE, "When the daemon ticks", NOWHERE),
    Field("windows", one_of("arrival", "day"), "Windows that a tick pulls"),
    Field("lookback_days", whole(1), "Days before today that day windows pull again"),
    Field("delay_minutes", whole(0), "Minutes that an arrival window ends before the tick"),
    Field("overlap_minutes", whole(0), "Minutes before the high watermark that are pulled again"),
    Field("backfill_from", types.DATE, "First day of history to pull"),
    Field(
        "events",
        texts('a list of names of events, as ["Items sold"]'),
        "Names of the events to pull; all if left out",
        SOURCE,
    ),
    Field(
        "where",
        text("a filter expression of Mixpanel's"),
        "Filter expression of Mixpanel's",
        SOURCE,
    ),
    Field(
        "partial_ingestion_percent",
        number(100),
        "Share of a day's rows that may be rejected before its run fails",
    ),
    Field("partial_ingestion_min", whole(0), "Rejected rows of a day that never fail its run"),
    Field(
        "unmapped",
        one_of("keep", "drop"),
        "Whether properties without a rule go into the column `unmapped`",
    ),
    Field(
        "shrink_guard_percent",
        number(100),
        "Least share of a day's rows that a repeated pull must bring",
    ),
    Field("keep_superseded_hours", number(100_000), "Hours until replaced files are deleted"),
    Field(
        "keep_batches_days", number(100_000), "Days until batch folders without rejects are deleted"
    ),
)
API = (
    Field("listen", types.ADDRESS, "Address and port to listen on", NOWHERE),
    Field(
        "token",
        secret(
            "token",
            f"{ELSEWHERE}, at least 16 letters, digits and signs in ASCII",
            re.compile("[!-~]{16,}").fullmatch,
        ),
        "Token of every client",
        NOWHERE,
    ),
    Field("key", secret("key", f"{ELSEWHERE}, a Fernet key"), "Key that encrypts secrets", NOWHERE),
    Field("datasets", types.FOLDER, "Folder of the tables that clients make", NOWHERE),
    Field(
        "hosts",
        texts('a list of names, as ["etl.example.org"]'),
        "Names of this host in requests",
        NOWHERE,
    ),
    Field("url", types.URL, "Start of the addresses in responses", NOWHERE),
    Field(
        "mixpanel_hosts",
        types.ORIGINS,
        "Hosts besides Mixpanel's own that clients' connections may name",
        NOWHERE,
    ),
)

_DEFAULTS = {
    each.name: each.default
    for each in (*fields_of(Connection), *fields_of(Flow))
    if each.default is not MISSING and each.name != "windows"  # depends on the schedule
}

_PLACED = {
    place: {each.name: each for each in (*CONNECTION, *SCHEDULE, *FLOW) if each.place == place}
    for place in (ACCOUNT, SOURCE, SCHEDULES, OPTIONS)
}
SHOWN = frozenset(
    name
    for place in (ACCOUNT, SOURCE)
    for name, each in _PLACED[place].items()
    if not each.type.secret
)
"""What of the credentials and the project, by their names in the API, is no secret."""


def _lenient(type_: Type) -> Type:
    """Return a type that takes a number as a text, too, where it is one that knows how."""

    def read(given: Any) -> Any:
        return type_.read(type_.from_text(given) if isinstance(given, str) else given)

    return replace(type_, read=read)


def types_of(fields: Iterable[Field]) -> dict[str, Type]:
    """Return the types of fields by key, as `read_table` takes them."""
    return {each.key: each.type for each in fields}


def fields_in(place: str) -> Mapping[str, Field]:
    """Return the fields in a place of the API's bodies, by their names there."""
    return _PLACED[place]


def written(place: str, values: Mapping[str, Any]) -> Json:
    """Return the object in a place of a body: `values` by key, those that are None left out."""
    found = {
        name: each.type.write(values[each.key])
        for name, each in _PLACED[place].items()
        if values.get(each.key) is not None
    }
    return {name: value for name, value in found.items() if value is not None}


def read(place: str, given: Json) -> dict[str, Any]:
    """Return the values of an object in a place of a body, by key; secrets are left out.

    InputError lists every unknown name and every wrong value.
    """
    problems = Problems(place)
    if len(given) > MAX_KEYS:
        raise InputError(f"{place}: has more than {MAX_KEYS} keys")
    types = {
        name: _lenient(each.type) for name, each in _PLACED[place].items() if not each.type.secret
    }
    values = read_table(given, types, "", problems)
    problems.raise_any()
    return {_PLACED[place][name].key: value for name, value in values.items()}
