"""Types of values: what a value must be, how it is read and written, and its JSON Schema.

Pure: no type knows which key it is for, or where a value comes from.
"""

import re
from calendar import month_name, monthrange
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine.config.time_zones import iana_name
from engine.model.flow import FREQUENCIES, Secret
from engine.model.flow import HOST as _HOST

Json = dict[str, Any]
Read = Callable[[Any], Any]

MAX_WHOLE = 100_000
LAST_SECOND = 253_402_300_799  # of the year 9999: a larger number was meant in milliseconds
MAX_USERNAME = 255  # characters
MASK = "xxxx"  # stands for a secret wherever a body is stored or shown (P7)
_MAX_DIGITS = 18  # of a number written as a text
_PROJECT = r"\s*[0-9]{1,18}\s*"
_STRING = {"type": "string"}
_FLAGS = ("true", "false")
_REGIONS = {
    "us": _HOST,
    "data": _HOST,
    "eu": "https://data-eu.mixpanel.com",
    "in": "https://data-in.mixpanel.com",
}
MIXPANEL_HOSTS = tuple(dict.fromkeys(_REGIONS.values()))


class Unset(ValueError):
    """A value refers to a variable or a file that does not exist, or is empty."""


@dataclass(frozen=True, slots=True)
class Type:
    """A type of values.

    allowed    completes "must be …"
    read       returns the value, or raises ValueError, with a sentence if one helps
    schema     the JSON Schema of the value in bodies of the API
    write      turns the value into JSON
    from_text  turns a text into what `read` takes: for variables, files, and numbers as texts
    secret     what the secret is called, as "password"; "" for what is not secret
    shown      whether an error may show a wrong value (P7)
    """

    allowed: str
    read: Read
    schema: Json = field(default_factory=dict)
    write: Read = lambda value: value
    from_text: Read = lambda text: text
    secret: str = ""
    shown: bool = True

    def read_text_too(self, value: Any) -> Any:
        """Read a value, or a number that is written as a text."""
        return self.read(self.from_text(value) if isinstance(value, str) else value)

    def accepts(self, value: Any) -> bool:
        """Whether `value` is a value of this type."""
        try:
            self.read(value)
        except ValueError:
            return False
        return True


# Makers of types ----------------------------------------------------------------------------


def passing(test: Callable[[Any], object], make: Read | None = None) -> Read:
    """Make a reader for values that pass `test`; `make` converts them."""

    def read(value: Any) -> Any:
        if not test(value):
            raise ValueError
        return make(value) if make else value

    return read


def text(allowed: str = "a text that is not empty") -> Type:
    """Make the type of a text that is not blank."""
    return Type(allowed, read_text, {"type": "string", "minLength": 1, "pattern": "\\S"})


def texts(allowed: str) -> Type:
    """Make the type of a list of texts, none of them blank; the value is a tuple."""
    schema = {"type": "array", "minItems": 1, "items": text().schema}
    return Type(allowed, passing(_is_texts, tuple), schema, lambda value: list(value) or None)


def one_of(*allowed: str) -> Type:
    """Make the type of one of some texts."""
    sentence = " or ".join(f'"{each}"' for each in allowed)
    read = passing(lambda value: value in allowed)
    return Type(sentence, read, {"type": "string", "enum": list(allowed)})


def whole(least: int, most: int = MAX_WHOLE) -> Type:
    """Make the type of a whole number, which no boolean is."""
    schema = {"type": "integer", "minimum": least, "maximum": most}
    read = passing(lambda value: type(value) is int and least <= value <= most)
    return Type(f"a whole number from {least} to {most}", read, schema)


def number(most: int) -> Type:
    """Make the type of a number from 0 on, whole or not; the value is a float."""
    read = passing(lambda value: type(value) in (int, float) and 0 <= value <= most, float)
    schema = {"type": "number", "minimum": 0, "maximum": most}
    return Type(f"a number from 0 to {most}", read, schema)


def secret(name: str, allowed: str, test: Callable[[str], object] | None = None) -> Type:
    """Make the type of a secret, which bodies and errors never show (P7)."""
    schema = text().schema | {"format": "password", "writeOnly": True}
    read = passing(test or is_text, Secret)
    return Type(allowed, read, schema, lambda _: MASK, secret=name, shown=False)


def any_case(words: Iterable[str]) -> Json:
    """Return the JSON Schema of one of some words, in any case."""
    forms = ("".join(f"[{letter.upper()}{letter}]" for letter in word) for word in words)
    return {"type": "string", "pattern": f"^({'|'.join(forms)})$"}


def with_digits(type_: Type) -> Type:
    """Make a type of a whole number that bodies may have as a text as well."""
    digits = {"type": "string", "pattern": f"^[0-9]{{1,{_MAX_DIGITS}}}$"}
    return replace(type_, schema={"anyOf": [type_.schema, digits]}, from_text=integer)


def nullable(schema: Json) -> Json:
    """Return a JSON Schema that allows null, too."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


# Tests and readers --------------------------------------------------------------------------


def is_text(value: Any) -> bool:
    """Whether a value is a text that is not blank, and that a path or an address can hold."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def is_table(value: Any) -> bool:
    """Whether a value is a table with a key in it."""
    return isinstance(value, dict) and bool(value)


def trimmed(text: str) -> str:
    """Return a text without the line ends around it, which editors and `echo` add."""
    return text.strip("\r\n")


def integer(value: Any) -> int | None:
    """Return a whole number, which may be written as a text; else None."""
    if isinstance(value, str):
        digits = (text := trimmed(value)).removeprefix("-")
        is_number = digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS
        return int(text) if is_number else None
    return value if type(value) is int else None


def calendar_day(text: str) -> date:
    """Return the day of a text as "2024-01-31"; ValueError, with a sentence where one helps."""
    found = re.fullmatch(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})", text)
    if not found:
        raise ValueError
    year, month, day = map(int, found.groups())
    if year and 1 <= month <= 12:
        last = monthrange(year, month)[1]
        if not 1 <= day <= last:
            raise ValueError(f"{month_name[month]} {year} has {last} days")
    elif year:
        raise ValueError("a year has the months 01 to 12")
    return date(year, month, day)


def _is_texts(value: Any) -> bool:
    return type(value) is list and bool(value) and all(map(is_text, value))


def _read_date(value: Any) -> date:
    if type(value) is date:
        return value
    if isinstance(value, str):
        try:
            return calendar_day(value)
        except ValueError as error:
            raise ValueError(f"is no date: {error}" if str(error) else "") from None
    raise ValueError


def _read_url(value: Any) -> str:
    """Return the scheme and host of a URL that has nothing more."""
    url = str(read_text(value)).strip()
    try:
        parts = urlsplit(url)
        named = parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError from None  # its message repeats a part of the URL (P7)
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not named or more or re.search(r"\s", url):
        raise ValueError
    return f"{parts.scheme}://{parts.netloc}"


def _read_host(value: Any) -> str:
    host = str(read_text(value)).strip()
    return _read_url(_REGIONS.get(host.lower().removeprefix("data-"), host))


def origin_of(url: str) -> str:
    """Return the scheme, host and port of a URL in one spelling, for comparison."""
    parts = urlsplit(url)
    port = {"https": 443, "http": 80}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, port) else "")


def _read_address(value: Any) -> tuple[str, int]:
    """Return host and port; port 0 picks a free one."""
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):([0-9]{1,5})", read_text(value), re.ASCII
    )
    if not found or int(found[3]) > 65535:
        raise ValueError
    return found[1] or found[2], int(found[3])


read_text = passing(is_text)

# The types of single fields -----------------------------------------------------------------

ELSEWHERE = '{ env = "NAME" } or { file = "PATH" }'  # where a secret stands

ADDRESS = Type('an address and a port, as "127.0.0.1:8787"', _read_address)
CONNECTION = text("the NAME of a table [connections.NAME]")
DATASET = text("the path or URI of the table")
DATE = Type(
    'a date, as "2024-01-01"',
    _read_date,
    {"type": "string", "pattern": "^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}$"},
    lambda day: day and str(day),
)
EVENTS = texts('a list of names of events, as ["Items sold"]')
FLAG = Type(
    "true or false",
    passing(lambda value: str(value).lower() in _FLAGS, lambda value: str(value).lower() == "true"),
    {"anyOf": [{"type": "boolean"}, any_case(_FLAGS)]},
)
FOLDER = Type("the path of a folder", passing(is_text, Path))
FREQUENCY = replace(one_of(*FREQUENCIES), schema=any_case(FREQUENCIES))
HOST_NAMES = texts('a list of names, as ["etl.example.org"]')
INTERVAL = with_digits(whole(1))
KEY = secret("key", f"{ELSEWHERE}, a Fernet key")
MAPPING = text("the name of a shipped mapping set or a path")
ORIGINS = Type(
    'a list of schemes and hosts, as ["http://127.0.0.1:8080"]',
    passing(_is_texts, lambda hosts: tuple(origin_of(_read_host(each)) for each in hosts)),
    shown=False,
)
SCHEDULE = Type("{ frequency = …, interval = …, start_time = … }", passing(is_table))
SCHEMA = text("the name of a shipped schema or a path")
START = replace(
    with_digits(whole(0, LAST_SECOND)),
    allowed="a time in whole seconds (not ms) since 1970, as `date +%s` prints it, or left out",
)
TOKEN = secret(
    "token",
    f"{ELSEWHERE}, at least 16 letters, digits and signs in ASCII",
    re.compile("[!-~]{16,}").fullmatch,
)
URL = Type(
    'the scheme and host of a URL, as "https://etl.example.org"', _read_url, _STRING, shown=False
)
WHERE = text("a filter expression of Mixpanel's")

# No wrong value of a connection is shown: people mix them up with the password (P7).
HOST = Type(
    f'the scheme and host of a URL, as "{_HOST}", or us, eu or in', _read_host, _STRING, shown=False
)
PASSWORD = secret("password", f"{ELSEWHERE}, the secret of a service account")
PROJECT = replace(
    whole(1, 10**18 - 1),
    allowed="the number of a project, as 2384945",
    schema={"anyOf": [whole(1, 10**18 - 1).schema, {"type": "string", "pattern": f"^{_PROJECT}$"}]},
    write=str,
    from_text=lambda text: int(text) if re.fullmatch(_PROJECT, text) else None,
    shown=False,
)
TIME_ZONE = Type(
    "the IANA or Windows name of a time zone", passing(is_text, iana_name), _STRING, shown=False
)
USERNAME = Type(
    "the name of a service account, without a colon",
    passing(lambda text: is_text(text) and ":" not in text),  # RFC 7617
    {"type": "string", "pattern": f"^[!-9;-~]{{1,{MAX_USERNAME}}}$"},
    shown=False,
)
