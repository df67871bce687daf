"""A Delta log as files: what deltalake cannot be asked, and what it leaves undone.

It reads what the protocol lays down and writes no entry: those are deltalake's alone.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq  # noqa: TID251  # reads a checkpoint, writes nothing

from engine.disk import sync

ENTRY = re.compile(r"\d{20}\.(json|checkpoint\..*parquet)")
LEFTOVER = re.compile(r"(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)#\d+")


class Log:
    """The directory `_delta_log` of one table."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "_delta_log"
        self._positions: dict[str, int] = {}
        self._known = -1  # the version of the table that `_positions` tells of

    def has_table(self) -> bool:
        """Whether there is a table; deltalake, killed while it makes one, leaves a log of none."""
        return any(ENTRY.fullmatch(path.name) for path in self._files())

    def foreign(self) -> list[str]:
        """The names in a log of no table that deltalake did not leave there."""
        names = sorted(path.name for path in self._files())
        return [f"{self._directory.name}/{name}" for name in names if not LEFTOVER.fullmatch(name)]

    def tidy(self) -> None:
        """Remove what deltalake leaves when it is killed while it makes the table."""
        for path in self._files():
            if LEFTOVER.fullmatch(path.name):
                path.unlink()

    def has_checkpoint(self, version: int) -> bool:
        """Whether the commit of `version` wrote a checkpoint as well."""
        return self._path(version, "checkpoint.parquet").exists()

    def latest(self, version: int) -> int:
        """The newest version there is, from one on that there was."""
        while self._path(version + 1, "json").exists():
            version += 1
        return version

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
        if version == self._known:
            return self._positions
        found, entries = dict(self._positions), []
        for number in range(version, self._known, -1):
            if self.has_checkpoint(number):
                found = _in_checkpoint(self._path(number, "checkpoint.parquet"))
                break
            entries.append(self._path(number, "json"))
        try:
            for path in reversed(entries):
                found |= _in_entry(path)
        except (FileNotFoundError, ValueError):
            # Gone, for a checkpoint of a kind that other programs write; or cut off in a crash.
            return None
        self._positions, self._known = found, version
        return found

    def _path(self, version: int, kind: str) -> Path:
        return self._directory / f"{version:020}.{kind}"

    def _files(self) -> Iterator[Path]:
        return self._directory.iterdir() if self._directory.is_dir() else iter(())


def _in_entry(path: Path) -> dict[str, int]:
    """The positions that one commit put down."""
    with path.open("rb") as lines:
        actions = [json.loads(line) for line in lines if b'"txn"' in line]
    return {a["txn"]["appId"]: a["txn"]["version"] for a in actions if "txn" in a}


def _in_checkpoint(path: Path) -> dict[str, int]:
    """The positions that a checkpoint sums up."""
    entries = pc.drop_null(pq.ParquetFile(path).read(columns=["txn"])["txn"])
    names, versions = (pc.struct_field(entries, of).to_pylist() for of in ("appId", "version"))
    return dict(zip(names, versions, strict=True))


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
