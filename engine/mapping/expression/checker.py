"""What is wrong with an expression before the first record: names, arguments, kinds, literals.

`resolve` also replaces the names of a record's fields by nodes that read them. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from engine.mapping.expression import date_parts, dates, values
from engine.mapping.expression.functions import FUNCTIONS, Function, Parameter
from engine.mapping.expression.functions.hashes import ALGORITHMS, charset
from engine.mapping.expression.functions.regexes import PROGRAM, RegexError, checked
from engine.mapping.expression.functions.urls import ANCHORS
from engine.mapping.expression.functions.user_agents import is_installed
from engine.mapping.expression.nodes import (
    Array,
    Call,
    Conditional,
    Every,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Object,
    Operation,
    children,
)

MOST_STEPS = 5000  # of the regular expressions of one expression
MORE = "\0"  # stands for the patterns beyond that
ROOTS = ("data", "properties", "event")
_BOOLEAN = ("!", "&&", "||", "==", "!=", "===", "!==", "<", "<=", ">", ">=", "empty")
_BOOLEAN_TEXT = ("=~", "!~", "=^", "!^", "=$", "!$")
_INTEGER = ("&", "|", "^", "<<", ">>", ">>>", "~", "size")


@dataclass(frozen=True)
class Property(Node):
    """A property of the record: the first of `names` that it has."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class EventName(Node):
    """The event's name."""


class _Problems(list[str]):
    def __init__(self) -> None:
        super().__init__()
        self.patterns: dict[str, int] = {}  # steps of the regular expressions so far

    def at(self, node: Node, problem: str) -> None:
        self.append(f"{problem} (character {node.position})")


def resolve(tree: Node, *, any_root: bool = False) -> tuple[Node, list[str]]:
    """The tree with its record's fields resolved, and all that is wrong with it.

    A path begins with data, properties or event; with `any_root` each first name is a property.
    """
    problems = _Problems()
    resolved = _Resolver(problems, any_root=any_root).node(tree, frozenset())
    if not problems:
        for node in _walk(resolved):
            _check(node, problems)
    return resolved, problems


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from _walk(child)


class _Resolver:
    """Replaces names by what they read; knows the parameters of the lambdas around them."""

    def __init__(self, problems: _Problems, *, any_root: bool) -> None:
        self._problems, self._any_root = problems, any_root

    def node(self, node: Node, parameters: frozenset[str]) -> Node:
        """`node` with all names below it resolved."""
        if isinstance(node, Member | Name) and (path := _path_of(node)):
            return self._path(node, *path, parameters)
        if isinstance(node, Call):
            return self._call(node, parameters)
        if isinstance(node, Lambda):
            self._problems.at(node, "a lambda stands only in filterArray and transformArray")
            return node
        return self._below(node, parameters)

    def _below(self, node: Node, parameters: frozenset[str]) -> Node:
        changed: dict[str, Any] = {}
        for each in fields(node):
            value = getattr(node, each.name)
            if isinstance(value, Node):
                changed[each.name] = self.node(value, parameters)
            elif isinstance(value, tuple) and any(isinstance(one, Node) for one in value):
                changed[each.name] = tuple(self.node(one, parameters) for one in value)
        return replace(node, **changed) if changed else node

    def _path(
        self, node: Node, steps: list[str | int], position: int, parameters: frozenset[str]
    ) -> Node:
        """A chain of names as the field it reads and the steps inside it."""
        first, *inner = steps
        found: Node
        if first in parameters:
            found = Name((str(first),), position=position)
        elif self._any_root:
            found = Property((str(first),), position=position)
        else:
            root = self._root(str(first), inner, position)
            if root is None:
                return node
            found, inner = root
        for step in inner:
            found = Member(found, step, position=position)
        return found

    def _root(
        self, first: str, inner: list[str | int], position: int
    ) -> tuple[Node, list[str | int]] | None:
        at = Literal(None, position=position)
        if first not in ROOTS:
            is_function = f"; {first}() is a function" if first in FUNCTIONS else ""
            self._problems.at(
                at,
                f"{first!r} names nothing in a record; a path begins with data, properties or "
                f"event{is_function}",
            )
            return None
        if first == "event":
            if inner:
                self._problems.at(at, "event is the event's name, a text, and has no fields")
            return EventName(position=position), []
        if not inner or not isinstance(inner[0], str):
            self._problems.at(at, f"{first} needs the name of a property after it")
            return None
        name, *rest = inner
        if first == "properties":
            return Property((str(name),), position=position), rest
        if name == "event_name":
            return EventName(position=position), rest
        return Property((str(name), f"${name}"), position=position), rest

    def _call(self, node: Call, parameters: frozenset[str]) -> Node:
        function = self._function(node)
        if function is None:
            return replace(
                node, arguments=tuple(self.node(each, parameters) for each in node.arguments)
            )
        arguments: list[Node] = []
        if function.form == "uuid":  # two calls differ by their place
            arguments.append(Literal(node.position))
        for index, argument in enumerate(node.arguments):
            takes_lambda = function.parameter(index).kind == "lambda"
            if takes_lambda and isinstance(argument, Lambda):
                inner = parameters | {argument.parameter}
                body = self.node(argument.body, inner)
                arguments.append(replace(argument, body=body))
            elif takes_lambda:
                self._problems.at(argument, f"{node.name} takes a lambda here, as x -> x > 1")
            elif function.form == "path":
                arguments.append(self._path_argument(node, argument, parameters))
            elif function.form == "object_to_map" and index == 1 and _is_keyed(arguments, node):
                arguments.append(self._attribute(argument, parameters))
            else:
                arguments.append(self.node(argument, parameters))
        return replace(node, name=function.name, arguments=tuple(arguments))

    def _function(self, node: Call) -> Function | None:
        """The function of a call with a right number of arguments; None, and a problem, else."""
        function = FUNCTIONS.get(node.name)
        methods = [name for name, each in FUNCTIONS.items() if each.form == "method"]
        if node.is_method and (function is None or function.form != "method"):
            shown = ", ".join(f".{name}" for name in methods)
            self._problems.at(node, f"{node.name!r} is no method; there are {shown}")
            return None
        if function is None or (function.form == "method" and not node.is_method):
            guess = _nearest(node.name[:50]) if function is None else ""
            self._problems.at(node, f"there is no function {node.name!r}{guess}")
            return None
        count, fewest, most = len(node.arguments), function.fewest, function.most
        repeated = sum(each.repeats for each in function.parameters)
        odd = repeated == 2 and count % 2
        if function.form == "decode":
            fewest, odd = 3, 0
        if count < max(fewest, repeated if repeated == 2 else 0) or count > most or odd:
            pairs = " and pairs of keys and values" if repeated == 2 else ""
            wanted = str(fewest) if most == fewest else f"{fewest} to {most}"
            if most == float("inf"):
                wanted = f"at least {fewest}"
            self._problems.at(node, f"{node.name} takes {wanted} arguments{pairs}, and has {count}")
            return None
        if function.form == "refused":
            self._problems.at(node, f"{node.name} cannot be used: {function.description}")
        if function.category == "User Agent" and not is_installed():
            self._problems.at(
                node,
                f"{node.name} needs a library that is not installed; the extra ua brings it",
            )
        return function

    def _path_argument(self, node: Call, argument: Node, parameters: frozenset[str]) -> Node:
        """The path of contains_key, which may be written as a text."""
        if isinstance(argument, Literal) and isinstance(argument.value, str):
            steps: list[str | int] = list(argument.value.split("."))
            return self._path(argument, steps, argument.position, parameters)
        found = self.node(argument, parameters)
        if not isinstance(found, Property | EventName | Member | Name):
            self._problems.at(argument, f"{node.name} takes a path")
        return found

    def _attribute(self, argument: Node, parameters: frozenset[str]) -> Node:
        """The second of two arguments of object_to_map: a bare name is an attribute's name."""
        if isinstance(argument, Name) and argument.names[0] not in parameters:
            return Literal(argument.names[-1], position=argument.position)
        return self.node(argument, parameters)


@lru_cache(100)
def _nearest(name: str) -> str:
    near = get_close_matches(name, FUNCTIONS, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _is_keyed(resolved: list[Node], node: Call) -> bool:
    """Whether a call of object_to_map has the form (ARRAY, ATTRIBUTE), as far as is certain."""
    return len(node.arguments) == 2 and kind_of(resolved[0]) in (None, "array")


def _path_of(node: Node) -> tuple[list[str | int], int] | None:
    """The steps of a chain of members that ends in a name, and the name's position."""
    steps: list[str | int] = []
    while isinstance(node, Member):
        steps.insert(0, node.step)
        node = node.of
    return ([*node.names, *steps], node.position) if isinstance(node, Name) else None


# Kinds and literals ---------------------------------------------------------------------------


def kind_of(node: Node) -> str | None:
    """The kind of a node's value, if that is certain; null is possible all the same."""
    if isinstance(node, Literal):
        return None if node.value is None else values.kind(node.value)
    if isinstance(node, Array):
        return "array"
    if isinstance(node, Object):
        return "object"
    if isinstance(node, Every):
        return "array"
    if isinstance(node, EventName):
        return "text"
    if isinstance(node, Call) and node.name in FUNCTIONS:
        function = FUNCTIONS[node.name]
        if function.form == "iif":
            return _common(node.arguments[1:])
        return None if function.returns == "any" else function.returns
    if isinstance(node, Conditional):
        return _common((node.yes, node.no))
    if isinstance(node, Operation):
        if node.symbol in _BOOLEAN or node.symbol in _BOOLEAN_TEXT:
            return "boolean"
        return "integer" if node.symbol in _INTEGER else None
    return None


def _common(nodes: tuple[Node, ...]) -> str | None:
    kinds = {kind_of(node) for node in nodes if not _is_null(node)}
    return kinds.pop() if len(kinds) == 1 else None


def _is_null(node: Node) -> bool:
    return (isinstance(node, Literal) and node.value is None) or (
        isinstance(node, Call) and node.name == "nullify"
    )


def _check(node: Node, problems: _Problems) -> None:
    """Add what is wrong with one node, the nodes below it left aside."""
    if isinstance(node, Call) and node.name in FUNCTIONS:
        function = FUNCTIONS[node.name]
        for index, argument in enumerate(node.arguments if function.parameters else ()):
            _check_argument(node, function.parameter(index), argument, problems)
        _check_words(node, problems)
    elif isinstance(node, Operation):
        if node.symbol in ("=~", "!~") and isinstance(node.operands[1], Literal):
            pattern = node.operands[1].value
            if isinstance(pattern, str):
                _check_regex(node.operands[1], pattern, problems)
        if node.symbol in ("-", "*", "/", "%", "negate", "plus"):
            for operand in node.operands:
                if (found := kind_of(operand)) in ("boolean", "array", "object", "date"):
                    problems.at(operand, f"{found} stands where a number has to")
                elif isinstance(operand, Literal) and isinstance(operand.value, str):
                    _check_number(operand, problems)


def _check_number(node: Literal, problems: _Problems) -> None:
    if values.parsed(node.value) is None:
        problems.at(node, f"{values.shown(node.value)} is no number")


_FITTING = {
    "text": ("array", "object"),
    "integer": ("array", "object", "boolean", "date"),
    "number": ("array", "object", "boolean", "date"),
    "date": ("array", "object", "boolean", "real"),
    "object": ("array", "text", "integer", "real", "boolean", "date"),
    "array": ("object",),
}
"""For the kind of a parameter, the kinds of values that can never fit."""


def _check_argument(node: Call, parameter: Parameter, argument: Node, problems: _Problems) -> None:
    wanted = {"regex": "text", "pattern": "text", "zone": "text", "charset": "text"}.get(
        parameter.kind, parameter.kind
    )
    found = kind_of(argument)
    article = "an" if wanted[0] in "aio" else "a"
    if found in _FITTING.get(wanted, ()):
        other = "an" if found and found[0] in "aio" else "a"
        problems.at(argument, f"{node.name} takes {article} {wanted} here, and not {other} {found}")
        return
    if not isinstance(argument, Literal) or argument.value is None:
        return
    value = argument.value
    try:
        if parameter.kind == "regex":
            _check_regex(argument, values.scalar_text(value), problems)
        elif parameter.kind == "pattern":
            dates.pattern(values.scalar_text(value))
        elif parameter.kind == "zone":
            dates.zone(values.scalar_text(value))
        elif parameter.kind == "charset":
            charset(values.scalar_text(value))
        elif parameter.kind in ("integer", "number"):
            (values.integer if parameter.kind == "integer" else values.number)(value)
    except (dates.PatternError, values.TransformError) as error:
        problems.at(argument, f"{node.name}: {error}")


def _check_regex(node: Node, pattern: str, problems: _Problems) -> None:
    if pattern in problems.patterns:
        return
    if sum(problems.patterns.values()) > MOST_STEPS:  # so that a large set is judged in seconds
        if MORE not in problems.patterns:
            problems.at(node, f"all regular expressions take more than {MOST_STEPS:,} steps")
        problems.patterns[MORE] = 0
        return
    problems.patterns[pattern] = PROGRAM
    try:
        problems.patterns[pattern] = checked(pattern).size
    except RegexError as error:
        problems.at(node, f"the regular expression {values.shown(pattern)} cannot be used: {error}")


def _check_words(node: Call, problems: _Problems) -> None:
    """Add the literals of parameters that take one of a few words, where they are another text."""
    words = {
        "get_url_query_str": (1, list(ANCHORS)),
        "hash": (0, list(ALGORITHMS)),
    }.get(node.name)
    argument = node.arguments[words[0]] if words else None
    if words and isinstance(argument, Literal):
        shown = values.shown(argument.value)
        if str(argument.value).strip().lower() not in words[1]:
            problems.at(argument, f"{node.name} knows {', '.join(words[1])}, and not {shown}")
    if node.name in ("date_part", "set_date_part") and isinstance(node.arguments[0], Literal):
        component = values.text(node.arguments[0].value)
        if not date_parts.is_part(component, settable=node.name == "set_date_part"):
            problems.at(node.arguments[0], f"{values.shown(component)} is no part of a date")
