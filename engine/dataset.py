"""The Delta table: the only owner of paths below its root; `commit` is its only way to change.

It knows no request and no mapping: it is handed finished files and tells who holds what.

    <root>/_delta_log/                                   what a Delta reader sees
    <root>/event_date=<day>/<batch-id>-<n>.parquet       what a glob sees
    <root>/_batches/<batch-id>/                          rejects and inputs of a batch
    <root>/_staging/<batch-id>/                          a run that is not committed yet
    <root>/_staging/<batch-id>/intent.json               a commit on its way: what it adds, removes
    <root>/_superseded/<due-ms>-<batch-id>.json          replaced files that are kept for a while
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Transaction,
)
from deltalake.transaction import AddAction, RemoveAction

from engine.disk import sync, take, write_synced
from engine.errors import DatasetError, Shrunk, disk_error
from engine.table import SOURCE, Held, Table, translated

if TYPE_CHECKING:
    from engine.stages.writer import StagedFile

NOTE = "batch.json"  # in the folder of a batch


class Dataset(Table):
    """One table of Parquet files. Open it, lock it, sweep it, then commit."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        super().__init__(root, schema, source)
        self.unreported: list[tuple[str, Any]] = []  # (batch id, record), after a crash

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
                configuration={SOURCE: self._source},
                raise_if_key_not_exists=False,
            )
            self._seen = 0
            self._log.sync(0)
            sync(self.root)

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
            staging.mkdir(parents=True, exist_ok=True)
            lock = (staging / "lock").open("a+", encoding="ascii")
        with lock:
            with disk_error(f"write in {self.root}"):
                holder = take(lock)
            if holder:
                raise DatasetError(
                    f"The dataset {self.root} is in use by process {holder}. "
                    "Wait until it is done, or stop it."
                )
            with translated(f"write in {self.root}"):
                if not self.exists or self._mark != self._log.mark(self._version):
                    self._open()  # as it is now that nobody else changes it
                self._sweep()
            yield

    def _sweep(self) -> None:
        """Finish or undo what a crash left, without listing the table."""
        for directory in sorted((self.root / "_staging").iterdir()):
            if directory.is_dir() and self._settle(directory):
                intent = json.loads((directory / "intent.json").read_text())
                self.unreported.append((directory.name, intent["record"]))
            elif directory.is_dir():
                self.discard(directory.name)
        self._delete_due()

    # Staging and commit --------------------------------------------------------------------

    def staging(self, batch_id: str) -> Path:
        """A new directory, beside the table, for the files of a batch."""
        directory = self.root / "_staging" / batch_id
        with disk_error(f"write in {self.root}"):
            directory.mkdir(parents=True)
        return directory

    def is_committed(self, batch_id: str) -> bool:
        """Whether a batch that is still staged made it into the table, settling it if need be."""
        with translated(f"tidy up in {self.root}"):
            return self._settle(self.root / "_staging" / batch_id)

    def discard(self, batch_id: str) -> None:
        """Throw away what is staged for a batch that is committed or will not be."""
        directory = self.root / "_staging" / batch_id
        with disk_error(f"tidy up in {self.root}"):  # without it, the rest is no commit on its way
            (directory / "intent.json").unlink(missing_ok=True)
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
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
        self.discard(batch_id)

    def check_shrink(
        self, held: Mapping[date, Held], files: Sequence["StagedFile"], percent: float
    ) -> None:
        """P5: raise `Shrunk` if a day would keep less than `percent` of the rows it holds."""
        fresh = Counter[date]()
        for file in files:
            fresh[file.day] += file.rows
        worse = {
            day: f"{day} holds {there.rows:,} rows and would hold {fresh[day]:,}"
            for day, there in held.items()
            if fresh[day] < there.rows * percent / 100
        }
        if worse:
            error = Shrunk(
                "Mixpanel sent far fewer events than the table holds: "
                f"{'; '.join(worse.values())}. "
                "Nothing was changed; if the loss is meant, run again with --force --allow-shrink."
            )
            error.days = frozenset(worse)
            raise error

    def commit(
        self,
        batch_id: str,
        files: Sequence["StagedFile"],
        replaced: Mapping[date, Held],
        positions: Mapping[str, int],
        record: Any,
        keep_superseded_hours: float = 0,
    ) -> None:
        """P2: the files, the removal of what they replace, and the positions, or nothing.

        `positions` maps an app id to its new version, which differs from the one it has. `record`
        (JSON) is what to tell of the batch: should the process die before the caller has told it
        and called `discard`, the next one finds it in `unreported`, as (batch id, record).
        """
        self.create()  # no sooner: a first try in vain binds nobody to what it asked for
        directory = self.root / "_staging" / batch_id
        removed = [path for held in replaced.values() for path, _ in held.files]
        due = int(time.time() * 1000 + keep_superseded_hours * 3_600_000)
        intent = {
            "add": [file.path for file in files],
            "remove": removed,
            "positions": dict(positions),
            "due": due if keep_superseded_hours else 0,
            "record": record,
        }
        try:
            with disk_error(f"commit to {self.root}"):
                write_synced(directory / "intent.json", json.dumps(intent))
                self._move_in(directory, batch_id, files)
            with translated(f"commit to {self.root}"):
                self._write_log(batch_id, files, replaced, positions)
        finally:
            # Committed or not is read from the table alone, here as after a crash.
            if not self.is_committed(batch_id):
                self.discard(batch_id)

    def _move_in(self, directory: Path, batch_id: str, files: Sequence["StagedFile"]) -> None:
        moves = {directory / file.path: self.root / file.path for file in files}
        if (directory / "batch").is_dir():
            moves[directory / "batch"] = self.batch_directory(batch_id)
        for source, target in moves.items():
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
        for parent in dict.fromkeys(target.parent for target in moves.values()):
            sync(parent)
        sync(self.root)  # the entries of folders that are new

    def _write_log(
        self,
        batch_id: str,
        files: Sequence["StagedFile"],
        replaced: Mapping[date, Held],
        positions: Mapping[str, int],
    ) -> None:
        assert self._schema
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
        table = self._current()
        table.create_write_transaction(
            actions,
            "append",
            self._schema,
            ["event_date"],
            commit_properties=CommitProperties(
                custom_metadata={"batchId": batch_id},
                app_transactions=[Transaction(*position) for position in positions.items()],
            ),
            # Entries that are too old go when the checkpoint that sums them up is on the disk.
            post_commithook_properties=PostCommitHookProperties(
                cleanup_expired_logs=None if self._log.has_checkpoint(table.version()) else False
            ),
        )

    def _settle(self, directory: Path) -> bool:
        """Bring a commit on its way to its end; whether it is in the table. May be done again."""
        path = directory / "intent.json"
        if not self.exists or not path.exists():
            return False
        intent = json.loads(path.read_text())
        if not self._arrived(intent):
            self._delete(intent["add"])
            shutil.rmtree(self.batch_directory(directory.name), ignore_errors=True)
            return False
        self._log.sync(self._version)  # before anything goes that it replaces
        if intent["due"]:
            kept = self.root / "_superseded"
            kept.mkdir(exist_ok=True)
            with suppress(FileExistsError):
                os.link(path, kept / f"{intent['due']}-{directory.name}.json")
            sync(kept)
        else:
            self._delete(intent["remove"])
        return True

    def _arrived(self, intent: Mapping[str, Any]) -> bool:
        """Whether a commit is in the table, if only in part since a later one replaced the rest."""
        positions = intent["positions"].items()
        reached = all(self.position(app) == version for app, version in positions)
        return reached or bool(self._live(intent["add"]))

    def _live(self, paths: Sequence[str]) -> set[str]:
        """Those of `paths` that the table holds."""
        if not self.exists or not paths:
            return set()
        return set(self._files("path", pa.array(paths, pa.string()))["path"].to_pylist())

    def _delete(self, paths: Sequence[str]) -> None:
        """Delete those of `paths` that no reader of the table needs."""
        live = self._live(paths)
        for path in paths:
            if path in live:
                continue
            target = self.root / path
            with suppress(FileNotFoundError, NotADirectoryError):
                target.unlink()
            if target.parent.is_dir() and not any(target.parent.iterdir()):
                target.parent.rmdir()

    def _delete_due(self) -> None:
        """Delete replaced files whose time for keeping is over."""
        directory = self.root / "_superseded"
        if not directory.is_dir():
            return
        for path in sorted(directory.glob("*-*.json")):
            if int(path.name.split("-")[0]) <= time.time() * 1000:
                self._delete(json.loads(path.read_text())["remove"])
                path.unlink()
