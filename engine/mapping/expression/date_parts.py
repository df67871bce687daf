"""The parts of a date that `date_part` reads and `set_date_part` sets. Pure."""

from collections.abc import Callable
from datetime import date, datetime, timedelta

from engine.mapping.expression.values import TransformError, shown


def part(component: str, value: datetime) -> int:
    """The part of a date that `component` names, in the date's own zone."""
    name = _PARTS.get(component.strip().lower())
    if name is None:
        raise TransformError(f"{shown(component)} is no part of a date")
    return _READ_PART[name](value)


def is_part(component: str, *, settable: bool) -> bool:
    """Whether `component` names a part of a date, or one that can be set."""
    name = _PARTS.get(component.strip().lower())
    return name in _SETTABLE if settable else name is not None


def with_part(component: str, number: int, value: datetime) -> datetime:
    """The date with one part replaced; a day that the new month lacks becomes its last."""
    name = _PARTS.get(component.strip().lower())
    if name is None or name not in _SETTABLE:
        raise TransformError(f"{shown(component)} is no part of a date that can be set")
    try:
        if name in ("year", "month"):
            year, month = (number, value.month) if name == "year" else (value.year, number)
            last = (date(year + month // 12, month % 12 + 1, 1) - timedelta(1)).day
            return value.replace(year=year, month=month, day=min(value.day, last))
        return value.replace(**{name: number})  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        raise TransformError(f"{number} is no {name} that this date can have") from None


_SETTABLE = ("year", "month", "day", "hour", "minute", "second")
_PARTS = {
    alias: name
    for name, aliases in {
        "year": "year yyyy yy",
        "quarter": "quarter qq q",
        "month": "month mm m",
        "dayofyear": "dayofyear dy y",
        "day": "day dd d",
        "week": "week ww w",
        "weekday": "weekday dw",
        "hour": "hour hh hh24",
        "hour12": "hh12",
        "minute": "minute mi n",
        "second": "second ss s",
        "millisecond": "millisecond sss",
    }.items()
    for alias in aliases.split()
}
_READ_PART: dict[str, Callable[[datetime], int]] = {
    "year": lambda d: d.year,
    "quarter": lambda d: (d.month + 2) // 3,
    "month": lambda d: d.month,
    "dayofyear": lambda d: d.timetuple().tm_yday,
    "day": lambda d: d.day,
    "week": lambda d: d.isocalendar().week,
    "weekday": lambda d: d.isoweekday(),
    "hour": lambda d: d.hour,
    "hour12": lambda d: (d.hour + 11) % 12 + 1,
    "minute": lambda d: d.minute,
    "second": lambda d: d.second,
    "millisecond": lambda d: d.microsecond // 1000,
}
