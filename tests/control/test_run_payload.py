"""The runs payload: the tutorial's shape, arithmetic that always comes out, failed and running."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import version_0_1
from engine.control.run_payload import envelope, payload
from engine.errors import CODE_BATCH, CODE_COPY, CODE_PROCESS
from engine.model.batch import CORRUPT, INVALID, REQUIRED, Tally
from engine.model.flow import Connection, Flow, Run, Secret, flow_id
from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS, RunRecord
from engine.model.window import Window
from engine.sync import run_records

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = Path(__file__).parent / "golden" / "run_payloads.json"
DAY = Window(date(2020, 8, 5), date(2020, 8, 5))
FLOW = Flow(
    "events",
    Connection("https://data.mixpanel.com", "reader", Secret("s3cret"), 1, "America/Los_Angeles"),
    "data/events",
)
RUN = Run(
    "9830305a-985f-47d0-b030-5a985fd7d004", "events", DAY, "01EF01X41KJD82Y9ZX6ET54PCZ", 1_000
)
ONE_REJECT = Tally(
    lines=100,
    rows=99,
    rejected=1,
    bytes_read=24012,
    bytes_written=17128,
    files=1,
    reject_codes=Counter({INVALID: 1}),
)
DONE = replace(
    run_records.scheduled(FLOW, "data/events", RUN, {}),
    status=SUCCESS,
    updated_at=3_100,
    activities_at=3_100,
    copy_started=1_000,
    copy_completed=2_000,
    promotion_started=1_100,
    promotion_completed=3_000,
    tally=ONE_REJECT,
    batch_folder="data/events/_batches/01EF01X41KJD82Y9ZX6ET54PCZ",
    params=None,
)
STARTED = replace(
    DONE,
    status=IN_PROGRESS,
    copy_completed=None,
    promotion_started=None,
    promotion_completed=None,
    tally=None,
    batch_folder=None,
)
OURS = {"skippedRecordCount", "warningRecordCount"}  # Flow Service's own names, in every record


def tutorial() -> dict[str, Any]:
    """The run that the tutorial shows."""
    answer = json.loads((FIXTURES / "tutorial_runs_response.json").read_text())
    item: dict[str, Any] = answer["items"][0]
    return item


def paths(value: Any, at: str = "") -> Iterator[tuple[str, type]]:
    """Return every key path of a JSON value in its order, with the type of the value there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, f"{at}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from paths(item, f"{at}[{number}]")
    else:
        yield at, type(value)


def activities(item: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    copy, promotion = item["activities"]
    return copy, promotion


@pytest.mark.parametrize(("name", "case"), json.loads(GOLDEN.read_text("utf-8")).items())
def test_the_payload_is_that_of_version_0_1(name: str, case: dict[str, Any]) -> None:
    """Each kind of run is rendered byte for byte as version 0.1 rendered it, also when its record
    was read from that version's payload.
    """
    record = RunRecord.from_json(case["record"])
    expected = json.dumps(case["payload"])
    assert json.dumps(payload(record)) == expected
    read = version_0_1.record_of(case["payload"], record.flow, record.dataset, record.window)
    assert json.dumps(payload(read)) == expected


def test_a_run_with_a_reject_has_the_tutorials_keys_types_and_order() -> None:
    """Same key paths, JSON types and order as the tutorial's own sample, and two names more."""
    ours = list(paths(payload(DONE)))
    more = [path for path, _ in ours if path.rpartition(".")[2] in OURS]
    assert more == [
        ".metrics.recordSummary.skippedRecordCount",
        ".metrics.recordSummary.warningRecordCount",
        ".activities[1].recordSummary.skippedRecordCount",
        ".activities[1].recordSummary.warningRecordCount",
    ]
    assert [found for found in ours if found[0] not in more] == list(paths(tutorial()))


def test_a_run_with_a_reject_says_what_the_tutorial_says() -> None:
    """Statuses, errors, counts and bytes are those of the tutorial for the tutorial's numbers."""
    ours, theirs = payload(DONE), tutorial()
    assert ours["metrics"]["statusSummary"] == theirs["metrics"]["statusSummary"]
    assert ours["metrics"]["sizeSummary"] == theirs["metrics"]["sizeSummary"]
    assert ours["metrics"]["fileSummary"] == theirs["metrics"]["fileSummary"]
    for ours_, theirs_ in zip(ours["activities"], theirs["activities"], strict=True):
        summary = dict(theirs_["statusSummary"])
        manifest = summary["extensions"].get("manifest")
        if manifest:
            base = DONE.batch_folder
            manifest["failedRecords"] = f"{base}/row_errors"
            manifest["sampleErrors"] = f"{base}/row_error_samples.json"
        assert ours_["statusSummary"] == summary


def test_the_envelope_is_the_tutorials() -> None:
    """An answer with runs has `items` and empty `_links`."""
    whole = json.loads((FIXTURES / "tutorial_runs_response.json").read_text())
    ours = envelope([DONE])
    assert list(ours) == list(whole)
    assert ours == {"items": [payload(DONE)], "_links": whole["_links"]}


def test_a_clean_success_has_no_errors_anywhere() -> None:
    """No reject: no key `errors`, no address of rejected rows; the input files stay."""
    clean = replace(DONE, tally=Tally(lines=3, rows=2, duplicates=1, bytes_read=9, files=1))
    item = payload(clean)
    assert "rrors" not in json.dumps(item)
    _, promotion = activities(item)
    assert promotion["statusSummary"] == {"status": "success"}
    assert promotion["fileSummary"]["extensions"]["manifest"] == {
        "fileInfo": f"{DONE.batch_folder}/input_files"
    }
    assert item["metrics"]["statusSummary"] == {"status": "success"}


def test_each_reject_code_has_its_documented_sentence() -> None:
    """First the total, then an entry for each code with its count, in a fixed order."""
    codes = Counter({REQUIRED: 2, CORRUPT: 3, INVALID: 1})
    tally = Tally(lines=10, rows=4, rejected=6, reject_codes=codes)
    _, promotion = activities(payload(replace(DONE, tally=tally)))
    total, *each = promotion["statusSummary"]["extensions"]["errors"]
    assert total["message"].startswith(
        "Encountered 6 errors in the data. Successfully ingested 4 rows."
    )
    assert each == [
        {
            "code": "INGEST-1401-400",
            "recordCount": 3,
            "message": "Row is corrupted and cannot be read, please fix and resend.",
        },
        {
            "code": "INGEST-1555-400",
            "recordCount": 2,
            "message": "A required field is either missing or has a value of null. "
            "Add the required field to the input row and try again.",
        },
        {"code": "MAPPER-3700-400", "recordCount": 1, "message": "Mapper Transform Error"},
    ]


COUNTS = st.integers(min_value=0, max_value=10**12)


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    """Any finished run whose tally balances, or any unfinished one whatever it had counted."""
    status = draw(st.sampled_from([SUCCESS, FAILED, IN_PROGRESS]))
    rows, rejected, duplicates = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    unsettled = 0 if status == SUCCESS else draw(COUNTS)
    tally = Tally(
        lines=rows + rejected + duplicates + unsettled,
        rows=rows,
        rejected=rejected,
        duplicates=duplicates,
        warnings=draw(COUNTS),
        clamped=draw(COUNTS),
        bytes_read=draw(COUNTS),
        bytes_written=draw(COUNTS),
        files=draw(COUNTS),
        reject_codes=Counter({CORRUPT: rejected}) if rejected else Counter(),
    )
    failure = (draw(st.sampled_from([CODE_COPY, CODE_PROCESS, CODE_BATCH])), "It broke.")
    return replace(DONE, status=status, tally=tally, failure=failure if status == FAILED else None)


@settings(deadline=None, max_examples=200)
@given(records())
def test_the_numbers_always_come_out(record: RunRecord) -> None:
    """P3 in every record; the summaries on top repeat those of the activities."""
    item = json.loads(json.dumps(payload(record)))
    is_wrong = record.status == FAILED or (record.status == SUCCESS and record.rejected > 0)
    metrics, (copy, promotion) = item["metrics"], activities(item)
    counts = metrics["recordSummary"]
    assert counts == promotion["recordSummary"]
    assert record.tally is not None
    if record.status == IN_PROGRESS:
        assert counts == {}
    else:
        out, failed = counts["outputRecordCount"], counts["failedRecordCount"]
        assert counts["inputRecordCount"] == out + failed + counts["skippedRecordCount"]
        assert counts["warningRecordCount"] == record.tally.warnings
        assert counts.get("extensions", {}).get("clampedRecordCount", 0) == record.tally.clamped
    assert metrics["sizeSummary"]["inputBytes"] == copy["sizeSummary"]["inputBytes"]
    assert metrics["sizeSummary"]["outputBytes"] == promotion["sizeSummary"]["outputBytes"]
    assert metrics["durationSummary"] == {"startedAtUTC": 1_000, "completedAtUTC": 3_000}
    assert metrics["statusSummary"]["status"] == record.status
    assert ("errors" in metrics["statusSummary"]) == is_wrong


def test_a_failed_run_put_nothing_into_the_table() -> None:
    """P2: every event counts as failed, and there is no output, whatever was staged."""
    failed = replace(DONE, status=FAILED, tally=ONE_REJECT, failure=(CODE_BATCH, "Full."))
    metrics = payload(failed)["metrics"]
    records = metrics["recordSummary"]
    assert records["outputRecordCount"] == records["skippedRecordCount"] == 0
    assert records["failedRecordCount"] == records["inputRecordCount"] == ONE_REJECT.lines
    assert metrics["sizeSummary"]["outputBytes"] == metrics["fileSummary"]["outputFileCount"] == 0


def test_a_success_whose_lines_do_not_balance_shows_it() -> None:
    """P3: `inputRecordCount` is what was read, not the sum of the other counts."""
    lost = replace(DONE, tally=replace(ONE_REJECT, lines=101))
    records = payload(lost)["metrics"]["recordSummary"]
    assert records["inputRecordCount"] == 101


@pytest.mark.parametrize(
    ("code", "copied", "statuses", "culprit"),
    [
        (CODE_COPY, None, ["failed", "failed"], "copyActivity"),
        (CODE_COPY, 2_000, ["failed", "failed"], "copyActivity"),
        (CODE_PROCESS, None, ["failed", "failed"], "promotionActivity"),
        (CODE_PROCESS, 2_000, ["success", "failed"], "promotionActivity"),
        (CODE_BATCH, 2_000, ["success", "failed"], "promotionActivity"),
    ],
)
def test_the_activity_that_failed_has_the_error(
    code: str, copied: int | None, statuses: list[str], culprit: str
) -> None:
    """The failed activity and the run carry the sentence; the other activity carries none."""
    broken = replace(
        DONE,
        status=FAILED,
        copy_completed=copied,
        failure=(code, "It broke."),
        tally=Tally(lines=5, rows=5, bytes_read=70),
    )
    item = payload(broken)
    errors = [{"code": code, "message": "It broke."}]
    assert item["metrics"]["statusSummary"] == {
        "status": "failed",
        "errors": errors,
        "activityRefs": [culprit],
    }
    assert [part["statusSummary"]["status"] for part in item["activities"]] == statuses
    for part in item["activities"]:
        expected = errors if part["id"] == culprit else None
        assert part["statusSummary"].get("errors") == expected
    assert item["metrics"]["sizeSummary"]["inputBytes"] == 70


def test_a_run_that_failed_before_a_byte_came_has_unknown_numbers() -> None:
    """Unknown is -1 and absent, with the values of Adobe's own failed sample."""
    theirs = json.loads((FIXTURES / "adobe_run_failed.json").read_text())
    failure = theirs["metrics"]["statusSummary"]["errors"][0]
    broken = replace(STARTED, status=FAILED, failure=(failure["code"], failure["message"]))
    item = payload(broken)
    for summary in ("sizeSummary", "fileSummary", "statusSummary"):
        expected = theirs["metrics"][summary]
        assert expected.items() <= item["metrics"][summary].items()
    assert item["metrics"]["durationSummary"] == {"startedAtUTC": 1_000}
    assert activities(item)[1]["recordSummary"] == theirs["activities"][0]["recordSummary"] == {}
    assert "manifest" not in json.dumps(item)


def test_a_run_with_too_many_rejects_shows_them_and_no_ingested_row() -> None:
    """P2: nothing of a failed run is in the table, and its record does not say otherwise."""
    broken = replace(DONE, status=FAILED, failure=(CODE_PROCESS, "Too many rejects."))
    _, promotion = activities(payload(broken))
    extensions = promotion["statusSummary"]["extensions"]
    assert "Successfully ingested 0 rows." in extensions["errors"][0]["message"]
    assert extensions["manifest"]["failedRecords"] == f"{DONE.batch_folder}/row_errors"


def test_only_a_batch_has_files_to_review() -> None:
    """A run without a batch folder names no file."""
    words = "Review the associated diagnostic files"
    assert words in json.dumps(payload(DONE))
    assert words not in json.dumps(payload(replace(DONE, batch_folder=None)))


def test_without_diagnostics_no_file_is_named() -> None:
    """The count stays, under the code that Adobe has for that; so does the batch's own list."""
    item = payload(replace(DONE, diagnostics=False))
    summary = activities(item)[1]["statusSummary"]["extensions"]
    assert summary == {
        "errors": [
            {
                "code": "INGEST-1211-400",
                "message": "Encountered 1 errors in the data. Successfully ingested 99 rows.",
            },
            {"code": INVALID, "recordCount": 1, "message": "Mapper Transform Error"},
        ]
    }


def test_a_running_run_is_in_progress_and_its_end_unknown() -> None:
    """Numbers of a running run that are unknown are absent or -1, and it has no error."""
    item = payload(STARTED)
    copy, promotion = activities(item)
    assert item["metrics"]["statusSummary"] == {"status": "inProgress"}
    assert copy["statusSummary"]["status"] == promotion["statusSummary"]["status"] == "inProgress"
    assert item["metrics"]["durationSummary"] == {"startedAtUTC": 1_000}
    assert item["metrics"]["sizeSummary"] == {"inputBytes": -1, "outputBytes": -1}


@pytest.mark.parametrize("copied", [None, 2_000])
def test_an_abandoned_run_becomes_a_failed_one(copied: int | None) -> None:
    """What a killed process left `inProgress` is failed everywhere, and the original untouched."""
    running = payload(replace(STARTED, copy_completed=copied))
    item = payload(replace(STARTED, copy_completed=copied).abandoned(9_000))
    assert "inProgress" not in json.dumps(item)
    assert item["updatedAt"] == 9_000
    assert item["etag"] != running["etag"]
    errors = item["metrics"]["statusSummary"]["errors"]
    assert errors == activities(item)[1]["statusSummary"]["errors"]
    assert errors[0]["message"].startswith("The program was killed before this run ended")
    assert activities(item)[0]["statusSummary"]["status"] == ("success" if copied else "failed")


def test_the_window_is_in_the_projects_calendar() -> None:
    """windowStart and windowEnd are the day's first ms and the ms after its last."""
    copy, _ = activities(payload(DONE))
    assert copy["durationSummary"]["extensions"] == {
        "windowStart": 1596610800000,
        "windowEnd": 1596610800000 + 86_400_000,
    }


def test_runs_of_one_flow_share_its_ids_and_differ_in_their_own() -> None:
    """flowId, source and target are stable; another run and another version have another etag."""
    one = payload(DONE)
    two = payload(replace(DONE, id="0b0e1c1e-0000-4000-8000-000000000000"))
    assert one["flowId"] == two["flowId"] == flow_id("events") != flow_id("other")
    assert activities(one)[1]["targetInfo"] == activities(two)[1]["targetInfo"]
    assert activities(one)[0]["sourceInfo"] != activities(two)[0]["sourceInfo"]
    etags = {one["etag"], two["etag"], payload(replace(DONE, updated_at=3_101))["etag"]}
    assert len(etags) == 3
    assert all(etag[0] == etag[-1] == '"' for etag in etags)


def test_no_credential_is_part_of_a_record() -> None:
    """P7: neither the password nor the name of the service account is in the payload."""
    text = json.dumps(payload(DONE))
    assert "s3cret" not in text
    assert "reader" not in text
