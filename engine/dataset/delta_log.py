"""A Delta log as files: what deltalake does not report, and what it leaves unfinished.

Only deltalake writes entries. Here they are read by the Delta protocol, and entries and checkpoints
that a crash has cut off are found and, on request, set aside.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import pyarrow as pa

from engine.dataset import layout, log_entries
from engine.dataset.log_entries import Foreign, State, actions_of, is_whole
from engine.dataset.storage.base import Storage, read_bytes
from engine.errors import DatasetError

ENTRY = re.compile(r"\d{20}\.(json|checkpoint\..*parquet)")
LEFTOVER = re.compile(r"(\d{20}\.(json|checkpoint\.parquet)|_last_checkpoint)#\d+")
LAST_CHECKPOINT = f"{layout.LOG}/_last_checkpoint"
MOST_OTHERS = 200  # entries that are read to find the commits of other programs


class Log:
    """The Delta log of one table."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._state = State()
        self._state_version = -1  # the version of the table that `_state` is of
        self.cut_off: list[int] = []  # the newest versions, if their entries cannot be read
        self.broken: list[str] = []  # checkpoints that cannot be read

    def has_table(self) -> bool:
        """Whether there is a table: deltalake, killed while it makes one, leaves an empty log."""
        return any(ENTRY.fullmatch(name) for name in self._names())

    def foreign_names(self) -> list[str]:
        """Return the paths in the log of no table that deltalake did not leave there."""
        names = sorted(self._names())
        return [f"{layout.LOG}/{name}" for name in names if not LEFTOVER.fullmatch(name)]

    def tidy(self) -> None:
        """Delete what deltalake leaves when it is killed while it makes the table."""
        left = [f"{layout.LOG}/{name}" for name in self._names() if LEFTOVER.fullmatch(name)]
        self._storage.delete(left)

    def has_checkpoint(self, version: int) -> bool:
        """Whether the commit of `version` wrote a checkpoint as well."""
        return self._exists(_checkpoint(version))

    def newest(self) -> int | None:
        """Return the newest version that can be read, or None; later ones go to `cut_off`."""
        self.cut_off = []
        version = self._top()
        while version is not None and self._is_cut_off(version):
            self.cut_off.append(version)
            version -= 1
            if not self._exists(_entry(version)) and not self.has_checkpoint(version):
                if version >= 0:
                    raise DatasetError(self._beyond_help(_entry(version + 1)))
                version = None
        return version

    def _top(self) -> int | None:
        """Return the newest version, from the last checkpoint on; None if there is no entry."""
        try:
            hint = json.loads(read_bytes(self._storage, LAST_CHECKPOINT))["version"]
            if self._exists(_entry(hint)):
                return self.latest(hint)
        except (OSError, ValueError, TypeError, KeyError):
            pass  # the hint is optional
        entries = [int(name[:20]) for name in self._names() if ENTRY.fullmatch(name)]
        return max(entries, default=None)

    def latest(self, version: int) -> int:
        """Return the newest version; `version` is one that exists or existed."""
        while version + 1 not in self.cut_off and self._exists(_entry(version + 1)):
            version += 1
        return version

    def mark(self, version: int) -> tuple[object, ...] | None:
        """Return a value that identifies the entry of `version`; None if it is missing."""
        found = self._storage.stat(_entry(version))
        return found.mark if found else None

    def sync(self, version: int) -> None:
        """Force the entry of `version`, and its checkpoint if there is one, to the disk (P2)."""
        self._storage.sync([_entry(version), _checkpoint(version), LAST_CHECKPOINT])

    def _is_cut_off(self, version: int) -> bool:
        """Whether the entry of `version` is needed and is not whole."""
        if self.has_checkpoint(version):
            return False
        try:
            return not is_whole(read_bytes(self._storage, _entry(version)))
        except FileNotFoundError:
            return False

    @property
    def damage(self) -> str:
        """What was found damaged, as the first part of a sentence; empty if nothing was."""
        paths = [*map(_entry, self.cut_off), *self.broken]
        names = ", ".join(path.rpartition("/")[2] for path in paths)
        return f"{names} in {self._place(layout.LOG)} cannot be read" if names else ""

    def mend(self) -> list[str]:
        """Set aside what a crash left, under the caller's lock; return a sentence for each file.

        DatasetError if the table cannot be read without a file that is set aside.
        """
        notices = []
        top = self.newest()
        if self.broken and top is not None:
            self.check(top)
        for path in [*map(_entry, self.cut_off), *self.broken]:
            with suppress(FileNotFoundError):
                what = "a checkpoint" if path in self.broken else "the newest entry"
                name = self._storage.set_aside(path)
                notices.append(
                    f"{self._place(path)}, {what} of the log, could not be read: it is now {name}."
                )
        if self.broken:
            with suppress(FileNotFoundError):
                self._storage.set_aside(LAST_CHECKPOINT)
        if notices:
            self._storage.sync([LAST_CHECKPOINT])
        self.cut_off, self.broken = [], []
        self._state, self._state_version = State(), -1
        return notices

    def find_broken(self) -> bool:
        """Add checkpoints that cannot be read to `broken`, the newest first; return if any are."""
        for _, paths in sorted(self._checkpoints().items(), reverse=True):
            broken = [path for path in paths if not log_entries.is_readable(self._storage, path)]
            self.broken += [path for path in broken if path not in self.broken]
            if not broken:
                break
        return bool(self.broken)

    def check(self, version: int) -> None:
        """Raise DatasetError if a file that the state of `version` needs is missing or cut off."""
        checkpoints = self._checkpoints()
        for number in range(version, -1, -1):
            if number in checkpoints and not set(checkpoints[number]) & set(self.broken):
                return
            path = _entry(number)
            exists = self._exists(path)
            if not exists and self.broken:
                path = self.broken[0]
            elif exists and is_whole(read_bytes(self._storage, path)):
                continue
            elif number == version and exists:
                raise DatasetError(
                    f"{self._place(path)}, the newest entry of the log, cannot be read: it is "
                    "being written, or was cut off in a crash. Run again: the next run sets it "
                    "aside and goes on."
                )
            raise DatasetError(self._beyond_help(path))

    def _beyond_help(self, path: str) -> str:
        return (
            f"{self._place(path)} cannot be read, and the table needs it. Put it back from a "
            "backup, or give the flow another dataset and pull its days again."
        )

    def mentioned(self) -> set[str]:
        """Return every file that an entry or a checkpoint says was added or removed."""
        found = set[str]()
        for path in self._entries():
            if path.endswith(".json"):
                found |= log_entries.paths_in(read_bytes(self._storage, path))
            else:
                with suppress(OSError, pa.ArrowException):
                    found |= log_entries.checkpoint_paths(self._storage, path)
        return found

    def entry_of(self, batch_id: str) -> bytes | None:
        """Return the entry that committed a batch, if it is still there."""
        wanted = json.dumps(batch_id).encode()
        for path in sorted(self._entries(), reverse=True):
            if path.endswith(".json"):
                data = read_bytes(self._storage, path)
                if wanted in data and any(
                    action.get("commitInfo", {}).get("batchId") == batch_id
                    for action in actions_of(data)
                ):
                    return data
        return None

    def state(self, version: int) -> State | None:
        """Return the state at `version`; None if only deltalake can read it.

        deltalake returns the position of one app id at a time, and reads the log for each anew.
        """
        if version == self._state_version:
            return self._state
        found, entries = self._state, list[str]()
        try:
            for number in range(version, self._state_version, -1):
                if checkpoint := self._checkpoint_state(number):
                    found = checkpoint
                    break
                entries.append(_entry(number))
            found = self._after(found, reversed(entries))
        except FileNotFoundError:  # gone, for a checkpoint of a kind that other programs write
            summed_up = self._from_parts(version)
            if summed_up is None:
                return None
            found = summed_up
        except ValueError:  # cut off
            return None
        self._state, self._state_version = found, version
        return found

    def _after(self, state: State, entries: Iterator[str]) -> State:
        actions = (log_entries.state_actions(read_bytes(self._storage, path)) for path in entries)
        return state.after(chain.from_iterable(actions))

    def _from_parts(self, version: int) -> State | None:
        """Return the state by the newest checkpoint of any kind, and the entries after it."""
        at = max((number for number in self._checkpoints() if number <= version), default=None)
        if at is None:
            return None
        try:
            found = State()
            for path in self._checkpoints()[at]:
                part = log_entries.checkpoint_state(self._storage, path)
                found = State(
                    found.positions | part.positions,
                    part.metadata or found.metadata,
                    part.protocol or found.protocol,
                )
            return self._after(found, map(_entry, range(at + 1, version + 1)))
        except (OSError, ValueError, pa.ArrowException):  # deltalake may read it, or says why not
            return None

    def others(self, version: int) -> list[Foreign]:
        """Return the commits of other programs in the last MOST_OTHERS entries, the newest first.

        Their days are those that they changed and that this program has not written since.
        """
        found, written = list[Foreign](), set[str]()
        for number in range(version, max(-1, version - MOST_OTHERS), -1):
            try:
                actions = list(actions_of(read_bytes(self._storage, _entry(number))))
            except FileNotFoundError:
                break
            info: dict[str, Any] = next(
                (each["commitInfo"] for each in actions if "commitInfo" in each), {}
            )
            changes = log_entries.changed_days(actions)
            days = {day for _, day in changes}
            if "batchId" in info:
                written |= days
            elif "operation" in info:
                left = frozenset(days - written)
                removed = left & {day for kind, day in changes if kind == "remove"}
                moment = info.get("timestamp") or 0
                found.append(Foreign(number, str(info["operation"]), moment, left, removed))
        return found

    def _checkpoint_state(self, version: int) -> State | None:
        """Return the state that the checkpoint of `version` sums up; None without a whole one."""
        path = _checkpoint(version)
        if path in self.broken or not self._exists(path):
            return None
        try:
            return log_entries.checkpoint_state(self._storage, path)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            log_entries.raise_if_of_the_system(error)
            self.broken.append(path)  # the entries say what it summed up
            return None

    def _checkpoints(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for path in self._entries():
            if path.endswith(".parquet"):
                found.setdefault(int(path.rpartition("/")[2][:20]), []).append(path)
        return found

    def _entries(self) -> Iterator[str]:
        """Yield the paths of the entries and checkpoints, in no order."""
        return (f"{layout.LOG}/{name}" for name in self._names() if ENTRY.fullmatch(name))

    def _names(self) -> Iterator[str]:
        """Yield the names in the log one after the other: it may hold thousands."""
        return (entry.name for entry in self._storage.entries(layout.LOG))

    def _exists(self, path: str) -> bool:
        return self._storage.stat(path) is not None

    def _place(self, path: str) -> str:
        return str(self._storage.root / path)


def _entry(version: int) -> str:
    return f"{layout.LOG}/{version:020}.json"


def _checkpoint(version: int) -> str:
    return f"{layout.LOG}/{version:020}.checkpoint.parquet"
