"""Read tables of keys and values, from any source, and report all their problems at once."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.config.value_types import Type, Unset
from engine.errors import InputError

_LARGEST = 16 << 20  # bytes of a document: a larger file was named by mistake


@dataclass(slots=True)
class Problems:
    """The problems of one `origin`, a line each, raised together."""

    origin: str
    lines: list[str] = field(default_factory=list)

    def add(self, at: str, sentence: str) -> None:
        """Add a problem; `at` is the whole path of a key, as `flows.events.schedule.interval`."""
        self.lines.append(f"{self.origin}: {at}: {sentence}")

    def add_unset(self, at: str, sentence: str) -> None:
        """Add a missing variable or file: one line for it, however many keys refer to it."""
        for number, line in enumerate(self.lines):
            if line.startswith(f"{self.origin}: ") and line.endswith(f": {sentence}"):
                self.lines[number] = f"{line.removesuffix(f': {sentence}')}, {at}: {sentence}"
                return
        self.add(at, sentence)

    def raise_any(self) -> None:
        """Raise InputError, a line for each problem, if there is one."""
        if self.lines:
            raise InputError("\n".join(self.lines))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise InputError where the body of the context cannot read a file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_document(path: Path, parse: Callable[[str], Any], form: str) -> Any:
    """Parse a file in UTF-8; InputError if it cannot be read, or is not of that `form`."""
    with reading(path), path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(f"{path}: is not {form}: it is larger than {_LARGEST >> 20} MiB")
    try:
        return parse(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # the messages name line and column
        raise InputError(f"{path}: is not {form}: {error}") from error


def read_table(
    table: Any, types: Mapping[str, Type], at: str, problems: Problems, required: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the valid values of a table by key, and add every problem of it to `problems`.

    Unknown keys, wrong values and missing `required` keys are problems.
    """
    if not isinstance(table, dict):
        problems.add(at, "must be a table")
        return {}
    prefix = f"{at}." if at else ""
    values = {}
    for name, given in table.items():
        if name not in types:
            problems.add(f"{prefix}{name}", f"is not known here{nearest(name, types)}")
            continue
        value = read_value(types[name], given, f"{prefix}{name}", problems)
        if value is not None:
            values[name] = value
    for name in required:
        if name not in table:
            problems.add(f"{prefix}{name}", f"is missing. It must be {types[name].allowed}")
    return values


def read_value(type_: Type, given: Any, at: str, problems: Problems) -> Any:
    """Return the value that `given` stands for; None, and one problem more, if it is wrong."""
    try:
        return type_.read(given)
    except Unset as error:
        problems.add_unset(at, str(error))
        return None
    except ValueError as error:
        shown = f", not {json.dumps(given, default=str):.80}" if type_.shown else ""  # P7
        problems.add(at, str(error) or f"must be {type_.allowed}{shown}")
        return None


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the end of a sentence on an unknown name: the most similar one, and all allowed."""
    near = get_close_matches(name, list(allowed), n=1)
    guess = f'; did you mean "{near[0]}"?' if near else "."
    return f"{guess} Allowed: {', '.join(allowed) or 'none'}"
