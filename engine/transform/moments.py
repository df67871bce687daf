"""Parse dates in Data Prep's patterns, and the second of an event's `time`. Pure: no clock."""

import math
import re
from datetime import datetime, timedelta
from typing import Any

SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1)  # in UTC, like every datetime here
SECONDS_END = 100_000_000_000  # a `time` above this is in ms
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # the years 1 to 9999

# No two adjacent repetitions may match the same characters: that takes quadratic time.
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,19})(?:\.0*)?")

_CLOCK = r"(?: (?P<h>0[1-9]|1[0-2]):(?P<M>\d\d):(?P<S>\d\d) (?P<a>[AaPp])[Mm])?"
_PATTERNS = [
    re.compile(pattern, re.ASCII)
    for pattern in (
        # RFC 3339, and similar patterns of Data Prep's
        (
            r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)(?:[Tt ](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)"
            r"(?:\.(?P<f>\d{1,9}))?)?(?:[Zz]|(?P<z>[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?))?)?"
        ),
        r"(?P<y>\d{4})(?P<sep>[/.])(?P<m>\d\d)(?P=sep)(?P<d>\d\d)",
        r"(?P<y>\d{4})-(?P<b>[A-Za-z]{3})-(?P<d>\d\d)",
        r"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)",
        r"(?P<m>\d\d)-(?P<d>\d\d)-(?P<y>\d{4})",
        r"(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d{4})",
        r"(?P<m>\d{1,2})/(?P<d>\d\d)/(?P<y>\d{4})" + _CLOCK,
        r"(?P<d>\d\d)\.(?P<m>\d{1,2})\.(?P<y>\d{4})" + _CLOCK,
        r"(?P<d>\d\d)(?P<sep>[.-])(?P<b>[A-Za-z]{3})(?P=sep)(?P<y>\d{4})",
    )
]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def moment(text: str) -> int | None:
    """Return the ms since the epoch of a date or a time in one of Data Prep's patterns, or None.

    The first pattern that matches and gives a real date counts. A time without an offset is UTC;
    digits beyond the ms are cut off.
    """
    if not text[:1].isdigit():  # every pattern starts with a digit
        return None
    for pattern in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            try:
                return _epoch_ms(found.groupdict())
            except ValueError:
                continue  # no such month, day or hour
    return None


def _epoch_ms(part: dict[str, str | None]) -> int:
    """Return the ms since the epoch of the groups of a pattern; ValueError for no real time."""
    month = int(part.get("m") or 0) or _MONTHS.index((part.get("b") or "").lower()) + 1
    hour = int(part.get("H") or 0)
    if part.get("h"):
        hour = int(part["h"] or 0) % 12 + (12 if part["a"] in ("p", "P") else 0)
    day = datetime(int(part["y"] or 0), month, int(part["d"] or 0))
    since = day.replace(hour=hour, minute=int(part.get("M") or 0), second=int(part.get("S") or 0))
    seconds = (since - EPOCH) // SECOND
    if zone := part.get("z"):
        digits = zone[1:].replace(":", "").ljust(4, "0")
        ahead = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        seconds += ahead if zone[0] == "-" else -ahead
    return seconds * 1000 + int((part.get("f") or "").ljust(3, "0")[:3])


def whole_second(time: Any) -> int | None:
    """Return the second since the epoch of an event's raw `time`; None if it is no moment.

    `time` is a number of seconds, or of ms above SECONDS_END, or a text of either, or a date and
    time as `moment` reads it. Fractions are rounded down, and white space around a text is
    ignored. Numbers of ms beyond the year 9999 are returned unchanged.
    """
    if type(time) is str:
        time = _number_or_second(time.strip())
    if type(time) is float:
        time = math.floor(time) if math.isfinite(time) else None
    if type(time) is not int:
        return None
    return time // 1000 if SECONDS_END < time <= LAST_MS else time


def _number_or_second(text: str) -> int | float | None:
    number = integral(text)
    if number is not None:
        return number  # a float would round large integers
    if NUMBER.fullmatch(text):
        return float(text)
    ms = moment(text)
    return None if ms is None else ms // 1000


def integral(text: str) -> int | None:
    """Parse an integer of up to 19 digits, which may end in `.0`; None for other texts."""
    found = _INTEGER.fullmatch(text)
    return int(found[1] + found[2]) if found else None


def is_second(time: Any) -> bool:
    """Return whether a raw `time` is a whole second, as a number or a text: a cast is exact."""
    number = integral(time) if type(time) is str else time
    return type(number) in (int, float) and whole_second(number) == number


def utc_day(time: Any) -> int | None:
    """Return the days since the epoch of a raw `time`; None if it is no moment."""
    second = whole_second(time)
    return None if second is None else second // 86_400
