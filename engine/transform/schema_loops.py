"""Find subschemas that a validator would apply to one value endlessly or exponentially often.

Pure: it is given the subschemas and which contain which.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

Node = dict[str, Any]
Under = Callable[[Node], Iterable[tuple[str, Any]]]
"""Returns (keyword, subschema) of the subschemas in one, the target of a `$ref` included."""

IN_PLACE = frozenset(
    ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
)
"""Keywords whose subschemas apply to the same value, not to a part of it."""

UNEVALUATED = ("unevaluatedItems", "unevaluatedProperties")
TWICE = IN_PLACE | {"additionalProperties", "contains", *UNEVALUATED}  # applied twice beside one
MOST_TWICE = 8  # nested UNEVALUATED, each of which doubles the work


def loop_of(root: Node, under: Under) -> str | None:
    """Return why a schema cannot be applied, as the end of a sentence; None if it can."""
    return _in_place(root, under) or _Paths(under).walk(root)


def _in_place(root: Node, under: Under) -> str | None:
    """Return a sentence on a subschema that leads back to itself for the same value, or None."""
    nodes, seen = [root], {id(root)}
    for node in nodes:
        for _, child in under(node):
            if isinstance(child, dict) and id(child) not in seen:
                seen.add(id(child))
                nodes.append(child)
    done: set[int] = set()
    for start in nodes:
        stack = [(start, _steps(start, under))]
        path = {id(start)}
        while stack and id(start) not in done:
            node, steps = stack[-1]
            _, child = next(steps, ("", None))
            if child is None:
                stack.pop()
                path.discard(id(node))
                done.add(id(node))
            elif id(child) in path:
                refs = [each["$ref"] for each, _ in stack if isinstance(each.get("$ref"), str)]
                through = f", through {refs[-1]!r}" if refs else ""
                return f"a subschema contains itself in the same place{through}"
            elif id(child) not in done:
                path.add(id(child))
                stack.append((child, _steps(child, under)))
    return None


def _steps(node: Node, under: Under) -> Any:
    return ((k, child) for k, child in under(node) if k in IN_PLACE and isinstance(child, dict))


class _Paths:
    """Counts the paths from a subschema back to itself: with two, the work is exponential."""

    def __init__(self, under: Under) -> None:
        self.under = under
        self.open: set[int] = set()
        self.back: dict[int, Counter[int]] = {}  # by node, the paths to the nodes around it
        self.doubled: dict[int, int] = {}  # by node, the nested UNEVALUATED in it

    def walk(self, node: Node) -> str | None:
        self.open.add(id(node))
        back = Counter[int]()
        doubles = any(key in node for key in UNEVALUATED)
        doubled = 0
        for key, child in self.under(node):
            if not isinstance(child, dict):
                continue
            if id(child) in self.open:
                ways = Counter({id(child): 1})
            else:
                if id(child) not in self.back and (found := self.walk(child)):
                    return found
                ways = self.back[id(child)]
            for target, count in ways.items():
                back[target] = min(2, back[target] + count * (1 + doubles))
            if key in TWICE:
                doubled = max(doubled, self.doubled.get(id(child), 0))
        self.open.discard(id(node))
        own = back.pop(id(node), 0)
        self.back[id(node)], self.doubled[id(node)] = back, doubled + doubles
        if own > 1 or (own and back):
            return "a subschema contains itself by more than one way"
        if doubled + doubles > MOST_TWICE:
            return f"more than {MOST_TWICE} of {' or '.join(UNEVALUATED)} lie in one another"
        return None
