"""The configuration file, the environment and the shipped files: read once, and checked whole.
It knows no command and no network, and what the shipped files mean is not its business.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from tzlocal.windows_tz import win_tz

from engine.errors import InputError
from engine.flow import FREQUENCIES, HOST, Connection, Flow, Schedule, Secret

Environ = Mapping[str, str]
Read = Callable[[Any], Any]

_PACKAGE = Path(__file__).parent
_FOLDERS = {"mapping": "mappings", "schema": "schemas"}
_REGIONS = {
    "us": HOST,
    "data": HOST,
    "eu": "https://data-eu.mixpanel.com",
    "in": "https://data-in.mixpanel.com",
}
_VARIABLES = {
    "host": "MIXPANEL_HOST",
    "username": "MIXPANEL_USERNAME",
    "password": "MIXPANEL_PASSWORD",
    "project_id": "MIXPANEL_PROJECT_ID",
    "timezone": "MIXPANEL_TIMEZONE",
}
_CREDENTIALS = ("username", "password", "project_id")
_LARGEST = 16 << 20  # bytes of a file that is read whole: who names more meant another file
_ELSEWHERE = '{ env = "NAME" } or { file = "PATH" }'
MOST_INTERVALS = 100_000
LAST_SECOND = 253_402_300_799  # of the year 9999: a larger number was meant in milliseconds


@dataclass(frozen=True, slots=True)
class Config:
    """What the configuration file declares."""

    home: Path
    flows: dict[str, Flow]


@dataclass(frozen=True, slots=True)
class Key:
    """A key that a table may have.

    `read` returns the value or raises ValueError, with a sentence where "must be `allowed`" does
    not say enough. `shown`: whether the value may stand in an error (P7).
    """

    allowed: str
    read: Read
    shown: bool = True


@dataclass(slots=True)
class Problems:
    """All that is wrong with `origin`, told at once."""

    origin: str
    found: list[str] = field(default_factory=list)

    def add(self, at: str, sentence: str) -> None:
        """`at` is the whole path of a key, as `flows.events.schedule.interval`."""
        self.found.append(f"{self.origin}: {at}: {sentence}")

    def tell(self) -> None:
        """Raise InputError if anything was found, a line for each."""
        if self.found:
            raise InputError("\n".join(self.found))


def load(path: Path, environ: Environ) -> Config:
    """The flows that a configuration file declares; what it leaves out comes from `environ`.

    Relative paths in it start at the working directory, as they do on the command line.
    InputError lists every problem, each with the file, the key and what is allowed.
    """
    problems = Problems(str(path))
    top = {
        "home": _TEXT,
        "connections": Key("tables: [connections.NAME]", _fits(_is_table)),
        "flows": Key("tables: [flows.NAME]", _fits(_is_table)),
    }
    document = _fields(_document(path, tomllib.loads, "TOML"), top, "", problems, ("flows",))
    connections = {
        name: _connection(name, table, environ, problems)
        for name, table in document.get("connections", {}).items()
    }
    flows = {
        name: _flow(name, table, connections, problems)
        for name, table in document.get("flows", {}).items()
    }
    _one_flow_a_table(flows, problems)
    problems.tell()
    return Config(
        Path(document["home"]) if "home" in document else home(environ),
        {name: flow for name, flow in flows.items() if flow},
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
            values[name] = _value(key, {"env": variable}, variable, problems)
    problems.tell()
    return Connection(**values)


def home(environ: Environ) -> Path:
    """Where the catalog is, unless the configuration file says otherwise."""
    return Path(environ.get("MIXPANEL_ETL_HOME") or ".mixpanel-etl")


def values_of(origin: str, table: Any, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of a table that stands in no file; InputError lists all that is wrong with it."""
    problems = Problems(origin)
    values = _fields(table, keys, "", problems, ())
    problems.tell()
    return values


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
    with _reading(path):
        there = path.exists()
    if not there:
        raise InputError(
            f'There is no {kind} "{wanted}". Give the path of a JSON file, or the name of a '
            f"shipped one: {', '.join(shipped) or 'none'}."
        )
    return path.name.removesuffix(".json"), _document(path, json.loads, "JSON")


def _shipped(kind: str) -> dict[str, Path]:
    """What came with the package: in it once it is installed, beside it in a checkout."""
    folders = [root / _FOLDERS[kind] for root in (_PACKAGE, _PACKAGE.parent)]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    files = sorted(folder.glob("*.json"))
    return {file.stem: file for file in files if not file.name.endswith(".cases.json")}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _document(path: Path, parse: Callable[[str], Any], form: str) -> Any:
    with _reading(path), path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(f"{path}: is not {form}: it is larger than {_LARGEST >> 20} MiB")
    try:
        return parse(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the messages tell line and column
        raise InputError(f"{path}: is not {form}: {error}") from error


def _fields(
    table: Any, keys: Mapping[str, Key], at: str, problems: Problems, needed: Iterable[str]
) -> dict[str, Any]:
    """The values of a table's keys, as far as they are right."""
    if not isinstance(table, dict):
        problems.add(at, "must be a table")
        return {}
    prefix = f"{at}." if at else ""
    values = {}
    for name, given in table.items():
        if name not in keys:
            problems.add(f"{prefix}{name}", f"is not known here{_nearest(name, keys)}")
            continue
        value = _value(keys[name], given, f"{prefix}{name}", problems)
        if value is not None:
            values[name] = value
    for name in needed:
        if name not in table:
            problems.add(f"{prefix}{name}", f"is missing. It must be {keys[name].allowed}")
    return values


def _value(key: Key, given: Any, at: str, problems: Problems) -> Any:
    """The value that `key` makes of `given`; None, and one problem more, if it makes none."""
    try:
        return key.read(given)
    except ValueError as error:
        shown = f", not {json.dumps(given, default=str):.80}" if key.shown else ""
        problems.add(at, str(error) or f"must be {key.allowed}{shown}")
        return None


def _nearest(name: str, allowed: Iterable[str]) -> str:
    near = get_close_matches(name, list(allowed), n=1)
    guess = f'; did you mean "{near[0]}"?' if near else "."
    return f"{guess} Allowed: {', '.join(allowed) or 'none'}"


def _connection(name: str, table: Any, environ: Environ, problems: Problems) -> Connection | None:
    """The connection, None if it has problems. The environment gives what the table leaves out."""
    if isinstance(table, dict):
        from_outside = {key: {"env": var} for key, var in _VARIABLES.items() if environ.get(var)}
        table = from_outside | table
    keys = _connection_keys(environ)
    values = _fields(table, keys, f"connections.{name}", problems, _CREDENTIALS)
    if not values.keys() >= set(_CREDENTIALS):
        return None
    return Connection(**({"host": HOST} | values), name=name)


def _flow(
    name: str, table: Any, connections: Mapping[str, Connection | None], problems: Problems
) -> Flow | None:
    """The flow, None if it has problems."""
    at = f"flows.{name}"
    if not re.fullmatch(r"[\w.-]+", name):  # positions in the table are named after flows
        problems.add(at, "the name of a flow has letters, digits, '.', '_' and '-' only")
    values = _fields(table, FLOW, at, problems, ("connection", "dataset"))
    schedule = None
    if "schedule" in values:
        schedule = _schedule(values.pop("schedule"), f"{at}.schedule", problems)
    wanted = values.pop("connection", None)
    if wanted is not None and wanted not in connections:
        problems.add(
            f"{at}.connection", f'"{wanted}" is not declared{_nearest(wanted, connections)}'
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
        place = os.path.realpath(flow.dataset.removeprefix("file://"))
        if (owner := owners.setdefault(place, name)) != name:
            problems.add(f"flows.{name}.dataset", f'is the table of flow "{owner}": give another')


def _schedule(table: dict[str, Any], at: str, problems: Problems) -> Schedule | None:
    """The tutorial's rules: an interval of at least 15 minutes or 1 of the rest; none for once."""
    frequency = table.get("frequency")
    least = 15 if frequency == "minute" else 1
    keys = {"frequency": _one_of(*FREQUENCIES), "interval": _whole(least), "start_time": _START}
    needed = ["frequency", "start_time"]
    if frequency == "once":
        keys["interval"] = Key("left out", _not_once)
    elif frequency in FREQUENCIES:
        needed.append("interval")
    values = _fields(table, keys, at, problems, needed)
    if not values.keys() >= set(needed):
        return None
    return Schedule(values["frequency"], values.get("interval"), values["start_time"])


def _connection_keys(environ: Environ) -> dict[str, Key]:
    """Those of `CONNECTION` and the password; each value stands in the file, or elsewhere."""

    def anywhere(read: Read) -> Read:
        return lambda given: read(_fetch(given, environ) if isinstance(given, dict) else given)

    def password(given: Any) -> Secret:
        if isinstance(given, dict):
            return Secret(_fetch(given, environ))
        raise ValueError(f"a password does not belong into this file: write {_ELSEWHERE}")

    def project(given: Any) -> Any:
        return project_id(_fetch(given, environ)) if isinstance(given, dict) else given

    keys = {name: replace(key, read=anywhere(key.read)) for name, key in CONNECTION.items()}
    username, number = CONNECTION["username"], CONNECTION["project_id"]
    return keys | {
        "username": replace(keys["username"], allowed=f"{username.allowed}, or {_ELSEWHERE}"),
        "password": Key(f"{_ELSEWHERE}, the secret of a service account", password, shown=False),
        "project_id": replace(number, read=lambda given: number.read(project(given))),
    }


def project_id(text: str) -> int | None:
    """The number of a project that is written as a text; None if it is none."""
    return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else None


def _fetch(given: dict[str, Any], environ: Environ) -> str:
    """What `{ env = … }` or `{ file = … }` stands for."""
    (kind, name), *more = given.items() or [("", "")]
    if kind not in ("env", "file") or more or not (isinstance(name, str) and name):
        raise ValueError(f"must be {_ELSEWHERE}")
    if kind == "env":
        # A password written in place of a variable's name must not be told (P7).
        told = f" {name}" if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", name) else ""
        text = environ.get(name, "")
        missing = f"the environment variable{told} is not set"
        if not _is_utf8(text):
            raise ValueError(f"the environment variable{told} is not a text in UTF-8")
    else:
        missing = "the file is empty"
        try:
            text = Path(name).read_text("utf-8").rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"the file cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ValueError("the file is not a text in UTF-8") from error
    if not text:
        raise ValueError(missing)
    return text


def _fits(test: Callable[[Any], object], make: Callable[[Any], Any] | None = None) -> Read:
    """A reader for the values that pass `test`; `make` turns them into what is kept."""

    def read(given: Any) -> Any:
        if not test(given):
            raise ValueError
        return make(given) if make else given

    return read


def _one_of(*allowed: str) -> Key:
    return Key(" or ".join(f'"{each}"' for each in allowed), _fits(lambda given: given in allowed))


def _whole(least: int, most: int = MOST_INTERVALS) -> Key:
    return Key(f"a whole number from {least} to {most}", _fits(_is_integer(least, most)))


def _number(most: int) -> Key:
    fits = _fits(lambda given: type(given) in (int, float) and 0 <= given <= most, float)
    return Key(f"a number from 0 to {most}", fits)


def _is_integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda given: type(given) is int and least <= given <= most


def _is_text(given: Any) -> bool:
    return isinstance(given, str) and bool(given.strip()) and "\0" not in given


def _is_utf8(text: str) -> bool:
    """Not so where Python met with other bytes in the environment."""
    return text == text.encode("utf-8", "replace").decode()


def _is_table(given: Any) -> bool:
    return isinstance(given, dict) and bool(given)


def _not_once(given: object) -> None:
    raise ValueError('is not allowed with the frequency "once": leave it out')


def _date(given: Any) -> date:
    """TOML has dates of its own; a text is one too."""
    if type(given) is date:
        return given
    if isinstance(given, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        with suppress(ValueError):
            return date.fromisoformat(given)
    raise ValueError


def _host(given: Any) -> str:
    text = str(_text(given)).strip()
    text = _REGIONS.get(text.lower().removeprefix("data-"), text)
    try:
        parts = urlsplit(text)
        whole = parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError from None  # its words repeat a part of the text
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not whole or more or re.search(r"\s", text):
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}"


@cache
def _zones() -> dict[str, tuple[str, str]]:
    """Every name of a time zone without its case, with the name as it is written and IANA's."""
    names = win_tz | {name: name for name in available_timezones()}
    return {name.casefold(): (name, iana) for name, iana in names.items()}


def _zone(given: Any) -> str:
    zones, wanted = _zones(), str(_text(given)).strip().casefold()
    if wanted in zones:
        return zones[wanted][1]
    near = [zones[name][0] for name in get_close_matches(wanted, zones, n=3, cutoff=0.3)]
    raise ValueError(
        "is not a time zone that is known. Write its IANA or its Windows name"
        + (f"; near to it are {', '.join(near)}." if near else ".")
    )


_text = _fits(_is_text)
CONNECTION = {  # no value of theirs is ever shown: people mix them up (P7)
    "host": Key(
        'the scheme and host of a URL, as "https://data.mixpanel.com", or us, eu or in',
        _host,
        shown=False,
    ),
    "username": Key(
        "the name of a service account, without a colon",
        _fits(lambda text: _is_text(text) and ":" not in text),  # RFC 7617
        shown=False,
    ),
    "project_id": Key(
        "the number of a project, as 2384945", _fits(_is_integer(1, 10**18)), shown=False
    ),
    "timezone": Key("the IANA or Windows name of a time zone", _zone, shown=False),
}
_TEXT = Key("a text that is not empty", _text)
_START = Key(
    "a time in whole seconds (not ms) since 1970, as 1625040887",
    _fits(_is_integer(0, LAST_SECOND)),
)
FLOW = {
    "connection": Key("the NAME of a table [connections.NAME]", _text),
    "dataset": Key("the path or URI of the table", _text),
    "mapping": Key("the name of a shipped mapping set or a path", _text),
    "schema": Key("the name of a shipped schema or a path", _text),
    "schedule": Key("{ frequency = …, interval = …, start_time = … }", _fits(_is_table)),
    "windows": _one_of("arrival", "day"),
    "lookback_days": _whole(1),
    "delay_minutes": _whole(0),
    "backfill_from": Key('a date, as "2024-01-01"', _date),
    "events": Key(
        'a list of names of events, as ["Items sold"]',
        _fits(lambda given: type(given) is list and given and all(map(_is_text, given)), tuple),
    ),
    "where": Key("a filter expression of Mixpanel's", _text),
    "partial_ingestion_percent": _number(100),
    "unmapped": _one_of("keep", "drop"),
    "shrink_guard_percent": _number(100),
    "keep_superseded_hours": _number(100_000),
}
