"""Cast one value to the type of its field, by Adobe's table of conversions. Pure.

The cast of a value that has no such form is FAILED.
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
    """Cast a JSON value to the form that Arrow takes for `field`; None where the cast fails.

    `lost` gets a 1 for each value that could not be cast (only that value becomes null) and a 0
    for each member of an object for which the schema has no field.
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
    """Return a value; for an object that is None, an object whose members are all null."""
    if value is not None or field.type != "object":
        return value
    return {child.name: absent_as_null(child, None) for child in field.fields}


def _string(value: Any) -> Any:
    """Cast to a text: a number as the shortest JSON text that reads back as the same number.

    800.5 is "800.5", 800.0 is "800.0" and 1e21 is "1e+21"; integers keep every digit.
    """
    if type(value) is str:
        return value if value.isascii() or not _SURROGATE.search(value) else FAILED
    if type(value) is int:
        return str(value)
    if type(value) is float and math.isfinite(value):
        return orjson.dumps(value).decode()
    return FAILED


def _boolean(value: Any) -> Any:
    if type(value) is bool:
        return value
    if type(value) is str:
        return True if value in TRUE else False if value in FALSE else FAILED
    return FAILED


_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair, which UTF-8 cannot encode


def _integer(bits: int) -> Callable[[Any], Any]:
    """Make the cast to integers of `bits` bits, of integral values in their range.

    As in Adobe's conversions, a text with white space around it fails.
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
    """Cast doubles, decimal texts (to the nearest double), and integers that a double can hold."""
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
    """Cast an integer of ms since the epoch, or a text in a known pattern, to ms."""
    ms = value if type(value) is int else moment(value) if type(value) is str else None
    return ms if ms is not None and FIRST_MS <= ms <= LAST_MS else FAILED


def _date(value: Any) -> Any:
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
