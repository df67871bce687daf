"""What an ExperienceEvent requires is filled where a mapping set does not map it."""

from typing import Any

import pytest

from engine.config.shipped_files import standard
from engine.errors import InputError
from engine.mapping.class_mappings import FILLED, with_class_members
from engine.sync.preview import preview
from engine.sync.pull import Rules
from engine.transform.schema import Schema
from engine.transform.schema_refs import bundled

EVENT = "https://ns.adobe.com/xdm/context/experienceevent"
OWN = {"_shop": {"type": "object", "properties": {"city": {"type": "string"}}}}
CITY = {"sourceType": "ATTRIBUTE", "source": "data.city", "destination": "_shop.city"}


def schema(*refs: str) -> dict[str, Any]:
    document = {"type": "object", "properties": OWN}
    parts = [{"$ref": ref} for ref in refs]
    return bundled(document | ({"allOf": parts} if parts else {}), standard().get)


def rows(record: str, *mappings: dict[str, str]) -> list[dict[str, Any]]:
    rules = Rules(("m", {"mappings": [CITY, *mappings]}), ("s", schema(EVENT)))
    return preview(rules, [record.encode()])


RECORD = '{"event":"Buy","properties":{"time":1700000000,"city":"Bonn"%s}}'


def test_a_class_is_filled() -> None:
    """`timestamp` is the event's second in UTC, `_id` Mixpanel's insert id."""
    (row,) = rows(RECORD % ',"$insert_id":"abc"')
    assert row["errors"] is None
    assert row["data"] == {
        "_shop": {"city": "Bonn"}, "_id": "abc", "timestamp": "2023-11-14T22:13:20Z",
    }  # fmt: skip


def test_an_event_without_an_insert_id_gets_a_derived_one() -> None:
    """The same line always gets the same, so that the same run writes the same rows (P4)."""
    (first,), (second,) = rows(RECORD % ""), rows(RECORD % "")
    assert len(first["data"]["_id"]) == 36
    assert first == second


def test_what_is_mapped_is_not_filled() -> None:
    """Another source for `_id`, whose null rejects the row: the class requires it."""
    other = {"sourceType": "ATTRIBUTE", "source": "data.order", "destination": "_id"}
    (row,) = rows(RECORD % ',"$insert_id":"abc","order":"o1"', other)
    assert row["data"]["_id"] == "o1"
    (row,) = rows(RECORD % ',"$insert_id":"abc"', other)
    assert row["data"] is None
    assert "'_id' is a required property" in str(row["errors"])


def test_members_of_a_class_are_columns_where_a_mapping_names_them() -> None:
    """So a table has no empty columns of a class."""
    kind = {"sourceType": "ATTRIBUTE", "source": "data.event_name", "destination": "eventType"}
    found, _ = Rules(("m", {"mappings": [CITY, kind]}), ("s", schema(EVENT))).compile()
    names = [field.name for field in found.root.fields]
    assert names == ["_shop", "_id", "timestamp", "eventType"]


@pytest.mark.parametrize("document", [None, {}, {"mappings": []}, {"mappings": 5}, []])
def test_what_is_no_mapping_set_stays(document: Any) -> None:
    """Whatever reads it says what is wrong."""
    assert with_class_members(document, Schema.parse("s", schema(EVENT))) == document
    with pytest.raises(InputError):
        Rules(("m", document), ("s", schema(EVENT))).compile()


def test_a_schema_without_a_class_needs_nothing() -> None:
    """Its mapping set is the very one."""
    document = {"mappings": [CITY]}
    assert with_class_members(document, Schema.parse("s", schema())) is document
    assert FILLED.keys() == {"_id", "timestamp"}
