"""The short way from bytes to columns gives what the plain way gives, or nothing."""

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.batch import Batch
from engine.errors import Truncated
from engine.sandbox import Spec, day_lines
from engine.schema import Schema
from engine.stages import lines
from engine.stages.columns import Columns
from engine.stages.direct import Direct
from engine.stages.mapping import MappingSet, parse
from tests.pulling import DAYS, RULES

DAY = date(2023, 11, 14)
SCHEMA, MAPPING = RULES.compile()
TIME = b'"time":1700000000'
NAMES = [
    "time",
    "distinct_id",
    "$insert_id",
    "item_id",
    "$import",
    "mp_processing_time_ms",
    "import",
]


def columns_of(schema: Schema = SCHEMA, mapping: MappingSet = MAPPING) -> Columns:
    return Columns(
        schema, mapping.destinations, mapping.restore, days=(DAY, DAY), keep_unmapped=True
    )


def plain(block: bytes) -> list[Batch]:
    """The batches in `block` by the way that every block can go."""
    batches = list(lines.read([block]))
    for batch in batches:
        MAPPING.apply(batch)
        columns_of().build(batch)
    return batches


def direct(block: bytes, names: set[str] | None = None) -> Batch | None:
    """The batch in `block` by the short way, once it knows `names`; None where it declines."""
    short = Direct(MAPPING.rules, MAPPING.destinations)
    short.learn(Batch(names=set(NAMES[:-1]) if names is None else names))
    batch = short.read(block)
    if batch is not None:
        columns_of().build(batch)
    return batch


def keys(batch: Batch) -> list[Any]:
    return [k.to_pylist() if isinstance(k, pa.Array) else k for k in batch.keys]


def assert_equal(block: bytes, names: set[str] | None = None) -> bool:
    """Whether the short way took `block`; if so it must have found the same as the plain one."""
    short = direct(block, names)
    if short is None:
        return False
    long = plain(block)
    assert not any(batch.rejects for batch in long)
    assert short.table is not None
    assert short.table.to_pylist() == [row for b in long if b.table for row in b.table.to_pylist()]
    assert keys(short) == [
        [key for part in parts for key in part] for parts in zip(*map(keys, long), strict=True)
    ]
    assert list(short.lines) == [line for batch in long for line in batch.lines]
    assert len(short.clamped) == sum(len(batch.clamped) for batch in long)
    assert not any(batch.uncast for batch in long)
    return True


texts = st.text(max_size=6).map(
    lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")
)
odd = st.sampled_from(
    [
        *[b"null", b"1", b"1.0", b"true", b"{}", b"[1]", b"NaN", b"1e3", b"-0"],
        *[b"9223372036854775807", b"9223372036854775808", b'"\\ud83d"', b'"\xff"'],
        *[b'"\xc3\x85\xc2\x85"', b'"\\u0000"', b'"a\nb"'],
    ]
)
values = st.one_of(texts, texts, st.integers(-5, 2**40).map(lambda n: b"%d" % n), odd)
usual = {
    "time": st.integers(1_600_000_000, 1_800_000_000).map(lambda n: b"%d" % n),
    "mp_processing_time_ms": st.integers(0, 2**53).map(lambda n: b"%d" % n),
    "$import": st.sampled_from([b"true", b"false"]),
}


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """Lines of nearly plain events: most are, some have anything in them."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        wild = draw(st.integers(0, 9)) == 0
        chosen = draw(st.lists(st.sampled_from(NAMES), max_size=7, unique=not wild))
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


@settings(deadline=None, max_examples=400)
@given(blocks())
@example(b'{"event":"a","properties":{' + TIME + b'}}\n{"event":"b","properties":{' + TIME + b"}}")
def test_what_it_takes_it_takes_exactly(block: bytes) -> None:
    """P3: rows, keys, lines and counts are those of the plain way, whatever the bytes."""
    try:
        plain(block)
    except Truncated:
        assert direct(block) is None
        return
    assert_equal(block)


def test_it_takes_the_usual() -> None:
    """Blocks of tutorial-like events do go the short way; else nothing would be gained."""
    spec = Spec(events_per_day=300, shape="small")
    block = b"".join(day_lines(spec, DAYS[0])).rstrip(b"\n")
    names = {name for line in block.split(b"\n") for name in json.loads(line)["properties"]}
    assert assert_equal(block, names)


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


def test_two_spellings_are_declined() -> None:
    """Where `import` and `$import` both occur, one of them must stay in `unmapped`."""
    assert direct(LINE, {"time", "item_id", "import", "$import"}) is None
    assert direct(LINE, {"time", "item_id", "import"}) is not None


def test_it_rests_after_failures() -> None:
    """A stream that it cannot read costs fewer and fewer tries."""
    short = Direct(MAPPING.rules, MAPPING.destinations)
    short.learn(Batch(names={"time", "item_id"}))
    tries = []
    real = short._parse

    def count(block: bytes, options: Any) -> Any:
        tries.append(block)
        return real(block, options)

    short._parse = count  # type: ignore[method-assign]  # to count its calls
    for _ in range(500):
        assert short.read(LINE[:-1]) is None
    assert len(tries) < 15
    for _ in range(70):
        short.read(LINE)
    assert short.read(LINE) is not None


@pytest.mark.parametrize("name", ["item_name", "unknown"])
def test_what_is_learned_meanwhile(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A block that is being read when another batch teaches something is read by what was known."""
    short = Direct(MAPPING.rules, MAPPING.destinations)
    short.learn(Batch(names={"time", "item_id"}))
    expected = short.read(LINE)
    assert expected is not None
    real = arrow_json.read_json

    def read_json(*arguments: Any) -> Any:
        short.learn(Batch(names={name}))
        return real(*arguments)

    monkeypatch.setattr(arrow_json, "read_json", read_json)
    found = short.read(LINE)
    assert found is not None
    assert found.columns == expected.columns


def test_order_is_kept() -> None:
    """Blocks read ahead come back in their order, those it declines among them."""
    short = Direct(MAPPING.rules, MAPPING.destinations)
    short.learn(Batch(names={"time", "item_id"}))
    pieces = [LINE.replace(b'"x"', b'"%d"' % n) if n % 3 else b"no" for n in range(20)]

    def feed() -> Iterator[bytes]:
        yield from pieces

    found = list(short.ahead(feed()))
    assert [piece for piece, _ in found] == pieces
    for piece, batch in found:
        assert batch is None or list(batch.lines) == [piece]


@pytest.mark.parametrize("kind", ["number", "array"])
def test_types_that_need_a_cast_are_left_alone(kind: str) -> None:
    """A schema with a column that the reader could round or build wrongly never uses it."""
    more: dict[str, Any] = {"type": kind} | (
        {"items": {"type": "string"}} if kind == "array" else {}
    )
    schema = Schema.parse(
        "s", {"type": "object", "properties": {"e": {"type": "string"}, "n": more}}
    )
    rules = [
        {"sourceType": "ATTRIBUTE", "source": "data.event_name", "destination": "e"},
        {"sourceType": "ATTRIBUTE", "source": "data.n", "destination": "n"},
    ]
    mapping = parse("m", {"mappings": rules}, schema)
    short = Direct(mapping.rules, mapping.destinations)
    short.learn(Batch(names={"n"}))
    assert short.read(b'{"event":"e","properties":{"n":9007199254740993}}') is None
