"""The configuration file (TOML): read once, checked whole, with every problem reported at once."""

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import environment
from engine.config.environment import CREDENTIALS, Environ
from engine.config.fields import API, FLOW, LEAST_MINUTES, SCHEDULE, types_of
from engine.config.toml_tables import Problems, nearest, read_document, read_table
from engine.config.value_types import Type, is_table, passing, text, whole
from engine.dataset.storage.local import canonical
from engine.errors import InputError
from engine.model.flow import HOST, Connection, Flow, Schedule, Secret


@dataclass(frozen=True, slots=True)
class Api:
    """Where the control plane listens, and what it works with.

    token           what clients authenticate with; None: one is made in the home
    key             what secrets are encrypted with; None: one is made in the home
    datasets        the folder of the tables that clients make
    hosts           names in requests' Host header, besides the address that it listens on
    url             the start of the addresses in responses; "": as in the request
    mixpanel_hosts  hosts that clients' connections may name, besides Mixpanel's own
    """

    host: str = "127.0.0.1"
    port: int = 8787
    token: Secret | None = None
    key: Secret | None = None
    datasets: Path = Path("data")
    hosts: tuple[str, ...] = ()
    url: str = ""
    mixpanel_hosts: tuple[str, ...] = ()

    @property
    def fixed(self) -> tuple[str, int, Path]:
        """What a running daemon cannot change."""
        return self.host, self.port, self.datasets


@dataclass(frozen=True, slots=True)
class Config:
    """The content of a configuration file; `api` is None if it declares no control plane."""

    home: Path
    flows: dict[str, Flow]
    api: Api | None = None


def load(path: Path, environ: Environ) -> Config:
    """Read a configuration file; variables in `environ` fill in what its connections leave out.

    Relative paths in it start at the working directory, as they do on the command line.
    InputError lists every problem, each with the file, the key and what is allowed.
    """
    problems = Problems(str(path))
    top = {
        "home": text(),
        "connections": Type("tables: [connections.NAME]", passing(is_table)),
        "flows": Type("tables: [flows.NAME]", passing(is_table)),
        "api": Type("a table: [api]", passing(lambda given: isinstance(given, dict))),
    }
    raw = read_document(path, tomllib.loads, "TOML")
    required = () if "api" in raw else ("flows",)  # clients may make them all
    declared = read_table(raw, top, "", problems, required)
    connections = {
        name: _connection(name, table, environ, problems)
        for name, table in declared.get("connections", {}).items()
    }
    flows = {
        name: _flow(name, table, connections, problems)
        for name, table in declared.get("flows", {}).items()
    }
    _refuse_shared_tables(flows, problems)
    api = _api(declared["api"], environ, problems) if "api" in declared else None
    problems.raise_any()
    return Config(
        Path(declared["home"]) if "home" in declared else environment.home(environ),
        {name: flow for name, flow in flows.items() if flow},
        api,
    )


def _connection(name: str, table: Any, environ: Environ, problems: Problems) -> Connection | None:
    """Read a connection; variables of the environment complete it. None if it has problems."""
    if isinstance(table, dict):
        names = environment.VARIABLES.items()
        table = {key: {"env": name} for key, name in names if environ.get(name)} | table
    types = environment.connection_types(environ)
    values = read_table(table, types, f"connections.{name}", problems, CREDENTIALS)
    if not values.keys() >= set(CREDENTIALS):
        return None
    return Connection(**({"host": HOST} | values), name=name, files=_files(table))


def _files(table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    given = ((key, table[key]) for key in ("username", "password"))
    return tuple((key, each["file"]) for key, each in given if is_table(each) and "file" in each)


def _flow(
    name: str, table: Any, connections: Mapping[str, Connection | None], problems: Problems
) -> Flow | None:
    at = f"flows.{name}"
    if not re.fullmatch(r"[\w.-]+", name):  # positions in the table are named after flows
        problems.add(at, "the name of a flow has letters, digits, '.', '_' and '-' only")
    values = read_table(table, types_of(FLOW), at, problems, ("connection", "dataset"))
    schedule = None
    if "schedule" in values:
        schedule = _schedule(values.pop("schedule"), f"{at}.schedule", problems)
    wanted = values.pop("connection", None)
    if wanted is not None and wanted not in connections:
        sentence = f'"{wanted}" is not declared{nearest(wanted, connections)}'
        problems.add(f"{at}.connection", sentence)
    connection = connections.get(wanted)
    if connection is None or "dataset" not in values:
        return None
    defaults = {"windows": "arrival" if schedule else "day"}
    return Flow(name, connection, schedule=schedule, **(defaults | values))


def _refuse_shared_tables(flows: Mapping[str, Flow | None], problems: Problems) -> None:
    """Add a problem for each flow whose table is another's: they would replace its days (P4)."""
    owners: dict[str, str] = {}
    for name, flow in flows.items():
        if flow is None:
            continue
        try:
            table = canonical(flow.dataset)
        except InputError as error:
            problems.add(f"flows.{name}.dataset", str(error))
            continue
        if (owner := owners.setdefault(table, name)) != name:
            problems.add(f"flows.{name}.dataset", f'is the table of flow "{owner}": give another')


def _schedule(table: dict[str, Any], at: str, problems: Problems) -> Schedule | None:
    """Read a schedule; None if it has problems. `once` has a start time and no interval."""
    frequency = table.get("frequency")
    types, required = types_of(SCHEDULE), ["frequency"]
    if frequency == "minute":
        types["interval"] = replace(whole(LEAST_MINUTES), read=_minutes)
    if frequency == "once":
        types["interval"] = Type("left out", _not_once)
        required.append("start_time")
    elif types["frequency"].accepts(frequency):
        required.append("interval")
    values = read_table(table, types, at, problems, required)
    if not values.keys() >= set(required):
        return None
    return Schedule(values["frequency"], values.get("interval"), values.get("start_time", 0))


def _minutes(given: Any) -> Any:
    """Read an interval in minutes; ValueError explains why a short one is refused."""
    if type(given) is int and 0 < given < LEAST_MINUTES:
        raise ValueError(
            f"is {given} minutes, and the least is {LEAST_MINUTES}: each tick costs one of the 60"
            " requests an hour that Mixpanel allows a project"
        )
    return whole(LEAST_MINUTES).read(given)


def _not_once(given: object) -> None:
    raise ValueError('is not allowed with the frequency "once": leave it out')


def _api(table: dict[str, Any], environ: Environ, problems: Problems) -> Api:
    """Read the control plane; one that other machines can reach needs a token in the file."""
    secrets = {
        key: environment.from_elsewhere(each, environ) for key, each in API.items() if each.secret
    }
    types = API | secrets
    values = read_table(table, types, "api", problems)
    if "listen" in values:
        values["host"], values["port"] = values.pop("listen")
    api = Api(**values)
    if "token" not in table and not _is_loopback(api.host):
        others = f"Others can call {api.host}: give a token of your own"
        problems.add("api.token", f"is missing. {others}, {types['token'].allowed}")
    return api


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
