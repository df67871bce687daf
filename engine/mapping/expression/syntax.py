"""The syntax of an expression: tokens to a tree.

The grammar is that of Apache Commons JEXL 3, single expressions only, as Data Prep documents it.
What JEXL has besides (assignments, statements, loops, `new`) is refused by name.
"""

from collections.abc import Callable
from functools import partial

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
from engine.mapping.expression.tokens import Token, tokens

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


def parse(text: str) -> Node:
    """The tree of the expression `text`; ExpressionError with the position of what is wrong."""
    if len(text) > LONGEST:
        raise ExpressionError(
            f"the expression has {len(text):,} characters, more than {LONGEST:,}", LONGEST
        )
    tree = _Parser(tokens(text)).whole()
    pending = [(tree, 1)]
    while pending:
        node, height = pending.pop()
        if height > DEEPEST:
            raise ExpressionError("the expression is nested too deep", node.position)
        pending += ((child, height + 1) for child in children(node))
    return tree


class _Parser:
    """Reads tokens from the left to the right, one method a rule of the grammar."""

    def __init__(self, found: list[Token]) -> None:
        self._tokens, self._at, self._depth = found, 0, 0

    def whole(self) -> Node:
        node = self._expression()
        if self._token.kind != "end":
            self._refuse("an operator or the end")
        return node

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
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

    def _named(self, token: Token) -> Node:
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

    def _lambda(self, token: Token) -> Node:
        if token.value in RESERVED:
            raise ExpressionError(f"{token.value!r} is a reserved word", token.position)
        self._next()
        self._expect("->")
        return Lambda(token.value, self._deeper(self._expression), position=token.position)

    def _object(self, token: Token) -> Node:
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

    def _parenthesised(self, token: Token) -> Node:
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
