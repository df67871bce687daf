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
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
)
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from engine.deltalog import Log, differences
from engine.disk import sync, take, write_synced
from engine.errors import DatasetError, InputError, Shrunk, disk_error

if TYPE_CHECKING:
    from engine.stages.writer import StagedFile

NOTE = "batch.json"  # in the folder of a batch
SOURCE = "mixpanel-etl.source"  # the table property that tells whose events it holds
OURS = {"_delta_log", "_staging", "_batches", "_superseded"}
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how deltalake passes on what the system says
UNREACHABLE = re.compile(r"[\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")  # in a path, for deltalake


@dataclass(frozen=True, slots=True)
class Held:
    """What the table holds of one day."""

    rows: int
    files: list[tuple[str, int]]  # path below the root, bytes


class Dataset:
    """One table of Parquet files. Open it, lock it, sweep it, then commit."""

    def __init__(
        self, root: Path, schema: pa.Schema | None, source: Mapping[str, Any] | None
    ) -> None:
        """Without a schema and a source, which it is held against, it can only be looked at."""
        self.root = Path(os.path.realpath(root))  # one table has one name, wherever we are
        self._schema = None if schema is None else Schema.from_arrow(schema)
        self._source = None if source is None else json.dumps(source, sort_keys=True)
        self.unreported: list[tuple[str, Any]] = []
        self._check_place()
        self._table = self._open()

    # What stands there ---------------------------------------------------------------------

    def _check_place(self) -> None:
        if odd := UNREACHABLE.search(str(self.root)):
            raise InputError(
                f"A Delta table cannot be kept in {str(self.root)!r}: Delta readers take its "
                f"{odd[0]!r} for something else. Give another directory for the dataset."
            )
        standing = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not standing.is_dir():
            raise InputError(f"{standing} is a file. Give a directory for the dataset.")
        log = Log(self.root)
        if not self.root.exists() or log.has_table():
            return
        others = sorted(entry.name for entry in self.root.iterdir() if entry.name not in OURS)
        others += log.foreign()
        if others:
            some = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
            raise InputError(
                f"{self.root} is no table of this program and is not empty (it holds {some}). "
                "Give an empty or a new directory for the dataset."
            )

    def _open(self) -> DeltaTable | None:
        self._log = Log(self.root)  # anew, for what it remembers is of the table as it was
        if not self._log.has_table():
            return None
        with _translated(f"open the table {self.root}"):
            table = DeltaTable(self.root)
            if self._schema is None:
                return table
            wrong = differences(
                json.loads(table.schema().to_json()), json.loads(self._schema.to_json())
            )
            source = table.metadata().configuration.get(SOURCE)
        if wrong:
            raise InputError(
                f"The table {self.root} has another schema: {'; '.join(wrong)}. "
                "Use the schema it was made with, or another --dataset."
            )
        if source is not None and source != self._source:
            raise InputError(
                f"The table {self.root} holds other events: it was made for {source}, and now "
                f"{self._source} is asked for. One table mirrors one source: use another --dataset."
            )
        return table

    @property
    def exists(self) -> bool:
        """Whether there is a table already."""
        return self._table is not None

    def create(self) -> None:
        """Make the table if there is none yet."""
        if self._table is not None:
            return
        assert self._schema
        with _translated(f"create the table {self.root}"):
            self._log.tidy()
            self._table = DeltaTable.create(
                self.root,
                self._schema,
                partition_by=["event_date"],
                configuration={SOURCE: self._source},
                raise_if_key_not_exists=False,
            )
            self._log.sync(0)
            sync(self.root)

    def held(self, days: Sequence[date]) -> dict[date, Held]:
        """What the table holds of each of `days`."""
        found = {day: Held(0, []) for day in days}
        if self._table is None:
            return found
        if not self._log.has_table():
            raise DatasetError(
                f"Cannot read the log of {self.root}: it is gone. "
                "Put it back, or use another --dataset."
            )
        with _translated(f"read the log of {self.root}"):
            files = self._files("partition.event_date", pa.array(days, pa.date32()))
        columns = ("path", "size_bytes", "num_records", "partition.event_date")
        values = (files[column].to_pylist() for column in columns)
        for path, size, rows, day in zip(*values, strict=True):
            of_day = found[day]
            of_day.files.append((path, size))
            found[day] = Held(of_day.rows + (rows or 0), of_day.files)
        return found

    def read(self, day: date, columns: Sequence[tuple[str, ...]]) -> Iterator[list[pa.Array]]:
        """These columns, by their paths, of what the table holds of `day`, part by part (P6)."""
        from pyarrow import dataset as parquet  # 40 ms, that every pull saves

        files = [str(self.root / path) for path, _ in self.held([day])[day].files]
        with _translated(f"read the table {self.root}"):
            wanted = {str(at): pc.field(*path) for at, path in enumerate(columns)}
            ahead = {"batch_readahead": 1, "fragment_readahead": 1, "use_threads": False}
            for file in files:
                yield from (
                    batch.columns
                    for batch in parquet.dataset(file).scanner(columns=wanted, **ahead).to_batches()
                )

    @property
    def _version(self) -> int:
        """Of the table as its log is now. To load it takes a tenth of a second at 10,000 files."""
        assert self._table is not None
        return self._log.latest(self._table.version())

    def _current(self) -> DeltaTable:
        """The table as its log is now."""
        assert self._table is not None
        if self._version != self._table.version():
            self._table.update_incremental()
        return self._table

    def _files(self, column: str, values: pa.Array) -> pa.Table:
        """The files in the table whose `column` is one of `values`."""
        files = pa.table(self._current().get_add_actions(flatten=True))
        return files.filter(pc.is_in(files[column], values))

    def days(self) -> set[date]:
        """The days that the table holds rows of."""
        if self._table is None:
            return set()
        with _translated(f"read the log of {self.root}"):
            files = pa.table(self._current().get_add_actions(flatten=True))
        return set(files["partition.event_date"].to_pylist())

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

    def position(self, app_id: str) -> int | None:
        """The version last committed under `app_id`: for a day, when it was pulled (ms)."""
        if self._table is None:
            return None
        with _translated(f"read the log of {self.root}"):
            positions = self._log.positions(self._version)
            if positions is None:
                return self._current().transaction_version(app_id)
        return positions.get(app_id)

    @property
    def positions(self) -> Mapping[str, int]:
        """Every app id's version; empty where only deltalake could tell."""
        if self._table is None:
            return {}
        with _translated(f"read the log of {self.root}"):
            return self._log.positions(self._version) or {}

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
            with _translated(f"write in {self.root}"):
                if self._table is None or self._version != self._table.version():
                    self._table = self._open()  # as it is now that nobody else changes it
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
        with _translated(f"tidy up in {self.root}"):
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

    def batch_directory(self, batch_id: str) -> Path:
        """Where a batch's rejects and inputs are found once it has ended."""
        return self.root / "_batches" / batch_id

    @property
    def batches(self) -> list[str]:
        """The batches that have left something to say, the newest first."""
        folder = self.root / "_batches"
        with disk_error(f"read {folder}"):
            found = folder.iterdir() if folder.is_dir() else ()
            return sorted((path.name for path in found), reverse=True)

    def check_shrink(
        self, held: Mapping[date, Held], files: Sequence["StagedFile"], percent: float
    ) -> None:
        """P5: raise `Shrunk` if a day would keep less than `percent` of the rows it holds."""
        fresh = Counter[date]()
        for file in files:
            fresh[file.day] += file.rows
        worse = [
            f"{day} holds {there.rows:,} rows and would hold {fresh[day]:,}"
            for day, there in held.items()
            if fresh[day] < there.rows * percent / 100
        ]
        if worse:
            raise Shrunk(
                f"Mixpanel sent far fewer events than the table holds: {'; '.join(worse)}. "
                "Nothing was changed; if the loss is meant, run again with --force --allow-shrink."
            )

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
            with _translated(f"commit to {self.root}"):
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
        if self._table is None or not path.exists():
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
        if self._table is None or not paths:
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


def local_path(uri: str) -> Path:
    """The directory that `uri` names: a path or a `file://` URI; other places are refused."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise InputError(
            f"The dataset {uri} names another machine, {parts.netloc}. "
            "For a path on this one write file:///… or the path alone."
        )
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in uri:
        raise InputError(
            f"The dataset {parts.scheme}://… is not on a local disk. Give a path, or a file:// "
            f"URI; {parts.scheme}:// is not supported yet."
        )
    return Path(uri).expanduser() if uri.startswith("~/") else Path(uri)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    with disk_error(doing):
        try:
            yield
        except (DeltaError, OSError) as error:
            if found := OS_ERROR.search(str(error)):
                number = int(found[1])
                raise OSError(number, os.strerror(number)) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise
            first = str(error).strip().splitlines()[0]
            raise DatasetError(f"Cannot {doing}: {first}") from error
