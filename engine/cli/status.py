"""`status`: show how current each flow is, and its problems."""

from pathlib import Path

from engine.cli.console import print_json, print_message, utc_minute
from engine.cli.flow_selection import Home, existing_home, statuses_of
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, ConfigFile, OnlyFlow
from engine.control import declared_flows
from engine.model.clock import duration

with lazy_imports():
    from engine.catalog import database
    from engine.cli import progress
    from engine.dataset.storage import local
    from engine.sync import status as flow_status

COLUMNS = [
    "flow", "arrived until (UTC)", "behind", "last run (UTC)", "status", "next tick",
    "days", "to fill", "rejected in 24 h", "requests in 1 h",
]  # fmt: skip


def status(
    config_file: ConfigFile = None,
    home: Home = None,
    flow: OnlyFlow = None,
    as_json: AsJson = False,
) -> int:
    """Show how current each flow is, and its problems. Exit status 1 if there are any.

    Without --config: the flows that are stored in the home, by clients or by `apply`.
    """
    statuses, problems = statuses_of(config_file, flow, home)
    if as_json:
        print_json([each.as_json() for each in statuses])
    else:
        progress.table(COLUMNS, map(_row, statuses))
    problems = {each.flow.name: " ".join(each.faults) for each in statuses} | problems
    for name, why in problems.items():
        if why:
            print_message(f"{name}: {why}")
    for each in statuses:
        if each.changed:
            print_message(f"{each.flow.name}: {each.changed}")
    if any(each.stale_since for each in statuses):
        path = declared_flows.loaded(config_file).home if config_file else existing_home(home)
        print_message(_daemon_of(path))
    for each in statuses:
        for note in each.notes:
            print_message(f"{each.flow.name}: {note}")
    return 1 if any(problems.values()) else 0


def _row(flow: "flow_status.FlowStatus") -> tuple[object, ...]:
    return (
        flow.flow.name,
        utc_minute(flow.positions.arrival),
        "-" if flow.behind is None else duration(flow.behind / 1000),
        utc_minute(flow.last.started_at if flow.last else None),
        flow.last_status,
        utc_minute(flow.next_tick),
        len(flow.days),
        flow.to_fill,
        flow.rejected,
        flow.requests_last_hour,
    )


def _daemon_of(home: Path) -> str:
    """Return a sentence on the daemon of a home, and on the last run there."""
    last = None
    if (home / declared_flows.CATALOG).exists():
        with database.Catalog(home) as catalog:
            last = next((run.updated_at for run in catalog.history(limit=1)), None)
    history = f"Its last run was at {utc_minute(last)} UTC." if last else "There was no run yet."
    if process := local.holder(home / declared_flows.LOCK):
        return f"A daemon runs with the home {home}, process {process}: see its log. {history}"
    return f"No daemon runs with the home {home}: start one. {history}"
