"""The syntax of an expression: a text to a tree of nodes, each with its position in the text.

The grammar is that of Apache Commons JEXL 3, single expressions only, as Data Prep documents it.
What JEXL has besides (assignments, statements, loops, `new`) is refused by name.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

LONGEST = 4096  # characters of an expression (Data Prep's own limit)
DEEPEST = 100  # levels of the tree while it is read; a pair of parentheses takes two

_STATEMENTS = frozenset(
    ("new", "break", "var", "for", "while", "continue", "else", "if", "return", "do", "function")
)
RESERVED = _STATEMENTS | frozenset(
    (
        *("mod", "or", "lt", "false", "eq", "gt", "div", "not", "null", "and", "ne", "true"),
        *("le", "ge", "empty", "size", "_errors"),
    )
)
_WORD_OPERATORS = {
    "or": "||",
    "and": "&&",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "div": "/",
    "mod": "%",
    "not": "!",
}
_BINARY = (  # from the loosest to the tightest; the second tells whether operators chain
    (("||",), True),
    (("&&",), True),
    (("|",), True),
    (("^",), True),
    (("&",), True),
    (("==", "!=", "===", "!=="), False),
    (("<", "<=", ">", ">=", "=~", "!~", "=^", "!^", "=$", "!$"), False),
    (("<<", ">>", ">>>"), True),
    (("+", "-"), True),
    (("*", "/", "%"), True),
)
_LEVELS = {symbol: level for level, (symbols, _) in enumerate(_BINARY) for symbol in symbols}
_SYMBOLS = sorted(
    (
        *_LEVELS,
        *("?", "?:", "??", ":", ",", ".", "(", ")", "[", "]", "{", "}", "!", "~", "->", "[*]"),
        *("=", ";", "+=", "-=", "*=", "/=", "..", "...", "?.", "@", "#", "`"),
    ),
    key=len,
    reverse=True,
)
_REFUSED = {
    "=": "nothing can be assigned; write == to compare",
    ";": "there is one expression, no sequence of statements",
    "..": "there are no ranges; write an array",
    "...": "an array cannot be spread; write its elements",
    "?.": "write a period alone; a missing name reads as null already",
    "`": "there are no templates; write a text in quotes, or concat",
    "@": "there are no annotations",
    "#": "there are no pragmas",
} | dict.fromkeys(("+=", "-=", "*=", "/="), "nothing can be assigned")
_NUMBER = re.compile(
    r"0[xX](?P<hex>[0-9a-fA-F]+)[lLhH]?|(?P<real>[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)"
    r"[fFdDbB]?|[0-9]+[fFdDbB])|(?P<integer>[0-9]+)[lLhH]?"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\"}


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


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # name, quoted, text, number, symbol, end
    value: Any
    position: int


def parse(text: str) -> Node:
    """The tree of the expression `text`; ExpressionError with the position of what is wrong."""
    if len(text) > LONGEST:
        raise ExpressionError(
            f"the expression has {len(text):,} characters, more than {LONGEST:,}", LONGEST
        )
    tree = _Parser(_tokens(text)).whole()
    pending = [(tree, 1)]
    while pending:
        node, height = pending.pop()
        if height > DEEPEST:
            raise ExpressionError("the expression is nested too deep", node.position)
        pending += ((child, height + 1) for child in children(node))
    return tree


def children(node: Node) -> Iterator[Node]:
    """The nodes right below `node`, from the left to the right."""
    for each in fields(node):
        value = getattr(node, each.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (one for one in value if isinstance(one, Node))


def _tokens(text: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(text):
        start, char = at, text[at]
        if char.isspace():
            at += 1
            continue
        if text.startswith(("//", "##"), at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
            continue
        if text.startswith("/*", at):
            end = text.find("*/", at)
            if end < 0:
                raise ExpressionError("the comment has no end; write */", start + 1)
            at = end + 2
            continue
        reading = _reading(text, at)
        if reading:
            kind, read = reading
            value, at = read(text, at)
            tokens.append(_Token(kind, value, start + 1))
        else:
            symbol = next((each for each in _SYMBOLS if text.startswith(each, at)), None)
            if symbol is None:
                raise ExpressionError(f"{char!r} is no part of an expression", start + 1)
            tokens.append(_Token("symbol", symbol, start + 1))
            at += len(symbol)
    tokens.append(_Token("end", "the end", len(text) + 1))
    return tokens


def _reading(text: str, at: int) -> tuple[str, Callable[[str, int], tuple[Any, int]]] | None:
    """The kind of the token at a position, and what reads it; None for a symbol."""
    char = text[at]
    if char in "\"'":
        return "text", _text
    if text.startswith("${", at):
        return "quoted", _quoted
    if char in "0123456789":
        return "number", _number
    return ("name", _name) if _begins_name(char) or char == "\\" else None


def _begins_name(char: str) -> bool:
    return char.isalpha() or char in "$_"


def _text(text: str, at: int) -> tuple[str, int]:
    """A text literal. A backslash that begins no escape stays, so that "\\d" is a regex."""
    quote, start, parts = text[at], at, list[str]()
    at += 1
    while at < len(text):
        char = text[at]
        if char == quote:
            return _joined(parts, start), at + 1
        if char in "\r\n":
            break
        if char == "\\" and at + 1 < len(text):
            after = text[at + 1]
            if after == quote or after in _ESCAPES:
                parts.append(quote if after == quote else _ESCAPES[after])
                at += 2
                continue
            digits = text[at + 2 : at + 6]
            if after == "u" and re.fullmatch("[0-9a-fA-F]{4}", digits):
                parts.append(chr(int(digits, 16)))
                at += 6
                continue
        parts.append(char)
        at += 1
    raise ExpressionError(f"the text has no end; write {quote}", start + 1)


def _joined(parts: list[str], start: int) -> str:
    """A text of `parts`, in which two escapes may be the halves of one character."""
    found = "".join(parts).encode("utf-16", "surrogatepass")
    try:
        return found.decode("utf-16")
    except UnicodeDecodeError:
        raise ExpressionError("the text has half a surrogate pair", start + 1) from None


def _quoted(text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The names in `${…}`: a bare period separates names, one after a backslash belongs to one."""
    start, names, name = at, list[str](), ""
    at += 2
    while at < len(text):
        char = text[at]
        if char == "}":
            names.append(name)
            if not all(names):
                raise ExpressionError("${…} has an empty name", start + 1)
            return tuple(names), at + 1
        if char == "\\" and at + 1 < len(text):
            name += text[at + 1]
            at += 2
            continue
        if char == ".":
            names.append(name)
            name = ""
        else:
            name += char
        at += 1
    raise ExpressionError("${ has no end; write }", start + 1)


def _number(text: str, at: int) -> tuple[int | float, int]:
    found = _NUMBER.match(text, at)
    assert found
    end = found.end()
    if end < len(text) and (text[end].isalnum() or text[end] in "$_"):
        raise ExpressionError(f"{text[at : end + 1]!r} is no number", at + 1)
    if found["hex"]:
        return int(found["hex"], 16), end
    if found["real"]:
        value = float(found["real"].rstrip("fFdDbB"))
        if value in (float("inf"), float("-inf")):
            raise ExpressionError("the number is larger than any real number", at + 1)
        return value, end
    digits = found["integer"]
    if len(digits) > 1 and digits[0] == "0":
        raise ExpressionError(f"{digits} could be octal; write {digits.lstrip('0') or '0'}", at + 1)
    return int(digits), end


def _name(text: str, at: int) -> tuple[str, int]:
    name, start = "", at
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            name += text[at + 1]
            at += 2
        elif _begins_name(char) or (name and (char.isdigit() or char == "@")):
            name += char
            at += 1
        else:
            break
    if not name:
        raise ExpressionError("a backslash stands at the end", start + 1)
    return name, at


class _Parser:
    """Reads tokens from the left to the right, one method a rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def whole(self) -> Node:
        node = self._expression()
        if self._token.kind != "end":
            self._refuse("an operator or the end")
        return node

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._token
        self._at += token.kind != "end"
        return token

    def _is(self, *symbols: str) -> bool:
        return self._token.kind == "symbol" and self._token.value in symbols

    def _expect(self, symbol: str) -> None:
        if not self._is(symbol):
            self._refuse(repr(symbol))
        self._next()

    def _refuse(self, wanted: str) -> None:
        token = self._token
        if token.kind == "symbol" and (why := _REFUSED.get(token.value)):
            raise ExpressionError(f"{token.value!r} cannot be used: {why}", token.position)
        if token.kind == "name" and token.value in _STATEMENTS:
            raise ExpressionError(
                f"{token.value!r} begins a statement; write one expression", token.position
            )
        shown = "the end" if token.kind == "end" else repr(token.value)
        raise ExpressionError(f"{shown} stands where {wanted} has to", token.position)

    def _expression(self) -> Node:
        position = self._token.position
        node = self._binary(0)
        if self._is("?"):
            self._next()
            yes = self._deeper(self._expression)
            self._expect(":")
            no = self._deeper(self._expression)
            return Conditional(node, yes, no, position=position)
        if self._is("?:", "??"):
            symbol = self._next().value
            other = self._deeper(self._expression)
            return Operation(symbol, (node, other), position=position)
        return node

    def _deeper(self, read: Callable[[], Node]) -> Node:
        """What `read` reads, one level further down."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ExpressionError("the expression is nested too deep", self._token.position)
        node = read()
        self._depth -= 1
        return node

    def _binary(self, loosest: int) -> Node:
        """An operand, and all operators after it that bind at least as tightly as `loosest`."""
        position = self._token.position
        node = self._deeper(self._unary)
        unchained = -1
        while (symbol := self._operator()) in _LEVELS and _LEVELS[symbol] >= loosest:
            level = _LEVELS[symbol]
            if level == unchained:
                raise ExpressionError(
                    f"{symbol!r} cannot follow another comparison; write &&", self._token.position
                )
            unchained = -1 if _BINARY[level][1] else level
            self._next()
            right = self._deeper(partial(self._binary, level + 1))
            node = Operation(symbol, (node, right), position=position)
        return node

    def _operator(self) -> str:
        """The infix operator that comes next; what is none has no level."""
        token = self._token
        if token.kind == "name":
            return _WORD_OPERATORS.get(token.value, "")
        return str(token.value) if token.kind == "symbol" else ""

    def _unary(self) -> Node:
        token = self._token
        word = token.kind == "name" and token.value in ("not", "empty", "size")
        if not word and not self._is("-", "+", "!", "~"):
            return self._postfix()
        self._next()
        operand = self._deeper(self._unary)
        symbol = "!" if token.value == "not" else str(token.value)
        symbol = {"-": "negate", "+": "plus"}.get(symbol, symbol)
        return Operation(symbol, (operand,), position=token.position)

    def _postfix(self) -> Node:
        node = self._primary()
        steps = 0
        while self._is(".", "[", "[*]"):
            steps += 1
            if steps > DEEPEST:
                raise ExpressionError("the path is too long", self._token.position)
            position = self._token.position
            symbol = self._next().value
            if symbol == "[*]":
                node = Every(node, position=position)
            elif symbol == "[":
                index = self._deeper(self._expression)
                self._expect("]")
                if isinstance(index, Literal) and type(index.value) in (str, int):
                    node = Member(node, index.value, position=position)
                else:
                    node = Index(node, index, position=position)
            else:
                node = self._member(node)
        return node

    def _member(self, of: Node) -> Node:
        token = self._token
        if token.kind not in ("name", "quoted", "text"):
            self._refuse("a name")
        self._next()
        if token.kind == "name" and self._is("("):
            return Call(token.value, (of, *self._arguments()), True, position=token.position)
        names = token.value if token.kind == "quoted" else (token.value,)
        for name in names:
            of = Member(of, name, position=token.position)
        return of

    def _arguments(self) -> tuple[Node, ...]:
        self._expect("(")
        found = self._listed(")")
        return tuple(found)

    def _listed(self, end: str) -> list[Node]:
        found: list[Node] = []
        while not self._is(end) or found:
            found.append(self._deeper(self._expression))
            if self._is(end):
                break
            self._expect(",")
        self._next()
        return found

    def _primary(self) -> Node:
        token = self._token
        if token.kind in ("text", "number"):
            self._next()
            return Literal(token.value, position=token.position)
        if token.kind == "quoted":
            self._next()
            return Name(token.value, position=token.position)
        if token.kind == "name":
            return self._named(token)
        if self._is("["):
            self._next()
            return Array(tuple(self._listed("]")), position=token.position)
        if self._is("{"):
            return self._object(token)
        if self._is("("):
            return self._parenthesised(token)
        self._refuse("a value")
        raise AssertionError

    def _named(self, token: _Token) -> Node:
        following = self._tokens[self._at + 1]
        if following.kind == "symbol" and following.value == "->":
            return self._lambda(token)
        if token.value in ("true", "false", "null"):
            self._next()
            value = {"true": True, "false": False, "null": None}[token.value]
            return Literal(value, position=token.position)
        if token.value in _STATEMENTS:
            self._refuse("a value")
        if token.value in RESERVED:
            raise ExpressionError(
                f"{token.value!r} is a reserved word; write ${{{token.value}}} for a field",
                token.position,
            )
        self._next()
        if self._is("("):
            return Call(token.value, self._arguments(), position=token.position)
        return Name((token.value,), position=token.position)

    def _lambda(self, token: _Token) -> Node:
        if token.value in RESERVED:
            raise ExpressionError(f"{token.value!r} is a reserved word", token.position)
        self._next()
        self._expect("->")
        return Lambda(token.value, self._deeper(self._expression), position=token.position)

    def _object(self, token: _Token) -> Node:
        self._next()
        entries: list[Node] = []
        while not self._is("}") or entries:
            entries.append(self._deeper(self._expression))
            self._expect(":")
            entries.append(self._deeper(self._expression))
            if self._is("}"):
                break
            self._expect(",")
        self._next()
        return Object(tuple(entries), position=token.position)

    def _parenthesised(self, token: _Token) -> Node:
        self._next()
        node = self._deeper(self._expression)
        self._expect(")")
        if self._is("->"):
            if not isinstance(node, Name) or len(node.names) != 1:
                self._refuse("a name in parentheses before")
            assert isinstance(node, Name)
            self._next()
            return Lambda(node.names[0], self._deeper(self._expression), position=token.position)
        return node
