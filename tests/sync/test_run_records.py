"""What a commit writes beside its batch lets the next start record a run after a crash."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.database import Catalog
from engine.control.run_payload import payload
from engine.sandbox import Sandbox, Spec
from engine.sync import run_records
from tests.support.pulling import DAYS, pull
from tests.support.records import record


def test_a_record_is_read_as_it_was() -> None:
    """The record is read back with the table that it names."""
    made = record("a", unfound=("Rule 1 found nothing.",))
    assert run_records.unreported(json.loads(json.dumps(made.as_json())), "elsewhere") == made


def test_a_record_of_version_0_1_is_understood() -> None:
    """The flow, payload and window that version 0.1 wrote are read as a record."""
    made = record("a", dataset="data/moved", batch_id="B", params={"by": "a client"})
    old = json.loads(json.dumps(["events", payload(made), made.window.as_json()]))
    assert run_records.unreported(old, "data/moved") == made


@pytest.mark.parametrize(
    "found",
    [None, [], "record of B", 7, ["events", {}, {}], ["events", {"metrics": []}, {}], {"id": "a"}],
)
def test_what_describes_no_run_is_none(found: Any) -> None:
    """A commit that resets positions, and a damaged record, give no run."""
    assert run_records.unreported(found, "data") is None


def test_a_commit_of_version_0_1_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: this version records a last commit that version 0.1 could not record."""
    root, save = tmp_path / "table", Catalog.save

    def dying(self: Catalog, made: Any) -> None:
        if made.status == "success":
            raise KeyboardInterrupt
        save(self, made)

    with Sandbox(Spec(events_per_day=20)) as sandbox:
        with monkeypatch.context() as patch:
            patch.setattr(Catalog, "save", dying)
            with pytest.raises(KeyboardInterrupt):
                pull(sandbox.url, root, DAYS[:1])
        (path,) = (root / "_staging").glob("*/intent.json")
        intent = json.loads(path.read_text())
        made = run_records.unreported(intent["record"], str(root))
        assert made
        old = ["events", payload(made), made.window.as_json()]
        path.write_text(json.dumps(intent | {"record": old}))
        pull(sandbox.url, root, DAYS[:1])
    with Catalog(tmp_path / "home") as catalog:
        (reported,) = catalog.history()
    assert payload(reported) == payload(made)
    assert replace(reported, tally=None) == replace(made, tally=None)
