"""Names of time zones: IANA's and Windows' are read, others bring a suggestion."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.time_zones import ABBREVIATIONS, parse
from engine.errors import InputError


@pytest.mark.parametrize(
    ("name", "iana"),
    [
        ("Pacific Standard Time", "America/Los_Angeles"),
        ("India Standard Time", "Asia/Calcutta"),
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("pacific standard time", "America/Los_Angeles"),
        ("UTC", "UTC"),
        ("Asia/Kathmandu", "Asia/Kathmandu"),
    ],
)
def test_a_time_zone_has_an_iana_or_a_windows_name(name: str, iana: str) -> None:
    """The tutorial gives a Windows name; most people give IANA's; their case does not matter."""
    assert parse(name) == iana


@pytest.mark.parametrize(
    ("name", "near"),
    [("Pacific Standart Time", "Pacific Standard Time"), ("Europe/Berln", "Europe/Berlin")],
)
def test_an_unknown_time_zone_brings_the_nearest_names(name: str, near: str) -> None:
    """The error suggests three similar names, the most similar first."""
    with pytest.raises(InputError) as error:
        parse(name)
    sentence = str(error.value)
    assert sentence.startswith(f'"{name}" is not a time zone')
    assert sentence.partition("near to it are ")[2].rstrip(".").split(", ")[0] == near
    assert sentence.count(",") == 2


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PST", "America/Los_Angeles"),
        ("pdt", "America/Los_Angeles"),
        ("PT", "America/Los_Angeles"),
        ("CST", "America/Chicago"),
        ("EDT", "America/New_York"),
        ("Eastern", "America/New_York"),
        ("IST", "Asia/Kolkata"),
        ("CEST", "Europe/Berlin"),
        ("BST", "Europe/London"),
        ("JST", "Asia/Tokyo"),
        ("Los Angeles", "America/Los_Angeles"),
        ("berlin", "Europe/Berlin"),
    ],
)
def test_an_abbreviation_or_a_city_brings_its_zone(name: str, meant: str) -> None:
    """The error suggests the zone of an abbreviation or of a city, not a similar name."""
    with pytest.raises(InputError, match=f"; did you mean {meant}\\?$"):
        parse(name)


def test_every_zone_that_is_suggested_is_one() -> None:
    """Every suggested zone is one, and no abbreviation is a zone itself."""
    assert all(parse(zone) == zone for zone in ABBREVIATIONS.values())
    for name in ABBREVIATIONS:
        with pytest.raises(InputError):
            parse(name)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_any_text_is_a_time_zone_or_an_input_error(name: str) -> None:
    """Any text is a time zone or an InputError."""
    with suppress(InputError):
        assert parse(name)
