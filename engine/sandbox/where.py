"""Compile the `where` expressions that the sandbox understands to a test of one event.

Pure: it knows no request. Of Mixpanel's segmentation expressions it reads comparisons joined by
`and`, in parentheses or not: `properties["x"]`, `number(properties["x"])`, `defined(…)`, literals.
"""

import operator
import re
from collections.abc import Callable
from typing import Any

import orjson

Properties = dict[str, Any]

TEXT = r'"(?:[^"\\]|\\.)*"'
PROPERTY = rf"properties\[{TEXT}\]"
VALUE = rf"number\(\s*{PROPERTY}\s*\)|{PROPERTY}|{TEXT}|-?\d+(?:\.\d+)?|true|false"
TEST = re.compile(rf"defined\(\s*({PROPERTY})\s*\)|({VALUE})\s*(==|!=|<=|>=|<|>)\s*({VALUE})")
JOINED = re.compile(r"[\s(]*\0[\s)]*(\b(and|AND)\b[\s(]*\0[\s)]*)*")
LONGEST = 2_000  # characters: the time of reading one grows with their square
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def compile_where(text: str) -> Callable[[Properties], bool]:
    """Compile to a test of an event's `properties`; ValueError if `text` is not understood."""
    if len(text) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST:,} characters")
    skeleton = TEST.sub(" \0 ", text)
    if "\0" in text or not JOINED.fullmatch(skeleton) or skeleton.count("(") != skeleton.count(")"):
        raise ValueError(f"cannot read the expression {text!r}")
    tests = [compile_test(found) for found in TEST.finditer(text)]
    return lambda properties: all(test(properties) for test in tests)


def compile_test(found: re.Match[str]) -> Callable[[Properties], bool]:
    """Compile one comparison or `defined`."""
    known, left_text, sign, right_text = found.groups()
    if known is not None:
        defined = compile_value(known)
        return lambda properties: defined(properties) is not None
    left, right = compile_value(left_text), compile_value(right_text)
    return lambda properties: compare(sign, left(properties), right(properties))


def compile_value(text: str) -> Callable[[Properties], Any]:
    """Compile a literal, a property, or a property as a number; `$time` is an event's time."""
    if not text.startswith(("properties", "number")):
        literal = orjson.loads(text)
        return lambda _: literal
    name = orjson.loads(text[text.index("[") + 1 : text.rindex("]")])
    key = "time" if name == "$time" else name
    if text.startswith("number"):
        return lambda properties: number(properties.get(key))
    return lambda properties: properties.get(key)


def is_number(value: Any) -> bool:
    """Whether `value` is a number in the expression language."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any) -> Any:
    """`number()`: the value as a number; None where it cannot be one."""
    try:
        return value if is_number(value) else float(value)
    except (TypeError, ValueError):
        return None


def compare(sign: str, left: Any, right: Any) -> bool:
    """Compare two values: `==` is false between types, and only numbers have an order."""
    if sign in ORDER:
        return is_number(left) and is_number(right) and ORDER[sign](left, right)
    same = (is_number(left) and is_number(right)) or type(left) is type(right)
    equal: bool = same and left == right
    return equal == (sign == "==")
