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

import re2

from engine.errors import InputError
from engine.model.flow import Secret

Environ = Mapping[str, str]
Read = Callable[[Any], Any]

ELSEWHERE = '{ env = "NAME" } or { file = "PATH" }'
MOST_WHOLE = 100_000
LONGEST_NAME, LONGEST_PATH = 64, 300  # characters of a variable or a file that errors show
_UNSHOWN = " (its name is not shown: it may be a secret)"
LEAST_PARTS = 2  # of a path that nobody takes for a password: "/", a folder and a name
LARGEST_SECRET = 16 << 10  # bytes of a file that holds a secret
_LARGEST = 16 << 20  # bytes of a file that is read whole: who names more meant another file


class Unset(ValueError):
    """A value stands in a variable or a file that is not there, or is empty."""


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

    def add_unset(self, at: str, sentence: str) -> None:
        """A value that stands elsewhere and is not there: one line, whoever names that place."""
        for number, line in enumerate(self.found):
            if line.startswith(f"{self.origin}: ") and line.endswith(f": {sentence}"):
                self.found[number] = f"{line.removesuffix(f': {sentence}')}, {at}: {sentence}"
                return
        self.add(at, sentence)

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
    except Unset as error:
        problems.add_unset(at, str(error))
        return None
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
        told = f"the environment variable{_shown_variable(name)}"
        text = trimmed(environ.get(name, ""))
        if not _is_utf8(text):
            raise ValueError(f"{told} is not a text in UTF-8")
        if not text:
            raise Unset(f"{told} is not set")
        return text
    told = f"the file{_shown_path(name)}"
    try:
        with Path(name).open("rb") as file:
            content = file.read(LARGEST_SECRET + 1)
    except OSError as error:
        raise Unset(f"{told} cannot be read ({error.strerror})") from error
    if len(content) > LARGEST_SECRET:
        size = f"{LARGEST_SECRET >> 10} KiB"
        raise ValueError(f"{told} is larger than {size}: name one that holds the secret alone")
    try:
        text = trimmed(content.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{told} is not a text in UTF-8") from error
    if not text:
        raise Unset(f"{told} is empty")
    return text


def _shown_variable(name: str) -> str:
    """The name of a variable for an error, unless it may be a password written in its place (P7).

    A password has digits between its letters, or small letters: P40 and MIXPANEL_PASSWORD have not.
    """
    words = re2.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|[A-Z]{1,20}[0-9]{0,3}", name)
    return f" {name}" if words and len(name) <= LONGEST_NAME else _UNSHOWN


def _shown_path(name: str) -> str:
    """The path of a file for an error, unless it may be a password written in its place (P7)."""
    path = Path(name)
    try:
        there = "\0" not in name and (path.exists() or _is_folder(path.parent))
    except OSError:  # its name is too long, or a folder that we may not see into
        there = False
    named = there or (path.is_absolute() and len(path.parts) > LEAST_PARTS)
    return f" {name}" if named and len(name) <= LONGEST_PATH else _UNSHOWN


def _is_folder(path: Path) -> bool:
    return path not in (Path(), Path("/")) and path.is_dir()


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
