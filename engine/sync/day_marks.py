"""App transactions that note of a day which rules it was pulled with, and whether it came empty.

The commit that brings the day sets them. A table without them works as well.
"""

import json
from collections.abc import Collection, Sequence
from datetime import date
from hashlib import sha256

from engine.dataset.dataset import Dataset
from engine.dataset.positions import app_id
from engine.model.flow import Flow, Run
from engine.model.schedule import FULL_DAY
from engine.model.window import day_over
from engine.sync.pull import Rules

YOUNG = 7 * FULL_DAY  # within which an empty day is requested once more


def of_rules(rules: Rules) -> int:
    """Return a number that identifies a mapping set and a schema by content, not by name."""
    documents = json.dumps([rules.mapping[1], rules.schema[1]], sort_keys=True)
    return int.from_bytes(sha256(documents.encode()).digest()[:6]) + 1  # 0: forgotten


def after(
    flow: Flow, dataset: Dataset, run: Run, empty: Collection[date], rules: int
) -> dict[str, int]:
    """Return the marks that the commit of `run` changes.

    A day that came `empty` while it was young is marked until it is pulled again, once.
    """
    if run.window.arrival:
        return {}
    found = {_rules_id(flow, day): rules for day in run.window.days}
    for day in run.window.days:
        noted = dataset.position(_empty_id(flow, day))
        young = run.started_at < day_over(day, flow.connection.zone) + YOUNG
        if noted is None and day in empty and young:
            found[_empty_id(flow, day)] = run.started_at
        elif noted:
            found[_empty_id(flow, day)] = 0
    return {name: value for name, value in found.items() if dataset.position(name) != value}


def is_doubtful(flow: Flow, dataset: Dataset, day: date) -> bool:
    """Return whether `day` came empty the only time it was pulled, soon after its end."""
    return bool(dataset.position(_empty_id(flow, day)))


def pulled_otherwise(
    flow: Flow, dataset: Dataset, days: Sequence[date], rules: Rules
) -> list[date]:
    """Return those of `days` known to be pulled with another mapping set or schema."""
    mark = of_rules(rules)
    found = {day: dataset.position(_rules_id(flow, day)) for day in days}
    return [day for day, noted in found.items() if noted and noted != mark]


def _rules_id(flow: Flow, day: date) -> str:
    # Not the app id of a day, so that sums over a day's positions leave it out.
    return f"{app_id(flow, day)}/rules"


def _empty_id(flow: Flow, day: date) -> str:
    return f"{app_id(flow, day)}/empty"
