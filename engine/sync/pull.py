"""Pull one window of a flow: from the request to files that are ready to be committed.

The loop in `pull` is the whole way of an event.
"""

import gc
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.dataset import layout
from engine.dataset.parquet_writer import Keys, StagedBatch, StagedFile, Writer
from engine.dataset.table import Table
from engine.errors import DatasetError, EtlError, disk_error
from engine.mapping.class_mappings import with_class_members
from engine.mapping.evaluate import MappingSet, parse
from engine.mapping.failed_casts import Uncast
from engine.mapping.unfound_sources import Names, unfound
from engine.mixpanel import client
from engine.mixpanel.responses import quote
from engine.model.batch import Batch, Tally
from engine.model.clock import now
from engine.model.day_borders import Borders
from engine.model.flow import Connection
from engine.model.window import DAY, Window
from engine.sync.fetch import Input, ServerClock, inputs
from engine.sync.pull_task import Credentials, Document, PullTask
from engine.sync.reject_limits import RejectDays, judge
from engine.transform import decode
from engine.transform.arrival_filter import early_keys, filter_by_arrival, is_early, leave_out
from engine.transform.columns import Columns
from engine.transform.fast_path import Direct
from engine.transform.schema import Schema
from engine.transform.schema_class import without_unused
from engine.transform.second_process import Reader
from engine.transform.validate import Checker

with suppress(NotImplementedError):  # not in every build of Arrow
    # Gives freed memory back sooner than Arrow's default allocator: a fifth less at the peak.
    pa.set_memory_pool(pa.jemalloc_memory_pool())


@dataclass(frozen=True, slots=True)
class Rules:
    """The mapping set and the schema of a flow, each as its name and its JSON document."""

    mapping: Document
    schema: Document

    def compile(self) -> tuple[Schema, MappingSet]:
        """Compile both, once a process. Raises InputError with everything that is wrong."""
        return _compile(*(json.dumps(each) for each in (self.mapping, self.schema)))

    def key_columns(self) -> list[tuple[str, ...]]:
        """Return the columns of the four parts of the key; empty if one of them is missing."""
        return self.compile()[1].key_columns


@lru_cache(maxsize=16)
def _compile(mapping: str, schema: str) -> tuple[Schema, MappingSet]:
    compiled = Schema.parse(*json.loads(schema))
    name, document = json.loads(mapping)
    rules = parse(name, with_class_members(document, compiled), compiled)
    return without_unused(compiled, {path[0] for path in rules.destinations}), rules


def table_schema(rules: Rules) -> pa.Schema:
    """Return the columns of the table that `rules` fill."""
    schema, mapping = rules.compile()
    epoch = date(1970, 1, 1)
    return Columns(
        schema, mapping.destinations, mapping.restore, days=(epoch, epoch), keep_unmapped=True
    ).arrow_schema


@dataclass(frozen=True, slots=True)
class StagedRun:
    """The result of a pull, ready to be committed. Times in ms since the epoch.

    window       the window that was pulled: `ServerClock` may have cut its end off
    directory    where the files are
    answered_at  Mixpanel's clock at its first response; None if no response named it
    keys         the columns of the four parts of the key and of the moment of processing; empty
                 if one of them is missing
    unfound      a sentence for each rule that found nothing while a property of a near name came
    borders      where the rows lie around the project's days; None for an arrival window
    left_out     rejected lines that a replay did not read: their days were pulled again
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
    left_out: int = 0


class _Stages:
    """The stages of one pull, compiled, and their counts."""

    def __init__(self, task: PullTask, tally: Tally, clock: ServerClock) -> None:
        schema, compiled = Rules(task.mapping, task.schema).compile()
        self.mapping = compiled.for_run(task.run.started_at, task.run.flow)
        window, keep = task.run.window, task.unmapped == "keep"
        destinations = self.mapping.destinations
        days = (window.from_date, window.to_date)
        self.columns = Columns(
            schema, destinations, self.mapping.restore, days=days, keep_unmapped=keep
        )
        self.direct = Direct(self.mapping.rules, destinations, keep_unmapped=keep)
        self.checker = Checker(schema, Uncast(schema, self.mapping))
        self.rejects = RejectDays(window)
        self.names = Names()
        self._batch_id = task.run.batch_id
        self._arrives = window.arrival is not None
        self._tally = tally
        self._clock = clock

    def findings(self) -> dict[str, Any]:
        """Return what the stages found, as fields of a staged run."""
        return {
            "keys": self.mapping.moment_columns,
            "unfound": unfound(self.mapping.rules, self.names, self._tally.lines),
            "borders": None if self._arrives else self.columns.borders,
        }

    def writer(self, directory: Path) -> Writer:
        """Return a writer of the rows."""
        return Writer(directory, self._batch_id, self.columns.arrow_schema)

    def map(self, batch: Batch) -> None:
        """Fill the columns of a batch, unless the fast path did."""
        if not batch.columns:
            self.mapping.apply(batch)
            self.direct.learn(batch.names)
            self.names.note(batch.names)

    def filter(self, batch: Batch) -> None:
        """Drop what another window has, and count the lines that are left."""
        self._tally.outside += filter_by_arrival(batch, self._clock.window)
        self._tally.lines += len(batch.lines)

    def validate(self, batch: Batch) -> None:
        """Take out and count what breaks the schema, and what an earlier window has."""
        early, table, window = batch.early, batch.table, self._clock.window
        self.checker.check(batch)
        if len(early):
            _overlap(batch, early, window, self.mapping.key_columns, self._tally)
        _leave_rejects(batch, window, self._tally)
        self.rejects.add(batch, table)
        _count(self._tally, batch)


def pull(
    task: PullTask,
    credentials: Credentials,
    on_progress: Callable[[Tally], None] = lambda _: None,
    acquire_slot: Callable[[], None] = lambda: None,
    *,
    second_core: bool = False,
) -> StagedRun:
    """Request the window of `task`, and write its checked rows into the directory of `task`.

    `on_progress` gets the tally so far after each batch. `acquire_slot` is called before each
    request but the first and returns once the request may be made. `second_core`: another core may
    help to decode. Raises EtlError with the tally so far: nothing of it may be committed (P1).
    """
    tally, clock = Tally(), ServerClock(task)
    started, copied, left_out = now(), None, [0]
    connection, directory = task.connect(credentials), Path(task.directory)
    try:
        with disk_error(f"write in {directory.parent}"), _no_collector():
            stages = _Stages(task, tally, clock)
            responses = inputs(task, connection, tally, clock, acquire_slot, left_out)
            with (
                closing(stages.writer(directory)) as writer,
                closing(Reader(stages.direct, directory, twin=second_core)) as reader,
                closing(responses),
                closing(_decode(responses, reader, stages.columns, connection)) as batches,
            ):
                for batch in batches:
                    stages.map(batch)
                    stages.filter(batch)
                    stages.columns.build(batch)
                    stages.validate(batch)
                    _write(writer, batch, stages.mapping)
                    on_progress(tally)
                copied = now()
                window = clock.window
                reader.close()  # its core and its memory are wanted for Parquet
                staged = writer.finish(_existing_keys(task, stages.mapping, window))
            _add_files(tally, staged)
            judge(tally, _rows(staged.files), stages.rejects, task.run.window, task.tolerance)
            _note_input(directory, _source(task, connection), tally)
    except EtlError as error:
        error.tally, error.copied = tally, copied
        raise
    return StagedRun(
        files=staged.files,
        tally=tally,
        copy_started=started,
        copy_completed=copied,
        window=window,
        directory=directory,
        answered_at=clock.answered_at,
        left_out=left_out[0],
        **stages.findings(),
    )


def _decode(
    responses: Iterable[Input], reader: Reader, columns: Columns, connection: Connection
) -> Generator[Batch, None, None]:
    """Yield the batches of all responses, each whole (P1), filed under the days of its request."""
    for response in responses:
        columns.hold(response.window.from_date, response.window.to_date)
        quoted = partial(quote, connection=connection)
        with closing(
            decode.read(response.chunks, direct=reader.batches, whole=response.whole, quoted=quoted)
        ) as batches:
            yield from batches


def _write(writer: Writer, batch: Batch, mapping: MappingSet) -> None:
    """Write the rows of `batch`, with the keys of those that the table may hold already."""
    if len(batch.early):
        writer.write(batch, batch.early, early_keys(batch, mapping.key_columns))
    else:
        writer.write(batch)


def _add_files(tally: Tally, staged: StagedBatch) -> None:
    """Count the written files and verify P3, as at the end of every pull."""
    tally.lines -= staged.known
    tally.known = staged.known
    tally.rows = sum(file.rows for file in staged.files)
    tally.duplicates = staged.duplicates
    tally.files = len(staged.files)
    tally.bytes_written = sum(file.bytes for file in staged.files)
    if tally.lines != tally.rows + tally.rejected + tally.duplicates:
        error = DatasetError(
            f"{tally.lines:,} lines came, but {tally.rows:,} rows, {tally.rejected:,} rejects and "
            f"{tally.duplicates:,} duplicates do not add up to them. Nothing was committed; "
            "this is a defect of mixpanel-etl: please report it."
        )
        error.lasting = False
        raise error


def _count(tally: Tally, batch: Batch) -> None:
    """Count rejects and warnings of `batch`; rows are counted from the files, at the end."""
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
    """Leave out early rows that cannot be compared with the table, and count no row twice.

    Rows that the table has were counted by the window that brought them. `early` marks records
    before the check, rejected ones included.
    """
    before = {int(row) for row in early.nonzero()[0]}
    batch.uncast -= before
    batch.clamped -= before
    left = leave_out(batch, window, keys)
    tally.outside += left
    tally.lines -= left


def _leave_rejects(batch: Batch, window: Window, tally: Tally) -> None:
    """Leave out rejects of an earlier window's lines: that window, or the day's pull, has them.

    A bad line would otherwise be rejected by each of the windows that overlap it.
    """
    left = []
    for reject in batch.rejects:
        if reject.part is not None or not is_early(reject, window):
            left.append(reject)
            continue
        tally.outside += 1
        tally.lines -= reject.stage != "lines"  # those are counted with the rejects
    batch.rejects = left


def _rows(files: Sequence[StagedFile]) -> Counter[date]:
    rows = Counter[date]()
    for file in files:
        rows[file.day] += file.rows
    return rows


def _source(task: PullTask, connection: Connection) -> str:
    """Return where the lines came from: a folder, or an address, which holds no secret (P7)."""
    if task.rejects:
        return task.rejects.folder
    return client.url(connection, task.run.window, task.events, task.where)


def _note_input(directory: Path, address: str, tally: Tally) -> None:
    """Write beside the batch what it was made from, as Adobe's `input_files` does."""
    folder = directory / layout.STAGED_BATCH / layout.INPUTS
    folder.mkdir(parents=True)
    entry = {"path": address, "length": tally.bytes_read, "records": tally.lines}
    (folder / layout.input_note(1)).write_text(json.dumps(entry) + "\n", encoding="utf-8")


def _existing_keys(task: PullTask, mapping: MappingSet, window: Window) -> Keys:
    """Return a reader of the keys that the table holds of a day.

    Rows at the edge of the window's days may be filed under the first or last of them, and may have
    been under another day by an earlier window. Where the project's days turned out not to be UTC
    days, each row may be filed under its UTC day. The reader finds nothing where the mapping set
    leaves out a part of the key, or the pull replaces whole days.
    """
    columns = mapping.key_columns
    if task.table is None or not columns:
        return lambda _: ()
    table = Table(Path(task.table), None, None)
    overlaps = window.overlap or window.doubtful or window.again
    edges = {window.from_date, window.to_date} if overlaps else set()
    doubted = window.alone and bool(window.doubtful or window.again)

    def read(day: date) -> Iterator[list[Any]]:
        places = [day, day - DAY] if day in edges and not window.alone else [day]
        for each in [day, day - DAY, day + DAY] if doubted else places:
            yield from table.read(each, columns)

    return read


@contextmanager
def _no_collector() -> Iterator[None]:
    """Switch the garbage collector off: it takes a tenth of the time and finds no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
