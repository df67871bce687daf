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
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.dataset import layout
from engine.dataset.parquet_writer import Keys, StagedFile, Writer
from engine.errors import DatasetError, EtlError, TooLate, disk_error
from engine.mapping.class_mappings import with_class_members
from engine.mapping.evaluate import MappingSet, parse
from engine.mapping.failed_casts import Uncast
from engine.mapping.unfound_sources import Names, unfound
from engine.mixpanel import client
from engine.mixpanel.responses import quote
from engine.model.batch import Batch, Tally
from engine.model.day_borders import Borders
from engine.model.flow import Flow, Run
from engine.model.window import DAY, Window, day_over, utc
from engine.sync.reject_limits import RejectDays, judge
from engine.transform import decode
from engine.transform.arrival_filter import early_keys, filter_by_arrival, is_early, leave_out
from engine.transform.columns import Columns
from engine.transform.fast_path import Direct
from engine.transform.schema import Schema
from engine.transform.schema_class import without_unused
from engine.transform.second_process import Reader
from engine.transform.validate import Checker

# A day, and paths of columns -> these columns of what the table holds of the day, part by part.
Beside = Callable[[date, list[tuple[str, ...]]], Iterable[list[Any]]]
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
        name, document = self.mapping
        mapping = parse(name, with_class_members(document, schema), schema)
        return without_unused(schema, {path[0] for path in mapping.destinations}), mapping

    def key_columns(self) -> list[tuple[str, ...]]:
        """The columns of the table that tell events apart; none where it lacks one of them."""
        return self.compile()[1].key_columns


@dataclass(frozen=True, slots=True)
class ReplayInput:
    """Lines that came before and were kept, in `place`, to be read instead of a response."""

    chunks: Iterable[bytes]
    place: str


@dataclass(frozen=True, slots=True)
class StagedRun:
    """What a pull leaves for the commit. Times in ms since the epoch.

    window       what was pulled: it may end sooner than what was asked for, see `_Heard`
    directory    where the files are
    answered_at  Mixpanel's own clock when it answered; None where it did not say
    keys         where the four parts of the key and the moment of processing stand in the files;
                 empty where one of them does not
    unfound      of each rule that found nothing, while a property with a near name came: a sentence
    borders      what the rows tell of the project's days; None where they come by arrival
    """

    files: list[StagedFile]
    tally: Tally
    copy_started: int
    copy_completed: int
    window: Window
    directory: Path
    answered_at: int | None = None
    keys: list[tuple[str, ...]] = field(default_factory=list)
    unfound: list[str] = field(default_factory=list)
    borders: Borders | None = None


class _Heard:
    """What an answer's head tells of Mixpanel's own clock, and the window that is left by it.

    Up to now less the flow's delay, Mixpanel has shown what it processed; by a clock of ours that
    is ahead, a window would end later, and what comes until then would be lost (P4).
    """

    def __init__(self, flow: Flow, run: Run, kept: ReplayInput | None) -> None:
        self.answered_at: int | None = None
        self._delay = flow.delay_minutes * 60_000
        self._run = run
        self._kept = kept
        self._window: Window | None = None

    @property
    def window(self) -> Window:
        """The run's window, once the answer has begun. EtlError where nothing of it is left."""
        if self._window is None:
            asked = self._run.window
            if self._kept or self.answered_at is None:
                self._window = asked
            else:
                self._window = asked.until(self.answered_at - self._delay)
        if self._window is None:
            raise EtlError(
                f"By Mixpanel's clock ({utc(self.answered_at or 0)}) nothing new can have arrived "
                f"yet; this machine's shows {utc(self._run.started_at)}. If they differ, set this "
                "machine's right: a time service such as chrony does it."
            )
        return self._window


def pull(
    flow: Flow,
    rules: Rules,
    run: Run,
    directory: Path,
    advance: Callable[[Tally], None] = lambda _: None,
    limits: client.Timeouts = client.DEFAULT_TIMEOUTS,
    *,
    twin: bool = False,
    kept: ReplayInput | None = None,
    existing_keys: Beside | None = None,
    turn: Callable[[], None] = lambda: None,
) -> StagedRun:
    """Ask for the run's window, and put what comes back, checked, into `directory`.

    `advance` is told the tally so far, now and then; `twin`: another core is free to help; `kept`
    is read instead of an answer to the request; `existing_keys` tells what the table holds
    where this is to be added: an event that is there is a duplicate (P4); `turn` is called
    before each request but the first, where a window takes several, and returns when Mixpanel
    may be asked. Raises EtlError, with the tally so far; then nothing in `directory` may be
    committed (P1).
    """
    tally = Tally()
    heard = _Heard(flow, run, kept)
    started, copied, names = _now(), None, Names()
    try:
        with disk_error(f"write in {directory.parent}"), _no_collector():
            mapping, direct, columns, checker = _stages(flow, rules, run)
            rejects = RejectDays(run.window)
            with (
                closing(Writer(directory, run.batch_id, columns.arrow_schema)) as writer,
                closing(Reader(direct, directory, twin=twin)) as reader,
                closing(_answers(flow, run, tally, heard, limits, kept, turn)) as answers,
                closing(_batches(answers, reader, columns, flow)) as batches,
            ):
                for batch in batches:
                    if not batch.columns:
                        mapping.apply(batch)
                        direct.learn(batch.names)
                        names.note(batch.names)
                    tally.outside += filter_by_arrival(batch, heard.window)
                    tally.lines += len(batch.lines)
                    early = batch.early
                    columns.build(batch)
                    table = batch.table
                    checker.check(batch)
                    if len(early):
                        _overlap(batch, early, heard.window, mapping.key_columns, tally)
                    _leave_rejects(batch, heard.window, tally)
                    rejects.add(batch, table)
                    _count(tally, batch)
                    if len(batch.early):
                        keys = early_keys(batch, mapping.key_columns)
                        writer.write(batch, batch.early, keys)
                    else:
                        writer.write(batch)
                    advance(tally)
                copied = _now()
                window = heard.window
                reader.close()  # its core and its memory are wanted for Parquet
                staged = writer.finish(_keys(existing_keys, mapping, window))
            tally.lines -= staged.known
            tally.known = staged.known
            tally.rows = sum(file.rows for file in staged.files)
            tally.duplicates = staged.duplicates
            tally.files = len(staged.files)
            tally.bytes_written = sum(file.bytes for file in staged.files)
            _verify(tally, flow)
            tally.reject_days = rejects.told
            judge(tally, _rows(staged.files), rejects.finish(), run.window, flow)
            _note_input(directory, _asked(flow, run, kept), tally)
    except EtlError as error:
        error.tally, error.copied = tally, copied
        raise
    return StagedRun(
        staged.files,
        tally,
        started,
        copied,
        window,
        directory,
        heard.answered_at,
        mapping.moment_columns,
        unfound(mapping.rules, names, tally.lines),
        None if run.window.arrival else columns.borders,
    )


def _stages(flow: Flow, rules: Rules, run: Run) -> tuple[MappingSet, Direct, Columns, Checker]:
    """What a record passes between its line and its file."""
    schema, mapping = rules.compile()
    mapping.begin(run.started_at, flow.name)
    days, keep = (run.window.from_date, run.window.to_date), flow.unmapped == "keep"
    columns = Columns(schema, mapping.destinations, mapping.restore, days=days, keep_unmapped=keep)
    direct = Direct(mapping.rules, mapping.destinations, keep_unmapped=keep)
    return mapping, direct, columns, Checker(schema, Uncast(schema, mapping))


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request of a window brings; `whole`: nothing can be missing at its end."""

    window: Window
    chunks: Iterator[bytes]
    whole: bool = False


def _answers(
    flow: Flow,
    run: Run,
    tally: Tally,
    heard: _Heard,
    limits: client.Timeouts,
    kept: ReplayInput | None,
    turn: Callable[[], None],
) -> Generator[_Answer, None, None]:
    """The answers to the requests of the run's window, one after the other; or what was kept."""
    if kept:
        with closing(_counted(kept, tally)) as chunks:
            yield _Answer(run.window, chunks, whole=True)
        return
    for number, window in enumerate(run.window.requests):
        if number:
            turn()
        asked = replace(run, window=window)
        with closing(_chunks(flow, asked, tally, heard, limits)) as chunks:
            yield _Answer(window, chunks)


def _batches(
    answers: Iterable[_Answer], reader: Reader, columns: Columns, flow: Flow
) -> Generator[Batch, None, None]:
    """The batches of all answers, each whole by itself (P1), filed under the days asked for."""
    for answer in answers:
        columns.hold(answer.window.from_date, answer.window.to_date)
        quoted = partial(quote, connection=flow.connection)
        with closing(
            decode.read(answer.chunks, direct=reader.batches, whole=answer.whole, quoted=quoted)
        ) as batches:
            yield from batches


def table_schema(rules: Rules) -> pa.Schema:
    """The columns of the table that `rules` fill."""
    schema, mapping = rules.compile()
    epoch = date(1970, 1, 1)
    return Columns(
        schema, mapping.destinations, mapping.restore, days=(epoch, epoch), keep_unmapped=True
    ).arrow_schema


def _count(tally: Tally, batch: Batch) -> None:
    """Add what the stages found wrong in `batch`; rows are counted from the files, at the end."""
    tally.warnings += len(batch.uncast)
    tally.clamped += len(batch.clamped)
    for reject in batch.rejects:
        if not reject.part:  # a line in several parts is one line
            tally.rejected += 1
            tally.reject_codes[reject.code] += 1
            tally.lines += reject.stage == "lines"


def _overlap(
    batch: Batch, early: Any, window: Window, keys: list[tuple[str, ...]], tally: Tally
) -> None:
    """Leave out of what is early whatever cannot be compared with the table, and count it once.

    What the table has was counted by the window that brought it. `early` is that of all records,
    those that were rejected among them.
    """
    before = {int(row) for row in early.nonzero()[0]}
    batch.uncast -= before
    batch.clamped -= before
    left = leave_out(batch, window, keys)
    tally.outside += left
    tally.lines -= left


def _leave_rejects(batch: Batch, window: Window, tally: Tally) -> None:
    """Leave out early lines that are rejected: they were before, or their day's pull does it.

    Else a bad line would be rejected by each of the windows that overlap it.
    """
    kept = []
    for reject in batch.rejects:
        if reject.part is not None or not is_early(reject, window):
            kept.append(reject)
            continue
        tally.outside += 1
        tally.lines -= reject.stage != "lines"  # those are counted with the rejects
    batch.rejects = kept


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


def _rows(files: Sequence[StagedFile]) -> Counter[date]:
    """The rows of each day."""
    rows = Counter[date]()
    for file in files:
        rows[file.day] += file.rows
    return rows


def _asked(flow: Flow, run: Run, kept: ReplayInput | None) -> str:
    """Where the lines came from. The address has no secret."""
    if kept:
        return kept.place
    return client.url(flow.connection, run.window, flow.events, flow.where)


def _note_input(directory: Path, address: str, tally: Tally) -> None:
    """Leave word of what was asked, as Adobe's `input_files` does."""
    folder = directory / layout.STAGED_BATCH / layout.INPUTS
    folder.mkdir(parents=True)
    entry = {"path": address, "length": tally.bytes_read, "records": tally.lines}
    (folder / layout.input_note(1)).write_text(json.dumps(entry) + "\n", encoding="utf-8")


def _keys(existing_keys: Beside | None, mapping: MappingSet, window: Window) -> Keys:
    """The keys of what the table holds of a day; none where the mapping set leaves one out.

    An event at the edge of the window's days may be clamped to them, and may have been to others
    by the window before this one. Each may have been filed under its UTC day, where the days of
    the project turned out to be others.
    """
    columns = mapping.key_columns
    if existing_keys is None or not columns:
        return lambda _: ()
    edges = {window.from_date, window.to_date} if _overlaps(window) else set()
    doubted = window.alone and bool(window.doubtful or window.again)

    def held(day: date) -> Iterator[list[Any]]:
        places = [day, day - DAY] if day in edges and not window.alone else [day]
        for each in [day, day - DAY, day + DAY] if doubted else places:
            yield from existing_keys(each, columns)

    return held


def _overlaps(window: Window) -> bool:
    """Whether the table may hold what comes."""
    return bool(window.overlap or window.doubtful or window.again)


def _counted(kept: ReplayInput, tally: Tally) -> Generator[bytes, None, None]:
    for chunk in kept.chunks:
        tally.bytes_read += len(chunk)
        yield chunk


def _chunks(
    flow: Flow, run: Run, tally: Tally, heard: _Heard, limits: client.Timeouts
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
        with client.stream(
            flow.connection,
            window,
            events=flow.events,
            where=flow.where,
            limits=limits,
            stopped=left.is_set,
        ) as response:
            # The first of several: what the others bring is cut off where that one is (P4).
            heard.answered_at = heard.answered_at or response.answered_at
            before = tally.bytes_received
            try:
                for chunk in response:
                    put(chunk)
                    if left.is_set():
                        return
            finally:
                tally.bytes_received = before + response.received

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
