"""What one entry or one checkpoint of a Delta log says, and the state that they add up to."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq  # noqa: TID251  # reads a checkpoint, writes nothing

from engine.dataset.storage.base import Storage

# The versions of the protocol, to read and to write, of the tables that this program makes.
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


@dataclass(frozen=True, slots=True)
class State:
    """What a log says of its table, except for the files: its actions, or what is read of them."""

    positions: dict[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the table requires no more of its readers than this program's tables do."""
        plain = [self.protocol.get(name, most + 1) <= most for name, most in PLAIN.items()]
        return all(plain) and "schemaString" in self.metadata

    def after(self, actions: Iterable[Mapping[str, Any]]) -> "State":
        """Return the state after commits with these actions."""
        positions, metadata, protocol = dict(self.positions), self.metadata, self.protocol
        for action in actions:
            if "txn" in action:
                positions[action["txn"]["appId"]] = action["txn"]["version"]
            metadata = action.get("metaData", metadata)
            protocol = action.get("protocol", protocol)
        return State(positions, metadata, protocol)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A commit by another program: its time in ms, the days whose rows it changed or removed."""

    version: int
    operation: str
    moment: int
    days: frozenset[str]
    removed: frozenset[str] = frozenset()


def actions_of(entry: bytes) -> Iterator[dict[str, Any]]:
    """Yield the actions of an entry; lines that cannot be read are skipped."""
    for line in entry.splitlines():
        with suppress(ValueError):
            action = orjson.loads(line)
            if isinstance(action, dict):
                yield action


def state_actions(entry: bytes) -> list[Any]:
    """Return the actions that change the State. ValueError for an entry that is empty or cut."""
    if not entry:
        raise ValueError("the entry is empty")
    return [json.loads(line) for line in entry.splitlines() if WANTED.search(line)]


def is_whole(entry: bytes) -> bool:
    """Whether an entry consists of actions, and of at least one."""
    try:
        found = [orjson.loads(line) for line in entry.splitlines() if line.strip()]
    except ValueError:
        return False
    return bool(found) and all(isinstance(action, dict) for action in found)


def paths_in(entry: bytes, kinds: Sequence[str] = ("add", "remove")) -> set[str]:
    """Return the files that an entry adds or removes; lines that cannot be read are skipped."""
    return {
        action[kind]["path"] for action in actions_of(entry) for kind in kinds if kind in action
    }


def changed_days(actions: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return "add" or "remove", and the day, of each file whose rows the actions change."""
    return [
        (kind, str((change.get("partitionValues") or {}).get("event_date")))
        for action in actions
        for kind, change in action.items()
        if kind in ("add", "remove") and change.get("dataChange", True)
    ]


def checkpoint_state(storage: Storage, path: str) -> State:
    """Return the state that a checkpoint, or a part of one, sums up."""
    with storage.open(path) as file:
        table = pq.ParquetFile(file).read(columns=IN_CHECKPOINT, use_threads=False)
    found = {name: pc.drop_null(table[name]) for name in table.column_names}
    names, versions = (pc.struct_field(found["txn"], of).to_pylist() for of in ("appId", "version"))
    metadata: dict[str, Any] = next(iter(found["metaData"].to_pylist()), {})
    protocol: dict[str, Any] = next(iter(found["protocol"].to_pylist()), {})
    if metadata:
        metadata["configuration"] = dict(metadata["configuration"] or ())
    return State(dict(zip(names, versions, strict=True)), metadata, protocol)


def checkpoint_paths(storage: Storage, path: str) -> set[str]:
    """Return the files that a checkpoint says are added or removed."""
    with storage.open(path) as file:
        table = pq.ParquetFile(file).read(columns=["add.path", "remove.path"], use_threads=False)
    return {
        found
        for column in table.columns
        for found in pc.struct_field(column, "path").to_pylist()
        if found
    }


def is_readable(storage: Storage, checkpoint: str) -> bool:
    """Whether all of a checkpoint can be read. OSError if the system cannot read the file."""
    try:
        with storage.open(checkpoint) as file:
            pq.ParquetFile(file).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise_if_of_the_system(error)
        return False
    return True


def raise_if_of_the_system(error: Exception) -> None:
    """Raise `error` again if it has an errno: Arrow's OSError for a damaged file has no errno."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
