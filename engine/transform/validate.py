"""An Arrow batch to its rows that keep the schema, and a reject for each row that does not.

Columns decide what a column can decide; jsonschema is the referee of every row that they doubt, so
that the verdict is always its own. It knows neither how a row came to be nor where it goes.
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
# A value x is within the limit if compare(limit, x); true of both ends, it is true of all between.
BOUNDS = {"minimum": le, "exclusiveMinimum": lt, "maximum": ge, "exclusiveMaximum": gt}
LENGTHS = {"minLength": le, "maxLength": ge}
# A value of each type as the instance has it: JSON Schema's `type` can tell no two of them apart.
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
    """What the schema says of one column that is no object.

    A value that passes `bounds` (of it, or of its length) and `tests` is right for certain; of
    any other, `errors` tells what jsonschema has against it.
    """

    field: Field
    path: Path
    errors: Callable[[Any], tuple[Violation, ...]]
    bounds: list[Callable[[Any], bool]] = attribute(default_factory=list)
    tests: list[Callable[[Any], object]] = attribute(default_factory=list)

    def bad_rows(self, array: Any) -> dict[int, tuple[Violation, ...]]:
        """The violations of each row that has any."""
        if array.null_count == len(array) or (not self.tests and self._within(array)):
            return {}
        if self.field.items:
            judged = ((row, self.errors(v)) for row, v in _present_values(array))
            return {row: found for row, found in judged if found}
        distinct = array.unique().to_pylist()
        wrong = {v: e for v in distinct if not self._passes(v) and (e := self.errors(v))}
        if not wrong:
            return {}
        return {row: wrong[v] for row, v in _present_values(array) if v in wrong}

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
    """Holds the rows of a batch against a schema, exactly as jsonschema would.

    The instance of a row is its columns as JSON: nulls are absent, and so is an object without
    any field (unless an array or a map holds it); dates and times are text as RFC 3339 has it.
    """

    def __init__(self, schema: Schema, refused: Refused | None = None) -> None:
        """Make ready to check against `schema`; `refused` tells what no cast of a row took."""
        self._refused = refused
        self._root = schema.root
        self._document = schema.document
        self._formats = jsonschema_validator.format_checker()
        self._validator = jsonschema_validator.validator(schema.document)
        self._keywords = frozenset(self._validator.VALIDATORS)
        self._required: list[tuple[Path, str, Violation]] = []
        self._whole: set[Path] = set()  # what to call the referee for, wherever it is present
        self._leaves: list[_Leaf] = []
        self._compile(schema.document, schema.root, (), ())

    def check(self, batch: Batch) -> None:
        """Drop the rows that break the schema from every list of `batch` and add their rejects."""
        table = batch.table
        if not table:
            return
        found = self._violations(table)
        if not found:
            return
        uncast = batch.uncast.intersection(found)
        batch.uncast.difference_update(found)
        batch.clamped.difference_update(found)
        verdicts: dict[tuple[int, ...], Reject] = {}  # what is wrong is wrong with many
        for row in sorted(found):
            if self._refused and row in uncast:
                violations = _told(found[row], self._refused(batch, row))
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
        """What is wrong, a list for each row where anything is."""
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
                    found[row] = list(violations)  # what the columns found is among them
        return found

    def _present(self, table: Any, path: Path) -> Mask:
        """The rows that have the object or value at `path`; the record itself is always there."""
        present = np.full(len(table), not path)
        for leaf in _leaves(_find(self._root, path), path) if path else ():
            array = _column(table, self._root, leaf)
            if not array.null_count:
                return np.ones(len(table), bool)
            present |= array.is_valid().to_numpy(zero_copy_only=False)
        return present

    def _missing(self, table: Any, path: Path, name: str) -> Mask:
        """The rows whose object at `path` is there without its member `name`."""
        has = any(child.name == name for child in _find(self._root, path).fields)
        lacks = ~self._present(table, (*path, name)) if has else np.ones(len(table), bool)
        return lacks & self._present(table, path) if lacks.any() else lacks

    def _assertions(self, node: Any, where: Path = ()) -> Iterator[tuple[Path, str, Any]]:
        """Each keyword that says something of an instance, and where, through `$ref` and `allOf`.

        What jsonschema has no keyword for, such as `title` or `meta:…`, says nothing.
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
        """Sort what `node`, at `place` in the schema, says of the object `at`."""
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
        """Sort what `node` says of the field `at`."""
        if at.type == "object":
            self._compile(node, at, path, where)
            return
        if node is False:  # of which jsonschema tells no path
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
        """A cheap test that only a value which jsonschema accepts can pass."""
        allowed = limit if key == "enum" else [limit]
        if key in ("enum", "const") and at.type == "string":
            return frozenset(v for v in allowed if type(v) is str).__contains__
        if key in ("enum", "const") and at.type in NUMERIC:
            return frozenset(v for v in allowed if type(v) in (int, float)).__contains__
        if key == "pattern" and at.type == "string":
            return compiled(limit).found_in
        if key == "format" and at.type == "string":
            return partial(self._formats.conforms, format=limit)
        return lambda value: False

    def _constraints(self, at: Field, node: Any) -> Iterator[tuple[str, Any]]:
        """The keywords of `node` that some value of the field `at` may break."""
        for _, key, value in self._assertions(node):
            if not self._certain(at, key, value):
                yield key, value

    def _certain(self, at: Field, key: str, value: Any) -> bool:
        """Whether every value of the field `at` keeps the keyword, by its type alone."""
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
    """`value`, as Arrow gives it to Python, as JSON; None for what JSON leaves out."""
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


def _missing_message(name: object) -> str:
    """What jsonschema says of a required member that is not there."""
    return f"{name!r} is a required property"


def _told(
    violations: list[Violation], refused: dict[tuple[str | int, ...], str]
) -> list[Violation]:
    """The violations, with the failed cast in place of what is only missing for it (P3)."""
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
    told = []
    for violation in violations:
        missing = violation["pointerToViolation"], violation["message"]
        if violation["keyword"] == "required" and missing in reasons:
            violation = reasons[missing] | {"schemaLocation": violation["schemaLocation"]}
        told.append(violation)
    return told


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
    """jsonschema's errors as violations, for an instance at `pointer`, a schema at `location`."""
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
    """`message` with the text of the value that it begins with cut to size."""
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
    """The paths of the columns that make up the field `at`."""
    if at.type != "object":
        yield path
    for child in at.fields:
        yield from _leaves(child, (*path, child.name))


def _column(table: Any, root: Field, path: Path) -> Any:
    """The array at `path`; an object on the way is always valid, so it hides no null."""
    array = table.column(path[0])
    for name in path[1:]:
        array = array.field(name)
    return array
