"""Show a person the progress of runs, as a bar on a terminal or as lines, and tables of results.

Progress goes to stderr, results to stdout.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.cli.console import closed_stdout_allowed, utc_minute
from engine.model.batch import Tally
from engine.model.clock import duration
from engine.model.run_record import FAILED, IN_PROGRESS, SUCCESS, RunRecord
from engine.sync import run_updates as updates


class Lines:
    """Prints a line for each run that ends and for each wait."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, event: updates.RunUpdate) -> None:
        """Print the line of `event`, if it has one."""
        if line := describe(event):
            with suppress(OSError):  # stderr was closed: no reason to stop the work
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
            # Mixpanel's texts may look like markup or emoji to rich: it prints them as they are.
            console=Console(stderr=True, highlight=False, markup=False, emoji=False),
        )
        self._task = self._progress.add_task("pulling", total=days, events=0, rate=0.0)
        self._running: dict[str, tuple[int, int]] = {}  # run id -> events, bytes
        self._done = (0, 0)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: updates.RunUpdate) -> None:
        """Move the bar, and print failures, waits and remarks above it."""
        if isinstance(event, updates.DaysDue):
            self._progress.update(self._task, total=event.days, visible=event.days > 0)
        elif isinstance(event, updates.Advanced):
            self._running[event.run_id] = (event.lines, event.bytes)
        elif isinstance(event, updates.Split):
            self._running.pop(event.run.id, None)
        elif isinstance(event, updates.Ended):
            self._running.pop(event.record.id, None)
            tally = event.record.tally or Tally()
            # The bytes of a failed run count, but no event of it is in the table.
            events = 0 if event.error else tally.lines
            self._done = (self._done[0] + events, self._done[1] + tally.bytes_read)
            if not (event.error or event.record.window.arrival):
                self._progress.advance(self._task, len(event.record.window.days))
        line = describe(event)
        if isinstance(event, updates.Ended) and not event.error:
            line = "\n".join(event.record.remarks())
        if line:
            self._progress.console.print(line)
        counts = [self._done, *self._running.values()]
        seconds = self._progress.tasks[0].elapsed or 1e-9
        self._progress.update(
            self._task,
            events=sum(events for events, _ in counts),
            rate=sum(size for _, size in counts) / 1e6 / seconds,
        )


def describe(event: updates.RunUpdate) -> str:
    """Return the line to print for an update of a run; empty if there is none."""
    if isinstance(event, updates.GaveUp):
        return f"{event.days} more days were not tried: what failed would fail for them too."
    if isinstance(event, updates.Waiting):
        return f"waiting {duration(event.seconds)}: {event.why}"
    if isinstance(event, updates.Noticed):
        return event.text
    if isinstance(event, updates.Split):
        return f"{event.run.window}  is asked for in smaller requests: {event.error}"
    if isinstance(event, updates.NoEvents):
        return str(event)
    if isinstance(event, updates.Ended):
        record = event.record
        if event.error:
            return f"{record.window}  failed: {event.error}"
        line = f"{record.window}  {counted(record.result)}  {duration(record.seconds or 0)}"
        return "\n".join([line, *record.remarks()])
    return ""


def counted(tally: Tally) -> str:
    """Return rows, rejects, duplicates and bytes of a run as people read them."""
    counts = {
        "rejected": tally.rejected,
        "duplicates": tally.duplicates,
        "with a value not cast": tally.warnings,
    }
    more = [f"{count:,} {words}" for words, count in counts.items() if count]
    return "  ".join([f"{tally.rows:,} rows", *more, f"{tally.bytes_read / 1e6:,.1f} MB"])


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
    with closed_stdout_allowed():
        for line in lines:
            print(space.join(line).rstrip(" "))  # noqa: T201 - this is the place for it


def by_another_mapping(days: int) -> str:
    """Return the sentence on complete days that were pulled with another mapping."""
    if days == 1:
        return "1 complete day was pulled with another mapping; --force pulls it again."
    return f"{days:,} complete days were pulled with another mapping; --force pulls them again."


def summary(records: list[RunRecord], days: int, dataset: str, otherwise: int = 0) -> str:
    """Return the counts of all runs of a command, in one line.

    `otherwise`: number of complete days that were pulled with another mapping set or schema.
    """
    more = f" {by_another_mapping(otherwise)}" if otherwise else ""
    good = [record for record in records if record.status == SUCCESS]
    total = sum((record.result for record in good), Tally())
    if not records:
        all_ = "the day is" if days == 1 else f"all {days} days are"
        again = "it" if days == 1 else "them"
        return f"Nothing to do: {all_} complete in {dataset}. --force pulls {again} again.{more}"
    if not good:
        runs = "1 run" if len(records) == 1 else f"{len(records)} runs"
        return f"Nothing was committed to {dataset}: {runs} failed.{more}"
    runs = "1 run" if len(good) == 1 else f"{len(good)} runs"
    failed = f", {len(records) - len(good)} failed" if len(records) > len(good) else ""
    return (
        f"{total.lines:,} events in: {total.rows:,} rows, {total.rejected:,} rejected, "
        f"{total.duplicates:,} duplicates; "
        f"{runs} committed to {dataset}{failed}.{more}"
    )


def history(records: list[RunRecord]) -> None:
    """Print runs as a table."""
    counts = ["rows", "rejected", "duplicates"]
    table(
        ["started (UTC)", "flow", "window", "status", *counts, "took", "error"], map(_row, records)
    )


def _row(record: RunRecord) -> list[str]:
    tally = record.result
    # Of a failed run nothing is in the table: no count is a result.
    known = record.tally is not None and record.status not in (FAILED, IN_PROGRESS)
    seconds = record.seconds
    return [
        utc_minute(record.started_at),
        record.flow,
        str(record.window),
        record.status_label,
        *(f"{n:,}" if known else "-" for n in (tally.rows, tally.rejected, tally.duplicates)),
        "-" if seconds is None else duration(seconds),
        record.error,
    ]


def progress(days: int) -> Lines | Bar:
    """Return a bar, if stderr is a terminal and there are days to pull, else lines."""
    watched = days and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Bar(days) if watched else Lines()
