"""The Delta table: the only owner of paths below its root; `commit` is its only way to change.

It knows no request and no mapping: it is handed finished files and tells who holds what.

    <root>/_delta_log/                                   what a Delta reader sees
    <root>/event_date=<day>/<batch-id>-<n>.parquet       what a glob sees
    <root>/_batches/<batch-id>/                          rejects and inputs of a batch
    <root>/_staging/<batch-id>/                          a run that is not committed yet
    <root>/_staging/<batch-id>/intent.json               a commit on its way: what it adds, removes
    <root>/_superseded/<due-ms>-<batch-id>.json          replaced files that are kept for a while

Other programs may commit to the table at any time. So each commit lands on the very version that
was read for it, or reads again. What a crash or a hand has left below the root and cannot be read
is set aside under the name `….damaged`, and named in `notices`.
"""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import re2
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
)
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction
from ulid import ULID

from engine.dataset import batch_folders
from engine.dataset import intent as intents
from engine.dataset.contents import Contents, is_ours, noted_after
from engine.dataset.dedup import Duplicates
from engine.dataset.delta_log import columns_of, paths_in
from engine.dataset.intent import Intent, is_inside
from engine.dataset.storage.local import make_folder, set_aside, sync, sync_tree, take, write_synced
from engine.dataset.table import COLUMNS, SOURCE, DayContents, Table, translated
from engine.errors import DatasetError, ShrinkDetected, disk_error

if TYPE_CHECKING:
    from engine.dataset.parquet_writer import StagedFile

NOTE = "batch.json"  # in the folder of a batch
TRIES = 10  # commits of other programs that may come between, one after the other
KEPT = re2.compile(r"([0-9]{1,15})-(.{1,100})\.json")  # a list of replaced files
Planned = tuple[
    Mapping[date, DayContents], Mapping[str, int]
]  # what a commit replaces, and its positions


class Dataset(Table):
    """One table of Parquet files. Open it, lock it, sweep it, then commit."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        super().__init__(root, schema, source)
        self.unreported: list[tuple[str, Any]] = []  # (batch id, record), after a crash
        self.notices: list[str] = []  # what was found damaged, and what was done about it
        self._locked = False
        self._locked_id: str | None = None  # of the table that was there when it was locked

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
                    COLUMNS: json.dumps([*columns_of(json.loads(self._schema.to_json()))]),
                },
                raise_if_key_not_exists=False,
            )
            self._seen, self._mark = 0, self._log.mark(0)
            self._log.sync(0)
            sync(self.root)
            self._locked_id = self._id()

    def forget(self, batch_id: str, app_ids: Sequence[str]) -> None:
        """Put the positions of `app_ids` back to 0: nothing was ever pulled.

        A mark beside each keeps that it once was: who judges by positions must not find again, once
        a day is pulled anew, the very ones that it knew.
        """
        marks, now = {}, int(time.time() * 1000)
        for name in app_ids:
            mark = f"forgotten/{name}"
            marks[mark] = max(now, (self.position(mark) or 0) + 1)
        self.staging(batch_id)
        self.commit(batch_id, [], {}, dict.fromkeys(app_ids, 0) | marks, None)
        self.discard(batch_id)

    # Who may write -------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process off; what a crash left is swept before the body runs.

        The kernel lets go of the lock when the process ends, however it ends.
        """
        with disk_error(f"write in {self.root}"):
            staging = self.root / "_staging"
            make_folder(staging)
            lock = (staging / "lock").open("a+", encoding="ascii")
        with lock:
            with disk_error(f"write in {self.root}"):
                holder = take(lock)
            if holder:
                raise DatasetError(
                    f"The dataset {self.root} is in use by process {holder}. "
                    "Wait until it is done, or stop it."
                )
            self._locked = True
            try:
                with translated(f"write in {self.root}"):
                    if self._log.damage:
                        self._mend()
                    elif not self.exists or self._mark != self._log.mark(self._version):
                        self._open()  # as it is now that nobody else changes it
                    self._locked_id = self._id()
                    self._sweep()
                yield
            finally:
                self._locked = False

    def mend(self) -> None:
        """Set aside damaged entries of the log, if there are any, under the lock of the table."""
        if not self.damage:
            with suppress(DatasetError):  # another one is for whoever needs what it says
                self.contents()
        if self.damage:
            with self.locked():
                pass

    def _mend(self) -> None:
        """Set aside what a crash left of the log, and what files it left then in the table."""
        if not self._locked:
            super()._mend()
        cut_off = bool(self._log.cut_off)
        told = self._log.mend()
        self.notices += told
        self._open()
        if cut_off and self.exists:
            self._delete(self._orphans())

    def _orphans(self) -> list[str]:
        """Files of this program in the table's directory that nothing knows of.

        An entry that was set aside may have added them; a glob would read them.
        """
        kept = self.root / "_superseded"
        known = self._log.mentioned()
        for path in kept.iterdir() if kept.is_dir() else ():
            if KEPT.fullmatch(path.name) and (intent := intents.read(path)):
                known.update(intent.remove)
        files = self.root.glob("event_date=*/*.parquet")
        paths = (path.relative_to(self.root).as_posix() for path in files)
        return [path for path in paths if is_ours(path) and path not in known]

    def _sweep(self) -> None:
        """Finish or undo what a crash left, without listing the table."""
        for directory in sorted((self.root / "_staging").iterdir()):
            if directory.is_symlink():  # nothing is deleted through it
                if not directory.name.endswith(".damaged"):
                    self._put_aside(directory)
            elif not directory.is_dir():
                continue
            elif self._settle(directory):
                intent = intents.read(directory / "intent.json")
                self.unreported.append((directory.name, intent and intent.record))
            else:
                self.discard(directory.name)
        self._delete_due()

    def _put_aside(self, path: Path) -> None:
        """Set aside a path that cannot be read, and add a notice that names it."""
        name = set_aside(path)
        self.notices.append(
            f"{path} is nothing that this program left there: it is now {name}, and can be deleted."
        )

    # Staging and commit --------------------------------------------------------------------

    def tidy_batches(self, keep_days: float, now: int) -> None:
        """Remove folders of batches without rejects older than `keep_days` days; once a day."""
        with disk_error(f"tidy up in {self.root}"):
            batch_folders.tidy(self.root / "_batches", keep_days, now)

    def staging(self, batch_id: str) -> Path:
        """A new directory, beside the table, for the files of a batch."""
        directory = self.root / "_staging" / batch_id
        with disk_error(f"write in {self.root}"):
            directory.mkdir(parents=True)
            sync(directory.parent)  # P2: an intent is found after a power cut
        return directory

    def is_committed(self, batch_id: str) -> bool:
        """Whether a batch that is still staged made it into the table, settling it if need be."""
        with translated(f"tidy up in {self.root}"):
            return self._settle(self.root / "_staging" / batch_id)

    def discard(self, batch_id: str) -> None:
        """Throw away what is staged for a batch that is committed or will not be."""
        directory = self.root / "_staging" / batch_id
        with disk_error(f"tidy up in {self.root}"), suppress(FileNotFoundError):
            (directory / "intent.json").unlink()  # without it, the rest is no commit on its way
            sync(directory)
        shutil.rmtree(directory, ignore_errors=True)

    def describe(self, batch_id: str, note: Mapping[str, Any]) -> None:
        """Put a note, as JSON, beside what a staged batch has to say."""
        folder = self.root / "_staging" / batch_id / "batch"
        with disk_error(f"write in {self.root}"):
            folder.mkdir(exist_ok=True)
            write_synced(folder / NOTE, json.dumps(note))

    def keep_diagnostics(self, batch_id: str) -> None:
        """Keep what a batch that failed has to say about its records (P3)."""
        source = self.root / "_staging" / batch_id / "batch"
        if source.is_dir():
            with disk_error(f"write in {self.root}"):
                target = self.batch_directory(batch_id)
                make_folder(target.parent)
                sync_tree(source)
                source.rename(target)
                sync(target.parent)
        self.discard(batch_id)

    def check_shrink(
        self,
        held: Mapping[date, DayContents],
        files: Sequence["StagedFile"],
        percent: float,
        keys: Callable[[], Sequence[tuple[str, ...]]] = lambda: (),
    ) -> None:
        """P5: raise `ShrinkDetected` if a day would keep less than `percent` of its events.

        `keys` are the columns that tell events apart, if the table has them: of a day that holds
        events twice, only one of each counts. That is read where the guard is about to refuse.
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
        """How many of the rows of `day` are another event than the rows before, by these keys."""
        rows = 0
        with (
            disk_error(f"write in {self.root}"),
            tempfile.TemporaryDirectory(dir=self.root / "_staging") as folder,
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
        files: Sequence["StagedFile"],
        replaced: Mapping[date, DayContents],
        positions: Mapping[str, int],
        record: Any,
        keep_superseded_hours: float = 0,
        again: Callable[[], Planned] | None = None,
    ) -> None:
        """P2: the files, the removal of what they replace, and the positions, or nothing.

        `positions` maps an app id to its new version, which differs from the one it has. `record`
        (JSON) is what to tell of the batch: should the process die before the caller has told it
        and called `discard`, the next one finds it in `unreported`, as (batch id, record).

        It lands on the version of the table that `replaced` is true of. Where another program
        changed the days or committed meanwhile, `again` says what is replaced by then and the
        positions, or raises EtlError; without it, the same days are replaced.
        """
        self.create()  # no sooner: a first try in vain binds nobody to what it asked for
        due = 0
        if keep_superseded_hours:
            due = int(time.time() * 1000 + keep_superseded_hours * 3_600_000)
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
            # Committed or not is read from the table alone, here as after a crash.
            if not self.is_committed(batch_id):
                self.discard(batch_id)

    def _commit_once(
        self,
        batch_id: str,
        files: Sequence["StagedFile"],
        planned: Planned,
        record: Any,
        due: int,
    ) -> bool:
        """Commit to the table as it is, if `planned` is true of it; whether that was so."""
        replaced, positions = planned
        directory = self.root / "_staging" / batch_id
        with translated(f"commit to {self.root}"):
            self._check_same()
            table = self._current()  # it stays at this version until the log is written
            if not _is_same(self._held(table, list(replaced)), replaced):
                return False
        removed = [path for held in replaced.values() for path, _ in held.files]
        added = [file.path for file in files]
        intent = Intent(added, removed, dict(positions), due, record)
        with disk_error(f"commit to {self.root}"):
            write_synced(directory / "intent.json", intent.as_text())
            self._move_in(directory, batch_id, files)
        with translated(f"commit to {self.root}"):
            return self._write_log(table, batch_id, files, replaced, positions)

    def _check_same(self) -> None:
        """Raise EtlError if the table is another one than was locked, or takes no files of ours."""
        if self._id() != self._locked_id:
            raise DatasetError(
                f"The table {self.root} was replaced by another one meanwhile. Nothing was "
                "committed; the next run starts from what is there now."
            )
        self._check_fit()

    def _move_in(self, directory: Path, batch_id: str, files: Sequence["StagedFile"]) -> None:
        moves = {directory / file.path: self.root / file.path for file in files}
        if not any(source.exists() for source in moves):  # a try before this one moved them
            moves = {}
        if (directory / "batch").is_dir():
            sync_tree(directory / "batch")  # P3: the rejects are as sure as the rows
            moves[directory / "batch"] = self.batch_directory(batch_id)
        for source, target in moves.items():
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
        for parent in dict.fromkeys(target.parent for target in moves.values()):
            sync(parent)
        sync(self.root)  # the entries of folders that are new

    def _write_log(
        self,
        table: DeltaTable,
        batch_id: str,
        files: Sequence["StagedFile"],
        replaced: Mapping[date, DayContents],
        positions: Mapping[str, int],
    ) -> bool:
        """Write the entry after the version that `table` is of; False if there is one already."""
        assert self._schema
        noted = dict(positions) | self._notes(table, files, replaced)
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                file.path,
                file.bytes,
                {"event_date": file.day.isoformat()},
                now,
                data_change=True,
                stats=json.dumps(file.stats),
            )
            for file in files
        ]
        actions += [
            RemoveAction(
                path,
                data_change=True,
                deletion_timestamp=now,
                size=size,
                partition_values={"event_date": day.isoformat()},
            )
            for day, held in replaced.items()
            for path, size in held.files
        ]
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
                    # Else it would land after another program's commit, and remove what that
                    # one has replaced already: rows of both would stay.
                    max_commit_retries=0,
                ),
                # Entries that are too old go when the checkpoint that sums them up is on the disk.
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

    def _notes(
        self, table: DeltaTable, files: Sequence["StagedFile"], replaced: Mapping[date, DayContents]
    ) -> dict[str, int]:
        """What a commit to `table` notes of the days that it touches (P10)."""
        fresh: dict[date, list[tuple[str, int]]] = {day: [] for day in replaced}
        for file in files:
            fresh.setdefault(file.day, []).append((file.path, file.rows))
        before, known, notes = self._contents_of(table, list(fresh)), self.positions, {}
        for day, added in fresh.items():
            whole, there = day in replaced, before.get(day, Contents())
            after = Contents.of(added) if whole else there.plus(Contents.of(added))
            notes.update(noted_after(day, there, after, known, whole=whole))
        return notes

    def _settle(self, directory: Path) -> bool:
        """Bring a commit on its way to its end; whether it is in the table. May be done again."""
        path = directory / "intent.json"
        if not os.path.lexists(path):
            return False
        intent = None if path.is_symlink() or not path.is_file() else intents.read(path)
        if intent is None:
            return self._settle_unread(directory)
        if not self.exists:
            return False
        if not self._arrived(intent):
            self._delete(intent.add)
            shutil.rmtree(self.batch_directory(directory.name), ignore_errors=True)
            if (self.root / "_batches").is_dir():
                sync(self.root / "_batches")
            return False
        self._log.sync(self._version)  # before anything goes that it replaces
        if intent.due:
            kept = self.root / "_superseded"
            make_folder(kept)
            noted = directory / "superseded.json"
            write_synced(noted, path.read_text())
            noted.rename(kept / f"{intent.due}-{directory.name}.json")
            sync(kept)
        else:
            self._delete(intent.remove)
        return True

    def _settle_unread(self, directory: Path) -> bool:
        """As `_settle`, where the intent cannot be read: what it said is in the table, or lost."""
        batch_id = directory.name
        aside = set_aside(directory / "intent.json", directory.parent / f"{batch_id}-intent.json")
        entry = self._log.entry_of(batch_id) if self.exists else None
        became = "it is in the table" if entry else "it never came into the table"
        self.notices.append(
            f"What batch {batch_id} was about could not be read: {became}. What was there is now "
            f"{directory.parent / aside}, and can be deleted."
        )
        if entry:
            self._log.sync(self._version)
            self._delete(sorted(paths_in(entry, ["remove"])))
            return True
        if self.exists:
            self._delete([path for path in self._orphans() if _batch_of(path) == batch_id])
            shutil.rmtree(self.batch_directory(batch_id), ignore_errors=True)
        return False

    def _arrived(self, intent: Intent) -> bool:
        """Whether a commit is in the table, if only in part since a later one replaced the rest."""
        reached = all(self.position(app) == at for app, at in intent.positions.items())
        return reached or bool(self._live(intent.add))

    def _live(self, paths: Sequence[str]) -> set[str]:
        """Those of `paths` that the table holds."""
        if not self.exists or not paths:
            return set()
        with translated(f"read the log of {self.root}"):
            files = self._files(self._current())["path"]
        return set(files.filter(pc.is_in(files, pa.array(paths, pa.string()))).to_pylist())

    def _delete(self, paths: Sequence[str]) -> None:
        """Delete those of `paths` that no reader of the table needs."""
        live = self._live(paths)
        # A path that leads out of the root is another table's too.
        places = [self._place(path) for path in paths if path not in live and is_inside(path)]
        changed = dict.fromkeys([self.root, *(place.parent for place in places)])
        for place in places:
            with suppress(FileNotFoundError, NotADirectoryError):
                place.unlink()
        for folder in changed:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        # P2: nobody deletes them once what names them is gone, and that goes next.
        for folder in filter(Path.is_dir, changed):
            sync(folder)

    def _delete_due(self) -> None:
        """Delete replaced files whose time for keeping is over."""
        directory = self.root / "_superseded"
        if not directory.is_dir():
            return
        now = int(time.time() * 1000)
        for path in sorted(directory.iterdir()):
            if path.name.startswith(".") or path.name.endswith(".damaged"):
                continue
            name = KEPT.fullmatch(path.name)
            if name is None or path.is_symlink() or not path.is_file():
                self._put_aside(path)
            elif int(name[1]) <= now:
                if intent := intents.read(path):
                    self._delete(intent.remove)
                    path.unlink()
                else:
                    self._put_aside(path)
            elif (made := _made_at(name[2])) and made > now:
                # A clock that was ahead noted it: its time begins now.
                path.rename(directory / f"{now + max(0, int(name[1]) - made)}-{name[2]}.json")


def _made_at(batch_id: str) -> int | None:
    """When a batch was made, in ms since the epoch; None for a name that is no batch id."""
    try:
        return ULID.from_str(batch_id).milliseconds
    except ValueError:
        return None


def _is_same(there: Mapping[date, DayContents], planned: Mapping[date, DayContents]) -> bool:
    """Whether days hold the same files, in whatever order."""
    return all(
        held.rows == there[day].rows and sorted(held.files) == sorted(there[day].files)
        for day, held in planned.items()
    )


def _batch_of(path: str) -> str:
    """The batch that a file of this program is of."""
    return path.rpartition("/")[2].rpartition("-")[0]
