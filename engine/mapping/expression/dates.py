"""Date patterns by the rules of Java's SimpleDateFormat, read and written. Pure.

A pattern is compiled once to fields; the letters, and what each of them reads and writes, are in
one table. Names are English. Parsing takes the whole text.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.mapping.expression.values import shown

LONGEST = 100  # characters of a pattern
LONGEST_DATE = 1000  # characters of a text that is read by one
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
_ZONE_NAMES = {"P": "Pacific", "M": "Mountain", "C": "Central", "E": "Eastern"}

PATTERNS = (  # that `date` tries without a format, in this order (Data Prep)
    "yyyy-MM-dd HH:mm:ssZ",
    "yyyy-MM-dd HH:mm:ss.SSSZ",
    "yyyy-MM-dd HH:mm:ss.SSS",
    "yyyy-MM-dd'T'HH:mm:ss.SSSX",
    "yyyy-MM-dd'T'HH:mm:ss'Z'",
    "yyyy-MM-dd",
    "yyyy/MM/dd",
    "yyyy.MM.dd",
    "yyyy-MMM-dd",
    "yyyyMMdd",
    "MM-dd-yyyy",
    "MMddyyyy",
    "M/dd/yyyy",
    "dd.M.yyyy",
    "M/dd/yyyy hh:mm:ss a",
    "dd.M.yyyy hh:mm:ss a",
    "dd.MMM.yyyy",
    "dd-MMM-yyyy",
)
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?"
    r"(?: ?(Z|[+-]\d\d(?::?\d\d)?|[A-Z]{3}))?",
    re.ASCII,
)


class PatternError(ValueError):
    """Why a date pattern or a zone cannot be used, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A run of one letter, or a text to be found as it is (`letter` is "'")."""

    letter: str
    count: int
    text: str = ""
    width: int = 0  # digits that it reads exactly; 0: as many as there are, within its bounds


class Pattern:
    """A compiled date pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._fields = _with_widths(_fields(pattern))

    def write(self, value: datetime) -> str:
        """The date as text, in its own zone."""
        return "".join(
            field.text if field.letter == "'" else _LETTERS[field.letter](value, field.count)
            for field in self._fields
        )

    def read(self, text: str) -> datetime | None:
        """The date that all of `text` is; None where it does not fit. UTC without a zone."""
        if len(text) > LONGEST_DATE:
            return None
        found: dict[str, int] = {}
        zone: tzinfo = UTC
        at = 0
        for field in self._fields:
            if field.letter == "'":
                if not text.startswith(field.text, at):
                    return None
                at += len(field.text)
            elif field.letter in "zZXVO":
                read = _read_zone(field, text, at)
                if read is None:
                    return None
                zone, at = read
            else:
                number = _read_number(field, text, at)
                if number is None:
                    return None
                value, at = number
                if found.setdefault(_meaning(field), value) != value:
                    return None
        return _date_of(found, zone) if at == len(text) else None


@lru_cache(512)
def pattern(text: str) -> Pattern:
    """The compiled date pattern `text`; PatternError for one that cannot be used."""
    return Pattern(text)


def read(text: str) -> datetime | None:
    """The date in `text` by the first of PATTERNS that fits, else by ISO 8601; None if none."""
    if not text[:1].isdigit() or len(text) > LONGEST:
        return None
    for each in PATTERNS:
        if (found := pattern(each).read(text)) is not None:
            return found
    iso = _ISO.fullmatch(text)
    if not iso:
        return None
    year, month, day, hour, minute, second, fraction, zone = iso.groups()
    known = None if zone is None else offset(zone)
    if zone is not None and known is None:
        return None
    micro = int((fraction or "")[:6].ljust(6, "0"))
    clock = int(hour), int(minute), int(second or 0), micro
    try:
        return datetime(int(year), int(month), int(day), *clock, known or UTC)
    except ValueError:
        return None


def offset(text: str) -> tzinfo | None:
    """The zone of `Z`, `±HH`, `±HHmm`, `±HH:mm` or a known abbreviation; None for all else."""
    if text == "Z":
        return UTC
    if text in ABBREVIATIONS:
        return timezone(timedelta(hours=ABBREVIATIONS[text]))
    found = re.fullmatch(r"([+-])([01]\d|2[0-3])(?::?([0-5]\d))?", text, re.ASCII)
    if not found:
        return None
    minutes = int(found[2]) * 60 + int(found[3] or 0)
    return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes))


@lru_cache(512)
def zone(text: str) -> tzinfo:
    """The zone of an IANA name or an offset; PatternError for one that is not known."""
    if found := offset(text.removeprefix("UTC").removeprefix("GMT") or "Z"):
        return found
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PatternError(
            f"{shown(text)} is no time zone; write a name as Europe/Berlin, or an offset as +01:00"
        ) from None


def _fields(text: str) -> list[_Field]:
    if len(text) > LONGEST:
        raise PatternError(f"the date pattern has more than {LONGEST} characters")
    found: list[_Field] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char == "'":
            literal, at = _literal(text, at)
            found.append(_Field("'", 0, literal))
        elif char.isascii() and char.isalpha():
            if char not in _LETTERS:
                known = "".join(sorted(_LETTERS))
                raise PatternError(f"{char!r} is no letter of a date pattern; they are {known}")
            count = len(text[at:]) - len(text[at:].lstrip(char))
            if char == "V" and count != 2:
                raise PatternError("a zone's name is written VV")
            found.append(_Field(char, count))
            at += count
        else:
            found.append(_Field("'", 0, char))
            at += 1
    return found


def _literal(text: str, at: int) -> tuple[str, int]:
    """What stands between apostrophes; two of them are one."""
    if text.startswith("''", at):
        return "'", at + 2
    literal, at = "", at + 1
    while at < len(text):
        if text.startswith("''", at):
            literal += "'"
            at += 2
        elif text[at] == "'":
            return literal, at + 1
        else:
            literal += text[at]
            at += 1
    raise PatternError("an apostrophe in the date pattern has no end")


def _with_widths(fields: list[_Field]) -> list[_Field]:
    """Fields with the digits that each reads: single letters as many as come, others exactly.

    A number right before another one is read by its width.
    """
    found = []
    for index, field in enumerate(fields):
        after = fields[index + 1] if index + 1 < len(fields) else None
        beside = after is not None and _is_number(after)
        width = field.count if _is_number(field) and (field.count > 1 or beside) else 0
        found.append(_Field(field.letter, field.count, field.text, width))
    return found


def _is_number(field: _Field) -> bool:
    if field.letter in "MLQqE":
        return field.count < 3 and field.letter != "E"
    return field.letter in "yYuwWDdFHkKhmsS"


def _meaning(field: _Field) -> str:
    """The letter that says the same: `u` is a weekday alone or three times, else the year."""
    if field.letter == "u":
        return "E" if field.count in (1, 3) else "y"
    return {"L": "M", "q": "Q"}.get(field.letter, field.letter)


_MOST_DIGITS = {"y": 4, "Y": 4, "D": 3, "S": 9}


def _read_number(field: _Field, text: str, at: int) -> tuple[int, int] | None:
    letter = field.letter
    if letter == "a":
        return _read_name(("AM", "PM"), text, at, 0)
    if letter == "G":
        return _read_name(("BC", "AD"), text, at, 0)
    if letter == "E":
        return _read_name(DAYS if field.count > 3 else [d[:3] for d in DAYS], text, at, 1)
    if letter in "ML" and field.count > 2:
        names = MONTHS if field.count == 4 else [month[: field.count % 5 or 1] for month in MONTHS]
        return _read_name(names, text, at, 1)
    if letter in "Qq" and field.count > 2:
        names = ["Q1", "Q2", "Q3", "Q4"]
        return _read_name(names, text, at, 1)
    most = field.width or _MOST_DIGITS.get(letter, 2)
    end = at
    while end < len(text) and end - at < most and text[end] in "0123456789":
        end += 1
    if end == at or (field.width and end - at != field.width):
        return None
    value = int(text[at:end])
    if letter == "S":
        value = int(text[at:end][:6].ljust(6, "0"))
    elif letter in "yYu" and field.count == 2:
        value += 2000
    return value, end


def _read_name(names: Sequence[str], text: str, at: int, first: int) -> tuple[int, int] | None:
    for number, name in sorted(enumerate(names, first), key=lambda pair: -len(pair[1])):
        if text[at : at + len(name)].lower() == name.lower():
            return number, at + len(name)
    return None


def _read_zone(field: _Field, text: str, at: int) -> tuple[tzinfo, int] | None:
    if field.letter in "ZX":
        form = {1: r"[+-]\d\d", 2: r"[+-]\d{4}", 3: r"[+-]\d\d:\d\d"}
        wanted = form.get(field.count, form[2]) if field.letter == "X" else form[2]
        found = re.compile(wanted + ("|Z" if field.letter == "X" else ""), re.ASCII).match(text, at)
    elif field.letter == "O":
        found = re.compile(r"GMT(?:[+-]\d{1,2}(?::\d\d)?)?", re.ASCII).match(text, at)
    else:
        found = re.compile(r"[A-Za-z_/]+(?:[+-]\d\d?(?::?\d\d)?)?(?:[A-Za-z_/ ]+)?").match(text, at)
    if not found:
        return None
    name = found[0]
    if field.letter == "O" and name != "GMT":
        sign, hours = name[3], name[4:]
        name = f"{sign}{hours.zfill(2)}"
    known = offset(name) or _named_zone(name)
    return None if known is None else (known, found.end())


def _named_zone(name: str) -> tzinfo | None:
    for short, words in _ZONE_NAMES.items():
        for kind in ("Standard", "Daylight"):
            if name == f"{words} {kind} Time":
                return offset(f"{short}{kind[0]}T")
    try:
        return zone(name)
    except PatternError:
        return None


def _date_of(found: dict[str, int], where: tzinfo) -> datetime | None:
    hour = found.get("H", found.get("k", 0) % 24)
    if "h" in found or "K" in found:
        twelve = found.get("K", found.get("h", 0) % 12)
        if twelve > 11 or found.get("h", 1) not in range(1, 13):
            return None
        hour = twelve + 12 * found.get("a", 0)
    if "k" in found and found["k"] not in range(1, 25):
        return None
    year = found.get("y", 1970)
    try:
        day = _day(found, year)
        return datetime(
            *(day.year, day.month, day.day, hour, found.get("m", 0), found.get("s", 0)),
            found.get("S", 0),
            where,
        )
    except (ValueError, OverflowError):
        return None


def _day(found: dict[str, int], year: int) -> date:
    if found.get("G", 1) != 1:
        raise ValueError("before the year 1")
    if "w" in found:
        return date.fromisocalendar(found.get("Y", year), found["w"], found.get("E", 1))
    if "D" in found:
        day = date(year, 1, 1) + timedelta(found["D"] - 1)
        if day.year != year or found["D"] < 1:
            raise ValueError("no such day")
        return day
    month = found.get("M", (found["Q"] - 1) * 3 + 1 if "Q" in found else 1)
    day = date(found.get("Y", year), month, found.get("d", 1))
    if found.get("E", day.isoweekday()) != day.isoweekday():
        raise ValueError("another weekday")
    return day


def _padded(value: int, count: int) -> str:
    return str(value).zfill(count)


def _year(value: int, count: int) -> str:
    return _padded(value % 100, 2) if count == 2 else _padded(value, count)


def _month(value: datetime, count: int) -> str:
    name = MONTHS[value.month - 1]
    return (_padded(value.month, count), name[:3], name, name[0])[min(max(count - 2, 0), 3)]


def _quarter(value: datetime, count: int) -> str:
    number = (value.month + 2) // 3
    if count < 3:
        return _padded(number, count)
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
    known = next((k for k, v in ABBREVIATIONS.items() if short == k and k not in ("UTC",)), None)
    if short == "UTC":
        return "Coordinated Universal Time" if count > 3 else "UTC"
    if known is None:
        return "GMT" + _offset(value, colon=True)
    if count > 3 and known != "GMT":
        kind = "Standard" if known[1] == "S" else "Daylight"
        return f"{_ZONE_NAMES[known[0]]} {kind} Time"
    return known


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


_LETTERS: dict[str, Callable[[datetime, int], str]] = {
    "G": lambda d, n: "AD" if n < 4 else "Anno Domini",
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
