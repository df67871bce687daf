"""Load the flows that a configuration file or the environment declares, and those of a home.

A home has the flows that clients made and those that `apply` copied from configuration files.
"""

import os
from pathlib import Path

from engine.config import environment, file
from engine.config.file import Api, Config
from engine.dataset.storage.local import canonical
from engine.errors import InputError
from engine.model.flow import Flow

DEFAULT_DATASET = "data/events"
LOCK = "daemon.lock"  # in the home: names the process of its daemon
CATALOG = "catalog.sqlite3"  # repeated here, as the catalog imports SQLite: not for --help


def loaded(path: Path) -> Config:
    """Load a configuration file; InputError lists every problem."""
    if path == Path():
        raise InputError("--config names no file. Leave it out, or name a TOML file.")
    return file.load(path, os.environ)


def flows_of(path: Path | None) -> tuple[list[Flow], Path]:
    """Return every flow and the home of a configuration file, or those of the environment."""
    if path is None:
        connection = environment.connection_of(os.environ)
        flow = Flow("events", connection, DEFAULT_DATASET, windows="day")
        return [flow], environment.home(os.environ)
    found = loaded(path)
    return list(found.flows.values()), found.home


def flow_of(path: Path | None, name: str | None) -> tuple[Flow, Path]:
    """Return the named flow, or the only one, of a configuration file or its home; and the home."""
    if path is None:
        if name is not None:
            raise InputError("--flow names a flow of a configuration file: give --config as well.")
        (flow,), home = flows_of(None)
        return flow, home
    found = loaded(path)
    flows = found.flows
    if name not in flows and (name is not None or len(flows) != 1):
        flows = flows | flows_in_home(found, path)[0]
    if name is None and len(flows) == 1:
        name = next(iter(flows))
    if name in flows:
        return flows[name], found.home
    names = ", ".join(flows) or "none"
    if name is None and not flows:
        raise InputError(f"{path} has no flow. Declare one in a table [flows.NAME].")
    if name is None:
        raise InputError(f"{path} has {len(flows)} flows ({names}). Choose one with --flow.")
    raise InputError(f'{path} has no flow "{name}". It has: {names}.')


def flows_in_home(own: Config, path: Path | None) -> tuple[dict[str, Flow], dict[str, str]]:
    """Return the flows of a configuration's home, and why others there cannot run, by name.

    Flows that were applied from the file at `path` itself are left out. A flow that would share a
    table with one of the file cannot run (P4).
    """
    if not (own.home / CATALOG).exists():
        return {}, {}
    from engine.catalog.database import Catalog
    from engine.catalog.resources import Resources

    with Catalog(own.home) as catalog:
        resources = Resources(catalog)
        if not resources.all("flows"):
            return {}, {}
        from engine.control import to_flow
        from engine.control.secrets import secret_store_of

        api = own.api or Api()
        store = secret_store_of(own.home, api.key)
        origin = origin_of(path) if path else None
        hosts = api.mixpanel_hosts if path else None  # known from the daemon's file only
        flows, problems = to_flow.flows(resources, store, api.datasets, origin, hosts)
    owners = {canonical(flow.dataset): name for name, flow in own.flows.items()}
    for name, flow in list(flows.items()):
        owner = name if name in own.flows else owners.get(canonical(flow.dataset))
        if owner:
            problems[name] = f'Flow "{owner}" of {path} has its name or its table.'
            del flows[name]
    return flows, problems


def origin_of(path: Path) -> str:
    """Return the `origin` of resources that are applied from a configuration file."""
    return os.path.realpath(path)
