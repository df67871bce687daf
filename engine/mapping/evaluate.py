"""Decoded records -> destination columns, as the rules of a mapping set say.

Pure: it knows no file, no Arrow and no cast. What no rule reads stays, under its own name (P3).
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson

from engine.mapping import mapping_set as mapping_rules
from engine.mapping.expression.frame import Frame
from engine.mapping.expression.values import date_text, milliseconds
from engine.mapping.mapping_set import Rule, Step, child_of
from engine.model.batch import KEYS, Batch
from engine.transform.moments import SECONDS_END, is_second, whole_second
from engine.transform.schema import Field, Schema

INEXACT = re.compile(rb"\d{17}|\d[eE]")  # in a line: numbers that orjson may round
LONG = 1 << 63  # where the integers end that a column can hold
Properties = dict[Any, Any]  # by name, and what expressions gave by the expression
Value = Callable[[Properties, Any, dict[str, bool]], Any]
"""(properties, event, used) -> a column's value.

It notes in `used` what it read whole: whether all that read it found a place for all of it.
"""


def parse(name: str, document: object, schema: Schema) -> "MappingSet":
    """The mapping set in `document`, made for `schema`; raises InputError listing all problems."""
    return MappingSet(mapping_rules.parse(name, document, schema), schema)


class MappingSet:
    """Rules, ready to be applied to batches.

    `destinations` holds the path of each of `batch.columns`, in order: of a leaf that one rule
    fills, or of an object, array or map that rules build. Values of the latter are dicts and lists
    shaped like the XDM field, or, where a source had another type, that very value. `groups` holds
    the rules that fill each of them.
    """

    def __init__(self, rules: list[Rule], schema: Schema) -> None:
        roots = {rule.root for rule in rules if not rule.plain}
        groups: dict[tuple[str, ...], list[Rule]] = {}
        for rule in rules:
            starts = (rule.root[:size] for size in range(1, len(rule.root)))
            root = next((start for start in starts if start in roots), rule.root)
            groups.setdefault(root, []).append(rule)
        self.rules = tuple(rules)
        self.destinations = tuple(groups)
        self.groups = tuple(groups.values())
        self._expressions = [
            (rule.source.expression, rule) for rule in rules if rule.source.expression
        ]
        self._reads_event = any(rule.source.is_event for rule in rules)
        self._now, self._seed = 0, b""
        readers = Counter(name for rule in rules for name in rule.source.names)
        self._texts: dict[int, str] = {}
        self._events: list[int] = []
        self._pops: dict[int, tuple[str, ...]] = {}
        self._values: dict[int, Value] = {}
        self._seconds = [n for n, group in enumerate(self.groups) if group[0].is_second]
        self._reads_second = any(rule.is_second for rule in rules)
        for index, (root, group) in enumerate(groups.items()):
            source = group[0].source
            if root in roots:
                field = schema.find(root)
                assert field
                self._values[index] = _built(field, len(root), group)
            elif source.text is not None:
                self._texts[index] = source.text
            elif source.is_event:
                self._events.append(index)
            elif source.inner or any(readers[name] > 1 for name in source.names):
                self._values[index] = _read(group[0])
            else:
                self._pops[index] = source.names

    def begin(self, now: int, seed: str) -> None:
        """Set what `now()` is from here on, in ms since the epoch, and what `uuid()` grows from."""
        self._now, self._seed = now, seed.encode()

    @property
    def key_columns(self) -> list[tuple[str, ...]]:
        """Where event, distinct_id, time and `$insert_id` stay as they came; empty if any does not.

        Of a record that has `insert_id` besides, or `distinct_id` as a number, they may not.
        """
        plain = [rule for rule in self.rules if rule.plain and not rule.source.inner]

        def holding(key: str, kind: str) -> tuple[str, ...] | None:
            reading = (rule for rule in plain if key in rule.source.names)
            return next((rule.root for rule in reading if rule.field.type == kind), None)

        found = [
            next((rule.root for rule in plain if rule.source.is_event), None),
            holding("distinct_id", "string"),
            holding("time", "long"),
            holding("$insert_id", "string"),
        ]
        columns = [root for root in found if root]
        return columns if len(columns) == len(found) else []

    @property
    def moment_columns(self) -> list[tuple[str, ...]]:
        """As `key_columns`, and where `mp_processing_time_ms` stays; empty if any does not."""
        plain = (rule for rule in self.rules if rule.plain and not rule.source.inner)
        found = (rule.root for rule in plain if "mp_processing_time_ms" in rule.source.names)
        moment, keys = next(found, None), self.key_columns
        return [*keys, moment] if keys and moment else []

    def apply(self, batch: Batch) -> None:
        """Fills `columns`, `rest` and `keys` of a batch of decoded `records`.

        `rest` takes over the records' own `properties`, less those that a rule read whole; one that
        a rule read a part of stays. What else a record holds, and its event's name if no rule
        reads it, is kept there as `$record`.
        """
        records = batch.records
        rest: list[Properties] = [record["properties"] for record in records]
        events = [record["event"] for record in records]
        besides = self._besides(records)
        # One look at the names in the batch spares a look for two names in every record.
        batch.names = present = set[str]().union(*rest)
        computed = self._compute(batch, rest, events)
        pops = {
            index: [name for name in names if name in present or name in computed]
            for index, names in self._pops.items()
        }
        popped = {names[0]: index for index, names in pops.items() if len(names) == 1}
        keys = {key: [p.get(key) for p in rest] for key in KEYS if key not in popped}
        columns: list[list[Any]] = [[] for _ in self.destinations]
        for index, text in self._texts.items():
            columns[index] = [text] * len(rest)
        for index in self._events:
            columns[index] = events.copy()
        if self._values:
            self._evaluate(rest, events, columns)
        for index, names in pops.items():
            columns[index] = (_pop_seconds if index in self._seconds else _pop)(rest, names)
        for properties in rest if computed else ():
            for expression in computed:
                properties.pop(expression, None)
        keys |= {key: columns[popped[key]].copy() for key in KEYS if key in popped}
        if self._reads_second and not _are_seconds(keys["time"]):
            keys["time"] = [_key_of(time) for time in keys["time"]]
        for row, name, kept in besides:
            rest[row][name] = kept  # P3
        batch.columns, batch.rest = columns, rest
        batch.keys = [events, *(keys[key] for key in KEYS)]

    def _compute(self, batch: Batch, rest: list[Properties], events: list[Any]) -> set[Any]:
        """Put the value of each expression into each record, under the expression; which they are.

        What an expression reads stays in the record: its value is another one (P3).
        """
        if not self._expressions:
            return set()
        lines = list(batch.lines)
        known: dict[Any, Any] = {}
        results = []
        for expression, rule in self._expressions:
            seed = self._seed + b"\0" + repr(rule.path).encode()
            frame = Frame(rest, events, lines, self._now, seed, known=known)
            values = expression.column(frame)
            results.append((expression, [_landed(rule.field, value) for value in values]))
        for expression, values in results:
            for properties, value in zip(rest, values, strict=True):
                properties[expression] = value
        return {expression for expression, _ in self._expressions}

    def _besides(self, records: list[dict[str, Any]]) -> list[tuple[int, str, dict[str, Any]]]:
        """(row, a free name, what is kept under it), looked at before anything is taken out."""
        if self._reads_event and set(map(len, records)) <= {2}:
            return []
        mapped = {"properties", "event"} if self._reads_event else {"properties"}
        return [
            (row, _free(record["properties"]), kept)
            for row, record in enumerate(records)
            if (kept := {key: record[key] for key in record if key not in mapped})
        ]

    def _evaluate(
        self, rest: list[Properties], events: list[Any], columns: list[list[Any]]
    ) -> None:
        """The columns that take more than popping a property that no other rule reads."""
        values = [(value, columns[index].append) for index, value in self._values.items()]
        for properties, event in zip(rest, events, strict=True):
            used: dict[str, bool] = {}
            for value, append in values:
                append(value(properties, event, used))
            for name, placed in used.items():
                if placed:  # else it stays: what one column holds, another may have lost (P3)
                    del properties[name]

    def restore(self, batch: Batch, row: int, column: int) -> None:
        """Puts what `column` used of the record at `row` back into its `rest`, under its own name.

        A column that is one property has it still. Else the line is decoded once more, exactly,
        since `apply` may have taken the record apart (P3). Doing it again changes nothing.
        """
        names = [name for name in self._pops.get(column, ()) if name in batch.names]
        second = column in self._seconds  # of which the column may have no more
        if len(names) == 1 and not second and (value := batch.columns[column][row]) is not None:
            batch.rest[row][names[0]] = value
            return
        record = decoded(batch.lines[row])
        properties, rest = record["properties"], batch.rest[row]
        for rule in self.groups[column]:
            name = rule.source.name_in(properties)
            if name is not None:
                rest[name] = properties[name]
            elif rule.source.is_event:
                rest.setdefault(_free(properties), {})["event"] = record["event"]


def decoded(line: bytes) -> Any:
    """The record in `line`, every number and text in it as it came."""
    if not INEXACT.search(line):
        with suppress(orjson.JSONDecodeError):  # half a surrogate pair
            return orjson.loads(line)
    try:
        return json.loads(line)
    except RecursionError:  # orjson nests deeper
        return orjson.loads(line)


def _landed(field: Field, value: Any) -> Any:
    """An expression's value with its dates in the form that the field's cast takes."""
    if isinstance(value, datetime):
        is_text = field.type == "string"
        return date_text(value) if is_text else milliseconds(value)
    if isinstance(value, list):
        items = field.items if field.type == "array" and field.items else field
        return [_landed(items, each) for each in value]
    if isinstance(value, dict):
        return {name: _landed(child_of(field, name) or field, each) for name, each in value.items()}
    return value


def _free(properties: Properties) -> str:
    """`$record`, with as many more `$` as it takes to be no property's name."""
    name = "$record"
    while name in properties:
        name = f"${name}"
    return name


def _pop(rest: list[Properties], names: list[str]) -> list[Any]:
    """The first of the (two at most) `names` in each record, taken out; None where none is."""
    if not names:
        return [None] * len(rest)
    first, last = names[0], names[-1]
    if first == last:
        return [properties.pop(first, None) for properties in rest]
    return [p.pop(first) if first in p else p.pop(last, None) for p in rest]


def _are_seconds(times: list[Any]) -> bool:
    """Whether all of the times are integers of seconds, as Mixpanel exports them."""
    return set(map(type, times)) == {int} and max(times) <= SECONDS_END


def _second(time: Any) -> tuple[Any, bool]:
    """The second of a raw `time`, and whether that is all of it.

    What is no moment stays as it is, for the cast to refuse; so does what the cast takes whole.
    """
    second = whole_second(time)
    exact = second is None or is_second(time) or not -LONG <= second < LONG
    return (time if exact else second), exact


def _key_of(time: Any) -> Any:
    """A raw `time` as a part of the key: its second, as the table has it (P4)."""
    second = whole_second(time)
    return time if second is None else second


def _pop_seconds(rest: list[Properties], names: list[str]) -> list[Any]:
    """As `_pop`, for the event's `time`: its second; what is more than that stays (P3)."""
    if names and _are_seconds([properties.get(names[0]) for properties in rest]):
        return _pop(rest, names)
    seconds = []
    for properties in rest:
        name = next((name for name in names if name in properties), None)
        second, exact = _second(properties[name]) if name is not None else (None, True)
        if name is not None and exact:
            del properties[name]
        seconds.append(second)
    return seconds


def _read(rule: Rule) -> Value:
    """The value of a plain column. A part of a property does not use it up (P3)."""
    source = rule.source

    def whole(properties: Properties, _event: Any, used: dict[str, bool]) -> Any:
        name = source.name_in(properties)
        if name is None:
            return None
        value, exact = _second(properties[name]) if rule.is_second else (properties[name], True)
        used[name] = exact and used.get(name, True)
        return value

    def part(properties: Properties, _event: Any, _used: dict[str, bool]) -> Any:
        name = source.name_in(properties)
        value = properties[name] if name is not None else None
        for step in source.inner:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    return part if source.inner else whole


def _built(field: Field, depth: int, rules: list[Rule]) -> Value:
    """The value of a column that `rules` build together; `depth` steps lead to its `field`.

    Longer destinations come first: an attribute's own rule wins over an object copied around it.
    """
    ordered = sorted(rules, key=lambda rule: -len(rule.path))
    plans = [(rule, rule.path[depth:], _wrapper(rule)) for rule in ordered]

    def value(properties: Properties, event: Any, used: dict[str, bool]) -> Any:
        built = None
        for rule, path, wrapper in plans:
            source, whole = rule.source, True
            name = source.name_in(properties)
            if name is not None:
                outer = properties[name]
            elif source.names:
                continue
            else:
                outer = event if source.is_event else source.text
            if rule.is_second:
                outer, whole = _second(outer)
            for positions, found in _inside(outer, source.inner):
                wraps = wrapper and found is not None and not isinstance(found, dict)
                inner = {wrapper: found} if wraps else found
                built, fitted = _put(field, built, _at(path, positions), inner)
                whole = whole and fitted
            if name is not None and not source.inner:
                used[name] = whole and used.get(name, True)
        return built

    return value


def _wrapper(rule: Rule) -> str | None:
    """The name that a value read along `[*]` gets in an object that has such an attribute.

    Data Prep's own example: `emails[*].name` into the objects `pi[*].names` makes
    `{"names": {"name": …}}`.
    """
    if None not in rule.source.inner or rule.field.type != "object":
        return None
    last = rule.source.inner[-1]
    return last if isinstance(last, str) and child_of(rule.field, last) else None


def _at(path: tuple[Step, ...], positions: tuple[int, ...]) -> list[str | int]:
    """`path` with its `[*]` replaced by `positions`."""
    given = iter(positions)
    return [next(given) if step is None else step for step in path]


def _inside(value: Any, path: tuple[Step, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(positions that its `[*]` stand for, value) of all that is at `path` in `value`.

    A list's element without the last of it counts as None, so that the others keep their places.
    """
    if not path:
        yield (), value
        return
    step, after = path[0], path[1:]
    if step is None:
        for index, element in enumerate(value if isinstance(value, list) else ()):
            found = list(_inside(element, after))
            if not found and None not in after:
                found = [((), None)]
            for positions, inner in found:
                yield (index, *positions), inner
    elif isinstance(step, str) and isinstance(value, dict):
        if step in value:
            yield from _inside(value[step], after)
    elif isinstance(step, int) and isinstance(value, list) and step < len(value):
        yield from _inside(value[step], after)


def _put(field: Field, old: Any, path: list[str | int], value: Any) -> tuple[Any, bool]:
    """`old` with `value` at `path` inside it, and whether all of `value` found its place.

    What there is on the way was put there by paths as long or longer: never a scalar.
    """
    if not path:
        return _fill(field, old, value)
    step, after = path[0], path[1:]
    child = child_of(field, step)
    assert child
    if isinstance(step, str):
        named: dict[str, Any] = {} if old is None else old
        named[step], whole = _put(child, named.get(step), after, value)
        return named, whole
    listed: list[Any] = [] if old is None else old
    listed += [None] * (step + 1 - len(listed))
    listed[step], whole = _put(child, listed[step], after, value)
    return listed, whole


def _fill(field: Field, old: Any, value: Any) -> tuple[Any, bool]:
    """`old`, filled up from `value`, and whether all of `value` is there now.

    Copying an object takes the attributes that the schema's object has too, at every level.
    """
    if value is None:
        return old, True
    if field.type in ("object", "map") and isinstance(value, dict):
        if old is not None and not isinstance(old, dict):
            return old, False
        filled, whole = old or {}, True
        for name, inner in value.items():
            child = child_of(field, name)
            if child is None:
                whole = False
            else:
                filled[name], fitted = _fill(child, filled.get(name), inner)
                whole = whole and fitted
        return filled, whole
    if old is not None:
        return old, False
    if field.type == "array" and isinstance(value, list) and field.items:
        elements = [_fill(field.items, None, inner) for inner in value]
        return [element for element, _ in elements], all(fitted for _, fitted in elements)
    return value, True
