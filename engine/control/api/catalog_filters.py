"""What the lists of Catalog and of the Schema Registry may be asked for: `property`, an order, a
page. Flow Service's own lists are listing.py's; the terms and the order of values are the same.

Values are compared as they are written, with their case: of two datasets a client may delete one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, lru_cache, partial
from typing import Any

import re2

from engine.control.api.listing import (
    Json,
    compare,
    is_number,
    number,
    place,
    term_of,
    unquoted,
    values_at,
)
from engine.control.api.problems import Problem, cut, invalid

MOST_TEXT = 2_000  # characters of a filter or an order
WORDS = (
    "A filter: a field, perhaps an operator (== != < <= > >= ~) and a value; !field for those "
    "without it. All that are given must be met."
)
NUMBERS = frozenset({"created", "updated", "dataSourceId"})
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "~")
_ORDERED: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda value, wanted: bool(value < wanted),
    "<=": lambda value, wanted: bool(value <= wanted),
    ">": lambda value, wanted: bool(value > wanted),
    ">=": lambda value, wanted: bool(value >= wanted),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A filter: a field, an operator and a value; "" and "!" ask whether the field is there."""

    field: str
    operator: str
    value: str = ""

    def holds(self, item: Json) -> bool:
        """Whether an item meets it; a list meets it with one of its members."""
        found = list(_values(item, self.field))
        if self.operator in ("", "!"):
            return bool(found) == (self.operator == "")
        if self.operator == "!=":
            return not any(_equals(value, self.value) for value in found)
        return any(self._compares(value) for value in found)

    def _compares(self, value: Any) -> bool:
        if self.operator == "==":
            return _equals(value, self.value)
        if self.operator == "~":
            return isinstance(value, str) and bool(_pattern(self.value).search(value))
        wanted: Any = number(self.value)
        if isinstance(value, str):
            wanted = self.value
        comparable = not isinstance(value, bool | dict | list) and value is not None
        return comparable and wanted is not None and _ORDERED[self.operator](value, wanted)


def terms(
    texts: Iterable[str], known: Callable[[str], bool], *, joined: bool = False
) -> list[Term]:
    """The filters that all must be met; Problem for what is none. `known`: whether there is such a
    field. With `joined` one text may have several, with commas between them.
    """
    parts = [part for text in texts for part in (_parts(text) if joined else [text])]
    return [_term(part, known) for part in parts]


def _parts(text: str) -> list[str]:
    """The filters of one text: a comma before what is no filter is part of a value."""
    found = list[str]()
    for part in text[: MOST_TEXT + 1].split(","):
        if found and not (term_of(part)[1] and term_of(part)[0]):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _term(text: str, known: Callable[[str], bool]) -> Term:
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"A filter has more than {MOST_TEXT:,} characters.")
    field, operator, value = term_of(text)
    if not field and operator == "!" and value:
        field, value = value, ""
    if not field or (operator not in ("", "!") and not value):
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if not known(field):
        raise invalid("1449-400", f"Invalid field {cut(field)} in filter params.")
    if operator not in ("", "!", *_OPERATORS) or (operator == "!" and value):
        raise invalid("1450-400", f"Invalid operator {cut(operator)} in filter params.")
    value = unquoted(value)
    if operator == "~":
        _pattern(value)
    counts = field in NUMBERS or is_number(field)
    if operator in _ORDERED and counts and number(value) is None:
        raise invalid("1452-400", f"Invalid value {cut(value)} for field {cut(field)}.")
    return Term(field, operator, value)


@lru_cache(16)
def _pattern(text: str) -> Any:
    """A regular expression that takes time in proportion to what it reads, whoever wrote it."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(text, options)
    except re2.error:
        detail = f"The value {cut(text)} after ~ is no regular expression that is read here."
        raise invalid("1452-400", detail) from None


def _values(item: Json, field: str) -> Iterable[Any]:
    """What is at a field, which may have dots in its name; of a list its members."""
    found = [item[field]] if field in item else list(values_at(item, field))
    for value in found:
        yield from value if isinstance(value, list) else [value]


def _equals(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if isinstance(value, int | float):
        return value == number(wanted)
    return isinstance(value, str) and value == wanted


def whole(name: str, text: str, least: int, most: int) -> int:
    """A whole number that a parameter is; Problem for any other text."""
    is_whole = text.isascii() and text.isdigit() and len(text) < 17
    if not is_whole or not least <= int(text) <= most:
        detail = f"It is a whole number from {least} to {most}."
        raise invalid("1452-400", f"Invalid value {cut(text)} for field {name}. {detail}")
    return int(text)


def order(
    texts: Sequence[str], known: Callable[[str], bool], default: str
) -> tuple[tuple[str, bool], ...]:
    """The fields that a list is ordered by, and whether each descends: `title,-created`."""
    text = ",".join(texts)
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"The order has more than {MOST_TEXT:,} characters.")
    found = list[tuple[str, bool]]()
    for part in (text if texts else default).split(","):
        field = part.strip()
        sign = field[:1] if field[:1] in ("+", "-") else ""
        field = field[len(sign) :]
        if not field or not known(field):
            raise not_an_order(part)
        found.append((field, sign == "-"))
    return tuple(found[:10])


def in_order(items: Iterable[Json], fields: Sequence[tuple[str, bool]]) -> list[Json]:
    """Items in an order; those that are equal by their ids."""
    places = [(place(item, fields), item) for item in items]
    by_place = cmp_to_key(partial(compare, order=fields))
    return [item for _, item in sorted(places, key=lambda each: by_place(each[0]))]


def short(name: str, text: str) -> str:
    """The text of a parameter; Problem for one that is too long."""
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"{name} has more than {MOST_TEXT:,} characters.")
    return text


def not_an_order(text: str) -> Problem:
    """A field that nothing is ordered by."""
    return invalid("1433-400", f"Incorrect field= {cut(text)} passed in orderBy.")
