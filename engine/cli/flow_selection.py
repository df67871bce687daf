"""Find the flows that --config, --home and --flow select, with the status of each."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.lazy_imports import lazy_imports
from engine.config import environment
from engine.config.file import Config
from engine.config.toml_tables import reading
from engine.control import declared_flows
from engine.errors import InputError
from engine.model import clock

with lazy_imports():
    from engine.catalog import database, resources
    from engine.control import to_flow
    from engine.sync import status

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="DIR", help="The home of a daemon, without --config: its flows."
    ),
]


def statuses_of(
    config_file: Path | None, flow_name: str | None, home: Path | None = None
) -> tuple[list["status.FlowStatus"], dict[str, str]]:
    """Return the status of each selected flow, and why other flows of the home cannot run.

    Reads the catalog, if there is one; InputError where no flow is selected.
    """
    if config_file and home:
        raise InputError("--config says where its home is: leave --home out.")
    config = declared_flows.loaded(config_file) if config_file else Config(existing_home(home), {})
    stored, problems = declared_flows.flows_in_home(config, config_file)
    flows = config.flows | stored
    if flow_name is not None:
        flows, problems = _only(flows, flow_name), _only(problems, flow_name)
    if not flows and not problems:
        names = ", ".join((*config.flows, *stored))
        wanted = "flow" if flow_name is None else f'flow "{flow_name}"'
        rest = (
            f"It has: {names}." if names else "Declare one in a configuration file, or apply one."
        )
        raise InputError(f"{config_file or config.home} has no {wanted}. {rest}")
    declared_at = dict[str, int]()  # in ms; a flow that never ran may be as young as its file
    if config_file is not None:
        with reading(config_file):
            changed = config_file.stat().st_mtime_ns // 1_000_000
        declared_at = dict.fromkeys(config.flows, changed)
    has_catalog = (config.home / declared_flows.CATALOG).exists()
    with database.Catalog(config.home) if has_catalog else nullcontext() as catalog:
        for resource in resources.Resources(catalog).all("flows") if catalog else ():
            declared_at[to_flow.name_of(resource)] = resource.created_at
        now = clock.now()
        return [
            status.FlowStatus(flow, catalog, now, declared_at.get(flow.name, 0))
            for flow in flows.values()
        ], problems


def existing_home(home: Path | None) -> Path:
    """Return the home that --home or the environment names; InputError if it is no folder."""
    path = home or environment.home(os.environ)
    with reading(path):
        if path.is_dir():
            return path
        if path.exists():
            raise InputError(f"{path} is not a folder: --home names the home of a daemon.")
    way = "" if home else " Give --home or --config, or set MIXPANEL_ETL_HOME."
    raise InputError(f"{path} does not exist.{way}")


def _only(by_name: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: by_name[name]} if name in by_name else {}
