"""Notes in the table about a day besides its position: its rules, and whether it came empty.

They are app transactions of the commit that brought the day. A table without them works as well.
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
    """Return the notes that the commit of `run` has to change.

    A day that came `empty` while it was young is noted until it is pulled again, once.
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
    """Tell whether `day` came empty the only time it was pulled, soon after its end."""
    return bool(dataset.position(_empty_id(flow, day)))


def pulled_otherwise(
    flow: Flow, dataset: Dataset, days: Sequence[date], rules: Rules
) -> list[date]:
    """Return those of `days` known to be pulled with another mapping set or schema."""
    mark = of_rules(rules)
    found = {day: dataset.position(_rules_id(flow, day)) for day in days}
    return [day for day, noted in found.items() if noted and noted != mark]


def _rules_id(flow: Flow, day: date) -> str:
    # Not app_id of a day: sums over a day's positions must not see it.
    return f"{app_id(flow, day)}/rules"


def _empty_id(flow: Flow, day: date) -> str:
    return f"{app_id(flow, day)}/empty"
