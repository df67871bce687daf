"""Render a run record as one item of Flow Service's runs payload, which the tutorial shows under
"Monitor your dataflow". Pure, and the only place that knows the payload's shape.
"""

from typing import Any

from engine.dataset import layout
from engine.errors import CODE_COPY, CODE_PROCESS
from engine.model.batch import CORRUPT, INVALID, REQUIRED
from engine.model.flow import flow_id, id_of
from engine.model.run_record import IN_PROGRESS, SUCCESS, RunRecord

Json = dict[str, Any]

COPY, PROMOTION = "copyActivity", "promotionActivity"
PROGRAM = "mixpanel-etl"
SANDBOX = "prod"

_UNKNOWN = -1
_PARTIAL, _NO_FILES = "INGEST-1212-400", "INGEST-1211-400"  # with files of diagnostics, without

# What Adobe's ingestion says for each code that a rejected row can have.
_SENTENCES = {
    CORRUPT: "Row is corrupted and cannot be read, please fix and resend.",
    REQUIRED: "A required field is either missing or has a value of null. "
    "Add the required field to the input row and try again.",
    INVALID: "Mapper Transform Error",
}


def payload(record: RunRecord) -> Json:
    """Return the item of one run, its keys in the tutorial's order.

    A run with rejects that its flow tolerates is a `success` with errors, as in the tutorial.
    A failed run has the numbers that are known; unknown ones are -1, and `recordSummary` is
    empty until an event was read. A failed run put no row into the table, whatever it counted.

    Besides the tutorial's keys, `recordSummary` has Flow Service's `skippedRecordCount`
    (duplicates) and `warningRecordCount` (events with a failed cast) and, unless 0, `extensions`:
    clampedRecordCount  rows outside the days of the window
    missedRecordCount   rows that earlier arrival windows should have brought
    outsideRecordCount  events of another window; in no other count
    knownRecordCount    events of the overlap that the table has; in no other count

    The promotion's status has `extensions.unfoundSources`, sentences on mapping rules whose source
    no event had; the copy's duration `extensions.clockAheadMs`: this machine's clock minus
    Mixpanel's.
    """
    promotion, culprit = _promotion(record), _culprit(record)
    files = promotion["fileSummary"]
    item = {
        **signed(record.started_at, record.updated_at),
        "id": record.id,
        "flowId": flow_id(record.flow),
        "etag": _etag(record),
        "metrics": {
            "durationSummary": _duration(record.copy_started, record.promotion_completed),
            "sizeSummary": promotion["sizeSummary"],
            "recordSummary": promotion["recordSummary"],
            "fileSummary": {
                "inputFileCount": files["inputFileCount"],
                "outputFileCount": files["outputFileCount"],
                "activityRefs": [PROMOTION],
            },
            "statusSummary": {
                "status": record.status,
                **_errors(record, culprit),
                **({"activityRefs": [culprit]} if culprit else {}),
            },
        },
        "activities": [] if record.activities_at is None else [_copy(record), promotion],
    }
    return item if record.params is None else item | {"params": record.params}


def signed(created: int, updated: int) -> Json:
    """Return the keys that every item of Flow Service begins with: who made it, and when, in ms."""
    return {
        "createdAt": created,
        "updatedAt": updated,
        "createdBy": PROGRAM,
        "updatedBy": PROGRAM,
        "createdClient": PROGRAM,
        "updatedClient": PROGRAM,
        "sandboxId": id_of("sandbox", SANDBOX),
        "sandboxName": SANDBOX,
    }


def envelope(records: list[RunRecord]) -> Json:
    """Return the response that has all of `records` on one page."""
    return {"items": [payload(record) for record in records], "_links": {}}


def manifest(batch_folder: str) -> Json:
    """Return where a batch has its files, by the payload's names for them."""
    return {
        "fileInfo": f"{batch_folder}/{layout.INPUTS}",
        "failedRecords": f"{batch_folder}/{layout.REJECTS}",
        "sampleErrors": f"{batch_folder}/{layout.REJECT_SAMPLES}",
    }


def _culprit(record: RunRecord) -> str | None:
    """Return the activity that has errors, or None."""
    if record.failure:
        return COPY if record.failure[0] == CODE_COPY else PROMOTION
    return PROMOTION if record.status == SUCCESS and record.rejected else None


def _known(record: RunRecord, count: int) -> int:
    return count if record.tally else _UNKNOWN


def _read(record: RunRecord) -> int:
    return record.tally.bytes_read if record.tally else _UNKNOWN


def _copy(record: RunRecord) -> Json:
    """Render the request to Mixpanel: one response, its bytes counted after decompression."""
    ahead = {"clockAheadMs": record.clock_ahead} if record.clock_ahead else {}
    # A copy that was completed succeeded, even where its run failed later.
    succeeded = _culprit(record) != COPY and record.copy_completed is not None
    return {
        "id": COPY,
        "updatedAtUTC": record.copy_completed or record.activities_at,
        "durationSummary": {
            **_duration(record.copy_started, record.copy_completed),
            "extensions": {
                "windowStart": record.window_start,
                "windowEnd": record.window_end,
                **ahead,
            },
        },
        "sizeSummary": {"inputBytes": _read(record), "outputBytes": _read(record)},
        "recordSummary": {},
        "fileSummary": {
            "inputFileCount": _known(record, 1),
            "outputFileCount": _known(record, 1),
        },
        "statusSummary": {
            "status": SUCCESS if succeeded else record.status,
            **_errors(record, COPY),
            "extensions": {"type": "one-time"},
        },
        "sourceInfo": [
            {
                "id": record.source_id,
                "type": "SourceConnection",
                "reference": {"type": "AdfRunId", "ids": [id_of("copy", record.id)]},
            }
        ],
    }


def _promotion(record: RunRecord) -> Json:
    files: Json = {}
    extensions: Json = {}
    has_files = record.rejected > 0 and record.diagnostics
    if record.batch_folder:
        rows = manifest(record.batch_folder)
        files["extensions"] = {"manifest": {"fileInfo": rows.pop("fileInfo")}}
        extensions |= {"manifest": rows} if has_files else {}
    if record.rejected:
        extensions["errors"] = _diagnostics(record, has_files=has_files)
    if record.unfound:
        extensions["unfoundSources"] = list(record.unfound)
    return {
        "id": PROMOTION,
        "updatedAtUTC": record.promotion_completed or record.activities_at,
        "durationSummary": _duration(record.promotion_started, record.promotion_completed),
        "sizeSummary": {
            "inputBytes": _read(record),
            "outputBytes": _known(record, record.result.bytes_written),
        },
        "recordSummary": _records(record),
        "fileSummary": {
            "inputFileCount": _known(record, 1),
            "outputFileCount": _known(record, record.result.files),
            **files,
        },
        "statusSummary": {
            "status": record.status,
            **_errors(record, PROMOTION),
            **({"extensions": extensions} if extensions else {}),
        },
        "targetInfo": [
            {
                "id": record.target_id,
                "type": "TargetConnection",
                "reference": {"type": "Batch", "ids": [record.batch_id]},
            }
        ],
    }


def _records(record: RunRecord) -> Json:
    """Render the counts. P3: input = output + failed + skipped, in the record of every run."""
    if record.tally is None or record.status == IN_PROGRESS:
        return {}
    tally = record.result  # P2
    counts = {
        "clampedRecordCount": tally.clamped,
        "outsideRecordCount": tally.outside,
        "knownRecordCount": tally.known,
        "missedRecordCount": tally.missed,
    }
    more = {name: count for name, count in counts.items() if count}
    return {
        "inputRecordCount": tally.lines,
        "outputRecordCount": tally.rows,
        "failedRecordCount": tally.rejected,
        "skippedRecordCount": tally.duplicates,
        "warningRecordCount": tally.warnings,
        **({"extensions": more} if more else {}),
    }


def _diagnostics(record: RunRecord, *, has_files: bool) -> list[Json]:
    """Render the number of rejected rows, in all and by code; `has_files`: files list them."""
    assert record.tally
    rows = record.tally.rows if record.status == SUCCESS else 0  # P2
    total = f"Encountered {record.rejected} errors in the data. Successfully ingested {rows} rows."
    if record.batch_folder and has_files:
        total += " Review the associated diagnostic files for additional details."
    return [
        {"code": _PARTIAL if has_files else _NO_FILES, "message": total},
        *(
            {"code": code, "recordCount": count, "message": _SENTENCES.get(code, "Row rejected.")}
            for code, count in sorted(record.tally.reject_codes.items())
        ),
    ]


def _errors(record: RunRecord, activity: str | None) -> Json:
    """Render the key `errors` of the activity that has errors; {} for another one."""
    if activity is None or activity != _culprit(record):
        return {}
    code, message = record.failure or (CODE_PROCESS, "Error occurred at promotion activity.")
    return {"errors": [{"code": code, "message": message}]}


def _duration(started: int | None, completed: int | None) -> Json:
    moments = {"startedAtUTC": started, "completedAtUTC": completed}
    return {name: moment for name, moment in moments.items() if moment is not None}


def _etag(record: RunRecord) -> str:
    version = f"{record.id}/{record.status}/{record.updated_at}"
    return f'"{id_of("etag", version)}"'
