"""One small look at a project or at a place, for those who want to know before they pull."""

import tempfile
import time
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from engine import given, plan
from engine.catalog import Catalog
from engine.disk import local_path
from engine.errors import TryAgain, disk_error
from engine.flow import Flow
from engine.run import Rules
from engine.stages import export, lines
from engine.terminal import duration
from engine.window import Window


def sample(flow: Flow, home: Path, day: date, limit: int) -> list[dict[str, Any]]:
    """At most `limit` events of `day`: one request, which the budget counts.

    TryAgain, with the moment when there is room for it, if the hour has none left.
    """
    window = Window(day, day)
    export.url(flow.connection, window, flow.events, flow.where, limit)  # or InputError, for free
    with Catalog(home) as catalog:
        asked_at = _take_slot(catalog, flow.project)
        try:
            with export.stream(
                flow.connection, window, events=flow.events, where=flow.where, limit=limit
            ) as chunks:
                return [record for batch in lines.read(chunks) for record in batch.records]
        except TryAgain as error:
            if not error.reached:
                catalog.give_back(flow.project, asked_at)
            raise


def _take_slot(catalog: Catalog, project: str) -> int:
    """When the slot was given, in ms."""
    budget = plan.DEFAULT_BUDGET
    while True:
        now = time.time_ns() // 1_000_000
        pause = catalog.ask(
            project, now, partial(plan.wait_for_slot, in_flight=0, now=now, budget=budget)
        )
        if not pause:
            return now
        if pause > plan.SECOND:
            room = datetime.fromtimestamp((now + pause) / 1000, UTC)
            raise TryAgain(
                f"Mixpanel allows a project {budget.per_hour} requests an hour, and they are used "
                f"up: there is room for the next one in {duration(pause / 1000)}, at "
                f"{room:%H:%M:%S} UTC."
            )
        time.sleep(pause / 1000)


def probe(flow: Flow, rules: Rules | None) -> None:
    """Look whether the table of `flow` can be written and fits, and leave everything as it is."""
    if rules:
        given.dataset_of(flow, rules)
    with disk_error(f"look for {flow.dataset}"):
        root = local_path(flow.dataset).absolute()
        nearest = next(path for path in (root, *root.parents) if path.exists())
    with disk_error(f"write in {nearest}"), tempfile.TemporaryFile(dir=nearest):
        pass
