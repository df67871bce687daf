"""A Delta log as files: what deltalake cannot be asked, and what it leaves undone.

It reads what the protocol lays down and writes no entry: those are deltalake's alone. What a crash
has left half written it finds here, and sets aside when it is told to.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq  # noqa: TID251  # reads a checkpoint, writes nothing

from engine.dataset.storage.local import set_aside, sync
from engine.errors import DatasetError

ENTRY = re.compile(r"\d{20}\.(json|checkpoint\..*parquet)")
LEFTOVER = re.compile(r"(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)#\d+")


# Versions of the protocol that the tables have which this program makes, to read and to write.
PLAIN = {"minReaderVersion": 1, "minWriterVersion": 2}
WANTED = re.compile(rb'"(?:txn|metaData|protocol)"')
IN_CHECKPOINT = [
    "txn.appId",
    "txn.version",
    "metaData.id",
    "metaData.schemaString",
    "metaData.configuration",
    *(f"protocol.{name}" for name in (*PLAIN, "readerFeatures", "writerFeatures")),
]


MOST_OTHERS = 200  # entries that are read to see what other programs did


@dataclass(frozen=True, slots=True)
class State:
    """What a log says of its table, but for the files.

    `metadata` and `protocol` are the actions of these names, or as much of them as is read here.
    """

    positions: dict[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the table asks nothing of its readers but what this program's tables do."""
        wants = [self.protocol.get(name, most + 1) <= most for name, most in PLAIN.items()]
        return all(wants) and "schemaString" in self.metadata

    def after(self, actions: Iterable[Mapping[str, Any]]) -> "State":
        """The state that commits with these actions made of it."""
        positions, metadata, protocol = dict(self.positions), self.metadata, self.protocol
        for action in actions:
            if "txn" in action:
                positions[action["txn"]["appId"]] = action["txn"]["version"]
            metadata = action.get("metaData", metadata)
            protocol = action.get("protocol", protocol)
        return State(positions, metadata, protocol)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A commit of another program: what it was, when, in ms, and the days that it changed.

    `taken`: those of which it removed rows.
    """

    version: int
    operation: str
    moment: int
    days: frozenset[str]
    taken: frozenset[str] = frozenset()


class Log:
    """The directory `_delta_log` of one table."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "_delta_log"
        self._state = State()
        self._known = -1  # the version of the table that `_state` tells of
        self.cut_off: list[int] = []  # the newest entries, as far as they cannot be read
        self.broken: list[Path] = []  # checkpoints that cannot be read

    def has_table(self) -> bool:
        """Whether there is a table; deltalake, killed while it makes one, leaves a log of none."""
        return any(ENTRY.fullmatch(name) for name in self._names())

    def foreign(self) -> list[str]:
        """The names in a log of no table that deltalake did not leave there."""
        names = sorted(self._names())
        return [f"{self._directory.name}/{name}" for name in names if not LEFTOVER.fullmatch(name)]

    def tidy(self) -> None:
        """Remove what deltalake leaves when it is killed while it makes the table."""
        for name in list(self._names()):
            if LEFTOVER.fullmatch(name):
                (self._directory / name).unlink()

    def has_checkpoint(self, version: int) -> bool:
        """Whether the commit of `version` wrote a checkpoint as well."""
        return self._path(version, "checkpoint.parquet").exists()

    def newest(self) -> int | None:
        """The newest version that can be read; None: of no entry.

        Entries after it that only a crash can have left, cut off or empty, are in `cut_off`.
        """
        self.cut_off = []
        version = self._top()
        while version is not None and self._is_cut_off(version):
            self.cut_off.append(version)
            version -= 1
            if not self._path(version, "json").exists() and not self.has_checkpoint(version):
                if version >= 0:
                    raise DatasetError(self._beyond_help(self._path(version + 1, "json")))
                version = None
        return version

    def _top(self) -> int | None:
        """The newest version there is, found from the last checkpoint on; None: of no entry."""
        try:
            hint = json.loads((self._directory / "_last_checkpoint").read_bytes())["version"]
            if self._path(hint, "json").exists():
                return self.latest(hint)
        except (OSError, ValueError, TypeError, KeyError):
            pass  # a log need not have it
        entries = [int(name[:20]) for name in self._names() if ENTRY.fullmatch(name)]
        return max(entries, default=None)

    def latest(self, version: int) -> int:
        """The newest version there is, from one on that there was."""
        while version + 1 not in self.cut_off and self._path(version + 1, "json").exists():
            version += 1
        return version

    def _is_cut_off(self, version: int) -> bool:
        """Whether the entry of `version` is needed and is not whole."""
        if self.has_checkpoint(version):
            return False
        try:
            return not _is_whole(self._path(version, "json"))
        except FileNotFoundError:
            return False

    @property
    def damage(self) -> str:
        """What a crash has left of the newest entries, as far as it was found; empty if nothing."""
        names = [self._path(version, "json").name for version in self.cut_off]
        names += [path.name for path in self.broken]
        return f"{', '.join(names)} in {self._directory} cannot be read" if names else ""

    def mend(self) -> list[str]:
        """Set aside what only a crash can have left; a sentence for each file.

        Nobody else may write while it runs. Raises DatasetError where a checkpoint that cannot be
        read is all there is.
        """
        told = []
        top = self.newest()
        if self.broken and top is not None:
            self.check(top)
        for path in [*(self._path(version, "json") for version in self.cut_off), *self.broken]:
            if not path.exists():
                continue
            what = "a checkpoint" if path in self.broken else "the newest entry"
            name = set_aside(path)
            told.append(f"{path}, {what} of the log, could not be read: it is now {name}.")
        if self.broken:
            with suppress(FileNotFoundError):
                set_aside(self._directory / "_last_checkpoint")
        if told:
            sync(self._directory)
        self.cut_off, self.broken, self._state, self._known = [], [], State(), -1
        return told

    def find_broken(self) -> bool:
        """Look whether the newest checkpoint can be read, wholly; or else the one before it, …"""
        for _, paths in sorted(self._checkpoints().items(), reverse=True):
            broken = [path for path in paths if not _is_readable(path)]
            self.broken += [path for path in broken if path not in self.broken]
            if not broken:
                break
        return bool(self.broken)

    def check(self, version: int) -> None:
        """Raise DatasetError if what the state of `version` is read from is gone or not whole.

        A crash does not leave that: later entries were written after it.
        """
        checkpoints = self._checkpoints()
        for number in range(version, -1, -1):
            if number in checkpoints and not set(checkpoints[number]) & set(self.broken):
                return
            path = self._path(number, "json")
            if not path.exists() and self.broken:
                path = self.broken[0]
            elif path.exists() and _is_whole(path):
                continue
            elif number == version and path.exists():
                raise DatasetError(
                    f"{path}, the newest entry of the log, cannot be read: it is being written, or "
                    "was cut off in a crash. Run again: the next run sets it aside and goes on."
                )
            raise DatasetError(self._beyond_help(path))

    def _checkpoints(self) -> dict[int, list[Path]]:
        """The files of the checkpoints of each version that has one."""
        found: dict[int, list[Path]] = {}
        for name in self._names():
            if ENTRY.fullmatch(name) and name.endswith(".parquet"):
                found.setdefault(int(name[:20]), []).append(self._directory / name)
        return found

    def _beyond_help(self, path: Path) -> str:
        return (
            f"{path} cannot be read, and the table needs it. Put it back from a backup, or give "
            "the flow another dataset and pull its days again."
        )

    def mentioned(self) -> set[str]:
        """Every file that the log says was added or removed, as far back as it goes."""
        found = set[str]()
        for name in self._names():
            path = self._directory / name
            if name.endswith(".json") and ENTRY.fullmatch(name):
                found.update(paths_in(path))
            elif name.endswith(".parquet") and ENTRY.fullmatch(name):
                columns = ["add.path", "remove.path"]
                with suppress(OSError, pa.ArrowException):
                    table = pq.ParquetFile(path).read(columns=columns, use_threads=False)
                    for column in table.columns:
                        found.update(filter(None, pc.struct_field(column, "path").to_pylist()))
        return found

    def entry_of(self, batch_id: str) -> Path | None:
        """The entry that committed a batch, if it is still there."""
        wanted = json.dumps(batch_id).encode()
        for name in sorted(self._names(), reverse=True):
            path = self._directory / name
            if name.endswith(".json") and ENTRY.fullmatch(name):
                data = path.read_bytes()
                if wanted in data and any(
                    action.get("commitInfo", {}).get("batchId") == batch_id
                    for action in _actions(data)
                ):
                    return path
        return None

    def mark(self, version: int) -> tuple[int, ...] | None:
        """What tells the entry of `version` from another one of that name; None if it is gone."""
        with suppress(FileNotFoundError):
            found = self._path(version, "json").stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def sync(self, version: int) -> None:
        """Force the entry of `version` to the disk, and the checkpoint if it made one."""
        entry, checkpoint = self._path(version, "json"), self._path(version, "checkpoint.parquet")
        for path in (entry, checkpoint, self._directory / "_last_checkpoint"):
            with suppress(FileNotFoundError):
                sync(path)
        sync(self._directory)

    def positions(self, version: int) -> Mapping[str, int] | None:
        """Every app id's position as of `version` of the table; None if only deltalake can tell.

        deltalake tells of one at a time, and reads the log for each of them anew.
        """
        state = self.state(version)
        return None if state is None else state.positions

    def state(self, version: int) -> State | None:
        """What the log says as of `version`; None if only deltalake can tell."""
        if version == self._known:
            return self._state
        found, entries = self._state, list[Path]()
        try:
            for number in range(version, self._known, -1):
                if checkpoint := self._checkpoint(number):
                    found = checkpoint
                    break
                entries.append(self._path(number, "json"))
            found = found.after(chain.from_iterable(map(_in_entry, reversed(entries))))
        except FileNotFoundError:  # gone, for a checkpoint of a kind that other programs write
            summed_up = self._from_parts(version)
            if summed_up is None:
                return None
            found = summed_up
        except ValueError:  # cut off
            return None
        self._state, self._known = found, version
        return found

    def _from_parts(self, version: int) -> State | None:
        """The state by the newest checkpoint of any kind, and what came after it."""
        at = max((number for number in self._checkpoints() if number <= version), default=None)
        if at is None:
            return None
        try:
            found = State()
            for path in self._checkpoints()[at]:
                part = _in_checkpoint(path)
                found = State(
                    found.positions | part.positions,
                    part.metadata or found.metadata,
                    part.protocol or found.protocol,
                )
            entries = (self._path(number, "json") for number in range(at + 1, version + 1))
            return found.after(chain.from_iterable(map(_in_entry, entries)))
        except (OSError, ValueError, pa.ArrowException):  # deltalake may, or says why not
            return None

    def others(self, version: int, most: int = MOST_OTHERS) -> list["Foreign"]:
        """The commits of other programs up to `version`, the newest first, as far as entries go.

        Each with the days whose rows it changed, but for those that this program wrote since.
        """
        found, written = list[Foreign](), set[str]()
        for number in range(version, max(-1, version - most), -1):
            try:
                actions = list(_actions(self._path(number, "json").read_bytes()))
            except FileNotFoundError:
                break
            infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
            info: dict[str, Any] = next(infos, {})
            changes = [
                (kind, str((change.get("partitionValues") or {}).get("event_date")))
                for action in actions
                for kind, change in action.items()
                if kind in ("add", "remove") and change.get("dataChange", True)
            ]
            days = {day for _, day in changes}
            if "batchId" in info:
                written |= days
            elif "operation" in info:
                moment = info.get("timestamp") or 0
                left = frozenset(days - written)
                taken = left & {day for kind, day in changes if kind == "remove"}
                found.append(Foreign(number, str(info["operation"]), moment, left, taken))
        return found

    def _checkpoint(self, version: int) -> State | None:
        """What the checkpoint of `version` sums up; None without one that can be read."""
        path = self._path(version, "checkpoint.parquet")
        if not path.exists() or path in self.broken:
            return None
        try:
            return _in_checkpoint(path)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            _raise_if_of_the_system(error)
            self.broken.append(path)  # the entries say what it summed up
            return None

    def _path(self, version: int, kind: str) -> Path:
        return self._directory / f"{version:020}.{kind}"

    def _names(self) -> Iterator[str]:
        """The names in the log, one after the other: it may hold thousands."""
        with suppress(FileNotFoundError), os.scandir(self._directory) as found:
            yield from (entry.name for entry in found)


def _in_entry(path: Path) -> list[Any]:
    """The actions of one commit, but for files. An entry of nothing is none: ValueError."""
    with path.open("rb") as lines:
        found = [json.loads(line) for line in lines if WANTED.search(line)]
        if not found and not lines.tell():
            raise ValueError(f"{path} is empty")
        return found


def _is_whole(path: Path) -> bool:
    """Whether an entry holds actions, and nothing else."""
    try:
        found = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except ValueError:
        return False
    return bool(found) and all(isinstance(action, dict) for action in found)


def _is_readable(checkpoint: Path) -> bool:
    try:
        pq.ParquetFile(checkpoint).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        _raise_if_of_the_system(error)
        return False
    return True


def _raise_if_of_the_system(error: Exception) -> None:
    """Arrow says OSError of a damaged file too, but then without a number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _actions(data: bytes) -> Iterator[dict[str, Any]]:
    """The actions of an entry, as far as it can be read."""
    for line in data.splitlines():
        with suppress(ValueError):
            action = orjson.loads(line)
            if isinstance(action, dict):
                yield action


def paths_in(entry: Path, kinds: Iterable[str] = ("add", "remove")) -> set[str]:
    """The files that an entry of the log adds or removes, as far as it can be read."""
    wanted = tuple(kinds)
    return {
        action[kind]["path"]
        for action in _actions(entry.read_bytes())
        for kind in wanted
        if kind in action
    }


def _in_checkpoint(path: Path) -> State:
    """What a checkpoint sums up."""
    table = pq.ParquetFile(path).read(columns=IN_CHECKPOINT, use_threads=False)
    found = {name: pc.drop_null(table[name]) for name in table.column_names}
    names, versions = (pc.struct_field(found["txn"], of).to_pylist() for of in ("appId", "version"))
    metadata: dict[str, Any] = next(iter(found["metaData"].to_pylist()), {})
    protocol: dict[str, Any] = next(iter(found["protocol"].to_pylist()), {})
    if metadata:
        metadata["configuration"] = dict(metadata["configuration"] or ())
    return State(dict(zip(names, versions, strict=True)), metadata, protocol)


def differences(
    have: Mapping[str, Any], want: Mapping[str, Any], known: set[str] | None = None
) -> list[str]:
    """How two Delta schemas differ, a phrase a column.

    A column of `have` alone that is not among `known` (None: all are) is none, if it may be null.
    """
    old, new = columns_of(have), columns_of(want)
    may_be_null = set() if known is None else columns_of(have, nullable=True).keys() - known
    return (
        [
            f"the table has {name} ({old[name]}), the schema has not"
            for name in old
            if name not in new and name not in may_be_null
        ]
        + [
            f"the schema has {name} ({new[name]}), the table has not"
            for name in new
            if name not in old
        ]
        + [
            f"{name} is {old[name]} in the table and {new[name]} in the schema"
            for name in old
            if name in new and old[name] != new[name]
        ]
    )


def columns_of(
    struct: Mapping[str, Any], prefix: str = "", *, nullable: bool = False
) -> dict[str, str]:
    """Every column of a Delta schema, nested ones with their dotted names, and its type.

    `nullable`: only those that may be null, and whose parents may be.
    """
    columns: dict[str, str] = {}
    for column in struct["fields"]:
        kind, name = column["type"], prefix + column["name"]
        if nullable and not column.get("nullable", True):
            continue
        if isinstance(kind, dict) and kind["type"] == "struct":
            columns |= columns_of(kind, f"{name}.", nullable=nullable)
        else:
            columns[name] = kind if isinstance(kind, str) else json.dumps(kind)
    return columns
