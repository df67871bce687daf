"""Run records as tests need them, complete in what the catalog and the payload read."""

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from engine.model.flow import id_of
from engine.model.run_record import SCHEDULED, SUCCESS, RunRecord, Status
from engine.model.window import Window

DAY = Window(date(2024, 3, 1), date(2024, 3, 2), (5, 9))


def record(id_: str, status: Status = SUCCESS, started_at: int = 1_000, **known: Any) -> RunRecord:
    """The record of a run of the flow `events`, unless `known` says otherwise."""
    window = known.get("window", DAY)
    start, end = window.bounds(ZoneInfo("UTC"))
    flow = known.get("flow", "events")
    values: dict[str, Any] = {
        "flow": flow,
        "dataset": "data/events",
        "window": window,
        "batch_id": "batch",
        "updated_at": started_at,
        "activities_at": None if status == SCHEDULED else started_at,
        "window_start": start,
        "window_end": end,
        "source_id": id_of("source", flow),
        "target_id": id_of("target", flow),
        "copy_started": started_at,
    }
    return RunRecord(id_, status=status, started_at=started_at, **values | known)
