"""The query of an export request. Pure."""

import json
from collections.abc import Sequence

from engine.errors import InputError
from engine.model.flow import Connection
from engine.model.window import Window

MOST_EVENTS = 100_000  # the largest `limit` that Mixpanel accepts


def params(
    connection: Connection,
    window: Window,
    events: Sequence[str] = (),
    where: str | None = None,
    limit: int | None = None,
) -> dict[str, str]:
    """Build the query of a request; an arrival window is combined with the flow's `where`.

    Raises InputError for a `limit` that Mixpanel does not accept.
    """
    query = {
        "from_date": window.from_date.isoformat(),
        "to_date": window.to_date.isoformat(),
        "project_id": str(connection.project_id),
    }
    if events:
        query["event"] = json.dumps(list(events), ensure_ascii=False)
    clauses = [where] if where else []
    if window.arrival:
        arrived = 'number(properties["mp_processing_time_ms"])'
        start, end = window.requested or window.arrival
        clauses.insert(0, f"{arrived} >= {start} and {arrived} < {end}")
    if clauses:
        query["where"] = clauses[0] if len(clauses) == 1 else f"({clauses[0]}) and ({clauses[1]})"
    if limit is not None:
        if not 1 <= limit <= MOST_EVENTS:
            raise InputError(f"limit is {limit}: Mixpanel takes 1 to {MOST_EVENTS:,}.")
        query["limit"] = str(limit)
    return query
