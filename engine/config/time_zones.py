"""Names of time zones: IANA's, Windows', and suggestions for abbreviations and cities."""

from difflib import get_close_matches
from functools import cache
from zoneinfo import available_timezones

from tzlocal.windows_tz import win_tz

from engine.errors import InputError

ABBREVIATIONS = {  # abbreviations that are IANA names themselves are left out
    abbreviation: zone
    for zone, names in {
        "America/Los_Angeles": "pst pdt pt pacific", "America/Denver": "mdt mt mountain",
        "America/Chicago": "cst cdt ct central", "America/New_York": "edt et eastern",
        "America/Anchorage": "akst akdt", "America/Halifax": "adt", "America/Sao_Paulo": "brt brst",
        "Europe/London": "bst", "Europe/Lisbon": "west", "Europe/Berlin": "cest mez mesz",
        "Europe/Athens": "eest", "Europe/Moscow": "msk", "Asia/Jerusalem": "idt",
        "Asia/Dubai": "gst", "Asia/Karachi": "pkt", "Asia/Kolkata": "ist", "Asia/Bangkok": "ict",
        "Asia/Jakarta": "wib", "Asia/Singapore": "sgt", "Asia/Manila": "pht",
        "Asia/Hong_Kong": "hkt", "Asia/Tokyo": "jst", "Asia/Seoul": "kst",
        "Australia/Perth": "awst", "Australia/Adelaide": "acst acdt",
        "Australia/Sydney": "aest aedt", "Pacific/Auckland": "nzst nzdt",
        "Africa/Johannesburg": "sast", "Africa/Nairobi": "eat", "Africa/Lagos": "wat",
    }.items()
    for abbreviation in names.split()
}  # fmt: skip


def parse(name: str) -> str:
    """Return the IANA name of a time zone given by its IANA or Windows name; InputError if none."""
    try:
        return iana_name(name)
    except ValueError as error:
        raise InputError(f'"{name}" {error}') from error


def iana_name(name: str) -> str:
    """Return the IANA name of a time zone given by its IANA or Windows name, in any case.

    ValueError suggests the zone of an abbreviation or of a city, or else similar names.
    """
    zones, wanted = _zones(), name.strip().casefold()
    if wanted in zones:
        return zones[wanted][1]
    suggested = ABBREVIATIONS.get(wanted) or _zone_of_city(wanted)
    near = [zones[each][0] for each in get_close_matches(wanted, zones, n=3, cutoff=0.3)]
    end = f"; near to it are {', '.join(near)}." if near else "."
    raise ValueError(
        "is not a time zone that is known. Write its IANA or its Windows name"
        + (f"; did you mean {suggested}?" if suggested else end)
    )


@cache
def _zones() -> dict[str, tuple[str, str]]:
    """Map the case-folded name of every zone to the name as written and the IANA name."""
    names = win_tz | {name: name for name in available_timezones()}
    return {name.casefold(): (name, iana) for name, iana in names.items()}


def _zone_of_city(city: str) -> str | None:
    """Return the one zone whose IANA name ends in a city, as "los angeles"; None if not one."""
    end = "/" + city.replace(" ", "_")
    found = [name for name in sorted(available_timezones()) if name.casefold().endswith(end)]
    return found[0] if len(found) == 1 else None
