"""What a run adds to the totals of its flow. They only grow, whatever becomes of the history."""

from engine.model.run_record import FAILED, SUCCESS, RunRecord

RUNS: dict[str, str] = {status: f"runs {status}" for status in (SUCCESS, FAILED)}
MS = {"copyActivity": "ms copy", "promotionActivity": "ms promotion"}
REACHED = "reached"  # no count: until when the flow has its events, in ms since the epoch


def counts(record: RunRecord) -> dict[str, int]:
    """Return what a run counts, by name: 0 for what is not known of it.

    Nothing of a run that has not ended, and nothing of one that a person stopped.
    """
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
    """Return until when a run brought all events, in ms; 0 if it brought nothing.

    A window may end in the future, and beside arrival windows it has only what came `before`.
    """
    if record.status != SUCCESS or record.window_end is None:
        return 0
    before = record.window.before
    end = record.window_end if before is None else min(record.window_end, before)
    return min(end, record.started_at)
