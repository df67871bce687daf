"""Read the values of command line options: days, counts, words. Wrong ones end as an InputError."""

from collections.abc import Iterable
from datetime import date
from zoneinfo import ZoneInfo

from engine.config.value_types import calendar_day
from engine.errors import InputError
from engine.model.schedule import DAYS_PER_REQUEST
from engine.model.window import latest_day
from engine.sync import open_flow


def latest(zone: ZoneInfo) -> date:
    """The last day that Mixpanel can have events of."""
    return latest_day(open_flow.now(), zone)


def day(option: str, text: str, zone: ZoneInfo) -> date:
    """The day that an option names; not one to come."""
    try:
        given = calendar_day(text)
    except ValueError as error:
        raise InputError(
            f'{option} "{text}" is no date: {error}.'
            if str(error)
            else f'{option} "{text}" is no date. Write it as 2024-01-31.'
        ) from None
    last = latest(zone)
    if given > last:
        raise InputError(f"{option} {given} lies in the future: {last} is the last day there is.")
    return given


def days_per_request(text: str) -> int | None:
    """A number of days; None where the answers will tell."""
    if text == "auto":
        return None
    if text in map(str, range(1, DAYS_PER_REQUEST + 1)):
        return int(text)
    raise InputError(
        f'--days-per-request "{text}" must be a number from 1 to {DAYS_PER_REQUEST}, or auto.'
    )


def one_of(option: str, text: str, allowed: Iterable[str]) -> str:
    """The one of `allowed` that `text` means, whatever its case."""
    for each in allowed:
        if text.lower() == each.lower():
            return each
    raise InputError(f'{option} "{text}" must be one of {", ".join(allowed)}.')
