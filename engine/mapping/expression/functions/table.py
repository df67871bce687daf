"""What is known of a function besides its code: parameters, result, documentation."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_PARAMETER = re.compile(r"(\w+): (\w+)(\.\.\.)?(?: = (.*))?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its kind, and its default if it may be left out.

    Kinds: any, text, integer, number, date, boolean, array, object; and, of a text that is checked
    if it is a literal: regex, pattern (of a date), zone, charset; lambda and path are syntax.
    """

    name: str
    kind: str
    repeats: bool = False
    default: Any = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the language.

    `code` gets converted arguments; without `takes_null` a null first argument makes the result
    null before that. `spreads`: a single array stands for its elements. `form`: a kind of call
    that the evaluator handles itself ("" for a plain one).
    """

    name: str
    category: str
    parameters: tuple[Parameter, ...]
    returns: str
    code: Callable[..., Any]
    description: str
    example: str
    takes_null: bool = False
    spreads: bool = False
    form: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def fewest(self) -> int:
        """The least number of arguments; one where there are only repeated ones."""
        required = sum(not (each.optional or each.repeats) for each in self.parameters)
        return max(required, bool(self.parameters) and self.parameters[0].repeats)

    @property
    def most(self) -> float:
        """The largest number of arguments."""
        endless = any(each.repeats for each in self.parameters)
        return float("inf") if endless else len(self.parameters)

    def parameter(self, index: int) -> Parameter:
        """The parameter that the argument at `index` is for: the last ones repeat."""
        if index < len(self.parameters):
            return self.parameters[index]
        repeated = [each for each in self.parameters if each.repeats]
        return repeated[(index - len(self.parameters)) % len(repeated)]

    @property
    def syntax(self) -> str:
        """The signature in Java's style, as Data Prep prints it."""
        shown = ", ".join(
            f"{each.kind.capitalize()}{'...' if each.repeats else ''} {each.name}"
            for each in self.parameters
        )
        return f"{self.returns.capitalize()} {self.name}({shown})"


class Table:
    """The functions of one category, in the order of their definition."""

    def __init__(self, category: str) -> None:
        self.category = category
        self.functions: list[Function] = []

    def define(
        self, signature: str, returns: str, example: str, *aliases: str, **more: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add the decorated code under `signature`, as "left(STRING: text, COUNT: integer)".

        `more` are further fields of Function; the code's docstring is the description.
        """
        name, _, listed = signature.removesuffix(")").partition("(")
        parameters = tuple(map(_parameter, listed.split(", "))) if listed else ()

        def add(code: Callable[..., Any]) -> Callable[..., Any]:
            description = (code.__doc__ or "").strip()
            category = more.pop("category", self.category)
            self.functions.append(
                Function(
                    *(name, category, parameters, returns, code, description, example),
                    aliases=aliases,
                    **more,
                )
            )
            return code

        return add


def _parameter(text: str) -> Parameter:
    found = _PARAMETER.fullmatch(text)
    assert found, text
    name, kind, repeats, default = found.groups()
    value = {"true": True, "null": None}.get(default, default) if default else None
    if default and default.isdigit():
        value = int(default)
    return Parameter(name, kind, bool(repeats), value, default is not None)
