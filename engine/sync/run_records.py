"""The record of a run at each of its turns, as the catalog keeps it."""

from typing import TYPE_CHECKING, Any

from engine.catalog.database import Catalog
from engine.errors import EtlError
from engine.model.batch import Tally
from engine.model.flow import Flow, Run
from engine.model.run_payload import (
    FAILED,
    IN_PROGRESS,
    SCHEDULED,
    STOPPED,
    SUCCESS,
    Outcome,
    abandoned,
    payload,
)

if TYPE_CHECKING:  # the control plane lists runs without what pulls them
    from engine.dataset.dataset import Dataset
    from engine.sync.pull import StagedRun

Json = dict[str, Any]


def scheduled(flow: Flow, run: Run, params: Json) -> Json:
    """The record of a run that was asked for, and begins as soon as its flow has a turn."""
    item = payload(Outcome(run, SCHEDULED), flow, run.started_at)
    return item | {"params": params, "activities": []}


def withdraw(catalog: Catalog, flow: str, at: int, why: str) -> None:
    """Tell of the runs that were asked for of a flow that there will be none."""
    for entry in catalog.history(flow, SCHEDULED, limit=-1):  # all
        item = abandoned(entry.item, at, why)
        catalog.save(item, flow=entry.flow, dataset=entry.dataset, window=entry.window)


def nothing_left(catalog: Catalog, flow: Flow, at: int) -> None:
    """Tell of the arrival windows that were asked for that all of it has come by now."""
    for entry in catalog.history(flow.name, SCHEDULED, limit=-1):
        if entry.window.arrival:
            run = Run(entry.item["id"], flow.name, entry.window, "", at)
            item = payload(Outcome(run, SUCCESS, at, at, at, at, Tally()), flow, at)
            item |= {key: entry.item[key] for key in ("createdAt", "params")}
            catalog.save(item, flow=flow.name, dataset=entry.dataset, window=entry.window)


def started(flow: Flow, run: Run, now: int) -> Json:
    """The record of a run that begins; `now` in ms."""
    return payload(Outcome(run, IN_PROGRESS, copy_started=now), flow, now)


def succeeded(flow: Flow, dataset: "Dataset", run: Run, staged: "StagedRun", now: int) -> Json:
    """The record of a run that is committed, or is about to be."""
    outcome = Outcome(
        run,
        SUCCESS,
        staged.copy_started,
        staged.copy_completed,
        staged.copy_completed,
        now,
        staged.tally,
        batch=str(dataset.batch_directory(run.batch_id)),
        answered_at=staged.answered_at,
        unfound=tuple(staged.unfound),
    )
    return payload(outcome, flow, now)


def failed(
    flow: Flow, dataset: "Dataset", run: Run, error: EtlError, now: int, more: str = ""
) -> Json:
    """The record of a run that ended with `error`; its diagnostics are kept by now, if any are.

    `more`: a sentence to end the error's with.
    """
    batch = dataset.batch_directory(run.batch_id)
    outcome = Outcome(
        run,
        FAILED,
        copy_started=run.started_at,
        copy_completed=error.copied,
        promotion_started=error.copied,
        promotion_completed=now,
        tally=error.tally,
        failure=(error.code, f"{error} {more}".rstrip()),
        batch=str(batch) if batch.exists() else None,
    )
    return payload(outcome, flow, now)


def why_ended(error: BaseException | None) -> str:
    """What a run's record says of `error`, which ended the program before the run."""
    if isinstance(error, EtlError):
        return str(error)
    if isinstance(error, Exception):  # P7: nobody knows what its text holds
        name = type(error).__name__
        return f"A defect of mixpanel-etl ended the program ({name}); nothing changed."
    return STOPPED
