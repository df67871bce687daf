"""What a run adds to the totals of its flow, which never fall, even if its history is deleted."""

from engine.model.run_record import FAILED, SUCCESS, RunRecord

RUNS: dict[str, str] = {status: f"runs {status}" for status in (SUCCESS, FAILED)}
MS = {"copyActivity": "ms copy", "promotionActivity": "ms promotion"}
REACHED = "reached"  # not a count: until when the flow has its events, in ms since the epoch


def counts(record: RunRecord) -> dict[str, int]:
    """Return the counts of a run by name, 0 where unknown; empty unless it succeeded or failed."""
    if record.status not in RUNS or record.is_stopped:
        return {}
    tally = record.result
    return {
        RUNS[record.status]: 1,
        "events in": tally.lines,
        "events out": tally.rows,
        "events rejected": tally.rejected,
        "events duplicate": tally.duplicates,
        "bytes in": tally.bytes_read,
        "bytes out": tally.bytes_written,
        MS["copyActivity"]: _ms(record.copy_started, record.copy_completed),
        MS["promotionActivity"]: _ms(record.promotion_started, record.promotion_completed),
    }


def _ms(started: int | None, completed: int | None) -> int:
    return 0 if started is None or completed is None else max(0, completed - started)


def reached(record: RunRecord) -> int:
    """Return until when (ms) a run brought all events; 0 if it did not succeed.

    That is the end of its window, limited by `before` and by the start of the run.
    """
    if record.status != SUCCESS or record.window_end is None:
        return 0
    before = record.window.before
    end = record.window_end if before is None else min(record.window_end, before)
    return min(end, record.started_at)
