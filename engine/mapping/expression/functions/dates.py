"""Functions of dates. A date is an instant with a zone."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from engine.mapping.expression import date_parts, dates
from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import TransformError, from_ms, shown

TABLE = Table("Date / Time")


def to_date(value: Any, form: str | None = None) -> datetime | None:
    """The date that a parameter is: a date, a text, or epoch ms; TransformError for all else."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return from_ms(value)
    if isinstance(value, str):
        found = _pattern(form).read(value) if form else dates.read(value)
        if found is not None:
            return found
        raise TransformError(f"{shown(value)} is no date{f' of the form {form}' if form else ''}")
    raise TransformError(f"{shown(value)} is no date")


def _pattern(text: str) -> dates.Pattern:
    try:
        return dates.pattern(text)
    except dates.PatternError as error:
        raise TransformError(str(error)) from None


def _zone(text: str) -> tzinfo:
    try:
        return dates.zone(text)
    except dates.PatternError as error:
        raise TransformError(str(error)) from None


@TABLE.define("now()", "date", "now()", form="now")
def now() -> None:
    """The moment when the run began."""


@TABLE.define("timestamp()", "integer", "timestamp()", form="now")
def timestamp() -> None:
    """The moment when the run began, in ms since the epoch."""


@TABLE.define(
    "date(DATE: any, FORMAT: pattern = null, DEFAULT: date = null)",
    "date",
    'date("2019-10-23 11:24", "yyyy-MM-dd HH:mm")',
    takes_null=True,
)
def date(value: Any, form: str | None, default: datetime | None) -> datetime | None:
    """The date in a text; DEFAULT if the text is null or empty."""
    return default if value is None or value == "" else to_date(value, form)


@TABLE.define("format(DATE: date, FORMAT: pattern)", "text", 'format(now(), "yyyy-MM-dd HH:mm:ss")')
def write(value: datetime, form: str | None) -> str | None:
    """A date as text, in its own zone."""
    return None if form is None else _pattern(form).write(value)


@TABLE.define(
    "dformat(TIMESTAMP: integer, FORMAT: pattern)",
    "text",
    "dformat(1571829875000, \"yyyy-MM-dd'T'HH:mm:ss.SSSX\")",
)
def dformat(ms: int, form: str | None) -> str | None:
    """A number of ms since the epoch as text, in UTC."""
    return None if form is None else _pattern(form).write(from_ms(ms))


@TABLE.define(
    "date_part(COMPONENT: text, DATE: date)", "integer", 'date_part("MM", date("2019-10-17"))'
)
def date_part(component: str, value: datetime | None) -> int | None:
    """A part of a date, as its year or its month."""
    return None if value is None else date_parts.part(component, value)


@TABLE.define(
    "set_date_part(COMPONENT: text, VALUE: integer, DATE: date)",
    "date",
    'set_date_part("m", 4, date("2016-11-09"))',
)
def set_date_part(component: str, number: int | None, value: datetime | None) -> datetime | None:
    """A date with one of its parts replaced."""
    return (
        None if number is None or value is None else date_parts.with_part(component, number, value)
    )


@TABLE.define(
    "make_date_time(YEAR: integer, MONTH: integer, DAY: integer, HOUR: integer, MINUTE: integer, "
    "SECOND: integer, NANOSECOND: integer, ZONE: zone)",
    "date",
    'make_date_time(2019, 10, 17, 11, 55, 12, 999, "America/Los_Angeles")',
    "make_timestamp",
)
def make_date_time(*parts: Any) -> datetime | None:
    """The date with these parts; in a gap of summer time the clock goes forward."""
    if any(each is None for each in parts):
        return None
    year, month, day, hour, minute, second, nanosecond, zone = parts
    where = _zone(zone)
    try:
        made = datetime(year, month, day, hour, minute, second, nanosecond // 1000, where)
        offset = made.utcoffset() or timedelta()
        return (made.replace(tzinfo=UTC) - offset).astimezone(where)
    except (ValueError, OverflowError):
        raise TransformError("these parts make no date") from None


@TABLE.define("zone_date_to_utc(DATE: date)", "date", 'zone_date_to_utc("2019-10-17T11:55:12-07")')
def zone_date_to_utc(value: datetime) -> datetime:
    """The same instant, in UTC."""
    return _moved(value, UTC)


@TABLE.define(
    "zone_date_to_zone(DATE: date, ZONE: zone)",
    "date",
    'zone_date_to_zone(now(), "Europe/Paris")',
)
def zone_date_to_zone(value: datetime, zone: str | None) -> datetime | None:
    """The same instant, in another zone."""
    return None if zone is None else _moved(value, _zone(zone))


def _moved(value: datetime, zone: tzinfo) -> datetime:
    try:
        return value.astimezone(zone)
    except OverflowError:
        raise TransformError("the date lies outside the years 1 to 9999") from None
