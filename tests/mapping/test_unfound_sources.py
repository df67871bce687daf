"""A rule whose property no event of a run had is reported if one of a similar name came."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.catalog.database import Catalog
from engine.cli.progress import describe
from engine.control.run_payload import payload
from engine.dataset.dataset import Dataset
from engine.mapping.unfound_sources import MOST_NAMES, Names, unfound
from engine.sandbox import Sandbox
from engine.sync.backfill import Backfill
from engine.sync.pull import Rules, table_schema
from engine.sync.run_updates import Ended, RunUpdate
from tests.support.pulling import DAYS, QUICK, RULES, flow_of


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """The stand-in for Mixpanel."""
    with Sandbox() as running:
        yield running


def rules(*sources: str) -> Rules:
    """A mapping of these sources to a text each."""
    properties = {f"c{number}": {"type": "string"} for number, _ in enumerate(sources)}
    mappings = [
        {"source": source, "destination": f"c{number}"} for number, source in enumerate(sources)
    ]
    return Rules(("m", {"mappings": mappings}), ("s", {"properties": properties}))


def said(sources: list[str], seen: set[str], events: int = 60_600) -> list[str]:
    """Return the sentences on rules with these sources, in a run with these names."""
    names = Names()
    names.note(seen)
    return unfound(rules(*sources).compile()[1].rules, names, events)


@pytest.mark.parametrize(
    ("source", "seen", "near"),
    [
        ("properties.browser", "$browser", "$browser"),
        ("properties.$plan", "plan", "plan"),
        ("data.brwser", "$browser", "$browser"),
        ("properties.Browser", "browser", "browser"),
        ("properties.utm_sorce", "utm_source", "utm_source"),
        ("properties.${First Name}", "First name", "First name"),
        ("properties.browser.name", "$browser", "$browser"),
    ],
)
def test_a_near_name_is_named(source: str, seen: str, near: str) -> None:
    """The sentence has the rule's number and source, the number of events, and the similar name."""
    expected = f"Rule 2 ({source}) found nothing in 60,600 events; there is {near}."
    assert said(["data.other", source], {"time", "other", seen}) == [expected]


@pytest.mark.parametrize(
    ("sources", "seen"),
    [
        (["properties.browser"], {"browser", "$browser"}),  # it came
        (["data.browser"], {"$browser"}),  # data reads it by either name
        (["properties.browser"], {"time", "city"}),  # nothing is near
        (["properties.a", "properties.$a"], {"$a"}),  # the other rule has it
        (["event", "data.event_name"], {"event"}),
        (["properties.browser"], set()),
        (["properties.browser"], {"$browser", *map(str, range(MOST_NAMES + 1))}),
    ],
)
def test_else_there_is_silence(sources: list[str], seen: set[str]) -> None:
    """A property that just does not occur is no fault."""
    assert said(sources, seen) == []


def test_of_no_events_nothing_is_said() -> None:
    """An empty day has no names."""
    assert said(["properties.browser"], {"$browser"}, 0) == []
    assert said(["properties.browser"], {"$browser"}, 1)[0].endswith(
        "found nothing in 1 event; there is $browser."
    )


def test_a_run_says_it_and_its_record_has_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """The sentence is in a run's remarks, on its line and in its record."""
    name, document = RULES.mapping
    mappings = json.loads(json.dumps(document["mappings"]))
    for mapping in mappings:
        if mapping["source"] == "data.item_name":
            mapping["source"] = "properties.$item_name"
    changed = Rules((name, {"mappings": mappings}), RULES.schema)
    flow, told = flow_of(sandbox.url, tmp_path / "table"), list[RunUpdate]()
    dataset = Dataset(tmp_path / "table", table_schema(changed), flow.source)
    with Catalog(tmp_path / "home") as catalog:
        items = Backfill(flow, changed, dataset, catalog, QUICK, told.append).run(DAYS)
        kept: list[Any] = [payload(run) for run in catalog.history(flow.name)]
    number = [mapping["source"] for mapping in mappings].index("properties.$item_name") + 1
    ended = [event for event in told if isinstance(event, Ended)]
    assert len(items) == len(kept) == len(ended) > 0
    for event in ended:
        lines = event.record.result.lines
        expected = (
            f"Rule {number} (properties.$item_name) found nothing in {lines:,} events; "
            "there is item_name."
        )
        assert expected in event.record.remarks()
        assert expected in describe(event)
    assert all("there is item_name." in json.dumps(item) for item in kept)


def test_the_mapping_that_is_shipped_is_silent(sandbox: Sandbox, tmp_path: Path) -> None:
    """The shipped mapping set has no such rule for the sandbox's events."""
    flow, told = flow_of(sandbox.url, tmp_path / "table"), list[RunUpdate]()
    dataset = Dataset(tmp_path / "table", table_schema(RULES), flow.source)
    with Catalog(tmp_path / "home") as catalog:
        Backfill(flow, RULES, dataset, catalog, QUICK, told.append).run(DAYS)
    ended = [event for event in told if isinstance(event, Ended)]
    assert ended
    assert not any(event.record.remarks() for event in ended)
