"""Validate the rows of an Arrow batch against the schema, and reject the invalid ones.

Columns are tested as a whole where that suffices; jsonschema judges every row that fails such a
test, so that each violation is one of jsonschema's.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import partial
from operator import ge, gt, le, lt
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.model.batch import INVALID, REQUIRED, Batch, Reject
from engine.transform import jsonschema_validator
from engine.transform.patterns import compiled
from engine.transform.schema import Field, Schema, escape, follow

Path = tuple[str, ...]
Violation = dict[str, Any]
Refused = Callable[[Batch, int], dict[tuple[str | int, ...], str]]
Mask = npt.NDArray[np.bool_]

LONGEST_VALUE = 200  # characters of a value that a message shows
LONGEST_MESSAGE = 1000

NUMERIC = ("number", "long", "int", "short", "byte")
# A value x is within a limit if compare(limit, x). True of two values: true of all between them.
BOUNDS = {"minimum": le, "exclusiveMinimum": lt, "maximum": ge, "exclusiveMaximum": gt}
LENGTHS = {"minLength": le, "maxLength": ge}
# A value of each type as JSON: JSON Schema's `type` gives the same result for every other value.
SAMPLES: dict[str, Any] = {
    **dict.fromkeys(("string", "date", "date-time"), ""),
    **dict.fromkeys(("long", "int", "short", "byte"), 1),
    "number": 0.5,
    "boolean": True,
    "array": [],
    "object": {},
    "map": {},
}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """The checks of one column that is no object.

    A value that passes `bounds` (of itself, or of its length) and `tests` is valid; for any other
    value `errors` returns the violations that jsonschema finds.
    """

    field: Field
    path: Path
    errors: Callable[[Any], tuple[Violation, ...]]
    bounds: list[Callable[[Any], bool]] = attribute(default_factory=list)
    tests: list[Callable[[Any], object]] = attribute(default_factory=list)

    def bad_rows(self, array: Any) -> dict[int, tuple[Violation, ...]]:
        """Return the violations of each invalid row."""
        if array.null_count == len(array) or (not self.tests and self._within(array)):
            return {}
        if self.field.items:
            return {row: found for row, v in _present_values(array) if (found := self.errors(v))}
        distinct = array.unique().to_pylist()
        wrong = {v: e for v in distinct if not self._passes(v) and (e := self.errors(v))}
        return {row: wrong[v] for row, v in _present_values(array) if v in wrong} if wrong else {}

    def _within(self, array: Any) -> bool:
        sizes = pc.utf8_length(array) if self.field.type == "string" else array
        low, high = pc.min_max(sizes).as_py().values()
        return all(holds(low) and holds(high) for holds in self.bounds)

    def _passes(self, value: Any) -> bool:
        if value is None:
            return True
        size = len(value) if self.field.type == "string" else value
        return all(holds(size) for holds in self.bounds) and all(t(value) for t in self.tests)


class Checker:
    """Validates the rows of a batch against a schema, with the same results as jsonschema.

    The instance of a row is its columns as JSON: nulls are left out, and so is an object without
    any field (unless it is an element of an array or a map); dates and times are RFC 3339 texts.
    """

    def __init__(self, schema: Schema, refused: Refused | None = None) -> None:
        """Compile a schema; `refused` returns the failed casts of a row, by their places."""
        self._refused = refused
        self._root = schema.root
        self._document = schema.document
        self._formats = jsonschema_validator.format_checker()
        self._validator = jsonschema_validator.validator(schema.document)
        self._keywords = frozenset(self._validator.VALIDATORS)
        self._required: list[tuple[Path, str, Violation]] = []
        self._whole: set[Path] = set()  # objects whose rows jsonschema judges, where present
        self._leaves: list[_Leaf] = []
        self._compile(schema.document, schema.root, (), ())

    def check(self, batch: Batch) -> None:
        """Drop invalid rows from every list of a batch, and add a reject for each."""
        table = batch.table
        if not table:
            return
        if not (found := self._violations(table)):
            return
        uncast = batch.uncast.intersection(found)
        batch.uncast.difference_update(found)
        batch.clamped.difference_update(found)
        verdicts: dict[tuple[int, ...], Reject] = {}  # many rows have the same violations
        for row in sorted(found):
            if self._refused and row in uncast:
                violations = _with_failed_casts(found[row], self._refused(batch, row))
                batch.rejects.append(_reject(violations).of(batch.lines[row]))
                continue
            which = tuple(map(id, found[row]))
            if which not in verdicts:
                verdicts[which] = _reject(found[row])
            batch.rejects.append(verdicts[which].of(batch.lines[row]))
        batch.rejected = sorted(found)
        keep = np.ones(len(table), bool)
        keep[list(found)] = False
        batch.keep(keep)

    def _violations(self, table: Any) -> dict[int, list[Violation]]:
        """Return the violations of each invalid row."""
        found: dict[int, list[Violation]] = {}
        for path, name, violation in self._required:
            for row in np.flatnonzero(self._missing(table, path, name)).tolist():
                found.setdefault(row, []).append(violation)
        for leaf in self._leaves:
            for row, violations in leaf.bad_rows(_column(table, self._root, leaf.path)).items():
                found.setdefault(row, []).extend(violations)
        if self._whole:
            doubted = np.logical_or.reduce([self._present(table, p) for p in self._whole])
            records = table.select([top.name for top in self._root.fields])
            records = records.filter(pa.array(doubted)).to_pylist()
            for row, record in zip(np.flatnonzero(doubted).tolist(), records, strict=True):
                errors = jsonschema_validator.errors_of(
                    self._validator, instance(self._root, record) or {}
                )
                if violations := _described(errors):
                    found[row] = list(violations)  # include those that the columns found
        return found

    def _present(self, table: Any, path: Path) -> Mask:
        """Return the mask of rows that have a value at `path`; every row has the root."""
        present = np.full(len(table), not path)
        for leaf in _leaves(_find(self._root, path), path) if path else ():
            array = _column(table, self._root, leaf)
            if not array.null_count:
                return np.ones(len(table), bool)
            present |= array.is_valid().to_numpy(zero_copy_only=False)
        return present

    def _missing(self, table: Any, path: Path, name: str) -> Mask:
        """Return the mask of rows whose object at `path` lacks its member `name`."""
        has = any(child.name == name for child in _find(self._root, path).fields)
        lacks = ~self._present(table, (*path, name)) if has else np.ones(len(table), bool)
        return lacks & self._present(table, path) if lacks.any() else lacks

    def _assertions(self, node: Any, where: Path = ()) -> Iterator[tuple[Path, str, Any]]:
        """Yield the place, the keyword and its value of each assertion in a schema.

        `$ref` and `allOf` are followed. Keywords that jsonschema lacks, as `title`, assert nothing.
        """
        if not isinstance(node, dict):
            yield from () if node else [(where, "false", None)]
            return
        for key, value in node.items():
            if key == "$ref":  # jsonschema leaves it out of a schema path
                yield from self._assertions(follow(self._document, value), where)
            elif key == "allOf":
                for index, part in enumerate(value):
                    yield from self._assertions(part, (*where, key, str(index)))
            elif key in self._keywords:
                yield where, key, value

    def _compile(self, node: Any, at: Field, path: Path, place: Path) -> None:
        """Compile the assertions of `node`, at `place` in the schema, on the object `at`."""
        for where, key, value in self._assertions(node, place):
            if key == "properties":
                for child in at.fields:
                    if child.name in value:
                        inner = (*where, key, child.name)
                        self._member(value[child.name], child, (*path, child.name), inner)
            elif key == "required":
                for name in dict.fromkeys(value):
                    violation = {
                        "keyword": key,
                        "message": _missing_message(name),
                        "pointerToViolation": _pointer("#", *path),
                        "schemaLocation": _pointer("#", *where, key),
                    }
                    self._required.append((path, name, violation))
            elif not self._certain(at, key, value):
                self._whole.add(path)

    def _member(self, node: Any, at: Field, path: Path, where: Path) -> None:
        """Compile the assertions of `node`, at `where` in the schema, on the field `at`."""
        if at.type == "object":
            self._compile(node, at, path, where)
            return
        if node is False:  # jsonschema's error for it has no path
            self._whole.add(path)
            return
        judge = self._validator.evolve(schema=node)
        pointer, location = _pointer("#", *path), _pointer("#", *where)

        def errors(value: Any) -> tuple[Violation, ...]:
            return _described(
                jsonschema_validator.errors_of(judge, instance(at, value)), pointer, location
            )

        leaf = _Leaf(at, path, errors)
        for key, limit in self._constraints(at, node):
            if key in BOUNDS and at.type in NUMERIC:
                leaf.bounds.append(partial(BOUNDS[key], limit))
            elif key in LENGTHS and at.type == "string":
                leaf.bounds.append(partial(LENGTHS[key], limit))
            else:
                leaf.tests.append(self._test(at, key, limit))
        if leaf.bounds or leaf.tests:
            self._leaves.append(leaf)

    def _test(self, at: Field, key: str, limit: Any) -> Callable[[Any], object]:
        """Return a fast test that no value passes which jsonschema refuses."""
        types = (str,) if at.type == "string" else (int, float) if at.type in NUMERIC else ()
        if key in ("enum", "const") and types:
            allowed = limit if key == "enum" else [limit]
            return frozenset(v for v in allowed if type(v) in types).__contains__
        if key == "pattern" and at.type == "string":
            return compiled(limit).found_in
        if key == "format" and at.type == "string":
            return partial(self._formats.conforms, format=limit)
        return lambda value: False

    def _constraints(self, at: Field, node: Any) -> Iterator[tuple[str, Any]]:
        """Yield the assertions of `node` that a value of the field `at` can violate."""
        for _, key, value in self._assertions(node):
            if not self._certain(at, key, value):
                yield key, value

    def _certain(self, at: Field, key: str, value: Any) -> bool:
        """Return whether every value of the field `at` meets an assertion, by its type alone."""
        if key == "type":
            names = [value] if isinstance(value, str) else value
            return any(self._validator.is_type(SAMPLES[at.type], name) for name in names)
        if key == "format":
            return bool(value == at.type)
        if key == {"array": "items", "map": "additionalProperties"}.get(at.type):
            assert at.items
            return not any(self._constraints(at.items, value))
        if key == "properties" and at.type == "object":
            inner = [(child, value[child.name]) for child in at.fields if child.name in value]
            return not any(any(self._constraints(child, node)) for child, node in inner)
        return False


def instance(at: Field, value: Any, *, element: bool = False) -> Any:
    """Return a value of Arrow's as JSON; None where the JSON leaves it out."""
    if value is None or not (at.fields or at.items or at.type.startswith("date")):
        return value
    if at.type == "object":
        pairs = ((child.name, instance(child, value[child.name])) for child in at.fields)
        members = {name: inner for name, inner in pairs if inner is not None}
        return members if members or element else None
    if at.items and at.type == "array":
        return [instance(at.items, inner, element=True) for inner in value if inner is not None]
    if at.items:
        return {k: instance(at.items, v, element=True) for k, v in value if v is not None}
    if at.type == "date":
        return value.isoformat()
    precision = "milliseconds" if value.microsecond else "seconds"
    return value.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _missing_message(name: object) -> str:  # jsonschema's
    return f"{name!r} is a required property"


def _with_failed_casts(
    violations: list[Violation], refused: dict[tuple[str | int, ...], str]
) -> list[Violation]:
    """Replace a missing member that a failed cast explains by that failed cast (P3)."""
    reasons: dict[tuple[str, str], Violation] = {}
    for place, message in refused.items():
        reason = {
            "keyword": "type",
            "message": message,
            "pointerToViolation": _pointer("#", *place),
        }
        for depth, name in enumerate(place):
            missing = _pointer("#", *place[:depth]), _missing_message(name)
            reasons.setdefault(missing, reason)
    result = []
    for violation in violations:
        missing = violation["pointerToViolation"], violation["message"]
        if violation["keyword"] == "required" and missing in reasons:
            violation = reasons[missing] | {"schemaLocation": violation["schemaLocation"]}
        result.append(violation)
    return result


def _reject(violations: list[Violation]) -> Reject:
    first, more = violations[0], len(violations) - 1
    others = f" (and {more} more)" if more else ""
    return Reject(
        stage="check",
        code=REQUIRED if any(v["keyword"] == "required" for v in violations) else INVALID,
        message=f"{first['pointerToViolation']}: {first['message']}{others}",
        raw=b"",
        violations=tuple(violations),
    )


def _described(
    errors: Iterable[Any], pointer: str = "#", location: str = "#"
) -> tuple[Violation, ...]:
    """Return jsonschema's errors as violations, for an instance and a schema at these pointers."""
    return tuple(
        {
            "keyword": error.validator,
            "message": _short(error.message, error.instance),
            "pointerToViolation": _pointer(pointer, *error.absolute_path),
            "schemaLocation": _pointer(location, *error.absolute_schema_path),
        }
        for error in errors
    )


def _short(message: str, value: Any) -> str:
    """Shorten a message of jsonschema's, and the value at its start."""
    text = repr(value)
    if len(text) > LONGEST_VALUE and message.startswith(text):
        message = f"{text[:LONGEST_VALUE]}…{message[len(text) :]}"
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"


def _pointer(start: str, *parts: object) -> str:
    return "/".join([start, *(escape(str(part)) for part in parts)])


def _present_values(array: Any) -> Iterator[tuple[int, Any]]:
    return ((row, value) for row, value in enumerate(array.to_pylist()) if value is not None)


def _find(root: Field, path: Path) -> Field:
    for name in path:
        root = next(child for child in root.fields if child.name == name)
    return root


def _leaves(at: Field, path: Path) -> Iterator[Path]:
    if at.type != "object":
        yield path
    for child in at.fields:
        yield from _leaves(child, (*path, child.name))


def _column(table: Any, root: Field, path: Path) -> Any:
    """Return the array at `path`. Struct arrays have no nulls of their own here."""
    array = table.column(path[0])
    for name in path[1:]:
        array = array.field(name)
    return array
