"""The cast of one value to the type of its field: Adobe's table of conversions, a value at a time.

What cannot be cast is FAILED. Pure.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import orjson

from engine.transform.moments import FIRST_MS, LAST_MS, NUMBER, integral, moment
from engine.transform.schema import Field

DAY_MS = 86_400_000
FAILED: Any = object()
TRUE = {"y", "yes", "Y", "YES", "on", "ON", "true", "TRUE"}
FALSE = {"n", "N", "no", "NO", "off", "OFF", "false", "FALSE"}
BITS = {"long": 64, "int": 32, "short": 16, "byte": 8}


def cast(field: Field, value: Any, lost: list[int]) -> Any:
    """`value`, as JSON gives it, in the form that Arrow takes for `field`; None where it fails.

    `lost` gets a 1 for each value that could not be cast (it is null alone, its siblings stay) and
    a 0 for each member of an object that the schema has no field for.
    """
    if value is None:
        return None
    if field.type == "object" and isinstance(value, dict):
        known = {child.name for child in field.fields}
        lost += [0 for name, inner in value.items() if name not in known and inner is not None]
        pairs = ((child, cast(child, value.get(child.name), lost)) for child in field.fields)
        return {child.name: absent_as_null(child, inner) for child, inner in pairs}
    if field.type == "array" and isinstance(value, list):
        assert field.items
        return [cast(field.items, inner, lost) for inner in value]
    if field.type == "map" and isinstance(value, dict):
        assert field.items
        named = {name: inner for name, inner in value.items() if _string(name) is not FAILED}
        lost += [1] * (len(value) - len(named))
        return [(name, cast(field.items, inner, lost)) for name, inner in named.items()]
    result = CASTS[field.type](value) if field.type in CASTS else FAILED
    if result is FAILED:
        lost.append(1)
        return None
    return result


def absent_as_null(field: Field, value: Any) -> Any:
    """`value`; for an object that is absent, one without a value, as rules leave it too."""
    if value is not None or field.type != "object":
        return value
    return {child.name: absent_as_null(child, None) for child in field.fields}


def _string(value: Any) -> Any:
    """Text as it is; a number as the shortest JSON text that reads back as the same number.

    So 800.5 is "800.5", 800.0 is "800.0" and 1e21 is "1e+21"; an integer keeps every digit.
    """
    if type(value) is str:
        return value if value.isascii() or not _SURROGATE.search(value) else FAILED
    if type(value) is int:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return orjson.dumps(value).decode()
    return FAILED


def _boolean(value: Any) -> Any:
    """Data Prep's words for true and false, in its own spellings."""
    if type(value) is bool:
        return value
    if type(value) is str:
        return True if value in TRUE else False if value in FALSE else FAILED
    return FAILED


_SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair is no character: UTF-8 has no room for it


def _integer(bits: int) -> Callable[[Any], Any]:
    """A cast to integers of `bits` bits, of what is integral and in their range.

    White space around a text fails, here as for numbers, since no conversion of Adobe's takes it
    off; the event's own `time` comes as its second already.
    """
    end = 1 << (bits - 1)

    def integer(value: Any) -> Any:
        number = value
        if type(value) is str:
            number = integral(value)
        elif type(value) is float:
            number = int(value) if value.is_integer() else None
        return number if type(number) is int and -end <= number < end else FAILED

    return integer


def _number(value: Any) -> Any:
    """Doubles, decimal text (the nearest double), and integers that a double holds exactly."""
    number: float | None = None
    if type(value) is str and NUMBER.fullmatch(value):
        number = float(value)
    elif type(value) is float:
        number = value
    elif type(value) is int and value.bit_length() <= 1024:
        try:
            number = float(value)
        except OverflowError:  # rounds up past the largest double
            return FAILED
        number = number if number == value else None
    return FAILED if number is None or not math.isfinite(number) else number


def _date_time(value: Any) -> Any:
    """Milliseconds since the epoch, of the same as an integer or of a text in a known pattern."""
    ms = value if type(value) is int else moment(value) if type(value) is str else None
    return ms if ms is not None and FIRST_MS <= ms <= LAST_MS else FAILED


def _date(value: Any) -> Any:
    """Days since the epoch: the UTC day of what `_date_time` takes."""
    ms = _date_time(value)
    return FAILED if ms is FAILED else ms // DAY_MS


CASTS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "boolean": _boolean,
    "number": _number,
    "date": _date,
    "date-time": _date_time,
    **{kind: _integer(bits) for kind, bits in BITS.items()},
}
