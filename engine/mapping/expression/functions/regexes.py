"""Regular expressions: Java's syntax as far as RE2 runs it, always in linear time.

What RE2 lacks, or reads as something else than Java, is refused with what to write instead.
"""

from functools import lru_cache
from typing import Any

import re2

from engine.mapping.expression.functions.table import Table
from engine.mapping.expression.values import MOST, TransformError

LONGEST = 1000  # characters of a pattern
PROGRAM = 1000  # steps of a compiled pattern
MEMORY = 1 << 20  # bytes of a compiled pattern, its cache included
STEPS = 1 << 27  # characters of a text times steps of a program: about half a second at worst
REPETITIONS = 1000

TABLE = Table("Regular Expression")
_REFUSED = {
    "(?=": "looks ahead; match what follows and take a group",
    "(?!": "looks ahead; compare with !~ instead",
    "(?<=": "looks behind; match what comes before and take a group",
    "(?<!": "looks behind; compare with !~ instead",
    "(?>": "is an atomic group; write (?:…)",
}
_ESCAPED = {
    **dict.fromkeys("123456789k", "refers back to a group"),
    "h": "is not known; write [ \\t]",
    "R": "is not known; write \\r?\\n",
    "Z": "is not known; write \\z",
    "G": "is not known",
    "c": "is not known; write \\x and two digits",
    "X": "is not known",
}


class RegexError(ValueError):
    """Why a regular expression cannot be used, as the end of a sentence."""


class Regex:
    """A compiled regular expression, whose every use is bounded."""

    def __init__(self, pattern: str) -> None:
        _judge(pattern)
        options = re2.Options()
        options.log_errors = False
        options.max_mem = MEMORY
        try:
            self._compiled = re2.compile(pattern, options)
        except re2.error as error:
            why = error.args[0] if error.args else ""
            words = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
            raise RegexError(f"{words[:100]}") from None
        size = max(self._compiled.programsize, self._compiled.reverseprogramsize)
        if size > PROGRAM:
            raise RegexError(f"it takes {size:,} steps, more than {PROGRAM:,}; write a shorter one")
        self._longest = STEPS // max(size, 1)

    def _bounded(self, text: str) -> str:
        if len(text) > self._longest:
            raise TransformError("the text is too long for its regular expression")
        return text

    def fits(self, text: str) -> bool:
        """Whether all of the text matches."""
        return self._compiled.fullmatch(self._bounded(text)) is not None

    def first(self, text: str) -> list[str | None]:
        """The first match and its groups; empty without a match."""
        found = self._compiled.search(self._bounded(text))
        return [] if found is None else [found[0], *found.groups()]

    def split(self, text: str) -> list[str]:
        """The parts between all matches. A match without a character splits nothing."""
        parts, begin = list[str](), 0
        for found in self._compiled.finditer(self._bounded(text)):
            start, end = found.span()
            if start == end:
                continue
            parts.append(text[begin:start])
            begin = end
            if len(parts) > MOST:
                raise TransformError(f"an array has more than {MOST:,} elements")
        return [*parts, text[begin:]]


@lru_cache(256)
def _cached(pattern: str) -> Regex | RegexError:
    try:
        return Regex(pattern)
    except RegexError as error:
        return error


def checked(pattern: str) -> Regex:
    """The compiled `pattern`; RegexError for one that cannot be used."""
    found = _cached(pattern)
    if isinstance(found, RegexError):
        raise found
    return found


def compiled(pattern: str) -> Regex:
    """The compiled `pattern` of a record; TransformError for one that cannot be used."""
    try:
        return checked(pattern)
    except RegexError as error:
        raise TransformError(f"the regular expression cannot be used: {error}") from None


def _judge(pattern: str) -> None:
    """Refuse what RE2 does not know, or knows as something else."""
    if len(pattern) > LONGEST:
        raise RegexError(f"it has more than {LONGEST:,} characters")
    at, in_class, quoted = 0, False, False
    while at < len(pattern):
        char, two = pattern[at], pattern[at : at + 2]
        if quoted:
            quoted = two != "\\E"
            at += 1 if quoted else 2
            continue
        if char == "\\":
            _judge_escape(pattern, at)
            quoted = two == "\\Q"
            at += 2
            continue
        if in_class:
            if two == "&&":
                raise RegexError("[a&&b] is not known; write the characters themselves")
            in_class = char != "]"
        elif char == "[":
            in_class = True
            at += (
                2
                if pattern[at + 1 : at + 3] == "^]"
                else 1
                if pattern[at + 1 : at + 2] == "]"
                else 0
            )
        else:
            _judge_group(pattern, at)
        at += 1


def _judge_escape(pattern: str, at: int) -> None:
    after = pattern[at + 1 : at + 2]
    if why := _ESCAPED.get(after):
        raise RegexError(f"\\{after} {why}")
    if after in ("p", "P") and pattern[at + 2 : at + 3] == "{":
        name = pattern[at + 3 :].partition("}")[0]
        if len(name) > 2:
            raise RegexError(f"\\{after}{{{name[:20]}}} is not known; write a class as [A-Za-z]")


def _judge_group(pattern: str, at: int) -> None:
    char = pattern[at]
    if char == "(":
        for begin, why in _REFUSED.items():
            if pattern.startswith(begin, at):
                raise RegexError(f"{begin}…) {why}")
        flags = pattern[at + 2 :].partition(")")[0].partition(":")[0]
        if pattern.startswith("(?", at) and flags.isalpha() and set(flags) & set("xudU"):
            raise RegexError(f"(?{flags}) is not known; only the flags i, m and s are")
    if char in "*+?}" and pattern[at + 1 : at + 2] == "+":
        raise RegexError(f"{char}+ never gives back what it took; write {char}")
    if char == "{":
        counts = pattern[at + 1 :].partition("}")[0].split(",")
        if any(count.isdigit() and int(count[:9]) > REPETITIONS for count in counts):
            raise RegexError(f"a repetition ends at {REPETITIONS:,}")


@TABLE.define(
    "extract_regex(STRING: text, REGEX: regex)",
    "array",
    'extract_regex("E259,E259B_009,1_1", "([^,]+),[^,]*,([^,]+)")',
)
def extract_regex(string: str, regex: str | None) -> list[str | None] | None:
    """The first match of a regular expression, then its groups; empty without a match."""
    return None if regex is None else compiled(regex).first(string)


@TABLE.define(
    "matches_regex(STRING: text, REGEX: regex)", "boolean", 'matches_regex("abc", "[a-c]+")'
)
def matches_regex(string: str, regex: Any) -> bool | None:
    """Whether all of a text matches a regular expression."""
    return None if regex is None else compiled(regex).fits(string)
