"""A compiled expression, and its evaluation over a batch of records, a column at a time.

Each node of the tree gives one list of values, one for each record; equal nodes are computed once
a batch. A branch is evaluated only for the records that take it. What cannot be computed for a
record is a `Failed` value in its place, never an exception.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from engine.mapping.expression import checker, values
from engine.mapping.expression.checker import EventName, Property
from engine.mapping.expression.frame import Column, Failed, Frame
from engine.mapping.expression.functions import FUNCTIONS, Function
from engine.mapping.expression.functions.dates import to_date
from engine.mapping.expression.nodes import (
    Array,
    Call,
    Conditional,
    Every,
    ExpressionError,
    Index,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Object,
    Operation,
    children,
)
from engine.mapping.expression.operators import DECIDES, INFIX, PREFIX
from engine.mapping.expression.syntax import parse
from engine.mapping.expression.values import TransformError, kind

MOST_WORK = 100_000  # elements that lambdas may visit for one record
CHUNK = 100_000  # elements that a lambda is evaluated for at a time


class Missing:
    """Stands for a field that a record does not have, where that is not the same as null."""


class Expression:
    """A compiled expression: `column` computes it, `reads` are the properties it may read."""

    def __init__(self, text: str, *, any_root: bool = False) -> None:
        """Compile `text`; raises ExpressionError with the first of its problems.

        `any_root`: each first name of a path is a property, not data, properties or event.
        """
        self.text = text
        tree, self.problems = checker.resolve(parse(text), any_root=any_root)
        if self.problems:
            raise CompileError(self.problems)
        self.tree = _folded(tree)
        self.kind = checker.kind_of(self.tree)
        nodes = list(_all(self.tree))
        properties = [node for node in nodes if isinstance(node, Property)]
        self.reads = frozenset(name for node in properties for name in node.names)
        self.reads_event = any(isinstance(node, EventName) for node in nodes)
        self.source = self.tree if isinstance(self.tree, Property) else None

    def column(self, frame: Frame) -> Column:
        """Its values for the records of `frame`, `Failed` where there is none."""
        return _column(self.tree, frame)


class CompileError(ExpressionError):
    """An expression cannot be used; `problems` are all that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        ValueError.__init__(self, "; ".join(problems))
        self.problems = problems


def _all(node: Node) -> list[Node]:
    found, pending = [], [node]
    while pending:
        each = pending.pop()
        found.append(each)
        pending += children(each)
    return found


def _folded(node: Node) -> Node:
    """The tree with each part that needs no record replaced by its value."""
    changed: dict[str, Any] = {}
    for name in ("of", "index", "arguments", "operands", "condition", "yes", "no", "elements",
                 "entries", "body"):  # fmt: skip
        value = getattr(node, name, None)
        if isinstance(value, Node):
            changed[name] = _folded(value)
        elif isinstance(value, tuple):
            changed[name] = tuple(map(_folded, value))
    if not changed:
        return node
    node = replace(node, **changed)
    is_plain = not isinstance(node, Call) or FUNCTIONS[node.name].form not in (
        "now",
        "uuid",
        "path",
    )
    if isinstance(node, Lambda) or not is_plain:
        return node
    if all(isinstance(child, Literal) for child in children(node)):
        [value] = _column(node, Frame([{}], [None]))
        if not isinstance(value, Failed):
            return Literal(value, position=node.position)
    return node


def _column(node: Node, frame: Frame) -> Column:
    """The values of a node, computed once a frame."""
    found = frame.known.get(node)
    if found is None:
        found = frame.known[node] = _EVALUATE[type(node)](node, frame)
    return found


def _each(code: Callable[..., Any], *columns: Column) -> Column:
    """`code` of each row of the columns. What failed in an argument has failed in the result."""
    found: Column = []
    for row in zip(*columns, strict=True):
        failed = next((value for value in row if isinstance(value, Failed)), None)
        if failed is not None:
            found.append(failed)
            continue
        try:
            found.append(code(*row))
        except TransformError as error:
            found.append(Failed(str(error)))
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
    """What a name or an index reads of a value; null where there is nothing.

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


def _has(value: Any, name: Any) -> Any:
    """As `step`, and Missing for a field that is not there."""
    if isinstance(value, dict) and isinstance(name, str):
        return value.get(name, Missing)
    if isinstance(value, list) and isinstance(name, int):
        return value[name] if 0 <= name < len(value) else Missing
    if isinstance(value, list):
        return any(_has(element, name) is not Missing for element in value) or Missing
    return Missing


# Operators ------------------------------------------------------------------------------------


def _operation(node: Operation, frame: Frame) -> Column:
    if len(node.operands) == 1:
        return _each(PREFIX[node.symbol], _column(node.operands[0], frame))
    left, right = node.operands
    if node.symbol in INFIX:
        return _each(INFIX[node.symbol], _column(left, frame), _column(right, frame))
    first = _column(left, frame)
    decides = DECIDES[node.symbol]
    open_rows = [
        row
        for row, value in enumerate(first)
        if not isinstance(value, Failed) and not decides(value)
    ]
    found = first.copy()
    for row, value in _branch(right, frame, open_rows):
        found[row] = value
    if node.symbol in ("&&", "||"):
        return [value if isinstance(value, Failed) else values.truth(value) for value in found]
    return found


def _branch(node: Node, frame: Frame, rows: list[int]) -> list[tuple[int, Any]]:
    """(row, value) of a node that is evaluated for some rows only."""
    if not rows:
        return []
    if len(rows) == len(frame):
        return list(enumerate(_column(node, frame)))
    return list(zip(rows, _column(node, frame.of(rows)), strict=True))


def _conditional(node: Conditional, frame: Frame) -> Column:
    return _choose(node.condition, node.yes, node.no, frame)


def _choose(condition: Node, yes: Node, no: Node, frame: Frame) -> Column:
    found = _column(condition, frame).copy()
    branches: tuple[list[int], list[int]] = ([], [])
    for row, value in enumerate(found):
        if not isinstance(value, Failed):
            branches[not values.truth(value)].append(row)
    for node, rows in zip((yes, no), branches, strict=True):
        for row, value in _branch(node, frame, rows):
            found[row] = value
    return found


# Arrays, objects, calls -----------------------------------------------------------------------


def _array(node: Array, frame: Frame) -> Column:
    if not node.elements:
        return [[] for _ in range(len(frame))]
    columns = [_column(element, frame) for element in node.elements]
    return _each(lambda *row: values.weigh(list(row)), *columns)


def _object(node: Object, frame: Frame) -> Column:
    columns = [_column(entry, frame) for entry in node.entries]
    if not columns:
        return [{} for _ in range(len(frame))]
    return _each(FUNCTIONS["to_object"].code, *columns)


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
_DEAR = ("Regular Expression", "Date / Time", "User Agent", "URL", "Hashing", "Analytics")


def _call(node: Call, frame: Frame) -> Column:
    function = FUNCTIONS[node.name]
    special = _SPECIAL.get(function.form)
    if special:
        return special(node, frame)
    columns = [_column(argument, frame) for argument in node.arguments]
    if not columns:
        return [function.code() for _ in range(len(frame))]
    code = _converted(function, node.name, len(columns))
    if function.category in _DEAR and all(
        isinstance(argument, Literal) for argument in node.arguments[1:]
    ):
        return _remembered(code, columns)
    return _each(code, *columns)


def _converted(function: Function, name: str, count: int) -> Callable[..., Any]:
    """The function's code with its arguments converted, its defaults filled in, null minded."""
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


def _remembered(code: Callable[..., Any], columns: list[Column]) -> Column:
    """As `_each`, with what a text gave computed once: all other arguments are constants."""
    found: Column = []
    known: dict[str, Any] = {}
    for row in zip(*columns, strict=True):
        text = row[0]
        if not isinstance(text, str):
            found += _each(code, *([value] for value in row))
        else:
            if text not in known:
                [known[text]] = _each(code, *([value] for value in row))
            found.append(known[text])
    return found


def _iif(node: Call, frame: Frame) -> Column:
    condition, yes, no = node.arguments
    return _choose(condition, yes, no, frame)


def _coalesce(node: Call, frame: Frame) -> Column:
    found = _column(node.arguments[0], frame).copy()
    if len(node.arguments) == 1:
        return _each(lambda v: _first_of(v) if isinstance(v, list) else v, found)
    for argument in node.arguments[1:]:
        rows = [row for row, value in enumerate(found) if value is None]
        for row, value in _branch(argument, frame, rows):
            found[row] = value
    return found


def _first_of(array: list[Any]) -> Any:
    return next((value for value in array if value is not None), None)


def _decode(node: Call, frame: Frame) -> Column:
    keys = _column(node.arguments[0], frame)
    options = node.arguments[1:]
    found: Column = [key if isinstance(key, Failed) else None for key in keys]
    rows = [row for row, key in enumerate(keys) if not isinstance(key, Failed)]
    for option, result in zip(options[: len(options) // 2 * 2 : 2], options[1::2], strict=True):
        taken: list[int] = []
        left: list[int] = []
        for row, value in _branch(option, frame, rows):
            if isinstance(value, Failed):
                found[row] = value
            else:
                (taken if values.equal(keys[row], value) else left).append(row)
        for row, value in _branch(result, frame, taken):
            found[row] = value
        rows = left
    if len(options) % 2:
        for row, value in _branch(options[-1], frame, rows):
            found[row] = value
    return found


def _lambda_call(node: Call, frame: Frame) -> Column:
    """filterArray and transformArray: the lambda's body over the elements of all rows."""
    arrays = _column(node.arguments[0], frame)
    inner = node.arguments[1]
    assert isinstance(inner, Lambda)
    found: Column = []
    rows: list[int] = []
    elements: Column = []
    for row, array in enumerate(arrays):
        found.append(_counted(array, row, frame))
        if isinstance(found[row], list):
            rows += [row] * len(found[row])
            elements += found[row]
            found[row] = []
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        below = frame.of(rows[part], {inner.parameter: elements[part]})
        results = _column(inner.body, below)
        for row, element, result in zip(rows[part], elements[part], results, strict=True):
            if isinstance(found[row], Failed):
                continue
            if isinstance(result, Failed):
                found[row] = result
            elif node.name == "transformArray":
                found[row].append(result)
            elif values.truth(result):
                found[row].append(element)
    return [value if not isinstance(value, list) else _weighed(value) for value in found]


def _counted(array: Any, row: int, frame: Frame) -> Any:
    """An array that a lambda is to visit; Failed for what is none, or would be too much work."""
    if array is None or isinstance(array, Failed):
        return array
    if not isinstance(array, list):
        return Failed(f"a value of kind {kind(array)} stands where an array has to")
    origin = frame.origin[row]
    frame.work[origin] += len(array)
    if frame.work[origin] > MOST_WORK:
        return Failed(f"more than {MOST_WORK:,} elements would have to be visited for one record")
    return array


def _weighed(array: list[Any]) -> Any:
    try:
        return values.weigh(array)
    except TransformError as error:
        return Failed(str(error))


def _contains(node: Call, frame: Frame) -> Column:
    path, steps = node.arguments[0], list[Any]()
    while isinstance(path, Member):
        steps.insert(0, path.step)
        path = path.of
    column: Column
    if isinstance(path, Property):
        names = path.names
        column = [
            next((record[name] for name in names if name in record), Missing)
            for record in frame.properties
        ]
    else:
        column = _column(path, frame)
    for name in steps:
        column = [_has(value, name) for value in column]
    return [value is not Missing for value in column]


def _now(node: Call, frame: Frame) -> Column:
    is_date = node.name == "now"
    return [values.from_ms(frame.now) if is_date else frame.now] * len(frame)


def _uuid(node: Call, frame: Frame) -> Column:
    """A version 4 layout, of the record's line and the place of the call (P2, P4)."""
    [place] = node.arguments
    assert isinstance(place, Literal)
    seed = frame.seed + b"\0%d\0" % place.value
    found = []
    for line in frame.lines or [b""] * len(frame):
        digest = hashlib.sha256(seed + line).digest()[:16]
        found.append(str(UUID(bytes=digest, version=4)))
    return found


_SPECIAL: dict[str, Callable[[Call, Frame], Column]] = {
    "iif": _iif,
    "coalesce": _coalesce,
    "decode": _decode,
    "lambda": _lambda_call,
    "path": _contains,
    "now": _now,
    "uuid": _uuid,
}
_EVALUATE: dict[type, Callable[[Any, Frame], Column]] = {
    Literal: lambda node, frame: [node.value] * len(frame),
    Property: _property,
    EventName: lambda _, frame: list(frame.events),
    Name: _name,
    Member: lambda node, frame: _each(
        lambda value: step(value, node.step), _column(node.of, frame)
    ),
    Index: lambda node, frame: _each(step, _column(node.of, frame), _column(node.index, frame)),
    Every: lambda node, frame: _each(
        lambda value: value if isinstance(value, list) else None, _column(node.of, frame)
    ),
    Operation: _operation,
    Conditional: _conditional,
    Array: _array,
    Object: _object,
    Call: _call,
}


def as_json(value: Any) -> Any:
    """A value as JSON has it: a date becomes its text, at every level."""
    if isinstance(value, datetime):
        return values.date_text(value)
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    return value
