"""Try a flow before its first pull: fetch some events, check the table."""

import time
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.catalog.buffered import BufferedCatalog
from engine.catalog.database import Catalog
from engine.dataset import layout
from engine.dataset.storage.local import check_writable, local_path
from engine.errors import DatasetError, RateLimited, RetryableError, disk_error
from engine.mixpanel import client
from engine.mixpanel.responses import quote
from engine.mixpanel.timeouts import DEFAULT_TIMEOUTS, Timeouts
from engine.model import retry, schedule
from engine.model.clock import duration
from engine.model.clock import now as machine_now
from engine.model.flow import Flow
from engine.model.window import Window
from engine.sync import open_flow
from engine.transform import decode

if TYPE_CHECKING:  # it imports Arrow, which the control plane does without
    from engine.sync.pull import Rules


def sample(
    flow: Flow,
    home: Path,
    window: Window,
    limit: int,
    now: Callable[[], int] = machine_now,
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
) -> list[dict[str, Any]]:
    """Return at most `limit` events of `window`, by one request that the rate limit counts.

    `now` returns ms. Raises RateLimited, with the time of the next slot, if the hour has no slot.
    """
    client.url(flow.connection, window, flow.events, flow.where, limit)  # InputError costs no slot
    with BufferedCatalog(home) as catalog:
        asked_at = _take_slot(catalog, flow.project, now)
        try:
            with client.stream(
                flow.connection, window, events=flow.events, where=flow.where, limit=limit,
                timeouts=timeouts,
            ) as chunks:  # fmt: skip
                quoted = partial(quote, connection=flow.connection)
                batches = decode.read(chunks, quoted=quoted)
                return [record for batch in batches for record in batch.records]
        except RetryableError as error:
            if not error.reached:
                catalog.release(flow.project, asked_at)
            raise


def _take_slot(catalog: Catalog, project: str, now: Callable[[], int]) -> int:
    """Acquire a slot of the rate limit; return when, in ms."""
    budget = retry.DEFAULT_RATE_LIMIT
    while True:
        at = now()
        wait = partial(retry.wait_for_slot, in_flight=0, now=at, limit=budget)
        pause = catalog.acquire(project, at, wait)
        if not pause:
            return at
        if pause > schedule.SECOND:
            room = datetime.fromtimestamp((at + pause) / 1000, UTC)
            raise RateLimited(
                f"Mixpanel allows a project {budget.per_hour} requests an hour, and they are used "
                f"up: there is room for the next one in {duration(pause / 1000)}, at "
                f"{room:%H:%M:%S} UTC.",
                pause / 1000,
            )
        time.sleep(pause / 1000)


def has_table(flow: Flow) -> bool:
    """Return whether the table of `flow` exists."""
    with disk_error(f"look for {flow.dataset}"):
        return (local_path(flow.dataset) / layout.LOG).is_dir()


def check_files(flow: Flow, rules: "Rules") -> None:
    """Raise DatasetError unless the log and every file of the table of `flow` can be read."""
    dataset = open_flow.dataset_of(flow, rules)
    if dataset.damage:
        raise DatasetError(dataset.damage)
    gone = {day: each.missing for day, each in dataset.summaries().items() if each.missing}
    if gone:
        count = sum(gone.values())
        files = "1 file of it is" if count == 1 else f"{count:,} files of it are"
        raise DatasetError(
            f"{files} not on the disk, or cut off there: of {_some_days(gone)}. Those days "
            "are due again: the daemon or backfill pulls them."
        )
    if broken := dataset.no_parquet():
        count = sum(map(len, broken.values()))
        files = "1 file of it does" if count == 1 else f"{count:,} files of it do"
        raise DatasetError(
            f"{files} not hold Parquet: of {_some_days(broken)}. Pull those days again with "
            "backfill --force."
        )


def _some_days(days: Collection[date]) -> str:
    return ", ".join(map(str, sorted(days)[:10])) + (" …" if len(days) > 10 else "")


def check_table(flow: Flow, rules: "Rules | None") -> None:
    """Check that the table of `flow` fits and can be written; change nothing."""
    if rules:
        open_flow.dataset_of(flow, rules)
    with disk_error(f"look for {flow.dataset}"):
        root = local_path(flow.dataset).absolute()
        nearest = next(path for path in (root, *root.parents) if path.exists())
    with disk_error(f"write in {nearest}"):
        check_writable(nearest)
