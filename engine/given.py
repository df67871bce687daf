"""What a command line gives -> what the core works with. Wrong words end as an InputError.

It knows the configuration and the environment, and runs nothing.
"""

import os
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from engine import config
from engine.config import Api, Config
from engine.disk import canonical
from engine.errors import InputError
from engine.flow import Flow
from engine.keys import calendar_day
from engine.plan import DAYS_PER_REQUEST
from engine.window import latest_day

if TYPE_CHECKING:  # they bring Arrow, which no --help waits for
    from engine.dataset import Dataset
    from engine.run import Rules

DEFAULT_DATASET = "data/events"
LOCK = "daemon.lock"  # in the home: names the daemon that runs there
CATALOG = "catalog.sqlite3"  # catalog.py brings SQLite, which not every command needs


def loaded(path: Path) -> Config:
    """What a configuration file declares."""
    if path == Path():
        raise InputError("--config names no file. Leave it out, or name a TOML file.")
    return config.load(path, os.environ)


def flows_of(path: Path | None) -> tuple[list[Flow], Path]:
    """Every flow and the home: of a configuration file, else the one of the environment."""
    if path is None:
        connection = config.from_environment(os.environ)
        flow = Flow("events", connection, DEFAULT_DATASET, windows="day")
        return [flow], config.home(os.environ)
    found = loaded(path)
    return list(found.flows.values()), found.home


def flow_of(path: Path | None, name: str | None) -> tuple[Flow, Path]:
    """The flow that is meant, and the home, which may be what keeps it."""
    if path is None:
        if name is not None:
            raise InputError("--flow names a flow of a configuration file: give --config as well.")
        (flow,), home = flows_of(None)
        return flow, home
    found = loaded(path)
    flows = found.flows
    if name is None and len(flows) == 1:
        return next(iter(flows.values())), found.home
    if name not in flows:
        flows = flows | kept(found, path)[0]
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


def kept(own: Config, path: Path | None) -> tuple[dict[str, Flow], dict[str, str]]:
    """The flows that the home of a configuration keeps beside its own, and why some cannot run.

    Both by the name of a flow. What was applied from this very file, at `path`, is not among them;
    what would share a table with one of the file's cannot run (P4).
    """
    if not (own.home / CATALOG).exists():
        return {}, {}
    from engine.catalog import Catalog
    from engine.resources import Resources

    with Catalog(own.home) as catalog:
        resources = Resources(catalog)
        if not resources.all("flows"):
            return {}, {}
        from engine import declared
        from engine.vault import vault_of

        api = own.api or Api()
        vault = vault_of(own.home, api.key)
        origin = origin_of(path) if path else None
        hosts = api.mixpanel_hosts if path else None  # they stand in the daemon's file
        flows, problems = declared.flows(resources, vault, api.datasets, origin, hosts)
    owners = {canonical(flow.dataset): name for name, flow in own.flows.items()}
    for name, flow in list(flows.items()):
        owner = name if name in own.flows else owners.get(canonical(flow.dataset))
        if owner:
            problems[name] = f'Flow "{owner}" of {path} has its name or its table.'
            del flows[name]
    return flows, problems


def origin_of(path: Path) -> str:
    """What a resource has as its origin that was applied from a configuration file."""
    return os.path.realpath(path)


def rules_of(flow: Flow) -> "Rules":
    """The mapping set and the schema of `flow`; every misfit shows before the first request."""
    from engine.run import Rules
    from engine.schema import Schema

    found: dict[str, tuple[str, Any]] = {}
    wrong = list[str]()
    for kind, wanted in (("mapping", flow.mapping), ("schema", flow.schema)):
        try:
            found[kind] = config.find(kind, wanted) if isinstance(wanted, str) else wanted
            if kind == "schema" and wrong:  # what is wrong with it shows although nothing can fit
                Schema.parse(*found[kind])
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("\n".join(wrong))
    rules = Rules(**found)
    rules.compile()
    return rules


def dataset_of(flow: Flow, rules: "Rules") -> "Dataset":
    """The table of `flow`, as far as it is there."""
    from engine.dataset import Dataset
    from engine.disk import local_path
    from engine.run import table_schema

    try:
        return Dataset(local_path(flow.dataset), table_schema(rules), flow.source)
    except OSError as error:
        raise InputError(
            f"The dataset {flow.dataset} cannot be used ({error.strerror}). Give another directory."
        ) from error


def now() -> int:
    """In ms since the epoch."""
    return time.time_ns() // 1_000_000


def latest(zone: ZoneInfo) -> date:
    """The last day that Mixpanel can have events of."""
    return latest_day(now(), zone)


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
