"""`runs`: list the run history."""

import os
from typing import Annotated

import typer

from engine.cli.console import print_json, print_message
from engine.cli.lazy_imports import lazy_imports
from engine.cli.options import AsJson, parse_choice
from engine.config import environment
from engine.control.run_payload import envelope
from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS

with lazy_imports():
    from engine.catalog import database
    from engine.cli import progress

MOST_RUNS = 1_000_000_000  # SQLite's LIMIT takes it


def runs(
    flow: Annotated[str | None, typer.Option(metavar="NAME", help="Of this flow only.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="S", help="success, failed or inProgress.")
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=MOST_RUNS, help="Maximum number of runs.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, newest first."""
    if status is not None:
        status = parse_choice("--status", status, (SUCCESS, FAILED, IN_PROGRESS))
    home = environment.home(os.environ)
    path = home / database.NAME
    records, known = [], []
    if path.exists():  # listing creates no catalog
        with database.Catalog(home) as catalog:
            records = catalog.history(flow, status, limit=limit)
            known = catalog.flow_names()
    if as_json:
        print_json(envelope(records))
    elif records:
        progress.history(records)
    elif known and flow is not None and flow not in known:
        print_message(f'{path} has no run of a flow "{flow}". It has runs of: {", ".join(known)}.')
    else:
        where = f"{path}" if home.exists() else f"{path}: {home} does not exist"
        print_message(f"No such runs in {where}. MIXPANEL_ETL_HOME names the home.")
