"""The listing filter: Flow Service's `property` parameter, parsed and applied to items.

Pure. Every regular expression over a client's text is RE2's. `catalog_filters` shares terms and
values.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from engine.control.api.problems import Problem, cut, invalid

Json = dict[str, Any]
IsKnown = Callable[[str], bool]  # whether the items of a list have a field

# Fields of Flow Service's items. A filter by one of them is valid although no item has it now.
FIELDS = frozenset(
    {
        "id", "createdAt", "updatedAt", "createdBy", "updatedBy", "createdClient",
        "updatedClient", "sandboxId", "sandboxName", "imsOrgId", "name", "description",
        "connectionSpec", "state", "auth", "version", "etag", "baseConnectionId", "data",
        "params", "providerRefId", "providerId", "inheritedAttributes", "flowSpec",
        "sourceConnectionIds", "type", "labels", "targetConnectionIds", "scheduleParams",
        "transformations", "options", "runs", "lastOperation", "lastRunDetails"
    }
)  # fmt: skip
NUMBERS = frozenset({"createdAt", "updatedAt"})  # besides fields that end in UTC
TEXTS = FIELDS - NUMBERS - {"version"} | {"flowId", "status", "metrics.statusSummary.status"}
COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

_TERM = re2.compile(r"(?s)([^=<>!~]*)([=<>!~]*)(.*)")
_NUMBER = re2.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?")
_QUOTES = ('"', "'")
_NOT_IMPLEMENTED = ("~", "!=", "=~", "!~")  # Flow Service has these operators


@dataclass(frozen=True, slots=True)
class Condition:
    """One `property`: any of the `values` for `==`, one number for the other operators."""

    field: str
    operator: str
    values: tuple[str, ...]


def parse_condition(text: str, is_known: IsKnown, fields: str) -> Condition:
    """Parse one `property`; raise Problem for what Flow Service rejects.

    `fields` is the end of the error for an unknown field: a sentence that names the known ones.
    """
    field, operator_, value = split_term(text)
    if not field or not operator_ or not value:
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if not is_path(field) or not is_known(field):
        detail = f"Invalid field {cut(field)} in filter params. {fields}"
        raise invalid("1449-400", detail.rstrip())
    if operator_ in _NOT_IMPLEMENTED:
        raise invalid("1440-400", f"Operator '{operator_}' not implemented.")
    if operator_ != "==" and operator_ not in COMPARISONS:
        raise invalid("1450-400", f"Invalid operator {cut(operator_)} in filter params.")
    values = split_values(value)
    if "" in values:
        raise invalid("1453-400", f"Invalid query value {cut(text)} provided in query param.")
    if operator_ != "==":
        if len(values) > 1:
            raise invalid("1443-400", f"Operator '{operator_}' is not allowed for multiple values.")
        if field in TEXTS:
            raise invalid("1448-400", f"Operator {operator_} not supported for field {cut(field)}.")
    is_numeric = operator_ != "==" or is_number(field)
    if is_numeric and (len(values) > 1 or number(values[0]) is None):
        raise invalid_value(field, value)
    return Condition(field, operator_, values)


def matches(item: Json, conditions: Iterable[Condition]) -> bool:
    """Return whether an item meets all conditions."""
    return all(
        any(_meets(value, condition) for value in values_at(item, condition.field))
        for condition in conditions
    )


def _meets(value: Any, condition: Condition) -> bool:
    if condition.operator == "==":
        return any(equals(value, wanted, fold_case=True) for wanted in condition.values)
    if isinstance(value, str):  # the tutorial's `startTime` is a text
        value = number(value)
    wanted = number(condition.values[0])
    if value is None or isinstance(value, bool | dict | list) or wanted is None:
        return False
    return bool(COMPARISONS[condition.operator](value, wanted))


def equals(value: Any, wanted: str, *, fold_case: bool = False) -> bool:
    """Return whether the value of a field equals the text of a filter."""
    if isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    if isinstance(value, int | float):
        return value == number(wanted)
    if not isinstance(value, str):
        return False
    return value.lower() == wanted.lower() if fold_case else value == wanted


def values_at(item: Any, field: str) -> Iterator[Any]:
    """Yield the values at a path with dots; `[]` after a name stands for each array member."""
    first, _, rest = field.partition(".")
    key = first.removesuffix("[]")
    if not isinstance(item, dict) or key not in item:
        return
    value = item[key]
    members = [value]
    if first != key:
        members = value if isinstance(value, list) else []
    for member in members:
        if rest:
            yield from values_at(member, rest)
        else:
            yield member


# Terms --------------------------------------------------------------------------------------


def split_term(text: str) -> tuple[str, str, str]:
    """Split a term into field, operator and value; "" for each that it lacks."""
    field, operator_, value = _TERM.fullmatch(text).groups()
    return field.strip(), operator_, value.strip()


def split_values(text: str) -> tuple[str, ...]:
    """Split a value at its commas, except those between quotes, and remove the quotes."""
    members, start, unclosed = list[str](), 0, set[str]()
    while start <= len(text):
        while start < len(text) and text[start].isspace():
            start += 1
        end, quote = -1, text[start : start + 1]
        if quote in _QUOTES and quote not in unclosed:
            end = _closing_quote(text, start)
            unclosed.update(quote if end < 0 else "")  # linear: a later one is not closed either
        end = text.find(",", start if end < 0 else end)
        end = len(text) if end < 0 else end
        members.append(unquote(text[start:end].strip()))
        start = end + 1
    return tuple(members)


def _closing_quote(text: str, start: int) -> int:
    """Return where the quote at `start` is closed at the end of a member; -1 if nowhere."""
    at = text.find(text[start], start + 1)
    while at >= 0:
        rest = at + 1
        while rest < len(text) and text[rest].isspace():
            rest += 1
        if rest == len(text) or text[rest] == ",":
            return at
        at = text.find(text[start], at + 1)
    return -1


def unquote(text: str) -> str:
    """Remove one pair of quotes around a text, if there is one."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        return text[1:-1]
    return text


def top_name(field: str) -> str:
    """Return the first name of a path, without `[]`."""
    return field.partition(".")[0].removesuffix("[]")


def is_path(field: str) -> bool:
    """Return whether a field is names separated by single dots, each perhaps with `[]`."""
    names = [name.removesuffix("[]") for name in field.split(".")]
    return all(names) and all(sign.isalnum() or sign in "_$@:/-" for sign in "".join(names))


def invalid_value(field: str, value: str, more: str = "") -> Problem:
    """Return the error for a value that its field cannot have."""
    return invalid(
        "1452-400", f"Invalid value {cut(value)} for field {cut(field)}. {more}".rstrip()
    )


# Numbers ------------------------------------------------------------------------------------


def is_number(field: str) -> bool:
    """Return whether a field holds numbers alone."""
    return field in NUMBERS or field.endswith("UTC")


def number(text: str) -> int | float | None:
    """Parse a number; None for a text that is none, or is infinite."""
    if is_digits(text.removeprefix("-"), 18):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def is_digits(text: str, most: int) -> bool:
    """Return whether a text is 1 to `most` ASCII digits."""
    return 1 <= len(text) <= most and text.isascii() and text.isdigit()
