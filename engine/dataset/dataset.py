"""The one dataset that is written: `commit` is the only way to change its table.

It gets finished files, and knows no request and no mapping. `layout` describes its folders.

Other programs may commit to the table at any time. So each commit is made on the very version that
was read for it; if another commit came between, the table is read again.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from engine.dataset import layout, old_batches
from engine.dataset.commit_cleanup import RecoverableTable
from engine.dataset.commit_intent import Intent
from engine.dataset.compatibility import COLUMNS, SOURCE, columns_property
from engine.dataset.day_changes import EMPTY, DaySummary, figures_after
from engine.dataset.dedup import Duplicates
from engine.dataset.parquet_writer import StagedFile
from engine.dataset.storage.local import sync, write_synced
from engine.dataset.table import DayContents, translated
from engine.errors import DatasetError, ShrinkDetected, disk_error

TRIES = 10  # of a commit, if other programs commit meanwhile
# What a commit replaces, and its positions.
Planned = tuple[Mapping[date, DayContents], Mapping[str, int]]


class Dataset(RecoverableTable):
    """One table of Parquet files. Open it, hold its lock, then stage and commit batches."""

    def create(self) -> None:
        """Make the table if there is none yet."""
        if self.exists:
            return
        assert self._schema
        with translated(f"create the table {self.root}"):
            self._log.tidy()
            self._table = DeltaTable.create(
                self.root,
                self._schema,
                partition_by=["event_date"],
                configuration={
                    SOURCE: self._source,
                    COLUMNS: columns_property(json.loads(self._schema.to_json())),
                },
                raise_if_key_not_exists=False,
            )
            self._read_version, self._mark = 0, self._log.mark(0)
            self._log.sync(0)
            self._storage.sync([layout.LOG])
            self._locked_id = self._id()

    def forget(self, batch_id: str, app_ids: Sequence[str]) -> None:
        """Reset the positions of `app_ids` to 0, as if nothing had been pulled.

        A mark beside each grows, so that no earlier sum of a day's positions returns.
        """
        marks, now = {}, int(time.time() * 1000)
        for name in app_ids:
            mark = f"forgotten/{name}"
            marks[mark] = max(now, (self.position(mark) or 0) + 1)
        self.staging(batch_id)
        self.commit(batch_id, [], {}, dict.fromkeys(app_ids, 0) | marks, None)
        self.discard(batch_id)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the table, then finish or roll back interrupted commits; DatasetError if in use."""
        with self._storage.lock():
            self._locked = True
            try:
                with translated(f"write in {self.root}"):
                    if self._log.damage:
                        self._mend()
                    elif not self.exists or self._mark != self._log.mark(self._version):
                        self._open()  # as it is now that no other process changes it
                    self._locked_id = self._id()
                    self._sweep()
                yield
            finally:
                self._locked = False

    def mend(self) -> None:
        """Set aside damaged entries of the log, if there are any, under the lock of the table."""
        if not self.damage:
            with suppress(DatasetError):  # an error without damage is for the caller's next step
                self.summaries()
        if self.damage:
            with self.locked():
                pass

    def clean_up_batches(self, keep_days: float, now: int) -> None:
        """Delete the folders of batches without rejects older than `keep_days`; once a day."""
        with disk_error(f"tidy up in {self.root}"):
            old_batches.clean_up(self._storage, keep_days, now)

    def staging(self, batch_id: str) -> Path:
        """Make and return a local folder for the files of a batch."""
        directory = self._storage.scratch / batch_id
        with disk_error(f"write in {self.root}"):
            directory.mkdir(parents=True)
            sync(directory.parent)  # P2: an intent is found after a power cut
        return directory

    def is_committed(self, batch_id: str) -> bool:
        """Finish or roll back the commit of a staged batch; return whether it is in the table."""
        with translated(f"tidy up in {self.root}"):
            return self._recover(batch_id)

    def describe(self, batch_id: str, manifest: Mapping[str, Any]) -> None:
        """Write the manifest of a staged batch."""
        folder = self._storage.scratch / batch_id / layout.STAGED_BATCH
        with disk_error(f"write in {self.root}"):
            folder.mkdir(exist_ok=True)
            write_synced(folder / layout.MANIFEST, json.dumps(manifest))

    def keep_diagnostics(self, batch_id: str) -> None:
        """Publish the rejects and inputs of a batch that failed (P3), and discard the rest."""
        staged = self._storage.scratch / batch_id / layout.STAGED_BATCH
        with disk_error(f"write in {self.root}"):
            if staged.is_dir():
                self._storage.publish({staged: layout.batch(batch_id)})
        self.discard(batch_id)

    def check_shrink(
        self,
        held: Mapping[date, DayContents],
        files: Sequence[StagedFile],
        percent: float,
        keys: Callable[[], Sequence[tuple[str, ...]]] = lambda: (),
    ) -> None:
        """Raise ShrinkDetected if a day would keep less than `percent` of its events (P5).

        held   what the table holds of the days that `files` replace
        keys   returns the columns of the four parts of the key, if the table has them: if a day
               holds events twice, one of each counts. Called only before a day is refused.
        """
        fresh = Counter[date]()
        for file in files:
            fresh[file.day] += file.rows
        worse = dict[date, str]()
        for day, there in held.items():
            events = there.rows
            if fresh[day] < events * percent / 100 and (columns := keys()):
                events = min(events, self._distinct(day, columns))
            if fresh[day] < events * percent / 100:
                doubled = "" if events == there.rows else f" of {events:,} events"
                worse[day] = (
                    f"{day} holds {there.rows:,} rows{doubled} and would hold {fresh[day]:,}"
                )
        if worse:
            error = ShrinkDetected(
                "Mixpanel sent far fewer events than the table holds: "
                f"{'; '.join(worse.values())}. "
                "Nothing was changed; if the loss is meant, run again with --force --allow-shrink."
            )
            error.days = frozenset(worse)
            raise error

    def _distinct(self, day: date, columns: Sequence[tuple[str, ...]]) -> int:
        """Return how many distinct events `day` holds, by the columns of their key."""
        rows = 0
        with (
            disk_error(f"write in {self.root}"),
            tempfile.TemporaryDirectory(dir=self._storage.scratch) as folder,
            closing(Duplicates(Path(folder))) as keys,
        ):
            for part in self.read(day, columns):
                keys.add([*part, pa.repeat(0.0, len(part[0]))])
                rows += len(part[0])
            twice = keys.superseded()
        return rows - (0 if twice is None else int(twice.sum()))

    def commit(
        self,
        batch_id: str,
        files: Sequence[StagedFile],
        replaced: Mapping[date, DayContents],
        positions: Mapping[str, int],
        record: Any,
        keep_superseded_hours: float = 0,
        again: Callable[[], Planned] | None = None,
    ) -> None:
        """Commit the files, the removal of what they replace, and the positions, or nothing (P2).

        replaced   what the table holds of the days that `files` replace
        positions  the new position of each app id, which differs from the present one
        record     JSON that the caller reports before it calls `discard`; after a crash the next
                   process has (batch id, record) in `unreported`
        again      returns `replaced` and `positions` anew, or raises EtlError, after a commit of
                   another program. Without it, the same days are replaced.

        The commit is made on a version that holds just `replaced`. DatasetError if it fails.
        """
        self.create()  # no sooner: a pull that fails must not fix schema and source
        hours = keep_superseded_hours
        due = int(time.time() * 1000 + hours * 3_600_000) if hours else 0
        try:
            for tried in range(TRIES):
                if tried:
                    replaced, positions = again() if again else (self.held([*replaced]), positions)
                if self._commit_once(batch_id, files, (replaced, positions), record, due):
                    break
            else:
                raise DatasetError(
                    f"Cannot commit to {self.root}: another program has changed the table "
                    f"{TRIES} times meanwhile. Nothing was committed; run again when it is done."
                )
        finally:
            # P2: only the table says whether the commit was made, here as after a crash.
            if not self.is_committed(batch_id):
                self.discard(batch_id)

    def _commit_once(
        self, batch_id: str, files: Sequence[StagedFile], planned: Planned, record: Any, due: int
    ) -> bool:
        """Commit to the table as it is now and return True; False if `planned` is outdated."""
        replaced, positions = planned
        with translated(f"commit to {self.root}"):
            self._check_same()
            table = self._current()  # it stays at this version until the log is written
            if not _is_same(self._held(table, list(replaced)), replaced):
                return False
        removed = [path for held in replaced.values() for path, _ in held.files]
        added = [file.path for file in files]
        intent = Intent(added, removed, dict(positions), due, record)
        with disk_error(f"commit to {self.root}"):
            self._storage.write(layout.intent(batch_id), intent.as_text())
            self._publish(batch_id, files)
        with translated(f"commit to {self.root}"):
            return self._write_log(table, batch_id, files, replaced, positions)

    def _check_same(self) -> None:
        """Raise EtlError if this is another table than was locked, or it cannot take our files."""
        if self._id() != self._locked_id:
            raise DatasetError(
                f"The table {self.root} was replaced by another one meanwhile. Nothing was "
                "committed; the next run starts from what is there now."
            )
        self._check_fit()

    def _publish(self, batch_id: str, files: Sequence[StagedFile]) -> None:
        """Move the data files, and the rejects and inputs (P3), to their final paths."""
        directory = self._storage.scratch / batch_id
        moves = {directory / file.path: file.path for file in files}
        if (directory / layout.STAGED_BATCH).is_dir():
            moves[directory / layout.STAGED_BATCH] = layout.batch(batch_id)
        self._storage.publish(moves)

    def _write_log(
        self,
        table: DeltaTable,
        batch_id: str,
        files: Sequence[StagedFile],
        replaced: Mapping[date, DayContents],
        positions: Mapping[str, int],
    ) -> bool:
        """Write the entry of the version after that of `table`; False if there is one already."""
        assert self._schema
        noted = dict(positions) | self._figures(table, files, replaced)
        actions: list[AddAction | RemoveAction] = [*map(_addition, files), *_removals(replaced)]
        version = table.version()
        try:
            table.create_write_transaction(
                actions,
                "append",
                self._schema,
                ["event_date"],
                commit_properties=CommitProperties(
                    custom_metadata={"batchId": batch_id},
                    app_transactions=[Transaction(*position) for position in noted.items()],
                    # A retry would commit after another program's commit, and remove what that
                    # one has replaced already: the rows of both would stay (P4).
                    max_commit_retries=0,
                ),
                # Old entries are deleted once the checkpoint that sums them up is on the disk.
                post_commithook_properties=PostCommitHookProperties(
                    cleanup_expired_logs=None if self._log.has_checkpoint(version) else False
                ),
            )
        except CommitFailedError:
            reached = all(self.position(app) == at for app, at in positions.items())
            if reached or self._log.latest(version) == version:
                raise
            return False
        return True

    def _figures(
        self, table: DeltaTable, files: Sequence[StagedFile], replaced: Mapping[date, DayContents]
    ) -> dict[str, int]:
        """Return what a commit to `table` notes of the days that it changes (P10)."""
        fresh: dict[date, list[tuple[str, int]]] = {day: [] for day in replaced}
        for file in files:
            fresh.setdefault(file.day, []).append((file.path, file.rows))
        before, known, figures = self._summaries_of(table, list(fresh)), self.positions, {}
        for day, added in fresh.items():
            whole, there = day in replaced, before.get(day, EMPTY)
            after = DaySummary.of(added) if whole else there.plus(DaySummary.of(added))
            figures.update(figures_after(day, there, after, known, whole=whole))
        return figures


def _addition(file: StagedFile) -> AddAction:
    return AddAction(
        file.path,
        file.bytes,
        {"event_date": file.day.isoformat()},
        int(time.time() * 1000),
        data_change=True,
        stats=json.dumps(file.stats),
    )


def _removals(replaced: Mapping[date, DayContents]) -> Iterator[RemoveAction]:
    for day, held in replaced.items():
        for path, size in held.files:
            yield RemoveAction(
                path,
                data_change=True,
                deletion_timestamp=int(time.time() * 1000),
                size=size,
                partition_values={"event_date": day.isoformat()},
            )


def _is_same(there: Mapping[date, DayContents], planned: Mapping[date, DayContents]) -> bool:
    return all(
        held.rows == there[day].rows and sorted(held.files) == sorted(there[day].files)
        for day, held in planned.items()
    )
