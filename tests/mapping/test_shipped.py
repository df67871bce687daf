"""The shipped pairs of mapping set and schema: what they make of an event that projects send."""

import json
from typing import Any

from engine.config.shipped import find
from engine.sync.preview import preview
from engine.sync.pull import Rules

SIGN_UP = {
    "time": 1_704_067_205,
    "distinct_id": "u1",
    "$insert_id": "i1",
    "$device_id": "d1",
    "$browser": "Chrome",
    "$browser_version": 120,
    "$city": "Köln",
    "mp_country_code": "DE",
    "$current_url": "https://shop.example/a?b",
    "utm_source": "newsletter",
}


def rows(*properties: dict[str, Any]) -> list[dict[str, Any]]:
    """What a run makes of events with these properties."""
    name = "mixpanel-experience-event"
    rules = Rules(find("mapping", name), find("schema", name))
    lines = [json.dumps({"event": "Sign up", "properties": each}).encode() for each in properties]
    return preview(rules, lines)


def test_an_experience_event() -> None:
    """Id, moment, type and identities, and XDM's own fields where it has a home for a property."""
    [found] = rows(SIGN_UP)
    assert found["errors"] is None
    row = found["data"]
    assert (row["_id"], row["timestamp"], row["eventType"]) == (
        *("i1", "2024-01-01T00:00:05Z", "Sign up"),
    )
    assert row["identityMap"] == {
        "mixpanelDistinctId": [{"id": "u1", "primary": True}],
        "mixpanelDeviceId": [{"id": "d1", "primary": False}],
    }
    assert row["environment"] == {"browserDetails": {"name": "Chrome", "version": "120"}}
    assert row["placeContext"] == {"geo": {"city": "Köln", "countryCode": "DE"}}
    assert row["web"] == {
        "webPageDetails": {"URL": "https://shop.example/a?b", "server": "shop.example"}
    }
    assert row["marketing"] == {"source": "newsletter"}
    assert row["_extconndev"]["time"] == 1_704_067_205


def test_an_event_without_an_insert_id_has_a_derived_one() -> None:
    """The same again for the same line (P4), another one for another line."""
    plain, other = {"time": 1_704_067_205}, {"time": 1_704_067_206}
    first, again, second = (each["data"]["_id"] for each in rows(plain, plain, other))
    assert first == again != second
    assert len(first) == 36
