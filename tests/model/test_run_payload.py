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

from engine.errors import CODE_BATCH, CODE_COPY, CODE_PROCESS
from engine.model import run_payload
from engine.model.batch import CORRUPT, INVALID, REQUIRED, Tally
from engine.model.flow import Connection, Flow, Run, Secret
from engine.model.run_payload import Outcome
from engine.model.window import Window

FIXTURES = Path(__file__).parents[1] / "fixtures"
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
DONE = Outcome(
    run=RUN,
    status=run_payload.SUCCESS,
    copy_started=1_000,
    copy_completed=2_000,
    promotion_started=1_100,
    promotion_completed=3_000,
    tally=ONE_REJECT,
    batch="data/events/_batches/01EF01X41KJD82Y9ZX6ET54PCZ",
)
OURS = {"skippedRecordCount", "warningRecordCount"}  # Flow Service's own names, in every record


def tutorial() -> dict[str, Any]:
    """The one run that the tutorial shows."""
    answer = json.loads((FIXTURES / "tutorial_runs_response.json").read_text())
    item: dict[str, Any] = answer["items"][0]
    return item


def paths(value: Any, at: str = "") -> Iterator[tuple[str, type]]:
    """Every key path of a JSON value in its order, with the type of what stands there."""
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


def test_a_run_with_a_reject_has_the_tutorials_keys_types_and_order() -> None:
    """Same key paths, JSON types and order as the tutorial's own sample, and two names more."""
    ours = list(paths(run_payload.payload(DONE, FLOW, 3_100)))
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
    ours, theirs = run_payload.payload(DONE, FLOW, 3_100), tutorial()
    assert ours["metrics"]["statusSummary"] == theirs["metrics"]["statusSummary"]
    assert ours["metrics"]["sizeSummary"] == theirs["metrics"]["sizeSummary"]
    assert ours["metrics"]["fileSummary"] == theirs["metrics"]["fileSummary"]
    for ours_, theirs_ in zip(ours["activities"], theirs["activities"], strict=True):
        summary = dict(theirs_["statusSummary"])
        manifest = summary["extensions"].get("manifest")
        if manifest:
            base = DONE.batch
            manifest["failedRecords"] = f"{base}/row_errors"
            manifest["sampleErrors"] = f"{base}/row_error_samples.json"
        assert ours_["statusSummary"] == summary


def test_the_envelope_is_the_tutorials() -> None:
    """An answer with runs has `items` and empty `_links`."""
    whole = json.loads((FIXTURES / "tutorial_runs_response.json").read_text())
    assert list(run_payload.envelope(whole["items"]).items()) == list(whole.items())


def test_a_clean_success_has_no_errors_anywhere() -> None:
    """No reject: no key `errors`, no address of rejected rows; the input files stay."""
    clean = replace(DONE, tally=Tally(lines=3, rows=2, duplicates=1, bytes_read=9, files=1))
    item = run_payload.payload(clean, FLOW, 3_100)
    assert "rrors" not in json.dumps(item)
    _, promotion = activities(item)
    assert promotion["statusSummary"] == {"status": "success"}
    assert promotion["fileSummary"]["extensions"]["manifest"] == {
        "fileInfo": f"{DONE.batch}/input_files"
    }
    assert item["metrics"]["statusSummary"] == {"status": "success"}


def test_reject_codes_are_told_one_by_one_with_their_documented_sentence() -> None:
    """First the total, then an entry for each code with its count, in a fixed order."""
    codes = Counter({REQUIRED: 2, CORRUPT: 3, INVALID: 1})
    tally = Tally(lines=10, rows=4, rejected=6, reject_codes=codes)
    _, promotion = activities(run_payload.payload(replace(DONE, tally=tally), FLOW, 3_100))
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
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any finished run whose tally balances, or any unfinished one whatever it had counted."""
    status = draw(
        st.sampled_from([run_payload.SUCCESS, run_payload.FAILED, run_payload.IN_PROGRESS])
    )
    rows, rejected, duplicates = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    unsettled = 0 if status == run_payload.SUCCESS else draw(COUNTS)
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
    return replace(
        DONE, status=status, tally=tally, failure=failure if status == run_payload.FAILED else None
    )


@settings(deadline=None, max_examples=200)
@given(outcomes())
def test_the_numbers_always_come_out(outcome: Outcome) -> None:
    """P3 in every record; the summaries on top repeat those of the activities."""
    item = json.loads(json.dumps(run_payload.payload(outcome, FLOW, 3_100)))
    metrics, (copy, promotion) = item["metrics"], activities(item)
    records = metrics["recordSummary"]
    assert records == promotion["recordSummary"]
    assert outcome.tally is not None
    if outcome.status == run_payload.IN_PROGRESS:
        assert records == {}
    else:
        out, failed = records["outputRecordCount"], records["failedRecordCount"]
        assert records["inputRecordCount"] == out + failed + records["skippedRecordCount"]
        assert records["warningRecordCount"] == outcome.tally.warnings
        assert records.get("extensions", {}).get("clampedRecordCount", 0) == outcome.tally.clamped
    assert metrics["sizeSummary"]["inputBytes"] == copy["sizeSummary"]["inputBytes"]
    assert metrics["sizeSummary"]["outputBytes"] == promotion["sizeSummary"]["outputBytes"]
    assert metrics["durationSummary"] == {"startedAtUTC": 1_000, "completedAtUTC": 3_000}
    assert metrics["statusSummary"]["status"] == outcome.status
    assert ("errors" in metrics["statusSummary"]) == (outcome.culprit is not None)


def test_a_failed_run_put_nothing_into_the_table() -> None:
    """P2: every record that came counts as failed, and there is no output, whatever was staged."""
    failed = replace(
        DONE, status=run_payload.FAILED, tally=ONE_REJECT, failure=(CODE_BATCH, "Full.")
    )
    metrics = run_payload.payload(failed, FLOW, 3_100)["metrics"]
    records = metrics["recordSummary"]
    assert records["outputRecordCount"] == records["skippedRecordCount"] == 0
    assert records["failedRecordCount"] == records["inputRecordCount"] == ONE_REJECT.lines
    assert metrics["sizeSummary"]["outputBytes"] == metrics["fileSummary"]["outputFileCount"] == 0


def test_a_success_whose_lines_do_not_balance_shows_it() -> None:
    """P3: a lost line is never hidden by summing up what is left."""
    lost = replace(DONE, tally=replace(ONE_REJECT, lines=101))
    records = run_payload.payload(lost, FLOW, 3_100)["metrics"]["recordSummary"]
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
def test_a_failure_is_told_where_it_happened(
    code: str, copied: int | None, statuses: list[str], culprit: str
) -> None:
    """The failed activity and the run carry the sentence; the other activity carries none."""
    broken = replace(
        DONE,
        status=run_payload.FAILED,
        copy_completed=copied,
        failure=(code, "It broke."),
        tally=Tally(lines=5, rows=5, bytes_read=70),
    )
    item = run_payload.payload(broken, FLOW, 3_100)
    told = [{"code": code, "message": "It broke."}]
    assert item["metrics"]["statusSummary"] == {
        "status": "failed",
        "errors": told,
        "activityRefs": [culprit],
    }
    assert [part["statusSummary"]["status"] for part in item["activities"]] == statuses
    for part in item["activities"]:
        expected = told if part["id"] == culprit else None
        assert part["statusSummary"].get("errors") == expected
    assert item["metrics"]["sizeSummary"]["inputBytes"] == 70


def test_a_run_that_failed_before_a_byte_came_has_unknown_numbers() -> None:
    """Unknown is -1 and absent, with the values of Adobe's own failed sample."""
    theirs = json.loads((FIXTURES / "adobe_run_failed.json").read_text())
    failure = theirs["metrics"]["statusSummary"]["errors"][0]
    broken = Outcome(
        RUN, run_payload.FAILED, copy_started=1_000, failure=(failure["code"], failure["message"])
    )
    item = run_payload.payload(broken, FLOW, 1_500)
    for summary in ("sizeSummary", "fileSummary", "statusSummary"):
        expected = theirs["metrics"][summary]
        assert expected.items() <= item["metrics"][summary].items()
    assert item["metrics"]["durationSummary"] == {"startedAtUTC": 1_000}
    assert activities(item)[1]["recordSummary"] == theirs["activities"][0]["recordSummary"] == {}
    assert "manifest" not in json.dumps(item)


def test_a_run_with_too_many_rejects_shows_them_and_no_ingested_row() -> None:
    """P2: nothing of a failed run is in the table, and its record does not say otherwise."""
    broken = replace(DONE, status=run_payload.FAILED, failure=(CODE_PROCESS, "Too many rejects."))
    _, promotion = activities(run_payload.payload(broken, FLOW, 3_100))
    extensions = promotion["statusSummary"]["extensions"]
    assert "Successfully ingested 0 rows." in extensions["errors"][0]["message"]
    assert extensions["manifest"]["failedRecords"] == f"{DONE.batch}/row_errors"


def test_only_a_batch_has_files_to_review() -> None:
    """Where nothing was kept, nobody is sent to look for it."""
    words = "Review the associated diagnostic files"
    assert words in json.dumps(run_payload.payload(DONE, FLOW, 3_100))
    assert words not in json.dumps(run_payload.payload(replace(DONE, batch=None), FLOW, 3_100))


def test_without_diagnostics_no_file_is_named() -> None:
    """The count stays, under the code that Adobe has for that; so does the batch's own list."""
    item = run_payload.payload(DONE, replace(FLOW, diagnostics=False), 3_000)
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
    """What has not happened yet is absent or -1, and nothing is an error."""
    item = run_payload.payload(
        Outcome(RUN, run_payload.IN_PROGRESS, copy_started=1_000), FLOW, 1_000
    )
    copy, promotion = activities(item)
    assert item["metrics"]["statusSummary"] == {"status": "inProgress"}
    assert copy["statusSummary"]["status"] == promotion["statusSummary"]["status"] == "inProgress"
    assert item["metrics"]["durationSummary"] == {"startedAtUTC": 1_000}
    assert item["metrics"]["sizeSummary"] == {"inputBytes": -1, "outputBytes": -1}


@pytest.mark.parametrize("copied", [None, 2_000])
def test_an_abandoned_run_becomes_a_failed_one(copied: int | None) -> None:
    """What a killed process left `inProgress` is failed everywhere, and the original untouched."""
    running = run_payload.payload(
        Outcome(RUN, run_payload.IN_PROGRESS, copy_started=1_000, copy_completed=copied),
        FLOW,
        1_000,
    )
    before = json.dumps(running)
    item = run_payload.abandoned(running, 9_000)
    assert json.dumps(running) == before
    assert "inProgress" not in json.dumps(item)
    assert item["updatedAt"] == 9_000
    assert item["etag"] != running["etag"]
    errors = item["metrics"]["statusSummary"]["errors"]
    assert errors == activities(item)[1]["statusSummary"]["errors"]
    assert errors[0]["message"].startswith("The program was killed before this run ended")
    assert activities(item)[0]["statusSummary"]["status"] == ("success" if copied else "failed")


def test_the_window_is_told_in_the_projects_calendar() -> None:
    """windowStart and windowEnd are the day's first ms and the ms after its last."""
    copy, _ = activities(run_payload.payload(DONE, FLOW, 3_100))
    assert copy["durationSummary"]["extensions"] == {
        "windowStart": 1596610800000,
        "windowEnd": 1596610800000 + 86_400_000,
    }


def test_runs_of_one_flow_share_its_ids_and_differ_in_their_own() -> None:
    """flowId, source and target are stable; another run and another version have another etag."""
    one = run_payload.payload(DONE, FLOW, 3_100)
    other_run = replace(RUN, id="0b0e1c1e-0000-4000-8000-000000000000")
    two = run_payload.payload(replace(DONE, run=other_run), FLOW, 3_100)
    assert (
        one["flowId"]
        == two["flowId"]
        == run_payload.flow_id("events")
        != run_payload.flow_id("other")
    )
    assert activities(one)[1]["targetInfo"] == activities(two)[1]["targetInfo"]
    assert activities(one)[0]["sourceInfo"] != activities(two)[0]["sourceInfo"]
    etags = {one["etag"], two["etag"], run_payload.payload(DONE, FLOW, 3_101)["etag"]}
    assert len(etags) == 3
    assert all(etag[0] == etag[-1] == '"' for etag in etags)


def test_no_credential_is_part_of_a_record() -> None:
    """P7: neither the password nor the name of the service account is in the payload."""
    text = json.dumps(run_payload.payload(DONE, FLOW, 3_100))
    assert "s3cret" not in text
    assert "reader" not in text
