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

DOCUMENTED = (  # symbol, method, number of operands, description, example
    ("?:", "elvis", 2, "The left value if it is true, else the right one", 'data.a ?: "none"'),
    ("??", "coalesce", 2, "The left value if it is not null, else the right one", "data.a ?? 0"),
    ("||", "or", 2, "True if one side is; also the word or", "data.a || data.b"),
    ("&&", "and", 2, "True if both sides are; also the word and", "data.a && data.b"),
    ("|", "or", 2, "Bitwise or of integers of 64 bits", "33 | 4"),
    ("^", "xor", 2, "Bitwise exclusive or of integers of 64 bits", "33 ^ 4"),
    ("&", "and", 2, "Bitwise and of integers of 64 bits", "33 & 4"),
    ("==", "equals", 2, "Whether both sides are equal; also the word eq", "data.a == 1"),
    ("!=", "equals", 2, "Whether the sides differ; also the word ne", "data.a != 1"),
    ("===", "strictEquals", 2, "Whether both sides are equal and of one kind", "data.a === 1"),
    ("!==", "strictEquals", 2, "Whether the sides differ in value or kind", "data.a !== 1"),
    ("<", "lessThan", 2, "Less than; also the word lt", "data.a < 1"),
    ("<=", "lessThanOrEqual", 2, "At most; also the word le", "data.a <= 1"),
    (">", "greaterThan", 2, "Greater than; also the word gt", "data.a > 1"),
    (">=", "greaterThanOrEqual", 2, "At least; also the word ge", "data.a >= 1"),
    ("=~", "matches", 2, "Whether all of a text matches, or a value is among others",
     'data.a =~ "b.*"'),
    ("!~", "matches", 2, "The contrary of =~", 'data.a !~ "b.*"'),
    ("=^", "startsWith", 2, "Whether a text begins with another", 'data.a =^ "b"'),
    ("!^", "startsWith", 2, "The contrary of =^", 'data.a !^ "b"'),
    ("=$", "endsWith", 2, "Whether a text ends with another", 'data.a =$ "b"'),
    ("!$", "endsWith", 2, "The contrary of =$", 'data.a !$ "b"'),
    ("<<", "shiftLeft", 2, "Shift of an integer of 64 bits to the left", "1 << 4"),
    (">>", "shiftRight", 2, "Shift to the right that keeps the sign", "-8 >> 1"),
    (">>>", "shiftRightUnsigned", 2, "Shift to the right that does not", "-8 >>> 1"),
    ("+", "add", 2, "Sum of numbers, or texts joined", "1 + 2"),
    ("-", "subtract", 2, "Difference", "3 - 2"),
    ("*", "multiply", 2, "Product", "3 * 2"),
    ("/", "divide", 2, "Quotient, of integers without its fraction; also the word div", "7 / 2"),
    ("%", "mod", 2, "Remainder; also the word mod", "5 % 2"),
    ("-", "negate", 1, "Negative of a number", "-12"),
    ("+", "positivize", 1, "Number of a text", '+"12"'),
    ("!", "not", 1, "Not; also the word not", "!data.a"),
    ("~", "complement", 1, "Bitwise complement of an integer of 64 bits", "~33"),
    ("empty", "empty", 1, "Whether a value is null or has no characters or elements",
     "empty data.a"),
    ("size", "size", 1, "Number of characters, elements or entries", "size data.a"),
)  # fmt: skip
