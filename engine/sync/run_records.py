"""Make the record of a run when it is requested, when it starts and when it ends."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.catalog import version_0_1
from engine.catalog.database import Catalog
from engine.errors import EtlError
from engine.model import run_record
from engine.model.batch import Tally
from engine.model.flow import Flow, Run, source_id, target_id
from engine.model.run_record import FAILED, IN_PROGRESS, SCHEDULED, SUCCESS, RunRecord
from engine.model.schedule import TOLERANCE
from engine.model.window import Window

if TYPE_CHECKING:  # they import Arrow, which the control plane does without
    from engine.dataset.dataset import Dataset
    from engine.sync.pull import StagedRun

Json = dict[str, Any]


def scheduled(flow: Flow, dataset: str, run: Run, params: Json) -> RunRecord:
    """Return the record of a run that was requested and waits for a turn of its flow."""
    record = _record(flow, dataset, run, SCHEDULED, run.started_at, params=params)
    return replace(record, activities_at=None)


def withdraw(catalog: Catalog, flow: str, at: int, why: str) -> None:
    """Record that the requested runs of a flow failed: they will never start."""
    for record in catalog.history(flow, SCHEDULED, limit=-1):  # all
        catalog.save(record.abandoned(at, why))


def complete_arrivals(catalog: Catalog, flow: Flow, at: int) -> None:
    """Record success of the requested arrival windows: the table has their events already."""
    for requested in catalog.history(flow.name, SCHEDULED, limit=-1):
        if requested.window.arrival:
            run = Run(requested.id, flow.name, requested.window, "", at)
            moments = dict.fromkeys(_MOMENTS, at)
            record = _record(flow, requested.dataset, run, SUCCESS, at, tally=Tally(), **moments)
            catalog.save(replace(record, started_at=requested.started_at, params=requested.params))


def started(flow: Flow, dataset: "Dataset", run: Run, now: int) -> RunRecord:
    """Return the record of a run that starts; `now` in ms."""
    return _record(flow, str(dataset.root), run, IN_PROGRESS, now, copy_started=now)


def succeeded(flow: Flow, dataset: "Dataset", run: Run, staged: "StagedRun", now: int) -> RunRecord:
    """Return the record of a run whose commit is made, or is about to be made."""
    ahead = 0 if staged.answered_at is None else run.started_at - staged.answered_at
    return _record(
        flow,
        str(dataset.root),
        run,
        SUCCESS,
        now,
        copy_started=staged.copy_started,
        copy_completed=staged.copy_completed,
        promotion_started=staged.copy_completed,
        promotion_completed=now,
        tally=staged.tally,
        batch_folder=str(dataset.batch_directory(run.batch_id)),
        clock_ahead=ahead if ahead > TOLERANCE else 0,  # a response is late, never early
        unfound=tuple(staged.unfound),
    )


def failed(
    flow: Flow, dataset: "Dataset", run: Run, error: EtlError, now: int, more: str = ""
) -> RunRecord:
    """Return the record of a run that ended with `error`; `more`: a sentence to add to the error.

    The diagnostics of the batch must be written already.
    """
    batch = dataset.batch_directory(run.batch_id)
    return _record(
        flow,
        str(dataset.root),
        run,
        FAILED,
        now,
        copy_started=run.started_at,
        copy_completed=error.copied,
        promotion_started=error.copied,
        promotion_completed=now,
        tally=error.tally,
        failure=(error.code, f"{error} {more}".rstrip()),
        batch_folder=str(batch) if batch.exists() else None,
    )


def not_started(flow: Flow, dataset: str, run: Run, error: EtlError, now: int) -> RunRecord:
    """Return the record of a run that failed before it could read its table."""
    known: Json = {"copy_started": now, "promotion_completed": now}
    return _record(flow, dataset, run, FAILED, now, failure=(error.code, str(error)), **known)


def why_ended(error: BaseException | None) -> str:
    """Return the sentence for a run that `error`, or a stop signal (None), cut short."""
    if isinstance(error, EtlError):
        return str(error)
    if isinstance(error, Exception):  # P7: its text may hold anything
        name = type(error).__name__
        return f"A defect of mixpanel-etl ended the program ({name}); nothing changed."
    return run_record.STOPPED


def unreported(found: Any, dataset: str) -> RunRecord | None:
    """Return the record of a run that a crash hit between its commit and the catalog.

    `found` is what the commit wrote beside its batch: a record, or the flow, payload and window of
    version 0.1. None if it is damaged or of no run, as of a commit that resets positions.
    """
    try:
        if isinstance(found, dict):
            return RunRecord.from_json(found)
        flow, item, window = found
        return version_0_1.record_of(item, str(flow), dataset, Window.from_json(window))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


_MOMENTS = ("copy_started", "copy_completed", "promotion_started", "promotion_completed")


def _record(
    flow: Flow, dataset: str, run: Run, status: run_record.Status, now: int, **known: Any
) -> RunRecord:
    bounds, ids = run.window.bounds(flow.connection.zone), (source_id(flow), target_id(flow))
    return RunRecord(
        run.id, flow.name, dataset, run.window, run.batch_id, status, run.started_at, now, now,
        *bounds, *ids, diagnostics=flow.diagnostics, **known,
    )  # fmt: skip
