"""The record of a run: its JSON is read back unchanged or refused; its counts."""

import json
from collections import Counter
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.batch import Tally
from engine.model.run_record import FAILED, FIELDS, KILLED, STATUSES, STOPPED, RunRecord
from engine.model.window import Window
from tests.support.records import record

TEXTS = st.text(max_size=12)
MOMENTS = st.none() | st.integers(0, 2**45)
DAYS = st.dates(date(2000, 1, 1), date(2100, 1, 1))
COUNTS = st.integers(0, 2**45)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    first, last = sorted((draw(DAYS), draw(DAYS)))
    narrowed = draw(st.sampled_from(["arrival", "before", ""]))
    if narrowed == "arrival":
        return Window(
            first, last, (draw(COUNTS), draw(COUNTS)), None, draw(COUNTS), draw(COUNTS),
            draw(st.booleans()), draw(st.booleans()),
        )  # fmt: skip
    return Window(first, last, before=draw(COUNTS) if narrowed else None)


TALLIES = st.builds(
    Tally,
    **dict.fromkeys(
        ("lines", "rows", "rejected", "duplicates", "warnings", "clamped", "outside", "known",
         "missed", "bytes_received", "bytes_read", "bytes_written", "files"), COUNTS,
    ),
    reject_codes=st.dictionaries(TEXTS, COUNTS, max_size=3).map(Counter),
    reject_days=st.dictionaries(DAYS, COUNTS, max_size=3).map(Counter),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | COUNTS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
RECORDS = st.builds(
    RunRecord,
    id=TEXTS, flow=TEXTS, dataset=TEXTS, window=windows(), batch_id=TEXTS,
    status=st.sampled_from(STATUSES), started_at=COUNTS, updated_at=COUNTS,
    activities_at=MOMENTS, window_start=MOMENTS, window_end=MOMENTS, source_id=TEXTS,
    target_id=TEXTS, copy_started=MOMENTS, copy_completed=MOMENTS, promotion_started=MOMENTS,
    promotion_completed=MOMENTS, tally=st.none() | TALLIES,
    failure=st.none() | st.tuples(TEXTS, TEXTS), batch_folder=st.none() | TEXTS,
    diagnostics=st.booleans(), clock_ahead=COUNTS,
    unfound=st.lists(TEXTS, max_size=2).map(tuple),
    params=st.none() | st.dictionaries(TEXTS, JSON, max_size=3),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(RECORDS)
def test_a_record_is_read_back_as_it_was(made: RunRecord) -> None:
    """Every field survives JSON."""
    assert RunRecord.from_json(json.loads(json.dumps(made.as_json()))) == made


@settings(deadline=None, max_examples=150)
@given(RECORDS, st.sampled_from(sorted(FIELDS)), JSON)
def test_another_value_is_read_as_itself_or_refused(made: RunRecord, name: str, value: Any) -> None:
    """A damaged field is refused, or read as the value that JSON has."""
    damaged = json.loads(json.dumps(made.as_json())) | {name: value}
    try:
        read = RunRecord.from_json(damaged)
    except ValueError:
        return
    assert json.loads(json.dumps(read.as_json())) == damaged


@pytest.mark.parametrize("change", [None, 7, [], "text", {}, {"more": 1}, {"status": "done"}])
def test_what_is_no_record_is_refused(change: Any) -> None:
    """Anything but a record raises ValueError."""
    found = record("a").as_json() | change if isinstance(change, dict) and change else change
    with pytest.raises(ValueError, match="not a run record"):
        RunRecord.from_json(found)


def test_a_field_that_is_missing_is_refused() -> None:
    """No field has a default in JSON, so that a record that was cut off is refused."""
    for name in FIELDS:
        cut = record("a").as_json()
        del cut[name]
        with pytest.raises(ValueError, match="not a run record"):
            RunRecord.from_json(cut)


def test_nothing_of_a_failed_run_is_in_the_table() -> None:
    """P2, P3: all of its events count as rejected, and the sum is that of the lines."""
    tally = Tally(lines=10, rows=6, rejected=1, duplicates=3, known=2, files=1, bytes_written=9)
    failed = record("a", FAILED, tally=tally)
    assert failed.result == Tally(lines=10, rejected=10, known=2)
    assert (failed.rejected, replace(failed, status="success").result) == (1, tally)
    assert record("a").result == Tally()


def test_a_stopped_run_failed_and_is_called_stopped() -> None:
    """A stopped run has status `failed` and is shown as `stopped`."""
    stopped = record("a", FAILED, failure=("CODE", STOPPED))
    assert (stopped.is_stopped, stopped.status_label, stopped.error) == (True, "stopped", STOPPED)
    killed = record("a", "inProgress").abandoned(5)
    assert (killed.is_stopped, killed.status_label, killed.error) == (False, FAILED, KILLED)
    assert (record("a").error, record("a", failure=("CODE", "Why.")).error) == ("", "")


def test_a_run_takes_as_long_as_from_its_request_to_its_end() -> None:
    """The duration is in seconds, and unknown until both moments are known."""
    assert record("a", promotion_completed=3_500).seconds == 2.5
    assert record("a").seconds is None
