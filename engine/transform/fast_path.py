"""A block of lines -> Arrow in a few steps, where that loses nothing.

Most blocks of most exports hold plain events: properties that a rule moves whole, of the type of
their column, and properties that no rule reads. msgspec reads such a block into structs with
exactly those fields, at a third of the cost of decoding, mapping and building its records. It is
strict about what would be lost: no JSON, a property that nobody declared, a value of another type,
half a surrogate pair. That a key occurs twice it would not tell, so the keys are counted. Whatever
is in doubt is declined, and goes the plain way; the rows are the same.
"""

import gc
import re
import sys
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from engine.model.batch import KEYS, Batch, Lines, split
from engine.transform.exact_json import (
    Integers,
    each_line,
    ends_of_objects,
    has_huge_number,
    has_keys_once,
    key_colons,
    loads_exact,
)
from engine.transform.moments import SECONDS_END
from engine.transform.schema import Field

if TYPE_CHECKING:
    from engine.mapping.mapping_set import Rule

# The type that a value must have in JSON, and that of its column. A double's may be an integer as
# well, which Arrow refuses if it would have to round it; dates come as texts.
TYPES: dict[str, tuple[Any, Any]] = {
    "string": (str, pa.string()),
    "long": (int, pa.int64()),
    "int": (int, pa.int32()),
    "short": (int, pa.int16()),
    "byte": (int, pa.int8()),
    "boolean": (bool, pa.bool_()),
    "number": (int | float, pa.float64()),
    "date": (str, pa.string()),
    "date-time": (str, pa.string()),
}
# Texts of these lengths are cast by Arrow as by `columns.moment`, unless it refuses them:
# 2024-01-31, 2024-01-31T13:30:00Z, 2024-01-31T13:30:00.000Z, 2024-01-31T13:30:00+0530.
# What is outside the years 1 to 9999, by its offset, goes the plain way.
FIRST_DAY, END_DAY, DAY = -719_162, 2_932_897, 86_400_000  # since the epoch; ms
DATES = {
    "date": ((10,), pa.date32(), np.int32, FIRST_DAY, END_DAY),
    "date-time": ((20, 24), pa.timestamp("ms", "UTC"), np.int64, FIRST_DAY * DAY, END_DAY * DAY),
}
UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
MOST_NAMES = 1000  # properties of one struct; a row takes a pointer for each
LONGEST_PAUSE = 64  # blocks

COLON = re.compile('(?:^|[\x00-"]):')  # in a name, what `key_colons` takes for the end of a key

Arrays = list[Any]


class _Form(NamedTuple):
    """How to read a block: what its structs hold, and where that goes.

    decode   a block to its structs
    one      a line to its struct
    row      of a struct, the values of the properties that rules read
    clear    puts the default back in their place, in each struct
    reads    those properties, each with its rule
    type     an Arrow struct of them all
    unread   how many properties there are besides, that no rule reads
    nothing  the default of these: what one holds that did not come
    """

    decode: Callable[[bytes], list[Any]]
    one: Callable[[bytes], Any]
    row: Callable[[Any], tuple[Any, ...]]
    clear: Callable[[list[Any]], None]
    reads: "list[tuple[str, Rule]]"
    type: Any
    unread: int
    nothing: Any


class Direct:
    """The short way for blocks that `rules` map whole; `destinations` as in `batch.columns`.

    `learn` tells it which property names occur, from blocks that went the plain way. A block that
    had to be declined costs a try: so after each one it pauses, longer every time.
    """

    def __init__(
        self,
        rules: "Sequence[Rule]",
        destinations: Sequence[tuple[str, ...]],
        *,
        keep_unmapped: bool,
    ) -> None:
        self._rules = [rule for rule in rules if rule.source.names]
        self._without_property = [rule for rule in rules if not rule.source.names]
        events = any(rule.source.is_event for rule in rules)
        self._able = events and len(rules) == len(destinations) and all(map(_is_plain, rules))
        self._destinations = list(destinations)
        self._keep = keep_unmapped
        self.known: frozenset[str] = frozenset()
        self._form: _Form | None = None
        self._stale = False  # whether more is known than `_form` was made for
        self._pause = self._resting = 0

    def __getstate__(self) -> dict[str, Any]:
        """Another process has to learn for itself: a decoder cannot be sent."""
        return self.__dict__ | {"known": frozenset(), "_form": None, "_stale": False}

    def learn(self, names: Set[str]) -> None:
        """Get to know the property names of a batch that went the plain way."""
        if not self._able or names <= self.known:
            return
        self.known |= names
        if self._form:
            self._form = None
            gc.collect()  # a class is a cycle of references, and a pull has the collector off
        self._stale = True
        if len(self.known) > MOST_NAMES:
            self._able, self.known = False, frozenset()

    def _build(self) -> None:
        """The form for what is known by now, if there can be one."""
        self._stale = False
        readers: dict[str, list[Rule]] = {}
        for rule in self._rules:
            for name in rule.source.names:
                if name in self.known:
                    readers.setdefault(name, []).append(rule)
        rules = [rule for found in readers.values() for rule in found]
        # One property for each rule, one rule for each property; the keys among them.
        certain = len(rules) == len(readers) == len({rule.root for rule in rules})
        # … in the form in which they came: a double would not equal the integer that it was.
        certain = certain and all(
            key in readers and readers[key][0].field.type != "number"
            for key in KEYS
            if key in self.known
        )
        if certain and rules:
            with suppress(ValueError):  # a name with a quote in it, a line end, such a colon
                self._form = _form(self.known, {name: found[0] for name, found in readers.items()})

    def willing(self) -> bool:
        """Whether the next block should be tried; to be asked once for each block."""
        if self._resting:
            self._resting -= 1
            return False
        if self._stale:
            self._build()
        return self._form is not None

    def read(self, block: bytes) -> Batch | None:
        """The batch in `block`, mapped but not yet built; None where the plain way must do it."""
        batch = self.attempt(block)
        self.note(batch)
        return batch

    def note(self, batch: Batch | None) -> None:
        """What came of a try: after each one in vain it rests, longer every time."""
        self._pause = 0 if batch else min(2 * self._pause or 1, LONGEST_PAUSE)
        self._resting = self._pause

    def attempt(self, block: bytes) -> Batch | None:
        """As `read`, and nothing is concluded from it."""
        if self._stale:
            self._build()
        return self._read_apart(block, self._form) if self._form else None

    def _read_apart(self, block: bytes, form: _Form) -> Batch | None:
        """As `_read`; a few lines that are of no plain event leave the others their short way.

        They are `batch.apart`. The last line only if it is an event: else it may be all there is of
        an answer cut off (P1).
        """
        try:
            return self._read(block, form)
        except msgspec.ValidationError:
            apart = _apart(block, form)
        if apart is None:
            return None
        with suppress(msgspec.ValidationError):
            batch = self._read(split(block, apart)[0], form)
            if batch:
                batch.apart = apart
            return batch
        return None

    def _read(self, block: bytes, form: _Form) -> Batch | None:
        ends = ends_of_objects(block)
        if ends is None:
            return None
        rows, before = len(ends), sys.getrefcount(form.nothing)
        try:
            records = form.decode(block)
            if len(records) != rows:
                return None
            structs = [record.properties for record in records]
            # Every property that did not come holds `nothing` once more: no loop need count them.
            unread = form.unread * rows - (sys.getrefcount(form.nothing) - before)
            event = pa.array([record.event for record in records], pa.string())
            values = pa.array(list(map(form.row, structs)), form.type).flatten()
            rest = _Rest(form, structs) if form.unread else None
            columns = {
                rule.root: _dated(rule.field, array)
                for (_, rule), array in zip(form.reads, values, strict=True)
            }
            if not self._is_sure(block, ends, values, unread, rest):
                return None
            if rest and has_huge_number(block):
                return None
            if rest and not self._keep and not block.isascii():
                block.decode()  # msgspec takes any bytes for a text that it does not decode
            kept = rest.array() if rest and self._keep else pa.nulls(rows, pa.string())
        except msgspec.ValidationError:
            raise
        except (*UNREADABLE, pa.ArrowException):
            return None
        for rule in self._without_property:
            text = rule.source.text
            columns[rule.root] = event if text is None else pa.repeat(text, rows)
        for rule in self._rules:
            if rule.root not in columns:
                columns[rule.root] = pa.nulls(rows, _arrow_type(rule.field))
        named = {name: array for (name, _), array in zip(form.reads, values, strict=True)}
        keys = [event, *(named[key] if key in named else pa.nulls(rows) for key in KEYS)]
        paths = {id(column): path for path, column in columns.items()}
        return Batch(
            lines=Lines(block, rows),
            columns=[columns[path] for path in self._destinations],
            rest=kept,
            keys=keys,
            key_paths=[paths[id(k)] for k in keys] if all(id(k) in paths for k in keys) else [],
        )

    def _is_sure(
        self, block: bytes, ends: Integers, values: Arrays, unread: int, rest: "_Rest | None"
    ) -> bool:
        """Whether no object in `block` has a key twice.

        A colon after a quote or white space is a key's, or stands in a text. So if there are no
        more of them than keys that were read, each key was read, and none is hidden in an object
        among the values. Else each line with more of them is looked at alone, and so is one with
        an object among its values. What is in the rest stands there as in the block.
        """
        text = np.frombuffer(block, np.uint8)
        colons = sum(np.count_nonzero(part) for part in key_colons(text))
        keys = 2 * len(ends) + unread + sum(len(array) - array.null_count for array in values)
        if colons == keys:
            return True
        counts = each_line(np.concatenate(list(key_colons(text))), ends) - 2
        for array in values:
            counts -= array.is_valid().to_numpy(zero_copy_only=False)
        if rest:
            found = list(key_colons(np.frombuffer(rest.text, np.uint8)))
            counts -= each_line(np.concatenate(found), rest.ends)
        nested = each_line(text == ord("{"), ends) != 2
        doubted = np.flatnonzero((counts != 0) | nested).tolist()
        lines = block.split(b"\n")
        return all(has_keys_once(lines[row]) for row in doubted)


class _Rest:
    """What no rule reads of each line, as JSON; it is written only if somebody asks."""

    def __init__(self, form: _Form, structs: list[Any]) -> None:
        self._form = form
        self._structs = structs

    @cached_property
    def _written(self) -> tuple[bytearray, list[int]]:
        """All of it, one line's after the other's, and where each begins and the last one ends."""
        self._form.clear(self._structs)  # what a rule read is left out: it has its default again
        encode, text = msgspec.json.Encoder().encode_into, bytearray()
        offsets = [0]
        for struct in self._structs:
            encode(struct, text, -1)
            offsets.append(len(text))
        return text, offsets

    @property
    def text(self) -> bytearray:
        """All of it, one line's after the other's."""
        return self._written[0]

    @property
    def ends(self) -> Integers:
        """Where each line's ends."""
        return np.array(self._written[1][1:], np.intp)

    def array(self) -> Any:
        """Each line's, null where it is nothing; raises pa.ArrowInvalid for what is no UTF-8."""
        offsets = np.array(self._written[1], np.int32)
        there = np.diff(offsets) > len("{}")
        # By hand: to import `pyarrow.compute` takes the twin 50 ms, and nothing else here needs it.
        valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))
        buffers = pa.py_buffer(offsets), pa.py_buffer(self.text), valid
        rest = pa.StringArray.from_buffers(len(there), *buffers)
        rest.validate(full=True)  # msgspec takes any bytes for a text that it does not decode
        return rest


def _form(known: Set[str], readers: "dict[str, Rule]") -> _Form:
    """The structs for events of the properties `known`, in the order that Mixpanel sends."""
    if any(map(COLON.search, known)):
        raise ValueError("a name with a colon that would count as a key's, unless it is escaped")
    names = sorted(known, key=lambda name: (name != "time", name != "distinct_id", name))
    nothing = msgspec.Raw()  # a field that has just this is left out of the rest
    fields: list[tuple[str, Any, Any]] = []
    renamed: dict[str, str] = {}
    reads: list[tuple[str, Rule]] = []
    for number, name in enumerate(names):
        field = f"f{number}"
        renamed[field] = name
        if name in readers:
            reads.append((name, readers[name]))
            fields.append((field, _json_type(readers[name]), None))
        else:
            fields.append((field, msgspec.Raw, nothing))
    options: dict[str, Any] = {"forbid_unknown_fields": True, "gc": False}
    properties = msgspec.defstruct(
        "Properties", fields, rename=renamed, omit_defaults=True, **options
    )
    event = msgspec.defstruct("Event", [("event", str), ("properties", properties)], **options)
    read = [field for field in renamed if renamed[field] in readers]
    kinds = [(field, _sent_type(rule.field)) for field, (_, rule) in zip(read, reads, strict=True)]
    unread = len(known) - len(reads)
    decoder = msgspec.json.Decoder(event)
    return _Form(
        decoder.decode_lines,
        decoder.decode,
        _getting(read) if unread else msgspec.structs.astuple,
        _clearing(read),
        reads,
        pa.struct(kinds),
        unread,
        nothing,
    )


def _getting(fields: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """The values of `fields` of a struct."""
    get = attrgetter(*fields)
    return get if len(fields) > 1 else lambda struct: (get(struct),)


def _clearing(fields: list[str]) -> Callable[[list[Any]], None]:
    """Sets `fields` of each struct to None. Written out: so many `setattr` take four times as long.

    The names are numbers of ours; no text from outside becomes code.
    """
    assert all(re.fullmatch(r"f\d+", field) for field in fields)
    targets = " = ".join(f"struct.{field}" for field in fields)
    scope: dict[str, Any] = {}
    exec(f"def clear(structs):\n for struct in structs:\n  {targets} = None", scope)  # noqa: S102 - numbers of ours, see above
    clear: Callable[[list[Any]], None] = scope["clear"]
    return clear


def _dated(field: Field, array: Any) -> Any:
    """`array` as its column has it; ValueError for a text that is no plain date."""
    if field.type not in DATES:
        return array
    lengths, kind, integer, first, end = DATES[field.type]
    _, offsets, _ = array.buffers()
    sizes = np.diff(np.frombuffer(offsets, np.int32)[array.offset :][: len(array) + 1])
    if not np.logical_or.reduce([sizes == length for length in (0, *lengths)]).all():
        raise ValueError("not a plain date")
    dates = array.cast(kind)  # refuses an empty text as well
    since = np.frombuffer(dates.buffers()[1], integer)
    if (since < first).any() or (since >= end).any():
        raise ValueError("outside the years 1 to 9999")
    return dates


def _apart(block: bytes, form: _Form) -> list[int] | None:
    """The numbers of the lines that are no plain events; None where those are too many."""
    lines = block.split(b"\n")
    found: list[int] = []
    for number, line in enumerate(lines):
        try:
            form.one(line)
        except UNREADABLE:
            found.append(number)
            if 2 * len(found) > len(lines):
                return None
    return found if found and (found[-1] < len(lines) - 1 or _is_event(lines[-1])) else None


def _is_event(line: bytes) -> bool:
    try:
        loads_exact(line)
    except ValueError:
        return False
    return True


def _json_type(rule: "Rule") -> Any:
    field = rule.field
    if rule.is_second:  # one of ms is not its own second
        return Annotated[int, msgspec.Meta(le=SECONDS_END)] | None
    if field.items:
        return list[TYPES[field.items.type][0] | None] | None  # type: ignore[misc]  # a type made as it runs
    return TYPES[field.type][0] | None


def _sent_type(field: Field) -> Any:
    """The Arrow type of what a property holds, before dates are cast."""
    return pa.list_(TYPES[field.items.type][1]) if field.items else TYPES[field.type][1]


def _arrow_type(field: Field) -> Any:
    return DATES[field.type][1] if field.type in DATES else _sent_type(field)


def _is_plain(rule: "Rule") -> bool:
    """Whether the rule moves a whole property, a text or the event's name into one column."""
    kind = rule.field.type
    if rule.source.inner or rule.root != rule.path or rule.source.expression:
        return False
    if not rule.source.names:
        return kind == "string"
    if kind == "array":
        assert rule.field.items
        inner = rule.field.items.type
        return inner in TYPES and inner not in DATES and inner != "number"
    return kind in TYPES
