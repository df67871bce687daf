"""Check the bodies of the control plane's resources, and read their values.

An invalid body is an InvalidResource with Flow Service's number, or another InputError. Other
resources and requests are not known here.
"""

import re
from typing import NamedTuple

from engine.config import value_types as types
from engine.config.fields import ACCOUNT, LEAST_INTERVAL, OPTIONS, SOURCE, read
from engine.config.value_types import Json, Type, integer, is_text, one_of, passing, text, trimmed
from engine.errors import InvalidResource
from engine.model.flow import FREQUENCIES, Schedule

MIXPANEL = ("6360f136-5980-4111-8bdf-15d29eab3b5a", "fd2c8ff3-1de0-4f6b-8fa8-4264784870eb")
"""Mixpanel's connection specification: the tutorial's id for it, and the one of later documents."""
AUTH_SPECS = ("OAuth2 Refresh Code", "Basic Authentication")
DATA_LAKE = "c604ff05-7f1a-43c0-8e18-33bf874cb11c"
FLOW_SPEC = "6499120c-0b15-42dc-936e-847ea3c24d72"
PROVIDER = "0ed90a81-07f4-4586-8190-b40eccef1c5a"  # of all sources that Adobe copies in batches
ENABLED, DISABLED = "enabled", "disabled"


class Part(NamedTuple):
    """A part that a body must have, at a path of keys; without a type it is any object.

    `number` is Flow Service's for a wrong value, `around` the one for a missing object around it.
    """

    path: str
    type: Type | None
    number: str = "1359-400"
    around: str = "1359-400"


_PRESENT = Type("", passing(lambda value: value is not None))
PARTS = {
    "connections": (
        Part("connectionSpec.id", one_of(*MIXPANEL), "1413-400", "1413-400"),
        Part("auth.specName", one_of(*AUTH_SPECS), "1415-400", "1304-400"),
        Part("auth.params.username", text(), "1304-400", "1304-400"),
    ),
    "sourceConnections": (
        Part("connectionSpec.id", one_of(*MIXPANEL), "1413-400", "1413-400"),
        Part("baseConnectionId", text(), "1338-400"),
        Part("data.format", one_of("json"), "1327-400"),
        Part("params.projectId", _PRESENT),
    ),
    "targetConnections": (
        Part("connectionSpec.id", one_of(DATA_LAKE), "1307-400", "1307-400"),
        Part("data", None),
        Part("params.dataSetId", text(), "1325-400"),
    ),
    "flows": (Part("flowSpec.id", one_of(FLOW_SPEC), "1413-400", "1413-400"),),
}
"""By the kind of a resource, in the order of the checks."""

_INVALID_SPEC = (
    "The spec ID provided is invalid. Please provide a valid spec ID and try again: "
    "{path} must be {allowed}."
)
_SENTENCES = {
    "1304-400": "The mandatory field {path} is not provided. Please provide the {path} and try "
    "again.",
    "1307-400": _INVALID_SPEC,
    "1321-400": "The length of {path} should be one, supplied size is {given}. Please provide "
    "valid size and try again.",
    "1325-400": "The dataSetId param cannot be null or empty in target connection. Please provide "
    "valid dataSetId param and try again.",
    "1327-400": "The format of source data supplied={given} in SourceConnection is not supported. "
    "The allowed values are: [json]. Please provide allowed values and try again.",
    "1338-400": "The {path} can't be null in the request. Please provide valid {path} in the "
    "request.",
    "1340-400": "An error occurred while parsing startTime={given}. It must be in whole seconds "
    "since 1970. Please check the time format provided in the request and try again.",
    "1359-400": "The param {path} is missing in the request. Please provide a valid {path} and try "
    "again.",
    "1361-400": "Interval is not allowed with one time ingestion. Please remove interval or change "
    "frequency and then try again.",
    "1362-400": "Interval cannot be less than {allowed}. Please provide a valid interval value and "
    "try again.",
    "1363-400": "Interval {given} is not allowed with frequency: {allowed}. Please provide a valid "
    "interval value and try again.",
    "1364-400": "The backfill flag is not allowed when frequency is set to once. Please remove the "
    "backfill flag when frequency is set to once and try again.",
    "1370-400": "The source columns could not be fetched for ingestion because the mapping "
    "transformation is missing. Please add the mapping transformation and try again.",
    "1397-400": "The provided frequency : {given} is invalid. It must be one of {allowed}. Please "
    "provide a valid frequency and try again.",
    "1412-400": "Invalid Mapping Version in request. Please provide correct mapping version.",
    "1413-400": _INVALID_SPEC,
    "1415-400": "The auth spec '{given}' could not be found for Mixpanel's connection spec. It "
    "must be {allowed}.",
    "1425-400": "Error while matching schema in target dataset {allowed} with schema in mapping "
    "{given}. Schema with same id and version must be used in both mapping and target dataset.",
}


def refused(
    number: str, path: str = "", given: object = "", allowed: object = ""
) -> InvalidResource:
    """Make Flow Service's error with that number; a client's value is cut to 100 characters."""
    sentence = _SENTENCES[number].format(path=path, given=f"{given!s:.100}", allowed=allowed)
    return InvalidResource(number, sentence)


def missing(path: str, number: str = "1359-400") -> InvalidResource:
    """Make the error for a part that a body lacks."""
    wording = number if number == "1304-400" else "1359-400"
    return InvalidResource(number, str(refused(wording, path)))


def check_parts(kind: str, body: Json) -> None:
    """Raise InvalidResource unless a body has every part that its kind must have."""
    for part in PARTS[kind]:
        *around, last = part.path.split(".")
        holder = body
        for key in around:
            holder = table(holder, key, part.around)
        given = holder.get(last)
        if part.type is None:
            table(holder, last, part.around)
        elif not part.type.accepts(given):
            raise refused(part.number, part.path, given, part.type.allowed.replace('"', ""))


def table(body: Json, key: str, number: str = "1359-400") -> Json:
    """Return the object that a body must have under a key."""
    given = body.get(key)
    if given is None:
        raise missing(key, number)
    if not isinstance(given, dict):
        raise InvalidResource("1400-400", f"{key}: must be an object")
    return given


def check_connection(body: Json, secret: Json) -> None:
    """Raise InvalidResource unless a body is a connection to Mixpanel with its credentials."""
    credentials_of(body, secret)
    if not re.fullmatch(types.USERNAME.schema["pattern"], body["auth"]["params"]["username"]):
        raise InvalidResource(
            "1400-400",
            f"auth.params.username: must be 1 to {types.MAX_USERNAME} visible characters of ASCII, "
            "without a blank or a colon, as Mixpanel's service accounts have.",
        )


def credentials_of(body: Json, secret: Json) -> Json:
    """Return the host and the user name of a connection, by the names of Connection's fields."""
    check_parts("connections", body)
    if not types.PASSWORD.accepts(secret.get("password")):
        raise missing("auth.params.password", "1304-400")
    return read(ACCOUNT, body["auth"]["params"])


def check_source(body: Json) -> Json:
    """Return the fields of Connection and Flow that a source connection sets, by their names.

    The project's number as time zone, as the tutorial has it, stands for UTC.
    """
    check_parts("sourceConnections", body)
    zone = {"timezone": None} if has_project_as_zone(body) else {}
    return read(SOURCE, body["params"] | zone)


def has_project_as_zone(body: Json) -> bool:
    """Return whether a source connection has its project's number as its time zone."""
    params = body["params"]
    return str(params.get("timezone")) == str(params.get("projectId"))


def schedule_of(body: Json, *, needed: bool = True) -> tuple[Schedule | None, bool]:
    """Return the schedule of a flow, and whether the flow pulls the days since its start time.

    The rules are the flow specification's: no interval and no backfill for `once`, else an interval
    of at least 15 minutes or 1 of the other units. Numbers may be written as texts.
    """
    if not needed and body.get("scheduleParams") is None:
        return None, False
    params = table(body, "scheduleParams")
    for name in ("frequency", "startTime"):
        if params.get(name) is None:
            raise missing(name)
    frequency, start = params["frequency"], integer(params["startTime"])
    if isinstance(frequency, str) and frequency.isascii():
        frequency = trimmed(frequency).lower()
    if not types.FREQUENCY.accepts(frequency):
        raise refused("1397-400", given=frequency, allowed=", ".join(FREQUENCIES))
    if not types.START.accepts(start):
        raise refused("1340-400", given=params["startTime"])
    schedule = Schedule(frequency, _interval(frequency, params), start or 0)
    return schedule, _backfill(frequency, params)


def _interval(frequency: str, params: Json) -> int | None:
    given, least = params.get("interval"), LEAST_INTERVAL[frequency]
    if frequency == "once":
        if given is not None:
            raise refused("1361-400")
        return None
    if given is None:
        raise missing("interval")
    interval = integer(given)
    if interval is None or interval > types.MAX_WHOLE:
        raise refused("1363-400", given=given, allowed=frequency)
    if interval < least:
        raise refused("1362-400", allowed=least)
    return interval


def _backfill(frequency: str, params: Json) -> bool:
    given = params.get("backfill")
    if given is None:
        return False
    if frequency == "once":
        raise refused("1364-400")
    if not types.FLAG.accepts(given):
        raise InvalidResource("1400-400", f"scheduleParams.backfill: must be {types.FLAG.allowed}")
    return bool(types.FLAG.read(given))


def options_of(body: Json) -> tuple[Json, bool]:
    """Return the options of a flow, by the names of Flow's fields, and whether it has diagnostics.

    A flow with partial ingestion always has diagnostics.
    """
    values = read(OPTIONS, table(body, "options")) if body.get("options") is not None else {}
    diagnostics = values.pop("error_diagnostics_enabled", True)
    return values, diagnostics or "partial_ingestion_percent" in values


def only(body: Json, key: str, what: str) -> str:
    """Return the only id in a list of ids; `what` names its connection in an error."""
    ids = body.get(key)
    if not ids or ids in ([None], [""]):
        raise refused("1338-400", f"{what} connection ID")
    if not isinstance(ids, list) or len(ids) != 1:
        raise refused("1321-400", key, len(ids) if isinstance(ids, list) else "unknown")
    if not is_text(ids[0]):
        raise InvalidResource("1400-400", f"{key}: must be a list of one id")
    return str(ids[0])
