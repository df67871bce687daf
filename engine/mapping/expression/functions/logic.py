"""Conditions, aggregates and functions that stand alone."""

import operator
from typing import Any

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import TransformError, compare, kind

TABLE = Table("Logical Operators")


@TABLE.define(
    "iif(CONDITION: any, TRUE_VALUE: any, FALSE_VALUE: any)",
    "any",
    'iif("s".equalsIgnoreCase("S"), "True", "False")',
    form="iif",
)
def iif() -> None:
    """The second value if the condition is true, else the third; only that one is evaluated."""


@TABLE.define(
    "decode(KEY: any, OPTION: any, MORE: any...)",
    "any",
    'decode("1", "1", "Male", "2", "Female", "unknown")',
    takes_null=True,
    form="decode",
)
def decode() -> None:
    """The value of the first option that equals KEY, else the last argument if it has no pair."""


def _best(values: tuple[Any, ...], *, largest: bool) -> Any:
    best = None
    for value in values:
        if value is None:
            continue
        if best is None:
            best = value
            continue
        numbers = {"integer", "real"}
        if kind(best) != kind(value) and not {kind(best), kind(value)} <= numbers:
            raise TransformError(f"{kind(best)} and {kind(value)} have no order")
        if compare(value, best, operator.gt if largest else operator.lt):
            best = value
    return best


@TABLE.define(
    "min(VALUE: any...)",
    "any",
    "min(3, 1, 4)",
    takes_null=True,
    spreads=True,
    category="Aggregation",
)
def smallest(*values: Any) -> Any:
    """The smallest value that is not null."""
    return _best(values, largest=False)


@TABLE.define(
    "max(VALUE: any...)",
    "any",
    "max(3, 1, 4)",
    takes_null=True,
    spreads=True,
    category="Aggregation",
)
def largest(*values: Any) -> Any:
    """The largest value that is not null."""
    return _best(values, largest=True)


@TABLE.define("uuid()", "text", "uuid()", "guid", form="uuid", category="Special Operations")
def uuid() -> None:
    """An id that is derived from the record, so that the same record has it again."""


@TABLE.define(
    "fpid_to_ecid(STRING: text)",
    "text",
    "fpid_to_ecid(data.fpid)",
    form="refused",
    category="Special Operations",
)
def fpid_to_ecid() -> None:
    """Cannot be used: Adobe does not say how the one id grows from the other."""
