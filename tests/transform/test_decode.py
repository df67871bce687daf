"""What `lines` promises: every line comes out exactly, or as a reject, or the response is cut."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import PermanentError, Truncated
from engine.model.batch import CORRUPT, Batch
from engine.transform.decode import DEFAULT_SIZES, SAMPLE, Sizes, read
from engine.transform.exact_json import loads_exact

FIXTURES = Path(__file__).parents[1] / "fixtures"
EVENT = b'{"event":"e","properties":{"time":1}}'
SMALL = Sizes(lines=3, block=200, longest=600, part=100, absurd=100_000)

# -- a plain reader, to compare with ---------------------------------------------------------------


def plain_event(line: bytes) -> Any:
    """The event in `line`; ValueError for whatever is none."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in found}) < len(found):
            raise ValueError("a key occurs twice")
        return dict(found)

    def finite(digits: str) -> float:
        if math.isinf(float(digits)):
            raise ValueError("no number")
        return float(digits)

    def constant(name: str) -> NoReturn:
        raise ValueError(name)

    event = json.loads(
        line.decode(), object_pairs_hook=pairs, parse_float=finite, parse_constant=constant
    )
    if not (isinstance(event, dict) and "event" in event and "properties" in event):
        raise ValueError("no event")
    if type(event["properties"]) is dict:
        return event
    raise ValueError("no properties")


def is_object_of_an_event(line: bytes) -> bool:
    """Whether `line` is cut off nowhere: it is an event but for what cannot be kept exactly."""
    try:
        event = json.loads(line.decode(errors="replace"))
    except ValueError:
        return False
    return type(event) is dict and "event" in event and type(event.get("properties")) is dict


def plain(body: bytes, longest: int) -> tuple[list[bytes], list[Any], list[bytes]] | None:
    """Lines, records and rejects of a response; None if it is not whole."""
    good: list[bytes] = []
    records: list[Any] = []
    bad: list[bytes] = []
    ends_badly = False
    lines = body.split(b"\n")
    for number, line in enumerate(lines, 1):
        if len(line) > longest:
            bad.append(line)
            ends_badly = number == len(lines)
            continue
        text = line.removesuffix(b"\r")
        if not text.strip():
            continue
        try:
            records.append(plain_event(text))
            good.append(text)
            ends_badly = False
        except ValueError:
            if text.strip() in (b"terminated early", b"export terminated early"):
                return None
            bad.append(text)
            ends_badly = not is_object_of_an_event(text)
    return None if ends_badly else (good, records, bad)


def outcome(
    chunks: list[bytes], sizes: Sizes = DEFAULT_SIZES
) -> tuple[list[bytes], list[Any], list[bytes]] | None:
    """What `read` makes of `chunks`, in the same form; parts of a line are put together again."""
    batches: list[Batch] = []
    try:
        batches.extend(read(chunks, sizes))
    except Truncated:
        return None
    bad: list[bytes] = []
    for reject in (reject for batch in batches for reject in batch.rejects):
        assert (reject.stage, reject.code) == ("lines", CORRUPT)
        assert reject.part is None or 0 < len(reject.raw) <= sizes.part
        if reject.part:
            bad[-1] += reject.raw
        else:
            bad.append(reject.raw)
    assert all(len(batch.lines) == len(batch.records) for batch in batches)
    lines = [line for batch in batches for line in batch.lines]
    return lines, [record for batch in batches for record in batch.records], bad


# -- arbitrary JSON, as text -----------------------------------------------------------------------

white = st.sampled_from(["", "", "", "", "", " ", "\t", "  "])
SIGNS = ["a", "b", ":", '"', "\\", " ", "!", "=", "\n", "\x85", "\u2028", "é", "😅", "{", "[", ","]
WORDS = ["\ud83d", "12345678901234567890", "-9223372036854775809", '":', '\\":', '"a":1', "event"]
pieces = st.sampled_from(SIGNS + WORDS)
strings = st.builds(
    lambda parts, plainly: json.dumps(
        text := "".join(parts), ensure_ascii=plainly or "\ud83d" in text
    ),
    st.lists(pieces, max_size=4),
    st.booleans(),
)
names = st.one_of(strings, st.sampled_from(['"a"', '"b"', '"event"', '"\\u0061"', '""']))
edges = [0, 10**15, 10**18, 2**63 - 1, 2**63, 10**19 - 1, 2**64 - 1, 2**64, 10**20, 10**40]
numbers = st.one_of(
    st.sampled_from(
        [str(sign * (edge + more)) for edge in edges for sign in (1, -1) for more in (0, 1)]
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    st.integers(-(10**30), 10**30).map(lambda n: f"{n}.5e2"),
    st.sampled_from(
        ["-0", "-0.0", "1e400", "NaN", "-Infinity", "01", "1E5", "0.1234567890123456789012"]
    ),
)
scalars = st.one_of(strings, numbers, st.sampled_from(["true", "false", "null"]))


def an_object(pairs: list[tuple[str, str]], spaces: list[str]) -> str:
    """The text of a JSON object with those names and values, white space in between."""
    before, after, between = spaces
    return (
        f"{{{before}"
        + f"{between},{before}".join(f"{name}{before}:{after}{value}" for name, value in pairs)
        + f"{after}}}"
    )


three = st.lists(white, min_size=3, max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
        st.builds(an_object, st.lists(st.tuples(names, inner), max_size=3), three),
    ),
    max_leaves=5,
)
objects = st.builds(an_object, st.lists(st.tuples(names, values), max_size=4), three)
events = st.builds(
    lambda event, properties, more, spaces: an_object(
        [('"event"', event), ('"properties"', properties), *more], spaces
    ).encode(),
    strings,
    st.one_of(objects, objects, objects, values),
    st.lists(st.tuples(names, values), max_size=1),
    three,
)
BLANK = [b"", b" \t", b"\r"]
NO_EVENT = [b"[1]", b"17", b'"event properties"', b"null", b"[]", b"{}", b'{"event":"e"}', b":1"]
NO_EVENT += [b'{"properties":{}}', b'{"event":"e","properties":[1]}', EVENT[:-9], b"\x00"]
NO_UTF8 = [b'{"event":"\xff","properties":{}}', b'{"event":"\xed\xa0\x80","properties":{}}']
ODD = [b" " + EVENT, EVENT + b"\r", b"\xef\xbb\xbf" + EVENT]
LONG = [b"0" * 700, EVENT[:-1] + b" " * 700 + b"}"]
junk = st.sampled_from(BLANK + NO_EVENT + NO_UTF8 + ODD + LONG)
good = st.sampled_from([EVENT, b'{"event":"e","properties":{"a":"0123456789","b":{"c":[{}]}}}'])
lines = st.one_of(events, events, good, good, junk)


@st.composite
def cut(draw: st.DrawFn, body: bytes) -> list[bytes]:
    """`body` in chunks: whole, byte by byte, or cut anywhere."""
    way = draw(st.sampled_from(["whole", "bytes", "anywhere"]))
    if way == "whole":
        return [body]
    if way == "bytes":
        return [body[place : place + 1] for place in range(len(body))]
    places = sorted(draw(st.lists(st.integers(0, len(body)), max_size=6)))
    return [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]


# -- the promises ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(
    st.data(), st.lists(lines, max_size=12), st.booleans(), st.sampled_from([SMALL, DEFAULT_SIZES])
)
def test_reads_what_a_plain_reader_reads(
    data: st.DataObject, given_lines: list[bytes], ended: bool, sizes: Sizes
) -> None:
    """However the bytes arrive, lines, records and rejects are those of a line-by-line reader."""
    body = b"\n".join(given_lines) + (b"\n" if ended else b"")
    expected = plain(body, sizes.longest)
    # `repr` tells 1 from 1.0 and 0.0 from -0.0, and shows a lone surrogate.
    assert repr(outcome(data.draw(cut(body)), sizes)) == repr(expected)


@settings(deadline=None, max_examples=300)
@given(events)
def test_the_careful_reader_is_the_plain_one(line: bytes) -> None:
    """`loads_exact` decodes what a plain reader decodes, and refuses what it refuses."""

    def said(reader: Any) -> str:
        try:
            return repr(reader(line))
        except ValueError:
            return "refused"

    assert said(loads_exact) == said(plain_event)


INTEGERS = [0, 10**17, 10**18, 10**19, 10**20, 10**24, 10**40, 9876543210123456789, 12345 * 10**15]
INTEGERS += [2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, 2**64, 2**64 + 1]


@pytest.mark.parametrize("integer", [*INTEGERS, *(-integer for integer in INTEGERS)])
@pytest.mark.parametrize("before", ["", "[", "[ "])
def test_keeps_every_digit(integer: int, before: str) -> None:
    """An integer keeps all its digits wherever it stands among the bytes."""
    after = "]" if before else ""
    for shift in range(4):
        event = " " * shift
        body = f'{{"event":"{event}","properties":{{"n":{before}{integer}{after}}}}}'.encode()
        (batch,) = read([body])
        assert repr(batch.records[0]["properties"]["n"]) == repr([integer] if before else integer)


LOST = [
    (b'{"event":"e","properties":{"a":1,"a":2}}', "'a'"),
    (b'{"event":"e","properties":{"a":1,"\\u0061":2}}', "'a'"),
    (b'{"event":"e","properties":{"a" :1,"a"\t:2}}', "'a'"),
    (b'{"event":"e","properties":{"x":{"a":1,"a":1}}}', "'a'"),
    (b'{"event":"e","properties":{"x":[{"a":1,"a":1}]}}', "'a'"),
    (b'{"event":"e","event":"f","properties":{}}', "'event'"),
    (b'{"event":"e","properties":{"a":1},"properties":{"b":2}}', "'properties'"),
    (b'{"event":"e","properties":{"a\\\\":1,"b":1,"b":2}}', "'b'"),
    (b'{"event":"e","properties":{"x":"\\":","b":1,"b":2}}', "'b'"),
    (b'{"event":"e","properties":{"x":{"y":1},"b":1,"b":2}}', "'b'"),
]


@pytest.mark.parametrize(("line", "name"), LOST)
def test_a_key_twice_is_a_reject_that_names_it(line: bytes, name: str) -> None:
    """Of two values of one key none is lost: the line is kept whole, and the key is named."""
    (batch,) = read([EVENT + b"\n" + line + b"\n" + EVENT])
    assert batch.lines == [EVENT, EVENT]
    assert [reject.raw for reject in batch.rejects] == [line]
    assert f"the key {name} occurs twice" in batch.rejects[0].message


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b'{"event":"e","properties":{"a":NaN}}', "NaN"),
        (b'{"event":"e","properties":{"a":1e400}}', "1e400 is too large"),
        (b'{"event":"e","properties":{"a":"\xff"}}', "byte 33 is not UTF-8"),
        (b"\xef\xbb\xbf" + EVENT, "BOM"),
        (b'{"event":"e","properties":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}", "too deeply"),
        (b'{"event":"e","properties":{"a":1}', "(character 34)"),
        (b'{"event":"e","properties":null}', "'properties' are no object"),
        (b'{"properties":{}}', "no 'event'"),
        (b'{"event":"e"}', "no 'properties'"),
        (b'["event","properties"]', "no JSON object"),
        (b'"event properties"', "no JSON object"),
        (b"99", "no JSON object"),
    ],
)
def test_a_bad_line_is_kept_verbatim_with_its_reason(bad: bytes, why: str) -> None:
    """P3: a line in the middle that is no event becomes a reject that says why."""
    (batch,) = read([EVENT + b"\n" + bad + b"\n" + EVENT + b"\n"])
    assert batch.lines == [EVENT, EVENT]
    (reject,) = batch.rejects
    assert (reject.stage, reject.code, reject.raw, reject.part) == ("lines", CORRUPT, bad, None)
    assert why in reject.message


def test_nesting_ends_where_the_fast_decoder_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is not decoded beyond so many levels, however deep the interpreter could go."""
    monkeypatch.setattr("engine.transform.exact_json.DEEPEST", 5)
    loads_exact(b'{"event":"e","properties":{"a":[[[1]]]}}')
    with pytest.raises(ValueError, match="too deeply"):
        loads_exact(b'{"event":"e","properties":{"a":[[[[1]]]]}}')


def test_a_lone_surrogate_is_a_string() -> None:
    """Half an emoji, as an escape, is valid JSON: the event lives."""
    (batch,) = read([b'{"event":"e","properties":{"a":"\\ud83d"}}\n' + EVENT])
    assert batch.records[0]["properties"]["a"] == "\ud83d"
    assert not batch.rejects


# -- the end of a response (P1) --------------------------------------------------------------------


@pytest.mark.parametrize(
    "last",
    [EVENT[:20], b"upstream timed out", b'{"event":"e"}', b"[1]", EVENT + EVENT],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"])
@pytest.mark.parametrize("before", [b"", EVENT + b"\n", (EVENT + b"\n") * 5000])
def test_a_bad_last_line_is_truncation(last: bytes, end: bytes, before: bytes) -> None:
    """P1: a response whose last line is no event is not whole, and the line is shown."""
    with pytest.raises(Truncated, match=re.escape(last.decode()[:20])):
        list(read([before + last + end], quoted=str))


@pytest.mark.parametrize(
    "marker", [b"terminated early", b"export terminated early", b" terminated early \r"]
)
@pytest.mark.parametrize("after", [b"", b"\n", b"\n" + EVENT + b"\n"])
def test_terminated_early_is_truncation_wherever_it_stands(marker: bytes, after: bytes) -> None:
    """P1: Mixpanel's own word that it gave up counts on any line; the region is no suspect then."""
    with pytest.raises(Truncated, match="terminated early") as caught:
        list(read([EVENT + b"\n" + marker + after]))
    assert "data-eu" not in str(caught.value)


@pytest.mark.parametrize("before", [b"", b"\n", b"no event\n"])
def test_terminated_early_without_an_event_suggests_the_region(before: bytes) -> None:
    """The wrong region answers so too: the message names all three hosts."""
    with pytest.raises(Truncated, match=r"//data\.mixpanel.*data-eu.*data-in"):
        list(read([before + b"terminated early\n"]))


def test_an_event_in_an_earlier_batch_clears_the_region() -> None:
    """Whether an event came before is known across batches."""
    with pytest.raises(Truncated) as caught:
        list(read([EVENT + b"\n"] * 3 + [b"terminated early\n"], Sizes(lines=1, block=8)))
    assert "data-eu" not in str(caught.value)


def test_an_error_object_at_the_end_is_shown() -> None:
    """The text of an error that ends the response is the message."""
    said = b'\n{"request": "/api/2.0/export", "error": "Timeout Error."}'
    with pytest.raises(Truncated, match=r"Timeout Error\.$"):
        list(read([EVENT + said], quoted=str))


@pytest.mark.parametrize("last", [b"hunter2", b'{"error": "hunter2"}'])
def test_nothing_of_the_response_is_shown_unasked(last: bytes) -> None:
    """P7: it may repeat credentials, and only who knows them can tell."""
    with pytest.raises(Truncated) as caught:
        list(read([EVENT + b"\n" + last]))
    assert "hunter2" not in str(caught.value)


def test_the_shown_line_is_bounded() -> None:
    """A last line of any length costs little to look through."""
    quoted: list[str] = []
    with pytest.raises(Truncated):
        list(read([b"\xff" * (SAMPLE * 3)], quoted=lambda text: quoted.append(text) or "x"))  # type: ignore[func-returns-value]
    assert [len(text) for text in quoted] == [SAMPLE]


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\n"])
def test_an_empty_response_is_whole(body: bytes) -> None:
    """An empty window is an empty body: no line, no error."""
    assert list(read([body])) == []


# -- sizes (P6) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1000, 65_536, 10_000_000])
@pytest.mark.parametrize("width", [1, 300, 20_000])
def test_batches_hold_about_a_thousand_lines_or_a_mebibyte(step: int, width: int) -> None:
    """A batch stays small whatever the width of the lines and the size of the chunks."""
    line = b'{"event":"e","properties":{"a":"' + b"x" * width + b'"}}'
    body = (line + b"\n") * (4_000_000 // len(line))
    batches = list(read(body[at : at + step] for at in range(0, len(body), step)))
    assert sum(len(batch.lines) for batch in batches) == len(body) // (len(line) + 1)
    assert max(len(batch.lines) for batch in batches) <= 3000
    assert max(sum(map(len, batch.lines)) for batch in batches) < 2.5 * 2**20
    assert sum(len(b.lines) < 20 for b in batches) <= 3


def test_an_over_long_line_is_one_reject_in_parts() -> None:
    """P3, P6: it is kept byte for byte, in parts, and its last part tells how long it was."""
    long = b'{"event":"' + b"x" * 1000 + b'","properties":{}}'
    batches = list(read([EVENT + b"\n" + long + b"\n" + EVENT], SMALL))
    rejects = [reject for batch in batches for reject in batch.rejects]
    assert b"".join(reject.raw for reject in rejects) == long
    assert [reject.part for reject in rejects] == list(range(len(rejects)))
    assert "longer than 600 bytes" in rejects[0].message
    assert f"{len(long):,}" in rejects[-1].message
    assert sum(len(batch.lines) for batch in batches) == 2


def test_an_over_long_line_is_never_whole_in_memory() -> None:
    """P6: its parts come out while it still arrives."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(500):
            taken += 100
            yield b"x" * 100
        yield b"\n" + EVENT

    for batch in read(chunks(), SMALL):
        for reject in batch.rejects:
            assert reject.part is not None
            assert taken <= SMALL.longest + (reject.part + 2) * SMALL.part


def test_an_over_long_line_is_read_in_linear_time_however_it_is_cut() -> None:
    """A server that sends single bytes makes nobody copy what came before at each of them."""
    sizes = Sizes(longest=100)
    chunks = [*([b"x"] * 1_000_000), b"\n", b'{"event":"e","properties":{}}\n']
    batches = list(read(iter(chunks), sizes))
    assert [len(reject.raw) for batch in batches for reject in batch.rejects] == [1_000_000]
    assert [line for batch in batches for line in batch.lines] == [chunks[-1].strip()]


def test_an_over_long_last_line_is_truncation() -> None:
    """P1: no line end, no end."""
    with pytest.raises(Truncated, match="1,000 bytes"):
        list(read([EVENT + b"\n" + b"x" * 1000], SMALL))


@pytest.mark.parametrize("end", [b"\n", b"\n" + EVENT])
def test_an_absurd_line_gives_up(end: bytes) -> None:
    """What never ends a line is no export; asking again would not help."""
    sizes = Sizes(longest=600, part=100, absurd=5000)
    with pytest.raises(PermanentError, match="MiB; no export"):
        list(read([b"x" * 100] * 50 + [b"x", end], sizes))
    assert outcome([b"x" * 5000 + b"\n" + EVENT], sizes) == (
        [EVENT],
        [json.loads(EVENT)],
        [b"x" * 5000],
    )


# -- public samples --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("line_splitting_hazards.ndjson", 9),
        ("airbyte_export_unit.ndjson", 1),
        ("airbyte_name_collision.ndjson", 1),
        ("mixpanel_docs_openapi_example.ndjson", 2),
        ("mixpanel_go_export_test.ndjson", 2),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_public_samples_decode(name: str, count: int, step: int) -> None:
    """Every line of a public sample is one event, whatever characters it holds."""
    body = (FIXTURES / name).read_bytes()
    result = outcome([body[at : at + step] for at in range(0, len(body), step)])
    assert result == plain(body, 10**9)
    assert result is not None
    assert (len(result[0]), result[2]) == (count, [])


@pytest.mark.parametrize(
    "name",
    [
        "airbyte_terminated_early_only.txt",
        "embulk_export_terminated_early.txt",
        "embulk_truncated_json.txt",
    ],
)
def test_public_samples_of_cut_responses_are_truncation(name: str) -> None:
    """P1: what other programs take for a whole day is none."""
    with pytest.raises(Truncated):
        list(read([(FIXTURES / name).read_bytes()]))
