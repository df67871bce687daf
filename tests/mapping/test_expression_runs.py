"""A run, a preview and a replay agree on what a mapping set with expressions makes of events."""

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.mapping.failed_casts import Uncast
from engine.sync.preview import preview
from engine.sync.pull import Rules
from engine.transform import decode
from engine.transform.columns import Columns
from engine.transform.validate import Checker
from tests.mapping.expression.strategies import EXPRESSIONS, RECORDS

NOW = 1_704_067_200_000
DAYS = (date.min, date.max)
FIELDS: dict[str, Any] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "flag": {"type": "boolean"},
    "moment": {"type": "string", "format": "date-time"},
    "list": {"type": "array", "items": {"type": "string"}},
    "object": {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "number"}},
        },
    },
}
LINES = st.lists(
    RECORDS.map(lambda found: line_of({"time": 1_704_067_205} | found)), min_size=1, max_size=4
)


def line_of(properties: dict[str, Any]) -> bytes:
    return json.dumps({"event": "e", "properties": properties}).encode()


@dataclass
class Done:
    """What a run made of some lines: a row or None for each, and the lines it rejected."""

    rows: list[dict[str, Any] | None] = field(default_factory=list)
    rejected: list[bytes] = field(default_factory=list)


def rules_of(expressions: dict[str, str], required: list[str]) -> Rules:
    mappings = [
        {"sourceType": "EXPRESSION", "source": source, "destination": name}
        for name, source in expressions.items()
    ]
    schema = {"type": "object", "properties": FIELDS, "required": required}
    return Rules(("m", {"mappings": mappings}), ("s", schema))


def run(rules: Rules, lines: list[bytes], *, together: bool) -> Done:
    """The stages of a run, over one batch or a batch for each line."""
    schema, mapping = rules.compile()
    mapping = mapping.for_run(NOW, "preview")
    columns = Columns(schema, mapping.destinations, mapping.restore, days=DAYS, keep_unmapped=True)
    checker = Checker(schema, Uncast(schema, mapping))
    made: dict[bytes, dict[str, Any]] = {}
    done = Done()
    for part in [lines] if together else [[line] for line in lines]:
        for batch in decode.read([b"\n".join(part)], whole=True):
            if batch.lines:
                mapping.apply(batch)
                columns.build(batch)
                checker.check(batch)
            if batch.lines:
                assert batch.table
                made |= dict(zip(batch.lines, batch.table.to_pylist(), strict=True))
            done.rejected += [reject.raw for reject in batch.rejects]
    done.rows = [made.get(line) for line in lines]
    return done


@settings(deadline=None, max_examples=20)
@given(
    st.dictionaries(st.sampled_from(sorted(FIELDS)), EXPRESSIONS, min_size=1, max_size=3),
    st.sets(st.sampled_from(sorted(FIELDS)), max_size=1),
    LINES,
)
def test_a_run_a_preview_and_a_replay_agree(
    expressions: dict[str, str], required: set[str], lines: list[bytes]
) -> None:
    """Rows and rejects do not depend on the batch; a preview shows the rows; a replay with a mended
    schema gives the rows of a first run with it. Nothing that an expression reads is lost (P3, P4).
    """
    strict, mended = (rules_of(expressions, each) for each in (sorted(required), []))
    try:
        strict.compile()
    except InputError:
        return
    done = run(strict, lines, together=True)
    assert run(strict, lines, together=False) == done
    count = sum(row is not None for row in done.rows)
    assert count + len(done.rejected) == len(lines)
    shown = preview(strict, lines, NOW)
    assert [each["data"] is None for each in shown] == [row is None for row in done.rows]
    whole = run(mended, lines, together=True)
    again = run(mended, [line for line in lines if line in done.rejected], together=True)
    assert not whole.rejected
    for line, before, after in zip(lines, done.rows, whole.rows, strict=True):
        assert after is not None
        assert before in (None, after)
        if before is None:
            assert after in again.rows
        read = json.loads(line)["properties"]
        unmapped = json.loads(after["unmapped"])
        assert {name: unmapped[name] for name in read} == read
