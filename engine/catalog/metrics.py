"""What a run adds to the totals of its flow: these only grow, whatever becomes of the history."""

from typing import Any

from engine.model.run_payload import COPY, FAILED, PROMOTION, SUCCESS, is_stopped
from engine.model.window import Window

Json = dict[str, Any]

RUNS = {status: f"runs {status}" for status in (SUCCESS, FAILED)}
RECORDS = {
    "inputRecordCount": "events in",
    "outputRecordCount": "events out",
    "failedRecordCount": "events rejected",
    "skippedRecordCount": "events duplicate",
}
BYTES = {"inputBytes": "bytes in", "outputBytes": "bytes out"}
MS = {COPY: "ms copy", PROMOTION: "ms promotion"}
REACHED = "reached"  # no count: until when the flow has its events, in ms since the epoch


def counts(item: Json) -> dict[str, int]:
    """What a run counts, by name; nothing before it has ended, nor of one that
    somebody stopped; 0 for what nobody knows.
    """
    metrics = item["metrics"]
    status = metrics["statusSummary"]["status"]
    if status not in RUNS or is_stopped(item):
        return {}
    found = {RUNS[status]: 1}
    for names, summary in ((RECORDS, "recordSummary"), (BYTES, "sizeSummary")):
        found |= {name: max(0, metrics[summary].get(key, 0)) for key, name in names.items()}
    for activity in item["activities"]:
        took = activity["durationSummary"]
        begun = took.get("startedAtUTC")
        ended = took.get("completedAtUTC", begun)
        found[MS[activity["id"]]] = 0 if begun is None else max(0, ended - begun)
    return found


def reached(item: Json, window: Window) -> int:
    """Until when a run brought what there was; 0 if it brought nothing.

    A window may end in the future, and beside arrival windows it has only what came `before`.
    """
    if item["metrics"]["statusSummary"]["status"] != SUCCESS:
        return 0
    end: int = item["activities"][0]["durationSummary"]["extensions"]["windowEnd"]
    before = end if window.before is None else window.before
    return min(end, before, int(item["createdAt"]))
