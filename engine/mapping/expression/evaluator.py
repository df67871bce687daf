"""A compiled expression, evaluated over a batch of records by column."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from engine.mapping.expression import (
    checker,
    special_calls,  # noqa: F401 - it adds the special calls
    values,
)
from engine.mapping.expression.checker import EventName, Property
from engine.mapping.expression.columns import column
from engine.mapping.expression.frame import MOST_WORK, Column, Failed, Frame
from engine.mapping.expression.functions import FUNCTIONS
from engine.mapping.expression.nodes import Call, ExpressionError, Lambda, Literal, Node, children
from engine.mapping.expression.syntax import parse
from engine.mapping.expression.values import TransformError

FOLDING = 100_000  # units of work that the constant parts of one expression may take
MOST_PROBLEMS = 20  # of one expression, that are listed


class Expression:
    """A compiled expression: `column` computes it, `reads` are the properties it may read."""

    def __init__(self, text: str, *, any_root: bool = False) -> None:
        """Compile `text`; raise ExpressionError, CompileError for several problems.

        `any_root`: each first name of a path is a property, not data, properties or event.
        """
        self.text = text
        tree, problems = checker.resolve(parse(text), any_root=any_root)
        if problems:
            raise CompileError(problems[:MOST_PROBLEMS])
        self.tree = _folded(tree, [MOST_WORK - FOLDING])
        self.kind = checker.kind_of(self.tree)
        nodes = _all(self.tree)
        properties = [node for node in nodes if isinstance(node, Property)]
        self.reads = frozenset(name for node in properties for name in node.names)
        self.reads_event = any(isinstance(node, EventName) for node in nodes)
        self.derives = any(_form_of(node) == "uuid" for node in nodes)
        self.source = self.tree if isinstance(self.tree, Property) else None

    def column(self, frame: Frame) -> Column:
        """Return its values for the records of `frame`, `Failed` where there is none."""
        return [_bounded(value) for value in column(self.tree, frame)]


class CompileError(ExpressionError):
    """An expression cannot be used; `problems` are all that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        ValueError.__init__(self, "; ".join(problems))
        self.problems = problems


def _bounded(value: Any) -> Any:
    """Return a value, or Failed for an array or object that is too large or too deep."""
    if isinstance(value, list | dict):
        try:
            values.measure(value)
        except TransformError as error:
            return Failed(str(error))
    return value


def _all(node: Node) -> list[Node]:
    found, pending = [], [node]
    while pending:
        each = pending.pop()
        found.append(each)
        pending += children(each)
    return found


def _form_of(node: Node) -> str:
    return FUNCTIONS[node.name].form if isinstance(node, Call) else ""


def _folded(node: Node, work: list[int]) -> Node:
    """Return the tree with each part that needs no record replaced by its value.

    `work` counts what that takes; beyond FOLDING the other parts stay as they are.
    """
    changed: dict[str, Any] = {}
    for name in ("of", "index", "arguments", "operands", "condition", "yes", "no", "elements",
                 "entries", "body"):  # fmt: skip
        value = getattr(node, name, None)
        if isinstance(value, Node):
            changed[name] = _folded(value, work)
        elif isinstance(value, tuple):
            changed[name] = tuple(_folded(each, work) for each in value)
    if not changed:
        return node
    node = replace(node, **changed)
    is_plain = _form_of(node) not in ("now", "uuid", "path") and not isinstance(node, Lambda)
    if is_plain and all(isinstance(child, Literal) for child in children(node)):
        [value] = column(node, Frame([{}], [None], work=work))
        if not isinstance(value, Failed):
            return Literal(value, position=node.position)
    return node


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: a date becomes its text, at every level."""
    if isinstance(value, datetime):
        return values.date_text(value)
    if isinstance(value, list):
        return [as_json(each) for each in value]
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    return value
