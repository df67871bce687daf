"""A Delta log as files: what deltalake cannot be asked, and what it leaves undone.

It reads what the protocol lays down and writes no entry: those are deltalake's alone.
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

import pyarrow.compute as pc
import pyarrow.parquet as pq  # noqa: TID251  # reads a checkpoint, writes nothing

from engine.disk import sync

ENTRY = re.compile(r"\d{20}\.(json|checkpoint\..*parquet)")
LEFTOVER = re.compile(r"(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)#\d+")


# Versions of the protocol that the tables have which this program makes, to read and to write.
PLAIN = {"minReaderVersion": 1, "minWriterVersion": 2}
WANTED = re.compile(rb'"(?:txn|metaData|protocol)"')
IN_CHECKPOINT = [
    "txn.appId",
    "txn.version",
    "metaData.schemaString",
    "metaData.configuration",
    *(f"protocol.{name}" for name in PLAIN),
]


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


class Log:
    """The directory `_delta_log` of one table."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "_delta_log"
        self._state = State()
        self._known = -1  # the version of the table that `_state` tells of

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
        while self._path(version + 1, "json").exists():
            version += 1
        return version

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
                if self.has_checkpoint(number):
                    found = _in_checkpoint(self._path(number, "checkpoint.parquet"))
                    break
                entries.append(self._path(number, "json"))
            found = found.after(chain.from_iterable(map(_in_entry, reversed(entries))))
        except (FileNotFoundError, ValueError):
            # Gone, for a checkpoint of a kind that other programs write; or cut off in a crash.
            return None
        self._state, self._known = found, version
        return found

    def _path(self, version: int, kind: str) -> Path:
        return self._directory / f"{version:020}.{kind}"

    def _names(self) -> Iterator[str]:
        """The names in the log, one after the other: it may hold thousands."""
        with suppress(FileNotFoundError), os.scandir(self._directory) as found:
            yield from (entry.name for entry in found)


def _in_entry(path: Path) -> list[Any]:
    """The actions of one commit, but for files."""
    with path.open("rb") as lines:
        return [json.loads(line) for line in lines if WANTED.search(line)]


def _in_checkpoint(path: Path) -> State:
    """What a checkpoint sums up. pa.ArrowInvalid is a ValueError."""
    table = pq.ParquetFile(path).read(columns=IN_CHECKPOINT, use_threads=False)
    found = {name: pc.drop_null(table[name]) for name in table.column_names}
    names, versions = (pc.struct_field(found["txn"], of).to_pylist() for of in ("appId", "version"))
    metadata: dict[str, Any] = next(iter(found["metaData"].to_pylist()), {})
    protocol: dict[str, Any] = next(iter(found["protocol"].to_pylist()), {})
    if metadata:
        metadata["configuration"] = dict(metadata["configuration"] or ())
    return State(dict(zip(names, versions, strict=True)), metadata, protocol)


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> list[str]:
    """How two Delta schemas differ, a phrase a column."""
    old, new = _flat(have), _flat(want)
    return (
        [
            f"the table has {name} ({old[name]}), the schema has not"
            for name in old
            if name not in new
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


def _flat(struct: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every column of a Delta schema, nested ones with their dotted names, and its type."""
    columns: dict[str, str] = {}
    for column in struct["fields"]:
        kind, name = column["type"], prefix + column["name"]
        if isinstance(kind, dict) and kind["type"] == "struct":
            columns |= _flat(kind, f"{name}.")
        else:
            columns[name] = kind if isinstance(kind, str) else json.dumps(kind)
    return columns
