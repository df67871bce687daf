"""The kinds of values in an expression, and what they are as text, number, date or truth.

null, boolean, integer, real, text, date (an aware datetime), array, object: the Python types None,
bool, int, float, str, datetime, list, dict. The rules are those of JEXL's arithmetic and of Data
Prep's pages. Pure.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

LONGEST = 1 << 20  # characters of a text that an expression makes
MOST = 100_000  # elements and entries, at all levels, of an array or object that it makes
BITS = 1024  # of an integer that it makes
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "real",
    str: "text",
    datetime: "date",
    list: "array",
    dict: "object",
}


class TransformError(Exception):
    """One value cannot be computed for one record: Data Prep's "Mapper Transform Error"."""


def kind(value: Any) -> str:
    """The kind of a value, as messages name it."""
    return _KINDS[type(value)]


def text(value: Any) -> str:
    """The text form of any value; TransformError beyond LONGEST characters."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime):
        return date_text(value)
    weigh(value)
    return bounded(orjson.dumps(value, default=_plain).decode())


def _plain(value: Any) -> Any:
    if isinstance(value, int | datetime):
        return text(value)
    raise TypeError


def date_text(value: datetime) -> str:
    """A date as text: in UTC, with milliseconds if it has a fraction."""
    utc = value.astimezone(UTC)
    whole = utc.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = f".{utc.microsecond // 1000:03}" if utc.microsecond else ""
    return f"{whole}{fraction}Z"


def bounded(made: str) -> str:
    """A text that was made; TransformError for one beyond LONGEST characters."""
    if len(made) > LONGEST:
        raise TransformError(f"a text has more than {LONGEST:,} characters")
    return made


def weigh(value: Any) -> Any:
    """An array or object that was made; TransformError beyond MOST elements and entries."""
    pending, count = [value], 0
    while pending:
        found = pending.pop()
        inner = found if isinstance(found, list) else list(found.values())
        count += len(inner)
        if count > MOST:
            raise TransformError(f"an array or object has more than {MOST:,} elements")
        pending += (each for each in inner if isinstance(each, list | dict) and each)
    return value


def scalar_text(value: Any) -> str:
    """The text of a parameter that takes a text; TransformError for an array or object."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        raise TransformError(f"an {kind(value)} stands where a text has to")
    return text(value)


def number(value: Any) -> int | float:
    """A number, or the one that a text is; TransformError for all else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (found := parsed(value)) is not None:
        return found
    raise TransformError(f"{shown(value)} is no number")


def parsed(value: str) -> int | float | None:
    """The number that a text is, with white space around it allowed; None if it is none."""
    stripped = value.strip()
    if len(stripped) > BITS or "_" in stripped or not stripped.isascii():
        return None
    digits = stripped[1:] if stripped[:1] in ("+", "-") else stripped
    if digits.isdecimal():
        return limited(int(stripped))
    if not digits or (not digits[0].isdecimal() and digits[0] != "."):
        return None  # not nan or infinity
    try:
        found = float(stripped)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def integer(value: Any) -> int:
    """An integer, or the one that a text or a whole real number is; else TransformError."""
    found = number(value)
    if isinstance(found, float):
        if not found.is_integer():
            raise TransformError(f"{shown(value)} is no integer")
        return int(found)
    return found


def limited(made: int) -> int:
    """An integer that was made; TransformError beyond BITS bits."""
    if made.bit_length() > BITS:
        raise TransformError(f"an integer has more than {BITS:,} bits")
    return made


def finite(made: float) -> float:
    """A real number that was made; TransformError for infinity and NaN."""
    if not math.isfinite(made):
        raise TransformError("the result is no finite number")
    return made


def truth(value: Any) -> bool:
    """Whether a value counts as true: not null, false, 0, NaN, "" and "false"."""
    if value is None or value == "" or value == "false":
        return False
    if isinstance(value, bool | int | float):
        return bool(value) and value == value
    return True


def equal(left: Any, right: Any) -> bool:
    """`==`: by truth beside a boolean, by number beside a number, else by text or content."""
    if left is None or right is None:
        return left is right
    if isinstance(left, bool) or isinstance(right, bool):
        return truth(left) == truth(right)
    if isinstance(left, int | float) or isinstance(right, int | float):
        try:
            return number(left) == number(right)
        except TransformError:
            return False
    if isinstance(left, str) or isinstance(right, str):
        return text(left) == text(right)
    if isinstance(left, datetime) or isinstance(right, datetime):
        return bool(left == right)
    return same(left, right)


def same(left: Any, right: Any) -> bool:
    """`===`: of one kind, and equal in content."""
    if isinstance(left, list) and isinstance(right, list):
        weigh(left)
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        weigh(left)
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return kind(left) == kind(right) and left == right


def compare(left: Any, right: Any, holds: Callable[[Any, Any], bool]) -> bool:
    """`<` and its like; false beside null. TransformError for what has no order."""
    if left is None or right is None:
        return False
    numbers = (int, float)
    if isinstance(left, bool) or isinstance(right, bool):
        raise TransformError("a boolean has no order")
    if isinstance(left, numbers) or isinstance(right, numbers):
        return holds(number(left), number(right))
    if isinstance(left, str | datetime) and type(left) is type(right):
        return holds(left, right)
    raise TransformError(f"{kind(left)} and {kind(right)} have no order")


def add(left: Any, right: Any) -> Any:
    """`+`: text forms joined beside a text, else numbers; null beside null or a number."""
    if isinstance(left, str) or isinstance(right, str):
        return bounded(text(left) + text(right))
    return arithmetic("+", left, right)


def arithmetic(symbol: str, left: Any, right: Any) -> Any:
    """`+ - * / %` of numbers; null if one is null. `/` and `%` of integers truncate to zero."""
    if left is None or right is None:
        return None
    a, b = number(left), number(right)
    if symbol in "/%" and b == 0:
        raise TransformError("a division by zero")
    if isinstance(a, int) and isinstance(b, int):
        return limited(_integers(symbol, a, b))
    try:
        x, y = float(a), float(b)
        results = {"+": x.__add__, "-": x.__sub__, "*": x.__mul__, "/": x.__truediv__}
        return finite(math.fmod(x, y) if symbol == "%" else results[symbol](y))
    except OverflowError:
        raise TransformError("the result is no finite number") from None


def _integers(symbol: str, a: int, b: int) -> int:
    if symbol == "+":
        return a + b
    if symbol == "-":
        return a - b
    if symbol == "*":
        return a * b
    quotient = abs(a) // abs(b)
    quotient = quotient if (a < 0) == (b < 0) else -quotient
    return quotient if symbol == "/" else a - quotient * b


def bitwise(symbol: str, left: Any, right: Any) -> int | None:
    """`& | ^ << >> >>>` of integers of 64 bits; a shift counts modulo 64. Null beside null."""
    if left is None or right is None:
        return None
    a, b = signed(integer(left)), signed(integer(right))
    if symbol == "&":
        return a & b
    if symbol == "|":
        return a | b
    if symbol == "^":
        return a ^ b
    if symbol == "<<":
        return signed(a << (b % 64))
    return a >> (b % 64) if symbol == ">>" else signed((a % (1 << 64)) >> (b % 64))


def signed(value: int) -> int:
    """The integer of 64 bits that the lowest 64 bits of `value` are."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def from_ms(ms: int) -> datetime:
    """The date of a number of ms since the epoch; TransformError outside the years 1 to 9999."""
    try:
        return EPOCH + ms * MILLISECOND
    except OverflowError:
        raise TransformError("the date lies outside the years 1 to 9999") from None


def milliseconds(value: datetime) -> int:
    """A date in ms since the epoch."""
    return (value - EPOCH) // MILLISECOND


def shown(value: Any) -> str:
    """A value for a message: cut to size, without line breaks."""
    if isinstance(value, list | dict):
        return f"an {kind(value)}"
    if isinstance(value, str):
        cut = value[:40] + ("…" if len(value) > 40 else "")
        return orjson.dumps(cut.encode(errors="replace").decode()).decode()
    return text(value)[:40]
