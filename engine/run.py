"""One window of a flow, from the request to files that are ready to be committed.

A record's whole way is the loop in `pull`. It knows no schedule, no retry and no other run.
"""

import gc
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from engine.answer import clean
from engine.batch import Batch, Reject, Tally
from engine.errors import DatasetError, EtlError, TooLate, TooManyRejects, disk_error
from engine.flow import Flow, Run
from engine.schema import Schema
from engine.stages import export, lines
from engine.stages.check import Checker
from engine.stages.columns import Columns, utc_day
from engine.stages.direct import Direct
from engine.stages.mapping import MappingSet, parse
from engine.stages.span import keep_within
from engine.stages.writer import Keys, StagedFile, Writer
from engine.twin import Reader
from engine.window import Window, day_over

# A day, and paths of columns -> these columns of what the table holds of the day, part by part.
Beside = Callable[[date, list[tuple[str, ...]]], Iterable[list[Any]]]
EPOCH = date(1970, 1, 1)
AHEAD = 4  # decompressed chunks that may wait for the main thread (P6)

with suppress(NotImplementedError):  # not in every build of Arrow
    # Gives freed memory back sooner than Arrow's default allocator: a fifth less at the peak.
    pa.set_memory_pool(pa.jemalloc_memory_pool())


@dataclass(frozen=True, slots=True)
class Rules:
    """The mapping set and the schema of a flow, each as its name and its JSON document."""

    mapping: tuple[str, Any]
    schema: tuple[str, Any]

    def compile(self) -> tuple[Schema, MappingSet]:
        """Both, ready for use. Raises InputError with everything that is wrong with them."""
        schema = Schema.parse(*self.schema)
        return schema, parse(*self.mapping, schema)


@dataclass(frozen=True, slots=True)
class Kept:
    """Lines that came before and were kept, in `place`, to be read instead of a response."""

    chunks: Iterable[bytes]
    place: str


@dataclass(frozen=True, slots=True)
class Staged:
    """What a pull leaves for the commit. Times in ms since the epoch."""

    files: list[StagedFile]
    tally: Tally
    copy_started: int
    copy_completed: int


def pull(
    flow: Flow,
    rules: Rules,
    run: Run,
    directory: Path,
    advance: Callable[[Tally], None] = lambda _: None,
    limits: export.Limits = export.DEFAULT_LIMITS,
    *,
    twin: bool = False,
    kept: Kept | None = None,
    beside: Beside | None = None,
) -> Staged:
    """Ask for the run's window once, and put what comes back, checked, into `directory`.

    `advance` is told the tally so far, now and then; `twin`: another core is free to help; `kept`
    is read instead of an answer to the request; `beside` tells what the table holds where this is
    to be added: an event that is there is a duplicate (P4). Raises EtlError, with the tally so far;
    then nothing in `directory` may be committed (P1).
    """
    tally = Tally()
    started, copied = _now(), None
    try:
        with disk_error(f"write in {directory.parent}"), _no_collector():
            mapping, direct, columns, checker = _stages(flow, rules, run)
            with (
                closing(Writer(directory, run.batch_id, columns.arrow_schema)) as writer,
                closing(
                    _counted(kept, tally) if kept else _chunks(flow, run, tally, limits)
                ) as chunks,
                closing(Reader(direct, directory, twin=twin)) as reader,
                closing(
                    lines.read(
                        chunks,
                        direct=reader.batches,
                        whole=kept is not None,
                        quoted=partial(clean, connection=flow.connection),
                    )
                ) as batches,
            ):
                for batch in batches:
                    if not batch.columns:
                        mapping.apply(batch)
                        direct.learn(batch.names)
                    tally.outside += keep_within(batch, run.window)
                    tally.lines += len(batch.lines)
                    columns.build(batch)
                    checker.check(batch)
                    writer.write(batch)
                    _count(tally, batch, run.window)
                    advance(tally)
                copied = _now()
                reader.close()  # its core and its memory are wanted for Parquet
                staged = writer.finish(_keys(beside, mapping))
            tally.rows = sum(file.rows for file in staged.files)
            tally.duplicates = staged.duplicates
            tally.files = len(staged.files)
            tally.bytes_written = sum(file.bytes for file in staged.files)
            _verify(tally, flow)
            judge(tally, staged.files, run.window, flow)
            _note_input(directory, _asked(flow, run, kept), tally)
    except EtlError as error:
        error.tally, error.copied = tally, copied
        raise
    return Staged(staged.files, tally, started, copied)


def _stages(flow: Flow, rules: Rules, run: Run) -> tuple[MappingSet, Direct, Columns, Checker]:
    """What a record passes between its line and its file."""
    schema, mapping = rules.compile()
    days, keep = (run.window.from_date, run.window.to_date), flow.unmapped == "keep"
    columns = Columns(schema, mapping.destinations, mapping.restore, days=days, keep_unmapped=keep)
    direct = Direct(mapping.rules, mapping.destinations, keep_unmapped=keep)
    return mapping, direct, columns, Checker(schema)


def table_schema(rules: Rules) -> pa.Schema:
    """The columns of the table that `rules` fill."""
    schema, mapping = rules.compile()
    epoch = date(1970, 1, 1)
    return Columns(
        schema, mapping.destinations, mapping.restore, days=(epoch, epoch), keep_unmapped=True
    ).arrow_schema


def _count(tally: Tally, batch: Batch, window: Window) -> None:
    """Add what the stages found wrong in `batch`; rows are counted from the files, at the end."""
    tally.warnings += len(batch.uncast)
    tally.clamped += len(batch.clamped)
    for reject in batch.rejects:
        if not reject.part:  # a line in several parts is one line
            tally.rejected += 1
            tally.reject_codes[reject.code] += 1
            tally.lines += reject.stage == "lines"
            if day := _day_of(reject, window):
                tally.reject_days[day] += 1


def _day_of(reject: Reject, window: Window) -> date | None:
    """The day of `window` that a rejected line belongs to; None where it does not say."""
    if window.from_date == window.to_date:
        return window.from_date
    if reject.stage == "lines":
        return None
    try:
        found = utc_day(orjson.loads(reject.raw)["properties"]["time"])
        day = None if found is None else EPOCH + timedelta(found)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return day if day is None else min(max(day, window.from_date), window.to_date)


def _verify(tally: Tally, flow: Flow) -> None:
    """P3 at the end of every pull."""
    if tally.lines != tally.rows + tally.rejected + tally.duplicates:
        error = DatasetError(
            f"{tally.lines:,} lines came, but {tally.rows:,} rows, {tally.rejected:,} rejects and "
            f"{tally.duplicates:,} duplicates do not add up to them. Nothing was committed; "
            "this is a defect of mixpanel-etl: please report it."
        )
        error.lasting = False
        raise error


def judge(tally: Tally, files: Sequence[StagedFile], window: Window, flow: Flow) -> None:
    """Raise TooManyRejects if a whole window or any day of it has more than the flow tolerates.

    Rejects that do not tell their day may all be of any one day, so that each has to bear them.
    """
    if not tally.rejected:
        return
    passed = tally.lines - tally.rejected
    # P9: an arrival window holds back all that arrives after it, so a few lines never stop one.
    if not _tolerated(tally.rejected, passed, flow, alone=window.arrival is not None):
        raise TooManyRejects(
            f"{tally.rejected:,} of {tally.lines:,} records were rejected ({_codes(tally)}), more "
            f"than {_limits(flow)}. Nothing was changed; "
            "the rejected lines are kept with their reasons."
        )
    if window.arrival or window.from_date == window.to_date:
        return
    rows = Counter[date]()
    for file in files:
        rows[file.day] += file.rows
    known = tally.reject_days
    untold = tally.rejected - sum(known.values())
    bad = [day for day in known if not _tolerated(known[day], rows[day], flow)]
    doubtful = [d for d in window.days if not _tolerated(known[d] + untold, rows[d], flow)]
    if not doubtful:
        return
    error = TooManyRejects(
        f"{tally.rejected:,} records were rejected ({_codes(tally)}), which "
        f"{'are' if bad else 'may be'} more than {_limits(flow)} of {(bad or doubtful)[0]}. "
        "Nothing was changed; the rejected lines are kept with their reasons."
    )
    error.days = frozenset(bad)
    raise error


def _tolerated(rejected: int, passed: int, flow: Flow, *, alone: bool = False) -> bool:
    """Whether so many rejects beside so many other records are within what the flow tolerates.

    `partial_ingestion_min` holds where something passed, or the rejects may stand `alone`: a day of
    which nothing passed is not complete, however few its events are. 0 % tolerates none.
    """
    if rejected <= (rejected + passed) * flow.partial_ingestion_percent / 100:
        return True
    if flow.partial_ingestion_percent == 0:
        return False
    return rejected <= flow.partial_ingestion_min and (passed > 0 or alone)


def _limits(flow: Flow) -> str:
    return (
        f"the {flow.partial_ingestion_percent:g} % or the {flow.partial_ingestion_min:,} "
        "that this flow tolerates"
    )


def _codes(tally: Tally) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in tally.reject_codes.most_common(3))


def _asked(flow: Flow, run: Run, kept: Kept | None) -> str:
    """Where the lines came from. The address has no secret."""
    if kept:
        return kept.place
    return export.url(flow.connection, run.window, flow.events, flow.where)


def _note_input(directory: Path, address: str, tally: Tally) -> None:
    """Leave word of what was asked, as Adobe's `input_files` does."""
    folder = directory / "batch" / "input_files"
    folder.mkdir(parents=True)
    entry = {"path": address, "length": tally.bytes_read, "records": tally.lines}
    (folder / "fileMetaData1.json").write_text(json.dumps(entry) + "\n", encoding="utf-8")


def _keys(beside: Beside | None, mapping: MappingSet) -> Keys:
    """The keys of what the table holds of a day; none where the mapping set leaves one out."""
    columns = mapping.key_columns
    return lambda day: beside(day, columns) if beside and columns else ()


def _counted(kept: Kept, tally: Tally) -> Generator[bytes, None, None]:
    for chunk in kept.chunks:
        tally.bytes_read += len(chunk)
        yield chunk


def _chunks(
    flow: Flow, run: Run, tally: Tally, limits: export.Limits
) -> Generator[bytes, None, None]:
    """The decompressed response, fetched by a thread that stays at most AHEAD chunks ahead."""
    chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(AHEAD)
    left = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                chunks.put(item, timeout=1)
                return

    def receive(window: Window) -> None:
        with export.stream(
            flow.connection,
            window,
            events=flow.events,
            where=flow.where,
            limits=limits,
            stopped=left.is_set,
        ) as response:
            try:
                for chunk in response:
                    put(chunk)
                    if left.is_set():
                        return
            finally:
                tally.bytes_received = response.received

    def fetch() -> None:
        try:
            try:
                receive(run.window)
            except TooLate as error:
                if shorter := _a_day_shorter(flow, run, error):
                    receive(shorter)
            put(None)
        except BaseException as error:  # noqa: BLE001 - it is raised again where chunks are taken
            put(error)

    try:
        threading.Thread(target=fetch, name="export", daemon=True).start()
        while (item := chunks.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            tally.bytes_read += len(item)
            yield item
    finally:
        left.set()


def _a_day_shorter(flow: Flow, run: Run, error: TooLate) -> Window | None:
    """What to ask instead, without a last day that has not begun; None where that is all there is.

    Whether "today" is by UTC or by the project's clock cannot be seen from outside. A day that has
    not begun by the one that it is has no events. Raises `error` for a day that is over by both.
    """
    running = day_over(run.window.to_date, flow.connection.zone) > run.started_at
    if run.window.arrival is None and not running:
        raise error
    return run.window.without_last_day


@contextmanager
def _no_collector() -> Iterator[None]:
    """The stages make no reference cycles; looking for them would cost a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _now() -> int:
    return time.time_ns() // 1_000_000
