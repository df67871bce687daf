"""Conversions of texts to numbers, and JSON."""

from typing import Any

import orjson

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import (
    BITS,
    TransformError,
    integer,
    number,
    scalar_text,
    shown,
    weigh,
)

TABLE = Table("Type Conversions")
LARGEST_FLOAT = 3.4028234663852886e38  # of 32 bits


def _digits(value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return integer(value)
    digits = scalar_text(value).strip()
    unsigned = digits[1:] if digits[:1] in ("+", "-") else digits
    if not (unsigned.isascii() and unsigned.isdecimal() and len(unsigned) <= BITS):
        raise TransformError(f"{shown(value)} is no integer")
    return int(digits)


@TABLE.define("to_integer(STRING: any)", "integer", 'to_integer("12")')
def to_integer(value: Any) -> int:
    """The integer, of 64 bits at most, that a text is."""
    found = _digits(value)
    if not -(1 << 63) <= found < 1 << 63:
        raise TransformError(f"{shown(value)} is no integer of 64 bits")
    return found


@TABLE.define("to_bigint(STRING: any)", "integer", 'to_bigint("1000000000000")')
def to_bigint(value: Any) -> int:
    """The integer, of 1,024 bits at most, that a text is."""
    found = _digits(value)
    if found.bit_length() > BITS:
        raise TransformError(f"{shown(value)} has more than {BITS:,} bits")
    return found


def _real(value: Any) -> float:
    try:
        return float(number(value))
    except OverflowError:
        raise TransformError(f"{shown(value)} is larger than any real number") from None


@TABLE.define("to_decimal(STRING: any)", "real", 'to_decimal("20.5")')
def to_decimal(value: Any) -> float:
    """The real number that a text is."""
    return _real(value)


@TABLE.define("to_float(STRING: any)", "real", 'to_float("12.3456")')
def to_float(value: Any) -> float:
    """The real number that a text is, within the range of 32-bit floats."""
    found = _real(value)
    if abs(found) > LARGEST_FLOAT:
        raise TransformError(f"{shown(value)} is larger than a float of 32 bits")
    return found


@TABLE.define(
    "json_to_object(STRING: any)", "any", 'json_to_object("{\\"a\\": 1}")', category="JSON"
)
def json_to_object(value: Any) -> Any:
    """The value that a JSON text holds."""
    if isinstance(value, dict | list):
        return value
    try:
        found = orjson.loads(scalar_text(value).encode())
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        raise TransformError(f"{shown(value)} is no JSON") from None
    return weigh(found) if isinstance(found, dict | list) else found
