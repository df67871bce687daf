"""The environment variables, and values that stand in variables and files (P7)."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import re2

from engine.config.fields import CONNECTION, types_of
from engine.config.toml_tables import Problems, read_value
from engine.config.value_types import ELSEWHERE, Type, Unset, trimmed
from engine.model.flow import HOST, Connection

Environ = Mapping[str, str]

VARIABLES = {
    "host": "MIXPANEL_HOST",
    "username": "MIXPANEL_USERNAME",
    "password": "MIXPANEL_PASSWORD",
    "project_id": "MIXPANEL_PROJECT_ID",
    "timezone": "MIXPANEL_TIMEZONE",
}
CREDENTIALS = ("username", "password", "project_id")
LARGEST_SECRET = 16 << 10  # bytes of a file that holds a secret
LONGEST_NAME, LONGEST_PATH = 64, 300  # characters of a variable or a file that errors show
LEAST_PARTS = 2  # of a path that is no password by mistake: "/", a folder and a name
_UNSHOWN = " (its name is not shown: it may be a secret)"


def home(environ: Environ) -> Path:
    """Return the folder of the catalog; the configuration file overrides it."""
    return Path(trimmed(environ.get("MIXPANEL_ETL_HOME", "")) or ".mixpanel-etl")


def connection_of(environ: Environ) -> Connection:
    """Return the connection that the variables declare; InputError lists every problem."""
    problems = Problems("environment")
    missing = [VARIABLES[key] for key in CREDENTIALS if not environ.get(VARIABLES[key])]
    if missing:
        problems.add(
            ", ".join(missing),
            "not set. Set the name and the secret of a Mixpanel service account and the number "
            "of the project, or give a configuration file.",
        )
    values: dict[str, Any] = {"host": HOST}
    for key, type_ in connection_types(environ).items():
        variable = VARIABLES[key]
        if environ.get(variable):
            values[key] = read_value(type_, {"env": variable}, variable, problems)
    problems.raise_any()
    return Connection(**values)


def connection_types(environ: Environ) -> dict[str, Type]:
    """Return the types of a connection's fields, whose values may stand in variables and files."""
    types = {key: from_elsewhere(each, environ) for key, each in types_of(CONNECTION).items()}
    username = types["username"]
    return types | {"username": replace(username, allowed=f"{username.allowed}, or {ELSEWHERE}")}


def read_again(connection: Connection) -> Connection:
    """Return the connection with the present content of its files; an unusable file is ignored."""
    types = connection_types({})
    fresh: dict[str, Any] = {}
    for key, path in connection.files:
        with suppress(ValueError):  # another program may be writing the file
            fresh[key] = types[key].read({"file": path})
    return replace(connection, **fresh)


def from_elsewhere(type_: Type, environ: Environ) -> Type:
    """Return a type whose value may stand in a variable or a file; a secret must (P7)."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return _without_quotes(type_.read_text_too, _fetch(value, environ))
        if type_.secret:
            raise ValueError(f"a {type_.secret} does not belong into this file: write {ELSEWHERE}")
        return _without_quotes(type_.read, trimmed(value) if isinstance(value, str) else value)

    return replace(type_, read=read)


def _without_quotes(read: Callable[[Any], Any], value: Any) -> Any:
    """Read a value; ValueError names quotation marks around a text that is refused."""
    try:
        return read(value)
    except ValueError:
        if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] in "\"'`":
            raise ValueError("must stand without quotation marks round it") from None
        raise


def _fetch(reference: dict[str, Any], environ: Environ) -> str:
    """Return the text that `{ env = … }` or `{ file = … }` refers to."""
    (kind, name), *more = reference.items() or [("", "")]
    if kind not in ("env", "file") or more or not (isinstance(name, str) and name):
        raise ValueError(f"must be {ELSEWHERE}")
    if kind == "env":
        source, text = f"the environment variable{_shown_variable(name)}", environ.get(name, "")
        if text != text.encode("utf-8", "replace").decode():  # Python escapes other bytes
            raise ValueError(f"{source} is not a text in UTF-8")
    else:
        source = f"the file{_shown_path(name)}"
        try:
            with Path(name).open("rb") as file:
                content = file.read(LARGEST_SECRET + 1)
        except OSError as error:
            raise Unset(f"{source} cannot be read ({error.strerror})") from error
        if len(content) > LARGEST_SECRET:
            larger = f"{source} is larger than {LARGEST_SECRET >> 10} KiB"
            raise ValueError(f"{larger}: name one that holds the secret alone")
        try:
            text = content.decode("utf-8-sig")
        except ValueError as error:
            raise ValueError(f"{source} is not a text in UTF-8") from error
    if not (text := trimmed(text)):
        raise Unset(f"{source} is {'not set' if kind == 'env' else 'empty'}")
    return text


def _shown_variable(name: str) -> str:
    """Return a variable's name for an error, unless it looks like a password (P7)."""
    words = re2.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,20}[0-9]{0,3}", name)
    return f" {name}" if words and len(name) <= LONGEST_NAME else _UNSHOWN


def _shown_path(name: str) -> str:
    """Return a file's path for an error, unless it looks like a password (P7)."""
    path = Path(name)
    try:
        in_folder = path.parent not in (Path(), Path("/")) and path.parent.is_dir()
        exists = "\0" not in name and (path.exists() or in_folder)
    except OSError:  # the name is too long, or a folder is closed to us
        exists = False
    named = exists or (path.is_absolute() and len(path.parts) > LEAST_PARTS)
    return f" {name}" if named and len(name) <= LONGEST_PATH else _UNSHOWN
