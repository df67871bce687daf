"""`positions show | reset`: how far each flow is pulled, and how to reset it."""

from typing import Annotated

import typer

from engine.cli import console, options
from engine.cli.flow_selection import statuses_of
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, OnlyFlow, RequiredConfig
from engine.control import declared_flows
from engine.errors import InputError
from engine.model import clock
from engine.model.due_windows import UNKNOWN
from engine.sync import open_flow

with lazy_imports():
    from engine.cli import progress
    from engine.sync import status

app = typer.Typer(
    name="positions",
    rich_markup_mode=None,
    help="Show how far each flow is pulled, and reset it.",
    epilog=f"Example: {console.PROGRAM} positions show --config flows.toml",
)


@app.command("show", epilog=f"Example: {console.PROGRAM} positions show --config flows.toml")
def show(config_file: RequiredConfig, flow: OnlyFlow = None, as_json: AsJson = False) -> None:
    """Show up to when the table holds what arrived, and when each day was pulled whole."""
    statuses, _ = statuses_of(config_file, flow)
    if as_json:
        console.print_json([
            {"flow": each.flow.name, "start": each.positions.start,
             "arrival": each.positions.arrival,
             "pulled": {str(day): ms for day, ms in each.positions.pulled.items()}}
            for each in statuses
        ])  # fmt: skip
        return
    rows = [
        (each.flow.name, name, "unknown" if ms == UNKNOWN else console.utc_minute(ms))
        for each in statuses
        for name, ms in [
            ("arrivals from", each.positions.start),
            ("arrivals until", each.positions.arrival),
            *each.positions.pulled.items(),
        ]
        if ms
    ]
    progress.table(["flow", "day", "pulled up to (UTC)"], rows)


@app.command(
    "reset",
    epilog=f"Example: {console.PROGRAM} positions reset --config flows.toml --flow events "
    "--from-date 2024-01-01",
)
def reset(
    config_file: RequiredConfig,
    flow: Annotated[str, typer.Option("--flow", metavar="F", help="The flow.")],
    from_date: Annotated[
        str | None, typer.Option(metavar="D", help="The first day. Default: of all.")
    ] = None,
    to_date: Annotated[
        str | None, typer.Option(metavar="D", help="The last day. Default: of all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> int:
    """Mark days as not pulled, so that they are pulled again, whole. This deletes no row."""
    from ulid import ULID  # it takes 20 ms, which no --help waits for

    chosen, _ = declared_flows.flow_of(config_file, flow)
    zone = chosen.connection.zone
    first = options.parse_day("--from-date", from_date, zone) if from_date else None
    last = options.parse_day("--to-date", to_date, zone) if to_date else None
    current = status.FlowStatus(chosen, None, clock.now())
    if current.problem:
        raise InputError(current.problem)
    planned = status.Reset(current, first, last)
    days, others = planned.days, len(planned.pulled) - len(planned.days)
    rest = f" {others} more would not be due then: for those, backfill --force." if others else ""
    if not days:
        return console.print_message(
            f"Nothing to forget: no day of these was pulled and would be due again.{rest}"
        )
    count = "1 day" if len(days) == 1 else f"{len(days)} days"
    console.print_result(
        f"{count}, {days[0]} to {days[-1]}, would count as never pulled, and be due again "
        f"at once. What the table holds of them stays until they are replaced.{rest}"
    )
    if not yes and not typer.confirm("Go on?", err=True):
        return console.print_message("Nothing was changed.", 1)
    dataset = open_flow.dataset_of(chosen, open_flow.rules_of(chosen))
    with dataset.locked():
        dataset.forget(str(ULID()), planned.names)
    if not current.next_tick:
        return console.print_message(f"Done. {chosen.name} has no next tick: backfill pulls them.")
    return console.print_message(
        f"Done. {chosen.name} pulls them as its budget allows, from its next tick on."
    )
