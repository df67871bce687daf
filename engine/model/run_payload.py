"""What a run did, as one item of the runs payload that the tutorial shows under "Monitor your
dataflow". Pure: it knows no clock, no catalog, and nothing of how the numbers came about.
"""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from engine.errors import CODE_COPY, CODE_PROCESS
from engine.model.batch import CORRUPT, INVALID, REQUIRED, Tally
from engine.model.clock import duration
from engine.model.flow import Flow, Run
from engine.model.schedule import TOLERANCE

if TYPE_CHECKING:
    from engine.model.window import Window

Json = dict[str, Any]

SUCCESS, FAILED, IN_PROGRESS = "success", "failed", "inProgress"
SCHEDULED = "scheduled"  # asked for, and not begun
COPY, PROMOTION = "copyActivity", "promotionActivity"

PROGRAM = "mixpanel-etl"
SANDBOX = "prod"
_IDS = UUID("8f2c0f3e-52a5-4b0e-9d0c-6c9c3c6a4b51")  # never changes: every id of ours grows from it
_UNKNOWN = -1
_PARTIAL, _UNTOLD = "INGEST-1212-400", "INGEST-1211-400"  # with diagnostics, and without

# What Adobe's ingestion says for each code that a rejected row can have.
_SENTENCES = {
    CORRUPT: "Row is corrupted and cannot be read, please fix and resend.",
    REQUIRED: "A required field is either missing or has a value of null. "
    "Add the required field to the input row and try again.",
    INVALID: "Mapper Transform Error",
}
STOPPED = "Stopped before this run ended; nothing changed."
KILLED = "The program was killed before this run ended. The same command again completes it."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the runner knows of a run: at its start, or when it is over.

    Moments are in ms since the epoch, None while they have not come. `tally` is None as long as no
    byte was read. `failure` is (code, sentence) of a failed run. `batch` is the path or URI of
    `_batches/<batch-id>`, None where no such folder was written. `answered_at` is Mixpanel's own
    clock when it answered. `unfound` says which rules found nothing, a sentence for each.
    """

    run: Run
    status: str
    copy_started: int | None = None
    copy_completed: int | None = None
    promotion_started: int | None = None
    promotion_completed: int | None = None
    tally: Tally | None = None
    failure: tuple[str, str] | None = None
    batch: str | None = None
    answered_at: int | None = None
    unfound: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Rows that were rejected, as far as is known."""
        return self.tally.rejected if self.tally else 0

    @property
    def culprit(self) -> str | None:
        """The activity that has errors to tell of."""
        if self.failure:
            return COPY if self.failure[0] == CODE_COPY else PROMOTION
        return PROMOTION if self.status == SUCCESS and self.rejected else None


def payload(outcome: Outcome, flow: Flow, at: int) -> Json:
    """One item of the runs payload, its keys in the tutorial's order; `at` is now, in ms.

    A run with rejects that its flow tolerates is a `success` that has errors, as in the tutorial.
    A failed run keeps the numbers that are known; unknown ones are -1, and `recordSummary` is
    empty until a record was read. A failed run put no row into the table, whatever it counts.

    Besides the tutorial's keys a `recordSummary` has, of Flow Service's own, `skippedRecordCount`
    (duplicates), `warningRecordCount` (records with a value that could not be cast) and, where
    there are any, `extensions.clampedRecordCount` (rows outside the days asked for) and
    `extensions.outsideRecordCount` (records that another window brings: no part of the others),
    `extensions.knownRecordCount` (records of the overlap that the table has: no part either) and
    `extensions.missedRecordCount` (rows that arrival windows should have brought before).
    `extensions.unfoundSources` of the promotion's status are sentences on rules that found nothing.
    `extensions.clockAheadMs` of the copy tells how far our clock is ahead of Mixpanel's.
    """
    copy, promotion = _copy(outcome, flow, at), _promotion(outcome, flow, at)
    return {
        **signed(outcome.run.started_at, at),
        "id": outcome.run.id,
        "flowId": flow_id(flow.name),
        "etag": _etag(outcome.run.id, outcome.status, at),
        "metrics": {
            "durationSummary": _duration(outcome.copy_started, outcome.promotion_completed),
            "sizeSummary": {
                "inputBytes": copy["sizeSummary"]["inputBytes"],
                "outputBytes": promotion["sizeSummary"]["outputBytes"],
            },
            "recordSummary": _records(outcome),
            "fileSummary": {
                "inputFileCount": copy["fileSummary"]["inputFileCount"],
                "outputFileCount": promotion["fileSummary"]["outputFileCount"],
                "activityRefs": [PROMOTION],
            },
            "statusSummary": {
                "status": outcome.status,
                **_errors(outcome, outcome.culprit),
                **({"activityRefs": [outcome.culprit]} if outcome.culprit else {}),
            },
        },
        "activities": [copy, promotion],
    }


def signed(created: int, updated: int) -> Json:
    """Who made something, and when, in ms: what every item of Flow Service's begins with."""
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


def envelope(items: list[Json]) -> Json:
    """The answer that carries runs: everything is on this one page."""
    return {"items": items, "_links": {}}


def flow_id(name: str) -> str:
    """The `flowId` that all runs of the flow `name` share: its name, where that is an id."""
    with suppress(ValueError):
        if str(UUID(name)) == name:
            return name
    return id_of("flow", name)


def source_id(flow: Flow) -> str:
    """The source connection that the runs of `flow` name."""
    return flow.source_id or id_of("source", flow.name)


def target_id(flow: Flow) -> str:
    """The target connection that the runs of `flow` name."""
    return flow.target_id or id_of("target", flow.name)


def id_of(kind: str, name: str) -> str:
    """The id that grows from a name, the same wherever and whenever it is asked for."""
    return str(uuid5(_IDS, f"{kind}/{name}"))


def batch_id(item: Json) -> str | None:
    """The batch of a run; None before it has one."""
    for activity in item["activities"]:
        if activity["id"] == PROMOTION:
            ids: list[str] = activity["targetInfo"][0]["reference"]["ids"]
            return ids[0]
    return None


def manifest(batch: str) -> Json:
    """Where a batch keeps what it has to say, by the payload's names for it."""
    return {
        "fileInfo": f"{batch}/input_files",
        "failedRecords": f"{batch}/row_errors",
        "sampleErrors": f"{batch}/row_error_samples.json",
    }


def is_stopped(item: Json) -> bool:
    """Whether somebody stopped a run. Flow Service has no status for that, so it counts as
    `failed` there, and nowhere else.
    """
    summary = item["metrics"]["statusSummary"]
    messages = [error["message"] for error in summary.get("errors", [])]
    return summary["status"] == FAILED and messages[:1] == [STOPPED]


def abandoned(item: Json, at: int, why: str = KILLED) -> Json:
    """`item`, still `inProgress` though its process is gone, as the failed run that it is."""
    errors = [{"code": CODE_PROCESS, "message": why}]
    item = deepcopy(item)
    item |= {"updatedAt": at, "etag": _etag(item["id"], FAILED, at)}
    ended = {"status": FAILED, "errors": errors}
    item["metrics"]["statusSummary"] |= ended | {"activityRefs": [PROMOTION]}
    for activity in item["activities"]:
        summary = activity["statusSummary"]
        if activity["id"] == PROMOTION:
            summary |= ended
        elif summary["status"] == IN_PROGRESS:
            summary |= {"status": FAILED}
    return item


def _copy(outcome: Outcome, flow: Flow, at: int) -> Json:
    """The request to Mixpanel: one response, its bytes counted after decompression."""
    start, end = outcome.run.window.bounds(flow.connection.zone)
    read = outcome.tally.bytes_read if outcome.tally else _UNKNOWN
    responses = 1 if outcome.tally else _UNKNOWN
    return {
        "id": COPY,
        "updatedAtUTC": outcome.copy_completed or at,
        "durationSummary": {
            **_duration(outcome.copy_started, outcome.copy_completed),
            "extensions": {"windowStart": start, "windowEnd": end, **_ahead(outcome)},
        },
        "sizeSummary": {"inputBytes": read, "outputBytes": read},
        "recordSummary": {},
        "fileSummary": {"inputFileCount": responses, "outputFileCount": responses},
        "statusSummary": {
            "status": _copy_status(outcome),
            **_errors(outcome, COPY),
            "extensions": {"type": "one-time"},
        },
        "sourceInfo": [
            {
                "id": source_id(flow),
                "type": "SourceConnection",
                "reference": {"type": "AdfRunId", "ids": [id_of("copy", outcome.run.id)]},
            }
        ],
    }


def _ahead(outcome: Outcome) -> Json:
    """How far our clock is ahead of Mixpanel's, where it is: a head is late, and never early."""
    if outcome.answered_at is None:
        return {}
    ahead = outcome.run.started_at - outcome.answered_at
    return {"clockAheadMs": ahead} if ahead > TOLERANCE else {}


def ahead_of(item: Json) -> int:
    """How far our clock was ahead of Mixpanel's in a run, in ms; 0 where it was not."""
    for activity in item["activities"]:
        if activity["id"] == COPY:
            ahead: int = activity["durationSummary"].get("extensions", {}).get("clockAheadMs", 0)
            return ahead
    return 0


def remarks(item: Json, window: "Window", flow: Flow | None = None) -> list[str]:
    """What a run that is over has to tell besides its figures; one sentence each."""
    found = []
    more = item["metrics"]["recordSummary"].get("extensions", {})
    clamped = more.get("clampedRecordCount", 0)
    if clamped and window.arrival is None:
        rows, them = ("1 row has", "it") if clamped == 1 else (f"{clamped:,} rows have", "them")
        found.append(
            f"{rows} a `time` outside the UTC days of {window}: Mixpanel exported {them} there."
        )
    missed = more.get("missedRecordCount", 0)
    if missed:
        minutes = f" {flow.overlap_minutes}" if flow else ""
        events = "1 event" if missed == 1 else f"{missed:,} events"
        found.append(
            f"settling {window} found {events} that arrival windows did not bring: "
            f"overlap_minutes{minutes} is too short for this project."
        )
    if ahead := ahead_of(item):
        found.append(
            f"this machine's clock is {duration(ahead / 1000)} ahead of Mixpanel's: set it right."
        )
    for activity in item["activities"]:
        found += activity["statusSummary"].get("extensions", {}).get("unfoundSources", [])
    return found


def _promotion(outcome: Outcome, flow: Flow, at: int) -> Json:
    """Everything from the bytes to the commit."""
    tally = outcome.tally
    files: Json = {}
    extensions: Json = {}
    told = outcome.rejected > 0 and flow.diagnostics
    if outcome.batch:
        rows = manifest(outcome.batch)
        files["extensions"] = {"manifest": {"fileInfo": rows.pop("fileInfo")}}
        extensions |= {"manifest": rows} if told else {}
    if outcome.rejected:
        extensions["errors"] = _diagnostics(outcome, told)
    if outcome.unfound:
        extensions["unfoundSources"] = list(outcome.unfound)
    return {
        "id": PROMOTION,
        "updatedAtUTC": outcome.promotion_completed or at,
        "durationSummary": _duration(outcome.promotion_started, outcome.promotion_completed),
        "sizeSummary": {
            "inputBytes": tally.bytes_read if tally else _UNKNOWN,
            "outputBytes": _output(outcome, "bytes_written"),
        },
        "recordSummary": _records(outcome),
        "fileSummary": {
            "inputFileCount": 1 if tally else _UNKNOWN,
            "outputFileCount": _output(outcome, "files"),
            **files,
        },
        "statusSummary": {
            "status": outcome.status,
            **_errors(outcome, PROMOTION),
            **({"extensions": extensions} if extensions else {}),
        },
        "targetInfo": [
            {
                "id": target_id(flow),
                "type": "TargetConnection",
                "reference": {"type": "Batch", "ids": [outcome.run.batch_id]},
            }
        ],
    }


def _output(outcome: Outcome, what: str) -> int:
    """P2: what a failed run had staged is not in the table."""
    if outcome.tally is None:
        return _UNKNOWN
    written: int = getattr(outcome.tally, what)
    return 0 if outcome.status == FAILED else written


def _records(outcome: Outcome) -> Json:
    """P3, in numbers: input = output + failed + skipped, in the record of every run.

    P2: no record of a run that failed is in the table, so there all that came count as failed.
    """
    tally = outcome.tally
    if tally is None or outcome.status == IN_PROGRESS:
        return {}
    failed = outcome.status == FAILED
    counts = {
        "clampedRecordCount": tally.clamped,
        "outsideRecordCount": tally.outside,
        "knownRecordCount": tally.known,
        "missedRecordCount": 0 if failed else tally.missed,
    }
    more = {name: count for name, count in counts.items() if count}
    return {
        "inputRecordCount": tally.lines,
        "outputRecordCount": 0 if failed else tally.rows,
        "failedRecordCount": tally.lines if failed else tally.rejected,
        "skippedRecordCount": 0 if failed else tally.duplicates,
        "warningRecordCount": tally.warnings,
        **({"extensions": more} if more else {}),
    }


def _diagnostics(outcome: Outcome, told: bool) -> list[Json]:
    """How many rows were rejected, and how many by each code; `told`: and where they are."""
    assert outcome.tally
    rows = outcome.tally.rows if outcome.status == SUCCESS else 0  # P2
    total = f"Encountered {outcome.rejected} errors in the data. Successfully ingested {rows} rows."
    if outcome.batch and told:
        total += " Review the associated diagnostic files for additional details."
    return [
        {"code": _PARTIAL if told else _UNTOLD, "message": total},
        *(
            {"code": code, "recordCount": count, "message": _SENTENCES.get(code, "Row rejected.")}
            for code, count in sorted(outcome.tally.reject_codes.items())
        ),
    ]


def _errors(outcome: Outcome, activity: str | None) -> Json:
    """The `errors` of an activity: only the one that has some has the key."""
    if activity is None or activity != outcome.culprit:
        return {}
    code, message = outcome.failure or (CODE_PROCESS, "Error occurred at promotion activity.")
    return {"errors": [{"code": code, "message": message}]}


def _copy_status(outcome: Outcome) -> str:
    """A copy that was completed succeeded, even where its run failed later."""
    if outcome.culprit == COPY or outcome.copy_completed is None:
        return outcome.status
    return SUCCESS


def _duration(started: int | None, completed: int | None) -> Json:
    moments = {"startedAtUTC": started, "completedAtUTC": completed}
    return {name: moment for name, moment in moments.items() if moment is not None}


def _etag(run: str, status: str, at: int) -> str:
    """Another one for each version of a run; its quotes are part of it, as in the tutorial."""
    return f'"{id_of("etag", f"{run}/{status}/{at}")}"'
