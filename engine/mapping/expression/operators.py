"""The operators of the language, as plain code over values; null and errors by JEXL's rules."""

import operator
from collections.abc import Callable
from typing import Any

from engine.mapping.expression import values
from engine.mapping.expression.functions.regexes import compiled
from engine.mapping.expression.values import TransformError, kind


def _within(left: Any, right: Any) -> bool | None:
    """`=~`: all of a text matches a regular expression, or a value is among elements or keys."""
    if right is None or (left is None and isinstance(right, str)):
        return None
    if isinstance(right, list):
        return any(values.equal(left, each) for each in right)
    if isinstance(right, dict):
        return values.text(left) in right
    return compiled(values.scalar_text(right)).fits(values.scalar_text(left))


def _starts(left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    return values.scalar_text(left).startswith(values.scalar_text(right))


def _ends(left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    return values.scalar_text(left).endswith(values.scalar_text(right))


def _not(code: Callable[[Any, Any], bool | None]) -> Callable[[Any, Any], bool | None]:
    def negated(left: Any, right: Any) -> bool | None:
        found = code(left, right)
        return None if found is None else not found

    return negated


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | dict) else _no_size(value)


def _no_size(value: Any) -> int:
    if value is None:
        return 0
    raise TransformError(f"a value of kind {kind(value)} has no size")


def _empty(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, list | dict) and not value)


def _ordered(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: values.compare(left, right, holds)


def _calculated(symbol: str, code: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: code(symbol, left, right)


PREFIX: dict[str, Callable[[Any], Any]] = {
    "!": lambda value: not values.truth(value),
    "negate": lambda value: values.arithmetic("-", 0, value),
    "plus": lambda value: None if value is None else values.number(value),
    "~": lambda value: None if value is None else values.signed(~values.integer(value)),
    "empty": _empty,
    "size": _size,
}
INFIX: dict[str, Callable[[Any, Any], Any]] = {
    "==": values.equal,
    "!=": _not(values.equal),
    "===": values.same,
    "!==": _not(values.same),
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "=~": _within,
    "!~": _not(_within),
    "=^": _starts,
    "!^": _not(_starts),
    "=$": _ends,
    "!$": _not(_ends),
    "+": values.add,
    **{symbol: _calculated(symbol, values.arithmetic) for symbol in ("-", "*", "/", "%")},
    **{
        symbol: _calculated(symbol, values.bitwise) for symbol in ("&", "|", "^", "<<", ">>", ">>>")
    },
}

DECIDES: dict[str, Callable[[Any], bool]] = {  # whether the left operand is enough
    "&&": lambda value: not values.truth(value),
    "||": values.truth,
    "?:": values.truth,
    "??": lambda value: value is not None,
}
