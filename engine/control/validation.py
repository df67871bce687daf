"""The bodies of the control plane's resources: what each may say, read and checked.

To read one is to check it: what cannot be run is an InvalidResource, with a number, or another
InputError. It knows no other resource and no request.
"""

from collections.abc import Mapping
from typing import Any

from engine.config import file
from engine.config.fields import MOST_WHOLE, Key, is_text, values_of
from engine.errors import InvalidResource
from engine.model.flow import FREQUENCIES, Schedule

Json = dict[str, Any]

MIXPANEL = ("6360f136-5980-4111-8bdf-15d29eab3b5a", "fd2c8ff3-1de0-4f6b-8fa8-4264784870eb")
"""Mixpanel's connection specification: the tutorial's id for it, and the one of later documents."""

AUTH_SPECS = ("OAuth2 Refresh Code", "Basic Authentication")
DATA_LAKE = "c604ff05-7f1a-43c0-8e18-33bf874cb11c"
FLOW_SPEC = "6499120c-0b15-42dc-936e-847ea3c24d72"
PROVIDER = "0ed90a81-07f4-4586-8190-b40eccef1c5a"  # of all sources that Adobe copies in batches
ENABLED, DISABLED = "enabled", "disabled"
MOST_USER_NAME = 255  # characters
MOST_KEYS = 100  # of a client's object: each that is not known is compared with all that are
MOST_DIGITS = 18  # of a number that is written as a text
MASK = "xxxx"
"""What stands in a body in the place of a secret (P7)."""
_ACCOUNT = {"host": "host", "username": "username"}
_PROJECT = {"projectId": "project_id", "timezone": "timezone"}
SHOWN = frozenset(_ACCOUNT | _PROJECT)
"""What of `auth.params` is no secret."""
OPTIONS = {
    "partialIngestionPercent": "partial_ingestion_percent",
    "partialIngestionMin": "partial_ingestion_min",
    "windows": "windows",
    "lookbackDays": "lookback_days",
    "delayMinutes": "delay_minutes",
    "overlapMinutes": "overlap_minutes",
    "backfillFrom": "backfill_from",
    "unmapped": "unmapped",
    "shrinkGuardPercent": "shrink_guard_percent",
    "keepSupersededHours": "keep_superseded_hours",
    "keepBatchesDays": "keep_batches_days",
}
"""A flow's options: what the configuration file calls them. Flow Service has the first alone."""


def check_connection(body: Json, secret: Json) -> None:
    """InvalidResource unless it is a connection to Mixpanel, with all that a request needs."""
    spec(body, "connectionSpec", MIXPANEL)
    credentials_of(body, secret)
    user = body["auth"]["params"]["username"]
    if len(user) > MOST_USER_NAME or not all("!" <= sign <= "~" for sign in user):
        raise InvalidResource(
            "1400-400",
            f"auth.params.username: must be 1 to {MOST_USER_NAME} visible characters of ASCII, "
            "without a blank or a colon, as Mixpanel's service accounts have.",
        )


def check_source(body: Json) -> Json:
    """The project and the time zone that a source connection names; InvalidResource if it is none.

    The tutorial writes the project's number in the place of the time zone: that is UTC.
    """
    spec(body, "connectionSpec", MIXPANEL)
    if not isinstance(body.get("baseConnectionId"), str):
        raise InvalidResource(
            "1338-400",
            "The base connection ID can't be null in the request. "
            "Please provide valid base connection ID in the request.",
        )
    form = table(body, "data").get("format")
    if form != "json":
        raise InvalidResource(
            "1327-400",
            f"The format of source data supplied={_brief(form)} in SourceConnection is not "
            "supported. The allowed values are: [json]. Please provide allowed values and try "
            "again.",
        )
    params = table(body, "params")
    if params.get("projectId") is None:
        raise missing("params.projectId")
    project = params["projectId"]
    given: Json = {"projectId": file.project_id(project) if is_text(project) else project}
    if params.get("timezone") is not None and not has_project_as_zone(body):
        given["timezone"] = params["timezone"]
    values = _values("params", given, _PROJECT, file.CONNECTION)
    more = {name: params[name] for name in ("events", "where") if params.get(name) is not None}
    _values("params", more, {name: name for name in more}, file.FLOW)
    return values


def has_project_as_zone(body: Json) -> bool:
    """Whether a source connection has the tutorial's slip: its project in the time zone's place."""
    params = body["params"]
    return str(params.get("timezone")) == str(params.get("projectId"))


def check_target(body: Json) -> None:
    """InvalidResource unless it is a target connection to the data lake, that names a dataset."""
    spec(body, "connectionSpec", (DATA_LAKE,), "1307-400")
    table(body, "data")
    if not is_text(table(body, "params").get("dataSetId")):
        raise InvalidResource(
            "1325-400",
            "The dataSetId param cannot be null or empty in target connection. "
            "Please provide valid dataSetId param and try again.",
        )


def schedule_of(body: Json, *, needed: bool = True) -> tuple[Schedule | None, bool]:
    """The schedule of a flow, and whether it wants what was before it began.

    The rules are the flow specification's: no interval and no backfill for `once`, else an interval
    of at least 15 minutes or 1 of the rest. Numbers may be written as texts.
    """
    if not needed and body.get("scheduleParams") is None:
        return None, False
    params = table(body, "scheduleParams")
    frequency = params.get("frequency")
    if frequency is None or params.get("startTime") is None:
        raise missing("frequency" if frequency is None else "startTime")
    if isinstance(frequency, str) and frequency.isascii():
        frequency = frequency.strip("\r\n").lower()
    if frequency not in FREQUENCIES:
        raise InvalidResource(
            "1397-400",
            f"The provided frequency : {_brief(frequency)} is invalid. It must be one of "
            f"{', '.join(FREQUENCIES)}. Please provide a valid frequency and try again.",
        )
    start = integer(params["startTime"])
    if start is None or not 0 <= start <= file.LAST_SECOND:
        raise InvalidResource(
            "1340-400",
            f"An error occurred while parsing startTime={_brief(params['startTime'])}. "
            "It must be in whole seconds since 1970. "
            "Please check the time format provided in the request and try again.",
        )
    return Schedule(frequency, _interval(frequency, params), start), _backfill(frequency, params)


def options_of(body: Json) -> tuple[Json, bool]:
    """The options of a flow, by the names of Flow's fields, and whether it wants diagnostics.

    Flow Service has them always on where partial ingestion is.
    """
    given = dict(table(body, "options")) if body.get("options") is not None else {}
    diagnostics = given.pop("errorDiagnosticsEnabled", True)
    if is_text(diagnostics) and diagnostics.lower() in ("true", "false"):
        diagnostics = diagnostics.lower() == "true"
    if not isinstance(diagnostics, bool):
        raise InvalidResource("1400-400", "options: errorDiagnosticsEnabled: must be true or false")
    values = _values("options", given, OPTIONS, file.FLOW)
    return values, diagnostics or "partial_ingestion_percent" in values


def credentials_of(body: Json, secret: Json) -> Json:
    """The host and the user name that a connection has, with a password besides."""
    auth = table(body, "auth", "1304-400")
    if auth.get("specName") not in AUTH_SPECS:
        raise InvalidResource(
            "1415-400",
            f"The auth spec '{_brief(auth.get('specName'))}' could not be found for the connection "
            f"spec ID {body['connectionSpec']['id']}. It must be one of {', '.join(AUTH_SPECS)}.",
        )
    params = table(auth, "params", "1304-400")
    for field, value in (
        ("auth.params.username", params.get("username")),
        ("auth.params.password", secret.get("password")),
    ):
        if not is_text(value):
            raise missing(field, "1304-400")
    given = {name: params[name] for name in _ACCOUNT if params.get(name) is not None}
    return _values("auth.params", given, _ACCOUNT, file.CONNECTION)


def _interval(frequency: str, params: Json) -> int | None:
    given = params.get("interval")
    if frequency == "once":
        if given is not None:
            raise InvalidResource(
                "1361-400",
                "Interval is not allowed with one time ingestion. "
                "Please remove interval or change frequency and then try again.",
            )
        return None
    if given is None:
        raise missing("interval")
    interval, least = integer(given), 15 if frequency == "minute" else 1
    if interval is None or interval > MOST_WHOLE:
        raise InvalidResource(
            "1363-400",
            f"Interval {_brief(given)} is not allowed with frequency: {frequency}. "
            "Please provide a valid interval value and try again.",
        )
    if interval < least:
        raise InvalidResource(
            "1362-400",
            f"Interval cannot be less than {least}. "
            "Please provide a valid interval value and try again.",
        )
    return interval


def _backfill(frequency: str, params: Json) -> bool:
    given = params.get("backfill")
    if given is None:
        return False
    if frequency == "once":
        raise InvalidResource(
            "1364-400",
            "The backfill flag is not allowed when frequency is set to once. "
            "Please remove the backfill flag when frequency is set to once and try again.",
        )
    if str(given).lower() not in ("true", "false"):
        raise InvalidResource("1400-400", "scheduleParams.backfill: must be true or false")
    return str(given).lower() == "true"


def spec(body: Json, key: str, allowed: tuple[str, ...], number: str = "1413-400") -> None:
    """InvalidResource unless the specification that `key` names is one of `allowed`."""
    given = table(body, key, number).get("id")
    if given not in allowed:
        raise InvalidResource(
            number,
            "The spec ID provided is invalid. Please provide a valid spec ID and try again: "
            f"{key}.id must be {' or '.join(allowed)}.",
        )


def only(body: Json, key: str, what: str) -> str:
    """The one id of a list."""
    ids = body.get(key)
    if not ids or ids in ([None], [""]):
        raise InvalidResource(
            "1338-400",
            f"The {what} connection ID can't be null in flowRequest. "
            f"Please provide valid {what} connection ID in flowRequest.",
        )
    if not isinstance(ids, list) or len(ids) != 1:
        size = len(ids) if isinstance(ids, list) else "unknown"
        raise InvalidResource(
            "1321-400",
            f"The length of {key} should be one, supplied size is {size}. "
            "Please provide valid size and try again.",
        )
    if not is_text(ids[0]):
        raise InvalidResource("1400-400", f"{key}: must be a list of one id")
    return str(ids[0])


def _values(origin: str, given: Json, names: Mapping[str, str], keys: Mapping[str, Key]) -> Json:
    """The values of `given`, which has a client's `names`, by the configuration file's."""
    if len(given) > MOST_KEYS:
        raise InvalidResource("1400-400", f"{origin}: has more than {MOST_KEYS} keys")
    theirs = {name: keys[ours] for name, ours in names.items()}
    found = values_of(origin, given, theirs)
    return {names[name]: value for name, value in found.items()}


def table(body: Json, key: str, number: str = "1359-400") -> Json:
    """The object that must be under a key."""
    given = body.get(key)
    if given is None:
        raise missing(key, number)
    if not isinstance(given, dict):
        raise InvalidResource("1400-400", f"{key}: must be an object")
    return given


def missing(param: str, number: str = "1359-400") -> InvalidResource:
    """What to raise for want of a parameter."""
    if number == "1304-400":
        return InvalidResource(
            number,
            f"The mandatory field {param} is not provided. "
            f"Please provide the {param} and try again.",
        )
    return InvalidResource(
        number,
        f"The param {param} is missing in the request. Please provide a valid {param} "
        "and try again.",
    )


def _brief(given: Any) -> str:
    """A client's value as it can stand in a sentence."""
    return f"{given!s:.100}"


def integer(given: Any) -> int | None:
    """A whole number, which may be written as a text."""
    if isinstance(given, str):
        text = given.strip("\r\n")
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
            return None
        return int(text)
    return given if type(given) is int else None
