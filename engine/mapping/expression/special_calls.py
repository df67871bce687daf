"""The calls that decide which of their arguments are evaluated, or that read more than values."""

import hashlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from engine.mapping.expression import values
from engine.mapping.expression.checker import Property
from engine.mapping.expression.columns import FORMS, Form, branch, choose, column
from engine.mapping.expression.frame import SPENT, STEP, Column, Failed, Frame
from engine.mapping.expression.nodes import Call, Lambda, Literal, Member
from engine.mapping.expression.values import TransformError, kind, measure

CHUNK = 10_000  # elements that a lambda is evaluated for at a time
VISIT = 20  # units of work of an element that a lambda is evaluated for


class Missing:
    """Stands for a field that a record does not have, where that is not the same as null."""


def _form(name: str) -> Callable[[Form], Form]:
    def add(code: Form) -> Form:
        FORMS[name] = code
        return code

    return add


@_form("iif")
def _iif(node: Call, frame: Frame) -> Column:
    condition, yes, no = node.arguments
    return choose(condition, yes, no, frame)


@_form("coalesce")
def _coalesce(node: Call, frame: Frame) -> Column:
    found = column(node.arguments[0], frame).copy()
    if len(node.arguments) == 1:
        return frame.each(lambda v: _first_of(v) if isinstance(v, list) else v, found)
    for argument in node.arguments[1:]:
        rows = [row for row, value in enumerate(found) if value is None]
        for row, value in branch(argument, frame, rows):
            found[row] = value
    return found


def _first_of(array: list[Any]) -> Any:
    return next((value for value in array if value is not None), None)


@_form("decode")
def _decode(node: Call, frame: Frame) -> Column:
    keys = column(node.arguments[0], frame)
    options = node.arguments[1:]
    found: Column = [key if isinstance(key, Failed) else None for key in keys]
    rows = [row for row, key in enumerate(keys) if not isinstance(key, Failed)]
    for option, result in zip(options[: len(options) // 2 * 2 : 2], options[1::2], strict=True):
        if not rows:
            break
        part = frame.of(rows)
        equal = part.each(values.equal, [keys[row] for row in rows], column(option, part))
        taken = [row for row, value in zip(rows, equal, strict=True) if value is True]
        for row, value in zip(rows, equal, strict=True):
            if isinstance(value, Failed):
                found[row] = value
        for row, value in branch(result, frame, taken):
            found[row] = value
        rows = [row for row, value in zip(rows, equal, strict=True) if value is False]
    if len(options) % 2:
        for row, value in branch(options[-1], frame, rows):
            found[row] = value
    return found


@_form("lambda")
def _lambda_call(node: Call, frame: Frame) -> Column:
    """filterArray and transformArray: the lambda's body over the elements of all rows."""
    inner = node.arguments[1]
    assert isinstance(inner, Lambda)
    found: Column = []
    rows: list[int] = []
    elements: Column = []
    for row, array in enumerate(column(node.arguments[0], frame)):
        visited = _visited(array, row, frame)
        if isinstance(visited, list):
            rows += [row] * len(visited)
            elements += visited
            visited = []
        found.append(visited)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        below = frame.of(rows[part], {inner.parameter: elements[part]})
        results = column(inner.body, below)
        for row, element, result in zip(rows[part], elements[part], results, strict=True):
            if isinstance(found[row], Failed):
                continue
            if isinstance(result, Failed):
                found[row] = result
            elif node.name == "transformArray":
                found[row].append(result)
            elif values.truth(result):
                found[row].append(element)
    return frame.each(lambda value: value, found)


def _visited(array: Any, row: int, frame: Frame) -> Any:
    """Return an array that a lambda is to visit, or Failed where there is none."""
    if array is None or isinstance(array, Failed):
        return array
    if frame.is_spent(row):
        return SPENT
    if not isinstance(array, list):
        return Failed(f"a value of kind {kind(array)} stands where an array has to")
    try:
        frame.spend(row, STEP + measure(array) + VISIT * len(array))
    except TransformError as error:
        return Failed(str(error))
    return array


@_form("path")
def _contains(node: Call, frame: Frame) -> Column:
    path, steps = node.arguments[0], list[Any]()
    while isinstance(path, Member):
        steps.insert(0, path.step)
        path = path.of
    found: Column
    if isinstance(path, Property):
        names = path.names
        found = [
            next((record[name] for name in names if name in record), Missing)
            for record in frame.properties
        ]
    else:
        found = column(path, frame)
    for name in steps:
        found = frame.each(lambda value, name=name: _has(value, name), found)
    return frame.each(lambda value: value is not Missing, found)


def _has(value: Any, name: Any) -> Any:
    """Return what a name or index reads of a value, or Missing if it is not there."""
    if isinstance(value, dict) and isinstance(name, str):
        return value.get(name, Missing)
    if isinstance(value, list) and isinstance(name, int):
        return value[name] if 0 <= name < len(value) else Missing
    if isinstance(value, list):
        return any(_has(element, name) is not Missing for element in value) or Missing
    return Missing


@_form("now")
def _now(node: Call, frame: Frame) -> Column:
    return [values.from_ms(frame.now) if node.name == "now" else frame.now] * len(frame)


@_form("uuid")
def _uuid(node: Call, frame: Frame) -> Column:
    """A version 4 layout, derived from the record's line and the place of the call (P2, P4)."""
    [place] = node.arguments
    assert isinstance(place, Literal)
    seed = frame.seed + b"\0%d\0" % place.value

    def derived(line: bytes) -> str:
        return str(UUID(bytes=hashlib.sha256(seed + line).digest()[:16], version=4))

    return frame.each(derived, list(frame.lines) or [b""] * len(frame))
