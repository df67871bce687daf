"""Parse an XDM schema, a document of JSON Schema 2020-12, into a tree of typed fields. Pure."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from engine.errors import InputError
from engine.transform import jsonschema_validator
from engine.transform.patterns import COMPILED, Pattern, PatternError, compiled
from engine.transform.schema_loops import loop_of

JSON_TYPES = {
    "string": ("string",),
    "number": ("number",),
    "long": ("integer", "number"),
    "int": ("integer", "number"),
    "short": ("integer", "number"),
    "byte": ("integer", "number"),
    "boolean": ("boolean",),
    "date": ("string",),
    "date-time": ("string",),
    "array": ("array",),
    "object": ("object",),
    "map": ("object",),
}
"""The XDM types, and the JSON Schema types that a field of each may be declared with."""

# The bounds that distinguish XDM's integer types; upper bounds are written in two ways.
_BOUNDS = {
    (-(1 << bits), (1 << bits) - less): name
    for name, bits in (("byte", 7), ("short", 15), ("int", 31))
    for less in (0, 1)
}
MOST, DEEPEST = 10_000, 100  # maximum number and nesting of the subschemas of a schema
_RESERVED = {"unmapped", "event_date"}
_UNREADABLE = re.compile(r"[ ,;{}()\n\t=]")  # in a column name, refused by Delta readers

_INSTEAD = (
    "Write it without that, or say it by 'enum', by 'maxLength', or by 'not' around another pattern"
)

_SCHEMA_IN = (
    *("additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
_SCHEMAS_UNDER = (
    *("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"),
    *("allOf", "anyOf", "oneOf", "prefixItems"),
)

# A JSON pointer, the subschema there, and the references that led to it, each at most once.
Located = tuple[str, Any, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `fields` of an object, `items` of an array (its elements) or map (its values)."""

    name: str
    type: str
    fields: tuple["Field", ...] = ()
    items: "Field | None" = None


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON Schema `document` and the typed tree it describes; `root` is an object."""

    name: str
    document: dict[str, Any]
    root: Field

    def find(self, path: tuple[str, ...]) -> Field | None:
        """Return the field at a path of object members; None if the schema has no such field."""
        found: Field | None = self.root
        for name in path:
            found = next((f for f in found.fields if f.name == name), None) if found else None
        return found

    @classmethod
    def parse(cls, name: str, document: object) -> "Schema":
        """Parse a document; raise InputError with every problem and its JSON pointer.

        `meta:xdmType` is the type of a field; without it `type` and `format` are, and an integer
        is a long unless its bounds are those of an XDM int, short or byte.
        """
        if not isinstance(document, dict):
            raise InputError(f"The schema {name} is not a JSON object.")
        _bound_nesting(name, document)
        weighing = _Weighing(name, document)
        weighing.weigh(document)
        reader = _Reader(name, document)
        root = reader.field("", [("#", document, frozenset())])
        if root and root.type != "object":
            reader.add("#", f"is {root.type}; a record is an object")
        reader.survey()
        reader.meta_check()
        if not reader.problems and (loop := loop_of(document, weighing.under)):
            reader.add("#", f"{loop}; no record could be held against it")
        if reader.problems or root is None:
            lines = (f"\n  {at}: {text}" for at, text in reader.problems)
            raise InputError(f"The schema {name} cannot be used:{''.join(lines)}")
        return cls(name, document, root)


class _Weighing:
    """Counts the subschemas that apply to a value, those behind a reference once per reference.

    References can make a small document very large. Each subschema is visited once.
    """

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name, self.document = name, document
        self.weights: dict[int, tuple[int, int]] = {}

    def weigh(self, node: Any, depth: int = 0) -> tuple[int, int]:
        """Return the number of subschemas and of their levels; InputError for too many."""
        if not isinstance(node, dict):
            return 0, 0
        if id(node) not in self.weights:
            self.weights[id(node)] = 0, 0  # the reader reports a subschema that contains itself
            count = levels = 0
            if depth <= DEEPEST:
                for _, child in self.under(node):
                    more, below = self.weigh(child, depth + 1)
                    count, levels = count + more, max(levels, below)
            self.weights[id(node)] = count + 1, levels + 1
        count, levels = self.weights[id(node)]
        if count > MOST or depth + levels > DEEPEST:
            raise _too_much(self.name)
        return count, levels

    def under(self, node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield (keyword, subschema) of the subschemas that apply where `node` applies."""
        ref = node.get("$ref")
        if isinstance(ref, str) and (ref == "#" or ref.startswith("#/")):
            with suppress(LookupError):
                yield "$ref", follow(self.document, ref)
        for key, _, child in _subschemas(node):
            if key not in ("$defs", "definitions"):  # they count where they are referred to
                yield key, child


class _Reader:
    """Reads one document and collects all `problems` instead of raising the first one."""

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name, self.document = name, document
        self.problems: dict[tuple[str, str], None] = {}  # in their order, each once
        self.gathered = 0
        self.patterns = set[Pattern]()
        self.dated: set[int] = set()  # subschemas whose format is the type of a column

    def add(self, at: str, text: str) -> None:
        self.problems[at, text] = None

    def field(self, name: str, places: list[Located]) -> Field | None:
        """Return the field that the subschemas at `places` describe; None after a problem."""
        at = places[0][0]
        known = len(self.problems)
        nodes = [found for place in places for found in self.gather(*place)]
        if len(self.problems) > known:
            return None
        kind = self.type_of(at, nodes)
        if kind == "object":
            return self.structure(name, at, nodes)
        if kind in ("array", "map"):
            key = "items" if kind == "array" else "additionalProperties"
            inner = [(f"{w}/{key}", n[key], t) for w, n, t in nodes if isinstance(n.get(key), dict)]
            if not inner:
                self.add(at, f"is {kind} without {key!r} that type what it holds")
                return None
            items = self.field("items", inner)
            return Field(name, kind, items=items) if items else None
        if kind in ("date", "date-time"):
            self.dated |= {id(node) for _, node, _ in nodes if node.get("format") == kind}
        return Field(name, kind) if kind else None

    def structure(self, name: str, at: str, nodes: list[Located]) -> Field | None:
        """Return the object that `nodes` describe, with the properties of all of them."""
        members: dict[str, list[Located]] = {}
        for where, node, trail in nodes:
            for key, value in _mapping(node.get("properties")).items():
                place = (f"{where}/properties/{escape(key)}", value, trail)
                members.setdefault(key, []).append(place)
        if not members:
            self.add(at, "is an object without properties; a column needs at least one")
        seen: dict[str, str] = {}
        for key, places in members.items():
            here = places[0][0]
            if not key or _UNREADABLE.search(key):
                self.add(here, "has a name that table readers refuse: empty, or one of ' ,;{}()='")
            if at == "#" and key.casefold() in _RESERVED:
                self.add(here, f"has the name of a column of every table: {', '.join(_RESERVED)}")
            # Several Parquet readers fold case, and could reach only one of the two.
            if seen.setdefault(key.casefold(), key) != key:
                self.add(here, f"differs from {seen[key.casefold()]!r} only by case")
        found = [self.field(key, places) for key, places in members.items()]
        fields = tuple(field for field in found if field)
        return Field(name, "object", fields) if fields else None

    def gather(self, at: str, node: Any, trail: frozenset[str]) -> Iterator[Located]:
        """Yield `node` and every subschema that `$ref` and `allOf` put in the same place."""
        if not isinstance(node, dict):
            return  # true and false have no type
        self.gathered += 1
        if self.gathered > MOST:  # weighed as less, for some of them contain themselves
            raise _too_much(self.name)
        yield at, node, trail
        ref = node.get("$ref")
        if isinstance(ref, str) and ref in trail:
            self.add(at, f"contains itself, through {ref!r}; a column cannot be recursive")
        elif isinstance(ref, str):
            yield from self.gather(ref, self.resolve(at, ref), trail | {ref})
        parts = node.get("allOf")
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from self.gather(f"{at}/allOf/{index}", part, trail)

    def resolve(self, at: str, ref: str) -> Any:
        """Return the target of a local reference; None, and a problem, if it has none."""
        if ref != "#" and not ref.startswith("#/"):
            self.add(f"{at}/$ref", f"{ref!r} is not local; only '#/…' can be followed")
            return None
        try:
            return follow(self.document, ref)
        except LookupError:
            self.add(f"{at}/$ref", f"{ref!r} points at nothing")
            return None

    def type_of(self, at: str, nodes: list[Located]) -> str | None:
        """Return the XDM type that all `nodes` declare; None, and a problem, if they differ."""
        known = len(self.problems)
        xdm, declared = set[str](), set[str]()
        for where, node, _ in nodes:
            if "meta:xdmType" in node:
                word = node["meta:xdmType"]
                xdm.add("number" if word == "double" else str(word))
            if "type" in node:
                names = node["type"] if isinstance(node["type"], list) else [node["type"]]
                words = {str(name) for name in names} - {"null"}
                declared |= words
                if len(words) != 1:
                    self.add(f"{where}/type", "must be one type, or one type and 'null'")
        for key, words, allowed in (
            ("meta:xdmType", xdm, list(JSON_TYPES)),
            ("type", declared, sorted({name for names in JSON_TYPES.values() for name in names})),
        ):
            for word in sorted(words - set(allowed)):
                self.add(at, f"has the unknown {key} {word!r}; known are {', '.join(allowed)}")
        if len(self.problems) > known:
            return None
        if len(xdm) > 1 or len(declared) > 1:
            self.add(at, f"is declared as {' and as '.join(sorted(declared | xdm))}")
            return None
        if not xdm:
            return self.json_type(at, nodes, next(iter(declared), None))
        kind = next(iter(xdm))
        if declared - set(JSON_TYPES[kind]):
            self.add(at, f"has type {'/'.join(declared)}, which meta:xdmType {kind!r} is not")
            return None
        return kind

    def json_type(self, at: str, nodes: list[Located], declared: str | None) -> str | None:
        """Return the XDM type of nodes that have a JSON Schema type only."""
        has_properties = any("properties" in node for _, node, _ in nodes)
        if declared is None and has_properties:
            return "object"
        if declared is None:
            self.add(at, "has no type")
        elif declared == "string":
            formats = [node.get("format") for _, node, _ in nodes]
            return next((kind for kind in ("date-time", "date") if kind in formats), "string")
        elif declared == "integer":
            bounds = [(node.get("minimum"), node.get("maximum")) for _, node, _ in nodes]
            return next((kind for pair, kind in _BOUNDS.items() if pair in bounds), "long")
        elif declared == "object" and not has_properties:
            values = any(isinstance(node.get("additionalProperties"), dict) for _, node, _ in nodes)
            return "map" if values else "object"
        return declared

    def survey(self) -> None:
        """Add the problems of all subschemas, also of those that are no column."""
        checkable = set(jsonschema_validator.format_checker().checkers)
        queue: list[tuple[str, Any]] = [("#", self.document)]
        seen: set[int] = set()
        while queue:
            at, node = queue.pop()
            if not isinstance(node, dict) or id(node) in seen:
                continue
            seen.add(id(node))
            for key in {"$dynamicRef", *(("$id", "$schema") if at != "#" else ())} & node.keys():
                self.add(f"{at}/{key}", "cannot be followed; write a local '$ref'")
            if isinstance(node.get("$ref"), str):
                queue.append((node["$ref"], self.resolve(at, node["$ref"])))
            self.regexes(at, node)
            form = node.get("format")
            if isinstance(form, str) and form not in checkable and id(node) not in self.dated:
                hint = "pip install 'jsonschema[format-nongpl]' checks more of them"
                self.add(f"{at}/format", f"the format {form!r} cannot be checked; {hint}")
            queue += [(f"{at}/{place}", child) for _, place, child in _subschemas(node)]

    def regexes(self, at: str, node: dict[str, Any]) -> None:
        """Add the problems of the regular expressions in `node` itself."""
        named = {f"{at}/pattern": node.get("pattern")}
        for key in _mapping(node.get("patternProperties")):
            named[f"{at}/patternProperties/{escape(key)}"] = key
        for where, pattern in named.items():
            if not isinstance(pattern, str):
                continue  # absent, or a problem that `meta_check` adds
            try:
                self.patterns.add(compiled(pattern))
            except PatternError as error:
                shown = pattern if len(pattern) <= 100 else f"{pattern[:100]}…"
                self.add(where, f"the regex {shown!r} cannot be used: {error}. {_INSTEAD}")
        if len(self.patterns) > COMPILED:
            self.add("#", f"has more than {COMPILED} different regexes; give it fewer")

    def meta_check(self) -> None:
        """Add what violates the meta-schema of JSON Schema 2020-12."""
        meta = jsonschema_validator.meta_validator()
        known = {where for where, _ in self.problems}  # already reported, in clearer words
        try:
            errors = list(jsonschema_validator.errors_of(meta, self.document))
        except RecursionError:
            raise _too_much(self.name) from None
        for error in errors:
            at = "/".join(["#", *(escape(str(part)) for part in error.absolute_path)])
            if not known & {at, at.removesuffix("/type")}:
                self.add(at, error.message[:200])


def _bound_nesting(name: str, document: object) -> None:
    level, levels = [document], 0
    while level := [inner for inner in level if isinstance(inner, (dict, list))]:
        levels += 1
        if levels > 3 * DEEPEST:
            raise _too_much(name)
        level = [
            child
            for inner in level
            for child in (inner.values() if isinstance(inner, dict) else inner)
        ]


def _too_much(name: str) -> InputError:
    return InputError(
        f"The schema {name} cannot be used: with what its references name, it has more than "
        f"{MOST:,} subschemas, or more than {DEEPEST} in one another."
    )


def _subschemas(node: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (keyword, JSON pointer from `node`, subschema) of the subschemas written in `node`."""
    yield from ((key, key, node[key]) for key in _SCHEMA_IN if key in node)
    for key in _SCHEMAS_UNDER:
        under = node.get(key)
        inside = enumerate(under) if isinstance(under, list) else _mapping(under).items()
        yield from ((key, f"{key}/{escape(str(name))}", child) for name, child in inside)


def follow(document: Any, ref: str) -> Any:
    """Return the target of a local reference, as "#/$defs/price"; LookupError without one."""
    found = document
    for part in ref.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal():
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found[key]
        else:
            raise LookupError(ref)
    return found


def escape(name: str) -> str:
    """Escape a name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
