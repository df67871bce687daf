"""`explore`: show a few events of a day and the schema that fits them."""

from typing import Annotated

import typer

from engine.cli import options
from engine.cli.console import print_json, print_message
from engine.cli.lazy_imports import lazy_imports
from engine.control import declared_flows
from engine.model.window import DAY, Window

with lazy_imports():
    from engine.sync import sample
    from engine.transform import infer


def explore(
    from_date: Annotated[
        str | None, typer.Option(metavar="D", help="The day to sample. Default: yesterday.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Maximum number of events.")
    ] = 10,
) -> None:
    """Show a few events of a day, and the schema that fits them."""
    flow, home = declared_flows.flow_of(None, None)
    zone = flow.connection.zone
    day = options.latest(zone) - DAY
    if from_date is not None:
        day = options.parse_day("--from-date", from_date, zone)
    records = sample.sample(flow, home, Window(day, day), limit)
    if not records:
        print_message(f"Mixpanel has no events of {day}.")
    print_json(infer.response(records))
