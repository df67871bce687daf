"""Read what version 0.1 stored of a run: its item of Flow Service's runs payload. Pure.

It is found in a catalog that has not been migrated, in a buffer file beside a catalog, and in a
commit that a crash interrupted.
"""

from collections import Counter
from typing import Any

from engine.model.batch import Tally
from engine.model.run_record import FAILED, RunRecord
from engine.model.window import Window

Json = dict[str, Any]


def record_of(item: Json, flow: str, dataset: str, window: Window) -> RunRecord:
    """Return the record of which `item` was rendered; ValueError for anything else."""
    try:
        found = _record(item, flow, dataset, window)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not a run of version 0.1 ({error})") from error
    return RunRecord.from_json(found.as_json())  # checks the type of each value


def _record(item: Json, flow: str, dataset: str, window: Window) -> RunRecord:
    summary = item["metrics"]["statusSummary"]
    status, errors = summary["status"], summary.get("errors")
    known: Json = {"params": item.get("params")}
    if status == FAILED and errors:
        known["failure"] = (errors[0]["code"], errors[0]["message"])
    batch_id = ""
    if item["activities"]:
        copy, promotion = item["activities"]
        (batch_id,) = promotion["targetInfo"][0]["reference"]["ids"]
        known |= _copied(copy) | _promoted(promotion)
        rejects = known.pop("rejected"), known.pop("codes")
        known["tally"] = _tally(item["metrics"], status, *rejects)
        known["activities_at"] = item["updatedAt"]
        for activity, ended in ((promotion, "promotion_completed"), (copy, "copy_completed")):
            if known[ended] is None:
                known["activities_at"] = activity["updatedAtUTC"]
    moments = item["createdAt"], item["updatedAt"]
    return RunRecord(item["id"], flow, dataset, window, batch_id, status, *moments, **known)


def _copied(activity: Json) -> Json:
    took = activity["durationSummary"]
    return {
        "window_start": took["extensions"]["windowStart"],
        "window_end": took["extensions"]["windowEnd"],
        "clock_ahead": took["extensions"].get("clockAheadMs", 0),
        "source_id": activity["sourceInfo"][0]["id"],
        "copy_started": took.get("startedAtUTC"),
        "copy_completed": took.get("completedAtUTC"),
    }


def _promoted(activity: Json) -> Json:
    took, files = activity["durationSummary"], activity["fileSummary"].get("extensions", {})
    more = activity["statusSummary"].get("extensions", {})
    total, *codes = more.get("errors") or [{"code": "", "message": "Encountered 0 errors"}]
    folder = files.get("manifest", {}).get("fileInfo", "").removesuffix("/input_files")
    return {
        "target_id": activity["targetInfo"][0]["id"],
        "promotion_started": took.get("startedAtUTC"),
        "promotion_completed": took.get("completedAtUTC"),
        "batch_folder": folder or None,
        "diagnostics": total["code"] != "INGEST-1211-400",
        "unfound": tuple(more.get("unfoundSources", ())),
        "rejected": int(total["message"].split()[1]),
        "codes": Counter({each["code"]: each["recordCount"] for each in codes}),
    }


def _tally(metrics: Json, status: str, rejected: int, codes: Counter[str]) -> Tally | None:
    """Return the counts of a run; None if it read nothing.

    The payload has no bytes on the wire and no rejects by day: they are empty. It has no staged
    rows of a failed run: lines that were not rejected count as rows.
    """
    counts, sizes = metrics["recordSummary"], metrics["sizeSummary"]
    if not counts:
        return None
    more = counts.get("extensions", {})
    lines = counts["inputRecordCount"]
    return Tally(
        lines,
        lines - rejected if status == FAILED else counts["outputRecordCount"],
        rejected,
        counts["skippedRecordCount"],
        counts["warningRecordCount"],
        more.get("clampedRecordCount", 0),
        more.get("outsideRecordCount", 0),
        more.get("knownRecordCount", 0),
        more.get("missedRecordCount", 0),
        bytes_read=sizes["inputBytes"],
        bytes_written=sizes["outputBytes"],
        files=metrics["fileSummary"]["outputFileCount"],
        reject_codes=codes,
    )
