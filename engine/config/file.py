"""The configuration file, the environment and the shipped files: read once, and checked whole.
It knows no command and no network, and what the shipped files mean is not its business.
"""

import ipaddress
import json
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from tzlocal.windows_tz import win_tz

from engine.config.fields import (
    ELSEWHERE,
    TEXT,
    Environ,
    Key,
    Problems,
    Read,
    a_text,
    calendar_day,
    document,
    fetch,
    fields,
    fits,
    is_integer,
    is_table,
    is_text,
    nearest,
    number,
    one_of,
    reading,
    secret,
    trimmed,
    value_of,
    whole,
)
from engine.dataset.storage.local import canonical
from engine.errors import InputError
from engine.model.flow import FREQUENCIES, HOST, Connection, Flow, Schedule, Secret

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = {"mapping": "mappings", "schema": "schemas"}
_REGIONS = {
    "us": HOST,
    "data": HOST,
    "eu": "https://data-eu.mixpanel.com",
    "in": "https://data-in.mixpanel.com",
}
ASKED = tuple(dict.fromkeys(_REGIONS.values()))
"""Mixpanel's own hosts."""
_VARIABLES = {
    "host": "MIXPANEL_HOST",
    "username": "MIXPANEL_USERNAME",
    "password": "MIXPANEL_PASSWORD",
    "project_id": "MIXPANEL_PROJECT_ID",
    "timezone": "MIXPANEL_TIMEZONE",
}
_CREDENTIALS = ("username", "password", "project_id")
ABBREVIATIONS = {  # what people call a zone by; those that are IANA names are zones themselves
    abbreviation: zone
    for zone, names in {
        "America/Los_Angeles": "pst pdt pt pacific",
        "America/Denver": "mdt mt mountain",
        "America/Chicago": "cst cdt ct central",
        "America/New_York": "edt et eastern",
        "America/Anchorage": "akst akdt",
        "America/Halifax": "adt",
        "America/Sao_Paulo": "brt brst",
        "Europe/London": "bst",
        "Europe/Lisbon": "west",
        "Europe/Berlin": "cest mez mesz",
        "Europe/Athens": "eest",
        "Europe/Moscow": "msk",
        "Asia/Jerusalem": "idt",
        "Asia/Dubai": "gst",
        "Asia/Karachi": "pkt",
        "Asia/Kolkata": "ist",
        "Asia/Bangkok": "ict",
        "Asia/Jakarta": "wib",
        "Asia/Singapore": "sgt",
        "Asia/Manila": "pht",
        "Asia/Hong_Kong": "hkt",
        "Asia/Tokyo": "jst",
        "Asia/Seoul": "kst",
        "Australia/Perth": "awst",
        "Australia/Adelaide": "acst acdt",
        "Australia/Sydney": "aest aedt",
        "Pacific/Auckland": "nzst nzdt",
        "Africa/Johannesburg": "sast",
        "Africa/Nairobi": "eat",
        "Africa/Lagos": "wat",
    }.items()
    for abbreviation in names.split()
}
LEAST_MINUTES = 15  # between two ticks
LAST_SECOND = 253_402_300_799  # of the year 9999: a larger number was meant in milliseconds


@dataclass(frozen=True, slots=True)
class Api:
    """Where the control plane listens, and what it works with.

    token     who knows it may call; None: one is made in the home
    key       what secrets are encrypted with; None: one is made in the home
    datasets  the folder of the tables that clients make
    hosts     names that it is called by, beside the address that it listens on
    url       how the addresses in its answers begin; "": as the one that was called
    mixpanel_hosts  what connections that clients make may ask, besides Mixpanel's own hosts
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
    """What the configuration file declares; `api` is None where it has no control plane."""

    home: Path
    flows: dict[str, Flow]
    api: Api | None = None


def load(path: Path, environ: Environ) -> Config:
    """The flows that a configuration file declares; what it leaves out comes from `environ`.

    Relative paths in it start at the working directory, as they do on the command line.
    InputError lists every problem, each with the file, the key and what is allowed.
    """
    problems = Problems(str(path))
    top = {
        "home": TEXT,
        "connections": Key("tables: [connections.NAME]", fits(is_table)),
        "flows": Key("tables: [flows.NAME]", fits(is_table)),
        "api": Key("a table: [api]", fits(lambda given: isinstance(given, dict))),
    }
    raw = document(path, tomllib.loads, "TOML")
    needed = () if "api" in raw else ("flows",)  # clients may make them all
    declared = fields(raw, top, "", problems, needed)
    connections = {
        name: _connection(name, table, environ, problems)
        for name, table in declared.get("connections", {}).items()
    }
    flows = {
        name: _flow(name, table, connections, problems)
        for name, table in declared.get("flows", {}).items()
    }
    _one_flow_a_table(flows, problems)
    api = _api(declared["api"], environ, problems) if "api" in declared else None
    problems.tell()
    return Config(
        Path(declared["home"]) if "home" in declared else home(environ),
        {name: flow for name, flow in flows.items() if flow},
        api,
    )


def from_environment(environ: Environ) -> Connection:
    """The connection that the environment alone describes; InputError lists every problem."""
    problems = Problems("environment")
    missing = [_VARIABLES[key] for key in _CREDENTIALS if not environ.get(_VARIABLES[key])]
    if missing:
        problems.add(
            ", ".join(missing),
            "not set. Set the name and the secret of a Mixpanel service account and the number "
            "of the project, or give a configuration file.",
        )
    values: dict[str, Any] = {"host": HOST}
    for name, key in _connection_keys(environ).items():
        variable = _VARIABLES[name]
        if environ.get(variable):
            values[name] = value_of(key, {"env": variable}, variable, problems)
    problems.tell()
    return Connection(**values)


def home(environ: Environ) -> Path:
    """Where the catalog is, unless the configuration file says otherwise."""
    return Path(trimmed(environ.get("MIXPANEL_ETL_HOME", "")) or ".mixpanel-etl")


def timezone(name: str) -> str:
    """The IANA name of a time zone, given by that or by its Windows name, as the tutorial does."""
    try:
        return _zone(name)
    except ValueError as error:
        raise InputError(f'"{name}" {error}') from error


def find(kind: str, wanted: str) -> tuple[str, Any]:
    """A mapping set or a schema: its name and its JSON document.

    `kind` is "mapping" or "schema"; `wanted` the name of a shipped one, or a path.
    """
    shipped = _shipped(kind)
    path = shipped.get(wanted, Path(wanted))
    with reading(path):
        there = path.exists()
    if not there:
        raise InputError(
            f'There is no {kind} "{wanted}". Give the path of a JSON file, or the name of a '
            f"shipped one: {', '.join(shipped) or 'none'}."
        )
    return path.name.removesuffix(".json"), document(path, json.loads, "JSON")


def _shipped(kind: str) -> dict[str, Path]:
    """What came with the package: in it once it is installed, beside it in a checkout."""
    folders = [root / _FOLDERS[kind] for root in (_PACKAGE, _PACKAGE.parent)]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if not file.name.endswith(".cases.json")}


def _connection(name: str, table: Any, environ: Environ, problems: Problems) -> Connection | None:
    """The connection, None if it has problems. The environment gives what the table leaves out."""
    if isinstance(table, dict):
        from_outside = {key: {"env": var} for key, var in _VARIABLES.items() if environ.get(var)}
        table = from_outside | table
    keys = _connection_keys(environ)
    values = fields(table, keys, f"connections.{name}", problems, _CREDENTIALS)
    if not values.keys() >= set(_CREDENTIALS):
        return None
    return Connection(**({"host": HOST} | values), name=name, files=_files(table))


def _files(table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Which credentials of a connection stand in files."""
    given = ((key, table[key]) for key in ("username", "password"))
    return tuple((key, each["file"]) for key, each in given if _is_in_file(each))


def _is_in_file(given: Any) -> bool:
    return isinstance(given, dict) and "file" in given


def read_again(connection: Connection) -> Connection:
    """The connection with what its files hold by now; a file that holds nothing changes nothing."""
    keys = _connection_keys({})
    fresh: dict[str, Any] = {}
    for name, path in connection.files:
        with suppress(ValueError):  # it may be just being written
            fresh[name] = keys[name].read({"file": path})
    return replace(connection, **fresh)


def _flow(
    name: str, table: Any, connections: Mapping[str, Connection | None], problems: Problems
) -> Flow | None:
    """The flow, None if it has problems."""
    at = f"flows.{name}"
    if not re.fullmatch(r"[\w.-]+", name):  # positions in the table are named after flows
        problems.add(at, "the name of a flow has letters, digits, '.', '_' and '-' only")
    values = fields(table, FLOW, at, problems, ("connection", "dataset"))
    schedule = None
    if "schedule" in values:
        schedule = _schedule(values.pop("schedule"), f"{at}.schedule", problems)
    wanted = values.pop("connection", None)
    if wanted is not None and wanted not in connections:
        problems.add(
            f"{at}.connection", f'"{wanted}" is not declared{nearest(wanted, connections)}'
        )
    connection = connections.get(wanted)
    if connection is None or "dataset" not in values:
        return None
    defaults = {"windows": "arrival" if schedule else "day"}
    return Flow(name, connection, schedule=schedule, **(defaults | values))


def _one_flow_a_table(flows: Mapping[str, Flow | None], problems: Problems) -> None:
    """Two flows would replace each other's days, and each would append what arrives (P4)."""
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
    """The tutorial's rules: an interval of at least 15 minutes or 1 of the rest; none for once."""
    frequency = table.get("frequency")
    keys = {"frequency": one_of(*FREQUENCIES), "interval": whole(1), "start_time": _START}
    needed = ["frequency"]
    if frequency == "minute":
        keys["interval"] = replace(whole(LEAST_MINUTES), read=_minutes)
    if frequency == "once":
        keys["interval"] = Key("left out", _not_once)
        needed.append("start_time")
    elif frequency in FREQUENCIES:
        needed.append("interval")
    values = fields(table, keys, at, problems, needed)
    if not values.keys() >= set(needed):
        return None
    return Schedule(values["frequency"], values.get("interval"), values.get("start_time", 0))


def _connection_keys(environ: Environ) -> dict[str, Key]:
    """Those of `CONNECTION` and the password; each value stands in the file, or elsewhere."""

    def anywhere(read: Read) -> Read:
        return lambda given: _quotes_named(read, found(given))

    def found(given: Any) -> Any:
        if isinstance(given, dict):
            return fetch(given, environ)
        return trimmed(given) if isinstance(given, str) else given

    def number_of(text: Any) -> Any:
        return number.read(project_id(text))

    def project(given: Any) -> Any:
        if isinstance(given, dict):
            return _quotes_named(number_of, fetch(given, environ))
        return number.read(given)

    keys = {name: replace(key, read=anywhere(key.read)) for name, key in CONNECTION.items()}
    username, number = CONNECTION["username"], CONNECTION["project_id"]
    return keys | {
        "username": replace(keys["username"], allowed=f"{username.allowed}, or {ELSEWHERE}"),
        "password": Key(
            f"{ELSEWHERE}, the secret of a service account",
            secret(environ, "password"),
            shown=False,
        ),
        "project_id": replace(number, read=project),
    }


def _quotes_named(read: Read, text: Any) -> Any:
    """What `read` makes of a text; if it makes nothing of one in quotation marks, those are why."""
    try:
        return read(text)
    except ValueError:
        if isinstance(text, str) and len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
            raise ValueError("must stand without quotation marks round it") from None
        raise


def project_id(text: str) -> int | None:
    """The number of a project that is written as a text; None if it is none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else None


def _api(table: dict[str, Any], environ: Environ, problems: Problems) -> Api:
    """The control plane. Where others can reach it, the token has to be one that was thought of."""
    keys = {
        "listen": Key('an address and a port, as "127.0.0.1:8787"', _listen),
        "token": Key(
            f"{ELSEWHERE}, at least 16 letters, digits and signs in ASCII",
            secret(environ, "token", re.compile("[!-~]{16,}").fullmatch),
            shown=False,
        ),
        "key": Key(f"{ELSEWHERE}, a Fernet key", secret(environ, "key"), shown=False),
        "datasets": Key("the path of a folder", fits(is_text, Path)),
        "hosts": Key('a list of names, as ["etl.example.org"]', fits(_are_texts, tuple)),
        "url": Key('the scheme and host of a URL, as "https://etl.example.org"', _url, shown=False),
        "mixpanel_hosts": Key(
            'a list of schemes and hosts, as ["http://127.0.0.1:8080"]', _origins, shown=False
        ),
    }
    values = fields(table, keys, "api", problems, ())
    if "listen" in values:
        values["host"], values["port"] = values.pop("listen")
    api = Api(**values)
    if "token" not in table and not _is_loopback(api.host):
        allowed = keys["token"].allowed
        problems.add(
            "api.token",
            f"is missing. Others can call {api.host}: give a token of your own, {allowed}",
        )
    return api


def _listen(given: Any) -> tuple[str, int]:
    """Port 0 is any that is free."""
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):([0-9]{1,5})", a_text(given), re.ASCII
    )
    if not found or int(found[3]) > 65535:
        raise ValueError
    return found[1] or found[2], int(found[3])


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _are_texts(given: Any) -> bool:
    return type(given) is list and bool(given) and all(map(is_text, given))


def _minutes(given: Any) -> Any:
    """An interval in minutes. One that is too short is told why."""
    if is_integer(1, LEAST_MINUTES - 1)(given):
        raise ValueError(
            f"is {given} minutes, and the least is {LEAST_MINUTES}: each tick costs one of the 60"
            " requests an hour that Mixpanel allows a project"
        )
    return whole(LEAST_MINUTES).read(given)


def _not_once(given: object) -> None:
    raise ValueError('is not allowed with the frequency "once": leave it out')


def _date(given: Any) -> date:
    """TOML has dates of its own; a text is one too."""
    if type(given) is date:
        return given
    if isinstance(given, str):
        try:
            return calendar_day(given)
        except ValueError as error:
            raise ValueError(f"is no date: {error}" if str(error) else "") from None
    raise ValueError


def _host(given: Any) -> str:
    text = str(a_text(given)).strip()
    return _url(_REGIONS.get(text.lower().removeprefix("data-"), text))


def _url(given: Any) -> str:
    """The scheme and the host of a URL that has nothing more."""
    text = str(a_text(given)).strip()
    try:
        parts = urlsplit(text)
        named = parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError from None  # its words repeat a part of the text
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not named or more or re.search(r"\s", text):
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}"


def origin_of(url: str) -> str:
    """The scheme, host and port of a URL, as two of them are compared."""
    parts = urlsplit(url)
    port = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, port) else "")


def _origins(given: Any) -> tuple[str, ...]:
    if not _are_texts(given):
        raise ValueError
    return tuple(origin_of(_host(each)) for each in given)


@cache
def _zones() -> dict[str, tuple[str, str]]:
    """Every name of a time zone without its case, with the name as it is written and IANA's."""
    names = win_tz | {name: name for name in available_timezones()}
    return {name.casefold(): (name, iana) for name, iana in names.items()}


def _zone(given: Any) -> str:
    zones, wanted = _zones(), str(a_text(given)).strip().casefold()
    if wanted in zones:
        return zones[wanted][1]
    meant = ABBREVIATIONS.get(wanted) or _of_city(wanted)
    near = [zones[name][0] for name in get_close_matches(wanted, zones, n=3, cutoff=0.3)]
    end = f"; near to it are {', '.join(near)}." if near else "."
    raise ValueError(
        "is not a time zone that is known. Write its IANA or its Windows name"
        + (f"; did you mean {meant}?" if meant else end)
    )


def _of_city(wanted: str) -> str | None:
    """The IANA name that ends in a city, as "Los Angeles"; None unless there is one alone."""
    city = "/" + wanted.replace(" ", "_")
    found = [name for name in sorted(available_timezones()) if name.casefold().endswith(city)]
    return found[0] if len(found) == 1 else None


CONNECTION = {  # no value of theirs is ever shown: people mix them up (P7)
    "host": Key(
        'the scheme and host of a URL, as "https://data.mixpanel.com", or us, eu or in',
        _host,
        shown=False,
    ),
    "username": Key(
        "the name of a service account, without a colon",
        fits(lambda text: is_text(text) and ":" not in text),  # RFC 7617
        shown=False,
    ),
    "project_id": Key(
        "the number of a project, as 2384945", fits(is_integer(1, 10**18)), shown=False
    ),
    "timezone": Key("the IANA or Windows name of a time zone", _zone, shown=False),
}
_START = Key(
    "a time in whole seconds (not ms) since 1970, as `date +%s` prints it, or left out",
    fits(is_integer(0, LAST_SECOND)),
)
FLOW = {
    "connection": Key("the NAME of a table [connections.NAME]", a_text),
    "dataset": Key("the path or URI of the table", a_text),
    "mapping": Key("the name of a shipped mapping set or a path", a_text),
    "schema": Key("the name of a shipped schema or a path", a_text),
    "schedule": Key("{ frequency = …, interval = …, start_time = … }", fits(is_table)),
    "windows": one_of("arrival", "day"),
    "lookback_days": whole(1),
    "delay_minutes": whole(0),
    "overlap_minutes": whole(0),
    "backfill_from": Key('a date, as "2024-01-01"', _date),
    "events": Key(
        'a list of names of events, as ["Items sold"]',
        fits(_are_texts, tuple),
    ),
    "where": Key("a filter expression of Mixpanel's", a_text),
    "partial_ingestion_percent": number(100),
    "partial_ingestion_min": whole(0),
    "unmapped": one_of("keep", "drop"),
    "shrink_guard_percent": number(100),
    "keep_superseded_hours": number(100_000),
    "keep_batches_days": number(100_000),
}
