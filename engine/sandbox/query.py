"""Read the parameters of an export request, checked as Mixpanel's documentation says.

Pure: it knows no server; today's date is an argument.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import orjson

from engine.model.window import each_day
from engine.sandbox.events import Record, Spec, day_lines
from engine.sandbox.where import compile_where

MOST = 100_000  # "Value cannot be over 100000"


class BadQuery(ValueError):
    """A parameter is missing or wrong; `as_json`: respond with JSON instead of plain text."""

    def __init__(self, message: str, *, as_json: bool = False) -> None:
        super().__init__(message)
        self.as_json = as_json


@dataclass(frozen=True)
class Query:
    """A request's parameters; `first` and `last` are both inclusive."""

    first: date
    last: date
    events: frozenset[str] | None = None
    keep: Callable[[Record], bool] | None = None
    limit: int | None = None
    in_ms: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, str], project_id: int, today: date) -> "Query":
        """Read a query from the URL's parameters; BadQuery if they are wrong."""
        if not (project := params.get("project_id")):
            raise BadQuery("project_id is required with a service account")
        if project != str(project_id):
            raise BadQuery(f"the service account is not a member of this project: {project}")
        first, last = (read_date(params, name) for name in ("from_date", "to_date"))
        if first > last:
            raise BadQuery("from_date cannot be later than to_date")
        if last > today:
            raise BadQuery("to_date cannot be later than today")
        return cls(
            first,
            last,
            read_events(params.get("event")),
            read_where(params.get("where")),
            read_limit(params.get("limit")),
            params.get("time_in_ms", "false").lower() in ("true", "1"),
        )

    @property
    def whole(self) -> bool:
        """Whether the query selects all events of its days."""
        return self.events is None and self.keep is None and self.limit is None

    def blocks(self, spec: Spec, visible_at: int) -> Iterator[bytes]:
        """The body: blocks of lines, each with its newline; no block is empty."""
        blocks = (
            block
            for day in each_day(self.first, self.last)
            for block in day_lines(spec, day, visible_at=visible_at, in_ms=self.in_ms)
        )
        return blocks if self.whole else self.selected(blocks)

    def selected(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The lines that `events`, `keep` and `limit` select."""
        left = MOST * MOST if self.limit is None else self.limit
        for block in blocks:
            lines = [line for line in block.split(b"\n")[:-1] if self.wants(line)][:left]
            left -= len(lines)
            if lines:
                yield b"\n".join(lines) + b"\n"
            if not left:
                return

    def wants(self, line: bytes) -> bool:
        """Whether `events` and `keep` select `line`."""
        if self.events is None and self.keep is None:
            return True
        record = orjson.loads(line)
        return (self.events is None or record["event"] in self.events) and (
            self.keep is None or self.keep(record["properties"])
        )


def read_date(params: Mapping[str, str], name: str) -> date:
    """Read a yyyy-mm-dd parameter."""
    text = params.get(name, "")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:  # Python reads 20240131 and 2024-W05-3 as well
        raise BadQuery(f"{name} must be a date like 2024-01-31, not {text!r}")
    return day


def read_events(text: str | None) -> frozenset[str] | None:
    """Read `event`: a JSON array of names, also for a single name."""
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadQuery(f"event must be a JSON array of names, not {text!r}", as_json=True)
    return frozenset(names)


def read_where(text: str | None) -> Callable[[Record], bool] | None:
    """Read `where`: an expression."""
    if text is None:
        return None
    try:
        return compile_where(text)
    except ValueError as error:
        raise BadQuery(f"where: {error}", as_json=True) from error


def read_limit(text: str | None) -> int | None:
    """Read `limit`: 1 to 100000."""
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= MOST:
        raise BadQuery(f"limit must be a number from 1 to {MOST}, not {text!r}", as_json=True)
    return int(text)
