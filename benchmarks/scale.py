"""Measure how cost grows with events, properties, rules, expressions, rejects, days, and more."""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from benchmarks.process import spend
from benchmarks.program import Program
from benchmarks.result import Measurement, Result
from benchmarks.rounds import Contender, in_turn, show
from benchmarks.server import FIRST, serving
from benchmarks.settings import Settings
from benchmarks.shapes import EXPRESSIONS, Columns, invented

BATCHES = "batches in the table"
REJECTS = "rejects"


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a part: what the sandbox serves, and how it is pulled."""

    name: str
    events: int  # per day
    shape: str = "small"
    days: int = 1
    more: Columns = field(default_factory=dict)
    expressions: Mapping[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


def measure(settings: Settings) -> Result:
    """Measure the chosen parts; the points of one part run in turn."""
    result = settings.begin("scale")
    for part in settings.parts:
        if part == "batches":
            _batches(result, settings)
        else:
            points = cases(part, settings.events)
            _pulls(result, part, points[-1:] if settings.quick else points, settings)
    return result


def cases(part: str, events: int) -> list[Case]:
    """Return the points of a part, with about `events` events each."""
    few = max(events // 5, 1)  # for events with many properties
    most = invented("properties-200")
    percents = (0, 1, 50)
    found = {
        "events": [Case(f"{count:,}", count) for count in (events // 100, events // 10, events)],
        "properties": [Case(str(count), few, f"properties-{count}") for count in (10, 50, 200)],
        "rules": [
            Case(str(11 + more), few, "properties-200", more=dict(list(most.items())[:more]))
            for more in (0, 40, 190)
        ],
        "expressions": [
            Case("11 attributes", events),
            Case("11 attributes, 2 templates", events, expressions=EXPRESSIONS),
        ],
        REJECTS: [Case(f"{n} %", events, spec={"reject_percent": n}) for n in percents],
        "duplicates": [Case(f"{n} %", events, spec={"duplicate_percent": n}) for n in percents],
        "days": [Case(str(days), events // days, days=days) for days in (1, 7, 28)],
    }
    return found[part]


def _pulls(result: Result, part: str, points: Iterable[Case], settings: Settings) -> None:
    with ExitStack() as servers:
        contenders = []
        for case in points:
            last = date.fromisoformat(FIRST) + timedelta(days=case.days - 1)
            server = servers.enter_context(serving(case.shape, case.events, **case.spec))
            lines = server.fetch(FIRST, FIRST)
            if case.days > 1:  # as the program does: one day first, to learn its size
                second = date.fromisoformat(FIRST) + timedelta(days=1)
                lines += server.fetch(str(second), str(last))
            program = Program(
                server.url, last=str(last), more=case.more, expressions=case.expressions
            )
            contenders.append(Contender(case.name, lines, program.run, required=True))
        in_turn(result, part, contenders, settings.runs, settings.warm)


def _batches(result: Result, settings: Settings) -> None:
    """Measure planning and committing one more day in tables of different sizes, in turn."""
    for batches in settings.batches:
        argument = json.dumps({"batches": batches, "days": 3 * settings.runs})
        said = spend([sys.executable, "-m", "benchmarks.table", argument]).said
        figures = json.loads(said.splitlines()[-1])
        result.measurements.append(Measurement(BATCHES, f"{batches:,}", 0, figures))
    show(result, BATCHES)
