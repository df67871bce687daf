"""What each letter of a date pattern writes, and the English names of dates and zones. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ABBREVIATIONS = {
    "UTC": 0,
    "GMT": 0,
    "EST": -5,
    "EDT": -4,
    "CST": -6,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
}
ZONE_NAMES = {"P": "Pacific", "M": "Mountain", "C": "Central", "E": "Eastern"}


def _padded(value: int, count: int) -> str:
    return str(value).zfill(count)


def _year(value: int, count: int) -> str:
    return _padded(value % 100, 2) if count == 2 else _padded(value, count)


def _month(value: datetime, count: int) -> str:
    name = MONTHS[value.month - 1]
    return (_padded(value.month, count), name[:3], name, name[0])[min(max(count - 2, 0), 3)]


def _quarter(value: datetime, count: int) -> str:
    number = (value.month + 2) // 3
    return _padded(number, count) if count < 3 else quarter_name(number, count)


def quarter_name(number: int, count: int) -> str:
    """Return the name of a quarter, as Q3 with three letters or 3rd quarter with four."""
    ordinal = ("1st", "2nd", "3rd", "4th")[number - 1]
    return f"Q{number}" if count == 3 else f"{ordinal} quarter"


def _offset(value: datetime, *, colon: bool, minutes: bool = True) -> str:
    total = round((value.utcoffset() or timedelta()).total_seconds()) // 60
    sign, total = ("-", -total) if total < 0 else ("+", total)
    hours, rest = divmod(total, 60)
    return f"{sign}{hours:02}" + (f"{':' if colon else ''}{rest:02}" if minutes or rest else "")


def _iso_offset(value: datetime, count: int) -> str:
    if not value.utcoffset():
        return "Z"
    return _offset(value, colon=count >= 3, minutes=count >= 2)


def _zone_name(value: datetime, count: int) -> str:
    short = value.tzname() or ""
    if short == "UTC":
        return "Coordinated Universal Time" if count > 3 else "UTC"
    if value.utcoffset() != timedelta(hours=ABBREVIATIONS.get(short, 99)):
        return "GMT" + _offset(value, colon=True)
    if count > 3 and short != "GMT":
        kind = "Standard" if short[1] == "S" else "Daylight"
        return f"{ZONE_NAMES[short[0]]} {kind} Time"
    return short


def _gmt(value: datetime, count: int) -> str:
    total = _offset(value, colon=True)
    if not value.utcoffset():
        return "GMT"
    if count >= 4:
        return "GMT" + total
    hours, rest = total[1:].split(":")
    return f"GMT{total[0]}{int(hours)}" + (f":{rest}" if rest != "00" else "")


def _zone_id(value: datetime, _count: int) -> str:
    key = getattr(value.tzinfo, "key", None)
    return str(key) if key else ("Z" if not value.utcoffset() else _offset(value, colon=True))


LETTERS: dict[str, Callable[[datetime, int], str]] = {
    "G": lambda d, n: {4: "Anno Domini", 5: "A"}.get(n, "AD"),
    "y": lambda d, n: _year(d.year, n),
    "Y": lambda d, n: _year(d.isocalendar().year, n),
    "u": lambda d, n: _padded(d.isoweekday(), n) if n in (1, 3) else _year(d.year, n),
    "M": _month,
    "L": _month,
    "Q": _quarter,
    "q": _quarter,
    "w": lambda d, n: _padded(d.isocalendar().week, n),
    "W": lambda d, n: _padded((d.day + d.replace(day=1).isoweekday() - 2) // 7 + 1, n),
    "D": lambda d, n: _padded(d.timetuple().tm_yday, n),
    "d": lambda d, n: _padded(d.day, n),
    "F": lambda d, n: _padded((d.day - 1) // 7 + 1, n),
    "E": lambda d, n: DAYS[d.weekday()][: None if n == 4 else 3],
    "H": lambda d, n: _padded(d.hour, n),
    "k": lambda d, n: _padded(d.hour or 24, n),
    "K": lambda d, n: _padded(d.hour % 12, n),
    "h": lambda d, n: _padded((d.hour + 11) % 12 + 1, n),
    "a": lambda d, n: "PM" if d.hour > 11 else "AM",
    "m": lambda d, n: _padded(d.minute, n),
    "s": lambda d, n: _padded(d.second, n),
    "S": lambda d, n: f"{d.microsecond:06}".ljust(n, "0")[:n],
    "z": _zone_name,
    "Z": lambda d, n: _offset(d, colon=False),
    "X": _iso_offset,
    "V": _zone_id,
    "O": _gmt,
}
