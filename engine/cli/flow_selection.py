"""Find the flows that --config, --home and --flow select, with the status of each."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.lazy_imports import lazy_imports
from engine.config import environment
from engine.config.file import Config
from engine.config.tables import reading
from engine.control import declared_flows
from engine.errors import InputError
from engine.model import clock

if TYPE_CHECKING:
    from engine.sync.status import FlowStatus

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
) -> tuple[list["FlowStatus"], dict[str, str]]:
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
        rest = f"It has: {names}." if names else "It has none: declare one, or apply a file."
        raise InputError(f"{config_file or config.home} has no {wanted}. {rest}")
    declared_at = _declared_at(config_file, config)
    now = clock.now()

    def all_statuses(catalog: "database.Catalog | None") -> list["FlowStatus"]:
        return [
            status.FlowStatus(flow, catalog, now, declared_at.get(flow.name, 0))
            for flow in flows.values()
        ]

    if not (config.home / declared_flows.CATALOG).exists():
        return all_statuses(None), problems
    with database.Catalog(config.home) as catalog:
        for resource in resources.Resources(catalog).all("flows"):
            declared_at[to_flow.name_of(resource)] = resource.created_at
        return all_statuses(catalog), problems


def _declared_at(config_file: Path | None, config: Config) -> dict[str, int]:
    """Return the modification time of a configuration file, in ms, for each of its flows.

    A flow that never ran may be as young as that.
    """
    if config_file is None:
        return {}
    with reading(config_file):
        changed = config_file.stat().st_mtime_ns // 1_000_000
    return dict.fromkeys(config.flows, changed)


def existing_home(home: Path | None) -> Path:
    """Return the home that --home or the environment names; InputError if it is no folder."""
    path = home or environment.home(os.environ)
    with reading(path):
        if path.is_dir():
            return path
        if path.exists():
            raise InputError(f"{path} is not a folder: --home names one that a daemon keeps.")
    way = "" if home else " --home, --config or MIXPANEL_ETL_HOME says where to look."
    raise InputError(f"{path} does not exist.{way}")


def _only(by_name: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: by_name[name]} if name in by_name else {}
