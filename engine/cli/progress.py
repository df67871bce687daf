"""What a person sees: a bar on a terminal, a line a window elsewhere, tables.

Progress goes to stderr, answers to stdout. It decides nothing.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.catalog.database import Entry
from engine.model.clock import duration
from engine.model.run_payload import FAILED, SUCCESS, remarks
from engine.sync.empty_days import sentence
from engine.sync.run_updates import (
    Advanced,
    Ended,
    GaveUp,
    NoEvents,
    Noticed,
    RunUpdate,
    Split,
    Waiting,
)

Json = dict[str, Any]


class Lines:
    """One line a window that ended, one when something must be waited for."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, event: RunUpdate) -> None:
        """Show `event`, if it is worth a line."""
        line = describe(event)
        if line:
            with suppress(OSError):  # nobody looks any more: no reason to stop the work
                print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the place for it


class Bar:
    """A progress bar of days, with events, MB/s and the time left; lines scroll above it."""

    def __init__(self, days: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("days  {task.fields[events]:,} events  {task.fields[rate]:.1f} MB/s"),
            TimeRemainingColumn(),
            # Takes texts as they are: rich sees markup and emoji in other people's words.
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        )
        self._task = self._progress.add_task("pulling", total=days, events=0, rate=0.0)
        self._running: dict[str, tuple[int, int]] = {}  # run id -> events, bytes
        self._done = (0, 0)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def __call__(self, event: RunUpdate) -> None:
        """Move the bar; failures and waits are also written above it."""
        if isinstance(event, Advanced):
            self._running[event.run_id] = (event.lines, event.bytes)
        elif isinstance(event, Split):
            self._running.pop(event.run.id, None)
        elif isinstance(event, Ended):
            self._running.pop(event.run.id, None)
            tally = event.tally
            # What a failed run read was read, but none of its events is in the table.
            events = 0 if event.error else tally.lines
            self._done = (self._done[0] + events, self._done[1] + tally.bytes_read)
            if not (event.error or event.run.window.arrival):
                self._progress.advance(self._task, len(event.run.window.days))
        line = describe(event)
        if isinstance(event, Ended) and not event.error:
            line = "\n".join(remarks(event.item, event.run.window))
        if line:
            self._progress.console.print(line)
        counts = [self._done, *self._running.values()]
        seconds = self._progress.tasks[0].elapsed or 1e-9
        self._progress.update(
            self._task,
            events=sum(events for events, _ in counts),
            rate=sum(size for _, size in counts) / 1e6 / seconds,
        )


def describe(event: RunUpdate) -> str:
    """An event as a line; empty where it is not worth one."""
    if isinstance(event, GaveUp):
        return f"{event.days} more days were not tried: what failed would fail for them too."
    if isinstance(event, Waiting):
        return f"waiting {duration(event.seconds)}: {event.why}"
    if isinstance(event, Noticed):
        return event.text
    if isinstance(event, Split):
        return f"{event.run.window}  is asked for in smaller requests: {event.error}"
    if isinstance(event, NoEvents):
        return sentence(event.flow, event.days, all_=event.all)
    if isinstance(event, Ended):
        if event.error:
            return f"{event.run.window}  failed: {event.error}"
        metrics = event.item["metrics"]
        took = metrics["durationSummary"]
        line = (
            f"{event.run.window}  {counted(event.item)}"
            f"  {duration((took['completedAtUTC'] - took['startedAtUTC']) / 1000)}"
        )
        return "\n".join([line, *remarks(event.item, event.run.window)])
    return ""


def counted(item: Json) -> str:
    """A run's rows, rejects and duplicates, and its bytes, as people read them."""
    records = item["metrics"]["recordSummary"]
    parts = [f"{records.get('outputRecordCount', 0):,} rows"]
    if records.get("failedRecordCount"):
        parts.append(f"{records['failedRecordCount']:,} rejected")
    if records.get("skippedRecordCount"):
        parts.append(f"{records['skippedRecordCount']:,} duplicates")
    if records.get("warningRecordCount"):
        parts.append(f"{records['warningRecordCount']:,} with a value not cast")
    return "  ".join([*parts, megabytes(item["metrics"]["sizeSummary"]["inputBytes"])])


def megabytes(size: int) -> str:
    """Bytes as MB; nothing is known of a negative number."""
    return "- MB" if size < 0 else f"{size / 1e6:,.1f} MB"


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table to stdout: in columns on a terminal, tab-separated elsewhere."""
    lines = [
        ["" if cell is None else " ".join(str(cell).split()) for cell in row]
        for row in [columns, *rows]
    ]
    if sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            line[:] = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
    space = "  " if sys.stdout.isatty() else "\t"
    for line in lines:
        print(space.join(line).rstrip(" "))  # noqa: T201 - this is the place for it


def by_another_mapping(days: int) -> str:
    """The sentence about complete days that a mended mapping does not reach."""
    if days == 1:
        return "1 complete day was pulled with another mapping; --force pulls it again."
    return f"{days:,} complete days were pulled with another mapping; --force pulls them again."


def summary(items: list[Json], days: int, dataset: str, otherwise: int = 0) -> str:
    """What all runs of a command came to, in one line.

    `otherwise`: how many complete days were pulled with another mapping set or schema.
    """
    more = f" {by_another_mapping(otherwise)}" if otherwise else ""
    return f"{_summary(items, days, dataset)}{more}"


def _summary(items: list[Json], days: int, dataset: str) -> str:
    good = [item for item in items if item["metrics"]["statusSummary"]["status"] == SUCCESS]
    totals = Counter[str]()
    for item in good:
        records = item["metrics"]["recordSummary"]
        totals.update({name: n for name, n in records.items() if isinstance(n, int)})
    if not items:
        all_ = "the day is" if days == 1 else f"all {days} days are"
        again = "it" if days == 1 else "them"
        return f"Nothing to do: {all_} complete in {dataset}. --force pulls {again} again."
    if not good:
        runs = "1 run" if len(items) == 1 else f"{len(items)} runs"
        return f"Nothing was committed to {dataset}: {runs} failed."
    runs = "1 run" if len(good) == 1 else f"{len(good)} runs"
    failed = f", {len(items) - len(good)} failed" if len(items) > len(good) else ""
    return (
        f"{totals['inputRecordCount']:,} events in: {totals['outputRecordCount']:,} rows, "
        f"{totals['failedRecordCount']:,} rejected, {totals['skippedRecordCount']:,} duplicates; "
        f"{runs} committed to {dataset}{failed}."
    )


def history(entries: list[Entry]) -> None:
    """Runs as a table."""
    columns = [
        "started (UTC)", "flow", "window", "status", "rows", "rejected", "duplicates", "took",
        "error",
    ]  # fmt: skip
    table(columns, map(_told, entries))


def _told(entry: Entry) -> list[str]:
    metrics = entry.item["metrics"]
    records, took = metrics["recordSummary"], metrics["durationSummary"]
    counts = ("outputRecordCount", "failedRecordCount", "skippedRecordCount")
    seconds = (took.get("completedAtUTC", 0) - took.get("startedAtUTC", 0)) / 1000
    errors = metrics["statusSummary"].get("errors", [])
    if entry.status == FAILED:  # nothing of it is in the table: no count is a result
        records = {}
    return [
        datetime.fromtimestamp(entry.started_at / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        entry.flow,
        str(entry.window),
        entry.told,
        *(f"{records[name]:,}" if name in records else "-" for name in counts),
        duration(seconds) if seconds >= 0 else "-",
        errors[0]["message"] if errors and entry.status == FAILED else "",
    ]


def progress(days: int) -> Lines | Bar:
    """A bar where a person watches and there is something to wait for, lines elsewhere."""
    watched = days and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Bar(days) if watched else Lines()
