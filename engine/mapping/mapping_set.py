"""A Data Prep mapping set, read as rules: what each reads of a record and where it writes.

Pure: it is given the parsed document and the schema, and knows no record and no batch.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

from engine.errors import InputError
from engine.mapping.expression.evaluator import CompileError, Expression
from engine.mapping.expression.nodes import ExpressionError
from engine.transform.schema import Field, Schema

Step = str | int | None
"""One step of a path: a name, an index, or None for `[*]`."""

FURTHEST = 999  # the last index of a destination; Mixpanel's own lists end before 255

# Limits of the search for similar names: mappings, columns and characters.
GUESSES, MOST_LEAVES, LONGEST_NAME = 20, 1_000, 100

CONTAINERS = ("object", "map", "array")

_SET_KEYS = (
    *("mappings", "id", "name", "description", "version", "status", "tags", "supportVersion"),
    *("xdmSchema", "xdmVersion", "schemaRef", "inputSchema", "outputSchema", "strictMapping"),
    *("allowNullValues", "createdBy", "createdDate", "modifiedBy", "modifiedDate"),
)
_MAPPING_KEYS = (
    *("sourceType", "source", "sourceAttribute", "destination", "destinationXdmPath", "name"),
    *("description", "id", "version", "identity", "primaryIdentity", "matchScore"),
    *("functionVersion", "expressionAttributes"),
    *("createdBy", "createdDate", "modifiedBy", "modifiedDate"),
)
_SEGMENT = re.compile(
    r"(?:\$\{(?P<quoted>(?:[^}\\]|\\.)+)\}|(?P<bare>(?:[^.\[\]{}\\]|\\.)+))"
    r"(?P<indexes>(?:\[(?:[0-9]+|\*)\])*)(?:\.(?=.)|\Z)",
    re.DOTALL,
)
_IDENTIFIER = re.compile(r"(?:[^\W\d]|[$@]|\\.)(?:[\w$@]|\\.)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule's value comes from.

    `names`: the property of the record that it reads, the first of them that the record has; named
    through `data`, that is `x` or else `$x`. `inner`: the path inside its value. Without names it
    is the `text` of a STATIC rule, or, without text too, the event's name. The value of an
    `expression` stands in the record under the expression itself, as if it were a property.
    """

    names: tuple[Any, ...] = ()
    inner: tuple[Step, ...] = ()
    text: str | None = None

    @property
    def expression(self) -> Expression | None:
        """The expression that computes the value, if one does."""
        first = self.names[0] if self.names else None
        return first if isinstance(first, Expression) else None

    @property
    def is_event(self) -> bool:
        """Whether the source is the event's name."""
        return not self.names and self.text is None

    @property
    def is_time(self) -> bool:
        """Whether the source is the event's `time`, a number of seconds."""
        return self.names[:1] == ("time",) and not self.inner

    def name_in(self, properties: dict[str, Any]) -> str | None:
        """Return the name of the property that the source reads in this record, if any."""
        return next((name for name in self.names if name in properties), None)


INTEGERS = ("long", "int", "short", "byte")


@dataclass(frozen=True, slots=True)
class Rule:
    """One mapping, the set's `number`th. `field` is the schema's at `path`; `root` is its column's
    path; `written` is its source as it stands there.
    """

    label: str
    source: Source
    path: tuple[Step, ...]
    field: Field
    root: tuple[str, ...]
    number: int = 0
    written: str = ""

    @property
    def plain(self) -> bool:
        """Whether the rule fills a whole column by itself."""
        return self.root == self.path and self.field.type not in CONTAINERS

    @property
    def is_second(self) -> bool:
        """Whether the rule writes the event's second, however its `time` is written."""
        return self.source.is_time and self.field.type in INTEGERS


def parse(name: str, document: object, schema: Schema) -> list[Rule]:
    """Parse the rules in `document` for `schema`; raise InputError with all problems.

    The form is Data Prep's: `mappings`, a list of `{sourceType, source, destination}`, also under
    the names `sourceAttribute` and `destinationXdmPath`.
    """
    problems, rules, verdicts = _judged(document, schema)
    problems += (f"{label}: {problem}" for label, found in verdicts for problem in found)
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise InputError(f"The mapping set {name} cannot be used with {schema.name}:{listed}")
    return rules


def verdicts(name: str, document: object, schema: Schema) -> list[list[str]]:
    """Return the problems of each mapping in `document`; InputError if it is no mapping set."""
    problems, _, found = _judged(document, schema)
    if problems:
        raise InputError(f"The mapping set {name} is none: {'; '.join(problems)}")
    return [each for _, each in found]


def _judged(
    document: object, schema: Schema
) -> tuple[list[str], list[Rule], list[tuple[str, list[str]]]]:
    """Return the set's own problems, its valid rules, and (label, problems) of each mapping."""
    problems: list[str] = []
    outer = document if isinstance(document, dict) else {}
    entries = outer.get("mappings")
    if not isinstance(entries, list) or not entries:
        problems.append("it is not an object with a list 'mappings' that holds at least one")
        entries = []
    problems += _unknown(outer, _SET_KEYS)
    rules: list[Rule] = []
    wrong: dict[str, list[str]] = {}
    for index, entry in enumerate(entries):
        label = f"mappings[{index}]"
        if isinstance(entry, dict) and entry.get("name"):
            label += f" ({entry['name']!r})"
        found = _rule(label, entry, schema, index + 1)
        wrong[label] = [] if isinstance(found, Rule) else found
        rules += [found] if isinstance(found, Rule) else []
    for rule, problem in _overlaps(rules):
        wrong[rule.label].append(problem)
    return problems, rules, list(wrong.items())


def _rule(label: str, entry: object, schema: Schema, number: int) -> Rule | list[str]:
    """Parse `entry` into a rule, or return all its problems."""
    if not isinstance(entry, dict):
        return ["is not an object; write {sourceType, source, destination}"]
    problems = _unknown(entry, _MAPPING_KEYS)
    source = path = field = depth = None
    try:
        source = _source(entry)
    except ValueError as error:
        problems.append(str(error))
    try:
        text = _text(entry, "destination", "destinationXdmPath")
        path, field, depth = _target(text, schema, guess=number <= GUESSES)
    except ValueError as error:
        problems.append(str(error))
    if source and path and field and source.expression:
        count = path.count(None)
        if count > 1:
            problems.append(f"the destination has {count} [*]; an expression can fill one")
        source = Source(source.names, (None,) * count)
        problems += _misfits(source.expression, field, many=bool(count), shown=_shown(path))
    elif source and path and field:
        iterated, written = source.inner.count(None), path.count(None)
        if iterated == written + 1 and field.type == "array" and field.items:
            path, field = (*path, None), field.items
        elif iterated != written:
            problems.append(
                f"the source has {iterated} [*] and the destination {written}; write as many"
            )
        if not source.names and field.type in CONTAINERS:
            problems.append(f"a text can never be of type {field.type}, which its destination has")
        if source.is_time and _holds_moment(field):
            problems.append(
                f"time is a number of seconds, and a {field.type} would take it for ms; write the"
                f" EXPRESSION data.time * 1000 for {_shown(path)}, or give it a destination of type"
                " integer"
            )
    if problems or source is None or path is None or field is None:
        return problems
    root = tuple(str(step) for step in path[:depth])
    text = _text(entry, "source", "sourceAttribute")
    return Rule(label, source, path, field, root, number, text)


_FITS = {
    "text": ("string", "number", *INTEGERS, "boolean", "date", "date-time"),
    "integer": ("string", "number", *INTEGERS, "date", "date-time"),
    "real": ("string", "number", *INTEGERS),
    "boolean": ("boolean",),
    "date": ("string", "date", "date-time"),
    "array": ("array",),
    "object": ("object", "map"),
}
"""For each kind of an expression's value, the types of fields that can take one."""


def _misfits(
    expression: Expression | None, field: Field, *, many: bool, shown: str
) -> Iterator[str]:
    """What is wrong between an expression and its destination, whose `[*]` makes it `many`."""
    assert expression
    kind = expression.kind
    source = expression.source
    if source and source.names[0] == "time" and _holds_moment(field):
        yield (
            f"time is a number of seconds, and a {field.type} would take it for ms; write"
            " data.time * 1000"
        )
    if kind is None:
        return
    if many and kind != "array":
        yield f"{shown} takes an array's elements, and the expression gives {_a(kind)}"
    elif not many and field.type not in _FITS[kind]:
        words = '; write iif(…, "true", "false")' if kind == "boolean" else ""
        yield f"the expression gives {_a(kind)}, and {shown} is of type {field.type}{words}"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aio' else 'a'} {kind}"


def _holds_moment(field: Field) -> bool:
    return field.type in ("date", "date-time")


def _unknown(entry: dict[str, Any], known: tuple[str, ...]) -> list[str]:
    problems = []
    for key in entry:
        if key not in known:
            short = key[:LONGEST_NAME]  # the time of a comparison grows with the product
            near = get_close_matches(short, known, 1, 0.5) or [", ".join(known)]
            problems.append(f"{key!r} is not known here; did you mean {near[0]}?")
    return problems


def _text(entry: dict[str, Any], *names: str) -> str:
    """Return the text that `entry` has under one of `names`, or the same under several."""
    found = [entry[name] for name in names if entry.get(name) is not None]
    if not found:
        raise ValueError(f"has no {names[0]!r}; write one")
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"{names[0]!r} is {found[0]!r}; write it as a text")
    if len(set(found)) > 1:
        raise ValueError(f"{' and '.join(names)} differ: {found[0]!r}, {found[1]!r}; keep one")
    return str(found[0])


def _source(entry: dict[str, Any]) -> Source:
    """Parse the source of a mapping; ValueError with the reason if it can read nothing."""
    kind = entry.get("sourceType")
    text = _text(entry, "source", "sourceAttribute")
    if kind in ("EXPRESSION", "text/x.aep-xl"):
        try:
            return Source((Expression(text),))
        except CompileError as error:
            raise ValueError("; ".join(error.problems)) from None
        except ExpressionError as error:
            raise ValueError(str(error)) from None
    if kind == "STATIC":
        return Source(text=text)
    if kind not in (None, "ATTRIBUTE", "text/x.schema-path"):
        raise ValueError(f"sourceType {kind!r} is not known; write ATTRIBUTE, EXPRESSION or STATIC")
    wrapper, *path = _path(text, identifiers=True)
    if wrapper == "event" and not path:
        return Source()
    top, inner = (path[0], tuple(path[1:])) if path else (None, ())
    if wrapper not in ("data", "properties") or not isinstance(top, str):
        raise ValueError(
            f"source {text!r} names nothing in a record; write data.… or properties.… and the name"
            " of a property, data.event_name or event"
        )
    if wrapper == "properties":
        return Source((top,), inner)
    if top != "event_name":
        return Source((top, f"${top}"), inner)
    if inner:
        raise ValueError(f"source {text!r} reads inside the event's name, which is a text")
    return Source()


def _path(text: str, *, identifiers: bool = False) -> tuple[Step, ...]:
    r"""Split `text` into steps: names between '.', each with its `[n]` and `[*]`.

    As Data Prep has it, a backslash takes the next character as it is (`Full\.Name`), and
    `${First Name}` holds names that are no `identifiers`.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text) or not steps:
        part = _SEGMENT.match(text, at)
        names = part and (
            re.findall(r"(?:[^.\\]|\\.)+", part["quoted"], re.DOTALL)
            if part["quoted"]
            else [part["bare"]]
        )
        if not part or not names:
            raise ValueError(rf"{text!r} is no path at {text[at:]!r}; write a.b, a[0].b or a\.b")
        if identifiers and part["bare"] and not _IDENTIFIER.fullmatch(part["bare"]):
            quoted = f"${{{part['bare']}}}"
            raise ValueError(f"{part['bare']!r} in {text!r} is no plain name; write {quoted!r}")
        steps += (re.sub(r"\\(.)", r"\1", name, flags=re.DOTALL) for name in names)
        for index in re.findall(r"[0-9]+|\*", part["indexes"]):
            steps.append(None if index == "*" else int(index))
        at = part.end()
    return tuple(steps)


def _target(text: str, schema: Schema, *, guess: bool) -> tuple[tuple[Step, ...], Field, int]:
    """Return the path that `text` writes, its field, and the number of steps to its column.

    A column holds a scalar, or all of the first object copied, array or map on the way. `guess`:
    name the nearest column where the schema has none at `text`.
    """
    path = _path(text)
    field, depth = schema.root, len(path)
    for index, step in enumerate(path):
        child = child_of(field, step)
        if child is None:
            inside = f"{_shown(path[:index])}, which is {field.type}," if index else schema.name
            raise ValueError(
                f"destination {text!r}: {inside} has no {_shown([step])}"
                f"{_nearest(text, schema) if guess else ''}"
            )
        if isinstance(step, int) and step > FURTHEST:
            raise ValueError(f"destination {text!r}: an index ends at {FURTHEST}")
        if field.type != "object":
            depth = min(depth, index)
        field = child
    return path, field, depth


def _nearest(text: str, schema: Schema) -> str:
    """Return the end of a sentence on a destination that the schema lacks: what to do.

    What matters is the name: every column of a schema may begin with the same tenant.
    """
    leaves = {leaf.lower(): leaf for leaf in _leaves(schema.root)}
    names: dict[str, str] = {}
    for leaf in islice(leaves, MOST_LEAVES):
        names.setdefault(leaf.rpartition(".")[2][:LONGEST_NAME], leaf)
    wanted = text.lower()
    near = get_close_matches(wanted.rpartition(".")[2][:LONGEST_NAME], names, 1, 0.6)
    found = wanted if wanted in leaves else names[near[0]] if near else ""
    guess = f"; the nearest is {leaves[found]}" if found else ""
    return f"{guess}. The schema has to have the column: write one that it has, or add it there"


def child_of(field: Field, step: Step) -> Field | None:
    """Return the child of `field` at `step`; None if there is no such child."""
    if field.type == "object":
        return next((child for child in field.fields if child.name == step), None)
    if isinstance(step, str) == (field.type == "map"):
        return field.items
    return None


def _leaves(field: Field, before: str = "") -> Iterator[str]:
    for child in field.fields:
        if child.fields:
            yield from _leaves(child, f"{before}{child.name}.")
        else:
            yield before + child.name


def _shown(path: Iterable[Step]) -> str:
    steps = (f".{s}" if isinstance(s, str) else "[*]" if s is None else f"[{s}]" for s in path)
    return repr("".join(steps).removeprefix("."))


def _overlaps(rules: list[Rule]) -> Iterator[tuple[Rule, str]]:
    """Two rules that write the same place: the second, and what to do.

    Copying an object and writing one of its attributes besides is the documented object copy: the
    attribute's own rule wins. The same goes for a map and its keys.
    """
    ends: dict[tuple[Step, ...], list[Rule]] = {}  # by their whole path, an index being any
    ways: dict[tuple[Step, ...], list[Rule]] = {}  # by each part of it from the start
    for rule in rules:
        path = tuple(step if isinstance(step, str) else None for step in rule.path)
        starts = [path[:size] for size in range(1, len(path))]
        before = [first for start in starts for first in ends.get(start, ())]
        before += ends.get(path, ())
        if rule.field.type not in ("object", "map"):
            before += ways.get(path, ())
        if first := next((first for first in before if _clash(first, rule)), None):
            outer = min(first, rule, key=lambda rule: len(rule.path))
            yield rule, f"{first.label} writes {_shown(outer.path)} too; keep one of them"
            continue  # so that many of one place are not held against each other
        ends.setdefault(path, []).append(rule)
        for start in starts:
            ways.setdefault(start, []).append(rule)


def _clash(first: Rule, second: Rule) -> bool:
    """Return whether two rules conflict, where one's path is a prefix of the other's."""
    outer, inner = sorted((first, second), key=lambda rule: len(rule.path))
    if not all(a == b or None in (a, b) for a, b in zip(outer.path, inner.path, strict=False)):
        return False
    return len(outer.path) == len(inner.path) or outer.field.type not in ("object", "map")
