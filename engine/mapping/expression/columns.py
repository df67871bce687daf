"""The values of a node of an expression for the records of a frame, a column at a time.

Each node gives one list of values, one for each record; equal nodes are computed once a frame.
What cannot be computed for a record is a `Failed` value in its place, never an exception.
"""

from collections.abc import Callable
from typing import Any

from engine.mapping.expression import values
from engine.mapping.expression.checker import EventName, Property
from engine.mapping.expression.frame import STEP, Column, Failed, Frame
from engine.mapping.expression.functions import FUNCTIONS, Function
from engine.mapping.expression.functions.dates import to_date
from engine.mapping.expression.functions.regexes import COMPILING
from engine.mapping.expression.functions.regexes import work as matching
from engine.mapping.expression.nodes import (
    Array,
    Call,
    Conditional,
    Every,
    Index,
    Literal,
    Member,
    Name,
    Node,
    Object,
    Operation,
)
from engine.mapping.expression.operators import DECIDES, INFIX, PREFIX
from engine.mapping.expression.values import TransformError, kind

Form = Callable[[Call, Frame], Column]
FORMS: dict[str, Form] = {}
"""The calls that are no plain functions of their arguments' values, by `Function.form`."""


def column(node: Node, frame: Frame) -> Column:
    """Return the values of a node, computed once a frame."""
    found = frame.known.get(node)
    if found is None:
        found = frame.known[node] = _EVALUATE[type(node)](node, frame)
    return found


def branch(node: Node, frame: Frame, rows: list[int]) -> list[tuple[int, Any]]:
    """Return (row, value) of a node for some rows.

    They have a frame of their own even if they are all, so that what counts as work for a record
    does not depend on the other records.
    """
    return list(zip(rows, column(node, frame.of(rows)), strict=True)) if rows else []


def choose(condition: Node, yes: Node, no: Node, frame: Frame) -> Column:
    """Return one of two values a row, each evaluated only for its rows."""
    found = column(condition, frame).copy()
    branches: tuple[list[int], list[int]] = ([], [])
    for row, value in enumerate(found):
        if not isinstance(value, Failed):
            branches[not values.truth(value)].append(row)
    for node, rows in zip((yes, no), branches, strict=True):
        for row, value in branch(node, frame, rows):
            found[row] = value
    return found


# Reading --------------------------------------------------------------------------------------


def _property(node: Property, frame: Frame) -> Column:
    if len(node.names) == 1:
        [name] = node.names
        return [record.get(name) for record in frame.properties]
    first, second = node.names
    return [record[first] if first in record else record.get(second) for record in frame.properties]


def _name(node: Name, frame: Frame) -> Column:
    return frame.parameters[node.names[0]]


def step(value: Any, name: Any) -> Any:
    """Return what a name or an index reads of a value, null where there is nothing.

    A name reads every element of an array.
    """
    if isinstance(value, dict):
        return value.get(name) if isinstance(name, str) else None
    if isinstance(value, list):
        if isinstance(name, str):
            return [step(element, name) for element in value]
        is_index = isinstance(name, int) and not isinstance(name, bool)
        return value[name] if is_index and 0 <= name < len(value) else None
    return None


def _member(node: Member, frame: Frame) -> Column:
    return frame.each(lambda value: step(value, node.step), column(node.of, frame))


def _index(node: Index, frame: Frame) -> Column:
    return frame.each(step, column(node.of, frame), column(node.index, frame))


def _every(node: Every, frame: Frame) -> Column:
    return frame.each(
        lambda value: value if isinstance(value, list) else None, column(node.of, frame)
    )


# Operators, arrays, objects -------------------------------------------------------------------


def _operation(node: Operation, frame: Frame) -> Column:
    if len(node.operands) == 1:
        return frame.each(PREFIX[node.symbol], column(node.operands[0], frame))
    left, right = node.operands
    if node.symbol in INFIX:
        work, steps = None, STEP
        if node.symbol in ("=~", "!~"):
            work, steps = matching, STEP + _compiling(right)
        columns = column(left, frame), column(right, frame)
        return frame.each(INFIX[node.symbol], *columns, step=steps, work=work)
    found = column(left, frame).copy()
    decides = DECIDES[node.symbol]
    open_rows = [
        row
        for row, value in enumerate(found)
        if not isinstance(value, Failed) and not decides(value)
    ]
    for row, value in branch(right, frame, open_rows):
        found[row] = value
    return frame.each(values.truth, found) if node.symbol in ("&&", "||") else found


def _conditional(node: Conditional, frame: Frame) -> Column:
    return choose(node.condition, node.yes, node.no, frame)


def _array(node: Array, frame: Frame) -> Column:
    if not node.elements:
        return [[] for _ in range(len(frame))]
    columns = [column(element, frame) for element in node.elements]
    return frame.each(lambda *row: list(row), *columns, step=STEP + len(columns))


def _object(node: Object, frame: Frame) -> Column:
    columns = [column(entry, frame) for entry in node.entries]
    if not columns:
        return [{} for _ in range(len(frame))]
    return frame.each(FUNCTIONS["to_object"].code, *columns, step=STEP + len(columns))


# Calls ----------------------------------------------------------------------------------------


def _array_of(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise TransformError(f"a value of kind {kind(value)} stands where an array has to")


def _object_of(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise TransformError(f"a value of kind {kind(value)} stands where an object has to")


_CONVERT: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("text", "regex", "pattern", "zone", "charset"), values.scalar_text),
    "integer": values.integer,
    "number": values.number,
    "date": to_date,
    "boolean": values.truth,
    "array": _array_of,
    "object": _object_of,
}
_LENIENT = ("join", "array_to_string")  # for which a scalar is an array of one
_STEPS = {  # units of work of a call, where that is more than STEP
    "Date / Time": 500,
    "Hashing": 100,
    "Regular Expression": 100,
    "URL": 200,
    "User Agent": 20_000,
}


def _call(node: Call, frame: Frame) -> Column:
    function = FUNCTIONS[node.name]
    if special := FORMS.get(function.form):
        return special(node, frame)
    columns = [column(argument, frame) for argument in node.arguments]
    if not columns:
        return [function.code() for _ in range(len(frame))]
    code = _converted(function, node.name, len(columns))
    steps = _STEPS.get(function.category, STEP) + len(columns)
    if steps > STEP + len(columns) and all(
        isinstance(argument, Literal) for argument in node.arguments[1:]
    ):
        code = _remembering(code)
    if function.work:
        steps += sum(map(_compiling, node.arguments[1:]))
    return frame.each(code, *columns, step=steps, work=function.work)


def _compiling(pattern: Node) -> int:
    return 0 if isinstance(pattern, Literal) else COMPILING


def _converted(function: Function, name: str, count: int) -> Callable[..., Any]:
    """Return the function's code with arguments converted, defaults filled in, null handled."""
    kinds = [function.parameter(index).kind for index in range(count)]
    converters = [_CONVERT.get(each) for each in kinds]
    defaults = [each.default for each in function.parameters[count:] if not each.repeats]

    def code(*arguments: Any) -> Any:
        if arguments[0] is None and not function.takes_null:
            return None
        if function.spreads and count == 1 and isinstance(arguments[0], list):
            return function.code(*arguments[0])
        if name in _LENIENT and not isinstance(arguments[1], list | None):
            arguments = (arguments[0], [arguments[1]])
        converted = [
            value if value is None or convert is None else convert(value)
            for value, convert in zip(arguments, converters, strict=True)
        ]
        return function.code(*converted, *defaults)

    return code


def _remembering(code: Callable[..., Any]) -> Callable[..., Any]:
    """Return `code` that computes once what a text gives: all other arguments are constants."""
    known: dict[str, Any] = {}

    def remembering(first: Any, *others: Any) -> Any:
        if not isinstance(first, str):
            return code(first, *others)
        if first not in known:
            try:
                known[first] = code(first, *others)
            except TransformError as error:
                known[first] = Failed(str(error))
        found = known[first]
        if isinstance(found, Failed):
            raise TransformError(found.reason)
        return found

    return remembering


_EVALUATE: dict[type, Callable[[Any, Frame], Column]] = {
    Literal: lambda node, frame: [node.value] * len(frame),
    Property: _property,
    EventName: lambda _, frame: list(frame.events),
    Name: _name,
    Member: _member,
    Index: _index,
    Every: _every,
    Operation: _operation,
    Conditional: _conditional,
    Array: _array,
    Object: _object,
    Call: _call,
}
