"""Functions of texts. Positions count code points from zero."""

from typing import Any

from engine.mapping.expression.functions.regexes import compiled
from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import LONGEST, TransformError, bounded, text

TABLE = Table("String")


@TABLE.define(
    "concat(VALUE: any...)", "text", 'concat("Hi, ", "there")', takes_null=True, spreads=True
)
def concat(*values: Any) -> str:
    """Joins the text forms of all values; null counts as an empty text."""
    return bounded("".join(map(text, values)))


@TABLE.define("explode(STRING: text, REGEX: regex = ,)", "array", 'explode("a,b", ",")')
def explode(string: str, regex: str) -> list[str]:
    """Splits a text at each match of a regular expression; empty parts stay."""
    return compiled(regex).split(string)


@TABLE.define("split(INPUT: text, SEPARATOR: text)", "array", 'split("a b", " ")')
def split(string: str, separators: str | None) -> list[str]:
    """Splits a text at every character of SEPARATOR; empty parts are left out."""
    parts, part = list[str](), ""
    if not separators:
        return [string] if string else []
    apart = string.translate(dict.fromkeys(map(ord, separators), separators[0]))
    for part in apart.split(separators[0]):
        if part:
            parts.append(part)
    return parts


@TABLE.define("join(SEPARATOR: text, ARRAY: array)", "text", 'join(" ", ["a", "b"])')
def join(separator: str, array: list[Any] | None) -> str | None:
    """Joins the text forms of an array's elements, with SEPARATOR between them."""
    return None if array is None else bounded(separator.join(map(text, array)))


@TABLE.define(
    "instr(INPUT: text, SUBSTRING: text, START: integer = 0, OCCURRENCE: integer = 1)",
    "integer",
    'instr("adobe.com", "com")',
)
def instr(string: str, wanted: str | None, start: int | None, occurrence: int | None) -> int | None:
    """The position of the n-th occurrence of a text at or after START; -1 if there is none."""
    if wanted is None:
        return None
    if occurrence is not None and occurrence < 1:
        raise TransformError("an occurrence is counted from 1")
    at = max(0, start or 0) - 1
    for _ in range(min(1 if occurrence is None else occurrence, len(string) + 2)):
        at = string.find(wanted, at + 1)
        if at < 0:
            return -1
    return at


@TABLE.define(
    "replacestr(INPUT: text, TO_FIND: text, TO_REPLACE: text)",
    "text",
    'replacestr("This is", "is", "at")',
)
def replacestr(string: str, found: str | None, replacement: str | None) -> str:
    """Replaces all occurrences of a text, literally; TO_FIND null or empty changes nothing."""
    if not found or replacement is None:
        return string
    if len(string) + string.count(found) * (len(replacement) - len(found)) > LONGEST:
        raise TransformError(f"a text has more than {LONGEST:,} characters")
    return string.replace(found, replacement)


@TABLE.define(
    "substr(INPUT: text, START: integer, LENGTH: integer)", "text", 'substr("substring", 3, 6)'
)
def substr(string: str, start: int | None, length: int | None) -> str | None:
    """The part of a text from START, of LENGTH characters or up to its end."""
    if start is None or length is None:
        return None
    if start < 0 or length < 0:
        raise TransformError("substr takes no negative number")
    return string[start : start + length]


@TABLE.define("left(STRING: text, COUNT: integer)", "text", 'left("abcde", 2)')
def left(string: str, count: int | None) -> str | None:
    """The first COUNT characters."""
    return None if count is None else string[: max(0, count)]


@TABLE.define("right(STRING: text, COUNT: integer)", "text", 'right("abcde", 2)')
def right(string: str, count: int | None) -> str | None:
    """The last COUNT characters."""
    return None if count is None else string[max(0, len(string) - max(0, count)) :]


def _padding(string: str, count: int | None, padding: str | None) -> str:
    """What fills up a text to COUNT characters."""
    missing = (count or 0) - len(string)
    if missing <= 0:
        return ""
    if (count or 0) > LONGEST:
        raise TransformError(f"a text has more than {LONGEST:,} characters")
    unit = padding or " "
    return (unit * (missing // len(unit) + 1))[:missing]


@TABLE.define("lpad(INPUT: text, COUNT: integer, PADDING: text)", "text", 'lpad("bat", 8, "yz")')
def lpad(string: str, count: int | None, padding: str | None) -> str:
    """Fills a text up to COUNT characters on its left."""
    return _padding(string, count, padding) + string


@TABLE.define("rpad(INPUT: text, COUNT: integer, PADDING: text)", "text", 'rpad("bat", 8, "yz")')
def rpad(string: str, count: int | None, padding: str | None) -> str:
    """Fills a text up to COUNT characters on its right."""
    return string + _padding(string, count, padding)


@TABLE.define("lower(INPUT: text)", "text", 'lower("HeLLo")', "lcase")
def lower(string: str) -> str:
    """The text in lower case."""
    return string.lower()


@TABLE.define("upper(INPUT: text)", "text", 'upper("HeLLo")', "ucase")
def upper(string: str) -> str:
    """The text in upper case."""
    return string.upper()


@TABLE.define("trim(STRING: text)", "text", 'trim(" hello ")')
def trim(string: str) -> str:
    """The text without white space at both ends."""
    return string.strip()


@TABLE.define("ltrim(STRING: text)", "text", 'ltrim(" hello")')
def ltrim(string: str) -> str:
    """The text without white space at its beginning."""
    return string.lstrip()


@TABLE.define("rtrim(STRING: text)", "text", 'rtrim("hello ")')
def rtrim(string: str) -> str:
    """The text without white space at its end."""
    return string.rstrip()


@TABLE.define("equals(STRING: any, OTHER: any)", "boolean", '"a".equals("A")', form="method")
def equals(string: Any, other: Any) -> bool:
    """Whether two texts are exactly equal."""
    return isinstance(string, str) and isinstance(other, str) and string == other


@TABLE.define(
    "equalsIgnoreCase(STRING: any, OTHER: any)",
    "boolean",
    '"a".equalsIgnoreCase("A")',
    form="method",
)
def equals_ignoring_case(string: Any, other: Any) -> bool:
    """Whether two texts are equal without regard to case."""
    both = isinstance(string, str) and isinstance(other, str)
    return both and string.casefold() == other.casefold()


@TABLE.define("get(OBJECT: any, KEY: any)", "any", '{"a": 1}.get("a")', form="method")
def get(of: Any, key: Any) -> Any:
    """The value of a key of an object, or of an index of an array; null if there is none."""
    if isinstance(of, dict):
        return of.get(text(key))
    is_index = isinstance(key, int) and not isinstance(key, bool)
    if isinstance(of, list) and is_index and 0 <= key < len(of):
        return of[key]
    return None
