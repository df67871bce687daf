"""Compile the regular expressions of schemas (ECMA-262) with RE2, which takes linear time.

A pattern that RE2 cannot run is refused with the reason. Pure.
"""

from functools import lru_cache
from typing import Any

import re2

LONGEST = 4096  # characters of a pattern
MEMORY = 1 << 20  # bytes of a compiled pattern and its cache
STEPS = 1 << 27  # characters of a text times instructions of a program: about a second
COMPILED = 512  # compiled patterns in the cache

_SPACES = (  # white space and line ends of ECMA-262
    *((0x9, 0xD), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_AS_IT_IS = frozenset("dDwWtnrfvbBA")
_CODED = {"0": 0, "c": 0, "x": 2, "u": 4, "U": 8}  # and the number of hexadecimal digits
_LOOKS = ("(?=", "(?!", "(?<=", "(?<!")


class PatternError(ValueError):
    """Why a pattern cannot be used, as the end of a sentence."""


class Pattern:
    """A compiled pattern; `longest` is the maximum length of a text."""

    def __init__(self, compiled: Any) -> None:
        self._search = compiled.search
        size = max(compiled.programsize, compiled.reverseprogramsize, 1)
        self.longest = STEPS // size

    def found_in(self, text: str) -> bool:
        """Return whether the pattern matches anywhere in a text; False for one that is too long."""
        if len(text) > self.longest:
            return False
        return self._search(text.encode(errors="replace")) is not None


@lru_cache(COMPILED)
def compiled(pattern: str) -> Pattern:
    """Compile a pattern; PatternError for one that cannot be used."""
    return Pattern(_compile(_Translation(pattern).text()))


def is_regex(text: str) -> bool:
    """Return whether a text is a regular expression, even one that RE2 cannot run."""
    try:
        _compile(_Translation(text, syntax_only=True).text())
    except PatternError:
        return False
    return True


def _compile(translated: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    try:
        return re2.compile(translated, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PatternError(words[:100]) from None


class _Translation:
    """Translates a pattern into RE2's syntax, from left to right.

    `syntax_only`: constructs that RE2 lacks are replaced by others, to check the syntax alone.
    """

    def __init__(self, pattern: str, *, syntax_only: bool = False) -> None:
        if len(pattern) > LONGEST:
            raise PatternError(f"it has more than {LONGEST:,} characters")
        self.pattern, self.at, self.syntax_only = pattern, 0, syntax_only
        self.in_class = False

    def text(self) -> str:
        """Return the pattern in RE2's syntax; PatternError if it has no translation."""
        parts = []
        while self.at < len(self.pattern):
            parts.append(self._next())
        found = "".join(parts)
        if any("\ud800" <= char <= "\udfff" for char in found):
            raise PatternError("it has half of a surrogate pair, which no text holds")
        return found

    def _next(self) -> str:
        char = self._take()
        if char == "\\":
            return self._escape()
        if self.in_class:
            self.in_class = char != "]"
            return "\\[" if char == "[" else char
        if char == "[":
            return self._class()
        if char == "(" and self._follows("?"):
            return self._group()
        if char == "{" and self._follows(","):
            end = self.pattern.find("}", self.at)
            if self.pattern[self.at + 1 : max(end, self.at)].isdecimal():
                return "{0"  # RE2 reads `{,3}` as text
        return char

    def _take(self, length: int = 1) -> str:
        taken = self.pattern[self.at : self.at + length]
        self.at += length
        return taken

    def _follows(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def _class(self) -> str:
        self.in_class = True
        opening = "["
        if self._follows("^"):
            opening += self._take()
        if self._follows("]"):  # a first `]` is a character of the class
            opening += "\\" + self._take()
        return opening

    def _group(self) -> str:
        look = next((look for look in _LOOKS if self._follows(look[1:])), None)
        if look and not self.syntax_only:
            raise PatternError(f"it looks around by {look!r}, which takes more than linear time")
        if look:
            self.at += len(look) - 1
            return "(?:"
        if self._follows("?P="):
            return self._reference(")")
        return "("

    def _reference(self, closing: str = "") -> str:
        if self.syntax_only:
            end = self.pattern.find(closing, self.at) if closing else self.at
            self.at = end + len(closing) if end >= 0 else len(self.pattern)
            return "(?:)"
        raise PatternError("it refers back to a group, which takes more than linear time")

    def _escape(self) -> str:
        char = self._take()
        if char in ("s", "S"):
            return self._space(negated=char == "S")
        if self.in_class and char == "b":
            return r"\x08"
        if char in _AS_IT_IS:
            return "\\" + char
        if char == "Z" and not self.in_class:
            return r"\z"
        if char in _CODED:
            return self._coded(char)
        if char in ("p", "P") and self._follows("{"):
            return "\\" + char
        if char == "k" and self._follows("<"):
            return self._reference(">")
        if char in tuple("123456789") and not self.in_class:
            while self.at < len(self.pattern) and self.pattern[self.at] in "0123456789":
                self.at += 1
            return self._reference()
        if not char or (char.isascii() and char.isalnum()):
            raise PatternError(f"it has the unknown escape '\\{char}'")
        return f"\\{char}" if char.isascii() else char

    def _space(self, *, negated: bool) -> str:
        spans = list(_SPACES)
        if negated and self.in_class:  # a class cannot contain a negated class
            edges = [-1, *(edge for span in spans for edge in span), 0x110000]
            spans = [(a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        listed = "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in spans)
        return listed if self.in_class else f"[{'^' if negated else ''}{listed}]"

    def _coded(self, kind: str) -> str:
        if kind == "0":
            return self._octal()
        if kind == "c":
            letter = self._take()
            if not (letter.isascii() and letter.isalpha()):
                raise PatternError("it has '\\c' without a letter")
            return self._char(ord(letter) % 32)
        if kind == "u" and self._follows("{"):
            end = self.pattern.find("}", self.at)
            digits = self.pattern[self.at + 1 : end] if end >= 0 else ""
            self.at = end + 1
            return self._char(_hex(digits))
        code = _hex(self._take(_CODED[kind]), _CODED[kind])
        if kind == "u" and 0xD800 <= code < 0xDC00 and self._follows("\\u"):
            low = _hex(self.pattern[self.at + 2 : self.at + 6], 4)
            if 0xDC00 <= low < 0xE000:
                self.at += 6
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        return self._char(code)

    def _octal(self) -> str:
        digits = "0"
        while len(digits) < 3 and self.at < len(self.pattern):
            if self.pattern[self.at] not in "01234567":
                break
            digits += self._take()
        return self._char(int(digits, 8))

    def _char(self, code: int) -> str:
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise PatternError(f"it names U+{code:04X}, which is no character")
        return f"\\x{{{code:x}}}"


def _hex(digits: str, length: int = 0) -> int:
    """Parse hexadecimal digits: `length` of them, or one to six."""
    valid = len(digits) == length if length else 1 <= len(digits) <= 6
    if not valid or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        raise PatternError("it has an escape without the hexadecimal digits that belong to it")
    return int(digits, 16)
