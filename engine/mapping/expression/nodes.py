"""The tree of an expression: one class a kind of node, each with its position in the text."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any


class ExpressionError(ValueError):
    """An expression cannot be used; `position` is the character, counted from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} (character {position})")
        self.position = position


@dataclass(frozen=True)
class Node:
    """A part of an expression. Two nodes are equal if they read and compute the same."""

    position: int = field(compare=False, kw_only=True, default=1)


@dataclass(frozen=True)
class Literal(Node):
    """A constant; `key` tells constants apart that Python calls equal, as 1 and true."""

    value: Any = field(compare=False)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{type(self.value).__name__} {self.value!r}")


@dataclass(frozen=True)
class Name(Node):
    """A name at the beginning of a path: a field of the record, or a lambda's parameter."""

    names: tuple[str, ...]
    """More than one where `${a.b}` separates names by a period."""


@dataclass(frozen=True)
class Member(Node):
    """`of.name`, or `of[index]` with a constant index."""

    of: Node
    step: str | int


@dataclass(frozen=True)
class Index(Node):
    """`of[index]` with a computed index."""

    of: Node
    index: Node


@dataclass(frozen=True)
class Every(Node):
    """`of[*]`: every element."""

    of: Node


@dataclass(frozen=True)
class Call(Node):
    """`name(arguments)`, or a method with the text or object it is called on as first argument."""

    name: str
    arguments: tuple[Node, ...]
    is_method: bool = False


@dataclass(frozen=True)
class Operation(Node):
    """A prefix or infix operator, by its symbol."""

    symbol: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Conditional(Node):
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node


@dataclass(frozen=True)
class Array(Node):
    """`[a, b]`."""

    elements: tuple[Node, ...]


@dataclass(frozen=True)
class Object(Node):
    """`{"a": b}`: keys and values by turns."""

    entries: tuple[Node, ...]


@dataclass(frozen=True)
class Lambda(Node):
    """`parameter -> body`."""

    parameter: str
    body: Node


def children(node: Node) -> Iterator[Node]:
    """The nodes right below `node`, from the left to the right."""
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (one for one in value if isinstance(one, Node))
