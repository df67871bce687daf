"""Options that several commands share, and the parsing of their values.

A value that is wrong ends as an InputError that names the option.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from engine.config.value_types import calendar_day
from engine.control.declared_flows import DEFAULT_DATASET
from engine.errors import InputError
from engine.model import clock
from engine.model.due_windows import DAYS_PER_REQUEST
from engine.model.flow import Flow
from engine.model.window import latest_day

RequiredConfig = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The configuration file (TOML).")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A configuration file (TOML).")
]
FlowName = Annotated[
    str | None, typer.Option("--flow", metavar="NAME", help="A flow of the configuration.")
]
OnlyFlow = Annotated[
    str | None, typer.Option("--flow", metavar="F", help="This flow only. Default: all.")
]
DatasetUri = Annotated[
    str | None,
    typer.Option("--dataset", metavar="URI", help=f"The table. Default: {DEFAULT_DATASET}"),
]
MappingName = Annotated[
    str | None, typer.Option("--mapping", metavar="X", help="A shipped mapping set, or a path.")
]
SchemaName = Annotated[
    str | None, typer.Option("--schema", metavar="X", help="A shipped schema, or a path.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def override(flow: Flow, *, events: Sequence[str] = (), **texts: str | None) -> Flow:
    """Return `flow` with every option that was given (not None) in place of its own field."""
    given: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
    for name, text in [*given.items(), *(("event", each) for each in events)]:
        check_not_empty(f"--{name}", text)
    return replace(flow, **given | ({"events": tuple(events)} if events else {}))


def check_not_empty(option: str, text: str) -> None:
    """Raise InputError for an option whose value is blank."""
    if not text.strip():
        raise InputError(f"{option} is empty. Leave it out, or say what it should be.")


def latest(zone: ZoneInfo) -> date:
    """Return the last day that Mixpanel can have events of: today in the project's zone."""
    return latest_day(clock.now(), zone)


def parse_day(option: str, text: str, zone: ZoneInfo) -> date:
    """Parse the day that an option names; InputError for a day in the future."""
    try:
        day = calendar_day(text)
    except ValueError as error:
        raise InputError(
            f'{option} "{text}" is no date: {error}.'
            if str(error)
            else f'{option} "{text}" is no date. Write it as 2024-01-31.'
        ) from None
    last = latest(zone)
    if day > last:
        raise InputError(f"{option} {day} lies in the future: {last} is the last day there is.")
    return day


def parse_days_per_request(text: str) -> int | None:
    """Parse a number of days; None for `auto`, where the size of the responses decides."""
    if text == "auto":
        return None
    if text in map(str, range(1, DAYS_PER_REQUEST + 1)):
        return int(text)
    raise InputError(
        f'--days-per-request "{text}" must be a number from 1 to {DAYS_PER_REQUEST}, or auto.'
    )


def parse_choice(option: str, text: str, allowed: Iterable[str]) -> str:
    """Return the member of `allowed` that equals `text`, ignoring case."""
    for choice in allowed:
        if text.lower() == choice.lower():
            return choice
    raise InputError(f'{option} "{text}" must be one of {", ".join(allowed)}.')
