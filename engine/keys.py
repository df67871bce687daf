"""Tables of keys and values, whatever they are about: read once, checked whole, every problem told.
What keys there are is config.py's business.
"""

import json
import re
from calendar import month_name, monthrange
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.flow import Secret

Environ = Mapping[str, str]
Read = Callable[[Any], Any]

ELSEWHERE = '{ env = "NAME" } or { file = "PATH" }'
MOST_WHOLE = 100_000
_LARGEST = 16 << 20  # bytes of a file that is read whole: who names more meant another file


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


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around what reads a file: InputError where that cannot be read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def document(path: Path, parse: Callable[[str], Any], form: str) -> Any:
    """What `parse` makes of a file; InputError where it is not of that `form`."""
    with reading(path), path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(f"{path}: is not {form}: it is larger than {_LARGEST >> 20} MiB")
    try:
        return parse(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the messages tell line and column
        raise InputError(f"{path}: is not {form}: {error}") from error


def fields(
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
            problems.add(f"{prefix}{name}", f"is not known here{nearest(name, keys)}")
            continue
        value = value_of(keys[name], given, f"{prefix}{name}", problems)
        if value is not None:
            values[name] = value
    for name in needed:
        if name not in table:
            problems.add(f"{prefix}{name}", f"is missing. It must be {keys[name].allowed}")
    return values


def values_of(origin: str, table: Any, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The values of a table that stands in no file; InputError lists all that is wrong with it."""
    problems = Problems(origin)
    values = fields(table, keys, "", problems, ())
    problems.tell()
    return values


def value_of(key: Key, given: Any, at: str, problems: Problems) -> Any:
    """The value that `key` makes of `given`; None, and one problem more, if it makes none."""
    try:
        return key.read(given)
    except ValueError as error:
        shown = f", not {json.dumps(given, default=str):.80}" if key.shown else ""
        problems.add(at, str(error) or f"must be {key.allowed}{shown}")
        return None


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a sentence on a name that is not known: what was meant, and what there is."""
    near = get_close_matches(name, list(allowed), n=1)
    guess = f'; did you mean "{near[0]}"?' if near else "."
    return f"{guess} Allowed: {', '.join(allowed) or 'none'}"


def fetch(given: dict[str, Any], environ: Environ) -> str:
    """What `{ env = … }` or `{ file = … }` stands for."""
    (kind, name), *more = given.items() or [("", "")]
    if kind not in ("env", "file") or more or not (isinstance(name, str) and name):
        raise ValueError(f"must be {ELSEWHERE}")
    if kind == "env":
        # A password written in place of a variable's name must not be told (P7).
        told = f" {name}" if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", name) else ""
        text = trimmed(environ.get(name, ""))
        missing = f"the environment variable{told} is not set"
        if not _is_utf8(text):
            raise ValueError(f"the environment variable{told} is not a text in UTF-8")
    else:
        missing = "the file is empty"
        try:
            text = trimmed(Path(name).read_text("utf-8-sig"))
        except OSError as error:
            raise ValueError(f"the file cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ValueError("the file is not a text in UTF-8") from error
    if not text:
        raise ValueError(missing)
    return text


def trimmed(text: str) -> str:
    """`text` without the line ends around it, which editors and `echo` add and nobody means."""
    return text.strip("\r\n")


def is_text(given: Any) -> bool:
    """Whether something is a text that says anything."""
    return isinstance(given, str) and bool(given.strip()) and "\0" not in given


def secret(environ: Environ, what: str, test: Callable[[str], object] = bool) -> Read:
    """A reader for a text that never stands in the file itself (P7)."""

    def read(given: Any) -> Secret:
        if isinstance(given, dict):
            return Secret(fits(test)(fetch(given, environ)))
        raise ValueError(f"a {what} does not belong into this file: write {ELSEWHERE}")

    return read


def fits(test: Callable[[Any], object], make: Callable[[Any], Any] | None = None) -> Read:
    """A reader for the values that pass `test`; `make` turns them into what is kept."""

    def read(given: Any) -> Any:
        if not test(given):
            raise ValueError
        return make(given) if make else given

    return read


def one_of(*allowed: str) -> Key:
    """One of some texts."""
    return Key(" or ".join(f'"{each}"' for each in allowed), fits(lambda given: given in allowed))


def whole(least: int, most: int = MOST_WHOLE) -> Key:
    """A whole number."""
    return Key(f"a whole number from {least} to {most}", fits(is_integer(least, most)))


def number(most: int) -> Key:
    """A number, whole or not."""
    read = fits(lambda given: type(given) in (int, float) and 0 <= given <= most, float)
    return Key(f"a number from 0 to {most}", read)


def is_integer(least: int, most: int) -> Callable[[Any], bool]:
    """Whether something is a whole number of that span; a boolean is none."""
    return lambda given: type(given) is int and least <= given <= most


def calendar_day(text: str) -> date:
    """The day that a text as "2024-01-31" names; ValueError, with a sentence where one helps."""
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


def _is_utf8(text: str) -> bool:
    """Not so where Python met with other bytes in the environment."""
    return text == text.encode("utf-8", "replace").decode()


def is_table(given: Any) -> bool:
    """Whether something is a table with a key in it."""
    return isinstance(given, dict) and bool(given)


a_text = fits(is_text)
TEXT = Key("a text that is not empty", a_text)
