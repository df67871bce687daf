"""The tokens of an expression: names, texts, numbers and symbols, with their positions."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.mapping.expression.nodes import ExpressionError

_SYMBOLS = sorted(
    (
        *("||", "&&", "|", "^", "&", "==", "!=", "===", "!==", "<", "<=", ">", ">=", "=~", "!~"),
        *("=^", "!^", "=$", "!$", "<<", ">>", ">>>", "+", "-", "*", "/", "%"),
        *("?", "?:", "??", ":", ",", ".", "(", ")", "[", "]", "{", "}", "!", "~", "->", "[*]"),
        *("=", ";", "+=", "-=", "*=", "/=", "..", "...", "?.", "@", "#", "`"),
    ),
    key=len,
    reverse=True,
)
_NUMBER = re.compile(
    r"0[xX](?P<hex>[0-9a-fA-F]+)[lLhH]?|(?P<real>[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)"
    r"[fFdDbB]?|[0-9]+[fFdDbB])|(?P<integer>[0-9]+)[lLhH]?"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token; its kind is name, quoted, text, number, symbol or end."""

    kind: str
    value: Any
    position: int


def tokens(text: str) -> list[Token]:
    """The tokens of `text`, the end last; ExpressionError for what is none."""
    found: list[Token] = []
    at = 0
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
            found.append(Token(kind, value, start + 1))
        else:
            symbol = next((each for each in _SYMBOLS if text.startswith(each, at)), None)
            if symbol is None:
                raise ExpressionError(f"{char!r} is no part of an expression", start + 1)
            found.append(Token("symbol", symbol, start + 1))
            at += len(symbol)
    found.append(Token("end", "the end", len(text) + 1))
    return found


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
