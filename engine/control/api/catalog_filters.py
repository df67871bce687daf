"""Filters, orders and parameters of the lists of Catalog and of the Schema Registry.

Flow Service's own lists are in listing.py; terms and the order of values are the same. Texts are
compared with their case: of two datasets with similar names a client may delete one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2
from fastapi import Request

from engine.control.api.listing_filter import (
    COMPARISONS,
    IsKnown,
    Json,
    equals,
    is_number,
    number,
    split_term,
    unquote,
    values_at,
)
from engine.control.api.listing_order import Order, sort_items, split_sign
from engine.control.api.problems import Problem, cut, invalid

MOST_TEXT = 2_000  # characters of a filter or an order
DESCRIPTION = (
    "A filter: a field, perhaps an operator (== != < <= > >= ~) and a value; !field for those "
    "without it. All that are given must be met."
)
SHORT_TEXT: Json = {"type": "string", "maxLength": MOST_TEXT}
NUMBERS = frozenset({"created", "updated", "dataSourceId"})
_OPERATORS = ("==", "!=", "~", *COMPARISONS)


@dataclass(frozen=True, slots=True)
class Term:
    """A filter: a field, an operator and a value.

    The operators "" and "!" test whether the field is there, or is not.
    """

    field: str
    operator: str
    value: str = ""

    def holds(self, item: Json) -> bool:
        """Return whether an item meets the filter; a list does with one of its members."""
        values = list(_values(item, self.field))
        if self.operator in ("", "!"):
            return bool(values) == (self.operator == "")
        if self.operator == "!=":
            return not any(equals(value, self.value) for value in values)
        return any(self._compares(value) for value in values)

    def _compares(self, value: Any) -> bool:
        if self.operator == "==":
            return equals(value, self.value)
        if self.operator == "~":
            return isinstance(value, str) and bool(_pattern(self.value).search(value))
        wanted: Any = self.value if isinstance(value, str) else number(self.value)
        comparable = not isinstance(value, bool | dict | list) and value is not None
        return comparable and wanted is not None and COMPARISONS[self.operator](value, wanted)


def values_by_name(request: Request) -> dict[str, list[str]]:
    """Return the values of each query parameter by its name in lower case."""
    values: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        values.setdefault(name.lower(), []).append(value)
    return values


def parse_terms(texts: Iterable[str], is_known: IsKnown, *, joined: bool = False) -> list[Term]:
    """Parse filters, all of which an item must meet; raise Problem for what is no filter.

    With `joined`, a text may have several filters, separated by commas.
    """
    parts = [part for text in texts for part in (_split_joined(text) if joined else [text])]
    return [_parse_term(part, is_known) for part in parts]


def _split_joined(text: str) -> list[str]:
    """Split a text at the commas that a filter follows; other commas are part of a value."""
    filters = list[str]()
    for part in text[: MOST_TEXT + 1].split(","):
        field, operator, _ = split_term(part)
        if filters and not (field and operator):
            filters[-1] += f",{part}"
        else:
            filters.append(part)
    return filters


def _parse_term(text: str, is_known: IsKnown) -> Term:
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"A filter has more than {MOST_TEXT:,} characters.")
    field, operator, value = split_term(text)
    if not field and operator == "!" and value:
        field, value = value, ""
    if not field or (operator not in ("", "!") and not value):
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if not is_known(field):
        raise invalid("1449-400", f"Invalid field {cut(field)} in filter params.")
    if operator not in ("", "!", *_OPERATORS) or (operator == "!" and value):
        raise invalid("1450-400", f"Invalid operator {cut(operator)} in filter params.")
    value = unquote(value)
    if operator == "~":
        _pattern(value)
    is_numeric = field in NUMBERS or is_number(field)
    if operator in COMPARISONS and is_numeric and number(value) is None:
        raise invalid("1452-400", f"Invalid value {cut(value)} for field {cut(field)}.")
    return Term(field, operator, value)


@lru_cache(16)
def _pattern(text: str) -> Any:
    """Compile a client's regular expression with RE2, which searches in linear time."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    try:
        return re2.compile(text, options)
    except re2.error:
        detail = f"The value {cut(text)} after ~ is no regular expression that is read here."
        raise invalid("1452-400", detail) from None


def _values(item: Json, field: str) -> Iterable[Any]:
    """Yield the values of a field, whose name may have dots; the members of a list."""
    values = [item[field]] if field in item else list(values_at(item, field))
    for value in values:
        yield from value if isinstance(value, list) else [value]


def parse_whole(name: str, text: str, least: int, most: int) -> int:
    """Parse a parameter that is a whole number; raise Problem for any other text."""
    is_whole = text.isascii() and text.isdigit() and len(text) < 17
    if not is_whole or not least <= int(text) <= most:
        detail = f"It is a whole number from {least} to {most}."
        raise invalid("1452-400", f"Invalid value {cut(text)} for field {name}. {detail}")
    return int(text)


def parse_order(texts: Sequence[str], is_known: IsKnown, default: str) -> Order:
    """Parse the fields that a list is ordered by: `title,-created`."""
    text = ",".join(texts)
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"The order has more than {MOST_TEXT:,} characters.")
    order = list[tuple[str, bool]]()
    for part in (text if texts else default).split(","):
        field, descending = split_sign(part)
        if not field or not is_known(field):
            raise invalid_order(part)
        order.append((field, descending))
    return tuple(order[:10])


def in_order(items: Iterable[Json], order: Sequence[tuple[str, bool]]) -> list[Json]:
    """Sort items by an order, equal ones by their ids."""
    return [item for _, item in sort_items(items, order)]


def check_length(name: str, text: str) -> str:
    """Return the text of a parameter; raise Problem for one that is too long."""
    if len(text) > MOST_TEXT:
        raise invalid("1400-400", f"{name} has more than {MOST_TEXT:,} characters.")
    return text


def invalid_order(text: str) -> Problem:
    """Return the error for a field that no list is ordered by."""
    return invalid("1433-400", f"Incorrect field= {cut(text)} passed in orderBy.")
