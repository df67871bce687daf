"""The short way from bytes to columns gives what the plain way gives, or nothing."""

import gc
import json
import re
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import Truncated
from engine.mapping.evaluate import MappingSet, parse
from engine.model.batch import Batch, split
from engine.sandbox import Spec, day_lines
from engine.transform import decode
from engine.transform.columns import Columns
from engine.transform.exact_json import has_huge_number, loads_exact
from engine.transform.fast_path import MOST_NAMES, Direct
from engine.transform.schema import Schema
from engine.transform.second_process import Reader
from tests.support.pulling import DAYS, RULES

DAY = date(2023, 11, 14)
TIME = b'"time":1700000000'
KEYS = ["time", "distinct_id", "$insert_id", "mp_processing_time_ms"]
TYPED = {
    "n": {"type": "number"},
    "small": {"type": "integer", "minimum": -128, "maximum": 127, "meta:xdmType": "byte"},
    "day": {"type": "string", "format": "date", "meta:xdmType": "date"},
    "at": {"type": "string", "format": "date-time", "meta:xdmType": "date-time"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "sizes": {"type": "array", "items": {"type": "integer"}},
    "text": {"type": "string"},
}


def typed() -> tuple[Schema, MappingSet]:
    """Every type that it reads, a text of its own, and a column that no rule fills."""
    fields = {"e": {"type": "string"}, "t": {"type": "integer"}, "none": {"type": "string"}}
    schema = Schema.parse("s", {"type": "object", "properties": fields | TYPED})
    pairs = {"event_name": "e", "time": "t"} | {name: name for name in TYPED if name != "text"}
    rules: list[Any] = [
        {"sourceType": "ATTRIBUTE", "source": f"data.{source}", "destination": target}
        for source, target in pairs.items()
    ]
    rules.append({"sourceType": "STATIC", "source": "made here", "destination": "text"})
    return schema, parse("m", {"mappings": rules}, schema)


USUAL, OTHERS = RULES.compile(), typed()
NAMES = [*KEYS, "item_id", "$import", "other", "$more"]
TYPED_NAMES = ["time", "n", "small", "day", "at", "tags", "sizes", "other", "$more"]


class Ways:
    """Both ways by one schema and mapping set."""

    def __init__(self, rules: tuple[Schema, MappingSet] = USUAL, *, keep: bool = True) -> None:
        self.schema, self.mapping = rules
        self.keep = keep
        self.short = Direct(self.mapping.rules, self.mapping.destinations, keep_unmapped=keep)
        self.columns = Columns(
            self.schema,
            self.mapping.destinations,
            self.mapping.restore,
            days=(DAY, DAY),
            keep_unmapped=keep,
        )

    def plain(self, block: bytes) -> list[Batch]:
        """The batches in `block` by the way that every block can go."""
        batches = list(decode.read([block]))
        for batch in batches:
            self.mapping.apply(batch)
            self.columns.build(batch)
        return batches

    def direct(self, block: bytes, names: set[str] | None = None) -> Batch | None:
        """The batch by the short way, once it knows `names`; None where it declines."""
        if names is None:
            names = set(NAMES if self.schema is USUAL[0] else TYPED_NAMES)
        self.short.learn(names)
        batch = self.short.read(block)
        if batch is not None:
            self.columns.build(batch)
        return batch

    def assert_equal(self, block: bytes, names: set[str] | None = None) -> bool:
        """Whether the short way took `block`; if so it must have found the same as the plain."""
        short = self.direct(block, names)
        if short is None:
            return False
        taken, apart = split(block, short.apart)
        # Some lines may go the plain way, never all of them, and the last one if it is an event.
        assert bool(apart) == bool(short.apart)
        if block.count(b"\n") in short.apart:
            assert loads_exact(block.rpartition(b"\n")[2])
        long = self.plain(taken)
        assert not any(batch.rejects for batch in long)
        assert short.table is not None
        assert rows(short) == [row for batch in long for row in rows(batch)]
        assert keys(short) == [
            [key for part in parts for key in part] for parts in zip(*map(keys, long), strict=True)
        ]
        assert list(short.lines) == [line for batch in long for line in batch.lines]
        assert len(short.clamped) == sum(len(batch.clamped) for batch in long)
        assert not any(batch.uncast for batch in long)
        return True


def rows(batch: Batch) -> list[Any]:
    """The rows of its table, `unmapped` as what it says: one way may write 1e3 as 1000.0."""
    found: list[Any] = batch.table.to_pylist() if batch.table else []
    for row in found:
        if row["unmapped"] is not None:
            row["unmapped"] = json.dumps(json.loads(row["unmapped"]), sort_keys=True)
    return found


def keys(batch: Batch) -> list[Any]:
    return [k.to_pylist() if isinstance(k, pa.Array) else k for k in batch.keys]


def direct(block: bytes, names: set[str] | None = None) -> Batch | None:
    return Ways().direct(block, names)


texts = st.text(max_size=6).map(
    lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")
)
odd = st.sampled_from(
    [
        *[b"null", b"1", b"1.0", b"true", b"{}", b"[1]", b"NaN", b"1e3", b"-0", b"01", b"1."],
        *[b"9223372036854775807", b"9223372036854775808", b'"\\ud83d"', b'"\xff"', b"-0.0"],
        *[b'"\xc3\x85\xc2\x85"', b'"\\u0000"', b'"a\nb"', b'"a\\": {"', b'" : :"', b'{"a":1}'],
        *[b'{"a":1,"a":2}', b'[{"b":{"c":[1, 2]}}]', b'{"a":{"b":1,"b":null}}', b'"\\q"', b"nul"],
        *[b"12345678901234567890123", b"0.1", b"1e400", b"[[[[]]]]", b'{"a" : "x:y"}', b"[1,]"],
        *[b'"2024-02-30"', b'"2024-02-29"', b'"2024-02-29T13Z"', b'"2024-02-29T13:00:00+0530"'],
    ]
)
values = st.one_of(texts, texts, st.integers(-5, 2**40).map(lambda n: b"%d" % n), odd)
dates = st.dates().map(lambda d: b'"%s"' % d.isoformat().encode())
usual = {
    "time": st.integers(1_600_000_000, 1_800_000_000).map(lambda n: b"%d" % n)
    | st.sampled_from(
        [b"1700000000000", b"1700000000.25", b'" 1700000000 "', b'"2023-11-14T22:13:20"', b"1e11"]
    ),
    "mp_processing_time_ms": st.integers(0, 2**53).map(lambda n: b"%d" % n),
    "$import": st.sampled_from([b"true", b"false"]),
    "n": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 2**54)).map(
        lambda n: json.dumps(n).encode()
    ),
    "small": st.integers(-128, 127).map(lambda n: b"%d" % n),
    "day": dates,
    "at": st.datetimes(timezones=st.just(None)).map(
        lambda d: b'"%sZ"' % d.isoformat(timespec="milliseconds").encode()
    ),
    "tags": st.lists(texts, max_size=3).map(lambda found: b"[%s]" % b",".join(found)),
    "sizes": st.lists(st.integers(-5, 5), max_size=3).map(lambda found: json.dumps(found).encode()),
    "other": st.sampled_from([b"1", b'"x"', b"[1,2]", b'{"a":"b:c"}', b'"12:30 : noon"', b"null"]),
}


@st.composite
def blocks(draw: st.DrawFn, names: list[str]) -> bytes:
    """Lines of nearly plain events: most are, some have anything in them."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        wild = draw(st.integers(0, 9)) == 0
        chosen = draw(st.lists(st.sampled_from(names), max_size=7, unique=not wild))
        pairs = [
            b'"%s":%s' % (name.encode(), draw(values if wild else usual.get(name, texts)))
            for name in chosen
        ]
        space = draw(st.sampled_from([b"", b"", b" ", b"\t", b"\r"])) if wild else b""
        name = draw(values) if wild else draw(texts)
        line = b'{"event":%s,%s"properties":{%s}}' % (name, space, (b"," + space).join(pairs))
        found.append(
            draw(st.sampled_from([line, line + space, line[:-1], b"", line + b"{}"]))
            if wild
            else line
        )
    return b"\n".join(found)


def held_equal(ways: Ways, block: bytes) -> None:
    try:
        ways.plain(block)
    except Truncated:
        assert ways.direct(block) is None
        return
    ways.assert_equal(block)


@settings(deadline=None, max_examples=400)
@given(blocks([*NAMES, "import"]))
@example(b'{"event":"a","properties":{' + TIME + b'}}\n{"event":"b","properties":{' + TIME + b"}}")
@example(b'{"event":"a","properties":{"other":{"a":1,"a":2}}}')
@example(b'{"event":"a","properties":{"other":1,"other":2}}')
def test_what_it_takes_it_takes_exactly(block: bytes) -> None:
    """P3: rows, keys, lines and counts are those of the plain way, whatever the bytes."""
    held_equal(Ways(), block)


@settings(deadline=None, max_examples=400)
@given(blocks(TYPED_NAMES))
def test_every_type_is_read_exactly(block: bytes) -> None:
    """P3: as above, with columns of all the types that it reads."""
    held_equal(Ways(OTHERS), block)


@settings(deadline=None, max_examples=100)
@given(blocks([*NAMES, "import"]))
def test_what_is_dropped_is_looked_at(block: bytes) -> None:
    """Without `unmapped`, a line that the plain way rejects for what is in it is declined too."""
    held_equal(Ways(keep=False), block)


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(
        st.text(alphabet="0123456789-T:Z.+ t", max_size=26),
        st.builds(
            "".join,
            st.tuples(
                st.dates().map(str) | st.sampled_from(["0000-01-01", "2023-02-29", "12024-01-01"]),
                st.sampled_from(["", "T13", " 13", "T13:30", "T24:00", "T13:59:60", "t13:30:07"]),
                st.sampled_from(["", ":07", ":07.1", ":07.123", ":07.1234", ":07.123456"]),
                st.sampled_from(["", "Z", "z", "+05", "+0530", "-05:30", "+2400", " ", "Z "]),
            ),
        ),
    ),
    st.sampled_from(["day", "at"]),
)
def test_dates_are_those_of_the_cast(text: str, column: str) -> None:
    """A text that Arrow reads as a date is read so by the rules as well, and as the same one."""
    ways = Ways(OTHERS)
    ways.assert_equal(b'{"event":"e","properties":{"%s":"%s"}}' % (column.encode(), text.encode()))


DOUBT = "engine.transform.fast_path.has_keys_once"


def in_doubt(line: bytes) -> bool:
    pytest.fail(f"in doubt: {line!r}")


@pytest.mark.parametrize("shape", ["small", "wide", "typed"])
def test_it_takes_the_usual(monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    """Blocks of usual events do go the short way; else nothing would be gained."""
    spec = Spec(events_per_day=300, shape=shape)
    block = b"".join(day_lines(spec, DAYS[0])).rstrip(b"\n")
    names = {name for line in block.split(b"\n") for name in json.loads(line)["properties"]}
    ways = Ways()
    monkeypatch.setattr(DOUBT, in_doubt)
    assert ways.assert_equal(block, names)


def test_a_block_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a part ends, a colon in a text is none of a key's: no line is in doubt for it."""
    line = LINE.replace(b'"x"', b'"a:::::b"')
    for step in range(1, len(line)):
        monkeypatch.setattr("engine.transform.exact_json.STEP", step)
        ways = Ways()
        monkeypatch.setattr(DOUBT, in_doubt)
        assert ways.assert_equal(line + b"\n" + line)


def test_what_is_in_doubt_is_looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A colon in a text costs a second look at its own line, and at no other."""
    ways, doubted = Ways(), list[bytes]()

    def look(line: bytes) -> bool:
        doubted.append(line)
        return True

    monkeypatch.setattr(DOUBT, look)
    nested, colon = (LINE.replace(b'"x"', x) for x in (b'"x","other":{"a":1}', b'"a : b"'))
    null = LINE.replace(b'"x"', b"null")
    assert ways.direct(b"\n".join([LINE, nested, LINE, colon, LINE, null, LINE])) is not None
    assert doubted == [nested, colon, null]


@pytest.mark.parametrize(
    "value", [b'"2024-02-29T13:00:00Z"', b'"2024-02-29T13:00:00.000Z"', b"null"]
)
def test_it_takes_dates_and_what_is_beside_them(value: bytes) -> None:
    """One of each type, nested values and texts with colons in the rest: no block is declined."""
    line = b'{"event":"e","properties":{"time":1700000000,"n":1.5,"small":-3,"day":"2024-02-29",'
    line += b'"at":%s,"tags":["a",null],"sizes":[],"other":{"a":[{"b":" : "}]},"$more":": "}}'
    assert Ways(OTHERS).assert_equal(line % value + b"\n" + line % value)


LINE = b'{"event":"e","properties":{"time":1700000000,"item_id":"x"}}'


@pytest.mark.parametrize(
    "block",
    [
        LINE[:-1],
        LINE + b"\n",
        b"\n" + LINE,
        LINE + b"\r",
        LINE + LINE,
        LINE[:20] + b"\n" + LINE[20:] + LINE,
        b"\xef\xbb\xbf" + LINE,
        LINE.replace(b'"x"', b'"\xff"'),
        LINE.replace(b'"x"', b'"\\ud83d"'),
        LINE.replace(b'"x"', b"5"),
        LINE.replace(b'"x"', b'null,"item_id":null'),
        LINE.replace(b'"x"', b'"x","item_id":null'),
        LINE.replace(b'"x"', b'"x","other":1,"other":1'),
        LINE.replace(b'"x"', b'"x","other":[{"a":1,"a":2}]'),
        LINE.replace(b'"x"', b'"x","other":"\xff"'),
        LINE.replace(b"item_id", b"unknown"),
        LINE.replace(b'"e"', b"null"),
        LINE.replace(b'"event":"e",', b""),
        LINE.replace(b"1700000000", b"1700000000.5"),
        LINE.replace(b"1700000000", b"99999999999999999999"),
        LINE.replace(b'{"time":1700000000,"item_id":"x"}', b"null"),
        LINE[:-1] + b',"dataset":"d"}',
        b"[1]",
        b"",
    ],
)
def test_what_it_declines(block: bytes) -> None:
    """Anything that might lose something goes the plain way."""
    assert direct(block) is None


@pytest.mark.parametrize(
    ("numbers", "apart"),
    [
        ([1], [1]),
        ([0], [0]),
        ([0, 2], [0, 2]),
        ([3], [3]),
        ([0, 3], [0, 3]),
        ([0, 1, 2], None),  # it would not pay
        ([], []),
    ],
)
@pytest.mark.parametrize(
    "odd",
    [
        LINE.replace(b"1700000000", b'"yesterday"'),
        LINE.replace(b"item_id", b"unknown"),
        LINE.replace(b'"e"', b"null"),
        b'{"nothing":1}',
    ],
)
def test_a_few_odd_lines(odd: bytes, numbers: list[int], apart: list[int] | None) -> None:
    """They go the plain way alone, and hold up none of their neighbours."""
    block = b"\n".join(odd if row in numbers else LINE for row in range(4))
    batch = direct(block)
    if 3 in numbers and b"event" not in odd:  # it may be what is left of an answer cut off
        apart = None
    assert (batch and batch.apart) == apart
    if batch:
        assert list(batch.lines) == [LINE] * (4 - len(numbers))


@pytest.mark.parametrize(
    "bad", [LINE.replace(b'"x"', b'"\xff"'), LINE.replace(b'"x"', b'"\\ud83d"'), LINE[:-2] + b"]}"]
)
def test_lines_that_cannot_be_read_beside_odd_ones(bad: bytes) -> None:
    """Whatever is wrong with a line, it goes apart: none of them ends the pull."""
    odd = LINE.replace(b"1700000000", b'"yesterday"')
    block = b"\n".join([odd, bad, LINE, LINE, LINE])
    batch = direct(block)
    assert batch is None or batch.apart == [0, 1]


@pytest.mark.parametrize("twin", [False, True])
def test_odd_lines_are_neither_lost_nor_the_last(twin: bool, tmp_path: Path) -> None:
    """All lines come, those apart before their block; a cut-off answer still shows."""
    odd = LINE.replace(b"1700000000", b'"yesterday"')
    block = b"\n".join([LINE, odd, LINE, LINE, odd, LINE])
    ways = Ways()
    ways.short.learn(set(NAMES))

    def read(answer: bytes) -> list[bytes]:
        with closing(Reader(ways.short, tmp_path, twin=twin)) as reader:
            batches = list(decode.read([answer], direct=reader.batches))
        return [line for batch in batches for line in batch.lines]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.transform.second_process.WORTH", 0)
        assert sorted(read(block)) == sorted(block.split(b"\n"))
        with pytest.raises(Truncated):
            read(block + b"\n" + LINE[:-20])
        with pytest.raises(Truncated):
            read(block + b'\n{"error":"terminated early"}')


def test_two_spellings_are_declined() -> None:
    """Where `import` and `$import` both occur, one of them must stay in `unmapped`."""
    assert direct(LINE, {"time", "item_id", "import", "$import"}) is None
    assert direct(LINE, {"time", "item_id", "import"}) is not None


def test_it_rests_after_failures() -> None:
    """A stream that it cannot read costs fewer and fewer tries."""
    short = Ways().short
    short.learn({"time", "item_id"})
    tries = []
    real = short._read

    def count(block: bytes, form: Any) -> Any:
        tries.append(block)
        return real(block, form)

    short._read = count  # type: ignore[method-assign]  # to count its calls
    for _ in range(500):
        assert not short.willing() or short.read(LINE[:-1]) is None
    assert len(tries) < 15
    for _ in range(70):
        if short.willing():
            short.read(LINE)
    assert short.willing()
    assert short.read(LINE) is not None


@pytest.mark.parametrize("number", [2**53 + 1, 10**30, -(2**53) - 1])
def test_numbers_that_a_double_would_round(number: int) -> None:
    """An integer that no double holds goes the plain way, which keeps it."""
    line = b'{"event":"e","properties":{"n":%d}}'
    assert Ways(OTHERS).direct(line % number) is None
    assert Ways(OTHERS).assert_equal(line % 2**53)


@pytest.mark.parametrize("items", [{"type": "number"}, {"type": "string", "format": "date"}])
def test_lists_that_need_a_cast(items: Any) -> None:
    """A mapping set with such a column always goes the plain way."""
    fields = {"e": {"type": "string"}, "l": {"type": "array", "items": items}}
    schema = Schema.parse("s", {"type": "object", "properties": fields})
    rules = [
        {"sourceType": "ATTRIBUTE", "source": source, "destination": target}
        for source, target in (("data.event_name", "e"), ("data.l", "l"))
    ]
    ways = Ways((schema, parse("m", {"mappings": rules}, schema)))
    assert ways.direct(b'{"event":"e","properties":{"l":[]}}', {"l"}) is None


def test_keys_that_no_rule_reads() -> None:
    """What tells duplicates apart must be had: without a rule for it, the plain way does it."""
    block = b'{"event":"e","properties":{"time":1700000000,"$insert_id":"i"}}'
    assert Ways(OTHERS).direct(block, {"time", "$insert_id"}) is None
    assert Ways(OTHERS).direct(LINE, {"time", "item_id"}) is not None


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", ""])
def test_names_of_any_kind(name: str) -> None:
    """A property of a name that no struct can have is no reason to fail."""
    line = json.dumps({"event": "e", "properties": {"time": 1_700_000_000, name: "x"}}).encode()
    Ways().assert_equal(line, {"time", name})


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-2300", "0001-01-01T00:00:00+0100"])
def test_times_outside_the_calendar(text: str) -> None:
    """An offset may lead out of the years 1 to 9999: no column holds that, and it is kept."""
    assert Ways(OTHERS).direct(b'{"event":"e","properties":{"at":"%s"}}' % text.encode()) is None


ESCAPED = r'{"event":"e","properties":{"time":1700000000,"\u003ax":1,%s}}'


@pytest.mark.parametrize("twice", ['"item_id":"1","item_id":"2"', '"other":1,"other":2'])
def test_a_name_with_a_colon_hides_no_key(twice: str) -> None:
    """P3: escaped in the line and plain in `unmapped`, it would make up for a key that is lost."""
    line = (ESCAPED % twice).encode()
    assert Ways().direct(line, {"time", "item_id", "other", ":x"}) is None
    names = {"time", "item_id", "other", "a:x"}
    assert Ways().direct(line.replace(rb"\u003ax", rb"a\u003ax"), names) is None
    usual = LINE.replace(b'"x"', b'"x","a:x":1')
    assert Ways().assert_equal(usual, names)


@pytest.mark.parametrize(
    "value", [b"1e400", b"-1E+400", b"[1e999]", b'{"a":12.5e0400}', b"9" * 309 + b".0"]
)
def test_numbers_beyond_any_double(value: bytes) -> None:
    """Where no rule reads it, it is rejected by the one way and not taken by the other."""
    line = LINE.replace(b'"x"', b'"x","other":%s' % value)
    assert direct(line) is None
    assert Ways().assert_equal(line.replace(value, b'"9e0444x","$more":1e40'))


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
def test_what_is_dropped_is_utf_8(raw: bytes) -> None:
    line = LINE.replace(b'"x"', b'"x","other":"%s"' % raw)
    assert Ways(keep=False).direct(line) is None
    assert Ways(keep=False).direct(line.replace(raw, "\u00e9".encode())) is not None


@pytest.mark.parametrize("key", ["time", "$insert_id"])
def test_keys_keep_their_form(key: str) -> None:
    """P4: as a double, a key would not equal the integer that the plain way has."""
    fields = {"e": {"type": "string"}, "k": {"type": "number"}}
    schema = Schema.parse("s", {"type": "object", "properties": fields})
    rules = [
        {"sourceType": "ATTRIBUTE", "source": source, "destination": target}
        for source, target in (("data.event_name", "e"), (f"data.{key.lstrip('$')}", "k"))
    ]
    ways = Ways((schema, parse("m", {"mappings": rules}, schema)))
    line = b'{"event":"e","properties":{"%s":7}}' % key.encode()
    assert ways.direct(line, {key}) is None
    assert ways.assert_equal(line.replace(key.encode(), b"other"), {"other"}) is False


def test_learning_leaves_nothing_behind() -> None:
    """P6: a new property in every block costs no class that stays; too many end it for good."""
    short = Ways().short
    gc.disable()
    try:
        for number in range(30):
            short.learn(frozenset({"time", f"p{number}"}))
            assert short.willing()
        kept = [one for one in gc.get_objects() if isinstance(one, type)]
        assert sum(one.__name__ == "Properties" for one in kept) <= 2
    finally:
        gc.enable()
    short.learn({f"q{number}" for number in range(MOST_NAMES)})
    short.learn({"another"})
    assert short.known == frozenset()
    assert not short.willing()


def test_too_many_names() -> None:
    """Beyond so many properties a struct would cost more than it saves."""
    names = {f"p{number}" for number in range(MOST_NAMES)}
    assert direct(LINE, names | {"time", "item_id"}) is None


def is_beyond_doubles(text: str) -> bool:
    """Said plainly: a digit, an exponent of three digits or more, and the end of a value."""
    return bool(re.search(r"\d[eE]\+?\d{3,}[],}\s]", text))


@settings(deadline=None, max_examples=500)
@given(st.text("0123456789eE+-.,]} x", min_size=1, max_size=40), st.integers(0, 3))
def test_exponents_are_found_wherever_they_stand(text: str, before: int) -> None:
    """A number that no double holds is seen at any place of a block, across its parts too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.transform.exact_json.STEP", 16)
        block = b'{"a":' + b" " * before + text.encode() + b"}"
        assert has_huge_number(block) or not is_beyond_doubles(block.decode())


@pytest.mark.parametrize("number", ["1e400", "1E+400", "1.5e0400", "1e+0400", "-9E999"])
@pytest.mark.parametrize("end", ["}", ",", "]", " "])
def test_an_exponent_at_every_place(number: str, end: str) -> None:
    """Whatever stands before it, and wherever one part of the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.transform.exact_json.STEP", 16)
        for before in range(40):
            assert has_huge_number(b'{"a":' + b"x" * before + f":{number}{end}".encode() + b"}}")


def test_a_time_of_ms_goes_apart() -> None:
    """Its second is another number: the plain way has it, and the others stay on the short one."""
    ms = LINE.replace(b"1700000000", b"1700000000000")
    ways, block = Ways(), b"\n".join([LINE, ms, LINE, LINE])
    short = ways.direct(block, {"time", "item_id"})
    assert short is not None
    assert short.apart == [1]
    assert Ways().assert_equal(block, {"time", "item_id"})
    [plain] = ways.plain(ms)
    assert plain.keys[2] == short.keys[2].to_pylist()[:1] == [1_700_000_000]
    assert [row["unmapped"] for row in rows(plain)] == ['{"time": 1700000000000}']
